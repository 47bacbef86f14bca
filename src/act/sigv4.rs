//! AWS Signature Version 4, as "Create a signed AWS API request" of the IAM User Guide has it: header signatures of requests
//! whose body is known.

use std::fmt::Write as _;

use hmac::{Hmac, KeyInit, Mac};
use reqwest::Url;
use sha2::{Digest, Sha256};

use super::template::percent_encode;
use crate::model::{Timestamp, hex};

/// An access key.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct AccessKey {
    pub(super) id: String,
    pub(super) secret: String,
    /// Of credentials that run out.
    pub(super) session_token: Option<String>,
}

/// Secrets are shown nowhere.
impl std::fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A request to be signed.
#[derive(Debug)]
pub(super) struct Unsigned<'a> {
    pub(super) method: &'a str,
    pub(super) url: &'a Url,
    /// Empty where there is none.
    pub(super) content_type: &'a str,
    pub(super) body: &'a [u8],
}

/// The headers that sign a request for a region's service at `now`.
pub(super) fn sign(
    request: &Unsigned<'_>,
    key: &AccessKey,
    region: &str,
    service: &str,
    now: Timestamp,
) -> Vec<(&'static str, String)> {
    let (date, time) = date_and_time(now);
    let body_hash = hex(&Sha256::digest(request.body));
    let mut headers = vec![("host", host_of(request.url)), ("x-amz-date", time.clone())];
    if !request.content_type.is_empty() {
        headers.push(("content-type", request.content_type.to_owned()));
    }
    if let Some(token) = &key.session_token {
        headers.push(("x-amz-security-token", token.clone()));
    }
    if service == "s3" {
        headers.push(("x-amz-content-sha256", body_hash.clone()));
    }
    headers.sort_unstable();
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let mut canonical = format!("{}\n{}\n{}\n", request.method, path_of(request.url, service), query_of(request.url));
    for (name, value) in &headers {
        let _ = writeln!(canonical, "{name}:{}", value.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    let _ = write!(canonical, "\n{names}\n{body_hash}");
    let scope = format!("{date}/{region}/{service}/aws4_request");
    let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
    let first = format!("AWS4{}", key.secret).into_bytes();
    let signing_key = [date.as_str(), region, service, "aws4_request"]
        .into_iter()
        .fold(first, |key, part| hmac_sha256(&key, part.as_bytes()));
    let signature = hex(&hmac_sha256(&signing_key, to_sign.as_bytes()));
    headers.retain(|(name, _)| name.starts_with("x-amz-"));
    let credential = format!("{}/{scope}", key.id);
    let authorization =
        format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}");
    headers.push(("authorization", authorization));
    headers
}

/// `20150830` and `20150830T123600Z`.
fn date_and_time(now: Timestamp) -> (String, String) {
    let text: String = now.to_string().chars().filter(|c| !matches!(c, '-' | ':')).collect();
    let seconds = text.split('.').next().unwrap_or_default();
    (seconds.chars().take(8).collect(), format!("{}Z", seconds.trim_end_matches('Z')))
}

fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Each segment is encoded once more than it is in the request, but for S3.
fn path_of(url: &Url, service: &str) -> String {
    if service == "s3" {
        return url.path().to_owned();
    }
    url.path().split('/').map(percent_encode).collect::<Vec<_>>().join("/")
}

fn query_of(url: &Url) -> String {
    let mut pairs: Vec<(String, String)> =
        url.query_pairs().map(|(name, value)| (percent_encode(&name), percent_encode(&value))).collect();
    pairs.sort_unstable();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 30 August 2015, 12:36 UTC: the moment of AWS's test suite, whose key and scope are used too.
    const AT: Timestamp = Timestamp(1_440_938_160_000);

    fn check(method: &str, url: &str, content_type: &str, body: &str, token: Option<&str>, wanted: &str) {
        let url = Url::parse(url).expect("an address");
        let key = AccessKey {
            id: "AKIDEXAMPLE".to_owned(),
            secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
            session_token: token.map(str::to_owned),
        };
        let request = Unsigned { method, url: &url, content_type, body: body.as_bytes() };
        let headers = sign(&request, &key, "us-east-1", "service", AT);
        let (_, authorization) = headers.last().expect("the authorization");
        assert!(authorization.ends_with(&format!("Signature={wanted}")), "{url}: {authorization}");
        assert_eq!(headers.iter().any(|(name, _)| *name == "x-amz-security-token"), token.is_some());
    }

    #[test]
    fn signs_as_the_test_suite_of_aws_has_it() {
        // "AWS Signature Version 4 Test Suite": get-vanilla, get-vanilla-query-order-key-case, post-vanilla,
        // post-x-www-form-urlencoded.
        let host = "https://example.amazonaws.com";
        let vanilla = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
        check("GET", &format!("{host}/"), "", "", None, vanilla);
        let query = "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500";
        check("GET", &format!("{host}/?Param2=value2&Param1=value1"), "", "", None, query);
        let post = "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b";
        check("POST", &format!("{host}/"), "", "", None, post);
        let form = "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a";
        check("POST", &format!("{host}/"), "application/x-www-form-urlencoded", "Param1=value1", None, form);
        // By botocore 1.40's SigV4Auth.
        let odd = "https://example.amazonaws.com:8443/a%20b/c%2Fd?z=%20x&a=%C3%A9&a=";
        let by_botocore = "0274377e2bcdadec7a49f644a8026a18d0c5c5f6d78ea2c4d429b3ae13654fea";
        check("GET", odd, "", "", Some("AQoDYXdzEPT"), by_botocore);
    }
}

//! Access keys and tokens of clouds, from where the settings say and from nowhere else.
//!
//! The machine's metadata service is called only where the settings say so, at its one fixed address.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD};
use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder, Url};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde::Deserialize;
use serde_json::json;

use super::super::cloud_settings::{AwsCredentials, AzureCredentials, CloudAuth, GcpCredentials};
use super::super::http::{ApiClient, METADATA_SERVICE};
use super::super::sign::{SignError, read_secret};
use super::super::sigv4::AccessKey;
use super::super::{ActError, BuildError};
use super::{Authenticator, Given, LASTS};
use crate::model::{Millis, Timestamp};

/// How long a token is that we ask for by a signed word of ours, in seconds; the most that Google takes.
const GRANT_SECONDS: i64 = 3600;
/// Where Azure gives tokens.
const AZURE_AUTHORITY: &str = "https://login.microsoftonline.com";

/// How an address is called that only a key file names, and where the metadata service is.
#[derive(Debug)]
pub(super) struct Reach {
    name: String,
    timeout: Millis,
    allow_local: bool,
    metadata: Url,
}

impl Reach {
    pub(super) fn new(name: &str, timeout: Millis, allow_local: bool) -> Reach {
        let metadata = Url::parse(METADATA_SERVICE).expect("a constant of ours");
        Reach { name: name.to_owned(), timeout, allow_local, metadata }
    }
}

/// Who gives tokens or keys, where that is known beforehand.
pub(super) fn giver(
    cloud: &CloudAuth,
    name: &str,
    timeout: Millis,
    allow_local: bool,
) -> Result<Option<ApiClient>, BuildError> {
    let url = match cloud {
        CloudAuth::AwsSigv4 { credentials: AwsCredentials::File { .. }, .. }
        | CloudAuth::Gcp { credentials: GcpCredentials::File(_), .. } => return Ok(None),
        CloudAuth::AwsSigv4 { credentials: AwsCredentials::WebIdentity { sts_url, .. }, .. } => Some(sts_url.clone()),
        CloudAuth::Azure { credentials, .. } => credentials.token_url(),
        CloudAuth::AwsSigv4 { .. } | CloudAuth::Gcp { .. } => None,
    };
    match url {
        Some(url) => ApiClient::new(name, &url, timeout, allow_local).map(Some),
        None => ApiClient::for_metadata(name, timeout).map(Some),
    }
}

impl Authenticator {
    /// The key to sign a request with.
    pub(super) async fn access_key(
        &self,
        api: &ApiClient,
        credentials: &AwsCredentials,
        now: Timestamp,
    ) -> Result<AccessKey, ActError> {
        if let AwsCredentials::File { path, profile } = credentials {
            return key_of_file(path, profile).await.map_err(|reason| api.unavailable(reason));
        }
        match self.given(now).await? {
            Given::Key(key) => Ok(key),
            Given::Token(_) => Err(api.refused("a token is no access key".to_owned())),
        }
    }

    /// Asks for what is given for a while.
    pub(super) async fn ask_cloud(&self, cloud: &CloudAuth, now: Timestamp) -> Result<(Given, Timestamp), ActError> {
        let giver = match (&self.giver, cloud) {
            (Some(giver), _) => giver,
            (None, CloudAuth::Gcp { credentials: GcpCredentials::File(file), scopes }) => {
                return self.ask_by_key(file, scopes, now).await;
            }
            (None, _) => {
                let reason = "nobody gives tokens for it".to_owned();
                return Err(ActError::Refused { target: self.reach.name.clone(), reason });
            }
        };
        match cloud {
            CloudAuth::AwsSigv4 { credentials: AwsCredentials::WebIdentity { role_arn, token_file, .. }, .. } => {
                let token = read_secret(token_file).await;
                let token = token.map_err(|error: SignError| giver.unavailable(error.to_string()))?;
                assume_role(giver, role_arn, &token, now).await
            }
            CloudAuth::AwsSigv4 { .. } => self.ask_aws_metadata(giver, now).await,
            CloudAuth::Gcp { scopes, .. } => {
                let path = "/computeMetadata/v1/instance/service-accounts/default/token";
                let mut url = self.metadata_at(path);
                if !scopes.is_empty() {
                    url.query_pairs_mut().append_pair("scopes", &scopes.join(","));
                }
                let request = giver.request_to(Method::GET, url).header("metadata-flavor", "Google");
                self.token(giver, request, &[], now).await
            }
            CloudAuth::Azure { credentials, scope } => self.ask_azure(giver, credentials, scope, now).await,
        }
    }

    async fn ask_azure(
        &self,
        giver: &ApiClient,
        credentials: &AzureCredentials,
        scope: &str,
        now: Timestamp,
    ) -> Result<(Given, Timestamp), ActError> {
        let unread = |error: SignError| giver.unavailable(error.to_string());
        let (client_id, proof) = match credentials {
            AzureCredentials::Metadata { client_id } => {
                let mut url = self.metadata_at("/metadata/identity/oauth2/token");
                let resource = scope.strip_suffix(".default").unwrap_or(scope);
                url.query_pairs_mut().append_pair("api-version", "2018-02-01").append_pair("resource", resource);
                if let Some(id) = client_id {
                    url.query_pairs_mut().append_pair("client_id", id);
                }
                let request = giver.request_to(Method::GET, url).header("metadata", "true");
                return self.token(giver, request, &[], now).await;
            }
            AzureCredentials::ClientSecret { client_id, client_secret_file, .. } => {
                let secret = read_secret(client_secret_file).await.map_err(unread)?;
                (client_id, vec![("client_secret", secret)])
            }
            AzureCredentials::WorkloadIdentity { client_id, token_file, .. } => {
                let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".to_owned();
                let token = read_secret(token_file).await.map_err(unread)?;
                (client_id, vec![("client_assertion", token), ("client_assertion_type", kind)])
            }
        };
        let secret = proof[0].1.clone();
        let mut form = vec![
            ("grant_type", "client_credentials".to_owned()),
            ("client_id", client_id.clone()),
            ("scope", scope.to_owned()),
        ];
        form.extend(proof);
        self.token(giver, giver.request(Method::POST).form(&form), &[secret], now).await
    }

    /// A token of Google for a word signed with a service account's key (RFC 7523).
    async fn ask_by_key(&self, file: &Path, scopes: &[String], now: Timestamp) -> Result<(Given, Timestamp), ActError> {
        let target = self.reach.name.clone();
        let wrong = |reason: String| ActError::Unavailable { target: target.clone(), reason, retry_after: None };
        let key = read_secret(file).await.map_err(|error| wrong(error.to_string()))?;
        let shown = file.display();
        let key: ServiceAccountKey = serde_json::from_str(&key).map_err(|error| {
            wrong(format!("secret file {shown}: not a service account's key: line {}", error.line()))
        })?;
        let built = ApiClient::new(&self.reach.name, &key.token_uri, self.reach.timeout, self.reach.allow_local);
        let giver = built.map_err(|error| wrong(format!("secret file {shown}: token_uri: {}", error.reason)))?;
        let seconds = now.0.div_euclid(1000);
        let claims = json!({
            "iss": key.client_email, "scope": scopes.join(" "), "aud": key.token_uri, "iat": seconds,
            "exp": seconds + GRANT_SECONDS,
        });
        let grant =
            rs256(&key.private_key, &claims).map_err(|reason| wrong(format!("secret file {shown}: {reason}")))?;
        let form = [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", grant.as_str())];
        let request = giver.request(Method::POST).form(&form);
        self.token(&giver, request, std::slice::from_ref(&grant), now).await
    }

    async fn ask_aws_metadata(&self, giver: &ApiClient, now: Timestamp) -> Result<(Given, Timestamp), ActError> {
        let session = giver.request_to(Method::PUT, self.metadata_at("/latest/api/token"));
        let session = giver.send(session.header("x-aws-ec2-metadata-token-ttl-seconds", "300"), now).await?;
        let session = String::from_utf8_lossy(&session).trim().to_owned();
        let get = async |path: &str| {
            let request = giver.request_to(Method::GET, self.metadata_at(path));
            let mut token = HeaderValue::from_str(&session)
                .map_err(|_| giver.refused("its session token cannot be sent".to_owned()))?;
            token.set_sensitive(true);
            giver.send(request.header("x-aws-ec2-metadata-token", token), now).await
        };
        let folder = "/latest/meta-data/iam/security-credentials/";
        let roles = get(folder).await?;
        let roles = String::from_utf8_lossy(&roles);
        let role = roles.lines().next().map(str::trim).filter(|role| !role.is_empty());
        let role = role.ok_or_else(|| giver.refused("this machine has no role".to_owned()))?;
        let answer = get(&format!("{folder}{role}")).await?;
        let key: RoleKey = serde_json::from_slice(&answer)
            .map_err(|_| giver.refused(format!("its credentials for the role {role} cannot be read")))?;
        Ok(key.given(now))
    }

    fn metadata_at(&self, path: &str) -> Url {
        let mut url = self.reach.metadata.clone();
        url.set_path(path);
        url
    }

    /// The same with another metadata service.
    #[cfg(test)]
    pub(in crate::act) fn with_metadata(mut self, address: &str) -> Authenticator {
        self.reach.metadata = Url::parse(address).expect("an address of the test");
        self
    }
}

impl AzureCredentials {
    /// Who gives tokens; the metadata service where absent.
    fn token_url(&self) -> Option<String> {
        let (AzureCredentials::ClientSecret { tenant_id, authority, .. }
        | AzureCredentials::WorkloadIdentity { tenant_id, authority, .. }) = self
        else {
            return None;
        };
        let authority = authority.as_deref().unwrap_or(AZURE_AUTHORITY).trim_end_matches('/');
        Some(format!("{authority}/{tenant_id}/oauth2/v2.0/token"))
    }
}

#[derive(Deserialize)]
struct ServiceAccountKey {
    client_email: String,
    private_key: String,
    token_uri: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RoleKey {
    access_key_id: String,
    secret_access_key: String,
    token: String,
    expiration: String,
}

impl RoleKey {
    fn given(self, now: Timestamp) -> (Given, Timestamp) {
        let key = AccessKey { id: self.access_key_id, secret: self.secret_access_key, session_token: Some(self.token) };
        (Given::Key(key), time_of(&self.expiration).unwrap_or(now + LASTS))
    }
}

pub(super) fn signed(mut request: RequestBuilder, headers: &[(&'static str, String)]) -> RequestBuilder {
    for (name, value) in headers {
        let Ok(mut value) = HeaderValue::from_str(value) else { continue };
        let name = if *name == "authorization" { AUTHORIZATION } else { HeaderName::from_static(name) };
        value.set_sensitive(name == AUTHORIZATION || name == "x-amz-security-token");
        request = request.header(name, value);
    }
    request
}

fn time_of(text: &str) -> Option<Timestamp> {
    text.parse::<jiff::Timestamp>().ok().map(|at| Timestamp(at.as_millisecond()))
}

/// The access key of a section.
async fn key_of_file(path: &Path, profile: &str) -> Result<AccessKey, String> {
    let text = read_secret(path).await.map_err(|error| error.to_string())?;
    let mut inside = false;
    let mut values: BTreeMap<&str, &str> = BTreeMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            inside = section.trim() == profile;
        } else if let Some((name, value)) = line.split_once('=').filter(|_| inside) {
            values.insert(name.trim(), value.trim());
        }
    }
    let value = |name: &str| {
        let found = values.get(name).filter(|value| !value.is_empty()).map(|value| (*value).to_owned());
        found.ok_or_else(|| format!("secret file {}: section [{profile}] has no `{name}`", path.display()))
    };
    Ok(AccessKey {
        id: value("aws_access_key_id")?,
        secret: value("aws_secret_access_key")?,
        session_token: value("aws_session_token").ok(),
    })
}

/// STS `AssumeRoleWithWebIdentity`, which is not signed: the token says who we are.
async fn assume_role(
    giver: &ApiClient,
    role_arn: &str,
    token: &str,
    now: Timestamp,
) -> Result<(Given, Timestamp), ActError> {
    let form = [
        ("Action", "AssumeRoleWithWebIdentity"),
        ("Version", "2011-06-15"),
        ("RoleArn", role_arn),
        ("RoleSessionName", "forestall"),
        ("WebIdentityToken", token),
    ];
    let answer = giver.exchange(giver.request(Method::POST).form(&form), 64 * 1024, now).await?;
    if !answer.status.is_success() {
        let words = answer.text().replace(token, "…");
        return Err(giver.failure(&answer, &format!("no credentials: {}", super::super::cloud::aws_words(&words))));
    }
    let body = giver.body_of(answer)?;
    let text = String::from_utf8_lossy(&body);
    let unread = || giver.refused("its answer holds no credentials".to_owned());
    let document = roxmltree::Document::parse(&text).map_err(|_| unread())?;
    let find = |name: &str| document.descendants().find(|node| node.tag_name().name() == name);
    let value = |name: &str| find(name).and_then(|node| node.text()).map(str::to_owned).ok_or_else(unread);
    let key = RoleKey {
        access_key_id: value("AccessKeyId")?,
        secret_access_key: value("SecretAccessKey")?,
        token: value("SessionToken")?,
        expiration: value("Expiration")?,
    };
    Ok(key.given(now))
}

/// A JSON Web Token signed with RS256 (RFC 7515, RFC 7518) by an RSA key in PKCS #8, PEM.
fn rs256(pem: &str, claims: &serde_json::Value) -> Result<String, &'static str> {
    let lines = pem.lines().map(str::trim).filter(|line| !line.starts_with("-----"));
    let der = BASE64.decode(lines.collect::<String>()).map_err(|_| "its private key is not PEM")?;
    let key = RsaKeyPair::from_pkcs8(&der).map_err(|_| "its private key is no RSA key in PKCS #8")?;
    let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","typ":"JWT"}"#);
    let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
        .map_err(|_| "its private key cannot sign")?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

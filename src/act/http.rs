//! Calls to fixed addresses: bounded in time and size, no redirects, no proxy, no address that must not be called.

use std::error::Error as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Once};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
#[cfg(feature = "cloud")]
use reqwest::header::HeaderMap;
use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};

use super::sign::read_secret;
use super::{ActError, BuildError};
use crate::model::{Millis, Timestamp};

/// No more of an answer is read, but where a caller has reason to expect more.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Where a cloud's machines get their credentials. It is link-local, so only a client made for it may call it.
#[cfg(feature = "cloud")]
pub(super) const METADATA_SERVICE: &str = "http://169.254.169.254";

/// No more of somebody else's words is kept.
const WORDS_CHARS_MAX: usize = 300;

/// An answer, whatever its status.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    #[cfg(feature = "cloud")]
    pub(super) headers: HeaderMap,
    /// Its beginning; the error where it broke off.
    body: Result<Vec<u8>, reqwest::Error>,
    retry_after: Option<Millis>,
    /// What was sent and is secret.
    secrets: Vec<String>,
}

impl Answer {
    /// What it says, without what it was given and must not show; empty where it broke off.
    pub(super) fn text(&self) -> String {
        let body = self.body.as_deref().unwrap_or_default();
        // Some say in their answer what they were given.
        self.secrets.iter().fold(String::from_utf8_lossy(body).into_owned(), |text, secret| text.replace(secret, "…"))
    }
}

/// Calls one configured target.
#[derive(Debug, Clone)]
pub(crate) struct ApiClient {
    client: Client,
    url: Url,
    /// The target in messages: its configured name and its host; a path or query may hold a secret.
    target: String,
    timeout: Millis,
}

impl ApiClient {
    /// A client for `url`, called `name` in messages.
    pub(crate) fn new(name: &str, url: &str, timeout: Millis, allow_local: bool) -> Result<ApiClient, BuildError> {
        let url = check_url(url, allow_local).map_err(|reason| BuildError { name: name.to_owned(), reason })?;
        ApiClient::to(name, url, timeout, allow_local)
    }

    /// A client for the machine's own metadata service.
    #[cfg(feature = "cloud")]
    pub(super) fn for_metadata(name: &str, timeout: Millis) -> Result<ApiClient, BuildError> {
        let url = Url::parse(METADATA_SERVICE).expect("a constant of ours");
        ApiClient::to(name, url, timeout, false)
    }

    fn to(name: &str, url: Url, timeout: Millis, allow_local: bool) -> Result<ApiClient, BuildError> {
        let wrong = |reason: String| BuildError { name: name.to_owned(), reason };
        if timeout <= Millis::ZERO {
            return Err(wrong(format!("a timeout of {timeout} leaves no time for an answer")));
        }
        static RING: Once = Once::new();
        // It fails where another part of the process has chosen a provider already; that one serves as well.
        RING.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
        let mut builder = Client::builder()
            .user_agent(concat!("forestall/", env!("CARGO_PKG_VERSION")))
            .timeout(timeout.to_std())
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .pool_max_idle_per_host(2)
            .dns_resolver(Arc::new(GuardedResolver { allow_local }));
        if url.scheme() == "http" {
            // Plain HTTP must work on a machine without any certificates.
            builder = builder.tls_certs_only([]);
        }
        let client = builder.build().map_err(|error| wrong(words_of(&error.without_url())))?;
        let target = format!("{name} ({})", url.host_str().unwrap_or("no host"));
        Ok(ApiClient { client, url, target, timeout })
    }

    /// Who is called, in messages.
    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    /// A request to the configured address itself.
    pub(crate) fn request(&self, method: Method) -> RequestBuilder {
        self.client.request(method, self.url.clone())
    }

    /// A request to another address that has passed [`check_url`].
    pub(crate) fn request_to(&self, method: Method, url: Url) -> RequestBuilder {
        self.client.request(method, url)
    }

    /// The same request with the bearer token of a file, where there is one.
    pub(crate) async fn with_token(
        &self,
        request: RequestBuilder,
        file: Option<&Path>,
    ) -> Result<RequestBuilder, ActError> {
        let Some(file) = file else { return Ok(request) };
        let token = read_secret(file).await.map_err(|error| self.unavailable(error.to_string()))?;
        Ok(request.bearer_auth(token))
    }

    /// Sends, and gives back the first 64 KiB of a 2xx answer's body.
    pub(crate) async fn send(&self, request: RequestBuilder, now: Timestamp) -> Result<Vec<u8>, ActError> {
        let answer = self.exchange(request, ANSWER_BYTES_MAX, now).await?;
        if answer.status.is_success() {
            return self.body_of(answer);
        }
        Err(self.failure(&answer, &answer.text()))
    }

    /// Sends, and gives back the answer with the first so many bytes of its body.
    pub(super) async fn exchange(
        &self,
        request: RequestBuilder,
        bytes_max: usize,
        now: Timestamp,
    ) -> Result<Answer, ActError> {
        let request = request.build().map_err(|error| self.broken(error))?;
        let is_secret = |(name, value): &(&HeaderName, &HeaderValue)| *name == AUTHORIZATION || value.is_sensitive();
        let sent = request.headers().iter().filter(is_secret).filter_map(|(_, value)| value.to_str().ok());
        let secrets = sent.flat_map(secrets_of).filter(|secret| !secret.is_empty()).collect();
        let mut response = self.client.execute(request).await.map_err(|error| self.broken(error))?;
        let retry_after =
            response.headers().get("retry-after").and_then(|text| read_retry_after(text.to_str().ok()?, now));
        let body = read_bounded(&mut response, bytes_max).await;
        Ok(Answer {
            status: response.status(),
            #[cfg(feature = "cloud")]
            headers: response.headers().clone(),
            body,
            retry_after,
            secrets,
        })
    }

    /// The body of a 2xx answer. One that broke off may stand for anything.
    pub(super) fn body_of(&self, answer: Answer) -> Result<Vec<u8>, ActError> {
        answer.body.map_err(|error| self.broken(error))
    }

    /// What an answer that is not 2xx means, in these words of it.
    pub(super) fn failure(&self, answer: &Answer, words: &str) -> ActError {
        let (status, retry_after) = (answer.status, answer.retry_after);
        let words = cut(words, WORDS_CHARS_MAX);
        let reason = match (status.is_redirection(), words.is_empty()) {
            (true, _) => format!("{status}: redirects are not followed, configure the address it leads to"),
            (false, true) => status.to_string(),
            (false, false) => format!("{status}: {words}"),
        };
        let target = self.target.clone();
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            return ActError::Unavailable { target, reason, retry_after };
        }
        if status.is_server_error() {
            return ActError::Unanswered { target, reason, retry_after };
        }
        self.refused(reason)
    }

    pub(crate) fn unavailable(&self, reason: String) -> ActError {
        ActError::Unavailable { target: self.target.clone(), reason, retry_after: None }
    }

    pub(crate) fn refused(&self, reason: String) -> ActError {
        ActError::Refused { target: self.target.clone(), reason }
    }

    fn unanswered(&self, reason: String) -> ActError {
        ActError::Unanswered { target: self.target.clone(), reason, retry_after: None }
    }

    fn broken(&self, error: reqwest::Error) -> ActError {
        // Without a connection nothing was sent.
        let unsent = error.is_connect();
        if error.is_timeout() {
            let reason = format!("no answer within {}", self.timeout);
            return if unsent { self.unavailable(reason) } else { self.unanswered(reason) };
        }
        let mut source = error.source();
        while let Some(cause) = source {
            if let Some(forbidden) = cause.downcast_ref::<ForbiddenAddress>() {
                return self.refused(forbidden.to_string());
            }
            source = cause.source();
        }
        let is_builder = error.is_builder();
        // An address may hold a secret.
        let words = words_of(&error.without_url());
        match is_builder {
            true => self.refused(words),
            false if unsent => self.unavailable(words),
            false => self.unanswered(words),
        }
    }
}

/// The secrets in a header's value: what follows the scheme of an `Authorization`, the password of a basic one.
fn secrets_of(value: &str) -> Vec<String> {
    let token = value.split_once(' ').map_or(value, |(_, token)| token).trim();
    let basic = value.starts_with("Basic ").then(|| BASE64.decode(token).ok()).flatten();
    let pair = basic.and_then(|bytes| String::from_utf8(bytes).ok());
    let password = pair.and_then(|pair| Some(pair.split_once(':')?.1.to_owned()));
    [Some(token.to_owned()), password].into_iter().flatten().collect()
}

/// An address that may be called: `http` or `https`, with a host that is not forbidden where it is an IP address
/// (names are checked when they are resolved).
pub(crate) fn check_url(text: &str, allow_local: bool) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("the address cannot be read: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("the address begins with `{}:`; http or https is wanted", url.scheme()));
    }
    let host = url.host_str().unwrap_or_default();
    if let Ok(ip) = host.trim_matches(['[', ']']).parse()
        && let Err(forbidden) = check_ip(ip, allow_local)
    {
        return Err(forbidden.to_string());
    }
    Ok(url)
}

/// Somebody else's words: no control characters, no white space at the ends, at most so many characters.
pub(crate) fn cut(words: &str, chars_max: usize) -> String {
    let clean = words.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.take(chars_max).collect::<String>().trim_end().to_owned()
}

/// What an error says, with its causes.
pub(super) fn words_of(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !words.contains(&said) {
            words.push_str(": ");
            words.push_str(&said);
        }
        cause = error.source();
    }
    cut(&words, WORDS_CHARS_MAX)
}

async fn read_bounded(response: &mut Response, bytes_max: usize) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while body.len() < bytes_max
        && let Some(chunk) = response.chunk().await?
    {
        body.extend_from_slice(&chunk[..chunk.len().min(bytes_max - body.len())]);
    }
    Ok(body)
}

/// Seconds, or a date (RFC 9110, 10.2.3).
fn read_retry_after(text: &str, now: Timestamp) -> Option<Millis> {
    if let Ok(seconds) = text.trim().parse::<u32>() {
        return Some(Millis::from_secs(i64::from(seconds)));
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
    Some((Timestamp(at.as_millisecond()) - now).max(Millis::ZERO))
}

/// Resolves as the system does and leaves out what must not be called.
#[derive(Debug)]
struct GuardedResolver {
    allow_local: bool,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_local = self.allow_local;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let mut forbidden = None;
            let mut allowed: Vec<SocketAddr> = Vec::new();
            for address in found {
                match check_ip(address.ip(), allow_local) {
                    Ok(()) => allowed.push(address),
                    Err(error) => forbidden = Some(error),
                }
            }
            match forbidden {
                Some(error) if allowed.is_empty() => Err(error.into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

#[derive(Debug, Clone, Copy, thiserror::Error)]
enum ForbiddenAddress {
    #[error("{0} is a link-local address, which is never called")]
    LinkLocal(IpAddr),
    #[error("{0} is a loopback address, which is called only with `allow_local: true`")]
    Loopback(IpAddr),
}

fn check_ip(ip: IpAddr, allow_local: bool) -> Result<(), ForbiddenAddress> {
    // AWS's metadata service, which is link-local in all but its address.
    const METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    let ip = match ip.to_canonical() {
        // RFC 6052: a NAT64 gateway makes the IPv4 address in its last part of it.
        IpAddr::V6(v6) if v6.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0] => {
            let [.., a, b, c, d] = v6.octets();
            IpAddr::from([a, b, c, d])
        }
        ip => ip,
    };
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6 == METADATA,
    };
    if link_local {
        return Err(ForbiddenAddress::LinkLocal(ip));
    }
    // The unspecified address reaches this machine too.
    if !allow_local && (ip.is_loopback() || ip.is_unspecified()) {
        return Err(ForbiddenAddress::Loopback(ip));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_addresses_that_must_not_be_called() {
        let cases = [
            ("http://example.org/x", false, ""),
            ("https://10.1.2.3:8443/x", false, ""),
            ("http://127.0.0.1:1/", true, ""),
            ("http://127.0.0.1:1/", false, "allow_local"),
            ("http://127.1/", false, "allow_local"),
            ("http://0x7f000001/", false, "allow_local"),
            ("http://0.0.0.0/", false, "allow_local"),
            ("http://[::1]/", false, "allow_local"),
            ("http://[::ffff:127.0.0.1]/", false, "allow_local"),
            ("http://169.254.169.254/latest", true, "link-local"),
            ("http://[::ffff:169.254.169.254]/", true, "link-local"),
            ("http://[fe80::1]/", true, "link-local"),
            ("http://[64:ff9b::a9fe:a9fe]/", true, "link-local"),
            ("http://[64:ff9b::7f00:1]/", false, "allow_local"),
            ("http://[fd00:ec2::254]/", true, "link-local"),
            ("ftp://example.org/", true, "http or https"),
            ("example.org", true, "cannot be read"),
            ("http://", true, "cannot be read"),
        ];
        for (url, allow_local, wanted) in cases {
            match check_url(url, allow_local) {
                Ok(_) => assert_eq!(wanted, "", "{url} is refused"),
                Err(reason) => assert!(!wanted.is_empty() && reason.contains(wanted), "{url}: {reason}"),
            }
        }
    }

    #[test]
    fn reads_retry_after_as_seconds_and_as_date() {
        let now = Timestamp::from_secs(784_111_700);
        for (text, wanted) in [
            ("120", Some(Millis::from_secs(120))),
            (" 0 ", Some(Millis::ZERO)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(Millis::from_secs(77))),
            ("Sat, 05 Nov 1994 08:49:37 GMT", Some(Millis::ZERO)),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(read_retry_after(text, now), wanted, "{text}");
        }
    }

    #[test]
    fn keeps_foreign_words_short_and_on_one_line() {
        assert_eq!(cut(" a\nb\u{7}c \n", 300), "a b c");
        assert_eq!(cut("äöü", 2), "äö");
    }
}

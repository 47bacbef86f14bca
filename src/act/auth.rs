//! How a request shows who sends it: passwords and tokens from files, and tokens that somebody gives for a while.
//!
//! Secrets are read from their files for each use. What was given for a while stays in memory until shortly before it runs
//! out, or until a target takes it no longer. The machine's metadata service is called only where the settings say so, at its
//! one fixed address.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder, StatusCode, Url};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde::Deserialize;
use serde_json::json;

use super::http::{Answer, ApiClient, METADATA_SERVICE};
use super::sign::{SignError, read_secret};
use super::sigv4::{self, AccessKey, Unsigned};
use super::{ActError, BuildError};
use crate::model::{Millis, Timestamp};

/// What was given for a while is not used any more so long before it runs out.
const EARLY: Millis = Millis::MINUTE;
/// What is given without a word for how long is used for so long.
const LASTS: Millis = Millis(5 * Millis::MINUTE.0);
/// How long a token is that we ask for by a signed word of ours, in seconds; the most that Google takes.
const GRANT_SECONDS: i64 = 3600;
/// Where Azure gives tokens.
const AZURE_AUTHORITY: &str = "https://login.microsoftonline.com";

/// How a request shows who sends it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AuthSettings {
    /// Not at all.
    #[default]
    None,
    /// RFC 7617.
    Basic {
        /// The user.
        username: String,
        /// The file of the password.
        password_file: PathBuf,
    },
    /// RFC 6750.
    Bearer {
        /// The file of the token.
        token_file: PathBuf,
    },
    /// Client credentials, RFC 6749 section 4.4.
    Oauth2 {
        /// Who gives tokens.
        token_url: String,
        /// Who we are there.
        client_id: String,
        /// The file of the secret.
        client_secret_file: PathBuf,
        /// What the token is for.
        scopes: Vec<String>,
    },
    /// AWS Signature Version 4.
    AwsSigv4 {
        /// The region.
        region: String,
        /// The service's name in signatures: `autoscaling`, `execute-api`.
        service: String,
        /// Who we are.
        credentials: AwsCredentials,
    },
    /// A token of Google Cloud.
    Gcp {
        /// Who we are.
        credentials: GcpCredentials,
        /// What the token is for.
        scopes: Vec<String>,
    },
    /// A token of Azure.
    Azure {
        /// Who we are.
        credentials: AzureCredentials,
        /// What the token is for: `https://management.azure.com/.default`.
        scope: String,
    },
}

/// Where AWS credentials come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AwsCredentials {
    /// A file as the AWS tools have it: sections with `aws_access_key_id`, `aws_secret_access_key`, `aws_session_token`.
    File {
        /// The file.
        path: PathBuf,
        /// The section.
        profile: String,
    },
    /// A role taken by a token of one's own, as pods of EKS do (STS `AssumeRoleWithWebIdentity`).
    WebIdentity {
        /// The role.
        role_arn: String,
        /// The file of the token.
        token_file: PathBuf,
        /// Where STS is.
        sts_url: String,
    },
    /// The machine's metadata service, version 2.
    Metadata,
}

/// Where Google Cloud credentials come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GcpCredentials {
    /// A service account's key in JSON.
    File(PathBuf),
    /// The machine's metadata service.
    Metadata,
}

/// Where Azure credentials come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AzureCredentials {
    /// An application and its secret.
    ClientSecret {
        /// Of the directory.
        tenant_id: String,
        /// Of the application.
        client_id: String,
        /// The file of the secret.
        client_secret_file: PathBuf,
        /// Who gives tokens; Azure's own where absent.
        authority: Option<String>,
    },
    /// An application that trusts a token of one's own, as pods of AKS do.
    WorkloadIdentity {
        /// Of the directory.
        tenant_id: String,
        /// Of the application.
        client_id: String,
        /// The file of the token.
        token_file: PathBuf,
        /// Who gives tokens; Azure's own where absent.
        authority: Option<String>,
    },
    /// The machine's metadata service: a managed identity.
    Metadata {
        /// Which, where the machine has several.
        client_id: Option<String>,
    },
}

/// A request before it shows who sends it.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// With its media type; none where that is empty.
    pub(super) body: (&'static str, Vec<u8>),
}

impl Outgoing {
    pub(super) fn get(url: Url) -> Outgoing {
        Outgoing { method: Method::GET, url, headers: Vec::new(), body: ("", Vec::new()) }
    }
}

/// What was given for a while.
#[derive(Debug, Clone)]
enum Given {
    Token(String),
    Key(AccessKey),
}

/// Sends requests that show who sends them.
pub(super) struct Authenticator {
    settings: AuthSettings,
    /// Who gives tokens, where that is known beforehand.
    giver: Option<ApiClient>,
    /// For an address that only a key file names.
    name: String,
    timeout: Millis,
    allow_local: bool,
    metadata: Url,
    given: Mutex<Option<(Given, Timestamp)>>,
}

/// Tokens are shown nowhere.
impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authenticator").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Authenticator {
    /// For the actuator of this name; who gives tokens is called as the actuator's target is.
    pub(super) fn new(
        name: &str,
        settings: AuthSettings,
        timeout: Millis,
        allow_local: bool,
    ) -> Result<Authenticator, BuildError> {
        let giver = match &settings {
            AuthSettings::None | AuthSettings::Basic { .. } | AuthSettings::Bearer { .. } => None,
            AuthSettings::AwsSigv4 { credentials: AwsCredentials::File { .. }, .. } => None,
            AuthSettings::Gcp { credentials: GcpCredentials::File(_), .. } => None,
            AuthSettings::Oauth2 { token_url, .. } => Some(ApiClient::new(name, token_url, timeout, allow_local)?),
            AuthSettings::AwsSigv4 { credentials: AwsCredentials::WebIdentity { sts_url, .. }, .. } => {
                Some(ApiClient::new(name, sts_url, timeout, allow_local)?)
            }
            AuthSettings::Azure { credentials, .. } => match credentials.token_url() {
                Some(url) => Some(ApiClient::new(name, &url, timeout, allow_local)?),
                None => Some(ApiClient::for_metadata(name, timeout)?),
            },
            AuthSettings::AwsSigv4 { .. } | AuthSettings::Gcp { .. } => Some(ApiClient::for_metadata(name, timeout)?),
        };
        Ok(Authenticator {
            settings,
            giver,
            name: name.to_owned(),
            timeout,
            allow_local,
            metadata: Url::parse(METADATA_SERVICE).expect("a constant of ours"),
            given: Mutex::new(None),
        })
    }

    /// Sends a request, and gives back the answer with so much of its body. An error of the giver of tokens means that
    /// nothing was sent.
    pub(super) async fn send(
        &self,
        api: &ApiClient,
        outgoing: Outgoing,
        bytes_max: usize,
        now: Timestamp,
    ) -> Result<Answer, ActError> {
        let request = self.sign(api, outgoing, now).await.map_err(ActError::with_nothing_sent)?;
        let answer = api.exchange(request, bytes_max, now).await?;
        if answer.status == StatusCode::UNAUTHORIZED && self.forget() {
            // The next attempt asks for another.
            return Err(api.unavailable("401 Unauthorized: what it had given us is taken no longer".to_owned()));
        }
        Ok(answer)
    }

    /// What was given is taken no longer: the next request asks anew. Says whether there was something to forget.
    pub(super) fn forget(&self) -> bool {
        self.given.lock().take().is_some()
    }

    async fn sign(&self, api: &ApiClient, outgoing: Outgoing, now: Timestamp) -> Result<RequestBuilder, ActError> {
        let unread = |error: SignError| api.unavailable(error.to_string());
        let Outgoing { method, url, headers, body: (content_type, body) } = outgoing;
        let mut request = api.request_to(method.clone(), url.clone());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request = match &self.settings {
            AuthSettings::None => request,
            AuthSettings::Basic { username, password_file } => {
                request.basic_auth(username, Some(read_secret(password_file).await.map_err(unread)?))
            }
            AuthSettings::Bearer { token_file } => request.bearer_auth(read_secret(token_file).await.map_err(unread)?),
            AuthSettings::AwsSigv4 { region, service, credentials } => {
                let key = match credentials {
                    AwsCredentials::File { path, profile } => {
                        key_of_file(path, profile).await.map_err(|reason| api.unavailable(reason))?
                    }
                    _ => match self.given(now).await? {
                        Given::Key(key) => key,
                        Given::Token(_) => return Err(api.refused("a token is no access key".to_owned())),
                    },
                };
                let unsigned = Unsigned { method: method.as_str(), url: &url, content_type, body: &body };
                signed(request, &sigv4::sign(&unsigned, &key, region, service, now))
            }
            AuthSettings::Oauth2 { .. } | AuthSettings::Gcp { .. } | AuthSettings::Azure { .. } => {
                match self.given(now).await? {
                    Given::Token(token) => request.bearer_auth(token),
                    Given::Key(_) => return Err(api.refused("an access key is no token".to_owned())),
                }
            }
        };
        if content_type.is_empty() {
            return Ok(request);
        }
        Ok(request.header(CONTENT_TYPE, content_type).body(body))
    }

    async fn given(&self, now: Timestamp) -> Result<Given, ActError> {
        let kept = self.given.lock().clone();
        if let Some((given, _)) = kept.filter(|(_, until)| now < *until) {
            return Ok(given);
        }
        let (given, until) = self.ask(now).await?;
        *self.given.lock() = Some((given.clone(), until - EARLY));
        Ok(given)
    }

    async fn ask(&self, now: Timestamp) -> Result<(Given, Timestamp), ActError> {
        let giver = match (&self.giver, &self.settings) {
            (Some(giver), _) => giver,
            (None, AuthSettings::Gcp { credentials: GcpCredentials::File(file), scopes }) => {
                return self.ask_by_key(file, scopes, now).await;
            }
            (None, _) => {
                let reason = "nobody gives tokens for it".to_owned();
                return Err(ActError::Refused { target: self.name.clone(), reason });
            }
        };
        let unread = |error: SignError| giver.unavailable(error.to_string());
        match &self.settings {
            AuthSettings::Oauth2 { client_id, client_secret_file, scopes, .. } => {
                let secret = read_secret(client_secret_file).await.map_err(unread)?;
                let mut form = vec![("grant_type", "client_credentials".to_owned())];
                if !scopes.is_empty() {
                    form.push(("scope", scopes.join(" ")));
                }
                let request =
                    giver.request(Method::POST).basic_auth(form_encode(client_id), Some(form_encode(&secret)));
                self.token(giver, request.form(&form), &[secret], now).await
            }
            AuthSettings::AwsSigv4 {
                credentials: AwsCredentials::WebIdentity { role_arn, token_file, .. }, ..
            } => {
                let token = read_secret(token_file).await.map_err(unread)?;
                assume_role(giver, role_arn, &token, now).await
            }
            AuthSettings::AwsSigv4 { .. } => self.ask_aws_metadata(giver, now).await,
            AuthSettings::Gcp { scopes, .. } => {
                let path = "/computeMetadata/v1/instance/service-accounts/default/token";
                let mut url = self.metadata_at(path);
                if !scopes.is_empty() {
                    url.query_pairs_mut().append_pair("scopes", &scopes.join(","));
                }
                let request = giver.request_to(Method::GET, url).header("metadata-flavor", "Google");
                self.token(giver, request, &[], now).await
            }
            AuthSettings::Azure { credentials, scope } => self.ask_azure(giver, credentials, scope, now).await,
            _ => Err(giver.refused("it needs no token".to_owned())),
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
        let target = self.name.clone();
        let wrong = |reason: String| ActError::Unavailable { target: target.clone(), reason, retry_after: None };
        let key = read_secret(file).await.map_err(|error| wrong(error.to_string()))?;
        let shown = file.display();
        let key: ServiceAccountKey = serde_json::from_str(&key).map_err(|error| {
            wrong(format!("secret file {shown}: not a service account's key: line {}", error.line()))
        })?;
        let built = ApiClient::new(&self.name, &key.token_uri, self.timeout, self.allow_local);
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

    /// The token in an answer of RFC 6749, section 5.1.
    async fn token(
        &self,
        giver: &ApiClient,
        request: RequestBuilder,
        secrets: &[String],
        now: Timestamp,
    ) -> Result<(Given, Timestamp), ActError> {
        let answer = giver.exchange(request, 64 * 1024, now).await?;
        if !answer.status.is_success() {
            let words = secrets.iter().fold(answer.text(), |words, secret| words.replace(secret, "…"));
            return Err(giver.failure(&answer, &format!("no token: {words}")));
        }
        let body = giver.body_of(answer)?;
        let read = serde_json::from_slice::<TokenAnswer>(&body);
        let token = read.map_err(|_| giver.refused("its answer holds no `access_token`".to_owned()))?;
        let lasts = token.expires_in.as_ref().and_then(|value| match value {
            // Azure's metadata service puts numbers into quotes.
            serde_json::Value::String(text) => text.parse().ok(),
            value => value.as_i64(),
        });
        let until = now + lasts.map_or(LASTS, |seconds: i64| Millis::from_secs(seconds.clamp(0, 86_400)));
        Ok((Given::Token(token.access_token), until))
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
        let mut url = self.metadata.clone();
        url.set_path(path);
        url
    }

    /// The same with another metadata service.
    #[cfg(test)]
    pub(super) fn with_metadata(mut self, address: &str) -> Authenticator {
        self.metadata = Url::parse(address).expect("an address of the test");
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

#[derive(Debug, Deserialize)]
struct TokenAnswer {
    access_token: String,
    expires_in: Option<serde_json::Value>,
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

fn signed(mut request: RequestBuilder, headers: &[(&'static str, String)]) -> RequestBuilder {
    for (name, value) in headers {
        let Ok(mut value) = HeaderValue::from_str(value) else { continue };
        let name = if *name == "authorization" { AUTHORIZATION } else { HeaderName::from_static(name) };
        value.set_sensitive(name == AUTHORIZATION || name == "x-amz-security-token");
        request = request.header(name, value);
    }
    request
}

/// Client id and secret as RFC 6749, section 2.3.1, wants them in a basic authorization.
fn form_encode(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
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
        return Err(giver.failure(&answer, &format!("no credentials: {}", super::cloud::aws_words(&words))));
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

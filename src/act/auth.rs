//! How a request shows who sends it: passwords and tokens from files, and tokens that somebody gives for a while.
//!
//! Secrets are read from their files for each use. What was given for a while stays in memory until shortly before it runs
//! out, or until a target takes it no longer. The machine's metadata service is called only where the settings say so, at its
//! one fixed address.

#[cfg(feature = "cloud")]
mod clouds;

use std::path::PathBuf;

use parking_lot::Mutex;
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder, StatusCode, Url};
use serde::Deserialize;

use super::cloud_settings::CloudAuth;
use super::http::{Answer, ApiClient};
use super::sign::{SignError, read_secret};
use super::{ActError, BuildError};
use crate::model::{Millis, Timestamp};

/// What was given for a while is not used any more so long before it runs out.
const EARLY: Millis = Millis::MINUTE;
/// What is given without a word for how long is used for so long.
const LASTS: Millis = Millis(5 * Millis::MINUTE.0);
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
    /// As a cloud wants it; only in builds with the feature `cloud`.
    Cloud(CloudAuth),
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
    #[cfg(feature = "cloud")]
    Key(super::sigv4::AccessKey),
}

/// Sends requests that show who sends them.
pub(super) struct Authenticator {
    settings: AuthSettings,
    /// Who gives tokens, where that is known beforehand.
    giver: Option<ApiClient>,
    #[cfg(feature = "cloud")]
    reach: clouds::Reach,
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
            AuthSettings::Oauth2 { token_url, .. } => Some(ApiClient::new(name, token_url, timeout, allow_local)?),
            #[cfg(feature = "cloud")]
            AuthSettings::Cloud(cloud) => clouds::giver(cloud, name, timeout, allow_local)?,
            #[cfg(not(feature = "cloud"))]
            AuthSettings::Cloud(_) => {
                return Err(BuildError { name: name.to_owned(), reason: super::WITHOUT_CLOUDS.to_owned() });
            }
        };
        Ok(Authenticator {
            settings,
            giver,
            #[cfg(feature = "cloud")]
            reach: clouds::Reach::new(name, timeout, allow_local),
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
            #[cfg(feature = "cloud")]
            AuthSettings::Cloud(CloudAuth::AwsSigv4 { region, service, credentials }) => {
                let key = self.access_key(api, credentials, now).await?;
                let unsigned = super::sigv4::Unsigned { method: method.as_str(), url: &url, content_type, body: &body };
                clouds::signed(request, &super::sigv4::sign(&unsigned, &key, region, service, now))
            }
            AuthSettings::Oauth2 { .. } | AuthSettings::Cloud(_) => match self.given(now).await? {
                Given::Token(token) => request.bearer_auth(token),
                #[cfg(feature = "cloud")]
                Given::Key(_) => return Err(api.refused("an access key is no token".to_owned())),
            },
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
        #[cfg(feature = "cloud")]
        if let AuthSettings::Cloud(cloud) = &self.settings {
            return self.ask_cloud(cloud, now).await;
        }
        let (Some(giver), AuthSettings::Oauth2 { client_id, client_secret_file, scopes, .. }) =
            (&self.giver, &self.settings)
        else {
            let reason = "it needs no token".to_owned();
            return Err(ActError::Refused { target: String::new(), reason });
        };
        let secret = read_secret(client_secret_file).await;
        let secret = secret.map_err(|error: SignError| giver.unavailable(error.to_string()))?;
        let mut form = vec![("grant_type", "client_credentials".to_owned())];
        if !scopes.is_empty() {
            form.push(("scope", scopes.join(" ")));
        }
        let request = giver.request(Method::POST).basic_auth(form_encode(client_id), Some(form_encode(&secret)));
        self.token(giver, request.form(&form), &[secret], now).await
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
}

#[derive(Debug, Deserialize)]
struct TokenAnswer {
    access_token: String,
    expires_in: Option<serde_json::Value>,
}

/// Client id and secret as RFC 6749, section 2.3.1, wants them in a basic authorization.
fn form_encode(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

//! Managed instance groups of Google Compute Engine by its REST API, version 1.

use reqwest::{Method, Url};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::super::auth::{AuthSettings, Authenticator, Outgoing};
use super::super::cloud_settings::{CloudAuth, GcpMigSettings, GcpPlace};
use super::super::http::{Answer, ApiClient};
use super::{ANSWER_BYTES_MAX, ActError, BuildError, Group, count};
use crate::act::template::percent_encode;
use crate::model::{Timestamp, hex};

const ENDPOINT: &str = "https://compute.googleapis.com";
/// What a token is for: the least that may resize.
const SCOPE: &str = "https://www.googleapis.com/auth/compute";

#[derive(Debug)]
pub(super) struct Gcp {
    pub(super) api: ApiClient,
    auth: Authenticator,
    /// Up to the name of a group.
    base: String,
    min: u32,
    max: u32,
}

impl Gcp {
    pub(super) fn new(name: &str, settings: &GcpMigSettings) -> Result<Gcp, BuildError> {
        let GcpMigSettings { common, project, place, endpoint, credentials, .. } = settings;
        let endpoint = endpoint.as_deref().unwrap_or(ENDPOINT).trim_end_matches('/');
        let place = match place {
            GcpPlace::Zone(zone) => format!("zones/{}", percent_encode(zone)),
            GcpPlace::Region(region) => format!("regions/{}", percent_encode(region)),
        };
        let auth =
            AuthSettings::Cloud(CloudAuth::Gcp { credentials: credentials.clone(), scopes: vec![SCOPE.to_owned()] });
        Ok(Gcp {
            api: ApiClient::new(name, endpoint, common.timeout, common.allow_local)?,
            auth: Authenticator::new(name, auth, common.timeout, common.allow_local)?,
            base: format!("{endpoint}/compute/v1/projects/{}/{place}/instanceGroupManagers/", percent_encode(project)),
            min: settings.min_size,
            max: settings.max_size,
        })
    }

    /// The same with another metadata service.
    #[cfg(test)]
    pub(super) fn with_metadata(self, address: &str) -> Gcp {
        Gcp { auth: self.auth.with_metadata(address), ..self }
    }

    fn url(&self, group: &str, verb: &str) -> Result<Url, ActError> {
        // A name of Compute Engine; anything else could lead to another path.
        if !group.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Err(self.api.refused(format!("{group:?} is not the name of an instance group")));
        }
        Url::parse(&format!("{}{group}{verb}", self.base)).map_err(|error| self.api.refused(error.to_string()))
    }

    async fn call(&self, outgoing: Outgoing, now: Timestamp) -> Result<Value, ActError> {
        let answer = self.auth.send(&self.api, outgoing, ANSWER_BYTES_MAX, now).await?;
        if !answer.status.is_success() {
            return Err(self.error(&answer));
        }
        let body = self.api.body_of(answer)?;
        let value: Value = serde_json::from_slice(&body)
            .map_err(|error| self.api.refused(format!("its answer is no JSON: {error}")))?;
        // An operation that has failed at once is answered with 200.
        match value.pointer("/error/errors/0/message").and_then(Value::as_str) {
            Some(message) => Err(self.api.refused(message.to_owned())),
            None => Ok(value),
        }
    }

    fn error(&self, answer: &Answer) -> ActError {
        let text = answer.text();
        let error: Value = serde_json::from_str(&text).unwrap_or_default();
        let reason = error.pointer("/error/errors/0/reason").and_then(Value::as_str).unwrap_or_default();
        let words = error.pointer("/error/message").and_then(Value::as_str).unwrap_or(&text);
        let passes = ["rateLimitExceeded", "userRateLimitExceeded", "resourceNotReady"].contains(&reason);
        if passes {
            return self.api.unavailable(format!("{reason}: {words}"));
        }
        self.api.failure(answer, words)
    }

    pub(super) async fn group(&self, name: &str, now: Timestamp) -> Result<Group, ActError> {
        let group = self.call(Outgoing::get(self.url(name, "")?), now).await?;
        let wanted = group.get("targetSize").and_then(Value::as_u64).and_then(|size| u32::try_from(size).ok());
        let wanted = wanted.ok_or_else(|| self.api.refused(format!("{name}: the answer has no targetSize")))?;
        let is_stable = group.pointer("/status/isStable").and_then(Value::as_bool).unwrap_or(false);
        let resting = group.pointer("/currentActions/none").map(|none| count(Some(none)));
        let autoscaler = group.pointer("/status/autoscaler").and_then(Value::as_str);
        let autoscaler = autoscaler.filter(|url| !url.is_empty()).map(|url| {
            let autoscaler = url.rsplit('/').next().unwrap_or(url);
            format!("the autoscaler {autoscaler} sets its size and would undo ours; let it follow forestall's metrics")
        });
        Ok(Group {
            name: name.to_owned(),
            wanted,
            serving: resting.unwrap_or(if is_stable { wanted } else { 0 }),
            is_settled: is_stable,
            min: self.min,
            max: self.max,
            protected: 0,
            hindrance: autoscaler,
            failure: None,
            state: Value::Null,
        })
    }

    pub(super) async fn resize(&self, group: &Group, to: u32, id: &str, now: Timestamp) -> Result<(), ActError> {
        let mut url = self.url(&group.name, "/resize")?;
        let request = request_id(id, to);
        url.query_pairs_mut().append_pair("size", &to.to_string()).append_pair("requestId", &request);
        let outgoing = Outgoing { method: Method::POST, ..Outgoing::get(url) };
        self.call(outgoing, now).await.map(drop)
    }
}

/// A UUID (version 8, RFC 9562) that is the same for the same action and size: Google takes a request of one id once.
fn request_id(action: &str, size: u32) -> String {
    let mut bytes = Sha256::digest(format!("{action}/{size}"));
    bytes[6] = (bytes[6] & 0x0f) | 0x80;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let digits = hex(&bytes[..16]);
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

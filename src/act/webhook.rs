//! POSTs each action to a URL as typed, signed JSON.

use futures::FutureExt;
use futures::future::BoxFuture;
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize};

use super::callbacks::Callbacks;
use super::http::{ApiClient, check_url, cut};
use super::sign::Signer;
use super::template::percent_encode;
use super::{Acceptance, ActError, Actuator, BuildError, Confirmation, Patience, WebhookSettings};
use crate::model::{ComponentId, Timestamp};
use crate::plan::{Action, ActionKind, Change};

/// The JSON Schema (2020-12) of [`WebhookBody`], version 1.
pub const ACTION_SCHEMA: &str = include_str!("action-v1.schema.json");

/// Characters of a target's reason for a failure.
const REASON_CHARS_MAX: usize = 300;

/// What is posted for an action. Fields may be added under the same `version`; none changes its meaning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WebhookBody {
    /// 1.
    pub version: u32,
    /// `forestall.action`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The action's id, the same on each attempt.
    pub id: String,
    /// What is to be done.
    pub action: ActionKind,
    /// By which policy.
    pub policy: String,
    /// To what.
    pub target: WebhookTarget,
    /// The wanted end state.
    pub change: Change,
    /// The action that this one gives back.
    pub undoes: Option<String>,
    /// The action that this one makes room for.
    pub makes_room_for: Option<String>,
    /// Why.
    pub why: WebhookWhy,
    /// RFC 3339.
    pub decided_at: String,
    /// RFC 3339; when the action will be given back.
    pub expires_at: Option<String>,
}

/// The object of an action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookTarget {
    /// The component in one word: `deployment/shop/checkout`.
    pub component: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace; empty where it has none.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: std::collections::BTreeMap<String, String>,
}

/// Why an action was chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WebhookWhy {
    /// Of a failure within the horizon, 0..1.
    pub probability: f64,
    /// Seconds until it begins.
    pub eta_seconds: Option<f64>,
    /// (1 − health) × impact, 0..1.
    pub expected_loss: f64,
    /// In one sentence, with the arithmetic.
    pub sentence: String,
}

impl WebhookBody {
    /// The body for an action.
    pub fn of(action: &Action) -> WebhookBody {
        let ComponentId { kind, labels } = &action.target.component;
        WebhookBody {
            version: 1,
            kind: "forestall.action".to_owned(),
            id: action.id.clone(),
            action: action.kind,
            policy: action.policy.clone(),
            target: WebhookTarget {
                component: action.target.component.to_string(),
                kind: kind.clone(),
                namespace: action.target.namespace.clone(),
                name: action.target.name.clone(),
                labels: labels.iter().cloned().collect(),
            },
            change: action.change.clone(),
            undoes: action.undoes.clone(),
            makes_room_for: action.makes_room_for.clone(),
            why: WebhookWhy {
                probability: action.why.probability,
                eta_seconds: action.why.eta.map(|eta| eta.as_secs_f64()),
                expected_loss: action.why.expected_loss,
                sentence: action.why.sentence.clone(),
            },
            decided_at: action.decided_at.to_string(),
            expires_at: action.expires_at.map(|at| at.to_string()),
        }
    }
}

/// An answer's body, as far as it matters.
#[derive(Debug, Deserialize)]
struct StateAnswer {
    state: String,
    #[serde(default)]
    reason: String,
}

/// Calls a webhook for each action, and its status URL for the confirmation.
#[derive(Debug)]
pub struct WebhookActuator {
    api: ApiClient,
    signer: Signer,
    settings: WebhookSettings,
    callbacks: Callbacks,
}

impl WebhookActuator {
    /// An actuator of this name.
    ///
    /// # Errors
    /// Where an address cannot be read or must not be called.
    pub fn new(name: &str, settings: &WebhookSettings, callbacks: &Callbacks) -> Result<WebhookActuator, BuildError> {
        let api = ApiClient::new(name, &settings.url, settings.timeout, settings.allow_local)?;
        if let Some(template) = &settings.status_url {
            check_status_url(template, settings.allow_local)
                .map_err(|reason| BuildError { name: name.to_owned(), reason: format!("status_url: {reason}") })?;
        }
        let signer = Signer::new(settings.hmac_secret_files.clone());
        Ok(WebhookActuator { api, signer, settings: settings.clone(), callbacks: callbacks.clone() })
    }

    async fn post(&self, action: &Action, attempt: u32, now: Timestamp) -> Result<Acceptance, ActError> {
        let body = serde_json::to_vec(&WebhookBody::of(action)).expect("a body of plain fields is always JSON");
        let mut request = self.api.request(Method::POST).header(CONTENT_TYPE, "application/json");
        for (name, value) in self.signed(&action.id, now, &body).await? {
            request = request.header(name, value);
        }
        let request = request.header("idempotency-key", &action.id).header("forestall-attempt", attempt);
        let answer = self.api.send(request.body(body), now).await?;
        // A target need not say anything; only the states that we know count.
        let Ok(answer) = serde_json::from_slice::<StateAnswer>(&answer) else { return Ok(Acceptance::Accepted) };
        match answer.state.as_str() {
            "unchanged" => Ok(Acceptance::Unchanged),
            "done" => Ok(Acceptance::Done),
            "failed" => Err(self.api.refused(failure(&answer.reason))),
            _ => Ok(Acceptance::Accepted),
        }
    }

    async fn ask(&self, action: &Action, now: Timestamp) -> Result<Confirmation, ActError> {
        if let Some(said) = self.callbacks.take(&action.id) {
            return Ok(said);
        }
        let Some(template) = &self.settings.status_url else {
            // Who says by itself what has become of it is waited for.
            return Ok(if self.settings.callback { Confirmation::Pending } else { Confirmation::CannotAsk });
        };
        let url = check_url(&template.replace("{id}", &percent_encode(&action.id)), self.settings.allow_local)
            .map_err(|reason| self.api.refused(reason))?;
        let mut request = self.api.request_to(Method::GET, url);
        for (name, value) in self.signed(&action.id, now, b"").await? {
            request = request.header(name, value);
        }
        let answer = self.api.send(request, now).await?;
        let wanted = r#"wanted {"state": "done" | "pending" | "failed" | "unknown"}"#;
        let answer: StateAnswer = serde_json::from_slice(&answer)
            .map_err(|error| self.api.refused(format!("its status cannot be read: {error}; {wanted}")))?;
        match answer.state.as_str() {
            "done" | "unchanged" => Ok(Confirmation::Done),
            "pending" => Ok(Confirmation::Pending),
            "failed" => Ok(Confirmation::Failed(failure(&answer.reason))),
            "unknown" => Ok(Confirmation::NeverHeard),
            other => Err(self.api.refused(format!("its status is `{}`; {wanted}", cut(other, 40)))),
        }
    }

    async fn signed(&self, id: &str, now: Timestamp, body: &[u8]) -> Result<Vec<(&'static str, String)>, ActError> {
        // A key file that is being replaced is there again a moment later.
        self.signer.headers(id, now, body).await.map_err(|error| self.api.unavailable(error.to_string()))
    }
}

impl Actuator for WebhookActuator {
    fn apply<'a>(
        &'a self,
        action: &'a Action,
        attempt: u32,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Acceptance, ActError>> {
        self.post(action, attempt, now).boxed()
    }

    fn confirm<'a>(&'a self, action: &'a Action, now: Timestamp) -> BoxFuture<'a, Result<Confirmation, ActError>> {
        self.ask(action, now).boxed()
    }

    fn patience(&self) -> Patience {
        Patience { attempts_max: self.settings.attempts_max, confirm_within: self.settings.confirm_within }
    }

    fn at_most_once(&self) -> bool {
        self.settings.at_most_once
    }
}

pub(super) fn failure(reason: &str) -> String {
    let reason = cut(reason, REASON_CHARS_MAX);
    if reason.is_empty() { "it says `failed`".to_owned() } else { reason }
}

/// The id may choose what is asked for, never who is asked.
fn check_status_url(template: &str, allow_local: bool) -> Result<(), String> {
    let one = check_url(&template.replace("{id}", "1"), allow_local)?;
    let other = check_url(&template.replace("{id}", "2"), allow_local)?;
    if one == other {
        return Err("`{id}` is missing: every action would get the same answer".to_owned());
    }
    if one.authority() != other.authority() || one.scheme() != other.scheme() {
        return Err("`{id}` may stand in the path or the query only".to_owned());
    }
    Ok(())
}

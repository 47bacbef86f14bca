//! What receivers of webhooks say by themselves: what has become of an action that was posted to them. They sign it with the
//! webhook's own key, so they need no token of the operator.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::Shared;
use super::answer::{Refusal, success};
use super::controls::read;
use crate::act::{ActuatorKind, CallbackBody, CallbackHeaders, WebhookSettings};

/// A receiver's word is no longer.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// `POST actions/{id}/outcome`: 202 where it is heard and counts from the next pass on, 200 where the outcome is written
/// down already, whatever is said now.
pub(super) async fn outcome(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    if body.len() > BODY_BYTES_MAX {
        return Err(Refusal::bad_data(format!("{} bytes; at most {BODY_BYTES_MAX} are read", body.len())));
    }
    let signers = signers(&shared, &id, &headers, &body).await?;
    let ledger = shared.journal.ledger(shared.clock.now());
    let past = ledger.actions.iter().find(|past| past.action.id == id && signers.contains(&past.action.actuator));
    let Some(past) = past else {
        return Err(Refusal::not_found("no action of this id is known that was posted to who signed this"));
    };
    let said: CallbackBody = read(&body)?;
    if let Some(outcome) = past.outcome {
        return Ok(success(json!({ "id": id, "state": "settled", "outcome": outcome })));
    }
    if !shared.callbacks.keep(&id, &said) {
        return Err(Refusal::unavailable("too many outcomes wait for the next pass: come again"));
    }
    let body = json!({ "status": "success", "data": { "id": id, "state": "heard" } });
    Ok((StatusCode::ACCEPTED, Json(body)).into_response())
}

/// The webhooks with whose keys it was signed.
async fn signers(shared: &Shared, id: &str, headers: &HeaderMap, body: &[u8]) -> Result<Vec<String>, Refusal> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let given = CallbackHeaders {
        id: header("webhook-id"),
        timestamp: header("webhook-timestamp"),
        signature: header("webhook-signature"),
    };
    let mut names = Vec::new();
    for (name, webhook) in webhooks(shared) {
        let signed = webhook.has_signed(id, given, body, shared.clock.now()).await;
        if signed.map_err(|error| Refusal::internal(format!("a key cannot be read: {error}")))? {
            names.push(name);
        }
    }
    if names.is_empty() {
        let why = "no webhook that calls back has signed this, for this id and within five minutes";
        return Err(Refusal::denied(StatusCode::UNAUTHORIZED, why));
    }
    Ok(names)
}

/// Webhooks whose receivers may call back.
fn webhooks(shared: &Shared) -> Vec<(String, WebhookSettings)> {
    let settings = shared.settings.load();
    let of = |one: &crate::act::ActuatorSettings| match &one.kind {
        ActuatorKind::Webhook(webhook) if webhook.callback => Some((one.name.clone(), webhook.clone())),
        _ => None,
    };
    settings.actuators.iter().filter_map(of).collect()
}

//! What persons may say over HTTP: pause and lift, approve and decline, release. All of it needs the operator's token, and
//! is a row of the journal before it counts; only a pause holds at once, written or not.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::Shared;
use super::answer::{Refusal, success};
use super::auth::require_operator;
use super::own::newest;
use super::params::{Params, parse_duration, parse_time};
use super::views;
use crate::audit::{Answer, Journal, JournalError, PAUSES_MAX, Released, Said};
use crate::cycle::{Report, predict_rules};
use crate::model::Timestamp;
use crate::plan::{Action, Pause, PauseScope, Reason};

/// Runs something that waits for the disk.
pub(super) async fn with_journal<T: Send + 'static>(
    shared: &Arc<Shared>,
    work: impl FnOnce(&Journal) -> Result<T, JournalError> + Send + 'static,
) -> Result<T, Refusal> {
    let journal = shared.journal.clone();
    let done = tokio::task::spawn_blocking(move || work(&journal)).await.map_err(Refusal::internal)?;
    done.map_err(|error| match error {
        JournalError::TooManyPauses | JournalError::TooManyPredictions => Refusal::execution(error),
        error => Refusal::unavailable(error),
    })
}

/// A JSON body; says what is wrong with it. An empty one is an empty object.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| Refusal::bad_data(format!("the body cannot be read: {error}")))
}

/// `approvals`: actions that wait for a person, those that make room before the one they make room for.
pub(super) async fn approvals(State(shared): State<Arc<Shared>>) -> Result<Response, Refusal> {
    let report = newest(&shared)?;
    let controls = shared.journal.controls();
    let waiting = report.plan.waiting.iter().map(|action| {
        let main = action.makes_room_for.as_ref().unwrap_or(&action.id);
        let mut view = views::action(action);
        view["approved"] = json!(controls.approved.contains(main));
        view["declined"] = json!(controls.declined.contains(main));
        view
    });
    Ok(success(json!({"waiting": waiting.collect::<Vec<_>>()})))
}

/// What a person says to a waiting action.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerRequest {
    approve: bool,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    by: String,
}

/// `POST approvals/{id}` with `{"approve": true, "reason": "…", "by": "…"}`: the next pass carries it out, if it is still
/// wanted; with `false` it is taken back. What nobody answers is dropped when it is no longer wanted.
pub(super) async fn answer(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    require_operator(&shared, &headers)?;
    let AnswerRequest { approve, reason, by } = read(&body)?;
    let offered = offer(newest(&shared)?.as_ref(), &id)?;
    let (answer, said, now) =
        (if approve { Answer::Approve } else { Answer::Decline }, Said::new(&by, &reason), shared.clock.now());
    tracing::info!(action = id, answer = ?answer, by = said.by, reason = said.reason, "a person answered an offer");
    with_journal(&shared, move |journal| journal.answer(&offered, answer, said, now)).await?;
    Ok(success(json!({"id": id, "approved": approve})))
}

/// The actions of an offer, by the id of the main one.
fn offer(report: &Report, id: &str) -> Result<Vec<Action>, Refusal> {
    let offers = || report.plan.carry.waiting.values();
    if let Some(found) = offers().find(|offer| offer.last().is_some_and(|main| main.id == id)) {
        return Ok(found.clone());
    }
    let part_of = offers().find(|offer| offer.iter().any(|action| action.id == id)).and_then(|offer| offer.last());
    Err(match part_of {
        Some(main) => {
            Refusal::bad_data(format!("{id:?} makes room for {:?}: answer that one, which takes it along", main.id))
        }
        None => Refusal::not_found(format!("no action {id:?} waits for an answer; it may no longer be wanted")),
    })
}

/// `GET pause`: what is paused.
pub(super) async fn pauses(State(shared): State<Arc<Shared>>) -> Response {
    success(json!({"pauses": shared.journal.controls().pauses_at(shared.clock.now()), "max": PAUSES_MAX}))
}

/// What is to be paused, why, and for how long.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PauseRequest {
    #[serde(default = "everything")]
    scope: PauseScope,
    #[serde(default)]
    reason: String,
    /// From now on, as `2h` or in seconds.
    expires_in: Option<String>,
    /// RFC 3339, or seconds since the epoch.
    until: Option<String>,
    #[serde(default)]
    by: String,
}

fn everything() -> PauseScope {
    PauseScope::All
}

/// `POST pause` with `{"scope": "all" | {"policy": "…"} | {"kind": "…"} | {"component": "…"}, "reason": "…", "expires_in":
/// "2h", "by": "…"}`: nothing of it is done or given back from now on, not even the rest of a plan that is under way. It
/// takes the place of an earlier pause of the same scope.
pub(super) async fn pause(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    require_operator(&shared, &headers)?;
    let request: PauseRequest = read(&body)?;
    let warning = check_scope(&shared, &request.scope)?;
    let now = shared.clock.now();
    let until = end_of(&request, now)?;
    let Said { by, reason } = Said::new(&request.by, &request.reason);
    if reason.is_empty() {
        return Err(Refusal::bad_data("`reason` is missing: whoever finds the pause wants to know what it is for"));
    }
    let pause = Pause { scope: request.scope, reason, by, since: now, until };
    tracing::warn!(scope = ?pause.scope, by = pause.by, reason = pause.reason, until = ?until, "paused");
    let kept = pause.clone();
    let done = with_journal(&shared, move |journal| match journal.pause(kept, now) {
        Err(JournalError::Write(reason)) => Ok(Err(reason)),
        other => other.map(Ok),
    });
    match done.await? {
        Ok(()) => Ok(success(json!({"pause": pause, "warning": warning}))),
        Err(reason) => Err(Refusal::unavailable(format!(
            "the pause holds now, but it would not survive a restart: the journal cannot be written: {reason}; it is tried again each pass"
        ))),
    }
}

fn end_of(request: &PauseRequest, now: Timestamp) -> Result<Option<Timestamp>, Refusal> {
    let until = match (&request.expires_in, &request.until) {
        (Some(_), Some(_)) => return Err(Refusal::bad_data("`expires_in` and `until` exclude each other: give one")),
        (Some(span), None) => {
            let wrong =
                || Refusal::bad_data(format!("`expires_in`: {span:?} is no duration; write 2h, 90m or seconds"));
            Some(now + parse_duration(span).ok_or_else(wrong)?)
        }
        (None, Some(at)) => {
            let wrong = || Refusal::bad_data(format!("`until`: {at:?} is no time; write 2026-01-09T12:00:00Z"));
            Some(parse_time(at).ok_or_else(wrong)?)
        }
        (None, None) => None,
    };
    match until {
        Some(until) if until <= now => {
            Err(Refusal::bad_data(format!("the pause would end at {until}, which has passed")))
        }
        until => Ok(until),
    }
}

/// Whether a scope means something; a pause that means nothing by a slip of the pen must not look like one that holds.
/// Gives a warning where it may mean something later.
fn check_scope(shared: &Shared, scope: &PauseScope) -> Result<Option<String>, Refusal> {
    let settings = shared.settings.load();
    let kinds: std::collections::BTreeSet<&str> = predict_rules(&settings).map(|rule| rule.kind.as_str()).collect();
    let unknown = |what: &str, name: &str, known: Vec<&str>| {
        Err(Refusal::bad_data(format!("there is no {what} {name:?}; there are: {}", known.join(", "))))
    };
    match scope {
        PauseScope::All => Ok(None),
        PauseScope::Policy(name) if settings.policies.iter().any(|policy| policy.name == *name) => Ok(None),
        PauseScope::Policy(name) => {
            unknown("policy", name, settings.policies.iter().map(|policy| policy.name.as_str()).collect())
        }
        PauseScope::Kind(name) if kinds.contains(name.as_str()) => Ok(None),
        PauseScope::Kind(name) => unknown("kind", name, kinds.into_iter().collect()),
        PauseScope::Component(name) => {
            if !name.split_once('/').is_some_and(|(kind, _)| kinds.contains(kind)) {
                return unknown("component of the kind in", name, kinds.into_iter().collect());
            }
            let report = shared.report.load_full();
            let watched =
                report.is_some_and(|report| report.assessments.iter().any(|a| a.component.to_string() == *name));
            Ok((!watched).then(|| format!("no component {name:?} is watched now")))
        }
    }
}

/// `DELETE pause?policy=…` (or `kind`, `component`, nothing for everything; `reason`, `by`): lifts the pause of that scope.
pub(super) async fn lift(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, Refusal> {
    require_operator(&shared, &headers)?;
    let given = |name: &str| params.get(name).map(str::to_owned);
    let scopes = [
        given("policy").map(PauseScope::Policy),
        given("kind").map(PauseScope::Kind),
        given("component").map(PauseScope::Component),
    ];
    let mut named = scopes.into_iter().flatten();
    let scope = named.next().unwrap_or(PauseScope::All);
    if named.next().is_some() {
        return Err(Refusal::bad_data("`policy`, `kind` and `component` exclude each other: a pause has one scope"));
    }
    let said = Said::new(params.get("by").unwrap_or(""), params.get("reason").unwrap_or(""));
    tracing::warn!(scope = ?scope, by = said.by, reason = said.reason, "a pause is lifted");
    let (now, lifted) = (shared.clock.now(), scope.clone());
    if !with_journal(&shared, move |journal| journal.lift(&lifted, said, now)).await? {
        return Err(Refusal::not_found(format!("nothing of the scope {} is paused", json!(scope))));
    }
    Ok(success(json!({"scope": scope, "lifted": true})))
}

/// Who releases something, and why; all of it may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReleaseRequest {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    by: String,
}

async fn release(shared: &Arc<Shared>, what: Released, name: &str, body: &[u8]) -> Result<(), Refusal> {
    let ReleaseRequest { reason, by } = read(body)?;
    let (said, now, released) = (Said::new(&by, &reason), shared.clock.now(), name.to_owned());
    tracing::warn!(what = ?what, name, by = said.by, reason = said.reason, "a person released something");
    with_journal(shared, move |journal| journal.release(what, &released, said, now)).await?;
    shared.released.lock().insert(name.to_owned());
    Ok(())
}

/// `POST breakers/{kind}/release`: a person says that the mass anomaly is over.
pub(super) async fn release_breaker(
    State(shared): State<Arc<Shared>>,
    Path(kind): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    require_operator(&shared, &headers)?;
    if !newest(&shared)?.plan.carry.breakers.contains_key(&kind) {
        return Err(Refusal::not_found(format!("no breaker of kind {kind:?} is open")));
    }
    release(&shared, Released::Breaker, &kind, &body).await?;
    Ok(success(json!({"kind": kind, "released": true})))
}

/// `POST latches/{component}`: a person says that what had no effect may be tried again.
pub(super) async fn release_latch(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    require_operator(&shared, &headers)?;
    let report = newest(&shared)?;
    let declined = report.plan.declined.iter().filter(|declined| declined.reason == Reason::Latched);
    if !declined.into_iter().any(|declined| declined.component.to_string() == id) {
        return Err(Refusal::not_found(format!("{id:?} is not latched")));
    }
    release(&shared, Released::Latch, &id, &body).await?;
    Ok(success(json!({"component": id, "released": true})))
}

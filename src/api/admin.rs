//! Health, readiness, reload and quit, as Prometheus has them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use tokio::sync::oneshot;

use super::answer::Refusal;
use super::auth::require_operator;
use super::{Shared, Wish};

/// The process is up.
pub(super) async fn healthy() -> &'static str {
    "forestall is healthy.\n"
}

/// Samples are taken and rules are evaluated; says so when acting is not possible.
pub(super) async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    if !shared.ready.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "forestall is starting.\n").into_response();
    }
    if let Some(fault) = &*shared.journal_fault.load() {
        return format!("forestall is ready, degraded: {fault}; nothing is acted on until it can be.\n")
            .into_response();
    }
    "forestall is ready.\n".into_response()
}

/// Reads the configuration again; the last good one stays when the new one has problems.
pub(super) async fn reload(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Result<Response, Refusal> {
    allow(&shared, &headers)?;
    let (done, answer) = oneshot::channel();
    shared.wishes.send(Wish::Reload(done)).await.map_err(Refusal::internal)?;
    match answer.await.map_err(Refusal::internal)? {
        Ok(()) => Ok((StatusCode::OK, "").into_response()),
        Err(problems) => Ok((StatusCode::INTERNAL_SERVER_ERROR, problems).into_response()),
    }
}

/// Stops the process.
pub(super) async fn quit(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Result<Response, Refusal> {
    allow(&shared, &headers)?;
    shared.wishes.send(Wish::Quit).await.map_err(Refusal::internal)?;
    Ok("forestall is stopping.\n".into_response())
}

/// Lifecycle needs its flag, as in Prometheus; where an operator token is configured, that too.
fn allow(shared: &Shared, headers: &HeaderMap) -> Result<(), Refusal> {
    if !shared.options.enable_lifecycle {
        let why = "lifecycle API is not enabled: start with --web.enable-lifecycle";
        return Err(Refusal::denied(StatusCode::FORBIDDEN, why));
    }
    match shared.settings.load().web.operator_token_file {
        Some(_) => require_operator(shared, headers),
        None => Ok(()),
    }
}

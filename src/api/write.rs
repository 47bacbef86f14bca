//! Remote write in: the way of a sample from the socket to the store.
//!
//! A body is read before it takes a decode slot, so that slow senders cannot keep others out. 2xx is only said for what
//! is stored; back-pressure is 503 with `Retry-After` (Prometheus drops on 429); 400 is for what can never be accepted,
//! and the good samples of a mixed batch are kept all the same.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Shared;
use crate::ingest::{self, Batch, IngestError, Protocol};
use crate::store::Appended;

/// How long a body may take to arrive.
const BODY_TIME_MAX: Duration = Duration::from_secs(20);
/// How long a body waits for a decode slot.
const WRITE_WAIT: Duration = Duration::from_secs(5);

/// `POST /api/v1/write`.
pub(super) async fn write(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Body) -> Response {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let protocol = match ingest::negotiate(text(header::CONTENT_TYPE), text(header::CONTENT_ENCODING)) {
        Ok(protocol) => protocol,
        Err(error) => return refuse(&shared, None, &error),
    };
    let body = match tokio::time::timeout(BODY_TIME_MAX, to_bytes(body, shared.limits.wire_bytes_max)).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) => return refuse(&shared, Some(protocol), &unreadable(&error, &shared.limits)),
        Err(_) => return (StatusCode::REQUEST_TIMEOUT, "the body took too long to arrive\n").into_response(),
    };
    let Ok(Ok(_slot)) = tokio::time::timeout(WRITE_WAIT, shared.decodes.acquire()).await else {
        shared.meters.count_request(Some(protocol), "busy");
        let retry = [(header::RETRY_AFTER, "5")];
        return (StatusCode::SERVICE_UNAVAILABLE, retry, "too many writes at a time; try again\n").into_response();
    };
    let task_shared = shared.clone();
    let answered = tokio::task::spawn_blocking(move || decode_and_store(&task_shared, protocol, &body)).await;
    answered.unwrap_or_else(|panic| {
        tracing::error!(%panic, "decoding a write failed");
        (StatusCode::INTERNAL_SERVER_ERROR, "decoding failed\n").into_response()
    })
}

/// What a write is decompressed and decoded into, to be used again: as much memory anew for each request would cost more
/// than decoding does.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    message: Vec<u8>,
    batch: Batch,
}

impl Buffers {
    /// The longest message whose buffer is kept, in bytes; the batch has its own bound.
    const MESSAGE_KEPT_BYTES_MAX: usize = 4 << 20;

    /// Empties them. Memory is kept for the next request unless this one was uncommonly large.
    fn clear(&mut self) {
        self.batch.clear();
        if self.message.capacity() > Buffers::MESSAGE_KEPT_BYTES_MAX {
            self.message = Vec::new();
        }
    }
}

fn decode_and_store(shared: &Shared, protocol: Protocol, body: &[u8]) -> Response {
    // There are as many buffers as there were writes at a time, which the decode slots bound.
    let mut buffers = shared.buffers.lock().pop().unwrap_or_default();
    let response = match store(shared, protocol, body, &mut buffers) {
        Ok(appended) => answer(shared, protocol, &buffers.batch, &appended),
        Err(error) => refuse(shared, Some(protocol), &error),
    };
    buffers.clear();
    shared.buffers.lock().push(buffers);
    response
}

fn store(shared: &Shared, protocol: Protocol, body: &[u8], buffers: &mut Buffers) -> Result<Appended, IngestError> {
    let Buffers { message, batch } = buffers;
    ingest::decompress(body, &shared.limits, message)?;
    let now = shared.clock.now();
    let appended = shared.store.append_message(protocol, message, &shared.limits, batch, now)?;
    shared.last_write_at.store(now.0, Ordering::Relaxed);
    Ok(appended)
}

fn answer(shared: &Shared, protocol: Protocol, batch: &Batch, appended: &Appended) -> Response {
    shared.meters.count_request(Some(protocol), "taken");
    shared.meters.count_appended(batch, appended);
    // What limits refuse or is known already would not be better for being sent again, so it is counted and said to be
    // done; only what is wrong with the message itself is the sender's to hear.
    let refused: Vec<String> = batch.refused().iter().map(ToString::to_string).collect();
    let mut response = if refused.is_empty() {
        StatusCode::NO_CONTENT.into_response()
    } else {
        (StatusCode::BAD_REQUEST, format!("{}\n", refused.join("; "))).into_response()
    };
    if protocol == Protocol::V2 {
        for (name, count) in [
            ("x-prometheus-remote-write-samples-written", appended.stored + appended.duplicates),
            ("x-prometheus-remote-write-histograms-written", 0),
            ("x-prometheus-remote-write-exemplars-written", 0),
        ] {
            response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from(count));
        }
    }
    response
}

/// A body that ended early, or that is longer than the limit.
fn unreadable(error: &axum::Error, limits: &ingest::Limits) -> IngestError {
    let source = std::error::Error::source(error);
    if source.is_some_and(|source| source.is::<http_body_util::LengthLimitError>()) {
        let limit = limits.wire_bytes_max;
        return IngestError::TooLarge(format!("the body is larger than {limit} bytes: send fewer samples a request"));
    }
    IngestError::BadRequest(format!("the body could not be read: {error}"))
}

fn refuse(shared: &Shared, protocol: Option<Protocol>, error: &IngestError) -> Response {
    shared.meters.count_request(protocol, "refused");
    let status = match error {
        IngestError::BadRequest(_) => StatusCode::BAD_REQUEST,
        IngestError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        IngestError::UnsupportedMediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
    };
    (status, format!("{error}\n")).into_response()
}

//! Answers in the shape of Prometheus's API: `{"status": …, "data": …}` or `{"status": "error", "errorType": …}`.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Why a request is refused, with Prometheus's `errorType`.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    kind: &'static str,
    message: String,
}

impl Refusal {
    /// 400: the request is wrong.
    pub(super) fn bad_data(message: impl ToString) -> Refusal {
        Refusal { status: StatusCode::BAD_REQUEST, kind: "bad_data", message: message.to_string() }
    }

    /// 422: the request is well-formed and cannot be carried out.
    pub(super) fn execution(message: impl ToString) -> Refusal {
        Refusal { status: StatusCode::UNPROCESSABLE_ENTITY, kind: "execution", message: message.to_string() }
    }

    /// 404.
    pub(super) fn not_found(message: impl ToString) -> Refusal {
        Refusal { status: StatusCode::NOT_FOUND, kind: "not_found", message: message.to_string() }
    }

    /// 500: our fault.
    pub(super) fn internal(message: impl ToString) -> Refusal {
        Refusal { status: StatusCode::INTERNAL_SERVER_ERROR, kind: "internal", message: message.to_string() }
    }

    /// 503: later.
    pub(super) fn unavailable(message: impl ToString) -> Refusal {
        Refusal { status: StatusCode::SERVICE_UNAVAILABLE, kind: "unavailable", message: message.to_string() }
    }

    /// 503: it took too long.
    pub(super) fn timed_out(message: impl ToString) -> Refusal {
        Refusal { status: StatusCode::SERVICE_UNAVAILABLE, kind: "timeout", message: message.to_string() }
    }

    /// 499, as Prometheus has it: nobody waits any more.
    pub(super) fn canceled(message: impl ToString) -> Refusal {
        let status = StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST);
        Refusal { status, kind: "canceled", message: message.to_string() }
    }

    /// 401 or 403.
    pub(super) fn denied(status: StatusCode, message: impl ToString) -> Refusal {
        Refusal { status, kind: "forbidden", message: message.to_string() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({"status": "error", "errorType": self.kind, "error": self.message});
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// 200 with data.
pub(super) fn success(data: Value) -> Response {
    Json(json!({"status": "success", "data": data})).into_response()
}

/// What an answer with data that is JSON text begins with; the data follows, and [`success_text`] ends it.
pub(super) const SUCCESS: &str = r#"{"status":"success","data":"#;

/// 200 with data that is JSON text already, behind [`SUCCESS`], and what is remarkable about it.
pub(super) fn success_text(mut body: String, warnings: &[String], infos: &[String]) -> Response {
    for (name, texts) in [("warnings", warnings), ("infos", infos)] {
        if !texts.is_empty() {
            body.push_str(&format!(r#","{name}":{}"#, json!(texts)));
        }
    }
    body.push('}');
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Anything that has no route.
pub(super) async fn not_found() -> Refusal {
    Refusal::not_found("there is nothing here; the web page is at /, the API under /api/v1, metrics at /metrics")
}

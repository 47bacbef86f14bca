//! The web page: three files inside the binary.

use axum::extract::Path;
use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};

use super::answer::{self, Refusal};

const INDEX: &str = include_str!("page/index.html");
const SCRIPT: &str = include_str!("page/page.js");
const STYLE: &str = include_str!("page/page.css");

/// `/`
pub(super) async fn index() -> Html<&'static str> {
    Html(INDEX)
}

/// The page's script and styles.
pub(super) async fn file(Path(name): Path<String>) -> Result<Response, Refusal> {
    let (content_type, text) = match name.as_str() {
        "page.js" => ("text/javascript; charset=utf-8", SCRIPT),
        "page.css" => ("text/css; charset=utf-8", STYLE),
        _ => return Err(answer::not_found().await),
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    Ok((headers, text).into_response())
}

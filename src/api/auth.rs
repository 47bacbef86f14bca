//! Who may change something: the holder of the operator's token.

use axum::http::{HeaderMap, StatusCode, header};
use subtle::ConstantTimeEq;

use super::Shared;
use super::answer::Refusal;

/// Lets a request through that carries the operator's token.
///
/// # Errors
/// 403 where no token is configured, 401 where it is missing or wrong.
pub(super) fn require_operator(shared: &Shared, headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(file) = shared.settings.load().web.operator_token_file.clone() else {
        let why = "changes over HTTP need a token: set `web: { operator_token_file: … }` in the configuration";
        return Err(Refusal::denied(StatusCode::FORBIDDEN, why));
    };
    // Read on each use: a rotated secret counts at once.
    let token = std::fs::read_to_string(&file)
        .map_err(|error| Refusal::internal(format!("the operator token cannot be read: {error}")))?;
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or("");
    let token = token.trim();
    if !token.is_empty() && bool::from(given.as_bytes().ct_eq(token.as_bytes())) {
        Ok(())
    } else {
        Err(Refusal::denied(StatusCode::UNAUTHORIZED, "the operator token is missing or wrong"))
    }
}

//! Parameters of Prometheus's API, from the query string and, on POST, from the form in the body.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{Method, header};

use super::answer::Refusal;
use crate::model::{Millis, Timestamp};
use crate::query::Query;
use crate::store::Matcher;

/// All parameters in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequest<S> for Params {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Params, Refusal> {
        let mut params = parse_form(request.uri().query().unwrap_or("").as_bytes());
        let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_form = content_type.is_some_and(|value| value.starts_with("application/x-www-form-urlencoded"));
        if request.method() == Method::POST && is_form {
            let body = Bytes::from_request(request, state).await.map_err(Refusal::bad_data)?;
            params.extend(parse_form(&body));
        }
        Ok(Params(params))
    }
}

fn parse_form(text: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(text).map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

impl Params {
    /// The first parameter of a name that is not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(n, value)| n == name && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    }

    /// All parameters of a name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The `query` parameter, parsed.
    pub(super) fn query(&self) -> Result<Query, Refusal> {
        let text = self.get("query").unwrap_or("");
        Query::parse(text).map_err(|error| Refusal::bad_data(format!("invalid parameter \"query\": {error}")))
    }

    /// A time: seconds since the epoch with a fraction, or RFC 3339.
    pub(super) fn time(&self, name: &str) -> Result<Option<Timestamp>, Refusal> {
        let parse = |text: &str| {
            parse_time(text).ok_or_else(|| {
                Refusal::bad_data(format!(
                    "invalid parameter {name:?}: invalid time value for '{name}': cannot parse {text:?} to a valid timestamp"
                ))
            })
        };
        self.get(name).map(parse).transpose()
    }

    /// A time that must be there.
    pub(super) fn required_time(&self, name: &str) -> Result<Timestamp, Refusal> {
        let text = self.get(name).unwrap_or("");
        let wrong = || format!("invalid parameter {name:?}: cannot parse {text:?} to a valid timestamp");
        parse_time(text).ok_or_else(|| Refusal::bad_data(wrong()))
    }

    /// A duration: seconds with a fraction, or PromQL's form.
    pub(super) fn duration(&self, name: &str) -> Result<Option<Millis>, Refusal> {
        let parse = |text: &str| {
            parse_duration(text).ok_or_else(|| {
                Refusal::bad_data(format!("invalid parameter {name:?}: cannot parse {text:?} to a valid duration"))
            })
        };
        self.get(name).map(parse).transpose()
    }

    /// A whole number that is not negative.
    pub(super) fn number(&self, name: &str) -> Result<Option<usize>, Refusal> {
        let parse = |text: &str| {
            let why = match text.parse::<i64>() {
                Ok(number) if number >= 0 => return Ok(usize::try_from(number).unwrap_or(usize::MAX)),
                Ok(_) => format!("{name} must be non-negative"),
                Err(_) => format!("{text:?} is no whole number"),
            };
            Err(Refusal::bad_data(format!("invalid parameter {name:?}: {why}")))
        };
        self.get(name).map(parse).transpose()
    }

    /// The sets of matchers in `match[]`.
    ///
    /// # Errors
    /// What is wrong with one, in words.
    pub(super) fn matchers(&self) -> Result<Vec<Vec<Matcher>>, String> {
        let mut sets = Vec::new();
        for text in self.all("match[]") {
            let query = Query::parse(text).map_err(|error| {
                let why = error.to_string();
                if why.contains("at least one non-empty matcher") {
                    return "match[] must contain at least one non-empty matcher".to_owned();
                }
                why
            })?;
            if !matches!(query.expr(), crate::query::syntax::Expr::Selector(_)) {
                return Err(format!("{text:?} is no series selector"));
            }
            sets.extend(query.matcher_sets());
        }
        Ok(sets)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "checked to be within the range of times")]
pub(super) fn parse_time(text: &str) -> Option<Timestamp> {
    if let Ok(seconds) = text.parse::<f64>() {
        let millis = (seconds * 1000.0).round();
        return (millis.abs() < 9.2e18).then_some(Timestamp(millis as i64));
    }
    text.parse::<jiff::Timestamp>().ok().map(|at| Timestamp(at.as_millisecond()))
}

/// Seconds with a fraction, or PromQL's form.
#[expect(clippy::cast_possible_truncation, reason = "checked to be within the range of times")]
pub(super) fn parse_duration(text: &str) -> Option<Millis> {
    if let Ok(seconds) = text.parse::<f64>() {
        let millis = (seconds * 1000.0).round();
        return (millis.abs() < 9.2e18).then_some(Millis(millis as i64));
    }
    Millis::parse(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_times_and_durations_in_both_forms() {
        assert_eq!(parse_time("1.5"), Some(Timestamp(1500)));
        assert_eq!(parse_time("1970-01-01T00:00:01Z"), Some(Timestamp(1000)));
        for wrong in ["", "NaN", "inf", "1e300", "yesterday"] {
            assert_eq!(parse_time(wrong), None, "{wrong}");
        }
        assert_eq!(parse_duration("15"), Some(Millis(15_000)));
        assert_eq!(parse_duration("1h30m"), Some(Millis(5_400_000)));
        assert_eq!(parse_duration("soon"), None);
    }
}

//! Sends each action as one HTTP request of the user's own shape, and asks for its effect by a condition on an answer.

use std::path::PathBuf;

use futures::FutureExt;
use futures::future::BoxFuture;
use reqwest::Method;
use reqwest::header::{HeaderName, HeaderValue};
use serde_json::Value;

use super::auth::{AuthSettings, Authenticator, Outgoing};
use super::http::ApiClient;
use super::sign::read_secret;
use super::template::{Facts, StatusExpr, TextTemplate, UrlTemplate, fill};
use super::{Acceptance, ActError, Actuator, BuildError, Confirmation, Patience};
use crate::model::{Millis, Timestamp};
use crate::plan::{Action, ActionKind};

/// No more of an answer is read for a condition.
const STATUS_BYTES_MAX: usize = 1 << 20;
/// No more of an answer to the request itself is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// How requests are made.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpSettings {
    /// Where to, with placeholders in path and query.
    pub url: UrlTemplate,
    /// By which method: POST, PUT, PATCH or DELETE.
    pub method: Method,
    /// Headers beside those that we set ourselves.
    pub headers: Vec<(String, HeaderText)>,
    /// The JSON body, where a text that is a placeholder stands for a value; none where absent.
    pub body: Option<Value>,
    /// How it shows who sends it.
    pub auth: AuthSettings,
    /// The kinds of actions that it can carry out; all where empty.
    pub actions: Vec<ActionKind>,
    /// How to see whether an action has taken effect.
    pub confirm: Option<ConfirmSettings>,
    /// How long one call may take.
    pub timeout: Millis,
    /// How often a call is tried in all.
    pub attempts_max: u32,
    /// Whether the target repeats the effect when it gets a request again: what may have got there is not sent again.
    pub at_most_once: bool,
    /// How long to wait for a confirmation.
    pub confirm_within: Millis,
    /// Whether loopback addresses may be called; link-local ones never are.
    pub allow_local: bool,
}

/// The value of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderText {
    /// A text or a placeholder.
    Text(TextTemplate),
    /// The secret in a file.
    File(PathBuf),
}

/// How to see whether an action has taken effect.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfirmSettings {
    /// What to GET.
    pub url: UrlTemplate,
    /// When its answer says that the action has taken effect.
    pub expr: StatusExpr,
    /// When it says that it will not.
    pub failed: Option<StatusExpr>,
}

/// Sends each action as an HTTP request.
#[derive(Debug)]
pub struct HttpActuator {
    api: ApiClient,
    /// The same for the address of the confirmation, which may be another host.
    status: Option<ApiClient>,
    auth: Authenticator,
    settings: HttpSettings,
}

impl HttpActuator {
    /// An actuator of this name.
    ///
    /// # Errors
    /// Where an address must not be called, or a header cannot be sent.
    pub fn new(name: &str, settings: &HttpSettings) -> Result<HttpActuator, BuildError> {
        let client = |url: &UrlTemplate| ApiClient::new(name, &url.sample(), settings.timeout, settings.allow_local);
        for (header, _) in &settings.headers {
            let wrong = |_| BuildError { name: name.to_owned(), reason: format!("`{header}` cannot be a header") };
            HeaderName::try_from(header).map_err(wrong)?;
        }
        Ok(HttpActuator {
            api: client(&settings.url)?,
            status: settings.confirm.as_ref().map(|confirm| client(&confirm.url)).transpose()?,
            auth: Authenticator::new(name, settings.auth.clone(), settings.timeout, settings.allow_local)?,
            settings: settings.clone(),
        })
    }

    async fn send(&self, action: &Action, attempt: u32, now: Timestamp) -> Result<Acceptance, ActError> {
        let kinds = &self.settings.actions;
        if !kinds.is_empty() && !kinds.contains(&action.kind) {
            let kind = serde_json::to_value(action.kind).unwrap_or_default();
            return Err(self.api.refused(format!("its `actions` do not name {kind}: nothing was sent")));
        }
        let facts = Facts::of(action);
        let unfit = |reason: String| self.api.refused(format!("nothing was sent: {reason}"));
        let url = self.settings.url.fill(&facts).map_err(unfit)?;
        let mut headers = self.headers(&facts).await?;
        for (name, value) in [("idempotency-key", action.id.clone()), ("forestall-attempt", attempt.to_string())] {
            let value = HeaderValue::from_str(&value).map_err(|_| unfit("its id cannot be a header".to_owned()))?;
            headers.push((HeaderName::from_static(name), value));
        }
        let body = match &self.settings.body {
            Some(body) => ("application/json", fill(body, &facts).map_err(unfit)?.to_string().into_bytes()),
            None => ("", Vec::new()),
        };
        let outgoing = Outgoing { method: self.settings.method.clone(), url, headers, body };
        let answer = self.auth.send(&self.api, outgoing, ANSWER_BYTES_MAX, now).await?;
        if !answer.status.is_success() {
            return Err(self.api.failure(&answer, &answer.text()));
        }
        self.api.body_of(answer)?;
        Ok(Acceptance::Accepted)
    }

    async fn headers(&self, facts: &Facts) -> Result<Vec<(HeaderName, HeaderValue)>, ActError> {
        let mut headers = Vec::new();
        for (name, text) in &self.settings.headers {
            let (value, is_secret) = match text {
                HeaderText::Text(template) => {
                    let unfit = |reason: String| self.api.refused(format!("nothing was sent: header {name}: {reason}"));
                    (template.fill(facts).map_err(unfit)?, false)
                }
                HeaderText::File(file) => {
                    let unread = |error: super::sign::SignError| self.api.unavailable(error.to_string());
                    (read_secret(file).await.map_err(unread)?, true)
                }
            };
            let unfit = || self.api.refused(format!("nothing was sent: the value of header {name} cannot be one"));
            // What no header may hold is refused, not repaired: a line end would begin another header.
            let mut value = HeaderValue::from_str(&value).map_err(|_| unfit())?;
            value.set_sensitive(is_secret);
            headers.push((HeaderName::try_from(name).map_err(|_| unfit())?, value));
        }
        Ok(headers)
    }

    async fn ask(&self, action: &Action, now: Timestamp) -> Result<Confirmation, ActError> {
        let (Some(confirm), Some(status)) = (&self.settings.confirm, &self.status) else {
            return Ok(Confirmation::CannotAsk);
        };
        let facts = Facts::of(action);
        let unfit = |reason: String| status.refused(reason);
        let headers = self.headers(&facts).await?;
        let outgoing = Outgoing { headers, ..Outgoing::get(confirm.url.fill(&facts).map_err(unfit)?) };
        let answer = self.auth.send(status, outgoing, STATUS_BYTES_MAX, now).await?;
        if !answer.status.is_success() {
            return Err(status.failure(&answer, &answer.text()));
        }
        let body = status.body_of(answer)?;
        let answer: Value =
            serde_json::from_slice(&body).map_err(|error| status.refused(format!("its status is no JSON: {error}")))?;
        if confirm.expr.holds(&answer, &facts).map_err(unfit)? {
            return Ok(Confirmation::Done);
        }
        let failed = confirm.failed.as_ref().map(|failed| failed.holds(&answer, &facts)).transpose();
        Ok(match failed.map_err(unfit)? {
            Some(true) => Confirmation::Failed(format!("{} says that it failed", status.target())),
            _ => Confirmation::Pending,
        })
    }
}

impl Actuator for HttpActuator {
    fn apply<'a>(
        &'a self,
        action: &'a Action,
        attempt: u32,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Acceptance, ActError>> {
        self.send(action, attempt, now).boxed()
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{Got, NOW, Reply, Server, action};
    use super::*;
    use crate::plan::Change;

    const TOKEN: &str = r#"{"access_token": "t0k3n", "expires_in": 3600, "token_type": "Bearer"}"#;

    fn settings(server: &Server) -> HttpSettings {
        let url = |path: &str| UrlTemplate::parse(&format!("{}{path}", server.address), true).expect("an address");
        HttpSettings {
            url: url("/groups/{target.namespace}/{target.name}?why={policy}"),
            method: Method::PUT,
            headers: Vec::new(),
            body: Some(json!({"size": "{change.to}", "labels": {"who": "{target.name}"}, "fixed": [1, "x", null]})),
            auth: AuthSettings::None,
            actions: vec![ActionKind::ScaleOut, ActionKind::ShiftLoad],
            confirm: Some(ConfirmSettings {
                url: url("/groups/{target.name}/status"),
                expr: StatusExpr::parse("/ready >= {change.to}").expect("a condition"),
                failed: Some(StatusExpr::parse("/phase == \"Failed\"").expect("a condition")),
            }),
            timeout: Millis(5000),
            attempts_max: 3,
            at_most_once: false,
            confirm_within: Millis::MINUTE,
            allow_local: true,
        }
    }

    fn actuator(settings: &HttpSettings) -> HttpActuator {
        HttpActuator::new("fleet", settings).expect("right settings")
    }

    fn json_of(got: &Got) -> Value {
        serde_json::from_slice(&got.body).expect("JSON")
    }

    #[tokio::test]
    async fn sends_a_request_in_which_values_are_values() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let key = folder.path().join("key");
        std::fs::write(&key, "s3cr3t\n").expect("the file can be written");
        let server = Server::start(&[Reply::Status(202, ""), Reply::Status(403, "s3cr3t is not a key of ours")]).await;
        let text = |text: &str| HeaderText::Text(TextTemplate::parse(text).expect("a template"));
        let headers =
            vec![("x-api-key".to_owned(), HeaderText::File(key)), ("x-for".to_owned(), text("{target.name}"))];
        let fleet = actuator(&HttpSettings { headers, ..settings(&server) });
        let mut nasty = action("a/1");
        nasty.target.name = "a/../b?x=\"1\"".to_owned();
        assert_eq!(fleet.apply(&nasty, 2, NOW).await.expect("taken"), Acceptance::Accepted);
        let got = &server.got()[0];
        let path = "/groups/shop/a%2F..%2Fb%3Fx%3D%221%22?why=shop";
        assert_eq!((got.method.as_str(), got.path.as_str()), ("PUT", path));
        assert_eq!(json_of(got), json!({"size": 5, "labels": {"who": nasty.target.name}, "fixed": [1, "x", null]}));
        for (name, value) in [
            ("x-api-key", "s3cr3t"),
            ("x-for", "a/../b?x=\"1\""),
            ("idempotency-key", "a/1"),
            ("forestall-attempt", "2"),
            ("content-type", "application/json"),
        ] {
            assert_eq!(got.headers[name], value, "{name}");
        }
        let error = fleet.apply(&nasty, 1, NOW).await.expect_err("403").to_string();
        assert!(error.contains("403 Forbidden: … is not a key of ours"), "{error}");
    }

    #[tokio::test]
    async fn sends_nothing_that_is_not_whole() {
        let server = Server::start(&[Reply::Status(200, "")]).await;
        let fleet = actuator(&HttpSettings {
            headers: vec![("x-for".to_owned(), HeaderText::Text(TextTemplate::parse("{target.kind}").expect("one")))],
            ..settings(&server)
        });
        let named = |name: &str| {
            let mut action = action("a");
            action.target.name = name.to_owned();
            action
        };
        let mut two_lines = action("a");
        two_lines.target.component.kind = "x\r\nx-admin: 1".to_owned();
        for (action, part) in [
            (Action { kind: ActionKind::Migrate, ..action("a") }, "do not name \"migrate\""),
            (Action { change: Change::Shift { share: 0.2 }, ..action("a") }, "has no `{change.to}`"),
            (named(".."), "dots"),
            (named(""), "empty"),
            (two_lines, "header x-for"),
        ] {
            let error = fleet.apply(&action, 1, NOW).await.expect_err(part);
            assert!(error.to_string().contains(part), "{error}");
            assert!(!error.is_transient() && !error.may_have_worked(), "{error}");
        }
        assert!(server.got().is_empty());
    }

    #[tokio::test]
    async fn asks_for_the_effect_by_a_condition() {
        for (status, wanted) in [
            (r#"{"ready": 4}"#, Ok(Confirmation::Pending)),
            (r#"{"ready": 5}"#, Ok(Confirmation::Done)),
            (r#"{"ready": 4, "phase": "Failed"}"#, Err("says that it failed")),
            ("<html>", Err("its status is no JSON")),
        ] {
            let server = Server::start(&[Reply::Status(200, status)]).await;
            let answer = actuator(&settings(&server)).confirm(&action("a"), NOW).await;
            match (answer, wanted) {
                (Ok(Confirmation::Failed(words)), Err(part)) => assert!(words.contains(part), "{words}"),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (answer, wanted) => assert_eq!(answer.expect("an answer"), wanted.expect("one"), "{status}"),
            }
            assert_eq!(
                (server.got()[0].method.as_str(), server.got()[0].path.as_str()),
                ("GET", "/groups/checkout/status")
            );
        }
        let server = Server::start(&[Reply::Status(200, "")]).await;
        let blind = actuator(&HttpSettings { confirm: None, ..settings(&server) });
        assert_eq!(blind.confirm(&action("a"), NOW).await.expect("an answer"), Confirmation::CannotAsk);
    }

    #[tokio::test]
    async fn shows_who_it_is_and_never_what_proves_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "s3cr3t\n").expect("the file can be written");
        let echo = Reply::Status(400, "you sent s3cr3t");
        let basic = AuthSettings::Basic { username: "me".to_owned(), password_file: secret.clone() };
        let bearer = AuthSettings::Bearer { token_file: secret.clone() };
        // printf me:s3cr3t | base64
        for (auth, header) in [(basic, "Basic bWU6czNjcjN0"), (bearer, "Bearer s3cr3t")] {
            let server = Server::start(std::slice::from_ref(&echo)).await;
            let fleet = actuator(&HttpSettings { auth, ..settings(&server) });
            let error = format!("{:?} {fleet:?}", fleet.apply(&action("a"), 1, NOW).await.expect_err("400"));
            assert_eq!(server.got()[0].headers["authorization"], header);
            assert!(!error.contains("s3cr3t"), "{error}");
        }
        let server = Server::start(&[echo]).await;
        let gone = AuthSettings::Bearer { token_file: folder.path().join("gone") };
        let fleet = actuator(&HttpSettings { auth: gone, ..settings(&server) });
        let error = fleet.apply(&action("a"), 1, NOW).await.expect_err("no token");
        assert!(error.is_transient() && error.to_string().contains("gone"), "{error}");
        assert!(server.got().is_empty(), "nothing is sent without it");
    }

    #[tokio::test]
    async fn keeps_a_token_while_it_is_taken() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let client_secret_file = folder.path().join("secret");
        std::fs::write(&client_secret_file, "s:c").expect("the file can be written");
        let (token, ok, no) = (Reply::Status(200, TOKEN), Reply::Status(200, ""), Reply::Status(401, "expired"));
        let bad = Reply::Status(400, r#"{"error": "invalid_client", "error_description": "not s:c"}"#);
        let busy = Reply::Status(500, "");
        let replies = [token.clone(), ok.clone(), ok.clone(), no, token.clone(), ok.clone(), token, ok, bad, busy];
        let server = Server::start(&replies).await;
        let auth = AuthSettings::Oauth2 {
            token_url: format!("{}/token", server.address),
            client_id: "me".to_owned(),
            client_secret_file,
            scopes: vec!["a".to_owned(), "b".to_owned()],
        };
        let fleet = actuator(&HttpSettings { auth, ..settings(&server) });
        for (minutes, worked) in [(0, true), (58, true), (58, false), (58, true), (118, true)] {
            let answer = fleet.apply(&action("a"), 1, NOW + Millis::MINUTE * minutes).await;
            assert_eq!(answer.is_ok(), worked, "{minutes}: {answer:?}");
        }
        let tokens: Vec<bool> = server.got().iter().map(|got| got.path == "/token").collect();
        assert_eq!(tokens, [true, false, false, false, true, false, true, false]);
        let got = server.got();
        // printf me:s%3Ac | base64
        assert_eq!(got[0].headers["authorization"], "Basic bWU6cyUzQWM=");
        assert_eq!(got[0].body, "grant_type=client_credentials&scope=a+b");
        assert_eq!(got[1].headers["authorization"], "Bearer t0k3n");
        let later = NOW + Millis::HOUR * 9;
        let error = fleet.apply(&action("a"), 1, later).await.expect_err("no token");
        let words = error.to_string();
        assert!(words.contains("no token") && words.contains("invalid_client") && !words.contains("s:c"), "{words}");
        // Whatever the giver of tokens does, the action itself was not sent.
        let error = fleet.apply(&action("a"), 1, later).await.expect_err("no token");
        assert!(error.is_transient() && !error.may_have_worked(), "{error}");
    }
}

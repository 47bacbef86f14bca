//! Those who are told: Grafana (annotations), Alertmanager (alerts), webhooks (signed JSON).

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize};

use super::journal::word;
use super::notice::{Notice, NoticeKind, NoticeState};
use super::settings::{AlertmanagerSettings, GrafanaSettings, NotifySettings, NotifyWebhookSettings};
use crate::act::{ActError, ApiClient, BuildError, Signer};
use crate::model::Timestamp;

/// Grafana's ids of so many annotations are remembered, to move their ends.
const ANNOTATION_IDS_MAX: usize = 10_000;

/// Somewhere notices go.
pub trait Sink: std::fmt::Debug + Send + Sync {
    /// What it is called in logs.
    fn name(&self) -> &str;

    /// Makes one attempt to tell it.
    fn send<'a>(&'a self, notice: &'a Notice, now: Timestamp) -> BoxFuture<'a, Result<(), ActError>>;
}

/// Builds the configured sinks.
///
/// # Errors
/// Where an address cannot be called; says which and why.
pub fn build_sinks(settings: &NotifySettings) -> Result<Vec<Arc<dyn Sink>>, BuildError> {
    let mut sinks: Vec<Arc<dyn Sink>> = Vec::new();
    for alertmanager in &settings.alertmanagers {
        sinks.push(Arc::new(AlertmanagerSink::new(alertmanager)?));
    }
    if let Some(grafana) = &settings.grafana {
        sinks.push(Arc::new(GrafanaSink::new(grafana)?));
    }
    for webhook in &settings.webhooks {
        sinks.push(Arc::new(WebhookSink::new(webhook)?));
    }
    Ok(sinks)
}

/// Alertmanager's API v2: each notice is an alert.
#[derive(Debug)]
pub struct AlertmanagerSink {
    api: ApiClient,
    token_file: Option<PathBuf>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Alert<'a> {
    labels: BTreeMap<&'a str, &'a str>,
    annotations: BTreeMap<&'a str, &'a str>,
    starts_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ends_at: Option<String>,
}

impl AlertmanagerSink {
    /// A sink for this target.
    ///
    /// # Errors
    /// Where the address cannot be called.
    pub fn new(settings: &AlertmanagerSettings) -> Result<AlertmanagerSink, BuildError> {
        // It usually runs beside us: loopback is fine.
        let url = format!("{}/api/v2/alerts", settings.url.trim_end_matches('/'));
        let api = ApiClient::new("alertmanager", &url, settings.timeout, true)?;
        Ok(AlertmanagerSink { api, token_file: settings.token_file.clone() })
    }

    async fn tell(&self, notice: &Notice, now: Timestamp) -> Result<(), ActError> {
        let mut labels: BTreeMap<&str, &str> = notice.labels.iter().collect();
        let severity = word(&notice.severity);
        // A rule's own severity stays: its author knows how the alerts are routed.
        labels.entry("severity").or_insert(&severity);
        labels.insert("alertname", alert_name(notice.kind));
        let mut annotations: BTreeMap<&str, &str> = BTreeMap::new();
        annotations.insert("summary", &notice.title);
        annotations.insert("description", &notice.text);
        annotations.extend(notice.annotations.iter().map(|(name, text)| (name.as_str(), text.as_str())));
        let alert = Alert {
            labels,
            annotations,
            starts_at: notice.starts_at.to_string(),
            ends_at: notice.ends_at.map(|at| at.to_string()),
        };
        let request = self.api.request(Method::POST).json(&[alert]);
        self.api.send(self.api.with_token(request, self.token_file.as_deref()).await?, now).await.map(drop)
    }
}

impl Sink for AlertmanagerSink {
    fn name(&self) -> &str {
        self.api.target()
    }

    fn send<'a>(&'a self, notice: &'a Notice, now: Timestamp) -> BoxFuture<'a, Result<(), ActError>> {
        self.tell(notice, now).boxed()
    }
}

fn alert_name(kind: NoticeKind) -> &'static str {
    match kind {
        NoticeKind::PredictedFailure => "ForestallPredictedFailure",
        NoticeKind::Acted => "ForestallActed",
        NoticeKind::Outcome => "ForestallOutcome",
        NoticeKind::Insufficient => "ForestallInsufficient",
        NoticeKind::Declined => "ForestallDeclined",
    }
}

/// Grafana's annotations API: each notice is a region (or a point) on every dashboard that asks for its tags.
#[derive(Debug)]
pub struct GrafanaSink {
    api: ApiClient,
    url: String,
    token_file: Option<PathBuf>,
    tags: Vec<String>,
    /// Notice → Grafana's id, the oldest first.
    ids: Mutex<VecDeque<(String, i64)>>,
}

#[derive(Deserialize)]
struct AnnotationAnswer {
    id: i64,
}

impl GrafanaSink {
    /// A sink for this target.
    ///
    /// # Errors
    /// Where the address cannot be called.
    pub fn new(settings: &GrafanaSettings) -> Result<GrafanaSink, BuildError> {
        let url = format!("{}/api/annotations", settings.url.trim_end_matches('/'));
        let api = ApiClient::new("grafana", &url, settings.timeout, true)?;
        let (token_file, tags) = (settings.token_file.clone(), settings.tags.clone());
        Ok(GrafanaSink { api, url, token_file, tags, ids: Mutex::default() })
    }

    async fn tell(&self, notice: &Notice, now: Timestamp) -> Result<(), ActError> {
        match notice.state {
            NoticeState::New => self.annotate(notice, now).await,
            // A region's end is moved once, when it is known.
            NoticeState::Renewed => Ok(()),
            NoticeState::Over => self.move_end(notice, now).await,
        }
    }

    async fn annotate(&self, notice: &Notice, now: Timestamp) -> Result<(), ActError> {
        let mut tags = self.tags.clone();
        tags.extend([word(&notice.kind), notice.component.to_string()]);
        let text = format!("<b>{}</b><br/>{}", escape(&notice.title), escape(&notice.text));
        let end = notice.ends_at.unwrap_or(notice.starts_at);
        let body = serde_json::json!({ "time": notice.starts_at.0, "timeEnd": end.0, "tags": tags, "text": text });
        let request = self.api.request(Method::POST).json(&body);
        let answer = self.api.send(self.api.with_token(request, self.token_file.as_deref()).await?, now).await?;
        if let Ok(AnnotationAnswer { id }) = serde_json::from_slice(&answer) {
            let mut ids = self.ids.lock();
            if ids.len() >= ANNOTATION_IDS_MAX {
                ids.pop_front();
            }
            ids.push_back((notice.key.clone(), id));
        }
        Ok(())
    }

    async fn move_end(&self, notice: &Notice, now: Timestamp) -> Result<(), ActError> {
        let known = self.ids.lock().iter().rfind(|(key, _)| *key == notice.key).map(|(_, id)| *id);
        // Told before a restart, or never: its planned end stands.
        let Some(id) = known else { return Ok(()) };
        let url = format!("{}/{id}", self.url).parse().map_err(|error| self.api.refused(format!("{error}")))?;
        let body = serde_json::json!({ "timeEnd": notice.ends_at.unwrap_or(now).0 });
        let request = self.api.request_to(Method::PATCH, url).json(&body);
        self.api.send(self.api.with_token(request, self.token_file.as_deref()).await?, now).await?;
        self.ids.lock().retain(|(_, other)| *other != id);
        Ok(())
    }
}

impl Sink for GrafanaSink {
    fn name(&self) -> &str {
        self.api.target()
    }

    fn send<'a>(&'a self, notice: &'a Notice, now: Timestamp) -> BoxFuture<'a, Result<(), ActError>> {
        self.tell(notice, now).boxed()
    }
}

/// Grafana shows an annotation's text as HTML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Posts notices as typed JSON, signed as actions are. Renewals are not posted.
#[derive(Debug)]
pub struct WebhookSink {
    api: ApiClient,
    signer: Signer,
}

#[derive(Serialize)]
struct NoticeBody<'a> {
    version: u32,
    #[serde(rename = "type")]
    body_type: &'a str,
    id: &'a str,
    key: &'a str,
    notice: NoticeKind,
    state: NoticeState,
    severity: super::notice::Severity,
    component: String,
    labels: &'a crate::model::Labels,
    title: &'a str,
    text: &'a str,
    starts_at: String,
    ends_at: Option<String>,
    annotations: &'a BTreeMap<String, String>,
}

impl WebhookSink {
    /// A sink for this target.
    ///
    /// # Errors
    /// Where the address cannot be called.
    pub fn new(settings: &NotifyWebhookSettings) -> Result<WebhookSink, BuildError> {
        let api = ApiClient::new("notification webhook", &settings.url, settings.timeout, settings.allow_local)?;
        Ok(WebhookSink { api, signer: Signer::new(settings.hmac_secret_files.clone()) })
    }

    async fn tell(&self, notice: &Notice, now: Timestamp) -> Result<(), ActError> {
        if notice.state == NoticeState::Renewed {
            return Ok(());
        }
        let body = NoticeBody {
            version: 1,
            body_type: "forestall.notice",
            id: &notice.id,
            key: &notice.key,
            notice: notice.kind,
            state: notice.state,
            severity: notice.severity,
            component: notice.component.to_string(),
            labels: &notice.labels,
            title: &notice.title,
            text: &notice.text,
            starts_at: notice.starts_at.to_string(),
            ends_at: notice.ends_at.map(|at| at.to_string()),
            annotations: &notice.annotations,
        };
        let body = serde_json::to_vec(&body).expect("a body of plain fields is always JSON");
        let headers = self.signer.headers(&notice.id, now, &body).await;
        let mut request = self.api.request(Method::POST).header(CONTENT_TYPE, "application/json");
        for (name, value) in headers.map_err(|error| self.api.unavailable(error.to_string()))? {
            request = request.header(name, value);
        }
        self.api.send(request.header("idempotency-key", &notice.id).body(body), now).await.map(drop)
    }
}

impl Sink for WebhookSink {
    fn name(&self) -> &str {
        self.api.target()
    }

    fn send<'a>(&'a self, notice: &'a Notice, now: Timestamp) -> BoxFuture<'a, Result<(), ActError>> {
        self.tell(notice, now).boxed()
    }
}

//! Where notices go.

use std::path::PathBuf;

use crate::model::Millis;

/// Everyone who is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NotifySettings {
    /// Each gets every notice as an alert.
    pub alertmanagers: Vec<AlertmanagerSettings>,
    /// Gets every decision as an annotation.
    pub grafana: Option<GrafanaSettings>,
    /// Each gets every notice as signed JSON.
    pub webhooks: Vec<NotifyWebhookSettings>,
}

/// An Alertmanager (API v2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertmanagerSettings {
    /// Its base address, such as `http://alertmanager:9093`; `/api/v2/alerts` is added.
    pub url: String,
    /// A file with a bearer token; none is sent where absent.
    pub token_file: Option<PathBuf>,
    /// How long one call may take.
    pub timeout: Millis,
}

/// A Grafana.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrafanaSettings {
    /// Its base address, such as `http://grafana:3000`; `/api/annotations` is added.
    pub url: String,
    /// A file with a service account's token; none is sent where absent.
    pub token_file: Option<PathBuf>,
    /// Put on every annotation, so that dashboards find them.
    pub tags: Vec<String>,
    /// How long one call may take.
    pub timeout: Millis,
}

/// A URL that notices are posted to, signed as actions are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotifyWebhookSettings {
    /// Where notices are posted to.
    pub url: String,
    /// Files with the HMAC keys, the one to sign with first; more than one during a rotation.
    pub hmac_secret_files: Vec<PathBuf>,
    /// How long one call may take.
    pub timeout: Millis,
    /// Whether loopback addresses may be called; link-local ones never are.
    pub allow_local: bool,
}

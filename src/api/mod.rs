//! HTTP in and out: remote write, Prometheus's read API, our own API, metrics, and the web page.
//!
//! Handlers only translate: what they show is the store and the newest [`Report`]; what they change goes through
//! [`Shared`], which the app owns. Nothing changes on GET.

mod admin;
mod alerts;
mod answer;
mod auth;
mod callbacks;
mod controls;
mod exposition;
#[cfg(feature = "keda")]
pub mod keda;
mod meters;
mod own;
mod page;
mod params;
mod predictions;
mod read;
mod views;
mod words;
mod write;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, HeaderValue, header};
use axum::routing::{get, post};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tower_http::compression::CompressionLayer;
use tower_http::set_header::SetResponseHeaderLayer;

use crate::act::{Callbacks, Fence};
use crate::audit::{Journal, Notifier};
use crate::clock::Clock;
use crate::config::Settings;
use crate::cycle::{Failure, Report};
use crate::ingest;
use crate::model::Timestamp;
use crate::query;
use crate::store::Store;

pub use self::meters::Meters;
pub use self::words::explain;

/// How many request bodies are decoded at a time; more wait, up to [`WRITE_WAIT`], then are told to come back.
const DECODES_MAX: usize = 4;

/// How queries are evaluated: as Prometheus's `--query.*`.
#[derive(Debug, Clone)]
pub struct QueryOptions {
    /// Limits of one evaluation, of rules too.
    pub settings: query::Settings,
    /// The longest that a request may wait and be evaluated.
    pub timeout: Duration,
    /// How many requests are evaluated at a time; more wait.
    pub concurrency_max: usize,
}

impl Default for QueryOptions {
    fn default() -> QueryOptions {
        let settings = query::Settings::default();
        QueryOptions { settings, timeout: Duration::from_secs(120), concurrency_max: 20 }
    }
}

/// Flags of the web server.
#[derive(Debug, Clone, Default)]
pub struct WebOptions {
    /// Whether `/-/reload` and `/-/quit` work over HTTP.
    pub enable_lifecycle: bool,
    /// How queries are evaluated.
    pub query: QueryOptions,
    /// All flags with their values, for `status/flags`.
    pub flags: Vec<(String, String)>,
}

/// A wish that only the app can fulfil.
#[derive(Debug)]
pub enum Wish {
    /// Read the configuration again; the answer says what is wrong with it.
    Reload(oneshot::Sender<Result<(), String>>),
    /// Stop.
    Quit,
}

/// What handlers and the app share.
#[derive(Debug)]
pub struct Shared {
    /// The time.
    pub clock: Clock,
    /// When the process started.
    pub started_at: Timestamp,
    /// The samples.
    pub store: Arc<Store>,
    /// The configuration in force.
    pub settings: ArcSwap<Settings>,
    /// The newest report; none before the first pass.
    pub report: ArcSwapOption<Report>,
    /// The journal.
    pub journal: Arc<Journal>,
    /// Who is told.
    pub notifier: Arc<Notifier>,
    /// Our own metrics.
    pub meters: Meters,
    /// Limits of remote write.
    pub limits: ingest::Limits,
    /// Flags.
    pub options: WebOptions,
    /// Failures that somebody else's alerts tell of; taken by the next pass. At most [`crate::cycle::FAILURES_MAX`].
    pub failures: parking_lot::Mutex<Vec<Failure>>,
    /// What receivers of webhooks have said of their actions; taken by the next pass.
    pub callbacks: Callbacks,
    /// Kinds whose breaker a person released; taken by the next pass.
    pub released: parking_lot::Mutex<BTreeSet<String>>,
    /// Why the journal could not be written the last time; nothing where it could.
    pub journal_fault: ArcSwapOption<String>,
    /// Whether this replica leads; it does where there is no election.
    pub fence: ArcSwapOption<Fence>,
    /// Whether the server takes and evaluates samples.
    pub ready: AtomicBool,
    /// When the last sample came, in ms since the epoch.
    pub last_write_at: AtomicI64,
    decodes: Semaphore,
    /// Of writes that are done, for those that come.
    buffers: parking_lot::Mutex<Vec<write::Buffers>>,
    queries: Arc<Semaphore>,
    wishes: mpsc::Sender<Wish>,
}

/// What [`Shared::new`] is made from.
#[derive(Debug)]
pub struct Parts {
    /// The time.
    pub clock: Clock,
    /// The samples.
    pub store: Arc<Store>,
    /// The configuration.
    pub settings: Settings,
    /// The journal.
    pub journal: Arc<Journal>,
    /// Who is told.
    pub notifier: Arc<Notifier>,
    /// What receivers of webhooks say, where their actuators take it from.
    pub callbacks: Callbacks,
    /// Flags.
    pub options: WebOptions,
}

impl Shared {
    /// What handlers and the app share, and where wishes arrive.
    pub fn new(parts: Parts) -> (Arc<Shared>, mpsc::Receiver<Wish>) {
        let (wishes, received) = mpsc::channel(4);
        let shared = Shared {
            started_at: parts.clock.now(),
            clock: parts.clock,
            store: parts.store,
            limits: parts.settings.limits.clone(),
            settings: ArcSwap::from_pointee(parts.settings),
            report: ArcSwapOption::empty(),
            journal: parts.journal,
            notifier: parts.notifier,
            meters: Meters::new(),
            failures: parking_lot::Mutex::default(),
            callbacks: parts.callbacks,
            released: parking_lot::Mutex::default(),
            journal_fault: ArcSwapOption::empty(),
            fence: ArcSwapOption::empty(),
            ready: AtomicBool::new(false),
            last_write_at: AtomicI64::new(0),
            decodes: Semaphore::new(DECODES_MAX),
            buffers: parking_lot::Mutex::default(),
            queries: Arc::new(Semaphore::new(parts.options.query.concurrency_max.min(Semaphore::MAX_PERMITS))),
            options: parts.options,
            wishes,
        };
        (Arc::new(shared), received)
    }

    /// Whether this replica may act as far as the election is concerned.
    pub fn leads(&self) -> bool {
        self.fence.load().as_ref().is_none_or(|fence| fence.is_open())
    }

    /// Whether acting is possible as far as the journal is concerned.
    pub fn journal_works(&self) -> bool {
        self.journal_fault.load().is_none()
    }
}

/// All routes.
pub fn router(shared: Arc<Shared>) -> Router {
    let read = Router::new()
        .route("/api/v1/query", get(read::query).post(read::query))
        .route("/api/v1/query_range", get(read::query_range).post(read::query_range))
        .route("/api/v1/series", get(read::series).post(read::series))
        .route("/api/v1/labels", get(read::labels).post(read::labels))
        .route("/api/v1/label/{name}/values", get(read::label_values))
        .route("/api/v1/metadata", get(read::metadata))
        .route("/api/v1/rules", get(read::rules))
        .route("/api/v1/alerts", get(read::alerts))
        .route("/api/v1/targets", get(read::targets))
        .route("/api/v1/query_exemplars", get(read::query_exemplars).post(read::query_exemplars))
        .route("/api/v1/format_query", get(read::format_query).post(read::format_query))
        .route("/api/v1/parse_query", get(read::parse_query).post(read::parse_query))
        .route("/api/v1/status/buildinfo", get(read::buildinfo))
        .route("/api/v1/status/runtimeinfo", get(read::runtimeinfo))
        .route("/api/v1/status/config", get(read::config))
        .route("/api/v1/status/flags", get(read::flags))
        .route("/api/v1/status/tsdb", get(read::tsdb));
    let own = Router::new()
        .route("/components", get(own::components))
        .route("/components/{*id}", get(own::component))
        .route("/plan", get(own::plan))
        .route("/decisions", get(own::decisions))
        .route("/decisions/{id}", get(own::decision))
        .route("/rules", get(own::rules))
        .route("/gates", get(own::gates))
        .route("/alerts", post(alerts::alerts))
        .route("/actions/{id}/outcome", post(callbacks::outcome))
        .route("/predictions", get(predictions::list).post(predictions::tell))
        .route("/approvals", get(controls::approvals))
        .route("/approvals/{id}", post(controls::answer))
        .route("/pause", get(controls::pauses).post(controls::pause).delete(controls::lift))
        .route("/breakers/{kind}/release", post(controls::release_breaker))
        .route("/latches/{*id}", post(controls::release_latch));
    Router::new()
        .route("/api/v1/write", post(write::write))
        .merge(read)
        .nest("/api/v1/forestall", own)
        .route("/-/healthy", get(admin::healthy))
        .route("/-/ready", get(admin::ready))
        .route("/-/reload", post(admin::reload).put(admin::reload))
        .route("/-/quit", post(admin::quit).put(admin::quit))
        .route("/metrics", get(exposition::metrics))
        .route("/", get(page::index))
        .route("/{file}", get(page::file))
        .fallback(answer::not_found)
        .layer(DefaultBodyLimit::max(shared.limits.wire_bytes_max))
        .layer(CompressionLayer::new())
        .layer(security_header(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(security_header(header::REFERRER_POLICY, "no-referrer"))
        .layer(security_header(
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
             form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        ))
        .with_state(shared)
}

fn security_header(name: HeaderName, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
}

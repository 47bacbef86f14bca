//! `forestall serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::{BAD_USAGE, LogFormat, complain, named, runtime, start_logging};
use crate::api::{QueryOptions, WebOptions};
use crate::app::{App, AppError, Options};
use crate::clock::Clock;
use crate::model::Millis;
use crate::query;

/// Flags of `serve`, named as Prometheus names its own.
#[derive(Debug, clap::Args)]
pub(super) struct ServeArguments {
    /// The main configuration file; without it the embedded defaults (observe mode) apply.
    #[arg(long = "config.file", value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// Where to listen. An address that others can reach needs --web.allow-unauthenticated.
    #[arg(long = "web.listen-address", value_name = "HOST:PORT", default_value = "127.0.0.1:9797")]
    listen_address: String,
    /// Listen on an address that others can reach although nobody has to sign in.
    #[arg(long = "web.allow-unauthenticated")]
    allow_unauthenticated: bool,
    /// Where KEDA's external scaler (gRPC) listens; nowhere without it. Nothing can be changed there.
    #[cfg(feature = "keda")]
    #[arg(long = "web.keda-listen-address", value_name = "HOST:PORT")]
    keda_listen_address: Option<String>,
    /// Allow reload and quit over HTTP.
    #[arg(long = "web.enable-lifecycle")]
    enable_lifecycle: bool,
    /// How far back an expression looks for a sample.
    #[arg(long = "query.lookback-delta", value_name = "DURATION", default_value = "5m", value_parser = positive)]
    lookback_delta: Millis,
    /// How many queries are evaluated at a time; more wait.
    #[arg(long = "query.max-concurrency", value_name = "COUNT", default_value_t = 20, value_parser = at_least_one)]
    max_concurrency: usize,
    /// The most samples that one query may hold in memory.
    #[arg(long = "query.max-samples", value_name = "COUNT", default_value_t = 50_000_000, value_parser = at_least_one)]
    max_samples: usize,
    /// The longest that a query may take; it is ended then.
    #[arg(long = "query.timeout", value_name = "DURATION", default_value = "2m", value_parser = positive)]
    query_timeout: Millis,
    /// Parts of PromQL that Prometheus calls experimental, by its names for them: promql-experimental-functions,
    /// promql-duration-expr.
    #[arg(long = "enable-feature", value_name = "FEATURE", value_delimiter = ',')]
    enable_features: Vec<String>,
    /// The folder of the journal.
    #[arg(long = "storage.path", value_name = "FOLDER", default_value = "data")]
    storage_path: PathBuf,
    /// What is logged: error, warn, info, debug, trace.
    #[arg(long = "log.level", value_name = "LEVEL", default_value = "info")]
    log_level: String,
    /// How log lines look.
    #[arg(long = "log.format", value_enum, default_value_t)]
    log_format: LogFormat,
}

fn positive(text: &str) -> Result<Millis, String> {
    match Millis::parse(text) {
        Ok(span) if span > Millis::ZERO => Ok(span),
        Ok(_) => Err("it must be more than nothing".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "a whole number from 1 on".to_owned())
}

/// Runs the server until it is told to stop.
pub(super) fn run(arguments: ServeArguments) -> anyhow::Result<ExitCode> {
    start_logging(&arguments.log_level, arguments.log_format);
    for feature in &arguments.enable_features {
        if !crate::query::enable(feature) {
            tracing::warn!(feature, "there is no such feature to enable");
        }
    }
    runtime()?.block_on(serve(arguments))
}

async fn serve(arguments: ServeArguments) -> anyhow::Result<ExitCode> {
    let flag = "--web.listen-address";
    let Some(addresses) = open_addresses(flag, &arguments.listen_address, &arguments).await? else {
        return Ok(ExitCode::from(BAD_USAGE));
    };
    #[cfg(feature = "keda")]
    let keda = match keda_listener(&arguments).await? {
        Some(listener) => listener,
        None => return Ok(ExitCode::from(BAD_USAGE)),
    };
    // The listener opens first: samples that come while the rest is set up wait in its queue.
    let listener = TcpListener::bind(&addresses[..])
        .await
        .with_context(|| format!("cannot listen on {}", arguments.listen_address))?;
    let query = QueryOptions {
        settings: query::Settings {
            lookback: arguments.lookback_delta,
            samples_max: arguments.max_samples,
            ..query::Settings::default()
        },
        timeout: arguments.query_timeout.to_std(),
        concurrency_max: arguments.max_concurrency,
    };
    let web = WebOptions { enable_lifecycle: arguments.enable_lifecycle, query, flags: flags(&arguments) };
    let options = Options {
        config_file: arguments.config_file.clone(),
        storage_path: Some(arguments.storage_path.clone()),
        web,
        clock: Clock::wall(),
    };
    let app = match App::build(options) {
        Ok(app) => Arc::new(app),
        Err(AppError::Config(problems)) => {
            complain(&format!("{} cannot be used:\n{problems}", named(&arguments.config_file)));
            return Ok(ExitCode::from(BAD_USAGE));
        }
        Err(error) => return Err(error.into()),
    };
    tracing::info!(
        address = %listener.local_addr()?, config = named(&arguments.config_file), version = env!("CARGO_PKG_VERSION"),
        "listening"
    );
    let (stop, stopped) = watch::channel(false);
    #[cfg(feature = "keda")]
    if let Some(listener) = keda {
        tokio::spawn(serve_keda(app.clone(), listener, stopped.clone()));
    }
    tokio::spawn(listen_to_signals(app.clone(), stop));
    app.serve(listener, stopped).await?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// The addresses of a flag's value; nothing, said to the person at the terminal, where others could reach one and nobody has
/// to sign in.
async fn open_addresses(
    flag: &str,
    value: &str,
    arguments: &ServeArguments,
) -> anyhow::Result<Option<Vec<SocketAddr>>> {
    let found = tokio::net::lookup_host(value).await.with_context(|| format!("{flag}={value} is no address"))?;
    let addresses: Vec<SocketAddr> = found.collect();
    if !arguments.allow_unauthenticated && addresses.iter().any(|address| !address.ip().is_loopback()) {
        complain(&format!(
            "{flag}={value} can be reached by others and nobody has to sign in; listen on 127.0.0.1, put a proxy that \
             authenticates in front, or say --web.allow-unauthenticated"
        ));
        return Ok(None);
    }
    Ok(Some(addresses))
}

/// Where KEDA asks, if it may ask anywhere; nothing where the address may not be opened.
#[cfg(feature = "keda")]
async fn keda_listener(arguments: &ServeArguments) -> anyhow::Result<Option<Option<TcpListener>>> {
    let flag = "--web.keda-listen-address";
    let Some(value) = &arguments.keda_listen_address else { return Ok(Some(None)) };
    let Some(addresses) = open_addresses(flag, value, arguments).await? else { return Ok(None) };
    let listener = TcpListener::bind(&addresses[..]).await.with_context(|| format!("cannot listen on {value}"))?;
    tracing::info!(address = %listener.local_addr()?, "listening for KEDA");
    Ok(Some(Some(listener)))
}

#[cfg(feature = "keda")]
async fn serve_keda(app: Arc<App>, listener: TcpListener, mut stopped: watch::Receiver<bool>) {
    let stop = async move {
        let _ = stopped.wait_for(|up| *up).await;
    };
    if let Err(error) = crate::api::keda::serve_keda(app.shared().clone(), listener, stop).await {
        tracing::error!(%error, "KEDA's scaler ended");
    }
}

/// SIGHUP reloads; SIGTERM and SIGINT stop.
async fn listen_to_signals(app: Arc<App>, stop: watch::Sender<bool>) {
    let signals = (signal(SignalKind::hangup()), signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut hangup), Ok(mut terminate), Ok(mut interrupt)) = signals else {
        tracing::error!("signals cannot be listened to; stop with SIGKILL");
        return;
    };
    loop {
        tokio::select! {
            _ = hangup.recv() => { let _ = app.reload(); }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    stop.send_replace(true);
}

/// All flags with their values, for `status/flags`.
fn flags(arguments: &ServeArguments) -> Vec<(String, String)> {
    let text = |path: &PathBuf| path.display().to_string();
    [
        ("config.file", arguments.config_file.as_ref().map(text).unwrap_or_default()),
        ("web.listen-address", arguments.listen_address.clone()),
        #[cfg(feature = "keda")]
        ("web.keda-listen-address", arguments.keda_listen_address.clone().unwrap_or_default()),
        ("web.allow-unauthenticated", arguments.allow_unauthenticated.to_string()),
        ("web.enable-lifecycle", arguments.enable_lifecycle.to_string()),
        ("enable-feature", arguments.enable_features.join(",")),
        ("query.lookback-delta", arguments.lookback_delta.to_string()),
        ("query.max-concurrency", arguments.max_concurrency.to_string()),
        ("query.max-samples", arguments.max_samples.to_string()),
        ("query.timeout", arguments.query_timeout.to_string()),
        ("storage.path", text(&arguments.storage_path)),
        ("log.level", arguments.log_level.clone()),
        ("log.format", if matches!(arguments.log_format, LogFormat::Json) { "json" } else { "text" }.to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

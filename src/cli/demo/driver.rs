//! Plays the demo: moves the clock, feeds the server over HTTP, carries its actions to the world.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::report::{Evidence, Report};
use super::world::{DAYS, STEP, Status, World};
use super::{DemoArguments, MAIN_FILE, POLICY_FILE, RULE_FILE};
use crate::act::WebhookBody;
use crate::api::{self, WebOptions};
use crate::app::{App, Options};
use crate::cli::say;
use crate::clock::Clock;
use crate::config;
use crate::ingest;
use crate::model::{ComponentId, Labels, Millis, Sample, Timestamp};
use crate::plan::{Action, PastAction, Plan, Reason, Target, Why};

/// Monday, 5 January 2026, 00:00 UTC: both worlds begin here.
const START: Timestamp = Timestamp::from_secs(1_767_571_200);
/// While the server stays up, a simulated minute passes in this time.
const PACE_AFTERWARDS: Duration = Duration::from_secs(1);

/// The fleet as an operator's endpoint: takes actions, answers how they stand.
#[derive(Debug)]
struct Fleet {
    world: Mutex<World>,
}

/// Everything that takes part.
struct Stage {
    clock: Clock,
    app: Arc<App>,
    fleet: Arc<Fleet>,
    twin: World,
    client: reqwest::Client,
    write_url: String,
    actions: BTreeMap<String, PastAction>,
    insufficient: Vec<(String, Timestamp)>,
}

/// Plays all days, prints the result, and stays up unless told not to.
pub(super) async fn play(arguments: &DemoArguments) -> anyhow::Result<()> {
    let listener = TcpListener::bind(&arguments.listen_address).await.with_context(|| {
        format!("cannot listen on {}: say --web.listen-address=127.0.0.1:0 for any free port", arguments.listen_address)
    })?;
    let address = listener.local_addr()?;
    let folder = tempfile::Builder::new().prefix("forestall-demo-").tempdir()?;
    let mut stage = set(arguments.seed, listener, folder.path()).await?;
    let minutes = DAYS * Millis::DAY.0 / STEP.0;
    let progress = progress(arguments, minutes);
    for minute in 1..=minutes {
        stage.minute(START + STEP * minute).await?;
        progress.inc(1);
        if minute % 30 == 0 {
            progress.set_message(stage.headline());
        }
    }
    progress.finish_and_clear();
    let report = stage.report(arguments.seed);
    if let Some(file) = &arguments.journal_export {
        let mut out = std::io::BufWriter::new(std::fs::File::create(file).context("--journal-export")?);
        stage.app.shared().journal.export(&mut out)?;
        std::io::Write::flush(&mut out)?;
    }
    if arguments.json {
        say(&serde_json::to_string(&report)?);
    } else {
        say(&report.table());
    }
    if arguments.once {
        return Ok(());
    }
    if !arguments.json {
        say(&format!(
            "\nThe server stays up: http://{address}/ shows the fleet, /metrics and /api/v1/forestall/components too.\n\
             Try `forestall explain`, `forestall plan`, `forestall decisions`. Ctrl-C stops it."
        ));
    }
    stage.stay_up().await
}

/// Builds the worlds, the fleet's endpoint and the server.
async fn set(seed: u64, listener: TcpListener, folder: &std::path::Path) -> anyhow::Result<Stage> {
    let clock = Clock::simulated(START);
    let fleet = Arc::new(Fleet { world: Mutex::new(World::new(seed, START)) });
    let fleet_listener = TcpListener::bind("127.0.0.1:0").await?;
    let fleet_url = format!("http://{}", fleet_listener.local_addr()?);
    let routes = Router::new()
        .route("/actions", post(take_action))
        .route("/actions/{id}", get(tell_status))
        .with_state(fleet.clone());
    tokio::spawn(async move { axum::serve(fleet_listener, routes).await });

    let (settings, _) = config::load(&write_files(folder, &fleet_url)?)
        .map_err(|problems| anyhow::anyhow!("the demo's configuration has problems:\n{problems}"))?;
    let options = Options { config_file: None, storage_path: None, web: WebOptions::default(), clock: clock.clone() };
    let app = Arc::new(App::from_settings(settings, options)?);
    let write_url = format!("http://{}/api/v1/write", listener.local_addr()?);
    let routes = api::router(app.shared().clone());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(Stage {
        clock,
        app,
        fleet,
        twin: World::new(seed, START),
        client: reqwest::Client::builder().no_proxy().build()?,
        write_url,
        actions: BTreeMap::new(),
        insufficient: Vec::new(),
    })
}

impl Stage {
    /// One minute: the worlds live through it, Prometheus would write, and the server passes when it is due.
    async fn minute(&mut self, at: Timestamp) -> anyhow::Result<()> {
        let samples = {
            let mut world = self.fleet.world.lock();
            world.step(at);
            world.samples()
        };
        self.twin.step(at);
        self.clock.advance_to(at);
        self.write(&samples, at).await?;
        if at.align_down(self.app.pass_interval()) == at {
            self.app.pass(at).await;
            self.keep(at);
        }
        Ok(())
    }

    async fn write(&self, samples: &[(Labels, f64)], at: Timestamp) -> anyhow::Result<()> {
        let series: Vec<(Labels, Vec<Sample>)> =
            samples.iter().map(|(labels, value)| (labels.clone(), vec![Sample { at, value: *value }])).collect();
        let response = self
            .client
            .post(&self.write_url)
            .header("content-type", "application/x-protobuf")
            .header("content-encoding", "snappy")
            .header("x-prometheus-remote-write-version", "0.1.0")
            .body(ingest::encode_v1(&series))
            .send()
            .await?;
        if !response.status().is_success() {
            bail!("the server refused a write: {}", response.text().await?);
        }
        Ok(())
    }

    /// Keeps what the report needs: the server's own ledger forgets.
    fn keep(&mut self, at: Timestamp) {
        for past in self.app.shared().journal.ledger(at).actions {
            self.actions.insert(past.action.id.clone(), past);
        }
        let Some(report) = self.app.shared().report.load_full() else { return };
        let held_back = |plan: &Plan| {
            let no_room = |reason: Reason| matches!(reason, Reason::InsufficientCapacity | Reason::Priority);
            let services = plan.declined.iter().filter(|declined| no_room(declined.reason)).map(|declined| {
                let values: Vec<&str> = declined.component.labels.iter().map(|(_, value)| value.as_str()).collect();
                values.join("/")
            });
            services.collect::<Vec<_>>()
        };
        self.insufficient.extend(held_back(&report.plan).into_iter().map(|service| (service, at)));
    }

    fn headline(&self) -> String {
        let world = self.fleet.world.lock();
        format!(
            "{} failures without forestall, {} with it, {} actions",
            self.twin.failures().len(),
            world.failures().len(),
            self.actions.len()
        )
    }

    fn report(&self, seed: u64) -> Report {
        let mut actions: Vec<PastAction> = self.actions.values().cloned().collect();
        actions.sort_by(|a, b| a.action.decided_at.cmp(&b.action.decided_at).then(a.action.id.cmp(&b.action.id)));
        let world = self.fleet.world.lock();
        Report::new(&Evidence {
            seed,
            start: START,
            twin: self.twin.failures(),
            world: world.failures(),
            actions: &actions,
            insufficient: &self.insufficient,
            evicted_replica_minutes: world.evicted_replica_minutes(),
        })
    }

    /// The fleet lives on, a minute a second, until someone stops it.
    async fn stay_up(mut self) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(PACE_AFTERWARDS);
        loop {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => return Ok(()),
                _ = ticks.tick() => {
                    let next = self.clock.now() + STEP;
                    self.minute(next).await?;
                }
            }
        }
    }
}

/// `POST /actions`: accepted, refused in words, or known already.
async fn take_action(State(fleet): State<Arc<Fleet>>, Json(body): Json<WebhookBody>) -> (StatusCode, Json<Value>) {
    let action = action_of(body);
    match fleet.world.lock().apply(&action) {
        Ok(()) => (StatusCode::ACCEPTED, Json(json!({"state": "pending"}))),
        Err(refusal) => (StatusCode::CONFLICT, Json(json!({"state": "failed", "reason": refusal.to_string()}))),
    }
}

/// The action as the world knows it: what the webhook says of it, and nothing else.
fn action_of(body: WebhookBody) -> Action {
    let component = ComponentId { kind: body.target.kind, labels: body.target.labels.into_iter().collect() };
    Action {
        id: body.id,
        policy: body.policy,
        rung: 0,
        kind: body.action,
        actuator: "fleet".to_owned(),
        target: Target { component, namespace: body.target.namespace, name: body.target.name },
        change: body.change,
        why: Why {
            probability: body.why.probability,
            eta: None,
            expected_loss: body.why.expected_loss,
            signal: String::new(),
            peak: None,
            sentence: body.why.sentence,
            predictions: Vec::new(),
        },
        decided_at: START,
        expires_at: None,
        undo: None,
        undoes: body.undoes,
        makes_room_for: body.makes_room_for,
        dry_run: false,
    }
}

/// `GET /actions/{id}`
async fn tell_status(State(fleet): State<Arc<Fleet>>, Path(id): Path<String>) -> (StatusCode, Json<Value>) {
    match fleet.world.lock().status(&id) {
        Some(Status::Done) => (StatusCode::OK, Json(json!({"state": "done"}))),
        Some(Status::Pending) => (StatusCode::OK, Json(json!({"state": "pending"}))),
        Some(Status::Failed) => (StatusCode::OK, Json(json!({"state": "failed"}))),
        None => (StatusCode::NOT_FOUND, Json(json!({"error": "no such action"}))),
    }
}

fn progress(arguments: &DemoArguments, minutes: i64) -> ProgressBar {
    let target = if arguments.json { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(u64::try_from(minutes).unwrap_or(0)), target);
    let style = ProgressStyle::with_template("{bar:40} {percent:>3} % of {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(format!("{DAYS} days"));
    bar
}

/// Writes the configuration with its placeholders filled in, and answers where the main file is.
fn write_files(folder: &std::path::Path, fleet_url: &str) -> anyhow::Result<std::path::PathBuf> {
    let secret = folder.join("secret");
    std::fs::write(&secret, "a secret that only this demo knows")?;
    let main = MAIN_FILE.replace("@URL@", fleet_url).replace("@SECRET_FILE@", &secret.display().to_string());
    for (name, text) in [("rules.yml", RULE_FILE), ("policies.yml", POLICY_FILE), ("forestall.yml", &main)] {
        std::fs::write(folder.join(name), text)?;
    }
    Ok(folder.join("forestall.yml"))
}

//! Builds everything, runs the passes and what follows from them, reloads, and stops in order.

mod keeper;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc, watch};

use crate::act::{self, Callbacks, CarriedOut, Done, Executor, Fence, Leadership, Naming, Wanted};
use crate::api::{self, Parts, Shared, WebOptions, Wish};
use crate::audit::{self, Controls, Journal, JournalError, Notifier, RuleAnnotations, Told};
use crate::clock::Clock;
use crate::config::{self, Keep, Problem, Settings};
use crate::cycle::{Cycle, Fault, Report, Seen, predict_rules};
use crate::health::DaySummary;
use crate::model::{Millis, Timestamp};
use crate::plan::{Action, Capacity, Gates, Plan};
use crate::store::{Matcher, Store};

use self::keeper::Keeper;

/// How often what is older than the retention is dropped.
const EXPIRE_EVERY: Millis = Millis(30 * Millis::SECOND.0);

/// How long each part may take to end when forestall stops.
const STOP_WAIT: std::time::Duration = std::time::Duration::from_secs(5);

/// What an app is built from.
#[derive(Debug)]
pub struct Options {
    /// The main configuration file; the embedded defaults where absent.
    pub config_file: Option<PathBuf>,
    /// Where the journal is kept; in memory where absent.
    pub storage_path: Option<PathBuf>,
    /// Flags of the web server.
    pub web: WebOptions,
    /// The time.
    pub clock: Clock,
}

/// Why an app could not be built.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The configuration has problems; all of them.
    #[error("{0}")]
    Config(String),
    /// An actuator or a notification target could not be set up.
    #[error("{0}")]
    Setup(String),
    /// The journal could not be opened.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Everything that runs.
#[derive(Debug)]
pub struct App {
    shared: Arc<Shared>,
    config_file: Option<PathBuf>,
    cycle: Arc<parking_lot::Mutex<Cycle>>,
    executor: ArcSwap<Executor>,
    last: Mutex<Option<Plan>>,
    told: parking_lot::Mutex<Told>,
    wishes: Mutex<mpsc::Receiver<Wish>>,
    expired_at: parking_lot::Mutex<Timestamp>,
    /// Chooses which of several replicas acts; this one does where there is none.
    leadership: Option<Arc<Leadership>>,
    /// Keeps what was learned in a file; nobody does where there is no storage path.
    keeper: Option<Keeper>,
    kept_at: parking_lot::Mutex<Timestamp>,
    /// From when the hold after the start counts, in ms since the epoch.
    held_from: AtomicI64,
}

/// Whether what was learned is kept now or when the interval is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeepWhen {
    Due,
    Now,
}

impl App {
    /// Reads the configuration and builds an app from it.
    ///
    /// # Errors
    /// All problems of the configuration; a journal or actuator that cannot be set up.
    pub fn build(options: Options) -> Result<App, AppError> {
        let (settings, warnings) = read_settings(options.config_file.as_deref()).map_err(AppError::Config)?;
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        App::from_settings(settings, options)
    }

    /// Builds an app from settings that were read already.
    ///
    /// # Errors
    /// A journal or actuator that cannot be set up.
    pub fn from_settings(mut settings: Settings, options: Options) -> Result<App, AppError> {
        settings.query = options.web.query.settings.clone();
        let journal = Arc::new(match &options.storage_path {
            Some(folder) => {
                std::fs::create_dir_all(folder)
                    .map_err(|error| AppError::Setup(format!("{}: {error}", folder.display())))?;
                Journal::open(&folder.join("journal.sqlite"))?
            }
            None => Journal::in_memory(),
        });
        let store = Arc::new(Store::new(settings.store.clone()));
        store.keep_only(keep_of(&settings));
        let leadership = settings.leader_election.as_ref();
        let leadership =
            leadership.map(|lease| Arc::new(Leadership::new(lease, &identity(&options.clock), &options.clock)));
        let fence = leadership.as_ref().map(|leadership| leadership.fence().clone());
        let callbacks = Callbacks::default();
        let executor = executor_of(&settings, &journal, &options.clock, &callbacks, fence.as_ref())?;
        let sinks = audit::build_sinks(&settings.notify).map_err(|error| AppError::Setup(error.to_string()))?;
        let notifier = Arc::new(Notifier::new(sinks, options.clock.clone()));
        let mut cycle = Cycle::new();
        cycle.recover(journal.quality()?);
        cycle.resume(journal.carry(options.clock.now()));
        let keeper = options.storage_path.as_deref().map(Keeper::new);
        if let Some(keeper) = &keeper {
            keeper.restore(&mut cycle);
        }
        let clock = options.clock;
        let parts = Parts { clock, store, settings, journal, notifier, callbacks, options: options.web };
        let (shared, wishes) = Shared::new(parts);
        if let Some(fence) = fence {
            shared.fence.store(Some(Arc::new(fence)));
        }
        Ok(App {
            held_from: AtomicI64::new(shared.started_at.0),
            shared,
            config_file: options.config_file,
            cycle: Arc::new(parking_lot::Mutex::new(cycle)),
            executor: ArcSwap::from_pointee(executor),
            last: Mutex::default(),
            told: parking_lot::Mutex::default(),
            wishes: Mutex::new(wishes),
            expired_at: parking_lot::Mutex::default(),
            keeper,
            kept_at: parking_lot::Mutex::default(),
            leadership,
        })
    }

    /// The same app with what carries plans out changed: for simulations of whom it acts on. A reload goes back to what the
    /// settings name.
    pub fn with_executor(self, change: impl FnOnce(Executor) -> Executor) -> App {
        let executor = change(Executor::clone(&self.executor.load()));
        self.executor.store(Arc::new(executor));
        self
    }

    /// This replica's part in the election, where there is one.
    pub fn leadership(&self) -> Option<&Arc<Leadership>> {
        self.leadership.as_ref()
    }

    /// What handlers see; also for tests and the demo.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Serves HTTP on the listener and runs the passes until `stop` says so, or someone wishes it over HTTP.
    ///
    /// # Errors
    /// Where the listener breaks.
    pub async fn serve(self: Arc<App>, listener: TcpListener, stop: watch::Receiver<bool>) -> std::io::Result<()> {
        let ended = watch::Sender::new(false);
        let server = tokio::spawn({
            let service = api::router(self.shared.clone()).into_make_service_with_connect_info::<SocketAddr>();
            let end = ended.subscribe();
            async move { axum::serve(listener, service).with_graceful_shutdown(stopped(end)).await }
        });
        let notifier = tokio::spawn({
            let shared = self.shared.clone();
            let end = ended.subscribe();
            async move { shared.notifier.run(stopped(end)).await }
        });
        let elections = self.leadership.clone().map(|leadership| {
            let end = ended.subscribe();
            tokio::spawn(async move { leadership.run(stopped(end)).await })
        });
        self.run_passes(stop).await;
        tracing::info!("stopping");
        self.keep_learned(self.shared.clock.now(), KeepWhen::Now).await;
        let untold = self.cycle.lock().untold(self.shared.clock.now());
        self.keep_quality(untold).await;
        ended.send_replace(true);
        notifier.await.map_err(std::io::Error::other)?;
        if let Some(elections) = elections
            && tokio::time::timeout(STOP_WAIT, elections).await.is_err()
        {
            tracing::warn!("the lease was not let go of; it runs out by itself");
        }
        // What is still queued gets its try, not more: a sink that is away must not hold up the stop.
        if tokio::time::timeout(STOP_WAIT, self.shared.notifier.drain()).await.is_err() {
            tracing::warn!("notices were left unsent");
        }
        // Connections that are kept alive get a moment, not for ever.
        match tokio::time::timeout(STOP_WAIT, server).await {
            Ok(served) => served.map_err(std::io::Error::other)?,
            Err(_) => Ok(()),
        }
    }

    async fn run_passes(&self, stop: watch::Receiver<bool>) {
        let mut wishes = self.wishes.lock().await;
        let clock = &self.shared.clock;
        let mut done_to = clock.now().align_down(self.pass_interval());
        loop {
            let interval = self.pass_interval();
            // Passes that were missed are not made up for: the present is what counts.
            let next = clock.now().align_down(interval).max(done_to) + interval;
            tokio::select! {
                () = stopped(stop.clone()) => return,
                wish = wishes.recv() => match wish {
                    Some(Wish::Reload(done)) => { let _ = done.send(self.reload()); }
                    Some(Wish::Quit) | None => return,
                },
                () = clock.sleep_until(next) => {
                    done_to = clock.now().align_down(interval).max(next);
                    self.pass(done_to).await;
                    self.keep_learned(done_to, KeepWhen::Due).await;
                }
            }
        }
    }

    /// How often there is a pass: the longest step that meets the multiples of every group's interval.
    pub fn pass_interval(&self) -> Millis {
        let settings = self.shared.settings.load();
        let groups = settings.groups.iter().map(|group| group.interval);
        groups.reduce(greatest_common_divisor).unwrap_or(settings.global.evaluation_interval)
    }

    /// One pass at `now`, and what follows from it: the decision is written down, told, and carried out.
    pub async fn pass(&self, now: Timestamp) {
        self.pass_seeing(now, None).await;
    }

    /// The same where somebody else says what is to be seen: for simulations of deciding and acting.
    pub async fn pass_seeing(&self, now: Timestamp, seen: Option<Seen>) {
        let started = self.shared.clock.now();
        self.keep_controls(now).await;
        self.follow_up(now).await;
        let Some(report) = self.run_cycle(now, seen).await else { return };
        self.shared.report.store(Some(report.clone()));
        self.shared.store.look_ahead(report.clone());
        self.shared.ready.store(true, Ordering::Relaxed);
        let mut last = self.last.lock().await;
        self.decide(&report, last.as_ref()).await;
        *last = Some(report.plan.clone());
        self.tend_journal(now).await;
        let took = self.shared.clock.now() - started;
        self.shared.meters.observe_cycle(took.as_secs_f64(), took > self.pass_interval());
    }

    /// Writes what was learned into its file, each snapshot interval and at the end.
    async fn keep_learned(&self, now: Timestamp, when: KeepWhen) {
        let Some(keeper) = self.keeper.clone() else { return };
        let interval = self.shared.settings.load().snapshot_interval;
        {
            let mut kept_at = self.kept_at.lock();
            if *kept_at == Timestamp::default() {
                // The first is due an interval after the start.
                *kept_at = now;
            }
            if when == KeepWhen::Due && now - *kept_at < interval {
                return;
            }
            *kept_at = now;
        }
        let cycle = self.cycle.clone();
        let written = tokio::task::spawn_blocking(move || keeper.keep(&cycle.lock(), now)).await;
        match written.map_err(std::io::Error::other).and_then(|written| written) {
            Ok(watches) => tracing::debug!(watches, "what was learned is kept"),
            Err(error) => tracing::error!(%error, "what was learned could not be kept; the file before it stays"),
        }
    }

    async fn run_cycle(&self, now: Timestamp, seen: Option<Seen>) -> Option<Arc<Report>> {
        let settings = self.shared.settings.load_full();
        let store = self.shared.store.clone();
        let cycle = self.cycle.clone();
        let failures = std::mem::take(&mut *self.shared.failures.lock());
        let (capacity, faults) = self.ask_clusters(&settings).await;
        let ledger = self.shared.journal.ledger(now);
        let controls = self.shared.journal.controls();
        let predictions = controls.predictions.at(now);
        let gates = self.gates(controls, &settings, now);
        let expire = {
            let mut expired_at = self.expired_at.lock();
            let due = now - *expired_at >= EXPIRE_EVERY;
            if due {
                *expired_at = now;
            }
            due
        };
        let task = tokio::task::spawn_blocking(move || {
            if expire {
                store.expire(now);
            }
            let mut cycle = cycle.lock();
            cycle.note_failures(failures);
            cycle.note_capacity(capacity, faults);
            cycle.note_predictions(predictions);
            match seen {
                Some(seen) => cycle.decide(&settings, seen, ledger, gates, now),
                None => cycle.run(&store, &settings, ledger, gates, now),
            }
        });
        match task.await {
            Ok(report) => Some(Arc::new(report)),
            Err(panic) => {
                tracing::error!(%panic, "a pass broke; nothing is decided until the next");
                None
            }
        }
    }

    /// What is free in the pools of clusters. Of a cluster that cannot be read nothing is known, so nothing of it is given.
    async fn ask_clusters(&self, settings: &Settings) -> (Capacity, Vec<Fault>) {
        let (mut capacity, mut faults) = (Capacity::default(), Vec::new());
        let executor = self.executor.load_full();
        for (actuator, wanted) in cluster_pools(settings) {
            let Some(cluster) = executor.actuators.get(&actuator) else { continue };
            match cluster.measure(&wanted).await {
                Ok(told) => {
                    capacity.pools.extend(told.pools);
                    capacity.workloads.extend(told.workloads);
                    capacity.autoscaled.extend(told.autoscaled);
                }
                Err(error) => {
                    let pools: Vec<&str> = wanted.pools.keys().map(String::as_str).collect();
                    let what = format!("pools of {actuator}: {}", pools.join(", "));
                    faults.push(Fault { what, why: error.to_string() });
                }
            }
        }
        (capacity, faults)
    }

    fn gates(&self, controls: Controls, settings: &Settings, now: Timestamp) -> Gates {
        // A clock that was set back begins the hold anew: its old end may be hours away.
        let held_from = now.min(Timestamp(self.held_from.fetch_min(now.0, Ordering::Relaxed)));
        Gates {
            mode: settings.global.mode,
            hold_until: Some(held_from + settings.global.start_hold),
            pauses: controls.pauses_at(now),
            journal_ok: self.shared.journal_works(),
            follower: !self.shared.leads(),
            interval: self.pass_interval(),
            released: std::mem::take(&mut self.shared.released.lock()),
            approved: controls.approved,
            declined: controls.declined,
        }
    }

    /// Writes the decision down, tells those who want to know, and acts.
    async fn decide(&self, report: &Report, last: Option<&Plan>) {
        let shared = &self.shared;
        for fault in &report.faults {
            tracing::warn!(what = fault.what, why = fault.why, "could not be evaluated");
        }
        for (rule, lead) in &report.leads {
            shared.meters.observe_lead(rule, *lead);
        }
        self.count_declined(&report.plan, last);
        self.keep_quality(report.untold.clone()).await;
        // While the journal is broken each pass tries it again: the decision is what shows that it works.
        if audit::worth_keeping(last, &report.plan) || !shared.journal_works() {
            let journal = shared.journal.clone();
            let (input, plan) = (report.input.clone(), report.plan.clone());
            let written = tokio::task::spawn_blocking(move || journal.record_decision(&input, &plan)).await;
            if let Err(error) = flat(written) {
                self.journal_failed(&error);
                return;
            }
            if shared.journal_fault.swap(None).is_some() {
                tracing::info!("the journal can be written again");
            }
        }
        let carried = self.executor.load_full().carry_out(&report.plan).await;
        self.settle(&report.plan.actions, &carried);
        shared.journal.drop_answers(&report.plan.carry);
        self.tell(report, &carried.done);
    }

    /// Writes down what predictions were worth. What cannot be written is tried again in the next pass.
    async fn keep_quality(&self, untold: Vec<DaySummary>) {
        if untold.is_empty() {
            return;
        }
        let (journal, now) = (self.shared.journal.clone(), self.shared.clock.now());
        let written = tokio::task::spawn_blocking(move || {
            journal.record_quality(&untold, now)?;
            Ok::<_, JournalError>(untold)
        });
        match flat(written.await) {
            Ok(told) => self.cycle.lock().told(&told),
            Err(error) => self.journal_failed(&error),
        }
    }

    /// Stops acting until the journal can be written again.
    fn journal_failed(&self, error: &str) {
        if self.shared.journal_fault.swap(Some(Arc::new(error.to_owned()))).is_none() {
            tracing::error!(error, "the journal cannot be written; nothing is acted on until it can");
        }
    }

    /// Closes the journal's file where it is large or old enough, and deletes closed ones that are too old.
    async fn tend_journal(&self, now: Timestamp) {
        let journal = self.shared.journal.clone();
        let settings = self.shared.settings.load().journal;
        let tended = tokio::task::spawn_blocking(move || Ok::<_, String>(journal.tend(&settings, now)));
        match flat(tended.await) {
            Ok(Ok(())) => {}
            Ok(Err(error @ JournalError::InUse)) => tracing::debug!(%error, "the journal's segment stays open"),
            Ok(Err(error)) => tracing::warn!(%error, "the journal's segments could not be tended"),
            Err(panic) => tracing::error!(panic, "the journal's segments could not be tended"),
        }
    }

    /// Writes down what persons said and could not be written at once, and how far policies may go now.
    async fn keep_controls(&self, now: Timestamp) {
        let journal = self.shared.journal.clone();
        let settings = self.shared.settings.load_full();
        let written = tokio::task::spawn_blocking(move || {
            journal.write_pauses(now)?;
            journal.keep_modes(&config::modes(&settings), now)
        });
        match flat(written.await) {
            Ok(widened) => {
                for (policy, from, to) in widened {
                    tracing::warn!(
                        policy,
                        from = audit::word(&from),
                        to = audit::word(&to),
                        "a policy may go further than before"
                    );
                }
            }
            Err(error) => self.journal_failed(&error),
        }
    }

    /// Tells those who want to know what is at risk, what was decided, and what came of it.
    fn tell(&self, report: &Report, done: &[Done]) {
        let settings = self.shared.settings.load();
        let annotations: RuleAnnotations =
            predict_rules(&settings).map(|rule| (rule.name.clone(), rule.annotations.clone())).collect();
        let mut notices = audit::notices_of(&report.plan, &report.assessments, &annotations, &mut self.told.lock());
        notices.extend(audit::notices_of_outcomes(&report.plan.actions, done, self.shared.clock.now()));
        self.shared.notifier.push(&notices);
    }

    fn count_declined(&self, plan: &Plan, last: Option<&Plan>) {
        for declined in &plan.declined {
            let known = last.is_some_and(|last| {
                last.declined.iter().any(|d| d.component == declined.component && d.reason == declined.reason)
            });
            if !known {
                self.shared.meters.count_declined(declined);
            }
        }
    }

    /// Asks for actions that were sent and have no outcome yet; after a start, for those that were under way when the
    /// last process ended. Nothing is sent again.
    async fn follow_up(&self, now: Timestamp) {
        let ledger = self.shared.journal.ledger(now);
        let under_way: Vec<Action> =
            ledger.actions.into_iter().filter(|past| past.outcome.is_none()).map(|past| past.action).collect();
        let carried = self.executor.load_full().follow_up(&under_way).await;
        self.settle(&under_way, &carried);
        let notices = audit::notices_of_outcomes(&under_way, &carried.done, self.shared.clock.now());
        self.shared.notifier.push(&notices);
    }

    /// Counts outcomes, and stops acting where the journal could not take them.
    fn settle(&self, actions: &[Action], carried: &CarriedOut) {
        if let Some(error) = &carried.stopped {
            self.journal_failed(&error.to_string());
        }
        for done in &carried.done {
            if let Some(action) = actions.iter().find(|action| action.id == done.action_id) {
                self.shared.meters.count_outcome(action, done.outcome, done.took.map(Millis::as_secs_f64));
            }
        }
    }

    /// Reads the configuration again. The last good one stays in force when the new one has problems.
    ///
    /// # Errors
    /// All problems, as text for a person.
    pub fn reload(&self) -> Result<(), String> {
        let loaded = read_settings(self.config_file.as_deref()).and_then(|(settings, warnings)| {
            for warning in &warnings {
                tracing::warn!("{warning}");
            }
            let fence = self.leadership.as_ref().map(|leadership| leadership.fence());
            let Shared { journal, clock, callbacks, .. } = &*self.shared;
            let executor = executor_of(&settings, journal, clock, callbacks, fence);
            Ok((executor.map_err(|error| error.to_string())?, settings))
        });
        match loaded {
            Ok((executor, mut settings)) => {
                settings.query = self.shared.options.query.settings.clone();
                self.executor.store(Arc::new(executor));
                self.shared.store.keep_only(keep_of(&settings));
                for setting in config::restart_needed(&self.shared.settings.load(), &settings) {
                    tracing::warn!(setting, "changed, and takes effect at the next start");
                }
                self.shared.settings.store(Arc::new(settings));
                self.shared.meters.count_reload("ok");
                tracing::info!("configuration reloaded");
                Ok(())
            }
            Err(problems) => {
                self.shared.meters.count_reload("failed");
                tracing::error!("configuration not reloaded, the last good one stays:\n{problems}");
                Err(problems)
            }
        }
    }
}

/// What a blocking task gave, or what is wrong in words.
fn flat<T, E: std::fmt::Display>(done: Result<Result<T, E>, tokio::task::JoinError>) -> Result<T, String> {
    done.map_err(|panic| panic.to_string())?.map_err(|error| error.to_string())
}

fn greatest_common_divisor(a: Millis, b: Millis) -> Millis {
    if b == Millis::ZERO { a } else { greatest_common_divisor(b, Millis(a.0 % b.0)) }
}

/// Ends when the flag is up, or when nobody holds it any more.
async fn stopped(mut flag: watch::Receiver<bool>) {
    let _ = flag.wait_for(|up| *up).await;
}

/// The settings of a file, or the embedded ones; all problems as one text.
fn read_settings(file: Option<&std::path::Path>) -> Result<(Settings, Vec<Problem>), String> {
    match file {
        Some(file) => config::load(file).map_err(|problems| problems.to_string()),
        None => Ok((config::defaults(), Vec::new())),
    }
}

/// Actuator → the pools that its cluster tells of, with the names that the rules give to what runs there.
fn cluster_pools(settings: &Settings) -> BTreeMap<String, Wanted> {
    let mut names: Vec<Naming> = Vec::new();
    for rule in predict_rules(settings) {
        let plain = Naming::plain(&rule.kind);
        let (namespace, name) = match &rule.target {
            Some(target) => (target.namespace.clone().unwrap_or_default(), target.name.clone()),
            None => (plain.namespace, plain.name),
        };
        if names.iter().all(|known| known.kind != rule.kind) {
            names.push(Naming { kind: rule.kind.clone(), by: rule.by.clone(), namespace, name });
        }
    }
    let mut wanted: BTreeMap<String, Wanted> = BTreeMap::new();
    for pool in &settings.pools {
        let Some(cluster) = &pool.cluster else { continue };
        let of = wanted.entry(cluster.actuator.clone()).or_default();
        of.pools.insert(pool.name.clone(), cluster.node_selector.clone());
        of.names.clone_from(&names);
    }
    wanted
}

/// What new series must meet to be stored; anything where everything is kept.
fn keep_of(settings: &Settings) -> Option<Vec<Vec<Matcher>>> {
    match settings.keep {
        Keep::All => None,
        Keep::Rules { .. } => Some(settings.selectors()),
    }
}

fn executor_of(
    settings: &Settings,
    journal: &Arc<Journal>,
    clock: &Clock,
    callbacks: &Callbacks,
    fence: Option<&Fence>,
) -> Result<Executor, AppError> {
    let actuators = act::build(&settings.actuators, callbacks).map_err(|error| AppError::Setup(error.to_string()))?;
    if let Some(fence) = fence {
        actuators.values().for_each(|actuator| actuator.set_fence(fence));
    }
    Ok(Executor { actuators, record: journal.clone(), clock: clock.clone(), fence: fence.cloned() })
}

/// Who this process is in an election: another for each process, also where two of them share a host.
fn identity(clock: &Clock) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}_{}_{}", host.trim(), std::process::id(), clock.now().0)
}

//! One run: the real app, minus sockets, in the world of a seed.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::ops::{ControlFlow, Range};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use forestall::api::WebOptions;
use forestall::app::{App, Options};
use forestall::audit::{Answer, Filter, Released, Said};
use forestall::clock::Clock;
use forestall::config::Settings;
use forestall::model::Millis;
use forestall::plan::{Mode, PauseScope};
use tempfile::TempDir;

use super::chance::Chance;
use super::checks::{Broken, Checker, Moment, Tally, inv_no_action_id_has_two_effects};
use super::script::{Eyes, Script, settings};
use super::sight::Sight;
use super::target::{Row, Site, Wire};
use super::whole;
use super::world::{Kind, START, World};

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) broken: Vec<Broken>,
    pub(crate) tally: Tally,
    /// The journal as JSON Lines, where it was asked for.
    pub(crate) journal: Vec<u8>,
    /// What happened, where it was asked for.
    pub(crate) story: String,
}

/// What is wanted of a run beside what is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Nothing,
    /// The journal.
    Journal,
    /// What happened in each pass, in words.
    Story,
}

/// Runs a seed. A panic in forestall is a broken promise like any other.
pub(crate) fn run(runtime: &tokio::runtime::Runtime, seed: u64, wanted: Wanted) -> Ran {
    let ran = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let script = Script::draw(seed);
        runtime.block_on(async { Run::begin(seed, script).whole(wanted).await })
    }));
    ran.unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned()));
        let what = words.unwrap_or_else(|| "without a word".to_owned());
        let broken = Broken { invariant: "no_panic", cycle: 0, what };
        Ran { broken: vec![broken], tally: Tally::default(), journal: Vec::new(), story: String::new() }
    })
}

/// A runtime for one thread's runs: one thread for what blocks, so that all of it comes one after the other.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().max_blocking_threads(1).build().expect("a runtime can be built")
}

/// Works through seeds on all cores, until one's work says that it is enough.
pub(crate) fn in_parallel(seeds: Range<u64>, work: impl Fn(&tokio::runtime::Runtime, u64) -> ControlFlow<()> + Sync) {
    let next = AtomicU64::new(seeds.start);
    // A seed waits for its writer now and then: another runs meanwhile.
    let threads = 2 * std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let runtime = runtime();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || work(&runtime, seed).is_break() {
                        break;
                    }
                }
            });
        }
    });
}

/// A run under way.
pub(crate) struct Run {
    seed: u64,
    script: Script,
    settings: Settings,
    site: Arc<Site>,
    sight: Sight,
    checker: Checker,
    chance: Chance,
    people: Chance,
    /// Which samples are spoilt.
    weather: Chance,
    clock: Clock,
    /// By how much forestall's clock is ahead of the world.
    ahead: Millis,
    folder: Option<TempDir>,
    app: Option<App>,
    mode: Mode,
    /// Nothing is wrong any more.
    calm: bool,
    /// The disk is full up to this cycle.
    full_until: u32,
    /// Until then the journal's file takes nothing at all, not only nothing of the executor.
    refuses: bool,
    down_until: u32,
    looked_at: (usize, usize, usize),
    cycle: u32,
    story: Option<String>,
}

/// How a pass ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Whole,
    Killed,
}

impl Run {
    pub(crate) fn begin(seed: u64, script: Script) -> Run {
        let mut world = World::new(seed, &script.scale);
        if let Some((kind, episode)) = script.mass {
            for thing in world.things.iter_mut().filter(|thing| thing.kind == kind) {
                thing.load.episodes.push(episode);
            }
        }
        let clock = Clock::simulated(START);
        let site = Arc::new(Site::new(seed, world, clock.clone()));
        *site.wire.lock() = script.wire;
        let mut sight = Sight::new(seed);
        sight.spells.clone_from(&script.spells);
        sight.false_alarms = script.false_alarms;
        Run {
            seed,
            settings: settings(&script.rules, script.interval, script.start_hold, script.eyes),
            checker: Checker::new(&script.rules, script.interval, script.start_hold),
            chance: Chance::new(seed, "run"),
            people: Chance::new(seed, "operators"),
            weather: Chance::new(seed, "weather"),
            folder: script.needs_files().then(folder),
            site,
            sight,
            clock,
            script,
            ahead: Millis::ZERO,
            app: None,
            mode: Mode::Act,
            calm: false,
            full_until: 0,
            refuses: false,
            down_until: 0,
            looked_at: (0, 0, 0),
            cycle: 0,
            story: None,
        }
    }

    pub(crate) async fn whole(mut self, wanted: Wanted) -> Ran {
        self.story = (wanted == Wanted::Story).then(|| format!("{:#?}\n", self.script));
        self.start();
        for _ in 0..self.script.passes {
            self.live(self.script.interval).await;
        }
        self.calm_down().await;
        self.take_stock();
        let mut journal = Vec::new();
        if wanted == Wanted::Journal
            && let Some(app) = &self.app
        {
            app.shared().journal.export(&mut journal).expect("a journal can be exported");
        }
        self.app = None;
        Ran { broken: self.checker.broken, tally: self.checker.tally, journal, story: self.story.unwrap_or_default() }
    }

    /// A process begins.
    pub(crate) fn start(&mut self) {
        let options = Options {
            config_file: None,
            storage_path: self.folder.as_ref().map(|folder| folder.path().to_owned()),
            web: WebOptions::default(),
            clock: self.clock.clone(),
        };
        *self.site.life.lock() += 1;
        let app =
            App::from_settings(self.settings_in_force(), options).expect("a journal that was cut off opens again");
        let app = app.with_executor(|executor| self.site.executor(executor));
        *self.site.journal.lock() = Arc::downgrade(&app.shared().journal);
        if self.script.eyes == Eyes::Forestalls {
            let history = whole::history(&self.site.world.lock(), self.clock.now(), self.script.interval);
            whole::write(app.shared(), &history);
        }
        self.app = Some(app);
        self.checker.started(self.clock.now());
    }

    fn settings_in_force(&self) -> Settings {
        let mut settings = self.settings.clone();
        settings.global.mode = self.mode;
        settings
    }

    /// One interval, and the pass at its end.
    pub(crate) async fn live(&mut self, interval: Millis) {
        self.cycle += 1;
        self.move_on(interval);
        if self.app.is_none() {
            if self.cycle < self.down_until {
                return;
            }
            self.start();
        }
        let released = self.people_act();
        self.disk_fills();
        let kill = self.chance.is(self.script.kills);
        if kill {
            self.site.fuse.light(self.chance.whole(0, 12));
        }
        let ended = self.pass(&released).await;
        self.site.fuse.pull();
        if ended == Ended::Killed || (kill && self.chance.is(0.3)) {
            self.bury(ended).await;
        }
    }

    /// How many calls targets have seen.
    pub(crate) fn sent(&self) -> usize {
        self.site.log.lock().calls.len()
    }

    /// Somebody sets forestall's clock.
    pub(crate) fn set_clock_ahead(&mut self, by: Millis) {
        self.ahead = self.ahead + by;
    }

    /// Time passes in the world and, by and large, on forestall's clock.
    fn move_on(&mut self, interval: Millis) {
        let mut world = self.site.world.lock();
        let now = world.now + interval;
        world.others_act(self.script.people);
        world.advance(now);
        drop(world);
        if self.chance.is(self.script.clock_steps) {
            let minutes = self.chance.of(&[-90, -20, -3, 3, 20, 90, 600]);
            self.set_clock_ahead(Millis::MINUTE * minutes);
            self.checker.tally.clock_steps += 1;
        }
        self.clock.set_to(now + self.ahead);
    }

    /// Operators answer what waits, pause and lift, release breakers and latches, and change the mode.
    fn people_act(&mut self) -> BTreeSet<String> {
        let mut released = BTreeSet::new();
        let Some(app) = &self.app else { return released };
        let (shared, now) = (app.shared(), self.clock.now());
        let said = || Said::new("ops", "it is time");
        for offered in shared.report.load_full().iter().flat_map(|report| report.plan.carry.waiting.values()) {
            if self.people.is(self.script.approves) {
                let answer = if self.people.is(0.8) { Answer::Approve } else { Answer::Decline };
                // What cannot be written does not count: the offer stands.
                let _ = shared.journal.answer(offered, answer, said(), now);
            }
        }
        let things = self.site.world.lock().things.iter().map(|thing| thing.key.clone()).collect::<Vec<_>>();
        let (kind, component) = (self.people.of(&Kind::ALL).name(), things[self.people.index(things.len())].clone());
        if self.script.people > 0.0 {
            for (what, name) in [(Released::Breaker, kind), (Released::Latch, &component)] {
                if self.people.is(0.03) && shared.journal.release(what, name, said(), now).is_ok() {
                    released.insert(name.to_owned());
                }
            }
            if self.people.is(0.03) {
                self.mode =
                    if self.mode == Mode::Act { self.people.of(&[Mode::Observe, Mode::Approve]) } else { Mode::Act };
                shared.settings.store(Arc::new(self.settings_in_force()));
            }
        }
        shared.released.lock().extend(released.iter().cloned());
        if self.script.people > 0.0 || self.calm {
            self.pause_or_lift(kind, component);
        }
        released
    }

    fn pause_or_lift(&mut self, kind: &str, component: String) {
        if !self.calm && self.people.is(0.05) {
            let scope = match self.people.whole(0, 4) {
                0 => PauseScope::All,
                1 => PauseScope::Policy(format!("{kind}s")),
                2 => PauseScope::Kind(kind.to_owned()),
                _ => PauseScope::Component(component),
            };
            let lasts = self.people.is(0.5).then(|| Millis::MINUTE * i64::from(self.people.whole(1, 20)));
            self.site.pause(scope, lasts);
        }
        for scope in self.site.paused_scopes() {
            if self.calm || self.people.is(0.1) {
                self.site.lift(&scope);
            }
        }
    }

    /// The journal takes nothing for a while: for the executor only, or nothing at all.
    fn disk_fills(&mut self) {
        let Some(folder) = &self.folder else { return };
        if self.full_until > 0 && self.cycle >= self.full_until {
            self.full_until = 0;
            *self.site.full.lock() = false;
            self.refuses = false;
            refuse_writes(folder.path(), false);
        }
        if self.full_until == 0 && self.chance.is(self.script.disk_full) {
            self.full_until = self.cycle + self.chance.whole(1, 5);
            *self.site.full.lock() = true;
            self.refuses = self.chance.is(0.5);
            if self.refuses {
                refuse_writes(folder.path(), true);
            }
        }
    }

    async fn pass(&mut self, released: &BTreeSet<String>) -> Ended {
        let now = self.clock.now();
        let Some(app) = &self.app else { return Ended::Whole };
        let seen = match self.script.eyes {
            Eyes::Ours => Some(self.sight.see(&self.site.world.lock(), now)),
            Eyes::Forestalls => {
                let world = self.site.world.lock();
                let faults = self.sight.faults(world.now);
                whole::write(app.shared(), &whole::samples(&world, now, &faults, &mut self.weather));
                None
            }
        };
        let ours = seen.as_ref().map(|seen| (seen.assessments.clone(), seen.capacity.clone()));
        let ended = tokio::select! {
            biased;
            () = self.site.fuse.blown() => Ended::Killed,
            () = app.pass_seeing(now, seen) => Ended::Whole,
        };
        let report = app.shared().report.load_full().filter(|report| report.at == now && report.input.now == now);
        // With its own eyes, it is held to what it says that it saw.
        let (assessments, capacity) = ours.unwrap_or_else(|| {
            let seen = report.as_ref().map(|report| (report.assessments.clone(), report.input.capacity.clone()));
            seen.unwrap_or_default()
        });
        let (calls, rows, effects) = self.looked_at;
        let log = self.site.log.lock();
        let world = self.site.world.lock();
        self.looked_at = (log.calls.len(), log.rows.len(), world.effects.len());
        let moment = Moment {
            cycle: self.cycle,
            now,
            assessments: &assessments,
            capacity: &capacity,
            report: report.as_deref(),
            rows: &log.rows[rows..],
            calls: &log.calls[calls..],
            effects: &world.effects[effects..],
            durable: !self.refuses,
            mode: self.mode,
            released,
        };
        if let Some(story) = &mut self.story {
            tell(story, &moment, &ended);
        }
        self.checker.look(&moment);
        ended
    }

    /// The process is gone. Where the power went too, what was half written is found behind what was synced.
    async fn bury(&mut self, ended: Ended) {
        self.checker.tally.kills += 1;
        if ended == Ended::Killed && self.chance.is(0.4) {
            self.folder = self.folder.as_ref().map(|before| torn_copy(before.path(), &mut self.chance));
        }
        self.site.fuse.bury();
        self.site.forget_what_was_not_written();
        tokio::task::spawn_blocking(|| ()).await.expect("the blocking thread is idle");
        self.app = None;
        self.down_until = self.cycle + self.chance.whole(1, 8);
    }

    /// Nothing is wrong any more, and there is little to do: what was given is given back.
    async fn calm_down(&mut self) {
        *self.site.wire.lock() = Wire::default();
        self.sight.spells.clear();
        self.sight.false_alarms = 0.0;
        // What others took the room of can be given back, too.
        self.site.world.lock().machines.iter_mut().for_each(|machine| machine.cpu *= 3.0);
        (self.script.people, self.script.clock_steps, self.script.kills) = (0.0, 0.0, 0.0);
        self.script.disk_full = 0.0;
        (self.full_until, self.down_until) = (self.full_until.min(self.cycle + 1), 0);
        self.mode = Mode::Act;
        self.calm = true;
        // Nothing much happens: fewer passes will do where the rules have no interval of their own.
        let interval = match self.script.eyes {
            Eyes::Ours => Millis::MINUTE * 9,
            Eyes::Forestalls => self.script.interval,
        };
        self.settings.global.evaluation_interval = interval;
        self.checker.interval = interval;
        if let Some(app) = &self.app {
            app.shared().settings.store(Arc::new(self.settings_in_force()));
        }
        let longest =
            self.script.rules.iter().map(|rules| rules.expires_after + rules.cooldown).max().unwrap_or_default();
        // Behind a clock that was set back everything waits until it is as late again.
        let behind = (Millis::ZERO - self.ahead).max(Millis::ZERO) + self.ahead.max(Millis::ZERO);
        // What stands on one component is given back one after the other, half an hour apart.
        let stacked = Millis::MINUTE * 45 * self.checker.stacked();
        let until = self.site.world.lock().now + longest * 2 + Millis::HOUR * 2 + behind + stacked;
        let mut quiet = 0;
        while self.site.world.lock().now < until && quiet < 2 {
            self.live(interval).await;
            let settled = self.checker.outstanding().next().is_none() && self.checker.under_way().next().is_none();
            quiet = if settled { quiet + 1 } else { 0 };
        }
    }

    /// What must hold at the end.
    fn take_stock(&mut self) {
        let cycle = self.cycle;
        let acts = |kind: Kind| self.script.rules.iter().any(|rules| rules.kind == kind && rules.mode == Mode::Observe);
        let given_back = self.checker.inv_given_back_when_reason_is_gone();
        if !Kind::ALL.into_iter().any(acts) {
            self.checker.say("inv_given_back_when_reason_is_gone", cycle, given_back);
        }
        let known = self.checker.inv_every_intent_has_an_outcome();
        self.checker.say("inv_every_intent_has_an_outcome", cycle, known);
        let twice = inv_no_action_id_has_two_effects(&self.site.world.lock().effects, &self.site.log.lock().calls);
        self.checker.say("inv_no_action_id_has_two_effects", cycle, twice);
        let whole = self.inv_journal_chain_verifies();
        self.checker.say("inv_journal_chain_verifies", cycle, whole);
        let same = self.inv_replay_is_byte_identical();
        self.checker.say("inv_replay_is_byte_identical", cycle, same);
    }

    /// Who changed the record afterwards? Each row's hash holds (the replay looks at that first), and every intent, attempt
    /// and outcome is there in order.
    fn inv_journal_chain_verifies(&self) -> Result<(), String> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let written = rows_of_actions(folder.path());
        let log = self.site.log.lock();
        let meant: Vec<(String, String)> = log.rows.iter().map(|written| named(&written.row)).collect();
        if written == meant {
            return Ok(());
        }
        let at = written.iter().zip(&meant).position(|(a, b)| a != b).unwrap_or(written.len().min(meant.len()));
        Err(format!("row {at} of actions is {:?}, and {:?} was written", written.get(at), meant.get(at)))
    }

    /// Why did it do that? A decision that is made again from its record comes out the same, byte for byte.
    fn inv_replay_is_byte_identical(&self) -> Result<(), String> {
        let Some(app) = &self.app else { return Err("the app is not running at the end".to_owned()) };
        // A journal that is in memory only is read again in one run of four.
        if self.folder.is_none() && !self.seed.is_multiple_of(4) {
            return Ok(());
        }
        let journal = &app.shared().journal;
        let rows = journal.verify().map_err(|error| error.to_string())?.rows;
        // One of them, somewhere: there are thousands of runs.
        let rows = u32::try_from(rows).unwrap_or(u32::MAX).saturating_add(2);
        let before = Some(i64::from(Chance::new(self.seed, "replay").whole(1, rows)));
        let filter = Filter { limit: Some(1), before, ..Filter::default() };
        let newest = journal.decisions(&filter).map_err(|error| error.to_string())?;
        let Some(decision) = newest.first() else { return Ok(()) };
        let replay = journal.replay(&decision.id).map_err(|error| error.to_string())?;
        if replay.same {
            return Ok(());
        }
        Err(format!("{}: recorded {}\nreplayed {}", decision.id, replay.recorded, replay.replayed))
    }
}

/// What happened in a pass, in words.
fn tell(story: &mut String, moment: &Moment<'_>, ended: &Ended) {
    let _ = writeln!(story, "--- cycle {} at {} in {:?} mode, {ended:?}", moment.cycle, moment.now, moment.mode);
    for assessment in moment.assessments.iter().filter(|a| a.probability.is_none_or(|p| p >= 0.2 || p.is_nan())) {
        let workload = moment.capacity.workloads.iter().find(|w| w.component == assessment.component);
        let runs = workload.map(|w| {
            format!("{} × {} on {:?}", w.replicas, w.per_replica.get("cpu").copied().unwrap_or(0.0), w.on_nodes)
        });
        let (p, low, loss) = (assessment.probability, assessment.probability_low, assessment.expected_loss);
        let _ = writeln!(
            story,
            "  {} P {p:?} ({low:?}) loss {loss:.3} {:?} {runs:?}",
            assessment.component, assessment.standing
        );
    }
    let Some(report) = moment.report else { return };
    for declined in &report.plan.declined {
        let _ = writeln!(story, "  not {}: {:?}: {}", declined.component, declined.reason, declined.detail);
    }
    for verdict in &report.plan.verdicts {
        let _ = writeln!(story, "  {verdict:?}");
    }
    for extension in &report.plan.extended {
        let _ = writeln!(story, "  {extension:?}");
    }
    let _ = writeln!(story, "  disowned {:?}, released {:?}", report.plan.disowned, moment.released);
    for written in moment.rows {
        let _ = match &written.row {
            Row::Intent(a) => writeln!(
                story,
                "  intent {} {:?} {} {:?} undoes {:?} room for {:?} dry {}: {}",
                a.id, a.kind, a.target.component, a.change, a.undoes, a.makes_room_for, a.dry_run, a.why.sentence
            ),
            row => writeln!(story, "  {row:?} at {} by process {}", written.at, written.life),
        };
    }
    for effect in moment.effects {
        let _ = writeln!(story, "  {effect:?}");
    }
}

/// A folder in memory where there is one: thousands of journals are written.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a folder can be made")
}

/// What another process would find that looks at the journal's file.
fn rows_of_actions(folder: &Path) -> Vec<(String, String)> {
    let connection = rusqlite::Connection::open(folder.join("journal.sqlite")).expect("the journal is there");
    let sql = "SELECT kind, id FROM journal WHERE kind IN ('intent', 'attempt', 'outcome') ORDER BY seq";
    let mut statement = connection.prepare(sql).expect("the table is there");
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("the rows can be read");
    rows.map(|row| row.expect("a row of two texts")).collect()
}

fn named(row: &Row) -> (String, String) {
    let (kind, id) = match row {
        Row::Intent(action) => ("intent", &action.id),
        Row::Attempt(id) => ("attempt", id),
        Row::Outcome(id, _) => ("outcome", id),
    };
    (kind.to_owned(), id.clone())
}

/// Makes the file refuse every row from now on, or take them again.
fn refuse_writes(folder: &Path, refuse: bool) {
    let connection = rusqlite::Connection::open(folder.join("journal.sqlite")).expect("the journal is there");
    let sql = if refuse {
        "CREATE TRIGGER IF NOT EXISTS full BEFORE INSERT ON journal
            BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
    } else {
        "DROP TRIGGER IF EXISTS full"
    };
    connection.execute_batch(sql).expect("the schema can be changed");
}

/// What a disk holds after the power went: all that was synced, and behind it a part of the next write.
fn torn_copy(from: &Path, chance: &mut Chance) -> TempDir {
    let to = folder();
    for entry in std::fs::read_dir(from).expect("the folder can be read").flatten() {
        let name = entry.file_name();
        // The index of the log is memory, not disk.
        if name.to_string_lossy().ends_with("-shm") {
            continue;
        }
        let mut bytes = std::fs::read(entry.path()).expect("the file can be read");
        if name.to_string_lossy().ends_with("-wal") {
            bytes.extend((0..chance.whole(1, 6000)).map(|index| index.to_le_bytes()[0] ^ 0x5a));
        }
        std::fs::write(to.path().join(name), bytes).expect("the file can be written");
    }
    to
}

/// How to see a seed's run again.
pub(crate) fn reproduce(seed: u64) -> String {
    format!("FORESTALL_SIM_SEEDS={seed}..{} cargo test --test it sim::no_seed_breaks", seed + 1)
}

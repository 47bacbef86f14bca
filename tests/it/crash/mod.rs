//! Kills at every write, sync, send and reply: nothing is done without an intent that survives, nothing twice, nothing is
//! lost.
//!
//! A scenario is eighty minutes of forestall (`life.rs`: the real journal, executor and planner on a simulated clock) in a world
//! of six workloads and three targets (`world.rs`), with a restart in the middle. A layer below SQLite (`vfs.rs`) writes
//! down every creation, write, truncation, deletion and sync, and the scenario adds each request and each answer. Each
//! place between two of these events is a place to be killed at; for each there are four ways in which what was not
//! synced may survive (`disk.rs`). From what is then on the disk, and targets in the state of that moment, forestall
//! starts again, goes on for some passes, and is held against `check.rs`. One in four is killed a second time while it
//! recovers.
//!
//! `FORESTALL_CRASH=SEED:EVENT:SURVIVAL` (as a failure prints it) runs one place only and tells what was around it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use forestall::audit::Journal;
use forestall::model::{Millis, Timestamp};

use self::chance::Chance;
use self::disk::{Disk, Event, Image, Mark, SURVIVALS, Survival};
use self::life::{Fault, Life};
use self::vfs::Folder;
use self::world::{INTERVAL, START, Weather, World};

mod chance;
mod check;
mod disk;
mod life;
mod vfs;
mod world;

/// How many places are tried.
const KILLS: usize = 10_000;
/// The scenarios.
const SEEDS: std::ops::Range<u64> = 1..9;
/// A scenario's passes; the restart comes after half of them.
const PASSES: i64 = 16;
/// So many places in a row are tried by one thread.
const PORTION: usize = 50;
/// How long forestall is away after a kill.
const AWAY: [Millis; 5] =
    [Millis::ZERO, Millis(10_000), INTERVAL, Millis(35 * Millis::MINUTE.0), Millis(26 * Millis::HOUR.0)];

/// A scenario as it was written down.
struct Scenario {
    seed: u64,
    events: Vec<Event>,
}

/// Where a scenario is killed: after so many events.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Kill {
    seed: u64,
    after: usize,
    survival: Survival,
}

impl fmt::Display for Kill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let survival = format!("{:?}", self.survival).to_lowercase();
        write!(f, "{}:{}:{survival}", self.seed, self.after)
    }
}

impl Kill {
    fn parse(text: &str) -> Option<Kill> {
        let mut parts = text.split(':');
        let (seed, after) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let survival = parts.next()?;
        let survival = SURVIVALS.into_iter().find(|known| format!("{known:?}").to_lowercase() == survival)?;
        Some(Kill { seed, after, survival })
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime needs nothing")
}

impl Scenario {
    /// Lives through a scenario without a kill.
    fn record(seed: u64, fault: Fault) -> Scenario {
        let folder = Folder::with(&Image::new());
        let world = World::new(seed);
        let mut chance = Chance::of(&[&seed, &"people"]);
        let person_at = 6 + i64::try_from(chance.below(9)).expect("a pass");
        let runtime = runtime();
        for half in 0..2 {
            let at = |pass: i64| START + INTERVAL * pass;
            let passes = half * PASSES / 2..(half + 1) * PASSES / 2;
            let started_at = at(passes.start);
            let mut life = Life::start(&folder.journal(), &folder.tape, &world, started_at, fault)
                .unwrap_or_else(|error| panic!("scenario {seed}: {error}"));
            for pass in passes {
                runtime.block_on(life.pass(at(pass))).unwrap_or_else(|error| panic!("scenario {seed}: {error}"));
                if pass % 7 == 3 {
                    life.note("a looser mode", at(pass)).unwrap_or_else(|error| panic!("scenario {seed}: {error}"));
                }
                if pass == person_at {
                    life.interfere("queue/mail", 7);
                }
            }
        }
        Scenario { seed, events: folder.tape.take() }
    }

    /// Every place to be killed at, with every survival, in order.
    fn kills(&self) -> impl Iterator<Item = Kill> + '_ {
        let places = 0..=self.events.len();
        places.flat_map(|after| SURVIVALS.map(|survival| Kill { seed: self.seed, after, survival }))
    }

    /// What is around a place, for people.
    fn around(&self, kill: Kill) -> String {
        let from = kill.after.saturating_sub(12);
        let mut text = String::new();
        for (index, event) in self.events.iter().enumerate().skip(from).take(24) {
            if index == kill.after {
                text.push_str("  ---- killed here ----\n");
            }
            text.push_str(&format!("  {index}: {}\n", in_words(event)));
        }
        text
    }
}

fn in_words(event: &Event) -> String {
    match event {
        Event::Write { file, offset, bytes } => format!("write {} bytes at {offset} of file {file}", bytes.len()),
        Event::Mark(Mark::Send { action, at, arrived }) => {
            let (id, to, component) = (&action.id, &action.actuator, &action.target.component);
            format!("send {id} to {to} for {component} at {at}, arrived: {arrived}")
        }
        other => format!("{other:?}"),
    }
}

/// Tries places of scenarios, in order, on all cores; says what went wrong where.
fn try_kills(scenarios: &[Scenario], kills: &[Kill], fault: Fault) -> Vec<(Kill, String)> {
    let wrong = Mutex::new(Vec::new());
    let next = AtomicUsize::new(0);
    let portions: Vec<&[Kill]> = kills.chunks(PORTION).collect();
    let work = || {
        let runtime = runtime();
        while let Some(portion) = portions.get(next.fetch_add(1, Ordering::Relaxed)) {
            let found = try_portion(&runtime, scenarios, portion, fault);
            wrong.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let mut wrong = wrong.into_inner().unwrap_or_else(PoisonError::into_inner);
    wrong.sort_by_key(|(kill, _)| (kill.seed, kill.after));
    wrong
}

fn try_portion(
    runtime: &tokio::runtime::Runtime,
    scenarios: &[Scenario],
    kills: &[Kill],
    fault: Fault,
) -> Vec<(Kill, String)> {
    let mut wrong = Vec::new();
    let mut at = None;
    for kill in kills {
        let scenario = scenarios.iter().find(|scenario| scenario.seed == kill.seed).expect("it was recorded");
        let (mut disk, mut reached) = match at.take() {
            Some((seed, disk, reached)) if seed == kill.seed => (disk, reached),
            _ => (Disk::default(), 0),
        };
        while reached < kill.after {
            disk.advance(&scenario.events[reached]);
            reached += 1;
        }
        let mut chance = Chance::of(&[kill]);
        let image = disk.image(kill.survival, &mut chance);
        let marks = marks(&scenario.events[..kill.after]);
        let kills_more = usize::from(chance.below(4) == 0);
        if let Err(what) = runtime.block_on(go_on(kill.seed, &image, marks, kills_more, &mut chance, fault)) {
            wrong.push((*kill, what));
        }
        at = Some((kill.seed, disk, reached));
    }
    wrong
}

fn marks(events: &[Event]) -> Vec<Event> {
    events.iter().filter(|event| matches!(event, Event::Mark(_))).cloned().collect()
}

/// Starts forestall with what a kill left, lets it go on, and says what is wrong; kills it so many times more meanwhile.
async fn go_on(
    seed: u64,
    image: &Image,
    mut before: Vec<Event>,
    kills_more: usize,
    chance: &mut Chance,
    fault: Fault,
) -> Result<(), String> {
    let killed_at = before.iter().rev().find_map(|event| match event {
        Event::Mark(Mark::Pass(at)) => Some(*at),
        _ => None,
    });
    let at = killed_at.unwrap_or(START) + AWAY[chance.below(AWAY.len())];
    let world = World::after(seed, before.iter());
    let folder = Folder::with(image);
    if kills_more == 0 {
        folder.tape.keep_marks_only();
    }
    let mut life =
        Life::start(&folder.journal(), &folder.tape, &world, at, fault).map_err(|error| format!("at {at}: {error}"))?;
    let known = check_what_is_found(&life.journal, &before, &world, at)?;
    let sent_before = world.sent().len();
    let end = live(&mut life, &world, at).await.map_err(|error| format!("after the start at {at}: {error}"))?;
    if kills_more == 0 {
        let again = world.sent()[sent_before..].iter().find(|(action, _)| known.contains(&action.id)).cloned();
        if let Some((action, at)) = again {
            return Err(format!("{} was under way before the kill and was sent again at {at}", action.id));
        }
        before.extend(folder.tape.take());
        return check_the_end(life, &folder, &before, &world, end);
    }
    // Its orderly end may be in the middle of it, too.
    drop(life);
    let events = folder.tape.take();
    let killed_after = chance.below(events.len() + 1);
    let mut disk = Disk::with(image);
    events[..killed_after].iter().for_each(|event| disk.advance(event));
    let survival = SURVIVALS[chance.below(SURVIVALS.len())];
    let image = disk.image(survival, chance);
    before.extend(marks(&events[..killed_after]));
    let again = Box::pin(go_on(seed, &image, before, kills_more - 1, chance, fault)).await;
    again.map_err(|what| format!("killed again after event {killed_after} of the recovery, {survival:?}: {what}"))
}

/// What is on the disk after a kill: everything that was said to be written, and the intent of everything that was sent.
/// Returns the ids of the intents.
fn check_what_is_found(
    journal: &Journal,
    before: &[Event],
    world: &World,
    now: Timestamp,
) -> Result<BTreeSet<String>, String> {
    let rows = check::rows(journal)?;
    let written = before.iter().rev().find_map(|event| match event {
        Event::Mark(Mark::Written(head)) => Some(head),
        _ => None,
    });
    if let Some(head) = written.filter(|head| !rows.iter().any(|row| row.hash == **head)) {
        return Err(format!("the row {head} was said to be written and is lost; {} rows are there", rows.len()));
    }
    let intents = check::intents(&rows);
    if let Some((action, at)) = world.sent().iter().find(|(action, _)| !intents.contains(action.id.as_str())) {
        return Err(format!("{} was sent at {at}, and its intent is not there", action.id));
    }
    check::ledger_is_the_fold_of_rows(&journal.ledger(now), &rows)?;
    Ok(intents.into_iter().map(str::to_owned).collect())
}

/// Some passes as before, then some in which all is calm and everything is given back. Returns when that was.
async fn live(life: &mut Life, world: &World, at: Timestamp) -> Result<Timestamp, String> {
    life.set_weather(Weather::Rough);
    let spent = check::spent(world, at);
    for pass in 0..3 {
        life.pass(at + INTERVAL * pass).await?;
        let usage = life.last.as_ref().filter(|_| pass == 0).map(|plan| &plan.usage);
        for (policy, usage) in usage.into_iter().flatten() {
            let sent = spent.get(policy).copied().unwrap_or_default();
            if usage.spent < sent {
                return Err(format!("{policy} has spent {} of its budget, and {sent} were sent", usage.spent));
            }
        }
    }
    life.set_weather(Weather::Calm);
    let mut now = at + INTERVAL * 2;
    let seldom = INTERVAL * 9;
    life.passes_every(seldom);
    for _ in 0..20 {
        now = now + seldom;
        life.pass(now).await?;
        if life.unsettled(now).is_empty() {
            return Ok(now);
        }
    }
    let left = life.unsettled(now).join("; ");
    Err(format!("not everything is settled and given back at {now}: {left}"))
}

fn check_the_end(life: Life, folder: &Folder, events: &[Event], world: &World, now: Timestamp) -> Result<(), String> {
    let ledger = life.journal.ledger(now);
    drop(life);
    let journal = Journal::open(&folder.journal()).map_err(|error| error.to_string())?;
    if journal.ledger(now) != ledger {
        return Err("the ledger is another one after a restart".to_owned());
    }
    let rows = check::rows(&journal)?;
    check::ledger_is_the_fold_of_rows(&ledger, &rows)?;
    check::told_once_where_once_is_the_most(world)?;
    check::limits_hold(world)?;
    let changed_by_others = events.iter().filter_map(|event| match event {
        Event::Mark(Mark::Person { component, .. }) => Some(component.clone()),
        _ => None,
    });
    check::all_is_given_back(world, &rows, &changed_by_others.collect())
}

/// So many places, evenly out of all.
fn spread(scenarios: &[Scenario], count: usize) -> Vec<Kill> {
    let all: Vec<Kill> = scenarios.iter().flat_map(Scenario::kills).collect();
    (0..count.min(all.len())).map(|index| all[index * all.len() / count.min(all.len())]).collect()
}

fn report(scenarios: &[Scenario], wrong: &[(Kill, String)]) -> String {
    let mut text = format!("{} places went wrong:\n", wrong.len());
    for (kill, what) in wrong.iter().take(5) {
        let around = scenarios.iter().find(|scenario| scenario.seed == kill.seed).map(|s| s.around(*kill));
        text.push_str(&format!("FORESTALL_CRASH={kill}: {what}\n{}", around.unwrap_or_default()));
    }
    text
}

#[test]
fn ten_thousand_kills_lose_nothing_and_repeat_nothing() {
    let chosen = std::env::vars().find_map(|(name, value)| (name == "FORESTALL_CRASH").then_some(value));
    let chosen = chosen.map(|text| Kill::parse(&text).unwrap_or_else(|| panic!("{text}: it is SEED:EVENT:SURVIVAL")));
    let seeds: Vec<u64> = chosen.map_or_else(|| SEEDS.collect(), |kill| vec![kill.seed]);
    let scenarios: Vec<Scenario> = seeds.iter().map(|seed| Scenario::record(*seed, Fault::None)).collect();
    let kills = chosen.map_or_else(|| spread(&scenarios, KILLS), |kill| vec![kill]);
    if let Some(kill) = chosen {
        eprintln!("{}", scenarios[0].around(kill));
    } else {
        assert_eq!(kills.len(), KILLS, "the scenarios are too short");
    }
    let wrong = try_kills(&scenarios, &kills, Fault::None);
    assert!(wrong.is_empty(), "{}", report(&scenarios, &wrong));
}

#[test]
fn a_scenario_has_everything_in_it_and_is_the_same_each_time() {
    let scenarios: Vec<Scenario> = SEEDS.map(|seed| Scenario::record(seed, Fault::None)).collect();
    let events = || scenarios.iter().flat_map(|scenario| &scenario.events);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for event in events() {
        let what = match event {
            Event::Create { .. } => "create",
            Event::Write { .. } => "write",
            Event::Truncate { .. } => "truncate",
            Event::Delete { .. } => "delete",
            Event::Sync { .. } => "sync",
            Event::SyncFolder => "sync folder",
            Event::Mark(Mark::Send { action, .. }) if action.undoes.is_some() => "undo",
            Event::Mark(Mark::Send { action, .. }) if action.makes_room_for.is_some() => "evict",
            Event::Mark(Mark::Send { .. }) => "send",
            Event::Mark(Mark::Reply) => "reply",
            Event::Mark(Mark::Person { .. }) => "person",
            Event::Mark(_) => "other",
        };
        *counts.entry(what).or_default() += 1;
    }
    eprintln!("{counts:?}");
    for what in ["create", "write", "truncate", "delete", "sync", "sync folder", "undo", "evict", "send", "person"] {
        assert!(counts.get(what).is_some_and(|count| *count >= 3), "too little of `{what}`: {counts:?}");
    }
    for scenario in &scenarios {
        let again = Scenario::record(scenario.seed, Fault::None);
        let words = |scenario: &Scenario| scenario.events.iter().map(in_words).collect::<Vec<_>>();
        assert!(words(scenario) == words(&again), "scenario {} differs from run to run", scenario.seed);
    }
}

/// What the harness says to a forestall with a fault.
fn check_found(fault: Fault, places: usize, words: &str) {
    let scenarios = [Scenario::record(2, fault)];
    let wrong = try_kills(&scenarios, &spread(&scenarios, places), fault);
    let found = wrong.iter().any(|(_, what)| what.contains(words));
    assert!(found, "{fault:?} is not found out: {}", report(&scenarios, &wrong));
}

#[test]
fn a_journal_that_syncs_nothing_is_found_out() {
    check_found(Fault::SyncsNothing, 300, "was said to be written and is lost");
}

#[test]
fn an_executor_that_sends_before_it_writes_is_found_out() {
    check_found(Fault::SendsBeforeItWrites, 600, "its intent is not there");
}

#[test]
fn a_recovery_that_sends_again_is_found_out() {
    check_found(Fault::SendsAgain, 600, "was sent again");
}

#[test]
fn a_recovery_that_leaves_things_open_is_found_out() {
    check_found(Fault::ForgetsOutcomes, 100, "not everything is settled");
}

#[test]
fn a_start_that_forgets_the_past_is_found_out() {
    check_found(Fault::ForgetsThePast, 300, "of its budget");
}

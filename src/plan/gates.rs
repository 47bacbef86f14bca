//! What stands before any single decision: hysteresis, the breaker, and the gates for the whole of forestall.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::words::{count, percent, span};
use super::{Action, ActionKind, Mode, Policy, Reason};
use crate::health::{Assessment, Standing};
use crate::model::{ComponentId, Millis, Timestamp};

/// So many components of a kind may be at risk at once, or …
const AT_RISK_MAX: usize = 3;
/// … so large a share of them, before the breaker opens.
const AT_RISK_SHARE_MAX: f64 = 0.4;
/// So many components of a kind must fall silent between two plans, and …
const SILENT_MIN: usize = 2;
/// … more than so large a share of those that were not, before it counts as a fault of the scrape.
const SILENT_SHARE_MAX: f64 = 0.25;
/// So long it must have been calm before the breaker closes.
const CALM: Millis = Millis(15 * Millis::MINUTE.0);
/// A plan later than so many intervals after the last one means that the clock jumped or that we stood still.
const JUMP_INTERVALS: i64 = 3;

/// What one plan hands to the next.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Carry {
    /// When this plan was made.
    #[serde(default)]
    pub at: Option<Timestamp>,
    /// Component → how it stands to its policy's levels. Only those that are in, on the way in or out, or under an action.
    pub streaks: BTreeMap<String, Streak>,
    /// Kind → its breaker, where it is open or was released by a person.
    #[serde(default)]
    pub breakers: BTreeMap<String, Breaker>,
    /// Component → when a person released its latch; what was ineffective before that no longer counts.
    #[serde(default)]
    pub unlatched: BTreeMap<String, Timestamp>,
    /// Component → the actions proposed for it that wait for a person, the main one last. Each waits since its
    /// `decided_at`, for as long as [`Policy::offer_lasts`] says.
    #[serde(default)]
    pub waiting: BTreeMap<String, Vec<Action>>,
    /// Component that holds something of ours → since when it has not been seen.
    #[serde(default)]
    pub unseen: BTreeMap<String, Timestamp>,
    /// Component → its last offer that a person declined or nobody answered: it is not made again for now.
    #[serde(default)]
    pub withheld: BTreeMap<String, Withheld>,
    /// Kind → its components that were not silent: of which something was known, or was being learned.
    #[serde(default)]
    pub heard: BTreeMap<String, BTreeSet<String>>,
}

/// An offer that came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withheld {
    /// The id of its main action.
    pub id: String,
    /// Since when it is not offered any more.
    pub since: Timestamp,
    /// Whether a person declined it; otherwise its time ran out.
    pub declined: bool,
}

/// How a component stands to its policy's entry and exit levels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streak {
    /// The policy.
    pub policy: String,
    /// For how many consecutive cycles it has been at or above the entry level.
    pub above: u32,
    /// For how many consecutive cycles it has been below the exit level.
    pub below: u32,
    /// Whether it has entered and not left since.
    pub entered: bool,
    /// Whether this episode, from entering to leaving, was drawn to be left alone.
    #[serde(default)]
    pub held_out: bool,
}

/// What a breaker is open for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Anomaly {
    /// Too much is at risk at once.
    #[default]
    AtRisk,
    /// Too much fell silent at once: a fault of the scrape, not of what is scraped.
    Silence,
}

/// The breaker of a kind: open while too much of it is at risk at once, or has just fallen silent at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breaker {
    /// When it opened.
    pub opened_at: Timestamp,
    /// When too much was at risk, or fell silent, the last time.
    pub last_above: Timestamp,
    /// A person released it: it stays closed until it has been calm once, or more falls silent.
    pub released: bool,
    /// How many are at risk.
    pub at_risk: usize,
    /// Out of so many of which something is known.
    pub of: usize,
    /// What it is open for: the newest of its reasons.
    #[serde(default)]
    pub anomaly: Anomaly,
    /// How many fell silent the last time that it was too many, and …
    #[serde(default)]
    pub silent: usize,
    /// … out of so many that were not silent before.
    #[serde(default)]
    pub silent_of: usize,
}

/// What a pause is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PauseScope {
    /// Everything.
    All,
    /// What one policy does.
    Policy(String),
    /// What is done to components of one kind.
    Kind(String),
    /// What is done to one component, as it is written.
    Component(String),
}

impl PauseScope {
    /// What sort of thing it is for, in one word.
    pub fn word(&self) -> &'static str {
        match self {
            PauseScope::All => "all",
            PauseScope::Policy(_) => "policy",
            PauseScope::Kind(_) => "kind",
            PauseScope::Component(_) => "component",
        }
    }
}

/// A person's word that nothing is done, taken back or running out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// What for.
    pub scope: PauseScope,
    /// Why, in the person's words.
    pub reason: String,
    /// Who.
    pub by: String,
    /// Since when.
    pub since: Timestamp,
    /// Until when; until it is lifted where absent.
    pub until: Option<Timestamp>,
}

impl Pause {
    /// Whether it holds up what a policy would do to a component at `now`: acting and giving back alike.
    pub fn holds(&self, policy: &str, component: &ComponentId, now: Timestamp) -> bool {
        let meant = match &self.scope {
            PauseScope::All => true,
            PauseScope::Policy(name) => name == policy,
            PauseScope::Kind(kind) => *kind == component.kind,
            PauseScope::Component(name) => *name == component.to_string(),
        };
        meant && self.until.is_none_or(|until| now < until)
    }
}

/// Gates that stand for the whole of forestall.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Gates {
    /// The ceiling over all policies' modes.
    pub mode: Mode,
    /// Until when nothing is done after a start.
    pub hold_until: Option<Timestamp>,
    /// What persons paused.
    #[serde(default)]
    pub pauses: Vec<Pause>,
    /// The journal can be written.
    pub journal_ok: bool,
    /// Another replica leads.
    #[serde(default)]
    pub follower: bool,
    /// How long after one plan the next is expected; zero where nobody says.
    #[serde(default)]
    pub interval: Millis,
    /// What a person released: kinds (their breaker) and components as they are written (their latch). Once a plan has
    /// seen a name it is in [`Carry`] and can be taken out here.
    #[serde(default)]
    pub released: BTreeSet<String>,
    /// Ids of waiting actions that a person approved: of the main one, which takes along those that make room for it.
    /// An id stays until it is among a plan's actions, or no longer in [`Carry::waiting`].
    #[serde(default)]
    pub approved: BTreeSet<String>,
    /// Ids of waiting actions, of the main one, that a person declined. An id stays until it is no longer in
    /// [`Carry::waiting`]. It counts before an approval of the same.
    #[serde(default)]
    pub declined: BTreeSet<String>,
}

/// Why something is not done, before it is known for what.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refusal {
    pub(super) reason: Reason,
    pub(super) action: Option<ActionKind>,
    pub(super) detail: String,
    pub(super) released_when: String,
}

impl Refusal {
    pub(super) fn new(reason: Reason, detail: impl Into<String>, released_when: impl Into<String>) -> Refusal {
        Refusal { reason, action: None, detail: detail.into(), released_when: released_when.into() }
    }

    /// The same, of an action of this kind.
    pub(super) fn of(self, action: ActionKind) -> Refusal {
        Refusal { action: Some(action), ..self }
    }
}

/// The gate that stops everything at this moment, if one does.
pub(super) fn shut(gates: &Gates, last: Option<Timestamp>, now: Timestamp) -> Option<Refusal> {
    if !gates.journal_ok {
        let detail = "the journal cannot be written, and what is not written down is not done";
        return Some(Refusal::new(Reason::Journal, detail, "the journal can be written again"));
    }
    if gates.follower {
        return Some(Refusal::new(Reason::NotLeader, "another replica leads", "this replica leads"));
    }
    if let Some(until) = gates.hold_until.filter(|until| now < *until) {
        let detail = format!("forestall has just started; nothing is done for another {}", span(until - now));
        return Some(Refusal::new(Reason::StartHold, detail, format!("the hold ends at {until}")));
    }
    let passed = now - last?;
    let jumped = passed < Millis::ZERO || (gates.interval > Millis::ZERO && passed > gates.interval * JUMP_INTERVALS);
    jumped.then(|| {
        let direction = if passed < Millis::ZERO { "back" } else { "ahead" };
        let size = span(Millis(passed.0.saturating_abs()));
        let detail =
            format!("the clock went {direction} by {size} since the last plan; one interval passes without acting");
        Refusal::new(Reason::StartHold, detail, "the next plan")
    })
}

/// What a pause says to an action of a policy on a component.
pub(super) fn paused(gates: &Gates, policy: &str, component: &ComponentId, now: Timestamp) -> Option<Refusal> {
    let pause = gates.pauses.iter().find(|pause| pause.holds(policy, component, now))?;
    let what = match &pause.scope {
        PauseScope::All => "forestall".to_owned(),
        PauseScope::Policy(name) => format!("policy {name}"),
        PauseScope::Kind(name) => format!("all of kind {name}"),
        PauseScope::Component(name) => name.clone(),
    };
    let detail = format!("{} paused {what}: {}", pause.by, pause.reason);
    let when = match pause.until {
        Some(until) => format!("the pause is lifted, or ends at {until}"),
        None => "the pause is lifted".to_owned(),
    };
    Some(Refusal::new(Reason::Paused, detail, when))
}

/// The probability that hysteresis counts with: absent while nothing may be said or what was said is old.
pub(super) fn fresh_probability(assessment: &Assessment, gates: &Gates, now: Timestamp) -> Option<f64> {
    let old = gates.interval > Millis::ZERO && now - assessment.at > gates.interval * 2;
    let known = !matches!(assessment.standing, Standing::Unknown | Standing::Learning);
    assessment.probability.filter(|p| known && !old && p.is_finite())
}

/// Whether an assessment counts as at risk: for the breaker and for nodes that get nothing.
pub(super) fn is_at_risk(assessment: &Assessment) -> bool {
    matches!(assessment.standing, Standing::AtRisk | Standing::Failing)
}

/// Whether nothing is heard of a component: neither known now nor on the way to be.
pub(super) fn is_silent(assessment: &Assessment, gates: &Gates, now: Timestamp) -> bool {
    let old = gates.interval > Millis::ZERO && now - assessment.at > gates.interval * 2;
    let learns = assessment.standing == Standing::Learning && !old;
    !learns && fresh_probability(assessment, gates, now).is_none()
}

impl Streak {
    /// The streak after one more cycle. Without a probability nothing is consecutive, but what has entered stays in.
    /// `drawn` says, where it enters now, whether the episode is left alone.
    pub(super) fn next(&self, policy: &Policy, probability: Option<f64>, drawn: impl FnOnce() -> bool) -> Streak {
        let mut next = if self.policy == policy.name { self.clone() } else { Streak::default() };
        next.policy.clone_from(&policy.name);
        let above = probability.is_some_and(|p| p >= policy.enter_above);
        let below = probability.is_some_and(|p| p < policy.exit_below);
        next.above = if above { next.above.saturating_add(1) } else { 0 };
        next.below = if below { next.below.saturating_add(1) } else { 0 };
        if above && next.above >= policy.enter_cycles {
            next.held_out = if next.entered { next.held_out } else { drawn() };
            next.entered = true;
        } else if below && next.below >= policy.exit_cycles {
            (next.entered, next.held_out) = (false, false);
        }
        next
    }

    /// Whether it has been below the exit level for long enough, entered or not.
    pub(super) fn is_calm(&self, policy: &Policy) -> bool {
        self.below >= policy.exit_cycles.max(1)
    }
}

/// How a kind stands in one plan.
#[derive(Debug, Default)]
pub(super) struct KindState<'a> {
    /// How many are at risk.
    pub(super) at_risk: usize,
    /// Of how many something is known.
    pub(super) known: usize,
    /// Those that are not silent, ascending.
    pub(super) heard: Vec<&'a str>,
    /// How many that the last plan heard of are silent now.
    silent: usize,
    /// Of how many the last plan heard.
    silent_of: usize,
}

impl KindState<'_> {
    /// Counts those that the last plan heard of and that are silent now.
    pub(super) fn compare(&mut self, before: &BTreeSet<String>) {
        self.silent_of = before.len();
        let mut heard = self.heard.iter().copied().peekable();
        let is_silent = |component: &&String| {
            while heard.next_if(|heard| *heard < component.as_str()).is_some() {}
            heard.peek() != Some(&component.as_str())
        };
        self.silent = before.iter().filter(is_silent).count();
    }

    fn anomaly(&self) -> Option<Anomaly> {
        let fell_silent = self.silent as f64 > SILENT_SHARE_MAX * self.silent_of as f64;
        if self.silent >= SILENT_MIN && fell_silent {
            return Some(Anomaly::Silence);
        }
        // What is silent is not healthy: the share is one of those that are known.
        let too_many = self.at_risk as f64 > AT_RISK_SHARE_MAX * self.known as f64;
        (self.at_risk > AT_RISK_MAX && too_many).then_some(Anomaly::AtRisk)
    }
}

/// The breakers after one more cycle: open where more than max(3, 40 %) of a kind is at risk at once, or at least 2 and more
/// than a quarter of those that were heard of have fallen silent since the last plan; until neither has been so for 15
/// minutes or a person releases it.
pub(super) fn next_breakers(
    last: &BTreeMap<String, Breaker>,
    kinds: &BTreeMap<&str, KindState<'_>>,
    gates: &Gates,
    now: Timestamp,
) -> BTreeMap<String, Breaker> {
    let calm = KindState::default();
    let mut next = BTreeMap::new();
    let kinds_gone = last.keys().map(String::as_str).filter(|kind| !kinds.contains_key(kind));
    for kind in kinds.keys().copied().chain(kinds_gone) {
        let state = kinds.get(kind).unwrap_or(&calm);
        let anomaly = state.anomaly();
        let Some(mut breaker) = last.get(kind).cloned().or_else(|| anomaly.map(|anomaly| opened(anomaly, now))) else {
            continue;
        };
        (breaker.at_risk, breaker.of) = (state.at_risk, state.known);
        if let Some(anomaly) = anomaly {
            breaker.last_above = now;
            breaker.anomaly = anomaly;
        }
        if anomaly == Some(Anomaly::Silence) {
            (breaker.silent, breaker.silent_of) = (state.silent, state.silent_of);
            breaker.released = false;
        }
        breaker.released |= gates.released.contains(kind);
        // A clock that went back must not close it early, nor keep it open for long.
        breaker.last_above = breaker.last_above.min(now);
        if now - breaker.last_above < CALM {
            next.insert(kind.to_owned(), breaker);
        }
    }
    next
}

fn opened(anomaly: Anomaly, now: Timestamp) -> Breaker {
    Breaker { opened_at: now, last_above: now, released: false, at_risk: 0, of: 0, anomaly, silent: 0, silent_of: 0 }
}

/// Whether an episode that begins now is left alone: a share of (component, day) that the hash of the rule that speaks
/// loudest, the component and the day (UTC) chooses, the same on every replica.
pub(super) fn draws_holdout(policy: &Policy, assessment: &Assessment, now: Timestamp) -> bool {
    let rule = assessment.signals.first().map_or("", |signal| signal.rule.as_str());
    let text = format!("{rule}\0{}\0{}", assessment.component, now.0.div_euclid(Millis::DAY.0));
    let digest = Sha256::digest(text.as_bytes());
    let drawn = digest.iter().take(4).fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    f64::from(drawn) < policy.holdout * 2_f64.powi(32)
}

/// What an open breaker says to a component of its kind.
pub(super) fn broken(breakers: &BTreeMap<String, Breaker>, kind: &str, now: Timestamp) -> Option<Refusal> {
    let breaker = breakers.get(kind).filter(|breaker| !breaker.released)?;
    let calm = now - breaker.last_above;
    let share = |part: usize, of: usize| {
        format!("{part} of {} ({})", count(of as u64, kind), percent(part as f64 / of.max(1) as f64))
    };
    let detail = match breaker.anomaly {
        Anomaly::AtRisk => {
            let calm_for = match calm {
                Millis::ZERO => "now".to_owned(),
                calm => format!("now, and it has been fewer for {}", span(calm)),
            };
            format!(
                "more than {AT_RISK_MAX} and more than {} at risk at once is a mass anomaly, so nothing is done: {} are {calm_for}",
                percent(AT_RISK_SHARE_MAX),
                share(breaker.at_risk, breaker.of),
            )
        }
        Anomaly::Silence => format!(
            "more than {} silent at once is a scrape fault, not a mass failure, so nothing is done: {} fell silent {} ago",
            percent(SILENT_SHARE_MAX),
            share(breaker.silent, breaker.silent_of),
            span(calm),
        ),
    };
    let released_when = format!("it has been calm for another {}, or a person releases it", span(CALM - calm));
    Some(Refusal::new(Reason::Breaker, detail, released_when))
}

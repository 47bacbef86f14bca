//! What has been done and what came of it: kept in memory, rebuilt from the journal.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Action, ActionKind, Change, Plan};
use crate::model::{ComponentId, Millis, Timestamp};

/// How long what is over is remembered: for budgets, latches and what actions of a kind achieve.
const REMEMBERED: Millis = Millis(7 * Millis::DAY.0);
/// How many actions are kept at most; the oldest that are over go first.
const KEPT_MAX: usize = 1000;
/// An action without an outcome counts as under way for so long: the executor settles everything far earlier.
const UNDER_WAY_MAX: Millis = Millis::DAY;
/// How many past actions the policy's own efficacy weighs.
const PRIOR_WEIGHT: f64 = 4.0;
/// Fewer measured actuation times than this do not replace the declared one.
const TIMES_MIN: usize = 3;

/// What has been done: from the journal.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    /// Actions, oldest first, with what came of them.
    pub actions: Vec<PastAction>,
}

/// An action with what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PastAction {
    /// The action.
    pub action: Action,
    /// What came of it.
    pub outcome: Option<Outcome>,
    /// When the outcome was known.
    pub settled_at: Option<Timestamp>,
    /// The action that gave it back.
    pub undone_by: Option<String>,
    /// How long it took until it was confirmed.
    pub took: Option<Millis>,
    /// Whether it had an effect, once that was judged.
    #[serde(default)]
    pub effective: Option<bool>,
    /// The share of the reckoned improvement that came about.
    #[serde(default)]
    pub achieved: Option<f64>,
    /// Somebody else changed its target: it is not undone any more.
    #[serde(default)]
    pub disowned: bool,
}

/// What came of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Seen to have happened.
    Confirmed,
    /// Accepted; nobody could be asked.
    Applied,
    /// It was so already.
    Unchanged,
    /// Only written down.
    DryRun,
    /// It did not work.
    Failed,
    /// Its time ran out before anything happened.
    Expired,
    /// Given back.
    Reverted,
    /// It may have happened or not: it was sent, or may have been, and nobody can tell. It counts as having taken effect,
    /// so that budgets and cool-downs hold and it is given back.
    Unknown,
    /// A person called it off before it was sent.
    Cancelled,
    /// There was no room for it: a quota, a limit or a node's size forbids it. Part of it may stand, so it is given back.
    Insufficient,
}

impl Outcome {
    /// Whether the target is now as the action wanted it, by its doing, or must be taken to be.
    pub fn took_effect(self) -> bool {
        matches!(self, Outcome::Confirmed | Outcome::Applied | Outcome::Unknown | Outcome::Insufficient)
    }
}

impl Ledger {
    /// Keeps an intent: an action that is about to be carried out, or written down in a dry run. One that is known
    /// already stays as it is.
    pub fn record_intent(&mut self, action: &Action) {
        if self.find(&action.id).is_none() {
            self.actions.push(PastAction::new(action.clone()));
        }
    }

    /// Keeps what came of an action; where it gave another one back, marks that one.
    pub fn record_outcome(&mut self, id: &str, outcome: Outcome, took: Option<Millis>, now: Timestamp) {
        let Some(index) = self.find(id) else { return };
        let past = &mut self.actions[index];
        past.outcome = Some(outcome);
        past.settled_at = Some(now);
        past.took = took;
        let is_so = matches!(outcome, Outcome::Unchanged | Outcome::Reverted);
        // What may not have been given back still has to be.
        let given_back =
            is_so || (outcome.took_effect() && !matches!(outcome, Outcome::Unknown | Outcome::Insufficient));
        let undoes = past.action.undoes.clone().filter(|_| given_back && !past.action.dry_run);
        if let Some(original) = undoes.and_then(|original| self.find(&original)) {
            self.actions[original].undone_by = Some(id.to_owned());
        }
    }

    /// Keeps what a plan found out about earlier actions: verdicts, new expiries, and what is no longer ours.
    pub fn note(&mut self, plan: &Plan) {
        for verdict in &plan.verdicts {
            if let Some(index) = self.find(&verdict.action_id) {
                self.actions[index].effective = Some(verdict.effective);
                self.actions[index].achieved = verdict.achieved;
            }
        }
        for extension in &plan.extended {
            if let Some(index) = self.find(&extension.action_id) {
                self.actions[index].action.expires_at = Some(extension.until);
            }
        }
        for id in &plan.disowned {
            if let Some(index) = self.find(id) {
                self.actions[index].disowned = true;
            }
        }
    }

    /// Forgets what is over and older than a week, and then the oldest of what is over until at most 1000 are left.
    pub fn prune(&mut self, now: Timestamp) {
        let to_give_back = |past: &PastAction| past.is_in_force() && past.action.undo.is_some();
        self.actions.retain(|past| to_give_back(past) || now - past.action.decided_at <= REMEMBERED);
        let mut surplus = self.actions.len().saturating_sub(KEPT_MAX);
        self.actions.retain(|past| {
            let goes = surplus > 0 && !to_give_back(past) && !past.is_under_way(now);
            surplus -= usize::from(goes);
            !goes
        });
    }

    /// The actions whose change stands at `now`: carried out, not given back, not over.
    pub fn in_force(&self, now: Timestamp) -> impl Iterator<Item = &Action> {
        let over =
            move |past: &PastAction| past.action.undo.is_none() && past.action.expires_at.is_none_or(|at| at <= now);
        self.actions.iter().filter(move |past| past.is_in_force() && !over(past)).map(|past| &past.action)
    }

    /// The components on which an action of ours is under way at `now`, or stands: what comes of them is not chance.
    pub fn acted_on(&self, now: Timestamp) -> impl Iterator<Item = &ComponentId> {
        let under_way = self.actions.iter().filter(move |past| past.is_under_way(now)).map(|past| &past.action);
        self.in_force(now).chain(under_way).map(|action| &action.target.component)
    }

    fn find(&self, id: &str) -> Option<usize> {
        // From the end: outcomes and verdicts are about recent actions.
        self.actions.iter().rposition(|past| past.action.id == id)
    }
}

impl PastAction {
    /// An action of which nothing has come yet.
    pub fn new(action: Action) -> PastAction {
        PastAction {
            action,
            outcome: None,
            settled_at: None,
            undone_by: None,
            took: None,
            effective: None,
            achieved: None,
            disowned: false,
        }
    }

    /// Whether it was really sent, and not to give something back.
    pub(super) fn is_act(&self) -> bool {
        !self.action.dry_run && self.action.undoes.is_none() && self.outcome != Some(Outcome::Cancelled)
    }

    /// Whether it was sent and nobody knows yet what came of it.
    pub(super) fn is_under_way(&self, now: Timestamp) -> bool {
        !self.action.dry_run && self.outcome.is_none() && now - self.action.decided_at < UNDER_WAY_MAX
    }

    /// Whether its change stands and is ours.
    pub(super) fn is_in_force(&self) -> bool {
        self.is_act() && self.outcome.is_some_and(Outcome::took_effect) && self.undone_by.is_none() && !self.disowned
    }
}

/// How long actions take from the decision to the confirmation, measured.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ActuationTimes {
    sorted: BTreeMap<(String, ActionKind), Vec<Millis>>,
}

impl ActuationTimes {
    /// The times in a ledger.
    pub fn of(ledger: &Ledger) -> ActuationTimes {
        let mut sorted: BTreeMap<(String, ActionKind), Vec<Millis>> = BTreeMap::new();
        for past in ledger.actions.iter().filter(|past| past.is_act()) {
            if let (Some(took), Some(Outcome::Confirmed)) = (past.took, past.outcome) {
                sorted.entry((past.action.actuator.clone(), past.action.kind)).or_default().push(took);
            }
        }
        for times in sorted.values_mut() {
            times.sort_unstable();
        }
        ActuationTimes { sorted }
    }

    /// The 0.9 quantile (nearest rank) of what an actuator needs for a kind of action; absent until three have been
    /// measured.
    pub fn p90(&self, actuator: &str, kind: ActionKind) -> Option<Millis> {
        let times = self.sorted.get(&(actuator.to_owned(), kind)).filter(|times| times.len() >= TIMES_MIN)?;
        Some(times[(times.len() * 9).div_ceil(10) - 1])
    }
}

/// A ledger that is ready to be asked, with the verdicts of the plan in the making.
#[derive(Debug)]
pub(super) struct Past<'a> {
    /// All actions by component, each list oldest first.
    pub(super) by_component: BTreeMap<String, Vec<&'a PastAction>>,
    by_id: BTreeMap<&'a str, &'a PastAction>,
    /// What has been judged, earlier or in this plan: id → effective, share achieved.
    pub(super) judged: BTreeMap<&'a str, (bool, Option<f64>)>,
}

impl<'a> Past<'a> {
    pub(super) fn of(ledger: &'a Ledger) -> Past<'a> {
        let mut past = Past { by_component: BTreeMap::new(), by_id: BTreeMap::new(), judged: BTreeMap::new() };
        let mut sorted: Vec<&PastAction> = ledger.actions.iter().collect();
        sorted.sort_by(|a, b| (a.action.decided_at, &a.action.id).cmp(&(b.action.decided_at, &b.action.id)));
        for action in sorted {
            let id = action.action.id.as_str();
            past.by_component.entry(action.action.target.component.to_string()).or_default().push(action);
            past.by_id.insert(id, action);
            if let Some(effective) = action.effective {
                past.judged.insert(id, (effective, action.achieved));
            }
        }
        past
    }

    /// All actions on a component, oldest first.
    pub(super) fn on(&self, component: &str) -> &[&'a PastAction] {
        self.by_component.get(component).map_or(&[], Vec::as_slice)
    }

    pub(super) fn get(&self, id: &str) -> Option<&'a PastAction> {
        self.by_id.get(id).copied()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &'a PastAction> {
        self.by_id.values().copied()
    }

    pub(super) fn effective(&self, past: &PastAction) -> Option<bool> {
        self.judged.get(past.action.id.as_str()).map(|(effective, _)| *effective)
    }

    /// The last action for a component that was meant for it (not one that took from it or gave back).
    pub(super) fn last_for(&self, component: &str) -> Option<&'a PastAction> {
        self.on(component).iter().rev().find(|past| past.is_act() && past.action.kind != ActionKind::Evict).copied()
    }

    /// When we last changed something at a component in whichever direction.
    pub(super) fn last_touch(&self, component: &str) -> Option<&'a PastAction> {
        self.on(component).iter().rev().find(|past| !past.action.dry_run).copied()
    }

    /// Real actions for a component since a moment that turned out to have no effect.
    pub(super) fn ineffective(&self, component: &str, since: Timestamp) -> impl Iterator<Item = &'a PastAction> {
        self.on(component)
            .iter()
            .copied()
            .filter(move |past| past.is_act() && past.action.decided_at > since && self.effective(past) == Some(false))
    }
}

/// What actions of each kind have achieved so far.
#[derive(Debug, Default)]
pub(super) struct Experience {
    kinds: BTreeMap<ActionKind, Achieved>,
}

#[derive(Debug, Default)]
struct Achieved {
    judged: f64,
    effective: f64,
    measured: f64,
    share: f64,
}

impl Experience {
    pub(super) fn of(past: &Past<'_>) -> Experience {
        let mut experience = Experience::default();
        for (id, (effective, achieved)) in &past.judged {
            let Some(action) = past.get(id).filter(|action| action.is_act()) else { continue };
            let kind = experience.kinds.entry(action.action.kind).or_default();
            kind.judged += 1.0;
            kind.effective += f64::from(u8::from(*effective));
            if let Some(share) = achieved.filter(|share| share.is_finite()) {
                kind.measured += 1.0;
                kind.share += share.clamp(0.0, 1.0);
            }
        }
        experience
    }

    /// The share of failures that an action of a kind prevents: what the policy says counts as four past actions, each
    /// judged one as one (the mean of a Beta distribution).
    pub(super) fn efficacy(&self, kind: ActionKind, declared: f64) -> f64 {
        let declared = if declared.is_finite() { declared.clamp(0.0, 1.0) } else { 0.0 };
        self.kinds.get(&kind).map_or(declared, |achieved| {
            (declared * PRIOR_WEIGHT + achieved.effective) / (PRIOR_WEIGHT + achieved.judged)
        })
    }

    /// What is believed of that share: the parameters of its Beta distribution, with [`Experience::efficacy`] for mean.
    pub(super) fn posterior(&self, kind: ActionKind, declared: f64) -> (f64, f64) {
        let declared = if declared.is_finite() { declared.clamp(0.0, 1.0) } else { 0.0 };
        let (effective, judged) = self.kinds.get(&kind).map_or((0.0, 0.0), |a| (a.effective, a.judged));
        (declared * PRIOR_WEIGHT + effective, (1.0 - declared) * PRIOR_WEIGHT + judged - effective)
    }

    /// The share of the reckoned improvement that actions of a kind bring, 0.5..1: four past actions count as having
    /// brought all of it, and nothing is more than doubled by what they did not bring.
    pub(super) fn proportion(&self, kind: ActionKind) -> f64 {
        self.kinds.get(&kind).map_or(1.0, |achieved| {
            ((PRIOR_WEIGHT + achieved.share) / (PRIOR_WEIGHT + achieved.measured)).clamp(0.5, 1.0)
        })
    }
}

/// Whether two changes are about the same thing, so that one stands on the other.
pub(super) fn same_thing(a: &Change, b: &Change) -> bool {
    let cordons = |change: &Change| matches!(change, Change::Cordon | Change::Uncordon);
    std::mem::discriminant(a) == std::mem::discriminant(b) || (cordons(a) && cordons(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ComponentId;
    use crate::plan::{Target, Verdict, Why};

    fn action(id: &str, minutes: i64) -> Action {
        let component = ComponentId { kind: "queue".to_owned(), labels: vec![("queue".to_owned(), "jobs".to_owned())] };
        Action {
            id: id.to_owned(),
            policy: "queues".to_owned(),
            rung: 0,
            kind: ActionKind::ScaleOut,
            actuator: "pager".to_owned(),
            target: Target { component, namespace: String::new(), name: "jobs".to_owned() },
            change: Change::Replicas { from: 1, to: 2 },
            why: Why {
                probability: 0.8,
                eta: None,
                expected_loss: 0.5,
                signal: "rule/signal".to_owned(),
                peak: None,
                sentence: String::new(),
                predictions: Vec::new(),
            },
            decided_at: Timestamp::from_secs(minutes * 60),
            expires_at: None,
            undo: Some(Change::Replicas { from: 2, to: 1 }),
            undoes: None,
            makes_room_for: None,
            dry_run: false,
        }
    }

    /// A ledger of confirmed actions, one a minute, that took so many seconds.
    fn ledger(took: &[i64]) -> Ledger {
        let mut ledger = Ledger::default();
        for (minute, seconds) in (0i64..).zip(took) {
            let id = minute.to_string();
            ledger.record_intent(&action(&id, minute));
            let took = Some(Millis::from_secs(*seconds));
            ledger.record_outcome(&id, Outcome::Confirmed, took, Timestamp::from_secs(minute * 60 + seconds));
        }
        ledger
    }

    #[test]
    fn an_undo_that_took_effect_marks_what_it_gave_back() {
        for (outcome, given_back) in [
            (Outcome::Confirmed, true),
            (Outcome::Unchanged, true),
            (Outcome::Failed, false),
            (Outcome::Unknown, false),
            (Outcome::Cancelled, false),
        ] {
            let mut ledger = ledger(&[1]);
            ledger.record_intent(&Action { undoes: Some("0".to_owned()), ..action("undo", 60) });
            ledger.record_outcome("undo", outcome, None, Timestamp::from_secs(3600));
            assert_eq!(ledger.actions[0].undone_by.is_some(), given_back, "{outcome:?}");
            assert_eq!(ledger.actions[0].is_in_force(), !given_back, "{outcome:?}");
        }
    }

    #[test]
    fn an_intent_is_kept_once_and_unknown_outcomes_are_ignored() {
        let mut ledger = ledger(&[1]);
        ledger.record_intent(&action("0", 5));
        ledger.record_outcome("never heard of", Outcome::Failed, None, Timestamp(0));
        assert_eq!(ledger.actions.len(), 1);
        assert_eq!(ledger.actions[0].outcome, Some(Outcome::Confirmed));
    }

    #[test]
    fn notes_what_a_plan_found_out() {
        let mut ledger = ledger(&[1, 1]);
        let verdict =
            Verdict { action_id: "1".to_owned(), effective: true, achieved: Some(0.5), detail: String::new() };
        let until = Timestamp::from_secs(9000);
        let extended = vec![super::super::Extension { action_id: "0".to_owned(), until, detail: String::new() }];
        let plan = Plan { verdicts: vec![verdict], extended, disowned: vec!["0".to_owned()], ..Plan::default() };
        ledger.note(&plan);
        assert_eq!((ledger.actions[1].effective, ledger.actions[1].achieved), (Some(true), Some(0.5)));
        assert_eq!(ledger.actions[0].action.expires_at, Some(until));
        assert!(ledger.actions[0].disowned && !ledger.actions[0].is_in_force());
    }

    #[test]
    fn forgets_what_is_over_but_never_what_is_to_be_given_back() {
        let mut ledger = ledger(&[1; 1200]);
        for past in &mut ledger.actions[10..] {
            past.undone_by = Some("somebody".to_owned());
        }
        let minutes = |minutes: i64| Timestamp::from_secs(minutes * 60);
        ledger.prune(minutes(1200));
        assert_eq!(ledger.actions.len(), 1000, "at most 1000");
        assert_eq!(ledger.actions[9].action.id, "9", "what is in force stays");
        assert_eq!(ledger.actions[10].action.id, "210", "the oldest that is over goes");
        ledger.prune(minutes(7 * 24 * 60 + 1100));
        assert_eq!(ledger.actions.len(), 10 + 100, "a week is remembered");
        ledger.prune(minutes(30 * 24 * 60));
        assert_eq!(ledger.actions.len(), 10, "what is in force stays however old it is");
    }

    #[test]
    fn actuation_times_are_the_nearest_rank_p90_of_at_least_three() {
        let p90 = |took: &[i64]| ActuationTimes::of(&ledger(took)).p90("pager", ActionKind::ScaleOut);
        assert_eq!(p90(&[5, 7]), None);
        assert_eq!(p90(&[7, 5, 6]), Some(Millis::from_secs(7)));
        assert_eq!(p90(&[10, 1, 2, 3, 4, 5, 6, 7, 8, 9]), Some(Millis::from_secs(9)));
        assert_eq!(ActuationTimes::of(&ledger(&[1, 1, 1])).p90("other", ActionKind::ScaleOut), None);
    }

    #[test]
    fn efficacy_moves_from_what_is_declared_to_what_is_judged() {
        let mut ledger = ledger(&[1; 6]);
        for past in &mut ledger.actions {
            past.effective = Some(false);
        }
        let past = Past::of(&ledger);
        let experience = Experience::of(&past);
        assert!((experience.efficacy(ActionKind::ScaleOut, 0.8) - 3.2 / 10.0).abs() < 1e-12);
        assert!((experience.efficacy(ActionKind::Migrate, 0.8) - 0.8).abs() < 1e-12);
        assert!(experience.efficacy(ActionKind::Migrate, f64::NAN) < 1e-12);
    }
}

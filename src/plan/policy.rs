//! What may be done for which components, and which policy is for whom.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;
use serde::{Deserialize, Serialize};

use super::{ActionKind, Mode};
use crate::health::Assessment;
use crate::model::{Millis, Timestamp};

/// Which components a policy is for: a kind and anchored regular expressions on component and rule labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selector {
    /// The kind; any where absent.
    pub kind: Option<String>,
    /// Label → anchored regular expression.
    pub labels: BTreeMap<String, String>,
}

/// One rung of a ladder of actions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rung {
    /// What.
    pub action: ActionKind,
    /// By which actuator.
    pub actuator: String,
    /// A fixed step (replicas to add) instead of the computed size.
    pub step: Option<u32>,
    /// Never more replicas than this.
    pub replicas_max: Option<u32>,
    /// Which resources to raise.
    pub resources: Vec<String>,
    /// Never more than this factor over what it has now.
    pub factor_max: f64,
    /// The p90 of its actuation time until it has been measured.
    pub actuation_time: Millis,
    /// Within this after the decision it must have had its effect, or it counts as ineffective; where absent, within its
    /// p90 actuation time and what the policy waits before it judges (`verify.after`).
    #[serde(default)]
    pub timeout: Option<Millis>,
}

/// Conditions on where there is room.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Constraints {
    /// The share of a node's allocatable that may be promised, per resource, 0..1; 1 where absent.
    pub max_per_node: BTreeMap<String, f64>,
    /// Nodes at risk themselves get nothing.
    pub avoid_at_risk: bool,
    /// Only nodes with these labels.
    pub node_selector: BTreeMap<String, String>,
    /// Nodes with these labels are filled first; the others get what does not fit there. All alike where empty.
    #[serde(default)]
    pub node_preferred: BTreeMap<String, String>,
    /// The share of a workload's replicas that must stay available, 0..1.
    pub min_available: f64,
}

/// What may be taken from others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvictPolicy {
    /// Only work of a priority strictly below this, and strictly below the component's own.
    pub below_priority: i64,
    /// Only for components of at least this impact.
    pub min_impact: f64,
}

/// How much may be done in a while: the larger of count and share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// The while.
    pub per: Millis,
    /// So many actions.
    pub actions_max: u32,
    /// Or so large a share of the policy's components.
    pub share_max: f64,
    /// Only actions of these kinds count; all where empty.
    #[serde(default)]
    pub actions: BTreeSet<ActionKind>,
}

/// How an action's effect is judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verify {
    /// When to look.
    pub after: Millis,
    /// By how much the probability must have dropped.
    pub probability_drop: f64,
    /// Whether the next rung is tried when it has not; otherwise the component is latched.
    pub escalate: bool,
}

/// A time in which a policy may or may not act.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// Acting is denied inside it (true) or allowed only inside (false).
    pub deny: bool,
    /// Days on which it begins: 1 = Monday … 7 = Sunday.
    pub weekdays: Vec<i8>,
    /// Minute of the day at which it begins.
    pub from_minute: u16,
    /// Minute of the day at which it ends; not after `from_minute` where it runs past midnight.
    pub to_minute: u16,
    /// IANA time zone.
    pub zone: String,
    /// The text the user wrote.
    pub text: String,
}

/// What may be done for which components.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// For whom.
    pub selector: Selector,
    /// How far it may go (bounded by the global mode).
    pub mode: Mode,
    /// Above this probability for so many consecutive cycles, a component enters.
    pub enter_above: f64,
    /// See `enter_above`.
    pub enter_cycles: u32,
    /// Below this probability for so many consecutive cycles, it leaves.
    pub exit_below: f64,
    /// See `exit_below`.
    pub exit_cycles: u32,
    /// Cost of missing a failure, in any unit.
    pub cost_miss: f64,
    /// Cost of acting, in the same unit.
    pub cost_action: f64,
    /// Share of failures that an action prevents, until measured, 0..1.
    pub efficacy: f64,
    /// The first rung that fits and is fast enough wins.
    pub ladder: Vec<Rung>,
    /// Where there is room.
    pub constraints: Constraints,
    /// What may be taken from others; nothing where absent.
    pub evict: Option<EvictPolicy>,
    /// How much may be done: all of them hold.
    pub budgets: Vec<Budget>,
    /// One action per component per cool-down.
    pub cooldown: Millis,
    /// After this the action is undone, if its reason is gone.
    pub expires_after: Millis,
    /// How the effect is judged.
    pub verify: Option<Verify>,
    /// When.
    pub windows: Vec<Window>,
    /// The share of episodes that is never acted on, 0..1, so that what would have come of them can be known.
    #[serde(default)]
    pub holdout: f64,
    /// For how long an action waits for a person (approve mode); where absent, the smaller of an hour and `expires_after`.
    #[serde(default)]
    pub approve_within: Option<Millis>,
    /// Where several rungs fit, one is drawn by what each has achieved, instead of taking the first.
    #[serde(default)]
    pub explore: bool,
}

/// What holds where a user says nothing. It is for nobody: an empty selector matches nothing.
impl Default for Policy {
    fn default() -> Policy {
        Policy {
            name: String::new(),
            selector: Selector { kind: None, labels: BTreeMap::new() },
            mode: Mode::Observe,
            enter_above: 0.6,
            enter_cycles: 3,
            exit_below: 0.2,
            exit_cycles: 10,
            cost_miss: 20.0,
            cost_action: 1.0,
            efficacy: 0.8,
            ladder: Vec::new(),
            constraints: Constraints::default(),
            evict: None,
            budgets: vec![Budget::default()],
            cooldown: Millis::MINUTE * 15,
            expires_after: Millis::HOUR * 2,
            verify: Some(Verify::default()),
            windows: Vec::new(),
            holdout: 0.0,
            approve_within: None,
            explore: false,
        }
    }
}

impl Default for Constraints {
    fn default() -> Constraints {
        Constraints {
            max_per_node: BTreeMap::new(),
            avoid_at_risk: true,
            node_selector: BTreeMap::new(),
            node_preferred: BTreeMap::new(),
            min_available: 0.0,
        }
    }
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { per: Millis::HOUR, actions_max: 4, share_max: 0.1, actions: BTreeSet::new() }
    }
}

impl Default for Verify {
    fn default() -> Verify {
        Verify { after: Millis::MINUTE * 5, probability_drop: 0.3, escalate: true }
    }
}

impl Policy {
    /// For how long an action waits for a person.
    pub fn offer_lasts(&self) -> Millis {
        self.approve_within.unwrap_or(Millis::HOUR.min(self.expires_after))
    }
}

impl Rung {
    /// A rung of computed size, at most twice of what there is.
    pub fn new(action: ActionKind, actuator: impl Into<String>) -> Rung {
        Rung {
            action,
            actuator: actuator.into(),
            step: None,
            replicas_max: None,
            resources: Vec::new(),
            factor_max: 2.0,
            actuation_time: Millis::MINUTE * 2,
            timeout: None,
        }
    }

    /// Whether it acts on the number of replicas or their resources, so that the workload must be known.
    pub(super) fn resizes(&self) -> bool {
        matches!(self.action, ActionKind::ScaleOut | ActionKind::ScaleUp)
    }
}

impl Budget {
    /// How many actions the policy may take in one `per`, of a group of so many components.
    pub fn limit(&self, group: usize) -> usize {
        usize::try_from(self.actions_max).unwrap_or(usize::MAX).max(super::words::share_of(self.share_max, group))
    }

    /// Whether actions of a kind count in it.
    pub fn counts(&self, kind: ActionKind) -> bool {
        self.actions.is_empty() || self.actions.contains(&kind)
    }
}

impl Window {
    /// Whether `now` lies inside it; an error where the zone is not known.
    ///
    /// # Errors
    /// Says which zone is not known.
    pub fn contains(&self, now: Timestamp) -> Result<bool, String> {
        let local = jiff::Timestamp::from_millisecond(now.0)
            .and_then(|at| at.in_tz(&self.zone))
            .map_err(|error| format!("time zone `{}`: {error}", self.zone))?;
        let today = local.weekday().to_monday_one_offset();
        let yesterday = if today == 1 { 7 } else { today - 1 };
        let minute = i32::from(local.hour()) * 60 + i32::from(local.minute());
        let (from, to) = (i32::from(self.from_minute), i32::from(self.to_minute));
        let begins_on = |day: i8| self.weekdays.is_empty() || self.weekdays.contains(&day);
        if from < to {
            return Ok(begins_on(today) && from <= minute && minute < to);
        }
        Ok(begins_on(today) && from <= minute || begins_on(yesterday) && minute < to)
    }
}

/// A selector that is ready to be asked.
///
/// An empty selector matches nothing, and so does one with an expression that cannot be read: the configuration refuses
/// both, and here the doubt is on the side of not acting.
#[derive(Debug)]
pub(super) struct Matcher<'a> {
    kind: Option<&'a str>,
    labels: Vec<(&'a str, Regex)>,
    never: bool,
}

impl<'a> Matcher<'a> {
    pub(super) fn new(selector: &'a Selector) -> Matcher<'a> {
        let labels: Vec<_> = selector
            .labels
            .iter()
            .filter_map(|(name, pattern)| Some((name.as_str(), Regex::new(&format!("^(?s:{pattern})$")).ok()?)))
            .collect();
        let never = labels.len() < selector.labels.len() || (selector.kind.is_none() && labels.is_empty());
        Matcher { kind: selector.kind.as_deref(), labels, never }
    }

    /// Whether the policy is for this component: labels of the component come before those of its rules, and an absent
    /// label counts as empty.
    pub(super) fn matches(&self, assessment: &Assessment) -> bool {
        let component = &assessment.component;
        !self.never
            && self.kind.is_none_or(|kind| kind == component.kind)
            && self.labels.iter().all(|(name, pattern)| {
                pattern.is_match(component.label(name).or_else(|| assessment.labels.get(name)).unwrap_or(""))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a window Monday to Friday contains a moment.
    fn check(from: (u16, u16), to: (u16, u16), zone: &str, at: &str, inside: bool) {
        let window = Window {
            deny: true,
            weekdays: vec![1, 2, 3, 4, 5],
            from_minute: from.0 * 60 + from.1,
            to_minute: to.0 * 60 + to.1,
            zone: zone.to_owned(),
            text: String::new(),
        };
        let now = at.parse::<jiff::Timestamp>().expect("a time").as_millisecond();
        assert_eq!(window.contains(Timestamp(now)), Ok(inside), "{at} in {from:?}-{to:?} {zone}");
    }

    #[test]
    fn windows_begin_with_their_minute_and_end_before_theirs() {
        check((8, 0), (9, 0), "UTC", "2026-03-02T07:59:59Z", false);
        check((8, 0), (9, 0), "UTC", "2026-03-02T08:00:00Z", true);
        check((8, 0), (9, 0), "UTC", "2026-03-02T08:59:59Z", true);
        check((8, 0), (9, 0), "UTC", "2026-03-02T09:00:00Z", false);
    }

    #[test]
    fn windows_follow_their_zone_and_its_summer_time() {
        check((8, 0), (9, 0), "Europe/Berlin", "2026-03-02T07:30:00Z", true);
        check((8, 0), (9, 0), "Europe/Berlin", "2026-07-06T07:30:00Z", false);
        check((8, 0), (9, 0), "Europe/Berlin", "2026-07-06T06:30:00Z", true);
    }

    #[test]
    fn a_window_past_midnight_belongs_to_the_day_on_which_it_begins() {
        check((22, 0), (6, 0), "UTC", "2026-03-06T23:00:00Z", true);
        check((22, 0), (6, 0), "UTC", "2026-03-07T05:59:00Z", true);
        check((22, 0), (6, 0), "UTC", "2026-03-07T23:00:00Z", false);
        check((22, 0), (6, 0), "UTC", "2026-03-09T05:00:00Z", false);
    }
}

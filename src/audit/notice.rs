//! What is worth telling people, worked out from a plan and its assessments. Pure: what was told before is an argument.

use std::collections::BTreeMap;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::journal::word;
use super::template::{TemplateValues, render, rounded};
use crate::act::Done;
use crate::health::{Assessment, Standing};
use crate::model::{ComponentId, Labels, Millis, Timestamp, hex};
use crate::plan::{Action, Change, Declined, Outcome, Plan, Reason};

/// A standing notice ends by itself so long after it was last renewed, so that nothing rings on when forestall stops.
const LAPSE_MIN: Millis = Millis(5 * Millis::MINUTE.0);

/// A standing notice is renewed this often.
const RENEW_EVERY: Millis = Millis::MINUTE;

/// More notices do not stand at once; what is above it is left out until others end.
const STANDING_MAX: usize = 10_000;

/// What a notice is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeKind {
    /// A component is at risk or failing.
    PredictedFailure,
    /// An action was decided.
    Acted,
    /// What came of an action.
    Outcome,
    /// There is no room for what would help.
    Insufficient,
    /// Something else forbids what would help.
    Declined,
}

/// Where a notice is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeState {
    /// Told for the first time.
    New,
    /// Still so.
    Renewed,
    /// No longer so.
    Over,
}

/// How loud a notice is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Somebody should look.
    Warning,
    /// Somebody must help: forestall cannot.
    Critical,
}

/// Something to tell people.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Notice {
    /// Unique for this notice in this state, and the same on every replica.
    pub id: String,
    /// The same through the life of a notice, and for the next of its sort.
    pub key: String,
    /// What it is about.
    pub kind: NoticeKind,
    /// Where it is in its life.
    pub state: NoticeState,
    /// How loud it is.
    pub severity: Severity,
    /// For whom.
    pub component: ComponentId,
    /// The rule's and the component's labels, with `component` and `kind`.
    pub labels: Labels,
    /// In one line.
    pub title: String,
    /// In a few sentences.
    pub text: String,
    /// Since when.
    pub starts_at: Timestamp,
    /// Until when; where it is over, when that was. Absent for what happens in a moment.
    pub ends_at: Option<Timestamp>,
    /// The rules' annotations, rendered.
    pub annotations: BTreeMap<String, String>,
}

/// What people have been told and is not over.
#[derive(Debug, Clone, Default)]
pub struct Told {
    standing: BTreeMap<String, OpenNotice>,
    last_at: Option<Timestamp>,
}

#[derive(Debug, Clone)]
struct OpenNotice {
    notice: Notice,
    renewed_at: Timestamp,
}

/// Rule → its annotations, as `(name, template)`.
pub type RuleAnnotations = BTreeMap<String, Vec<(String, String)>>;

/// What is to be told after a cycle: components newly at risk, decided actions, what capacity or rules forbid, and what
/// is over. Standing notices are renewed once a minute.
pub fn notices_of(
    plan: &Plan,
    assessments: &[Assessment],
    annotations: &RuleAnnotations,
    told: &mut Told,
) -> Vec<Notice> {
    let now = plan.at;
    let gap = told.last_at.map_or(Millis::ZERO, |last| now - last);
    told.last_at = Some(now);
    let lapses_at = now + LAPSE_MIN.max(gap * 3);
    let by_component: BTreeMap<&ComponentId, &Assessment> = assessments.iter().map(|a| (&a.component, a)).collect();
    let writer = Writer { now, lapses_at, by_component: &by_component, annotations };

    let at_risk = assessments.iter().filter(|a| matches!(a.standing, Standing::AtRisk | Standing::Failing));
    let mut wanted: BTreeMap<String, Notice> = BTreeMap::new();
    for notice in at_risk.map(|a| writer.predicted(a)).chain(plan.declined.iter().filter_map(|d| writer.declined(d))) {
        wanted.entry(notice.key.clone()).or_insert(notice);
    }
    let mut notices = told.end_all_but(&wanted, &by_component, now);
    notices.extend(wanted.into_values().filter_map(|notice| told.tell(notice, now)));
    for action in &plan.actions {
        if let Some(undone) = &action.undoes {
            notices.extend(told.end(&format!("acted/{undone}"), now));
        }
        notices.extend(told.tell(writer.acted(action), now));
    }
    notices
}

/// What came of actions, for people. What was only written down is not told again.
pub fn notices_of_outcomes(actions: &[Action], done: &[Done], now: Timestamp) -> Vec<Notice> {
    let mut notices = Vec::new();
    for one in done.iter().filter(|done| done.outcome != Outcome::DryRun) {
        let Some(action) = actions.iter().find(|action| action.id == one.action_id) else { continue };
        let outcome = word(&one.outcome);
        let mut notice = Notice {
            id: String::new(),
            key: format!("outcome/{}", action.id),
            kind: NoticeKind::Outcome,
            state: NoticeState::New,
            severity: if matches!(one.outcome, Outcome::Failed | Outcome::Unknown | Outcome::Insufficient) {
                Severity::Warning
            } else {
                Severity::Info
            },
            labels: labels_of(&action.target.component, None),
            component: action.target.component.clone(),
            title: format!("{outcome}: {}", action_text(action)),
            text: one.detail.clone(),
            starts_at: now,
            ends_at: None,
            annotations: BTreeMap::new(),
        };
        if let Some(took) = one.took {
            notice.text = format!("{} It took {}.", sentence(&notice.text), rounded(took));
        }
        notices.push(notice.with_id(now));
    }
    notices
}

impl Notice {
    fn with_id(mut self, now: Timestamp) -> Notice {
        let text = format!("{}@{}/{}@{}", self.key, self.starts_at.0, word(&self.state), now.0);
        self.id = format!("n{}", &hex(&Sha256::digest(text.as_bytes()))[..24]);
        self
    }
}

impl Told {
    /// The notice in the state in which it is to be told now, if at all.
    fn tell(&mut self, notice: Notice, now: Timestamp) -> Option<Notice> {
        let notice = match self.standing.get(&notice.key) {
            Some(before) if now - before.renewed_at < RENEW_EVERY => return None,
            // The labels stay as they were told first: they are the identity of an alert.
            Some(before) => Notice {
                state: NoticeState::Renewed,
                starts_at: before.notice.starts_at,
                labels: before.notice.labels.clone(),
                ..notice
            },
            None if self.standing.len() >= STANDING_MAX => return None,
            None => notice,
        };
        let notice = notice.with_id(now);
        if notice.ends_at.is_some() {
            self.standing.insert(notice.key.clone(), OpenNotice { notice: notice.clone(), renewed_at: now });
        }
        Some(notice)
    }

    fn end(&mut self, key: &str, now: Timestamp) -> Option<Notice> {
        let OpenNotice { notice, .. } = self.standing.remove(key)?;
        Some(Notice { state: NoticeState::Over, ends_at: Some(now), ..notice }.with_id(now))
    }

    /// Ends the notices that are no longer wanted. Actions end when they are given back; a component whose data is
    /// missing is not well, so its notice lapses instead of ending.
    fn end_all_but(
        &mut self,
        wanted: &BTreeMap<String, Notice>,
        assessments: &BTreeMap<&ComponentId, &Assessment>,
        now: Timestamp,
    ) -> Vec<Notice> {
        let mut over = Vec::new();
        self.standing.retain(|key, standing| {
            let known = assessments.get(&standing.notice.component);
            let is_unclear = known.is_none_or(|a| matches!(a.standing, Standing::Unknown | Standing::Learning));
            if wanted.contains_key(key) {
                return true;
            }
            if standing.notice.kind == NoticeKind::Acted || is_unclear {
                return standing.notice.ends_at.is_some_and(|at| now < at);
            }
            over.push(key.clone());
            true
        });
        over.iter().filter_map(|key| self.end(key, now)).collect()
    }
}

/// What all notices of one cycle have in common.
struct Writer<'a> {
    now: Timestamp,
    lapses_at: Timestamp,
    by_component: &'a BTreeMap<&'a ComponentId, &'a Assessment>,
    annotations: &'a RuleAnnotations,
}

impl Writer<'_> {
    fn predicted(&self, assessment: &Assessment) -> Notice {
        let component = &assessment.component;
        let eta = assessment.eta.q50.or(assessment.eta.q10);
        let title = match (assessment.standing, eta) {
            (Standing::Failing, _) => format!("{component} is failing"),
            (_, Some(eta)) => format!("{component} is likely to fail in {}", rounded(eta)),
            (_, None) => format!("{component} is likely to fail within {}", assessment.horizon),
        };
        let mut text = format!(
            "Failure probability {}, expected loss {:.2}.",
            percent(assessment.probability.unwrap_or_default()),
            assessment.expected_loss
        );
        if let Some(signal) = assessment.signals.first() {
            text.push_str(&format!(" Loudest signal: {}/{}", signal.rule, signal.signal));
            if let (Some(current), Some(limit)) = (signal.foresight.current, signal.foresight.limit) {
                text.push_str(&format!(", now {current:.4}, threshold {:.4}", limit.threshold));
            }
            text.push('.');
        }
        let key = format!("predicted_failure/{component}");
        self.notice(key, NoticeKind::PredictedFailure, Severity::Warning, component, title, text)
    }

    fn declined(&self, declined: &Declined) -> Option<Notice> {
        let (kind, severity) = match declined.reason {
            Reason::InsufficientCapacity | Reason::Priority => (NoticeKind::Insufficient, Severity::Critical),
            Reason::Budget
            | Reason::BlastRadius
            | Reason::Latched
            | Reason::Window
            | Reason::Pdb
            | Reason::TooLate
            | Reason::Breaker
            | Reason::NotOwner
            | Reason::Journal
            | Reason::Holdout
            | Reason::Approval => (NoticeKind::Declined, Severity::Warning),
            // The rest is how things usually are, or what a person has just chosen.
            _ => return None,
        };
        let component = &declined.component;
        let reason = word(&declined.reason);
        let title = match kind {
            NoticeKind::Insufficient => format!("no room to help {component}"),
            _ => format!("{component} is not helped: {}", reason.replace('_', " ")),
        };
        let mut text = sentence(&declined.detail);
        if !declined.released_when.is_empty() {
            text.push_str(&format!(" Released when: {}", sentence(&declined.released_when)));
        }
        let key = format!("{}/{reason}/{component}", word(&kind));
        let mut notice = self.notice(key, kind, severity, component, title, text);
        notice.labels = notice.labels.with("reason", &reason);
        Some(notice)
    }

    fn acted(&self, action: &Action) -> Notice {
        let would = if action.dry_run { "would " } else { "" };
        let title = format!("{would}{}", action_text(action));
        let mut text = sentence(&action.why.sentence);
        if let Some(undone) = &action.undoes {
            text.push_str(&format!(" It gives {undone} back."));
        }
        if let Some(other) = &action.makes_room_for {
            text.push_str(&format!(" It makes room for {other}."));
        }
        let component = &action.target.component;
        let key = format!("acted/{}", action.id);
        let mut notice = self.notice(key, NoticeKind::Acted, Severity::Info, component, title, text);
        notice.ends_at = action.expires_at;
        notice.labels = notice.labels.with("action", &word(&action.kind)).with("policy", &action.policy);
        notice
    }

    fn notice(
        &self,
        key: String,
        kind: NoticeKind,
        severity: Severity,
        component: &ComponentId,
        title: String,
        text: String,
    ) -> Notice {
        let assessment = self.by_component.get(component).copied();
        let labels = labels_of(component, assessment);
        let annotations = assessment.map(|a| self.rendered(a, &labels)).unwrap_or_default();
        Notice {
            id: String::new(),
            key,
            kind,
            state: NoticeState::New,
            severity,
            component: component.clone(),
            labels,
            title,
            text,
            starts_at: self.now,
            ends_at: Some(self.lapses_at),
            annotations,
        }
    }

    /// The annotations of the assessment's rules; of two with one name that of the worse signal's rule.
    fn rendered(&self, assessment: &Assessment, labels: &Labels) -> BTreeMap<String, String> {
        let values = TemplateValues {
            labels: labels.clone(),
            probability: assessment.probability,
            eta: assessment.eta.q50.or(assessment.eta.q10),
        };
        let mut rendered = BTreeMap::new();
        let templates = assessment.signals.iter().filter_map(|signal| self.annotations.get(&signal.rule)).flatten();
        for (name, template) in templates {
            rendered.entry(name.clone()).or_insert_with(|| render(template, &values));
        }
        rendered
    }
}

fn labels_of(component: &ComponentId, assessment: Option<&Assessment>) -> Labels {
    let from_rule = assessment.into_iter().flat_map(|assessment| assessment.labels.iter());
    let own = component.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let name = component.to_string();
    // Later ones win: a component's own identity cannot be overwritten by a rule's labels.
    Labels::new(from_rule.chain(own).chain([("component", name.as_str()), ("kind", component.kind.as_str())]))
}

/// An action in a few words: `scale out deployment/shop/checkout: 3 → 5 replicas`.
fn action_text(action: &Action) -> String {
    let kind = word(&action.kind).replace('_', " ");
    format!("{kind} {}: {}", action.target.component, change_text(&action.change))
}

fn change_text(change: &Change) -> String {
    match change {
        Change::Replicas { from, to } => format!("{from} → {to} replicas"),
        Change::Resources { from, to } => {
            let part = |(name, to): (&String, &f64)| match from.get(name) {
                Some(from) => format!("{name} {from} → {to}"),
                None => format!("{name} {to}"),
            };
            to.iter().map(part).collect::<Vec<_>>().join(", ")
        }
        Change::Move { from_nodes } => format!("away from {}", from_nodes.join(", ")),
        Change::Shift { share } => format!("{} of its traffic elsewhere", percent(*share)),
        Change::Cordon => "nothing new on it".to_owned(),
        Change::Uncordon => "open for new work again".to_owned(),
    }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// The text with a full stop.
fn sentence(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() || text.ends_with(['.', '!', '?']) { text.to_owned() } else { format!("{text}.") }
}

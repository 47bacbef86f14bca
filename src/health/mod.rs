//! Forecasts × thresholds → what is thought of each component, ranked by expected loss.

mod alarm;
mod assess;
mod external;
mod impact;
mod outcomes;
mod peers;
mod score;
mod tally;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::forecast::{Eta, Foresight, ModelChoice, Side};
use crate::model::{ComponentId, Labels, Millis, Timestamp};
use crate::query::Query;

pub use alarm::{Alarm, AlarmChange, AlarmPolicy, Announced};
pub use assess::{AT_RISK_FROM, HealthTrack, RAPID_DECLINE_PER_HOUR, Subject, WATCH_ABOVE, assess, rank};
pub use external::{EXTERNAL_IMPACT, EXTERNAL_RULE, Prediction, predictions_among};
pub use impact::impacts;
pub use outcomes::{Calibrations, Outcomes, Said, SignalSaid, Told, UntoldOutcomes};
pub use peers::{Peer, PeerDistance, PeerSettings, PeerTrack, SIBLINGS_MIN, compare as compare_peers};
pub use score::{Bin, Episode, Failure, Moment, RELIABILITY_BINS, Reliability, Score, Terms, Verdict};
pub use tally::{Claims, DaySummary, Resolution, Tally};

/// A group of rules that are evaluated together, one after the other.
#[derive(Debug, Clone)]
pub struct RuleGroup {
    /// Its name, unique in its file.
    pub name: String,
    /// How often it is evaluated.
    pub interval: Millis,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

impl RuleGroup {
    /// Its recording rules, in order.
    pub fn records(&self) -> impl Iterator<Item = &RecordRule> {
        self.rules.iter().filter_map(|rule| match rule {
            Rule::Record(record) => Some(record),
            Rule::Predict(_) => None,
        })
    }
}

/// A rule of a group.
#[derive(Debug, Clone)]
pub enum Rule {
    /// Keeps an expression's result as a series.
    Record(RecordRule),
    /// Foresees breaches of signals per component.
    Predict(Box<PredictRule>),
}

/// A recording rule, as in Prometheus.
#[derive(Debug, Clone)]
pub struct RecordRule {
    /// The metric name of the result.
    pub record: String,
    /// The expression.
    pub expr: Query,
    /// Labels added to the result, by name; one without a value takes that label from it.
    pub labels: BTreeMap<String, String>,
}

/// A value that is the same for all components, or an expression that gives one to each.
#[derive(Debug, Clone)]
pub enum NumberOrQuery {
    /// The same for all.
    Number(f64),
    /// By component labels.
    Query(Query),
}

/// A rule that foresees.
#[derive(Debug, Clone)]
pub struct PredictRule {
    /// Its name, unique over all files.
    pub name: String,
    /// The kind of its components.
    pub kind: String,
    /// The labels that tell components apart.
    pub by: Vec<String>,
    /// Which labels name the target's namespace and name, where they are not `namespace` and the kind's own.
    pub target: Option<TargetLabels>,
    /// How much a failure hurts, 0..1.
    pub impact: NumberOrQuery,
    /// On what its components depend; impact flows along these edges.
    pub depends_on: Vec<DependsOn>,
    /// How far ahead it looks.
    pub horizon: Millis,
    /// What is forecast.
    pub signals: Vec<SignalRule>,
    /// Expressions whose value, for a component, changes when a new regime begins for its signals: a deploy's generation, a
    /// count of restarts.
    pub regimes: Vec<Query>,
    /// Health that falls by more than this in an hour declines rapidly; the global setting where absent.
    pub rapid_decline_per_hour: Option<f64>,
    /// Labels for notifications and filters.
    pub labels: Labels,
    /// Texts for people, templates over the component's labels.
    pub annotations: Vec<(String, String)>,
}

/// Which labels of a component name the object to act on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetLabels {
    /// The label that holds the namespace.
    pub namespace: Option<String>,
    /// The label that holds the name.
    pub name: String,
}

/// Edges from a rule's components to those they depend on: each element of the answer carries the labels of both ends.
#[derive(Debug, Clone)]
pub struct DependsOn {
    /// The kind at the far end.
    pub kind: String,
    /// The labels that identify the far end.
    pub by: Vec<String>,
    /// The expression.
    pub expr: Query,
}

/// A learned band around what a signal is expected to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Baseline {
    /// Season lengths.
    pub seasons: Vec<Millis>,
    /// How many robust deviations from the expected value are still normal.
    pub deviation: f64,
    /// Deviations smaller than this are always normal, in the signal's unit.
    pub min_abs: f64,
}

/// What more of makes a signal smaller.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScalesWith {
    /// More replicas.
    Replicas,
    /// More CPU for each replica.
    Cpu,
    /// More memory for each replica.
    Memory,
    /// A larger disk.
    Disk,
    /// Nothing that can be given.
    #[default]
    None,
}

/// One signal of a rule.
#[derive(Debug, Clone)]
pub struct SignalRule {
    /// Its name, unique in the rule.
    pub name: String,
    /// The expression.
    pub expr: Query,
    /// From which side it breaches.
    pub side: Side,
    /// The threshold.
    pub threshold: NumberOrQuery,
    /// Where it begins to be uncomfortable.
    pub warn: Option<NumberOrQuery>,
    /// It is never below this, in its own unit.
    pub floor: Option<f64>,
    /// It is never above this, in its own unit.
    pub ceiling: Option<f64>,
    /// How long beyond the threshold is a breach.
    pub lasting: Millis,
    /// Signals of one group are views of one cause: the worst counts. By default its own name.
    pub group: String,
    /// How bad a breach of it is, 0..1.
    pub weight: f64,
    /// A learned band, if the user asks for one.
    pub baseline: Option<Baseline>,
    /// When a component counts as unlike its siblings, if the user asks for it.
    pub peers: Option<PeerSettings>,
    /// The model.
    pub model: ModelChoice,
    /// What more of makes it smaller.
    pub scales_with: ScalesWith,
}

/// One signal of an assessment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SignalAssessment {
    /// The rule.
    pub rule: String,
    /// The signal.
    pub signal: String,
    /// The group.
    pub group: String,
    /// The weight, 0..1.
    pub weight: f64,
    /// From which side it breaches.
    pub side: Side,
    /// What more of makes it smaller.
    pub scales_with: ScalesWith,
    /// Weight × depth, 0..1.
    pub severity: f64,
    /// What is foreseen.
    pub foresight: Foresight,
    /// How far it is from the same signal of the rule's other components, where the rule asks for it.
    #[serde(default)]
    pub peers: Option<PeerDistance>,
}

/// How a component stands, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// In breach now.
    Failing,
    /// Likely to breach within the horizon.
    AtRisk,
    /// Worth an eye: probability above 0.2, rapidly declining, outside its interval, or unlike its siblings.
    Watch,
    /// Nothing to see.
    Steady,
    /// Too little history.
    Learning,
    /// No data.
    Unknown,
}

/// What is thought of one component at one cycle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assessment {
    /// The component.
    pub component: ComponentId,
    /// When.
    pub at: Timestamp,
    /// The longest horizon among its rules.
    pub horizon: Millis,
    /// In one word.
    pub standing: Standing,
    /// 1 − damage; absent when unknown or learning.
    pub health: Option<f64>,
    /// How fast health changes, per hour (Theil–Sen over 15 minutes).
    pub slope_per_hour: Option<f64>,
    /// Whether health falls faster than the rules allow.
    #[serde(default)]
    pub rapid_decline: bool,
    /// `P_c = 1 − Π_groups (1 − max P)`.
    pub probability: Option<f64>,
    /// The same from the lower bounds: what acting is decided on.
    pub probability_low: Option<f64>,
    /// The earliest over the signals that are at risk.
    pub eta: Eta,
    /// 0..1, with what depends on it.
    pub impact: f64,
    /// Damage × impact.
    pub expected_loss: f64,
    /// Its place in the ranking, from 1; 0 when unknown or learning.
    pub rank: usize,
    /// Its signals, worst first.
    pub signals: Vec<SignalAssessment>,
    /// Labels from the rules (team, …).
    pub labels: Labels,
    /// The namespace and name to act on, read from the labels.
    pub target_namespace: String,
    /// See `target_namespace`.
    pub target_name: String,
}

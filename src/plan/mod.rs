//! Assessments × capacity × policy × what was done → a plan. Pure: everything it depends on is in its arguments.
//!
//! ```text
//! assessments ─ policy (who, how far) ─ hysteresis ─ gates ─ limits (cool-down, budget, …) ─ ladder (size, time, room) ─ actions
//! ledger ─ verify (did it help?) ─ giveback (is it still needed?) ─ undo, extend, disown
//! ```
//!
//! [`plan`] is in `decide.rs`; read that first. The plan carries what the next one must know ([`Carry`]), and
//! [`Ledger::note`] takes over what it found out about earlier actions. The same input gives the same plan, byte for
//! byte, in whatever order its lists come.
//!
//! **Invariant:** every component that is at risk and gets no action is among [`Plan::declined`] with a typed reason.

mod capacity;
mod decide;
mod evict;
mod explore;
mod gates;
mod giveback;
mod ladder;
mod ledger;
mod limits;
mod policy;
mod room;
mod size;
mod verify;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::health::Assessment;
use crate::model::{ComponentId, Millis, Timestamp};

pub use capacity::{Capacity, Node, Workload};
pub use decide::plan;
pub use gates::{Anomaly, Breaker, Carry, Gates, Pause, PauseScope, Streak, Withheld};
pub use ledger::{ActuationTimes, Ledger, Outcome, PastAction};
pub use policy::{Budget, Constraints, EvictPolicy, Policy, Rung, Selector, Verify, Window};

/// How far forestall may go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Decide and write down, touch nothing.
    #[default]
    Observe,
    /// A person releases each action.
    Approve,
    /// Act.
    Act,
}

/// What an action does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionKind {
    /// More replicas.
    ScaleOut,
    /// More of a resource for each replica.
    ScaleUp,
    /// Somewhere else.
    Migrate,
    /// Less traffic.
    ShiftLoad,
    /// Nothing new on this node.
    Quarantine,
    /// Less of a lower-priority workload, to make room.
    Evict,
}

/// Amounts of resources by name (`cpu` in cores, `memory` and `disk` in bytes).
pub type Resources = BTreeMap<String, f64>;

/// The wanted end state of one action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// So many replicas.
    Replicas {
        /// Before.
        from: u32,
        /// After.
        to: u32,
    },
    /// So much of a resource for each replica.
    Resources {
        /// Before.
        from: Resources,
        /// After.
        to: Resources,
    },
    /// Away from these nodes.
    Move {
        /// Nodes to leave.
        from_nodes: Vec<String>,
    },
    /// This share of its traffic elsewhere.
    Shift {
        /// 0..1
        share: f64,
    },
    /// Nothing new on it.
    Cordon,
    /// New work on it again.
    Uncordon,
}

/// The object an action is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Target {
    /// The component.
    pub component: ComponentId,
    /// Its namespace; empty where it has none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Why an action was chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// Probability of the component's failure.
    pub probability: f64,
    /// Its earliest time to breach.
    pub eta: Option<Millis>,
    /// Its expected loss.
    pub expected_loss: f64,
    /// The signal that speaks loudest: `rule/signal`.
    pub signal: String,
    /// The 0.9 quantile of that signal's worst value within the horizon when it was decided, in the signal's unit:
    /// what the effect is measured against.
    #[serde(default)]
    pub peak: Option<f64>,
    /// In one sentence, with the arithmetic.
    pub sentence: String,
    /// The predictions of others that had a part in it: `source/id`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub predictions: Vec<String>,
}

/// One change, naming the wanted end state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// Unique and the same on every replica: from policy, component, kind, time.
    pub id: String,
    /// The policy.
    pub policy: String,
    /// Its rung of the ladder.
    pub rung: usize,
    /// What.
    pub kind: ActionKind,
    /// By which actuator.
    pub actuator: String,
    /// To what.
    pub target: Target,
    /// The wanted end state.
    pub change: Change,
    /// Why.
    pub why: Why,
    /// When it was decided.
    pub decided_at: Timestamp,
    /// When it is given back.
    pub expires_at: Option<Timestamp>,
    /// What gives it back; absent where nothing can.
    pub undo: Option<Change>,
    /// The action this one gives back.
    pub undoes: Option<String>,
    /// The action this one makes room for.
    pub makes_room_for: Option<String>,
    /// Whether it is only written down (observe mode).
    pub dry_run: bool,
}

/// Why something is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The probability has not been above the entry level for long enough.
    BelowEntry,
    /// P × efficacy × cost of missing is not above the cost of acting.
    NotWorthIt,
    /// There is no room.
    InsufficientCapacity,
    /// Nothing of lower priority to free.
    Priority,
    /// The policy has done enough for now.
    Budget,
    /// Too large a share of the group is under action already.
    BlastRadius,
    /// An action was just taken.
    Cooldown,
    /// Two actions had no effect.
    Latched,
    /// Outside the policy's windows.
    Window,
    /// One of the episodes that are left alone, so that it is known what comes of them.
    Holdout,
    /// A disruption budget forbids it.
    Pdb,
    /// The data is old.
    Stale,
    /// Too little history.
    Learning,
    /// forestall has just started.
    StartHold,
    /// No rung is fast enough.
    TooLate,
    /// A person paused it.
    Paused,
    /// Too much is at risk at once.
    Breaker,
    /// Another owner changed it.
    NotOwner,
    /// Another replica leads.
    NotLeader,
    /// The journal cannot be written.
    Journal,
    /// Observe mode.
    Observe,
    /// Waits for a person, or a person declined it, or nobody answered in time.
    Approval,
}

/// Something that is not done, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Declined {
    /// For whom.
    pub component: ComponentId,
    /// By which policy.
    pub policy: String,
    /// What would have been done.
    pub action: Option<ActionKind>,
    /// Why not.
    pub reason: Reason,
    /// In words with figures.
    pub detail: String,
    /// When it would be done.
    pub released_when: String,
}

/// An ordered list of actions, and everything that is not done with its reason. Immutable; `act` has no choices left.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// When.
    pub at: Timestamp,
    /// In the order in which they are carried out.
    pub actions: Vec<Action>,
    /// By rank.
    pub declined: Vec<Declined>,
    /// Actions that wait for a person (approve mode), those that make room before the one they make room for. Releasing
    /// the id of the latter releases all of them.
    #[serde(default)]
    pub waiting: Vec<Action>,
    /// What earlier actions turned out to have done.
    #[serde(default)]
    pub verdicts: Vec<Verdict>,
    /// Earlier actions that are kept for longer.
    #[serde(default)]
    pub extended: Vec<Extension>,
    /// Earlier actions that are no longer ours to undo: a person or another controller changed their target.
    #[serde(default)]
    pub disowned: Vec<String>,
    /// Policy → how much of what it may do is used, this plan included.
    #[serde(default)]
    pub usage: BTreeMap<String, Usage>,
    /// What the next plan must know of this one.
    pub carry: Carry,
}

/// How much of what a policy may do is used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Actions that count now in the tightest of the budgets in which every action counts.
    pub spent: usize,
    /// The most there may be of it: the larger of count and share.
    pub budget: usize,
    /// All budgets, in the policy's order.
    #[serde(default)]
    pub budgets: Vec<BudgetUse>,
    /// Components that are under action: sent, or sent and not judged yet.
    pub under_action: usize,
    /// The most there may be at once: 10 % of the policy's components, at least one.
    pub under_action_max: usize,
    /// How many components it is for.
    pub group: usize,
}

/// How much of one budget is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetUse {
    /// Its length of time.
    pub per: Millis,
    /// The kinds of actions that count in it; all where empty.
    pub actions: BTreeSet<ActionKind>,
    /// Actions that count in it now.
    pub spent: usize,
    /// The most there may be: the larger of count and share.
    pub limit: usize,
}

/// Whether an earlier action had an effect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The action.
    pub action_id: String,
    /// Whether the probability dropped as the policy expects.
    pub effective: bool,
    /// The share of the reckoned improvement of the signal's peak that came about, 0..2; absent where it has none.
    pub achieved: Option<f64>,
    /// In words with figures.
    pub detail: String,
}

/// An earlier action whose reason still stands when it expires.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Extension {
    /// The action.
    pub action_id: String,
    /// Its new expiry.
    pub until: Timestamp,
    /// In words with figures.
    pub detail: String,
}

/// Everything a plan depends on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlanInput {
    /// When.
    pub now: Timestamp,
    /// What is thought of each component, ranked.
    pub assessments: Vec<Assessment>,
    /// What is free.
    pub capacity: Capacity,
    /// What may be done.
    pub policies: Vec<Policy>,
    /// What has been done.
    pub ledger: Ledger,
    /// What the last plan handed on.
    pub carry: Carry,
    /// The gates.
    pub gates: Gates,
}

//! What must hold after a kill, by the journal that is found, by what the targets were told, and after forestall has gone
//! on for a while.

use std::collections::{BTreeMap, BTreeSet};

use forestall::audit::Journal;
use forestall::model::{Millis, Timestamp};
use forestall::plan::{Action, ActionKind, Ledger, Outcome};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::world::{BUDGET, COOLDOWN, World, is_at_most_once};

/// A row as it is exported.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) kind: String,
    pub(super) id: String,
    pub(super) hash: String,
    line: String,
}

/// A line without its body and input, which are long and mostly of no interest.
#[derive(Deserialize)]
struct Brief {
    kind: String,
    id: String,
    hash: String,
}

#[derive(Deserialize)]
struct WithBody<T> {
    body: T,
}

impl Row {
    fn body<T: DeserializeOwned>(&self) -> Result<T, String> {
        let read: Result<WithBody<T>, _> = serde_json::from_str(&self.line);
        read.map(|line| line.body).map_err(|error| format!("the {} of {}: {error}", self.kind, self.id))
    }
}

/// All rows of a journal whose chain holds.
pub(super) fn rows(journal: &Journal) -> Result<Vec<Row>, String> {
    let verified = journal.verify().map_err(|error| format!("the chain does not hold: {error}"))?;
    let mut lines = Vec::new();
    journal.export(&mut lines).map_err(|error| error.to_string())?;
    let lines = String::from_utf8(lines).map_err(|error| error.to_string())?;
    let row = |line: &str| {
        let brief: Brief = serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))?;
        Ok(Row { kind: brief.kind, id: brief.id, hash: brief.hash, line: line.to_owned() })
    };
    let rows = lines.lines().map(row).collect::<Result<Vec<Row>, String>>()?;
    if rows.last().is_some_and(|last| last.hash != verified.head) {
        return Err("the export ends elsewhere than the chain".to_owned());
    }
    Ok(rows)
}

/// The ids of the actions whose intent is written.
pub(super) fn intents(rows: &[Row]) -> BTreeSet<&str> {
    rows.iter().filter(|row| row.kind == "intent").map(|row| row.id.as_str()).collect()
}

/// What a row says came of an action.
#[derive(Debug, Clone, Deserialize)]
struct Came {
    outcome: Outcome,
}

/// The last outcome of each action.
fn outcomes(rows: &[Row]) -> Result<BTreeMap<&str, Outcome>, String> {
    let settled = rows.iter().filter(|row| row.kind == "outcome");
    settled.map(|row| Ok((row.id.as_str(), row.body::<Came>()?.outcome))).collect()
}

/// What is known of an action, as the rows have it.
#[derive(Debug, Clone, Default, PartialEq)]
struct Known {
    outcome: Option<Outcome>,
    undone_by: Option<String>,
    effective: Option<bool>,
    expires_at: Option<Timestamp>,
    disowned: bool,
}

/// Whether the ledger says what the rows say.
pub(super) fn ledger_is_the_fold_of_rows(ledger: &Ledger, rows: &[Row]) -> Result<(), String> {
    let mut wanted: BTreeMap<String, Known> = BTreeMap::new();
    let mut undoes: BTreeMap<String, String> = BTreeMap::new();
    for row in rows {
        match row.kind.as_str() {
            "intent" => {
                let action: Action = row.body()?;
                if let Some(original) = action.undoes.filter(|_| !action.dry_run) {
                    undoes.insert(action.id.clone(), original);
                }
                wanted.entry(action.id).or_insert(Known { expires_at: action.expires_at, ..Known::default() });
            }
            "outcome" => {
                let outcome = row.body::<Came>()?.outcome;
                wanted.entry(row.id.clone()).or_default().outcome = Some(outcome);
                let gave_back = matches!(outcome, Outcome::Confirmed | Outcome::Applied | Outcome::Unchanged);
                if let Some(original) = undoes.get(&row.id).filter(|_| gave_back) {
                    wanted.entry(original.clone()).or_default().undone_by = Some(row.id.clone());
                }
            }
            "verdict" => {
                #[derive(Deserialize)]
                struct Verdict {
                    effective: bool,
                }
                wanted.entry(row.id.clone()).or_default().effective = Some(row.body::<Verdict>()?.effective);
            }
            "extension" => {
                #[derive(Deserialize)]
                struct Extension {
                    until: Timestamp,
                }
                wanted.entry(row.id.clone()).or_default().expires_at = Some(row.body::<Extension>()?.until);
            }
            "disowned" => wanted.entry(row.id.clone()).or_default().disowned = true,
            _ => {}
        }
    }
    let found = ledger.actions.iter().map(|past| {
        let known = Known {
            outcome: past.outcome,
            undone_by: past.undone_by.clone(),
            effective: past.effective,
            expires_at: past.action.expires_at,
            disowned: past.disowned,
        };
        (past.action.id.clone(), known)
    });
    let found: BTreeMap<String, Known> = found.collect();
    if found == wanted { Ok(()) } else { Err(format!("the ledger is {found:?}, and the rows say {wanted:?}")) }
}

/// Targets that do a thing again when told again were told once.
pub(super) fn told_once_where_once_is_the_most(world: &World) -> Result<(), String> {
    let mut told = BTreeSet::new();
    for (action, at) in world.sent() {
        if is_at_most_once(&action.actuator) && !told.insert(action.id.clone()) {
            return Err(format!("{} was told {} a second time at {at}", action.actuator, action.id));
        }
    }
    Ok(())
}

/// Each action that was sent, once, in order.
fn sent_actions(world: &World) -> Vec<Action> {
    let mut known = BTreeSet::new();
    let first = |(action, _): (std::sync::Arc<Action>, Timestamp)| {
        known.insert(action.id.clone()).then(|| Action::clone(&action))
    };
    world.sent().into_iter().filter_map(first).collect()
}

/// What was sent keeps to cool-downs and budgets, whatever was killed in between.
pub(super) fn limits_hold(world: &World) -> Result<(), String> {
    let acts: Vec<Action> = sent_actions(world).into_iter().filter(|action| action.undoes.is_none()).collect();
    for (index, action) in acts.iter().enumerate() {
        let before = &acts[..index];
        let too_soon = before.iter().find(|other| {
            other.target == action.target
                && other.kind == action.kind
                && action.kind != ActionKind::Evict
                && action.decided_at - other.decided_at < COOLDOWN
        });
        if let Some(other) = too_soon {
            return Err(format!("{} is within the cool-down of {}: {}", action.id, other.id, action.target.component));
        }
        let spent = count_in_budget(before, &action.policy, action.decided_at);
        if spent >= usize::try_from(BUDGET).expect("a small number") {
            return Err(format!("{} is over the budget of {}: {spent} were sent before it", action.id, action.policy));
        }
    }
    Ok(())
}

fn count_in_budget(acts: &[Action], policy: &str, now: Timestamp) -> usize {
    acts.iter().filter(|other| other.policy == policy && other.decided_at > now - Millis::HOUR).count()
}

/// How much of each policy's budget was spent at `now`, by what the targets were told.
pub(super) fn spent(world: &World, now: Timestamp) -> BTreeMap<String, usize> {
    let acts: Vec<Action> = sent_actions(world).into_iter().filter(|action| action.undoes.is_none()).collect();
    let policies: BTreeSet<String> = acts.iter().map(|action| action.policy.clone()).collect();
    policies.into_iter().map(|policy| (policy.clone(), count_in_budget(&acts, &policy, now))).collect()
}

/// Every workload has again what it had at first, but for what nobody could know: that a target that cannot be asked did not
/// do what it said it would. And but for what a person changed.
pub(super) fn all_is_given_back(
    world: &World,
    rows: &[Row],
    changed_by_others: &BTreeSet<String>,
) -> Result<(), String> {
    let (done, outcomes) = (world.done(), outcomes(rows)?);
    let mut excused = changed_by_others.clone();
    for row in rows.iter().filter(|row| row.kind == "intent") {
        let action: Action = row.body()?;
        let outcome = outcomes.get(action.id.as_str());
        if outcome == Some(&Outcome::Failed) && done.contains(&action.id) {
            return Err(format!("{} counts as failed, and it was done", action.id));
        }
        if outcome == Some(&Outcome::Applied) && !done.contains(&action.id) {
            excused.insert(action.target.component.to_string());
        }
    }
    for (component, replicas) in super::world::at_first().filter(|(component, _)| !excused.contains(*component)) {
        let has = world.replicas(component);
        if has != replicas {
            return Err(format!("{component} has {has} replicas at the end, and had {replicas} at first"));
        }
    }
    Ok(())
}

//! Decisions looked up: listed by filter, one whole, or made again from the same input.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{OptionalExtension, named_params};
use serde::{Deserialize, Serialize};

use super::chain::read_input;
use super::journal::{COLUMNS, Journal, JournalError, Row, Settled, read_error, to_json, word};
use super::segments::Part;
use crate::act::Attempt;
use crate::model::{ComponentId, Timestamp};
use crate::plan::{self, ActionKind, Change, Outcome, Plan, PlanInput, Reason, Verdict};

/// No list is longer than this.
pub const DECISIONS_MAX: usize = 1000;

/// How long a list is where nobody says.
pub const DECISIONS_DEFAULT: usize = 100;

/// Which decisions are wanted, newest first; what is absent does not filter.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    /// With an action or a refusal for this component, as `deployment/shop/checkout`.
    pub component: Option<String>,
    /// With an action of this outcome (and of this component, where both are given).
    pub outcome: Option<Outcome>,
    /// With something not done for this reason (and of this component, where both are given).
    pub reason: Option<Reason>,
    /// Not before this.
    pub since: Option<Timestamp>,
    /// Not after this.
    pub until: Option<Timestamp>,
    /// Older than the decision with this [`DecisionSummary::seq`]: for the next page.
    pub before: Option<i64>,
    /// At most so many (100 where absent, 1000 at most).
    pub limit: Option<usize>,
}

/// One line of a list of decisions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecisionSummary {
    /// Its row.
    pub seq: i64,
    /// Its id.
    pub id: String,
    /// When.
    pub at: Timestamp,
    /// What was done.
    pub actions: Vec<ActionSummary>,
    /// What was not, by rank.
    pub declined: Vec<DeclinedSummary>,
}

/// An action in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActionSummary {
    /// Its id.
    pub id: String,
    /// For whom.
    pub component: String,
    /// What.
    pub kind: ActionKind,
    /// The wanted end state.
    pub change: Change,
    /// The action this one gives back.
    pub undoes: Option<String>,
    /// Why, in one sentence.
    pub why: String,
    /// What came of it; absent while it is under way.
    pub outcome: Option<Outcome>,
}

/// Something not done, in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeclinedSummary {
    /// For whom.
    pub component: String,
    /// What would have been done.
    pub action: Option<ActionKind>,
    /// Why not.
    pub reason: Reason,
}

/// A decision with everything that is known of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DecisionRecord {
    /// Its row.
    pub seq: i64,
    /// Its id.
    pub id: String,
    /// When.
    pub at: Timestamp,
    /// What was decided.
    pub plan: Plan,
    /// From what, without the forecasts' fans; absent when it is no longer kept.
    pub input: Option<PlanInput>,
    /// Action → its attempts, in order.
    pub attempts: BTreeMap<String, Vec<Attempt>>,
    /// Action → what came of it, as far as it is known.
    pub outcomes: BTreeMap<String, Settled>,
    /// Action → whether it helped, where that has been judged.
    pub verdicts: BTreeMap<String, Verdict>,
}

/// A decision made again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Replay {
    /// Whether it came out the same, byte for byte.
    pub same: bool,
    /// The plan as it was kept, in JSON.
    pub recorded: String,
    /// The plan as it comes out now, in JSON.
    pub replayed: String,
}

#[derive(Deserialize)]
struct DecisionBody {
    plan: Plan,
}

impl Journal {
    /// Decisions that pass a filter, newest first.
    ///
    /// # Errors
    /// Where the journal cannot be read.
    pub fn decisions(&self, filter: &Filter) -> Result<Vec<DecisionSummary>, JournalError> {
        let limit = filter.limit.unwrap_or(DECISIONS_DEFAULT).min(DECISIONS_MAX);
        let parts = self.parts()?;
        let mut found = Vec::new();
        for (place, part) in parts.iter().enumerate().rev() {
            let mut before = filter.before;
            while found.len() < limit {
                let rows = self.decision_rows(part, filter, before, limit - found.len())?;
                let Some(last) = rows.last() else { break };
                before = Some(last.seq);
                for row in &rows {
                    let summary = self.summarize(row, &parts[place..])?;
                    // An outcome may stand in a later file than its decision, which the index of this one cannot know.
                    if summary.came_to(filter) {
                        found.push(summary);
                    }
                }
            }
        }
        Ok(found)
    }

    fn decision_rows(
        &self,
        part: &Part,
        filter: &Filter,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<Row>, JournalError> {
        let entry =
            "SELECT 1 FROM entries e WHERE e.decision = j.seq AND (:component IS NULL OR e.component = :component)";
        let outcome = match part {
            Part::Live => "e.outcome = :outcome",
            Part::Closed { .. } => "(e.outcome = :outcome OR (e.outcome IS NULL AND e.action_id IS NOT NULL))",
        };
        let sql = format!(
            "SELECT {COLUMNS} FROM journal j
             WHERE kind = 'decision' AND (:since IS NULL OR at >= :since) AND (:until IS NULL OR at <= :until)
               AND (:before IS NULL OR seq < :before)
               AND (:component IS NULL OR EXISTS ({entry}))
               AND (:outcome IS NULL OR EXISTS ({entry} AND {outcome}))
               AND (:reason IS NULL OR EXISTS ({entry} AND e.reason = :reason))
             ORDER BY seq DESC LIMIT :limit"
        );
        self.read_part(part, |connection| {
            let mut statement = connection.prepare_cached(&sql).map_err(read_error)?;
            let wanted = named_params! {
                ":since": filter.since.map(|at| at.0),
                ":until": filter.until.map(|at| at.0),
                ":before": before,
                ":component": filter.component,
                ":outcome": filter.outcome.map(|outcome| word(&outcome)),
                ":reason": filter.reason.map(|reason| word(&reason)),
                ":limit": i64::try_from(limit).unwrap_or(i64::MAX),
            };
            let rows = statement.query_map(wanted, Row::read).map_err(read_error)?;
            rows.collect::<Result<Vec<_>, _>>().map_err(read_error)
        })
    }

    /// A decision's row, with what came of it as these files know: its own and the later ones.
    fn summarize(&self, row: &Row, parts: &[Part]) -> Result<DecisionSummary, JournalError> {
        let DecisionBody { plan } = row.parse()?;
        let mut actions = Vec::with_capacity(plan.actions.len());
        for action in plan.actions {
            let outcome = self.rows_of(parts, &action.id, "outcome")?.last().map(Row::parse::<Settled>).transpose()?;
            actions.push(ActionSummary {
                component: action.target.component.to_string(),
                kind: action.kind,
                change: action.change,
                undoes: action.undoes,
                why: action.why.sentence,
                outcome: outcome.map(|settled| settled.outcome),
                id: action.id,
            });
        }
        let declined = plan
            .declined
            .iter()
            .map(|declined| DeclinedSummary {
                component: declined.component.to_string(),
                action: declined.action,
                reason: declined.reason,
            })
            .collect();
        Ok(DecisionSummary { seq: row.seq, id: row.id.clone(), at: row.at, actions, declined })
    }

    /// One decision, with its input, attempts and outcomes; nothing where there is none of this id.
    ///
    /// # Errors
    /// Where the journal cannot be read.
    pub fn decision(&self, id: &str) -> Result<Option<DecisionRecord>, JournalError> {
        let parts = self.parts()?;
        let Some((place, row)) = self.decision_row(&parts, id)? else { return Ok(None) };
        let DecisionBody { plan } = row.parse()?;
        let input = self.read_part(&parts[place], |connection| read_input(connection, row.seq))?;
        let input = input.map(|text| parse_input(&text, row.seq)).transpose()?;
        let mut record = DecisionRecord {
            seq: row.seq,
            id: row.id,
            at: row.at,
            plan,
            input,
            attempts: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            verdicts: BTreeMap::new(),
        };
        let later = &parts[place..];
        for action in &record.plan.actions {
            let id = &action.id;
            let tried = self.rows_of(later, id, "attempt")?.iter().map(Row::parse).collect::<Result<Vec<_>, _>>()?;
            if !tried.is_empty() {
                record.attempts.insert(id.clone(), tried);
            }
            if let Some(settled) = self.rows_of(later, id, "outcome")?.last() {
                record.outcomes.insert(id.clone(), settled.parse()?);
            }
            if let Some(verdict) = self.rows_of(later, id, "verdict")?.last() {
                record.verdicts.insert(id.clone(), verdict.parse()?);
            }
        }
        Ok(Some(record))
    }

    /// Plans again from a decision's input, and compares.
    ///
    /// # Errors
    /// Where there is no such decision or its input is no longer kept.
    pub fn replay(&self, id: &str) -> Result<Replay, JournalError> {
        let parts = self.parts()?;
        let (place, row) = self.decision_row(&parts, id)?.ok_or_else(|| JournalError::NoDecision(id.to_owned()))?;
        let input = self.read_part(&parts[place], |connection| read_input(connection, row.seq))?;
        let input = input.ok_or_else(|| JournalError::InputGone(id.to_owned()))?;
        // The body is `{"plan":…}`, as `record_decision` wrote it.
        let recorded =
            row.body.strip_prefix(r#"{"plan":"#).and_then(|rest| rest.strip_suffix('}')).unwrap_or(&row.body);
        let replayed = to_json(&plan::plan(&parse_input(&input, row.seq)?))?;
        Ok(Replay { same: recorded == replayed, recorded: recorded.to_owned(), replayed })
    }

    /// The first decision of this id, and which of the files has it: the newest are looked through first.
    fn decision_row(&self, parts: &[Part], id: &str) -> Result<Option<(usize, Row)>, JournalError> {
        let sql = format!("SELECT {COLUMNS} FROM journal WHERE kind = 'decision' AND id = ? ORDER BY seq LIMIT 1");
        for (place, part) in parts.iter().enumerate().rev() {
            let found = self.read_part(part, |connection| {
                connection.query_row(&sql, [id], Row::read).optional().map_err(read_error)
            })?;
            if let Some(row) = found {
                return Ok(Some((place, row)));
            }
        }
        Ok(None)
    }

    /// The rows of a kind about something, from these files.
    pub(super) fn rows_of(&self, parts: &[Part], id: &str, kind: &str) -> Result<Vec<Row>, JournalError> {
        let sql = format!("SELECT {COLUMNS} FROM journal WHERE id = ? AND kind = ? ORDER BY seq LIMIT 1000");
        let mut found = Vec::new();
        for part in parts {
            found.extend(self.read_part(part, |connection| {
                let mut statement = connection.prepare_cached(&sql).map_err(read_error)?;
                let rows = statement.query_map([id, kind], Row::read).map_err(read_error)?;
                rows.collect::<Result<Vec<_>, _>>().map_err(read_error)
            })?);
        }
        Ok(found)
    }
}

impl DecisionSummary {
    /// Whether an action of it has the outcome that is wanted, of the component that is wanted.
    fn came_to(&self, filter: &Filter) -> bool {
        let meant = |action: &&ActionSummary| filter.component.as_ref().is_none_or(|name| *name == action.component);
        let wanted = |outcome| self.actions.iter().filter(meant).any(|action| action.outcome == Some(outcome));
        filter.outcome.is_none_or(wanted)
    }
}

fn parse_input(text: &str, seq: i64) -> Result<PlanInput, JournalError> {
    serde_json::from_str(text)
        .map_err(|error| JournalError::Broken { seq, reason: format!("its input cannot be read: {error}") })
}

/// Whether a plan says something that the last one did not: it acts, it found something out about earlier actions, or
/// what it declines, holds for a person or hands on over a restart has changed.
pub fn worth_keeping(last: Option<&Plan>, plan: &Plan) -> bool {
    let found_out = !plan.verdicts.is_empty() || !plan.extended.is_empty() || !plan.disowned.is_empty();
    let changed = || standing(plan) != last.map(standing).unwrap_or_default();
    !plan.actions.is_empty() || found_out || changed() || lasting(plan) != last.map(lasting).unwrap_or_default()
}

/// Breakers, and whether a person released them; released latches; offers that came to nothing.
fn lasting(plan: &Plan) -> (BTreeMap<&str, bool>, BTreeMap<&str, Timestamp>, BTreeSet<&str>) {
    let breakers = plan.carry.breakers.iter().map(|(kind, breaker)| (kind.as_str(), breaker.released));
    let unlatched = plan.carry.unlatched.iter().map(|(component, at)| (component.as_str(), *at));
    let withheld = plan.carry.withheld.values().map(|withheld| withheld.id.as_str());
    (breakers.collect(), unlatched.collect(), withheld.collect())
}

/// What is declined, and what waits. The id of an action that waits has the time in it, so it does not count; nor does
/// what is only not likely enough yet, which comes and goes.
fn standing(plan: &Plan) -> BTreeSet<(&ComponentId, Option<Reason>, Option<ActionKind>)> {
    let declined = plan.declined.iter().filter(|declined| declined.reason != Reason::BelowEntry);
    let declined = declined.map(|declined| (&declined.component, Some(declined.reason), None));
    let waiting = plan.waiting.iter().map(|action| (&action.target.component, None, Some(action.kind)));
    declined.chain(waiting).collect()
}

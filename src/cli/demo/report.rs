//! What forestall was worth: the failures of the twin held against those of the world that it acted on.
//!
//! - A failure of the twin counts as **prevented** if the world's service did not fail within six hours of it, before
//!   or after: a failure that is only put off is not prevented.
//! - An action is **false** if its service does not fail in the twin within 1.5 horizons after it, and is not failing
//!   when it is taken, here or there. Undoing and evicting are not judged: they follow from other actions.
//! - The **lead** of a failure is the time from the first action that was taken against it until the twin fails.

use serde::Serialize;

use crate::model::{Millis, Timestamp};
use crate::plan::{ActionKind, Change, Outcome, PastAction};

use super::world::{FLEET, Failure, SIGNALS};

/// A failure of the world this close to one of the twin is the same failure.
const SAME_FAILURE: Millis = Millis(6 * Millis::HOUR.0);

/// Everything the report is made from.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The seed of both worlds.
    pub seed: u64,
    /// When both began.
    pub start: Timestamp,
    /// Failures of the world that nobody acted on.
    pub twin: &'a [Failure],
    /// Failures of the world that forestall acted on.
    pub world: &'a [Failure],
    /// What forestall did, oldest first.
    pub actions: &'a [PastAction],
    /// Services (`namespace/name`) that were declined for want of capacity, each time they were, in any order.
    pub insufficient: &'a [(String, Timestamp)],
    /// Replicas that evictions took, times the minutes they were missing.
    pub evicted_replica_minutes: u64,
}

/// The outcome of a demo; serialised, it is what `--json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Services in the fleet.
    pub services: usize,
    /// Failures of the twin that could be prevented.
    pub preventable: usize,
    /// Failures of the twin.
    pub failures_without: usize,
    /// Failures of the world that forestall acted on.
    pub failures_with: usize,
    /// Preventable failures that did not happen.
    pub prevented: usize,
    /// Median time from the first action until the twin failed, over what was prevented, in seconds.
    pub lead_seconds_median: Option<i64>,
    /// Actions that were carried out, without evictions and undoings.
    pub actions: usize,
    /// Evictions that were carried out.
    pub evictions: usize,
    /// Failures of the twin for which there was no capacity.
    pub insufficient: usize,
    /// Actions that nothing called for.
    pub false_actions: usize,
    /// Actions that were given back.
    pub undone: usize,
    /// Actions, evictions and undoings that did not work.
    pub actions_failed: usize,
    /// Failures that the twin does not have.
    pub failures_caused: usize,
    /// Replicas that evictions took, times the minutes they were missing.
    pub evicted_replica_minutes: u64,
    /// One for each failure of the twin, by time, then those that only the world has.
    pub failures: Vec<Row>,
    /// The false actions, by time.
    pub false_action_rows: Vec<FalseAction>,
}

/// What became of one failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// `namespace/name`.
    pub service: String,
    /// How the service behaves.
    pub class: &'static str,
    /// The signal that breached first.
    pub signal: &'static str,
    /// When it began, in seconds after the start.
    pub began_seconds: i64,
    /// From the first action until then, in seconds; absent where nothing was done in time.
    pub lead_seconds: Option<i64>,
    /// The first action, in words.
    pub action: Option<String>,
    /// Evictions that made room for it.
    pub evictions: usize,
    /// What became of it.
    pub result: Verdict,
}

/// What became of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It did not happen.
    Prevented,
    /// It could have been prevented, and was not.
    Missed,
    /// It happened: there was no capacity, and nothing that matters less.
    Insufficient,
    /// It happened without any sign before.
    Sudden,
    /// The twin does not have it.
    Caused,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Verdict::Prevented => "prevented",
            Verdict::Missed => "FAILED",
            Verdict::Insufficient => "no capacity",
            Verdict::Sudden => "no precursor",
            Verdict::Caused => "CAUSED",
        }
    }
}

/// An action that nothing called for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FalseAction {
    /// `namespace/name`.
    pub service: String,
    /// How the service behaves.
    pub class: &'static str,
    /// When it was decided, in seconds after the start.
    pub at_seconds: i64,
    /// What was done, in words.
    pub action: String,
    /// The signal that was to be helped: `rule/signal`.
    pub signal: String,
}

impl Report {
    /// Holds the two worlds against each other.
    pub fn new(evidence: &Evidence<'_>) -> Report {
        let mut twin: Vec<&Failure> = evidence.twin.iter().collect();
        twin.sort_by(|a, b| a.began.cmp(&b.began).then(a.service.cmp(&b.service)));
        let mut rows: Vec<Row> = twin.iter().map(|failure| row(evidence, failure)).collect();
        let caused = |failure: &&Failure| !evidence.twin.iter().any(|other| is_same(failure, other));
        rows.extend(
            evidence
                .world
                .iter()
                .filter(caused)
                .map(|failure| Row { result: Verdict::Caused, ..row(evidence, failure) }),
        );
        let preventable = |(failure, row): &(&&Failure, &Row)| failure.preventable && row.result == Verdict::Prevented;
        let prevented: Vec<&Row> = twin.iter().zip(&rows).filter(preventable).map(|(_, row)| row).collect();
        let mut leads: Vec<i64> = prevented.iter().filter_map(|row| row.lead_seconds).collect();
        let count = |verdict: Verdict| rows.iter().filter(|row| row.result == verdict).count();
        let done = |wanted: fn(&PastAction) -> bool| {
            evidence.actions.iter().filter(|past| was_carried_out(past) && wanted(past)).count()
        };
        let failed =
            |past: &&PastAction| matches!(past.outcome, Some(Outcome::Failed | Outcome::Expired | Outcome::Cancelled));
        let false_action_rows = false_actions(evidence);
        Report {
            seed: evidence.seed,
            services: FLEET.len(),
            preventable: twin.iter().filter(|failure| failure.preventable).count(),
            failures_without: twin.len(),
            failures_with: evidence.world.len(),
            prevented: prevented.len(),
            lead_seconds_median: median(&mut leads),
            actions: done(is_judged),
            evictions: done(|past| past.action.kind == ActionKind::Evict && past.action.undoes.is_none()),
            insufficient: count(Verdict::Insufficient),
            false_actions: false_action_rows.len(),
            undone: done(|past| past.action.undoes.is_some()),
            actions_failed: evidence.actions.iter().filter(failed).count(),
            failures_caused: count(Verdict::Caused),
            evicted_replica_minutes: evidence.evicted_replica_minutes,
            failures: rows,
            false_action_rows,
        }
    }

    /// The table for a terminal: fixed widths, under 100 columns.
    pub fn table(&self) -> String {
        let mut lines = vec![line(["SERVICE", "CLASS", "WHEN", "LEAD", "ACTION", "RESULT"])];
        for row in &self.failures {
            let evicting = if row.evictions > 0 { format!(", {} evicted", row.evictions) } else { String::new() };
            let action = row.action.as_ref().map_or("-".to_owned(), |action| format!("{action}{evicting}"));
            let lead = row.lead_seconds.map_or("-".to_owned(), hours_minutes);
            let when = day_time(row.began_seconds);
            lines.push(line([&row.service, row.class, &when, &lead, &action, row.result.name()]));
        }
        for row in &self.false_action_rows {
            let when = day_time(row.at_seconds);
            lines.push(line([&row.service, row.class, &when, "-", &row.action, "false action"]));
        }
        lines.push(String::new());
        lines.extend(self.summary());
        lines.join("\n") + "\n"
    }

    fn summary(&self) -> Vec<String> {
        let share = (100 * self.prevented).checked_div(self.preventable).unwrap_or(100);
        let lead = self.lead_seconds_median.map_or("-".to_owned(), hours_minutes);
        let fact = |name: &str, text: String| format!("{name:<26}{text}");
        vec![
            fact("seed, services", format!("{}, {}", self.seed, self.services)),
            fact("failures without / with", format!("{} / {}", self.failures_without, self.failures_with)),
            fact("prevented", format!("{} of {} preventable ({share} %)", self.prevented, self.preventable)),
            fact("median lead", lead),
            fact(
                "actions",
                format!("{} carried out, {} given back, {} failed", self.actions, self.undone, self.actions_failed),
            ),
            fact("evictions", format!("{} ({} replica minutes taken)", self.evictions, self.evicted_replica_minutes)),
            fact("insufficient capacity", self.insufficient.to_string()),
            fact("false actions", self.false_actions.to_string()),
            fact("failures caused", self.failures_caused.to_string()),
        ]
    }
}

/// What became of a failure of the twin.
fn row(evidence: &Evidence<'_>, failure: &Failure) -> Row {
    let since = failure.began - within(failure.signal);
    let until = failure.ended.unwrap_or(Timestamp(i64::MAX));
    let against = |past: &&PastAction| {
        let at = past.action.decided_at;
        service_of(past) == failure.service && was_carried_out(past) && is_judged(past) && since <= at && at <= until
    };
    let actions: Vec<&PastAction> = evidence.actions.iter().filter(against).collect();
    let makes_room = |past: &&PastAction| {
        let serves = |id: &String| actions.iter().any(|other| other.action.id == *id);
        was_carried_out(past) && past.action.undoes.is_none() && past.action.makes_room_for.as_ref().is_some_and(serves)
    };
    let first = actions.iter().min_by_key(|past| past.action.decided_at);
    let lead_seconds = first.map(|past| (failure.began - past.action.decided_at).0 / 1000).filter(|&lead| lead > 0);
    let declined = |(service, at): &(String, Timestamp)| *service == failure.service && since <= *at && *at <= until;
    let result = if !evidence.world.iter().any(|other| is_same(other, failure)) {
        Verdict::Prevented
    } else if evidence.insufficient.iter().any(declined) {
        Verdict::Insufficient
    } else if failure.class.has_precursor() {
        Verdict::Missed
    } else {
        Verdict::Sudden
    };
    Row {
        service: failure.service.clone(),
        class: failure.class.name(),
        signal: failure.signal,
        began_seconds: (failure.began - evidence.start).0 / 1000,
        lead_seconds,
        action: first.map(|past| in_words(past)),
        evictions: evidence.actions.iter().filter(makes_room).count(),
        result,
    }
}

fn false_actions(evidence: &Evidence<'_>) -> Vec<FalseAction> {
    let mut rows: Vec<FalseAction> = Vec::new();
    for past in evidence.actions.iter().filter(|past| was_carried_out(past) && is_judged(past)) {
        let (service, at) = (service_of(past), past.action.decided_at);
        let spec = FLEET.iter().find(|spec| spec.service() == service);
        let reach = at + within(past.action.why.signal.rsplit('/').next().unwrap_or(""));
        let lasts = |failure: &Failure| failure.service == service && failure.ended.is_none_or(|ended| at <= ended);
        let called_for = evidence.twin.iter().any(|failure| lasts(failure) && failure.began <= reach)
            || evidence.world.iter().any(|failure| lasts(failure) && failure.began <= at);
        if !called_for {
            rows.push(FalseAction {
                service,
                class: spec.map_or("", |spec| spec.class.name()),
                at_seconds: (at - evidence.start).0 / 1000,
                action: in_words(past),
                signal: past.action.why.signal.clone(),
            });
        }
    }
    rows.sort_by(|a, b| a.at_seconds.cmp(&b.at_seconds).then(a.service.cmp(&b.service)));
    rows
}

/// Whether two failures of the two worlds are one.
fn is_same(one: &Failure, other: &Failure) -> bool {
    let begins_before_end = |a: &Failure, b: &Failure| b.ended.is_none_or(|ended| a.began <= ended + SAME_FAILURE);
    one.service == other.service && begins_before_end(one, other) && begins_before_end(other, one)
}

/// Half as far again as a signal's rule looks ahead; as the longest one does where the signal is not known.
fn within(signal: &str) -> Millis {
    let longest = SIGNALS.iter().map(|s| s.horizon).max().expect("there are signals");
    let horizon = SIGNALS.iter().find(|s| s.name == signal).map_or(longest, |s| s.horizon);
    horizon * 3 / 2
}

fn service_of(past: &PastAction) -> String {
    format!("{}/{}", past.action.target.namespace, past.action.target.name)
}

/// Neither an undoing nor an eviction: those follow from other actions.
fn is_judged(past: &PastAction) -> bool {
    past.action.undoes.is_none() && past.action.kind != ActionKind::Evict
}

/// Whether it was sent and did not fail; one without an outcome is under way.
fn was_carried_out(past: &PastAction) -> bool {
    let failed =
        matches!(past.outcome, Some(Outcome::Failed | Outcome::Expired | Outcome::Cancelled | Outcome::DryRun));
    !failed && !past.action.dry_run
}

fn in_words(past: &PastAction) -> String {
    match &past.action.change {
        Change::Replicas { from, to } => format!("scale out {from} to {to}"),
        Change::Resources { from, to } => {
            let grown = to.iter().find(|(name, amount)| from.get(*name).is_none_or(|before| before < amount));
            let times = |(name, amount): (&String, &f64)| {
                from.get(name).map_or(name.clone(), |before| format!("{name} x{:.1}", amount / before))
            };
            format!("scale up {}", grown.map_or("nothing".to_owned(), times))
        }
        Change::Move { from_nodes } => format!("migrate off {}", from_nodes.join(", ")),
        Change::Shift { share } => format!("shift {:.0} % of load", share * 100.0),
        Change::Cordon => "quarantine".to_owned(),
        Change::Uncordon => "uncordon".to_owned(),
    }
}

fn median(values: &mut [i64]) -> Option<i64> {
    values.sort_unstable();
    let (upper, lower) = (values.len() / 2, values.len().saturating_sub(1) / 2);
    (!values.is_empty()).then(|| i64::midpoint(values[lower], values[upper]))
}

/// One line of the table; a text too long for its column is cut.
fn line(texts: [&str; 6]) -> String {
    const WIDTHS: [usize; 6] = [21, 14, 12, 8, 29, 12];
    let mut line = String::new();
    for (text, width) in texts.into_iter().zip(WIDTHS) {
        let shown: String = if text.chars().count() > width {
            text.chars().take(width - 1).chain(['…']).collect()
        } else {
            text.to_owned()
        };
        line.push_str(&format!("{shown:<width$} "));
    }
    line.trim_end().to_owned()
}

/// `day 5 14:03`, counting days from 1.
fn day_time(seconds: i64) -> String {
    let minutes = seconds / 60;
    format!("day {} {:02}:{:02}", minutes / 1440 + 1, minutes / 60 % 24, minutes % 60)
}

fn hours_minutes(seconds: i64) -> String {
    format!("{}h {:02}m", seconds / 3600, seconds / 60 % 60)
}

#[cfg(test)]
mod tests;

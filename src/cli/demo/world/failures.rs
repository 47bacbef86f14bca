//! What counts as a failure: a signal beyond its threshold for at least its `for`, as in the demo's rules.

use crate::model::{Millis, Timestamp};

use super::fleet::{Class, Spec};
use super::service::Levels;

/// One signal of the demo's rules.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Signal {
    /// Its name in the rules.
    pub name: &'static str,
    /// It breaches above this, in the unit of its expression.
    pub threshold: f64,
    /// Minutes beyond the threshold that make a breach.
    pub lasting_minutes: i64,
    /// How far its rule looks ahead.
    pub horizon: Millis,
}

/// All signals of deployments; a test holds them against the rule file.
pub const SIGNALS: [Signal; 5] = [
    Signal { name: "cpu", threshold: 0.9, lasting_minutes: 5, horizon: Millis(6 * Millis::HOUR.0) },
    Signal { name: "memory", threshold: 0.95, lasting_minutes: 5, horizon: Millis(6 * Millis::HOUR.0) },
    Signal { name: "disk", threshold: 0.95, lasting_minutes: 10, horizon: Millis(6 * Millis::HOUR.0) },
    Signal { name: "queue", threshold: 0.9, lasting_minutes: 5, horizon: Millis(4 * Millis::HOUR.0) },
    Signal { name: "latency", threshold: 0.5, lasting_minutes: 5, horizon: Millis(4 * Millis::HOUR.0) },
];

/// A breach that begins so many minutes or less after the last one of its service belongs to the same failure: a
/// process that is killed again and again is one failure, and so are slow answers of a saturated service.
const EPISODE_GAP_MINUTES: i64 = 360;

/// A service that failed.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// `namespace/name`.
    pub service: String,
    /// How the service behaves.
    pub class: Class,
    /// The signal that breached first.
    pub signal: &'static str,
    /// When the signal crossed its threshold.
    pub began: Timestamp,
    /// When its last breach was over; absent while it lasts.
    pub ended: Option<Timestamp>,
    /// Whether it could have been prevented: it announces itself, and there is room or room can be made.
    pub preventable: bool,
}

/// Watches one service for failures.
#[derive(Debug, Clone, Default)]
pub(super) struct Watcher {
    /// Since which minute each signal has been beyond its threshold.
    beyond_since: [Option<i64>; SIGNALS.len()],
    /// Place of the service's last failure in the list, and the minute it was last seen in breach.
    last: Option<(usize, i64)>,
}

impl Watcher {
    /// Looks at the levels of one minute and keeps the list of failures up to date.
    pub(super) fn look(
        &mut self,
        spec: &Spec,
        levels: &Levels,
        minute: i64,
        start: Timestamp,
        failures: &mut Vec<Failure>,
    ) {
        let values = [Some(levels.cpu), Some(levels.memory), levels.disk, levels.queue, levels.latency];
        let mut breach: Option<(i64, &'static str)> = None;
        for ((since, signal), value) in self.beyond_since.iter_mut().zip(&SIGNALS).zip(values) {
            if value.is_none_or(|v| v <= signal.threshold) {
                *since = None;
                continue;
            }
            let began = *since.get_or_insert(minute);
            if minute - began >= signal.lasting_minutes && breach.is_none_or(|(first, _)| began < first) {
                breach = Some((began, signal.name));
            }
        }
        let at = |minute: i64| start + Millis::MINUTE * minute;
        match (breach, self.last) {
            (Some((began, _)), Some((index, seen))) if began - seen <= EPISODE_GAP_MINUTES => {
                failures[index].ended = None;
                self.last = Some((index, minute));
            }
            (Some((began, signal)), _) => {
                let (service, class, preventable) = (spec.service(), spec.class, spec.preventable());
                self.last = Some((failures.len(), minute));
                failures.push(Failure { service, class, signal, began: at(began), ended: None, preventable });
            }
            (None, Some((index, _))) if failures[index].ended.is_none() => failures[index].ended = Some(at(minute)),
            (None, _) => {}
        }
    }
}

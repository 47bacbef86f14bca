//! What is foretold, as series: a report knows what lies after it, and what was forecast stays to be held against what came.
//!
//! ```text
//!              ◄── stored: forecast a quarter of its horizon before ──┤now├── the newest report ──► end of the horizon
//! forestall_signal_forecast_path    •    •    •    •    •    •    •   │   •    •    •    •    •    •
//! health, probability, loss         •    •  as said then   •    •    •   │   as said last   •    •    •
//! ```

use crate::forecast::{Foresight, Path};
use crate::health::{Assessment, EXTERNAL_RULE, SignalAssessment};
use crate::model::{Labels, METRIC_NAME, Millis, STALE_MARKER_BITS, Sample, Timestamp};
use crate::store::{Ahead, FORECAST_METRIC, Matcher, Selected, Store};

use super::{Report, component_labels};

/// How far apart samples are that lie ahead: a 720th of the horizon, within these. An instant selector, which looks five
/// minutes back, finds one at any moment.
const SPACING_MIN: Millis = Millis(30 * Millis::SECOND.0);
const SPACING_MAX: Millis = Millis(4 * Millis::MINUTE.0);

/// How often forecasts are kept for the time when it will be told what came.
const KEPT_EVERY: Millis = Millis(2 * Millis::MINUTE.0);

/// A value is forecast this part of the horizon before it is due, where it is kept: early enough to have been acted on.
const LEAD_PARTS: i64 = 4;

/// The quantiles that are kept, …
const LEVELS_KEPT: [f64; 3] = [0.1, 0.5, 0.9];

/// … of so many signals, those of the components that rank first.
const SIGNALS_KEPT_MAX: usize = 5000;

/// What a metric is of a component; nothing where that is not known.
type ValueOf = fn(&Assessment) -> Option<f64>;

/// The metrics of a component: how they are called, and what they are.
const COMPONENT_METRICS: [(&str, ValueOf); 3] = [
    ("forestall_component_health_ratio", |assessment| assessment.health),
    ("forestall_component_failure_probability", |assessment| assessment.probability),
    ("forestall_component_expected_loss_ratio", |assessment| assessment.health.map(|_| assessment.expected_loss)),
];

const METRICS: [&str; 4] = [FORECAST_METRIC, COMPONENT_METRICS[0].0, COMPONENT_METRICS[1].0, COMPONENT_METRICS[2].0];

/// The identity labels of a signal's metrics: those of its component without the horizon, `rule`, `signal`.
pub fn signal_labels(assessment: &Assessment, signal: &SignalAssessment) -> Labels {
    component_labels(assessment)
        .without(|name| name == "horizon")
        .with("rule", &signal.rule)
        .with("signal", &signal.signal)
}

impl Ahead for Report {
    fn metrics(&self) -> &'static [&'static str] {
        &METRICS
    }

    fn told_at(&self) -> Timestamp {
        self.at
    }

    fn select(&self, metric: &str, matchers: &[Matcher], after: Timestamp, until: Timestamp) -> Vec<Selected> {
        if metric == FORECAST_METRIC {
            return self.forecasts(matchers, after, until);
        }
        let value = COMPONENT_METRICS.iter().find(|(name, _)| *name == metric).map(|(_, value)| *value);
        let series = self.assessments.iter().filter_map(|assessment| {
            let value = value?(assessment)?;
            let labels = component_labels(assessment).with(METRIC_NAME, metric);
            if !matchers.iter().all(|matcher| matcher.matches_labels(&labels)) {
                return None;
            }
            let samples = samples((after, until), (self.at, self.at + assessment.horizon), |_| Some(value));
            (!samples.is_empty()).then_some(Selected { labels, samples })
        });
        series.collect()
    }
}

impl Report {
    /// The forecasts of all signals, a series for each quantile.
    fn forecasts(&self, matchers: &[Matcher], after: Timestamp, until: Timestamp) -> Vec<Selected> {
        let (of_signal, of_series): (Vec<&Matcher>, Vec<&Matcher>) =
            matchers.iter().partition(|matcher| !["quantile", METRIC_NAME].contains(&matcher.name.as_str()));
        let mut selected = Vec::new();
        for (assessment, signal, path) in forecasts(&self.assessments) {
            let labels = signal_labels(assessment, signal);
            if !of_signal.iter().all(|matcher| matcher.matches_labels(&labels)) {
                continue;
            }
            for level in &path.levels {
                let labels = forecast_labels(&labels, *level);
                if of_series.iter().all(|matcher| matcher.matches_labels(&labels)) {
                    let value = |at| value_at(&signal.foresight, path, *level, at);
                    let samples = samples((after, until), (self.at, end_of(path)), value);
                    selected.extend((!samples.is_empty()).then_some(Selected { labels, samples }));
                }
            }
        }
        selected
    }
}

/// Keeps health, probability and expected loss as series, so that their past can be queried here too.
pub(super) fn keep_assessments(store: &Store, assessments: &[Assessment], now: Timestamp) {
    for assessment in assessments {
        let labels = component_labels(assessment);
        for (name, value) in COMPONENT_METRICS {
            if let Some(value) = value(assessment) {
                store.append(&labels.with(METRIC_NAME, name), Sample { at: now, value });
            }
        }
    }
}

/// Keeps what is forecast now for a quarter of the horizon ahead, in the order of the ranking; no more often than
/// [`KEPT_EVERY`] since `kept_at`, which tells when it was done last.
pub(super) fn keep_forecasts(store: &Store, assessments: &[Assessment], kept_at: &mut Timestamp, now: Timestamp) {
    // A clock that was set back does not end it.
    if *kept_at <= now && now - *kept_at < KEPT_EVERY {
        return;
    }
    *kept_at = now;
    for (assessment, signal, path) in forecasts(assessments).take(SIGNALS_KEPT_MAX) {
        let labels = signal_labels(assessment, signal);
        let at = now + (end_of(path) - now) / LEAD_PARTS;
        for level in LEVELS_KEPT {
            if let Some(value) = value_at(&signal.foresight, path, level, at) {
                store.append_at(&forecast_labels(&labels, level), Sample { at, value }, now);
            }
        }
    }
}

/// The signals that are forecast, with their paths. What others predict has none.
fn forecasts(assessments: &[Assessment]) -> impl Iterator<Item = (&Assessment, &SignalAssessment, &Path)> {
    let signals = assessments.iter().flat_map(|a| a.signals.iter().map(move |signal| (a, signal)));
    signals
        .filter(|(_, signal)| signal.rule != EXTERNAL_RULE)
        .filter_map(|(assessment, signal)| Some((assessment, signal, signal.foresight.path.as_ref()?)))
}

fn forecast_labels(of_signal: &Labels, level: f64) -> Labels {
    of_signal.with("quantile", &level.to_string()).with(METRIC_NAME, FORECAST_METRIC)
}

/// The time of a path's last step.
fn end_of(path: &Path) -> Timestamp {
    let steps = path.values.first().map_or(0, Vec::len);
    path.start + path.step * i64::try_from(steps).unwrap_or(i64::MAX).saturating_sub(1)
}

/// What is forecast for a moment: on a straight line between the steps, and from the newest value to the first of them.
/// Nothing outside.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place within the steps")]
fn value_at(foresight: &Foresight, path: &Path, level: f64, at: Timestamp) -> Option<f64> {
    let values = path.level(level)?;
    let on_line = |from: f64, to: f64, share: f64| from + (to - from) * share;
    let share = |part: Millis, of: Millis| part.0 as f64 / of.0.max(1) as f64;
    if at < path.start {
        let current = foresight.current.filter(|_| foresight.at <= at)?;
        return Some(on_line(current, *values.first()?, share(at - foresight.at, path.start - foresight.at)));
    }
    let place = share(at - path.start, path.step);
    let before = *values.get(place as usize)?;
    Some(values.get(place as usize + 1).map_or(before, |next| on_line(before, *next, place.fract())))
        .filter(|_| at <= end_of(path))
}

/// Samples newer than `after`, up to and with `until`, as far as there is a value, of what was told at `told_at` for the
/// time up to `end`, which has a sample of its own; the marker that ends a series comes right after it.
fn samples(
    (after, until): (Timestamp, Timestamp),
    (told_at, end): (Timestamp, Timestamp),
    value: impl Fn(Timestamp) -> Option<f64>,
) -> Vec<Sample> {
    let spacing = ((end - told_at) / 720).clamp(SPACING_MIN, SPACING_MAX);
    let first = after.align_down(spacing) + spacing;
    let steps = std::iter::successors(Some(first), |at| Some(*at + spacing)).take_while(|at| *at <= until.min(end));
    let at_end = Some(end).filter(|end| after < *end && *end <= until && end.align_down(spacing) != *end);
    let mut samples: Vec<Sample> =
        steps.chain(at_end).filter_map(|at| Some(Sample { at, value: value(at)? })).collect();
    let over = end + Millis(1);
    if after < over && over <= until {
        samples.push(Sample { at: over, value: f64::from_bits(STALE_MARKER_BITS) });
    }
    samples
}

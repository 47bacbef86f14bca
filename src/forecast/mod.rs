//! History → forecast with calibrated uncertainty: will this signal cross its threshold, when, and how deep.
//!
//! One [`Watch`] follows one signal of one component. It is fed a value each interval and answers with a
//! [`Foresight`]. It is deterministic: the same values give the same answer, bit for bit.

mod bank;
mod calendar;
mod calibration;
mod cells;
mod cycles;
mod drift;
mod lstm;
mod meter;
mod models;
mod orientation;
mod paths;
mod record;
mod season;
mod series;
#[cfg(test)]
mod tests;
mod turning;
mod watch;
mod words;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{Millis, Timestamp};

pub use bank::BankSize;
pub use calendar::{Calendar, EVENTS_MAX, Effect, Event, OCCURRENCES_MAX, Occurrence};
pub use calibration::{Belief, Calibration, Evidence};
pub(crate) use cycles::{median, theil_sen};
pub use lstm::{Lesson, Network};
pub use meter::BankMeter;
pub use models::expected_path;
pub use series::{SeriesForecast, SeriesSettings, forecast_series, train_network};
pub use turning::TurningPoint;
pub use watch::Watch;

/// From which side a signal breaches its threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Too high is bad.
    Above,
    /// Too low is bad.
    Below,
}

/// The line a signal must not cross, at one moment: it may come from a PromQL expression per component.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// The threshold, in the signal's unit.
    pub threshold: f64,
    /// Where it begins to be uncomfortable, in the signal's unit.
    pub warn: Option<f64>,
}

/// Which model makes the path of medians.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelChoice {
    /// The bank: many cheap members under a weighted median.
    #[default]
    Auto,
    /// The smoothed level.
    Level,
    /// A straight line.
    Drift,
    /// A trend that dies away.
    Damped,
    /// Last season's values.
    SeasonalNaive,
    /// Exponential smoothing, chosen by information criterion.
    Ets,
    /// Seasonal-trend decomposition for several seasons.
    Mstl,
    /// Seasonal ARIMA of a small set of orders, by conditional sum of squares.
    Arima,
    /// The Theta method.
    Theta,
    /// A small LSTM network, trained over all series of a kind.
    Lstm,
}

/// Why there is no forecast.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Fewer values than the model needs.
    #[error("{got} values are too few: {model} needs {needed}")]
    TooShort {
        /// The model.
        model: &'static str,
        /// How many there are.
        got: usize,
        /// How many it needs.
        needed: usize,
    },
    /// No value is a number.
    #[error("none of {0} values is a number")]
    NoNumber(usize),
    /// The settings ask for what cannot be.
    #[error("{0}")]
    Settings(String),
    /// The fit came to nothing.
    #[error("{0} could not be fitted to these values")]
    NoFit(&'static str),
}

/// How far from what was expected a value is still normal, where a user says so: the larger of the two.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Band {
    /// In standard deviations of the forecast.
    pub deviation: f64,
    /// In the signal's unit.
    pub min_abs: f64,
}

/// How one signal of a rule is watched; shared by all components of the rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WatchSettings {
    /// How far ahead to look.
    pub horizon: Millis,
    /// How often a value is pushed.
    pub interval: Millis,
    /// From which side it breaches.
    pub side: Side,
    /// A breach counts once it has lasted this long.
    pub lasting: Millis,
    /// Season lengths declared by the user; empty: a day and a week where the history allows.
    pub seasons: Vec<Millis>,
    /// What is normal; the 95 % interval of the forecast where absent.
    pub band: Option<Band>,
    /// The model.
    pub model: ModelChoice,
    /// A crossing nearer than this comes too late to be a prediction: the time an action takes.
    pub actuation_time: Millis,
    /// The signal is never below this, in its own unit.
    pub floor: Option<f64>,
    /// The signal is never above this, in its own unit.
    pub ceiling: Option<f64>,
    /// The exceptions that concern the component.
    pub calendar: Arc<Calendar>,
}

impl ModelChoice {
    /// All of them.
    pub const ALL: [ModelChoice; 10] = [
        ModelChoice::Auto,
        ModelChoice::Level,
        ModelChoice::Drift,
        ModelChoice::Damped,
        ModelChoice::SeasonalNaive,
        ModelChoice::Ets,
        ModelChoice::Mstl,
        ModelChoice::Arima,
        ModelChoice::Theta,
        ModelChoice::Lstm,
    ];

    /// As a user writes it.
    pub fn name(self) -> &'static str {
        match self {
            ModelChoice::Auto => "auto",
            ModelChoice::Level => "level",
            ModelChoice::Drift => "drift",
            ModelChoice::Damped => "damped",
            ModelChoice::SeasonalNaive => "seasonal-naive",
            ModelChoice::Ets => "ets",
            ModelChoice::Mstl => "mstl",
            ModelChoice::Arima => "arima",
            ModelChoice::Theta => "theta",
            ModelChoice::Lstm => "lstm",
        }
    }
}

/// Why nothing can be said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Knowledge {
    /// The forecast stands.
    Known,
    /// Too little history yet.
    Learning {
        /// How much has been seen.
        seen: Millis,
        /// How much is needed.
        needed: Millis,
    },
    /// Missing, stale or not a number.
    Unknown {
        /// What is wrong, in words.
        why: String,
    },
}

/// The view that spoke for a breach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelName {
    /// First passage of a robust trend, agreed on by several time scales.
    Drift,
    /// Growing peaks of a regular cycle.
    Cycle,
    /// Higher than ever in a fortnight.
    Record,
    /// First passage of season-aware paths with the bank of error trajectories.
    Paths,
}

/// What one channel says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Channel {
    /// Which one.
    pub name: ChannelName,
    /// Its raw score, 0..1.
    pub score: f64,
    /// Why it is silent, or what it saw, in words with figures.
    pub because: String,
}

/// Quantiles of the time until a breach begins; absent where they lie beyond the horizon.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Eta {
    /// One in ten futures breaches earlier.
    pub q10: Option<Millis>,
    /// Half of the futures breach earlier.
    pub q50: Option<Millis>,
}

/// Quantiles of a signal's future.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Path {
    /// The time of the first step.
    pub start: Timestamp,
    /// The distance between steps.
    pub step: Millis,
    /// The quantile levels, ascending: 0.1, 0.25, 0.5, 0.75, 0.9.
    pub levels: Vec<f64>,
    /// `values[level][step]`, in the signal's unit.
    pub values: Vec<Vec<f64>>,
}

impl Path {
    /// The values of one level, where it is among [`Path::levels`].
    pub fn level(&self, level: f64) -> Option<&[f64]> {
        self.levels.iter().position(|l| (l - level).abs() < 1e-9).map(|index| self.values[index].as_slice())
    }
}

/// What is foreseen for one signal of one component.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Foresight {
    /// When this was thought.
    pub at: Timestamp,
    /// Whether anything can be said. Unless `Known`, all below is empty.
    pub knowledge: Knowledge,
    /// The newest value, in the signal's unit.
    pub current: Option<f64>,
    /// The age of the newest value.
    pub age: Option<Millis>,
    /// How much history there is.
    pub history: Millis,
    /// The line it is held against.
    pub limit: Option<Limit>,
    /// Whether it is in breach now (for at least the rule's `for`).
    pub breached: bool,
    /// Raw share of futures with a breach, before calibration, 0..1.
    pub probability_raw: Option<f64>,
    /// Calibrated P(a breach begins within the horizon), 0..1; 1 when breached.
    pub probability: Option<f64>,
    /// Lower bound of `probability` given how little is known; what acting is decided on.
    pub probability_low: Option<f64>,
    /// When.
    pub eta: Eta,
    /// E[clamp(½ + ½·(peak − threshold)/margin, 0, 1) | breach], before the rule's weight; 1 when breached.
    pub depth: f64,
    /// The 0.9 quantile of the worst value within the horizon, in the signal's unit: what a size is computed from.
    pub peak_q90: Option<f64>,
    /// The fan.
    pub path: Option<Path>,
    /// Whether the newest value is outside the interval forecast one horizon ago, or outside the rule's band around what
    /// was expected then; absent before there was one.
    pub outside_interval: Option<bool>,
    /// What each channel says.
    pub channels: Vec<Channel>,
    /// What the channels saw: what [`Calibration::learn`] is taught with once the horizon is over.
    pub evidence: Option<Evidence>,
    /// The model that made the path.
    pub model: String,
    /// Where the path is made by several models together: each with its weight, the heaviest first.
    #[serde(default)]
    pub members: Vec<Member>,
    /// Where the channels that speak would fall silent.
    #[serde(default)]
    pub turning: Vec<TurningPoint>,
}

/// A model that has a part in a path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// The model.
    pub model: String,
    /// Its part, 0..1.
    pub weight: f64,
}

/// Why a new regime starts: models do not learn across it blindly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegimeStart {
    /// The signal itself shows it: restart, rotation, outage.
    Seen,
    /// forestall acted on the component.
    OwnAction,
    /// A deploy or restart that someone told us of.
    Told,
}

impl Foresight {
    /// Nothing can be said, and why.
    pub fn unknown(at: Timestamp, why: &str) -> Foresight {
        Foresight {
            at,
            knowledge: Knowledge::Unknown { why: why.to_owned() },
            current: None,
            age: None,
            history: Millis::ZERO,
            limit: None,
            breached: false,
            probability_raw: None,
            probability: None,
            probability_low: None,
            eta: Eta::default(),
            depth: 0.0,
            peak_q90: None,
            path: None,
            outside_interval: None,
            channels: Vec::new(),
            evidence: None,
            model: String::new(),
            members: Vec::new(),
            turning: Vec::new(),
        }
    }
}

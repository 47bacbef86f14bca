//! A bank of cheap members for one series: a weighted median of them, with intervals from the errors of that median.
//!
//! ```text
//!  push ─▶ score open forecasts ─▶ history ─▶ members learn ─▶ every H/4 steps: origin = all paths, their combination, new widths
//!                                                                      │
//!  forecast ◀─ weighted median of the members that carry weight ◀──────┘   weights: (error / smallest error)⁻³
//! ```
//!
//! No member is fitted by an optimiser and none is chosen: rolling-origin errors give weights (Bates and Granger 1969), the weighted median
//! tolerates members that are wrong, and conformal quantiles of the combination's own errors make the intervals. `fit` is a replay of `push`.
//! A push costs microseconds; what costs milliseconds is asked for by [`Bank::needs_refit`] and done by [`Bank::refit`].
//!
//! Values are missing, not zero, where there are none: the forecast stands in for them and is not judged.

mod analogue;
mod combine;
mod conformal;
mod future;
mod history;
mod members;
mod rebase;
mod record;
mod ridge;
mod scale;
pub(crate) mod seasons;
mod simple;
mod smooth;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub(crate) use future::{Earlier, Forecast};

use super::Refusal;
use super::cells::whole;
use super::models::Model;
use combine::Median;
use conformal::{Adaption, Conformal, TARGETS};
use history::History;
use members::{Pool, Seasons};
use rebase::{Regime, Shift};
use record::{Record, Told};
use scale::{Scale, stored};

/// Steps of a forecast, at least and at most.
pub(crate) const STEPS_MIN: usize = 4;
/// See [`STEPS_MIN`].
pub(crate) const STEPS_MAX: usize = 1500;
/// Values below which there is nothing to say.
const VALUES_MIN: usize = 3;
/// Earlier forecasts made when a bank is fitted.
const ORIGINS: i64 = 30;
/// The same where each costs milliseconds.
const ORIGINS_COSTLY: i64 = 12;
/// History kept: the larger of this many values and of four times the longest season.
const KEEP_MIN: usize = 4000;
/// A season is used from this many times its length on: the shorter one, the longer one.
const DAYS_MIN: f64 = 2.0;
const WEEKS_MIN: f64 = 2.5;
/// A bank that was fitted to fewer values is fitted anew when they have doubled.
const EARLY: usize = 256;
/// Models that cost too much to be fitted at thirty origins.
const COSTLY: [&str; 6] = ["damped", "theta", "ets", "mstl", "arima", "lstm"];
/// More of the newest two days than this part missing: the forecast is not to be relied on.
const FILLED_MAX: f64 = 0.3;
/// Steps of a season, at most: a week of minutes.
const SEASON_MAX: usize = 10_080;
/// Larger values are taken for this: sums of them stay finite.
const VALUE_MAX: f64 = 1e300;
/// Indices are kept this far from where their sums would overflow.
const INDEX_MAX: i64 = 1 << 60;
/// A single-season bank without a season looks back this many steps, about half a horizon.
const LAGS: (usize, usize) = (12, 60);

/// How much a bank costs and knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BankSize {
    /// All members.
    Full,
    /// Without autoregressions and analogues: a quarter of the work, a tenth more error.
    Lite,
}

/// What a bank is asked to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BankSettings {
    /// Steps of a forecast, [`STEPS_MIN`] to [`STEPS_MAX`].
    pub(crate) steps: usize,
    /// None, one or two season lengths in steps, ascending, each at least 2; used once the history is long enough.
    pub(crate) seasons: Vec<usize>,
    /// Which members.
    pub(crate) size: BankSize,
    /// The only member, where the user named one; it is not part of a snapshot: see [`Bank::name_model`].
    #[serde(skip)]
    pub(crate) model: Option<Box<dyn Model>>,
    /// Forecasts are never below.
    pub(crate) floor: Option<f64>,
    /// Forecasts are never above.
    pub(crate) ceiling: Option<f64>,
}

/// What a fit fixes; a replay with the same header is the same bank, bit for bit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Header {
    scale: Scale,
    seasons: Seasons,
    /// Values at the fit.
    values: usize,
    /// The index of the first value.
    first: i64,
    /// Forecasts are made at this index and every `stride` steps before and after, from `origins_from` on.
    live: i64,
    stride: i64,
    origins_from: i64,
    /// Smallest and largest value that need no refit, in the signal's unit.
    range: (f64, f64),
}

/// The state of one series.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Bank {
    settings: BankSettings,
    header: Header,
    history: History,
    pool: Pool,
    record: Record,
    conformal: Conformal,
    /// The mean size of what was foreseen, in the signal's unit, when widths were learnt.
    mean_size: f64,
    adaption: Adaption,
    regime: Regime,
    /// Whether each member has a path of its own, since the newest origin.
    active: Vec<bool>,
    /// Missing values in a row, up to now.
    gap: usize,
    refit_due: bool,
    /// The named model's path is older than the newest origin.
    path_due: bool,
    refits: u64,
}

/// Index arithmetic: a length as a difference of indices.
fn span(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// The seasons that a history of `count` values has room for, else lags of about half a horizon.
fn usable_seasons(settings: &BankSettings, count: usize) -> Seasons {
    let fits = |season: usize, times: f64| season >= 2 && count as f64 >= times * season as f64;
    let day = settings.seasons.first().copied().filter(|day| fits(*day, DAYS_MIN));
    let Some(day) = day else {
        let lag = (settings.steps / 2).clamp(LAGS.0, LAGS.1).min(count / 4).max(2);
        return Seasons { day: lag, week: lag, real: false };
    };
    let week = match settings.seasons.get(1).copied() {
        Some(week) if week > day => Some(week),
        _ => return Seasons { day, week: day, real: true },
    };
    Seasons { day, week: week.filter(|week| fits(*week, WEEKS_MIN)).unwrap_or(2 * day), real: true }
}

impl Header {
    /// None where no value is known.
    fn of(settings: &BankSettings, first: i64, values: &[f64]) -> Option<Header> {
        let known: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
        if known.is_empty() {
            return None;
        }
        let next = first + span(values.len());
        let seasons = usable_seasons(settings, values.len());
        let stride = span(settings.steps / 4).max(1);
        let costly = settings.model.as_ref().is_some_and(|model| COSTLY.contains(&model.name()));
        let earliest = (2 * seasons.week + 14).min(values.len() / 2);
        let back = if costly { ORIGINS_COSTLY } else { ORIGINS };
        let (low, high) = known.iter().fold((f64::MAX, -f64::MAX), |(low, high), v| (low.min(*v), high.max(*v)));
        let beyond = (high / 2.0 - low / 2.0) * 2.0;
        Some(Header {
            scale: Scale::of(&known),
            seasons,
            values: values.len(),
            first,
            live: next,
            stride,
            origins_from: (first + span(earliest)).max(next - back * stride),
            range: (low - beyond, high + beyond),
        })
    }

    /// Whether a forecast is made before the value of `index` comes.
    fn is_origin(&self, index: i64) -> bool {
        index >= self.origins_from && (index - self.live) % self.stride == 0
    }
}

impl Bank {
    /// Fits a bank to a history (NaN: missing) whose first value has index `first_index`: the number of whole steps since the epoch, so that
    /// seasons are those of the clock.
    ///
    /// # Errors
    /// [`Refusal::NoNumber`] without a finite value, [`Refusal::TooShort`] with fewer than three, [`Refusal::Settings`] where the steps or
    /// seasons cannot be, and what the named model answers at the newest value.
    pub(crate) fn fit(settings: BankSettings, first_index: i64, history: &[f64]) -> Result<Bank, Refusal> {
        check_settings(&settings)?;
        let finite = |value: &f64| if value.is_finite() { value.clamp(-VALUE_MAX, VALUE_MAX) } else { f64::NAN };
        let leading = history.iter().take_while(|value| !value.is_finite()).count();
        let values: Vec<f64> = history[leading..].iter().map(finite).collect();
        let known = values.iter().filter(|value| value.is_finite()).count();
        if known == 0 {
            return Err(Refusal::NoNumber(history.len()));
        }
        if known < VALUES_MIN {
            let model = settings.model.as_ref().map_or("auto", |model| model.name());
            return Err(Refusal::TooShort { model, got: known, needed: VALUES_MIN });
        }
        let dropped = values.len().saturating_sub(keep(&settings));
        let first = first_index.clamp(-INDEX_MAX, INDEX_MAX) + span(leading + dropped);
        let header = Header::of(&settings, first, &values[dropped..]).ok_or(Refusal::NoNumber(keep(&settings)))?;
        let bank = Bank::replay(settings, header, &values[dropped..], Adaption::new());
        if let Some(model) = &bank.settings.model {
            // Where it refused at an earlier origin the last value stood in for it; now the user is told.
            bank.model_path(model.as_ref())?;
        }
        Ok(bank)
    }

    /// Pushes every value under a header that is fixed.
    fn replay(settings: BankSettings, header: Header, values: &[f64], adaption: Adaption) -> Bank {
        let mut bank = Bank::with_header(settings, header, adaption);
        for value in values {
            bank.push(Some(*value));
        }
        bank.refit_due = false;
        bank
    }

    fn with_header(settings: BankSettings, header: Header, adaption: Adaption) -> Bank {
        let has_log = header.scale.log.is_some() && settings.model.is_none();
        let pool = Pool::new(settings.size, header.seasons, has_log, settings.model.is_some());
        let members = pool.members.len();
        Bank {
            history: History::new(header.first, header.values, keep(&settings), has_log),
            record: Record::new(settings.steps, members),
            conformal: Conformal::default(),
            mean_size: 0.0,
            adaption,
            regime: Regime::default(),
            active: vec![false; members],
            gap: 0,
            refit_due: false,
            path_due: false,
            refits: 0,
            pool,
            settings,
            header,
        }
    }

    /// Takes the value of the next step; none, or one that is no finite number, is a gap, in which the forecast stands in.
    pub(crate) fn push(&mut self, value: Option<f64>) {
        let value = value.filter(|value| value.is_finite()).map(|value| value.clamp(-VALUE_MAX, VALUE_MAX));
        let index = self.history.next();
        let scale = self.header.scale;
        let plain = match value {
            Some(value) => scale.plain(value),
            None => self.stand_in(index),
        };
        self.record.score(index, value.map(|_| plain), &mut self.adaption);
        let log = scale.log(value.unwrap_or_else(|| scale.value(f64::from(plain))));
        self.history.push(plain, log, value.is_none(), self.has_log());
        self.pool.learn(&self.history, &scale);
        if self.header.is_origin(index + 1) {
            self.start_origin();
        }
        self.note_refit(value);
    }

    fn has_log(&self) -> bool {
        self.header.scale.log.is_some() && self.settings.model.is_none()
    }

    /// What stands in for a missing value: the newest forecast of it, else the value a day ago, else the last.
    fn stand_in(&self, index: i64) -> f32 {
        let values = &self.history.plain;
        let day_ago = || values.len().checked_sub(self.header.seasons.day).map(|position| values[position]);
        let last = || values.last().copied().unwrap_or(0.0);
        self.record.foreseen(index).map_or_else(|| day_ago().unwrap_or_else(last), |(value, _)| value)
    }

    /// Notes what only a refit can mend.
    fn note_refit(&mut self, value: Option<f64>) {
        let seasons = self.header.seasons;
        match value {
            Some(value) => {
                self.refit_due |= self.gap > seasons.day;
                self.refit_due |= !self.header.scale.admits(value);
                self.refit_due |= value < self.header.range.0 || self.header.range.1 < value;
                self.gap = 0;
            }
            None => self.gap = self.gap.saturating_add(1),
        }
        let count = self.history.len();
        // Scale and weights of a short history mean little: they are learnt anew while it doubles.
        self.refit_due |= self.header.values < EARLY && count >= 2 * self.header.values;
        let usable = usable_seasons(&self.settings, count);
        self.refit_due |= usable.real && usable != seasons;
        if self.history.next() > self.header.live {
            let scale = &self.header.scale;
            let lowest = if scale.non_negative { f64::from(scale.plain(0.0)) } else { f64::NEG_INFINITY };
            self.regime.watch(&self.history, &self.record, self.conformal.typical, self.settings.steps, lowest);
        }
    }

    /// Makes and keeps a forecast of every member, and learns how wide intervals are.
    fn start_origin(&mut self) {
        self.pool.refresh(&self.history);
        if self.history.next() <= self.header.live {
            self.renew_named_path();
        } else {
            // A push stays cheap: the path in use reaches far enough until a refit renews it.
            self.path_due = self.settings.model.is_some();
        }
        let (steps, count) = (self.settings.steps, self.pool.members.len());
        let mut paths = vec![0.0_f32; steps * count];
        let mut view = self.pool.view(&self.history, &self.header.scale, steps);
        for (place, member) in self.pool.members.iter().enumerate() {
            self.active[place] = self.pool.path(*member, &mut view, &mut paths[place..], count);
        }
        let weights = self.weights();
        let mut median = Median::new(&weights);
        let path: Vec<f32> = paths.chunks_exact(count).map(|values| stored(median.of(values))).collect();
        let at = self.history.next();
        let is_live = at >= self.header.live;
        if is_live {
            self.learn_widths();
        }
        let told = is_live.then(|| self.told(at, &path));
        self.record.add(at, path, paths).told = told;
    }

    fn renew_named_path(&mut self) {
        if let Some(model) = &self.settings.model {
            let path = self.model_path(model.as_ref()).unwrap_or_default();
            self.pool.name_path(self.history.next(), path);
        }
        self.path_due = false;
    }

    /// The named model's path on the plain scale, long enough to be used until the next origin.
    fn model_path(&self, model: &dyn Model) -> Result<Vec<f32>, Refusal> {
        let scale = &self.header.scale;
        let values: Vec<f64> = self.history.plain.iter().map(|value| scale.value(f64::from(*value))).collect();
        let ahead = self.settings.steps + usize::try_from(self.header.stride).unwrap_or(0);
        let path = model.path(&values, &self.settings.seasons, ahead)?;
        if path.len() < ahead || path.iter().any(|value| !value.is_finite()) {
            return Err(Refusal::NoFit(model.name()));
        }
        Ok(path.into_iter().map(|value| scale.plain(value)).collect())
    }

    /// The weight of each member; a named model has all of it where it has a path.
    fn weights(&self) -> Vec<f64> {
        if self.settings.model.is_some() || self.pool.members.len() == 2 {
            return if self.active[0] { vec![1.0, 0.0] } else { vec![0.0, 1.0] };
        }
        combine::weights(&self.record.errors, &self.active)
    }

    /// How noisy a value of this size is: half in proportion to it, where values are never negative.
    fn noise(&self, plain: f64) -> f64 {
        if !self.header.scale.non_negative || self.mean_size <= 0.0 {
            return 1.0;
        }
        0.5 * (self.header.scale.value(plain).abs() / self.mean_size) + 0.5
    }

    fn learn_widths(&mut self) {
        self.mean_size = self.record.mean_size(&self.header.scale);
        let errors = self.record.all_errors(&self.history, |path| self.noise(f64::from(path)));
        let day = if self.header.seasons.real { self.header.seasons.day } else { 0 };
        self.conformal = Conformal::learn(&errors, self.settings.steps, day);
    }

    /// How wide errors are at a step ahead of now, on the plain scale; by differences from step to step where no errors are known.
    fn shape(&self, at: i64, step: usize, plain: f64, roughness: f64) -> f64 {
        if self.conformal.scores.are_known() {
            self.conformal.shape(at, step) * self.noise(plain)
        } else {
            roughness * (step as f64 + 1.0).sqrt()
        }
    }

    /// The mean difference from one value to the next, on the plain scale.
    fn roughness(&self) -> f64 {
        if self.conformal.scores.are_known() {
            return 0.0;
        }
        let values = &self.history.plain[self.history.len().saturating_sub(256)..];
        let total: f64 = values.windows(2).map(|pair| f64::from((pair[1] - pair[0]).abs())).sum();
        total / values.len().saturating_sub(1).max(1) as f64
    }

    fn told(&self, at: i64, path: &[f32]) -> Told {
        let roughness = self.roughness();
        let reach = |(step, value): (usize, &f32)| stored(self.shape(at, step, f64::from(*value), roughness));
        Told {
            reach: path.iter().enumerate().map(reach).collect(),
            widths: TARGETS.map(|miss| stored(self.conformal.scores.half_width(self.adaption.asked(miss)))),
        }
    }

    /// The combination of the members that carry weight, on the plain scale, made of all that is known now.
    fn combined(&self) -> Vec<f64> {
        let weights = self.weights();
        let used: Vec<usize> = (0..weights.len()).filter(|place| weights[*place] > 0.0).collect();
        let steps = self.settings.steps;
        if used.is_empty() {
            // Before the first origin.
            return vec![self.history.plain.last().map_or(0.0, |value| f64::from(*value)); steps];
        }
        let mut paths = vec![0.0_f32; steps * used.len()];
        let mut view = self.pool.view(&self.history, &self.header.scale, steps);
        for (place, member) in used.iter().enumerate() {
            self.pool.path(self.pool.members[*member], &mut view, &mut paths[place..], used.len());
        }
        let used_weights: Vec<f64> = used.iter().map(|place| weights[*place]).collect();
        let mut median = Median::new(&used_weights);
        paths.chunks_exact(used.len()).map(|values| median.of(values)).collect()
    }

    /// The forecast of the next steps.
    pub(crate) fn forecast(&self) -> Forecast {
        let (at, scale) = (self.history.next(), &self.header.scale);
        let path = self.combined();
        let roughness = self.roughness();
        let reach =
            |(step, value): (usize, &f64)| (self.shape(at, step, *value, roughness) * scale.unit()).min(f64::MAX);
        let floor = if scale.non_negative { Some(0.0_f64) } else { None };
        Forecast::new(
            path.iter().map(|value| scale.value(*value)).collect(),
            path.iter().enumerate().map(reach).collect(),
            [floor, self.settings.floor].into_iter().flatten().reduce(f64::max),
            self.settings.ceiling,
            (self.adaption, self.conformal.scores.clone()),
        )
    }

    /// Paths that the series could take: the forecast plus what earlier forecasts got wrong, each error stretched from its own shape to
    /// today's; newest first. At most 29, none before three earlier forecasts have ended.
    pub(crate) fn futures(&self, forecast: &Forecast) -> Vec<Vec<f64>> {
        if !self.conformal.scores.are_known() {
            return Vec::new();
        }
        let errors = self.record.whole_errors(&self.history, |path| self.noise(f64::from(path)));
        let scores = errors.iter().rev().map(|origin| {
            let shape = |step: usize| self.conformal.shape(origin.at, step) * f64::from(origin.noise[step]);
            let score = |(step, error): (usize, &f32)| f64::from(*error) / shape(step).max(f64::MIN_POSITIVE);
            origin.errors.iter().enumerate().map(score).collect::<Vec<f64>>()
        });
        scores.map(|scores| forecast.path_of(&scores)).collect()
    }

    /// Earlier forecasts that are old enough to be judged, oldest first, as they would be told with what is known of widths now.
    pub(crate) fn earlier(&self) -> Vec<Earlier> {
        if !self.conformal.scores.are_known() {
            return Vec::new();
        }
        let scale = &self.header.scale;
        let errors = self.record.judged(self.history.next()).map(|origin| {
            let shape = |(step, value): (usize, &f32)| {
                (self.shape(origin.at, step, f64::from(*value), 0.0) * scale.unit()).min(f64::MAX)
            };
            Earlier {
                start: origin.at,
                median: origin.path.iter().map(|value| scale.value(f64::from(*value))).collect(),
                shape: origin.path.iter().enumerate().map(shape).collect(),
            }
        });
        errors.collect()
    }

    /// The members that carry weight, heaviest first; weights add up to 1.
    pub(crate) fn members(&self) -> Vec<(String, f64)> {
        let named = self.settings.model.as_ref().map_or("named", |model| model.name());
        let all = self.pool.members.iter().map(|member| member.name(named)).zip(self.weights());
        let mut members: Vec<(String, f64)> = all.filter(|(_, weight)| *weight > 0.0).collect();
        members.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        members
    }

    /// The share of steps that were inside the 95 % interval that was told for them; none before a forecast has ended.
    #[cfg(test)]
    pub(crate) fn coverage(&self) -> Option<f64> {
        self.adaption.coverage()
    }

    /// Whether the newest values do not fit what was foreseen or are mostly missing, or the history is shorter than two and a half seasons:
    /// better not to act on the forecast alone.
    pub(crate) fn is_unsettled(&self) -> bool {
        let recent = 2 * self.header.seasons.day;
        let filled = self.history.filled_among(recent) as f64;
        let is_learning =
            self.settings.seasons.first().is_some_and(|day| (self.history.len() as f64) < WEEKS_MIN * *day as f64);
        is_learning
            || self.is_unfit()
            || filled > FILLED_MAX * recent as f64
            || self.regime.is_unsettled(self.history.next())
    }

    /// The season lengths in use, in steps, ascending.
    pub(crate) fn seasons(&self) -> Vec<usize> {
        match self.header.seasons {
            Seasons { real: false, .. } => Vec::new(),
            Seasons { day, week, .. } if day == week => vec![day],
            Seasons { day, week, .. } => vec![day, week],
        }
    }

    /// Whether scale, seasons or level no longer fit, or a named model's path has grown old: [`Bank::refit`] mends it and costs milliseconds.
    pub(crate) fn needs_refit(&self) -> bool {
        self.path_due || self.is_unfit()
    }

    fn is_unfit(&self) -> bool {
        self.refit_due || self.regime.shift().is_some()
    }

    /// How often the bank was refitted.
    #[cfg(test)]
    pub(crate) fn refits(&self) -> u64 {
        self.refits
    }

    /// Fits anew to the history that is kept; values before a shift of level are moved to the new one first. What was learnt of coverage stays.
    pub(crate) fn refit(&mut self) {
        if !self.is_unfit() && self.path_due {
            self.renew_named_path();
            return;
        }
        let mut values = self.history.values(&self.header.scale);
        if let Some(shift) = self.regime.shift() {
            self.move_level(&mut values, shift);
        }
        self.refit_due = false;
        // A history of nothing but gaps keeps what it has.
        let Some(header) = Header::of(&self.settings, self.history.first(), &values) else { return };
        let mut regime = self.regime;
        regime.was_mended(self.history.next(), self.header.stride);
        let refits = self.refits + 1;
        let settings = std::mem::replace(&mut self.settings, BankSettings::nothing());
        let (next, scale) = (self.history.next(), self.header.scale);
        let fitted = Bank::replay(settings, header, &values, self.adaption);
        let before = std::mem::replace(self, fitted).record;
        let convert = |point: f32| self.header.scale.plain(scale.value(f64::from(point)));
        self.record.carry(before, next, convert, scale.unit() / self.header.scale.unit());
        self.regime = regime;
        self.refits = refits;
    }

    fn move_level(&self, values: &mut [f64], shift: Shift) {
        let before = self.history.position(shift.on).unwrap_or(0);
        let by = shift.by * self.header.scale.unit();
        let lowest = if self.header.scale.non_negative { 0.0 } else { -f64::MAX };
        for value in &mut values[..before] {
            // NaN stays NaN: it was missing, and is.
            *value = (*value + by).clamp(lowest, f64::MAX);
        }
    }

    /// The next value begins a new regime (our own action, a restart, a deploy): its first values are taken as its level, seasons stay.
    pub(crate) fn start_regime(&mut self) {
        self.regime.start(self.history.next(), self.header.stride);
    }

    /// Gives a bank that was read from a snapshot the model that its user named.
    pub(crate) fn name_model(&mut self, model: Box<dyn Model>) {
        self.settings.model = Some(model);
    }

    /// The values that are kept, oldest first; NaN where one was missing.
    pub(crate) fn values(&self) -> Vec<f64> {
        self.history.values(&self.header.scale)
    }

    /// Whether the forecasts are those of the one model that was named.
    pub(crate) fn is_named(&self) -> bool {
        self.settings.model.is_some()
    }

    /// What the bank holds, in bytes: the room of its vectors, used or not.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Bank>()
            + self.settings.seasons.capacity() * size_of::<usize>()
            + self.history.memory_bytes()
            + self.pool.memory_bytes()
            + self.record.memory_bytes()
            + self.conformal.memory_bytes()
            + self.active.capacity()
    }
}

impl BankSettings {
    /// Stands in for settings that are being moved.
    fn nothing() -> BankSettings {
        BankSettings {
            steps: STEPS_MIN,
            seasons: Vec::new(),
            size: BankSize::Lite,
            model: None,
            floor: None,
            ceiling: None,
        }
    }
}

/// How many values of history are kept.
fn keep(settings: &BankSettings) -> usize {
    KEEP_MIN.max(4 * settings.seasons.last().copied().unwrap_or(0))
}

fn check_settings(settings: &BankSettings) -> Result<(), Refusal> {
    if !(STEPS_MIN..=STEPS_MAX).contains(&settings.steps) {
        let steps = settings.steps;
        return Err(Refusal::Settings(format!("a horizon has {STEPS_MIN} to {STEPS_MAX} steps, not {steps}")));
    }
    if settings.seasons.iter().any(|season| !(2..=SEASON_MAX).contains(season)) {
        return Err(Refusal::Settings(format!("a season has 2 to {SEASON_MAX} steps")));
    }
    if settings.seasons.len() > 2 || !settings.seasons.is_sorted() {
        return Err(Refusal::Settings("at most two seasons, the shorter one first".to_owned()));
    }
    if let (Some(floor), Some(ceiling)) = (settings.floor, settings.ceiling)
        && floor > ceiling
    {
        return Err(Refusal::Settings(format!("the floor {floor} is above the ceiling {ceiling}")));
    }
    if [settings.floor, settings.ceiling].into_iter().flatten().any(f64::is_nan) {
        return Err(Refusal::Settings("a bound is a number".to_owned()));
    }
    Ok(())
}

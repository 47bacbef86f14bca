//! Follows one signal: cells in, channels out, and from what they say a probability, a time and a depth.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::calibration::{Belief, Calibration, Evidence, SeesSeason};
use super::cells::{Cell, CellMaker, Coarsen, Noise, whole};
use super::cycles::{Cycles, NextPeak};
use super::drift::{Drift, DriftView, Reach, Spoke, VOTES_MIN, WINDOWS};
use super::models::{Model, model_of};
use super::orientation::Orientation;
use super::paths::{Fan, LEVELS, Named, Paths, quantile};
use super::record::Record;
use super::season::Season;
use super::turning::turning_points;
use super::words::{number, span};
use super::{
    BankSize, Channel, ChannelName, Eta, Foresight, Knowledge, Lesson, Limit, Member, ModelChoice, Network, Path,
    RegimeStart, WatchSettings,
};
use crate::model::{Millis, Sample, Timestamp};

/// Cells to the horizon, about.
const HORIZON_CELLS: i64 = 96;
/// Cells to a season in its coarse memory, about.
const SEASON_CELLS: i64 = 96;
/// Cells of the coarse memory, at most.
const SEASON_RING_MAX: f64 = 2048.0;
/// From so many cells on something is said. Three windows fit into 32 cells; a few more let the noise be known.
const CELLS_NEEDED: i64 = 40;
/// A season of more drift cells than this gets a cycle memory of its own, in coarse cells.
const FINE_SEASON_MAX: f64 = 400.0;
/// A hole of this part of a horizon is a new regime.
const GAP_SHARE: f64 = 1.0 / 8.0;
/// Values are kept within ± this, so that no sum of them overflows.
const VALUE_MAX: f64 = 1e30;
/// The 0.1 quantile of the time to a breach is no later than this part of its median.
const EARLY_SHARE: f64 = 0.7;
/// A signal that fell by this much (of the way from 0 to the threshold) since an action has improved.
const IMPROVED_MIN: f64 = 0.01;
/// Members of the bank that are told of, heaviest first.
const MEMBERS_TOLD: usize = 5;
/// How uncertain the time of a regular peak is, as a part of its period.
const PEAK_TIME_DEVIATION: f64 = 0.05;

/// Lengths that follow from the settings.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Geometry {
    cell: Millis,
    reach: Reach,
    /// Drift cells in one coarse cell.
    season_ratio: i64,
}

/// What was made of the newest cell.
#[derive(Debug, Serialize, Deserialize)]
struct View {
    drift: DriftView,
    /// The height up to which a rise is nothing new, while it is not beyond it.
    cap: Option<f64>,
    cycle: Option<NextPeak>,
    /// Of the channels, and of what is still foreseen from before.
    evidence: Evidence,
}

/// What was foreseen when something was done about it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Pending {
    /// Where the signal stood then, oriented.
    level: f64,
    evidence: Evidence,
}

/// Follows one signal of one component.
///
/// It keeps about 35 kB, at most 60: some hundred cells, 512 steps, a week of coarse cells, eight forecasts of seven members
/// and 32 error trajectories of 48 to 72 steps. [`Watch::push`] costs microseconds, [`Watch::foresee`] tens of them, and
/// milliseconds now and then, when AutoETS and MSTL are fitted anew.
#[derive(Debug, Serialize, Deserialize)]
pub struct Watch {
    settings: Arc<WatchSettings>,
    seed: u64,
    size: BankSize,
    geometry: Geometry,
    orientation: Orientation,
    maker: CellMaker,
    drift: Drift,
    cycles: Cycles,
    /// Cycles of a season that has too many drift cells, in coarse cells.
    coarse_cycles: Option<Cycles>,
    coarse_noise: Noise,
    coarsen: Coarsen,
    season: Season,
    record: Record,
    paths: Paths,
    #[serde(skip)]
    fan: Option<Fan>,
    view: Option<View>,
    pending: Option<Pending>,
    limit: Option<Limit>,
    first_at: Option<Timestamp>,
    pushed_at: Option<Timestamp>,
    newest: Option<(Timestamp, f64)>,
    /// Since when the values have been beyond the threshold.
    beyond_since: Option<Timestamp>,
}

impl Geometry {
    fn of(settings: &WatchSettings) -> Geometry {
        let interval = settings.interval.0.max(1);
        let horizon = settings.horizon.0.max(interval * 4);
        // Whole intervals, so that each cell has the same number of values.
        let cell = (horizon + HORIZON_CELLS * interval / 2) / (HORIZON_CELLS * interval) * interval;
        let cell = cell.max(interval);
        let season = settings.seasons.first().copied().filter(|season| season.0 >= 4 * cell).unwrap_or(Millis::DAY);
        let cells = |span: i64| span as f64 / cell as f64;
        Geometry {
            cell: Millis(cell),
            reach: Reach {
                horizon: cells(horizon),
                actuation: cells(settings.actuation_time.0.clamp(0, horizon / 2)),
                season: cells(season.0),
            },
            season_ratio: (season.0 / SEASON_CELLS / cell).max(1),
        }
    }

    /// Both seasons in drift cells: the declared ones, else a day and a week.
    fn seasons(&self, settings: &WatchSettings) -> [f64; 2] {
        let second =
            settings.seasons.get(1).map_or(7.0 * self.reach.season, |season| season.0 as f64 / self.cell.0 as f64);
        [self.reach.season, second.max(self.reach.season)]
    }

    fn sees_season(&self) -> SeesSeason {
        if WINDOWS[WINDOWS.len() - 1] as f64 >= self.reach.season { SeesSeason::Yes } else { SeesSeason::No }
    }

    /// The end of a cell: when its last value was due.
    fn end(&self, index: i64, interval: Millis) -> Timestamp {
        Timestamp(index.saturating_add(1).saturating_mul(self.cell.0)) - interval
    }
}

impl Watch {
    /// A watch that has seen nothing yet. `seed` makes its random choices its own: (rule, signal, component) hashed.
    ///
    /// The seed only spreads costly fits over time; what is foreseen does not depend on chance.
    pub fn new(settings: Arc<WatchSettings>, seed: u64) -> Watch {
        Watch::sized(settings, seed, BankSize::Full)
    }

    /// The same with a bank of another size, where the model is `auto`.
    pub fn sized(settings: Arc<WatchSettings>, seed: u64, size: BankSize) -> Watch {
        let geometry = Geometry::of(&settings);
        let reach = geometry.reach;
        let seasons = geometry.seasons(&settings);
        let ratio = geometry.season_ratio;
        let count = |cells: f64| whole(cells.ceil().clamp(4.0, SEASON_RING_MAX));
        let coarse_week = 7.0 * reach.season / ratio as f64;
        let coarse_cycles = (reach.season > FINE_SEASON_MAX)
            .then(|| Cycles::new(count(2.0 * reach.season / ratio as f64), coarse_week));
        Watch {
            seed,
            size,
            orientation: Orientation::new(settings.side),
            maker: CellMaker::new(geometry.cell, Millis(settings.interval.0.max(1))),
            drift: Drift::new(count(2.0 * reach.horizon)),
            cycles: Cycles::new(count(2.0 * reach.horizon), 7.0 * reach.season),
            coarse_cycles,
            coarse_noise: Noise::default(),
            coarsen: Coarsen::new(ratio),
            season: Season::new(count(seasons[1] / ratio as f64 + 4.0), ratio as f64),
            record: Record::new(reach),
            paths: Paths::new(&settings),
            fan: None,
            view: None,
            pending: None,
            limit: None,
            first_at: None,
            pushed_at: None,
            newest: None,
            beyond_since: None,
            geometry,
            settings,
        }
    }

    /// Takes the value of one interval; `None` where the expression gave nothing, a NaN or a stale marker.
    /// Times must ascend; one that does not is ignored.
    pub fn push(&mut self, at: Timestamp, value: Option<f64>, limit: Option<Limit>) {
        if self.pushed_at.is_some_and(|before| at <= before) {
            return;
        }
        self.pushed_at = Some(at);
        let value = value.filter(|value| value.is_finite()).map(|value| value.clamp(-VALUE_MAX, VALUE_MAX));
        self.limit = limit.filter(|limit| limit.threshold.is_finite());
        if self.orientation.follow(self.limit, value) {
            self.start_anew();
        }
        let oriented = value.map(|value| self.orientation.orient(value));
        if let Some(value) = value {
            self.newest = Some((at, value));
            self.first_at = self.first_at.or(Some(at));
        }
        self.note_breach(at, oriented);
        // What a calendar calls an exception says nothing of what the signal does otherwise.
        let exceptional = self.settings.calendar.at(at).is_some();
        if self.paths.push(at, value.filter(|_| !exceptional)) {
            self.fan = None;
        }
        for cell in self.maker.push(at, oriented) {
            self.take(cell);
        }
    }

    /// Learns from the past: forgets all it has seen, and takes these samples in their order under one limit.
    pub fn prime(&mut self, past: Vec<Sample>, limit: Option<Limit>) {
        *self = Watch::sized(self.settings.clone(), self.seed, self.size);
        for sample in past {
            self.push(sample.at, Some(sample.value), limit);
        }
    }

    /// Says that what was learned before `at` may no longer hold.
    ///
    /// No window reaches across it. After one of our own actions the peaks are forgotten too: they were those of another
    /// capacity. The season's shape stays. What was foreseen before stays foreseen until the signal has improved or there
    /// is enough of the new regime to judge it by: an action that achieved nothing must not look like one that did.
    pub fn start_regime(&mut self, at: Timestamp, why: RegimeStart) {
        let cell = at.0.div_euclid(self.geometry.cell.0).saturating_add(1);
        self.drift.regime = self.drift.regime.max(cell);
        if why == RegimeStart::Seen {
            return;
        }
        self.paths.start_regime();
        self.fan = None;
        if why == RegimeStart::OwnAction {
            self.cycles.forget();
            if let Some(cycles) = &mut self.coarse_cycles {
                cycles.forget();
            }
        }
        let level = self.drift.ring.mean(self.drift.ring.newest());
        let evidence = self.view.as_ref().map(|view| view.evidence);
        self.pending = level.zip(evidence).map(|(level, evidence)| Pending { level, evidence });
    }

    /// Whether a fit is due; until then the forecast goes on with what it has, or there is none yet. `network`: see
    /// [`Watch::refit`].
    pub fn wants_refit(&self, network: Option<&Arc<Network>>) -> bool {
        let named = match self.settings.model {
            ModelChoice::Lstm if network.is_some() => Named::Yes,
            _ => Named::No,
        };
        self.paths.wants_refit(named)
    }

    /// Fits the forecast's models to the history. Costs milliseconds, so that whoever has many watches spreads it.
    /// `network` serves the watches that name the LSTM; without one the bank forecasts for them.
    pub fn refit(&mut self, network: Option<&Arc<Network>>) {
        let model = self.named_model(network);
        self.paths.refit(&self.settings, model, self.size);
        self.fan = None;
    }

    fn named_model(&self, network: Option<&Arc<Network>>) -> Option<Box<dyn Model>> {
        match self.settings.model {
            ModelChoice::Lstm => network.map(|network| Box::new(network.clone()) as Box<dyn Model>),
            choice => model_of(choice),
        }
    }

    /// Goes on after it was read from a snapshot, if it was made under the same settings.
    #[must_use]
    pub fn resumed(mut self, settings: &Arc<WatchSettings>, network: Option<&Arc<Network>>) -> Option<Watch> {
        if *self.settings != **settings {
            return None;
        }
        self.settings = settings.clone();
        let model = self.named_model(network);
        self.paths.name_model(model);
        Some(self)
    }

    /// What a network for this signal can learn from it; absent while there is too little.
    pub fn lesson(&self) -> Option<Lesson> {
        self.paths.lesson()
    }

    /// What is foreseen at `now`, and what that means by what has been learned of its rule. Called at most once an interval,
    /// after [`Watch::push`].
    pub fn foresee(&mut self, now: Timestamp, calibration: &Calibration) -> Foresight {
        let knowledge = self.knowledge(now);
        let mut foresight = Foresight::unknown(now, "");
        foresight.history = self.first_at.map_or(Millis::ZERO, |first| now - first);
        foresight.age = self.newest.map(|(at, _)| now - at);
        foresight.current = self.newest.map(|(_, value)| value);
        foresight.limit = self.limit;
        foresight.knowledge = knowledge;
        if foresight.knowledge != Knowledge::Known {
            return foresight;
        }
        if self.fan.is_none() {
            let lasting = usize::try_from(self.settings.lasting.0 / self.paths.step.0).unwrap_or(0).max(1);
            let exceptions = self.exceptions();
            self.fan = self.paths.fan(&self.orientation, lasting, &exceptions);
        }
        foresight.breached = self.is_breached(now);
        foresight.outside_interval = self.paths.is_outside(self.settings.band);
        foresight.path = self.path();
        if let Some(fan) = &self.fan {
            foresight.model = self.model_name().to_owned();
            let heaviest = fan.members.iter().take(MEMBERS_TOLD);
            foresight.members =
                heaviest.map(|(model, weight)| Member { model: model.clone(), weight: *weight }).collect();
        }
        if let Some(limit) = self.limit {
            self.judge(now, limit, calibration, &mut foresight);
        }
        foresight
    }
}

/// Taking values in.
impl Watch {
    /// Everything oriented before is on another scale.
    fn start_anew(&mut self) {
        let mut fresh = Watch::sized(self.settings.clone(), self.seed, self.size);
        fresh.orientation = self.orientation;
        fresh.limit = self.limit;
        fresh.pushed_at = self.pushed_at;
        *self = fresh;
    }

    fn note_breach(&mut self, at: Timestamp, oriented: Option<f64>) {
        match oriented {
            Some(oriented) if oriented >= 1.0 => self.beyond_since = self.beyond_since.or(Some(at)),
            Some(_) => self.beyond_since = None,
            None => {}
        }
    }

    fn is_breached(&self, now: Timestamp) -> bool {
        self.limit.is_some() && self.beyond_since.is_some_and(|since| now - since >= self.settings.lasting)
    }

    fn take(&mut self, cell: Cell) {
        let gap = cell.index.saturating_sub(self.drift.ring.newest()) as f64;
        if self.drift.ring.len() == 0 || gap > GAP_SHARE * self.geometry.reach.horizon + 1.0 {
            self.drift.regime = self.drift.regime.max(cell.index);
        }
        self.drift.ring.push(cell);
        if cell.missing {
            self.notice_long_gap();
        } else {
            self.drift.noise.observe(&self.drift.ring);
            self.drift.notice_fall();
            self.record.observe(cell, self.geometry.reach);
        }
        let exceptional =
            self.settings.calendar.at(Timestamp(cell.index.saturating_mul(self.geometry.cell.0))).is_some();
        if !exceptional {
            self.cycles.observe(&self.drift.ring, self.drift.noise.level());
        }
        if let Some(coarse) = self.coarsen.push(cell) {
            self.season.ring.push(coarse);
            self.coarse_noise.observe(&self.season.ring);
            if let Some(cycles) = self.coarse_cycles.as_mut().filter(|_| !exceptional) {
                cycles.observe(&self.season.ring, self.coarse_noise.level());
            }
        }
        self.look(cell);
    }

    /// A run of missing cells as long as a gap is one.
    fn notice_long_gap(&mut self) {
        let run = whole((GAP_SHARE * self.geometry.reach.horizon).ceil()).max(2);
        if self.drift.ring.missing(run) == run {
            self.drift.regime = self.drift.ring.newest() + 1;
        }
    }

    fn look(&mut self, cell: Cell) {
        let spoke = self.view.as_ref().is_some_and(|view| view.drift.votes.len() >= VOTES_MIN && view.cap.is_none());
        let reach = self.geometry.reach;
        let drift = self.drift.look(reach, &self.season, if spoke { Spoke::Yes } else { Spoke::No });
        let ratio = self.geometry.season_ratio as f64;
        let coarse = self.coarse_cycles.as_ref();
        let coarse_cap = coarse.and_then(|cycles| cycles.silencing_cap(&self.season.ring));
        let cap = [self.cycles.silencing_cap(&self.drift.ring), coarse_cap].into_iter().flatten().reduce(f64::max);
        let fine_peak = self.cycles.next_peak(&self.drift.ring, self.drift.noise.level(), reach.horizon);
        let coarse_peak = coarse
            .and_then(|cycles| cycles.next_peak(&self.season.ring, self.coarse_noise.level(), reach.horizon / ratio))
            .map(|peak| NextPeak {
                due: peak.due * ratio,
                crossing: peak.crossing * ratio,
                period: peak.period * ratio,
                ..peak
            });
        let cycle =
            [fine_peak, coarse_peak].into_iter().flatten().max_by(|a, b| a.probability().total_cmp(&b.probability()));
        let outlook = self.season.outlook(cell.index, reach).filter(|outlook| match coarse {
            Some(cycles) => cycles.is_due(self.season.ring.newest(), outlook.due / ratio, reach.season / ratio),
            None => self.cycles.is_due(cell.index, outlook.due, reach.season),
        });
        let cycle = match (cycle, outlook) {
            (Some(peak), Some(outlook)) => Some(peak.with(outlook)),
            (peak, outlook) => peak.or(outlook.filter(|outlook| outlook.due > 0.0).map(NextPeak::from)),
        };
        // Too near to act on, and not foreseen before: that is the ordinary alert's.
        let cycle_spoke = self.view.as_ref().is_some_and(|view| view.cycle.is_some_and(|peak| peak.height >= 1.0));
        let cycle = cycle.filter(|peak| cycle_spoke || peak.crossing >= reach.actuation);
        let by_drift = if cap.is_none() { drift.score() } else { 0.0 };
        let by_cycle = cycle.map_or(0.0, |peak| peak.probability());
        let mut evidence = Evidence::of(by_drift, self.geometry.sees_season(), by_cycle, self.record.score(cell.index));
        let improved = |pending: &Pending| cell.mean < pending.level - IMPROVED_MIN.max(3.0 * self.drift.noise.level());
        if drift.valid >= VOTES_MIN || self.pending.as_ref().is_some_and(improved) {
            self.pending = None;
        }
        let pending = self.pending.as_ref().map(|pending| pending.evidence);
        // Beyond the line, but not for long enough yet: what was foreseen is happening.
        let happening = self.view.as_ref().filter(|_| cell.mean >= 1.0).map(|view| view.evidence);
        for held in [pending, happening].into_iter().flatten() {
            evidence = evidence.or(held);
        }
        self.view = Some(View { drift, cap, cycle, evidence });
    }
}

/// Saying what is foreseen.
impl Watch {
    fn knowledge(&self, now: Timestamp) -> Knowledge {
        let Some((at, _)) = self.newest else { return Knowledge::Unknown { why: "no value yet".to_owned() } };
        let age = now - at;
        if age > self.settings.interval * 2 {
            return Knowledge::Unknown { why: format!("the newest value is {} old", span(age)) };
        }
        if self.is_breached(now) {
            return Knowledge::Known;
        }
        let needed = self.geometry.cell * CELLS_NEEDED;
        let seen = self.first_at.map_or(Millis::ZERO, |first| now - first);
        if seen < needed || self.view.is_none() {
            return Knowledge::Learning { seen, needed };
        }
        let recent = WINDOWS[0];
        if self.drift.ring.missing(recent) * 5 > recent {
            let missing = self.drift.ring.missing(recent);
            return Knowledge::Unknown { why: format!("{missing} of the newest {recent} cells are missing") };
        }
        Knowledge::Known
    }

    /// By how much each step to come differs from what the season says, because a calendar has it do as on another weekday:
    /// that day's newest value less the one a week before the step. Empty where no such event is near.
    fn exceptions(&self) -> Vec<f64> {
        let calendar = &self.settings.calendar;
        let Some(newest) = self.paths.newest().filter(|_| !calendar.is_empty()) else { return Vec::new() };
        let time_of = |step: usize| {
            let ahead = i64::try_from(step).unwrap_or(0) + 1;
            Timestamp((newest + ahead).saturating_mul(self.paths.step.0)) + self.paths.step / 2
        };
        let seen = |at: Timestamp| self.season.at(at.0 as f64 / self.geometry.cell.0 as f64 - 0.5);
        let difference = |step: usize| {
            let at = time_of(step);
            let like = calendar.at(at)?.stand_in(at)?;
            Some(self.orientation.restore_difference(seen(like)? - seen(at - Millis::DAY * 7)?))
        };
        let differences: Vec<f64> = (0..self.paths.steps).map(|step| difference(step).unwrap_or(0.0)).collect();
        if differences.iter().any(|difference| difference.abs() > 0.0) { differences } else { Vec::new() }
    }

    /// The fan, in the signal's unit.
    fn path(&self) -> Option<Path> {
        let fan = self.fan.as_ref()?;
        let step = self.paths.step;
        let newest = self.paths.newest()?;
        let start = Timestamp(newest.saturating_add(2).saturating_mul(step.0)) - self.settings.interval;
        Some(Path { start, step, levels: LEVELS.to_vec(), values: fan.values.clone() })
    }

    fn judge(&self, now: Timestamp, limit: Limit, calibration: &Calibration, foresight: &mut Foresight) {
        let Some(view) = &self.view else {
            // In breach before anything was learned.
            self.judge_breach(foresight);
            return;
        };
        let Belief { raw, probability, low } = calibration.believe(&view.evidence);
        foresight.evidence = Some(view.evidence);
        foresight.probability_raw = Some(raw);
        foresight.probability = Some(probability);
        foresight.probability_low = Some(low);
        foresight.channels = self.channels(view);
        let (drift, silenced) = (&view.drift.votes, view.cap.is_some());
        foresight.turning = turning_points(drift, silenced, view.cycle, &self.orientation, foresight.current);
        foresight.eta = self.eta(now, view, probability);
        foresight.depth = self.depth(view, limit);
        foresight.peak_q90 = Some(self.orientation.restore(self.peak_q90(view)));
        if foresight.breached {
            self.judge_breach(foresight);
        }
    }

    fn judge_breach(&self, foresight: &mut Foresight) {
        foresight.probability_raw = Some(1.0);
        foresight.probability = Some(1.0);
        foresight.probability_low = Some(1.0);
        foresight.eta = Eta { q10: Some(Millis::ZERO), q50: Some(Millis::ZERO) };
        foresight.depth = 1.0;
        let worse = |a: f64, b: f64| if self.orientation.restore_difference(1.0) > 0.0 { a.max(b) } else { a.min(b) };
        foresight.peak_q90 = match (foresight.peak_q90, foresight.current) {
            (Some(peak), Some(current)) => Some(worse(peak, current)),
            (peak, current) => peak.or(current),
        };
    }

    fn drift_speaks(view: &View) -> bool {
        view.cap.is_none() && view.drift.votes.len() >= VOTES_MIN
    }

    /// One in ten futures breaches only where P ≥ 0.1, half of them where P ≥ 0.5: else the quantile is beyond the horizon.
    fn eta(&self, now: Timestamp, view: &View, probability: f64) -> Eta {
        let mut etas: Vec<f64> = view.drift.votes.iter().map(|vote| vote.eta).collect();
        etas.sort_by(f64::total_cmp);
        let cycle = view.cycle.filter(|peak| peak.height >= 1.0);
        let (q10, q50) = if let (Some(first), true) = (etas.first(), view.cap.is_none()) {
            // Growth that picks up comes earlier than any line says.
            let half = quantile(&etas, 0.5);
            (first.min(EARLY_SHARE * half), half)
        } else if let Some(peak) = cycle {
            (peak.crossing - 1.28 * PEAK_TIME_DEVIATION * peak.period, peak.crossing)
        } else if let Some((first, half)) = self.passage_times() {
            (first, half)
        } else {
            return Eta::default();
        };
        let interval = self.settings.interval;
        let newest = self.drift.ring.newest();
        let elapsed = now - self.geometry.end(newest, interval);
        let until = |cells: f64| {
            let left = self.length(cells.min(self.geometry.reach.horizon)) - elapsed;
            left.max(Millis::ZERO)
        };
        Eta { q10: (probability >= 0.1).then(|| until(q10.min(q50))), q50: (probability >= 0.5).then(|| until(q50)) }
    }

    /// When one in ten and when half of the breaching paths have crossed, in drift cells.
    fn passage_times(&self) -> Option<(f64, f64)> {
        let fan = self.fan.as_ref()?;
        let mut times: Vec<f64> = fan
            .passages
            .iter()
            .flatten()
            .map(|step| (step + 1) as f64 * self.paths.step.0 as f64 / self.geometry.cell.0 as f64)
            .collect();
        if times.is_empty() {
            return None;
        }
        times.sort_by(f64::total_cmp);
        Some((quantile(&times, 0.1), quantile(&times, 0.5)))
    }

    /// How high each voting line gets within the horizon.
    fn line_peaks(&self, view: &View) -> Vec<f64> {
        let horizon = self.geometry.reach.horizon;
        let mut peaks: Vec<f64> = view.drift.votes.iter().map(|vote| vote.level + vote.slope * horizon).collect();
        peaks.sort_by(f64::total_cmp);
        peaks
    }

    /// The mean over the breaching futures of the channel that speaks; the paths' own where none does.
    fn depth(&self, view: &View, limit: Limit) -> f64 {
        let margin = self.orientation.margin(limit).unwrap_or_else(|| self.interquartile_range()).max(1e-9);
        let depth = |peak: f64| (0.5 + 0.5 * (peak - 1.0) / margin).clamp(0.0, 1.0);
        let mut peaks = Vec::new();
        if Watch::drift_speaks(view) {
            peaks = self.line_peaks(view);
        } else if let Some(peak) = view.cycle.filter(|peak| peak.height >= 1.0) {
            peaks.push(peak.height);
        } else if let Some(fan) = &self.fan {
            let breaching = fan.peaks.iter().zip(&fan.passages).filter(|(_, passage)| passage.is_some());
            peaks = breaching.map(|(peak, _)| *peak).collect();
        }
        if peaks.is_empty() { 0.5 } else { peaks.iter().map(|peak| depth(*peak)).sum::<f64>() / peaks.len() as f64 }
    }

    /// The interquartile range of the newest cells, oriented.
    fn interquartile_range(&self) -> f64 {
        let mut cells: Vec<f64> = self.drift.ring.latest(WINDOWS[8]).collect();
        cells.sort_by(f64::total_cmp);
        quantile(&cells, 0.75) - quantile(&cells, 0.25)
    }

    fn peak_q90(&self, view: &View) -> f64 {
        let mut peaks = self.fan.as_ref().map_or(Vec::new(), |fan| fan.peaks.clone());
        peaks.sort_by(f64::total_cmp);
        let newest = self.drift.ring.newest();
        let mut highest =
            if peaks.is_empty() { self.drift.ring.mean(newest).unwrap_or(0.0) } else { quantile(&peaks, 0.9) };
        if Watch::drift_speaks(view) {
            highest = highest.max(quantile(&self.line_peaks(view), 0.9));
        }
        if let Some(peak) = view.cycle {
            highest = highest.max(peak.height + 1.28 * peak.deviation);
        }
        highest
    }

    fn channels(&self, view: &View) -> Vec<Channel> {
        let mut channels = vec![self.drift_channel(view), self.cycle_channel(view), self.record_channel(view)];
        channels.extend(self.fan.as_ref().map(|fan| self.paths_channel(fan)));
        channels
    }

    /// So many drift cells as a span of time; none where it is negative.
    fn length(&self, cells: f64) -> Millis {
        Millis(i64::try_from(whole(cells * self.geometry.cell.0 as f64)).unwrap_or(i64::MAX))
    }

    fn threshold(&self) -> String {
        number(self.orientation.restore(1.0))
    }

    /// The model behind the paths.
    fn model_name(&self) -> &'static str {
        if self.paths.is_named() { self.settings.model.name() } else { ModelChoice::Auto.name() }
    }

    fn drift_channel(&self, view: &View) -> Channel {
        let votes = &view.drift.votes;
        let count = votes.len();
        let of = WINDOWS.len();
        let horizon = span(self.settings.horizon);
        let per_hour = |slope: f64| {
            let rise = self.orientation.restore_difference(slope) * Millis::HOUR.0 as f64 / self.geometry.cell.0 as f64;
            format!("{} {} an hour", if rise < 0.0 { "falls" } else { "rises" }, number(rise.abs()))
        };
        let threshold = self.threshold();
        let because = if let Some(vote) = votes.get(count / 2) {
            let over = span(self.geometry.cell * i64::try_from(vote.window).unwrap_or(1));
            let seen = format!(
                "{} over the last {over}; {count} of {of} time scales agree that it crosses {threshold} within {horizon}",
                per_hour(vote.slope)
            );
            match view.cap {
                Some(cap) => {
                    format!("silent: {seen}, but up to {} is nothing new", number(self.orientation.restore(cap)))
                }
                None if count < VOTES_MIN => format!("{seen}; {VOTES_MIN} are needed"),
                None => seen,
            }
        } else if view.drift.valid == 0 {
            "silent: no time scale lies wholly after the last restart or gap".to_owned()
        } else if view.drift.explained > 0 {
            format!("silent: {}, as it did a season ago, without crossing {threshold}", per_hour(view.drift.slope))
        } else if view.drift.slope > 0.0 {
            format!("silent: {} at most, which does not cross {threshold} within {horizon}", per_hour(view.drift.slope))
        } else {
            format!("silent: no trend towards {threshold}")
        };
        let score = if view.cap.is_some() { 0.0 } else { view.drift.score() };
        Channel { name: ChannelName::Drift, score, because }
    }

    fn cycle_channel(&self, view: &View) -> Channel {
        let Some(peak) = view.cycle else {
            let because = "silent: no regular cycle whose next peak is due within the horizon".to_owned();
            return Channel { name: ChannelName::Cycle, score: 0.0, because };
        };
        let length = |cells: f64| span(self.length(cells));
        let verb = if peak.height >= 1.0 { "crosses" } else { "stays short of" };
        let because = format!(
            "{}the peak due in {} is expected at {} after {}, which {verb} {}; the cycle repeats every {}",
            if peak.height >= 1.0 { "" } else { "silent: " },
            length(peak.due.max(0.0)),
            number(self.orientation.restore(peak.height)),
            number(self.orientation.restore(peak.last)),
            self.threshold(),
            length(peak.period),
        );
        Channel { name: ChannelName::Cycle, score: peak.probability(), because }
    }

    fn record_channel(&self, view: &View) -> Channel {
        let height = view.evidence.record();
        let because = if height > 0.0 {
            let beyond = if height >= 1.0 { "was beyond the threshold for a moment, and " } else { "" };
            format!(
                "{} {beyond}is higher than anything in the last two weeks",
                number(self.orientation.restore(height))
            )
        } else {
            "silent: no record within reach of the threshold".to_owned()
        };
        Channel { name: ChannelName::Record, score: height.min(1.0), because }
    }

    fn paths_channel(&self, fan: &Fan) -> Channel {
        let crossing = fan.passages.iter().flatten().count();
        let of = fan.passages.len();
        let because = format!(
            "{crossing} of {of} futures of the {} model cross {} within {}; supports time and depth, does not speak alone{}",
            self.model_name(),
            self.threshold(),
            span(self.settings.horizon),
            if fan.is_unsettled { "; not settled yet: a young history, or a level that has just moved" } else { "" },
        );
        Channel { name: ChannelName::Paths, score: crossing as f64 / of.max(1) as f64, because }
    }
}

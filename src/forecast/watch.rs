//! Follows one signal: cells in, channels out, and from what they say a probability, a time and a depth.

use std::sync::Arc;

use super::calibration::{Belief, calibrate};
use super::cells::{Cell, CellMaker, Coarsen, Noise, whole};
use super::cycles::{Cycles, NextPeak};
use super::drift::{Drift, DriftView, Reach, Spoke, VOTES_MIN, WINDOWS};
use super::orientation::Orientation;
use super::paths::{Fan, LEVELS, Paths, quantile};
use super::season::Season;
use super::words::{number, span};
use super::{Band, Channel, ChannelName, Eta, Foresight, Knowledge, Limit, Path, RegimeStart, WatchSettings};
use crate::model::{Millis, Timestamp};

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
/// How uncertain the time of a regular peak is, as a part of its period.
const PEAK_TIME_DEVIATION: f64 = 0.05;

/// Lengths that follow from the settings.
#[derive(Debug, Clone, Copy)]
struct Geometry {
    cell: Millis,
    reach: Reach,
    /// Drift cells in one coarse cell.
    season_ratio: i64,
}

/// What was made of the newest cell.
#[derive(Debug)]
struct View {
    drift: DriftView,
    /// The height up to which a rise is nothing new, while it is not beyond it.
    cap: Option<f64>,
    cycle: Option<NextPeak>,
    belief: Belief,
}

/// What was foreseen when something was done about it.
#[derive(Debug, Clone, Copy)]
struct Pending {
    /// Where the signal stood then, oriented.
    level: f64,
    belief: Belief,
}

/// Follows one signal of one component.
///
/// It keeps about 35 kB, at most 60: some hundred cells, 512 steps, a week of coarse cells, eight forecasts of seven members
/// and 32 error trajectories of 48 to 72 steps. [`Watch::push`] costs microseconds, [`Watch::foresee`] tens of them, and
/// milliseconds now and then, when AutoETS and MSTL are fitted anew.
#[derive(Debug)]
pub struct Watch {
    settings: Arc<WatchSettings>,
    seed: u64,
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
    paths: Paths,
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
            orientation: Orientation::new(settings.side),
            maker: CellMaker::new(geometry.cell, Millis(settings.interval.0.max(1))),
            drift: Drift::new(count(2.0 * reach.horizon)),
            cycles: Cycles::new(count(2.0 * reach.horizon), 7.0 * reach.season),
            coarse_cycles,
            coarse_noise: Noise::default(),
            coarsen: Coarsen::new(ratio),
            season: Season::new(count(seasons[1] / ratio as f64 + 4.0), ratio as f64),
            paths: Paths::new(settings.model, reach.horizon, seasons, seed),
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
        for cell in self.maker.push(at, oriented) {
            self.take(cell);
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
        self.paths.start_regime(cell);
        if why == RegimeStart::Seen {
            return;
        }
        self.paths.drop_origins();
        if why == RegimeStart::OwnAction {
            self.cycles.forget();
            if let Some(cycles) = &mut self.coarse_cycles {
                cycles.forget();
            }
        }
        let level = self.drift.ring.mean(self.drift.ring.newest());
        let belief = self.view.as_ref().map(|view| view.belief);
        self.pending = level.zip(belief).map(|(level, belief)| Pending { level, belief });
    }

    /// What is foreseen at `now`. Called at most once an interval, after [`Watch::push`].
    pub fn foresee(&mut self, now: Timestamp) -> Foresight {
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
            self.paths.refit();
            let step = self.geometry.cell.0 * self.paths.ratio;
            let lasting = usize::try_from(self.settings.lasting.0 / step).unwrap_or(0).max(1);
            self.fan = self.paths.fan(&self.season, lasting);
        }
        foresight.breached = self.is_breached(now);
        let band = self.settings.band.map(|band| {
            let min_abs = band.min_abs / self.orientation.restore_difference(1.0).abs();
            Band { min_abs, ..band }
        });
        foresight.outside_interval = self.paths.outside_interval(band);
        foresight.path = self.path();
        foresight.model = self.fan.as_ref().map_or(String::new(), |fan| fan.member.name().to_owned());
        if let Some(limit) = self.limit {
            self.judge(now, limit, &mut foresight);
        }
        foresight
    }
}

/// Taking values in.
impl Watch {
    /// Everything oriented before is on another scale.
    fn start_anew(&mut self) {
        let mut fresh = Watch::new(self.settings.clone(), self.seed);
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
        let regime_before = self.drift.regime;
        if self.drift.ring.len() == 0 || gap > GAP_SHARE * self.geometry.reach.horizon + 1.0 {
            self.drift.regime = self.drift.regime.max(cell.index);
        }
        self.drift.ring.push(cell);
        if cell.missing {
            self.notice_long_gap();
        } else {
            self.drift.noise.observe(&self.drift.ring);
            self.drift.notice_fall();
        }
        if self.drift.regime != regime_before {
            self.paths.start_regime(self.drift.regime);
        }
        self.cycles.observe(&self.drift.ring, self.drift.noise.level());
        if let Some(coarse) = self.coarsen.push(cell) {
            self.season.ring.push(coarse);
            self.coarse_noise.observe(&self.season.ring);
            if let Some(cycles) = &mut self.coarse_cycles {
                cycles.observe(&self.season.ring, self.coarse_noise.level());
            }
        }
        if self.paths.push(cell, &self.season) {
            self.fan = None;
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
        let votes = if cap.is_none() { drift.votes.len() } else { 0 };
        let by_cycle = cycle.map_or(0.0, |peak| peak.probability());
        let mut belief = calibrate(votes, by_cycle);
        belief.raw = by_cycle.max(votes as f64 / WINDOWS.len() as f64);
        let improved = |pending: &Pending| cell.mean < pending.level - IMPROVED_MIN.max(3.0 * self.drift.noise.level());
        if drift.valid >= VOTES_MIN || self.pending.as_ref().is_some_and(improved) {
            self.pending = None;
        }
        let pending = self.pending.as_ref().map(|pending| pending.belief);
        // Beyond the line, but not for long enough yet: what was foreseen is happening.
        let happening = self.view.as_ref().filter(|_| cell.mean >= 1.0).map(|view| view.belief);
        for held in [pending, happening].into_iter().flatten() {
            if held.probability > belief.probability {
                belief = held;
            }
        }
        self.view = Some(View { drift, cap, cycle, belief });
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

    /// The fan in the signal's unit. The mirrored side has its quantiles mirrored too.
    fn path(&self) -> Option<Path> {
        let fan = self.fan.as_ref()?;
        let step = self.geometry.cell * self.paths.ratio;
        let newest = self.paths.newest()?;
        let mut values: Vec<Vec<f64>> =
            fan.values.iter().map(|path| path.iter().map(|value| self.orientation.restore(*value)).collect()).collect();
        if self.orientation.restore_difference(1.0) < 0.0 {
            values.reverse();
        }
        Some(Path {
            start: Timestamp(newest.saturating_add(2).saturating_mul(step.0)) - self.settings.interval,
            step,
            levels: LEVELS.to_vec(),
            values,
        })
    }

    fn judge(&self, now: Timestamp, limit: Limit, foresight: &mut Foresight) {
        let Some(view) = &self.view else {
            // In breach before anything was learned.
            self.judge_breach(foresight);
            return;
        };
        let Belief { raw, probability, low } = view.belief;
        foresight.probability_raw = Some(raw);
        foresight.probability = Some(probability);
        foresight.probability_low = Some(low);
        foresight.channels = self.channels(view);
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
            .map(|step| ((step + 1) * usize::try_from(self.paths.ratio).unwrap_or(1)) as f64)
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
        let margin = self.orientation.margin(limit).unwrap_or_else(|| self.paths.interquartile_range()).max(1e-9);
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
        let mut channels = vec![self.drift_channel(view), self.cycle_channel(view)];
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
        let score = if view.cap.is_some() { 0.0 } else { count as f64 / of as f64 };
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

    fn paths_channel(&self, fan: &Fan) -> Channel {
        let crossing = fan.passages.iter().flatten().count();
        let of = fan.passages.len();
        let because = format!(
            "{crossing} of {of} futures of the {} model cross {} within {}; supports time and depth, does not speak alone",
            fan.member.name(),
            self.threshold(),
            span(self.settings.horizon),
        );
        Channel { name: ChannelName::Paths, score: crossing as f64 / of.max(1) as f64, because }
    }
}

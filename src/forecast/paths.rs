//! Future paths: the chosen model's median plus a bank of error trajectories, that is, what earlier forecasts of this
//! signal got wrong, step by step. Intervals come from the bank, so they hold for skewed signals.

use std::collections::VecDeque;

use super::cells::{Cell, Coarsen, Noise, Ring, whole};
use super::cycles::median;
use super::models::{MEMBERS, Member, damped_path, drift_path, ets_path, level_path, mstl_path};
use super::season::Season;
use super::{Band, ModelChoice};

/// Steps to the horizon, about.
const STEPS_AIM: usize = 48;
/// Points of history, at most.
const HISTORY_MAX: usize = 512;
/// A forecast is kept for judging this many times a horizon.
const ORIGINS_PER_HORIZON: usize = 8;
/// Error trajectories kept.
const BANK_MAX: usize = 32;
/// Half of a normal 95 % interval, in standard deviations.
const SIGMAS_OF_95: f64 = 1.96;
/// With fewer, trajectories of a random walk stand in for those that are not there yet.
const BANK_MIN: usize = 16;
/// Today's noise may widen or narrow old trajectories by at most this factor.
const SCALE_RATIO_MAX: f64 = 2.0;
/// The quantile levels of the fan.
pub(super) const LEVELS: [f64; 5] = [0.1, 0.25, 0.5, 0.75, 0.9];

/// A forecast of all members that waits to be judged.
#[derive(Debug)]
struct Origin {
    /// The newest step it knew.
    at: i64,
    paths: [Option<Vec<f32>>; MEMBERS.len()],
    chosen: usize,
    noise: f64,
    /// The 95 % interval at the horizon.
    interval: Option<(f64, f64)>,
}

/// Exponentially weighted sums of a member's errors.
#[derive(Debug, Clone, Copy, Default)]
struct Errors {
    sum: f64,
    weight: f64,
}

/// A path that was costly to make.
#[derive(Debug)]
struct Costly {
    /// The newest step it knew.
    fitted_at: Option<i64>,
    path: Option<Vec<f64>>,
}

/// What the paths say of the future.
#[derive(Debug, Clone)]
pub(super) struct Fan {
    /// `values[level][step]`, oriented.
    pub(super) values: Vec<Vec<f64>>,
    /// The step at which each path first crosses 1 for long enough; absent where it does not.
    pub(super) passages: Vec<Option<usize>>,
    /// The highest value of each path.
    pub(super) peaks: Vec<f64>,
    pub(super) member: Member,
}

/// History, members and bank of one signal, on a grid of about 48 steps a horizon.
#[derive(Debug)]
pub(super) struct Paths {
    choice: ModelChoice,
    /// Drift cells in one step.
    pub(super) ratio: i64,
    /// Steps to the horizon.
    pub(super) steps: usize,
    coarsen: Coarsen,
    ring: Ring,
    noise: Noise,
    regime: i64,
    /// Season lengths, in steps.
    seasons: [f64; 2],
    errors: [Errors; MEMBERS.len()],
    origins: VecDeque<Origin>,
    bank: VecDeque<Vec<f32>>,
    costly: [Costly; 2],
    /// Spreads first fits, and so all later ones, over signals.
    phase: i64,
    /// The member that made the newest fan.
    chosen: Member,
}

impl Paths {
    /// `horizon` and `seasons` in drift cells.
    pub(super) fn new(choice: ModelChoice, horizon: f64, seasons: [f64; 2], seed: u64) -> Paths {
        let ratio = whole(horizon / STEPS_AIM as f64).max(1);
        let steps = whole((horizon / ratio as f64).ceil()).max(4);
        let ratio = i64::try_from(ratio).unwrap_or(i64::MAX);
        let refit = i64::try_from(steps / 4).unwrap_or(1).max(1);
        let fresh = || Costly { fitted_at: None, path: None };
        Paths {
            choice,
            ratio,
            steps,
            coarsen: Coarsen::new(ratio),
            ring: Ring::new(HISTORY_MAX),
            noise: Noise::default(),
            regime: i64::MIN,
            seasons: seasons.map(|season| season / ratio as f64),
            errors: [Errors::default(); MEMBERS.len()],
            origins: VecDeque::new(),
            bank: VecDeque::new(),
            costly: [fresh(), fresh()],
            phase: i64::try_from(seed % refit.unsigned_abs()).unwrap_or(0),
            chosen: Member::Level,
        }
    }

    /// The newest step's index.
    pub(super) fn newest(&self) -> Option<i64> {
        (self.ring.len() > 0).then(|| self.ring.newest())
    }

    /// Models draw no line across this drift cell.
    pub(super) fn start_regime(&mut self, cell: i64) {
        self.regime = cell.div_euclid(self.ratio);
    }

    /// Forecasts made before are not to be judged by what follows: it was changed from outside.
    pub(super) fn drop_origins(&mut self) {
        self.origins.clear();
        self.costly.iter_mut().for_each(|costly| costly.path = None);
    }

    /// Takes a drift cell. True where it finished a step.
    pub(super) fn push(&mut self, cell: Cell, season: &Season) -> bool {
        let Some(step) = self.coarsen.push(cell) else { return false };
        self.ring.push(step);
        if !step.missing {
            self.noise.observe(&self.ring);
            self.judge(step);
        }
        self.close_origins();
        let apart = i64::try_from((self.steps / ORIGINS_PER_HORIZON).max(1)).unwrap_or(1);
        if step.index.rem_euclid(apart) == 0 && !step.missing {
            self.open_origin(season);
        }
        true
    }

    fn judge(&mut self, step: Cell) {
        // Short leads and a short memory, so that a change of regime flips the choice soon.
        let lead_max = i64::try_from(self.steps / 2).unwrap_or(i64::MAX);
        let keep = 0.5f64.powf(1.0 / (self.steps as f64 / 8.0).max(1.0));
        for errors in &mut self.errors {
            errors.sum *= keep;
            errors.weight *= keep;
        }
        for origin in &self.origins {
            let lead = step.index - origin.at;
            if lead < 1 || lead > lead_max {
                continue;
            }
            for (errors, path) in self.errors.iter_mut().zip(&origin.paths) {
                let Some(expected) = path.as_ref().and_then(|path| path.get(usize::try_from(lead - 1).ok()?)) else {
                    continue;
                };
                errors.sum += (step.mean - f64::from(*expected)).abs();
                errors.weight += 1.0;
            }
        }
    }

    /// What the finished forecasts got wrong goes to the bank.
    #[expect(clippy::cast_possible_truncation, reason = "oriented values fit f32")]
    fn close_origins(&mut self) {
        let steps = i64::try_from(self.steps).unwrap_or(i64::MAX);
        while self.origins.front().is_some_and(|origin| self.ring.newest() - origin.at >= steps) {
            let Some(origin) = self.origins.pop_front() else { break };
            let Some(path) = &origin.paths[origin.chosen] else { continue };
            let scale = self.ratio_of_noise(origin.noise, self.noise.level());
            let actual: Option<Vec<f64>> = (1..=steps).map(|lead| self.ring.mean(origin.at + lead)).collect();
            let Some(actual) = actual else { continue };
            if self.bank.len() == BANK_MAX {
                self.bank.pop_front();
            }
            self.bank.push_back(actual.iter().zip(path).map(|(y, f)| ((y - f64::from(*f)) * scale) as f32).collect());
        }
    }

    fn ratio_of_noise(&self, then: f64, now: f64) -> f64 {
        ((now + 1e-4) / (then + 1e-4)).clamp(1.0 / SCALE_RATIO_MAX, SCALE_RATIO_MAX)
    }

    #[expect(clippy::cast_possible_truncation, reason = "oriented values fit f32")]
    fn open_origin(&mut self, season: &Season) {
        let chosen = self.choose(season);
        let paths = MEMBERS.map(|member| {
            self.path_of(member, season).map(|path| path.iter().map(|value| *value as f32).collect::<Vec<f32>>())
        });
        let Some(median) = paths[chosen].as_ref().and_then(|path| path.last()).copied() else { return };
        let mut last: Vec<f64> =
            self.trajectories().iter().map(|path| f64::from(median) + path[self.steps - 1]).collect();
        last.sort_by(f64::total_cmp);
        let interval = Some((quantile(&last, 0.025), quantile(&last, 0.975)));
        let noise = self.noise.level();
        self.origins.push_back(Origin { at: self.ring.newest(), paths, chosen, noise, interval });
    }

    /// Points since the regime began.
    fn in_regime(&self) -> usize {
        usize::try_from(self.ring.newest().saturating_sub(self.regime)).unwrap_or(0)
    }

    fn path_of(&self, member: Member, season: &Season) -> Option<Vec<f64>> {
        if !member.is_admitted(self.choice) && member != Member::Level {
            return None;
        }
        match member {
            Member::Level => level_path(&self.ring, self.steps),
            Member::Drift => drift_path(&self.ring, self.in_regime(), self.steps),
            Member::Damped => damped_path(&self.ring, self.in_regime(), self.steps),
            Member::SeasonalFirst => self.seasonal_path(season, self.seasons[0]),
            Member::SeasonalSecond => self.seasonal_path(season, self.seasons[1]),
            Member::Ets => self.aged(&self.costly[0]),
            Member::Mstl => self.aged(&self.costly[1]),
        }
    }

    /// Last season's values, moved by how much higher the signal stands now than it did then.
    fn seasonal_path(&self, season: &Season, length: f64) -> Option<Vec<f64>> {
        let newest = self.ring.newest();
        let middle = |step: f64| step * self.ratio as f64 + (self.ratio as f64 - 1.0) / 2.0;
        let then = |step: f64| season.at(middle(step - length));
        let recent = i64::try_from((self.steps / 12).max(2)).unwrap_or(2);
        let mut offset = 0.0;
        for step in newest - recent + 1..=newest {
            offset += (self.ring.mean(step)? - then(step as f64)?) / recent as f64;
        }
        (1..=self.steps)
            .map(|lead| {
                // Beyond one season the same season is repeated.
                let back = (lead as f64 / length).ceil().max(1.0) - 1.0;
                Some(then(newest as f64 + lead as f64 - back * length)? + offset)
            })
            .collect()
    }

    /// A costly path some steps later: what is left of it, moved by half of what it missed just now.
    fn aged(&self, costly: &Costly) -> Option<Vec<f64>> {
        let path = costly.path.as_ref()?;
        let fitted_at = costly.fitted_at?;
        let age = usize::try_from(self.ring.newest() - fitted_at).ok()?;
        if age + self.steps > path.len() || fitted_at < self.regime {
            return None;
        }
        let missed = match age {
            0 => 0.0,
            _ => self.ring.mean(self.ring.newest())? - path[age - 1],
        };
        Some(path[age..age + self.steps].iter().map(|value| value + 0.5 * missed).collect())
    }

    /// The admitted member with the smallest recent error that has a path now.
    fn choose(&self, season: &Season) -> usize {
        let mut best: Option<(f64, usize)> = None;
        for (index, member) in MEMBERS.iter().enumerate() {
            let errors = self.errors[index];
            if !member.is_admitted(self.choice) || self.path_of(*member, season).is_none() {
                continue;
            }
            // A member that was never judged is taken only where no other is.
            let error = if errors.weight > 0.5 { errors.sum / errors.weight } else { f64::MAX };
            if best.is_none_or(|(smallest, _)| error < smallest) {
                best = Some((error, index));
            }
        }
        best.map_or(0, |(_, index)| index)
    }

    /// Error trajectories, filled up with those of a random walk while there are few.
    fn trajectories(&self) -> Vec<Vec<f64>> {
        let mut all: Vec<Vec<f64>> =
            self.bank.iter().map(|path| path.iter().map(|value| f64::from(*value)).collect()).collect();
        let wanting = BANK_MIN.saturating_sub(all.len());
        let deviation = self.step_deviation();
        for index in 0..wanting {
            let z = normal_quantile((index as f64 + 0.5) / wanting as f64);
            all.push((1..=self.steps).map(|step| z * deviation * (step as f64).sqrt()).collect());
        }
        all
    }

    /// How far one step is from the step before, of the newest points: a median, so that one jump does not count.
    fn step_deviation(&self) -> f64 {
        let points: Vec<f64> = self.ring.latest(STEPS_AIM).collect();
        let mut differences: Vec<f64> = points.windows(2).map(|two| (two[1] - two[0]).abs()).collect();
        1.48 * median(&mut differences)
    }

    /// Fits the costly members again where it is time: after a quarter of a horizon the one that makes the path, after a
    /// whole one those that others beat.
    pub(super) fn refit(&mut self) {
        let Some(newest) = self.newest() else { return };
        let soon = i64::try_from(self.steps / 4).unwrap_or(1).max(1);
        let late = i64::try_from(self.steps).unwrap_or(i64::MAX);
        let length = 2 * self.steps + 2;
        let in_regime = self.in_regime();
        for (costly, member) in [Member::Ets, Member::Mstl].into_iter().enumerate() {
            let fitted_at = *self.costly[costly].fitted_at.get_or_insert(newest - self.phase);
            let outdated = self.costly[costly].path.is_none() || fitted_at < self.regime;
            let wanted = self.chosen == member || outdated;
            let due = newest - fitted_at >= if wanted { soon } else { late };
            if !member.is_admitted(self.choice) || !due {
                continue;
            }
            let path = if member == Member::Ets {
                ets_path(&self.ring, in_regime, length)
            } else {
                mstl_path(&self.ring, &self.mstl_periods(), length)
            };
            self.costly[costly] = Costly { fitted_at: Some(newest), path };
        }
    }

    /// The seasons that are whole numbers of steps.
    fn mstl_periods(&self) -> Vec<usize> {
        let mut periods = Vec::new();
        for season in self.seasons {
            if (season - season.round()).abs() < 0.02 && season < HISTORY_MAX as f64 {
                periods.push(whole(season));
            }
        }
        periods
    }

    /// The future as it looks now. `lasting`: steps beyond the threshold that make a breach.
    pub(super) fn fan(&mut self, season: &Season, lasting: usize) -> Option<Fan> {
        let chosen = self.choose(season);
        let median = self.path_of(MEMBERS[chosen], season)?;
        self.chosen = MEMBERS[chosen];
        let futures: Vec<Vec<f64>> = self
            .trajectories()
            .iter()
            .map(|errors| median.iter().zip(errors).map(|(value, error)| value + error).collect())
            .collect();
        let mut values = vec![Vec::with_capacity(self.steps); LEVELS.len()];
        for step in 0..self.steps {
            let mut at_step: Vec<f64> = futures.iter().map(|future: &Vec<f64>| future[step]).collect();
            at_step.sort_by(f64::total_cmp);
            for (level, path) in LEVELS.iter().zip(&mut values) {
                path.push(quantile(&at_step, *level));
            }
        }
        Some(Fan {
            values,
            passages: futures.iter().map(|future| first_passage(future, lasting)).collect(),
            peaks: futures.iter().map(|future| future.iter().copied().fold(f64::NEG_INFINITY, f64::max)).collect(),
            member: MEMBERS[chosen],
        })
    }

    /// Whether the newest step lies outside the 95 % interval that was forecast a horizon ago, or outside a band (here in
    /// oriented units) around its middle.
    pub(super) fn outside_interval(&self, band: Option<Band>) -> Option<bool> {
        let oldest = self.origins.front()?;
        let lead = usize::try_from(self.ring.newest() - oldest.at).ok()?;
        // Origins are a part of a horizon apart: the oldest is between seven eighths of a horizon and a whole one old.
        if lead + self.steps / ORIGINS_PER_HORIZON + 1 < self.steps {
            return None;
        }
        let (low, high) = oldest.interval?;
        let now = self.ring.mean(self.ring.newest())?;
        let half = (high - low) / 2.0;
        let allowed = band.map_or(half, |band| (band.deviation * half / SIGMAS_OF_95).max(band.min_abs));
        Some((now - (low + half)).abs() > allowed)
    }

    /// The interquartile range of the history, oriented.
    pub(super) fn interquartile_range(&self) -> f64 {
        let mut points: Vec<f64> = self.ring.latest(self.ring.len()).collect();
        points.sort_by(f64::total_cmp);
        if points.is_empty() { 0.0 } else { quantile(&points, 0.75) - quantile(&points, 0.25) }
    }
}

/// The first step at which a path is beyond 1 and stays there for `lasting` steps (or to its end).
fn first_passage(path: &[f64], lasting: usize) -> Option<usize> {
    (0..path.len()).find(|&from| path[from..path.len().min(from + lasting)].iter().all(|value| *value >= 1.0))
}

/// A quantile of sorted values, in proportion between neighbours (type 7 of Hyndman and Fan 1996).
pub(super) fn quantile(sorted: &[f64], level: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let position = level * last as f64;
    let before = whole(position.floor()).min(last);
    let after = (before + 1).min(last);
    sorted[before] + (position - before as f64) * (sorted[after] - sorted[before])
}

/// The standard normal quantile, to 4.5e-4 (Abramowitz and Stegun 1964, formula 26.2.23).
fn normal_quantile(share: f64) -> f64 {
    let tail = share.min(1.0 - share).max(1e-12);
    let t = (-2.0 * tail.ln()).sqrt();
    let above = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let below = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
    let z = t - above / below;
    if share < 0.5 { -z } else { z }
}

//! The drift channel: first passage of a robust trend, believed where several time scales agree.
//!
//! Nine windows of 16 to 224 cells each fit a line and vote. The rules behind a vote are principles: do not extrapolate
//! further than was watched; one jump is no trend; a slope that is dying does not arrive; what yesterday did at this
//! hour is no drift; a crossing nearer than an action takes is no prediction.

use serde::{Deserialize, Serialize};

use super::cells::{Noise, Ring};
use super::season::Season;
use super::turning::Lenience;

/// The windows, in cells.
pub(super) const WINDOWS: [usize; 9] = [16, 24, 32, 48, 64, 96, 128, 192, 224];
/// This many windows must agree.
pub(super) const VOTES_MIN: usize = 3;
const BLOCKS: usize = 8;
/// A window may predict a crossing within this many times its own length.
pub(super) const REACH: f64 = 1.5;
/// A crossing must be foreseen within this part of the horizon: one that is a little late is still within it.
pub(super) const VOTES_WITHIN: f64 = 0.85;
/// One that comes a little after it may as well come before its end.
const LEANS_WITHIN: f64 = 1.25;
/// Windows with more missing cells than this share say nothing.
const MISSING_MAX: f64 = 0.2;
/// Where the newest quarter has grown by less than this part of what the middle grew, growth is dying.
const SATURATING: f64 = 0.95;
/// A foreseen crossing may be overdue by this part of a horizon.
const LATE_SHARE: f64 = 1.0 / 16.0;
/// The smallest residual deviation that is believed.
const RESIDUAL_MIN: f64 = 1e-4;
/// A fall by this much (of the way from 0 to the threshold) within two cells is a new regime.
const REGIME_FALL: f64 = 0.05;

/// What one window sees when it votes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Vote {
    pub(super) window: usize,
    /// Cells until the line crosses the threshold, as far as the plain slope says: the guards are for believing, and make late.
    pub(super) eta: f64,
    /// Rise per cell, likewise.
    pub(super) slope: f64,
    /// Where the line stands now.
    pub(super) level: f64,
    /// How much of it could be missing.
    pub(super) lenience: Lenience,
}

/// What all windows see.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct DriftView {
    pub(super) votes: Vec<Vote>,
    /// How many windows see a crossing within a horizon and a little, voters among them.
    pub(super) leaning: usize,
    /// How many windows lie wholly in this regime with enough values.
    pub(super) valid: usize,
    /// Windows struck because yesterday explains the rise.
    pub(super) explained: usize,
    /// The steepest slope that any valid window keeps, per cell; for the explanation.
    pub(super) slope: f64,
}

/// Lengths in cells that decide what counts as a prediction.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Reach {
    pub(super) horizon: f64,
    pub(super) actuation: f64,
    /// The season's length.
    pub(super) season: f64,
}

/// The recent cells of one signal, oriented so that 1 from below is the breach.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Drift {
    pub(super) ring: Ring,
    pub(super) noise: Noise,
    /// The first cell of the present regime.
    pub(super) regime: i64,
}

impl DriftView {
    /// From 0 to 1: the share of windows that vote, where enough of them do; below that two steps.
    pub(super) fn score(&self) -> f64 {
        match (self.votes.len(), self.leaning) {
            (votes, _) if votes >= VOTES_MIN => votes as f64 / WINDOWS.len() as f64,
            (_, leaning) if leaning >= VOTES_MIN => 0.2,
            (_, 1..) => 0.1,
            _ => 0.0,
        }
    }
}

impl Drift {
    pub(super) fn new(capacity: usize) -> Drift {
        Drift { ring: Ring::new(capacity.max(WINDOWS[8] + 1)), noise: Noise::default(), regime: i64::MIN }
    }

    /// Looks whether the newest cell starts a new regime: a restart, rotation, clean-up, the end of an outage.
    pub(super) fn notice_fall(&mut self) {
        let newest = self.ring.newest();
        let (Some(before), Some(now)) = (self.ring.mean(newest - 2), self.ring.mean(newest)) else { return };
        if now - before < -REGIME_FALL.max(6.0 * self.noise.level()) {
            self.regime = newest;
        }
    }

    /// Lets every window vote. `spoke`: the channel spoke one cell ago, so a crossing that has come too near stays foreseen.
    pub(super) fn look(&self, reach: Reach, season: &Season, spoke: Spoke) -> DriftView {
        let mut view = DriftView::default();
        let cells: Vec<f64> = self.ring.latest(WINDOWS[8]).collect();
        for window in WINDOWS {
            let in_regime = self.ring.newest().saturating_sub(self.regime).saturating_add(1)
                >= i64::try_from(window).unwrap_or(i64::MAX);
            if cells.len() < window || !in_regime {
                break;
            }
            if self.ring.missing(window) as f64 > MISSING_MAX * window as f64 {
                continue;
            }
            view.valid += 1;
            let line = Line::fit(&cells[cells.len() - window..], reach.season);
            view.slope = view.slope.max(line.slope);
            if !line.crosses(reach, spoke, LEANS_WITHIN) {
                continue;
            }
            if season.is_unknown(window as f64, self.ring.newest(), reach)
                || season.explains(&line, self.ring.newest(), *cells.last().unwrap_or(&0.0), reach)
            {
                view.explained += 1;
                continue;
            }
            view.leaning += 1;
            if !line.crosses(reach, spoke, VOTES_WITHIN) {
                continue;
            }
            let eta = (line.gap() / line.plain).clamp(0.0, reach.horizon);
            let lenience = Lenience::of(&line, reach);
            view.votes.push(Vote { window, eta, slope: line.plain, level: line.level, lenience });
        }
        view
    }
}

/// Whether the channel spoke one cell ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spoke {
    Yes,
    No,
}

/// A robust line through one window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    pub(super) window: usize,
    /// Rise per cell after all guards; never negative.
    pub(super) slope: f64,
    /// Rise per cell as it is expected to go on; at least `slope`.
    plain: f64,
    /// Where it stands now.
    pub(super) level: f64,
    /// Standard deviation of the cells around it.
    pub(super) residual: f64,
    /// Rise over the whole window, of the plain values.
    pub(super) rise: f64,
    /// How much rise is still to come if growth goes on dying as it does; absent where it does not die.
    pub(super) to_come: Option<f64>,
}

impl Line {
    fn fit(cells: &[f64], season: f64) -> Line {
        let window = cells.len();
        let block = window / BLOCKS;
        let length = block as f64;
        let mut means = [0.0; BLOCKS];
        for (mean, chunk) in means.iter_mut().zip(cells.chunks_exact(block)) {
            *mean = chunk.iter().sum::<f64>() / length;
        }
        let plain = slope(&means) / length;
        let newest_half = slope(&means[4..]) / length;
        let mut guarded = plain.min(1.5 * without_jump(&means) / length).min(0.8 * newest_half.max(0.0));
        if (window as f64) < 2.0 * season {
            guarded = guarded.min((means[7] - means[5]) / (2.0 * length));
        }
        let guarded = guarded.max(0.0);
        let average = cells.iter().sum::<f64>() / window as f64;
        let middle = (window as f64 - 1.0) / 2.0;
        let squares = cells.iter().enumerate().map(|(i, y)| (y - average - plain * (i as f64 - middle)).powi(2));
        let residual = (squares.sum::<f64>() / window as f64).sqrt().max(RESIDUAL_MIN);
        let earlier = means[4] - means[1];
        let dying = (means[7] - means[4]) / earlier;
        let to_come = (earlier > 0.0 && (0.0..SATURATING).contains(&dying))
            .then(|| 4.0 * length * guarded * dying / (1.0 - dying));
        Line {
            window,
            slope: guarded,
            plain: plain.max(newest_half).max(guarded),
            level: means[7] + guarded * (length - 1.0) / 2.0,
            residual,
            rise: cells[window - 1] - cells[0],
            to_come,
        }
    }

    /// How far it is below the threshold. Noise crosses first.
    pub(super) fn gap(&self) -> f64 {
        1.0 - self.level - 0.5 * self.residual
    }

    /// Whether it crosses 1 within what may be believed: that part of the horizon.
    fn crosses(&self, reach: Reach, spoke: Spoke, within: f64) -> bool {
        let window = self.window as f64;
        if self.slope <= 0.0 || self.slope * window <= 2.0 * self.residual {
            return false;
        }
        let eta = self.gap() / self.slope;
        // What was foreseen in time stays foreseen until it is there, be it within the noise of the line.
        let nearest = if spoke == Spoke::Yes { -LATE_SHARE * reach.horizon } else { reach.actuation };
        let dies_before = self.to_come.is_some_and(|rise| rise < self.gap());
        eta >= nearest && eta <= within * reach.horizon && eta <= REACH * window && !dies_before
    }
}

/// The least-squares slope over equally spaced values, per step.
fn slope(values: &[f64]) -> f64 {
    let middle = (values.len() as f64 - 1.0) / 2.0;
    let (mut product, mut squares) = (0.0, 0.0);
    for (index, value) in values.iter().enumerate() {
        let x = index as f64 - middle;
        product += x * value;
        squares += x * x;
    }
    product / squares
}

/// The rise per block without its largest jump, which may straddle two blocks: of a level shift nothing is left.
fn without_jump(means: &[f64; BLOCKS]) -> f64 {
    let jump = means.windows(3).map(|three| three[2] - three[0]).fold(0.0, f64::max);
    ((means[7] - means[0] - jump) / 5.0).max(0.0)
}

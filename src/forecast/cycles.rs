//! The cycle memory: peaks that came and went. It silences the drift channel while a rise is nothing new, and foresees
//! the breach of a regular cycle whose peaks grow.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::cells::Ring;
use super::season::Outlook;

/// A turn is confirmed by a move of this much (of the way from 0 to the threshold), or of so many noise levels.
const TURN_MIN: f64 = 0.03;
const TURN_NOISE: f64 = 6.0;
/// A peak is confirmed by a fall of this part of its height over the base: ripples on a leak are no cycles.
const TURN_SHARE: f64 = 0.4;
/// Peaks of less than this part of the highest one's height are ripples.
const PROMINENCE_MIN: f64 = 0.5;
const PEAKS_MAX: usize = 8;
/// A week of daily peaks and a day more.
const WEEK_PEAKS_MAX: usize = 16;
/// The cap looks at this many peaks.
const CAP_PEAKS: usize = 6;
const REGULAR_PEAKS_MIN: usize = 3;
const REGULAR_DEVIATION_MAX: f64 = 0.25;
const REGULAR_AGE_MAX: f64 = 2.5;
/// How far above the expected peak a rise must go to be news, as a part of the way from there to the threshold.
const CAP_MARGIN: f64 = 0.3;
/// A peak may be late by this part of the period.
const LATE_MAX: f64 = 0.25;
/// Peaks of a season come a season apart, but for this part of it.
const SEASON_MISFIT_MAX: f64 = 0.1;
/// How much peaks differ elsewhere; it counts like so many peaks, since few that lie on a line by chance prove little.
const SPREAD_USUAL: f64 = 0.02;
const SPREAD_USUAL_PEAKS: f64 = 2.0;
/// A breach may fall between two samples: what ends abruptly from here on was one.
const INCIDENT_FROM: f64 = 0.97;
/// Peaks foretell for no longer than this many times as long as they were watched.
const REACH: f64 = 1.5;
/// Of how much the last peak fell short of its forecast, this part is news.
const NEWS_SHARE: f64 = 0.5;

/// A confirmed peak.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Peak {
    /// Its cell.
    pub(super) at: i64,
    pub(super) height: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Direction {
    Rising,
    Falling,
}

/// The peaks of one signal, in cells of one length.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Cycles {
    /// Base and top are those of this many newest cells.
    span: usize,
    /// Cells in a week.
    week: f64,
    direction: Direction,
    running: Peak,
    low: f64,
    peaks: VecDeque<Peak>,
    week_peaks: VecDeque<Peak>,
    /// How far the last peak missed its forecast.
    missed: f64,
}

/// A regular cycle: the line through its peaks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Regular {
    pub(super) period: f64,
    last: Peak,
    slope: f64,
    level: f64,
    spread: f64,
    mean_at: f64,
    squares: f64,
    count: f64,
}

/// The next peak that would breach.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct NextPeak {
    /// How high it is expected to be.
    pub(super) height: f64,
    pub(super) deviation: f64,
    /// Cells until it.
    pub(super) due: f64,
    /// Cells until it is expected to cross 1; as `due` where it does not.
    pub(super) crossing: f64,
    pub(super) period: f64,
    pub(super) last: f64,
}

impl NextPeak {
    /// P(it breaches).
    pub(super) fn probability(&self) -> f64 {
        normal_share_below((self.height - 1.0) / self.deviation)
    }

    /// The same peak seen by today's rise over yesterday's: both count as they are certain. Of two different peaks the one
    /// that more likely breaches matters.
    pub(super) fn with(self, outlook: Outlook) -> NextPeak {
        let other = NextPeak {
            height: outlook.height,
            deviation: outlook.deviation,
            due: outlook.due,
            crossing: outlook.crossing,
            ..self
        };
        if (self.due - outlook.due).abs() > LATE_MAX * self.period {
            return if other.probability() > self.probability() { other } else { self };
        }
        let (own, others) = (self.deviation.powi(-2), outlook.deviation.powi(-2));
        let height = (own * self.height + others * outlook.height) / (own + others);
        NextPeak { height, deviation: (own + others).powf(-0.5), ..other }
    }
}

impl From<Outlook> for NextPeak {
    fn from(outlook: Outlook) -> NextPeak {
        let Outlook { height, deviation, due, crossing, last } = outlook;
        NextPeak { height, deviation, due, crossing, period: due.max(1.0), last }
    }
}

impl Cycles {
    pub(super) fn new(span: usize, week: f64) -> Cycles {
        Cycles {
            span,
            week,
            direction: Direction::Falling,
            running: Peak { at: i64::MIN, height: f64::NEG_INFINITY },
            low: f64::INFINITY,
            peaks: VecDeque::new(),
            week_peaks: VecDeque::new(),
            missed: 0.0,
        }
    }

    /// Forgets all peaks: a new life begins.
    pub(super) fn forget(&mut self) {
        *self = Cycles::new(self.span, self.week);
    }

    /// Takes the ring's newest cell.
    pub(super) fn observe(&mut self, ring: &Ring, noise: f64) {
        let at = ring.newest();
        let (Some(mean), Some(max)) = (ring.mean(at), ring.max(at)) else { return };
        let Some((base, top)) = ring.extremes(self.span) else { return };
        if self.ended_abruptly(ring, base) {
            self.forget();
        }
        let turn = TURN_MIN.max(TURN_NOISE * noise);
        match self.direction {
            Direction::Falling => {
                self.low = self.low.min(mean);
                if mean - self.low > turn {
                    self.direction = Direction::Rising;
                    self.running = Peak { at, height: max };
                }
            }
            Direction::Rising => {
                if max > self.running.height {
                    self.running = Peak { at, height: max };
                }
                if self.running.height - mean > turn.max(TURN_SHARE * (self.running.height - base)) {
                    self.direction = Direction::Falling;
                    self.low = mean;
                    self.keep(self.running, base, top);
                }
            }
        }
    }

    /// Whether a breach ended within the last two cells: nothing is learned from the inside of an incident.
    fn ended_abruptly(&self, ring: &Ring, base: f64) -> bool {
        let at = ring.newest();
        let (Some(before), Some(now)) = (ring.mean(at - 2), ring.mean(at)) else { return false };
        let highest = (at - 2..=at).filter_map(|cell| ring.max(cell)).fold(f64::NEG_INFINITY, f64::max);
        let peak = if self.direction == Direction::Rising { self.running.height.max(highest) } else { highest };
        peak >= INCIDENT_FROM && before - now > 0.5 * (peak - base)
    }

    fn keep(&mut self, peak: Peak, base: f64, top: f64) {
        let high_enough = base + PROMINENCE_MIN * (top - base);
        self.peaks.retain(|old| old.height >= high_enough);
        if peak.height < high_enough {
            return;
        }
        self.missed = self.regular(peak.at).map_or(0.0, |regular| peak.height - regular.height(peak.at as f64));
        push_bounded(&mut self.peaks, peak, PEAKS_MAX);
        push_bounded(&mut self.week_peaks, peak, WEEK_PEAKS_MAX);
    }

    /// The line through the peaks, where they come regularly and the last one is not too long ago.
    pub(super) fn regular(&self, now: i64) -> Option<Regular> {
        let count = self.peaks.len();
        if count < REGULAR_PEAKS_MIN {
            return None;
        }
        let times: Vec<f64> = self.peaks.iter().map(|peak| peak.at as f64).collect();
        let mut intervals: Vec<f64> = times.windows(2).map(|two| two[1] - two[0]).collect();
        let period = median(&mut intervals);
        let mut deviations: Vec<f64> = intervals.iter().map(|interval| (interval - period).abs()).collect();
        let last = *self.peaks.back()?;
        let age = now as f64 - last.at as f64;
        if median(&mut deviations) >= REGULAR_DEVIATION_MAX * period || age > REGULAR_AGE_MAX * period {
            return None;
        }
        let heights: Vec<f64> = self.peaks.iter().map(|peak| peak.height).collect();
        let slope = theil_sen(&times, &heights);
        // Times are far from 0: the level is taken at the last peak.
        let mut levels: Vec<f64> = times.iter().zip(&heights).map(|(t, h)| h - slope * (t - last.at as f64)).collect();
        let level = median(&mut levels);
        let mut residuals: Vec<f64> = levels.iter().map(|one| (one - level).abs()).collect();
        let mean_at = times.iter().sum::<f64>() / count as f64;
        Some(Regular {
            period,
            last,
            slope,
            level,
            spread: shrunk(1.48 * median(&mut residuals), count as f64),
            mean_at,
            squares: times.iter().map(|t| (t - mean_at).powi(2)).sum(),
            count: count as f64,
        })
    }

    /// The height up to which the present rise is nothing new; absent where nothing is known.
    fn cap(&self, now: i64) -> Option<f64> {
        if let Some(regular) = self.regular(now) {
            let next = regular.next_after(now as f64);
            let expected = regular.height(next);
            return Some(expected + (CAP_MARGIN * (1.0 - expected)).max(3.0 * regular.deviation(next)));
        }
        let heights: Vec<f64> = self.peaks.iter().rev().take(CAP_PEAKS).map(|peak| peak.height).collect();
        let highest = heights.iter().copied().reduce(f64::max).filter(|highest| *highest < 1.0)?;
        let mean = heights.iter().sum::<f64>() / heights.len() as f64;
        let variance = heights.iter().map(|height| (height - mean).powi(2)).sum::<f64>() / heights.len() as f64;
        let left = 1.0 - highest;
        Some(highest + (CAP_MARGIN * left).max(2.0 * variance.sqrt()).min(0.5 * left))
    }

    /// The cap, where the present rise has not gone beyond it: so high it was before, without harm.
    pub(super) fn silencing_cap(&self, ring: &Ring) -> Option<f64> {
        let cap = self.cap(ring.newest())?;
        let now = ring.mean(ring.newest())?;
        let risen = if self.direction == Direction::Rising { self.running.height } else { now };
        (risen <= cap).then_some(cap)
    }

    /// Whether a peak so many cells from `now` comes one season after the last one: yesterday foretells nothing of what
    /// repeats every sixteen hours.
    pub(super) fn is_due(&self, now: i64, ahead: f64, season: f64) -> bool {
        let mut newest = self.peaks.iter().rev();
        let Some(last) = newest.next() else { return false };
        let apart = now.saturating_sub(last.at) as f64 + ahead;
        let fits = |apart: f64, misfit: f64| (apart - season).abs() <= misfit * season;
        let fit_before = newest.next().is_none_or(|before| fits((last.at - before.at) as f64, 2.0 * SEASON_MISFIT_MAX));
        fits(apart, SEASON_MISFIT_MAX) && fit_before
    }

    /// The peak within `horizon` cells that matters, where the cycle is regular and one is due.
    pub(super) fn next_peak(&self, ring: &Ring, noise: f64, horizon: f64) -> Option<NextPeak> {
        let now = ring.newest() as f64;
        let regular = self.regular(ring.newest())?;
        let first = self.next_after(ring, &regular, noise);
        let watched = regular.period * (regular.count - 1.0);
        let last = if regular.slope > 0.0 {
            let ahead = horizon.min(REACH * watched);
            first + regular.period * ((now + ahead - first) / regular.period).floor().max(0.0)
        } else {
            first
        };
        let mut height = regular.height(last) + NEWS_SHARE * self.missed.min(0.0);
        if let Some(week_ago) = self.as_a_week_ago(last, regular.period) {
            height = height.min(week_ago);
        }
        let before = self.crossing_before_peak(ring, &regular, height);
        let crossing = (first - before - now).max(0.0);
        (crossing <= horizon).then(|| NextPeak {
            height,
            deviation: regular.deviation(last),
            due: first - now,
            crossing,
            period: regular.period,
            last: regular.last.height,
        })
    }

    /// When the next peak is due. The one that is due now has come and gone where the signal has turned down from it,
    /// even if not far enough yet for a peak to be confirmed.
    fn next_after(&self, ring: &Ring, regular: &Regular, noise: f64) -> f64 {
        let first = regular.next_after(ring.newest() as f64);
        let has_turned = self.direction == Direction::Rising
            && ring.mean(ring.newest()).is_some_and(|now| self.running.height - now > TURN_MIN.max(TURN_NOISE * noise));
        let was_it = (self.running.at as f64 - first).abs() <= LATE_MAX * regular.period;
        if has_turned && was_it { first + regular.period } else { first }
    }

    /// The peak one week before `at`, grown as the last peak has grown over the week before it.
    fn as_a_week_ago(&self, at: f64, period: f64) -> Option<f64> {
        let near = |time: f64| {
            let near = |peak: &&Peak| (peak.at as f64 - time).abs() <= LATE_MAX * period;
            self.week_peaks.iter().find(near).map(|peak| peak.height)
        };
        let last = self.week_peaks.back()?;
        Some(near(at - self.week)? + last.height - near(last.at as f64 - self.week)?)
    }

    /// How many cells before its peak the last cycle, moved up to `height`, crosses 1.
    fn crossing_before_peak(&self, ring: &Ring, regular: &Regular, height: f64) -> f64 {
        let lifted = 1.0 - (height - regular.last.height);
        let mut cell = regular.last.at;
        while regular.last.at as f64 - cell as f64 <= regular.period {
            match ring.max(cell - 1) {
                Some(value) if value >= lifted => cell -= 1,
                _ => break,
            }
        }
        (regular.last.at - cell) as f64
    }
}

impl Regular {
    fn height(&self, at: f64) -> f64 {
        self.level + self.slope * (at - self.last.at as f64)
    }

    fn deviation(&self, at: f64) -> f64 {
        self.spread * (1.0 + 1.0 / self.count + (at - self.mean_at).powi(2) / self.squares.max(1.0)).sqrt()
    }

    /// The next peak's time; one that is a little late is still awaited.
    fn next_after(&self, now: f64) -> f64 {
        let last = self.last.at as f64;
        let periods = ((now - LATE_MAX * self.period - last) / self.period).ceil().max(1.0);
        last + periods * self.period
    }
}

/// A deviation seen on so many peaks, drawn towards the usual one.
fn shrunk(deviation: f64, count: f64) -> f64 {
    let squares = count * deviation.powi(2) + SPREAD_USUAL_PEAKS * SPREAD_USUAL.powi(2);
    (squares / (count + SPREAD_USUAL_PEAKS)).sqrt()
}

fn push_bounded(peaks: &mut VecDeque<Peak>, peak: Peak, count_max: usize) {
    if peaks.len() == count_max {
        peaks.pop_front();
    }
    peaks.push_back(peak);
}

/// The middle value; of an even number the mean of the middle two. 0 where there is none. Sorts.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { 0.5 * values[middle - 1] + 0.5 * values[middle] }
}

/// The median of the slopes between all pairs (Theil 1950, Sen 1968); pairs of equal times are left out.
pub(crate) fn theil_sen(times: &[f64], values: &[f64]) -> f64 {
    let mut slopes = Vec::new();
    for later in 1..times.len() {
        for earlier in 0..later {
            let distance = times[later] - times[earlier];
            if distance > 0.0 {
                slopes.push((values[later] - values[earlier]) / distance);
            }
        }
    }
    median(&mut slopes)
}

/// The standard normal distribution function, to 1e-7 (Abramowitz and Stegun 1964, formula 26.2.17).
pub(super) fn normal_share_below(z: f64) -> f64 {
    const COEFFICIENTS: [f64; 5] = [0.319_381_530, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let polynomial = COEFFICIENTS.iter().rev().fold(0.0, |sum, coefficient| (sum + coefficient) * t);
    let density = (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let above = (density * polynomial).clamp(0.0, 1.0);
    if z >= 0.0 { 1.0 - above } else { above }
}

//! Exponential smoothing of level, day and week with fixed gains, after Taylor (2003, *Short-term electricity demand forecasting using double
//! seasonal exponential smoothing*), without trend.

use serde::{Deserialize, Serialize};

use super::scale::stored;

/// Gains of level, day and week.
pub(super) const GAINS: [[f64; 3]; 2] = [[0.3, 0.3, 0.02], [0.02, 0.05, 0.15]];
/// It starts from this many weeks.
pub(super) const WEEKS_MIN: usize = 2;

/// Level, and what is added by phase of day and of week.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Smoother {
    gains: [f64; 3],
    level: f64,
    /// Empty before it has started.
    day: Vec<f32>,
    week: Vec<f32>,
}

impl Smoother {
    pub(super) fn new(gains: [f64; 3]) -> Smoother {
        Smoother { gains, level: 0.0, day: Vec::new(), week: Vec::new() }
    }

    pub(super) fn has_started(&self) -> bool {
        !self.day.is_empty()
    }

    /// Starts from values whose first has index `first`: the mean, the means by phase of day, and what remains by phase of week, shrunk.
    pub(super) fn start(&mut self, values: &[f32], centre: f64, first: i64, seasons: (usize, usize)) {
        let (day, week) = seasons;
        let at = |position: usize| f64::from(values[position]) - centre;
        let phase = |position: usize, season: usize| phase_of(first + i64::try_from(position).unwrap_or(0), season);
        self.level = (0..values.len()).map(at).sum::<f64>() / values.len() as f64;
        let by_day = means_by_phase((0..values.len()).map(|i| (phase(i, day), at(i) - self.level)), day, 0.0);
        let rest = |i: usize| at(i) - self.level - by_day[phase(i, day)];
        let by_week = means_by_phase((0..values.len()).map(|i| (phase(i, week), rest(i))), week, 0.5);
        self.day = by_day.into_iter().map(stored).collect();
        // One season only: the week would be the day again.
        self.week = if week == day { Vec::new() } else { by_week.into_iter().map(stored).collect() };
        for position in 0..values.len() {
            self.learn(at(position), first + i64::try_from(position).unwrap_or(0));
        }
    }

    /// Learns the centred value of one index.
    pub(super) fn learn(&mut self, value: f64, index: i64) {
        if !self.has_started() {
            return;
        }
        let day = phase_of(index, self.day.len());
        let week = phase_of(index, self.week.len());
        let by_week = self.week.get(week).map_or(0.0, |w| f64::from(*w));
        let error = value - self.level - f64::from(self.day[day]) - by_week;
        self.level += self.gains[0] * error;
        self.day[day] = stored(f64::from(self.day[day]) + self.gains[1] * error);
        if let Some(w) = self.week.get_mut(week) {
            *w = stored(by_week + self.gains[2] * error);
        }
    }

    /// Writes the forecasts of the indices from `index` on; false before it has started.
    pub(super) fn extend(&self, index: i64, out: &mut [f64]) -> bool {
        if !self.has_started() {
            return false;
        }
        let (mut day, mut week) = (phase_of(index, self.day.len()), phase_of(index, self.week.len()));
        for value in out {
            *value = self.level + f64::from(self.day[day]) + self.week.get(week).map_or(0.0, |w| f64::from(*w));
            day = if day + 1 == self.day.len() { 0 } else { day + 1 };
            week = if week + 1 >= self.week.len() { 0 } else { week + 1 };
        }
        true
    }

    pub(super) fn memory_bytes(&self) -> usize {
        (self.day.capacity() + self.week.capacity()) * size_of::<f32>()
    }
}

/// The phase of an index in a season; 0 where there is no season.
pub(super) fn phase_of(index: i64, season: usize) -> usize {
    let season = i64::try_from(season).unwrap_or(i64::MAX);
    if season == 0 { 0 } else { usize::try_from(index.rem_euclid(season)).unwrap_or(0) }
}

/// Means by phase, each shrunk towards 0 by `pseudo` values.
fn means_by_phase(values: impl Iterator<Item = (usize, f64)>, phases: usize, pseudo: f64) -> Vec<f64> {
    let mut sums = vec![(0.0, pseudo); phases];
    for (phase, value) in values {
        sums[phase].0 += value;
        sums[phase].1 += 1.0;
    }
    sums.into_iter().map(|(sum, count)| if count > 0.0 { sum / count } else { 0.0 }).collect()
}

//! Analogues: the stretches of the past that look most like the newest one, and what followed them (Lorenz 1969; nearest neighbours of time
//! series: Yakowitz 1987).

use serde::{Deserialize, Serialize};

/// How much of a difference of level is forgiven when stretches are compared.
const LEVEL_FORGIVEN: f64 = 0.75;
/// How much of the difference of level is still there one step further.
const LEVEL_KEPT: f64 = 0.98;
/// Stretches looked at, the newest ones.
const CANDIDATES_MAX: usize = 96;

/// One way of looking: how long a stretch, and how many of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Analogue {
    window: usize,
    count: usize,
    /// How many steps back each stretch lies, and its weight; nearest first.
    found: Vec<(usize, f64)>,
}

impl Analogue {
    pub(super) fn new(window: usize, count: usize) -> Analogue {
        Analogue { window, count, found: Vec::with_capacity(count) }
    }

    /// Looks for the stretches nearest to the end of `values`, a whole number of days before it.
    pub(super) fn search(&mut self, values: &[f32], day: usize) {
        self.found.clear();
        let Some(room) = values.len().checked_sub(self.window) else { return };
        let newest = &values[room..];
        for days in 1..=(room / day).min(CANDIDATES_MAX) {
            let back = days * day;
            let distance = distance(newest, &values[room - back..values.len() - back]);
            let place = self.found.partition_point(|(_, other)| *other <= distance);
            if place < self.count {
                self.found.truncate(self.count - 1);
                self.found.insert(place, (back, distance));
            }
        }
        let nearest = self.found.first().map_or(0.0, |(_, distance)| distance.max(1e-9));
        for (_, weight) in &mut self.found {
            *weight = nearest / weight.max(1e-9);
        }
    }

    /// Writes what followed, with the difference of level dying away. `values` are as they were at the search, with more at the end: the
    /// stretches moved on with them. False where nothing was found.
    pub(super) fn extend(&self, values: &[f32], centre: f64, day: usize, out: &mut [f64]) -> bool {
        let known = values.len();
        let Some(room) = known.checked_sub(self.window) else { return false };
        // The oldest values may have been dropped since the search.
        let kept = || self.found.iter().filter(|(back, _)| *back <= room);
        let total: f64 = kept().map(|(_, weight)| weight).sum();
        if total <= 0.0 {
            return false;
        }
        out.fill(-centre);
        for (back, weight) in kept() {
            let end = known - back;
            let start = end - self.window;
            let mut offset = differences(&values[room..], &values[start..end]).0 / self.window as f64;
            let mut from = end;
            for value in &mut *out {
                if from >= known {
                    from -= day;
                }
                *value += weight / total * (f64::from(values[from]) + offset);
                from += 1;
                offset *= LEVEL_KEPT;
            }
        }
        true
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.found.capacity() * size_of::<(usize, f64)>()
    }
}

/// Sums are made side by side, so that they need no order.
const LANES: usize = 8;

/// The sum of the differences and of their squares.
fn differences(a: &[f32], b: &[f32]) -> (f64, f64) {
    let (mut sums, mut squares) = ([0.0_f32; LANES], [0.0_f32; LANES]);
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = a.remainder().iter().zip(b.remainder());
    for (a, b) in a.zip(b) {
        for lane in 0..LANES {
            let difference = a[lane] - b[lane];
            sums[lane] += difference;
            squares[lane] += difference * difference;
        }
    }
    for (a, b) in rest {
        sums[0] += a - b;
        squares[0] += (a - b) * (a - b);
    }
    (sums.iter().map(|sum| f64::from(*sum)).sum(), squares.iter().map(|sum| f64::from(*sum)).sum())
}

/// The mean squared difference, less most of the square of the mean difference.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    let (sum, squares) = differences(a, b);
    let mean = sum / a.len() as f64;
    (squares / a.len() as f64 - LEVEL_FORGIVEN * mean * mean).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_followed_the_most_similar_stretch() {
        // Days of four values; the first and the last whole day are alike but for their level.
        let values = [0.0, 1.0, 4.0, 1.0, 7.0, 7.0, 0.0, 0.0, 3.0, 2.0, 2.0, 3.0, 5.0, 6.0, 9.0, 6.0];
        let mut analogue = Analogue::new(4, 1);
        analogue.search(&values, 4);
        assert_eq!(analogue.found, [(12, 1.0)]);
        let mut path = [0.0; 2];
        assert!(analogue.extend(&values, 0.0, 4, &mut path));
        assert!((path[0] - 12.0).abs() < 1e-9 && (path[1] - (7.0 + 5.0 * LEVEL_KEPT)).abs() < 1e-9, "{path:?}");
    }

    #[test]
    fn levels_count_a_quarter_and_lengths_do_not_matter() {
        for length in [1, 8, 13, 100] {
            let (a, b) = (vec![3.0; length], vec![1.0; length]);
            assert!((distance(&a, &b) - 1.0).abs() < 1e-6, "{length}");
        }
    }

    #[test]
    fn without_a_stretch_there_is_no_path() {
        let mut analogue = Analogue::new(4, 2);
        analogue.search(&[1.0; 7], 4);
        assert!(!analogue.extend(&[1.0; 7], 0.0, 4, &mut [0.0; 3]));
    }
}

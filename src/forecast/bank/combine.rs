//! Weights of the members from their errors, and their weighted median.

/// How much better a member must be: its weight falls with this power of its error.
const POWER: i32 = 3;
/// Members with less than this part of an equal share are left out.
const SHARE_MIN: f64 = 0.5;
/// An error below this, on the plain scale, is no error.
const ERROR_MIN: f64 = 1e-12;

/// The weight of each member, adding up to 1; those that are not `active` have none. `errors` are sums over the same steps.
pub(super) fn weights(errors: &[f64], active: &[bool]) -> Vec<f64> {
    let candidates = || errors.iter().zip(active).filter(|(_, active)| **active).map(|(error, _)| *error + ERROR_MIN);
    let smallest = candidates().fold(f64::INFINITY, f64::min);
    let share_min = SHARE_MIN / candidates().count().max(1) as f64;
    let raw = |error: f64| (smallest / (error + ERROR_MIN)).powi(POWER);
    let mut weights: Vec<f64> =
        errors.iter().zip(active).map(|(error, active)| if *active { raw(*error) } else { 0.0 }).collect();
    normalise(&mut weights);
    weights.iter_mut().filter(|weight| **weight < share_min).for_each(|weight| *weight = 0.0);
    normalise(&mut weights);
    weights
}

fn normalise(weights: &mut [f64]) {
    let total: f64 = weights.iter().sum();
    if total > 0.0 {
        weights.iter_mut().for_each(|weight| *weight /= total);
    }
}

/// Makes weighted medians of one step after another; it remembers the last order, which changes little from step to step.
pub(super) struct Median<'a> {
    weights: &'a [f64],
    order: Vec<usize>,
}

impl<'a> Median<'a> {
    pub(super) fn new(weights: &'a [f64]) -> Median<'a> {
        Median { weights, order: (0..weights.len()).filter(|member| weights[*member] > 0.0).collect() }
    }

    /// The weighted median of one value a member, in proportion between the middles of the cumulative weights.
    pub(super) fn of(&mut self, values: &[f32]) -> f64 {
        for sorted in 1..self.order.len() {
            let mut place = sorted;
            while place > 0 && values[self.order[place - 1]] > values[self.order[place]] {
                self.order.swap(place - 1, place);
                place -= 1;
            }
        }
        let mut below = 0.0;
        let mut last: Option<(f64, f64)> = None;
        for &member in &self.order {
            let (weight, value) = (self.weights[member], f64::from(values[member]));
            let middle = below + weight / 2.0;
            below += weight;
            if middle < 0.5 {
                last = Some((middle, value));
                continue;
            }
            let Some((before, lower)) = last else { return value };
            return lower + (value - lower) * (0.5 - before) / (middle - before);
        }
        last.map_or(0.0, |(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_fall_with_the_cube_of_the_error() {
        let check = |errors: &[f64], active: &[bool], expected: &[f64]| {
            let weights = weights(errors, active);
            let near = weights.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6);
            assert!(near && weights.len() == expected.len(), "{errors:?}: {weights:?}");
        };
        check(&[1.0, 1.0], &[true, true], &[0.5, 0.5]);
        // 1 and 1/8; then 1/9 is below half of a third and left out.
        check(&[1.0, 2.0], &[true, true], &[1.0, 0.0]);
        check(&[1.0, 1.25], &[true, true], &[1.0 / 1.512, 0.512 / 1.512]);
        check(&[1.0, 0.5, 1.0], &[true, false, true], &[0.5, 0.0, 0.5]);
        check(&[0.0, 0.0, 5.0], &[true, true, true], &[0.5, 0.5, 0.0]);
        check(&[1.0], &[false], &[0.0]);
    }

    #[test]
    fn the_median_lies_between_the_middles_of_the_weights() {
        let check = |weights: &[f64], values: &[f32], expected: f64| {
            let median = Median::new(weights).of(values);
            assert!((median - expected).abs() < 1e-9, "{weights:?} {values:?}: {median}");
        };
        check(&[1.0], &[7.0], 7.0);
        check(&[0.5, 0.5], &[1.0, 3.0], 2.0);
        check(&[0.25, 0.5, 0.25], &[9.0, 2.0, 1.0], 2.0);
        // Middles at 0.1, 0.35, 0.75: 0.5 lies three eighths of the way from the second to the third.
        check(&[0.2, 0.3, 0.5], &[0.0, 8.0, 16.0], 11.0);
        // What has no weight has no say; more than half of the weight at the end decides alone.
        check(&[0.0, 0.4, 0.6], &[-100.0, 1.0, 2.0], 1.6);
    }
}

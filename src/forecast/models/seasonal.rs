//! Classical decomposition: what each phase of a season adds to the moving average, or multiplies it by.

/// How season and level come together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blend {
    Sum,
    Product,
}

/// The mean of each phase around the centred moving average over one season (Hyndman and Athanasopoulos 2021, section
/// 3.4), centred on 0 for sums and on 1 for products. `indices[phase]`, the first value having phase 0.
///
/// Needs two whole seasons of at least 2 steps, and positive values for products.
pub(super) fn seasonal_indices(values: &[f64], season: usize, blend: Blend) -> Vec<f64> {
    let half = season / 2;
    let mut sums = vec![0.0; season];
    let mut counts = vec![0_usize; season];
    for at in half..values.len() - half {
        let window = &values[at - half..=at + half];
        let mut sum: f64 = window.iter().sum();
        if season.is_multiple_of(2) {
            // One value too many: both ends count half.
            sum -= f64::midpoint(window[0], window[window.len() - 1]);
        }
        let average = sum / season as f64;
        sums[at % season] += match blend {
            Blend::Sum => values[at] - average,
            Blend::Product => values[at] / average,
        };
        counts[at % season] += 1;
    }
    let mut indices: Vec<f64> = sums.iter().zip(&counts).map(|(sum, count)| sum / (*count).max(1) as f64).collect();
    let mean = indices.iter().sum::<f64>() / season as f64;
    for index in &mut indices {
        match blend {
            Blend::Sum => *index -= mean,
            Blend::Product => *index /= mean,
        }
    }
    indices
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(blend: Blend, of: impl Fn(usize) -> f64, expected: &[f64]) {
        let values: Vec<f64> = (0..6 * expected.len()).map(of).collect();
        let indices = seasonal_indices(&values, expected.len(), blend);
        for (index, expected) in indices.iter().zip(expected) {
            assert!((index - expected).abs() < 1e-9, "{indices:?}");
        }
    }

    #[test]
    fn finds_what_a_season_adds_to_a_line() {
        let odd = [-1.0, 0.0, 1.0];
        check(Blend::Sum, |at| 5.0 + 0.5 * at as f64 + odd[at % 3], &odd);
        let even = [-3.0, 1.0, 0.0, 2.0];
        check(Blend::Sum, |at| 5.0 - 0.25 * at as f64 + even[at % 4], &even);
    }

    #[test]
    fn finds_what_a_season_multiplies_by() {
        let factors = [0.5, 1.0, 1.5];
        check(Blend::Product, |at| 7.0 * factors[at % 3], &factors);
    }
}

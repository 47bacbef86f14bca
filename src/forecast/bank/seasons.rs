//! Which seasons a series may have: those of the clock, else what its own values show.
//!
//! A season that is not there costs nothing, since weights go elsewhere; one that is missing costs a fifth of the error. So the seasons of the
//! clock are taken without a test, and only where there are none a period is looked for: by the highest peaks of the periodogram (Schuster
//! 1898, with Hann's window), each made precise and confirmed by the autocorrelation.

/// Lengths of the clock, in milliseconds: an hour, a day, a week.
const CLOCK: [i64; 3] = [3_600_000, 86_400_000, 604_800_000];
/// A season is looked for over this many of its cycles, at least.
const CYCLES_MIN: f64 = 2.5;
/// Peaks of the periodogram that are looked at.
const PEAKS: usize = 5;
/// Values that the search looks at: the newest.
const VALUES_MAX: usize = 2048;
const VALUES_MIN: usize = 24;
/// A season explains at least this share of the variance.
const CORRELATION_MIN: f64 = 0.2;
/// Differences over a season are below this part of those over parts of it.
const DIFFERENCE_MAX: f64 = 0.8;

/// The seasons of the clock that a history of `count` values has room for, in steps, the two that matter most, ascending; `step` in
/// milliseconds.
pub(crate) fn of_clock(step: i64, count: usize) -> Vec<usize> {
    let steps = |length: i64| {
        let steps = usize::try_from(length / step.max(1)).unwrap_or(0);
        let has_room = steps >= 2 && count as f64 >= CYCLES_MIN * steps as f64 && length % step.max(1) == 0;
        has_room.then_some(steps)
    };
    match CLOCK.map(steps) {
        [_, Some(day), Some(week)] => vec![day, week],
        [Some(hour), Some(day), None] => vec![hour, day],
        all => all.into_iter().flatten().collect(),
    }
}

/// The length in steps of a season that the values show; none where they show none.
pub(crate) fn of_values(values: &[f64]) -> Option<usize> {
    let newest = &values[values.len().saturating_sub(VALUES_MAX)..];
    if newest.len() < VALUES_MIN {
        return None;
    }
    let evened = evened(newest)?;
    let power = periodogram(&evened);
    let mut peaks: Vec<usize> = (3..power.len().saturating_sub(1))
        .filter(|cycles| power[*cycles] >= power[cycles - 1] && power[*cycles] > power[cycles + 1])
        .collect();
    peaks.sort_by(|a, b| power[*b].total_cmp(&power[*a]).then(a.cmp(b)));
    peaks.into_iter().take(PEAKS).find_map(|cycles| confirmed(&evened, cycles))
}

/// Gaps closed, trend taken out, the outermost hundredths cut, scaled; none where the values do not differ.
fn evened(values: &[f64]) -> Option<Vec<f64>> {
    let first = values.iter().copied().find(|value| value.is_finite())?;
    let largest =
        values.iter().filter(|value| value.is_finite()).fold(0.0_f64, |largest, value| largest.max(value.abs()));
    if largest <= 0.0 {
        return None;
    }
    let mut last = first / largest;
    let mut evened: Vec<f64> = values
        .iter()
        .map(|value| {
            last = if value.is_finite() { value / largest } else { last };
            last
        })
        .collect();
    let middle = (evened.len() as f64 - 1.0) / 2.0;
    let mean = evened.iter().sum::<f64>() / evened.len() as f64;
    let products: f64 = evened.iter().enumerate().map(|(i, y)| (i as f64 - middle) * (y - mean)).sum();
    let squares: f64 = (0..evened.len()).map(|i| (i as f64 - middle).powi(2)).sum();
    for (i, value) in evened.iter_mut().enumerate() {
        *value -= mean + products / squares * (i as f64 - middle);
    }
    let mut sorted = evened.clone();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted[sorted.len() / 100], sorted[sorted.len() - 1 - sorted.len() / 100]);
    if high - low <= 1e-9 {
        return None;
    }
    evened.iter_mut().for_each(|value| *value = (value.clamp(low, high) - low) / (high - low) - 0.5);
    let mean = evened.iter().sum::<f64>() / evened.len() as f64;
    evened.iter_mut().for_each(|value| *value -= mean);
    Some(evened)
}

/// The power at 0, 1, 2, … cycles over the whole length, through Hann's window.
fn periodogram(values: &[f64]) -> Vec<f64> {
    let count = values.len();
    let window = |i: usize| 0.5 - 0.5 * (2.0 * std::f64::consts::PI * (i as f64 + 0.5) / count as f64).cos();
    let windowed: Vec<f64> = values.iter().enumerate().map(|(i, value)| value * window(i)).collect();
    (0..=count / 2).map(|cycles| power(&windowed, cycles)).collect()
}

/// The power of one frequency (Goertzel 1958).
fn power(values: &[f64], cycles: usize) -> f64 {
    let twice = 2.0 * (2.0 * std::f64::consts::PI * cycles as f64 / values.len() as f64).cos();
    let (mut newest, mut before) = (0.0, 0.0);
    for value in values {
        (newest, before) = (value + twice * newest - before, newest);
    }
    newest * newest + before * before - twice * newest * before
}

/// The season near a peak, at the highest autocorrelation, if it is one.
fn confirmed(values: &[f64], cycles: usize) -> Option<usize> {
    let count = values.len();
    let (shortest, longest) =
        (count as f64 / (cycles as f64 + 1.0) * 0.95, count as f64 / (cycles as f64 - 1.0) * 1.05);
    let (shortest, longest) = (super::whole(shortest).max(2), super::whole(longest).min(count / 2 - 1));
    let season = (shortest..=longest).max_by(|a, b| correlation(values, *a).total_cmp(&correlation(values, *b)))?;
    let own = correlation(values, season);
    let is_peak = own > CORRELATION_MIN
        && own >= correlation(values, season - 1)
        && own >= correlation(values, season + 1)
        && count as f64 >= CYCLES_MIN * season as f64;
    let parts = [season / 3, season / 2, 2 * season / 3].map(|part| difference(values, part.max(1)));
    (is_peak && difference(values, season) < DIFFERENCE_MAX * parts.iter().sum::<f64>() / 3.0).then_some(season)
}

fn correlation(values: &[f64], lag: usize) -> f64 {
    let own: f64 = values.iter().map(|value| value * value).sum();
    values[lag..].iter().zip(values).map(|(a, b)| a * b).sum::<f64>() / own.max(1e-300)
}

fn difference(values: &[f64], lag: usize) -> f64 {
    values[lag..].iter().zip(values).map(|(a, b)| (a - b).abs()).sum::<f64>() / (values.len() - lag) as f64
}

#[cfg(test)]
mod tests {
    use super::super::tests::noise;
    use super::*;

    #[test]
    fn the_clock_gives_the_two_seasons_that_fit() {
        let check =
            |step: i64, count: usize, seasons: &[usize]| assert_eq!(of_clock(step, count), seasons, "{step} {count}");
        check(3_600_000, 700, &[24, 168]);
        check(3_600_000, 419, &[24]);
        check(3_600_000, 59, &[]);
        check(300_000, 4000, &[12, 288]);
        check(300_000, 6000, &[288, 2016]);
        check(15_000, 4000, &[240]);
        check(86_400_000, 100, &[7]);
        // A step that no season is a multiple of.
        check(7_000_000, 1000, &[]);
        check(0, 1000, &[]);
    }

    #[test]
    fn the_values_show_a_season() {
        let noise = noise(700, 21);
        let check = |name: &str, value: &dyn Fn(usize) -> f64, season: Option<usize>| {
            let values: Vec<f64> = noise.iter().enumerate().map(|(i, e)| value(i) + e).collect();
            assert_eq!(of_values(&values), season, "{name}");
        };
        check("a sawtooth", &|i| (i % 37) as f64 * 0.2, Some(37));
        check("a job every 20 steps", &|i| if i % 20 < 2 { 8.0 } else { 0.0 }, Some(20));
        check(
            "with gaps and a trend",
            &|i| if i % 9 == 4 { f64::NAN } else { (i % 50) as f64 * 0.2 + i as f64 },
            Some(50),
        );
        check("noise", &|_| 0.0, None);
        check("a step", &|i| if i < 300 { 0.0 } else { 50.0 }, None);
        assert_eq!(of_values(&[3.0; 200]), None);
        assert_eq!(of_values(&[f64::NAN; 200]), None);
        assert_eq!(of_values(&[1.0, 2.0]), None);
    }
}

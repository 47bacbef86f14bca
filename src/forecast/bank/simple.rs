//! The members that need nothing but the newest values: naive ones, and those that follow a change.
//!
//! Each writes a path in the unit of `values` and answers whether it could.

fn last_of(values: &[f32], count: usize) -> Option<&[f32]> {
    values.len().checked_sub(count).filter(|_| count > 0).map(|from| &values[from..])
}

fn mean(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(*value)).sum::<f64>() / values.len() as f64
}

/// The newest value, for ever.
pub(super) fn last(values: &[f32], out: &mut [f64]) -> bool {
    let Some(last) = values.last() else { return false };
    out.fill(f64::from(*last));
    true
}

/// What was one season ago.
pub(super) fn seasonal(values: &[f32], season: usize, out: &mut [f64]) -> bool {
    let Some(cycle) = last_of(values, season) else { return false };
    for (value, then) in out.iter_mut().zip(cycle.iter().cycle()) {
        *value = f64::from(*then);
    }
    true
}

/// What was one season ago, moved by how much the newest `window` values differ from theirs a season ago.
pub(super) fn offset(values: &[f32], season: usize, window: usize, out: &mut [f64]) -> bool {
    let window = window.max(1);
    let Some(recent) = last_of(values, season + window) else { return false };
    let offset = mean(&recent[season..]) - mean(&recent[..window]);
    seasonal(values, season, out);
    out.iter_mut().for_each(|value| *value += offset);
    true
}

/// Least squares through the newest `count` values, drawn on.
pub(super) fn line(values: &[f32], count: usize, out: &mut [f64]) -> bool {
    let Some(points) = last_of(values, count.max(3)) else { return false };
    let middle = (points.len() as f64 - 1.0) / 2.0;
    let mean = mean(points);
    let products: f64 = points.iter().enumerate().map(|(i, y)| (i as f64 - middle) * (f64::from(*y) - mean)).sum();
    // The sum of (i − middle)² over 0..n.
    let squares = points.len() as f64 * ((points.len() * points.len()) as f64 - 1.0) / 12.0;
    let slope = products / squares;
    for (step, value) in out.iter_mut().enumerate() {
        *value = mean + slope * (middle + 1.0 + step as f64);
    }
    true
}

/// The mean of the last season, drawn on with the difference of the last two, plus their mean profile.
pub(super) fn profile_line(values: &[f32], season: usize, out: &mut [f64]) -> bool {
    let Some(cycles) = last_of(values, 2 * season) else { return false };
    let (before, newest) = cycles.split_at(season);
    let (mean_before, mean_newest) = (mean(before), mean(newest));
    let slope = (mean_newest - mean_before) / season as f64;
    let middle = (season as f64 - 1.0) / 2.0;
    let profile: Vec<f64> = (0..season)
        .map(|phase| {
            let both = f64::from(before[phase]) - mean_before + f64::from(newest[phase]) - mean_newest;
            both / 2.0 - slope * (phase as f64 - middle)
        })
        .collect();
    for (step, (value, profile)) in out.iter_mut().zip(profile.iter().cycle()).enumerate() {
        let ahead = season as f64 + step as f64 - middle;
        *value = mean_newest + slope * ahead + profile;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simple_members_say_what_a_hand_would() {
        let check = |name: &str, made: bool, out: [f64; 4], expected: [f64; 4]| {
            assert!(made, "{name}");
            let near = out.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9);
            assert!(near, "{name}: {out:?}");
        };
        let values = [0.0, 1.0, 2.0, 1.0, 2.0, 3.0];
        let mut out = [0.0; 4];
        check("last", last(&values, &mut out), out, [3.0; 4]);
        check("seasonal", seasonal(&values, 3, &mut out), out, [1.0, 2.0, 3.0, 1.0]);
        check("offset", offset(&values, 3, 1, &mut out), out, [2.0, 3.0, 4.0, 2.0]);
        check("line", line(&values, 3, &mut out), out, [4.0, 5.0, 6.0, 7.0]);
        // The cycles rise by 1 in 3 steps around (−1, 0, 1): a slope of a third, and what is left of the profile.
        check("profile", profile_line(&values, 3, &mut out), out, [2.0, 3.0, 4.0, 3.0]);
    }

    #[test]
    fn none_speaks_without_the_values_it_needs() {
        let mut out = [0.0; 2];
        assert!(!last(&[], &mut out) && !seasonal(&[1.0], 2, &mut out) && !offset(&[1.0; 3], 3, 1, &mut out));
        assert!(!line(&[1.0; 3], 4, &mut out) && !profile_line(&[1.0; 5], 3, &mut out));
    }
}

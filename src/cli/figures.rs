//! Times and numbers as they are written: for people short, for programs exact.

use crate::model::Timestamp;

/// A time for people: without seconds where there are none.
pub(super) fn readable(at: Timestamp) -> String {
    let Ok(time) = jiff::Timestamp::from_millisecond(at.0) else { return at.to_string() };
    let seconds = if at.0.rem_euclid(60_000) == 0 { "" } else { ":%S" };
    time.strftime(&format!("%Y-%m-%d %H:%M{seconds}")).to_string()
}

/// A number that reads back as the same, without hundreds of digits.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || (1e-5..1e16).contains(&size) { value.to_string() } else { format!("{value:e}") }
}

/// A number for people: five significant digits.
pub(super) fn short(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        return "0".to_owned();
    }
    if !(1e-4..1e9).contains(&size) {
        return format!("{value:.3e}");
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 8 by the range above")]
    let decimals = (4.0 - size.log10().floor()).clamp(0.0, 8.0) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_for_people_and_exact_for_programs() {
        for (value, people, programs) in [
            (0.0, "0", "0"),
            (1.0, "1", "1"),
            (0.123_456_789, "0.12346", "0.123456789"),
            (-1234.5678, "-1234.6", "-1234.5678"),
            (1e300, "1.000e300", "1e300"),
            (123_456_789.0, "123456789", "123456789"),
            (1e-9, "1.000e-9", "1e-9"),
        ] {
            assert_eq!((short(value).as_str(), number(value).as_str()), (people, programs));
        }
    }
}

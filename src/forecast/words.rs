//! Figures in sentences: numbers without needless digits, spans of time as people say them.

use crate::model::Millis;

/// Three significant digits, without trailing zeros: `0.9`, `123`, `1.25`, `1.2e9`.
pub(super) fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let size = value.abs();
    if !(1e-4..1e7).contains(&size) {
        let text = format!("{value:.2e}");
        return text.replacen(".00e", "e", 1);
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 6 by the range above")]
    let decimals = (2.0 - size.log10().floor()).clamp(0.0, 6.0) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// The largest unit that fits and the next: `1 h 35 min`, `24 min`, `40 s`, `2 d 3 h`.
pub(super) fn span(millis: Millis) -> String {
    const UNITS: [(&str, i64); 4] = [("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)];
    let seconds = (millis.0.max(0) + 500) / 1000;
    let first = UNITS.iter().position(|(_, length)| seconds >= *length).unwrap_or(3);
    let (unit, length) = UNITS[first];
    let mut text = format!("{} {unit}", seconds / length);
    // Minutes do not need their seconds.
    if first < 2 {
        let (unit, length) = UNITS[first + 1];
        let rest = seconds % UNITS[first].1 / length;
        if rest > 0 {
            text.push_str(&format!(" {rest} {unit}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_numbers_and_spans_as_people_do() {
        for (value, text) in
            [(0.9, "0.9"), (0.012_345, "0.0123"), (123.456, "123"), (-1.25, "-1.25"), (1e12, "1e12"), (0.0, "0")]
        {
            assert_eq!(number(value), text);
        }
        for (seconds, text) in
            [(40, "40 s"), (0, "0 s"), (1440, "24 min"), (5700, "1 h 35 min"), (7200, "2 h"), (183_600, "2 d 3 h")]
        {
            assert_eq!(span(Millis::from_secs(seconds)), text);
        }
    }
}

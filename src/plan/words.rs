//! Figures in sentences: whole per cent, durations with their unit, numbers as short as they are exact enough.

use crate::model::Millis;

/// A probability or share: whole per cent; 0 and 100 only when exact.
pub(super) fn percent(share: f64) -> String {
    if !share.is_finite() {
        return "unknown".to_owned();
    }
    let whole = (share * 100.0).round();
    if 0.0 < share && share < 0.01 {
        "under 1 %".to_owned()
    } else if 0.99 < share && share < 1.0 {
        "over 99 %".to_owned()
    } else {
        format!("{whole} %")
    }
}

/// A length of time: `40 s`, `24 min`, `1 h 35 min`, `2.3 d`.
pub(super) fn span(length: Millis) -> String {
    let seconds = length.0.max(0) / 1000;
    let minutes = seconds / 60;
    match minutes {
        _ if seconds < 90 => format!("{seconds} s"),
        0..60 => format!("{minutes} min"),
        60..2880 if minutes % 60 == 0 => format!("{} h", minutes / 60),
        60..2880 => format!("{} h {} min", minutes / 60, minutes % 60),
        _ => format!("{} d", figure(length.as_secs_f64() / 86_400.0)),
    }
}

/// A number with about three digits and no trailing zeros: `0.75`, `8.24`, `130`.
pub(super) fn figure(number: f64) -> String {
    let size = number.abs();
    let text = match size {
        _ if size >= 100.0 || !size.is_finite() => format!("{number:.0}"),
        _ if size >= 10.0 => format!("{number:.1}"),
        _ if !(1e-9..0.01).contains(&size) => format!("{number:.2}"),
        _ => format!("{number:.6}"),
    };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// An amount of a resource: cores, or bytes in binary units.
pub(super) fn amount(resource: &str, value: f64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    match resource {
        "cpu" if figure(value) == "1" => "1 core".to_owned(),
        "cpu" => format!("{} cores", figure(value)),
        "memory" | "disk" => {
            let mut rest = value;
            let mut unit = 0;
            while rest >= 1024.0 && unit + 1 < UNITS.len() {
                rest /= 1024.0;
                unit += 1;
            }
            format!("{} {}", figure(rest), UNITS[unit])
        }
        _ => figure(value),
    }
}

/// `1 replica`, `3 replicas`.
pub(super) fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// A float as a count: fractions are cut, what is below zero or no number is 0, what is too large is the largest.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, which is what is wanted")]
pub(super) fn whole(number: f64) -> u32 {
    number as u32
}

/// That share of so many, rounded down. A little is added first: 10 % of 30 is 3, whatever the last bit says.
pub(super) fn share_of(share: f64, of: usize) -> usize {
    usize::try_from(whole(share * of as f64 + 1e-9)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_figures_as_the_page_does() {
        for (share, text) in [
            (0.0, "0 %"),
            (0.004, "under 1 %"),
            (0.72, "72 %"),
            (0.997, "over 99 %"),
            (1.0, "100 %"),
            (f64::NAN, "unknown"),
        ] {
            assert_eq!(percent(share), text);
        }
        for (seconds, text) in
            [(40, "40 s"), (24 * 60, "24 min"), (95 * 60, "1 h 35 min"), (7200, "2 h"), (200_000, "2.31 d")]
        {
            assert_eq!(span(Millis::from_secs(seconds)), text);
        }
        for (number, text) in [(8.24, "8.24"), (9.0, "9"), (12.34, "12.3"), (0.75, "0.75"), (130.4, "130"), (0.0, "0")]
        {
            assert_eq!(figure(number), text);
        }
        assert_eq!(amount("memory", 1.5 * 1024.0 * 1024.0 * 1024.0), "1.5 GiB");
        assert_eq!(share_of(0.1, 30), 3);
    }
}

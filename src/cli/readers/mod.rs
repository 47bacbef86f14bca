//! Series from outside: CSV files, OpenMetrics text, and servers with Prometheus's query API.
//!
//! Whatever is wrong with a file is said with its place and with what would be right; the first such place ends the
//! reading, since what follows it would be guesswork.

pub(super) mod csv;
pub(super) mod openmetrics;
pub(super) mod prometheus;

use std::fmt;
use std::io::{BufRead, BufReader, IsTerminal as _};
use std::path::Path;

use anyhow::Context as _;

use crate::model::{Sample, Timestamp};

/// The most samples that are read.
pub(super) const SAMPLES_MAX: usize = 100_000_000;
/// The most series that are read.
pub(super) const SERIES_MAX: usize = 1_000_000;
/// A number of seconds above this is one of milliseconds: as seconds it would lie beyond the year 5000.
const MILLIS_FROM: f64 = 1e11;
/// How many letters of a wrong text are shown.
const SHOWN_MAX: usize = 60;

/// How a file writes its times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum TimeForm {
    /// Seconds since the Unix epoch, with a fraction where there is one.
    #[default]
    Seconds,
    /// Milliseconds since the Unix epoch.
    Millis,
    /// RFC 3339 in UTC.
    Rfc3339,
}

impl TimeForm {
    /// A moment in this form.
    pub(super) fn write(self, at: Timestamp) -> String {
        match self {
            TimeForm::Seconds => {
                let (seconds, rest) = (at.0.div_euclid(1000), at.0.rem_euclid(1000));
                if rest == 0 {
                    return seconds.to_string();
                }
                // Before the epoch the fraction counts backwards.
                let text = format!("{:.3}", at.as_secs_f64());
                text.trim_end_matches('0').to_owned()
            }
            TimeForm::Millis => at.0.to_string(),
            TimeForm::Rfc3339 => {
                jiff::Timestamp::from_millisecond(at.0).map_or_else(|_| at.to_string(), |at| at.to_string())
            }
        }
    }
}

/// One series of a file.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Series {
    /// Its name, as it stands in the file.
    pub(super) name: String,
    /// Its samples in time order, each time once; a missing value is a NaN.
    pub(super) samples: Vec<Sample>,
}

/// What a file of series holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Table {
    /// The series, in the order in which they first appear.
    pub(super) series: Vec<Series>,
    /// How the first row writes its time.
    pub(super) form: TimeForm,
    /// How many values were left out because their series has one at that time already.
    pub(super) repeated: usize,
}

/// What is wrong with a file, and what would be right.
#[derive(Debug)]
pub(super) struct ReadError {
    /// The file.
    pub(super) file: String,
    /// The line, from 1; 0 where the file as a whole is meant.
    pub(super) line: u64,
    /// What is wrong.
    pub(super) message: String,
    /// What would be right.
    pub(super) help: String,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}\n        {}", self.file, self.message, self.help),
            line => write!(f, "{}:{line}: {}\n        {}", self.file, self.message, self.help),
        }
    }
}

impl std::error::Error for ReadError {}

/// A file, or standard input where it is called `-`, with its name in messages.
///
/// # Errors
/// Where it cannot be opened, and where standard input is a terminal: nobody types a history.
pub(super) fn open(file: &Path) -> anyhow::Result<(String, Box<dyn BufRead>)> {
    if file == Path::new("-") {
        let stdin = std::io::stdin();
        anyhow::ensure!(!stdin.is_terminal(), "standard input is a terminal: pipe a file into it, or name one");
        return Ok(("standard input".to_owned(), Box::new(stdin.lock())));
    }
    let name = file.display().to_string();
    let opened = std::fs::File::open(file).with_context(|| format!("{name} cannot be read"))?;
    Ok((name, Box::new(BufReader::with_capacity(1 << 16, opened))))
}

/// A moment as people write it: seconds (perhaps with a fraction) or milliseconds since the Unix epoch, or RFC 3339.
pub(super) fn parse_time(text: &str) -> Option<(Timestamp, TimeForm)> {
    let text = text.trim();
    if let Ok(number) = text.parse::<f64>() {
        let form = if number.abs() > MILLIS_FROM { TimeForm::Millis } else { TimeForm::Seconds };
        let millis = if form == TimeForm::Millis { number } else { number * 1000.0 };
        // Beyond this a time is no time; within it the conversion is exact.
        if !millis.is_finite() || millis.abs() > 1e15 {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "within 1e15 by the check above")]
        return Some((Timestamp(millis.round() as i64), form));
    }
    let at: jiff::Timestamp = text.parse().ok()?;
    Some((Timestamp(at.as_millisecond()), TimeForm::Rfc3339))
}

/// A value; a missing one is a NaN.
pub(super) fn parse_value(text: &str) -> Option<f64> {
    let text = text.trim();
    if text.is_empty() { Some(f64::NAN) } else { text.parse().ok() }
}

/// A text for a message: quoted, without control characters, and not too long.
pub(super) fn shown(text: &str) -> String {
    let clean: String = text.chars().take(SHOWN_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let dots = if text.chars().count() > SHOWN_MAX { "…" } else { "" };
    format!("`{clean}{dots}`")
}

/// Puts samples in time order and leaves one for each time, the first that was given; answers how many went.
pub(super) fn settle(samples: &mut Vec<Sample>) -> usize {
    let before = samples.len();
    samples.sort_by_key(|sample| sample.at);
    samples.dedup_by_key(|sample| sample.at);
    before - samples.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_three_forms_and_written_in_their_own() {
        for (text, millis, again) in [
            ("1767225600", 1_767_225_600_000, "1767225600"),
            (" 1767225600.25 ", 1_767_225_600_250, "1767225600.25"),
            ("1767225600000", 1_767_225_600_000, "1767225600000"),
            ("-1.5", -1500, "-1.5"),
            ("1.7672256e9", 1_767_225_600_000, "1767225600"),
            ("2026-01-01T00:00:00Z", 1_767_225_600_000, "2026-01-01T00:00:00Z"),
            ("2026-01-01 01:00:00.5+01:00", 1_767_225_600_500, "2026-01-01T00:00:00.5Z"),
        ] {
            let (at, form) = parse_time(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((at.0, form.write(at).as_str()), (millis, again), "{text}");
        }
        for wrong in ["", "yesterday", "NaN", "inf", "1e300", "2026-01-01", "2026-13-01T00:00:00Z"] {
            assert_eq!(parse_time(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn samples_are_put_in_order_and_each_time_stays_once() {
        let sample = |at: i64, value: f64| Sample { at: Timestamp(at), value };
        let mut samples = vec![sample(3, 1.0), sample(1, 2.0), sample(3, 4.0)];
        assert_eq!(settle(&mut samples), 1);
        assert_eq!(samples, [sample(1, 2.0), sample(3, 1.0)]);
    }
}

//! Series in CSV: a row for each value, or a column for each series.
//!
//! ```text
//! series,timestamp,value        the columns in any order; others are not looked at
//! timestamp,api,web             a column for each series
//! ```
//!
//! Quoting as in RFC 4180; a byte order mark and Windows line ends do no harm. A value is missing where it is empty
//! or NaN.

use std::collections::HashMap;
use std::io::Read;

use super::{ReadError, SAMPLES_MAX, SERIES_MAX, Series, Table, TimeForm, parse_time, parse_value, settle, shown};
use crate::model::{Sample, Timestamp};

const HEADER_HELP: &str = "begin with a line `series,timestamp,value`, or `timestamp` and a column for each series";

/// Where what is wanted stands in a row.
enum Layout {
    Long { series: usize, timestamp: usize, value: usize },
    Wide { timestamp: usize },
}

/// Reads series from CSV; `file` is its name in messages.
///
/// # Errors
/// The first place that cannot be understood, or beyond a limit.
pub(in crate::cli) fn read(file: &str, text: impl Read) -> Result<Table, ReadError> {
    let mut reader = ::csv::ReaderBuilder::new().flexible(true).from_reader(text);
    let error = |line: u64, message: String, help: &str| ReadError {
        file: file.to_owned(),
        line,
        message,
        help: help.to_owned(),
    };
    let header = reader.headers().map_err(|e| unreadable(file, &e))?.clone();
    let layout = layout(&header).map_err(|message| error(1, message, HEADER_HELP))?;
    let mut rows = Rows::new(&header, &layout);
    let mut record = ::csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(|e| unreadable(file, &e))? {
        let line = record.position().map_or(0, ::csv::Position::line);
        if record.len() != header.len() {
            let message = format!("{} in this row, {} in the header", fields(record.len()), header.len());
            return Err(error(line, message, "a row has a field for each column; quote a text that has a comma"));
        }
        rows.take(&record, &layout).map_err(|(message, help)| error(line, message, help))?;
    }
    let table = rows.finish();
    if table.series.iter().all(|series| series.samples.is_empty()) {
        return Err(error(0, "there is no row below the header".to_owned(), "give a row for each time"));
    }
    Ok(table)
}

fn fields(count: usize) -> String {
    if count == 1 { "1 field".to_owned() } else { format!("{count} fields") }
}

fn unreadable(file: &str, error: &::csv::Error) -> ReadError {
    let line = error.position().map_or(0, ::csv::Position::line);
    let (message, help) = match error.kind() {
        ::csv::ErrorKind::Utf8 { .. } => ("not UTF-8".to_owned(), "save the file as UTF-8"),
        ::csv::ErrorKind::Io(error) => (error.to_string(), "make it readable"),
        _ => (error.to_string(), HEADER_HELP),
    };
    ReadError { file: file.to_owned(), line, message, help: help.to_owned() }
}

fn layout(header: &::csv::StringRecord) -> Result<Layout, String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (index, name) in header.iter().enumerate() {
        if seen.insert(name.trim().to_owned(), index).is_some() {
            return Err(format!("there are two columns {}", shown(name.trim())));
        }
    }
    let Some(timestamp) = seen.get("timestamp").copied() else {
        let names: Vec<&str> = header.iter().take(8).collect();
        return Err(format!("no column is called `timestamp` in {}", shown(&names.join(","))));
    };
    match (seen.get("series"), seen.get("value")) {
        (Some(series), Some(value)) => Ok(Layout::Long { series: *series, timestamp, value: *value }),
        (Some(_), None) => Err("there is a column `series` and none `value`".to_owned()),
        (None, _) if header.len() == 1 => Err("there is a column `timestamp` and no other".to_owned()),
        (None, _) => Ok(Layout::Wide { timestamp }),
    }
}

/// The rows so far.
struct Rows {
    series: Vec<Series>,
    by_name: HashMap<String, usize>,
    form: Option<TimeForm>,
    samples: usize,
}

impl Rows {
    fn new(header: &::csv::StringRecord, layout: &Layout) -> Rows {
        let names = match layout {
            Layout::Long { .. } => Vec::new(),
            Layout::Wide { timestamp } => {
                let others = header.iter().enumerate().filter(|(column, _)| column != timestamp);
                others.map(|(_, name)| Series { name: name.trim().to_owned(), samples: Vec::new() }).collect()
            }
        };
        Rows { series: names, by_name: HashMap::new(), form: None, samples: 0 }
    }

    fn take(&mut self, record: &::csv::StringRecord, layout: &Layout) -> Result<(), (String, &'static str)> {
        let column = match layout {
            Layout::Long { timestamp, .. } | Layout::Wide { timestamp } => *timestamp,
        };
        let (at, form) = parse_time(&record[column]).ok_or_else(|| {
            let help = "unix seconds (1767225600), milliseconds (1767225600000) or RFC 3339 (2026-01-01T00:00:00Z)";
            (format!("timestamp {} is no time", shown(&record[column])), help)
        })?;
        self.form.get_or_insert(form);
        match layout {
            Layout::Long { series, value, .. } => {
                let index = self.index_of(&record[*series])?;
                self.push(index, at, &record[*value])
            }
            Layout::Wide { timestamp } => {
                let values = record.iter().enumerate().filter(|(column, _)| column != timestamp);
                for (index, (_, text)) in values.enumerate() {
                    self.push(index, at, text)?;
                }
                Ok(())
            }
        }
    }

    fn index_of(&mut self, name: &str) -> Result<usize, (String, &'static str)> {
        if let Some(index) = self.by_name.get(name) {
            return Ok(*index);
        }
        if self.series.len() == SERIES_MAX {
            return Err((format!("more than {SERIES_MAX} series"), "split the file"));
        }
        self.by_name.insert(name.to_owned(), self.series.len());
        self.series.push(Series { name: name.to_owned(), samples: Vec::new() });
        Ok(self.series.len() - 1)
    }

    fn push(&mut self, series: usize, at: Timestamp, text: &str) -> Result<(), (String, &'static str)> {
        let value = parse_value(text).ok_or_else(|| {
            (format!("value {} is no number", shown(text)), "a number (0.93, 1e6), or nothing where it is missing")
        })?;
        if self.samples == SAMPLES_MAX {
            return Err((format!("more than {SAMPLES_MAX} values"), "split the file"));
        }
        self.samples += 1;
        self.series[series].samples.push(Sample { at, value });
        Ok(())
    }

    fn finish(mut self) -> Table {
        let repeated = self.series.iter_mut().map(|series| settle(&mut series.samples)).sum();
        Table { series: self.series, form: self.form.unwrap_or_default(), repeated }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table as text: `name: time=value …`, a series a line; an error as people see it.
    fn check(text: &str, expected: &str) {
        let got = match read("x.csv", text.as_bytes()) {
            Ok(table) => {
                let lines = table.series.iter().map(|series| {
                    let samples = series.samples.iter().map(|s| format!(" {}={}", table.form.write(s.at), s.value));
                    format!("{}:{}", series.name, samples.collect::<String>())
                });
                lines.collect::<Vec<_>>().join("\n")
            }
            Err(error) => error.to_string(),
        };
        assert_eq!(got, expected, "{text}");
    }

    #[test]
    fn both_layouts_are_read() {
        check("series,timestamp,value\nb,60,2\na,0,1\nb,0,\n", "b: 0=NaN 60=2\na: 0=1");
        check("value,series,timestamp\n1e3,a,2026-01-01T00:00:00Z\n", "a: 2026-01-01T00:00:00Z=1000");
        check("timestamp,a,b\n0,1,\n60,NaN,-2.5\n", "a: 0=1 60=NaN\nb: 0=NaN 60=-2.5");
        check("timestamp,value\n0,1\n", "value: 0=1");
        check("unit,series,timestamp,value\ns,a,0,1\n", "a: 0=1");
    }

    #[test]
    fn what_other_programs_write_is_read() {
        check("\u{feff}series,timestamp,value\r\na,0,1\r\n", "a: 0=1");
        check("series,timestamp,value\n\"a, \"\"b\"\"\nc\",0,1\n", "a, \"b\"\nc: 0=1");
        check("series,timestamp,value\n\"up{job=\"\"x\"\"}\",1767225600123,1", "up{job=\"x\"}: 1767225600123=1");
        check("series, timestamp ,value\n\na,0, 7 \n", "a: 0=7");
        check("series,timestamp,value\na,0,1\na,0,2\na,60,3\n", "a: 0=1 60=3");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place_and_what_would_be_right() {
        let times = "unix seconds (1767225600), milliseconds (1767225600000) or RFC 3339 (2026-01-01T00:00:00Z)";
        for (text, expected) in [
            ("", format!("x.csv:1: no column is called `timestamp` in ``\n        {HEADER_HELP}")),
            ("a,b\n", format!("x.csv:1: no column is called `timestamp` in `a,b`\n        {HEADER_HELP}")),
            (
                "series,timestamp\n",
                format!("x.csv:1: there is a column `series` and none `value`\n        {HEADER_HELP}"),
            ),
            ("timestamp\n1\n", format!("x.csv:1: there is a column `timestamp` and no other\n        {HEADER_HELP}")),
            ("timestamp,a,a\n", format!("x.csv:1: there are two columns `a`\n        {HEADER_HELP}")),
            (
                "series,timestamp,value\n",
                "x.csv: there is no row below the header\n        give a row for each time".to_owned(),
            ),
            (
                "series,timestamp,value\na,0,1\na,soon,1\n",
                format!("x.csv:3: timestamp `soon` is no time\n        {times}"),
            ),
            (
                "series,timestamp,value\na,0,one\n",
                "x.csv:2: value `one` is no number\n        a number (0.93, 1e6), or nothing where it is missing"
                    .to_owned(),
            ),
            (
                "series,timestamp,value\na,0\n",
                "x.csv:2: 2 fields in this row, 3 in the header\n        a row has a field for each column; quote a \
                 text that has a comma"
                    .to_owned(),
            ),
        ] {
            check(text, &expected);
        }
        let latin = read("x.csv", &b"series,timestamp,value\n\xe9,0,1\n"[..]).expect_err("not UTF-8");
        assert_eq!(latin.to_string(), "x.csv:2: not UTF-8\n        save the file as UTF-8");
    }
}

//! Series in OpenMetrics text with a time on every line.
//!
//! As `promtool tsdb dump-openmetrics` writes it and `promtool tsdb create-blocks-from openmetrics` reads it: times in
//! seconds with a fraction, `# EOF` at the end. Names and labels beyond ASCII are quoted inside the braces
//! (Prometheus's UTF-8 names). Exemplars, units, types and help are passed over.

use std::collections::HashMap;
use std::io::BufRead;

use super::{ReadError, SAMPLES_MAX, SERIES_MAX, parse_time, settle, shown};
use crate::model::{Labels, METRIC_NAME, Sample};

/// The longest line, in bytes.
const LINE_BYTES_MAX: usize = 1 << 20;
const LINE_HELP: &str = "a line is `name{label=\"value\"} value timestamp`, the time in seconds";

/// Labels and samples of the series of a file.
pub(in crate::cli) type Labelled = Vec<(Labels, Vec<Sample>)>;

/// Reads series from OpenMetrics text; `file` is its name in messages. Samples are in time order, each time once.
///
/// # Errors
/// The first line that cannot be understood, or beyond a limit.
pub(in crate::cli) fn read(file: &str, mut text: impl BufRead) -> Result<Labelled, ReadError> {
    let mut series: Labelled = Vec::new();
    // A series' lines mostly stand together and look alike: its labels are read once.
    let mut known: HashMap<Labels, usize> = HashMap::new();
    let mut latest: (String, usize) = (String::new(), 0);
    let mut line = String::new();
    let (mut number, mut samples) = (0, 0);
    loop {
        number += 1;
        line.clear();
        let error = |message: String, help: &str| ReadError {
            file: file.to_owned(),
            line: number,
            message,
            help: help.to_owned(),
        };
        let read = std::io::Read::take(&mut text, LINE_BYTES_MAX as u64 + 1).read_line(&mut line);
        match read {
            Ok(0) => break,
            Ok(bytes) if bytes > LINE_BYTES_MAX => return Err(error("a line without an end".to_owned(), LINE_HELP)),
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
                return Err(error("not UTF-8".to_owned(), "save the file as UTF-8"));
            }
            Err(e) => return Err(error(e.to_string(), "make it readable")),
        }
        let content = line.trim();
        if content == "# EOF" {
            break;
        }
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let same = (!latest.0.is_empty()).then(|| content.strip_prefix(latest.0.as_str())).flatten();
        let (index, rest) = match same.filter(|rest| rest.starts_with(' ')) {
            Some(rest) => (latest.1, rest),
            None => {
                let (labels, rest) = parse_series(content).map_err(|message| error(message, LINE_HELP))?;
                let index = *known.entry(labels.clone()).or_insert(series.len());
                if index == series.len() {
                    series.push((labels, Vec::new()));
                }
                latest = (content[..content.len() - rest.len()].to_owned(), index);
                (index, rest)
            }
        };
        series[index].1.push(parse_sample(rest).map_err(|message| error(message, LINE_HELP))?);
        samples += 1;
        if series.len() > SERIES_MAX || samples > SAMPLES_MAX {
            let message = format!("more than {SERIES_MAX} series or {SAMPLES_MAX} samples");
            return Err(error(message, "split the file"));
        }
    }
    series.iter_mut().for_each(|(_, samples)| {
        settle(samples);
    });
    Ok(series)
}

/// The value and the time that follow a series; what comes after them is an exemplar.
fn parse_sample(rest: &str) -> Result<Sample, String> {
    let mut words = rest.split_whitespace();
    let value = words.next().ok_or("there is no value")?;
    let value: f64 = value.parse().map_err(|_| format!("value {} is no number", shown(value)))?;
    let time = words.next().filter(|word| *word != "#").ok_or("there is no timestamp")?;
    let (at, _) = parse_time(time).ok_or_else(|| format!("timestamp {} is no time", shown(time)))?;
    match words.next() {
        None | Some("#") => Ok(Sample { at, value }),
        Some(word) => Err(format!("{} follows the timestamp", shown(word))),
    }
}

/// A series as the exposition format writes it, at the start of a text, and what follows it: `up`, `up{job="a"}`,
/// `{"a name", "a label"="b"}`.
///
/// # Errors
/// What is wrong, in a few words.
pub(in crate::cli) fn parse_series(text: &str) -> Result<(Labels, &str), String> {
    let name_end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).unwrap_or(text.len());
    let (name, mut rest) = text.split_at(name_end);
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(format!("{} is no metric name", shown(name)));
    }
    let mut pairs: Vec<(String, String)> = Vec::new();
    if !name.is_empty() {
        pairs.push((METRIC_NAME.to_owned(), name.to_owned()));
    }
    if let Some(inner) = rest.strip_prefix('{') {
        rest = parse_labels(inner, &mut pairs)?;
    }
    if pairs.is_empty() {
        return Err(format!("{} names no series", shown(text)));
    }
    let labels = Labels::new(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    Ok((labels, rest))
}

/// The labels up to the closing brace, and what follows it.
fn parse_labels<'t>(text: &'t str, pairs: &mut Vec<(String, String)>) -> Result<&'t str, String> {
    let mut rest = text.trim_start();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Ok(after);
        }
        let (name, after) = match rest.strip_prefix('"') {
            Some(quoted) => parse_quoted(quoted)?,
            None => {
                let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        let after = after.trim_start();
        let (pair, after) = match after.strip_prefix('=') {
            Some(after) if !name.is_empty() => {
                let quoted = after.trim_start().strip_prefix('"');
                let quoted = quoted.ok_or_else(|| format!("the value of label {} is not quoted", shown(&name)))?;
                let (value, after) = parse_quoted(quoted)?;
                ((name, value), after)
            }
            // A quoted text by itself is the metric's name.
            None if rest.starts_with('"') => ((METRIC_NAME.to_owned(), name), after),
            _ => return Err(format!("{} is no label", shown(rest.split(['}', ',']).next().unwrap_or("")))),
        };
        if pairs.iter().any(|(name, _)| *name == pair.0) {
            return Err(format!("there are two labels {}", shown(&pair.0)));
        }
        pairs.push(pair);
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after.trim_start(),
            None if rest.starts_with('}') => {}
            None => return Err("the braces are not closed".to_owned()),
        }
    }
}

/// A text up to its closing quote, with its escapes resolved, and what follows. Beside the three escapes of
/// OpenMetrics those of Go's quoting are known, since that is how promtool dumps labels.
fn parse_quoted(text: &str) -> Result<(String, &str), String> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((out, &text[at + 1..])),
            '\\' => {
                let (_, kind) = chars.next().ok_or("a quoted text ends in a backslash")?;
                let digits = match kind {
                    'x' => 2,
                    'u' => 4,
                    'U' => 8,
                    _ => 0,
                };
                out.push(match kind {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    '\\' | '"' | '\'' => kind,
                    'a' => '\u{7}',
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    'v' => '\u{b}',
                    _ if digits > 0 => {
                        let hex: String = chars.by_ref().take(digits).map(|(_, c)| c).collect();
                        let code = u32::from_str_radix(&hex, 16).ok().and_then(char::from_u32);
                        code.ok_or_else(|| format!("{} is no character", shown(&format!("\\{kind}{hex}"))))?
                    }
                    _ => return Err(format!("{} is no escape", shown(&format!("\\{kind}")))),
                });
            }
            _ => out.push(c),
        }
    }
    Err("a quoted text is not closed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let got = match read("x.om", text.as_bytes()) {
            Ok(series) => {
                let lines = series.iter().map(|(labels, samples)| {
                    let samples = samples.iter().map(|s| format!(" {}={}", s.at.0, s.value));
                    format!("{labels}:{}", samples.collect::<String>())
                });
                lines.collect::<Vec<_>>().join("\n")
            }
            Err(error) => error.to_string().split("\n        a line is").next().unwrap_or("").to_owned(),
        };
        assert_eq!(got, expected, "{text}");
    }

    #[test]
    fn reads_what_promtool_dumps() {
        check(
            "up{a=\"b\", c=\"d\"} 1 1700000000.250\nup{a=\"b\", c=\"d\"} 0 1700000000\n# EOF\nnot read",
            "up{a=\"b\", c=\"d\"}: 1700000000000=0 1700000000250=1",
        );
        check(
            "# TYPE up gauge\n# HELP up x\n\nup 1 1\nup_total{} +Inf 2\nup NaN 3\r\n",
            "up: 1000=1 3000=NaN\nup_total: 2000=inf",
        );
        check("up{a=\"q\\\"b\\\\n\\n\\u00e9\"} 1 1 # {trace=\"x\"} 1", "up{a=\"q\\\"b\\\\n\\né\"}: 1000=1");
        check("{\"a name\",\"l l\"=\"v\",} 1 1", "a name{l l=\"v\"}: 1000=1");
        check("up{a=\"} 2\"} 1 1\nupx 2 1", "up{a=\"} 2\"}: 1000=1\nupx: 1000=2");
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        for (text, expected) in [
            ("up 1 1\nup 1", "x.om:2: there is no timestamp"),
            ("up", "x.om:1: there is no value"),
            ("up one 1", "x.om:1: value `one` is no number"),
            ("up 1 soon", "x.om:1: timestamp `soon` is no time"),
            ("up 1 1 1", "x.om:1: `1` follows the timestamp"),
            ("1up 1 1", "x.om:1: `1up` is no metric name"),
            ("{} 1 1", "x.om:1: `{} 1 1` names no series"),
            ("up{a=b} 1 1", "x.om:1: the value of label `a` is not quoted"),
            ("up{a=\"b} 1 1", "x.om:1: a quoted text is not closed"),
            ("up{a=\"b\" 1 1", "x.om:1: the braces are not closed"),
            ("up{a=\"b\",a=\"c\"} 1 1", "x.om:1: there are two labels `a`"),
            ("up{a=\"\\q\"} 1 1", "x.om:1: `\\q` is no escape"),
            ("up{a} 1 1", "x.om:1: `a` is no label"),
        ] {
            check(text, expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_an_answer_and_not_a_panic(text in ".{0,200}") {
            let _ = parse_series(&text);
            let _ = read("x", text.as_bytes());
            let _ = super::super::csv::read("x", format!("series,timestamp,value\n{text}").as_bytes());
        }
    }
}

//! Runs every script of `tests/query/*.test`: samples, expressions, and the answers that Prometheus 3.5.3 gave.
//!
//! ```text
//! clear                                       # forgets all samples
//! load 1m                                     # samples each minute from 0 on
//!   requests_total{job="a"} 0 60 5x3 0+10x5 _ _x3 stale NaN
//! eval instant at 3m rate(requests_total[2m])
//!   {job="a"} 0.5                             # a series and its value; scalars and strings stand alone
//!   {job="b"} 1@60 2@120                      # of a range vector: value@seconds
//! eval range from 0 to 4m step 2m requests_total
//!   requests_total{job="a"} 0 5 _             # a value a step, `_` where there is none
//! eval_ordered instant at 1m sort(x)          # the series' order counts
//! eval_fail instant at 1m 1 + "a"
//!   must contain only                         # a part of the message
//! ```
//!
//! `5x3` are four fives and `0+10x5` six values, as in Prometheus's own scripts; `_x3` are three gaps.

use std::fmt::Write as _;
use std::path::Path;

use forestall::model::{Labels, Millis, STALE_MARKER_BITS, Sample, Timestamp};
use forestall::query::{Answer, Query, Settings, Value, instant, range};
use forestall::store::{self, Store};

#[test]
fn every_script_answers_as_prometheus_does() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/query");
    let mut scripts: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.retain(|path| path.extension().is_some_and(|extension| extension == "test"));
    scripts.sort();
    assert!(!scripts.is_empty(), "no script in {}", folder.display());
    let mut report = String::new();
    for path in scripts {
        let text = std::fs::read_to_string(&path).unwrap();
        let failures = run(&text);
        for failure in failures {
            writeln!(report, "{}:{failure}", path.file_name().unwrap().display()).unwrap();
        }
    }
    assert!(report.is_empty(), "\n{report}");
}

/// The failures of a script, each with its line number.
fn run(script: &str) -> Vec<String> {
    assert!(forestall::query::enable("promql-experimental-functions"), "there is such a feature");
    let mut store = Store::new(store::Settings::default());
    let mut failures = Vec::new();
    for (line, command, block) in blocks(script) {
        let outcome = match command.split_once(' ').unwrap_or((command, "")) {
            ("clear", _) => {
                store = Store::new(store::Settings::default());
                Ok(())
            }
            ("load", step) => {
                load(&store, duration(step), &block);
                Ok(())
            }
            ("eval", rest) => check(&store, rest, &block, Order::Any),
            ("eval_ordered", rest) => check(&store, rest, &block, Order::Exact),
            ("eval_fail", rest) => check_failure(&store, rest, &block),
            _ => Err("unknown command".to_owned()),
        };
        if let Err(failure) = outcome {
            failures.push(format!("{line}: {command}\n{failure}"));
        }
    }
    failures
}

#[derive(Clone, Copy, PartialEq)]
enum Order {
    Any,
    Exact,
}

/// Commands with their line number and the indented lines below them.
fn blocks(script: &str) -> Vec<(usize, &str, Vec<&str>)> {
    let mut blocks: Vec<(usize, &str, Vec<&str>)> = Vec::new();
    for (index, line) in script.lines().enumerate() {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        if line.starts_with(' ') {
            blocks.last_mut().expect("an indented line belongs to a command").2.push(line.trim());
        } else {
            blocks.push((index + 1, line.trim(), Vec::new()));
        }
    }
    blocks
}

fn load(store: &Store, step: Millis, lines: &[&str]) {
    for line in lines {
        let (labels, values) = series(line);
        for (index, value) in values.split_whitespace().flat_map(expand).enumerate() {
            let at = Timestamp(step.0 * i64::try_from(index).expect("a line has few values"));
            if let Some(value) = value {
                store.append(&labels, Sample { at, value });
            }
        }
    }
}

/// The values of one word: `_`, `_x3`, `stale`, `5`, `5x3`, `0+10x5`, `10-1x4`.
fn expand(word: &str) -> Vec<Option<f64>> {
    let (first, times) = match word.rsplit_once('x') {
        Some((first, times)) => (first, times.parse::<usize>().expect("a count after `x`")),
        None => (word, 0),
    };
    if first == "_" {
        return vec![None; times.max(1)];
    }
    let sign = first.rfind(['+', '-']).filter(|at| *at > 0 && times > 0 && !first[..*at].ends_with('e'));
    let (start, growth) = match sign {
        Some(at) => (number(&first[..at]), number(&first[at..])),
        None => (number(first), 0.0),
    };
    (0..=times).map(|index| Some(if index == 0 { start } else { start + growth * index as f64 })).collect()
}

fn number(word: &str) -> f64 {
    if word == "stale" {
        return f64::from_bits(STALE_MARKER_BITS);
    }
    word.parse().unwrap_or_else(|_| panic!("`{word}` is no number"))
}

/// The labels at the beginning of a line, and what follows them.
fn series(line: &str) -> (Labels, &str) {
    let end = match (line.rfind('}'), line.find(' ')) {
        (Some(brace), _) => brace + 1,
        (None, Some(space)) => space,
        (None, None) => line.len(),
    };
    let (text, rest) = line.split_at(end);
    if text == "{}" {
        return (Labels::default(), rest);
    }
    let query = Query::parse(text).unwrap_or_else(|error| panic!("`{text}`: {error}"));
    let matchers = query.matcher_sets().remove(0);
    (Labels::new(matchers.into_iter().map(|matcher| (matcher.name, matcher.value))), rest)
}

fn duration(text: &str) -> Millis {
    Millis::parse(text.trim()).unwrap_or_else(|error| panic!("{error}"))
}

/// Evaluates `instant at 3m expr` or `range from 0 to 4m step 1m expr`.
fn evaluate(store: &Store, command: &str) -> Result<Answer, String> {
    let settings = Settings::default();
    let at = |text: &str| Timestamp(duration(text).0);
    let words: Vec<&str> = command.splitn(if command.starts_with("instant") { 4 } else { 8 }, ' ').collect();
    let answer = match words[..] {
        ["instant", "at", moment, text] => {
            Query::parse(text).and_then(|query| instant(store, &query, at(moment), &settings))
        }
        ["range", "from", start, "to", end, "step", step, text] => {
            Query::parse(text).and_then(|query| range(store, &query, at(start), at(end), duration(step), &settings))
        }
        _ => return Err(format!("`{command}` is no evaluation")),
    };
    answer.map_err(|error| error.to_string())
}

fn check(store: &Store, command: &str, expected: &[&str], order: Order) -> Result<(), String> {
    let answer = evaluate(store, command)?;
    let steps: Option<Vec<Timestamp>> = command.starts_with("range").then(|| {
        let words: Vec<&str> = command.split(' ').collect();
        let (start, end, step) = (duration(words[2]).0, duration(words[4]).0, duration(words[6]).0);
        (start..=end).step_by(usize::try_from(step).expect("a positive step")).map(Timestamp).collect()
    });
    let mut got = lines(&answer, steps.as_deref());
    let mut wanted: Vec<(String, Vec<String>)> = expected.iter().map(|line| wanted(line)).collect();
    if order == Order::Any {
        got.sort();
        wanted.sort();
    }
    let matches = got.len() == wanted.len()
        && got
            .iter()
            .zip(&wanted)
            .all(|(g, w)| g.0 == w.0 && g.1.len() == w.1.len() && g.1.iter().zip(&w.1).all(|(g, w)| same_word(g, w)));
    if matches {
        return Ok(());
    }
    Err(format!("  wanted {wanted:#?}\n  got {got:#?}"))
}

fn wanted(line: &str) -> (String, Vec<String>) {
    let is_bare = line.starts_with('"') || (!line.contains('}') && !line.contains(' '));
    let (labels, values) = if is_bare {
        (String::new(), line)
    } else {
        let (labels, values) = series(line);
        (labels.to_string(), values)
    };
    if is_bare && line.starts_with('"') {
        return (labels, vec![line.to_owned()]);
    }
    (labels, values.split_whitespace().map(str::to_owned).collect())
}

/// An answer in the words of a script.
fn lines(answer: &Answer, steps: Option<&[Timestamp]>) -> Vec<(String, Vec<String>)> {
    match &answer.value {
        Value::Scalar(sample) => vec![(String::new(), vec![sample.value.to_string()])],
        Value::String(_, text) => vec![(String::new(), vec![format!("{text:?}")])],
        Value::Vector(elements) => {
            elements.iter().map(|e| (e.labels.to_string(), vec![e.sample.value.to_string()])).collect()
        }
        Value::Matrix(all) => {
            let words = |samples: &[Sample]| match steps {
                Some(steps) => steps.iter().map(|step| at_step(samples, *step)).collect(),
                None => samples.iter().map(|s| format!("{}@{}", s.value, s.at.as_secs_f64())).collect(),
            };
            all.iter().map(|series| (series.labels.to_string(), words(&series.samples))).collect()
        }
    }
}

fn at_step(samples: &[Sample], step: Timestamp) -> String {
    samples.iter().find(|sample| sample.at == step).map_or("_".to_owned(), |sample| sample.value.to_string())
}

/// Whether two values are the same but for rounding.
fn same_word(got: &str, wanted: &str) -> bool {
    if got == wanted {
        return true;
    }
    let (Some((got, at)), Some((wanted, wanted_at))) = (timed(got), timed(wanted)) else { return false };
    if at != wanted_at {
        return false;
    }
    if got.is_nan() || wanted.is_nan() || got.is_infinite() || wanted.is_infinite() {
        return got.is_nan() && wanted.is_nan() || got.total_cmp(&wanted).is_eq();
    }
    (got - wanted).abs() <= 1e-10 * got.abs().max(wanted.abs())
}

fn timed(word: &str) -> Option<(f64, Option<&str>)> {
    match word.split_once('@') {
        Some((value, at)) => value.parse().ok().map(|value| (value, Some(at))),
        None => word.parse().ok().map(|value| (value, None)),
    }
}

fn check_failure(store: &Store, command: &str, parts: &[&str]) -> Result<(), String> {
    match evaluate(store, command) {
        Ok(answer) => Err(format!("  it answered {:?}", answer.value)),
        Err(message) => match parts.iter().find(|part| !message.contains(**part)) {
            None => Ok(()),
            Some(part) => Err(format!("  the message `{message}` lacks `{part}`")),
        },
    }
}

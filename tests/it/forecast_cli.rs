//! `forestall forecast` as a person or a script runs it: layouts in, formats out, what is wrong and what is said of it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::cli::run;
use crate::real::{Folder, Recorder};

const DONE: i32 = 0;
const FAILED: i32 = 1;
const BAD_USAGE: i32 = 2;

/// Midnight, 1 January 2026, UTC.
const START: i64 = 1_767_225_600;

/// Hourly values with a daily season.
fn season(hour: i64) -> f64 {
    let phase = f64::from(i32::try_from(hour % 24).expect("below 24")) / 24.0 * std::f64::consts::TAU;
    10.0 + 4.0 * phase.sin() + 0.01 * f64::from(i32::try_from(hour * 7 % 13).expect("below 13"))
}

/// A file of two series, `b` before `a`, of so many hours.
fn long_file(hours: i64) -> String {
    let mut text = "series,timestamp,value\n".to_owned();
    for hour in 0..hours {
        let at = START + hour * 3600;
        let _ = writeln!(text, "b,{at},{}\n\"a, \"\"1\"\"\",{at},{}", season(hour), 2.0 * season(hour));
    }
    text
}

/// The rows of a CSV answer without its header.
fn rows(csv: &str) -> Vec<Vec<String>> {
    let (header, rest) = csv.split_once('\n').expect("there is a header");
    assert_eq!(header, "series,timestamp,quantile,value");
    // No name of these tests has a comma beside the one quoted below.
    let lines = rest.lines().map(|line| line.replace("\"a, \"\"1\"\"\"", "a"));
    lines.map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

#[test]
fn a_file_of_rows_is_forecast_in_the_order_of_its_series() {
    let folder = Folder::new("forecast-rows");
    let input = folder.write("in.csv", &long_file(24 * 8));
    let output = folder.path("out.csv");
    let flags = ["--step", "1h", "--horizon", "6h", "--quantiles", "0.95,0.5,0.05", "--output", &output];
    let args = [&["forecast", "--input", &input][..], &flags[..]].concat();
    let (code, out, error) = run(&args);
    assert_eq!((code, out.as_str()), (DONE, ""), "{error}");
    let text = std::fs::read_to_string(&output).expect("it was written");
    let rows = rows(&text);
    assert_eq!(rows.len(), 2 * 6 * 3);
    let first = START + 24 * 8 * 3600;
    for (index, row) in rows.iter().enumerate() {
        let step = i64::try_from(index / 3 % 6).expect("below 6");
        let expected = [
            if index < 18 { "b" } else { "a" },
            &(first + step * 3600).to_string(),
            ["0.05", "0.5", "0.95"][index % 3],
        ];
        assert_eq!(row[..3], expected.map(str::to_owned), "row {index}");
        assert!(row[3].parse::<f64>().is_ok_and(f64::is_finite), "{row:?}");
    }
    for two in rows.windows(2).filter(|two| two[0][..2] == two[1][..2]) {
        let value = |row: &[String]| row[3].parse::<f64>().expect("a number");
        assert!(value(&two[0]) <= value(&two[1]), "quantiles cross: {two:?}");
    }
    let again = run(&args);
    assert_eq!(again.0, DONE);
    assert_eq!(std::fs::read_to_string(&output).expect("it was written"), text, "the same in, the same out");
}

#[test]
fn columns_and_rows_say_the_same() {
    let folder = Folder::new("forecast-columns");
    let mut wide = "timestamp,b,\"a, \"\"1\"\"\"\r\n".to_owned();
    for hour in (0..24 * 8).rev() {
        let at = START + hour * 3600;
        let _ = write!(wide, "{at},{},{}\r\n", season(hour), 2.0 * season(hour));
    }
    let columns = folder.write("wide.csv", &format!("\u{feff}{wide}"));
    let rows = folder.write("long.csv", &long_file(24 * 8));
    let forecast = |file: &str| run(&["forecast", "--input", file, "--horizon", "3h"]);
    let (by_columns, by_rows) = (forecast(&columns), forecast(&rows));
    assert_eq!(by_columns.0, DONE, "{}", by_columns.2);
    assert_eq!(by_columns, by_rows);
    let mut child = Command::new(env!("CARGO_BIN_EXE_forestall"))
        .args(["forecast", "--input", "-", "--horizon", "3h"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    child.stdin.take().expect("piped").write_all(wide.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout), by_rows.1, "from standard input, too");
}

#[test]
fn times_are_written_as_they_were_read() {
    let folder = Folder::new("forecast-times");
    for (name, forms) in [
        ("seconds", ["1767225600", "1767229200", "1767232800", "1767236400"]),
        ("fractions", ["1767225600.5", "1767229200.5", "1767232800.5", ""]),
        ("milliseconds", ["1767225600000", "1767229200000", "1767232800000", "1767236400000"]),
        (
            "RFC 3339",
            ["2026-01-01T00:00:00Z", "2026-01-01T02:00:00+01:00", "2026-01-01T02:00:00Z", "2026-01-01T03:00:00Z"],
        ),
    ] {
        let history: String = forms[..3].iter().map(|at| format!("a,{at},1\n")).collect();
        let input = folder.write("in.csv", &format!("series,timestamp,value\n{history}"));
        let flags = ["--horizon", "1h", "--quantiles", "0.5", "--model", "level", "--format", "csv"];
        let (code, out, error) = run(&[&["forecast", "--input", &input][..], &flags[..]].concat());
        assert_eq!(code, DONE, "{name}: {error}");
        let at = rows(&out)[0][1].clone();
        // A fraction stays, or is put on the step's grid.
        assert!(at == forms[3] || (forms[3].is_empty() && at.starts_with("17672")), "{name}: {at}");
    }
}

#[test]
fn people_and_programs_get_what_they_can_read() {
    let folder = Folder::new("forecast-formats");
    let input = folder.write("in.csv", &long_file(24 * 8));
    let forecast = |format: &str| {
        let (code, out, error) = run(&["forecast", "--input", &input, "--format", format]);
        assert_eq!(code, DONE, "{format}: {error}");
        out
    };
    let table = forecast("table");
    for part in ["b\n  192 values", "time (UTC)", "0.05", "2026-01-09 00:00", "one step in 2 is shown", "a, \"1\"\n"] {
        assert!(table.contains(part), "{part:?} is not in:\n{table}");
    }
    let answer: Value = serde_json::from_str(&forecast("json")).expect("JSON");
    assert_eq!(answer.as_array().map(Vec::len), Some(2));
    assert_eq!(answer[0]["series"], "b");
    assert_eq!(answer[0]["timestamps"][0], START + 24 * 8 * 3600);
    assert_eq!(answer[0]["quantiles"]["0.5"].as_array().map(Vec::len), Some(48));
    let file = folder.path("out.json");
    assert_eq!(run(&["forecast", "--input", &input, "--output", &file]).0, DONE);
    let written: Value = serde_json::from_str(&std::fs::read_to_string(&file).expect("written")).expect("JSON");
    assert_eq!(written, answer, "a file called .json holds JSON");
    let plot = Command::new(env!("CARGO_BIN_EXE_forestall"))
        .args(["forecast", "--input", &input, "--format", "plot"])
        .env("COLUMNS", "60")
        .output()
        .expect("it starts");
    let plot = String::from_utf8(plot.stdout).expect("text");
    assert!(plot.chars().any(|c| ('\u{2801}'..='\u{28ff}').contains(&c)), "no dot is drawn:\n{plot}");
    let pictures = plot.lines().filter(|line| line.contains(['│', '└', '\u{28ff}']));
    assert!(pictures.clone().count() >= 2 * 15 && pictures.clone().all(|line| line.chars().count() <= 60), "{plot}");
}

#[test]
fn a_series_that_cannot_be_forecast_keeps_no_other_back() {
    let folder = Folder::new("forecast-refused");
    let input = folder.write("in.csv", &format!("{}lonely,{START},1\n", long_file(48)));
    let (code, out, error) = run(&["forecast", "--input", &input, "--horizon", "2h", "--quantiles", "0.5"]);
    assert_eq!(code, FAILED);
    assert_eq!(rows(&out).len(), 4);
    assert_eq!(error, "forestall: series `lonely` is left out: one value has no distance: give --step\n");
}

#[test]
fn a_value_that_comes_twice_is_said() {
    let folder = Folder::new("forecast-twice");
    let input = folder.write("in.csv", &format!("{}b,{START},99\n", long_file(48)));
    let (code, _, error) = run(&["forecast", "--input", &input]);
    assert_eq!(code, DONE);
    assert_eq!(error, "forestall: 1 values were left out: their series has one at that time already\n");
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_place() {
    let folder = Folder::new("forecast-wrong");
    let input = folder.write("in.csv", "series,timestamp,value\na,0,1\na,later,2\n");
    let (code, out, error) = run(&["forecast", "--input", &input]);
    assert_eq!((code, out.as_str()), (FAILED, ""));
    assert_eq!(
        error,
        format!(
            "forestall: {input}:3: timestamp `later` is no time\n        unix seconds (1767225600), milliseconds \
             (1767225600000) or RFC 3339 (2026-01-01T00:00:00Z)\n"
        )
    );
    let (code, _, error) = run(&["forecast", "--input", "/nowhere/in.csv"]);
    assert_eq!(code, FAILED);
    assert!(error.starts_with("forestall: /nowhere/in.csv cannot be read: "), "{error}");
}

#[test]
fn bad_usage_is_answered_with_what_would_be_right() {
    let folder = Folder::new("forecast-usage");
    let input = folder.write("in.csv", &long_file(10));
    for (flags, says) in [
        (&["--quantiles", "0.5,1"][..], "--quantiles: 1 is no quantile; write numbers between 0 and 1"),
        (&["--step", "0"], "--step: 0 is too short; write a duration such as 5m, 1h or 1d"),
        (&["--seasons", "1d,0"], "--seasons: 0 is too short"),
        (&["--step", "1h", "--horizon", "30m"], "--horizon: 30m is shorter than a step of 1h"),
        (&["--step", "1s", "--horizon", "1y"], "--horizon: 365d is more than 100000 steps of 1s"),
        (&["--floor", "1", "--ceiling", "-1"], "--floor: 1 is not below --ceiling -1"),
        (&["--floor", "inf"], "--floor: not a finite number"),
        (&["--model", "prophet"], "possible values: auto, level, drift"),
        (&["--step", "1 hour"], "`1 hour` is not a duration; write it as in PromQL: 30s, 5m, 1h30m, 7d"),
        (&["up"], "cannot be used with"),
    ] {
        let (code, out, error) = run(&[&["forecast", "--input", &input][..], flags].concat());
        assert_eq!((code, out.as_str()), (BAD_USAGE, ""), "{flags:?}: {error}");
        assert!(error.contains(says), "{flags:?} does not say {says:?}:\n{error}");
    }
    assert_eq!(run(&["forecast"]).0, BAD_USAGE);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expression_is_asked_for_and_forecast() {
    let server = Recorder::start().await;
    let values: Vec<Value> = (0..300).map(|hour| json!([START + hour * 3600, season(hour).to_string()])).collect();
    let row = |job: &str| json!({"metric": {"__name__": "up", "job": job}, "values": values});
    server.answer_with(json!({
        "status": "success", "data": {"resultType": "matrix", "result": [row("b"), row("a")]}
    }));
    let url = server.url("/");
    let flags = ["--url", &url, "--lookback", "30d", "--step", "3m", "--horizon", "6m", "--format", "csv"];
    let (code, out, error) = run(&[&["forecast", "rate(up[5m])"][..], &flags[..]].concat());
    assert_eq!(code, DONE, "{error}");
    assert_eq!(out.lines().count(), 1 + 2 * 2 * 3, "{out}");
    assert!(out.lines().nth(1).is_some_and(|line| line.starts_with("\"up{job=\"\"a\"\"}\",2026-01-13T")), "{out}");
    let asked = server.requests("/api/v1/query_range");
    // 30 days of 3 minutes are 14 401 points: two answers, the second of which begins a step after the first ends.
    assert_eq!(asked.len(), 2);
    let form = |index: usize, name: &str| {
        let pairs = form_urlencoded::parse(&asked[index].body);
        let found = pairs.into_iter().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
        found.unwrap_or_else(|| panic!("{name} is asked for"))
    };
    let number = |index: usize, name: &str| form(index, name).parse::<f64>().expect("a number");
    assert_eq!((form(0, "query").as_str(), form(0, "step").as_str()), ("rate(up[5m])", "180"));
    assert!((number(0, "end") - number(0, "start") - 10_999.0 * 180.0).abs() < 1e-6);
    assert!((number(1, "start") - number(0, "end") - 180.0).abs() < 1e-6);

    for (answer, says) in [
        (json!({"status": "error", "error": "no such function"}), "refuses: no such function"),
        (
            json!({"status": "success", "data": {"resultType": "matrix", "result": []}}),
            "has nothing for `up` in the last 14d",
        ),
        (
            json!({"status": "success", "data": {"resultType": "scalar", "result": [1, "2"]}}),
            "gives a scalar, not series",
        ),
        (json!(["something else"]), "without the JSON of Prometheus's query API: is it a Prometheus?"),
    ] {
        server.answer_with(answer);
        let (code, out, error) = run(&["forecast", "up", "--url", &url]);
        assert_eq!((code, out.as_str()), (FAILED, ""), "{says}");
        assert!(error.contains(says), "{says:?} is not in {error}");
    }
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let nobody = format!("http://{}", free.local_addr().expect("a bound socket has an address"));
    drop(free);
    let (code, _, error) = run(&["forecast", "up", "--url", &nobody]);
    assert_eq!(code, FAILED);
    assert!(error.starts_with(&format!("forestall: no server answers at {nobody}: ")), "{error}");
}

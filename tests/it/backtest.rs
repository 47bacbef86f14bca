//! `forestall backtest` as a person or a script runs it, on records made here: the same answer from every format, reports
//! that can be read, gates, and what is said of what is wrong.

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::cli::run;
use crate::real::{Folder, Prometheus, Suite, eventually, parts};

const DONE: i32 = 0;
const FAILED: i32 = 1;
const BAD_USAGE: i32 = 2;

/// Midnight, 1 January 2026, UTC.
const START: i64 = 1_767_225_600;
const STEP: i64 = 600;
const DAYS: i64 = 16;

const RULES: &str = "groups:
  - name: disks
    interval: 1m
    rules:
      - predict: full
        component: { kind: disk, by: [disk] }
        horizon: 12h
        signals:
          - name: used
            expr: disk_used_ratio
            breach: { above: 0.9, for: 20m }
";

/// Two disks: `leak` fills within two days, again and again, and is emptied an hour after it is over the line; `calm` never
/// does. A value every ten minutes; one in 97 is missing.
fn record() -> Vec<(&'static str, i64, Option<f64>)> {
    let mut record = Vec::new();
    for step in 0..DAYS * 86_400 / STEP {
        let at = START + step * STEP;
        let noise = (f64::from(i32::try_from(step * 7919 % 1009).expect("small")) / 1009.0 - 0.5) * 0.004;
        // 50 hours to fill and one over the line.
        let in_cycle = f64::from(i32::try_from(step % (51 * 6)).expect("small")) / (50.0 * 6.0);
        let missing = step % 97 == 50;
        record.push(("leak", at, (!missing).then_some(0.2 + 0.7 * in_cycle + noise)));
        record.push(("calm", at, (!missing).then_some(0.4 + noise)));
    }
    record
}

fn csv() -> String {
    let mut text = "series,timestamp,value\n".to_owned();
    for (disk, at, value) in record() {
        let value = value.map(|value| value.to_string()).unwrap_or_default();
        let _ = writeln!(text, "\"disk_used_ratio{{disk=\"\"{disk}\"\"}}\",{at},{value}");
    }
    text
}

fn openmetrics() -> String {
    let mut text = "# TYPE disk_used_ratio gauge\n".to_owned();
    for wanted in ["leak", "calm"] {
        for (disk, at, value) in record().into_iter().filter(|(disk, _, value)| *disk == wanted && value.is_some()) {
            let value = value.expect("missing ones are left out");
            let _ = writeln!(text, "disk_used_ratio{{disk=\"{disk}\"}} {value} {at}.000");
        }
    }
    text + "# EOF\n"
}

/// A folder with the rules and the record.
struct Set {
    folder: Folder,
    rules: String,
    input: String,
}

fn set(name: &str) -> Set {
    let folder = Folder::new(name);
    let rules = folder.write("rules.yml", RULES);
    let input = folder.write("in.csv", &csv());
    Set { folder, rules, input }
}

impl Set {
    fn backtest(&self, flags: &[&str]) -> (i32, String, String) {
        run(&[&["backtest", "--input", &self.input, "--rules", &self.rules][..], flags].concat())
    }

    fn json(&self, flags: &[&str]) -> Value {
        let (code, out, error) = self.backtest(&[&["--format", "json"][..], flags].concat());
        assert_eq!(code, DONE, "{error}");
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"))
    }
}

#[test]
fn a_record_is_replayed_and_scored() {
    let set = set("backtest-json");
    let alerts = set.folder.path("alerts.csv");
    let found = set.json(&["--alerts", &alerts]);
    let all = &found["all"];
    // 16 days hold seven fillings; the first fifth of the record is warm-up, and with it the first.
    assert_eq!(all["failures"], 6, "{found:#}");
    assert_eq!(found["rules"][0]["components"], 2);
    assert_eq!(found["rules"][0]["rule"], "full");
    assert!(all["recall"].as_f64().is_some_and(|recall| recall >= 0.8), "{all:#}");
    assert!(all["precision"].as_f64().is_some_and(|precision| precision >= 0.8), "{all:#}");
    assert!(all["lead_seconds"]["median"].as_f64().is_some_and(|lead| lead >= 3.0 * 3600.0), "{all:#}");
    assert!(all["brier_skill"].as_f64().is_some_and(|skill| skill > 0.0), "{all:#}");
    assert_eq!(all["reliability"].as_array().map(Vec::len), Some(10));
    assert_eq!(found["interval_seconds"], 600.0);

    let text = std::fs::read_to_string(&alerts).expect("it was written");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("component,rule,start,end,probability,eta_seconds"));
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    assert!(rows.len() >= 5, "{text}");
    for row in rows {
        assert_eq!(row.len(), 6, "{row:?}");
        assert_eq!(row[..2], ["disk/leak", "full"], "the calm disk never fires");
        let number = |text: &str| text.parse::<f64>().unwrap_or_else(|e| panic!("{row:?}: {e}"));
        assert!(row[3].is_empty() || number(row[2]) < number(row[3]), "{row:?}");
        assert!((0.5..=1.0).contains(&number(row[4])), "{row:?}");
        assert!(row[5].is_empty() || (0.0..=12.0 * 3600.0).contains(&number(row[5])), "{row:?}");
    }
}

#[test]
fn every_format_of_a_record_gives_the_same_answer() {
    let set = set("backtest-formats");
    let by_rows = set.json(&[]);
    let columns = {
        let mut text =
            "timestamp,\"disk_used_ratio{disk=\"\"leak\"\"}\",\"disk_used_ratio{disk=\"\"calm\"\"}\"\n".to_owned();
        for pair in record().chunks(2) {
            let value = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
            let _ = writeln!(text, "{},{},{}", pair[0].1, value(pair[0].2), value(pair[1].2));
        }
        set.folder.write("wide.csv", &text)
    };
    let lines = set.folder.write("in.om", &openmetrics());
    for input in [columns, lines] {
        let (code, out, error) = run(&["backtest", "--input", &input, "--rules", &set.rules, "--format", "json"]);
        assert_eq!(code, DONE, "{error}");
        let found: Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!(found, by_rows, "{input}");
    }
    let (_, first, error) = set.backtest(&[]);
    assert_eq!(set.backtest(&[]).1, first, "the same in, the same out");
    assert_eq!(
        error,
        "forestall: group disks is evaluated every 10m and not every 1m: there are no more samples than that\n"
    );
    for part in ["rule", "precision", "recall", "full", "all", "Brier score", "came true", "would have done   nothing"]
    {
        assert!(first.contains(part), "{part:?} is not in:\n{first}");
    }
}

/// The names of a page's elements, each of which must be closed; anything that would be fetched is an error.
fn elements(page: &str) -> Vec<String> {
    let mut open: Vec<String> = Vec::new();
    let mut seen = Vec::new();
    let mut rest = page.strip_prefix("<!DOCTYPE html>").expect("a document type");
    while let Some((text, after)) = rest.split_once('<') {
        assert!(!text.contains('>'), "a stray bracket: {text}");
        let text = text
            .replace("&amp;", "")
            .replace("&lt;", "")
            .replace("&gt;", "")
            .replace("&quot;", "")
            .replace("&#39;", "");
        assert!(!text.contains('&'), "an ampersand that is not written out: {text}");
        let (tag, after) = after.split_once('>').expect("a tag is closed");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "closed in order");
        } else {
            let name = tag.split(|c: char| c.is_whitespace() || c == '/').next().unwrap_or_default().to_owned();
            assert!(tag.matches('"').count() % 2 == 0, "quotes in {tag}");
            for fetches in ["src=", "href=", "url(", "http:", "https:", "import"] {
                assert!(!tag.contains(fetches), "{tag} fetches something");
            }
            if !tag.ends_with('/') {
                open.push(name.clone());
            }
            seen.push(name);
        }
        rest = after;
    }
    assert!(open.is_empty(), "never closed: {open:?}");
    seen
}

#[test]
fn the_page_is_whole_and_needs_nothing_else() {
    let set = set("backtest-html");
    let page = set.folder.path("page.html");
    let nasty =
        RULES.replace("disk_used_ratio", "label_replace(disk_used_ratio, \"disk\", \"<&'$1>\", \"disk\", \"(leak)\")");
    let rules = set.folder.write("nasty.yml", &nasty);
    let (code, out, error) =
        run(&["backtest", "--input", &set.input, "--rules", &rules, "--format", "html", "--output", &page]);
    assert_eq!((code, out.as_str()), (DONE, ""), "{error}");
    let text = std::fs::read_to_string(&page).expect("it was written");
    let seen = elements(&text);
    let count = |name: &str| seen.iter().filter(|element| *element == name).count();
    // Reliability, leads, and a course for each of the two components.
    assert_eq!(count("svg"), 4);
    assert_eq!((count("script"), count("link"), count("img"), count("style")), (0, 0, 0, 1));
    for outside in ["http://", "https://", "url(", "@import"] {
        assert!(!text.contains(outside), "the page names {outside}");
    }
    assert!(text.contains("disk/&lt;&amp;&#39;leak&gt;") && !text.contains("<&'"), "names are escaped");
    assert!(text.contains("prefers-color-scheme: dark"), "light and dark");
}

#[test]
fn failures_may_come_from_a_file() {
    let set = set("backtest-truth");
    let fail = START + 10 * 86_400;
    let truth =
        set.folder.write("truth.csv", &format!("component,fail_time,end_time\ncalm,{fail},{}\nx,1,2\n", fail + 60));
    let (code, out, error) = set.backtest(&["--truth", &truth, "--format", "json"]);
    assert_eq!(code, DONE, "{error}");
    let found: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&found["all"]["failures"], &found["all"]["hits"]), (&1.into(), &0.into()), "{found:#}");
    assert!(error.ends_with("truth.csv: no component is called `x`; its failures are not counted\n"), "{error}");
}

#[test]
fn gates_fail_with_what_was_missed() {
    let set = set("backtest-gates");
    let low = ["--min-precision", "0.1", "--min-recall", "0.1", "--min-lead", "5m"];
    assert_eq!(set.backtest(&low).0, DONE);
    let (code, out, error) = set.backtest(&["--min-lead", "13h"]);
    assert_eq!(code, FAILED);
    assert!(out.contains("precision"), "the report is written all the same");
    assert!(error.contains("forestall: the median lead is ") && error.contains(", and --min-lead is 13h"), "{error}");
    let strict = ["--firing-above", "1", "--min-precision", "0.9", "--min-recall", "0.9"];
    let (code, _, error) = set.backtest(&strict);
    assert_eq!(code, FAILED);
    assert!(error.contains("recall is 0.000, and --min-recall is 0.9"), "{error}");
    assert!(error.contains("precision is not known, for there was nothing to measure it on"), "{error}");
}

#[test]
fn what_would_have_been_done_is_worked_out_under_policies() {
    let set = set("backtest-policies");
    let policies = "policies:
  - name: disks
    match: { kind: disk }
    mode: act
    ladder: [ { action: scale_up, actuator: any, resources: [disk], actuation_time: 30m } ]
    cooldown: 6h
";
    let policies = set.folder.write("policies.yml", policies);
    let found = set.json(&["--policies", &policies]);
    let rule = &found["rules"][0];
    assert_eq!(rule["lead_min_seconds"], 1800.0, "the fastest hand");
    let done = found["actions"].as_object().map_or(0, serde_json::Map::len);
    let held = found["declined"].as_object().map_or(0, serde_json::Map::len);
    assert!(done + held > 0, "{found:#}");
    let other = set.json(&["--policies", &policies, "--lead-min", "2h"]);
    assert_eq!(other["rules"][0]["lead_min_seconds"], 7200.0);
}

#[test]
fn what_is_wrong_is_said_with_its_place_or_with_what_would_be_right() {
    let set = set("backtest-wrong");
    let check = |args: &[&str], code: i32, says: &str| {
        let (got, out, error) = run(&[&["backtest"][..], args].concat());
        assert_eq!((got, out.as_str()), (code, ""), "{args:?}: {error}");
        assert!(error.contains(says), "{args:?} does not say {says:?}:\n{error}");
    };
    let (input, rules) = (set.input.as_str(), set.rules.as_str());
    let file = |name: &str, text: &str| set.folder.write(name, text);
    check(&[], BAD_USAGE, "--input");
    check(&["--input", input], BAD_USAGE, "--rules");
    check(&["--url", "http://127.0.0.1:1", "--rules", rules], BAD_USAGE, "--start");
    check(&["--input", input, "--rules", "/nowhere.yml"], BAD_USAGE, "/nowhere.yml: no such file");
    let broken = file("broken.yml", "groups: [ { name: g, rules: [ { predict: a } ] } ]\n");
    check(&["--input", input, "--rules", &broken], BAD_USAGE, "broken.yml:1:");
    let only_record = file("record.yml", "groups: [ { name: g, rules: [ { record: a, expr: b } ] } ]\n");
    check(&["--input", input, "--rules", &only_record], BAD_USAGE, "there is no rule with `predict:` to replay");
    check(&["--input", input, "--rules", rules, "--firing-above", "2"], BAD_USAGE, "--firing-above: write a number");
    check(&["--input", input, "--rules", rules, "--start", "2", "--end", "1"], BAD_USAGE, "--end is not after --start");
    check(&["--input", input, "--rules", rules, "--start", "soon"], BAD_USAGE, "write unix seconds");
    check(&["--input", input, "--rules", rules, "--interval", "8h"], BAD_USAGE, "horizon of 12h is shorter than two");
    let no_time = file("x.om", "disk_used_ratio 1 1\ndisk_used_ratio 1\n");
    check(&["--input", &no_time, "--rules", rules], FAILED, "x.om:2: there is no timestamp");
    let other = file("other.om", "up 1 1\nup 1 2\n");
    check(&["--input", &other, "--rules", rules], FAILED, "none of 1 series is selected by the rules ({__name__=");
    let bad_truth = file("truth.csv", "component,fail_time,end_time\na,x,\n");
    check(&["--input", input, "--rules", rules, "--truth", &bad_truth], FAILED, "truth.csv:2: `x` is no time");
    check(&["--input", input, "--rules", rules, "--output", "/nowhere/x"], FAILED, "/nowhere/x cannot be written");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_ends_it_cleanly() {
    let set = set("backtest-interrupt");
    let alerts = set.folder.path("alerts.csv");
    let flags = ["--interval", "1s", "--alerts", &alerts];
    let mut child = Command::new(env!("CARGO_BIN_EXE_forestall"))
        .args([&["backtest", "--input", &set.input, "--rules", &set.rules][..], &flags[..]].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    // It listens once it has read the rules; a signal before that ends it as it ends every program.
    let status = format!("/proc/{}/status", child.id());
    eventually("it listens to Ctrl-C", crate::real::SOON, async || {
        let status = std::fs::read_to_string(&status).ok()?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?.trim().to_owned();
        (u64::from_str_radix(&caught, 16).ok()? & 0b10 != 0).then_some(())
    })
    .await;
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill is there");
    assert!(killed.success());
    let code = child.wait().expect("it ends").code();
    let mut error = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().expect("piped"), &mut error).expect("text");
    assert_eq!(code, Some(FAILED), "{error}");
    assert!(error.ends_with("forestall: interrupted; nothing was written\n"), "{error}");
    assert!(!std::path::Path::new(&alerts).exists(), "nothing is written");
}

#[test]
fn reads_what_promtool_dumps() {
    let Some(parts) = parts() else { return };
    let set = set("backtest-promtool");
    let lines = set.folder.write("in.om", &openmetrics());
    let blocks = set.folder.path("blocks");
    parts.run(Suite::Sid, "promtool", &["tsdb", "create-blocks-from", "openmetrics", &lines, &blocks]);
    // A dump wants the log of what is not in blocks yet, be it empty.
    std::fs::create_dir(set.folder.path("blocks/wal")).expect("the folder is writable");
    let dumped = parts.run(Suite::Sid, "promtool", &["tsdb", "dump-openmetrics", &blocks]);
    assert!(dumped.contains("disk_used_ratio{"), "{}", &dumped[..dumped.len().min(300)]);
    let dumped = set.folder.write("dumped.om", &dumped);
    let (code, out, error) = run(&["backtest", "--input", &dumped, "--rules", &set.rules, "--format", "json"]);
    assert_eq!(code, DONE, "{error}");
    let found: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(found, set.json(&[]), "the same as before promtool had it");
}

#[tokio::test(flavor = "multi_thread")]
async fn asks_a_real_prometheus_for_what_the_rules_select() {
    let Some(parts) = parts() else { return };
    let set = set("backtest-prometheus");
    let lines = set.folder.write("in.om", &openmetrics());
    let folder = Folder::new("prometheus");
    parts.run(Suite::Sid, "promtool", &["tsdb", "create-blocks-from", "openmetrics", &lines, &folder.path("data")]);
    let prometheus = Prometheus::start_in(&parts, Suite::Sid, "{}", folder).await;
    let url = prometheus.url("");
    let (start, end) = (START.to_string(), (START + DAYS * 86_400).to_string());
    let flags = ["--start", &start, "--end", &end, "--rules", &set.rules, "--format", "json"];
    let (code, out, error) = run(&[&["backtest", "--url", &url][..], &flags[..]].concat());
    assert_eq!(code, DONE, "{error}");
    let found: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(found, set.json(&[]), "the same as from a file");
    let at = format!("{}", START + 15 * 86_400);
    let expr = format!("disk_used_ratio{{disk=\"calm\"}} @ {at}");
    let (code, out, error) = run(&["forecast", &expr, "--url", &url, "--lookback", "1h", "--format", "csv"]);
    assert_eq!(code, DONE, "{error}");
    assert!(out.lines().count() > 3, "{out}");
}

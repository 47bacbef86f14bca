//! `forestall backtest`: replays a record through the rules, and says what forestall would have been worth.
//!
//! ```text
//! OpenMetrics · CSV · a Prometheus ─▶ Store ─▶ Cycle::run, pass by pass on a simulated clock ─▶ episodes, probabilities
//!                                                                                                        │
//!                     text · JSON · HTML · alerts · exit code ◀─ score ◀─ breaches of the rules, or a file ┘
//! ```
//!
//! It is the server's own code that runs, from the store on; only the clock and the end of retention differ.

mod html;
mod plots;
mod replay;
mod report;
mod truth;

use std::io::BufRead as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;

use super::forecast::median_distance;
use super::progress::Progress;
use super::readers::openmetrics::{self, Labelled};
use super::readers::prometheus::{SAMPLES_AT_A_TIME, Server};
use super::readers::{self, parse_time, shown};
use super::{BAD_USAGE, complain, runtime, say};
use crate::config::{self, Beside, Settings};
use crate::cycle::predict_rules;
use crate::health::Rule;
use crate::model::{Labels, METRIC_NAME, Millis, Sample, Timestamp};
use crate::store::Matcher;

use replay::Play;
use report::{Frame, Gate};
use truth::Truth;

/// How many warnings of one sort are shown.
const SHOWN_MAX: usize = 10;

/// How the report is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
    /// One page with plots that needs nothing else.
    Html,
}

/// Flags of `backtest`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("source").required(true).args(["input", "url"]))]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["rules", "config_file"]))]
pub(super) struct BacktestArguments {
    /// The record, `-` for standard input: OpenMetrics text with timestamps (`promtool tsdb dump-openmetrics`), or CSV as
    /// `forecast` takes it, with series written as in PromQL: up, up{job="a"}.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// A server with Prometheus's query API instead: what the rules select from --start to --end.
    #[arg(long, value_name = "URL", requires = "start")]
    url: Option<String>,
    /// Where the record begins: unix seconds or RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = time)]
    start: Option<Timestamp>,
    /// Where the record ends; with --url now, if it is not given.
    #[arg(long, value_name = "TIME", value_parser = time)]
    end: Option<Timestamp>,
    /// Rule files.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    rules: Vec<PathBuf>,
    /// Policy files: what would have been done is worked out under them, in observe mode.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    policies: Vec<PathBuf>,
    /// A main configuration file, as `serve` takes it, whose rules and policies are replayed too.
    #[arg(long = "config.file", value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// How often the rules are evaluated; without it as they say, but not more often than there are samples.
    #[arg(long, value_name = "DURATION", value_parser = Millis::parse)]
    interval: Option<Millis>,
    /// A component fires once its probability has been at least this for two cells of its horizon; without it as `serve`
    /// has it, which wants to be surer of a breach that is far.
    #[arg(long, value_name = "PROBABILITY")]
    firing_above: Option<f64>,
    /// Failures as they really were, `component,fail_time,end_time`, instead of the rules' own breaches.
    #[arg(long, value_name = "FILE")]
    truth: Option<PathBuf>,
    /// A warning counts only so long before its failure; without it the fastest actuation time of the policies, else a
    /// 24th of the horizon.
    #[arg(long, value_name = "DURATION", value_parser = Millis::parse)]
    lead_min: Option<Millis>,
    /// Write each time of firing here: `component,rule,start,end,probability,eta_seconds`.
    #[arg(long, value_name = "FILE")]
    alerts: Option<PathBuf>,
    /// How the report looks.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Where the report is written, `-` for standard output.
    #[arg(long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// Exit with 1 where the precision over all rules is lower.
    #[arg(long, value_name = "SHARE")]
    min_precision: Option<f64>,
    /// Exit with 1 where the recall over all rules is lower.
    #[arg(long, value_name = "SHARE")]
    min_recall: Option<f64>,
    /// Exit with 1 where the median lead over all rules is shorter.
    #[arg(long, value_name = "DURATION", value_parser = Millis::parse)]
    min_lead: Option<Millis>,
}

fn time(text: &str) -> Result<Timestamp, String> {
    let parsed = parse_time(text).map(|(at, _)| at);
    parsed.ok_or_else(|| "write unix seconds (1767225600) or RFC 3339 (2026-01-01T00:00:00Z)".to_owned())
}

/// Something about the call or the configuration that has to be put right first.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// Replays, scores and reports.
pub(super) fn run(arguments: &BacktestArguments) -> anyhow::Result<ExitCode> {
    match backtest(arguments) {
        Err(error) if error.is::<Usage>() => {
            complain(&error.to_string());
            Ok(ExitCode::from(BAD_USAGE))
        }
        result => result,
    }
}

fn backtest(arguments: &BacktestArguments) -> anyhow::Result<ExitCode> {
    check_usage(arguments)?;
    let mut settings = read_settings(arguments)?;
    let truth = match &arguments.truth {
        Some(file) => {
            let (name, text) = readers::open(file)?;
            Some(Truth::read(&name, text)?)
        }
        None => None,
    };
    let series = wanted(read_series(arguments, &settings)?, arguments, &settings)?;
    let interval = set_interval(arguments, &mut settings, &series)?;
    make_room(&mut settings, &series);
    let samples = series.iter().map(|(_, samples)| samples.len()).sum();
    let play = Play { start: arguments.start, interval, fires_from: arguments.firing_above };
    let replayed = replay::replay(&settings, &series, play, &*stop_flag()?)?;
    let frame = Frame {
        rules: predict_rules(&settings).collect(),
        settings: &settings,
        play,
        lead_min: arguments.lead_min,
        series: series.len(),
        samples,
        truth: truth.as_ref(),
    };
    let findings = report::find(&replayed, &frame);
    say_what_is_odd(&replayed, &frame);
    if let Some(file) = &arguments.alerts {
        write(file, &report::alerts(&replayed)?)?;
    }
    let text = match arguments.format {
        Format::Text => report::text(&findings),
        Format::Json => serde_json::to_string_pretty(&findings)? + "\n",
        Format::Html => html::page(&findings, &replayed, &frame),
    };
    write(&arguments.output, &text)?;
    let gate = Gate { precision: arguments.min_precision, recall: arguments.min_recall, lead: arguments.min_lead };
    let missed = gate.missed(&findings.all);
    missed.iter().for_each(|missed| complain(missed));
    Ok(if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn check_usage(arguments: &BacktestArguments) -> anyhow::Result<()> {
    let shares = [
        ("--firing-above", arguments.firing_above),
        ("--min-precision", arguments.min_precision),
        ("--min-recall", arguments.min_recall),
    ];
    for (name, share) in shares {
        if share.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
            return Err(Usage(format!("{name}: write a number from 0 to 1")).into());
        }
    }
    if arguments.interval.is_some_and(|interval| interval < Millis::SECOND) {
        return Err(Usage("--interval: at least 1s".to_owned()).into());
    }
    match (arguments.start, arguments.end) {
        (Some(start), Some(end)) if start >= end => Err(Usage("--end is not after --start".to_owned()).into()),
        _ => Ok(()),
    }
}

fn read_settings(arguments: &BacktestArguments) -> anyhow::Result<Settings> {
    let beside = Beside { rule_files: &arguments.rules, policy_files: &arguments.policies };
    let main = arguments.config_file.as_deref();
    let (settings, warnings) = config::load_for_replay(main, beside)
        .map_err(|problems| Usage(format!("the rules cannot be replayed:\n{problems}")))?;
    // Who acts is of no interest here; that a rule has no policy neither, then.
    for warning in warnings.iter().filter(|warning| warning.code != "rule/without-policy") {
        complain(&format!("warning\n{warning}"));
    }
    if predict_rules(&settings).next().is_none() {
        return Err(Usage("there is no rule with `predict:` to replay".to_owned()).into());
    }
    Ok(settings)
}

/// Goes up when someone presses Ctrl-C.
fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // The thread lives as long as the command.
    std::thread::spawn(move || {
        runtime.block_on(async {
            if tokio::signal::ctrl_c().await.is_ok() {
                flag.store(true, Ordering::Relaxed);
            }
        });
    });
    Ok(stop)
}

fn read_series(arguments: &BacktestArguments, settings: &Settings) -> anyhow::Result<Labelled> {
    let Some(file) = &arguments.input else { return asked(arguments, settings) };
    let (name, mut text) = readers::open(file)?;
    if is_csv(text.fill_buf().with_context(|| format!("{name} cannot be read"))?) {
        let table = readers::csv::read(&name, text)?;
        if table.repeated > 0 {
            complain(&format!("{} values were left out: their series has one at that time already", table.repeated));
        }
        let labelled = table.series.into_iter().map(|mut series| {
            series.samples.retain(|sample| !sample.value.is_nan());
            let labels = labels_of(&series.name);
            let labels = labels.map_err(|why| anyhow::anyhow!("{name}: series {}: {why}", shown(&series.name)))?;
            Ok((labels, series.samples))
        });
        return labelled.collect();
    }
    Ok(openmetrics::read(&name, text)?)
}

/// Whether a file's first line is a CSV header.
fn is_csv(beginning: &[u8]) -> bool {
    let line = beginning.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut cells = line.trim_start_matches('\u{feff}').split(',').map(|cell| cell.trim().trim_matches('"'));
    !line.starts_with('#') && cells.any(|cell| cell == "timestamp" || cell == "series")
}

/// The labels of a series of a CSV file: written as in PromQL, or a name of any letters.
fn labels_of(name: &str) -> Result<Labels, String> {
    let name = name.trim();
    match openmetrics::parse_series(name) {
        Ok((labels, "")) => Ok(labels),
        _ if name.is_empty() => Err("it has no name".to_owned()),
        _ if !name.contains('{') => Ok(Labels::new([(METRIC_NAME, name)])),
        Ok((_, rest)) => Err(format!("{} follows its labels", shown(rest))),
        Err(why) => Err(why),
    }
}

/// What the rules select, from a server.
fn asked(arguments: &BacktestArguments, settings: &Settings) -> anyhow::Result<Labelled> {
    let url = arguments.url.as_deref().unwrap_or_default();
    let end = arguments.end.unwrap_or_else(|| crate::clock::Clock::wall().now());
    let start = arguments.start.unwrap_or_default();
    if start >= end {
        return Err(Usage("--start is not in the past".to_owned()).into());
    }
    // What the first pass looks back at lies before it.
    let from = start - settings.reach();
    let selectors: Vec<String> = settings.selectors().iter().map(|matchers| selector_text(matchers)).collect();
    let parts = usize::try_from((end - from).0 / SAMPLES_AT_A_TIME.0 + 1).unwrap_or(0);
    let progress = Progress::new(selectors.len() * parts, "fetching");
    let mut server = Server::new(url)?;
    let mut all: Vec<(Labels, Vec<Sample>)> = runtime()?.block_on(async {
        let mut all = Vec::new();
        for selector in &selectors {
            all.extend(server.samples(selector, from, end, || progress.step()).await?);
        }
        anyhow::Ok(all)
    })?;
    progress.end();
    // Several selectors may select the same series.
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all.dedup_by(|a, b| a.0 == b.0);
    Ok(all)
}

/// A selector as PromQL has it.
fn selector_text(matchers: &[Matcher]) -> String {
    let parts = matchers.iter().map(|matcher| {
        let escaped = matcher.value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        format!("{}{}\"{escaped}\"", matcher.name, matcher.op.as_str())
    });
    format!("{{{}}}", parts.collect::<Vec<_>>().join(","))
}

/// The series that some rule selects, from --start to --end.
fn wanted(mut series: Labelled, arguments: &BacktestArguments, settings: &Settings) -> anyhow::Result<Labelled> {
    let selectors = settings.selectors();
    let all = series.len();
    series.retain(|(labels, _)| {
        selectors.iter().any(|matchers| matchers.iter().all(|matcher| matcher.matches_labels(labels)))
    });
    let start = arguments.start.map(|start| start - settings.reach());
    for (_, samples) in &mut series {
        samples.retain(|sample| {
            start.is_none_or(|start| start <= sample.at) && arguments.end.is_none_or(|end| sample.at <= end)
        });
    }
    series.retain(|(_, samples)| !samples.is_empty());
    if series.is_empty() {
        let examples: Vec<String> = selectors.iter().take(3).map(|matchers| selector_text(matchers)).collect();
        anyhow::bail!("none of {all} series is selected by the rules ({}): nothing to replay", examples.join(", "));
    }
    series.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(series)
}

/// Sets how often groups are evaluated, and answers the distance of passes.
fn set_interval(arguments: &BacktestArguments, settings: &mut Settings, series: &Labelled) -> anyhow::Result<Millis> {
    let step = series.iter().filter_map(|(_, samples)| median_distance(samples)).min();
    for group in &mut settings.groups {
        let wanted = match (arguments.interval, step) {
            (Some(interval), _) => interval,
            (None, Some(step)) if step > group.interval => {
                complain(&format!(
                    "group {} is evaluated every {step} and not every {}: there are no more samples than that",
                    group.name, group.interval
                ));
                step
            }
            _ => continue,
        };
        group.interval = wanted;
    }
    let interval = settings.groups.iter().map(|group| group.interval).reduce(common_divisor).unwrap_or(Millis::MINUTE);
    let coarsest = settings.groups.iter().map(|group| group.interval).max().unwrap_or(interval);
    // A sample that is as old as the distance of passes is the newest there is.
    settings.query.lookback = settings.query.lookback.max(coarsest);
    for (group, rule) in settings.groups.iter().flat_map(|group| group.rules.iter().map(move |rule| (group, rule))) {
        if let Rule::Predict(rule) = rule
            && rule.horizon < group.interval * 2
        {
            let (horizon, interval) = (rule.horizon, group.interval);
            return Err(Usage(format!(
                "rule {}: a horizon of {horizon} is shorter than two evaluations, {interval} apart",
                rule.name
            ))
            .into());
        }
    }
    Ok(interval)
}

fn common_divisor(a: Millis, b: Millis) -> Millis {
    if b == Millis::ZERO { a } else { common_divisor(b, Millis(a.0 % b.0)) }
}

/// The whole record fits: nothing of what a server would have learned from is lost to a limit.
fn make_room(settings: &mut Settings, series: &Labelled) {
    let first = series.iter().filter_map(|(_, samples)| samples.first()).map(|sample| sample.at).min();
    let last = series.iter().filter_map(|(_, samples)| samples.last()).map(|sample| sample.at).max();
    let span = last.unwrap_or_default() - first.unwrap_or_default() + Millis::DAY;
    let reach = settings.reach().max(settings.query.lookback);
    let store = &mut settings.store;
    store.raw_retention = store.raw_retention.max(reach * 2);
    store.signal_retention = store.signal_retention.max(span);
    store.memory_bytes_max = usize::MAX / 4;
    store.series_max = usize::MAX / 4;
    store.series_per_job_max = usize::MAX / 4;
}

fn say_what_is_odd(replayed: &replay::Replayed, frame: &Frame<'_>) {
    for rule in &frame.rules {
        if report::tracks_of(replayed, rule).next().is_none() {
            complain(&format!("rule {} has no component in this record", rule.name));
        }
    }
    let Some(truth) = frame.truth else { return };
    let unknown = truth.unknown(replayed.tracks.keys().map(|(_, component)| component));
    for name in unknown.iter().take(SHOWN_MAX) {
        complain(&format!("{}: no component is called {}; its failures are not counted", truth.file, shown(name)));
    }
    if unknown.len() > SHOWN_MAX {
        complain(&format!("{}: and {} names more", truth.file, unknown.len() - SHOWN_MAX));
    }
}

/// Writes to a file or to standard output.
fn write(file: &std::path::Path, text: &str) -> anyhow::Result<()> {
    if file == std::path::Path::new("-") {
        say(text.trim_end_matches('\n'));
        return Ok(());
    }
    std::fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_csv_file_is_known_by_its_header() {
        for (line, csv) in [
            ("series,timestamp,value\n", true),
            ("timestamp,a,b\n", true),
            ("\u{feff}\"timestamp\",\"a\"\r\n", true),
            ("series,time,value\n", true),
            ("timestamp,up{job=\"a\"},b\n", true),
            ("# TYPE up gauge\n", false),
            ("up{a=\"timestamp\"} 1 1\n", false),
            ("timestamp 1 1\n", false),
            ("", false),
        ] {
            assert_eq!(is_csv(line.as_bytes()), csv, "{line}");
        }
    }

    #[test]
    fn a_series_of_a_csv_file_is_named_as_in_promql_or_in_any_letters() {
        for (name, labels) in
            [("up", "up"), ("up{job=\"a\"}", "up{job=\"a\"}"), ("Zürich 1", "Zürich 1"), ("1st", "1st")]
        {
            assert_eq!(labels_of(name).map(|labels| labels.to_string()), Ok(labels.to_owned()));
        }
        assert_eq!(labels_of("up{job=\"a\"} x"), Err("` x` follows its labels".to_owned()));
        assert_eq!(labels_of("up{job=a}"), Err("the value of label `job` is not quoted".to_owned()));
        assert_eq!(labels_of(""), Err("it has no name".to_owned()));
    }

    #[test]
    fn selectors_are_written_as_promql_reads_them() {
        let query = crate::query::Query::parse(r#"up{a="q\"b\\c",d!="e",f=~"g.*",h!~"i|j"}"#).expect("a query");
        let text = selector_text(&query.matcher_sets()[0]);
        let again = crate::query::Query::parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(format!("{:?}", again.matcher_sets()), format!("{:?}", query.matcher_sets()));
    }
}

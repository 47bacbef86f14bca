//! How right and how dear forecasts are: forestall beside statsforecast, on the same series, one thread each.
//!
//! ```text
//! cargo bench --bench forecast -- --data hourly.csv --season 24 --horizon 48 --models
//! cargo bench --bench forecast -- --time
//! ```
//!
//! The last horizon of each series is held out. Scores are those of the M4 competition (Makridakis, Spiliotis and
//! Assimakopoulos 2020): sMAPE, MASE, OWA against the Naive 2 method, MSIS at 95 %; coverage by buckets of 12 steps.
//! CPU time is the thread's, as the kernel counts it. Without a file, the series are made up from a seed. `make
//! bench-forecast` makes the environment that statsforecast runs in; where there is none, forestall is measured alone.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a measurement for people: it prints")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use forestall::forecast::{BankMeter, ModelChoice, Refusal, SeriesSettings, expected_path, forecast_series};
use forestall::model::{Millis, Sample, Timestamp};
use serde::{Deserialize, Serialize};

/// The quantiles asked for: the ends of the 95 % and the 90 % interval, and the middle.
const LEVELS: [f64; 5] = [0.025, 0.05, 0.5, 0.95, 0.975];
/// Steps in a bucket of coverage.
const BUCKET: usize = 12;
/// Series and steps of the made-up set: five weeks of hours.
const MADE_UP: (usize, usize) = (60, 840);
/// One-sided 5 % of the normal distribution: how significant a season must be for Naive 2.
const SIGNIFICANT: f64 = 1.645;
/// How often each series is fitted for a time.
const TIMED_ROUNDS: usize = 5;
/// What the kernel may not see: less CPU time than this, over all series, is taken for this much.
const TICK_MS: f64 = 4.0;

/// Measures forecasts of forestall and statsforecast.
#[derive(Debug, Parser)]
struct Arguments {
    /// A CSV file: `series,timestamp,value`, or as M4's `series,period,horizon,split,index,value`.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// The season, in steps; seven of them are the second one where a history has more than two.
    #[arg(long, default_value_t = 24)]
    season: usize,
    /// Steps to forecast.
    #[arg(long, default_value_t = 48)]
    horizon: usize,
    /// Only so many series, evenly spread over the file.
    #[arg(long)]
    series: Option<usize>,
    /// Every classical model too, not only `auto`.
    #[arg(long)]
    models: bool,
    /// Only what forestall's fits and updates cost, and how large they are.
    #[arg(long)]
    time: bool,
    /// Where the made-up series come from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Writes all figures there.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A Python that has statsforecast.
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/forecast-bench/bin/python"))]
    python: PathBuf,
    /// What `cargo bench` says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A series with its future.
#[derive(Debug)]
struct Case {
    name: String,
    history: Vec<f64>,
    future: Vec<f64>,
}

/// What one model says of one series.
#[derive(Debug, Deserialize)]
struct Answer {
    cpu_ms: f64,
    path: Vec<f64>,
    /// By level, as text; empty where the model has no intervals.
    quantiles: BTreeMap<String, Vec<f64>>,
}

/// What statsforecast says.
#[derive(Debug, Deserialize)]
struct PeerAnswer {
    version: String,
    models: BTreeMap<String, BTreeMap<String, Answer>>,
}

/// What statsforecast is asked.
#[derive(Debug, Serialize)]
struct PeerQuestion<'a> {
    seasons: &'a [usize],
    horizon: usize,
    series: Vec<PeerSeries<'a>>,
}

#[derive(Debug, Serialize)]
struct PeerSeries<'a> {
    name: &'a str,
    values: &'a [f64],
}

/// A path, and quantiles by level as text.
type Said = (Vec<f64>, BTreeMap<String, Vec<f64>>);
/// A model's answers by series.
type Answers = BTreeMap<String, Answer>;

/// The scores of one model over all series.
#[derive(Debug, Default, Serialize)]
struct Scores {
    series: usize,
    smape: f64,
    mase: f64,
    owa: f64,
    /// Absent without intervals.
    msis_95: Option<f64>,
    coverage_95: Vec<f64>,
    coverage_90: Vec<f64>,
    cpu_ms: f64,
}

/// One model on both sides.
#[derive(Debug, Serialize)]
struct Ratio {
    /// sMAPE of forestall by that of statsforecast, on the series that both have forecast.
    smape: f64,
    /// The sMAPE between both paths: 0 where they are the same.
    apart: f64,
    /// CPU time of statsforecast by that of forestall.
    faster: f64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    ensure!(arguments.season >= 2 && arguments.horizon >= 1, "a season has at least 2 steps, a horizon 1");
    let cases = cases(&arguments)?;
    let shortest = cases.iter().map(|case| case.history.len()).min().context("there is no series")?;
    let seasons: Vec<usize> =
        [1, 7].map(|factor| factor * arguments.season).into_iter().filter(|season| 2 * season < shortest).collect();
    ensure!(!seasons.is_empty(), "the shortest history has {shortest} values: no two seasons");
    println!("{} series, {} steps ahead, seasons {seasons:?}\n", cases.len(), arguments.horizon);
    if arguments.time {
        return time_banks(&cases, &seasons, arguments.horizon);
    }

    let mut own = BTreeMap::from([(
        "auto".to_owned(),
        forecast_all(&cases, |history| automatic(history, &seasons, &arguments))?,
    )]);
    own.insert("auto, lite".to_owned(), forecast_all(&cases, |history| lite(history, &seasons, arguments.horizon))?);
    if arguments.models {
        // The bank is measured above; the LSTM is trained, not fitted.
        let fitted = |choice: &ModelChoice| !matches!(choice, ModelChoice::Auto | ModelChoice::Lstm);
        for choice in ModelChoice::ALL.into_iter().filter(fitted) {
            let answer = |history: &[f64]| classical(choice, history, &seasons, arguments.horizon);
            own.insert(choice.name().to_owned(), forecast_all(&cases, answer)?);
        }
    }
    let peer = ask_peer(&cases, &seasons, &arguments)?;
    let naive: Answers = cases
        .iter()
        .map(|case| (case.name.clone(), naive_2(&case.history, arguments.season, arguments.horizon)))
        .collect();
    let score = |answers: &Answers| scores(&cases, answers, &naive, arguments.season);
    let own_scores: BTreeMap<&String, Scores> = own.iter().map(|(name, answers)| (name, score(answers))).collect();
    let peer_models = peer.as_ref().map(|peer| &peer.models).into_iter().flatten();
    let peer_scores: BTreeMap<&String, Scores> = peer_models.map(|(name, answers)| (name, score(answers))).collect();
    let ratios = peer.as_ref().map_or_else(BTreeMap::new, |peer| ratios(&cases, &own, &peer.models));

    print_scores(&own_scores, &peer_scores, peer.as_ref().map_or("", |peer| &peer.version));
    print_coverage(&own_scores, &peer_scores);
    print_ratios(&ratios);
    if let (Some(auto), Some(mstl)) = (own_scores.get(&"auto".to_owned()), peer_scores.get(&"mstl".to_owned())) {
        println!("\nauto / MSTL: OWA **{:.2}x**, {:.0}x faster", auto.owa / mstl.owa, mstl.cpu_ms / auto.cpu_ms);
    }
    if let Some(file) = &arguments.json {
        let figures = serde_json::json!({ "forestall": own_scores, "statsforecast": peer_scores, "ratios": ratios });
        std::fs::write(file, format!("{figures:#}\n")).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

/// CPU seconds of this thread so far.
fn cpu_seconds() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").context("the kernel does not count CPU times")?;
    let nanoseconds: f64 = text.split(' ').next().unwrap_or_default().parse().context("/proc/thread-self/schedstat")?;
    Ok(nanoseconds / 1e9)
}

/// Forecasts all series; a refusal is said and left out.
fn forecast_all(cases: &[Case], forecast: impl Fn(&[f64]) -> anyhow::Result<Said>) -> anyhow::Result<Answers> {
    let mut answers = Answers::new();
    // The first touches memory and code for all.
    let _ = forecast(&cases[0].history);
    for case in cases {
        let before = cpu_seconds()?;
        let answer = forecast(&case.history);
        let cpu_ms = 1000.0 * (cpu_seconds()? - before);
        match answer {
            Ok((path, quantiles)) => drop(answers.insert(case.name.clone(), Answer { cpu_ms, path, quantiles })),
            Err(error) => eprintln!("{}: {error}", case.name),
        }
    }
    Ok(answers)
}

/// What `forestall forecast` prints: the middle of the forecast, and its intervals.
fn automatic(history: &[f64], seasons: &[usize], arguments: &Arguments) -> anyhow::Result<Said> {
    let forecast = forecast_series(&samples(history), &settings(seasons, arguments.horizon))?;
    let quantiles = LEVELS.iter().map(f64::to_string).zip(forecast.values.iter().cloned()).collect();
    let middle = LEVELS.iter().zip(forecast.values).find(|(level, _)| (**level - 0.5).abs() < 1e-9);
    Ok((middle.context("no middle")?.1, quantiles))
}

/// What series without a rule get.
fn lite(history: &[f64], seasons: &[usize], horizon: usize) -> anyhow::Result<Said> {
    let values = BankMeter::lite(history, seasons, horizon)?.forecast(&LEVELS);
    let middle = values[LEVELS.len() / 2].clone();
    Ok((middle, LEVELS.iter().map(f64::to_string).zip(values).collect()))
}

fn classical(choice: ModelChoice, history: &[f64], seasons: &[usize], horizon: usize) -> anyhow::Result<Said> {
    Ok((expected_path(choice, history, seasons, horizon)?, BTreeMap::new()))
}

fn hours(count: usize) -> Millis {
    Millis::HOUR * i64::try_from(count).unwrap_or(i64::MAX)
}

fn settings(seasons: &[usize], horizon: usize) -> SeriesSettings {
    SeriesSettings {
        step: Millis::HOUR,
        horizon: hours(horizon),
        seasons: seasons.iter().map(|season| hours(*season)).collect(),
        model: ModelChoice::Auto,
        levels: LEVELS.to_vec(),
        floor: None,
        ceiling: None,
        network: None,
    }
}

/// Values an hour apart: the clock does not matter, only the distance.
fn samples(history: &[f64]) -> Vec<Sample> {
    history.iter().enumerate().map(|(at, value)| Sample { at: Timestamp(0) + hours(at), value: *value }).collect()
}

/// A way to fit a bank.
type Fit = fn(&[f64], &[usize], usize) -> Result<BankMeter, Refusal>;

/// What fits and updates cost and how large a bank is, on average. An update is a value pushed and a forecast with all
/// levels; refits that fall due meanwhile are counted, not made. The kernel counts CPU time in ticks of a few
/// milliseconds, so times are sums over all series, divided.
fn time_banks(cases: &[Case], seasons: &[usize], horizon: usize) -> anyhow::Result<()> {
    println!("| bank | fit with intervals, CPU ms | update and forecast, CPU µs | bytes, at most | refits due |");
    println!("|---|---|---|---|---|");
    let banks: [(&str, Fit); 2] = [("full", BankMeter::full), ("lite", BankMeter::lite)];
    for (name, fit) in banks {
        let before = cpu_seconds()?;
        for _ in 0..TIMED_ROUNDS {
            for case in cases {
                std::hint::black_box(fit(&case.history, seasons, horizon)?.forecast(&LEVELS));
            }
        }
        let fit_ms = 1000.0 * (cpu_seconds()? - before) / (TIMED_ROUNDS * cases.len()) as f64;
        let fits: Result<Vec<BankMeter>, Refusal> =
            cases.iter().map(|case| fit(&case.history, seasons, horizon)).collect();
        let mut fits = fits?;
        let before = cpu_seconds()?;
        for (bank, case) in fits.iter_mut().zip(cases) {
            for value in &case.future {
                bank.push(*value);
                std::hint::black_box(bank.forecast(&LEVELS));
            }
        }
        let update_us = 1e6 * (cpu_seconds()? - before) / (cases.len() * horizon) as f64;
        let bytes = fits.iter().map(BankMeter::memory_bytes).max().unwrap_or(0);
        let refits = fits.iter().filter(|bank| bank.needs_refit()).count();
        println!("| {name} | {fit_ms:.2} | {update_us:.1} | {bytes} | {refits} |");
    }
    Ok(())
}

/// What statsforecast says of the same series; nothing where it is not installed.
fn ask_peer(cases: &[Case], seasons: &[usize], arguments: &Arguments) -> anyhow::Result<Option<PeerAnswer>> {
    if !arguments.python.exists() {
        eprintln!(
            "statsforecast is left out: there is no {}; `make bench-forecast` makes it",
            arguments.python.display()
        );
        return Ok(None);
    }
    let folder = tempfile::tempdir()?;
    let (question_file, answer_file) = (folder.path().join("cases.json"), folder.path().join("answer.json"));
    let series = cases.iter().map(|case| PeerSeries { name: &case.name, values: &case.history }).collect();
    let question = PeerQuestion { seasons, horizon: arguments.horizon, series };
    std::fs::write(&question_file, serde_json::to_vec(&question)?)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/forecast/peer.py");
    let mut command = Command::new(&arguments.python);
    command.arg(script).arg(&question_file).arg(&answer_file);
    if arguments.models {
        command.arg("--models");
    }
    ensure!(command.status()?.success(), "statsforecast failed");
    Ok(Some(serde_json::from_slice(&std::fs::read(&answer_file)?)?))
}

fn absolute_change(values: &[f64], lag: usize) -> f64 {
    let changes = values.iter().skip(lag).zip(values).map(|(value, before)| (value - before).abs());
    changes.sum::<f64>() / values.len().saturating_sub(lag).max(1) as f64
}

fn smape(actual: &[f64], path: &[f64]) -> f64 {
    let of_step = |(actual, expected): (&f64, &f64)| {
        let size = actual.abs() + expected.abs();
        if size > 0.0 { 200.0 * (actual - expected).abs() / size } else { 0.0 }
    };
    actual.iter().zip(path).map(of_step).sum::<f64>() / actual.len() as f64
}

fn mean_error(actual: &[f64], path: &[f64]) -> f64 {
    actual.iter().zip(path).map(|(actual, expected)| (actual - expected).abs()).sum::<f64>() / actual.len() as f64
}

/// The mean scaled interval score at 95 %, not yet scaled (Gneiting and Raftery 2007).
fn interval_score(actual: &[f64], lower: &[f64], upper: &[f64]) -> f64 {
    let of_step = |at: usize| {
        let missed = (lower[at] - actual[at]).max(0.0) + (actual[at] - upper[at]).max(0.0);
        upper[at] - lower[at] + 2.0 / 0.05 * missed
    };
    (0..actual.len()).map(of_step).sum::<f64>() / actual.len() as f64
}

/// Means over the series that have been forecast and whose seasonal change is not zero.
fn scores(cases: &[Case], answers: &Answers, naive: &Answers, season: usize) -> Scores {
    let mut scores = Scores::default();
    let (mut naive_smape, mut naive_mase, mut intervals) = (0.0, 0.0, Vec::new());
    for case in cases {
        let scale = absolute_change(&case.history, season);
        let Some(answer) = answers.get(&case.name).filter(|_| scale > 0.0) else { continue };
        scores.series += 1;
        scores.smape += smape(&case.future, &answer.path);
        scores.mase += mean_error(&case.future, &answer.path) / scale;
        scores.cpu_ms += answer.cpu_ms;
        naive_smape += smape(&case.future, &naive[&case.name].path);
        naive_mase += mean_error(&case.future, &naive[&case.name].path) / scale;
        if let (Some(lower), Some(upper)) = (answer.quantiles.get("0.025"), answer.quantiles.get("0.975")) {
            intervals.push(interval_score(&case.future, lower, upper) / scale);
        }
    }
    let count = scores.series.max(1) as f64;
    scores.owa = f64::midpoint(scores.smape / naive_smape, scores.mase / naive_mase);
    for sum in [&mut scores.smape, &mut scores.mase, &mut scores.cpu_ms] {
        *sum /= count;
    }
    scores.msis_95 = (!intervals.is_empty()).then(|| intervals.iter().sum::<f64>() / intervals.len() as f64);
    scores.coverage_95 = coverage(cases, answers, "0.025", "0.975");
    scores.coverage_90 = coverage(cases, answers, "0.05", "0.95");
    scores
}

/// Which share of what came lay between two quantiles, by bucket of steps.
fn coverage(cases: &[Case], answers: &Answers, lower: &str, upper: &str) -> Vec<f64> {
    let mut counts: Vec<(usize, usize)> = Vec::new();
    for case in cases {
        let Some(answer) = answers.get(&case.name) else { continue };
        let (Some(lower), Some(upper)) = (answer.quantiles.get(lower), answer.quantiles.get(upper)) else { continue };
        for (step, actual) in case.future.iter().enumerate() {
            counts.resize(counts.len().max(step / BUCKET + 1), (0, 0));
            let (inside, all) = &mut counts[step / BUCKET];
            *inside += usize::from(lower[step] <= *actual && *actual <= upper[step]);
            *all += 1;
        }
    }
    counts.into_iter().map(|(inside, all)| inside as f64 / all as f64).collect()
}

fn ratios(
    cases: &[Case],
    own: &BTreeMap<String, Answers>,
    peer: &BTreeMap<String, Answers>,
) -> BTreeMap<String, Ratio> {
    let mut ratios = BTreeMap::new();
    for (name, theirs) in peer {
        let Some(ours) = own.get(name) else { continue };
        let (mut own_smape, mut peer_smape, mut apart, mut own_ms, mut peer_ms, mut count) =
            (0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
        for case in cases {
            let (Some(one), Some(other)) = (ours.get(&case.name), theirs.get(&case.name)) else { continue };
            own_smape += smape(&case.future, &one.path);
            peer_smape += smape(&case.future, &other.path);
            apart += smape(&one.path, &other.path);
            own_ms += one.cpu_ms;
            peer_ms += other.cpu_ms;
            count += 1.0;
        }
        ratios.insert(
            name.clone(),
            Ratio { smape: own_smape / peer_smape, apart: apart / count, faster: peer_ms / own_ms.max(TICK_MS) },
        );
    }
    ratios
}

/// Naive 2 of the M4 competition: the last value, its season taken off where significant and put back.
fn naive_2(history: &[f64], season: usize, horizon: usize) -> Answer {
    let indices = significant_factors(history, season).unwrap_or_else(|| vec![1.0; season]);
    let last = history[history.len() - 1] / indices[(history.len() - 1) % season];
    let path = (0..horizon).map(|step| last * indices[(history.len() + step) % season]).collect();
    Answer { cpu_ms: 0.0, path, quantiles: BTreeMap::new() }
}

/// The factors of a classical decomposition; none where the season is not significant or cannot multiply.
fn significant_factors(history: &[f64], season: usize) -> Option<Vec<f64>> {
    let count = history.len();
    if count < 3 * season || history.iter().any(|value| *value <= 0.0) {
        return None;
    }
    let mean = history.iter().sum::<f64>() / count as f64;
    let product = |lag: usize| (lag..count).map(|at| (history[at] - mean) * (history[at - lag] - mean)).sum::<f64>();
    let squares: f64 = (1..season).map(|lag| (product(lag) / product(0)).powi(2)).sum();
    if (product(season) / product(0)).abs() <= SIGNIFICANT * ((1.0 + 2.0 * squares) / count as f64).sqrt() {
        return None;
    }
    let half = season / 2;
    let mut factors = vec![Vec::new(); season];
    for at in half..count - half {
        let window = &history[at - half..=at + half];
        let ends = if season.is_multiple_of(2) { f64::midpoint(window[0], window[window.len() - 1]) } else { 0.0 };
        factors[at % season].push(history[at] * season as f64 / (window.iter().sum::<f64>() - ends));
    }
    let mut factors: Vec<f64> = factors.iter().map(|of| of.iter().sum::<f64>() / of.len() as f64).collect();
    let mean = factors.iter().sum::<f64>() / season as f64;
    factors.iter_mut().for_each(|factor| *factor /= mean);
    Some(factors)
}

fn cases(arguments: &Arguments) -> anyhow::Result<Vec<Case>> {
    let mut cases = match &arguments.data {
        Some(file) => read_cases(file, arguments.horizon).with_context(|| file.display().to_string())?,
        None => made_up_cases(arguments.seed, arguments.horizon),
    };
    if let Some(wanted) = arguments.series.filter(|wanted| 0 < *wanted && *wanted < cases.len()) {
        let (mut index, all) = (0, cases.len());
        cases.retain(|_| {
            index += 1;
            index * wanted / all > (index - 1) * wanted / all
        });
    }
    Ok(cases)
}

/// The series of a file in the order in which they begin, the last horizon of each held out.
fn read_cases(file: &Path, horizon: usize) -> anyhow::Result<Vec<Case>> {
    let text = std::fs::read_to_string(file)?;
    let mut lines = text.lines();
    let value_field = match lines.next().unwrap_or_default().trim() {
        "series,timestamp,value" => 2,
        "series,period,horizon,split,index,value" => 5,
        other => bail!("unknown columns: {other}"),
    };
    let mut order = Vec::new();
    let mut series: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (number, line) in (2..).zip(lines) {
        let fields: Vec<&str> = line.split(',').collect();
        let value = fields.get(value_field).and_then(|field| field.trim().parse().ok());
        let value: f64 = value.with_context(|| format!("line {number} has no value: {line}"))?;
        let values = series.entry(fields[0].to_owned()).or_insert_with_key(|name| {
            order.push(name.clone());
            Vec::new()
        });
        values.push(value);
    }
    order.into_iter().map(|name| case(name.clone(), series.remove(&name).unwrap_or_default(), horizon)).collect()
}

fn case(name: String, mut history: Vec<f64>, horizon: usize) -> anyhow::Result<Case> {
    ensure!(history.len() > 2 * horizon, "{name} has {} values, too few for a horizon of {horizon}", history.len());
    let future = history.split_off(history.len() - horizon);
    Ok(Case { name, history, future })
}

/// Hourly series as servers have them: a day, a week, a trend, and in some of them steps, bursts or a floor.
fn made_up_cases(seed: u64, horizon: usize) -> Vec<Case> {
    let (count, length) = MADE_UP;
    let mut random = seed;
    (0..count)
        .map(|index| {
            let level = 10.0 * 100.0_f64.powf(uniform(&mut random));
            let (day, weekend) = (0.1 + 0.5 * uniform(&mut random), 0.5 * uniform(&mut random));
            let (trend, noise) = (0.3 * uniform(&mut random), 0.02 + 0.1 * uniform(&mut random));
            let (phase, step_at) = (24.0 * uniform(&mut random), length as f64 * uniform(&mut random));
            let mut disturbance = 0.0;
            let values: Vec<f64> = (0..length + horizon)
                .map(|at| {
                    let hour = at as f64;
                    let turn = (hour + phase) / 24.0 * std::f64::consts::TAU;
                    let daily = day * (turn.sin() + 0.3 * (2.0 * turn).cos());
                    let weekly = if at / 24 % 7 >= 5 { -weekend } else { 0.0 };
                    disturbance = 0.8 * disturbance + noise * normal(&mut random);
                    let shift = if index % 5 == 1 && hour > step_at { 0.6 } else { 0.0 };
                    let burst = if index % 5 == 2 && uniform(&mut random) < 0.01 { 2.0 } else { 0.0 };
                    let rest = trend * hour / length as f64 + shift + burst + disturbance;
                    let value = if index % 2 == 0 {
                        (1.0 + daily) * (1.0 + weekly) * (1.0 + rest)
                    } else {
                        2.0 + daily + weekly + rest
                    };
                    (level * value).max(0.0)
                })
                .collect();
            case(format!("made-up-{index}"), values, horizon).expect("a made-up series is long enough")
        })
        .collect()
}

/// The next number of a sequence that the seed decides: splitmix64 (Steele et al., 2014), from 0 up to 1.
fn uniform(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

/// A draw from the normal distribution (Box and Muller 1958).
fn normal(state: &mut u64) -> f64 {
    let (radius, turn) = (1.0 - uniform(state), uniform(state));
    (-2.0 * radius.ln()).sqrt() * (turn * std::f64::consts::TAU).cos()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn print_scores(own: &BTreeMap<&String, Scores>, peer: &BTreeMap<&String, Scores>, version: &str) {
    println!("| by | model | series | sMAPE | MASE | OWA | MSIS 95 % | coverage 95 / 90 % | CPU ms a series |");
    println!("|---|---|---|---|---|---|---|---|---|");
    let peer_name = format!("statsforecast {version}");
    let rows = own.iter().map(|row| ("forestall", row)).chain(peer.iter().map(|row| (peer_name.as_str(), row)));
    for (by, (name, scores)) in rows {
        let Scores { series, smape, mase, owa, cpu_ms, .. } = scores;
        let msis = scores.msis_95.map_or_else(|| "–".to_owned(), |msis| format!("{msis:.2}"));
        let covered = if scores.coverage_95.is_empty() {
            "–".to_owned()
        } else {
            format!("{:.1} / {:.1}", 100.0 * mean(&scores.coverage_95), 100.0 * mean(&scores.coverage_90))
        };
        println!("| {by} | {name} | {series} | {smape:.2} | {mase:.3} | {owa:.3} | {msis} | {covered} | {cpu_ms:.2} |");
    }
}

fn print_coverage(own: &BTreeMap<&String, Scores>, peer: &BTreeMap<&String, Scores>) {
    println!("\n| coverage by {BUCKET} steps | 95 % | 90 % |");
    println!("|---|---|---|");
    let rows = own.iter().map(|row| ("forestall", row)).chain(peer.iter().map(|row| ("statsforecast", row)));
    for (by, (name, scores)) in rows.filter(|(_, (_, scores))| !scores.coverage_95.is_empty()) {
        let row =
            |shares: &[f64]| shares.iter().map(|share| format!("{:.1}", 100.0 * share)).collect::<Vec<_>>().join(" ");
        println!("| {by} {name} | {} | {} |", row(&scores.coverage_95), row(&scores.coverage_90));
    }
}

fn print_ratios(ratios: &BTreeMap<String, Ratio>) {
    if ratios.is_empty() {
        return;
    }
    println!("\n| model | sMAPE, forestall / statsforecast | sMAPE between both | times faster |");
    println!("|---|---|---|---|");
    for (name, Ratio { smape, apart, faster }) in ratios {
        println!("| {name} | {smape:.4} | {apart:.3} | {faster:.0} |");
    }
}

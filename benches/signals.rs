//! How many signals forestall can forecast each minute: one pass a simulated minute over so many components, fits included.
//!
//! ```text
//! cargo bench --bench signals -- --signals 100000 --minutes 30 --threads 2
//! ```
//!
//! The samples go through the store, PromQL, the forecasts, health and the plan, as in the server; only the network is left
//! out. Each component has a history of twelve hours before the first pass, so that all banks are fitted while it runs. A
//! pass may take as long as the interval: longer, and the server would fall behind.

#![expect(clippy::print_stdout, reason = "a measurement for people: it prints")]

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;
use forestall::clock::Clock;
use forestall::config;
use forestall::cycle::{Cycle, SIGNAL_METRIC};
use forestall::model::{ComponentId, Labels, METRIC_NAME, Millis, Sample, Timestamp};
use forestall::plan::{Gates, Ledger};
use forestall::store::Store;

/// The time of the first pass.
const START: Timestamp = Timestamp(1_767_225_600_000);
/// Between passes.
const INTERVAL: Millis = Millis(60_000);
/// Values of each component before the first pass.
const HISTORY: i64 = 720;

#[derive(Debug, Parser)]
#[command(about = "Forecasts so many signals each simulated minute and says how long that takes")]
struct Arguments {
    /// How many signals.
    #[arg(long, default_value_t = 100_000)]
    signals: usize,
    /// How many minutes.
    #[arg(long, default_value_t = 30)]
    minutes: i64,
    /// On so many threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// How far ahead: the shorter, the more often a forecast is made anew; with an hour in each pass.
    #[arg(long, default_value = "1h")]
    horizon: String,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Components of one rule: a rule watches no more than twice as many.
const RULE_COMPONENTS: usize = 10_000;

/// A load with an hour's and a half-day's rhythm, noise, and a level of its own.
fn load(component: usize, minute: i64) -> f64 {
    let mut z = (component as u64) << 32 ^ minute.unsigned_abs();
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let noise = (z >> 40) as f64 / (1u64 << 24) as f64 - 0.5;
    let level = 0.3 + 0.3 * (component % 97) as f64 / 97.0;
    let turn = |length: f64| (std::f64::consts::TAU * (minute as f64 / length + component as f64 / 31.0)).sin();
    level * (1.0 + 0.2 * turn(60.0) + 0.2 * turn(720.0)) + 0.02 * noise
}

/// A field of `/proc/self/status`, in kB.
fn memory_kb(field: &str) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find(|line| line.starts_with(field)).context("no such field")?;
    Ok(line.split_whitespace().nth(1).context("no value")?.parse()?)
}

/// User and system time of this process.
fn cpu_time() -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = text.rsplit(") ").next().context("no name")?.split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    // USER_HZ is 100 on every Linux that Rust runs on.
    Ok(Duration::from_millis(ticks * 10))
}

fn settings(arguments: &Arguments) -> anyhow::Result<config::Settings> {
    let main = format!(
        "global: {{ evaluation_interval: {INTERVAL} }}\n\
         storage: {{ memory_limit: 16GiB, max_series: {}, raw_retention: 30m, signal_retention: 2d, keep: all }}\n\
         rule_files: [rules.yml]\n",
        arguments.signals * 6 + 1000
    );
    let mut rules = "groups:\n  - name: load\n    rules:\n".to_owned();
    for rule in 0..arguments.signals.div_ceil(RULE_COMPONENTS) {
        let _ = write!(
            rules,
            "      - predict: load{rule}\n        component: {{ kind: service, by: [service] }}\n        horizon: {}\n        \
             signals: [{{ name: load, expr: load{rule}, breach: {{ above: 1.5 }} }}]\n",
            arguments.horizon
        );
    }
    let (mut settings, _) = config::load_str(&[("forestall.yml", &main), ("rules.yml", &rules)])
        .map_err(|problems| anyhow::anyhow!("{problems}"))?;
    settings.query.samples_max = settings.query.samples_max.max(arguments.signals * 4);
    Ok(settings)
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    ensure!(arguments.signals > 0 && arguments.minutes > 0, "there is nothing to measure");
    rayon::ThreadPoolBuilder::new().num_threads(arguments.threads).build_global()?;
    let settings = settings(&arguments)?;
    let store = Store::new(settings.store.clone());
    let services: Vec<String> = (0..arguments.signals).map(|index| format!("s{index}")).collect();
    for (index, service) in services.iter().enumerate() {
        let component =
            ComponentId { kind: "service".to_owned(), labels: vec![("service".to_owned(), service.clone())] };
        let labels = Labels::new([
            (METRIC_NAME, SIGNAL_METRIC),
            ("rule", &format!("load{}", index / RULE_COMPONENTS)),
            ("signal", "load"),
            ("kind", "service"),
            ("component", &component.to_string()),
            ("service", service),
        ]);
        for minute in -HISTORY..0 {
            store.append(&labels, Sample { at: START + INTERVAL * minute, value: load(index, minute) });
        }
    }
    println!("{} signals with {HISTORY} values each: {} MB", services.len(), memory_kb("VmRSS")? / 1024);
    run(&arguments, &settings, &store, &services)
}

fn run(arguments: &Arguments, settings: &config::Settings, store: &Store, services: &[String]) -> anyhow::Result<()> {
    let clock = Clock::wall();
    let mut cycle = Cycle::new();
    let mut passes: Vec<f64> = Vec::new();
    let cpu_before = cpu_time()?;
    for minute in 0..arguments.minutes {
        let now = START + INTERVAL * minute;
        for (index, service) in services.iter().enumerate() {
            let metric = format!("load{}", index / RULE_COMPONENTS);
            let labels = Labels::new([(METRIC_NAME, metric.as_str()), ("service", service)]);
            store.append(&labels, Sample { at: now, value: load(index, minute) });
        }
        let (before, cpu) = (clock.now(), cpu_time()?);
        let report = cycle.run(store, settings, Ledger::default(), Gates::default(), now);
        let took = (clock.now() - before).as_secs_f64();
        let fans = report.assessments.iter().flat_map(|a| &a.signals).filter(|s| s.foresight.path.is_some()).count();
        println!(
            "minute {minute:3}: {took:6.2} s, {:6.2} s of CPU, {fans} forecasts, {} faults, {} MB",
            (cpu_time()? - cpu).as_secs_f64(),
            report.faults.len(),
            memory_kb("VmRSS")? / 1024
        );
        for fault in report.faults.iter().take(3) {
            println!("  {}: {}", fault.what, fault.why);
        }
        passes.push(took);
        if minute % 5 == 4 {
            store.expire(now);
        }
    }
    passes.sort_by(f64::total_cmp);
    let slowest = passes[passes.len() - 1];
    let total = (cpu_time()? - cpu_before).as_secs_f64();
    println!(
        "{} signals on {} threads: passes of {:.2} s (median), {slowest:.2} s (slowest) each {INTERVAL}; {:.0} µs of CPU a \
         signal and pass; peak memory {} MB, {} kB a signal",
        services.len(),
        arguments.threads,
        passes[passes.len() / 2],
        total * 1e6 / services.len() as f64 / passes.len() as f64,
        memory_kb("VmHWM")? / 1024,
        memory_kb("VmHWM")? / services.len() as u64,
    );
    println!("{}", if slowest < INTERVAL.as_secs_f64() { "holds" } else { "does not hold" });
    Ok(())
}

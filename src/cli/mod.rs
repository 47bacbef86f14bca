//! The command line. Exit codes: 0 done, 1 failed, 2 bad usage or configuration.

mod approve;
mod ask;
mod backtest;
mod check;
pub mod demo;
mod figures;
mod forecast;
mod pause;
mod progress;
mod readers;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Foresees failures in what Prometheus measures, and prevents them.
#[derive(Debug, Parser)]
#[command(name = "forestall", version, about, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Receive metrics, forecast, plan and act; the web page is at the listen address.
    Serve(serve::ServeArguments),
    /// Check configuration, rule and policy files; all problems with their places.
    Check(check::CheckArguments),
    /// Show it: a simulated fleet whose failures are foreseen and prevented. Needs nothing else.
    Demo(demo::DemoArguments),
    /// The future of series from a CSV file, or of a PromQL expression: medians and quantiles.
    Forecast(forecast::ForecastArguments),
    /// Replay a record through the rules: what would have been foreseen, missed and done.
    Backtest(Box<backtest::BacktestArguments>),
    /// What a running forestall would do now, and what holds the rest back.
    Plan(ask::AskArguments),
    /// Why a component stands as it does.
    Explain(ask::ExplainArguments),
    /// What was decided, done and declined, and what came of it.
    Decisions(ask::DecisionsArguments),
    /// Hold up everything, or what one policy, kind or component would get; lift that again; list what is held up.
    Pause(pause::PauseArguments),
    /// Release an action that waits for a person, or decline it; without an id, list what waits.
    Approve(approve::ApproveArguments),
    /// Print the JSON Schema of what the webhook actuator posts.
    Schema,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
pub(super) enum LogFormat {
    /// For people and logfmt readers.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// How answers look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Runs the command line.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    // reqwest is built without a default; ring is the small one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let result = match arguments.command {
        Command::Serve(arguments) => serve::run(arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Forecast(arguments) => forecast::run(&arguments),
        Command::Backtest(arguments) => backtest::run(&arguments),
        Command::Plan(arguments) => ask::plan(&arguments),
        Command::Explain(arguments) => ask::explain(&arguments),
        Command::Decisions(arguments) => ask::decisions(&arguments),
        Command::Pause(arguments) => pause::run(&arguments),
        Command::Approve(arguments) => approve::run(&arguments),
        Command::Schema => {
            say(crate::act::ACTION_SCHEMA.trim_end());
            Ok(ExitCode::SUCCESS)
        }
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Bad usage or configuration.
pub(super) const BAD_USAGE: u8 = 2;

/// An error to the person at the terminal.
#[expect(clippy::print_stderr, reason = "the command line's own voice")]
pub(super) fn complain(text: &str) {
    eprintln!("forestall: {text}");
}

/// An answer to the person at the terminal. A closed pipe (`| head`) is no error.
pub(super) fn say(text: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
}

/// Starts logging to stderr.
pub(super) fn start_logging(level: &str, format: LogFormat) {
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second start in one process (tests) changes nothing.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}

/// A runtime for commands that do I/O.
pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

/// The default of `--config.file` in messages.
pub(super) fn named(file: &Option<PathBuf>) -> String {
    file.as_ref().map_or_else(|| "the embedded defaults".to_owned(), |file| file.display().to_string())
}

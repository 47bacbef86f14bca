//! `forestall demo`: a simulated fleet, the real server, and a twin without forestall beside it.
//!
//! ```text
//! world ──remote write──► server (store … plan … act) ──webhook──► world
//! twin  (the same seed, never acted on)                  both ──failures──► report
//! ```
//!
//! [`world`] and [`report`] are pure and synchronous: no clock, no I/O, the same seed gives the same answer. The
//! driver here moves the simulated clock: a minute of the worlds, a remote write over HTTP, and, when it is due, a pass
//! of the server.

mod driver;
pub mod report;
pub mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use super::{LogFormat, runtime, start_logging};

/// The main file of the demo; `@URL@` (without a trailing slash) and `@SECRET_FILE@` are to be replaced, and the rule
/// and policy files to be written beside it as `rules.yml` and `policies.yml`.
pub const MAIN_FILE: &str = include_str!("../../../rules/demo/forestall.yml");

/// The rules of the demo, as a user would write them.
pub const RULE_FILE: &str = include_str!("../../../rules/demo/rules.yml");

/// The policies and pools of the demo.
pub const POLICY_FILE: &str = include_str!("../../../rules/demo/policies.yml");

/// Flags of `demo`.
#[derive(Debug, clap::Args)]
pub struct DemoArguments {
    /// Which fleet: the same seed gives the same fleet, the same decisions and the same journal.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
    /// Stop after the result instead of staying up.
    #[arg(long)]
    once: bool,
    /// Write the journal to this file as JSON Lines.
    #[arg(long, value_name = "FILE")]
    journal_export: Option<PathBuf>,
    /// Where the server listens.
    #[arg(long = "web.listen-address", value_name = "HOST:PORT", default_value = "127.0.0.1:9797")]
    listen_address: String,
    /// What is logged: error, warn, info, debug, trace.
    #[arg(long = "log.level", value_name = "LEVEL", default_value = "error")]
    log_level: String,
}

/// Plays the demo.
pub(super) fn run(arguments: &DemoArguments) -> anyhow::Result<ExitCode> {
    start_logging(&arguments.log_level, LogFormat::Text);
    runtime()?.block_on(driver::play(arguments))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_configuration_loads_without_problems() {
        let main = MAIN_FILE.replace("@URL@", "http://127.0.0.1:1").replace("@SECRET_FILE@", "secret");
        let files = [("forestall.yml", main.as_str()), ("rules.yml", RULE_FILE), ("policies.yml", POLICY_FILE)];
        match crate::config::load_str(&files) {
            Ok((_, warnings)) => assert!(warnings.is_empty(), "{warnings:?}"),
            Err(problems) => panic!("{problems}"),
        }
    }
}

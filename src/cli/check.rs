//! `forestall check`: all problems of all files, with their places.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{BAD_USAGE, complain, say};
use crate::config;
use crate::cycle::predict_rules;

/// Flags of `check`.
#[derive(Debug, clap::Args)]
pub(super) struct CheckArguments {
    /// The main configuration files to check, with the rule and policy files that they name.
    #[arg(value_name = "FILE", required_unless_present = "config_file")]
    files: Vec<PathBuf>,
    /// The same, named as `serve` names it.
    #[arg(long = "config.file", value_name = "FILE")]
    config_file: Option<PathBuf>,
}

/// Checks and says what was found.
pub(super) fn run(arguments: &CheckArguments) -> anyhow::Result<ExitCode> {
    let mut good = true;
    for file in arguments.files.iter().chain(&arguments.config_file) {
        match config::load(file) {
            Ok((settings, warnings)) => {
                warnings.iter().for_each(|warning| complain(&format!("warning\n{warning}")));
                say(&format!(
                    "{}: good. {} files, {} predict rules, {} policies, {} actuators, mode {:?}",
                    file.display(),
                    settings.files.len(),
                    predict_rules(&settings).count(),
                    settings.policies.len(),
                    settings.actuators.len(),
                    settings.global.mode,
                ));
            }
            Err(problems) => {
                good = false;
                complain(&format!("{} cannot be used:\n{problems}", file.display()));
            }
        }
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(BAD_USAGE) })
}

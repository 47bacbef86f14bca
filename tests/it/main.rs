//! All integration tests: one binary, one link.

mod api;
mod backtest;
mod cli;
#[cfg(feature = "cloud")]
mod cloud;
mod config;
mod controls;
mod crash;
mod demo;
mod deploy;
mod differential;
mod e2e;
mod forecast_cli;
mod fleets;
mod foresight_bench;
mod mutants;
mod future;
mod hostile;
#[cfg(feature = "keda")]
mod keda;
mod kube;
mod page;
mod predictions;
mod proto;
mod query_scripts;
mod readme;
mod real;
mod scenarios;
#[expect(
    clippy::print_stdout,
    reason = "the simulator tells its figures, and its checks must fail for what is no number"
)]
mod sim;
mod tidy;
mod webhook;

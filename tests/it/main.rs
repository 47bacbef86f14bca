//! All integration tests: one binary, one link.

mod api;
mod backtest;
mod cli;
mod config;
mod controls;
mod crash;
mod demo;
mod deploy;
mod e2e;
mod forecast_cli;
mod fleets;
mod foresight_bench;
mod mutants;
mod hostile;
mod page;
mod proto;
mod query_scripts;
mod readme;
mod real;
mod scenarios;
mod sim;
mod tidy;

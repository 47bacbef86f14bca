//! All integration tests: one binary, one link.

mod api;
mod cli;
mod config;
mod demo;
mod deploy;
mod e2e;
mod foresight_bench;
mod page;
mod proto;
mod query_scripts;
mod readme;
mod real;
mod scenarios;
mod tidy;

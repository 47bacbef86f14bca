//! All integration tests: one binary, one link.

mod config;
mod deploy;
mod foresight_bench;
mod proto;
mod query_scripts;
mod real;
mod scenarios;

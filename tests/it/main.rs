//! All integration tests: one binary, one link.

mod config;
mod foresight_bench;
mod proto;
mod query_scripts;
mod real;
mod scenarios;

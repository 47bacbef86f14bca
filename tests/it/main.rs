//! All integration tests: one binary, one link.

mod foresight_bench;
mod proto;
mod query_scripts;
mod scenarios;

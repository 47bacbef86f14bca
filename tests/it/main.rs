//! All integration tests: one binary, one link.

mod proto;
mod query_scripts;

//! All integration tests: one binary, one link.

mod proto;

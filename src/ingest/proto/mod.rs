//! The remote-write messages as structs, generated from `proto/*.proto`: for what forestall sends and for tests.
//!
//! What is received is walked in its wire format instead (`super::decode`): the structs cost fifty times as much.
//! `UPDATE=1 cargo test --test it proto` writes the two files anew.

/// Remote write 1.0, `prometheus.WriteRequest`.
#[allow(missing_docs, reason = "generated: the schema has the comments, the generator's own types have none")]
pub mod v1 {
    include!("remote_write_v1.rs");
}

/// Remote write 2.0, `io.prometheus.write.v2.Request`.
#[allow(missing_docs, reason = "generated: the schema has the comments, the generator's own types have none")]
pub mod v2 {
    include!("remote_write_v2.rs");
}

//! The Kubernetes actuator against an API server that answers as a real one does (`rules.rs`), each rule pinned by a test
//! (`answers.rs`); actions through the real executor and journal (`actions.rs`).

mod actions;
mod answers;
mod leader;
mod rights;
mod rules;
mod server;
mod world;

//! The Kubernetes actuator against an API server that answers as a real one does (`rules.rs`), each rule pinned by a test
//! (`answers.rs`); actions through the real executor and journal (`actions.rs`). Where `KUBEBUILDER_ASSETS` is set the same
//! tests ask a real control plane (`plane.rs`), through the same server, which then passes on what it is not to spoil.

mod actions;
mod answers;
mod behind;
mod leader;
mod objects;
mod plane;
mod rights;
mod rules;
mod server;
mod whole;
mod world;

//! Development only.
#[path = "it/api.rs"]
mod api;
#[path = "it/cloud.rs"]
mod cloud;
#[path = "it/config.rs"]
mod config;
#[path = "it/deploy.rs"]
mod deploy;
#[path = "it/keda.rs"]
mod keda;
#[path = "it/predictions.rs"]
mod predictions;
#[path = "it/proto.rs"]
mod proto;
#[path = "it/readme.rs"]
mod readme;
#[path = "it/real.rs"]
mod real;
#[path = "it/tidy.rs"]
mod tidy;
#[path = "it/webhook.rs"]
mod webhook;

//! Development only.
#[path = "it/webhook.rs"]
mod webhook;

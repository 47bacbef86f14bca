//! forestall: a sidecar for Prometheus that foresees failures and prevents them.
//!
//! ```text
//! remote write                                                       /metrics  /api/v1/*  web page
//!    │ api::write                                                        ▲ api reads Report + Store
//!    ▼                                                                   │
//! ingest → store → query (PromQL) → forecast → health → plan → act → audit → Grafana · Alertmanager · journal
//!                   └────────────── cycle calls these in this order ──────────────┘
//! pure and synchronous, `now` is an argument: ingest … plan   │   async, does I/O: act, audit, api, app
//! ```
//!
//! **Invariant:** a module imports only modules declared above it; `tests/it/tidy.rs` enforces it.

pub mod model;
pub mod clock;
pub mod ingest;
pub mod store;
pub mod query;
pub mod forecast;
pub mod health;
pub mod plan;
pub mod act;
pub mod audit;
pub mod config;
pub mod cycle;
pub mod api;
pub mod app;
pub mod cli;

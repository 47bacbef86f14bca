//! Keeps every decision: the journal, and notices to Grafana, Alertmanager and webhooks.
//!
//! The [`Journal`] is what counts: it is written before anything is done. Notices are told on a best-effort basis:
//! each sink has a bounded queue and bounded attempts, and what is lost is counted.

mod chain;
mod controls;
mod journal;
mod lookup;
mod notice;
mod notifier;
mod predictions;
mod segments;
mod settings;
mod sinks;
mod template;

pub use controls::{Answer, Controls, PAUSES_MAX, Released, Said};
pub use journal::{Journal, JournalError, RowKind, Settled, Verified, Witness, word};
pub use lookup::{
    ActionSummary, DECISIONS_DEFAULT, DECISIONS_MAX, DecisionRecord, DecisionSummary, DeclinedSummary, Filter, Replay,
    worth_keeping,
};
pub use notice::{Notice, NoticeKind, NoticeState, RuleAnnotations, Severity, Told, notices_of, notices_of_outcomes};
pub use notifier::{Notifier, QUEUE_MAX, SinkStatus};
pub use predictions::{PREDICTION_LIFE_MAX, PREDICTIONS_KEPT, PREDICTIONS_MAX, Predictions, Taken};
pub use segments::SegmentSettings;
pub use settings::{AlertmanagerSettings, GrafanaSettings, NotifySettings, NotifyWebhookSettings};
pub use sinks::{AlertmanagerSink, GrafanaSink, Sink, WebhookSink, build_sinks};
pub use template::{TemplateValues, render};

#[cfg(test)]
mod control_tests;
#[cfg(test)]
mod journal_tests;
#[cfg(test)]
mod notice_tests;
#[cfg(test)]
mod segment_tests;

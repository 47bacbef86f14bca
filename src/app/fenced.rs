//! The journal of a replica that may act only while it leads.

use std::sync::Arc;

use crate::act::{Attempt, Fence, Record, RecordError};
use crate::audit::Journal;
use crate::model::{Millis, Timestamp};
use crate::plan::{Action, Outcome};

/// Writes as the journal does, and forbids sending anything while another replica leads.
#[derive(Debug)]
pub(super) struct Fenced {
    pub(super) journal: Arc<Journal>,
    pub(super) fence: Fence,
}

impl Record for Fenced {
    fn intent(&self, action: &Action, now: Timestamp) -> Result<(), RecordError> {
        self.journal.intent(action, now)
    }

    fn attempt(&self, action_id: &str, attempt: &Attempt) -> Result<(), RecordError> {
        self.journal.attempt(action_id, attempt)
    }

    fn outcome(
        &self,
        action_id: &str,
        outcome: Outcome,
        detail: &str,
        took: Option<Millis>,
        now: Timestamp,
    ) -> Result<(), RecordError> {
        self.journal.outcome(action_id, outcome, detail, took, now)
    }

    fn attempts(&self, action_id: &str) -> Result<Vec<Attempt>, RecordError> {
        self.journal.attempts(action_id)
    }

    fn forbids(&self, action: &Action, now: Timestamp) -> Option<String> {
        if !self.fence.is_open() {
            return Some("this replica does not lead any more".to_owned());
        }
        self.journal.forbids(action, now)
    }
}

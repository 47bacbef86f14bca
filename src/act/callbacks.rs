//! What receivers of webhooks say by themselves about actions that they took, until the next pass asks for it.
//!
//! It is kept in memory: a receiver that must be sure repeats its word until it is told that the outcome is written down.
//! Limits: so many actions at once; beyond that the receiver is told to come again.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Deserialize;

use super::webhook::failure;
use super::{Confirmation, SignError, Signer, WebhookSettings};
use crate::model::{Millis, Timestamp};

/// What was said of so many actions is kept at most.
const KEPT_MAX: usize = 1000;
/// A word that was signed longer ago, or so much later than now, is not taken: it may be somebody else's copy.
const SIGNED_WITHIN: Millis = Millis(5 * Millis::MINUTE.0);

/// What receivers have said. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Callbacks(Arc<Mutex<BTreeMap<String, Confirmation>>>);

/// What a receiver says of an action.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallbackBody {
    /// What has become of it.
    pub state: CallbackState,
    /// Why it failed.
    #[serde(default)]
    pub reason: String,
}

/// What has become of an action, as its receiver says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallbackState {
    /// It has taken effect.
    Done,
    /// It will not.
    Failed,
}

/// The headers of a callback, as Standard Webhooks has them.
#[derive(Debug, Clone, Copy)]
pub struct CallbackHeaders<'a> {
    /// `webhook-id`
    pub id: &'a str,
    /// `webhook-timestamp`
    pub timestamp: &'a str,
    /// `webhook-signature`
    pub signature: &'a str,
}

impl Callbacks {
    /// Keeps what a receiver says of an action. Says whether there was room; said again, it is as before, and the first
    /// word counts.
    pub fn keep(&self, action_id: &str, body: &CallbackBody) -> bool {
        let mut kept = self.0.lock();
        if kept.contains_key(action_id) {
            return true;
        }
        if kept.len() >= KEPT_MAX {
            return false;
        }
        let said = match body.state {
            CallbackState::Done => Confirmation::Done,
            CallbackState::Failed => Confirmation::Failed(failure(&body.reason)),
        };
        kept.insert(action_id.to_owned(), said);
        true
    }

    /// What was said of an action, once.
    pub(super) fn take(&self, action_id: &str) -> Option<Confirmation> {
        self.0.lock().remove(action_id)
    }
}

impl WebhookSettings {
    /// Whether a callback was signed with one of this webhook's keys, for this action, and lately.
    ///
    /// # Errors
    /// Where a key file cannot be read.
    pub async fn has_signed(
        &self,
        action_id: &str,
        headers: CallbackHeaders<'_>,
        body: &[u8],
        now: Timestamp,
    ) -> Result<bool, SignError> {
        let Ok(seconds) = headers.timestamp.parse::<u32>() else { return Ok(false) };
        let distance = (now - Timestamp::from_secs(i64::from(seconds))).0.abs();
        if headers.id != action_id || distance > SIGNED_WITHIN.0 {
            return Ok(false);
        }
        let signer = Signer::new(self.hmac_secret_files.clone());
        signer.verifies(headers.id, headers.timestamp, headers.signature, body).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(state: CallbackState) -> CallbackBody {
        CallbackBody { state, reason: String::new() }
    }

    #[test]
    fn the_first_word_counts_once_and_there_is_room_for_so_many() {
        let callbacks = Callbacks::default();
        assert!(callbacks.keep("a", &said(CallbackState::Done)) && callbacks.keep("a", &said(CallbackState::Failed)));
        assert_eq!(callbacks.take("a"), Some(Confirmation::Done));
        assert_eq!(callbacks.take("a"), None);
        for at in 0..KEPT_MAX {
            assert!(callbacks.keep(&format!("a{at}"), &said(CallbackState::Done)));
        }
        assert!(!callbacks.keep("one more", &said(CallbackState::Done)));
        assert!(callbacks.keep("a7", &said(CallbackState::Done)), "what is known needs no room");
    }
}

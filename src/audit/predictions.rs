//! What other predictors said, and which of it was done: rows of the journal, folded again after a restart.
//!
//! A prediction is known by its source and id. It may be told again, with other figures, until something was done for it; from
//! then on it never counts again, however often it is told. The newest [`PREDICTIONS_KEPT`] are remembered for that.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::controls::Controls;
use super::journal::{Journal, JournalError, RowKind};
use crate::health::Prediction;
use crate::model::{Millis, Timestamp};
use crate::plan::{Ledger, Outcome};

/// No more predictions count at once; one more than that is refused.
pub const PREDICTIONS_MAX: usize = 1000;

/// So many are remembered, those that are over and done among them; the oldest go first.
pub const PREDICTIONS_KEPT: usize = 20_000;

/// No prediction lasts longer.
pub const PREDICTION_LIFE_MAX: Millis = Millis(3 * Millis::DAY.0);

/// What other predictors said.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Predictions {
    /// Shared by the copies that passes and requests look at: there may be many.
    known: Arc<BTreeMap<String, Known>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Known {
    prediction: Prediction,
    /// The action that was done for it.
    done: Option<String>,
}

/// What becomes of a prediction that was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Taken {
    /// It counts from the next pass on.
    Taken,
    /// It was told before and counts with its new figures.
    Updated,
    /// Something was done for it already: it does not count.
    Done {
        /// The action.
        action: String,
    },
}

/// The body of a row that says what was done.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct DoneBody {
    pub(super) action: String,
}

impl Predictions {
    /// Those that count at `now`, by source and id.
    pub fn at(&self, now: Timestamp) -> Vec<Prediction> {
        let counts = |known: &&Known| known.done.is_none() && now < known.prediction.expires_at;
        self.known.values().filter(counts).map(|known| known.prediction.clone()).collect()
    }

    /// All that is remembered and not over at `now`, with the action that was done for it.
    pub fn listed(&self, now: Timestamp) -> impl Iterator<Item = (&Prediction, Option<&str>)> {
        let lasts = move |known: &&Known| now < known.prediction.expires_at;
        self.known.values().filter(lasts).map(|known| (&known.prediction, known.done.as_deref()))
    }

    pub(super) fn take(&mut self, prediction: Prediction) {
        let key = prediction.key();
        if self.known.get(&key).is_some_and(|known| known.done.is_some()) {
            return;
        }
        let known = Arc::make_mut(&mut self.known);
        known.insert(key, Known { prediction, done: None });
        if known.len() > PREDICTIONS_KEPT {
            let oldest = known.iter().min_by_key(|(_, known)| known.prediction.expires_at);
            if let Some(key) = oldest.map(|(key, _)| key.clone()) {
                known.remove(&key);
            }
        }
    }

    pub(super) fn note_done(&mut self, key: &str, action: &str) {
        if let Some(known) = Arc::make_mut(&mut self.known).get_mut(key) {
            known.done.get_or_insert_with(|| action.to_owned());
        }
    }
}

impl Controls {
    /// The predictions that an action which comes to this has used up.
    pub(super) fn done_by(&self, ledger: &Ledger, action_id: &str, outcome: Outcome) -> Vec<String> {
        if !outcome.took_effect() && outcome != Outcome::Unchanged {
            return Vec::new();
        }
        let past = ledger.actions.iter().rev().find(|past| past.action.id == action_id);
        let action = past.map(|past| &past.action).filter(|action| !action.dry_run && action.undoes.is_none());
        action.map(|action| action.why.predictions.clone()).unwrap_or_default()
    }

    pub(super) fn note_done(&mut self, keys: &[String], action: &str) {
        keys.iter().for_each(|key| self.predictions.note_done(key, action));
    }
}

impl Journal {
    /// Keeps another predictor's verdict. One for which something was done is left as it is.
    ///
    /// # Errors
    /// [`JournalError::TooManyPredictions`]; or where it could not be written: then it does not count.
    pub fn tell(&self, prediction: Prediction, now: Timestamp) -> Result<Taken, JournalError> {
        let key = prediction.key();
        let taken = {
            let controls = self.controls.read();
            match controls.predictions.known.get(&key) {
                Some(Known { done: Some(action), .. }) => return Ok(Taken::Done { action: action.clone() }),
                Some(known) if now < known.prediction.expires_at => Taken::Updated,
                _ if controls.predictions.at(now).len() >= PREDICTIONS_MAX => {
                    return Err(JournalError::TooManyPredictions);
                }
                _ => Taken::Taken,
            }
        };
        self.append_one(RowKind::Prediction, now, &key, &prediction)?;
        self.controls.write().predictions.take(prediction);
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::act::Record as _;
    use crate::act::tests::action;
    use crate::forecast::Eta;
    use crate::model::ComponentId;
    use crate::plan::Action;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    fn prediction(id: &str, probability: f64) -> Prediction {
        Prediction {
            id: id.to_owned(),
            source: "oracle".to_owned(),
            component: ComponentId { kind: "service".to_owned(), labels: vec![] },
            probability,
            probability_low: probability,
            severity: 1.0,
            eta: Eta::default(),
            wanted: BTreeMap::new(),
            impact: None,
            reason: String::new(),
            received_at: NOW,
            expires_at: NOW + Millis::HOUR,
        }
    }

    /// An action for a prediction.
    fn action_for(id: &str, key: &str) -> Action {
        let mut action = action(id);
        action.why.predictions = vec![key.to_owned()];
        action
    }

    #[test]
    fn what_was_done_never_counts_again_not_even_after_a_restart() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("journal.sqlite");
        let open = || Journal::open(&path).expect("the journal opens");
        let probabilities = |journal: &Journal, at: Timestamp| -> Vec<f64> {
            journal.controls().predictions.at(at).iter().map(|told| told.probability).collect()
        };
        let journal = open();
        assert_eq!(journal.tell(prediction("p", 0.8), NOW).expect("written"), Taken::Taken);
        assert_eq!(journal.tell(prediction("p", 0.9), NOW).expect("written"), Taken::Updated);
        assert_eq!(probabilities(&journal, NOW), [0.9]);
        assert_eq!(probabilities(&journal, NOW + Millis::HOUR), [0.0; 0], "it is over");
        for (outcome, counts) in [
            (Outcome::Failed, true),
            (Outcome::Cancelled, true),
            (Outcome::Expired, true),
            (Outcome::DryRun, true),
            (Outcome::Unknown, false),
        ] {
            let id = format!("{outcome:?}");
            journal.intent(&action_for(&id, "oracle/p"), NOW).expect("written");
            journal.outcome(&id, outcome, "", None, NOW).expect("written");
            assert_eq!(probabilities(&journal, NOW), if counts { vec![0.9] } else { vec![] }, "{outcome:?}");
        }
        drop(journal);
        let journal = open();
        let done = Taken::Done { action: "Unknown".to_owned() };
        assert_eq!(journal.tell(prediction("p", 1.0), NOW).expect("read"), done);
        assert_eq!(journal.tell(prediction("q", 0.7), NOW).expect("written"), Taken::Taken);
        drop(journal);
        assert_eq!(probabilities(&open(), NOW), [0.7]);
    }

    #[test]
    fn no_more_count_at_once_than_the_limit() {
        let journal = Journal::in_memory();
        for number in 0..PREDICTIONS_MAX {
            journal.tell(prediction(&number.to_string(), 0.5), NOW).expect("written");
        }
        assert!(matches!(journal.tell(prediction("more", 0.5), NOW), Err(JournalError::TooManyPredictions)));
        assert_eq!(journal.tell(prediction("7", 0.6), NOW).expect("known"), Taken::Updated);
        let later = NOW + Millis::HOUR;
        let fresh = Prediction { expires_at: later + Millis::HOUR, ..prediction("more", 0.5) };
        assert_eq!(journal.tell(fresh, later).expect("the others are over"), Taken::Taken);
    }
}

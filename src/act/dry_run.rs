//! Writes each action to the log and does nothing.

use futures::FutureExt;
use futures::future::BoxFuture;

use super::{Acceptance, ActError, Actuator, Confirmation, Patience};
use crate::model::{Millis, Timestamp};
use crate::plan::Action;

/// An actuator for trying policies out: it accepts everything and touches nothing.
#[derive(Debug, Clone, Copy)]
pub struct DryRunActuator;

impl Actuator for DryRunActuator {
    fn apply<'a>(
        &'a self,
        action: &'a Action,
        _attempt: u32,
        _now: Timestamp,
    ) -> BoxFuture<'a, Result<Acceptance, ActError>> {
        tracing::info!(action = %action.id, component = %action.target.component, why = %action.why.sentence, "dry run");
        async { Ok(Acceptance::Accepted) }.boxed()
    }

    fn confirm<'a>(&'a self, _action: &'a Action, _now: Timestamp) -> BoxFuture<'a, Result<Confirmation, ActError>> {
        async { Ok(Confirmation::CannotAsk) }.boxed()
    }

    fn patience(&self) -> Patience {
        Patience { attempts_max: 1, confirm_within: Millis::ZERO }
    }

    fn is_dry_run(&self) -> bool {
        true
    }
}

//! Whether earlier actions had an effect: the probability then against now. What has had none in time counts as
//! ineffective, confirmed or not.

use super::decide::Planner;
use super::ledger::PastAction;
use super::size;
use super::words::{percent, span};
use super::{ActionKind, Policy, Verdict, Verify};
use crate::forecast::Side;
use crate::model::Millis;

/// An action that could not be judged for so long is not judged any more: whatever happened since was not its doing.
const JUDGED_WITHIN: Millis = Millis::DAY;

impl Planner<'_> {
    /// Judges what is due; later steps see the verdicts.
    pub(super) fn judge_earlier_actions(&mut self) {
        let stands = |past: &&PastAction| past.is_in_force() || (past.is_act() && past.is_under_way(self.now));
        let due: Vec<&PastAction> = self.past.all().filter(stands).collect();
        let mut verdicts = Vec::new();
        for past in due {
            let policy = self.input.policies.iter().find(|policy| policy.name == past.action.policy);
            if let Some(verdict) = policy.and_then(|policy| self.judge(past, policy)) {
                self.past.judged.insert(&past.action.id, (verdict.effective, verdict.achieved));
                verdicts.push(verdict);
            }
        }
        verdicts.sort_by(|a, b| a.action_id.cmp(&b.action_id));
        self.experience = super::ledger::Experience::of(&self.past);
        self.plan.verdicts = verdicts;
    }

    fn judge(&self, past: &PastAction, policy: &Policy) -> Option<Verdict> {
        let verify = policy.verify.as_ref()?;
        if self.past.effective(past).is_some() || past.action.kind == ActionKind::Evict {
            return None;
        }
        // A prediction of others that was done counts no more: that it is gone shows no effect.
        if !past.action.why.predictions.is_empty() {
            return None;
        }
        let (since, what) = self.due(past, policy, verify)?;
        let key = past.action.target.component.to_string();
        let assessment = self.assessed.get(key.as_str())?;
        // Nothing is known now: it is judged once something is.
        let now = super::gates::fresh_probability(assessment, &self.input.gates, self.now)?;
        let before = past.action.why.probability;
        let effective = now <= before - verify.probability_drop + 1e-9 || now < policy.exit_below;
        let detail = format!(
            "P was {} and is {} {} after {what}; a drop by {} or P below {} was expected",
            percent(before),
            percent(now),
            span(since),
            percent(verify.probability_drop),
            percent(policy.exit_below)
        );
        let achieved = self.achieved(past, assessment);
        Some(Verdict { action_id: past.action.id.clone(), effective, achieved, detail })
    }

    /// For how long an action has had time to help, once that is enough to judge it, and since what, in words: since it took
    /// effect, or since it was decided where its time-out is over first.
    fn due(&self, past: &PastAction, policy: &Policy, verify: &Verify) -> Option<(Millis, String)> {
        let rung = policy.ladder.get(past.action.rung).filter(|rung| rung.action == past.action.kind);
        let timeout = rung.and_then(|rung| rung.timeout);
        let ago = self.now - past.action.decided_at;
        let Some(settled_at) = past.settled_at.filter(|_| !past.is_under_way(self.now)) else {
            // Nobody has confirmed it: without a time-out of its own it gets the time that such actions take.
            let takes = self.times.p90(&past.action.actuator, past.action.kind);
            let takes = takes.or(rung.map(|rung| rung.actuation_time)).unwrap_or_default();
            let timeout = timeout.unwrap_or(takes + verify.after);
            let what = || format!("it was decided, and nobody has confirmed it (time-out {})", span(timeout));
            return (ago >= timeout).then(|| (ago, what()));
        };
        let since = self.now - settled_at;
        if since > verify.after + JUDGED_WITHIN {
            return None;
        }
        if since >= verify.after {
            return Some((since, "it took effect".to_owned()));
        }
        let timeout = timeout.filter(|timeout| ago >= *timeout)?;
        Some((ago, format!("it was decided (time-out {})", span(timeout))))
    }

    /// The share of the reckoned improvement of the signal's peak that came about.
    fn achieved(&self, past: &PastAction, assessment: &crate::health::Assessment) -> Option<f64> {
        let why = &past.action.why;
        let signal = assessment.signals.iter().find(|s| format!("{}/{}", s.rule, s.signal) == why.signal)?;
        let (before, now) = (why.peak?, size::peak(signal)?);
        let ratio = size::shrinks_to(&past.action.change, past.action.undo.as_ref())?;
        let reckoned = if signal.side == Side::Above { before * ratio } else { before / ratio };
        let share = (before - now) / (before - reckoned);
        share.is_finite().then(|| share.clamp(0.0, 2.0))
    }
}

//! Whether earlier actions had an effect: the probability then against now.

use super::decide::Planner;
use super::ledger::PastAction;
use super::size;
use super::words::{percent, span};
use super::{ActionKind, Policy, Verdict};
use crate::forecast::Side;
use crate::model::Millis;

/// An action that could not be judged for so long is not judged any more: whatever happened since was not its doing.
const JUDGED_WITHIN: Millis = Millis::DAY;

impl Planner<'_> {
    /// Judges what is due; later steps see the verdicts.
    pub(super) fn judge_earlier_actions(&mut self) {
        let due: Vec<&PastAction> = self.past.all().filter(|past| past.is_in_force()).collect();
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
        let since = self.now - past.settled_at?;
        let judged = self.past.effective(past).is_some() || past.action.kind == ActionKind::Evict;
        if judged || since < verify.after || since > verify.after + JUDGED_WITHIN {
            return None;
        }
        let key = past.action.target.component.to_string();
        let assessment = self.assessed.get(&key)?;
        // Nothing is known now: it is judged once something is.
        let now = super::gates::fresh_probability(assessment, &self.input.gates, self.now)?;
        let before = past.action.why.probability;
        let effective = now <= before - verify.probability_drop + 1e-9 || now < policy.exit_below;
        let detail = format!(
            "P was {} and is {} {} after it took effect; a drop by {} or P below {} was expected",
            percent(before),
            percent(now),
            span(since),
            percent(verify.probability_drop),
            percent(policy.exit_below)
        );
        let achieved = self.achieved(past, assessment);
        Some(Verdict { action_id: past.action.id.clone(), effective, achieved, detail })
    }

    /// The share of the reckoned improvement of the signal's peak that came about.
    fn achieved(&self, past: &PastAction, assessment: &crate::health::Assessment) -> Option<f64> {
        let why = &past.action.why;
        let signal = assessment.signals.iter().find(|s| format!("{}/{}", s.rule, s.signal) == why.signal)?;
        let (before, now) = (why.peak?, size::peak(signal)?);
        let ratio = size::shrinks_to(&past.action.change)?;
        let reckoned = if signal.side == Side::Above { before * ratio } else { before / ratio };
        let share = (before - now) / (before - reckoned);
        share.is_finite().then(|| share.clamp(0.0, 2.0))
    }
}

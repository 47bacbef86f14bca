//! Giving back what is no longer needed: only what is ours, the last thing first, and only once it has been calm.

use std::collections::HashMap;

use super::decide::{Candidate, Planner, action_id};
use super::gates::{Refusal, broken, paused};
use super::ledger::{Outcome, PastAction, same_thing};
use super::limits::OPPOSITE;
use super::size;
use super::words::{figure, percent, span};
use super::{Action, ActionKind, Change, Declined, Extension, Mode, Policy, Reason, Workload};
use crate::forecast::Side;
use crate::health::{Assessment, ScalesWith};
use crate::model::Millis;

/// Amounts that differ by no more than this share are the same: they pass through other programs' units.
const SAME_AMOUNT: f64 = 0.01;
/// Nothing is given back that would bring a signal to this share of its threshold again.
const NEAR_SHARE: f64 = 0.9;
/// The expiry moves by so much where no policy says.
const EXTENDED_BY: Millis = Millis::HOUR;
/// What has not been seen for so long is gone. A gap in the data is none: it may come back with what we gave it.
const GONE_AFTER: Millis = Millis::DAY;

/// Why something that has expired is or is not kept.
enum WhyKept<'c, 'a> {
    /// Its reason is gone.
    Gone,
    /// Its reason is gone, but something that stands on it goes first.
    UndoneFirst,
    /// The component has not been calm for long enough.
    Stands(&'c Candidate<'a>),
    /// It is calm because of what was given: without it, it would breach again. In words, with the arithmetic.
    StillNeeded(&'c Candidate<'a>, String),
    /// Nothing is known of the component.
    Unseen,
}

impl<'a> Planner<'a> {
    /// Undoes, extends or disowns what has expired.
    pub(super) fn give_back(&mut self, candidates: &[Candidate<'a>]) {
        let by_key: HashMap<&str, &Candidate<'a>> = candidates.iter().map(|c| (c.key, c)).collect();
        let mut due: Vec<&'a PastAction> = self.past.all().filter(|past| self.is_due(past)).collect();
        due.sort_by(|a, b| (a.action.expires_at, &a.action.id).cmp(&(b.action.expires_at, &b.action.id)));
        self.note_unseen();
        for past in due {
            let key = past.action.target.component.to_string();
            if self.touched.contains(&key) || !self.is_on_top(past, &key) {
                continue;
            }
            if let Some(words) = self.no_longer_ours(past, &key) {
                self.plan.disowned.push(past.action.id.clone());
                let refusal = Refusal::new(Reason::NotOwner, words, "never: what others set stays");
                self.decline_undo(past, refusal);
                continue;
            }
            match self.reason_for(past, &key, &by_key) {
                WhyKept::Gone => self.undo(past, &key),
                WhyKept::UndoneFirst => {}
                WhyKept::Stands(candidate) => self.extend(past, candidate),
                WhyKept::StillNeeded(candidate, words) => {
                    self.extend_by(past, self.policy(candidate).expires_after, &words)
                }
                WhyKept::Unseen => self.extend_unseen(past),
            }
        }
    }

    /// Whether the reason for an action still stands. What made room stands as long as what it made room for.
    fn reason_for<'c>(
        &self,
        past: &PastAction,
        key: &str,
        by_key: &HashMap<&str, &'c Candidate<'a>>,
    ) -> WhyKept<'c, 'a> {
        if !self.is_seen(past, key) {
            // What others made of it in the meantime is not known, and would be undone too.
            return WhyKept::Unseen;
        }
        if let Some(main) = &past.action.makes_room_for {
            let Some(main) = self.past.get(main) else { return WhyKept::Gone };
            if !main.is_in_force() && !main.is_under_way(self.now) {
                return WhyKept::Gone;
            }
            let beneficiary = main.action.target.component.to_string();
            return match by_key.get(beneficiary.as_str()) {
                Some(candidate) if !self.is_calm(candidate) => WhyKept::Stands(candidate),
                // A gap in the data of what it made room for is no calm.
                None if !self.assessed.contains_key(beneficiary.as_str())
                    && main.action.undo.is_none()
                    && self.now - main.action.decided_at < GONE_AFTER =>
                {
                    WhyKept::Unseen
                }
                // Nothing gives back what cannot be undone: there is nothing to wait for.
                _ if main.action.undo.is_none() => WhyKept::Gone,
                _ => WhyKept::UndoneFirst,
            };
        }
        match by_key.get(key) {
            Some(candidate) if self.is_calm(candidate) => match breach_without(&past.action, candidate.assessment) {
                Some(words) => WhyKept::StillNeeded(candidate, words),
                None => WhyKept::Gone,
            },
            Some(candidate) => WhyKept::Stands(candidate),
            // It is assessed, but no policy is for it any more.
            None if self.assessed.contains_key(key) => WhyKept::Gone,
            // Only others told of it, and nobody does any more.
            None if !past.action.why.predictions.is_empty() => WhyKept::Gone,
            None => WhyKept::Unseen,
        }
    }

    /// Whether this plan finds out that somebody else changed what an action had set.
    pub(super) fn is_disowned(&self, past: &PastAction, key: &str) -> bool {
        self.is_due(past) && self.is_on_top(past, key) && self.no_longer_ours(past, key).is_some()
    }

    /// Whether nothing of ours stands on it, and nothing is on the way to undo it.
    fn is_on_top(&self, past: &PastAction, key: &str) -> bool {
        !self.stands_under_another(past, key) && !self.is_being_undone(past, key)
    }

    fn is_due(&self, past: &PastAction) -> bool {
        let expired = past.action.expires_at.is_some_and(|at| at <= self.now);
        let main = past.action.makes_room_for.as_deref().and_then(|id| self.past.get(id));
        let in_vain = main
            .is_some_and(|main| matches!(main.outcome, Some(Outcome::Failed | Outcome::Expired | Outcome::Cancelled)));
        past.is_in_force() && past.action.undo.is_some() && (expired || in_vain)
    }

    /// Whether a later change of ours to the same thing still stands on top of it.
    fn stands_under_another(&self, past: &PastAction, key: &str) -> bool {
        let order = |past: &PastAction| (past.action.decided_at, past.action.id.clone());
        self.past.on(key).iter().any(|other| {
            other.is_act()
                && (other.is_in_force() || other.is_under_way(self.now))
                && same_thing(&other.action.change, &past.action.change)
                && order(other) > order(past)
        })
    }

    fn is_being_undone(&self, past: &PastAction, key: &str) -> bool {
        let cooldown = self.policy_named(&past.action.policy).map_or(OPPOSITE, |policy| policy.cooldown);
        self.past.on(key).iter().any(|other| {
            let undoes_it = other.action.undoes.as_deref() == Some(past.action.id.as_str());
            undoes_it && (other.is_under_way(self.now) || self.now - other.action.decided_at < cooldown)
        })
    }

    /// Since when what we gave to cannot be seen.
    fn note_unseen(&mut self) {
        let ours = self.past.all().filter(|past| past.is_in_force() && past.action.undo.is_some());
        for past in ours {
            let key = past.action.target.component.to_string();
            if !self.is_seen(past, &key) {
                let since = self.input.carry.unseen.get(&key).map_or(self.now, |since| self.now.min(*since));
                self.plan.carry.unseen.insert(key, since);
            }
        }
    }

    /// Whether it can be seen how the target of an action is now: what it runs where that was changed, else anything of it.
    fn is_seen(&self, past: &PastAction, key: &str) -> bool {
        let runs = self.workloads.contains_key(key);
        match past.action.change {
            Change::Replicas { .. } | Change::Resources { .. } => runs,
            _ => runs || self.assessed.contains_key(key),
        }
    }

    /// In words, that somebody else changed what we had set.
    fn no_longer_ours(&self, past: &PastAction, key: &str) -> Option<String> {
        let unseen = self.plan.carry.unseen.get(key).filter(|since| self.now - **since >= GONE_AFTER);
        if let Some(since) = unseen.filter(|_| !self.is_seen(past, key)) {
            return Some(format!("it is gone: it has not been seen for {}", span(self.now - *since)));
        }
        let workload: &Workload = self.workloads.get(key)?;
        match &past.action.change {
            // What is ours of an autoscaler is marked at the autoscaler, and known there.
            Change::Replicas { .. } if self.input.capacity.autoscaled.contains(key) => None,
            Change::Replicas { to, .. } if workload.replicas != *to => Some(format!(
                "it has {} replicas now, and {} were set: somebody else changed it",
                workload.replicas, to
            )),
            Change::Resources { to, .. } => to.iter().find_map(|(name, set)| {
                let has = *workload.per_replica.get(name)?;
                let differs = (has - set).abs() > SAME_AMOUNT * set.abs();
                let (now, was) = (super::words::amount(name, has), super::words::amount(name, *set));
                differs.then(|| {
                    format!("each replica has {now} of {name} now, and {was} were set: somebody else changed it")
                })
            }),
            _ => None,
        }
    }

    fn policy_named(&self, name: &str) -> Option<&'a Policy> {
        self.input.policies.iter().find(|policy| policy.name == name)
    }

    fn is_calm(&self, candidate: &Candidate<'_>) -> bool {
        self.streak(candidate).is_calm(self.policy(candidate))
    }

    fn extend(&mut self, past: &PastAction, candidate: &Candidate<'_>) {
        let policy = self.policy(candidate);
        let words = match candidate.probability {
            None => format!("nothing is known of {} now", candidate.key),
            Some(p) => format!(
                "P of {} is {}; it has been below the exit level {} for {} of {} cycles",
                candidate.key,
                percent(p),
                percent(policy.exit_below),
                self.streak(candidate).below,
                policy.exit_cycles,
            ),
        };
        self.extend_by(past, policy.expires_after, &words);
    }

    fn extend_by(&mut self, past: &PastAction, by: Millis, words: &str) {
        let detail = format!("{words}, so it is kept for another {}", span(by));
        self.plan.extended.push(Extension { action_id: past.action.id.clone(), until: self.now + by, detail });
    }

    fn extend_unseen(&mut self, past: &PastAction) {
        let by = self.policy_named(&past.action.policy).map_or(EXTENDED_BY, |policy| policy.expires_after);
        let own = past.action.target.component.to_string();
        let main = past.action.makes_room_for.as_deref().and_then(|id| self.past.get(id));
        let unseen = match main.filter(|_| self.is_seen(past, &own)) {
            Some(main) => main.action.target.component.to_string(),
            None => own,
        };
        self.extend_by(past, by, &format!("{unseen} is no longer seen"));
    }

    fn undo(&mut self, past: &'a PastAction, key: &str) {
        if let Err(refusal) = self.admit_undo(past, key) {
            self.decline_undo(past, refusal);
            return;
        }
        let Some(undo) = past.action.undo.clone() else { return };
        let action = &past.action;
        let mut why = action.why.clone();
        let ago = span(self.now - action.decided_at);
        why.sentence = format!("gives back {}, decided {ago} ago: its reason is gone", action.id);
        self.touched.insert(key.to_owned());
        self.plan.actions.push(Action {
            id: action_id(&action.policy, &action.target.component, action.kind, self.now, Some(&action.id)),
            change: undo,
            why,
            decided_at: self.now,
            expires_at: None,
            undo: None,
            undoes: Some(action.id.clone()),
            makes_room_for: None,
            ..action.clone()
        });
    }

    /// Whether something may be given back now: gates, mode, windows and room hold for that too; budgets do not.
    fn admit_undo(&mut self, past: &PastAction, key: &str) -> Result<(), Refusal> {
        let (policy_name, component) = (&past.action.policy, &past.action.target.component);
        paused(&self.input.gates, policy_name, component, self.now).map_or(Ok(()), Err)?;
        self.shut.clone().map_or(Ok(()), Err)?;
        broken(&self.breakers, &past.action.target.component.kind, self.now).map_or(Ok(()), Err)?;
        let policy = self.policy_named(&past.action.policy);
        let mode = policy.map_or(self.input.gates.mode, |policy| self.mode(policy));
        if mode == Mode::Observe {
            let detail = format!("{} has expired, but observe mode touches nothing", past.action.id);
            return Err(Refusal::new(Reason::Observe, detail, "the mode is approve or act"));
        }
        if let Some(last) = self.past.last_touch(key) {
            let ago = self.now - last.action.decided_at;
            if last.is_under_way(self.now) || ago < OPPOSITE {
                let detail = format!("it was changed {} ago, and the opposite waits {}", span(ago), span(OPPOSITE));
                let until = last.action.decided_at + OPPOSITE;
                return Err(Refusal::new(Reason::Cooldown, detail, format!("the wait ends at {until}")));
            }
        }
        policy.map_or(Ok(()), |policy| self.check_windows(policy))?;
        self.room_to_give_back(past, key)
    }

    /// What was taken is given back only where there is room for it again.
    fn room_to_give_back(&mut self, past: &PastAction, key: &str) -> Result<(), Refusal> {
        let (ActionKind::Evict, Some(undo), Some(workload)) =
            (past.action.kind, &past.action.undo, self.workloads.get(key).copied())
        else {
            return Ok(());
        };
        let constraints = self.policy_named(&past.action.policy).map(|policy| policy.constraints.clone());
        let Some((site, demand)) = self.demand(undo, workload, &constraints.unwrap_or_default())? else {
            return Ok(());
        };
        let (fitting, of) = self.room.fitting(&site, &demand);
        if fitting < of {
            let detail = format!("{} cannot be given back: {}", past.action.id, self.room.gap(&site, &demand));
            return Err(Refusal::new(Reason::InsufficientCapacity, detail, format!("pool {} has room", site.pool())));
        }
        self.room.reserve(&site, &demand);
        Ok(())
    }

    fn decline_undo(&mut self, past: &PastAction, refusal: Refusal) {
        let declined = Declined {
            component: past.action.target.component.clone(),
            policy: past.action.policy.clone(),
            action: Some(past.action.kind),
            reason: refusal.reason,
            detail: format!("giving back: {}", refusal.detail),
            released_when: refusal.released_when,
        };
        self.plan.declined.push((usize::MAX, declined));
    }
}

/// In words, that a signal would breach if the change were undone: calm with what was given is not calm without it.
///
/// The signal is taken to grow in the proportion in which what it scales with shrinks, as when the size was reckoned.
fn breach_without(action: &Action, assessment: &Assessment) -> Option<String> {
    assessment.signals.iter().find_map(|signal| {
        let (now, then, of) = amounts(action, signal.scales_with)?;
        let (peak, threshold) = (size::peak(signal)?, signal.foresight.limit?.threshold);
        let factor = now / then;
        let (without, near) = match signal.side {
            Side::Above => (peak * factor, threshold * NEAR_SHARE),
            Side::Below => (peak / factor, threshold / NEAR_SHARE),
        };
        let breaches = match signal.side {
            Side::Above => without >= near,
            Side::Below => without <= near,
        };
        breaches.then(|| {
            let (peak, without, threshold) = (figure(peak), figure(without), figure(threshold));
            format!("without it {}/{} would reach {peak} × {of} = {without} of {threshold}", signal.rule, signal.signal)
        })
    })
}

/// What there is now and what there would be again of that with which a signal scales, and both in words.
fn amounts(action: &Action, scales_with: ScalesWith) -> Option<(f64, f64, String)> {
    let (now, then, text) = match (&action.change, scales_with) {
        (Change::Replicas { from, to }, ScalesWith::Replicas) => {
            (f64::from(*to), f64::from(*from), format!("{to} ÷ {from}"))
        }
        (Change::Resources { from, to }, _) => {
            let name = size::resource_of(scales_with)?;
            let (from, to) = (*from.get(name)?, *to.get(name)?);
            (to, from, format!("{} ÷ {}", super::words::amount(name, to), super::words::amount(name, from)))
        }
        // The traffic that stays with it: the less of it, the smaller the signal.
        (Change::Shift { share }, _) => {
            let Some(Change::Shift { share: before }) = action.undo else { return None };
            (1.0 - before, 1.0 - share, format!("{} ÷ {}", percent(1.0 - before), percent(1.0 - share)))
        }
        _ => return None,
    };
    (then > 0.0 && now > then).then_some((now, then, text))
}

//! What bounds a policy once a component has entered: latch, cool-down, cost, windows, budget, blast radius.

use std::collections::BTreeMap;

use super::decide::{Candidate, Planner};
use super::gates::{Refusal, broken, paused};
use super::ladder::name_of;
use super::ledger::PastAction;
use super::words::{count, figure, percent, share_of, span};
use super::{ActionKind, Budget, BudgetUse, Mode, Policy, Reason, Usage};
use crate::model::{Millis, Timestamp};

/// Two ineffective actions in this time latch a target off.
pub(super) const LATCH: Millis = Millis::DAY;
/// The opposite action on a target waits so long.
pub(super) const OPPOSITE: Millis = Millis(30 * Millis::MINUTE.0);
/// At most this share of a policy's components may be under action at once, and at least one.
const UNDER_ACTION_SHARE: f64 = 0.1;

/// How many components of a group may be under action at once.
fn under_action_max(group: usize) -> usize {
    share_of(UNDER_ACTION_SHARE, group).max(1)
}

impl Planner<'_> {
    /// How much of what each policy may do is used.
    pub(super) fn usage(&self) -> BTreeMap<String, Usage> {
        let policies = self.input.policies.iter().enumerate();
        let usage = policies.map(|(index, policy)| {
            let group = self.groups[index];
            let used = policy.budgets.iter().zip(&self.spent[index]).map(|(budget, spent)| BudgetUse {
                per: budget.per,
                actions: budget.actions.clone(),
                spent: *spent,
                limit: budget.limit(group),
            });
            let budgets: Vec<BudgetUse> = used.collect();
            // Of the budgets in which every action counts; else of all.
            let left = |used: &&BudgetUse| (!used.actions.is_empty(), used.limit.saturating_sub(used.spent));
            let tightest = budgets.iter().min_by_key(left);
            let (spent, budget) = tightest.map_or((0, 0), |used| (used.spent, used.limit));
            let (under_action, under_action_max) = (self.open[index].len(), under_action_max(group));
            (policy.name.clone(), Usage { spent, budget, budgets, under_action, under_action_max, group })
        });
        usage.collect()
    }

    /// Whether anything may be done for a component now, before it is known what.
    pub(super) fn admit(&self, candidate: &Candidate<'_>) -> Result<(), Refusal> {
        let policy = self.policy(candidate);
        let component = &candidate.assessment.component;
        paused(&self.input.gates, &policy.name, component, self.now).map_or(Ok(()), Err)?;
        self.shut.clone().map_or(Ok(()), Err)?;
        broken(&self.breakers, &component.kind, self.now).map_or(Ok(()), Err)?;
        self.check_holdout(candidate, policy)?;
        self.check_latch(candidate.key, policy)?;
        self.check_cooldown(candidate.key, policy, self.mode(policy))?;
        self.check_withheld(candidate.key, policy)?;
        self.check_cost(candidate, policy)?;
        self.check_windows(policy)?;
        self.check_budgets(candidate.policy, |budget| usize::from(budget.actions.is_empty()))?;
        self.check_blast_radius(candidate)
    }

    /// Whether this episode is one of those that are left alone.
    fn check_holdout(&self, candidate: &Candidate<'_>, policy: &Policy) -> Result<(), Refusal> {
        if !self.streak(candidate).held_out {
            return Ok(());
        }
        let detail = format!(
            "held out: {} of episodes are left alone, so that it is known what comes of them, and this is one",
            percent(policy.holdout)
        );
        Err(Refusal::new(Reason::Holdout, detail, "the episode is over"))
    }

    /// Since when ineffective actions on a component count.
    pub(super) fn latch_since(&self, key: &str) -> Timestamp {
        let day = self.now - LATCH;
        self.plan.carry.unlatched.get(key).map_or(day, |released| day.max(*released))
    }

    fn check_latch(&self, key: &str, policy: &Policy) -> Result<(), Refusal> {
        let escalates = policy.verify.as_ref().is_none_or(|verify| verify.escalate);
        let allowed = if escalates { 1 } else { 0 };
        let ineffective: Vec<&PastAction> = self.past.ineffective(key, self.latch_since(key)).collect();
        if ineffective.len() <= allowed {
            return Ok(());
        }
        let first = ineffective[ineffective.len() - 1 - allowed].action.decided_at;
        let detail = format!("{} within 24 h had no effect", count(ineffective.len() as u64, "action"));
        Err(Refusal::new(Reason::Latched, detail, format!("a person releases it, or at {}", first + LATCH)))
    }

    fn check_cooldown(&self, key: &str, policy: &Policy, mode: Mode) -> Result<(), Refusal> {
        let refuse = |detail: String, until: Timestamp| {
            Err(Refusal::new(Reason::Cooldown, detail, format!("the cool-down ends at {until}")))
        };
        if self.touched.contains(key) {
            let detail = "this plan takes something from it or gives something back already";
            return Err(Refusal::new(Reason::Cooldown, detail, "the next plan"));
        }
        if let Some(last) = self.past.last_touch(key) {
            let opposite = last.action.undoes.is_some() || last.action.kind == ActionKind::Evict;
            let ago = self.now - last.action.decided_at;
            if last.is_under_way(self.now) && !self.escalates(last, policy) {
                let detail = format!("an action decided {} ago is still under way", span(ago));
                return Err(Refusal::new(Reason::Cooldown, detail, "its outcome is known"));
            }
            if opposite && ago < OPPOSITE {
                let what = if last.action.undoes.is_some() { "given back" } else { "taken from" };
                let detail = format!("it was {what} {} ago, and the opposite waits {}", span(ago), span(OPPOSITE));
                return refuse(detail, last.action.decided_at + OPPOSITE);
            }
        }
        if let Some(last) = self.past.last_for(key) {
            let ago = self.now - last.action.decided_at;
            if ago < policy.cooldown && !self.escalates(last, policy) {
                let detail =
                    format!("the last action was {} ago, and the cool-down is {}", span(ago), span(policy.cooldown));
                return refuse(detail, last.action.decided_at + policy.cooldown);
            }
        }
        self.check_written_down(key, policy, mode)
    }

    /// What observe mode has written down is not written down again each cycle.
    fn check_written_down(&self, key: &str, policy: &Policy, mode: Mode) -> Result<(), Refusal> {
        let dry =
            self.past.on(key).iter().rev().find(|past| past.action.dry_run && past.action.kind != ActionKind::Evict);
        let Some(last) = dry.filter(|_| mode == Mode::Observe) else { return Ok(()) };
        let ago = self.now - last.action.decided_at;
        if ago >= policy.cooldown {
            return Ok(());
        }
        let detail =
            format!("observe mode: what would be done was written down {} ago as {}", span(ago), last.action.id);
        Err(Refusal::new(Reason::Observe, detail, "the mode is approve or act").of(last.action.kind))
    }

    /// Whether what was offered to a person was declined, or not answered in time.
    fn check_withheld(&self, key: &str, policy: &Policy) -> Result<(), Refusal> {
        let withheld = self.plan.carry.withheld.get(key).filter(|_| self.mode(policy) == Mode::Approve);
        let Some(withheld) = withheld.filter(|withheld| self.now - withheld.since < policy.cooldown) else {
            return Ok(());
        };
        let ago = span(self.now - withheld.since);
        let what = match withheld.declined {
            true => format!("a person declined {} {ago} ago", withheld.id),
            false => format!("nobody answered {} within {}, {ago} ago", withheld.id, span(policy.offer_lasts())),
        };
        let until = withheld.since + policy.cooldown;
        let when = format!("the episode is over, or the cool-down ends at {until}");
        Err(Refusal::new(Reason::Approval, format!("{what}, so it is not offered again for now"), when))
    }

    /// Whether the next rung is tried at once because the last action had no effect, or none in time.
    fn escalates(&self, last: &PastAction, policy: &Policy) -> bool {
        let has_next = last.action.rung + 1 < policy.ladder.len();
        let was_for_it = last.is_act() && last.action.kind != ActionKind::Evict && last.action.policy == policy.name;
        has_next
            && was_for_it
            && policy.verify.as_ref().is_some_and(|verify| verify.escalate)
            && self.past.effective(last) == Some(false)
    }

    /// P's lower bound × efficacy × cost of missing > cost of acting, for some rung.
    fn check_cost(&self, candidate: &Candidate<'_>, policy: &Policy) -> Result<(), Refusal> {
        let best = policy.ladder.iter().map(|rung| self.experience.efficacy(rung.action, policy.efficacy));
        self.worth(candidate, policy, best.fold(0.0, f64::max))
    }

    /// The same for one efficacy. A figure that is no number is not worth it.
    pub(super) fn worth(&self, candidate: &Candidate<'_>, policy: &Policy, efficacy: f64) -> Result<(), Refusal> {
        let low = candidate.probability_low();
        if low * efficacy * policy.cost_miss > policy.cost_action {
            return Ok(());
        }
        let detail = format!(
            "P at least {} × efficacy {} × cost of missing {} = {}, not above the cost of acting, {}",
            percent(low),
            figure(efficacy),
            figure(policy.cost_miss),
            figure(low * efficacy * policy.cost_miss),
            figure(policy.cost_action)
        );
        let needed = policy.cost_action / (efficacy * policy.cost_miss);
        let released_when = if needed < 1.0 {
            format!("the lower bound of P is above {}", percent(needed))
        } else {
            "actions have proved more effective, or the policy's costs change".to_owned()
        };
        Err(Refusal::new(Reason::NotWorthIt, detail, released_when))
    }

    pub(super) fn check_windows(&self, policy: &Policy) -> Result<(), Refusal> {
        let refuse = |detail: String, when: String| Err(Refusal::new(Reason::Window, detail, when));
        let (mut allowing, mut inside) = (Vec::new(), false);
        for window in &policy.windows {
            match window.contains(self.now) {
                Err(problem) => return refuse(problem, "the window names a known time zone".to_owned()),
                Ok(true) if window.deny => {
                    return refuse(format!("inside the denied window {}", window.text), "the window ends".to_owned());
                }
                Ok(within) if !window.deny => {
                    allowing.push(window.text.as_str());
                    inside |= within;
                }
                Ok(_) => {}
            }
        }
        if allowing.is_empty() || inside {
            return Ok(());
        }
        refuse(format!("outside the allowed windows: {}", allowing.join(", ")), "a window begins".to_owned())
    }

    /// Whether the policy may take more actions: as many as `wanted` says count in a budget.
    pub(super) fn check_budgets(&self, policy_index: usize, wanted: impl Fn(&Budget) -> usize) -> Result<(), Refusal> {
        let policy = &self.input.policies[policy_index];
        for (budget, spent) in policy.budgets.iter().zip(&self.spent[policy_index]) {
            let (wanted, limit) = (wanted(budget), budget.limit(self.groups[policy_index]));
            if wanted > 0 && spent + wanted > limit {
                return Err(self.over_budget(policy_index, budget, (*spent, wanted, limit)));
            }
        }
        Ok(())
    }

    fn over_budget(
        &self,
        policy_index: usize,
        budget: &Budget,
        (spent, wanted, limit): (usize, usize, usize),
    ) -> Refusal {
        let policy = &self.input.policies[policy_index];
        let names: Vec<&str> = budget.actions.iter().map(|kind| name_of(*kind)).collect();
        let kinds = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
        let detail = format!(
            "{spent} of at most {}{kinds} in {} (the larger of {} and {} of {}), and this needs {wanted} more",
            count(limit as u64, "action"),
            span(budget.per),
            budget.actions_max,
            percent(budget.share_max),
            count(self.groups[policy_index] as u64, "component")
        );
        let counted = self.past.all().filter(|past| self.counts_in_budget(past, policy, budget));
        let oldest = counted.map(|past| past.action.decided_at).min().unwrap_or(self.now);
        let released_when = if wanted > limit {
            format!("the budget allows {} at once", count(wanted as u64, "action"))
        } else {
            format!("the oldest of them leaves the budget at {}", oldest + budget.per)
        };
        Refusal::new(Reason::Budget, detail, released_when)
    }

    /// Whether an earlier action counts against one of a policy's budgets now.
    pub(super) fn counts_in_budget(&self, past: &PastAction, policy: &Policy, budget: &Budget) -> bool {
        past.is_act()
            && past.action.policy == policy.name
            && past.action.decided_at > self.now - budget.per
            && budget.counts(past.action.kind)
    }

    /// Whether an earlier action is still being carried out or waits to be judged.
    pub(super) fn is_open(&self, past: &PastAction, policy: &Policy) -> bool {
        if !past.is_act() || past.action.policy != policy.name || past.action.kind == ActionKind::Evict {
            return false;
        }
        let to_be_judged = policy.verify.as_ref().is_some_and(|verify| {
            let judged_at = past.settled_at.map(|settled| settled + verify.after);
            past.is_in_force() && self.past.effective(past).is_none() && judged_at.is_some_and(|at| self.now <= at)
        });
        past.is_under_way(self.now) || to_be_judged
    }

    fn check_blast_radius(&self, candidate: &Candidate<'_>) -> Result<(), Refusal> {
        let group = self.groups[candidate.policy];
        let limit = under_action_max(group);
        let open = &self.open[candidate.policy];
        // What is under action already is not one more.
        if open.len() < limit || open.contains(candidate.key) {
            return Ok(());
        }
        let detail = format!(
            "{} under action at once is the most for a group of {group} (10 %, at least 1), and {} are",
            count(limit as u64, "component"),
            open.len()
        );
        Err(Refusal::new(Reason::BlastRadius, detail, "one of them is confirmed and judged"))
    }
}

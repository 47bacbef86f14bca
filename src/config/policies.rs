//! Policy files: what may be done for whom, and where capacity comes from.

use std::collections::{BTreeMap, BTreeSet};

use crate::act::ActuatorKind;
use crate::model::Millis;
use crate::plan::{ActionKind, Budget, Constraints, EvictPolicy, Mode, Policy, Rung, Selector, Verify};
use crate::query::Query;

use super::main_file::{MODES, MainFile};
use super::problem::Report;
use super::reader::{Fields, anchored, quoted, suggestion};
use super::rules::{claim, expression};
use super::tree::{Kind, Node, Place};
use super::window::read_windows;
use super::{ClusterPool, PoolSettings, WorkloadSettings};

const ACTIONS: [(&str, ActionKind); 5] = [
    ("scale_out", ActionKind::ScaleOut),
    ("scale_up", ActionKind::ScaleUp),
    ("migrate", ActionKind::Migrate),
    ("shift_load", ActionKind::ShiftLoad),
    ("quarantine", ActionKind::Quarantine),
];

/// The words for all kinds of actions, also for the one that no rung may name.
pub(super) fn action_words() -> Vec<(&'static str, ActionKind)> {
    ACTIONS.into_iter().chain([("evict", ActionKind::Evict)]).collect()
}

/// The largest share of episodes that may be held out.
const HOLDOUT_MAX: f64 = 0.5;

/// What the policy files say so far.
#[derive(Debug, Default)]
pub(super) struct PolicyFiles {
    pub(super) policies: Vec<Policy>,
    pub(super) pools: Vec<PoolSettings>,
    /// Whether a policy could not be read.
    pub(super) incomplete: bool,
    policy_names: BTreeMap<String, Place>,
    pool_names: BTreeMap<String, Place>,
}

/// Reads one policy file's tree.
pub(super) fn read_policies(report: &mut Report, main: &MainFile, root: &Node, files: &mut PolicyFiles) {
    let Some(fields) = report.fields(root, "a policy file", &["policies", "pools"]) else {
        files.incomplete = true;
        return;
    };
    if let Some(list) = fields.get("policies") {
        for node in report.list(list, "policies") {
            let policy = read_policy(report, main, node, &mut files.policy_names);
            files.incomplete |= policy.is_none();
            files.policies.extend(policy);
        }
    }
    if let Some(list) = fields.get("pools") {
        for node in report.list(list, "pools") {
            let pool = read_pool(report, main, node, &mut files.pool_names);
            files.pools.extend(pool);
        }
    }
}

fn read_policy(
    report: &mut Report,
    main: &MainFile,
    node: &Node,
    names: &mut BTreeMap<String, Place>,
) -> Option<Policy> {
    const KNOWN: [&str; 17] = [
        "name",
        "match",
        "mode",
        "enter",
        "exit",
        "cost",
        "ladder",
        "constraints",
        "evict",
        "budget",
        "cooldown",
        "expires_after",
        "verify",
        "windows",
        "holdout",
        "approve_within",
        "explore",
    ];
    let fields = report.fields(node, "a policy", &KNOWN)?;
    let name = report.required(fields, "a policy", "name").and_then(|n| {
        let name = report.name(n, "a policy's name")?;
        claim(report, names, "policies", "policy/duplicate-name", &name, n.at);
        Some(name)
    });
    let selector = report.required(fields, "a policy", "match").and_then(|n| read_selector(report, n));
    let mode = read_mode(report, main, fields);
    let thresholds = read_thresholds(report, fields);
    let cost = read_cost(report, fields);
    let ladder = report.required(fields, "a policy", "ladder").map(|n| read_ladder(report, main, n));
    let constraints = fields.get("constraints").map(|n| read_constraints(report, n)).unwrap_or_default();
    let evict = fields.get("evict").and_then(|n| read_evict(report, n));
    let budgets = read_budgets(report, fields.get("budget"), ladder.as_deref());
    let default = Policy::default();
    let cooldown = duration_or(report, fields, "cooldown", default.cooldown);
    let expires_after = duration_or(report, fields, "expires_after", default.expires_after);
    let approve_within = read_approve_within(report, fields, expires_after);
    let explore = fields.get("explore").and_then(|n| report.truth(n)).unwrap_or(false);
    let verify = read_verify(report, fields.get("verify"));
    let windows = fields.get("windows").map(|n| read_windows(report, n)).unwrap_or_default();
    let holdout = fields.get("holdout").map_or(0.0, |n| read_holdout(report, n));
    Some(Policy {
        name: name?,
        selector: selector?,
        mode,
        enter_above: thresholds.enter_above,
        enter_cycles: thresholds.enter_cycles,
        exit_below: thresholds.exit_below,
        exit_cycles: thresholds.exit_cycles,
        cost_miss: cost.miss,
        cost_action: cost.action,
        efficacy: cost.efficacy,
        ladder: ladder?,
        constraints,
        evict,
        budgets,
        cooldown,
        expires_after,
        verify: Some(verify),
        windows,
        holdout,
        approve_within,
        explore,
    })
}

/// For how long an action waits for a person: what is given back after some time is no use to approve later than that.
fn read_approve_within(report: &mut Report, fields: Fields<'_>, expires_after: Millis) -> Option<Millis> {
    let node = fields.get("approve_within")?;
    let within = report.duration(node, Millis::SECOND)?;
    if within > expires_after {
        let message = format!("`approve_within` {within} is longer than the action would stand");
        let help = format!("at most {expires_after}, which is `expires_after`");
        report.error(node.at, "policy/approve-after-expiry", message, help);
        return None;
    }
    Some(within)
}

/// The share of episodes that is never acted on. Half and more would be no policy any more.
fn read_holdout(report: &mut Report, node: &Node) -> f64 {
    let Some(share) = report.ratio(node) else { return 0.0 };
    if share > HOLDOUT_MAX {
        let message = "more than half of the episodes would be left alone";
        report.error(node.at, "policy/holdout-too-large", message, "a share from 0 to 50%; 5% is usual");
        return 0.0;
    }
    share
}

fn duration_or(report: &mut Report, fields: Fields<'_>, key: &str, default: Millis) -> Millis {
    fields.get(key).and_then(|n| report.duration(n, Millis::SECOND)).unwrap_or(default)
}

/// Whether an anchored expression accepts any value: then it selects nothing in particular.
fn accepts_everything(pattern: &str) -> bool {
    anchored(pattern).is_some_and(|regex| ["forestall-1", "~", "Ω /x"].iter().all(|probe| regex.is_match(probe)))
}

/// A kind and regular expressions on labels; nothing where one of them is wrong.
pub(super) fn read_match(report: &mut Report, node: &Node) -> Option<Selector> {
    let fields = report.mapping(node, "`match`")?;
    let mut selector = Selector { kind: None, labels: BTreeMap::new() };
    let mut sound = true;
    for (key, value) in fields.entries() {
        if key.text == "kind" {
            selector.kind = report.name(value, "a kind");
            sound &= selector.kind.is_some();
            continue;
        }
        let name = report.label_name(&key.text, key.at);
        let pattern = report.text(value, "a regular expression").and_then(|pattern| {
            if anchored(&pattern).is_some() {
                return Some(pattern);
            }
            let message = format!("`{pattern}` is not a regular expression");
            report.error(value.at, "policy/bad-regex", message, "as in PromQL's `=~`; it must match the whole value");
            None
        });
        match (name, pattern) {
            (Some(name), Some(pattern)) => {
                selector.labels.insert(name, pattern);
            }
            _ => sound = false,
        }
    }
    sound.then_some(selector)
}

/// A selector that selects something, but not everything.
fn read_selector(report: &mut Report, node: &Node) -> Option<Selector> {
    let selector = read_match(report, node)?;
    let help = "select by `kind`, or by a label with values of its own";
    if selector.kind.is_none() && selector.labels.is_empty() {
        report.error(node.at, "policy/empty-selector", "the selector is empty: it would match everything", help);
        return None;
    }
    if selector.kind.is_none() && selector.labels.values().all(|pattern| accepts_everything(pattern)) {
        report.error(node.at, "policy/all-matching-selector", "the selector matches everything", help);
        return None;
    }
    Some(selector)
}

fn read_mode(report: &mut Report, main: &MainFile, fields: Fields<'_>) -> Mode {
    let Some(node) = fields.get("mode") else { return Mode::default() };
    let Some(mode) = report.word(node, "a mode", &MODES, &[]) else { return Mode::default() };
    let word = |mode: Mode| MODES.iter().find(|(_, known)| *known == mode).map_or("", |(word, _)| *word);
    if mode > main.global.mode {
        let ceiling = word(main.global.mode);
        let message = format!("mode `{}` counts only up to the ceiling `{ceiling}`", word(mode));
        let help = format!("it is `{ceiling}` until `global.mode` in the main file is `{}`", word(mode));
        report.warning(node.at, "policy/mode-above-ceiling", message, help);
    }
    mode
}

struct Thresholds {
    enter_above: f64,
    enter_cycles: u32,
    exit_below: f64,
    exit_cycles: u32,
}

fn read_thresholds(report: &mut Report, fields: Fields<'_>) -> Thresholds {
    let Policy { enter_above, enter_cycles, exit_below, exit_cycles, .. } = Policy::default();
    let mut read = Thresholds { enter_above, enter_cycles, exit_below, exit_cycles };
    let mut exit_at = None;
    if let Some(enter) = fields.get("enter").and_then(|n| report.fields(n, "`enter`", &["probability_above", "for"])) {
        exit_at = enter.get("probability_above").map(|n| n.at);
        if let Some(ratio) = enter.get("probability_above").and_then(|n| report.ratio(n)) {
            read.enter_above = ratio;
        }
        if let Some(cycles) = enter.get("for").and_then(|n| read_cycles(report, n)) {
            read.enter_cycles = cycles;
        }
    }
    if let Some(exit) = fields.get("exit").and_then(|n| report.fields(n, "`exit`", &["probability_below", "for"])) {
        exit_at = exit.get("probability_below").map(|n| n.at).or(exit_at);
        if let Some(ratio) = exit.get("probability_below").and_then(|n| report.ratio(n)) {
            read.exit_below = ratio;
        }
        if let Some(cycles) = exit.get("for").and_then(|n| read_cycles(report, n)) {
            read.exit_cycles = cycles;
        }
    }
    if let Some(at) = exit_at.filter(|_| read.exit_below >= read.enter_above) {
        let message = format!("exit ({}) is not below enter ({})", read.exit_below, read.enter_above);
        let help = "a component must calm down before it leaves: lower `exit.probability_below`";
        report.error(at, "policy/exit-not-below-enter", message, help);
    }
    read
}

/// A number of consecutive cycles; a duration is a likely slip.
fn read_cycles(report: &mut Report, node: &Node) -> Option<u32> {
    if let Kind::Scalar { text, .. } = &node.kind
        && text.parse::<i64>().is_err()
        && Millis::parse(text).is_ok()
    {
        let message = format!("expected a number of cycles, found the duration {text}");
        report.error(node.at, "config/wrong-type", message, "write how many evaluations in a row: `for: 3`");
        return None;
    }
    report.count(node, 1, 10_000)
}

struct Cost {
    miss: f64,
    action: f64,
    efficacy: f64,
}

fn read_cost(report: &mut Report, fields: Fields<'_>) -> Cost {
    let Policy { cost_miss, cost_action, efficacy, .. } = Policy::default();
    let mut cost = Cost { miss: cost_miss, action: cost_action, efficacy };
    let Some(node) = fields.get("cost") else { return cost };
    let Some(fields) = report.fields(node, "`cost`", &["miss", "action", "efficacy"]) else { return cost };
    if let Some(miss) = fields.get("miss").and_then(|n| report.number_within(n, 0.0, f64::INFINITY)) {
        cost.miss = miss;
    }
    if let Some(action) = fields.get("action").and_then(|n| report.number_within(n, 0.0, f64::INFINITY)) {
        cost.action = action;
    }
    if let Some(efficacy) = fields.get("efficacy").and_then(|n| report.ratio(n)) {
        cost.efficacy = efficacy;
    }
    if cost.miss * cost.efficacy <= cost.action {
        let message = "acting is never worth it: its cost is not below what it can save";
        let help = format!("`action` below {}, which is miss × efficacy", cost.miss * cost.efficacy);
        report.warning(node.at, "policy/never-worth-it", message, help);
    }
    cost
}

fn read_ladder(report: &mut Report, main: &MainFile, node: &Node) -> Vec<Rung> {
    let items = report.list(node, "rungs");
    if matches!(&node.kind, Kind::List(items) if items.is_empty()) {
        report.error(node.at, "config/missing-field", "the ladder has no rung", "add what may be done");
    }
    items.iter().filter_map(|item| read_rung(report, main, item)).collect()
}

fn read_rung(report: &mut Report, main: &MainFile, node: &Node) -> Option<Rung> {
    const KNOWN: [&str; 8] =
        ["action", "actuator", "size", "max_replicas", "resources", "factor_max", "actuation_time", "timeout"];
    let fields = report.fields(node, "a rung", &KNOWN)?;
    let action = report.required(fields, "a rung", "action").and_then(|n| read_action(report, n));
    let actuator = report.required(fields, "a rung", "actuator").and_then(|n| read_actuator(report, main, n));
    let step = match fields.get("size").map(|n| (n, &n.kind)) {
        Some((_, Kind::Scalar { text, .. })) if text == "auto" => None,
        Some((n, _)) => report.count(n, 1, 10_000),
        None => None,
    };
    let replicas_max = fields.get("max_replicas").and_then(|n| report.count(n, 1, 1_000_000));
    let resources = fields.get("resources").map(|n| report.texts(n, "a resource")).unwrap_or_default();
    let factor_max = fields.get("factor_max").and_then(|n| report.number_within(n, 1.0, 100.0)).unwrap_or(2.0);
    let actuation_time = duration_or(report, fields, "actuation_time", Millis::MINUTE * 2);
    let timeout = fields.get("timeout").and_then(|n| read_timeout(report, n, actuation_time));
    if action == Some(ActionKind::ScaleUp) && resources.is_empty() {
        let at = fields.key_at("resources").unwrap_or(fields.at);
        report.error(at, "config/missing-field", "`scale_up` needs `resources`", "add `resources: [cpu, memory]`");
    }
    let (action, actuator) = (action?, actuator?);
    Some(Rung { action, actuator, step, replicas_max, resources, factor_max, actuation_time, timeout })
}

/// When a rung must have had its effect: not before it can have been carried out.
fn read_timeout(report: &mut Report, node: &Node, actuation_time: Millis) -> Option<Millis> {
    let timeout = report.duration(node, Millis::SECOND)?;
    if timeout <= actuation_time {
        let message = format!("the time-out {timeout} is over before the action can have had an effect");
        let help = format!("more than {actuation_time}, which is the rung's `actuation_time`");
        report.error(node.at, "policy/timeout-too-short", message, help);
        return None;
    }
    Some(timeout)
}

fn read_action(report: &mut Report, node: &Node) -> Option<ActionKind> {
    if matches!(&node.kind, Kind::Scalar { text, .. } if text == "evict") {
        let message = "evicting is no rung: it makes room for one";
        report.error(node.at, "policy/evict-in-ladder", message, "allow it beside the ladder with `evict:`");
        return None;
    }
    report.word(node, "an action", &ACTIONS, &[])
}

fn read_actuator(report: &mut Report, main: &MainFile, node: &Node) -> Option<String> {
    let name = report.text(node, "an actuator's name")?;
    if main.any_actuator || main.actuator_names.contains(&name) {
        return Some(name);
    }
    let known: Vec<&str> = main.actuator_names.iter().map(String::as_str).collect();
    let help = if known.is_empty() {
        format!("add it to the main file: `actuators: {{ {name}: {{ dry_run: {{}} }} }}`")
    } else {
        suggestion(&name, &known)
    };
    report.error(node.at, "policy/unknown-actuator", format!("there is no actuator `{name}`"), help);
    None
}

fn read_constraints(report: &mut Report, node: &Node) -> Constraints {
    let mut constraints = Constraints::default();
    const KNOWN: [&str; 4] = ["max_per_node", "node_selector", "node_preference", "min_available"];
    let Some(fields) = report.fields(node, "`constraints`", &KNOWN) else { return constraints };
    if let Some(shares) = fields.get("max_per_node").and_then(|n| report.mapping(n, "`max_per_node`")) {
        for (key, value) in shares.entries() {
            if let Some(share) = report.ratio(value) {
                constraints.max_per_node.insert(key.text.clone(), share);
            }
        }
    }
    if let Some(preference) = fields
        .get("node_preference")
        .and_then(|n| report.fields(n, "`node_preference`", &["selector", "avoid_at_risk"]))
    {
        constraints.avoid_at_risk = preference.get("avoid_at_risk").and_then(|n| report.truth(n)).unwrap_or(true);
        constraints.node_preferred =
            preference.get("selector").map(|n| read_node_selector(report, n)).unwrap_or_default();
    }
    constraints.node_selector = fields.get("node_selector").map(|n| read_node_selector(report, n)).unwrap_or_default();
    constraints.min_available = fields.get("min_available").and_then(|n| report.ratio(n)).unwrap_or(0.0);
    constraints
}

/// `pool=general,zone=a`
fn read_node_selector(report: &mut Report, node: &Node) -> BTreeMap<String, String> {
    let Some(text) = report.text(node, "node labels") else { return BTreeMap::new() };
    let mut labels = BTreeMap::new();
    for part in text.split(',') {
        match part.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() && !value.trim().is_empty() && !value.contains('=') => {
                labels.insert(name.trim().to_owned(), value.trim().to_owned());
            }
            _ => {
                let message = format!("`{}` is not label=value", part.trim());
                report.error(node.at, "config/wrong-type", message, "write 'pool=general' or 'pool=general,zone=a'");
            }
        }
    }
    labels
}

fn read_evict(report: &mut Report, node: &Node) -> Option<EvictPolicy> {
    let fields = report.fields(node, "`evict`", &["below_priority", "min_impact"])?;
    let below_priority =
        report.required(fields, "`evict`", "below_priority").and_then(|n| report.whole(n, i64::MIN, i64::MAX));
    let min_impact = match fields.get("min_impact") {
        Some(n) => report.ratio(n),
        None => Some(0.5),
    };
    Some(EvictPolicy { below_priority: below_priority?, min_impact: min_impact? })
}

/// One budget or a list of them.
fn read_budgets(report: &mut Report, node: Option<&Node>, ladder: Option<&[Rung]>) -> Vec<Budget> {
    let Some(node) = node else { return vec![Budget::default()] };
    let Kind::List(items) = &node.kind else { return read_budget(report, node, ladder).into_iter().collect() };
    if items.is_empty() {
        let help = "leave `budget` out for 4 actions or 10% in an hour, or name one";
        report.error(
            node.at,
            "config/missing-field",
            "the list of budgets is empty: nothing would bound the policy",
            help,
        );
    }
    items.iter().filter_map(|item| read_budget(report, item, ladder)).collect()
}

/// A budget. Where only one of count and share is given the other adds nothing, but one action is always allowed to a share.
fn read_budget(report: &mut Report, node: &Node, ladder: Option<&[Rung]>) -> Option<Budget> {
    let fields = report.fields(node, "a budget", &["per", "max_actions", "max_share", "actions"])?;
    let mut budget = Budget::default();
    budget.per = duration_or(report, fields, "per", budget.per);
    let (count, share) = (fields.get("max_actions"), fields.get("max_share"));
    match (&count, &share) {
        (Some(_), None) => budget.share_max = 0.0,
        (None, Some(_)) => budget.actions_max = 1,
        _ => {}
    }
    if let Some(actions) = count.and_then(|n| report.count(n, 0, 100_000)) {
        budget.actions_max = actions;
    }
    if let Some(share) = share.and_then(|n| report.ratio(n)) {
        budget.share_max = share;
    }
    if let Some(list) = fields.get("actions") {
        budget.actions = read_budget_actions(report, list, ladder);
    }
    Some(budget)
}

/// What counts in a budget: actions of the ladder, and `evict`. One for something else would bound nothing.
fn read_budget_actions(report: &mut Report, list: &Node, ladder: Option<&[Rung]>) -> BTreeSet<ActionKind> {
    let mut counted = BTreeSet::new();
    let words = action_words();
    let items = report.list(list, "actions");
    if items.is_empty() {
        report.error(list.at, "config/wrong-type", "the list is empty", "name actions, or leave `actions` out for all");
    }
    for item in items {
        let Some(kind) = report.word(item, "an action", &words, &[]) else { continue };
        let is_on_ladder = |rungs: &[Rung]| rungs.iter().any(|rung| rung.action == kind);
        if kind != ActionKind::Evict && !ladder.is_none_or(is_on_ladder) {
            let message = "the ladder has no such rung, so this budget bounds nothing";
            let help = "name actions of the ladder, or `evict`";
            report.warning(item.at, "policy/budget-for-nothing", message, help);
        }
        counted.insert(kind);
    }
    counted
}

fn read_verify(report: &mut Report, node: Option<&Node>) -> Verify {
    let mut verify = Verify::default();
    let Some(node) = node else { return verify };
    let Some(fields) = report.fields(node, "`verify`", &["after", "expect", "else"]) else { return verify };
    verify.after = duration_or(report, fields, "after", verify.after);
    let expect = fields.get("expect").and_then(|n| report.fields(n, "`expect`", &["probability_drop"]));
    if let Some(drop) = expect.and_then(|f| f.get("probability_drop")).and_then(|n| report.ratio(n)) {
        verify.probability_drop = drop;
    }
    let words = [("escalate", true), ("latch", false)];
    if let Some(escalate) = fields.get("else").and_then(|n| report.word(n, "a value of `else`", &words, &[])) {
        verify.escalate = escalate;
    }
    verify
}

fn read_pool(
    report: &mut Report,
    main: &MainFile,
    node: &Node,
    names: &mut BTreeMap<String, Place>,
) -> Option<PoolSettings> {
    let fields = report.fields(node, "a pool", &["name", "capacity", "node_label", "workloads", "kubernetes"])?;
    let name = report.required(fields, "a pool", "name").and_then(|n| {
        let name = report.name(n, "a pool's name")?;
        claim(report, names, "pools", "policy/duplicate-pool", &name, n.at);
        Some(name)
    });
    if let Some(cluster) = fields.get("kubernetes") {
        for key in ["capacity", "node_label", "workloads"] {
            if let Some(at) = fields.key_at(key) {
                let message = format!("`{key}` and `kubernetes` exclude each other");
                report.error(at, "config/conflict", message, "the cluster tells all of it: keep one of the two");
            }
        }
        let cluster = Some(read_cluster_pool(report, main, cluster)?);
        let (capacity, used) = (BTreeMap::new(), BTreeMap::new());
        return Some(PoolSettings {
            name: name?,
            capacity,
            used,
            node_label: String::new(),
            workloads: Vec::new(),
            cluster,
        });
    }
    let capacity = report.required(fields, "a pool", "capacity").and_then(|n| read_capacity(report, main, n));
    let node_label = match fields.get("node_label") {
        Some(n) => report.text(n, "a label name").and_then(|text| report.label_name(&text, n.at)),
        None => Some("node".to_owned()),
    };
    let mut workloads = Vec::new();
    if let Some(list) = fields.get("workloads") {
        for item in report.list(list, "workloads") {
            workloads.extend(read_workload(report, main, item));
        }
    }
    let (capacity, used) = capacity?;
    Some(PoolSettings { name: name?, capacity, used, node_label: node_label?, workloads, cluster: None })
}

/// A pool that a cluster tells of: its nodes, and through which actuator it is asked.
fn read_cluster_pool(report: &mut Report, main: &MainFile, node: &Node) -> Option<ClusterPool> {
    let fields = report.fields(node, "`kubernetes`", &["node_selector", "actuator"])?;
    let node_selector = fields.get("node_selector").map(|n| read_node_selector(report, n)).unwrap_or_default();
    let clusters: Vec<&str> = main
        .actuators
        .iter()
        .filter(|actuator| matches!(actuator.kind, ActuatorKind::Kubernetes(_)))
        .map(|actuator| actuator.name.as_str())
        .collect();
    if let Some(named) = fields.get("actuator") {
        let name = report.text(named, "an actuator's name")?;
        if !main.any_actuator && !clusters.contains(&name.as_str()) {
            let message = format!("there is no Kubernetes actuator `{name}`");
            report.error(named.at, "policy/unknown-actuator", message, suggestion(&name, &clusters));
            return None;
        }
        return Some(ClusterPool { actuator: name, node_selector });
    }
    match clusters[..] {
        [one] => Some(ClusterPool { actuator: one.to_owned(), node_selector }),
        [] => {
            let help = "add it to the main file: `actuators: { cluster: { kubernetes: {} } }`";
            report.error(node.at, "policy/no-cluster", "there is no Kubernetes actuator to ask", help);
            None
        }
        _ => {
            let help = format!("name one: `actuator: {}`", clusters[0]);
            report.error(node.at, "policy/no-cluster", "there are several Kubernetes actuators to ask", help);
            None
        }
    }
}

type Expressions = BTreeMap<String, Query>;

/// Resources with what there is, and beside them `used` with the same resources.
fn read_capacity(report: &mut Report, main: &MainFile, node: &Node) -> Option<(Expressions, Expressions)> {
    let fields = report.mapping(node, "`capacity`")?;
    let capacity = read_resources(report, main, fields);
    let used_fields = fields.get("used").and_then(|n| report.mapping(n, "`used`"));
    let used = used_fields.map(|used| read_resources(report, main, used)).unwrap_or_default();
    if fields.entries().all(|(key, _)| key.text == "used") {
        report.error(
            node.at,
            "config/missing-field",
            "`capacity` names no resource",
            "add `cpu: '…'` or `memory: '…'`",
        );
    }
    let names: Vec<&str> = fields.entries().map(|(key, _)| key.text.as_str()).filter(|name| *name != "used").collect();
    for (key, _) in used_fields.iter().flat_map(|used| used.entries()) {
        if !names.contains(&key.text.as_str()) {
            let message = format!("`used.{}` has no capacity beside it", key.text);
            report.error(key.at, "policy/unknown-resource", message, format!("the capacity has {}", quoted(&names)));
        }
    }
    for (key, _) in fields.entries().filter(|(key, _)| key.text != "used") {
        let is_used = used_fields.is_some_and(|used| used.get(&key.text).is_some());
        if !is_used {
            let message = format!("capacity `{}` has no `used` beside it: all of it counts as free", key.text);
            let help = format!("add `used: {{ {}: '…' }}`", key.text);
            report.error(key.at, "policy/use-unknown", message, help);
        }
    }
    Some((capacity, used))
}

fn read_resources(report: &mut Report, main: &MainFile, fields: Fields<'_>) -> Expressions {
    let mut resources = BTreeMap::new();
    for (key, value) in fields.entries().filter(|(key, _)| key.text != "used") {
        let name = report.label_name(&key.text, key.at);
        let query = expression(report, main, value);
        if let (Some(name), Some(query)) = (name, query) {
            resources.insert(name, query);
        }
    }
    resources
}

fn read_workload(report: &mut Report, main: &MainFile, node: &Node) -> Option<WorkloadSettings> {
    const KNOWN: [&str; 7] = ["kind", "by", "replicas", "requests", "priority", "replicas_min", "placement"];
    let fields = report.fields(node, "a workload", &KNOWN)?;
    let kind = report.required(fields, "a workload", "kind").and_then(|n| report.name(n, "a kind"));
    let by = report.required(fields, "a workload", "by").map(|n| report.label_names(n));
    let replicas = report.required(fields, "a workload", "replicas").and_then(|n| expression(report, main, n));
    let requests = report
        .required(fields, "a workload", "requests")
        .and_then(|n| report.mapping(n, "`requests`"))
        .map(|requests| read_resources(report, main, requests));
    let priority = fields.get("priority").and_then(|n| report.number_or_query(n));
    let replicas_min = fields.get("replicas_min").and_then(|n| report.number_or_query(n));
    let placement = fields.get("placement").and_then(|n| expression(report, main, n));
    Some(WorkloadSettings {
        kind: kind?,
        by: by?,
        replicas: replicas?,
        requests: requests?,
        priority,
        replicas_min,
        placement,
    })
}

//! Plans, told as text: `tests/scenarios/*.txt`.
//!
//! A scenario is a list of what there is (policies, nodes, workloads, components, gates) and of moments at which a plan
//! is made; below each moment stands what the plan must say, in lines that begin with `=>`. Lines that name something
//! again change what they mention. Between two plans the runner does what the plan said: it keeps the intents, reports
//! each action as confirmed after a minute, and sets replicas and resources to what was wanted, unless a line says
//! otherwise. `UPDATE=1` rewrites the answers.
//!
//! ```text
//! policy NAME: kind=… mode=… ladder=scale_out,migrate enter=0.6 for=3 exit=0.2 exit_for=10 …
//! node NAME: cpu=8 used=6
//! deployment/shop/checkout: replicas=6 cpu=1 priority=2000 min=2 on=n1:3,n2:3 P=0.8 low=0.7 loss=0.6 impact=0.9 eta=24m …
//! gates: mode=act paused …
//! outcome failed | in-vain | pending | confirmed  (in-vain: only what makes room succeeds) for the actions of the plan before
//! at 30s                                       makes a plan
//! run to 20m every 30s                         makes plans, and keeps of them all but what is declined
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;

use forestall::forecast::{Eta, Foresight, Knowledge, Limit, Side};
use forestall::health::{Assessment, ScalesWith, SignalAssessment, Standing};
use forestall::model::{ComponentId, Labels, Millis, Timestamp};
use forestall::plan::{
    Action, ActionKind, Budget, Capacity, Carry, Change, EvictPolicy, Gates, Ledger, Mode, Node, Outcome, Pause,
    PauseScope, Plan, PlanInput, Policy, Rung, Window, Workload, plan,
};

mod properties;

/// A Monday, 08:00 UTC.
pub(crate) const START: Timestamp = Timestamp::from_secs(1_772_438_400);

#[test]
fn plans_as_the_scenarios_say() {
    let mut files: Vec<_> = std::fs::read_dir("tests/scenarios").expect("the folder is there").flatten().collect();
    files.sort_by_key(std::fs::DirEntry::path);
    assert!(files.len() > 20, "the scenarios are missing");
    let mut wrong = String::new();
    for file in files {
        let text = std::fs::read_to_string(file.path()).expect("a scenario can be read");
        let answered = Scenario::run(&text);
        if answered != text {
            let _ = writeln!(wrong, "{}:\n{answered}", file.path().display());
            if std::env::vars().any(|(name, _)| name == "UPDATE") {
                std::fs::write(file.path(), &answered).expect("a scenario can be written");
            }
        }
    }
    assert!(wrong.is_empty(), "these scenarios answer otherwise (UPDATE=1 takes it over):\n{wrong}");
}

struct Scenario {
    input: PlanInput,
    components: BTreeMap<String, Assessment>,
    outcome: String,
    last: Plan,
}

impl Scenario {
    /// The same text with the answers that the planner gives.
    fn run(text: &str) -> String {
        let mut scenario = Scenario {
            input: empty_input(),
            components: BTreeMap::new(),
            outcome: "confirmed".to_owned(),
            last: Plan::default(),
        };
        let mut answered = String::new();
        for line in text.lines().filter(|line| !line.starts_with("=>")) {
            let _ = writeln!(answered, "{line}");
            let line = line.split('#').next().expect("a split has a first part").trim();
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                [] => {}
                ["at", at] => {
                    scenario.cycle(START + millis(at));
                    answered.push_str(&scenario.say(true));
                }
                ["run", "to", end, "every", step] => {
                    let end = START + millis(end);
                    while scenario.input.now + millis(step) <= end {
                        let now = scenario.input.now + millis(step);
                        scenario.cycle(now);
                        for line in scenario.say(false).lines() {
                            let _ = writeln!(answered, "{} ({})", line, now - START);
                        }
                    }
                }
                ["outcome", outcome] => outcome.clone_into(&mut scenario.outcome),
                ["approve", component] => {
                    let id = scenario.offered(component);
                    scenario.input.gates.approved.insert(id);
                }
                ["decline", component] => {
                    let id = scenario.offered(component);
                    scenario.input.gates.declined.insert(id);
                }
                ["lost", component] => {
                    scenario.components.remove(component);
                }
                _ => scenario.tell(line),
            }
        }
        answered
    }

    /// The id of what waits for a person on a component.
    fn offered(&self, component: &str) -> String {
        let offered = self.last.waiting.iter().find(|action| action.target.component == id_of(component));
        offered.expect("something waits for it").id.clone()
    }

    fn tell(&mut self, line: &str) {
        let (what, rest) = line.split_once(": ").unwrap_or_else(|| panic!("what is `{line}`?"));
        let pairs: Vec<(&str, &str)> =
            rest.split_whitespace().map(|word| word.split_once('=').unwrap_or((word, ""))).collect();
        match what.split_once(' ') {
            Some(("policy", name)) => {
                self.input.policies.retain(|policy| policy.name != name);
                let mut policy = base_policy(name);
                pairs.iter().for_each(|(key, value)| set_policy(&mut policy, key, value));
                self.input.policies.push(policy);
            }
            Some(("node", name)) => set_node(&mut self.input.capacity, name, &pairs),
            None if what == "gates" => pairs.iter().for_each(|(key, value)| self.set_gate(key, value)),
            None => {
                set_workload(&mut self.input.capacity, what, &pairs);
                set_component(&mut self.components, what, &pairs);
            }
            Some(_) => panic!("what is `{line}`?"),
        }
    }

    fn set_gate(&mut self, key: &str, value: &str) {
        let gates = &mut self.input.gates;
        match key {
            "mode" => gates.mode = mode(value),
            "paused" => gates.pauses = pause(value).into_iter().collect(),
            "journal" => gates.journal_ok = value == "ok",
            "follower" => gates.follower = value != "no",
            "hold" => gates.hold_until = Some(START + millis(value)),
            "interval" => gates.interval = millis(value),
            "released" => {
                gates.released = value.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
            }
            _ => panic!("no gate `{key}`"),
        }
    }

    fn cycle(&mut self, now: Timestamp) {
        self.settle();
        self.input.now = now;
        self.input.assessments = self.components.values().cloned().collect();
        for assessment in &mut self.input.assessments {
            assessment.at = now - (START - assessment.at);
        }
        self.last = plan(&self.input);
        let text = serde_json::to_string(&self.input).expect("an input can be written");
        let again: PlanInput = serde_json::from_str(&text).expect("an input can be read");
        let bytes = |plan: &Plan| serde_json::to_string(plan).expect("a plan can be written");
        assert_eq!(bytes(&plan(&again)), bytes(&self.last), "a replay decides the same");
        self.input.carry = self.last.carry.clone();
        self.input.ledger.note(&self.last);
    }

    /// Does what the last plan said.
    fn settle(&mut self) {
        for action in &self.last.actions {
            self.input.ledger.record_intent(action);
            let settled_at = action.decided_at + Millis::MINUTE;
            let took = Some(Millis::MINUTE);
            let outcome = match self.outcome.as_str() {
                _ if action.dry_run => Outcome::DryRun,
                "pending" => continue,
                "failed" => Outcome::Failed,
                "in-vain" if action.kind != ActionKind::Evict => Outcome::Failed,
                _ => Outcome::Confirmed,
            };
            self.input.ledger.record_outcome(&action.id, outcome, took, settled_at);
            if outcome == Outcome::Confirmed {
                take_effect(&mut self.input.capacity, action);
            }
        }
        self.last.actions.clear();
    }

    fn say(&self, declined_too: bool) -> String {
        let mut said = String::new();
        let plan = &self.last;
        let known = |id: &str| {
            let past = self.input.ledger.actions.iter().find(|past| past.action.id == id).expect("it is in the ledger");
            format!("{} {}", name_of(past.action.kind), past.action.target.component)
        };
        for verdict in &plan.verdicts {
            let word = if verdict.effective { "effective" } else { "no effect" };
            let _ = writeln!(said, "=> {}: {word}: {}", known(&verdict.action_id), verdict.detail);
        }
        plan.actions
            .iter()
            .for_each(|action| say_action(&mut said, plan, action, action.dry_run.then_some("write down")));
        plan.waiting.iter().for_each(|action| say_action(&mut said, plan, action, Some("offer")));
        for extension in &plan.extended {
            let _ = writeln!(said, "=> keep {}: {}", known(&extension.action_id), extension.detail);
        }
        for id in &plan.disowned {
            let _ = writeln!(said, "=> let go of {}", known(id));
        }
        for declined in plan.declined.iter().filter(|_| declined_too) {
            let reason = serde_json::to_string(&declined.reason).expect("a reason can be written");
            let (component, reason) = (&declined.component, reason.trim_matches('"'));
            let _ = writeln!(said, "=> no {component}: {reason}: {}", declined.detail);
            let _ = writeln!(said, "=>    until {}", declined.released_when);
        }
        if said.is_empty() && declined_too { "=> nothing\n".to_owned() } else { said }
    }
}

fn say_action(said: &mut String, plan: &Plan, action: &Action, verb: Option<&str>) {
    let verb = verb.unwrap_or(if action.undoes.is_some() { "undo" } else { "do" });
    let change = match &action.change {
        Change::Replicas { from, to } => format!("{from} -> {to}"),
        Change::Resources { from, to } => format!("{from:?} -> {to:?}"),
        Change::Move { from_nodes } => format!("off {}", from_nodes.join(",")),
        Change::Shift { share } => format!("share {share}"),
        Change::Cordon => "cordon".to_owned(),
        Change::Uncordon => "uncordon".to_owned(),
    };
    let change = change.trim_end();
    let _ = writeln!(
        said,
        "=> {verb} {} {} {change}: {}",
        name_of(action.kind),
        action.target.component,
        action.why.sentence
    );
    let all = plan.actions.iter().chain(&plan.waiting);
    if let Some(main) = &action.makes_room_for {
        assert!(all.clone().any(|other| &other.id == main), "it makes room for something in the same plan");
    }
}

fn name_of(kind: ActionKind) -> String {
    serde_json::to_string(&kind).expect("a kind can be written").trim_matches('"').to_owned()
}

fn kind_of(name: &str) -> ActionKind {
    serde_json::from_str(&format!("\"{name}\"")).unwrap_or_else(|_| panic!("no action `{name}`"))
}

fn mode(name: &str) -> Mode {
    serde_json::from_str(&format!("\"{name}\"")).unwrap_or_else(|_| panic!("no mode `{name}`"))
}

fn millis(text: &str) -> Millis {
    if text == "0s" { Millis::ZERO } else { Millis::parse(text).unwrap_or_else(|e| panic!("{e}")) }
}

fn number<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("`{text}` is no number of that kind"))
}

pub(crate) fn id_of(text: &str) -> ComponentId {
    let parts: Vec<String> = text.split('/').map(str::to_owned).collect();
    let labels = match &parts[..] {
        [kind, name] => vec![(kind.clone(), name.clone())],
        [kind, namespace, name] => vec![("namespace".to_owned(), namespace.clone()), (kind.clone(), name.clone())],
        _ => panic!("`{text}` is not kind/name or kind/namespace/name"),
    };
    ComponentId { kind: parts[0].clone(), labels }
}

pub(crate) fn empty_input() -> PlanInput {
    PlanInput {
        now: START,
        assessments: Vec::new(),
        capacity: Capacity::default(),
        policies: Vec::new(),
        ledger: Ledger::default(),
        carry: Carry::default(),
        gates: Gates { mode: Mode::Act, journal_ok: true, ..Gates::default() },
    }
}

pub(crate) fn base_policy(name: &str) -> Policy {
    Policy {
        name: name.to_owned(),
        mode: Mode::Act,
        enter_cycles: 1,
        exit_cycles: 2,
        ladder: vec![rung("scale_out")],
        budgets: vec![Budget { actions_max: 10, ..Budget::default() }],
        ..Policy::default()
    }
}

/// `ACTION` or `ACTION@ACTUATION_TIME` or `ACTION@ACTUATION_TIME@TIMEOUT`.
fn rung(text: &str) -> Rung {
    let parts: Vec<&str> = text.split('@').collect();
    Rung {
        replicas_max: Some(20),
        resources: vec!["cpu".to_owned(), "memory".to_owned()],
        actuation_time: parts.get(1).map_or(Millis::MINUTE * 2, |time| millis(time)),
        timeout: parts.get(2).map(|time| millis(time)),
        ..Rung::new(kind_of(parts[0]), "cluster")
    }
}

/// `ACTIONS:COUNT:PER`, of actions joined by `+`, or `all`.
fn budget(text: &str) -> Budget {
    let parts: Vec<&str> = text.split(':').collect();
    let [actions, count, per] = parts[..] else { panic!("`{text}` is no budget") };
    Budget {
        per: millis(per),
        actions_max: number(count),
        share_max: 0.0,
        actions: actions.split('+').filter(|action| *action != "all").map(kind_of).collect(),
    }
}

fn set_policy(policy: &mut Policy, key: &str, value: &str) {
    match key {
        "kind" => policy.selector.kind = Some(value.to_owned()),
        "namespace" | "team" => _ = policy.selector.labels.insert(key.to_owned(), value.to_owned()),
        "mode" => policy.mode = mode(value),
        "enter" => policy.enter_above = number(value),
        "for" => policy.enter_cycles = number(value),
        "exit" => policy.exit_below = number(value),
        "exit_for" => policy.exit_cycles = number(value),
        "action_cost" => policy.cost_action = number(value),
        "miss_cost" => policy.cost_miss = number(value),
        "ladder" => policy.ladder = value.split(',').map(rung).collect(),
        "max" => policy.ladder.iter_mut().for_each(|rung| rung.replicas_max = Some(number(value))),
        "step" => policy.ladder.iter_mut().for_each(|rung| rung.step = Some(number(value))),
        "cpu_per_node" => _ = policy.constraints.max_per_node.insert("cpu".to_owned(), number(value)),
        "avoid_at_risk" => policy.constraints.avoid_at_risk = value != "no",
        "only" => _ = policy.constraints.node_selector.insert("pool".to_owned(), value.to_owned()),
        "prefer" => _ = policy.constraints.node_preferred.insert("pool".to_owned(), value.to_owned()),
        "min_available" => policy.constraints.min_available = number(value),
        "evict_below" => policy.evict = Some(EvictPolicy { below_priority: number(value), min_impact: 0.5 }),
        "budget" => policy.budgets[0].actions_max = number(value),
        "share" => policy.budgets[0].share_max = number(value),
        "budgets" => policy.budgets.extend(value.split(',').map(budget)),
        "cooldown" => policy.cooldown = millis(value),
        "expires" => policy.expires_after = millis(value),
        "escalate" => policy.verify.as_mut().expect("there by default").escalate = value != "no",
        "verify" => policy.verify = None,
        "holdout" => policy.holdout = number(value),
        "approve_within" => policy.approve_within = Some(millis(value)),
        "explore" => policy.explore = true,
        "deny" | "allow" => policy.windows.push(window(key == "deny", value)),
        _ => panic!("no policy field `{key}`"),
    }
}

/// `08:00-09:30@Europe/Berlin`, on weekdays.
fn window(deny: bool, text: &str) -> Window {
    let (times, zone) = text.split_once('@').expect("a window has a zone");
    let (from, to) = times.split_once('-').expect("a window has an end");
    let minute = |time: &str| {
        let (hour, minute) = time.split_once(':').expect("a time has a colon");
        number::<u16>(hour) * 60 + number::<u16>(minute)
    };
    Window {
        deny,
        weekdays: vec![1, 2, 3, 4, 5],
        from_minute: minute(from),
        to_minute: minute(to),
        zone: zone.to_owned(),
        text: format!("Mon-Fri {times} {zone}"),
    }
}

fn set_node(capacity: &mut Capacity, name: &str, pairs: &[(&str, &str)]) {
    let nodes = capacity.pools.entry("general".to_owned()).or_default();
    let index = nodes.iter().position(|node| node.name == name).unwrap_or_else(|| {
        nodes.push(Node {
            name: name.to_owned(),
            allocatable: BTreeMap::new(),
            used: BTreeMap::new(),
            labels: BTreeMap::new(),
        });
        nodes.len() - 1
    });
    for (key, value) in pairs {
        match *key {
            "cpu" => _ = nodes[index].allocatable.insert("cpu".to_owned(), number(value)),
            "used" => _ = nodes[index].used.insert("cpu".to_owned(), number(value)),
            "pool" => _ = nodes[index].labels.insert("pool".to_owned(), (*value).to_owned()),
            _ => panic!("no node field `{key}`"),
        }
    }
}

fn set_workload(capacity: &mut Capacity, name: &str, pairs: &[(&str, &str)]) {
    let component = id_of(name);
    for (key, value) in pairs {
        if !matches!(*key, "replicas" | "cpu" | "priority" | "min" | "on" | "pool") {
            continue;
        }
        let index = capacity.workloads.iter().position(|w| w.component == component).unwrap_or_else(|| {
            capacity.workloads.push(workload(name, 1, 1.0, 0, 1));
            capacity.workloads.len() - 1
        });
        let workload = &mut capacity.workloads[index];
        match *key {
            "replicas" => workload.replicas = number(value),
            "cpu" => _ = workload.per_replica.insert("cpu".to_owned(), number(value)),
            "priority" => workload.priority = number(value),
            "min" => workload.replicas_min = number(value),
            "pool" => (*value).clone_into(&mut workload.pool),
            _ => {
                let places = value.split(',').map(|place| place.split_once(':').expect("node:replicas"));
                workload.on_nodes = places.map(|(node, replicas)| (node.to_owned(), number(replicas))).collect();
            }
        }
    }
}

pub(crate) fn workload(name: &str, replicas: u32, cpu: f64, priority: i64, replicas_min: u32) -> Workload {
    Workload {
        component: id_of(name),
        pool: "general".to_owned(),
        replicas,
        per_replica: BTreeMap::from([("cpu".to_owned(), cpu)]),
        priority,
        replicas_min,
        on_nodes: BTreeMap::new(),
    }
}

pub(crate) fn assessment(name: &str) -> Assessment {
    let component = id_of(name);
    let last = component.labels.last().expect("a component has labels").1.clone();
    let mut foresight = Foresight::unknown(START, "");
    foresight.knowledge = Knowledge::Known;
    foresight.limit = Some(Limit { threshold: 0.9, warn: Some(0.75) });
    foresight.peak_q90 = Some(1.03);
    foresight.age = Some(Millis::SECOND * 15);
    Assessment {
        at: START,
        horizon: Millis::HOUR,
        standing: Standing::Steady,
        health: Some(1.0),
        slope_per_hour: None,
        rapid_decline: false,
        probability: None,
        probability_low: None,
        eta: Eta { q10: Some(Millis::MINUTE * 24), q50: Some(Millis::MINUTE * 40) },
        impact: 0.6,
        expected_loss: 0.0,
        rank: 1,
        signals: vec![SignalAssessment {
            rule: "saturation".to_owned(),
            signal: "cpu".to_owned(),
            group: "saturation".to_owned(),
            weight: 1.0,
            side: Side::Above,
            scales_with: ScalesWith::Replicas,
            severity: 0.5,
            foresight,
            peers: None,
        }],
        labels: Labels::new([("team", "shop")]),
        target_namespace: component.label("namespace").unwrap_or("").to_owned(),
        target_name: last,
        component,
    }
}

/// Sets the probability of a component and of its signal, and what follows from it.
pub(crate) fn set_probability(assessment: &mut Assessment, p: f64) {
    assessment.probability = Some(p);
    assessment.probability_low = Some((p - 0.1).max(0.0));
    assessment.signals[0].foresight.probability = Some(p);
    assessment.standing = match p {
        _ if p >= 1.0 => Standing::Failing,
        _ if p >= 0.6 => Standing::AtRisk,
        _ if p >= 0.2 => Standing::Watch,
        _ => Standing::Steady,
    };
}

fn foresight_of(assessment: &mut Assessment) -> &mut Foresight {
    &mut assessment.signals[0].foresight
}

fn set_component(components: &mut BTreeMap<String, Assessment>, name: &str, pairs: &[(&str, &str)]) {
    for (key, value) in pairs {
        if matches!(*key, "replicas" | "cpu" | "priority" | "min" | "on" | "pool") {
            continue;
        }
        let component = components.entry(name.to_owned()).or_insert_with(|| assessment(name));
        match *key {
            "P" => {
                set_probability(component, number(value));
                // What is not likely to breach does not peak beyond its threshold; `peak` behind it says otherwise.
                if number::<f64>(value) < 0.2 {
                    foresight_of(component).peak_q90 = Some(0.4);
                } else if foresight_of(component).peak_q90 == Some(0.4) {
                    foresight_of(component).peak_q90 = Some(1.03);
                }
            }
            "low" => component.probability_low = Some(number(value)),
            "loss" => component.expected_loss = number(value),
            "impact" => component.impact = number(value),
            "eta" => component.eta.q10 = Some(millis(value)),
            "peak" => foresight_of(component).peak_q90 = Some(number(value)),
            "age" => foresight_of(component).age = Some(millis(value)),
            // How old what is said of it is when a plan is made.
            "behind" => component.at = START - millis(value),
            "with" => {
                component.signals[0].scales_with = serde_json::from_str(&format!("\"{value}\"")).expect("a resource")
            }
            // The standing, whatever the figures say.
            "standing" => component.standing = serde_json::from_str(&format!("\"{value}\"")).expect("a standing"),
            "unknown" | "learning" => {
                component.probability = None;
                component.probability_low = None;
                component.standing = if *key == "unknown" { Standing::Unknown } else { Standing::Learning };
            }
            _ => panic!("no component field `{key}`"),
        }
    }
}

/// What a confirmed action changes in what the capacity shows.
fn take_effect(capacity: &mut Capacity, action: &Action) {
    let Some(workload) = capacity.workloads.iter_mut().find(|w| w.component == action.target.component) else { return };
    match &action.change {
        Change::Replicas { to, .. } => workload.replicas = *to,
        Change::Resources { to, .. } => workload.per_replica.extend(to.clone()),
        _ => {}
    }
}

/// `no`, nothing for all, or what is paused: `policy:NAME`, `kind:KIND`, a component; each with `@SPAN` for its end.
fn pause(text: &str) -> Option<Pause> {
    let (what, until) = text.split_once('@').map_or((text, None), |(what, until)| (what, Some(until)));
    let scope = match what.split_once(':') {
        _ if what == "no" => return None,
        Some(("policy", name)) => PauseScope::Policy(name.to_owned()),
        Some(("kind", name)) => PauseScope::Kind(name.to_owned()),
        _ if what.is_empty() => PauseScope::All,
        _ => PauseScope::Component(what.to_owned()),
    };
    let until = until.map(|span| START + millis(span));
    Some(Pause { scope, reason: "database upgrade".to_owned(), by: "anna".to_owned(), since: START, until })
}

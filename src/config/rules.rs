//! Rule files: recording and predict rules, in the shape of Prometheus's.

use std::collections::BTreeMap;

use crate::forecast::{ModelChoice, Side};
use crate::health::{
    Baseline, DependsOn, NumberOrQuery, PeerSettings, PredictRule, RecordRule, Rule, RuleGroup, ScalesWith, SignalRule,
    TargetLabels,
};
use crate::model::{Labels, METRIC_NAME, Millis};
use crate::query::Query;
use crate::store::{FORECAST_METRIC, MatchOp, Matcher};

use super::main_file::{INTERVAL_MIN, MainFile};
use super::problem::Report;
use super::reader::{Fields, suggestion};
use super::tree::{Kind, Node, Place};

/// How bad a failure is where a rule does not say.
const IMPACT_DEFAULT: f64 = 0.5;
/// The share of the history that a horizon may take: a forecast needs to have seen several times as much as it foretells.
const HORIZON_PARTS: i64 = 4;
/// The most expressions of a rule's `regimes`.
const REGIMES_MAX: usize = 8;
/// From so many deviations on a component is unlike its siblings, where a rule does not say.
const PEER_DEVIATION_DEFAULT: f64 = 6.0;
const SCALES_WITH: [(&str, ScalesWith); 5] = [
    ("replicas", ScalesWith::Replicas),
    ("cpu", ScalesWith::Cpu),
    ("memory", ScalesWith::Memory),
    ("disk", ScalesWith::Disk),
    ("none", ScalesWith::None),
];

/// What the rule files say so far.
#[derive(Debug, Default)]
pub(super) struct RuleFiles {
    pub(super) groups: Vec<RuleGroup>,
    /// The predict rules' names, with where they stand.
    pub(super) names: BTreeMap<String, Place>,
}

/// Notes a name; says so where it was taken already.
pub(super) fn claim(
    report: &mut Report,
    names: &mut BTreeMap<String, Place>,
    what: &str,
    code: &'static str,
    name: &str,
    at: Place,
) {
    if let Some(first) = names.get(name) {
        let help = format!("it was used at {}:{} already", report.sources[first.file].name, first.line);
        report.error(at, code, format!("there are two {what} `{name}`"), help);
    } else {
        names.insert(name.to_owned(), at);
    }
}

/// Reads one rule file's tree.
pub(super) fn read_rules(report: &mut Report, main: &MainFile, root: &Node, rules: &mut RuleFiles) {
    let Some(fields) = report.fields(root, "a rule file", &["groups"]) else { return };
    let Some(list) = report.required(fields, "a rule file", "groups") else { return };
    let mut group_names = BTreeMap::new();
    for node in report.list(list, "groups") {
        let Some(group) = read_group(report, main, node, rules, &mut group_names) else { continue };
        rules.groups.push(group);
    }
}

fn read_group(
    report: &mut Report,
    main: &MainFile,
    node: &Node,
    files: &mut RuleFiles,
    group_names: &mut BTreeMap<String, Place>,
) -> Option<RuleGroup> {
    let fields = report.fields(node, "a group", &["name", "interval", "labels", "rules"])?;
    let name = report.required(fields, "a group", "name").and_then(|n| {
        let name = report.text(n, "a name")?;
        claim(report, group_names, "groups", "rule/duplicate-group", &name, n.at);
        Some(name)
    });
    let interval = match fields.get("interval") {
        Some(n) => report.duration(n, INTERVAL_MIN),
        None => Some(main.global.evaluation_interval),
    };
    let labels = fields.get("labels").map(|n| report.label_texts(n, "labels")).unwrap_or_default();
    let mut rules = Vec::new();
    if let Some(list) = report.required(fields, "a group", "rules") {
        for node in report.list(list, "rules") {
            let context = GroupContext { main, interval, labels: &labels };
            rules.extend(read_rule(report, &context, node, files));
        }
    }
    Some(RuleGroup { name: name?, interval: interval?, rules })
}

/// What a rule takes from its group.
struct GroupContext<'a> {
    main: &'a MainFile,
    /// Nothing where the group's interval is wrong.
    interval: Option<Millis>,
    labels: &'a [(String, String)],
}

impl GroupContext<'_> {
    /// The group's labels with the rule's own over them.
    fn labels(&self, report: &mut Report, fields: Fields<'_>) -> BTreeMap<String, String> {
        let own = fields.get("labels").map(|n| report.label_texts(n, "labels")).unwrap_or_default();
        self.labels.iter().cloned().chain(own).collect()
    }
}

fn read_rule(report: &mut Report, context: &GroupContext<'_>, node: &Node, files: &mut RuleFiles) -> Option<Rule> {
    let all = report.mapping(node, "a rule")?;
    match (all.key_at("predict"), all.key_at("record"), all.key_at("alert")) {
        (Some(_), None, None) => read_predict(report, context, node, files).map(|rule| Rule::Predict(Box::new(rule))),
        (None, Some(_), None) => read_record(report, context, node).map(Rule::Record),
        (None, None, Some(at)) => {
            let help = "alerting rules stay in Prometheus; here is `predict:` or `record:`";
            report.error(at, "rule/alert", "a rule of forestall does not alert", help);
            None
        }
        (None, None, None) => {
            report.error(all.at, "config/missing-field", "a rule needs `predict` or `record`", "add one of them");
            None
        }
        _ => {
            let message = "a rule is one of `predict` and `record`";
            report.error(all.at, "config/conflict", message, "make two rules of it");
            None
        }
    }
}

/// An expression whose ranges are kept.
pub(super) fn expression(report: &mut Report, main: &MainFile, node: &Node) -> Option<Query> {
    let query = report.query(node)?;
    check_reach(report, main, node, &query);
    Some(query)
}

fn number_or_expression(report: &mut Report, main: &MainFile, node: &Node) -> Option<NumberOrQuery> {
    let value = report.number_or_query(node)?;
    if let NumberOrQuery::Query(query) = &value {
        check_reach(report, main, node, query);
    }
    Some(value)
}

fn check_reach(report: &mut Report, main: &MainFile, node: &Node, query: &Query) {
    let own = |matchers: &Vec<Matcher>| {
        matchers.iter().any(|m| m.name == METRIC_NAME && matches!(m.op, MatchOp::Equal) && is_signal_metric(&m.value))
    };
    // Forestall's own series are kept longer than what is received.
    let (kept, setting) = if query.matcher_sets().iter().all(own) {
        (main.store.signal_retention, "storage.signal_retention")
    } else {
        (main.store.raw_retention, "storage.raw_retention")
    };
    let reach = query.reach();
    if reach > kept {
        let message = format!("the expression reaches back {reach}, further than samples are kept");
        report.error(node.at, "rule/range-too-long", message, format!("at most {kept} with `{setting}: {kept}`"));
    }
}

/// Whether a metric is kept as long as signals are.
fn is_signal_metric(name: &str) -> bool {
    is_own_metric(name) && name != FORECAST_METRIC
}

/// Whether a metric name is one that only forestall itself may write.
fn is_own_metric(name: &str) -> bool {
    name.starts_with("forestall_")
}

fn read_record(report: &mut Report, context: &GroupContext<'_>, node: &Node) -> Option<RecordRule> {
    let fields = report.fields(node, "a recording rule", &["record", "expr", "labels"])?;
    let record = report.required(fields, "a recording rule", "record").and_then(|n| {
        let name = report.text(n, "a metric name")?;
        let mut bytes = name.bytes();
        let starts = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_' || b == b':');
        if !starts || !bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':') {
            let help = "letters, digits, `_` and `:`, not first a digit";
            report.error(n.at, "config/bad-name", format!("`{name}` is not a metric name"), help);
            return None;
        }
        if is_own_metric(&name) {
            let help = "choose another prefix";
            report.error(n.at, "config/bad-name", "metrics named `forestall_…` are forestall's own", help);
            return None;
        }
        Some(name)
    });
    let expr = report.required(fields, "a recording rule", "expr").and_then(|n| expression(report, context.main, n));
    let labels = context.labels(report, fields);
    Some(RecordRule { record: record?, expr: expr?, labels })
}

fn read_predict(
    report: &mut Report,
    context: &GroupContext<'_>,
    node: &Node,
    files: &mut RuleFiles,
) -> Option<PredictRule> {
    const KNOWN: [&str; 8] =
        ["predict", "component", "horizon", "signals", "regimes", "rapid_decline_per_hour", "labels", "annotations"];
    let fields = report.fields(node, "a predict rule", &KNOWN)?;
    let name = report.required(fields, "a predict rule", "predict").and_then(|n| {
        let name = report.name(n, "a rule's name")?;
        claim(report, &mut files.names, "rules", "rule/duplicate-name", &name, n.at);
        Some(name)
    });
    let component =
        report.required(fields, "a predict rule", "component").and_then(|n| read_component(report, context.main, n));
    let horizon = report.required(fields, "a predict rule", "horizon").and_then(|n| read_horizon(report, context, n));
    let mut signals = Vec::new();
    if let Some(list) = report.required(fields, "a predict rule", "signals") {
        let mut names = BTreeMap::new();
        let items = report.list(list, "signals");
        if matches!(&list.kind, Kind::List(items) if items.is_empty()) {
            report.error(list.at, "config/missing-field", "a predict rule needs a signal", "add what to forecast");
        }
        signals.extend(items.iter().filter_map(|item| read_signal(report, context.main, item, &mut names)));
    }
    let regimes = fields.get("regimes").map(|n| read_regimes(report, context.main, n)).unwrap_or_default();
    let rapid_decline_per_hour = fields.get("rapid_decline_per_hour").and_then(|n| rapid_decline(report, n));
    let labels = Labels::new(context.labels(report, fields));
    let annotations = fields.get("annotations").map(|n| report.label_texts(n, "annotations")).unwrap_or_default();
    let Component { kind, by, target, impact, depends_on } = component?;
    Some(PredictRule {
        name: name?,
        kind,
        by,
        target,
        impact,
        depends_on,
        horizon: horizon?,
        signals,
        regimes,
        rapid_decline_per_hour,
        labels,
        annotations,
    })
}

/// By how much health must fall in an hour to decline rapidly: above 0, as a number or share.
pub(super) fn rapid_decline(report: &mut Report, node: &Node) -> Option<f64> {
    report.number_within(node, 0.01, 100.0)
}

/// Expressions whose change of value is a new regime.
fn read_regimes(report: &mut Report, main: &MainFile, node: &Node) -> Vec<Query> {
    let items = report.list(node, "expressions");
    if let Some(surplus) = items.get(REGIMES_MAX) {
        let message = format!("more than {REGIMES_MAX} expressions tell of regimes");
        report.error(surplus.at, "config/too-large", message, "join them with `or`, or leave some out");
    }
    items.iter().take(REGIMES_MAX).filter_map(|item| expression(report, main, item)).collect()
}

/// A horizon: longer than an interval, and no longer than the history allows.
fn read_horizon(report: &mut Report, context: &GroupContext<'_>, node: &Node) -> Option<Millis> {
    let horizon = report.duration(node, Millis::SECOND)?;
    let kept = context.main.store.signal_retention;
    let longest = kept / HORIZON_PARTS;
    if horizon > longest {
        let help = format!("at most {longest} with `storage.signal_retention: {kept}`");
        report.error(node.at, "rule/horizon-too-long", "horizon is longer than the history kept allows", help);
        return None;
    }
    if let Some(interval) = context.interval.filter(|interval| horizon < *interval * 2) {
        let help = format!("at least {} with `interval: {interval}`", interval * 2);
        report.error(node.at, "rule/horizon-too-short", "horizon is shorter than two evaluations", help);
        return None;
    }
    Some(horizon)
}

/// What a rule says of its components.
struct Component {
    kind: String,
    by: Vec<String>,
    target: Option<TargetLabels>,
    impact: NumberOrQuery,
    depends_on: Vec<DependsOn>,
}

fn read_component(report: &mut Report, main: &MainFile, node: &Node) -> Option<Component> {
    const KNOWN: [&str; 5] = ["kind", "by", "impact", "depends_on", "target"];
    let fields = report.fields(node, "`component`", &KNOWN)?;
    let kind = report.required(fields, "`component`", "kind").and_then(|n| report.name(n, "a kind"));
    let by = report.required(fields, "`component`", "by").map(|n| report.label_names(n));
    let impact = match fields.get("impact") {
        Some(n) => read_impact(report, main, n),
        None => Some(NumberOrQuery::Number(IMPACT_DEFAULT)),
    };
    let target = fields.get("target").and_then(|n| read_target(report, n, by.as_deref().unwrap_or(&[])));
    let mut depends_on = Vec::new();
    if let Some(list) = fields.get("depends_on") {
        for item in report.list(list, "dependencies") {
            depends_on.extend(read_dependency(report, main, item));
        }
    }
    Some(Component { kind: kind?, by: by.filter(|by| !by.is_empty())?, target, impact: impact?, depends_on })
}

fn read_impact(report: &mut Report, main: &MainFile, node: &Node) -> Option<NumberOrQuery> {
    let impact = number_or_expression(report, main, node)?;
    if let NumberOrQuery::Number(number) = impact
        && !(0.0..=1.0).contains(&number)
    {
        report.error(
            node.at,
            "config/out-of-range",
            format!("impact {number} is out of range"),
            "a number from 0 to 1",
        );
        return None;
    }
    Some(impact)
}

fn read_target(report: &mut Report, node: &Node, by: &[String]) -> Option<TargetLabels> {
    let fields = report.fields(node, "`target`", &["namespace", "name"])?;
    let known: Vec<&str> = by.iter().map(String::as_str).collect();
    let label = |report: &mut Report, n: &Node| {
        let label = report.text(n, "a label name")?;
        if known.contains(&label.as_str()) {
            return Some(label);
        }
        let message = format!("`{label}` is not among the component's labels");
        report.error(n.at, "rule/unknown-label", message, suggestion(&label, &known));
        None
    };
    let namespace = fields.get("namespace").and_then(|n| label(report, n));
    let name = report.required(fields, "`target`", "name").and_then(|n| label(report, n));
    Some(TargetLabels { namespace, name: name? })
}

fn read_dependency(report: &mut Report, main: &MainFile, node: &Node) -> Option<DependsOn> {
    let fields = report.fields(node, "a dependency", &["kind", "by", "expr"])?;
    let kind = report.required(fields, "a dependency", "kind").and_then(|n| report.name(n, "a kind"));
    let by = report.required(fields, "a dependency", "by").map(|n| report.label_names(n));
    let expr = report.required(fields, "a dependency", "expr").and_then(|n| expression(report, main, n));
    Some(DependsOn { kind: kind?, by: by?, expr: expr? })
}

fn read_signal(
    report: &mut Report,
    main: &MainFile,
    node: &Node,
    names: &mut BTreeMap<String, Place>,
) -> Option<SignalRule> {
    const KNOWN: [&str; 12] = [
        "name",
        "expr",
        "breach",
        "group",
        "weight",
        "baseline",
        "peers",
        "bounds",
        "floor",
        "ceiling",
        "model",
        "scales_with",
    ];
    let fields = report.fields(node, "a signal", &KNOWN)?;
    let name = report.required(fields, "a signal", "name").and_then(|n| {
        let name = report.name(n, "a signal's name")?;
        claim(report, names, "signals", "rule/duplicate-signal", &name, n.at);
        Some(name)
    });
    let expr = report.required(fields, "a signal", "expr").and_then(|n| expression(report, main, n));
    let breach = report.required(fields, "a signal", "breach").and_then(|n| read_breach(report, main, n));
    let group = fields.get("group").and_then(|n| report.name(n, "a group's name"));
    let weight = fields.get("weight").and_then(|n| report.ratio(n)).unwrap_or(1.0);
    let baseline = fields.get("baseline").and_then(|n| read_baseline(report, main, n));
    let peers = fields.get("peers").and_then(|n| read_peers(report, n));
    let (floor, ceiling) = read_bounds(report, fields, breach.as_ref());
    let model = fields
        .get("model")
        .and_then(|n| report.word(n, "a model", &ModelChoice::ALL.map(|model| (model.name(), model)), &[]))
        .unwrap_or_default();
    let scales_with = fields
        .get("scales_with")
        .and_then(|n| report.word(n, "a value of `scales_with`", &SCALES_WITH, &[]))
        .unwrap_or_default();
    let Breach { side, threshold, warn, lasting } = breach?;
    let group = group.or_else(|| name.clone())?;
    Some(SignalRule {
        name: name?,
        expr: expr?,
        side,
        threshold,
        warn,
        floor,
        ceiling,
        lasting,
        group,
        weight,
        baseline,
        peers,
        model,
        scales_with,
    })
}

struct Breach {
    side: Side,
    threshold: NumberOrQuery,
    warn: Option<NumberOrQuery>,
    lasting: Millis,
}

fn read_breach(report: &mut Report, main: &MainFile, node: &Node) -> Option<Breach> {
    let fields = report.fields(node, "`breach`", &["above", "below", "warn", "for"])?;
    let (side, line) = match (fields.get("above"), fields.get("below")) {
        (Some(line), None) => (Side::Above, line),
        (None, Some(line)) => (Side::Below, line),
        (None, None) => {
            report.error(fields.at, "config/missing-field", "`breach` needs `above` or `below`", "add `above: …`");
            return None;
        }
        (Some(_), Some(below)) => {
            let help = "make two signals of it, in one `group`";
            report.error(below.at, "config/conflict", "`above` and `below` exclude each other", help);
            return None;
        }
    };
    let threshold = number_or_expression(report, main, line);
    let warn = fields.get("warn").and_then(|n| number_or_expression(report, main, n).map(|warn| (warn, n.at)));
    let lasting = match fields.get("for") {
        Some(n) => report.duration(n, Millis::ZERO),
        None => Some(Millis::ZERO),
    };
    if let (Some(NumberOrQuery::Number(threshold)), Some((NumberOrQuery::Number(warn), at))) = (&threshold, &warn) {
        let (before, word) = match side {
            Side::Above => (warn < threshold, "below"),
            Side::Below => (warn > threshold, "above"),
        };
        if !before {
            let message = "`warn` does not come before the breach";
            report.error(*at, "rule/warn-beyond-breach", message, format!("a number {word} {threshold}"));
        }
    }
    Some(Breach { side, threshold: threshold?, warn: warn.map(|(warn, _)| warn), lasting: lasting? })
}

fn read_peers(report: &mut Report, node: &Node) -> Option<PeerSettings> {
    let fields = report.fields(node, "`peers`", &["deviation", "min_abs"])?;
    let deviation =
        fields.get("deviation").and_then(|n| report.number_within(n, 0.1, 100.0)).unwrap_or(PEER_DEVIATION_DEFAULT);
    let min_abs = fields.get("min_abs").and_then(|n| report.number_within(n, 0.0, f64::INFINITY)).unwrap_or(0.0);
    Some(PeerSettings { deviation, min_abs })
}

/// What the signal is never below and never above: `bounds: [0, 1]`, or one of them as `floor` or `ceiling`.
fn read_bounds(report: &mut Report, fields: Fields<'_>, breach: Option<&Breach>) -> (Option<f64>, Option<f64>) {
    let mut floor = fields.get("floor").and_then(|n| report.number(n));
    let mut ceiling = fields.get("ceiling").and_then(|n| report.number(n));
    let mut at = fields.get("ceiling").or(fields.get("floor")).map(|n| n.at);
    if let Some(node) = fields.get("bounds") {
        if let Some(place) = at {
            let message = "`bounds` says what `floor` and `ceiling` say";
            report.error(place, "config/conflict", message, "keep `bounds`, or the two");
        }
        at = Some(node.at);
        match report.list(node, "two numbers") {
            [low, high] => (floor, ceiling) = (report.number(low), report.number(high)),
            items => {
                if matches!(node.kind, Kind::List(_)) {
                    let message = format!("`bounds` has {} numbers", items.len());
                    let help = "two: the lowest and the highest value; for one of them write `floor` or `ceiling`";
                    report.error(node.at, "config/wrong-type", message, help);
                }
            }
        }
    }
    let Some(at) = at else { return (None, None) };
    if let (Some(low), Some(high)) = (floor, ceiling)
        && low >= high
    {
        let message = format!("the lowest value {low} is not below the highest {high}");
        report.error(at, "config/out-of-range", message, "the lower one first");
        return (None, None);
    }
    if let Some(Breach { side, threshold: NumberOrQuery::Number(threshold), .. }) = breach {
        let never = match side {
            Side::Above => ceiling.is_some_and(|ceiling| *threshold > ceiling),
            Side::Below => floor.is_some_and(|floor| *threshold < floor),
        };
        if never {
            let message = format!("the threshold {threshold} lies beyond what the signal can reach");
            report.error(at, "rule/threshold-out-of-bounds", message, "correct the threshold or the bounds");
        }
    }
    (floor, ceiling)
}

fn read_baseline(report: &mut Report, main: &MainFile, node: &Node) -> Option<Baseline> {
    let fields = report.fields(node, "`baseline`", &["seasonality", "deviation", "min_abs"])?;
    let mut seasons = Vec::new();
    if let Some(list) = fields.get("seasonality") {
        for item in report.list(list, "durations") {
            let Some(season) = report.duration(item, Millis::MINUTE) else { continue };
            let kept = main.store.signal_retention;
            if season * 2 > kept {
                let message = format!("a season of {season} cannot be learned from what is kept");
                let help = format!("at most {} with `storage.signal_retention: {kept}`", kept / 2);
                report.error(item.at, "rule/season-too-long", message, help);
            }
            seasons.push(season);
        }
    }
    let deviation = fields.get("deviation").and_then(|n| report.number_within(n, 0.1, 100.0)).unwrap_or(4.0);
    let min_abs = fields.get("min_abs").and_then(|n| report.number_within(n, 0.0, f64::INFINITY)).unwrap_or(0.0);
    Some(Baseline { seasons, deviation, min_abs })
}

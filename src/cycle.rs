//! One pass over the stages, in order: the way of a decision.
//!
//! Everything here is synchronous and depends only on its arguments and on what earlier passes left in [`Cycle`].
//! Two replicas that are fed the same samples make the same reports.

mod capacity;
mod foretold;
mod observe;
mod priming;
mod quality;
mod records;
mod state;
mod watches;

use std::collections::{BTreeMap, BTreeSet};

use crate::config::Settings;
use crate::health::{
    self, Assessment, DaySummary, EXTERNAL_IMPACT, HealthTrack, Outcomes, PredictRule, Prediction, Rule,
    SignalAssessment, Subject, Told,
};
use crate::model::{ComponentId, Labels, Millis, Timestamp};
use crate::plan::{self, Capacity, Carry, Gates, Ledger, Plan, PlanInput};
use crate::store::Store;

use self::observe::Observer;
use self::records::Records;
use self::watches::Watches;

pub use self::foretold::signal_labels;
pub use self::observe::RULE_COMPONENTS_MAX;
pub use self::quality::{ChannelQuality, FAILURES_MAX, Failure, QualityWindow, RuleQuality, components_of};
pub use self::records::RecordState;
pub use self::state::StateError;
pub use self::watches::{SIGNAL_METRIC, lead_min};

/// Something that could not be evaluated in a pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The rule, signal or pool.
    pub what: String,
    /// What is wrong.
    pub why: String,
}

/// What one pass made.
#[derive(Debug)]
pub struct Report {
    /// When.
    pub at: Timestamp,
    /// What is thought of each component, by rank; those that have none come last.
    pub assessments: Vec<Assessment>,
    /// What the plan was made from.
    pub input: PlanInput,
    /// The plan.
    pub plan: Plan,
    /// What could not be evaluated.
    pub faults: Vec<Fault>,
    /// How many signals are watched.
    pub signals: usize,
    /// How it went with each recording rule, in the order of the files; nothing where it has not been evaluated yet.
    pub records: Vec<Option<RecordState>>,
    /// What each rule's predictions have been worth.
    pub quality: Vec<RuleQuality>,
    /// Lead times, in seconds, of the breaches that began in this pass: rule and lead.
    pub leads: Vec<(String, f64)>,
    /// What each rule's predictions were worth on days that are over, where nobody has kept it yet.
    pub untold: Vec<DaySummary>,
}

/// What the first half of a pass sees.
#[derive(Debug)]
pub struct Seen {
    /// What is thought of each component, ranked.
    pub assessments: Vec<Assessment>,
    /// What is free.
    pub capacity: Capacity,
}

/// What passes leave for later passes.
#[derive(Debug, Default)]
pub struct Cycle {
    watches: Watches,
    records: Records,
    tracks: BTreeMap<ComponentId, HealthTrack>,
    outcomes: Outcomes,
    failures: Vec<Failure>,
    told_capacity: (Capacity, Vec<Fault>),
    predictions: Vec<Prediction>,
    carry: Carry,
    /// When forecasts were kept the last time.
    forecasts_kept_at: Timestamp,
}

impl Cycle {
    /// A cycle that has seen nothing.
    pub fn new() -> Cycle {
        Cycle::default()
    }

    /// Goes on from what the last plan of an earlier process handed on.
    pub fn resume(&mut self, carry: Carry) {
        self.carry = carry;
    }

    /// One pass: evaluate the rules, foresee each signal, assess and rank the components, measure what is free, plan.
    pub fn run(&mut self, store: &Store, settings: &Settings, ledger: Ledger, gates: Gates, now: Timestamp) -> Report {
        let mut observer = Observer::new(store, settings, now);
        self.watches.retain_rules(predict_rules(settings));
        self.records.retain(store, settings, now);
        self.watches.mark_own_actions(&ledger, now);
        for group in settings.groups.iter().filter(|group| now.align_down(group.interval) == now) {
            observer.evaluate_group(group, &mut self.records, |rule, observed| {
                self.watches.take(store, settings, (rule, group.interval), observed, now);
            });
        }
        self.watches.foresee(store, settings, &self.outcomes.calibrations(), now);

        let impacts = impacts(&mut observer, settings, &self.watches);
        let mut capacity = capacity::measure(&mut observer, &settings.pools);
        let (told, untold) = std::mem::take(&mut self.told_capacity);
        capacity::add(&mut capacity, told);
        let mut assessments = self.assess(settings, &impacts, &capacity, now);
        health::rank(&mut assessments);
        foretold::keep_assessments(store, &assessments, now);
        foretold::keep_forecasts(store, &assessments, &mut self.forecasts_kept_at, now);
        quality::note_failures(&mut self.outcomes, settings, &assessments, std::mem::take(&mut self.failures), now);
        quality::resolve(&mut self.outcomes, settings, &assessments, &ledger, now);

        let mut faults = std::mem::take(&mut observer.faults);
        faults.extend(untold);
        Report { faults, ..self.decide(settings, Seen { assessments, capacity }, ledger, gates, now) }
    }

    /// The second half of a pass: plan from what was seen.
    pub fn decide(&mut self, settings: &Settings, seen: Seen, ledger: Ledger, gates: Gates, now: Timestamp) -> Report {
        let input = PlanInput {
            now,
            assessments: seen.assessments.iter().map(for_a_plan).collect(),
            capacity: numbers_only(seen.capacity),
            policies: settings.policies.clone(),
            ledger,
            carry: std::mem::take(&mut self.carry),
            gates,
        };
        let plan = plan::plan(&input);
        self.carry = plan.carry.clone();
        Report {
            at: now,
            assessments: seen.assessments,
            input,
            plan,
            faults: Vec::new(),
            signals: self.watches.len(),
            records: self.records.states(settings),
            quality: quality::of_rules(&self.outcomes, settings, now),
            leads: self.outcomes.drain_leads(),
            untold: self.outcomes.untold(Told::Past, now),
        }
    }

    /// Hands in failures that somebody else's alerts tell of: the next pass counts them. At most [`FAILURES_MAX`] wait.
    pub fn note_failures(&mut self, failures: Vec<Failure>) {
        let room = FAILURES_MAX.saturating_sub(self.failures.len());
        self.failures.extend(failures.into_iter().take(room));
    }

    /// Hands in what clusters tell is free in their pools, and what they could not tell: the next pass plans with it, and with
    /// nothing of it after that.
    pub fn note_capacity(&mut self, capacity: Capacity, faults: Vec<Fault>) {
        self.told_capacity = (capacity, faults);
    }

    /// Hands in what other predictors say, in place of what was handed in before: it counts until it expires.
    pub fn note_predictions(&mut self, predictions: Vec<Prediction>) {
        self.predictions = predictions;
    }

    /// Takes over what was known of the rules' predictions before a restart, the oldest summary first.
    pub fn recover(&mut self, summaries: Vec<DaySummary>) {
        self.outcomes.recover(summaries);
    }

    /// What no summary has told of yet, today included: to be kept before the process ends.
    pub fn untold(&self, now: Timestamp) -> Vec<DaySummary> {
        self.outcomes.untold(Told::All, now)
    }

    /// These summaries are kept by someone now.
    pub fn told(&mut self, summaries: &[DaySummary]) {
        self.outcomes.told(summaries);
    }

    fn assess(
        &mut self,
        settings: &Settings,
        impacts: &BTreeMap<ComponentId, f64>,
        capacity: &Capacity,
        now: Timestamp,
    ) -> Vec<Assessment> {
        let mut signals: BTreeMap<ComponentId, Vec<SignalAssessment>> = BTreeMap::new();
        let mut rules: BTreeMap<ComponentId, Vec<&PredictRule>> = BTreeMap::new();
        for rule in predict_rules(settings) {
            for signal in &rule.signals {
                for (component, foresight, peers) in self.watches.foresights(rule, signal) {
                    let assessed = SignalAssessment::new(rule, signal, foresight.clone(), peers);
                    signals.entry(component.clone()).or_default().push(assessed);
                    let of_component = rules.entry(component.clone()).or_default();
                    if of_component.last().is_none_or(|last| last.name != rule.name) {
                        of_component.push(rule);
                    }
                }
            }
        }
        let told: Vec<&Prediction> = self.predictions.iter().filter(|told| now < told.expires_at).collect();
        for told in &told {
            signals.entry(told.component.clone()).or_default().extend(told.signals(&amounts(capacity, told), now));
        }
        let assessments = signals.into_iter().map(|(component, signals)| {
            let told = told.iter().filter(|told| told.component == component);
            let impact = impacts.get(&component).copied();
            let impact = impact.or_else(|| told.clone().filter_map(|told| told.impact).reduce(f64::max));
            let track = self.tracks.entry(component.clone()).or_default();
            let rules = rules.get(&component).map_or(&[][..], Vec::as_slice);
            let mut subject = subject(settings, &component, rules, impact.unwrap_or(EXTERNAL_IMPACT));
            let ends = told.map(|told| told.expires_at - now);
            subject.horizon = ends.fold(subject.horizon, Millis::max);
            health::assess(subject, signals, track, now)
        });
        let assessments: Vec<Assessment> = assessments.collect();
        self.tracks.retain(|component, _| impacts.contains_key(component));
        assessments
    }
}

/// How much a component has of what may be wanted for it, as far as its pool knows.
fn amounts(capacity: &Capacity, told: &Prediction) -> BTreeMap<String, f64> {
    let workload = capacity.workloads.iter().find(|workload| workload.component == told.component);
    let Some(workload) = workload else { return BTreeMap::new() };
    let replicas = ("replicas".to_owned(), f64::from(workload.replicas));
    workload.per_replica.clone().into_iter().chain([replicas]).collect()
}

/// What is assessed: a component with what its rules say of it.
fn subject(settings: &Settings, component: &ComponentId, rules: &[&PredictRule], impact: f64) -> Subject {
    let own_label = |name: &str| component.label(name).unwrap_or("").to_owned();
    // What only others tell of is named as the rules of its kind have it.
    let of_kind = || predict_rules(settings).filter(|rule| rule.kind == component.kind).find_map(|r| r.target.as_ref());
    let (namespace, name) = match rules.iter().find_map(|rule| rule.target.as_ref()).or_else(of_kind) {
        Some(target) => (target.namespace.as_deref().map(own_label).unwrap_or_default(), own_label(&target.name)),
        None => (own_label("namespace"), own_label(&component.kind)),
    };
    // Of several rules the strictest counts.
    let declines = rules.iter().map(|rule| rule.rapid_decline_per_hour);
    let decline = declines.map(|own| own.unwrap_or(settings.global.rapid_decline_per_hour)).reduce(f64::min);
    Subject {
        component: component.clone(),
        horizon: rules.iter().map(|rule| rule.horizon).max().unwrap_or_default(),
        impact,
        rapid_decline_per_hour: decline.unwrap_or(settings.global.rapid_decline_per_hour),
        labels: Labels::new(rules.iter().flat_map(|rule| rule.labels.iter())),
        target_namespace: namespace,
        target_name: name,
    }
}

/// The assessment without the fans of its forecasts, at which no plan looks: a decision's record stays small. JSON knows no
/// NaN, and a record must be read again: where the loss is no number, nothing may be said.
fn for_a_plan(assessment: &Assessment) -> Assessment {
    let mut assessment = assessment.clone();
    assessment.signals.iter_mut().for_each(|signal| signal.foresight.path = None);
    if !assessment.expected_loss.is_finite() {
        assessment.expected_loss = 0.0;
        (assessment.health, assessment.probability, assessment.probability_low) = (None, None, None);
    }
    assessment
}

/// A capacity without NaN and infinities, which JSON does not know: what is not a number could be anything, so nothing is
/// free of it, and nothing is known of a replica's size that is none.
fn numbers_only(mut capacity: Capacity) -> Capacity {
    for node in capacity.pools.values_mut().flatten() {
        node.allocatable.values_mut().filter(|amount| !amount.is_finite()).for_each(|amount| *amount = 0.0);
        node.used.values_mut().filter(|amount| !amount.is_finite()).for_each(|amount| *amount = f64::MAX);
    }
    for workload in &mut capacity.workloads {
        workload.per_replica.retain(|_, amount| amount.is_finite());
    }
    capacity
}

/// All predict rules, in the order of the files.
pub fn predict_rules(settings: &Settings) -> impl Iterator<Item = &PredictRule> {
    settings.groups.iter().flat_map(|group| &group.rules).filter_map(|rule| match rule {
        Rule::Predict(rule) => Some(&**rule),
        Rule::Record(_) => None,
    })
}

/// Own impacts of all components, then what flows to each from those that depend on it.
fn impacts(observer: &mut Observer<'_>, settings: &Settings, watches: &Watches) -> BTreeMap<ComponentId, f64> {
    let mut own: BTreeMap<ComponentId, f64> = BTreeMap::new();
    let mut edges: BTreeSet<(ComponentId, ComponentId)> = BTreeSet::new();
    for rule in predict_rules(settings) {
        let watched = rule.signals.iter().flat_map(|signal| watches.foresights(rule, signal)).map(|(id, ..)| id);
        let components: BTreeSet<&ComponentId> = watched.collect();
        for (component, impact) in observer.impacts_of(rule, components.into_iter()) {
            let entry = own.entry(component).or_insert(0.0);
            *entry = entry.max(impact);
        }
        for edge in &rule.depends_on {
            for element in observer.elements(&format!("{} depends_on {}", rule.name, edge.kind), &edge.expr) {
                let dependent = ComponentId::of(&rule.kind, &rule.by, &element.labels);
                edges.insert((dependent, ComponentId::of(&edge.kind, &edge.by, &element.labels)));
            }
        }
    }
    let edges: Vec<_> = edges.into_iter().collect();
    health::impacts(&own, &edges)
}

/// The identity labels of a component's metrics: `component`, `kind`, its own labels, `horizon`.
pub fn component_labels(assessment: &Assessment) -> Labels {
    let own = [
        ("component".to_owned(), assessment.component.to_string()),
        ("kind".to_owned(), assessment.component.kind.clone()),
        ("horizon".to_owned(), assessment.horizon.to_string()),
    ];
    Labels::new(assessment.component.labels.iter().cloned().chain(own))
}

//! Rules → readings: recording rules give series, signals become one value per component.

use std::collections::BTreeMap;

use super::Fault;
use super::records::Records;
use crate::config::Settings;
use crate::forecast::Limit;
use crate::health::{NumberOrQuery, PredictRule, RecordRule, Rule, RuleGroup, SignalRule};
use crate::model::{ComponentId, Labels, Timestamp};
use crate::query::{self, Element, Query, Value};
use crate::store::Store;

/// The most components that one rule may have; those beyond are left out, in the order of their labels, and reported.
pub const RULE_COMPONENTS_MAX: usize = 20_000;

/// The value of one signal of one component at one moment.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    /// The component.
    pub(super) component: ComponentId,
    /// The value; absent where the expression gave a NaN.
    pub(super) value: Option<f64>,
    /// The line it is held against; absent where the threshold's expression has no value for this component.
    pub(super) limit: Option<Limit>,
}

/// What was observed of a rule's components.
#[derive(Debug)]
pub(super) enum Observed<'r> {
    /// What the rule's expressions of regimes say of each component, in their order: numbers, bit by bit.
    Regimes(BTreeMap<ComponentId, Vec<Option<u64>>>),
    /// A signal's readings.
    Signal(&'r SignalRule, Vec<Reading>),
}

/// Evaluates expressions at one moment and collects what went wrong.
#[derive(Debug)]
pub(super) struct Observer<'a> {
    store: &'a Store,
    settings: &'a Settings,
    now: Timestamp,
    /// What could not be evaluated, and why.
    pub(super) faults: Vec<Fault>,
}

impl<'a> Observer<'a> {
    /// An observer of `store` at `now`.
    pub(super) fn new(store: &'a Store, settings: &'a Settings, now: Timestamp) -> Observer<'a> {
        Observer { store, settings, now, faults: Vec::new() }
    }

    /// Evaluates a group's rules in order: a rule sees what those before it recorded.
    pub(super) fn evaluate_group<'r>(
        &mut self,
        group: &'r RuleGroup,
        records: &mut Records,
        mut take: impl FnMut(&'r PredictRule, Observed<'r>),
    ) {
        for rule in &group.rules {
            match rule {
                Rule::Record(record) => self.record(group, record, records),
                Rule::Predict(predict) => {
                    // A regime that begins now begins before the values of now.
                    take(predict, Observed::Regimes(self.read_regimes(predict)));
                    for signal in &predict.signals {
                        // A signal that could not be evaluated has no readings: its watches see a gap, not a value.
                        let readings = self.read_signal(predict, signal);
                        take(predict, Observed::Signal(signal, readings));
                    }
                }
            }
        }
    }

    /// Evaluates an expression; on an error the fault is kept and the answer is empty.
    pub(super) fn elements(&mut self, what: &str, expr: &Query) -> Vec<Element> {
        self.evaluate(expr).unwrap_or_else(|why| {
            self.fault(what, &why);
            Vec::new()
        })
    }

    fn evaluate(&self, expr: &Query) -> Result<Vec<Element>, String> {
        let answer = query::instant(self.store, expr, self.now, &self.settings.query);
        match answer.map_err(|error| error.to_string())?.value {
            Value::Vector(elements) => Ok(elements),
            Value::Scalar(sample) => Ok(vec![Element { labels: Labels::default(), sample }]),
            Value::String(..) | Value::Matrix(_) => Err("the expression gives no instant vector".to_owned()),
        }
    }

    /// A number for each component of a rule; components without one are absent from the map.
    pub(super) fn by_component(
        &mut self,
        what: &str,
        kind: &str,
        by: &[String],
        expr: &Query,
    ) -> BTreeMap<ComponentId, f64> {
        let mut values = BTreeMap::new();
        for element in self.elements(what, expr) {
            let id = ComponentId::of(kind, by, &element.labels);
            if values.insert(id.clone(), element.sample.value).is_some() {
                self.fault(what, &format!("gives more than one value for {id}: aggregate by its labels"));
            }
        }
        values
    }

    /// The own impact, 0..1, of each of a rule's components; 0 and a fault where the rule's expression has none for it.
    pub(super) fn impacts_of<'c>(
        &mut self,
        rule: &PredictRule,
        components: impl Iterator<Item = &'c ComponentId>,
    ) -> BTreeMap<ComponentId, f64> {
        let what = format!("{} impact", rule.name);
        let mut measured = match &rule.impact {
            NumberOrQuery::Number(_) => BTreeMap::new(),
            NumberOrQuery::Query(expr) => self.by_component(&what, &rule.kind, &rule.by, expr),
        };
        let mut missing = 0;
        let mut impacts = BTreeMap::new();
        for component in components {
            let impact = match rule.impact {
                NumberOrQuery::Number(number) => Some(number),
                NumberOrQuery::Query(_) => measured.remove(component).filter(|impact| impact.is_finite()),
            };
            missing += usize::from(impact.is_none());
            impacts.insert(component.clone(), impact.unwrap_or(0.0).clamp(0.0, 1.0));
        }
        if missing > 0 {
            self.fault(&what, &format!("has no value for {missing} of {} components: they count as 0", impacts.len()));
        }
        impacts
    }

    fn record(&mut self, group: &RuleGroup, rule: &RecordRule, records: &mut Records) {
        let given = self.evaluate(&rule.expr);
        if let Err(why) = records.keep(self.store, (group, rule), given, self.now) {
            self.fault(&format!("record {}", rule.record), &why);
        }
    }

    fn read_signal(&mut self, rule: &PredictRule, signal: &SignalRule) -> Vec<Reading> {
        let what = format!("{}/{}", rule.name, signal.name);
        let values = self.by_component(&what, &rule.kind, &rule.by, &signal.expr);
        if values.len() > RULE_COMPONENTS_MAX {
            self.fault(
                &what,
                &format!("has {} components; only the first {RULE_COMPONENTS_MAX} are watched", values.len()),
            );
        }
        let thresholds = match &signal.threshold {
            NumberOrQuery::Number(_) => BTreeMap::new(),
            NumberOrQuery::Query(expr) => self.by_component(&format!("{what} threshold"), &rule.kind, &rule.by, expr),
        };
        let warns = match &signal.warn {
            Some(NumberOrQuery::Query(expr)) => self.by_component(&format!("{what} warn"), &rule.kind, &rule.by, expr),
            Some(NumberOrQuery::Number(_)) | None => BTreeMap::new(),
        };
        let limit_of = |id: &ComponentId| {
            let threshold = match &signal.threshold {
                NumberOrQuery::Number(number) => Some(*number),
                NumberOrQuery::Query(_) => thresholds.get(id).copied().filter(|number| number.is_finite()),
            };
            let warn = match &signal.warn {
                Some(NumberOrQuery::Number(number)) => Some(*number),
                Some(NumberOrQuery::Query(_)) => warns.get(id).copied().filter(|number| number.is_finite()),
                None => None,
            };
            threshold.map(|threshold| Limit { threshold, warn })
        };
        let readings = values.into_iter().take(RULE_COMPONENTS_MAX).map(|(component, value)| Reading {
            limit: limit_of(&component),
            value: value.is_finite().then_some(value),
            component,
        });
        readings.collect()
    }

    /// The values that tell of new regimes; empty where the rule has no such expressions.
    fn read_regimes(&mut self, rule: &PredictRule) -> BTreeMap<ComponentId, Vec<Option<u64>>> {
        let mut read: BTreeMap<ComponentId, Vec<Option<u64>>> = BTreeMap::new();
        for (index, expr) in rule.regimes.iter().enumerate() {
            let what = format!("{} regimes", rule.name);
            let values = self.by_component(&what, &rule.kind, &rule.by, expr);
            for (component, value) in values.into_iter().filter(|(_, value)| value.is_finite()) {
                let of_component = read.entry(component).or_insert_with(|| vec![None; rule.regimes.len()]);
                of_component[index] = Some(value.to_bits());
            }
        }
        read
    }

    fn fault(&mut self, what: &str, why: &str) {
        self.faults.push(Fault { what: what.to_owned(), why: why.to_owned() });
    }
}

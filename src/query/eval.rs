//! Evaluation: each node yields its values at all steps of a grid at once.
//!
//! A selector reads the store once for the whole grid, series by series into one buffer; windows then move along it. Series
//! that are matched, grouped or renamed are so once for all steps, not once a step.

use std::cell::Cell;

use crate::model::{Labels, METRIC_NAME, Millis, Sample, Timestamp, is_stale_marker};
use crate::store::{Matcher, Store};

use super::matrix::{ABSENT, LabelSet, Matrix, SAME_LABELS, is_present};
use super::notes::Notes;
use super::syntax::BinaryOperator;
use super::tree::{
    Aggregate, At, Binary, Call, Kind, LabelReplace, Node, OverTime, Placement, RangeFunction, RangeSource, Selector,
};
use super::{Cost, QueryError, Series, Settings, aggregate, binary, functions, histogram, info, windows};

/// The moments of evaluation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grid {
    pub(super) start: Timestamp,
    pub(super) step: Millis,
    pub(super) count: usize,
    /// The end as it was given: the last step may be before it.
    pub(super) until: Timestamp,
}

impl Grid {
    /// The moments from `start` up to and with `end`; none where `end` is before `start`.
    pub(super) fn new(start: Timestamp, end: Timestamp, step: Millis) -> Grid {
        assert!(step.0 > 0, "a step must be positive: {step}");
        let steps = (end - start).0.div_euclid(step.0).saturating_add(1);
        Grid { start, step, count: usize::try_from(steps).unwrap_or(0), until: end }
    }

    /// All moments, in order.
    pub(super) fn times(self) -> impl Iterator<Item = Timestamp> {
        (0..self.count).map(move |step| self.at(step))
    }

    /// The moment of a step.
    pub(super) fn at(self, step: usize) -> Timestamp {
        self.start + self.step * i64::try_from(step).unwrap_or(i64::MAX)
    }
}

/// One evaluation of one expression.
#[derive(Debug)]
pub(super) struct Evaluator<'a> {
    store: &'a Store,
    settings: &'a Settings,
    /// The bounds of the whole query, for `@ start()` and `@ end()`: the last step may be before the end.
    bounds: (Timestamp, Timestamp),
    /// How many samples and values are held now.
    held: usize,
    /// The most that was held or about to be.
    peak: Cell<usize>,
    /// How many have been looked at so far.
    visits: u64,
    pub(super) notes: Notes,
}

type Evaluated<T> = Result<T, QueryError>;

impl<'a> Evaluator<'a> {
    pub(super) fn new(store: &'a Store, settings: &'a Settings, bounds: (Timestamp, Timestamp)) -> Evaluator<'a> {
        Evaluator { store, settings, bounds, held: 0, peak: Cell::new(0), visits: 0, notes: Notes::default() }
    }

    /// What it has cost so far.
    pub(super) fn cost(&self) -> Cost {
        Cost { samples_looked_at: self.visits, samples_held: self.peak.get() }
    }

    /// The values of a scalar, one a step.
    pub(super) fn scalar(&mut self, node: &Node, grid: Grid) -> Evaluated<Vec<f64>> {
        let before = self.held;
        let values = match node {
            Node::Number(number) => vec![*number; grid.count],
            Node::Time => grid.times().map(Timestamp::as_secs_f64).collect(),
            Node::Negate(inner) => self.scalar(inner, grid)?.into_iter().map(|value| -value).collect(),
            Node::Binary(of) => {
                let (left, right) = (self.scalar(&of.left, grid)?, self.scalar(&of.right, grid)?);
                left.into_iter().zip(right).map(|(l, r)| binary::combine_scalars(of.operator, l, r)).collect()
            }
            Node::Call(call) => match &**call {
                Call::Scalar(inner) => functions::scalar(&self.vector(inner, grid)?),
                _ => return Err(mistyped(Kind::Scalar, node)),
            },
            _ => return Err(mistyped(Kind::Scalar, node)),
        };
        self.held = before;
        self.hold(values.len())?;
        Ok(values)
    }

    /// The series of an instant vector; none is without any value.
    pub(super) fn vector(&mut self, node: &Node, grid: Grid) -> Evaluated<Matrix> {
        let before = self.held;
        let matrix = match node {
            Node::Selector(selector) => self.select_values(selector, grid, |sample| sample.value)?,
            Node::Negate(inner) => {
                let mut matrix = self.vector(inner, grid)?;
                matrix.map(|value| -value);
                if matrix.drop_names() {
                    matrix.refuse_same()?;
                }
                matrix
            }
            Node::Binary(of) => self.binary(of, grid)?,
            Node::Aggregate(of) => {
                let parameter = match &of.parameter {
                    Some(parameter) if parameter.kind() == Kind::Scalar => self.parameter(of, parameter, grid)?,
                    _ => Vec::new(),
                };
                let matrix = self.vector(&of.inner, grid)?;
                aggregate::aggregate(of, &matrix, &parameter, &mut self.notes)?
            }
            Node::Call(call) => self.call(call, grid)?,
            _ => return Err(mistyped(Kind::Vector, node)),
        };
        // What the operands held is free again; the result is held instead.
        self.held = before;
        self.hold(matrix.values.len())?;
        Ok(matrix)
    }

    /// The parameter of an aggregation; as in Prometheus that of the first step for all where what is aggregated never changes.
    fn parameter(&mut self, of: &Aggregate, parameter: &Node, grid: Grid) -> Evaluated<Vec<f64>> {
        if !of.is_step_invariant || grid.count == 0 {
            return self.scalar(parameter, grid);
        }
        let first = Grid { count: 1, until: grid.start, ..grid };
        let value = self.scalar(parameter, first)?[0];
        Ok(vec![value; grid.count])
    }

    fn binary(&mut self, of: &Binary, grid: Grid) -> Evaluated<Matrix> {
        let (mut matrix, scalars, side) = match (of.left.kind(), of.right.kind()) {
            (Kind::Vector, Kind::Vector) => {
                let (left, right) = (self.vector(&of.left, grid)?, self.vector(&of.right, grid)?);
                return match of.operator {
                    BinaryOperator::And | BinaryOperator::Or | BinaryOperator::Unless => {
                        binary::combine_sets(of, left, right)
                    }
                    _ => binary::combine_vectors(of, &left, &right),
                };
            }
            (Kind::Vector, _) => {
                let left = self.vector(&of.left, grid)?;
                (left, self.scalar(&of.right, grid)?, binary::Side::Right)
            }
            _ => {
                let scalars = self.scalar(&of.left, grid)?;
                (self.vector(&of.right, grid)?, scalars, binary::Side::Left)
            }
        };
        binary::combine_with_scalar(of, &mut matrix, &scalars, side);
        if of.operator.is_comparison() && !of.yields_bool {
            matrix.drop_empty();
        }
        if binary::drops_name(of) && matrix.drop_names() {
            matrix.merge_same(SAME_LABELS)?;
        }
        Ok(matrix)
    }

    fn call(&mut self, call: &Call, grid: Grid) -> Evaluated<Matrix> {
        match call {
            Call::Map(function, inner) => {
                let mut matrix = self.vector(inner, grid)?;
                matrix.map(function);
                nameless(matrix)
            }
            Call::Clamp { inner, min, max } => {
                let mut matrix = self.vector(inner, grid)?;
                let min = min.as_ref().map(|node| self.scalar(node, grid)).transpose()?;
                let max = max.as_ref().map(|node| self.scalar(node, grid)).transpose()?;
                functions::clamp(&mut matrix, min.as_deref(), max.as_deref());
                matrix.drop_empty();
                nameless(matrix)
            }
            Call::Round { inner, to } => {
                let mut matrix = self.vector(inner, grid)?;
                functions::round(&mut matrix, &self.scalar(to, grid)?);
                nameless(matrix)
            }
            Call::Timestamp(inner) => self.timestamp(inner, grid),
            Call::Scalar(_) => Err(QueryError::Execution("expected an instant vector, got a scalar".to_owned())),
            Call::Vector(inner) => {
                let values = self.scalar(inner, grid)?;
                Ok(if grid.count == 0 { Matrix::new(0) } else { Matrix::single(values) })
            }
            Call::Absent { inner, labels } => Ok(functions::absent(&self.vector(inner, grid)?, labels)),
            Call::AbsentOverTime { range, labels } => self.absent_over_time(range, labels, grid),
            Call::Sort { inner, direction } => {
                let mut matrix = self.vector(inner, grid)?;
                functions::sort(&mut matrix, *direction);
                Ok(matrix)
            }
            Call::SortByLabel { inner, names, direction } => {
                let mut matrix = self.vector(inner, grid)?;
                functions::sort_by_label(&mut matrix, names, *direction);
                Ok(matrix)
            }
            Call::LabelReplace(of) => self.label_replace(of, grid),
            Call::LabelJoin { inner, target, separator, sources } => {
                check_label_join(target, sources)?;
                let mut matrix = self.vector(inner, grid)?;
                functions::label_join(&mut matrix, target, separator, sources);
                matrix.refuse_same()?;
                Ok(matrix)
            }
            Call::NothingOf(inner) => {
                self.vector(inner, grid)?;
                Ok(Matrix::new(grid.count))
            }
            Call::HistogramQuantile { quantile, quantile_at, inner, inner_at } => {
                let quantile = self.scalar(quantile, grid)?;
                let matrix = self.vector(inner, grid)?;
                let places = (*quantile_at, *inner_at);
                nameless(histogram::quantiles(&matrix, &quantile, places, &mut self.notes))
            }
            Call::HistogramFraction { lower, upper, inner, inner_at } => {
                let (lower, upper) = (self.scalar(lower, grid)?, self.scalar(upper, grid)?);
                let matrix = self.vector(inner, grid)?;
                nameless(histogram::fractions(&matrix, &lower, &upper, *inner_at, &mut self.notes))
            }
            Call::Info { inner, matchers } => self.info(inner, matchers, grid),
            Call::OverTime(of) => self.over_time(of, grid),
        }
    }

    fn label_replace(&mut self, of: &LabelReplace, grid: Grid) -> Evaluated<Matrix> {
        let Some(regex) = &of.regex else {
            let message = format!("invalid regular expression in label_replace(): {}", of.pattern);
            return Err(QueryError::Execution(message));
        };
        if !is_label(&of.target) {
            let message = format!("invalid destination label name in label_replace(): {}", of.target);
            return Err(QueryError::Execution(message));
        }
        let mut matrix = self.vector(&of.inner, grid)?;
        functions::label_replace(&mut matrix, &of.target, &of.template, &of.source, regex);
        matrix.refuse_same()?;
        Ok(matrix)
    }

    fn over_time(&mut self, of: &OverTime, grid: Grid) -> Evaluated<Matrix> {
        let mut parameters = Vec::with_capacity(of.parameters.len());
        let range = &of.range;
        // As in Prometheus a subquery is evaluated before the other arguments.
        let tracks = match range {
            RangeSource::Subquery { .. } => Some(self.subquery(range, grid)?),
            RangeSource::Selector { .. } => None,
        };
        for parameter in &of.parameters {
            parameters.push(self.scalar(parameter, grid)?);
        }
        let ends = self.ends(range.placement(), grid);
        let moves = windows::Moves { function: of.function, ends, range: range.range(), grid, parameters };
        let mut answer = Matrix::new(grid.count);
        let mut scratch = windows::Scratch::default();
        self.each_track(range, tracks, &moves.ends, |this, labels, samples| {
            let start = answer.values.len();
            let visits = moves.apply(samples, &mut scratch, &mut answer.values);
            this.visit(visits)?;
            this.check_size(this.held + answer.values.len() + samples.len())?;
            let row = &answer.values[start..];
            this.remark(of, &moves, &labels, samples, row)?;
            if row.iter().any(|value| is_present(*value)) {
                answer.labels.push(labels);
            } else {
                answer.values.truncate(start);
            }
            Ok(())
        })?;
        if !of.function.keeps_name() {
            if answer.drop_names() {
                answer.refuse_same()?;
            }
        } else if matches!(range, RangeSource::Subquery { .. }) {
            answer.refuse_same()?;
        }
        Ok(answer)
    }

    /// Notes and errors about one series of a function over time.
    fn remark(
        &mut self,
        of: &OverTime,
        moves: &windows::Moves,
        labels: &LabelSet,
        samples: &[Sample],
        row: &[f64],
    ) -> Evaluated<()> {
        match of.function {
            RangeFunction::Rate | RangeFunction::Increase if row.iter().any(|value| is_present(*value)) => {
                self.notes.inform_of_non_counter(labels.get(METRIC_NAME), of.at);
            }
            RangeFunction::Quantile => {
                for (quantile, _) in moves.parameters[0].iter().zip(row).filter(|(_, value)| is_present(**value)) {
                    self.notes.check_quantile(*quantile, of.at);
                }
            }
            RangeFunction::Smoothing => return check_factors(moves, samples),
            _ => {}
        }
        Ok(())
    }

    fn absent_over_time(&mut self, range: &RangeSource, labels: &Labels, grid: Grid) -> Evaluated<Matrix> {
        let tracks = match range {
            RangeSource::Subquery { .. } => Some(self.subquery(range, grid)?),
            RangeSource::Selector { .. } => None,
        };
        let ends = self.ends(range.placement(), grid);
        let mut present = Matrix::new(grid.count);
        let mut row = Vec::with_capacity(grid.count);
        self.each_track(range, tracks, &ends, |_, labels, samples| {
            row.clear();
            windows::presence(samples, &ends, range.range(), &mut row);
            present.push(labels, &row);
            Ok(())
        })?;
        Ok(functions::absent(&present, labels))
    }

    fn info(&mut self, inner: &Node, matchers: &[Matcher], grid: Grid) -> Evaluated<Matrix> {
        let matrix = self.vector(inner, grid)?;
        let Some(mut wanted) = info::info_matchers(&matrix, matchers) else {
            return info::enrich(&matrix, None, matchers);
        };
        wanted.extend(info::identity_matchers(&matrix));
        let selector = Selector { matchers: wanted, placement: Placement { offset: Millis::ZERO, at: None } };
        let infos = self.select_values(&selector, grid, |sample| sample.at.0 as f64)?;
        info::enrich(&matrix, Some(&infos), matchers)
    }

    /// `timestamp()`: that of the sample where the argument is a selector, else that of evaluation.
    fn timestamp(&mut self, inner: &Node, grid: Grid) -> Evaluated<Matrix> {
        if let Node::Selector(selector) = inner {
            return nameless(self.select_values(selector, grid, |sample| sample.at.as_secs_f64())?);
        }
        let mut matrix = self.vector(inner, grid)?;
        functions::map_steps(&mut matrix, |step, _| grid.at(step).as_secs_f64());
        nameless(matrix)
    }

    /// Where a selector or subquery looks at each step.
    fn ends(&self, placement: Placement, grid: Grid) -> Vec<Timestamp> {
        grid.times().map(|at| self.place(placement, at)).collect()
    }

    fn place(&self, placement: Placement, at: Timestamp) -> Timestamp {
        let moment = match placement.at {
            None => at,
            Some(At::Start) => self.bounds.0,
            Some(At::End) => self.bounds.1,
            Some(At::Moment(moment)) => moment,
        };
        moment - placement.offset
    }

    /// Each series' latest sample at each step, no older than the lookback, unless the series ended.
    fn select_values(&mut self, selector: &Selector, grid: Grid, value: fn(&Sample) -> f64) -> Evaluated<Matrix> {
        let lookback = self.settings.lookback;
        let ends = self.ends(selector.placement, grid);
        let mut answer = Matrix::new(grid.count);
        let (Some(first), Some(last)) = (ends.first(), ends.last()) else { return Ok(answer) };
        let (store, from) = (self.store, *first - lookback);
        if first == last {
            // One moment: only the latest sample of each series counts.
            store.each_latest(&selector.matchers, from, *last, |labels, sample| {
                if !is_stale_marker(sample.value) {
                    answer.labels.push(LabelSet::new(labels.clone()));
                    answer.values.extend(std::iter::repeat_n(value(&sample), grid.count));
                }
                self.check_size(self.held + answer.values.len())
            })?;
            return Ok(answer);
        }
        store.each_selected(&selector.matchers, from, *last, |labels, samples| {
            let start = answer.values.len();
            let mut after = 0;
            for end in &ends {
                while after < samples.len() && samples[after].at <= *end {
                    after += 1;
                }
                let latest = samples[..after].last();
                let fresh = latest.filter(|s| *end - lookback < s.at && !is_stale_marker(s.value));
                answer.values.push(fresh.map_or(ABSENT, value));
            }
            if answer.values[start..].iter().any(|value| is_present(*value)) {
                answer.labels.push(LabelSet::new(labels.clone()));
            } else {
                answer.values.truncate(start);
            }
            self.check_size(self.held + answer.values.len() + samples.len())
        })?;
        Ok(answer)
    }

    /// A range vector as it is: each series' samples in its window at the first step.
    pub(super) fn range_vector(&mut self, range: &RangeSource, grid: Grid) -> Evaluated<Vec<Series>> {
        let tracks = match range {
            RangeSource::Subquery { .. } => Some(self.subquery(range, grid)?),
            RangeSource::Selector { .. } => None,
        };
        let end = self.place(range.placement(), grid.start);
        let mut all = Vec::new();
        let mut held = 0;
        self.each_track(range, tracks, &[end], |this, labels, samples| {
            let is_inside = |sample: &&Sample| end - range.range() < sample.at && sample.at <= end;
            let samples: Vec<Sample> = samples.iter().filter(is_inside).copied().collect();
            held += samples.len();
            this.check_size(this.held + held)?;
            if !samples.is_empty() {
                all.push(Series { labels: labels.into_labels(), samples });
            }
            Ok(())
        })?;
        all.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(all)
    }

    /// The values of a subquery at its own steps, for all windows of a grid.
    fn subquery(&mut self, range: &RangeSource, grid: Grid) -> Evaluated<(Matrix, Grid)> {
        let RangeSource::Subquery { inner, range, step, placement } = range else {
            return Err(QueryError::Execution("expected a subquery".to_owned()));
        };
        let step = step.unwrap_or(self.settings.subquery_step);
        let (first, last) = (self.place(*placement, grid.start), self.place(*placement, grid.until));
        // Windows are open on the left, and steps are counted from the epoch.
        let start = (first - *range).align_down(step) + step;
        let steps =
            if grid.count == 0 { Grid { start, step, count: 0, until: last } } else { Grid::new(start, last, step) };
        self.check_size(steps.count)?;
        let matrix = if steps.count == 0 { Matrix::new(0) } else { self.vector(inner, steps)? };
        Ok((matrix, steps))
    }

    /// Calls `visit` with labels and samples of each series of a range, without stale markers.
    fn each_track(
        &mut self,
        range: &RangeSource,
        subquery: Option<(Matrix, Grid)>,
        ends: &[Timestamp],
        mut visit: impl FnMut(&mut Self, LabelSet, &[Sample]) -> Evaluated<()>,
    ) -> Evaluated<()> {
        if let Some((matrix, grid)) = subquery {
            self.hold(matrix.values.len())?;
            let mut samples = Vec::with_capacity(grid.count);
            for (labels, row) in matrix.rows() {
                samples.clear();
                let present = row.iter().zip(grid.times()).filter(|(value, _)| is_present(**value));
                samples.extend(present.map(|(value, at)| Sample { at, value: *value }));
                visit(self, labels.clone(), &samples)?;
            }
            return Ok(());
        }
        let RangeSource::Selector { selector, range } = range else { return Ok(()) };
        let (Some(first), Some(last)) = (ends.first(), ends.last()) else { return Ok(()) };
        let store = self.store;
        let mut without_markers = Vec::new();
        store.each_selected(&selector.matchers, *first - *range, *last, |labels, samples| {
            if !samples.iter().any(|sample| is_stale_marker(sample.value)) {
                return visit(self, LabelSet::new(labels.clone()), samples);
            }
            without_markers.clear();
            without_markers.extend(samples.iter().filter(|sample| !is_stale_marker(sample.value)));
            if without_markers.is_empty() {
                Ok(())
            } else {
                visit(self, LabelSet::new(labels.clone()), &without_markers)
            }
        })
    }

    fn hold(&mut self, values: usize) -> Evaluated<()> {
        self.held = self.held.saturating_add(values);
        self.check_size(self.held)?;
        self.visit(values as u64)
    }

    /// Counts work that grows faster than what is held: windows that overlap see their samples again and again.
    fn visit(&mut self, values: u64) -> Evaluated<()> {
        self.visits = self.visits.saturating_add(values);
        if self.visits <= self.settings.visits_max {
            return Ok(());
        }
        Err(QueryError::Execution(format!(
            "query processing would look at more than {} samples; shorten its ranges or widen its steps",
            self.settings.visits_max
        )))
    }

    fn check_size(&self, values: usize) -> Evaluated<()> {
        self.settings.interrupt.check()?;
        self.peak.set(self.peak.get().max(values));
        if values <= self.settings.samples_max {
            return Ok(());
        }
        Err(QueryError::Execution(
            "query processing would load too many samples into memory in query execution".to_owned(),
        ))
    }
}

/// Without the metric's name; series that have become the same are joined.
fn nameless(mut matrix: Matrix) -> Evaluated<Matrix> {
    if matrix.drop_names() {
        matrix.merge_same(SAME_LABELS)?;
    }
    Ok(matrix)
}

/// Whether a text can be a label's name: any that is not empty. Bytes that were no UTF-8 became replacement characters.
fn is_label(name: &str) -> bool {
    !name.is_empty() && !name.contains(char::REPLACEMENT_CHARACTER)
}

fn check_label_join(target: &str, sources: &[String]) -> Evaluated<()> {
    let wrong = |which: &str, name: &str| {
        Err(QueryError::Execution(format!("invalid {which} label name in label_join(): {name}")))
    };
    match sources.iter().find(|name| !is_label(name)) {
        Some(source) => wrong("source", source),
        None if !is_label(target) => wrong("destination", target),
        None => Ok(()),
    }
}

/// Smoothing wants factors between 0 and 1 wherever a window has samples.
fn check_factors(moves: &windows::Moves, samples: &[Sample]) -> Evaluated<()> {
    let mut present = Vec::with_capacity(moves.ends.len());
    windows::presence(samples, &moves.ends, moves.range, &mut present);
    for step in (0..present.len()).filter(|step| is_present(present[*step])) {
        for (name, symbol, values) in [("smoothing", "sf", &moves.parameters[0]), ("trend", "tf", &moves.parameters[1])]
        {
            let factor = values[step];
            if factor <= 0.0 || factor >= 1.0 {
                let got = if factor.is_finite() { format!("{factor:.6}") } else { super::numbers::format(factor) };
                let message = format!("invalid {name} factor. Expected: 0 < {symbol} < 1, got: {got}");
                return Err(QueryError::Execution(message));
            }
        }
    }
    Ok(())
}

/// An error about us, not about the user: the checked tree rules it out.
fn mistyped(kind: Kind, node: &Node) -> QueryError {
    QueryError::Execution(format!("expected type {}, got {}", kind.name(), node.kind().name()))
}

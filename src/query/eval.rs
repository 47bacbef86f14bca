//! Evaluation: each node yields its values at all steps of a grid at once.
//!
//! A selector loads its samples once for the whole grid; windows then move along it. Series that are matched, grouped or
//! renamed are so once for all steps, not once a step.

use std::collections::{BTreeSet, HashMap};

use crate::model::{Labels, METRIC_NAME, Millis, Sample, Timestamp, is_stale_marker};
use crate::store::{Matcher, Store};

use super::tree::{At, Binary, Bound, Call, Kind, Node, Operator, Placement, RangeSource, Selector};
use super::{QueryError, Series, Settings, aggregate, binary, functions, histogram, windows};

/// The message for two elements that cannot be told apart.
pub(super) const SAME_LABELS: &str = "vector cannot contain metrics with the same labelset";

/// The moments of evaluation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grid {
    pub(super) start: Timestamp,
    pub(super) step: Millis,
    pub(super) count: usize,
}

impl Grid {
    /// The moments from `start` up to and with `end`; none where `end` is before `start`.
    pub(super) fn new(start: Timestamp, end: Timestamp, step: Millis) -> Grid {
        assert!(step.0 > 0, "a step must be positive: {step}");
        let steps = (end - start).0.div_euclid(step.0).saturating_add(1);
        Grid { start, step, count: usize::try_from(steps).unwrap_or(0) }
    }

    /// All moments, in order.
    pub(super) fn times(self) -> impl Iterator<Item = Timestamp> {
        let index = |step: usize| i64::try_from(step).unwrap_or(i64::MAX);
        (0..self.count).map(move |step| self.start + self.step * index(step))
    }

    /// The last moment.
    pub(super) fn end(self) -> Timestamp {
        self.start + self.step * i64::try_from(self.count.saturating_sub(1)).unwrap_or(i64::MAX)
    }
}

/// A series of an instant vector: its value at each step at which it has one.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) labels: Labels,
    pub(super) values: Vec<Option<f64>>,
}

/// Samples of one series for a function of windows.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) labels: Labels,
    pub(super) samples: Vec<Sample>,
}

/// One evaluation of one expression.
#[derive(Debug)]
pub(super) struct Evaluator<'a> {
    store: &'a Store,
    settings: &'a Settings,
    /// The steps of the whole query, for `start()` and `step()`.
    whole: Grid,
    /// The end of the query as the user gave it: the last step may be before it.
    end: Timestamp,
    /// How many samples and values are held now.
    held: usize,
    /// How many have been looked at so far.
    visits: u64,
    pub(super) warnings: BTreeSet<String>,
    pub(super) infos: BTreeSet<String>,
}

impl<'a> Evaluator<'a> {
    pub(super) fn new(store: &'a Store, settings: &'a Settings, whole: Grid, end: Timestamp) -> Evaluator<'a> {
        Evaluator { store, settings, whole, end, held: 0, visits: 0, warnings: BTreeSet::new(), infos: BTreeSet::new() }
    }

    /// The values of a scalar, one a step.
    pub(super) fn scalar(&mut self, node: &Node, grid: Grid) -> Result<Vec<f64>, QueryError> {
        let before = self.held;
        let values = self.scalar_unmeasured(node, grid)?;
        self.held = before;
        self.hold(values.len())?;
        Ok(values)
    }

    fn scalar_unmeasured(&mut self, node: &Node, grid: Grid) -> Result<Vec<f64>, QueryError> {
        Ok(match node {
            Node::Number(number) => vec![*number; grid.count],
            Node::Time => grid.times().map(Timestamp::as_secs_f64).collect(),
            Node::Bound(bound) => vec![self.bound(*bound); grid.count],
            Node::Negate(inner) => self.scalar(inner, grid)?.into_iter().map(|value| -value).collect(),
            Node::Binary(of) => {
                let (left, right) = (self.scalar(&of.left, grid)?, self.scalar(&of.right, grid)?);
                left.into_iter().zip(right).map(|(l, r)| binary::combine_scalars(of.operator, l, r)).collect()
            }
            Node::Call(call) => match &**call {
                Call::Scalar(inner) => functions::scalar(&self.vector(inner, grid)?, grid),
                _ => return Err(mistyped(Kind::Scalar, node)),
            },
            _ => return Err(mistyped(Kind::Scalar, node)),
        })
    }

    /// The series of an instant vector.
    pub(super) fn vector(&mut self, node: &Node, grid: Grid) -> Result<Vec<Row>, QueryError> {
        let before = self.held;
        let mut rows = self.vector_unmeasured(node, grid)?;
        rows.retain(|row| row.values.iter().any(Option::is_some));
        // What the operands held is free again; the result is held instead.
        self.held = before;
        self.hold(rows.len().saturating_mul(grid.count))?;
        Ok(rows)
    }

    fn vector_unmeasured(&mut self, node: &Node, grid: Grid) -> Result<Vec<Row>, QueryError> {
        match node {
            Node::Selector(selector) => self.select_values(selector, grid, |sample| sample.value),
            Node::Negate(inner) => {
                let rows = self.vector(inner, grid)?;
                refuse_same_labels(functions::map(rows, |value| -value))
            }
            Node::Binary(of) => self.binary(of, grid),
            Node::Aggregate(of) => {
                let rows = self.vector(&of.inner, grid)?;
                let parameter = match &of.parameter {
                    Some(parameter) if parameter.kind() == Kind::Scalar => Some(self.scalar(parameter, grid)?),
                    _ => None,
                };
                aggregate::aggregate(of, rows, parameter.as_deref(), grid, &mut self.warnings)
            }
            Node::Call(call) => self.call(call, grid),
            _ => Err(mistyped(Kind::Vector, node)),
        }
    }

    fn binary(&mut self, of: &Binary, grid: Grid) -> Result<Vec<Row>, QueryError> {
        match (of.left.kind(), of.right.kind()) {
            (Kind::Vector, Kind::Vector) => {
                let (left, right) = (self.vector(&of.left, grid)?, self.vector(&of.right, grid)?);
                match of.operator {
                    Operator::And | Operator::Or | Operator::Unless => binary::combine_sets(of, left, right, grid),
                    _ => binary::combine_vectors(of, left, right, grid),
                }
            }
            (Kind::Vector, _) => {
                let (left, right) = (self.vector(&of.left, grid)?, self.scalar(&of.right, grid)?);
                merge(binary::combine_with_scalar(of, left, &right, binary::Side::Right), SAME_LABELS)
            }
            _ => {
                let (left, right) = (self.scalar(&of.left, grid)?, self.vector(&of.right, grid)?);
                merge(binary::combine_with_scalar(of, right, &left, binary::Side::Left), SAME_LABELS)
            }
        }
    }

    fn call(&mut self, call: &Call, grid: Grid) -> Result<Vec<Row>, QueryError> {
        let rows = match call {
            Call::Map(function, inner) => functions::map(self.vector(inner, grid)?, function),
            Call::Clamp { inner, min, max } => {
                let rows = self.vector(inner, grid)?;
                let min = min.as_ref().map(|node| self.scalar(node, grid)).transpose()?;
                let max = max.as_ref().map(|node| self.scalar(node, grid)).transpose()?;
                functions::clamp(rows, min.as_deref(), max.as_deref())
            }
            Call::Round { inner, to } => functions::round(self.vector(inner, grid)?, &self.scalar(to, grid)?),
            Call::Timestamp(inner) => self.timestamp(inner, grid)?,
            Call::Scalar(_) => {
                return Err(QueryError::Execution("expected an instant vector, got a scalar".to_owned()));
            }
            Call::Vector(inner) => {
                let values = self.scalar(inner, grid)?.into_iter().map(Some).collect();
                vec![Row { labels: Labels::default(), values }]
            }
            Call::Absent { inner, labels } => functions::absent(&self.vector(inner, grid)?, labels, grid),
            Call::AbsentOverTime { range, labels } => {
                let tracks = self.tracks(range, grid)?;
                let ends = self.ends(range.placement(), grid);
                let present: Vec<Row> =
                    tracks.iter().map(|track| windows::presence(track, &ends, range.range())).collect();
                functions::absent(&present, labels, grid)
            }
            Call::Sort { inner, direction } => functions::sort(self.vector(inner, grid)?, *direction, grid),
            Call::SortByLabel { inner, names, direction } => {
                functions::sort_by_label(self.vector(inner, grid)?, names, *direction)
            }
            Call::LabelReplace { inner, target, template, source, regex } => {
                let rows = self.vector(inner, grid)?;
                functions::label_replace(rows, target, template, source, regex)
            }
            Call::LabelJoin { inner, target, separator, sources } => {
                functions::label_join(self.vector(inner, grid)?, target, separator, sources)
            }
            Call::HistogramQuantile { quantile, inner } => {
                let quantile = self.scalar(quantile, grid)?;
                let rows = self.vector(inner, grid)?;
                histogram::quantiles(rows, &quantile, &mut self.warnings, &mut self.infos)
            }
            Call::HistogramFraction { lower, upper, inner } => {
                let (lower, upper) = (self.scalar(lower, grid)?, self.scalar(upper, grid)?);
                let rows = self.vector(inner, grid)?;
                histogram::fractions(rows, &lower, &upper, &mut self.warnings)
            }
            Call::OverTime { function, range, parameters } => {
                let parameters =
                    parameters.iter().map(|node| self.scalar(node, grid)).collect::<Result<Vec<_>, _>>()?;
                let tracks = self.tracks(range, grid)?;
                let ends = self.ends(range.placement(), grid);
                let in_windows = tracks.iter().map(|track| windows::visits(track, &ends, range.range()));
                self.visit(in_windows.fold(0, u64::saturating_add))?;
                let moves = windows::Moves { function: *function, ends, range: range.range(), grid, parameters };
                let rows = windows::over_time(&moves, tracks, &mut self.warnings, &mut self.infos)?;
                return refuse_same_labels(rows);
            }
        };
        merge(rows, SAME_LABELS)
    }

    /// `timestamp()`: that of the sample where the argument is a selector, else that of evaluation.
    fn timestamp(&mut self, inner: &Node, grid: Grid) -> Result<Vec<Row>, QueryError> {
        if let Node::Selector(selector) = inner {
            let rows = self.select_values(selector, grid, |sample| sample.at.as_secs_f64())?;
            return Ok(functions::map(rows, |value| value));
        }
        let mut rows = functions::map(self.vector(inner, grid)?, |value| value);
        for row in &mut rows {
            for (value, at) in row.values.iter_mut().zip(grid.times()) {
                *value = value.map(|_| at.as_secs_f64());
            }
        }
        Ok(rows)
    }

    fn bound(&self, bound: Bound) -> f64 {
        match bound {
            Bound::Start => self.whole.start.as_secs_f64(),
            Bound::End => self.end.as_secs_f64(),
            Bound::Step if self.whole.count > 1 => self.whole.step.as_secs_f64(),
            Bound::Step => 0.0,
            Bound::Span => (self.end - self.whole.start).as_secs_f64(),
        }
    }

    /// Where a selector or subquery looks at each step.
    pub(super) fn ends(&self, placement: Placement, grid: Grid) -> Vec<Timestamp> {
        grid.times().map(|at| self.place(placement, at)).collect()
    }

    fn place(&self, placement: Placement, at: Timestamp) -> Timestamp {
        let moment = match placement.at {
            None => at,
            Some(At::Start) => self.whole.start,
            Some(At::End) => self.end,
            Some(At::Moment(moment)) => moment,
        };
        moment - placement.offset
    }

    /// Each series' latest sample at each step, no older than the lookback, unless the series ended.
    fn select_values(
        &mut self,
        selector: &Selector,
        grid: Grid,
        value: fn(&Sample) -> f64,
    ) -> Result<Vec<Row>, QueryError> {
        let lookback = self.settings.lookback;
        let ends = self.ends(selector.placement, grid);
        let tracks = self.load(&selector.matchers, &ends, lookback)?;
        let mut rows = Vec::with_capacity(tracks.len());
        for track in tracks {
            let mut after = 0;
            let mut values = Vec::with_capacity(grid.count);
            for end in &ends {
                while after < track.samples.len() && track.samples[after].at <= *end {
                    after += 1;
                }
                let latest = track.samples[..after].last();
                let fresh = latest.filter(|s| *end - lookback < s.at && !is_stale_marker(s.value));
                values.push(fresh.map(value));
            }
            rows.push(Row { labels: track.labels, values });
        }
        Ok(rows)
    }

    /// A range vector as it is: each series' samples in its window at the first step.
    pub(super) fn range_vector(&mut self, range: &RangeSource, grid: Grid) -> Result<Vec<Series>, QueryError> {
        let end = self.place(range.placement(), grid.start);
        let mut all = Vec::new();
        for Track { labels, mut samples } in self.tracks(range, grid)? {
            samples.retain(|sample| end - range.range() < sample.at && sample.at <= end);
            if !samples.is_empty() {
                all.push(Series { labels, samples });
            }
        }
        Ok(all)
    }

    /// The samples over which the windows of a range move; no stale markers.
    pub(super) fn tracks(&mut self, range: &RangeSource, grid: Grid) -> Result<Vec<Track>, QueryError> {
        match range {
            RangeSource::Selector { selector, range } => {
                let ends = self.ends(selector.placement, grid);
                let mut tracks = self.load(&selector.matchers, &ends, *range)?;
                for track in &mut tracks {
                    track.samples.retain(|sample| !is_stale_marker(sample.value));
                }
                tracks.retain(|track| !track.samples.is_empty());
                Ok(tracks)
            }
            RangeSource::Subquery { inner, range, step, placement } => {
                let step = step.unwrap_or(self.settings.subquery_step);
                let (first, last) = (self.place(*placement, grid.start), self.place(*placement, grid.end()));
                // Windows are open on the left, and steps are counted from the epoch.
                let start = (first - *range).align_down(step) + step;
                let steps = Grid::new(start, last, step);
                self.check_size(steps.count)?;
                let rows = self.vector(inner, steps)?;
                Ok(rows.into_iter().map(|row| row_track(row, steps)).collect())
            }
        }
    }

    /// Loads what lies in the windows of the length `span` that end at `ends`.
    fn load(&mut self, matchers: &[Matcher], ends: &[Timestamp], span: Millis) -> Result<Vec<Track>, QueryError> {
        let (Some(first), Some(last)) = (ends.first(), ends.last()) else { return Ok(Vec::new()) };
        let selected = self.store.select(matchers, *first - span, *last);
        self.hold(selected.iter().map(|series| series.samples.len()).sum())?;
        Ok(selected.into_iter().map(|series| Track { labels: series.labels, samples: series.samples }).collect())
    }

    fn hold(&mut self, values: usize) -> Result<(), QueryError> {
        self.held = self.held.saturating_add(values);
        self.check_size(self.held)?;
        self.visit(u64::try_from(values).unwrap_or(u64::MAX))
    }

    /// Counts work that grows faster than what is held: windows that overlap see their samples again and again.
    fn visit(&mut self, values: u64) -> Result<(), QueryError> {
        if self.settings.stop.is_set() {
            return Err(QueryError::Stopped);
        }
        self.visits = self.visits.saturating_add(values);
        if self.visits <= self.settings.visits_max {
            return Ok(());
        }
        Err(QueryError::Execution(format!(
            "query processing would look at more than {} samples; shorten its ranges or widen its steps",
            self.settings.visits_max
        )))
    }

    fn check_size(&self, values: usize) -> Result<(), QueryError> {
        if values <= self.settings.samples_max {
            return Ok(());
        }
        Err(QueryError::Execution(
            "query processing would load too many samples into memory in query execution".to_owned(),
        ))
    }
}

fn row_track(row: Row, grid: Grid) -> Track {
    let values = row.values.into_iter().zip(grid.times());
    let samples = values.filter_map(|(value, at)| value.map(|value| Sample { at, value })).collect();
    Track { labels: row.labels, samples }
}

/// An error about us, not about the user: the checked tree rules it out.
fn mistyped(kind: Kind, node: &Node) -> QueryError {
    QueryError::Execution(format!("expected type {}, got {}", kind.name(), node.kind().name()))
}

/// Labels without the metric's name.
pub(super) fn without_name(labels: &Labels) -> Labels {
    labels.without(|name| name == METRIC_NAME)
}

/// Refuses series that cannot be told apart, even where they have no step in common.
pub(super) fn refuse_same_labels(rows: Vec<Row>) -> Result<Vec<Row>, QueryError> {
    let mut rows = rows;
    rows.retain(|row| row.values.iter().any(Option::is_some));
    let distinct: std::collections::HashSet<&Labels> = rows.iter().map(|row| &row.labels).collect();
    if distinct.len() == rows.len() { Ok(rows) } else { Err(QueryError::Execution(SAME_LABELS.to_owned())) }
}

/// Joins rows with the same labels into one; two that have a value at the same step are an error with this `message`.
pub(super) fn merge(rows: Vec<Row>, message: &str) -> Result<Vec<Row>, QueryError> {
    let mut merged: Vec<Row> = Vec::with_capacity(rows.len());
    let mut places: HashMap<Labels, usize> = HashMap::with_capacity(rows.len());
    for row in rows {
        let place = *places.entry(row.labels.clone()).or_insert(merged.len());
        if place == merged.len() {
            merged.push(row);
            continue;
        }
        for (kept, added) in merged[place].values.iter_mut().zip(row.values) {
            match (&kept, added) {
                (Some(_), Some(_)) => return Err(QueryError::Execution(message.to_owned())),
                (None, Some(_)) => *kept = added,
                _ => {}
            }
        }
    }
    Ok(merged)
}

//! Earlier forecasts of a bank and what became of them: the errors of its members and of their combination.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::conformal::{Adaption, Errors, TARGETS};
use super::history::History;
use super::scale::Scale;

/// Forecasts kept, at most.
const ORIGINS_MAX: usize = 31;
/// The first forecasts are not judged: weights were not known yet.
const IMMATURE: u32 = 2;
/// After this many horizons an error counts half.
const HALF_LIFE: f64 = 1.5;

/// The interval that was told with a forecast: `reach[step] × widths[target]` on both sides.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Told {
    pub(super) reach: Vec<f32>,
    pub(super) widths: [f32; TARGETS.len()],
}

/// A forecast made before the value of index `at` was known; on the plain scale.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Origin {
    pub(super) at: i64,
    /// How many were made before it.
    pub(super) number: u32,
    pub(super) path: Vec<f32>,
    /// The members' paths, step by step, without those steps that are known already.
    members: Vec<f32>,
    /// How many steps those are.
    trimmed: usize,
    pub(super) told: Option<Told>,
    misses: [u16; TARGETS.len()],
    seen: u16,
}

/// The newest forecasts, oldest first, and sums of the members' errors.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    steps: usize,
    pub(super) origins: VecDeque<Origin>,
    /// By member: sums of |error|, of older forecasts less.
    pub(super) errors: Vec<f64>,
    made: u32,
    /// Forecasts from before a refit whose intervals are not all judged yet.
    carried: Vec<Origin>,
    /// The part of a sum that is left a step later.
    kept: f64,
}

impl Origin {
    /// Holds the value of a step against the interval that was told.
    fn judge(&mut self, step: usize, value: f32) {
        let (Some(told), Some(path)) = (&self.told, self.path.get(step)) else { return };
        let error = (value - path).abs();
        self.seen += 1;
        for (misses, width) in self.misses.iter_mut().zip(told.widths) {
            *misses += u16::from(error > width * told.reach[step]);
        }
    }

    fn memory_bytes(&self) -> usize {
        let told = self.told.as_ref().map_or(0, |told| told.reach.capacity());
        (self.path.capacity() + self.members.capacity() + told) * size_of::<f32>()
    }
}

impl Record {
    pub(super) fn new(steps: usize, members: usize) -> Record {
        Record {
            steps,
            origins: VecDeque::new(),
            errors: vec![0.0; members],
            made: 0,
            carried: Vec::new(),
            kept: (-1.0 / (HALF_LIFE * steps as f64)).exp2(),
        }
    }

    /// The step of an origin's path that an index is; none where it is none.
    fn step(&self, at: i64, index: i64) -> Option<usize> {
        usize::try_from(index - at).ok().filter(|step| *step < self.steps)
    }

    /// Adds a forecast.
    pub(super) fn add(&mut self, at: i64, path: Vec<f32>, members: Vec<f32>) -> &mut Origin {
        if self.origins.len() == ORIGINS_MAX {
            self.origins.pop_front();
        }
        let count = self.errors.len();
        for origin in self.origins.iter_mut().filter(|origin| !origin.members.is_empty()) {
            let known = usize::try_from(at - origin.at).unwrap_or(usize::MAX).min(self.steps);
            // A copy of the right size: draining would keep the room.
            origin.members = origin.members[(known - origin.trimmed) * count..].to_vec();
            origin.trimmed = known;
        }
        let origin = Origin {
            at,
            number: self.made,
            path,
            members,
            trimmed: 0,
            told: None,
            misses: [0; TARGETS.len()],
            seen: 0,
        };
        self.made = self.made.saturating_add(1);
        self.origins.push_back(origin);
        self.origins.back_mut().expect("one was added just now")
    }

    /// Holds the value of an index against the forecasts that are open; none where it is missing.
    pub(super) fn score(&mut self, index: i64, value: Option<f32>, adaption: &mut Adaption) {
        let count = self.errors.len();
        self.errors.iter_mut().for_each(|error| *error *= self.kept);
        for place in (0..self.origins.len()).rev() {
            let Some(step) = self.step(self.origins[place].at, index) else { break };
            let origin = &mut self.origins[place];
            if let Some(value) = value {
                // Recent forecasts count more; the decay of the sums does the rest.
                let weight = self.kept.powi(i32::try_from(step).unwrap_or(i32::MAX));
                let from = (step - origin.trimmed) * count;
                let paths = &origin.members[from..from + count];
                for (error, path) in self.errors.iter_mut().zip(paths) {
                    *error += weight * f64::from((value - path).abs());
                }
                origin.judge(step, value);
            }
            if step + 1 == self.steps {
                origin.members = Vec::new();
                if origin.told.take().is_some() {
                    adaption.learn(&origin.misses, origin.seen);
                }
            }
        }
        for origin in &mut self.carried {
            let step = usize::try_from(index - origin.at).unwrap_or(usize::MAX);
            if let Some(value) = value {
                origin.judge(step, value);
            }
            if step >= origin.path.len() - 1 {
                adaption.learn(&origin.misses, origin.seen);
            }
        }
        self.carried.retain(|origin| origin.at + i64::try_from(self.steps).unwrap_or(0) > index + 1);
    }

    /// Takes over the intervals that are still open from a record on another scale; `convert` a point, `stretch` a width.
    pub(super) fn carry(&mut self, before: Record, next: i64, convert: impl Fn(f32) -> f32, stretch: f64) {
        let end = next - i64::try_from(self.steps).unwrap_or(0);
        let open =
            before.carried.into_iter().chain(before.origins).filter(|origin| origin.at > end && origin.at < next);
        for mut origin in open {
            let Some(told) = &mut origin.told else { continue };
            told.reach.iter_mut().for_each(|reach| *reach = super::scale::stored(f64::from(*reach) * stretch));
            origin.path.iter_mut().for_each(|point| *point = convert(*point));
            origin.members = Vec::new();
            self.carried.push(origin);
        }
        let excess = self.carried.len().saturating_sub(ORIGINS_MAX);
        self.carried.drain(..excess);
        self.carried.shrink_to_fit();
    }

    /// What the newest forecast before an index said of it, and the distance in steps.
    pub(super) fn foreseen(&self, index: i64) -> Option<(f32, usize)> {
        let origin = self.origins.iter().rev().find(|origin| origin.at <= index)?;
        self.step(origin.at, index).map(|step| (origin.path[step], step))
    }

    /// The newest forecast that was made at an index or before it.
    pub(super) fn before(&self, index: i64) -> Option<&Origin> {
        self.origins.iter().rev().find(|origin| origin.at <= index)
    }

    /// The mean size of what was foreseen, in the signal's unit.
    pub(super) fn mean_size(&self, scale: &Scale) -> f64 {
        let sizes = self.origins.iter().map(|origin| {
            origin.path.iter().map(|value| scale.value(f64::from(*value)).abs() / self.steps as f64).sum::<f64>()
        });
        sizes.map(|size| size / self.origins.len().max(1) as f64).sum()
    }

    /// The errors of all forecasts that are old enough to be judged and of which something is known.
    pub(super) fn all_errors(&self, history: &History, noise: impl Fn(f32) -> f64) -> Vec<Errors> {
        self.judged(history.next()).map(|origin| self.errors_of(origin, history, &noise)).collect()
    }

    /// The forecasts that are old enough to be judged.
    pub(super) fn judged(&self, next: i64) -> impl Iterator<Item = &Origin> {
        self.origins.iter().filter(move |origin| origin.number >= IMMATURE && origin.at < next)
    }

    fn errors_of(&self, origin: &Origin, history: &History, noise: &impl Fn(f32) -> f64) -> Errors {
        let error = |(step, path): (usize, &f32)| {
            let index = origin.at + i64::try_from(step).unwrap_or(0);
            let position = history.position(index).filter(|position| !history.is_filled(*position));
            position.map_or(f32::NAN, |position| history.plain[position] - path)
        };
        Errors {
            at: origin.at,
            errors: origin.path.iter().enumerate().map(error).collect(),
            noise: origin.path.iter().map(|path| super::scale::stored(noise(*path))).collect(),
        }
    }

    /// The errors of the forecasts of which every step is known.
    pub(super) fn whole_errors(&self, history: &History, noise: impl Fn(f32) -> f64) -> Vec<Errors> {
        let whole = |errors: &Errors| errors.errors.iter().all(|error| !error.is_nan());
        self.all_errors(history, noise).into_iter().filter(whole).collect()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.origins.iter().chain(&self.carried).map(Origin::memory_bytes).sum::<usize>()
            + self.carried.capacity() * size_of::<Origin>()
            + self.origins.capacity() * size_of::<Origin>()
            + self.errors.capacity() * size_of::<f64>()
    }
}

//! A component that is unlike its siblings: how far its signal is from theirs, in value and in slope.
//!
//! Siblings are the other components of the same rule. Each is measured by its distance from the median of all in units of
//! 1.4826 × the median absolute deviation, which is one standard deviation where values are normal and which up to half of
//! the siblings cannot move (Rousseeuw & Croux 1993, "Alternatives to the median absolute deviation", section 1).
//! An absolute floor keeps siblings that are all but equal from making outliers of each other.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::forecast::{median, theil_sen};
use crate::model::{ComponentId, Millis, Timestamp};

/// Values are compared within ± this, so that no difference of them overflows.
const VALUE_MAX: f64 = 1e30;
/// With fewer siblings than this nothing is said: the median of a few is no norm.
pub const SIBLINGS_MIN: usize = 5;
/// A distance is told up to this many deviations.
const DEVIATIONS_MAX: f64 = 1000.0;
/// 1 / Φ⁻¹(3/4): the median absolute deviation of a normal variable times this is its standard deviation.
const NORMAL: f64 = 1.4826;
/// Values are compared as the median of this many of the newest: one odd scrape is no outlier.
const NEWEST: usize = 5;
/// Points of a track: a slope over so many says enough, and costs 120 differences.
const TRACK_POINTS: usize = 16;
/// The deviation of n slopes is widened by 1 + this / n: slopes carry more noise than values, and the median absolute deviation
/// of a few is itself uncertain. On made-up fleets of 6, 8 and 20 equal siblings this leaves 0.8, 0.3 and 0.02 false outliers in a
/// thousand moments, of 7.1, 3.8 and 0.2 without it.
const SLOPE_WIDENING: f64 = 8.0;
/// A slope is taken over this part of the horizon.
const TRACK_SHARE: i64 = 4;

/// When a component is unlike its siblings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PeerSettings {
    /// From so many robust deviations on.
    pub deviation: f64,
    /// Never for a distance smaller than this, in the signal's unit.
    pub min_abs: f64,
}

/// One component among its siblings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peer {
    /// The signal's value now, in its own unit.
    pub value: f64,
    /// By how much it would change within a horizon at its present slope, in the same unit; absent where that is not known.
    pub change: Option<f64>,
}

/// How far a component is from its siblings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PeerDistance {
    /// Robust deviations of the value from the median of all; positive above.
    pub value: f64,
    /// The same of the slope; absent where it or those of enough siblings are not known.
    pub slope: Option<f64>,
    /// The median of all values, in the signal's unit.
    pub median: f64,
    /// How many siblings it has.
    pub siblings: usize,
    /// Whether one of the two distances is as large as the rule's `deviation`.
    pub outlier: bool,
}

impl PeerDistance {
    /// The larger of both distances, without its sign.
    pub fn deviation(&self) -> f64 {
        self.value.abs().max(self.slope.map_or(0.0, f64::abs))
    }
}

/// How far each of a rule's components is from the others; empty where there are fewer than [`SIBLINGS_MIN`] siblings.
/// Values that are not finite are left out.
pub fn compare(settings: PeerSettings, peers: &BTreeMap<ComponentId, Peer>) -> BTreeMap<ComponentId, PeerDistance> {
    let known: Vec<(&ComponentId, Peer)> = peers
        .iter()
        .filter(|(_, peer)| peer.value.is_finite())
        .map(|(component, peer)| {
            let change = peer.change.filter(|change| change.is_finite());
            (component, Peer { value: bounded(peer.value), change: change.map(bounded) })
        })
        .collect();
    let Some(values) = Norm::of(known.iter().map(|(_, peer)| peer.value), 0.0) else { return BTreeMap::new() };
    let changes = Norm::of(known.iter().filter_map(|(_, peer)| peer.change), SLOPE_WIDENING);
    let distance = |peer: &Peer| {
        let value = values.distance(peer.value, settings);
        let slope = peer.change.zip(changes.as_ref()).map(|(change, norm)| norm.distance(change, settings));
        PeerDistance {
            value,
            slope,
            median: values.median,
            siblings: known.len() - 1,
            outlier: value.abs().max(slope.map_or(0.0, f64::abs)) >= settings.deviation,
        }
    };
    known.iter().map(|(component, peer)| ((*component).clone(), distance(peer))).collect()
}

fn bounded(value: f64) -> f64 {
    value.clamp(-VALUE_MAX, VALUE_MAX)
}

/// What most of the siblings do.
struct Norm {
    median: f64,
    /// One standard deviation, were they normal.
    deviation: f64,
}

impl Norm {
    /// Nothing where there are too few values.
    fn of(values: impl Iterator<Item = f64>, widening: f64) -> Option<Norm> {
        let mut values: Vec<f64> = values.collect();
        if values.len() <= SIBLINGS_MIN {
            return None;
        }
        let middle = median(&mut values);
        let mut distances: Vec<f64> = values.iter().map(|value| (value - middle).abs()).collect();
        let widened = 1.0 + widening / distances.len() as f64;
        Some(Norm { median: middle, deviation: widened * NORMAL * median(&mut distances) })
    }

    /// Deviations from the median. A distance of `min_abs` counts as `settings.deviation` of them at most, so that one number
    /// says whether both bounds are passed.
    fn distance(&self, value: f64, settings: PeerSettings) -> f64 {
        let unit = self.deviation.max(settings.min_abs / settings.deviation);
        let difference = value - self.median;
        if difference.abs() <= f64::EPSILON * self.median.abs() {
            return 0.0;
        }
        // All others equal and no floor: any difference is as far as it gets.
        (difference / unit).clamp(-DEVIATIONS_MAX, DEVIATIONS_MAX)
    }
}

/// The newest values of one signal of one component: what its siblings are compared with.
///
/// It keeps `TRACK_POINTS` points over a quarter of the horizon, and the newest `NEWEST` values.
#[derive(Debug, Clone, Default)]
pub struct PeerTrack {
    points: VecDeque<(Timestamp, f64)>,
    newest: VecDeque<f64>,
}

impl PeerTrack {
    /// Notes the value at one moment; absent or no number: nothing is known any more.
    pub fn note(&mut self, at: Timestamp, value: Option<f64>, horizon: Millis) {
        let Some(value) = value.filter(|value| value.is_finite()) else {
            *self = PeerTrack::default();
            return;
        };
        self.newest.push_back(value);
        if self.newest.len() > NEWEST {
            self.newest.pop_front();
        }
        let span = horizon / TRACK_SHARE;
        let spacing = span / i64::try_from(TRACK_POINTS).unwrap_or(i64::MAX);
        if self.points.back().is_none_or(|(newest, _)| at - *newest >= spacing) {
            self.points.push_back((at, value));
        }
        while self.points.len() > TRACK_POINTS || self.points.front().is_some_and(|(oldest, _)| at - *oldest > span) {
            self.points.pop_front();
        }
    }

    /// What is compared: the median of the newest values, and the change within a horizon at the robust slope of the track;
    /// absent while fewer than half of the points are known.
    pub fn peer(&self, horizon: Millis) -> Option<Peer> {
        let mut newest: Vec<f64> = self.newest.iter().copied().collect();
        if newest.is_empty() {
            return None;
        }
        let change = (self.points.len() * 2 >= TRACK_POINTS).then(|| {
            let first = self.points[0].0;
            let horizons: Vec<f64> =
                self.points.iter().map(|(at, _)| (*at - first).as_secs_f64() / horizon.as_secs_f64()).collect();
            let values: Vec<f64> = self.points.iter().map(|(_, value)| *value).collect();
            theil_sen(&horizons, &values)
        });
        Some(Peer { value: median(&mut newest), change: change.filter(|change| change.is_finite()) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SETTINGS: PeerSettings = PeerSettings { deviation: 6.0, min_abs: 0.1 };

    fn component(index: usize) -> ComponentId {
        ComponentId { kind: "node".to_owned(), labels: vec![("node".to_owned(), format!("n{index:03}"))] }
    }

    fn peers(values: &[f64], changes: &[f64]) -> BTreeMap<ComponentId, Peer> {
        let peer = |index: usize, value: &f64| Peer { value: *value, change: changes.get(index).copied() };
        values.iter().enumerate().map(|(index, value)| (component(index), peer(index, value))).collect()
    }

    /// Which of the components are outliers.
    fn check(values: &[f64], changes: &[f64], outliers: &[usize]) {
        let found = compare(SETTINGS, &peers(values, changes));
        let found: Vec<usize> = (0..values.len())
            .filter(|index| found.get(&component(*index)).is_some_and(|distance| distance.outlier))
            .collect();
        assert_eq!(found, outliers, "{values:?} {changes:?}");
    }

    #[test]
    fn one_that_is_far_from_the_others_is_an_outlier_on_either_side() {
        check(&[0.50, 0.52, 0.48, 0.51, 0.49, 0.53, 0.95], &[], &[6]);
        check(&[0.50, 0.52, 0.48, 0.51, 0.49, 0.53, 0.05], &[], &[6]);
        check(&[0.50, 0.52, 0.48, 0.51, 0.49, 0.53, 0.57], &[], &[]);
    }

    #[test]
    fn several_outliers_do_not_hide_each_other() {
        check(&[0.50, 0.52, 0.48, 0.51, 0.49, 0.53, 0.95, 0.96, 0.97], &[], &[6, 7, 8]);
    }

    #[test]
    fn nothing_is_said_of_fewer_than_five_siblings() {
        check(&[0.5, 0.5, 0.5, 0.5, 9.0], &[], &[]);
        check(&[0.5, 0.5, 0.5, 0.5, 0.5, 9.0], &[], &[5]);
        check(&[0.5, 0.5, 0.5, 0.5, f64::NAN, 9.0], &[], &[]);
    }

    #[test]
    fn siblings_that_are_all_but_equal_have_no_outlier_within_the_floor() {
        check(&[0.5, 0.5, 0.5, 0.5, 0.5, 0.59], &[], &[]);
        check(&[0.5, 0.5, 0.5, 0.5, 0.5, 0.61], &[], &[5]);
    }

    #[test]
    fn a_slope_that_no_sibling_has_makes_an_outlier_before_the_value_does() {
        check(&[0.50, 0.52, 0.48, 0.51, 0.49, 0.53, 0.54], &[0.0, 0.01, -0.02, 0.0, 0.01, -0.01, 0.6], &[6]);
    }

    #[test]
    fn two_groups_of_equal_size_are_no_outliers_of_each_other() {
        check(&[0.2, 0.21, 0.19, 0.2, 0.8, 0.81, 0.79, 0.8], &[], &[]);
    }

    #[test]
    fn a_track_gives_the_newest_value_without_its_spike_and_the_slope_to_the_horizon() {
        let mut track = PeerTrack::default();
        for minute in 0..60 {
            let value = if minute == 58 { 99.0 } else { f64::from(minute) / 60.0 };
            track.note(Timestamp(i64::from(minute) * 60_000), Some(value), Millis::HOUR);
        }
        let peer = track.peer(Millis::HOUR).expect("values were noted");
        assert!((peer.value - 57.0 / 60.0).abs() < 0.02, "{peer:?}");
        assert!((peer.change.expect("a quarter of an hour was noted") - 1.0).abs() < 0.05, "{peer:?}");
        track.note(Timestamp(60 * 60_000), None, Millis::HOUR);
        assert_eq!(track.peer(Millis::HOUR), None);
    }

    proptest! {
        #[test]
        fn no_values_make_a_distance_that_is_no_number(
            values in prop::collection::vec(prop::num::f64::ANY, 0..20),
            changes in prop::collection::vec(prop::num::f64::ANY, 0..20),
        ) {
            for distance in compare(SETTINGS, &peers(&values, &changes)).values() {
                prop_assert!(distance.value.is_finite() && distance.deviation().is_finite());
                prop_assert!(distance.median.is_finite());
            }
        }

        #[test]
        fn the_unit_of_a_signal_does_not_matter(
            values in prop::collection::vec(-1.0_f64..1.0, 6..20), exponent in -3_i32..6,
        ) {
            let scale = 10_f64.powi(exponent);
            let scaled: Vec<f64> = values.iter().map(|value| value * scale).collect();
            let wide = PeerSettings { min_abs: SETTINGS.min_abs * scale, ..SETTINGS };
            let (one, other) = (compare(SETTINGS, &peers(&values, &[])), compare(wide, &peers(&scaled, &[])));
            for (component, distance) in one {
                prop_assert!((distance.value - other[&component].value).abs() < 1e-6);
            }
        }
    }
}

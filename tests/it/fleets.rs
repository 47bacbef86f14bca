//! Fleets with known failures: recorded ones, read from files, and our own, made from a seed.
//!
//! A recorded fleet is a folder with
//! - `components.csv`: `component,metric,threshold,direction,step,lead_min,lead_max`, in seconds;
//! - `truth.csv`: `component,fail_time,end_time`, in unix seconds;
//! - `series.csv`: `timestamp` (unix seconds, regular) and a column for each component, or a folder `series` with a file
//!   `timestamp,value` for each; empty where a sample is missing;
//! - `classes.csv`, where known: `component,cls,predictable`.

#![expect(clippy::unwrap_used, reason = "a measurement for people: it stops at files of another shape")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use forestall::forecast::{Limit, ModelChoice, Side, WatchSettings};
use forestall::model::Millis;

/// One signal with its threshold, and when it failed.
#[derive(Debug, Clone)]
pub(crate) struct Component {
    pub(crate) name: String,
    /// What it does; empty where nobody said.
    pub(crate) class: String,
    /// Whether its failures announce themselves.
    pub(crate) predictable: bool,
    pub(crate) limit: Limit,
    pub(crate) settings: Arc<WatchSettings>,
    /// A warning later than this many seconds ahead is of no use.
    pub(crate) lead_min: i64,
    /// A warning earlier than this many seconds ahead is none; the horizon.
    pub(crate) lead_max: i64,
    /// Unix seconds, regular.
    pub(crate) times: Arc<Vec<i64>>,
    pub(crate) values: Vec<Option<f64>>,
    /// Start and end of each failure, in unix seconds, ascending.
    pub(crate) failures: Vec<(i64, i64)>,
}

/// How a component is watched in all fleets.
pub(crate) fn settings(side: Side, step: i64, lead_min: i64, lead_max: i64) -> Arc<WatchSettings> {
    Arc::new(WatchSettings {
        band: None,
        horizon: Millis::from_secs(lead_max),
        interval: Millis::from_secs(step),
        side,
        lasting: Millis::ZERO,
        seasons: Vec::new(),
        // The channels do not look at the path of medians: the cheapest will do.
        model: ModelChoice::Level,
        actuation_time: Millis::from_secs(lead_min),
        floor: None,
        ceiling: None,
        calendar: Arc::default(),
    })
}

fn rows(file: &Path) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    text.lines().map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

/// A value for each time, by column.
type Columns = BTreeMap<String, Vec<Option<f64>>>;

/// The times of a file of samples, and a column of values for each name.
fn columns(file: &Path) -> (Arc<Vec<i64>>, Columns) {
    let mut rows = rows(file);
    let names = rows.remove(0);
    let times = rows.iter().map(|row| row[0].parse().unwrap()).collect();
    let column = |index: usize| rows.iter().map(|row| row[index].parse().ok()).collect();
    let columns = names.iter().enumerate().skip(1).map(|(index, name)| (name.clone(), column(index))).collect();
    (Arc::new(times), columns)
}

/// Reads a recorded fleet.
pub(crate) fn read_fleet(folder: &Path) -> Vec<Component> {
    let mut failures: BTreeMap<String, Vec<(i64, i64)>> = BTreeMap::new();
    for row in rows(&folder.join("truth.csv")).split_off(1) {
        failures.entry(row[0].clone()).or_default().push((row[1].parse().unwrap(), row[2].parse().unwrap()));
    }
    let classes = folder.join("classes.csv");
    let classes = if classes.exists() { rows(&classes) } else { Vec::new() };
    let classes: BTreeMap<String, (String, bool)> =
        classes.into_iter().skip(1).map(|row| (row[0].clone(), (row[1].clone(), row[2] == "1"))).collect();
    let together = folder.join("series.csv");
    let mut together = together.exists().then(|| columns(&together));
    let number = |row: &[String], column: usize| row[column].parse::<i64>().unwrap();
    let components = rows(&folder.join("components.csv")).split_off(1).into_iter().map(|row| {
        let name = row[0].clone();
        let (step, lead_min, lead_max) = (number(&row, 4), number(&row, 5), number(&row, 6));
        let (times, values) = match &mut together {
            Some((times, columns)) => (times.clone(), columns.remove(&name).unwrap()),
            None => {
                let (times, mut columns) = columns(&folder.join("series").join(format!("{name}.csv")));
                (times, columns.remove("value").unwrap())
            }
        };
        let side = if row[3] == "above" { Side::Above } else { Side::Below };
        let (class, predictable) = classes.get(&name).cloned().unwrap_or((row[1].clone(), true));
        Component {
            class,
            predictable,
            limit: Limit { threshold: row[2].parse().unwrap(), warn: None },
            settings: settings(side, step, lead_min, lead_max),
            lead_min,
            lead_max,
            times,
            values,
            failures: failures.get(&name).cloned().unwrap_or_default(),
            name,
        }
    });
    components.collect()
}

/// How often a fleet of ours is sampled, and how far ahead it is looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// A value each five minutes over two weeks; a day ahead.
    Five,
    /// A value each minute over three days; six hours ahead.
    Minute,
}

/// Components of each class in a fleet of ours.
const OF_EACH_CLASS: usize = 3;
/// This share of the samples is missing, one here and one there.
const MISSING_SHARE: f64 = 0.005;
/// A failure begins with so many samples beyond the threshold in a row.
const FAILS_AFTER: usize = 3;

/// What becomes of a signal that is on its way to the threshold.
const FAILING: [&str; 9] = [
    "abrupt",
    "backlog",
    "bursty fill",
    "descriptor leak",
    "disk fill",
    "growing peaks",
    "latency creep",
    "memory leak",
    "speeding leak",
];
/// What looks like it and is none.
const HEALTHY: [&str; 10] = [
    "batch job",
    "cache warming up",
    "days",
    "garbage collection",
    "growth too slow",
    "hot",
    "noise",
    "rotation",
    "shift",
    "spikes",
];

/// A fleet of ours: three components of each class, the same for the same seed.
///
/// Signals are shares of their threshold (1 is the breach), then given a unit of their own; one disk in two tells what is
/// free instead of what is used. One failure in nine comes without warning.
pub(crate) fn make_fleet(profile: Profile, seed: u64) -> Vec<Component> {
    let classes = FAILING.iter().chain(&HEALTHY).flat_map(|class| (0..OF_EACH_CLASS).map(move |of| (*class, of)));
    classes.map(|(class, of)| make_component(profile, seed, class, of)).collect()
}

fn make_component(profile: Profile, seed: u64, class: &str, of: usize) -> Component {
    let name = format!("{class} {of} of fleet {seed}");
    let mut made = Maker::new(profile, seed, &name);
    let healthy = HEALTHY.contains(&class);
    let mut shares = made.shares(class);
    if healthy {
        // Noise must not make a failure of what is none.
        let highest = shares.iter().copied().fold(0.0, f64::max);
        let factor = if highest > 0.98 { 0.98 / highest } else { 1.0 };
        shares.iter_mut().for_each(|share| *share *= factor);
    }
    let (step, lead_min, lead_max) = (made.step, made.lead_min, made.lead_max);
    let times: Vec<i64> = (0..shares.len()).map(|index| 1_767_225_600 + step * i64::try_from(index).unwrap()).collect();
    let failures = failures_of(&shares, &times, lead_max);
    let below = matches!(class, "disk fill" | "bursty fill" | "rotation") && made.chance() < 0.5;
    let threshold = if below { 0.03 } else { 10f64.powf(made.between(-1.0, 3.0)) };
    let values = shares
        .iter()
        .map(|share| {
            let value = if below { threshold + (1.0 - threshold) * (1.0 - share) } else { threshold * share };
            (made.chance() >= MISSING_SHARE).then_some(value)
        })
        .collect();
    Component {
        name,
        class: class.to_owned(),
        predictable: class != "abrupt",
        limit: Limit { threshold, warn: None },
        settings: settings(if below { Side::Below } else { Side::Above }, step, lead_min, lead_max),
        lead_min,
        lead_max,
        times: Arc::new(times),
        values,
        failures,
    }
}

/// Failures begin with a few samples beyond the threshold and end when it is kept for an eighth of a horizon.
fn failures_of(shares: &[f64], times: &[i64], lead_max: i64) -> Vec<(i64, i64)> {
    let mut failures: Vec<(i64, i64)> = Vec::new();
    let mut beyond = 0;
    for (index, (share, time)) in shares.iter().zip(times).enumerate() {
        beyond = if *share >= 1.0 { beyond + 1 } else { 0 };
        match failures.last_mut().filter(|(_, end)| time - *end <= lead_max / 8) {
            Some((_, end)) if beyond > 0 => *end = *time,
            None if beyond == FAILS_AFTER => failures.push((times[index + 1 - FAILS_AFTER], *time)),
            _ => {}
        }
    }
    failures
}

/// Makes one signal.
struct Maker {
    state: u64,
    step: i64,
    lead_min: i64,
    lead_max: i64,
    count: usize,
    /// Samples in a day, and in a horizon.
    day: f64,
    horizon: f64,
}

impl Maker {
    fn new(profile: Profile, seed: u64, name: &str) -> Maker {
        let (step, lead_min, lead_max, days) = match profile {
            Profile::Five => (300, 3600, 86_400, 14),
            Profile::Minute => (60, 900, 21_600, 3),
        };
        // FNV-1a, so that each component has its own numbers.
        let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Maker {
            state: name.bytes().fold(0xcbf2_9ce4_8422_2325 ^ seed, hash),
            step,
            lead_min,
            lead_max,
            count: usize::try_from(days * 86_400 / step).unwrap(),
            day: 86_400.0 / step as f64,
            horizon: lead_max as f64 / step as f64,
        }
    }

    /// Uniform in 0..1 (splitmix64, Steele et al. 2014).
    fn chance(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.chance()
    }

    /// Standard normal (Box and Muller 1958).
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.chance()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.chance()).cos()
    }

    /// Noise that remembers: deviation and the part kept from sample to sample.
    fn noise(&mut self, deviation: f64, kept: f64) -> Vec<f64> {
        let mut level = 0.0;
        let fresh = deviation * (1.0 - kept * kept).sqrt();
        let count = self.count;
        let next = |_| {
            level = kept * level + fresh * self.normal();
            level
        };
        (0..count).map(next).collect()
    }

    /// A day's curve between 0 and 1: one hump of some width at some hour; weekends and days differ in height.
    fn days(&mut self, sharpness: f64, height_deviation: f64, weekend: f64) -> Vec<f64> {
        let phase = self.chance();
        let first_weekend = self.between(0.0, 7.0).floor();
        let heights: Vec<f64> = (0..=self.count / 24).map(|_| 1.0 + height_deviation * self.normal()).collect();
        let curve = |index: usize| {
            let day = index as f64 / self.day + phase;
            let hump = (0.5 - 0.5 * (std::f64::consts::TAU * day).cos()).powf(sharpness);
            let is_weekend = (day.floor() + first_weekend).rem_euclid(7.0) < 2.0;
            hump * heights[whole(day)] * if is_weekend { weekend } else { 1.0 }
        };
        (0..self.count).map(curve).collect()
    }

    /// Runs from 0 at its start to 1 at failure, again and again with a restart between; 0 before the start.
    /// `rate`: how fast at each sample, on average 1. `shape`: the growth's exponent.
    fn towards_failure(&mut self, horizons: (f64, f64), shape: f64, rate: &[f64]) -> Vec<f64> {
        let start = self.between(0.2, 0.55) * self.count as f64;
        let length = self.between(horizons.0, horizons.1) * self.horizon;
        let lasts = self.between(0.005, 0.04) * self.horizon;
        let (mut passed, mut beyond) = (0.0, 0.0);
        let mut grown = Vec::with_capacity(self.count);
        for (index, rate) in rate.iter().enumerate() {
            if index as f64 >= start {
                passed += rate / length;
            }
            if passed >= 1.0 {
                beyond += 1.0;
            }
            if beyond > lasts.max(FAILS_AFTER as f64 + 1.0) {
                (passed, beyond) = (0.0, 0.0);
            }
            grown.push(passed.powf(shape));
        }
        grown
    }

    fn shares(&mut self, class: &str) -> Vec<f64> {
        match class {
            "abrupt" => self.abrupt(),
            "backlog" => self.backlog(),
            "bursty fill" | "disk fill" | "descriptor leak" | "memory leak" | "speeding leak" => self.filling(class),
            "growing peaks" => self.peaks(true),
            "days" => self.peaks(false),
            "latency creep" => self.creep(),
            "batch job" => self.batch(),
            "cache warming up" => self.warming(),
            "garbage collection" | "rotation" => self.sawtooth(class),
            "growth too slow" => self.slow(),
            "hot" | "shift" => self.flat(class),
            "noise" => self.noisy(),
            _ => self.spikes(),
        }
    }

    /// Days as always, and once, out of nothing, far beyond the threshold for a while.
    fn abrupt(&mut self) -> Vec<f64> {
        let base = self.between(0.2, 0.4);
        let (days, noise) = (self.days(1.0, 0.03, 1.0), self.noise(0.015, 0.5));
        let at = self.between(0.35, 0.9) * self.count as f64;
        let lasts = self.between(0.02, 0.07) * self.horizon;
        let top = self.between(1.1, 1.6);
        let value = |index: usize| {
            let since = index as f64 - at;
            let share = base + 0.12 * days[index] + noise[index];
            if (0.0..lasts.max(6.0)).contains(&since) { top.max(share) } else { share }
        };
        (0..self.count).map(value).collect()
    }

    /// What fills up until something is restarted or cleaned.
    fn filling(&mut self, class: &str) -> Vec<f64> {
        let (base, lengths, shape, deviation, swing) = match class {
            "memory leak" => (self.between(0.2, 0.45), (3.0, 7.0), 1.0, 0.008, self.between(0.0, 0.1)),
            "speeding leak" => (self.between(0.2, 0.45), (3.0, 6.0), self.between(1.3, 2.2), 0.006, 0.05),
            "descriptor leak" => (self.between(0.15, 0.35), (2.5, 7.0), 1.0, 0.02, 0.04),
            "disk fill" => (self.between(0.25, 0.65), (2.5, 6.0), 1.0, 0.004, 0.0),
            _ => (self.between(0.25, 0.65), (3.0, 6.0), 1.0, 0.003, 0.0),
        };
        let days = self.days(1.0, 0.05, 0.8);
        let burst = self.between(3.0, 9.0) * self.horizon / 24.0;
        let rate: Vec<f64> = (0..self.count)
            .map(|index| match class {
                // All of a day's growth within an hour or two of each quarter of a horizon.
                "bursty fill" if (index as f64 * 4.0 / self.horizon).fract() < burst / self.horizon => {
                    self.horizon / burst
                }
                "bursty fill" => 0.0,
                // Leaks that follow the load.
                "descriptor leak" => 0.3 + 1.4 * days[index],
                _ => 0.8 + 0.4 * days[index],
            })
            .collect();
        let grown = self.towards_failure(lengths, shape, &rate);
        let noise = self.noise(deviation, 0.6);
        (0..self.count)
            .map(|i| {
                base + (1.0 - base) * grown[i] * (1.0 + 3.0 * deviation)
                    + swing * (days[i] - 0.5) * (1.0 - grown[i])
                    + noise[i]
            })
            .collect()
    }

    /// A queue that is empty but for small swells, until more comes than goes.
    fn backlog(&mut self) -> Vec<f64> {
        let days = self.days(1.0, 0.05, 0.9);
        let rate: Vec<f64> = days.iter().map(|day| 0.15 + 1.7 * day).collect();
        let grown = self.towards_failure((1.2, 3.0), 1.2, &rate);
        let failed = grown.windows(2).position(|two| two[1] < two[0]).unwrap_or(self.count);
        let swell = self.between(0.05, 0.25);
        let swell_at = self.between(0.1, 0.5) * self.count as f64;
        let noise = self.noise(0.006, 0.5);
        let value = |i: usize| {
            let since = (i as f64 - swell_at) / (0.4 * self.horizon);
            let small = if (0.0..1.0).contains(&since) { swell * (std::f64::consts::PI * since).sin() } else { 0.0 };
            // After the cause was found it does not come again.
            let backlog = if i <= failed { grown[i] * 1.01 } else { 0.0 };
            (0.02 + backlog.max(small) + noise[i]).max(0.0)
        };
        (0..self.count).map(value).collect()
    }

    /// Days whose peaks grow into the threshold, or do not.
    fn peaks(&mut self, grows: bool) -> Vec<f64> {
        let days_count = self.count as f64 / self.day;
        let (sharpness, base) = (self.between(1.0, 2.5), self.between(0.12, 0.4));
        let weekend = if self.chance() < 0.6 { self.between(0.75, 0.95) } else { 1.0 };
        let days = self.days(sharpness, 0.012, weekend);
        // Grows by so much over the record, and reaches the threshold late in it.
        let growth = if grows { self.between(0.12, 0.3) } else { 0.0 };
        let crosses = self.between(0.55, 0.8);
        let top = if grows { 1.0 - base } else { self.between(0.75, 0.93) - base };
        let noise = self.noise(0.008, 0.5);
        let value = |i: usize| {
            let passed = i as f64 / self.day / days_count;
            let height = top * (1.0 + growth * (passed - crosses) * days_count / days_count.max(7.0) * 2.0);
            base + height * days[i] + noise[i]
        };
        (0..self.count).map(value).collect()
    }

    /// Latency that follows the load, and ever more of it.
    fn creep(&mut self) -> Vec<f64> {
        let base = self.between(0.12, 0.3);
        let (days, noise) = (self.days(1.0, 0.03, 0.9), self.noise(0.04, 0.4));
        let start = self.between(0.2, 0.4) * self.count as f64;
        let length = self.between(4.0, 7.0) * self.horizon;
        let value = |i: usize| {
            let passed = ((i as f64 - start) / length).clamp(0.0, 1.3);
            let factor = (1.0 / base).powf(passed);
            base * factor * (0.85 + 0.25 * days[i]) * (1.0 + noise[i])
        };
        (0..self.count).map(value).collect()
    }

    /// A job that runs every some hours and is done.
    fn batch(&mut self) -> Vec<f64> {
        let (base, top) = (self.between(0.1, 0.3), self.between(0.6, 0.93));
        let period = if self.horizon < self.day { self.between(0.5, 1.5) * self.horizon } else { self.day };
        let lasts = self.between(0.08, 0.2) * period;
        let phase = self.chance();
        let heights: Vec<f64> = (0..self.count).map(|_| 1.0 + 0.04 * self.normal()).collect();
        let noise = self.noise(0.01, 0.4);
        let value = |i: usize| {
            let turn = i as f64 / period + phase;
            let into = turn.fract() * period / lasts;
            let up = if into < 1.0 { (4.0 * into).min(1.0).min(4.0 * (1.0 - into)) } else { 0.0 };
            base + (top - base) * up * heights[whole(turn)] + noise[i]
        };
        (0..self.count).map(value).collect()
    }

    /// Fast at first, then ever slower towards a level below the threshold; one in three is restarted once.
    fn warming(&mut self) -> Vec<f64> {
        let (base, top) = (self.between(0.1, 0.3), self.between(0.75, 0.94));
        let starts = self.between(0.05, 0.3) * self.count as f64;
        let again = if self.chance() < 0.33 { self.between(0.6, 0.8) * self.count as f64 } else { f64::INFINITY };
        let constant = self.between(0.7, 2.0) * self.horizon;
        let noise = self.noise(0.006, 0.5);
        let value = |i: usize| {
            let now = i as f64;
            let since = if now >= again { now - again } else { now - starts };
            base + (top - base) * (1.0 - (-since.max(0.0) / constant).exp()) + noise[i]
        };
        (0..self.count).map(value).collect()
    }

    /// Up slowly and down at once.
    fn sawtooth(&mut self, class: &str) -> Vec<f64> {
        let (low, top) = (self.between(0.3, 0.6), self.between(0.8, 0.94));
        let period = if class == "rotation" { self.between(0.4, 1.1) } else { self.between(0.02, 0.25) } * self.horizon;
        let deviation = if class == "rotation" { 0.01 } else { 0.08 };
        let (mut into, mut length) = (self.chance() * period, period);
        let mut teeth = Vec::with_capacity(self.count);
        for _ in 0..self.count {
            into += 1.0;
            if into >= length {
                into = 0.0;
                length = period * (1.0 + deviation * self.normal()).max(0.3);
            }
            teeth.push(low + (top - low) * into / period);
        }
        let noise = self.noise(0.006, 0.4);
        teeth.iter().zip(noise).map(|(tooth, noise)| tooth + noise).collect()
    }

    /// Grows all the time, and does not arrive within the record.
    fn slow(&mut self) -> Vec<f64> {
        let (from, to) = (self.between(0.3, 0.5), self.between(0.75, 0.95));
        let noise = self.noise(0.005, 0.5);
        (0..self.count).map(|i| from + (to - from) * i as f64 / self.count as f64 + noise[i]).collect()
    }

    /// High and level; or low, and from one moment on higher.
    fn flat(&mut self, class: &str) -> Vec<f64> {
        let high = self.between(0.7, 0.93);
        let (low, swing) = if class == "hot" { (high, 0.03) } else { (self.between(0.2, 0.45), 0.03) };
        let at = self.between(0.25, 0.7) * self.count as f64;
        let back = if self.chance() < 0.4 { at + self.between(0.5, 3.0) * self.horizon } else { f64::INFINITY };
        let between = low + 0.6 * (high - low);
        let over = self.between(1.0, 0.06 * self.horizon);
        let (days, noise) = (self.days(1.0, 0.05, 1.0), self.noise(0.006, 0.5));
        let value = |i: usize| {
            let now = i as f64;
            let level = if now >= back { between } else { low + (high - low) * ((now - at) / over).clamp(0.0, 1.0) };
            level + swing * (days[i] - 0.5) + noise[i]
        };
        (0..self.count).map(value).collect()
    }

    /// Wild and going nowhere.
    fn noisy(&mut self) -> Vec<f64> {
        let base = self.between(0.35, 0.5);
        let (deviation, kept) = (self.between(0.06, 0.13), self.between(0.3, 0.95));
        self.noise(deviation, kept).iter().map(|noise| (base + noise).max(0.0)).collect()
    }

    /// Calm, and now and then up at once and down within minutes or an hour.
    fn spikes(&mut self) -> Vec<f64> {
        let base = self.between(0.25, 0.4);
        let often = self.between(3.0, 12.0) / self.count as f64;
        let fades = 0.5f64.powf(1.0 / (self.between(0.01, 0.06) * self.horizon));
        let (days, noise) = (self.days(1.0, 0.05, 1.0), self.noise(0.012, 0.5));
        let mut spike: f64 = 0.0;
        let count = self.count;
        let value = |i: usize| {
            spike *= fades;
            if self.chance() < often {
                spike = self.between(0.2, 0.9 - base);
            }
            base + 0.05 * days[i] + spike + noise[i]
        };
        (0..count).map(value).collect()
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and not negative")]
fn whole(value: f64) -> usize {
    value as usize
}

//! The data that both are asked about: gauges, counters with resets, histograms whole and broken, gaps, stale markers, NaN,
//! infinities, missing labels and names in UTF-8.

use forestall::model::{Labels, METRIC_NAME, STALE_MARKER_BITS, Sample, Timestamp};

use super::generate::Random;

/// The first sample's time: long ago and fixed, so that every run asks the same.
pub(super) const START: Timestamp = Timestamp(1_767_268_800_000);
/// How far apart samples are, in milliseconds.
pub(super) const INTERVAL: i64 = 30_000;
/// How many samples a series has, gaps counted.
const COUNT: i64 = 180;

/// All series with their samples, in the order of labels.
pub(super) fn series() -> Vec<(Labels, Vec<Sample>)> {
    let mut random = Random::new(20);
    let mut all = Vec::new();
    for (instance, job) in [("a:1", "api"), ("b:1", "api"), ("c:1", "db"), ("d:1", "db")] {
        let own = [("instance", instance), ("job", job)];
        gauges(&mut all, &own, &mut random);
        counters(&mut all, &own, &mut random);
        histograms(&mut all, &own, &mut random);
        let version = if job == "api" { "1.2" } else { "1.10" };
        add(&mut all, "target_info", &own, &[("version", version), ("region", "eu")], |_| Some(1.0));
    }
    odd_ones(&mut all, &mut random);
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

type All = Vec<(Labels, Vec<Sample>)>;

fn add(
    all: &mut All,
    name: &str,
    own: &[(&str, &str)],
    more: &[(&str, &str)],
    mut value: impl FnMut(i64) -> Option<f64>,
) {
    let labels = Labels::new([(METRIC_NAME, name)].iter().chain(own).chain(more).copied());
    // Series are a few milliseconds apart, as scrapes are.
    let shift = i64::try_from(labels.to_string().len() % 7).expect("a small number");
    let at = |index: i64| Timestamp(START.0 + index * INTERVAL + shift);
    let samples = (0..COUNT).filter_map(|index| value(index).map(|value| Sample { at: at(index), value })).collect();
    all.push((labels, samples));
}

fn stale() -> f64 {
    f64::from_bits(STALE_MARKER_BITS)
}

fn gauges(all: &mut All, own: &[(&str, &str)], random: &mut Random) {
    for room in ["hall", "attic"] {
        let base = random.float() * 20.0;
        add(all, "temperature_celsius", own, &[("room", room)], |index| {
            let value = base + (index as f64 / 17.0).sin() * 5.0 + random.float();
            let is_gap = room == "attic" && (40..70).contains(&index);
            (!is_gap).then_some((value * 100.0).round() / 100.0)
        });
    }
    add(all, "queue_length", own, &[], |index| match index {
        90 => Some(stale()),
        91..=110 => None,
        _ => Some((random.float() * 10.0).floor()),
    });
    add(all, "limit_bytes", &own[1..], &[("of", own[0].1)], |_| Some(1e9));
}

fn counters(all: &mut All, own: &[(&str, &str)], random: &mut Random) {
    for code in ["200", "404", "500"] {
        let mut total = (random.float() * 100.0).floor();
        add(all, "requests_total", own, &[("code", code)], |index| {
            let is_reset = index == 60 || (index == 121 && code == "500");
            total = if is_reset { 0.0 } else { total + (random.float() * 30.0).floor() };
            Some(total)
        });
    }
    if own[0].1 != "d:1" {
        let mut total = 0.0;
        add(all, "errors_total", own, &[], |index| {
            total += if index % 7 == 0 { 1.0 } else { 0.0 };
            (index % 11 != 3).then_some(total)
        });
    }
    let mut seconds = 0.0;
    add(all, "cpu_seconds", own, &[], |_| {
        seconds += random.float() * 0.37;
        Some(seconds)
    });
}

fn histograms(all: &mut All, own: &[(&str, &str)], random: &mut Random) {
    const BOUNDS: [&str; 6] = ["0.1", "0.5", "1", "2.5", "10", "+Inf"];
    let mut counts = [0.0; BOUNDS.len()];
    let mut rows: Vec<[f64; BOUNDS.len()]> = Vec::new();
    for _ in 0..COUNT {
        let mut more = 0.0;
        for count in &mut counts {
            more += (random.float() * 6.0).floor();
            *count += more;
        }
        rows.push(counts);
    }
    let at = |index: i64| usize::try_from(index).expect("not negative");
    for (place, bound) in BOUNDS.iter().enumerate() {
        add(all, "latency_seconds_bucket", own, &[("le", bound)], |index| Some(rows[at(index)][place]));
    }
    add(all, "latency_seconds_count", own, &[], |index| Some(rows[at(index)][BOUNDS.len() - 1]));
    add(all, "latency_seconds_sum", own, &[], |index| Some(rows[at(index)][BOUNDS.len() - 1] * 0.7));
}

/// What is wrong, extreme or unusual.
fn odd_ones(all: &mut All, random: &mut Random) {
    let own = [("instance", "a:1"), ("job", "api")];
    for (bound, value) in [("1", 5.0), ("2", 3.0), ("x", 4.0), ("+Inf", 9.0)] {
        add(all, "odd_bucket", &own, &[("le", bound)], |index| Some(value * index as f64));
    }
    for (bound, value) in [("1", 5.0), ("2", 7.0)] {
        add(all, "open_bucket", &own, &[("le", bound)], |index| Some(value * index as f64));
    }
    let strange = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, 1e300, -1e300, 1e-300, -2.5, 3.0];
    for (kind, step) in [("one", 1), ("two", 2), ("many", 4)] {
        add(all, "strange", &[], &[("kind", kind)], |index| {
            Some(strange[usize::try_from(index * step).expect("not negative") % strange.len()])
        });
    }
    add(all, "nan_only", &[], &[], |_| Some(f64::NAN));
    add(all, "sparse", &own, &[], |index| (index % 37 == 5).then_some(index as f64));
    add(all, "constant", &[], &[], |_| Some(42.0));
    for mount in ["/", "/data", "/daten ü"] {
        let mut free = 1e6 + random.float() * 1e5;
        add(all, "disk.free bytes", &own, &[("mount/point", mount)], |_| {
            free -= random.float() * 100.0;
            Some(free.round())
        });
    }
    // The same labels but for the name, so that dropping names makes duplicates.
    add(all, "temperature_kelvin", &own, &[("room", "hall")], |index| Some(273.0 + index as f64));
}

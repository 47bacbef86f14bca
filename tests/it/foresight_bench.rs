//! Scores foresight on a fleet with known failures.
//!
//! `FORESTALL_FAILURE_DATA` names a folder (or several, separated by `:`) with
//! - `series.csv`: `timestamp` (unix seconds, regular) and a column for each component; empty where a sample is missing;
//! - `components.csv`: `component,metric,threshold,direction,step,lead_min,lead_max`, in seconds;
//! - `truth.csv`: `component,fail_time,end_time`.
//!
//! Rules: a component fires where P ≥ 0.5 has held for two cells. A notification is the start of firing, and then one every
//! min(4 h, `lead_max` / 2). It is a hit inside [T − `lead_max`, T − `lead_min`] of a failure at T; later is neutral; earlier is false
//! unless a hit of the same firing follows; in the last `lead_max` of the record it is undecided; all else is false.
//! The first 20 % of the span is warm-up.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a measurement for people: it prints, and stops at files of another shape"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forestall::forecast::{ChannelName, Limit, ModelChoice, Side, Watch, WatchSettings};
use forestall::model::{Millis, Timestamp};

/// From this calibrated probability on a component fires.
const FIRES_FROM: f64 = 0.5;

struct Component {
    name: String,
    limit: Limit,
    settings: Arc<WatchSettings>,
    lead_min: i64,
    lead_max: i64,
    values: Vec<Option<f64>>,
    /// Start and end of each failure.
    failures: Vec<(i64, i64)>,
}

struct Fleet {
    times: Vec<i64>,
    components: Vec<Component>,
    classes: BTreeMap<String, String>,
}

/// What one moment said, for calibration.
#[derive(Clone, Copy)]
struct Moment {
    raw: f64,
    probability: f64,
    /// Whether a breach began within the horizon.
    came: bool,
    /// The part of a horizon it stands for: moments of one horizon are one case, not many.
    weight: f64,
    /// The scores of the drift and the cycle channel.
    drift: f64,
    cycle: f64,
}

#[derive(Default)]
struct Score {
    failures: usize,
    hits: usize,
    early: usize,
    false_alarms: usize,
    component_days: f64,
    leads: Vec<f64>,
    moments: Vec<Moment>,
    eta_q10_kept: (usize, usize),
    eta_q50_kept: (usize, usize),
    /// By class: failures, hits, false alarms.
    classes: BTreeMap<String, (usize, usize, usize)>,
}

fn rows(folder: &Path, file: &str) -> Vec<Vec<String>> {
    let path = folder.join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

fn read_fleet(folder: &Path) -> Fleet {
    let mut failures: BTreeMap<String, Vec<(i64, i64)>> = BTreeMap::new();
    for row in rows(folder, "truth.csv") {
        failures.entry(row[0].clone()).or_default().push((row[1].parse().unwrap(), row[2].parse().unwrap()));
    }
    let series = rows(folder, "series.csv");
    let number = |row: &[String], column: usize| row[column].parse::<i64>().unwrap();
    let components = rows(folder, "components.csv").into_iter().enumerate().map(|(index, row)| {
        let (step, lead_min, lead_max) = (number(&row, 4), number(&row, 5), number(&row, 6));
        Component {
            name: row[0].clone(),
            limit: Limit { threshold: row[2].parse().unwrap(), warn: None },
            settings: Arc::new(WatchSettings {
                band: None,
                horizon: Millis::from_secs(lead_max),
                interval: Millis::from_secs(step),
                side: if row[3] == "above" { Side::Above } else { Side::Below },
                lasting: Millis::ZERO,
                seasons: Vec::new(),
                model: ModelChoice::Auto,
                actuation_time: Millis::from_secs(lead_min),
            }),
            lead_min,
            lead_max,
            values: series.iter().map(|row| row[index + 1].parse().ok()).collect(),
            failures: failures.get(&row[0]).cloned().unwrap_or_default(),
        }
    });
    let classes = if folder.join("classes.csv").exists() { rows(folder, "classes.csv") } else { Vec::new() };
    Fleet {
        times: series.iter().map(|row| row[0].parse().unwrap()).collect(),
        components: components.collect(),
        classes: classes.into_iter().map(|row| (row[0].clone(), row[1].clone())).collect(),
    }
}

/// Replays one component and adds to the score.
fn replay(component: &Component, times: &[i64], class: &str, score: &mut Score) {
    let mut watch = Watch::new(component.settings.clone(), 7);
    let step = component.settings.interval.0 / 1000;
    let cells = (component.lead_max / 96 + step / 2) / step * step;
    let hold = usize::try_from(cells / step + 1).unwrap();
    let (start, end) = (times[0], times[times.len() - 1]);
    let warm = start + (end - start) / 5;
    let mut held = 0;
    let mut firings: Vec<Vec<i64>> = Vec::new();
    let mut firing_before = false;
    for (time, value) in times.iter().zip(&component.values) {
        watch.push(Timestamp::from_secs(*time), *value, Some(component.limit));
        let foresight = watch.foresee(Timestamp::from_secs(*time));
        let probability = foresight.probability.unwrap_or(0.0);
        assert!(probability.is_finite() && foresight.depth.is_finite(), "{} at {time}: {foresight:?}", component.name);
        held = if probability >= FIRES_FROM && !foresight.breached { held + 1 } else { 0 };
        let firing = held >= hold;
        if firing && *time >= warm {
            let renotify = (4 * 3600).min(component.lead_max / 2);
            match firings.last_mut().filter(|_| firing_before) {
                Some(notes) if time - notes[notes.len() - 1] >= renotify => notes.push(*time),
                Some(_) => {}
                None => firings.push(vec![*time]),
            }
        }
        firing_before = firing && *time >= warm;
        let resolved = *time + component.lead_max <= end && *time >= warm;
        let clear = component.failures.iter().all(|(fail, over)| *time < *fail || *time > over + 7200);
        if resolved && clear && !foresight.breached {
            let raw = foresight.probability_raw.unwrap_or(0.0);
            let next = component
                .failures
                .iter()
                .map(|(fail, _)| fail - time)
                .filter(|lead| (0..=component.lead_max).contains(lead))
                .min();
            let of = |name: ChannelName| {
                foresight.channels.iter().find(|channel| channel.name == name).map_or(0.0, |channel| channel.score)
            };
            score.moments.push(Moment {
                raw,
                probability,
                came: next.is_some(),
                weight: step as f64 / component.lead_max as f64,
                drift: of(ChannelName::Drift),
                cycle: of(ChannelName::Cycle),
            });
            if let (Some(lead), true) = (next, firing) {
                let count = |eta: Option<Millis>, kept: &mut (usize, usize)| {
                    kept.0 += usize::from(eta.is_some_and(|eta| lead * 1000 >= eta.0));
                    kept.1 += usize::from(eta.is_some());
                };
                count(foresight.eta.q10, &mut score.eta_q10_kept);
                count(foresight.eta.q50, &mut score.eta_q50_kept);
            }
        }
    }
    score_firings(component, &firings, warm, end, class, score);
}

fn score_firings(component: &Component, firings: &[Vec<i64>], warm: i64, end: i64, class: &str, score: &mut Score) {
    let by_class = score.classes.entry(class.to_owned()).or_default();
    for (fail, _) in component.failures.iter().filter(|(fail, _)| *fail >= warm) {
        let within = fail - component.lead_max..=fail - component.lead_min;
        let first = firings.iter().flatten().filter(|at| within.contains(at)).min();
        score.failures += 1;
        by_class.0 += 1;
        if let Some(first) = first {
            score.hits += 1;
            by_class.1 += 1;
            score.leads.push((fail - first) as f64 / 3600.0);
            score.early += usize::from(fail - first >= component.lead_max / 4);
        }
    }
    let is_hit = |at: i64| {
        component.failures.iter().any(|(fail, _)| (fail - component.lead_max..=fail - component.lead_min).contains(&at))
    };
    let is_late =
        |at: i64| component.failures.iter().any(|(fail, over)| (fail - component.lead_min..=*over).contains(&at));
    for notes in firings {
        for (index, at) in notes.iter().enumerate() {
            let hit_follows = notes[index..].iter().any(|at| is_hit(*at));
            if !hit_follows && !is_late(*at) && *at + component.lead_max <= end {
                score.false_alarms += 1;
                by_class.2 += 1;
                println!(
                    "  false: {} {class} at {at}, next failure {:?}",
                    component.name,
                    component.failures.iter().map(|(fail, _)| fail - at).filter(|lead| *lead > 0).min()
                );
            }
        }
    }
    score.component_days += (end - warm) as f64 / 86_400.0;
}

/// Pool adjacent violators: ascending raw scores in, blocks of (lowest raw score, share that came, moments, cases) out.
fn isotonic(moments: &[Moment], score: fn(&Moment) -> f64) -> Vec<(f64, f64, f64, f64)> {
    let mut sorted = moments.to_vec();
    sorted.sort_by(|a, b| score(a).total_cmp(&score(b)));
    let mut blocks: Vec<(f64, f64, f64, f64)> = Vec::new();
    for moment in sorted {
        let fresh = (score(&moment), f64::from(u8::from(moment.came)), 1.0, moment.weight);
        match blocks.last_mut().filter(|block| (block.0 - fresh.0).abs() < 0.005) {
            Some(same) => merge(same, fresh),
            None => blocks.push(fresh),
        }
        while blocks.len() >= 2 && blocks[blocks.len() - 2].1 >= blocks[blocks.len() - 1].1 {
            let last = blocks.pop().unwrap();
            merge(blocks.last_mut().unwrap(), last);
        }
    }
    blocks
}

fn merge(block: &mut (f64, f64, f64, f64), other: (f64, f64, f64, f64)) {
    block.1 = (block.1 * block.2 + other.1 * other.2) / (block.2 + other.2);
    block.2 += other.2;
    block.3 += other.3;
}

fn report(name: &str, score: &mut Score) -> f64 {
    let ratio = |a: usize, b: usize| if b == 0 { 0.0 } else { a as f64 / b as f64 };
    let precision = ratio(score.hits, score.hits + score.false_alarms);
    let recall = ratio(score.hits, score.failures);
    let f1 = 2.0 * precision * recall / (precision + recall).max(1e-9);
    score.leads.sort_by(f64::total_cmp);
    let lead = score.leads.get(score.leads.len() / 2).copied().unwrap_or(0.0);
    println!(
        "{name}: F1 {f1:.3} precision {precision:.3} recall {recall:.3} ({} of {} failures)",
        score.hits, score.failures
    );
    println!(
        "  false {} = {:.4} a component-day; median lead {lead:.2} h; a quarter of the lead left {:.2}",
        score.false_alarms,
        score.false_alarms as f64 / score.component_days,
        ratio(score.early, score.failures)
    );
    let count = score.moments.len() as f64;
    let base = score.moments.iter().filter(|moment| moment.came).count() as f64 / count;
    let came = |moment: &Moment| f64::from(u8::from(moment.came));
    let brier = |of: fn(&Moment) -> f64| {
        score.moments.iter().map(|moment| (of(moment) - came(moment)).powi(2)).sum::<f64>() / count
    };
    let skill = |of: fn(&Moment) -> f64| 1.0 - brier(of) / (base * (1.0 - base));
    println!(
        "  Brier skill raw {:.3} calibrated {:.3}; base rate {base:.3}; calibration error {:.4}",
        skill(|m| m.raw),
        skill(|m| m.probability),
        calibration_error(&score.moments)
    );
    println!(
        "  breach not before eta q10: {:.2} of {}; q50: {:.2}",
        ratio(score.eta_q10_kept.0, score.eta_q10_kept.1),
        score.eta_q10_kept.1,
        ratio(score.eta_q50_kept.0, score.eta_q50_kept.1)
    );
    for (class, (failures, hits, false_alarms)) in &score.classes {
        println!("  {class:20} failures {failures:3} hits {hits:3} false {false_alarms:3}");
    }
    f1
}

/// Mean distance of the forecast probability from the share that came true, over ten bins.
fn calibration_error(moments: &[Moment]) -> f64 {
    let mut bins = [(0.0, 0.0, 0.0); 10];
    for moment in moments {
        let bin = &mut bins[((moment.probability * 10.0) as usize).min(9)];
        *bin = (bin.0 + moment.probability, bin.1 + f64::from(u8::from(moment.came)), bin.2 + 1.0);
    }
    bins.iter().map(|(expected, came, _)| (expected - came).abs()).sum::<f64>() / moments.len() as f64
}

#[test]
fn foresees_the_failures_of_the_benchmark_fleets() {
    #[expect(
        clippy::disallowed_methods,
        reason = "the data is not part of the project: only who has it can name its place"
    )]
    let Ok(folders) = std::env::var("FORESTALL_FAILURE_DATA") else {
        println!("skipped: FORESTALL_FAILURE_DATA names no folder with series.csv, components.csv and truth.csv");
        return;
    };
    let mut all = Vec::new();
    for folder in folders.split(':').map(PathBuf::from) {
        let fleet = read_fleet(&folder);
        let mut score = Score::default();
        for component in &fleet.components {
            let class = fleet.classes.get(&component.name).map_or("", String::as_str);
            replay(component, &fleet.times, class, &mut score);
        }
        let f1 = report(&folder.display().to_string(), &mut score);
        all.append(&mut score.moments);
        assert!(f1 > 0.5, "{}: F1 {f1}", folder.display());
    }
    print_map("drift", &all, |moment| moment.drift);
    print_map("cycle", &all, |moment| moment.cycle);
}

fn print_map(channel: &str, moments: &[Moment], score: fn(&Moment) -> f64) {
    println!("isotonic map of the {channel} channel: from score, share that came, moments, horizons");
    for (from, share, moments, horizons) in isotonic(moments, score) {
        println!("  {from:.3} {share:.3} {moments} {horizons:.1}");
    }
}

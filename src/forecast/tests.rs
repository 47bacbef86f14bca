//! Shapes that end in a breach are foreseen; shapes that only look like it are not; nonsense does no harm.

#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small positive numbers")]

use std::f64::consts::TAU;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;

/// Reproducible noise: the same for the same seed and index, about standard normal.
fn noise(seed: u64, index: i64) -> f64 {
    let index = u64::try_from(index).expect("indices are not negative");
    let mut sum = 0.0;
    for part in 0..4u64 {
        let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ index.wrapping_mul(0xd134_2543_de82_ef95) ^ (part << 56);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        sum += ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64 - 0.5;
    }
    sum * 3f64.sqrt()
}

fn settings(horizon: Millis, interval: Millis) -> WatchSettings {
    WatchSettings {
        band: None,
        horizon,
        interval,
        side: Side::Above,
        lasting: Millis::ZERO,
        seasons: Vec::new(),
        model: ModelChoice::Auto,
        actuation_time: Millis::ZERO,
        floor: None,
        ceiling: None,
        calendar: Arc::default(),
    }
}

/// A day ahead, each minute, six hours ahead, each second: the horizons that people use.
fn scales() -> [WatchSettings; 4] {
    [
        settings(Millis::DAY, Millis::MINUTE * 15),
        settings(Millis::HOUR * 6, Millis::MINUTE * 2),
        settings(Millis::HOUR, Millis::MINUTE),
        settings(Millis::MINUTE * 3, Millis::SECOND),
    ]
}

/// Fits what is due, as a pass does, and looks ahead.
fn foresee(watch: &mut Watch, now: Timestamp) -> Foresight {
    if watch.wants_refit(None) {
        watch.refit(None);
    }
    watch.foresee(now, &Calibration::prior())
}

const ABOVE_1: Option<Limit> = Some(Limit { threshold: 1.0, warn: None });

/// Pushes `value(horizons since the start, index)` until `horizons` are over; returns what was foreseen each interval.
fn foresights(settings: &WatchSettings, horizons: f64, value: impl Fn(f64, i64) -> Option<f64>) -> Vec<Foresight> {
    let mut watch = Watch::new(Arc::new(settings.clone()), 1);
    let count = (horizons * settings.horizon.0 as f64 / settings.interval.0 as f64) as i64;
    // Midnight, so that a day is a day.
    let start = Timestamp::from_secs(1_767_225_600);
    (0..count)
        .map(|index| {
            let now = start + settings.interval * index;
            let passed = (settings.interval * index).0 as f64 / settings.horizon.0 as f64;
            watch.push(now, value(passed, index), ABOVE_1);
            foresee(&mut watch, now)
        })
        .collect()
}

/// No moment after `from` horizons may speak of a breach.
fn check_silent(name: &str, settings: &WatchSettings, horizons: f64, from: f64, value: impl Fn(f64, i64) -> f64) {
    let all = foresights(settings, horizons, |passed, index| Some(value(passed, index)));
    let skip = (from * settings.horizon.0 as f64 / settings.interval.0 as f64) as usize;
    for foresight in &all[skip..] {
        let probability = foresight.probability.unwrap_or(0.0);
        assert!(
            probability < 0.5,
            "{name}, horizon {}: {probability} at {}: {:#?}",
            settings.horizon,
            foresight.at,
            foresight.channels
        );
    }
}

#[test]
fn a_leak_is_foreseen_with_a_time_that_runs_down() {
    for settings in scales() {
        // From 0.3 it needs 2.5 horizons; noise of half a percent. Where that is within a day, a calm day comes first: on
        // its first day a rise over hours may be the day's own.
        let calm = if settings.horizon == Millis::HOUR * 6 { 4.0 } else { 0.0 };
        let leak = |passed: f64, index| Some(0.3 + 0.28 * (passed - calm).max(0.0) + 0.005 * noise(3, index));
        let all = foresights(&settings, calm + 2.45, leak);
        let breach = all[0].at + Millis((settings.horizon.0 as f64 * (calm + 2.5)) as i64);
        for share in [0.3, 0.45, 0.6] {
            let at = breach - Millis((settings.horizon.0 as f64 * share) as i64);
            let foresight = all.iter().find(|foresight| foresight.at >= at).expect("in the run");
            assert!(
                foresight.probability >= Some(0.6),
                "{}, {share} ahead: {:#?}",
                settings.horizon,
                foresight.channels
            );
            assert!(foresight.probability_low >= Some(0.5) && foresight.depth >= 0.5, "{foresight:?}");
            let (q10, q50) = (foresight.eta.q10.expect("P is high"), foresight.eta.q50.expect("P is high"));
            let error = (q50.0 as f64 - share * settings.horizon.0 as f64).abs() / settings.horizon.0 as f64;
            assert!(error < 0.12 && q10 <= q50, "{}, {share} ahead: {q10} {q50}", settings.horizon);
        }
    }
}

#[test]
fn a_leak_towards_a_lower_limit_is_foreseen_alike() {
    let settings = WatchSettings { side: Side::Below, ..settings(Millis::HOUR * 6, Millis::MINUTE) };
    let mut watch = Watch::new(Arc::new(settings), 1);
    let mut last = None;
    for minute in 0..1440 + 600i64 {
        // After a calm day free space falls from 0.9 to 0.03 within 700 minutes.
        let free = 0.9 - 0.87 * (minute - 1440).max(0) as f64 / 700.0 + 0.003 * noise(5, minute);
        let at = Timestamp::from_secs(1_767_225_600 + minute * 60);
        watch.push(at, Some(free), Some(Limit { threshold: 0.03, warn: Some(0.1) }));
        last = Some(foresee(&mut watch, at));
    }
    let last = last.expect("pushed");
    assert!(last.probability >= Some(0.6), "{last:#?}");
    assert!(last.peak_q90.expect("known") < 0.05, "the worst value is a low one: {:?}", last.peak_q90);
    let path = last.path.expect("known");
    let (low, high) = (path.level(0.1).expect("a level"), path.level(0.9).expect("a level"));
    assert!(low.iter().zip(high).all(|(low, high)| low <= high), "{path:?}");
    assert!(last.channels[0].because.starts_with("falls 0.07"), "{}", last.channels[0].because);
}

#[test]
fn a_young_ramp_on_second_data_is_foreseen_half_a_minute_ahead() {
    // 60 s of calm, then a leak to the threshold within 90 s.
    let settings = settings(Millis::MINUTE * 2, Millis::SECOND);
    let value = |_, second: i64| Some(0.3 + 0.7 * (second - 60).max(0) as f64 / 90.0 + 0.004 * noise(9, second));
    let all = foresights(&settings, 1.2, value);
    let foreseen =
        all.windows(3).position(|three| three.iter().all(|one| one.probability >= Some(0.6))).expect("foreseen");
    assert!(foreseen + 2 <= 150 - 30, "foreseen only {} s ahead", 150 - foreseen - 2);
}

#[test]
fn healthy_shapes_stay_silent_once_they_are_known() {
    for settings in scales() {
        check_silent("constant", &settings, 4.0, 0.0, |_, _| 0.97);
        check_silent("noisy but flat", &settings, 5.0, 0.5, |_, index| 0.85 + 0.02 * noise(1, index));
        check_silent("level shift", &settings, 4.0, 0.5, |passed, index| {
            0.3 + if passed > 2.0 { 0.55 } else { 0.0 } + 0.01 * noise(2, index)
        });
        // A sawtooth of a third of a horizon between 0.3 and 0.9; its first two teeth are unknown.
        check_silent("garbage collection", &settings, 6.0, 0.7, |passed, index| {
            0.3 + 0.6 * (passed * 3.0).fract() + 0.01 * noise(4, index)
        });
        check_silent("cache that warms up", &settings, 5.0, 0.5, |passed, index| {
            0.9 - 0.6 * (-passed / 0.5).exp() + 0.004 * noise(6, index)
        });
    }
}

/// A day between 0.35 and `top`, highest in the evening.
fn daily(settings: &WatchSettings, index: i64, top: f64) -> f64 {
    let day = (settings.interval * index).0 as f64 / Millis::DAY.0 as f64;
    0.35 + (top - 0.35) * (0.5 - 0.5 * (TAU * (day - 0.3)).cos()).powi(2) + 0.006 * noise(8, index)
}

#[test]
fn days_below_the_threshold_are_nothing_new_from_the_second_on() {
    for settings in [
        settings(Millis::DAY, Millis::MINUTE * 15),
        settings(Millis::HOUR * 6, Millis::MINUTE * 2),
        settings(Millis::HOUR, Millis::MINUTE),
    ] {
        let day = Millis::DAY.0 as f64 / settings.horizon.0 as f64;
        check_silent("daily season", &settings, 5.0 * day, 1.2 * day, |_, index| daily(&settings, index, 0.9));
    }
}

#[test]
fn a_daily_peak_that_grows_into_the_threshold_is_foreseen() {
    for (settings, least) in [
        (settings(Millis::DAY, Millis::MINUTE * 15), Millis::HOUR * 6),
        (settings(Millis::HOUR * 6, Millis::MINUTE * 2), Millis::HOUR * 2),
        (settings(Millis::HOUR, Millis::MINUTE), Millis::MINUTE * 20),
    ] {
        let day = Millis::DAY.0 as f64 / settings.horizon.0 as f64;
        // Peaks of 0.83, 0.88, 0.93, 0.97, 1.02: the breach is clear, and early.
        let top = |index: i64| 0.83 + 0.05 * (settings.interval * index).0 as f64 / Millis::DAY.0 as f64;
        let all = foresights(&settings, 5.0 * day, |_, index| Some(daily(&settings, index, top(index))));
        let breach = all.iter().find(|one| one.breached).expect("it breaches").at;
        let since =
            all.iter().rev().skip_while(|one| one.at >= breach).take_while(|one| one.probability >= Some(0.6)).last();
        let lead = since.map_or(Millis::ZERO, |one| breach - one.at);
        assert!(lead >= least, "horizon {}: foreseen {lead} ahead, breach at {breach}", settings.horizon);
    }
}

#[test]
fn a_nightly_batch_is_nothing_new_from_the_second_night_on() {
    for settings in [settings(Millis::HOUR * 6, Millis::MINUTE * 2), settings(Millis::HOUR, Millis::MINUTE)] {
        let day = Millis::DAY.0 as f64 / settings.horizon.0 as f64;
        check_silent("nightly batch", &settings, 4.0 * day, 1.2 * day, |_, index| {
            let hour = ((settings.interval * index).0 as f64 / Millis::HOUR.0 as f64) % 24.0;
            // Up within twenty minutes at two o'clock, down at three.
            let batch = if (2.0..3.0).contains(&hour) { ((hour - 2.0) * 3.0).min(1.0) } else { 0.0 };
            0.25 + 0.6 * batch + 0.01 * noise(31, index)
        });
    }
}

/// After two calm days the shape begins, and grows to the threshold within two horizons; it must be foreseen a quarter of
/// a horizon ahead, and go on being foreseen.
fn check_foreseen(name: &str, shape: impl Fn(f64) -> f64) {
    for settings in [settings(Millis::HOUR * 6, Millis::MINUTE * 2), settings(Millis::HOUR, Millis::MINUTE)] {
        let days = 2.0 * Millis::DAY.0 as f64 / settings.horizon.0 as f64;
        let value = |passed: f64, index: i64| {
            let grown = ((passed - days) / 2.0).clamp(0.0, 1.2);
            Some(daily(&settings, index, 0.5) + 0.65 * shape(grown))
        };
        let all = foresights(&settings, days + 2.4, value);
        let breach = all.iter().find(|one| one.breached).expect("it breaches").at;
        let since =
            all.iter().rev().skip_while(|one| one.at >= breach).take_while(|one| one.probability >= Some(0.6)).last();
        let lead = since.map_or(Millis::ZERO, |one| breach - one.at);
        assert!(lead >= settings.horizon / 4, "{name}, horizon {}: {lead} ahead", settings.horizon);
    }
}

#[test]
fn what_never_happened_before_is_foreseen_on_top_of_a_daily_season() {
    check_foreseen("memory leak", |grown| grown);
    check_foreseen("queue backlog", |grown| grown.powi(2));
    check_foreseen("latency creep", |grown| (8f64.powf(grown) - 1.0) / 7.0);
    check_foreseen("disk fill in bursts", |grown| grown + 0.02 * (TAU * 6.0 * grown).sin());
}

#[test]
fn in_breach_now_is_certain_once_it_has_lasted() {
    let settings = WatchSettings { lasting: Millis::MINUTE * 5, ..settings(Millis::HOUR, Millis::MINUTE) };
    let all = foresights(&settings, 2.0, |_, minute| Some(if minute >= 100 { 1.2 } else { 0.5 }));
    assert!(!all[104].breached && all[105].breached);
    assert_eq!((all[105].probability, all[105].depth, all[105].eta.q50), (Some(1.0), 1.0, Some(Millis::ZERO)));
    // A breach is told even before anything is learned.
    let young = foresights(&settings, 0.2, |_, _| Some(1.2));
    assert_eq!(young[5].probability, Some(1.0));
}

#[test]
fn says_when_it_does_not_know() {
    let settings = settings(Millis::HOUR, Millis::MINUTE);
    let all = foresights(&settings, 1.5, |_, minute| (minute < 60).then_some(0.5));
    assert!(matches!(all[10].knowledge, Knowledge::Learning { .. }), "{:?}", all[10]);
    assert_eq!(all[59].knowledge, Knowledge::Known);
    assert_eq!(all[61].knowledge, Knowledge::Known, "two intervals old at most");
    assert!(
        matches!(&all[62].knowledge, Knowledge::Unknown { why } if why == "the newest value is 3 min old"),
        "{:?}",
        all[62]
    );
    assert_eq!((all[62].probability, &all[62].path), (None, &None));
}

/// Load that grows towards the threshold, and an action at minute 100 that divides it by `relief`.
fn after_an_action(relief: f64) -> Vec<Option<f64>> {
    let mut watch = Watch::new(Arc::new(settings(Millis::HOUR, Millis::MINUTE)), 1);
    let mut after = Vec::new();
    for minute in 0..125i64 {
        let at = Timestamp::from_secs(1_767_225_600 + minute * 60);
        let load = 0.4 + 0.0045 * minute as f64 + 0.002 * noise(41, minute);
        watch.push(at, Some(if minute > 101 { load / relief } else { load }), ABOVE_1);
        let probability = foresee(&mut watch, at).probability;
        if minute == 100 {
            assert!(probability >= Some(0.6));
            watch.start_regime(at, RegimeStart::OwnAction);
        }
        if minute > 102 {
            after.push(probability);
        }
    }
    after
}

#[test]
fn our_own_action_starts_a_new_regime() {
    let after = after_an_action(2.0);
    assert!(after.iter().all(|probability| *probability < Some(0.5)), "{after:?}");
}

#[test]
fn an_action_that_achieves_nothing_does_not_look_like_one_that_did() {
    let after = after_an_action(1.0);
    assert!(after.iter().all(|probability| *probability >= Some(0.6)), "{after:?}");
}

#[test]
fn a_threshold_that_moves_with_the_signal_is_followed() {
    // Memory grows, and its limit is doubled half way: no breach in sight afterwards.
    let settings = settings(Millis::HOUR, Millis::MINUTE);
    let mut watch = Watch::new(Arc::new(settings), 1);
    let mut last = (None, None);
    for minute in 0..160i64 {
        let at = Timestamp::from_secs(1_767_225_600 + minute * 60);
        let limit = if minute < 100 { 1e9 } else { 4e9 };
        watch.push(at, Some(4e8 + 5e6 * minute as f64), Some(Limit { threshold: limit, warn: None }));
        let probability = foresee(&mut watch, at).probability;
        if minute == 99 {
            last.0 = probability;
        }
        last.1 = probability;
    }
    assert!(last.0 >= Some(0.6) && last.1 < Some(0.5), "{last:?}");
}

#[test]
fn the_interval_of_a_horizon_ago_covers_calm_and_not_a_jump() {
    let settings = settings(Millis::HOUR * 6, Millis::MINUTE);
    let all = foresights(&settings, 8.0, |passed, index| {
        Some(0.4 + 0.02 * noise(12, index) + if passed > 7.0 { 0.3 } else { 0.0 })
    });
    let outside = |from: usize, to: usize| {
        let known: Vec<bool> = all[from..to].iter().filter_map(|one| one.outside_interval).collect();
        known.iter().filter(|outside| **outside).count() as f64 / known.len().max(1) as f64
    };
    assert!(outside(1500, 2500) < 0.15, "{}", outside(1500, 2500));
    assert!(outside(2540, 2800) > 0.8, "{}", outside(2540, 2800));
}

#[test]
fn a_band_says_what_is_normal() {
    let jump = |passed: f64, index: i64| Some(0.4 + 0.02 * noise(12, index) + if passed > 7.0 { 0.3 } else { 0.0 });
    for (min_abs, expected) in [(0.5, false), (0.1, true)] {
        let band = Some(Band { deviation: 1.0, min_abs });
        let settings = WatchSettings { band, ..settings(Millis::HOUR * 6, Millis::MINUTE) };
        let all = foresights(&settings, 8.0, jump);
        assert_eq!(all[2600].outside_interval, Some(expected), "{min_abs}");
    }
}

#[test]
fn every_model_can_be_chosen() {
    for (choice, name) in [
        (ModelChoice::Level, "level"),
        (ModelChoice::Drift, "drift"),
        (ModelChoice::Damped, "damped"),
        (ModelChoice::SeasonalNaive, "seasonal-naive"),
        (ModelChoice::Ets, "ets"),
        (ModelChoice::Mstl, "mstl"),
    ] {
        let settings = WatchSettings { model: choice, ..settings(Millis::DAY, Millis::MINUTE * 15) };
        let all = foresights(&settings, 4.5, |_, index| Some(daily(&settings, index, 0.9)));
        assert_eq!(all.last().expect("pushed").model, name);
    }
}

#[test]
fn the_seasonal_fan_follows_the_day() {
    let settings = settings(Millis::DAY, Millis::MINUTE * 15);
    let all = foresights(&settings, 5.0, |_, index| Some(daily(&settings, index, 0.9)));
    let path = all.last().and_then(|one| one.path.clone()).expect("known");
    let median = path.level(0.5).expect("a level");
    let index = |step: usize| (5 * 96) + step as i64 * 2 + 1;
    let error = median
        .iter()
        .enumerate()
        .map(|(step, value)| (value - daily(&settings, index(step), 0.9)).abs())
        .fold(0.0, f64::max);
    assert!(error < 0.08, "{error}");
}

#[test]
fn the_same_values_give_the_same_answer() {
    let settings = settings(Millis::HOUR, Millis::MINUTE);
    let value = |minute: i64| Some(0.4 + 0.003 * minute as f64 + 0.01 * noise(21, minute));
    let replay = || foresights(&settings, 3.0, |_, minute| value(minute));
    assert_eq!(replay(), replay());
}

/// Values that a metric can have and no model expects.
fn strange() -> impl Strategy<Value = Option<f64>> {
    prop_oneof![
        Just(None),
        Just(Some(f64::NAN)),
        Just(Some(f64::INFINITY)),
        Just(Some(1e300)),
        Just(Some(-1e300)),
        Just(Some(-0.0)),
        Just(Some(f64::MIN_POSITIVE)),
        (-2.0..2.0).prop_map(Some),
        (-1e12..1e12).prop_map(Some),
    ]
}

fn strange_limit() -> impl Strategy<Value = Option<Limit>> {
    let number = || prop_oneof![Just(0.0), Just(-3.0), Just(f64::NAN), Just(1e300), Just(1e-300), -2.0..2.0];
    prop_oneof![
        Just(None),
        (number(), prop_oneof![Just(None), number().prop_map(Some)])
            .prop_map(|(threshold, warn)| Some(Limit { threshold, warn }))
    ]
}

fn assert_sane(foresight: &Foresight) {
    let text = serde_json::to_value(foresight).expect("plain data");
    // JSON has no NaN: a number that is none is written null where a number must be.
    let shares = [foresight.probability, foresight.probability_low, foresight.probability_raw];
    assert!(shares.iter().flatten().all(|share| (0.0..=1.0).contains(share)), "{text}");
    assert!((0.0..=1.0).contains(&foresight.depth), "{text}");
    assert!(foresight.peak_q90.is_none_or(f64::is_finite), "{text}");
    assert!(foresight.channels.iter().all(|channel| (0.0..=1.0).contains(&channel.score)), "{text}");
    if let Some(path) = &foresight.path {
        assert!(path.values.iter().flatten().all(|value| value.is_finite()), "{text}");
        assert!(path.values.windows(2).all(|two| two[0].iter().zip(&two[1]).all(|(low, high)| low <= high)), "{text}");
    }
}

/// Two days of a value a minute under a threshold of 1, six hours ahead.
fn check_sane(name: &str, value: impl Fn(i64) -> Option<f64>) {
    let mut watch = Watch::new(Arc::new(settings(Millis::HOUR * 6, Millis::MINUTE)), 1);
    for minute in 0..2880 {
        let at = Timestamp::from_secs(1_767_225_600 + minute * 60);
        watch.push(at, value(minute), ABOVE_1);
        if minute % 7 == 0 {
            let foresight = watch.foresee(at, &Calibration::prior());
            assert!(!format!("{foresight:?}").contains("NaN"), "{name} at {minute}: {foresight:?}");
            assert_sane(&foresight);
        }
    }
}

#[test]
fn degenerate_histories_give_numbers_or_nothing() {
    check_sane("constant", |_| Some(0.5));
    check_sane("zero, either sign", |minute| Some(if minute % 2 == 0 { 0.0 } else { -0.0 }));
    check_sane("two points", |minute| (minute < 2).then_some(0.4));
    check_sane("never a number", |_| Some(f64::NAN));
    check_sane("huge gaps", |minute| (minute % 900 < 5).then_some(0.5));
    check_sane("huge values", |minute| Some(if minute % 3 == 0 { 1e300 } else { -1e300 }));
    check_sane("a step every hour", |minute| Some(((minute / 60) % 10) as f64 / 11.0));
    check_sane("exactly the threshold", |_| Some(1.0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn strange_values_give_a_forecast_or_a_refusal(
        runs in prop::collection::vec((strange(), 1i64..60, 1i64..2000, strange_limit()), 1..12),
        below in any::<bool>(),
        horizon in 1i64..2000,
        interval in 1i64..120,
    ) {
        let side = if below { Side::Below } else { Side::Above };
        let settings = WatchSettings { side, ..settings(Millis::from_secs(horizon), Millis::from_secs(interval)) };
        let mut watch = Watch::new(Arc::new(settings), 3);
        let mut at = Timestamp(0);
        for (value, length, gap, limit) in runs {
            at = at + Millis::from_secs(gap);
            for index in 0..length {
                at = at + Millis::from_secs(interval);
                // A little movement, so that not all is constant.
                watch.push(at, value.map(|value| value * (1.0 + 0.01 * noise(7, index))), limit);
                assert_sane(&foresee(&mut watch, at));
            }
        }
    }
}

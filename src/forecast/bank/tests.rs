//! Tests of the bank as a whole.

use proptest::prelude::*;

use super::*;

const DAY: usize = 24;
const WEEK: usize = 168;
const STEPS: usize = 48;

fn settings(size: BankSize) -> BankSettings {
    BankSettings { steps: STEPS, seasons: vec![DAY, WEEK], size, model: None, floor: None, ceiling: None }
}

/// Noise of deviation 1, about: the sum of twelve uniform numbers (an LCG's), less 6.
pub(super) fn noise(count: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    (0..count).map(|_| (0..12).map(|_| uniform()).sum::<f64>() - 6.0).collect()
}

/// A day and a week around 100, with noise.
fn daily(count: usize, seed: u64) -> Vec<f64> {
    let wave = |i: usize, season: usize| (2.0 * std::f64::consts::PI * i as f64 / season as f64).sin();
    noise(count, seed)
        .into_iter()
        .enumerate()
        .map(|(i, e)| 100.0 + 20.0 * wave(i, DAY) + 5.0 * wave(i, WEEK) + e)
        .collect()
}

fn fitted(values: &[f64]) -> Bank {
    Bank::fit(settings(BankSize::Full), 1000, values).expect("a history of numbers can be fitted")
}

fn mean_miss(forecast: &[f64], truth: &[f64]) -> f64 {
    forecast.iter().zip(truth).map(|(a, b)| (a - b).abs()).sum::<f64>() / truth.len() as f64
}

/// All that a bank holds, exactly: floats are written so that they come back bit by bit.
fn state(bank: &Bank) -> String {
    serde_json::to_string(bank).expect("a bank can be written")
}

#[test]
fn a_replay_with_the_same_header_equals_the_stream_bit_by_bit() {
    let values = daily(800, 1);
    for size in [BankSize::Full, BankSize::Lite] {
        let mut streamed = Bank::fit(settings(size), 7, &values[..600]).expect("numbers");
        for value in &values[600..] {
            streamed.push(Some(*value));
            // Asking changes nothing.
            streamed.forecast();
        }
        let header = streamed.header.clone();
        let mut replayed = Bank::replay(settings(size), header, &values, Adaption::new());
        replayed.refit_due = streamed.refit_due;
        // The room that was reserved is the only difference, and is not part of the state.
        assert_eq!(state(&replayed), state(&streamed), "{size:?}");
    }
}

#[test]
fn the_future_does_not_leak_into_stored_paths() {
    let values = daily(700, 2);
    let bank = fitted(&values);
    let changed_at = 640;
    let mut changed = values.clone();
    changed[changed_at..].iter_mut().for_each(|value| *value = *value * 1.7 + 3.0);
    let other = Bank::replay(settings(BankSize::Full), bank.header.clone(), &changed, Adaption::new());
    let paths = |bank: &Bank| -> Vec<(i64, Vec<u32>)> {
        let before = bank.record.origins.iter().filter(|origin| origin.at <= 1000 + 640);
        before.map(|origin| (origin.at, origin.path.iter().map(|value| value.to_bits()).collect())).collect()
    };
    assert!(paths(&bank).len() > 20, "there are forecasts from before the change");
    assert_eq!(paths(&bank), paths(&other));
}

#[test]
fn a_snapshot_continues_bit_by_bit() {
    let values = daily(700, 3);
    let mut bank = fitted(&values[..600]);
    let mut restored: Bank = serde_json::from_str(&state(&bank)).expect("what was written can be read");
    for value in &values[600..] {
        bank.push(Some(*value));
        restored.push(Some(*value));
    }
    assert_eq!(state(&bank), state(&restored));
    assert_eq!(bank.forecast().median, restored.forecast().median);
}

#[test]
fn daily_and_weekly_seasons_are_forecast_within_the_noise() {
    let values = daily(700 + STEPS, 4);
    let (history, truth) = values.split_at(700);
    for (size, worst) in [(BankSize::Full, 1.0), (BankSize::Lite, 1.3)] {
        let bank = Bank::fit(settings(size), 0, history).expect("numbers");
        let forecast = bank.forecast();
        // The mean of |noise| is 0.8.
        let miss = mean_miss(&forecast.median, truth);
        assert!(miss < worst, "{size:?}: {miss}");
        let (low, high) = (forecast.quantile(0.025), forecast.quantile(0.975));
        let inside = (0..STEPS).filter(|step| low[*step] <= truth[*step] && truth[*step] <= high[*step]).count();
        assert!(inside >= 44, "{size:?}: {inside} of {STEPS} are inside");
        assert!(high[0] - low[0] < 8.0, "the interval is not far wider than the noise: {} to {}", low[0], high[0]);
    }
}

#[test]
fn intervals_told_along_a_stream_hold() {
    let values = daily(1600, 5);
    let mut bank = fitted(&values[..600]);
    values[600..].iter().for_each(|value| bank.push(Some(*value)));
    let coverage = bank.coverage().expect("forecasts have ended");
    assert!((0.93..=0.98).contains(&coverage), "{coverage}");
    assert!(!bank.is_unsettled());
    let total: f64 = bank.members().iter().map(|(_, weight)| weight).sum();
    assert!((total - 1.0).abs() < 1e-9, "weights add up to {total}");
}

#[test]
fn futures_scatter_as_the_intervals_say() {
    let values = daily(900, 6);
    let bank = fitted(&values);
    let forecast = bank.forecast();
    let futures = bank.futures(&forecast);
    assert!((20..=32).contains(&futures.len()), "{} futures", futures.len());
    let (low, high) = (forecast.quantile(0.025), forecast.quantile(0.975));
    let points = futures.len() * STEPS;
    let outside = futures.iter().flat_map(|path| (0..STEPS).map(move |step| (step, path[step])));
    let outside = outside.filter(|(step, value)| *value < low[*step] || high[*step] < *value).count();
    assert!(outside * 100 <= points * 8, "{outside} of {points} are outside of a 95 % interval");
}

#[test]
fn a_level_shift_is_followed_once_it_is_certain() {
    let mut values = noise(700 + STEPS, 7);
    values[690..].iter_mut().for_each(|value| *value += 20.0);
    let mut bank = fitted(&values[..680]);
    let mut refits = 0;
    for value in &values[680..700] {
        bank.push(Some(*value));
        if bank.needs_refit() {
            assert!(bank.is_unsettled());
            bank.refit();
            refits += 1;
        }
    }
    let miss = mean_miss(&bank.forecast().median, &values[700..]);
    assert!((1..=3).contains(&refits) && miss < 1.2, "{refits} refits, mean miss {miss}");
    assert!(bank.is_unsettled(), "a shift may be an outage that ends");
}

#[test]
fn noise_and_seasons_are_no_level_shift() {
    for seed in 0..5 {
        let values = daily(1100, 100 + seed);
        let mut bank = fitted(&values[..600]);
        for value in &values[600..] {
            bank.push(Some(*value));
            assert!(!bank.needs_refit(), "seed {seed}");
        }
    }
}

#[test]
fn a_told_regime_takes_its_first_values_as_its_level() {
    let values = daily(700 + STEPS, 8);
    let after = |i: usize| values[i] - 60.0;
    let mut bank = fitted(&values[..660]);
    bank.start_regime();
    assert!(bank.is_unsettled());
    for i in 660..668 {
        bank.push(Some(after(i)));
        if bank.needs_refit() {
            bank.refit();
        }
    }
    let truth: Vec<f64> = (668..668 + STEPS).map(after).collect();
    let miss = mean_miss(&bank.forecast().median, &truth);
    assert!(miss < 2.0, "mean miss {miss}");
}

#[test]
fn a_ramp_that_never_happened_is_followed() {
    let mut values = noise(700 + STEPS, 9);
    values.iter_mut().enumerate().skip(600).for_each(|(i, value)| *value += (i - 600) as f64 * 0.5);
    let bank = fitted(&values[..700]);
    let miss = mean_miss(&bank.forecast().median, &values[700..]);
    assert!(miss < 3.0, "mean miss {miss}: flat would be 12");
}

#[test]
fn gaps_are_bridged_and_a_long_one_asks_for_a_refit() {
    let values = daily(760, 10);
    let mut bank = fitted(&values[..600]);
    (600..610).for_each(|_| bank.push(None));
    values[610..650].iter().for_each(|value| bank.push(Some(*value)));
    assert!(!bank.needs_refit(), "ten steps are not a day");
    assert!(mean_miss(&bank.forecast().median, &values[650..698]) < 1.2);
    (650..680).for_each(|_| bank.push(Some(f64::NAN)));
    bank.push(Some(values[680]));
    assert!(bank.needs_refit() && bank.is_unsettled());
    bank.refit();
    assert!(!bank.needs_refit() && bank.refits() == 1);
    assert!(mean_miss(&bank.forecast().median, &values[681..729]) < 1.3);
}

#[test]
fn what_the_scale_cannot_hold_asks_for_a_refit() {
    for value in [-5.0, 1e9, -1e300] {
        let mut bank = fitted(&daily(600, 11));
        bank.push(Some(value));
        assert!(bank.needs_refit(), "{value}");
        bank.refit();
        assert!(!bank.needs_refit(), "{value}");
        assert!(bank.forecast().quantile(0.9).iter().all(|value| value.is_finite()), "{value}");
    }
}

#[test]
fn seasons_are_taken_up_once_there_is_room_for_them() {
    let values = daily(500, 12);
    let mut bank = fitted(&values[..40]);
    assert!(bank.seasons().is_empty() && bank.is_unsettled());
    for value in &values[40..] {
        bank.push(Some(*value));
        if bank.needs_refit() {
            bank.refit();
        }
    }
    assert_eq!(bank.seasons(), [DAY, WEEK]);
    assert!(bank.refits() <= 8, "{} refits", bank.refits());
}

#[test]
fn memory_stays_within_its_bounds() {
    for (size, most) in [(BankSize::Full, 65_000), (BankSize::Lite, 45_000)] {
        let values = daily(1200, 13);
        let mut bank = Bank::fit(settings(size), 0, &values[..960]).expect("numbers");
        assert!(bank.memory_bytes() <= most, "{size:?}: {} bytes after a fit", bank.memory_bytes());
        values[960..].iter().for_each(|value| bank.push(Some(*value)));
        assert!(bank.memory_bytes() <= most, "{size:?}: {} bytes after a stream", bank.memory_bytes());
    }
}

#[test]
fn old_values_are_dropped() {
    let values = daily(6000, 14);
    let mut bank = Bank::fit(settings(BankSize::Lite), 0, &values[..700]).expect("numbers");
    values[700..].iter().for_each(|value| bank.push(Some(*value)));
    assert!(bank.history.len() <= KEEP_MIN + 256, "{} values are kept", bank.history.len());
    assert!(mean_miss(&bank.forecast().median, &daily(6048, 14)[6000..]) < 1.4);
    bank.refit();
    assert!(mean_miss(&bank.forecast().median, &daily(6048, 14)[6000..]) < 1.4);
}

#[test]
fn a_constant_series_stays_what_it_is() {
    for value in [0.0, -0.0, 5.0, 1e300, -1e12, 3e-9] {
        let bank = fitted(&[value; 300]);
        let forecast = bank.forecast();
        for level in [0.01, 0.5, 0.99] {
            let values = forecast.quantile(level);
            assert!(values.iter().all(|v| (v - value).abs() <= 1e-6 * value.abs()), "{value} at {level}: {values:?}");
        }
    }
}

#[test]
fn bounds_hold_at_every_level() {
    let values: Vec<f64> = daily(600, 15).into_iter().map(|value| (value / 125.0).min(1.0)).collect();
    let settings = BankSettings { floor: Some(0.2), ceiling: Some(1.0), ..settings(BankSize::Full) };
    let bank = Bank::fit(settings, 0, &values).expect("numbers");
    let forecast = bank.forecast();
    for level in [0.001, 0.3, 0.5, 0.999] {
        assert!(forecast.quantile(level).iter().all(|value| (0.2..=1.0).contains(value)), "{level}");
    }
}

/// Last season's values; refuses a history shorter than it needs.
#[derive(Debug)]
struct Season(usize);

impl Model for Season {
    fn name(&self) -> &'static str {
        "a-season"
    }

    fn path(&self, history: &[f64], _seasons: &[usize], steps: usize) -> Result<Vec<f64>, Refusal> {
        let too_short = Refusal::TooShort { model: self.name(), got: history.len(), needed: self.0 };
        let from = history.len().checked_sub(self.0).ok_or(too_short)?;
        Ok((0..steps).map(|step| history[from + step % self.0]).collect())
    }
}

#[test]
fn a_named_model_is_the_only_member_and_gets_intervals() {
    let values = daily(900 + STEPS, 16);
    let named = |needed| BankSettings { model: Some(Box::new(Season(needed))), ..settings(BankSize::Full) };
    let bank = Bank::fit(named(WEEK), 0, &values[..900]).expect("numbers");
    assert_eq!(bank.members(), [("a-season".to_owned(), 1.0)]);
    let forecast = bank.forecast();
    assert!((forecast.median[0] - values[900 - WEEK]).abs() < 1e-3, "its path is the forecast");
    let (low, high) = (forecast.quantile(0.05), forecast.quantile(0.95));
    let inside =
        (0..STEPS).filter(|step| low[*step] <= values[900 + step] && values[900 + step] <= high[*step]).count();
    assert!(inside >= 40, "{inside} of {STEPS} are inside");
    let refusal = Bank::fit(named(5000), 0, &values[..900]).err();
    assert_eq!(refusal, Some(Refusal::TooShort { model: "a-season", got: 900, needed: 5000 }));
}

#[test]
fn a_named_models_path_grows_old_between_origins() {
    let values = daily(960, 17);
    let named = BankSettings { model: Some(Box::new(Season(WEEK))), ..settings(BankSize::Full) };
    let mut bank = Bank::fit(named, 0, &values[..900]).expect("numbers");
    values[900..907].iter().for_each(|value| bank.push(Some(*value)));
    assert!((bank.forecast().median[0] - values[907 - WEEK]).abs() < 1e-3);
    // At an origin it asks to be renewed, and does until then.
    values[907..915].iter().for_each(|value| bank.push(Some(*value)));
    assert!(bank.needs_refit() && !bank.is_unsettled());
    let far = |bank: &Bank| bank.forecast().median[STEPS - 5] - values[915 + STEPS - 5 - WEEK];
    assert!(far(&bank).abs() < 1e-3);
    bank.refit();
    assert!(!bank.needs_refit() && bank.refits() == 0);
    assert!(far(&bank).abs() < 1e-3);
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let check = |change: &dyn Fn(&mut BankSettings), values: &[f64], words: &str| {
        let mut settings = settings(BankSize::Full);
        change(&mut settings);
        let refusal = Bank::fit(settings, 0, values).expect_err(words);
        assert!(refusal.to_string().contains(words), "{refusal}");
    };
    let some = [1.0; 50];
    check(&|s| s.steps = 3, &some, "4 to 1500 steps, not 3");
    check(&|s| s.steps = 1501, &some, "not 1501");
    check(&|s| s.seasons = vec![1], &some, "a season has 2 to");
    check(&|s| s.seasons = vec![24, 12], &some, "the shorter one first");
    check(&|s| s.seasons = vec![2, 3, 4], &some, "at most two");
    check(&|s| (s.floor, s.ceiling) = (Some(2.0), Some(1.0)), &some, "the floor 2 is above the ceiling 1");
    check(&|s| s.floor = Some(f64::NAN), &some, "a bound is a number");
    check(&|_| (), &[], "none of 0 values");
    check(&|_| (), &[f64::NAN, f64::INFINITY], "none of 2 values");
    check(&|_| (), &[1.0, f64::NAN, 2.0], "2 values are too few");
}

/// Histories as the world makes them: of any length, with gaps, spikes, steps and numbers at the edge of what is one.
fn histories() -> impl Strategy<Value = Vec<f64>> {
    let ordinary = prop_oneof![
        8 => -1e3..1e3,
        2 => Just(0.0),
        1 => Just(f64::NAN),
        1 => prop_oneof![Just(1e300), Just(-0.0), Just(1e12), Just(-1e12), Just(f64::INFINITY), Just(5e-324), Just(f64::MAX)],
    ];
    let step = |v: f64, w: f64| (0..400).map(|i| if i / 24 % 2 == 0 { v } else { w }).collect::<Vec<f64>>();
    prop_oneof![
        4 => proptest::collection::vec(ordinary, 0..400),
        2 => proptest::collection::vec(0.0..1e9, 0..400),
        1 => (-1e6..1e6, -1e6..1e6).prop_map(move |(v, w)| step(v, w)),
        1 => (-1e6..1e6, 1..60_usize).prop_map(|(v, m)| (0..300).map(|i| if i % m == 0 { v } else { 0.0 }).collect()),
        1 => (0..400_usize, 1..200_usize).prop_map(|(n, gap)| {
            (0..n).map(|i| if i / gap % 2 == 1 { f64::NAN } else { i as f64 }).collect()
        }),
    ]
}

fn assert_sound(bank: &Bank) {
    let forecast = bank.forecast();
    let mut below = vec![-f64::MAX; forecast.median.len()];
    for level in [0.001, 0.025, 0.1, 0.4, 0.5, 0.6, 0.9, 0.975, 0.999] {
        let values = forecast.quantile(level);
        for (value, below) in values.iter().zip(&below) {
            assert!(value.is_finite() && value >= below, "{level}: {value} after {below}");
        }
        assert!(forecast.one_sided(level).iter().all(|value| value.is_finite()));
        below = values;
    }
    assert!(bank.futures(&forecast).iter().flatten().all(|value| value.is_finite()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_history_gives_finite_quantiles_in_order_or_a_refusal(
        history in histories(),
        more in histories(),
        steps in prop_oneof![Just(4_usize), Just(7), Just(13), Just(48)],
        seasons in prop_oneof![Just(vec![]), Just(vec![2]), Just(vec![24]), Just(vec![24, 168]), Just(vec![7, 8])],
        full in any::<bool>(),
        first in any::<i64>(),
    ) {
        let size = if full { BankSize::Full } else { BankSize::Lite };
        let settings = BankSettings { steps, seasons, ..settings(size) };
        if let Ok(mut bank) = Bank::fit(settings, first, &history) {
            assert_sound(&bank);
            for value in more.iter().take(60) {
                bank.push((!value.is_nan()).then_some(*value));
                if bank.needs_refit() {
                    bank.refit();
                }
            }
            assert_sound(&bank);
        }
    }
}

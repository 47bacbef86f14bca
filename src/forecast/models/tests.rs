//! The models against forecasts that statsforecast 2.1.1 made, and what must hold for any history.
//!
//! `benches/forecast/reference.py` made both files of `tests/forecast`, from series of its own.

use proptest::prelude::*;

use super::model_of;
use crate::forecast::{ModelChoice, Refusal};

const CHOICES: [ModelChoice; 8] = [
    ModelChoice::Level,
    ModelChoice::Drift,
    ModelChoice::Damped,
    ModelChoice::SeasonalNaive,
    ModelChoice::Ets,
    ModelChoice::Mstl,
    ModelChoice::Arima,
    ModelChoice::Theta,
];

fn path(choice: ModelChoice, history: &[f64], seasons: &[usize], steps: usize) -> Result<Vec<f64>, Refusal> {
    model_of(choice).expect("a classical model").path(history, seasons, steps)
}

fn rows(file: &str) -> Vec<Vec<String>> {
    let file = format!("{}/tests/forecast/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&file).expect("the reference is part of the sources");
    text.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

fn numbers<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> Vec<T> {
    text.split_whitespace().map(|word| word.parse().expect("the reference holds numbers")).collect()
}

/// Holds one model against the reference on all series: how far apart they are on average, as a share of the series'
/// mean deviation from its mean.
fn check(choice: ModelChoice, tolerance: f64) {
    let model = model_of(choice).expect("a classical model");
    let series = rows("series.csv");
    let references: Vec<Vec<String>> = rows("paths.csv").into_iter().filter(|row| row[0] == model.name()).collect();
    assert!(references.len() >= 5, "{} has a reference", model.name());
    for reference in references {
        let of = series.iter().find(|row| row[0] == reference[1]).expect("each forecast has its series");
        let (seasons, history): (Vec<usize>, Vec<f64>) = (numbers(&of[1]), numbers(&of[2]));
        let expected: Vec<f64> = numbers(&reference[2]);
        let path = model.path(&history, &seasons, expected.len()).expect("the history is long enough");
        let mean = history.iter().sum::<f64>() / history.len() as f64;
        let spread = history.iter().map(|value| (value - mean).abs()).sum::<f64>() / history.len() as f64;
        let apart = path.iter().zip(&expected).map(|(a, b)| (a - b).abs()).sum::<f64>() / expected.len() as f64;
        assert!(apart <= tolerance * spread, "{} of {}: {:.4} apart", model.name(), of[0], apart / spread);
    }
}

#[test]
fn the_simple_models_are_those_of_the_reference() {
    check(ModelChoice::Level, 1e-3);
    check(ModelChoice::Drift, 1e-3);
    check(ModelChoice::SeasonalNaive, 1e-9);
}

#[test]
fn smoothing_is_that_of_the_reference() {
    check(ModelChoice::Damped, 0.01);
    check(ModelChoice::Ets, 0.01);
}

#[test]
fn decomposition_is_that_of_the_reference() {
    check(ModelChoice::Mstl, 0.01);
}

#[test]
fn theta_is_that_of_the_reference() {
    check(ModelChoice::Theta, 0.01);
}

/// The reference fits by exact likelihood, we by conditional sum of squares.
#[test]
fn arima_is_near_the_reference() {
    check(ModelChoice::Arima, 0.05);
}

#[test]
fn what_is_not_classical_has_no_model() {
    assert!(model_of(ModelChoice::Auto).is_none());
    assert!(model_of(ModelChoice::Lstm).is_none());
}

/// A constant goes on as it is, however short.
#[test]
fn a_constant_goes_on() {
    for choice in CHOICES {
        for (value, count) in [(0.0, 60), (7.25, 60), (-3.0, 25), (1e300, 60), (1e-300, 60)] {
            let path = path(choice, &vec![value; count], &[4, 12], 6).expect("a constant can be forecast");
            for expected in path {
                assert!((expected - value).abs() <= 1e-6 * value.abs(), "{choice:?}: {value} became {expected}");
            }
        }
    }
}

#[test]
fn too_short_a_history_is_refused() {
    for choice in CHOICES {
        let refusal = path(choice, &[], &[], 3).expect_err("nothing is no history");
        assert!(matches!(refusal, Refusal::TooShort { got: 0, .. }), "{choice:?}: {refusal}");
    }
    for choice in [ModelChoice::Ets, ModelChoice::Mstl, ModelChoice::Arima, ModelChoice::Theta, ModelChoice::Damped] {
        let refusal = path(choice, &[1.0, 2.0], &[], 3).expect_err("two points are too few");
        assert!(matches!(refusal, Refusal::TooShort { got: 2, .. }), "{choice:?}: {refusal}");
    }
}

#[test]
fn what_is_no_number_is_refused() {
    for choice in CHOICES {
        for strange in [f64::NAN, f64::INFINITY] {
            let mut history = vec![1.0; 40];
            history[7] = strange;
            assert!(path(choice, &history, &[4], 3).is_err(), "{choice:?} took {strange}");
        }
    }
}

/// ETS has no states for long seasons; it must not ignore them, though.
#[test]
fn smoothing_knows_long_seasons() {
    let wave = |at: usize| 10.0 + (at as f64 * std::f64::consts::TAU / 48.0).sin();
    let history: Vec<f64> = (0..240).map(wave).collect();
    let path = path(ModelChoice::Ets, &history, &[48], 48).expect("the history is long enough");
    for (step, expected) in path.iter().enumerate() {
        assert!((expected - wave(240 + step)).abs() < 0.1, "step {step}: {expected}");
    }
}

/// Values that break what is written carelessly.
fn any_value() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => -100.0..100.0_f64,
        2 => Just(0.0),
        1 => Just(-0.0),
        1 => 1e-9..1e-6_f64,
        1 => 1e6..1e9_f64,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_history_has_a_finite_path_or_a_refusal(
        values in prop::collection::vec(any_value(), 0..70),
        unit in prop_oneof![Just(1.0), Just(1e290), Just(1e-290), Just(0.0)],
        seasons in prop_oneof![Just(vec![]), Just(vec![2]), Just(vec![3, 7]), Just(vec![1, 5, 1000]), Just(vec![30])],
        steps in 0..20_usize,
    ) {
        let history: Vec<f64> = values.iter().map(|value| value * unit).collect();
        for choice in CHOICES {
            if let Ok(path) = path(choice, &history, &seasons, steps) {
                prop_assert_eq!(path.len(), steps);
                prop_assert!(path.iter().all(|value| value.is_finite()), "{:?}: {:?}", choice, path);
            }
        }
    }

    #[test]
    fn the_unit_does_not_matter(values in prop::collection::vec(1.0..100.0_f64, 40..60), power in -40..40_i32) {
        let unit = 2.0_f64.powi(power);
        let scaled: Vec<f64> = values.iter().map(|value| value * unit).collect();
        for choice in CHOICES {
            let (ours, theirs) = (path(choice, &values, &[4], 8), path(choice, &scaled, &[4], 8));
            for (a, b) in ours.expect("long enough").iter().zip(theirs.expect("long enough")) {
                // Divided by its largest value, a history scaled by a power of two is the same, bit for bit.
                prop_assert!((a * unit - b).abs() <= 1e-9 * b.abs(), "{:?}: {} and {}", choice, a * unit, b);
            }
        }
    }
}

//! Any series under any settings: a forecast whose numbers are numbers, or a refusal.

#![no_main]

use forestall::forecast::{ModelChoice, SeriesSettings, forecast_series};
use forestall::model::{Millis, Sample, Timestamp};
use libfuzzer_sys::fuzz_target;

const MODELS: [ModelChoice; 8] = [
    ModelChoice::Auto,
    ModelChoice::Level,
    ModelChoice::Drift,
    ModelChoice::Damped,
    ModelChoice::SeasonalNaive,
    ModelChoice::Ets,
    ModelChoice::Arima,
    ModelChoice::Theta,
];

fuzz_target!(|bytes: &[u8]| {
    let Some((head, rest)) = bytes.split_first_chunk::<4>() else { return };
    let step = Millis::from_secs(1 + i64::from(head[0]));
    let mut at = Timestamp(0);
    let samples: Vec<Sample> = rest
        .chunks_exact(9)
        .take(400)
        .map(|chunk| {
            at = at + step * i64::from(1 + chunk[0] % 4);
            let bits = chunk[1..].try_into().map_or(0.0, f64::from_le_bytes);
            Sample { at, value: bits }
        })
        .collect();
    let settings = SeriesSettings {
        step,
        horizon: step * i64::from(head[1]),
        seasons: if head[2] == 0 { Vec::new() } else { vec![step * i64::from(head[2])] },
        model: MODELS[usize::from(head[3]) % MODELS.len()],
        network: None,
        levels: vec![0.025, 0.5, 0.975],
        floor: (head[3] & 16 != 0).then_some(0.0),
        ceiling: (head[3] & 32 != 0).then_some(1.0),
    };
    if let Ok(forecast) = forecast_series(&samples, &settings) {
        assert!(forecast.values.iter().flatten().all(|value| value.is_finite()), "{forecast:?}");
    }
});

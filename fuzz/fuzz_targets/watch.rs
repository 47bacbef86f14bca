//! Any history under any limit: a foresight whose numbers are numbers.

#![no_main]

use std::sync::Arc;

use forestall::forecast::{Calibration, Limit, ModelChoice, Side, Watch, WatchSettings};
use forestall::model::{Millis, Timestamp};
use libfuzzer_sys::fuzz_target;

/// Takes the next bytes as a number, any bit pattern; 0 past their end.
fn number(bytes: &mut &[u8]) -> f64 {
    let Some((first, rest)) = bytes.split_first_chunk::<8>() else { return 0.0 };
    *bytes = rest;
    f64::from_le_bytes(*first)
}

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    let Some((head, after)) = rest.split_first_chunk::<4>() else { return };
    rest = after;
    let settings = WatchSettings {
        horizon: Millis::from_secs(60 * (1 + i64::from(head[0]))),
        interval: Millis::from_secs(1 + i64::from(head[1] % 60)),
        side: if head[2] & 1 == 0 { Side::Above } else { Side::Below },
        lasting: Millis::ZERO,
        seasons: Vec::new(),
        band: None,
        model: ModelChoice::Level,
        actuation_time: Millis::from_secs(i64::from(head[3])),
        calendar: Arc::default(),
        floor: (head[2] & 2 != 0).then_some(0.0),
        ceiling: (head[2] & 4 != 0).then_some(1.0),
    };
    let interval = settings.interval;
    let limit = Some(Limit { threshold: number(&mut rest), warn: None });
    let mut watch = Watch::new(Arc::new(settings), 1);
    let calibration = Calibration::prior();
    let mut at = Timestamp(0);
    while rest.len() >= 9 {
        let repeats = i64::from(rest[0] % 32);
        rest = &rest[1..];
        let value = number(&mut rest);
        for _ in 0..=repeats {
            at = at + interval;
            watch.push(at, Some(value), limit);
            let foresight = watch.foresee(at, &calibration);
            let shares = [foresight.probability, foresight.probability_low, foresight.probability_raw];
            assert!(shares.iter().flatten().all(|share| (0.0..=1.0).contains(share)), "{foresight:?}");
            assert!((0.0..=1.0).contains(&foresight.depth), "{foresight:?}");
            assert!(foresight.peak_q90.is_none_or(f64::is_finite), "{foresight:?}");
        }
    }
});

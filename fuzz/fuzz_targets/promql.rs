//! Any text as an expression, evaluated over a small store: an answer or an error.

#![no_main]

use forestall::model::{Labels, METRIC_NAME, Millis, Sample, Timestamp};
use forestall::query::{Query, Settings, instant, range};
use forestall::store::Store;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(query) = Query::parse(text) else { return };
    let written = query.expr().to_string();
    let again = Query::parse(&written).unwrap_or_else(|error| panic!("{written}: {error}"));
    assert_eq!(again.expr().to_string(), written);
    let _ = query.expr().prettify();
    let store = Store::new(forestall::store::Settings::default());
    for (name, code) in [("a", "200"), ("a", "500"), ("b", "200")] {
        let labels = Labels::new([(METRIC_NAME.to_owned(), name.to_owned()), ("code".to_owned(), code.to_owned())]);
        for step in 0..10i64 {
            let at = Timestamp::from_secs(60 * step);
            store.append(&labels, Sample { at, value: step as f64 });
        }
    }
    let (start, end) = (Timestamp::from_secs(0), Timestamp::from_secs(600));
    let settings = Settings::default();
    let _ = instant(&store, &query, end, &settings);
    let _ = range(&store, &query, start, end, Millis::MINUTE, &settings);
});

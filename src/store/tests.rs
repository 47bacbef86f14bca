//! The store against what a plain map would hold, at its limits, and under many hands.

use proptest::prelude::*;
use regex::Regex;

use super::*;
use crate::ingest::proto::{v1, v2};
use crate::model::STALE_MARKER_BITS;

const START: Timestamp = Timestamp(1_700_000_000_000);
const ALL: (Timestamp, Timestamp) = (Timestamp(i64::MIN), Timestamp(i64::MAX));

fn secs(seconds: i64) -> Timestamp {
    START + Millis::from_secs(seconds)
}

fn sample(seconds: i64, value: f64) -> Sample {
    Sample { at: secs(seconds), value }
}

fn series(name: &str, pairs: &[(&str, &str)]) -> Labels {
    Labels::new(pairs.iter().copied()).with("__name__", name)
}

fn store() -> Store {
    Store::new(Settings::default())
}

/// Appends samples, given as (seconds, value), to one series at `now`.
fn append(store: &Store, labels: &Labels, samples: &[(i64, f64)], now: Timestamp) -> Appended {
    let samples: Vec<_> = samples.iter().map(|&(at, value)| sample(at, value)).collect();
    let mut batch = Batch::default();
    batch.push(labels, &samples);
    store.append_batch(&batch, now)
}

/// The samples of all series that meet the matchers, as (seconds, bits).
fn read(store: &Store, matchers: &[Matcher]) -> Vec<(i64, u64)> {
    let selected = store.select(matchers, ALL.0, ALL.1);
    selected.iter().flat_map(|s| &s.samples).map(|s| ((s.at - START).0 / 1000, s.value.to_bits())).collect()
}

fn bits(samples: &[(i64, f64)]) -> Vec<(i64, u64)> {
    samples.iter().map(|(at, value)| (*at, value.to_bits())).collect()
}

fn names(store: &Store, matchers: &[Matcher]) -> Vec<String> {
    store.series(matchers, ALL.0, ALL.1).iter().map(Labels::to_string).collect()
}

fn matcher(name: &str, op: &str, value: &str) -> Matcher {
    let regex = || Regex::new(&format!("^(?s:{value})$")).expect("a valid expression");
    let op = match op {
        "=" => MatchOp::Equal,
        "!=" => MatchOp::NotEqual,
        "=~" => MatchOp::Matches(regex()),
        "!~" => MatchOp::NotMatches(regex()),
        _ => panic!("no such comparison: {op}"),
    };
    Matcher { name: name.to_owned(), op, value: value.to_owned() }
}

/// The accounts agree with what is really there.
fn check_accounts(store: &Store) {
    let stats = store.stats();
    let (mut samples, mut chunks, mut bytes) = (0, 0, store.families.read().memory_bytes());
    store.each_series(|_, series| {
        let held = series.chunks.lock();
        let mut all = Vec::new();
        held.read(ALL.0, ALL.1, &mut all);
        samples += all.len() as u64;
        chunks += held.len();
        bytes += held.bytes();
    });
    let mut index = Index::default();
    for labels in store.index.read().slots(0..usize::MAX).map(|(_, series)| &series.labels) {
        bytes += index.cost_of_new(labels.iter());
        index.insert(0, labels.iter());
    }
    assert_eq!((stats.samples, stats.chunks, stats.memory_bytes), (samples, chunks, bytes as u64));
}

#[test]
fn gives_samples_newer_than_from_up_to_and_with_to() {
    let store = store();
    let up = series("up", &[]);
    // Enough for several chunks.
    let all: Vec<(i64, f64)> = (0..500_i32).map(|i| (i64::from(i) * 15, f64::from(i))).collect();
    assert_eq!(append(&store, &up, &all, secs(7500)).stored, 500);
    for (from, to) in [(-1, 0), (0, 15), (0, 7485), (14, 15), (1799, 1801), (1800, 1815), (3000, 3014), (7485, 9999)] {
        let selected = store.select(&[], secs(from), secs(to));
        let got: Vec<_> = selected.iter().flat_map(|s| &s.samples).map(|s| (s.at - START).0 / 1000).collect();
        let expected: Vec<_> = all.iter().map(|(at, _)| *at).filter(|at| from < *at && *at <= to).collect();
        assert_eq!(got, expected, "({from}, {to}]");
        assert_eq!(store.series(&[], secs(from), secs(to)).len(), usize::from(!expected.is_empty()), "({from}, {to}]");
    }
    assert!(store.stats().chunks > 4);
    check_accounts(&store);
}

#[test]
fn selects_by_every_kind_of_matcher_in_order_of_labels() {
    let store = store();
    for (job, zone) in [("b", "x"), ("a", "x"), ("a", "y")] {
        append(&store, &series("up", &[("job", job), ("zone", zone)]), &[(0, 1.0)], START);
    }
    append(&store, &series("down", &[("job", "a")]), &[(0, 1.0)], START);
    let check = |matchers: &[(&str, &str, &str)], expected: &[&str]| {
        let matchers: Vec<_> = matchers.iter().map(|(name, op, value)| matcher(name, op, value)).collect();
        assert_eq!(names(&store, &matchers), expected, "{matchers:?}");
    };
    let (ax, ay, bx) = (r#"up{job="a", zone="x"}"#, r#"up{job="a", zone="y"}"#, r#"up{job="b", zone="x"}"#);
    let down = r#"down{job="a"}"#;
    check(&[], &[down, ax, ay, bx]);
    check(&[("__name__", "=", "up")], &[ax, ay, bx]);
    check(&[("__name__", "=", "up"), ("zone", "=", "x")], &[ax, bx]);
    check(&[("job", "=", "none")], &[]);
    check(&[("none", "=", "none")], &[]);
    check(&[("zone", "=", "")], &[down]);
    check(&[("zone", "!=", "x")], &[down, ay]);
    check(&[("zone", "!=", "")], &[ax, ay, bx]);
    check(&[("zone", "=~", "x|z")], &[ax, bx]);
    check(&[("zone", "=~", "x?")], &[down, ax, bx]);
    check(&[("zone", "!~", "x?")], &[ay]);
    check(&[("zone", "=~", ".+"), ("job", "=~", "a")], &[ax, ay]);
    check(&[("job", "!~", "b"), ("__name__", "=~", "u.")], &[ax, ay]);
}

#[test]
fn names_and_values_of_labels_are_sorted_and_bound_to_the_range() {
    let store = store();
    append(&store, &series("up", &[("job", "b"), ("zone", "x")]), &[(0, 1.0)], START);
    append(&store, &series("up", &[("job", "a")]), &[(60, 1.0)], START);
    let text = |list: Vec<Arc<str>>| list.join(" ");
    assert_eq!(text(store.label_names(&[], ALL.0, ALL.1)), "__name__ job zone");
    assert_eq!(text(store.label_names(&[], secs(0), secs(60))), "__name__ job");
    assert_eq!(text(store.label_values("job", &[], ALL.0, ALL.1)), "a b");
    assert_eq!(text(store.label_values("job", &[], secs(-1), secs(59))), "b");
    assert_eq!(text(store.label_values("job", &[matcher("zone", "=", "x")], ALL.0, ALL.1)), "b");
    assert_eq!(text(store.label_values("none", &[], ALL.0, ALL.1)), "");
}

#[test]
fn what_comes_twice_is_a_duplicate_and_the_first_value_stays() {
    let store = store();
    let up = series("up", &[]);
    let all: Vec<(i64, f64)> = (0..300_i32).map(|i| (i64::from(i), f64::from(i))).collect();
    append(&store, &up, &all, secs(300));
    let again = append(&store, &up, &all, secs(300));
    assert_eq!((again.stored, again.duplicates, again.is_complete()), (0, 300, true));
    // In the open chunk, its newest sample, and a sealed chunk.
    let other = append(&store, &up, &[(299, -1.0), (290, -1.0), (5, -1.0)], secs(300));
    assert_eq!((other.stored, other.refused(DropReason::Conflict)), (0, 3));
    assert_eq!(read(&store, &[]), bits(&all));
    assert_eq!(store.stats().dropped[&DropReason::Conflict], 3);
    assert_eq!(store.stats().duplicates, 300);
}

#[test]
fn late_samples_find_their_place_in_the_open_chunk_only() {
    let store = store();
    let up = series("up", &[]);
    append(&store, &up, &[(10, 1.0), (20, 2.0), (40, 4.0)], secs(60));
    assert_eq!(append(&store, &up, &[(30, 3.0)], secs(60)).stored, 1);
    let early = append(&store, &up, &[(5, 0.5)], secs(60));
    assert_eq!((early.stored, early.refused(DropReason::OutOfOrder)), (0, 1));
    assert_eq!(read(&store, &[]), bits(&[(10, 1.0), (20, 2.0), (30, 3.0), (40, 4.0)]));
    check_accounts(&store);
}

#[test]
fn an_unsorted_request_keeps_what_fits() {
    let store = store();
    let got = append(&store, &series("up", &[]), &[(30, 3.0), (31, 3.0), (30, 3.0), (29, 2.0)], secs(60));
    assert_eq!((got.stored, got.duplicates, got.refused(DropReason::OutOfOrder)), (2, 1, 1));
    assert_eq!(got.to_string(), "2 samples stored, 1 there already, 1 refused: older than what the series has");
}

#[test]
fn stale_markers_nans_and_infinities_stay_as_they_are() {
    let store = store();
    let values = [STALE_MARKER_BITS, 0x7ff8_dead_beef_0001, f64::INFINITY.to_bits(), 1 << 63, 0];
    let samples: Vec<_> = values.iter().zip(0..).map(|(bits, at)| (at, f64::from_bits(*bits))).collect();
    let up = series("up", &[]);
    append(&store, &up, &samples, START);
    assert_eq!(read(&store, &[]), bits(&samples));
    // A NaN equals itself here.
    assert_eq!(append(&store, &up, &samples, START).duplicates, 5);
}

#[test]
fn samples_of_the_far_future_or_beyond_retention_are_refused() {
    let store = store();
    let up = series("up", &[]);
    let got = append(&store, &up, &[(-6 * 3600, 1.0), (-6 * 3600 + 1, 2.0), (600, 3.0), (601, 4.0)], START);
    assert_eq!((got.stored, got.refused(DropReason::TooOld), got.refused(DropReason::Future)), (2, 1, 1));
    let got = append(&store, &series("new", &[]), &[(601, 4.0)], START);
    assert_eq!((got.refused_series, got.refused(DropReason::Future)), (1, 1));
    assert_eq!(names(&store, &[]), ["up"]);
    // The signals' retention is longer.
    assert_eq!(append(&store, &series("forestall_signal", &[]), &[(-7 * 86_400, 1.0)], START).stored, 1);
}

#[test]
fn each_tier_keeps_its_retention_and_empty_series_vanish() {
    let store = store();
    store.append(&series("up", &[("pod", "a")]), sample(0, 1.0));
    store.append(&series("forestall_signal", &[]), sample(0, 1.0));
    let hours = |hours: i64| secs(hours * 3600);
    store.expire(hours(6) - Millis(1));
    assert_eq!(names(&store, &[]), ["forestall_signal", r#"up{pod="a"}"#]);
    store.expire(hours(6));
    assert_eq!(names(&store, &[]), ["forestall_signal"]);
    assert!(store.label_names(&[], ALL.0, ALL.1).iter().all(|name| &**name != "pod"));
    check_accounts(&store);
    store.expire(hours(35 * 24));
    assert_eq!(names(&store, &[]).len(), 0);
    let stats = store.stats();
    assert_eq!((stats.series, stats.samples, stats.chunks, stats.memory_bytes), (0, 0, 0, 0));
}

#[test]
fn a_slow_series_gives_its_old_samples_up_as_well() {
    let store = store();
    let slow = series("slow", &[]);
    for hour in 0..24 {
        append(&store, &slow, &[(hour * 3600, 1.0)], secs(hour * 3600));
        store.expire(secs(hour * 3600));
    }
    // Six hours, and at most a quarter of that more.
    assert!(store.stats().samples <= 8, "{}", store.stats().samples);
}

#[test]
fn churn_leaves_nothing_behind() {
    let store = Store::new(Settings { raw_retention: Millis::HOUR, ..Settings::default() });
    let stays = series("up", &[("pod", "stays")]);
    for round in 0..50 {
        let now = secs(round * 600);
        append(&store, &stays, &[(round * 600, 1.0)], now);
        for pod in 0..20 {
            append(&store, &series("up", &[("pod", &format!("{round}-{pod}"))]), &[(round * 600, 1.0)], now);
        }
        store.expire(now);
        check_accounts(&store);
    }
    // An hour holds six rounds.
    assert_eq!(store.stats().series, 6 * 20 + 1);
    assert!(store.index.read().slots_len() <= 7 * 20 + 1, "slots are used again");
    assert_eq!(names(&store, &[matcher("pod", "=~", "49-.*")]).len(), 20);
    assert_eq!(store.label_values("pod", &[], ALL.0, ALL.1).len(), 6 * 20 + 1);
    store.expire(secs(50 * 600 + 3600));
    assert_eq!(store.stats().memory_bytes, 0);
}

#[test]
fn the_series_limits_hold_in_all_and_per_job() {
    let store = Store::new(Settings { series_max: 5, series_per_job_max: 3, ..Settings::default() });
    let add = |name: &str, job: &str| append(&store, &series(name, &[("job", job)]), &[(0, 1.0)], START);
    for name in ["a", "b", "c"] {
        assert!(add(name, "one").is_complete());
    }
    let refused = add("d", "one");
    assert_eq!((refused.refused_series, refused.refused(DropReason::JobSeriesLimit)), (1, 1));
    assert!(add("a", "two").is_complete());
    assert!(add("b", "two").is_complete());
    assert_eq!(add("c", "two").refused(DropReason::SeriesLimit), 1);
    assert_eq!(append(&store, &series("a", &[("job", "one")]), &[(1, 1.0)], START).stored, 1, "known ones go on");
    assert_eq!(store.stats().dropped[&DropReason::SeriesLimit], 1);
}

/// Random-looking values, which compress badly.
fn noise(index: i64) -> f64 {
    f64::from_bits(index.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 2)
}

#[test]
fn memory_stays_bounded_and_the_oldest_raw_chunks_give_way() {
    let memory_bytes_max = 600_000;
    let store = Store::new(Settings { memory_bytes_max, ..Settings::default() });
    let signal = series("forestall_signal", &[]);
    for step in 0..2000 {
        let now = secs(step * 10);
        for pod in 0..40 {
            append(&store, &series("up", &[("pod", &pod.to_string())]), &[(step * 10, noise(step))], now);
        }
        append(&store, &signal, &[(step * 10, noise(step))], now);
        assert!(store.stats().memory_bytes <= memory_bytes_max as u64, "step {step}: {:?}", store.stats());
    }
    check_accounts(&store);
    let stats = store.stats();
    assert_eq!(stats.series, 41);
    assert!(stats.dropped[&DropReason::MemoryChunks] > 10_000, "{stats:?}");
    assert_eq!(stats.dropped[&DropReason::MemorySamples], 0);
    assert_eq!(read(&store, &[matcher("__name__", "=", "forestall_signal")]).len(), 2000, "signals stay");
    let kept = read(&store, &[matcher("pod", "=", "7")]);
    assert_eq!(kept.last().map(|s| s.0), Some(19_990), "the newest stay");
    let gaps = kept.windows(2).filter(|two| two[1].0 - two[0].0 != 10).count();
    assert_eq!(gaps, 0, "only the oldest go");
}

#[test]
fn new_raw_series_are_refused_before_anything_is_dropped() {
    let store = Store::new(Settings { memory_bytes_max: 200_000, ..Settings::default() });
    let mut refused = 0;
    for pod in 0..1000 {
        let got = append(&store, &series("up", &[("pod", &pod.to_string())]), &[(0, 1.0)], START);
        refused += got.refused(DropReason::MemoryNewSeries);
    }
    let stats = store.stats();
    assert!(refused > 500 && refused + stats.series == 1000, "{refused} {stats:?}");
    assert_eq!(stats.dropped[&DropReason::MemoryChunks], 0);
    assert_eq!(append(&store, &series("up", &[("pod", "0")]), &[(1, 1.0)], START).stored, 1, "known ones go on");
    assert_eq!(append(&store, &series("forestall_signal", &[]), &[(1, 1.0)], START).stored, 1, "signals too");
    check_accounts(&store);
}

#[test]
fn with_nothing_old_to_drop_samples_are_refused() {
    let store = Store::new(Settings { memory_bytes_max: 20_000, ..Settings::default() });
    let up = series("up", &[]);
    let mut got = Appended::default();
    for step in 0..3000 {
        // Ten samples a second: all within the minutes that always stay.
        let mut batch = Batch::default();
        batch.push(&up, &[Sample { at: START + Millis(step * 100), value: noise(step) }]);
        got = store.append_batch(&batch, secs(step / 10));
        assert!(store.stats().memory_bytes <= 20_000);
    }
    assert_eq!(got.refused(DropReason::MemorySamples), 1, "{got:?} {:?}", store.stats());
    // Ten minutes later the old ones may go, and it goes on.
    assert_eq!(append(&store, &up, &[(3000, 1.0)], secs(3000)).stored, 1);
}

#[test]
fn metadata_is_kept_by_family_and_the_last_word_counts() {
    use crate::ingest::proto::v1;
    use prost::Message;

    let store = store();
    let tell = |family: &str, help: &str| {
        let metadata = v1::MetricMetadata {
            r#type: 1,
            metric_family_name: family.to_owned(),
            help: help.to_owned(),
            unit: String::new(),
        };
        let message = v1::WriteRequest { timeseries: Vec::new(), metadata: vec![metadata] }.encode_to_vec();
        let mut batch = Batch::default();
        crate::ingest::decode(crate::ingest::Protocol::V1, &message, &crate::ingest::Limits::default(), &mut batch)
            .expect("our own message");
        store.append_batch(&batch, START);
    };
    tell("hits_total", "Hits.");
    tell("hits_total", "All hits.");
    tell("errors_total", "");
    let all = store.metadata();
    assert_eq!(all.keys().collect::<Vec<_>>(), ["errors_total", "hits_total"]);
    assert_eq!((all["hits_total"].kind.as_str(), all["hits_total"].help.as_str()), ("counter", "All hits."));
    check_accounts(&store);
    for family in 0..20_001 {
        tell(&format!("family_{family}"), "");
    }
    assert_eq!((store.metadata().len(), store.stats().dropped[&DropReason::MetadataLimit]), (20_000, 3));
}

#[test]
fn many_writers_and_readers_lose_nothing() {
    let store = store();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for step in 0..200 {
                    // The first series is everyone's, the second their own, the third new each time.
                    let own = [("writer", writer.to_string()), ("step", step.to_string())];
                    let mut batch = Batch::default();
                    batch.push(&series("shared", &[]), &[sample(step, 1.0)]);
                    batch.push(&series("own", &[("writer", &own[0].1)]), &[sample(step, 1.0)]);
                    batch.push(&Labels::new(own).with("__name__", "new"), &[sample(step, 1.0)]);
                    store.append_batch(&batch, START);
                    let seen =
                        read(store, &[matcher("writer", "=", &writer.to_string()), matcher("__name__", "=", "own")]);
                    assert_eq!(seen.len() as i64, step + 1, "a write is readable once it returned");
                }
            });
        }
        scope.spawn(|| (0..50).for_each(|_| store.expire(START)));
    });
    assert_eq!(read(&store, &[matcher("__name__", "=", "own")]).len(), 800);
    assert_eq!(read(&store, &[matcher("__name__", "=", "new")]).len(), 800);
    assert!(read(&store, &[matcher("__name__", "=", "shared")]).windows(2).all(|two| two[0].0 < two[1].0));
    check_accounts(&store);
}

/// A series of a message: labels in any order, perhaps twice or empty; its time in seconds; whether it has a histogram.
type Sent = (Vec<(String, String)>, i64, bool);

fn any_sent() -> impl Strategy<Value = Vec<Sent>> {
    let label = ("(__name__)|(__name__)|a|b|", "x|y|");
    let sent = (prop::collection::vec(label, 0..4), 0_i64..9, prop::bool::weighted(0.1));
    prop::collection::vec(sent, 0..12)
}

fn message(protocol: Protocol, sent: &[Sent]) -> Vec<u8> {
    use prost::Message;

    let mut symbols = vec![String::new()];
    let mut reference = |text: &String| {
        symbols.push(text.clone());
        u32::try_from(symbols.len() - 1).expect("few symbols")
    };
    let (mut of_v1, mut of_v2) = (Vec::new(), Vec::new());
    for (labels, at, has_histogram) in sent {
        let timestamp = secs(*at).0;
        of_v1.push(v1::TimeSeries {
            labels: labels.iter().map(|(name, value)| v1::Label { name: name.clone(), value: value.clone() }).collect(),
            samples: vec![v1::Sample { value: 1.0, timestamp }],
            histograms: vec![v1::Histogram::default(); usize::from(*has_histogram)],
            ..v1::TimeSeries::default()
        });
        of_v2.push(v2::TimeSeries {
            labels_refs: labels.iter().flat_map(|(name, value)| [reference(name), reference(value)]).collect(),
            samples: vec![v2::Sample { value: 1.0, timestamp, start_timestamp: 0 }],
            histograms: vec![v2::Histogram::default(); usize::from(*has_histogram)],
            metadata: Some(v2::Metadata { r#type: 1, ..v2::Metadata::default() }),
            ..v2::TimeSeries::default()
        });
    }
    match protocol {
        Protocol::V1 => v1::WriteRequest { timeseries: of_v1, metadata: Vec::new() }.encode_to_vec(),
        Protocol::V2 => v2::Request { symbols, timeseries: of_v2 }.encode_to_vec(),
    }
}

#[test]
fn a_message_read_beside_an_old_one_of_other_series_names_each_rightly() {
    // An id that is used again must not lead samples to the series that had it before.
    let store = Store::new(Settings { raw_retention: Millis::HOUR, ..Settings::default() });
    let (mut batch, limits) = (Batch::default(), Limits::default());
    let mut send = |name: &str, at: i64| {
        let labels = vec![("__name__".to_owned(), name.to_owned())];
        let message = message(Protocol::V1, &[(labels, at, false)]);
        store.append_message(Protocol::V1, &message, &limits, &mut batch, secs(at)).expect("our own message")
    };
    assert_eq!((send("x", 0).stored, send("x", 1).stored), (1, 1));
    store.expire(secs(2 * 3600));
    assert_eq!((send("y", 7200).stored, send("x", 7201).stored, send("y", 7202).stored), (1, 1, 1));
    assert_eq!(read(&store, &[matcher("__name__", "=", "y")]).len(), 2);
    assert_eq!(read(&store, &[matcher("__name__", "=", "x")]).len(), 1);
    check_accounts(&store);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What `append_message` takes a shorter way for is stored, and refused, as it is one step after the other.
    #[test]
    fn known_series_are_stored_as_checked_ones(messages in prop::collection::vec((any::<bool>(), any_sent()), 1..8)) {
        let (fast, plain) = (store(), store());
        let (mut fast_batch, mut plain_batch) = (Batch::default(), Batch::default());
        let limits = Limits::default();
        for (is_v1, sent) in messages {
            let protocol = if is_v1 { Protocol::V1 } else { Protocol::V2 };
            let message = message(protocol, &sent);
            let got = fast.append_message(protocol, &message, &limits, &mut fast_batch, secs(9));
            ingest::decode(protocol, &message, &limits, &mut plain_batch).expect("our own message");
            prop_assert_eq!(got.expect("our own message"), plain.append_batch(&plain_batch, secs(9)));
            prop_assert_eq!(fast_batch.refused(), plain_batch.refused());
            prop_assert!(fast_batch.metadata().eq(plain_batch.metadata()));
        }
        prop_assert_eq!(names(&fast, &[]), names(&plain, &[]));
        prop_assert_eq!(read(&fast, &[]), read(&plain, &[]));
        prop_assert_eq!(fast.stats(), plain.stats());
        check_accounts(&fast);
    }

    /// Against the plainest store there is: a sorted map for each series, the first value of a timestamp stays.
    #[test]
    fn holds_what_a_plain_map_would(
        writes in prop::collection::vec((0_usize..3, prop::collection::vec((0_i64..400, any::<u64>()), 1..60)), 1..20),
        from in -10_i64..400,
        length in 0_i64..400,
    ) {
        let store = store();
        let mut plain: BTreeMap<Labels, BTreeMap<Timestamp, u64>> = BTreeMap::new();
        for (which, samples) in writes {
            let labels = series("up", &[("pod", &which.to_string())]);
            for (at, value) in samples {
                let mut batch = Batch::default();
                batch.push(&labels, &[sample(at, f64::from_bits(value))]);
                let got = store.append_batch(&batch, secs(400));
                let known = plain.get(&labels).and_then(|all| all.get(&secs(at)).copied());
                match known {
                    Some(known) if known == value => prop_assert_eq!(got.duplicates, 1),
                    Some(_) => prop_assert_eq!(got.refused(DropReason::Conflict), 1),
                    None if got.stored == 1 => {
                        plain.entry(labels.clone()).or_default().insert(secs(at), value);
                    }
                    None => {
                        // Only what is older than the open chunk may be refused, so never the newest.
                        prop_assert_eq!(got.refused(DropReason::OutOfOrder), 1);
                        prop_assert!(plain[&labels].last_key_value().is_some_and(|(last, _)| secs(at) < *last));
                    }
                }
            }
        }
        let (from, to) = (secs(from), secs(from + length));
        let got: Vec<_> = store
            .select(&[], from, to)
            .into_iter()
            .map(|s| (s.labels, s.samples.iter().map(|s| (s.at, s.value.to_bits())).collect::<Vec<_>>()))
            .collect();
        let cut = |all: &BTreeMap<Timestamp, u64>| {
            all.iter().filter(|(at, _)| from < **at && **at <= to).map(|(at, value)| (*at, *value)).collect::<Vec<_>>()
        };
        let expected: Vec<_> =
            plain.iter().map(|(labels, all)| (labels.clone(), cut(all))).filter(|(_, all)| !all.is_empty()).collect();
        prop_assert_eq!(got, expected);
        check_accounts(&store);
    }
}

//! The wire read and refused: both versions, limits, damage, and what a sender would send.

use proptest::prelude::*;
use prost::Message;

use super::proto::{v1, v2};
use super::*;
use crate::model::{Labels, STALE_MARKER_BITS, Sample, Timestamp};

type Series = (Labels, Vec<Sample>);

/// A series with its times and the bits of its values.
type Bits = (Labels, Vec<(i64, u64)>);

fn sample(at: i64, value: f64) -> Sample {
    Sample { at: Timestamp(at), value }
}

fn labels(text: &[(&str, &str)]) -> Labels {
    Labels::new(text.iter().copied())
}

/// Decodes a message under the default limits.
fn read(protocol: Protocol, message: &[u8]) -> Result<Batch, IngestError> {
    let mut batch = Batch::default();
    decode(protocol, message, &Limits::default(), &mut batch).map(|()| batch)
}

/// What a batch holds, in a form that compares bit by bit.
fn content(batch: &Batch) -> Vec<Bits> {
    batch
        .series()
        .map(|s| (Labels::new(s.labels()), s.samples().iter().map(|s| (s.at.0, s.value.to_bits())).collect()))
        .collect()
}

fn bits(series: &[Series]) -> Vec<Bits> {
    let bits = |samples: &[Sample]| samples.iter().map(|s| (s.at.0, s.value.to_bits())).collect();
    series.iter().map(|(labels, samples)| (labels.clone(), bits(samples))).collect()
}

fn v1_series(labels: &[(&str, &str)], samples: usize) -> v1::TimeSeries {
    v1::TimeSeries {
        labels: labels.iter().map(|(n, v)| v1::Label { name: (*n).to_owned(), value: (*v).to_owned() }).collect(),
        samples: vec![v1::Sample { value: 1.0, timestamp: 5 }; samples],
        ..v1::TimeSeries::default()
    }
}

fn v1_message(timeseries: Vec<v1::TimeSeries>) -> Vec<u8> {
    v1::WriteRequest { timeseries, metadata: Vec::new() }.encode_to_vec()
}

fn v2_message(symbols: &[&str], series: &[(&[u32], usize)]) -> Vec<u8> {
    let timeseries = series
        .iter()
        .map(|(references, samples)| v2::TimeSeries {
            labels_refs: references.to_vec(),
            samples: vec![v2::Sample { value: 1.0, timestamp: 5, start_timestamp: 1 }; *samples],
            ..v2::TimeSeries::default()
        })
        .collect();
    v2::Request { symbols: symbols.iter().map(|s| (*s).to_owned()).collect(), timeseries }.encode_to_vec()
}

/// One good series and one bad: the good one is kept, the bad one counted for `reason`.
fn check_refusal(protocol: Protocol, message: &[u8], reason: Refusal, example: &str) {
    let batch = read(protocol, message).expect("the request as a whole is fine");
    let kept: Vec<_> = batch.series().map(|s| Labels::new(s.labels()).to_string()).collect();
    assert_eq!(kept, ["good"], "{reason:?}");
    let refused: Vec<_> = batch.refused().iter().map(|r| (r.reason, r.series, r.samples)).collect();
    assert_eq!(refused, [(reason, 1, 2)]);
    assert!(batch.refused()[0].example.contains(example), "{}", batch.refused()[0]);
}

#[test]
fn negotiates_as_the_specifications_say() {
    let v2 = "io.prometheus.write.v2.Request";
    let check = |content_type: Option<&str>, encoding, expected: Option<Protocol>| {
        let got = negotiate(content_type, encoding);
        assert_eq!(got.as_ref().ok(), expected.as_ref(), "{content_type:?} {encoding:?}: {got:?}");
        assert!(matches!(got, Ok(_) | Err(IngestError::UnsupportedMediaType(_))));
    };
    let snappy = Some("snappy");
    check(Some("application/x-protobuf"), snappy, Some(Protocol::V1));
    check(Some(" Application/X-Protobuf ; "), Some("Snappy"), Some(Protocol::V1));
    check(Some("application/x-protobuf;proto=prometheus.WriteRequest"), snappy, Some(Protocol::V1));
    check(Some(&format!("application/x-protobuf;proto={v2}")), snappy, Some(Protocol::V2));
    check(Some(&format!("application/x-protobuf; charset=utf-8; proto = \"{v2}\"")), snappy, Some(Protocol::V2));
    check(Some("application/x-protobuf;proto=io.prometheus.write.v3.Request"), snappy, None);
    check(Some(&format!("application/x-protobuf;proto={v2};proto=prometheus.WriteRequest")), snappy, None);
    check(Some("application/x-protobuf;proto"), snappy, None);
    check(Some("application/json"), snappy, None);
    check(None, snappy, None);
    check(Some("application/x-protobuf"), Some("gzip"), None);
    check(Some("application/x-protobuf"), None, None);
}

#[test]
fn decompresses_within_limits_only() {
    let limits = Limits { wire_bytes_max: 100, decoded_bytes_max: 1000, ..Limits::default() };
    let mut message = vec![9; 3];
    let mut check = |body: &[u8]| {
        let result = decompress(body, &limits, &mut message);
        result.map(|()| message.clone())
    };
    assert_eq!(check(&compress(b"hello")), Ok(b"hello".to_vec()));
    assert_eq!(check(&compress(&[7; 1000])), Ok(vec![7; 1000]));
    assert!(matches!(check(&compress(&[7; 1001])), Err(IngestError::TooLarge(_))));
    assert!(matches!(check(&[0; 101]), Err(IngestError::TooLarge(_))));
    for malformed in [&b""[..], b"\xff\xff\xff\xff\xff\xff", b"\x05\x10he", &[200, 3, 0, 0], b"\x80"] {
        assert!(matches!(check(malformed), Err(IngestError::BadRequest(_))), "{malformed:?}");
    }
    let mut memory = Vec::new();
    let declares_31_mib = [0x80, 0x80, 0x80, 0x0f, 0, 0];
    assert!(decompress(&declares_31_mib, &Limits::default(), &mut memory).is_err());
    assert_eq!(memory.capacity(), 0, "nothing is allocated for a length that cannot be");
}

#[test]
fn stale_markers_and_other_nans_pass_bit_by_bit() {
    let values = [STALE_MARKER_BITS, 0x7ff8_0000_0000_0001, u64::MAX, f64::NEG_INFINITY.to_bits(), 1];
    let samples = values.iter().zip(0..).map(|(bits, at)| sample(at, f64::from_bits(*bits))).collect();
    let series = [(labels(&[("__name__", "up")]), samples)];
    for (protocol, body) in [(Protocol::V1, encode_v1(&series)), (Protocol::V2, encode_v2(&series))] {
        let mut message = Vec::new();
        decompress(&body, &Limits::default(), &mut message).expect("our own body");
        assert_eq!(content(&read(protocol, &message).expect("our own message")), bits(&series));
    }
}

/// Why a series with these labels is refused, and what its example shows.
type Case<'a> = (Refusal, &'a [(&'a str, &'a str)], &'a str);

#[test]
fn a_bad_series_is_refused_and_the_good_one_kept() {
    let good = v1_series(&[("__name__", "good"), ("empty", "")], 1);
    let long = "x".repeat(2049);
    let many: Vec<_> = (0..65).map(|i| format!("l{i}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), "v")).collect();
    let cases: [Case<'_>; 7] = [
        (Refusal::MissingName, &[("job", "a")], "job=\"a\""),
        (Refusal::MissingName, &[("__name__", ""), ("job", "a")], "job"),
        (Refusal::DuplicateLabel, &[("__name__", "x"), ("job", "a"), ("job", "b")], "job=\"b\""),
        (Refusal::EmptyLabelName, &[("__name__", "x"), ("", "a")], "__name__=\"x\""),
        (Refusal::LabelNameTooLong, &[("__name__", "x"), (&long[..257], "a")], "x"),
        (Refusal::LabelValueTooLong, &[("__name__", "x"), ("job", &long)], "x"),
        (Refusal::TooManyLabels, &many, "l0"),
    ];
    for (reason, bad, example) in cases {
        let message = v1_message(vec![v1_series(bad, 2), good.clone()]);
        check_refusal(Protocol::V1, &message, reason, example);
    }
    let mut not_utf8 = v1_message(vec![v1_series(&[("__name__", "x"), ("job", "?!?!?!")], 2), good]);
    let at = not_utf8.windows(6).position(|w| w == b"?!?!?!").expect("it is there");
    not_utf8[at] = 0xff;
    check_refusal(Protocol::V1, &not_utf8, Refusal::InvalidUtf8, "x");
}

#[test]
fn a_bad_series_of_2_0_is_refused_and_the_good_one_kept() {
    let long = "x".repeat(2049);
    let symbols = ["", "__name__", "good", "job", &long];
    let cases: [(Refusal, &[u32]); 5] = [
        (Refusal::SymbolOutOfRange, &[1, 2, 3, 5]),
        (Refusal::SymbolOutOfRange, &[u32::MAX, 2]),
        (Refusal::OddLabelReferences, &[1, 2, 3]),
        (Refusal::LabelValueTooLong, &[1, 2, 3, 4]),
        (Refusal::MissingName, &[]),
    ];
    for (reason, bad) in cases {
        check_refusal(Protocol::V2, &v2_message(&symbols, &[(&[1, 2], 1), (bad, 2)]), reason, "{");
    }
    let batch = read(Protocol::V2, &v2_message(&symbols, &[(&[1, 2], 0)])).expect("a message");
    assert_eq!(batch.refused()[0].reason, Refusal::NoSamples);
}

#[test]
fn an_example_is_short_and_on_one_line() {
    let name = format!("a\nb{}", "c".repeat(250));
    let long: Vec<_> = (0..60).map(|i| format!("{name}{}", i % 10)).collect();
    let long: Vec<_> = long.iter().map(|name| (name.as_str(), "v\nw")).collect();
    let batch = read(Protocol::V1, &v1_message(vec![v1_series(&long, 1)])).expect("a message");
    let example = &batch.refused()[0].example;
    assert!(example.chars().count() < 250 && !example.contains('\n'), "{example}");
}

#[test]
fn native_histograms_are_refused_by_name_and_exemplars_counted() {
    let mut series = v1_series(&[("__name__", "good")], 1);
    series.histograms = vec![v1::Histogram::default(); 2];
    series.exemplars = vec![v1::Exemplar::default(); 3];
    let message = v1_message(vec![series]);
    check_refusal(Protocol::V1, &message, Refusal::NativeHistogram, "good");
    assert_eq!(read(Protocol::V1, &message).expect("a message").exemplars_ignored(), 3);
}

#[test]
fn unsorted_labels_are_sorted_and_symbols_may_come_last() {
    let message = v1_message(vec![v1_series(&[("zone", "z"), ("job", "a"), ("__name__", "up")], 1)]);
    let batch = read(Protocol::V1, &message).expect("a message");
    let pairs: Vec<_> = batch.series().flat_map(|s| s.labels()).collect();
    assert_eq!(pairs, [("__name__", "up"), ("job", "a"), ("zone", "z")]);

    let (symbols, series) = (v2_message(&["", "__name__", "up"], &[]), v2_message(&[], &[(&[1, 2], 1)]));
    let batch = read(Protocol::V2, &[series, symbols].concat()).expect("a message");
    assert_eq!(content(&batch)[0].0.to_string(), "up");
}

#[test]
fn unpacked_label_references_are_read_too() {
    // Field 1 as two single varints, then a sample; inside field 5, after symbols in field 4.
    let series = [0x08, 1, 0x08, 2, 0x12, 0];
    let message = [&[0x22, 0, 0x22, 8][..], b"__name__", &[0x22, 2], b"up", &[0x2a, 6], &series].concat();
    assert_eq!(content(&read(Protocol::V2, &message).expect("a message"))[0].0.to_string(), "up");
}

#[test]
fn metadata_of_both_versions_is_kept() {
    let metadata = |kind, family: &str, help: &str| v1::MetricMetadata {
        r#type: kind,
        metric_family_name: family.to_owned(),
        help: help.to_owned(),
        unit: "seconds".to_owned(),
    };
    let long = "h".repeat(2049);
    let entries = vec![metadata(1, "hits_total", "Hits."), metadata(99, "odd", ""), metadata(1, "long", &long)];
    let message = v1::WriteRequest { timeseries: Vec::new(), metadata: entries }.encode_to_vec();
    let batch = read(Protocol::V1, &message).expect("a message");
    let read_back: Vec<_> = batch.metadata().map(|m| (m.family, m.kind.as_str(), m.help, m.unit)).collect();
    assert_eq!(read_back, [("hits_total", "counter", "Hits.", "seconds"), ("odd", "unknown", "", "seconds")]);
    assert_eq!(batch.metadata_ignored(), 1);

    let symbols = ["", "__name__", "lat_bucket", "le", "1", "2", "Latency."].map(str::to_owned).to_vec();
    let series = |bound| v2::TimeSeries {
        labels_refs: vec![1, 2, 3, bound],
        samples: vec![v2::Sample::default()],
        metadata: Some(v2::Metadata { r#type: 3, help_ref: 6, unit_ref: 0 }),
        ..v2::TimeSeries::default()
    };
    let message = v2::Request { symbols, timeseries: vec![series(4), series(5)] }.encode_to_vec();
    let batch = read(Protocol::V2, &message).expect("a message");
    let read_back: Vec<_> = batch.metadata().map(|m| (m.family, m.kind, m.help, m.unit)).collect();
    assert_eq!(read_back, [("lat", MetricKind::Histogram, "Latency.", "")], "once for all buckets");
}

#[test]
fn a_1_0_message_read_as_2_0_is_empty() {
    let message = v1_message(vec![v1_series(&[("__name__", "up")], 1)]);
    assert_eq!(read(Protocol::V2, &message).expect("reserved fields").series().len(), 0);
}

/// A hostile message is refused as a whole, and what it made the batch hold is bounded.
fn check_bomb(what: &str, protocol: Protocol, message: &[u8]) {
    let mut batch = Batch::default();
    let result = decode(protocol, message, &Limits::default(), &mut batch);
    assert!(matches!(result, Err(IngestError::TooLarge(_))), "{what}: {result:?}");
    assert!(batch.memory_bytes() < message.len() + (9 << 20), "{what}: {} bytes", batch.memory_bytes());
    assert_eq!((batch.series().len(), batch.samples_len()), (0, 0), "{what}");
}

/// One series around `fields`.
fn wrap(tag: u8, fields: Vec<u8>) -> Vec<u8> {
    let mut message = vec![tag];
    prost::encode_length_delimiter(fields.len(), &mut message).expect("a Vec grows");
    message.extend(fields);
    message
}

#[test]
fn bombs_are_refused_within_the_limits() {
    const MANY: usize = 15_700_000;
    check_bomb("empty series", Protocol::V1, &[0x0a, 0].repeat(MANY));
    check_bomb("empty samples", Protocol::V1, &wrap(0x0a, [0x12, 0].repeat(MANY)));
    check_bomb("empty labels", Protocol::V1, &wrap(0x0a, [0x0a, 0].repeat(MANY)));
    check_bomb("empty exemplars", Protocol::V1, &wrap(0x0a, [0x1a, 0].repeat(MANY)));
    check_bomb("empty histograms", Protocol::V1, &wrap(0x0a, [0x22, 0].repeat(MANY)));
    check_bomb("empty metadata", Protocol::V1, &[0x1a, 0].repeat(MANY));
    check_bomb("unknown fields", Protocol::V1, &[0x78, 0].repeat(MANY));
    check_bomb("a name again and again", Protocol::V1, &wrap(0x0a, wrap(0x0a, [0x0a, 0].repeat(MANY))));
    check_bomb("empty series of 2.0", Protocol::V2, &[0x2a, 0].repeat(MANY));
    check_bomb("empty symbols", Protocol::V2, &[0x22, 0].repeat(MANY));
    check_bomb("empty samples of 2.0", Protocol::V2, &wrap(0x2a, [0x12, 0].repeat(MANY)));
    check_bomb("single references", Protocol::V2, &wrap(0x2a, [0x08, 0].repeat(MANY)));

    // Packed references beyond the limit cost nothing: the series is refused at the first that is too many.
    let packed = [&[0x22, 1, b'a'][..], &wrap(0x2a, wrap(0x0a, vec![0; 2 * MANY]))].concat();
    let batch = read(Protocol::V2, &packed).expect("one bad series");
    assert_eq!((batch.series().len(), batch.refused()[0].series), (0, 1));
}

#[test]
fn one_long_symbol_is_copied_once_however_often_it_is_used() {
    let value = "v".repeat(2048);
    let series: Vec<(&[u32], usize)> = vec![(&[1, 2, 3, 2], 1); 10_000];
    let batch = read(Protocol::V2, &v2_message(&["", "__name__", &value, "job"], &series)).expect("within limits");
    assert_eq!(batch.series().len(), 10_000);
    assert!(batch.memory_bytes() < 4 << 20, "{} bytes", batch.memory_bytes());
}

#[test]
fn an_uncommonly_large_batch_gives_its_memory_back() {
    let mut batch = Batch::default();
    batch.push(&labels(&[("__name__", "up")]), &vec![sample(1, 1.0); 400_000]);
    assert!(batch.memory_bytes() > 4 << 20);
    batch.clear();
    assert_eq!(batch.memory_bytes(), 0);
}

/// A float by its bits, with no −0: senders leave both zeros out.
fn float(bits: u64) -> f64 {
    f64::from_bits(if bits == 1 << 63 { 0 } else { bits })
}

fn any_series() -> impl Strategy<Value = Vec<Series>> {
    let labels = prop::collection::btree_map("[a-zäö_]{1,6}", "\\PC{1,8}", 0..6);
    let samples = prop::collection::vec((any::<i64>(), any::<u64>()), 1..5);
    prop::collection::vec((labels, samples, "[a-z_:]{1,9}"), 0..8).prop_map(|series| {
        let build = |(labels, samples, name): (std::collections::BTreeMap<String, String>, Vec<(i64, u64)>, String)| {
            let labels = Labels::new(labels).with("__name__", &name);
            (labels, samples.into_iter().map(|(at, bits)| sample(at, float(bits))).collect())
        };
        series.into_iter().map(build).collect()
    })
}

proptest! {
    #[test]
    fn reads_what_a_sender_encoded(series in any_series()) {
        let mut message = Vec::new();
        decompress(&encode_v1(&series), &Limits::default(), &mut message).expect("our own body");
        prop_assert_eq!(content(&read(Protocol::V1, &message).expect("our own message")), bits(&series));
        decompress(&encode_v2(&series), &Limits::default(), &mut message).expect("our own body");
        prop_assert_eq!(content(&read(Protocol::V2, &message).expect("our own message")), bits(&series));
    }

    #[test]
    fn damaged_messages_never_panic_and_agree_with_prost(
        series in any_series(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        for protocol in [Protocol::V1, Protocol::V2] {
            let body = if protocol == Protocol::V1 { encode_v1(&series) } else { encode_v2(&series) };
            let mut message = Vec::new();
            decompress(&body, &Limits::default(), &mut message).expect("our own body");
            for (index, byte) in &damage {
                if !message.is_empty() {
                    let index = index.index(message.len());
                    message[index] = *byte;
                }
            }
            let cut = cut.index(message.len() + 1);
            for message in [&message[..], &message[..cut]] {
                let ours = read(protocol, message);
                // Where the generated structs can be filled the walk must get along too; it is more patient than they
                // are only where it does not look: texts of refused series, exemplars, histograms.
                let theirs = match protocol {
                    Protocol::V1 => v1::WriteRequest::decode(message).is_ok(),
                    Protocol::V2 => v2::Request::decode(message).is_ok(),
                };
                prop_assert!(!theirs || ours.is_ok(), "{:?}", ours.err());
            }
        }
    }

    #[test]
    fn any_bytes_are_an_answer_not_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut message = Vec::new();
        let _ = decompress(&bytes, &Limits::default(), &mut message);
        let _ = read(Protocol::V1, &bytes);
        let _ = read(Protocol::V2, &bytes);
    }
}

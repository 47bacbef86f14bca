//! Series → remote-write bodies, as a sender makes them: for the demo's fleet and for tests.
//!
//! As with other senders, −0 becomes 0: protobuf leaves out what equals the default.

use std::collections::BTreeMap;

use prost::Message;

use super::proto::{v1, v2};
use crate::model::{Labels, Sample};

/// A body of remote write 1.0 (`Content-Type: application/x-protobuf`, `Content-Encoding: snappy`).
pub fn encode_v1(series: &[(Labels, Vec<Sample>)]) -> Vec<u8> {
    let timeseries = series
        .iter()
        .map(|(labels, samples)| v1::TimeSeries {
            labels: labels.iter().map(|(n, v)| v1::Label { name: n.to_owned(), value: v.to_owned() }).collect(),
            samples: samples.iter().map(|s| v1::Sample { value: s.value, timestamp: s.at.0 }).collect(),
            ..v1::TimeSeries::default()
        })
        .collect();
    compress(&v1::WriteRequest { timeseries, metadata: Vec::new() }.encode_to_vec())
}

/// A body of remote write 2.0 (`Content-Type: application/x-protobuf;proto=io.prometheus.write.v2.Request`,
/// `Content-Encoding: snappy`).
pub fn encode_v2(series: &[(Labels, Vec<Sample>)]) -> Vec<u8> {
    let mut symbols = vec![String::new()];
    let mut references: BTreeMap<&str, u32> = BTreeMap::from([("", 0)]);
    let mut timeseries = Vec::with_capacity(series.len());
    for (labels, samples) in series {
        let texts = labels.iter().flat_map(|(name, value)| [name, value]);
        let labels_refs = texts
            .map(|text| {
                *references.entry(text).or_insert_with(|| {
                    symbols.push(text.to_owned());
                    u32::try_from(symbols.len() - 1).expect("fewer texts than fit in memory")
                })
            })
            .collect();
        let samples =
            samples.iter().map(|s| v2::Sample { value: s.value, timestamp: s.at.0, start_timestamp: 0 }).collect();
        timeseries.push(v2::TimeSeries { labels_refs, samples, ..v2::TimeSeries::default() });
    }
    compress(&v2::Request { symbols, timeseries }.encode_to_vec())
}

/// A message in snappy's block format.
///
/// # Panics
/// Beyond 4 GiB, which the format cannot express.
pub fn compress(message: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(message).expect("a message of less than 4 GiB can be compressed")
}

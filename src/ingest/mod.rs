//! Remote-write bytes → batches of samples, within limits.
//!
//! ```text
//! headers ─ negotiate ─> Protocol ┐
//! body ──── decompress ─> message ┴─ decode ─> Batch: series with labels and samples, metadata, what was refused
//! ```
//!
//! Remote write 1.0 and 2.0 are read by walking the protobuf wire format: nothing grows before its count is known to
//! be within the [`Limits`], and what one request can cost is bounded by them, whatever its bytes say.
//!
//! Three things can happen to what a request brings:
//! * the request as a whole is an error ([`IngestError`]): nothing of it is kept;
//! * a series is refused ([`Refusal`]): it is counted with one example, the other series are kept, and the sender is
//!   told (both specifications ask for a 400, though the rest is stored);
//! * it is kept. Exemplars are counted and left out; that alone is no reason to refuse.
//!
//! Deliberately not here: HTTP, storing, and native histograms, which are refused by name.

mod batch;
mod encode;
pub mod proto;
mod v1;
mod v2;
mod wire;

pub use batch::{Batch, FindKnown, Metadata, MetricKind, RawLabels, Refusal, Refused, SeriesRef};
pub use encode::{compress, encode_v1, encode_v2};

use wire::Walk;

/// What one request may bring. Every limit is inclusive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The compressed body, in bytes; beyond it the request is too large.
    pub wire_bytes_max: usize,
    /// The message after decompression, in bytes; beyond it the request is too large.
    pub decoded_bytes_max: usize,
    /// Series in a request; beyond it the request is too large.
    pub series_max: usize,
    /// Samples in a request, those of refused series and native histograms among them; beyond it the request is too large.
    pub samples_max: usize,
    /// Labels of a series; beyond it the series is refused.
    pub labels_max: usize,
    /// A label's name, in bytes; beyond it the series is refused.
    pub label_name_bytes_max: usize,
    /// A label's value, in bytes; beyond it the series is refused. Help texts beyond it are left out.
    pub label_value_bytes_max: usize,
    /// Entries of a 2.0 symbol table; beyond it the request is too large.
    pub symbols_max: usize,
    /// Metadata entries in a request; what is beyond it is left out.
    pub metadata_max: usize,
    /// Fields of all kinds that are looked at in a request, which bounds the time it takes; beyond it the request is
    /// too large.
    pub fields_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            wire_bytes_max: 10 << 20,
            decoded_bytes_max: 32 << 20,
            series_max: 10_000,
            samples_max: 50_000,
            labels_max: 64,
            label_name_bytes_max: 256,
            label_value_bytes_max: 2048,
            symbols_max: 300_000,
            metadata_max: 10_000,
            // Three fields for each label of every series (the pair, its name, its value), and a quarter more for the rest.
            fields_max: 2_500_000,
        }
    }
}

/// Why nothing of a request was kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IngestError {
    /// It can never be accepted as it is (HTTP 400).
    #[error("{0}")]
    BadRequest(String),
    /// It is beyond a limit (HTTP 413).
    #[error("{0}")]
    TooLarge(String),
    /// Its type or its compression is not what is spoken here (HTTP 415).
    #[error("{0}")]
    UnsupportedMediaType(String),
}

/// Which message a request carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// `prometheus.WriteRequest`
    V1,
    /// `io.prometheus.write.v2.Request`
    V2,
}

/// Tells from the headers `Content-Type` and `Content-Encoding` which message a request carries.
///
/// Both specifications oblige the sender to send both headers and the receiver to go by them, so a request without
/// them is refused rather than guessed at. Parameters other than `proto` are ignored, as RFC 9110 asks.
///
/// # Errors
/// [`IngestError::UnsupportedMediaType`], naming what was sent and what would be right.
pub fn negotiate(content_type: Option<&str>, content_encoding: Option<&str>) -> Result<Protocol, IngestError> {
    let protocol = content_type.and_then(protocol_of).ok_or_else(|| {
        IngestError::UnsupportedMediaType(format!(
            "content type {} is not supported; send `application/x-protobuf` (remote write 1.0) or \
             `application/x-protobuf;proto=io.prometheus.write.v2.Request` (2.0)",
            quoted(content_type)
        ))
    })?;
    if content_encoding.is_some_and(|encoding| encoding.trim().eq_ignore_ascii_case("snappy")) {
        return Ok(protocol);
    }
    Err(IngestError::UnsupportedMediaType(format!(
        "content encoding {} is not supported; send `snappy` (block format)",
        quoted(content_encoding)
    )))
}

/// The message that a `Content-Type` names, if it is one of ours.
fn protocol_of(content_type: &str) -> Option<Protocol> {
    let mut parts = content_type.split(';');
    let media_type = parts.next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/x-protobuf") {
        return None;
    }
    let mut protocol = None;
    for parameter in parts.map(str::trim).filter(|p| !p.is_empty()) {
        let (key, value) = parameter.split_once('=')?;
        if !key.trim().eq_ignore_ascii_case("proto") {
            continue;
        }
        let value = value.trim();
        let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
        let named = match value {
            "prometheus.WriteRequest" => Protocol::V1,
            "io.prometheus.write.v2.Request" => Protocol::V2,
            _ => return None,
        };
        // Two parameters that disagree leave no way to know.
        if protocol.is_some_and(|before| before != named) {
            return None;
        }
        protocol = Some(named);
    }
    Some(protocol.unwrap_or(Protocol::V1))
}

/// A header's value for a message: shortened, or said to be missing.
fn quoted(header: Option<&str>) -> String {
    header.map_or("(none)".to_owned(), |text| format!("`{}`", text.chars().take(100).collect::<String>()))
}

/// Decompresses a body (snappy block format) into `message`, whose former content is replaced.
///
/// # Errors
/// [`IngestError::TooLarge`] where the body or the length that it declares is beyond the limits;
/// [`IngestError::BadRequest`] where it is no snappy block. Nothing is allocated for a length that so short a body
/// cannot decompress to.
pub fn decompress(body: &[u8], limits: &Limits, message: &mut Vec<u8>) -> Result<(), IngestError> {
    /// The format's best ratio: an element of three bytes copies at most 64.
    const BYTES_PER_BODY_BYTE_MAX: usize = 22;

    let malformed = |why: String| IngestError::BadRequest(format!("the body is no snappy block: {why}"));
    if body.len() > limits.wire_bytes_max {
        let (length, max) = (body.len(), limits.wire_bytes_max);
        return Err(IngestError::TooLarge(format!("the body has {length} bytes; at most {max} are read")));
    }
    if body.is_empty() {
        return Err(malformed("it is empty".to_owned()));
    }
    let declared = snap::raw::decompress_len(body).map_err(|e| malformed(e.to_string()))?;
    if declared > limits.decoded_bytes_max {
        let max = limits.decoded_bytes_max;
        return Err(IngestError::TooLarge(format!("the message has {declared} bytes; at most {max} are read")));
    }
    if declared > body.len() * BYTES_PER_BODY_BYTE_MAX {
        return Err(malformed(format!("{} bytes cannot hold the {declared} that are declared", body.len())));
    }
    // Not cleared before: what is there is written over, and need not be set to 0 first.
    message.resize(declared, 0);
    let written = snap::raw::Decoder::new().decompress(body, message).map_err(|e| malformed(e.to_string()));
    match written {
        Ok(length) if length == declared => Ok(()),
        Ok(length) => Err(malformed(format!("{declared} bytes were declared, {length} are there"))),
        Err(error) => {
            message.clear();
            Err(error)
        }
    }
}

/// Reads a message into `batch`, whose former content is replaced.
///
/// # Errors
/// [`IngestError::BadRequest`] where the bytes are no such message, [`IngestError::TooLarge`] where it is beyond a
/// limit that holds for the request as a whole; the batch is empty then.
pub fn decode(protocol: Protocol, message: &[u8], limits: &Limits, batch: &mut Batch) -> Result<(), IngestError> {
    decode_known(protocol, message, limits, &|_| None, batch)
}

/// As [`decode`], but leaves out to check, sort and copy the labels of the series that `find_known` knows: they are as
/// they were when they were checked, byte by byte. That is most of the work, and nearly all series are known.
///
/// # Errors
/// Those of [`decode`].
pub fn decode_known(
    protocol: Protocol,
    message: &[u8],
    limits: &Limits,
    find_known: FindKnown<'_>,
    batch: &mut Batch,
) -> Result<(), IngestError> {
    batch.clear();
    batch.reserve_text(message.len());
    let mut walk = Walk::new(limits);
    let result = match protocol {
        Protocol::V1 => v1::read(message, &mut walk, find_known, batch),
        Protocol::V2 => v2::read(message, &mut walk, find_known, batch),
    };
    if result.is_err() {
        batch.clear();
    }
    result
}

#[cfg(test)]
mod tests;

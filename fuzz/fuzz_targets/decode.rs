//! Any bytes as a remote-write message: a batch or a refusal.

#![no_main]

use forestall::ingest::{Batch, Limits, Protocol, decode, decompress};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((first, body)) = bytes.split_first() else { return };
    let limits = Limits::default();
    let protocol = if first & 1 == 0 { Protocol::V1 } else { Protocol::V2 };
    let mut batch = Batch::default();
    let _ = decode(protocol, body, &limits, &mut batch);
    let mut message = Vec::new();
    if decompress(body, &limits, &mut message).is_ok() {
        let _ = decode(protocol, &message, &limits, &mut batch);
    }
});

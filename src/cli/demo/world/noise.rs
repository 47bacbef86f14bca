//! Randomness that depends on names and times only, never on the order of calls: the twin draws the same numbers.

/// A number in [0, 1) from a seed, a stream and an index.
pub(super) fn unit(seed: u64, stream: u64, index: u64) -> f64 {
    let bits = mix(mix(mix(seed) ^ stream) ^ index);
    // 53 bits fill the mantissa: the largest value stays below 1.
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// A number between `low` and `high`.
pub(super) fn between(seed: u64, stream: u64, index: u64, low: f64, high: f64) -> f64 {
    low + (high - low) * unit(seed, stream, index)
}

/// A normally distributed number with mean 0 and deviation 1, cut at ±3: no single minute is absurd.
pub(super) fn normal(seed: u64, stream: u64, index: u64) -> f64 {
    let radius = (-2.0 * (1.0 - unit(seed, stream, 2 * index)).ln()).sqrt();
    let angle = std::f64::consts::TAU * unit(seed, stream, 2 * index + 1);
    (radius * angle.cos()).clamp(-3.0, 3.0)
}

/// A stream's number from a text (FNV-1a).
pub(super) fn stream(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every input bit moves every output bit.
fn mix(bits: u64) -> u64 {
    let bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

//! The bytes of a chunk: timestamps as differences of differences, values as XOR with the one before (the idea of
//! Gorilla, Pelkonen et al., VLDB 2015). Exact for every timestamp and every bit pattern of a float.
//!
//! ```text
//! first sample │ timestamp, 64 bits │ value, 64 bits │
//! each other   │ timestamp           │ value                                       │
//!
//! timestamp: d = (this − last) − (last − the one before), wrapping; the first difference counts as d itself
//!    0                        d = 0: as far apart as before
//!    10    7 bits             d in −63..=64, as d + 63
//!    110   14 bits            d in −8191..=8192, as d + 8191
//!    1110  20 bits            d in −524287..=524288, as d + 524287
//!    1111  64 bits            any d
//!
//! value: x = bits of this XOR bits of the one before
//!    0                                          x = 0: the same value
//!    10    the bits between the last lead       x fits where the last x lay
//!          and the last trail
//!    11    5 bits lead │ 6 bits length − 1 │    lead zeros (at most 31), then `length` bits, then zeros
//!          length bits
//! ```
//!
//! Bits fill each byte from the top; the last byte ends with zeros. How many samples there are stands beside the bytes.

use crate::model::{Sample, Timestamp};

/// The prefix, its length, and the width of each way to write a difference of differences that is not 0.
const DELTA_CLASSES: [(u64, u32, u32); 3] = [(0b10, 2, 7), (0b110, 3, 14), (0b1110, 4, 20)];

/// A chunk that samples are added to. Timestamps should rise, but nothing here depends on it.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    bytes: Vec<u8>,
    /// Bits of the last byte that are not used yet.
    bits_free: u32,
    count: u32,
    first_at: i64,
    last_at: i64,
    last_delta: i64,
    last_value: u64,
    /// Zeros before and after the meaningful bits of the last XOR that was written with its position.
    window: Option<(u32, u32)>,
    /// From where the newest samples can be read without those before: the last two such places.
    marks: [Mark; 2],
}

/// How many samples lie between two marks.
const MARK_EVERY: u32 = 32;

/// What reading must know to begin within a chunk.
#[derive(Debug, Default, Clone, Copy)]
struct Mark {
    /// How many samples and bits are before it; none where there is no mark yet.
    count: u32,
    bits: u32,
    /// What was read last.
    at: i64,
    delta: i64,
    value: u64,
    window: (u8, u8),
}

impl Encoder {
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    pub(super) fn first_at(&self) -> Timestamp {
        Timestamp(self.first_at)
    }

    pub(super) fn last_at(&self) -> Timestamp {
        Timestamp(self.last_at)
    }

    pub(super) fn last_value(&self) -> f64 {
        f64::from_bits(self.last_value)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The memory held, in bytes.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// The finished bytes.
    pub(super) fn into_bytes(self) -> Box<[u8]> {
        self.bytes.into_boxed_slice()
    }

    /// Adds a sample.
    pub(super) fn push(&mut self, sample: Sample) {
        let (at, value) = (sample.at.0, sample.value.to_bits());
        if self.count == 0 {
            self.bytes.reserve_exact(32);
            self.push_bits(at.cast_unsigned(), 64);
            self.push_bits(value, 64);
            self.first_at = at;
        } else {
            if self.count.is_multiple_of(MARK_EVERY) {
                self.marks = [self.marks[1], self.mark()];
            }
            let delta = at.wrapping_sub(self.last_at);
            self.push_delta_of_delta(delta.wrapping_sub(self.last_delta));
            self.last_delta = delta;
            self.push_xor(value ^ self.last_value);
        }
        self.last_at = at;
        self.last_value = value;
        self.count += 1;
    }

    fn mark(&self) -> Mark {
        let (lead, trail) = self.window.unwrap_or_default();
        let small = |zeros: u32| u8::try_from(zeros).expect("at most 64");
        let bits = u32::try_from(self.bytes.len() * 8).expect("a chunk is small") - self.bits_free;
        let window = (small(lead), small(trail));
        Mark { count: self.count, bits, at: self.last_at, delta: self.last_delta, value: self.last_value, window }
    }

    /// Its samples from a place on that is not after the first one newer than `from`.
    pub(super) fn samples_after(&self, from: Timestamp) -> Decoder<'_> {
        match self.marks.iter().rev().find(|mark| mark.count > 0 && mark.at <= from.0) {
            Some(mark) => Decoder::resume(&self.bytes, self.count, *mark),
            None => Decoder::new(&self.bytes, self.count),
        }
    }

    fn push_delta_of_delta(&mut self, difference: i64) {
        if difference == 0 {
            self.push_bits(0, 1);
            return;
        }
        for (prefix, prefix_bits, width) in DELTA_CLASSES {
            let biased = difference.wrapping_add(bias(width)).cast_unsigned();
            if biased < 1 << width {
                self.push_bits(prefix, prefix_bits);
                self.push_bits(biased, width);
                return;
            }
        }
        self.push_bits(0b1111, 4);
        self.push_bits(difference.cast_unsigned(), 64);
    }

    fn push_xor(&mut self, xor: u64) {
        if xor == 0 {
            self.push_bits(0, 1);
            return;
        }
        let (lead, trail) = (xor.leading_zeros().min(31), xor.trailing_zeros());
        if let Some((window_lead, window_trail)) = self.window
            && window_lead <= lead
            && window_trail <= trail
        {
            self.push_bits(0b10, 2);
            self.push_bits(xor >> window_trail, 64 - window_lead - window_trail);
            return;
        }
        let length = 64 - lead - trail;
        self.push_bits(0b11, 2);
        self.push_bits(u64::from(lead), 5);
        self.push_bits(u64::from(length - 1), 6);
        self.push_bits(xor >> trail, length);
        self.window = Some((lead, trail));
    }

    /// Writes the lowest `width` bits of `value`, 1 to 64 of them, highest first.
    fn push_bits(&mut self, value: u64, width: u32) {
        let bits_used = (8 - self.bits_free) % 8;
        let bytes = ((u128::from(value) << (128 - width)) >> bits_used).to_be_bytes();
        let bytes_len = (bits_used + width).div_ceil(8);
        let mut new = &bytes[..bytes_len as usize];
        if bits_used > 0 {
            *self.bytes.last_mut().expect("bits of it are in use") |= new[0];
            new = &new[1..];
        }
        self.bytes.extend_from_slice(new);
        self.bits_free = 8 * bytes_len - bits_used - width;
    }
}

/// What makes a difference of `width` bits non-negative.
fn bias(width: u32) -> i64 {
    (1 << (width - 1)) - 1
}

/// The samples of a chunk, oldest first. Ends early where the bytes do: they are ours, so that would be our mistake.
#[derive(Debug)]
pub(super) struct Decoder<'a> {
    bits: Bits<'a>,
    left: u32,
    first: bool,
    at: i64,
    delta: i64,
    value: u64,
    window: (u32, u32),
}

impl<'a> Decoder<'a> {
    pub(super) fn new(bytes: &'a [u8], count: u32) -> Decoder<'a> {
        Decoder { bits: Bits::new(bytes), left: count, first: true, at: 0, delta: 0, value: 0, window: (0, 0) }
    }

    /// The samples behind a mark, of `count` in all.
    fn resume(bytes: &'a [u8], count: u32, mark: Mark) -> Decoder<'a> {
        let Mark { bits, at, delta, value, window: (lead, trail), .. } = mark;
        let mut rest = Bits::new(&bytes[(bits / 8) as usize..]);
        if bits % 8 > 0 {
            // The byte is there: bits of it are before the mark.
            rest.take(bits % 8);
        }
        let window = (u32::from(lead), u32::from(trail));
        Decoder { bits: rest, left: count - mark.count, first: false, at, delta, value, window }
    }

    #[inline(always)]
    fn read(&mut self) -> Option<Sample> {
        // Enough for most samples, so that few of the branches below depend on where bytes end.
        self.bits.refill();
        if self.first {
            self.first = false;
            self.at = self.bits.take_wide(64)?.cast_signed();
            self.value = self.bits.take_wide(64)?;
        } else if let Some(xor) = self.bits.take_usual(self.window) {
            self.at = self.at.wrapping_add(self.delta);
            self.value ^= xor;
        } else {
            self.delta = self.delta.wrapping_add(self.read_delta_of_delta()?);
            self.at = self.at.wrapping_add(self.delta);
            self.value ^= self.read_xor()?;
        }
        Some(Sample { at: Timestamp(self.at), value: f64::from_bits(self.value) })
    }

    #[inline(always)]
    fn read_delta_of_delta(&mut self) -> Option<i64> {
        let ones = self.bits.leading_ones();
        if ones == 0 {
            self.bits.take(1)?;
            return Some(0);
        }
        match DELTA_CLASSES.get(ones - 1) {
            Some((_, prefix, width)) => {
                let biased = self.bits.take(prefix + width)? & ((1 << width) - 1);
                Some(biased.cast_signed() - bias(*width))
            }
            None => {
                self.bits.take(4)?;
                self.bits.take_wide(64).map(u64::cast_signed)
            }
        }
    }

    #[inline(always)]
    fn read_xor(&mut self) -> Option<u64> {
        match self.bits.leading_ones() {
            0 => {
                self.bits.take(1)?;
                return Some(0);
            }
            1 => {
                self.bits.take(2)?;
            }
            _ => {
                let fields = self.bits.take(13)?;
                let (lead, length) = (fields >> 6 & 31, (fields & 63) + 1);
                let trail = 64_u64.checked_sub(lead + length)?;
                self.window = (u32::try_from(lead).ok()?, u32::try_from(trail).ok()?);
            }
        }
        let (lead, trail) = self.window;
        let width = 64 - lead - trail;
        let bits = if width > 56 { self.bits.take_wide(width)? } else { self.bits.take(width)? };
        Some(bits << trail)
    }
}

impl Iterator for Decoder<'_> {
    type Item = Sample;

    #[inline(always)]
    fn next(&mut self) -> Option<Sample> {
        self.left = self.left.checked_sub(1)?;
        self.read()
    }
}

/// Bits that are being read, from the top of each byte: some of them in a buffer, again from its top.
#[derive(Debug)]
struct Bits<'a> {
    bytes: &'a [u8],
    /// How many bytes are in the buffer or were.
    read: usize,
    buffer: u64,
    /// How many bits of the buffer are to be read; those below are zeros or what follows.
    held: u32,
}

impl<'a> Bits<'a> {
    fn new(bytes: &'a [u8]) -> Bits<'a> {
        Bits { bytes, read: 0, buffer: 0, held: 0 }
    }

    /// Fills the buffer up to at least 56 bits, or to the end of the bytes.
    #[inline(always)]
    fn refill(&mut self) {
        let rest = &self.bytes[self.read..];
        let room = (63 - self.held) / 8;
        let (next, bytes) = match rest.first_chunk() {
            Some(eight) => (u64::from_be_bytes(*eight), room),
            None => self.last_bytes(rest.len(), room),
        };
        self.buffer |= next >> self.held;
        self.read += bytes as usize;
        self.held += bytes * 8;
    }

    /// The last `left` bytes, fewer than eight, from the top; and how many of them there is room for.
    #[inline(always)]
    fn last_bytes(&self, left: usize, room: u32) -> (u64, u32) {
        let left = u32::try_from(left).expect("fewer than eight");
        match self.bytes.last_chunk() {
            _ if left == 0 => (0, 0),
            Some(eight) => (u64::from_be_bytes(*eight) << (64 - 8 * left), room.min(left)),
            None => {
                let next = self.bytes.iter().rev().take(left as usize);
                (next.fold(0, |next, byte| next >> 8 | u64::from(*byte) << 56), room.min(left))
            }
        }
    }

    /// How many of the next four bits are ones, up to the first zero.
    #[inline(always)]
    fn leading_ones(&mut self) -> usize {
        if self.held < 4 {
            self.refill();
        }
        self.buffer.leading_ones().min(4) as usize
    }

    /// The XOR of the usual sample: as far from the last as that from the one before, and fitting the last window.
    #[inline(always)]
    fn take_usual(&mut self, (lead, trail): (u32, u32)) -> Option<u64> {
        let width = 64 - lead - trail;
        if self.buffer >> 61 != 0b010 || self.held < 3 + width {
            return None;
        }
        let xor = self.buffer << 3 >> (64 - width) << trail;
        self.buffer <<= 3 + width;
        self.held -= 3 + width;
        Some(xor)
    }

    /// The next `width` bits, 33 to 64 of them.
    #[cold]
    fn take_wide(&mut self, width: u32) -> Option<u64> {
        let high = self.take(width - 32)?;
        Some(high << 32 | self.take(32)?)
    }

    /// The next `width` bits, 1 to 56 of them.
    #[inline(always)]
    fn take(&mut self, width: u32) -> Option<u64> {
        if self.held < width {
            self.refill();
            if self.held < width {
                return None;
            }
        }
        let value = self.buffer >> (64 - width);
        self.buffer <<= width;
        self.held -= width;
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(samples: &[(i64, u64)]) {
        let mut encoder = Encoder::default();
        for &(at, bits) in samples {
            encoder.push(Sample { at: Timestamp(at), value: f64::from_bits(bits) });
        }
        let read: Vec<_> =
            Decoder::new(encoder.bytes(), encoder.count()).map(|s| (s.at.0, s.value.to_bits())).collect();
        assert_eq!(read, samples);
        // From any time on the newer samples are the same.
        if samples.windows(2).all(|pair| pair[0].0 < pair[1].0) {
            for (index, (from, _)) in samples.iter().enumerate() {
                let newer = encoder.samples_after(Timestamp(*from)).filter(|s| *from < s.at.0);
                let newer: Vec<_> = newer.map(|s| (s.at.0, s.value.to_bits())).collect();
                assert_eq!(newer, samples[index + 1..]);
            }
        }
        // Torn bytes end the samples early and never panic.
        let torn = &encoder.bytes()[..encoder.bytes().len() / 2];
        assert!(Decoder::new(torn, encoder.count()).count() <= samples.len());
    }

    #[test]
    fn every_class_of_difference_comes_back_exactly() {
        let edges = [0, 1, 63, 64, 65, -63, -64, 8191, 8192, 8193, -8191, -8192, 524_287, 524_288, 524_289, -524_288];
        let (mut at, mut delta) = (0, 15_000);
        let samples = edges.map(|difference| {
            delta += difference;
            at += delta;
            (at, 1.0_f64.to_bits())
        });
        check(&samples);
        check(&[(i64::MIN, 0), (i64::MAX, u64::MAX), (0, 1), (i64::MIN, 1 << 63)]);
    }

    #[test]
    fn a_steady_counter_takes_less_than_two_bytes_a_sample() {
        let mut encoder = Encoder::default();
        for step in 0..120_u32 {
            encoder.push(Sample { at: Timestamp(i64::from(step) * 15_000), value: f64::from(step * 4) });
        }
        assert!(encoder.bytes().len() < 240, "{} bytes", encoder.bytes().len());
    }

    proptest! {
        #[test]
        fn any_samples_come_back_bit_by_bit(samples in prop::collection::vec((any::<i64>(), any::<u64>()), 0..200)) {
            check(&samples);
        }

        #[test]
        fn lifelike_samples_come_back_bit_by_bit(
            start in 0_i64..2_000_000_000_000,
            steps in prop::collection::vec((14_990_i64..15_010, prop_oneof![
                (-1000_i32..1000).prop_map(|n| f64::from(n) / 4.0),
                Just(f64::from_bits(crate::model::STALE_MARKER_BITS)),
                Just(f64::INFINITY), Just(-0.0), Just(f64::NAN), any::<f64>(),
            ]), 1..200),
        ) {
            let mut at = start;
            let samples: Vec<_> = steps.iter().map(|(step, value)| { at += step; (at, value.to_bits()) }).collect();
            check(&samples);
        }
    }
}

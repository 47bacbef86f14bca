//! Chance from a seed: splitmix64 (Steele, Lea and Flood, 2014), one stream for each purpose.
//!
//! Streams do not depend on one another, so that drawing once more for one purpose changes nothing for the others.

use sha2::{Digest, Sha256};

/// A stream of numbers.
#[derive(Debug, Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    /// The stream of a seed for one purpose.
    pub(crate) fn new(seed: u64, purpose: &str) -> Chance {
        let digest = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(purpose).finalize();
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        Chance(u64::from_le_bytes(first))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }

    /// 0 ≤ x < 1
    pub(crate) fn unit(&mut self) -> f64 {
        unit(self.next())
    }

    /// from ≤ x < to
    pub(crate) fn between(&mut self, from: f64, to: f64) -> f64 {
        from + (to - from) * self.unit()
    }

    /// from ≤ x < to
    pub(crate) fn whole(&mut self, from: u32, to: u32) -> u32 {
        let span = u64::from(to.saturating_sub(from)).max(1);
        from + u32::try_from(self.next() % span).expect("less than a u32")
    }

    /// Whether something comes about that does so in a share of cases.
    pub(crate) fn is(&mut self, share: f64) -> bool {
        self.unit() < share
    }

    /// One of these.
    pub(crate) fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())]
    }

    /// An index below `len`.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        self.whole(0, u32::try_from(len).expect("lists are short")) as usize
    }
}

/// A number in 0..1 that depends on two others only: noise that needs no memory.
pub(crate) fn noise(a: u64, b: u64) -> f64 {
    unit(mixed(mixed(a).wrapping_add(b.wrapping_mul(0x9e37_79b9_7f4a_7c15))))
}

#[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

fn mixed(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

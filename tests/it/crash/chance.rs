//! Random numbers that are the same for the same seed.

/// A row of random numbers (splitmix64, Steele et al. 2014).
#[derive(Debug, Clone)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    /// The row for some texts and numbers: different for different ones.
    pub(super) fn of(parts: &[&dyn std::fmt::Display]) -> Chance {
        let text: Vec<String> = parts.iter().map(ToString::to_string).collect();
        // FNV-1a.
        let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Chance(text.join("\0").bytes().fold(0xcbf2_9ce4_8422_2325, hash))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0..end`; 0 where that is empty.
    pub(super) fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).expect("a count fits").max(1);
        usize::try_from(self.next() % end).expect("less than a count")
    }
}

//! Draws of what a rung may achieve, the same on every replica and in every replay.
//!
//! Thompson sampling: each choice is taken as often as it is likely to be the best, so that what is tried least is still
//! tried (Thompson, "On the likelihood that one unknown probability exceeds another", 1933). Narya chooses mitigations of
//! failing hosts that way (Levy et al., "Predictive and Adaptive Failure Mitigation to Avert Production Cloud VM
//! Interruptions", OSDI 2020).

use sha2::{Digest, Sha256};

use crate::model::Timestamp;

/// Below this a parameter of a Beta distribution is taken as this: a share that is certain needs no draw.
const PARAMETER_MIN: f64 = 1e-3;
/// So many proposals at most for one draw; each is accepted with a probability above 0.95.
const PROPOSALS_MAX: usize = 64;

/// A sequence of random numbers that a policy, a component and a time give.
#[derive(Debug)]
pub(super) struct Draws {
    state: u64,
}

impl Draws {
    pub(super) fn new(policy: &str, component: &str, at: Timestamp) -> Draws {
        let mut hash = Sha256::new();
        // Lengths before texts: no two different sets of parts make the same bytes.
        for part in [policy, component] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        hash.update(at.0.to_be_bytes());
        let state = hash.finalize().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
        Draws { state }
    }

    /// From a Beta distribution: the share of two Gamma draws.
    pub(super) fn beta(&mut self, a: f64, b: f64) -> f64 {
        let (a, b) = (self.gamma(a.max(PARAMETER_MIN)), self.gamma(b.max(PARAMETER_MIN)));
        // Both can be too small to tell from nothing; the middle is then as good as anything.
        if a + b > 0.0 { a / (a + b) } else { 0.5 }
    }

    /// From a Gamma distribution of scale 1, by squeezing a normal one (Marsaglia and Tsang, ACM TOMS 26, 2000); a shape
    /// below 1 is drawn as one above and scaled down.
    fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            let scale = self.uniform().powf(1.0 / shape);
            return self.gamma(shape + 1.0) * scale;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        for _ in 0..PROPOSALS_MAX {
            let normal = self.normal();
            let v = (1.0 + c * normal).powi(3);
            if v > 0.0 && self.uniform().ln() < 0.5 * normal * normal + d * (1.0 - v + v.ln()) {
                return d * v;
            }
        }
        shape
    }

    /// Standard normal (Box and Muller, 1958).
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Above 0 and below 1: splitmix64 (Steele, Lea and Flood, OOPSLA 2014).
    fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        ((z >> 11) as f64 + 0.5) / 2_f64.powi(53)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean and variance of many draws, each of a seed of its own, against the distribution's.
    fn check(a: f64, b: f64) {
        let draws: Vec<f64> =
            (0..20_000).map(|at| Draws::new("services", "service/shop/web", Timestamp(at)).beta(a, b)).collect();
        assert!(draws.iter().all(|draw| (0.0..=1.0).contains(draw)), "Beta {a}, {b}");
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / draws.len() as f64;
        let (expected, spread) = (a / (a + b), a * b / ((a + b).powi(2) * (a + b + 1.0)));
        assert!((mean - expected).abs() < 0.01, "Beta {a}, {b}: mean {mean}, not {expected}");
        assert!((variance / spread - 1.0).abs() < 0.05, "Beta {a}, {b}: variance {variance}, not {spread}");
    }

    #[test]
    fn draws_have_the_mean_and_variance_of_their_distribution() {
        for (a, b) in [(1.0, 1.0), (3.2, 0.8), (0.5, 0.5), (40.0, 3.0)] {
            check(a, b);
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_and_another_draws_otherwise() {
        let draw = |policy: &str, component: &str, at: i64| Draws::new(policy, component, Timestamp(at)).beta(3.0, 2.0);
        let all = [draw("a", "b", 1), draw("a", "b", 2), draw("ab", "", 1), draw("", "ab", 1)];
        assert_eq!(all[0].to_bits(), draw("a", "b", 1).to_bits());
        for (index, one) in all.iter().enumerate() {
            assert!(all[..index].iter().all(|other| (other - one).abs() > 1e-12), "{all:?}");
        }
    }

    #[test]
    fn a_share_that_is_certain_is_drawn_as_such() {
        let mut draws = Draws::new("services", "service/shop/web", Timestamp(0));
        assert!((0..100).all(|_| draws.beta(4.0, 0.0) > 0.9));
        assert!((0..100).all(|_| draws.beta(0.0, 4.0) < 0.1));
    }
}

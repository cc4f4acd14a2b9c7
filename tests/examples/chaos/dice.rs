//! Random choices that a seed gives again. Knows nothing of what is chosen.

use std::time::Duration;

/// SplitMix64 (Steele, Lea and Flood, 2014): enough for choices, and one line of state.
pub struct Dice(u64);

impl Dice {
    /// A stream for each purpose of a seed.
    pub fn new(seed: u64, purpose: u64) -> Dice {
        let mut dice = Dice(seed.rotate_left(17) ^ purpose);
        dice.next();
        dice
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 up to, but not with, 1.
    pub fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.share() * n as f64) as usize
    }

    /// One of some things; none of none.
    pub fn pick<'t, T>(&mut self, things: &'t [T]) -> Option<&'t T> {
        if things.is_empty() { None } else { things.get(self.below(things.len())) }
    }

    /// A duration up to `most`, each as likely.
    pub fn up_to(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.share())
    }

    /// A duration from 50 µs to `most`, as likely to be of one order of magnitude as of another.
    pub fn soon(&mut self, most: Duration) -> Duration {
        const LEAST: f64 = 50e-6;
        let most = most.as_secs_f64().max(LEAST);
        Duration::from_secs_f64(LEAST * (most / LEAST).powf(self.share()))
    }
}

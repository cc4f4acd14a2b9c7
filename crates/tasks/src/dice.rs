//! Random choices that depend on a seed and a label only, never on order. Knows nothing of tasks.
//!
//! Every prompt throws its own dice, so adding a family or a word leaves the choices of all others as they were.

/// A stream of random numbers: the output of BLAKE3 over the seed and the labels, each with its length in front.
pub struct Dice {
    stream: blake3::OutputReader,
}

impl Dice {
    /// Dice for one purpose (`labels`), for example `["careless", prompt]`.
    pub fn new(seed: u64, labels: &[&str]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        for label in labels {
            hasher.update(&(label.len() as u64).to_le_bytes());
            hasher.update(label.as_bytes());
        }
        Self { stream: hasher.finalize_xof() }
    }

    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.stream.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A number in `0..n`; `n` must not be 0.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// True `hits` times out of `out_of`.
    pub fn chance(&mut self, hits: usize, out_of: usize) -> bool {
        self.below(out_of) < hits
    }

    /// One item of a slice that is not empty.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// `n` different items in random order, or all of them if there are fewer.
    pub fn draw<T: Clone>(&mut self, items: &[T], n: usize) -> Vec<T> {
        let mut left = items.to_vec();
        let mut drawn = Vec::with_capacity(n);
        while drawn.len() < n && !left.is_empty() {
            let at = self.below(left.len());
            drawn.push(left.swap_remove(at));
        }
        drawn
    }
}

#[cfg(test)]
mod tests {
    use super::Dice;

    #[test]
    fn same_label_same_stream() {
        let throw = |seed, labels: &[&str]| Dice::new(seed, labels).bits();
        assert_eq!(throw(1, &["a", "b"]), throw(1, &["a", "b"]));
        assert_ne!(throw(1, &["a", "b"]), throw(1, &["ab", ""]));
        assert_ne!(throw(1, &["a"]), throw(2, &["a"]));
    }

    #[test]
    fn fair_enough() {
        let mut dice = Dice::new(3, &["fair"]);
        let hits = (0..10_000).filter(|_| dice.chance(1, 5)).count();
        assert!((1_900..2_100).contains(&hits), "{hits}");
        assert_eq!(dice.draw(&[1, 2, 3], 9).len(), 3);
    }
}

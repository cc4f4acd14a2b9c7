//! The percentile bootstrap over prompts, with a counter-based random stream. Knows only numbers and keys.
//!
//! Several answers to one prompt are not independent, so what is drawn again is the prompt with all its
//! answers, not the single answer. A paired comparison is the bootstrap of the per-answer differences.

use std::collections::HashMap;
use std::hash::Hash;

use crate::{Confidence, EvalError, Interval};

/// Values gathered by the prompt they belong to; the unit that is drawn again.
#[derive(Debug, Clone, PartialEq)]
pub struct Clusters {
    sums: Vec<f64>,
    counts: Vec<f64>,
}

impl Clusters {
    /// Gathers `(key, value)`; clusters keep the order in which their key came first, so the result does not
    /// depend on a hash.
    ///
    /// # Errors
    /// [`EvalError::Empty`] without a value, [`EvalError::NotFinite`] for a NaN or an infinity.
    pub fn gather<K: Hash + Eq>(values: impl IntoIterator<Item = (K, f64)>) -> Result<Self, EvalError> {
        let mut places: HashMap<K, usize> = HashMap::new();
        let mut clusters = Self { sums: Vec::new(), counts: Vec::new() };
        for (index, (key, value)) in values.into_iter().enumerate() {
            if !value.is_finite() {
                return Err(EvalError::NotFinite { index, value });
            }
            let place = *places.entry(key).or_insert(clusters.sums.len());
            if place == clusters.sums.len() {
                clusters.sums.push(0.0);
                clusters.counts.push(0.0);
            }
            clusters.sums[place] += value;
            clusters.counts[place] += 1.0;
        }
        if clusters.sums.is_empty() { Err(EvalError::Empty) } else { Ok(clusters) }
    }

    /// Each value its own cluster.
    ///
    /// # Errors
    /// As [`Self::gather`].
    pub fn single(values: impl IntoIterator<Item = f64>) -> Result<Self, EvalError> {
        Self::gather(values.into_iter().enumerate())
    }

    /// Number of clusters.
    pub fn len(&self) -> usize {
        self.sums.len()
    }

    /// Never true: [`Self::gather`] refuses an empty set.
    pub fn is_empty(&self) -> bool {
        self.sums.is_empty()
    }

    /// Mean over all values.
    pub fn mean(&self) -> f64 {
        self.sums.iter().sum::<f64>() / self.counts.iter().sum::<f64>()
    }
}

/// How a bootstrap is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bootstrap {
    /// Two-sided level of the interval.
    pub confidence: Confidence,
    /// Number of resamples, 1000 or more for two stable digits.
    pub resamples: u32,
    /// Seed of the random stream.
    pub seed: u64,
}

impl Bootstrap {
    /// Percentile interval of the mean: draw as many clusters as there are, with replacement, take the mean of
    /// all their values; the interval lies between the `tail` and `1 - tail` quantiles of those means.
    ///
    /// Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 13.3. Quantiles interpolate
    /// linearly between order statistics. A win rate is the mean of outcomes 1, ½, 0; the difference of two
    /// accuracies is the mean of `candidate right − baseline right` per answer.
    ///
    /// # Errors
    /// [`EvalError::NoResamples`] if `resamples` is 0.
    pub fn mean(&self, clusters: &Clusters) -> Result<Interval, EvalError> {
        let Self { confidence, resamples, seed } = *self;
        if resamples == 0 {
            return Err(EvalError::NoResamples);
        }
        let n = clusters.len() as u64;
        let mut means: Vec<f64> = (0..u64::from(resamples))
            .map(|resample| {
                let (mut sum, mut count) = (0.0, 0.0);
                for draw in 0..n {
                    let place = below(uniform_bits(seed, resample * n + draw), n);
                    sum += clusters.sums[place];
                    count += clusters.counts[place];
                }
                sum / count
            })
            .collect();
        means.sort_by(f64::total_cmp);
        Ok(Interval {
            estimate: clusters.mean(),
            low: quantile(&means, confidence.tail()),
            high: quantile(&means, 1.0 - confidence.tail()),
        })
    }
}

/// Linear interpolation between order statistics (definition 7 of Hyndman and Fan, The American Statistician 50, 1996).
pub(crate) fn quantile(sorted: &[f64], probability: f64) -> f64 {
    let position = probability * (sorted.len() - 1) as f64;
    let low = position.floor() as usize;
    let high = position.ceil() as usize;
    sorted[low] + (sorted[high] - sorted[low]) * (position - low as f64)
}

/// 64 random bits of draw `counter` of stream `seed`: the finaliser of SplitMix64 over the Weyl sequence.
///
/// Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
fn uniform_bits(seed: u64, counter: u64) -> u64 {
    let start = mix(seed);
    mix(start.wrapping_add(counter.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Maps 64 bits to `0..n` by the high half of the product; the bias is below `n / 2^64`.
fn below(bits: u64, n: u64) -> usize {
    ((u128::from(bits) * u128::from(n)) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(values: &[(&str, f64)], resamples: u32, want: Expect) {
        let bootstrap = Bootstrap { confidence: Confidence::USUAL, resamples, seed: 7 };
        let got = Clusters::gather(values.iter().copied()).and_then(|c| bootstrap.mean(&c));
        want.assert_eq(&match got {
            Ok(i) => format!("{:.3} [{:.3}, {:.3}]", i.estimate, i.low, i.high),
            Err(error) => error.to_string(),
        });
    }

    #[test]
    fn corners() {
        check(&[("a", 0.5), ("b", 0.5)], 100, expect!["0.500 [0.500, 0.500]"]);
        check(&[("a", 1.0), ("a", 0.0)], 100, expect!["0.500 [0.500, 0.500]"]);
        check(&[], 100, expect!["no value to average"]);
        check(&[("a", 1.0)], 0, expect!["a bootstrap needs at least one resample"]);
        check(&[("a", 1.0), ("b", f64::NAN)], 10, expect!["value 1 is NaN, which is not finite"]);
    }

    /// Two clusters 0 and 1: means 0, ½, 1 with odds 1 : 2 : 1, so the 2.5 % ends are 0 and 1.
    #[test]
    fn two_prompts_know_nothing() {
        check(&[("a", 0.0), ("b", 1.0)], 400, expect!["0.500 [0.000, 1.000]"]);
    }

    /// By hand: the standard error of 400 coin flips is 0.5 / 20 = 0.025, so 95 % is about ± 0.049.
    #[test]
    fn four_hundred_coin_flips() {
        let keys: Vec<String> = (0..400).map(|i| i.to_string()).collect();
        let flips: Vec<(&str, f64)> = keys.iter().enumerate().map(|(i, k)| (k.as_str(), (i % 2) as f64)).collect();
        check(&flips, 4000, expect!["0.500 [0.450, 0.550]"]);
    }

    /// 0, 1, 2, 10 at 0.5: position 1.5 → 1.5; at 0.9: position 2.7 → 2 + 0.7 · 8 = 7.6.
    #[test]
    fn quantiles_by_hand() {
        assert_eq!(quantile(&[0.0, 1.0, 2.0, 10.0], 0.5), 1.5);
        assert!((quantile(&[0.0, 1.0, 2.0, 10.0], 0.9) - 7.6).abs() < 1e-12);
    }
}

//! Small summaries: median and spread over seeds, and how much longer answers became. Knows only numbers.

use crate::EvalError;
use crate::bootstrap::quantile;

/// The middle of several runs and how far apart they are; the honest line under a table of seeds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Median; the mean of the middle two for an even number of runs.
    pub median: f64,
    /// Smallest value.
    pub low: f64,
    /// Largest value.
    pub high: f64,
    /// Number of runs.
    pub n: usize,
}

impl Spread {
    /// Summarises the values.
    ///
    /// # Errors
    /// [`EvalError::Empty`] without a value, [`EvalError::NotFinite`] for a NaN or an infinity.
    pub fn of(values: &[f64]) -> Result<Self, EvalError> {
        if let Some((index, &value)) = values.iter().enumerate().find(|(_, v)| !v.is_finite()) {
            return Err(EvalError::NotFinite { index, value });
        }
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        match sorted[..] {
            [] => Err(EvalError::Empty),
            [low, ..] => {
                Ok(Self { median: quantile(&sorted, 0.5), low, high: sorted[sorted.len() - 1], n: sorted.len() })
            }
        }
    }
}

/// Mean answer length of the candidate over that of the baseline, in tokens; 1 means equally long.
///
/// A ratio of means, not a mean of ratios: one short baseline answer must not dominate. `None` if a side is
/// empty or the baseline wrote nothing at all.
pub fn length_ratio(candidate_tokens: &[u32], baseline_tokens: &[u32]) -> Option<f64> {
    let mean = |tokens: &[u32]| {
        (!tokens.is_empty()).then(|| tokens.iter().map(|&t| f64::from(t)).sum::<f64>() / tokens.len() as f64)
    };
    let baseline = mean(baseline_tokens).filter(|&m| m > 0.0)?;
    Some(mean(candidate_tokens)? / baseline)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_three_and_of_four() {
        let spread = |median, low, high, n| Ok(Spread { median, low, high, n });
        assert_eq!(Spread::of(&[58.5, 59.2, 59.0]), spread(59.0, 58.5, 59.2, 3));
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 3.0]), spread(2.5, 1.0, 4.0, 4));
        assert_eq!(Spread::of(&[]), Err(EvalError::Empty));
        assert!(matches!(Spread::of(&[1.0, f64::NAN]), Err(EvalError::NotFinite { index: 1, .. })));
    }

    /// (2 + 4) / 2 = 3 against (4 + 8) / 2 = 6.
    #[test]
    fn ratio_of_means() {
        assert_eq!(length_ratio(&[2, 4], &[4, 8]), Some(0.5));
        assert_eq!(length_ratio(&[2, 4], &[0, 0]), None);
        assert_eq!(length_ratio(&[], &[1]), None);
    }
}

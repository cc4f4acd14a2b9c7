//! Confidence levels and the Wilson interval of a proportion. Knows only numbers.

use crate::EvalError;

/// A two-sided confidence level strictly between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Confidence(f64);

impl Confidence {
    /// The usual level, 0.95.
    pub const USUAL: Confidence = Confidence(0.95);

    /// Checks the level.
    ///
    /// # Errors
    /// [`EvalError::Confidence`] outside (0, 1).
    pub fn new(level: f64) -> Result<Self, EvalError> {
        if level > 0.0 && level < 1.0 { Ok(Self(level)) } else { Err(EvalError::Confidence(level)) }
    }

    /// The level, 0.95 for "95 %".
    pub fn level(self) -> f64 {
        self.0
    }

    /// Probability cut off on each side, 0.025 for "95 %".
    pub fn tail(self) -> f64 {
        (1.0 - self.0) / 2.0
    }

    /// Standard normal quantile that leaves [`Self::tail`] above it: 1.96 for "95 %".
    pub fn z(self) -> f64 {
        normal_quantile(1.0 - self.tail())
    }
}

/// An interval with its point estimate, all in the unit of the estimate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The estimate itself.
    pub estimate: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Wilson's score interval of a proportion.
///
/// `p = s / n`, `centre = (p + z²/2n) / (1 + z²/n)`, `half = z · sqrt(p(1-p)/n + z²/4n²) / (1 + z²/n)`.
/// Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
/// We differ in one point: `successes` may hold halves, because a tie counts as half a win.
///
/// # Errors
/// [`EvalError::Empty`] for zero trials, [`EvalError::Proportion`] if the successes are not within the trials.
pub fn wilson(successes: f64, trials: u64, confidence: Confidence) -> Result<Interval, EvalError> {
    if trials == 0 {
        return Err(EvalError::Empty);
    }
    let n = trials as f64;
    if !(0.0..=n).contains(&successes) {
        return Err(EvalError::Proportion { successes, trials });
    }
    let p = successes / n;
    let z = confidence.z();
    let z2 = z * z;
    let shrink = 1.0 + z2 / n;
    let centre = (p + z2 / (2.0 * n)) / shrink;
    let half = z * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt() / shrink;
    Ok(Interval { estimate: p, low: (centre - half).max(0.0), high: (centre + half).min(1.0) })
}

/// Standard normal quantile by bisection on [`normal_cdf`]; exact to about 1e-14 for the levels in use.
fn normal_quantile(probability: f64) -> f64 {
    let (mut low, mut high) = (-9.0_f64, 9.0_f64);
    for _ in 0..80 {
        let middle = (low + high) / 2.0;
        if normal_cdf(middle) < probability {
            low = middle;
        } else {
            high = middle;
        }
    }
    (low + high) / 2.0
}

/// Standard normal distribution function: `Φ(z) = 1/2 + φ(z) · Σ z^(2k+1) / (1·3·5···(2k+1))`.
///
/// Source: Abramowitz and Stegun, Handbook of Mathematical Functions (1964), 26.2.11.
fn normal_cdf(z: f64) -> f64 {
    let mut term = z;
    let mut sum = z;
    let mut odd = 1.0;
    while term.abs() > 1e-17 * sum.abs() && odd < 1000.0 {
        odd += 2.0;
        term *= z * z / odd;
        sum += term;
    }
    let density = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    0.5 + density * sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(successes: f64, trials: u64, level: f64, want: Expect) {
        let got = Confidence::new(level).and_then(|c| wilson(successes, trials, c));
        want.assert_eq(&match got {
            Ok(i) => format!("{:.4} [{:.4}, {:.4}]", i.estimate, i.low, i.high),
            Err(error) => error.to_string(),
        });
    }

    /// By hand for 8 of 10 at z = 1.96, z² = 3.8416: shrink 1.38416, centre (0.8 + 0.19208) / 1.38416 = 0.71674,
    /// half 1.96 · sqrt(0.016 + 0.009604) / 1.38416 = 1.96 · 0.160013 / 1.38416 = 0.22658.
    #[test]
    fn wilson_by_hand() {
        check(8.0, 10, 0.95, expect!["0.8000 [0.4902, 0.9433]"]);
        check(0.0, 10, 0.95, expect!["0.0000 [0.0000, 0.2775]"]);
        check(10.0, 10, 0.95, expect!["1.0000 [0.7225, 1.0000]"]);
        check(50.5, 100, 0.9, expect!["0.5050 [0.4237, 0.5860]"]);
        check(11.0, 10, 0.95, expect!["11 successes in 10 trials"]);
        check(0.0, 0, 0.95, expect!["no value to average"]);
        check(1.0, 2, 1.0, expect!["confidence 1 is not between 0 and 1 (0.95 is usual)"]);
        check(1.0, 2, f64::NAN, expect!["confidence NaN is not between 0 and 1 (0.95 is usual)"]);
    }

    /// Printed tables of the normal distribution: 1.6449, 1.9600, 2.5758.
    #[test]
    fn quantiles_of_the_tables() {
        let z = |level| Confidence::new(level).map(|c| format!("{:.4}", c.z()));
        assert_eq!(z(0.90), Ok("1.6449".into()));
        assert_eq!(z(0.95), Ok("1.9600".into()));
        assert_eq!(z(0.99), Ok("2.5758".into()));
    }
}

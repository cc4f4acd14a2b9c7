//! Who wins a comparison, and how often. Knows scores only, not what gave them.

use crate::{Confidence, EvalError, Interval, interval};

/// What one comparison says of the candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The candidate scored higher.
    Win,
    /// Both scored exactly the same.
    Tie,
    /// The baseline scored higher.
    Loss,
}

impl Outcome {
    /// Compares two scores; higher is better. `None` if either is NaN, because then nothing was measured.
    pub fn of(candidate_score: f32, baseline_score: f32) -> Option<Self> {
        candidate_score.partial_cmp(&baseline_score).map(|order| match order {
            std::cmp::Ordering::Greater => Self::Win,
            std::cmp::Ordering::Equal => Self::Tie,
            std::cmp::Ordering::Less => Self::Loss,
        })
    }

    /// 1, ½ or 0.
    pub fn points(self) -> f64 {
        match self {
            Self::Win => 1.0,
            Self::Tie => 0.5,
            Self::Loss => 0.0,
        }
    }
}

/// Counts of outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WinRate {
    /// Comparisons the candidate won.
    pub wins: u64,
    /// Comparisons with equal scores.
    pub ties: u64,
    /// Comparisons the baseline won.
    pub losses: u64,
}

impl WinRate {
    /// Number of comparisons.
    pub fn n(&self) -> u64 {
        self.wins + self.ties + self.losses
    }

    /// `(wins + ties / 2) / n`; `None` without a comparison. 0.5 means neither side is better.
    pub fn rate(&self) -> Option<f64> {
        (self.n() > 0).then(|| self.points() / self.n() as f64)
    }

    /// Wilson interval of [`Self::rate`]; right if every comparison is of another prompt. With several answers
    /// a prompt use [`crate::Bootstrap`].
    ///
    /// # Errors
    /// [`EvalError::Empty`] without a comparison.
    pub fn interval(&self, confidence: Confidence) -> Result<Interval, EvalError> {
        interval::wilson(self.points(), self.n(), confidence)
    }

    fn points(&self) -> f64 {
        self.wins as f64 + self.ties as f64 / 2.0
    }
}

impl FromIterator<Outcome> for WinRate {
    fn from_iter<I: IntoIterator<Item = Outcome>>(outcomes: I) -> Self {
        let mut rate = Self::default();
        for outcome in outcomes {
            match outcome {
                Outcome::Win => rate.wins += 1,
                Outcome::Tie => rate.ties += 1,
                Outcome::Loss => rate.losses += 1,
            }
        }
        rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2 wins, 1 tie, 1 loss: (2 + ½) / 4 = 0.625.
    #[test]
    fn ties_count_half() {
        let scores = [(2.0, 1.0), (0.5, 0.5), (-1.0, 3.0), (0.1, 0.0), (f32::NAN, 0.0)];
        let rate: WinRate = scores.iter().filter_map(|&(c, b)| Outcome::of(c, b)).collect();
        assert_eq!(rate, WinRate { wins: 2, ties: 1, losses: 1 });
        assert_eq!(rate.rate(), Some(0.625));
        assert_eq!(WinRate::default().rate(), None);
        assert_eq!(WinRate::default().interval(Confidence::USUAL), Err(EvalError::Empty));
    }
}

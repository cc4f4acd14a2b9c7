//! Measures of model answers: exact checks against a reference, format, win rate, length, and the intervals
//! around them. Pure functions over text and numbers.
//!
//! Knows nothing of Burn, YAML, Arrow or the store, and of where an answer came from. Randomness is a seed
//! that the caller hands in; the same seed gives the same interval on every machine.
//!
//! | module | answers |
//! |---|---|
//! | [`check`] | is this answer right? |
//! | [`format`] | is it ended, short and without a hedge? |
//! | [`win`] | how often does the candidate beat the baseline? |
//! | [`interval`] | how sure is a proportion (Wilson)? |
//! | [`bootstrap`] | how sure is a mean or a difference of means, several answers a prompt? |
//! | [`spread`] | what is the middle of several runs, how far are they apart, how much longer got the answers? |

pub mod bootstrap;
pub mod check;
pub mod format;
pub mod interval;
pub mod spread;
pub mod win;

pub use bootstrap::{Bootstrap, Clusters};
pub use check::Check;
pub use format::{Adherence, FormatRules};
pub use interval::{Confidence, Interval};
pub use spread::{Spread, length_ratio};
pub use win::{Outcome, WinRate};

/// What a caller can get wrong.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EvalError {
    /// A confidence level outside the open interval (0, 1).
    #[error("confidence {0} is not between 0 and 1 (0.95 is usual)")]
    Confidence(f64),
    /// A bootstrap without a single resample.
    #[error("a bootstrap needs at least one resample")]
    NoResamples,
    /// No value at all, so there is nothing to average.
    #[error("no value to average")]
    Empty,
    /// A value that is NaN or infinite.
    #[error("value {index} is {value}, which is not finite")]
    NotFinite {
        /// Position of the value in the order given.
        index: usize,
        /// The value.
        value: f64,
    },
    /// More successes than trials.
    #[error("{successes} successes in {trials} trials")]
    Proportion {
        /// Successes, a tie counting one half.
        successes: f64,
        /// Trials.
        trials: u64,
    },
}

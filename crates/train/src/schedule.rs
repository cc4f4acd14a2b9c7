//! The learning rate as a pure function of the step.
//!
//! Owns warm-up and decay. Keeps no state, so a resumed run needs none.

use serde::Serialize;

/// How the rate falls after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Half a cosine from the peak to 0.
    Cosine,
    /// A straight line from the peak to 0.
    Linear,
    /// The peak throughout.
    Constant,
}

/// A linear warm-up from 0 to the peak, then a decay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The rate at the end of the warm-up.
    pub peak: f64,
    pub decay: Decay,
    pub n_warmup_steps: usize,
    /// Steps of the whole run, warm-up included.
    pub n_steps: usize,
}

impl Schedule {
    /// A schedule whose warm-up takes `ratio` of the steps, rounded up.
    pub fn with_warmup_ratio(peak: f64, decay: Decay, ratio: f64, n_steps: usize) -> Self {
        let n_warmup_steps = (n_steps as f64 * ratio).ceil() as usize;
        Self { peak, decay, n_warmup_steps, n_steps }
    }

    /// The rate of the step that follows `n_done` finished steps.
    ///
    /// The first step of a warm-up runs at rate 0, as with the schedules of the transformers library: weights stay, the
    /// moments of the optimiser move. A step after the last would have rate 0 again.
    pub fn rate(&self, n_done: usize) -> f64 {
        let Self { peak, decay, n_warmup_steps, n_steps } = *self;
        if n_done < n_warmup_steps {
            return peak * (n_done as f64 / n_warmup_steps as f64);
        }
        let n_decay_steps = n_steps.saturating_sub(n_warmup_steps).max(1) as f64;
        let progress = (n_done - n_warmup_steps) as f64 / n_decay_steps;
        match decay {
            Decay::Cosine => peak * (0.5 * (1.0 + (std::f64::consts::PI * progress).cos())).max(0.0),
            Decay::Linear => peak * (1.0 - progress).max(0.0),
            Decay::Constant => peak,
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(decay: Decay, warmup_ratio: f64, expected: Expect) {
        let schedule = Schedule::with_warmup_ratio(1.0, decay, warmup_ratio, 8);
        let rates: Vec<String> = (0..=8).map(|n_done| format!("{:.4}", schedule.rate(n_done))).collect();
        expected.assert_eq(&rates.join(" "));
    }

    #[test]
    fn rates() {
        check(Decay::Cosine, 0.25, expect!["0.0000 0.5000 1.0000 0.9330 0.7500 0.5000 0.2500 0.0670 0.0000"]);
        check(Decay::Linear, 0.25, expect!["0.0000 0.5000 1.0000 0.8333 0.6667 0.5000 0.3333 0.1667 0.0000"]);
        check(Decay::Constant, 0.25, expect!["0.0000 0.5000 1.0000 1.0000 1.0000 1.0000 1.0000 1.0000 1.0000"]);
        check(Decay::Cosine, 0.0, expect!["1.0000 0.9619 0.8536 0.6913 0.5000 0.3087 0.1464 0.0381 0.0000"]);
    }
}

//! Many steps of training with an eye on memory: what an allocator holds must come to rest.
//!
//! Owns the steps, whose shapes differ from one to the next as in real work, and the judgement. Where memory is measured is
//! the caller's business.

use std::sync::atomic::AtomicBool;

use sluice_train::backward::Kept;
use sluice_train::optimizer::AdamW;
use sluice_train::order::{Order, Shuffle};
use sluice_train::schedule::{Decay, Schedule};
use sluice_train::task::PairTask;
use sluice_train::trainer::{Recipe, Trainer};

use crate::CheckError;
use crate::device::Subject;
use crate::fixture::Fixtures;
use crate::training::{SIMPO, pairs, trained};
use crate::verdict::Finding;

/// What memory was measured in, and how many bytes it had after each step.
#[derive(Clone, Debug, Default)]
pub struct Series {
    pub what: String,
    pub bytes: Vec<u64>,
}

/// Trains `n_steps` steps and measures after each. `measure` gives the bytes of each kind of memory it knows, always the
/// same ones in the same order.
pub fn soak(
    subject: &Subject,
    fixtures: &Fixtures,
    n_steps: usize,
    measure: &mut dyn FnMut(usize, f64) -> Vec<(String, u64)>,
) -> Result<Vec<Series>, CheckError> {
    let pairs = pairs(fixtures)?;
    let task = PairTask::new(&SIMPO, &pairs, &[], 4096)?;
    let recipe = Recipe {
        order: Order::Shuffled(Shuffle { n_rows: pairs.len(), batch_size: 6, seed: 1 }),
        schedule: Schedule { peak: 1e-5, decay: Decay::Constant, n_warmup_steps: 0, n_steps },
        adamw: AdamW::default(),
        max_grad_norm: Some(1.0),
        micro_batch_tokens: 256,
        precision: subject.placement.precision,
        kept: Kept::All,
    };
    let never = AtomicBool::new(false);
    let mut trainer = Trainer::new(trained(&subject.placement.device, fixtures)?, recipe.adamw)?;
    let mut series: Vec<Series> = Vec::new();
    for step in 1..=n_steps {
        let loss = trainer.step(&task, &recipe, &never)?.map_or(f64::NAN, |metrics| metrics.loss);
        for (at, (what, bytes)) in measure(step, loss).into_iter().enumerate() {
            if at == series.len() {
                series.push(Series { what, bytes: Vec::new() });
            }
            series[at].bytes.push(bytes);
        }
    }
    Ok(series)
}

impl Series {
    /// The first third fills pools and caches; from there to the last third nothing may be added but noise.
    pub fn finding(&self) -> Finding {
        /// Of what was held in the middle third.
        const NOISE: f64 = 0.01;
        let third = self.bytes.len() / 3;
        let most = |part: &[u64]| part.iter().copied().max().unwrap_or(0) as f64;
        let (middle, last) = (most(&self.bytes[third..2 * third]), most(&self.bytes[self.bytes.len() - third..]));
        let grown = if third == 0 { f64::NAN } else { (last - middle) / middle.max(1.0) };
        let what = format!(
            "{}, {} MiB after {} steps, growth over the last third",
            self.what,
            last as u64 >> 20,
            self.bytes.len()
        );
        Finding::new(what, grown, NOISE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: impl Iterator<Item = u64>, passes: bool) {
        let series = Series { what: "memory".to_owned(), bytes: bytes.collect() };
        assert_eq!(series.finding().passes(), passes, "{:?}", series.finding());
    }

    #[test]
    fn what_comes_to_rest_passes_and_what_grows_does_not() {
        check((0..90).map(|step| 1_000_000_u64.min(100_000 + step * 50_000)), true);
        check((0..90).map(|step| 1_000_000 + step % 7), true);
        check((0..90).map(|step| 1_000_000 + step * 1_000), false);
        check(std::iter::empty(), false);
    }
}

//! Preference optimisation: pairs of responses under an [`Objective`].
//!
//! Chosen and rejected of a pair are always in one micro-batch.
//!
//! b pairs

use std::sync::atomic::AtomicBool;

use sluice_lm::causal::CausalLm;
use sluice_lm::packed::Packed;

use super::{Mismatched, Read, ReferenceLogps, Share, Task, TaskError};
use crate::batch::{Sequence, TokenPair};
use crate::logps::{Predictions, all_sequence_logps, floats};
use crate::metrics::PairTally;
use crate::objective::{BatchTotals, Kto, Objective, PairFacts, PairStats, ReferenceSums};

/// Pairs with an objective.
pub struct PairTask<'a> {
    objective: &'a Objective,
    pairs: &'a [TokenPair],
    facts: Vec<PairFacts>,
    /// Where the objective estimates a KL.
    mismatched: Vec<Mismatched>,
    micro_batch_tokens: usize,
    shares_prompts: bool,
}

/// What the whole batch knows: its sizes, and the KL estimate where the objective reads one.
pub struct PairTotals {
    batch: BatchTotals,
    kl: f64,
}

impl<'a> PairTask<'a> {
    /// Pairs that the objective can be computed on. `reference` has an entry for each pair, or is empty where the
    /// objective reads no reference model. `micro_batch_tokens` bounds the passes of the KL estimate.
    pub fn new(
        objective: &'a Objective,
        pairs: &'a [TokenPair],
        reference: &[ReferenceLogps],
        micro_batch_tokens: usize,
    ) -> Result<Self, TaskError> {
        if pairs.is_empty() {
            return Err(TaskError::Empty);
        }
        for (row, pair) in pairs.iter().enumerate() {
            for (which, sequence) in [("chosen", &pair.chosen), ("rejected", &pair.rejected)] {
                if sequence.n_predicted() == 0 {
                    return Err(TaskError::NoResponse { row, which });
                }
            }
        }
        let reference_sums = checked_reference(objective, pairs.len(), reference)?;
        let facts = pairs
            .iter()
            .zip(reference_sums)
            .map(|(pair, reference)| PairFacts {
                chosen_len: pair.chosen.n_predicted(),
                rejected_len: pair.rejected.n_predicted(),
                reference,
            })
            .collect();
        let mismatched = if objective.reads_kl() {
            let each = reference.iter().enumerate().map(|(row, logps)| {
                logps.mismatched.clone().ok_or(TaskError::NoMismatched { objective: objective.name(), row })
            });
            each.collect::<Result<_, _>>()?
        } else {
            Vec::new()
        };
        Ok(Self { objective, pairs, facts, mismatched, micro_batch_tokens, shares_prompts: false })
    }

    /// The same task with a prompt that chosen and rejected have in common read once: equal up to the order of sums.
    pub fn sharing_prompts(self) -> Self {
        Self { shares_prompts: true, ..self }
    }

    /// The sequences of some rows in the order they are packed, each with its place among the chosen, then the rejected.
    fn sequences(&self, rows: &[usize]) -> Vec<(usize, &Sequence)> {
        let n_rows = rows.len();
        let chosen = rows.iter().enumerate().map(|(i, &row)| (i, &self.pairs[row].chosen));
        let rejected = rows.iter().enumerate().map(|(i, &row)| (n_rows + i, &self.pairs[row].rejected));
        if self.shares_prompts {
            chosen.zip(rejected).flat_map(|(chosen, rejected)| [chosen, rejected]).collect()
        } else {
            chosen.chain(rejected).collect()
        }
    }

    /// `max(0, mean log-ratio)` over the mismatched sequences of a batch.
    fn kl<M: CausalLm>(&self, model: &M, rows: &[usize]) -> f64 {
        let (sequences, reference): (Vec<&Sequence>, Vec<f64>) =
            rows.iter().map(|&row| (&self.mismatched[row].sequence, self.mismatched[row].logp)).unzip();
        let never = AtomicBool::new(false);
        let policy = all_sequence_logps(model, &sequences, self.micro_batch_tokens, &never);
        policy.map_or(0.0, |policy| Kto::kl(&policy, &reference))
    }
}

impl<M: CausalLm> Task<M> for PairTask<'_> {
    type Totals = PairTotals;

    fn n_rows(&self) -> usize {
        self.pairs.len()
    }

    fn n_tokens(&self, row: usize) -> usize {
        let pair = &self.pairs[row];
        pair.n_tokens() - if self.shares_prompts { n_common(pair) } else { 0 }
    }

    fn totals(&self, model: &M, rows: &[usize]) -> PairTotals {
        let n_chosen_tokens = rows.iter().map(|&row| self.facts[row].chosen_len).sum();
        let kl = if self.objective.reads_kl() { self.kl(model, rows) } else { 0.0 };
        PairTotals { batch: BatchTotals { n_pairs: rows.len(), n_chosen_tokens }, kl }
    }

    fn batch(&self, rows: &[usize]) -> Packed {
        if self.shares_prompts {
            let pairs = rows.iter().map(|&row| &self.pairs[row]);
            let pairs: Vec<_> = pairs.map(|pair| (&pair.chosen, &pair.rejected, n_common(pair))).collect();
            return Packed::pairs(&pairs);
        }
        Packed::new(&self.sequences(rows).into_iter().map(|(_, sequence)| sequence).collect::<Vec<_>>())
    }

    fn predictions(&self, rows: &[usize]) -> Predictions {
        Predictions::of_packed(self.sequences(rows), &<Self as Task<M>>::batch(self, rows))
    }

    fn share(&self, _model: &M, read: Read<'_>, rows: &[usize], totals: &PairTotals) -> Share {
        let Read { hidden_nd: _, predictions, logps_m } = read;
        let facts: Vec<PairFacts> = rows.iter().map(|&row| self.facts[row]).collect();
        let sums = predictions.sums(logps_m, 2 * rows.len());
        let (chosen_sums_b, rejected_sums_b) =
            (sums.clone().slice(0..rows.len()), sums.slice(rows.len()..2 * rows.len()));
        let stats = PairStats::new(chosen_sums_b, rejected_sums_b, &facts, totals.kl);
        Share { loss: self.objective.share(&stats, &totals.batch), tally: self.tally(&stats) }
    }
}

impl PairTask<'_> {
    fn tally(&self, stats: &PairStats) -> PairTally {
        let (chosen_rewards_b, rejected_rewards_b) = self.objective.rewards(stats);
        let (chosen_logps_b, rejected_logps_b) = if self.objective.averages_tokens() {
            (stats.chosen_means(), stats.rejected_means())
        } else {
            (stats.chosen_sums_b.clone(), stats.rejected_sums_b.clone())
        };
        let total = |logps_b| floats(logps_b).iter().sum();
        PairTally {
            logps: Some((total(chosen_logps_b), total(rejected_logps_b))),
            ..PairTally::of_rewards(&floats(chosen_rewards_b), &floats(rejected_rewards_b))
        }
    }
}

/// Tokens of the prompt where both responses follow the same one.
fn n_common(pair: &TokenPair) -> usize {
    let prompt = pair.chosen.prompt();
    if prompt == pair.rejected.prompt() { prompt.len() } else { 0 }
}

/// The reference sums of each pair, `None` throughout where the objective reads none.
fn checked_reference(
    objective: &Objective,
    n_pairs: usize,
    reference: &[ReferenceLogps],
) -> Result<Vec<Option<ReferenceSums>>, TaskError> {
    if !objective.reads_reference() {
        return Ok(vec![None; n_pairs]);
    }
    if reference.is_empty() {
        return Err(TaskError::NoReference { objective: objective.name() });
    }
    if reference.len() != n_pairs {
        return Err(TaskError::ReferenceCount { n_pairs, n_reference: reference.len() });
    }
    if let Some(row) = reference.iter().position(|logps| !(logps.chosen + logps.rejected).is_finite()) {
        return Err(TaskError::ReferenceNotFinite { row });
    }
    let sums = |logps: &ReferenceLogps| Some(ReferenceSums { chosen: logps.chosen, rejected: logps.rejected });
    Ok(reference.iter().map(sums).collect())
}

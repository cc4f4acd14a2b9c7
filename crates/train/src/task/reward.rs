//! Training of an ArmoRM-architecture reward model on answers that are known to be right or wrong.
//!
//! Owns the four parts of the loss. Knows nothing of how answers were judged or described.
//!
//! n tokens, b rows, c pairs of a right and a wrong answer to one prompt, o objectives, m picked tokens

use burn::tensor::activation::log_sigmoid;
use burn::tensor::{Int, Tensor, TensorData};
use serde::Serialize;
use sluice_lm::packed::Packed;
use sluice_lm::reward::{ArmoRm, HeadDtype};

use super::{Read, Share, Task, TaskError};
use crate::batch::Sequence;
use crate::logps::{Predictions, floats};
use crate::metrics::PairTally;

/// One answer, with what the reward model should say of it.
#[derive(Clone, Debug, PartialEq)]
pub struct RewardRow {
    /// Rows of one number answer one prompt.
    pub prompt: usize,
    /// Prompt and answer as the reward model reads them.
    pub sequence: Sequence,
    /// The chance that the answer is right: the first objective, as a logit.
    pub label: f32,
    /// Values of the other objectives.
    pub targets: Vec<f32>,
}

/// Weights of the parts of the loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RewardWeights {
    /// Cross entropy of the first objective after every token of the answer, averaged per answer: it teaches the body
    /// to see where an answer goes wrong.
    pub correctness: f64,
    /// Squared error of the other objectives at the token the reward is read at.
    pub objectives: f64,
    /// `−ln σ(score of a right answer − score of a wrong one)` over pairs of answers to one prompt (Bradley and Terry
    /// 1952), on the gated score: it teaches the gate.
    pub preference: f64,
    /// Cross entropy of the tokens of right answers: it keeps the body a language model, without which it memorises.
    pub lm: f64,
}

/// Answers grouped by prompt; a row of the task is a prompt with all its answers.
pub struct RewardTask<'a> {
    weights: RewardWeights,
    groups: Vec<Vec<&'a RewardRow>>,
}

/// Sizes of a batch.
pub struct RewardTotals {
    n_rows: usize,
    n_pairs: usize,
    n_right_tokens: usize,
}

impl<'a> RewardTask<'a> {
    /// Rows that `model` can read, each with a target for every objective but the first.
    pub fn new(weights: RewardWeights, rows: &'a [RewardRow], model: &ArmoRm) -> Result<Self, TaskError> {
        if rows.is_empty() {
            return Err(TaskError::Empty);
        }
        let n_objectives = model.config().n_objectives;
        for (row, RewardRow { prompt: _, sequence, label: _, targets }) in rows.iter().enumerate() {
            if sequence.n_predicted() == 0 {
                return Err(TaskError::NoResponse { row, which: "given" });
            }
            if targets.len() + 1 != n_objectives {
                return Err(TaskError::TargetCount { row, given: targets.len(), expected: n_objectives - 1 });
            }
            let batch = Packed::new(&[sequence]);
            model
                .reward_rows(&batch)
                .and(model.gate_rows(&batch))
                .map_err(|source| TaskError::Unreadable { row, source })?;
        }
        Ok(Self { weights, groups: grouped(rows) })
    }

    fn rows(&self, groups: &[usize]) -> impl Iterator<Item = &'a RewardRow> {
        groups.iter().flat_map(|&group| self.groups[group].iter().copied())
    }
}

/// Rows by prompt, prompts in the order they first appear in.
fn grouped(rows: &[RewardRow]) -> Vec<Vec<&RewardRow>> {
    let mut place = std::collections::BTreeMap::new();
    let mut groups: Vec<Vec<&RewardRow>> = Vec::new();
    for row in rows {
        let group = *place.entry(row.prompt).or_insert(groups.len());
        if group == groups.len() {
            groups.push(Vec::new());
        }
        groups[group].push(row);
    }
    groups
}

fn is_right(row: &RewardRow) -> bool {
    row.label > 0.5
}

/// Places in `rows` of the right and of the wrong answer of every pair to one prompt.
fn preference_pairs(rows: &[&RewardRow]) -> (Vec<usize>, Vec<usize>) {
    let mut pairs = (Vec::new(), Vec::new());
    for (i, right) in rows.iter().enumerate().filter(|(_, row)| is_right(row)) {
        for (j, wrong) in rows.iter().enumerate().filter(|(_, row)| !is_right(row)) {
            if right.prompt == wrong.prompt {
                pairs.0.push(i);
                pairs.1.push(j);
            }
        }
    }
    pairs
}

impl Task<ArmoRm> for RewardTask<'_> {
    type Totals = RewardTotals;

    fn n_rows(&self) -> usize {
        self.groups.len()
    }

    fn n_tokens(&self, row: usize) -> usize {
        self.groups[row].iter().map(|row| row.sequence.n_tokens()).sum()
    }

    /// The transform between objectives is a constant of the architecture.
    fn trains(&self, parameter: &str) -> bool {
        parameter != "reward_transform_matrix"
    }

    fn totals(&self, _model: &ArmoRm, groups: &[usize]) -> RewardTotals {
        let n_pairs = groups.iter().map(|&group| preference_pairs(&self.groups[group]).0.len()).sum();
        let right = self.rows(groups).filter(|row| is_right(row));
        RewardTotals {
            n_rows: self.rows(groups).count(),
            n_pairs,
            n_right_tokens: right.map(|row| row.sequence.n_predicted()).sum(),
        }
    }

    fn batch(&self, groups: &[usize]) -> Packed {
        Packed::new(&self.rows(groups).map(|row| &row.sequence).collect::<Vec<_>>())
    }

    /// The tokens of right answers; without their part of the loss, none.
    fn predictions(&self, groups: &[usize]) -> Predictions {
        if self.weights.lm == 0.0 {
            return Predictions::default();
        }
        let rows: Vec<&RewardRow> = self.rows(groups).collect();
        of_answers(&rows).only(|owner| is_right(rows[owner]))
    }

    fn share(&self, model: &ArmoRm, read: Read<'_>, groups: &[usize], totals: &RewardTotals) -> Share {
        let Read { hidden_nd, predictions: of_right, logps_m } = read;
        let rows: Vec<&RewardRow> = self.rows(groups).collect();
        let batch = <Self as Task<ArmoRm>>::batch(self, groups);
        let (Ok(reward_rows), Ok(gate_rows)) = (model.reward_rows(&batch), model.gate_rows(&batch)) else {
            unreachable!("every row was read when the task was made");
        };
        let output = model.head(hidden_nd.clone(), &reward_rows, &gate_rows, HeadDtype::F32);

        let mut loss = self.correctness_part(model, hidden_nd, &rows, &of_answers(&rows), totals)
            + self.objectives_part(output.rewards, &rows, totals);
        let (preference, tally) = self.preference_part(output.score, &rows, totals);
        if let Some(preference) = preference {
            loss = loss + preference;
        }
        if !of_right.rows.is_empty() {
            loss = loss - logps_m.sum() * (self.weights.lm / totals.n_right_tokens as f64);
        }
        Share { loss, tally }
    }
}

impl RewardTask<'_> {
    /// Cross entropy of the label after every token of an answer, averaged per answer, then over the batch.
    fn correctness_part(
        &self,
        model: &ArmoRm,
        hidden_nd: Tensor<2>,
        rows: &[&RewardRow],
        predictions: &Predictions,
        totals: &RewardTotals,
    ) -> Tensor<1> {
        // The row after the one that predicts a token has read that token.
        let read: Vec<usize> = predictions.rows.iter().map(|row| row + 1).collect();
        let n_read = read.len();
        let logits_mo = model.regression(pick(hidden_nd, &read));
        let logits_m: Tensor<1> = logits_mo.slice([0..n_read, 0..1]).reshape([n_read]);
        let share =
            |owner: usize| self.weights.correctness / (rows[owner].sequence.n_predicted() * totals.n_rows) as f64;
        let column = |value: &dyn Fn(usize) -> f64| {
            constant(predictions.owners.iter().map(|&owner| value(owner)).collect(), &logits_m)
        };
        let right_m = column(&|owner| f64::from(rows[owner].label) * share(owner));
        let wrong_m = column(&|owner| f64::from(1.0 - rows[owner].label) * share(owner));
        -(log_sigmoid(logits_m.clone()) * right_m + log_sigmoid(-logits_m) * wrong_m).sum()
    }

    /// Squared error of the objectives but the first, averaged over rows and objectives.
    fn objectives_part(&self, rewards_bo: Tensor<2>, rows: &[&RewardRow], totals: &RewardTotals) -> Tensor<1> {
        let [b, o] = rewards_bo.dims();
        if o == 1 {
            return rewards_bo.sum() * 0.0;
        }
        let targets: Vec<f64> = rows.iter().flat_map(|row| row.targets.iter().map(|&t| f64::from(t))).collect();
        let others_m: Tensor<1> = rewards_bo.slice([0..b, 1..o]).reshape([b * (o - 1)]);
        let targets_m = constant(targets, &others_m);
        (others_m - targets_m).square().sum() * (self.weights.objectives / (totals.n_rows * (o - 1)) as f64)
    }

    /// Bradley-Terry over the pairs of right and wrong answers to one prompt, where there are any.
    fn preference_part(
        &self,
        score_b: Tensor<1>,
        rows: &[&RewardRow],
        totals: &RewardTotals,
    ) -> (Option<Tensor<1>>, PairTally) {
        let (right, wrong) = preference_pairs(rows);
        if right.is_empty() {
            return (None, PairTally::default());
        }
        let (right_c, wrong_c) = (pick(score_b.clone(), &right), pick(score_b, &wrong));
        let tally = PairTally::of_rewards(&floats(right_c.clone()), &floats(wrong_c.clone()));
        let loss = -log_sigmoid(right_c - wrong_c).sum() * (self.weights.preference / totals.n_pairs as f64);
        (Some(loss), tally)
    }
}

/// What is predicted of answers that are packed one after the other.
fn of_answers(rows: &[&RewardRow]) -> Predictions {
    Predictions::new(&rows.iter().map(|row| &row.sequence).collect::<Vec<_>>())
}

/// The entries of a tensor at `places` of its first dimension.
fn pick<const D: usize>(tensor: Tensor<D>, places: &[usize]) -> Tensor<D> {
    let indices: Vec<i64> = places.iter().map(|&place| place as i64).collect();
    let device = tensor.device();
    let indices = Tensor::<1, Int>::from_data(TensorData::new(indices, [places.len()]), &device);
    tensor.select(0, indices)
}

/// Data beside a tensor on the tape.
fn constant(values: Vec<f64>, like: &Tensor<1>) -> Tensor<1> {
    let n_values = values.len();
    Tensor::from_data(TensorData::new(values, [n_values]), (&like.device().inner(), like.dtype()))
}

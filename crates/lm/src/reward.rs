//! Reward models: one score a conversation, and for ArmoRM every objective and the gate that mixes them.
//!
//! Owns the heads and the rules that say which token is read. Knows nothing of chat templates, tokenizers or files: it
//! takes token ids of whole conversations.
//!
//! n tokens, b conversations, d hidden size, o objectives

use burn::tensor::activation::{relu, softmax};
use burn::tensor::{Device, Tensor};

use crate::causal::CausalLm;
use crate::checkpoint::CheckpointError;
use crate::gemma2::Gemma2;
use crate::llama::Llama;
use crate::nn::pick;
use crate::packed::{Family, Packed};
use crate::params::{ParamMut, Parameters};
use crate::precision::Precision;
use crate::stack::Stack;
use crate::vocabulary::{Embedding, VocabularyHead};
use crate::weights::{Loader, values};

/// Tokens in common that are worth a sequence in two pieces.
pub const SHARED: usize = 32;

/// What a reward model says of one conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Reward {
    /// Higher is better, raw.
    pub score: f32,
    /// One value an objective, before the transform; empty for a plain classifier.
    pub rewards: Vec<f32>,
    /// The weight of each objective in the score; empty for a plain classifier.
    pub gating: Vec<f32>,
}

/// Why a conversation cannot be scored.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ScoreError {
    #[error("conversation {index} has no token to read a score at")]
    Empty { index: usize },
    #[error("conversation {index} has {n_tokens} tokens, more than the {max} positions of the reward model")]
    TooLong { index: usize, n_tokens: usize, max: usize },
    #[error(
        "conversation {index} never opens an assistant turn, so the gate has nothing to read: \
         the tokens {pattern:?} do not occur in it"
    )]
    NoAssistantTurn { index: usize, pattern: Vec<u32> },
    #[error("conversation {index} scores {score}: the reward model's weights are damaged or overflow")]
    NotFinite { index: usize, score: f32 },
}

impl ScoreError {
    /// The same of the conversation that stands at its index in `order`.
    fn of(mut self, order: &[usize]) -> Self {
        let (Self::Empty { index }
        | Self::TooLong { index, .. }
        | Self::NoAssistantTurn { index, .. }
        | Self::NotFinite { index, .. }) = &mut self;
        *index = order[*index];
        self
    }
}

/// The arithmetic of the head. It decides ties: bf16 has 8 bits, so that scores near 0.15 come in steps of 0.001.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HeadDtype {
    /// Head weights and activations in f32.
    #[default]
    F32,
    /// Rounded to bf16 after every operation, as the published scoring script runs.
    Bf16,
}

impl HeadDtype {
    fn round<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::F32 => x,
            Self::Bf16 => Precision::Bf16.round(x),
        }
    }
}

/// A reward model of any supported architecture.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a program holds one or two; their tensors are elsewhere")]
pub enum RewardModel {
    ArmoRm(ArmoRm),
    Llama(Classifier<Llama>),
    Gemma2(Classifier<Gemma2>),
}

impl RewardModel {
    /// Scores whole conversations, given as token ids. The batch is what is given: the caller cuts it to size. On the CPU each
    /// is read whole, elsewhere as [`RewardModel::score_sharing`] reads them.
    pub fn score(&self, conversations: &[Vec<u32>], head: HeadDtype) -> Result<Vec<Reward>, ScoreError> {
        self.score_families(conversations, &self.families(conversations, usize::MAX), head)
    }

    /// Scores whole conversations as [`RewardModel::score`] does, but reads once what some begin with in common, as answers
    /// to one prompt do.
    pub fn score_sharing(&self, conversations: &[Vec<u32>], head: HeadDtype) -> Result<Vec<Reward>, ScoreError> {
        self.score_families(conversations, &Family::alike(conversations, SHARED, usize::MAX), head)
    }

    /// Conversations that [`RewardModel::score`] reads together if they are in one batch, each family in at most
    /// `max_tokens` tokens.
    pub fn families(&self, conversations: &[Vec<u32>], max_tokens: usize) -> Vec<Family> {
        match self.device() == Device::flex() {
            true => Family::singles(conversations),
            false => Family::alike(conversations, SHARED, max_tokens),
        }
    }

    fn score_families(
        &self,
        conversations: &[Vec<u32>],
        families: &[Family],
        head: HeadDtype,
    ) -> Result<Vec<Reward>, ScoreError> {
        self.expect_room(conversations)?;
        let order: Vec<usize> = families.iter().flat_map(Family::sequences).collect();
        let batch = Packed::families(conversations, families);
        let rewards = self.score_packed(&batch, head).map_err(|error| error.of(&order))?;
        let mut found: Vec<(usize, Reward)> = order.into_iter().zip(rewards).collect();
        found.sort_by_key(|(at, _)| *at);
        Ok(found.into_iter().map(|(_, reward)| reward).collect())
    }

    fn expect_room(&self, conversations: &[Vec<u32>]) -> Result<(), ScoreError> {
        let max = self.max_positions();
        match conversations.iter().position(|ids| ids.len() > max) {
            Some(index) => Err(ScoreError::TooLong { index, n_tokens: conversations[index].len(), max }),
            None => Ok(()),
        }
    }

    fn score_packed(&self, batch: &Packed, head: HeadDtype) -> Result<Vec<Reward>, ScoreError> {
        let rewards = match self {
            Self::ArmoRm(model) => model.score(batch, head)?,
            Self::Llama(model) => model.score(batch, head)?,
            Self::Gemma2(model) => model.score(batch, head)?,
        };
        match rewards.iter().position(|reward| !reward.score.is_finite()) {
            Some(index) => Err(ScoreError::NotFinite { index, score: rewards[index].score }),
            None => Ok(rewards),
        }
    }

    /// The device the parameters live on.
    pub fn device(&self) -> Device {
        match self {
            Self::ArmoRm(model) => model.body.device(),
            Self::Llama(model) => model.body.device(),
            Self::Gemma2(model) => model.body.device(),
        }
    }

    /// Positions the model was made for.
    pub fn max_positions(&self) -> usize {
        match self {
            Self::ArmoRm(model) => model.body.max_positions(),
            Self::Llama(model) => model.body.max_positions(),
            Self::Gemma2(model) => model.body.max_positions(),
        }
    }
}

/// A body with one linear score at the last token that is not padding.
#[derive(Clone, Debug)]
pub struct Classifier<B> {
    body: B,
    score: Tensor<2>,
    pad_id: Option<u32>,
}

impl<B: CausalLm> Classifier<B> {
    /// Puts the score weight `[1, d]` of a checkpoint on a loaded body.
    pub fn load(body: B, d: usize, pad_id: Option<u32>, loader: &mut Loader<'_>) -> Result<Self, CheckpointError> {
        let score = loader.in_f32().linear("score.weight", d, 1)?;
        Ok(Self { body, score, pad_id })
    }

    fn score(&self, batch: &Packed, head: HeadDtype) -> Result<Vec<Reward>, ScoreError> {
        let rows = read_rows(batch, |ids| ids.iter().rposition(|id| Some(*id) != self.pad_id))?;
        let hidden_bd = head.round(Precision::F32.hold(pick(self.body.hidden(batch), &rows)));
        let scores_b1 = head.round(hidden_bd.matmul(head.round(self.score.clone())));
        Ok(values(scores_b1)
            .into_iter()
            .map(|score| Reward { score, rewards: Vec::new(), gating: Vec::new() })
            .collect())
    }
}

impl<B: Parameters> Parameters for Classifier<B> {
    fn walk(&mut self, visit: &mut dyn FnMut(&str, ParamMut<'_>)) {
        self.body.walk(visit);
        visit("score.weight", ParamMut::Linear(&mut self.score));
    }
}

/// The sizes of ArmoRM's head.
#[derive(Clone, Debug, PartialEq)]
pub struct ArmoRmConfig {
    pub n_objectives: usize,
    pub gating_hidden_dim: usize,
    pub gating_n_hidden: usize,
    pub gating_temperature: f64,
    pub pad_id: Option<u32>,
    /// The tokens that open the assistant's turn, the end of the user's turn first.
    pub gating_pattern: Vec<u32>,
}

/// ArmoRM (Wang et al. 2024, "Interpretable Preferences via Multi-Objective Reward Modeling and Mixture-of-Experts"):
/// a regression of the conversation on every objective, mixed by a gate that has read the prompt alone.
#[derive(Clone, Debug)]
pub struct ArmoRm {
    body: Llama,
    config: ArmoRmConfig,
    regression: Tensor<2>,
    transform: Tensor<2>,
    gating: Vec<(Tensor<2>, Tensor<1>)>,
    logit_scale: Tensor<1>,
}

/// The head's outputs for b conversations, on the tape when the parameters are.
pub struct ArmoRmOutput {
    /// `[b, o]`, before the transform.
    pub rewards: Tensor<2>,
    /// `[b, o]`; each row sums to the logit scale.
    pub gating: Tensor<2>,
    /// `[b]`.
    pub score: Tensor<1>,
}

impl ArmoRm {
    /// Puts the head of a checkpoint on a loaded body.
    pub fn load(body: Llama, config: ArmoRmConfig, loader: &mut Loader<'_>) -> Result<Self, CheckpointError> {
        let (d, o, h) = (body.config().hidden_size, config.n_objectives, config.gating_hidden_dim);
        let loader = loader.in_f32();
        let regression = loader.linear("regression_layer.weight", d, o)?;
        let transform = loader.matrix("reward_transform_matrix", [o, o])?;
        let mut gating = Vec::with_capacity(config.gating_n_hidden + 1);
        for i in 0..=config.gating_n_hidden {
            let n_in = if i == 0 { d } else { h };
            let n_out = if i == config.gating_n_hidden { o } else { h };
            gating.push((
                loader.linear(&format!("gating.layers.{i}.weight"), n_in, n_out)?,
                loader.vector(&format!("gating.layers.{i}.bias"), n_out)?,
            ));
        }
        let logit_scale = loader.vector("gating.logit_scale", 1)?;
        Ok(Self { body, config, regression, transform, gating, logit_scale })
    }

    /// The body below the head.
    pub fn body(&self) -> &Llama {
        &self.body
    }

    /// The sizes and rules of the head.
    pub fn config(&self) -> &ArmoRmConfig {
        &self.config
    }

    /// The row each conversation's objectives are read at: the token before the first padding, or the last one.
    pub fn reward_rows(&self, batch: &Packed) -> Result<Vec<usize>, ScoreError> {
        read_rows(batch, |ids| match ids.iter().position(|id| Some(*id) == self.config.pad_id) {
            // The published rule takes the index modulo the row length.
            Some(first_pad) => (first_pad + ids.len() - 1).checked_rem(ids.len()),
            None => ids.len().checked_sub(1),
        })
    }

    /// The row each conversation's gate is read at: where the pattern that opens the assistant's turn last begins.
    pub fn gate_rows(&self, batch: &Packed) -> Result<Vec<usize>, ScoreError> {
        let pattern = &self.config.gating_pattern;
        let segments = batch.segments().iter().enumerate();
        segments
            .map(|(index, segment)| {
                let ids = batch.sequence(segment);
                ids.windows(pattern.len())
                    .rposition(|window| window == pattern)
                    .and_then(|start| segment.tokens().nth(start))
                    .ok_or_else(|| ScoreError::NoAssistantTurn { index, pattern: pattern.clone() })
            })
            .collect()
    }

    /// Every objective `[m, o]` from picked hidden states `[m, d]`.
    pub fn regression(&self, hidden_md: Tensor<2>) -> Tensor<2> {
        Precision::F32.hold(hidden_md).matmul(Precision::F32.hold(self.regression.clone()))
    }

    /// The head on hidden states `[n, d]` of packed conversations.
    pub fn head(
        &self,
        hidden_nd: Tensor<2>,
        reward_rows: &[usize],
        gate_rows: &[usize],
        dtype: HeadDtype,
    ) -> ArmoRmOutput {
        let weight = |matrix: &Tensor<2>| dtype.round(Precision::F32.hold(matrix.clone()));
        let vector = |vector: &Tensor<1>| dtype.round(Precision::F32.hold(vector.clone())).unsqueeze::<2>();
        let picked = |rows| dtype.round(Precision::F32.hold(pick(hidden_nd.clone(), rows)));
        let reward_bd = picked(reward_rows);
        let rewards = dtype.round(reward_bd.matmul(weight(&self.regression)));
        let mut x = picked(gate_rows);
        for (i, (matrix, bias)) in self.gating.iter().enumerate() {
            x = dtype.round(x.matmul(weight(matrix)) + vector(bias));
            if i < self.config.gating_n_hidden {
                x = relu(x);
            }
        }
        let gate_bo = dtype.round(softmax(x.div_scalar(self.config.gating_temperature), 1));
        let gating = dtype.round(gate_bo * vector(&self.logit_scale));
        let adjusted_bo = dtype.round(rewards.clone().matmul(weight(&self.transform)));
        let score = dtype.round((gating.clone() * adjusted_bo).sum_dim(1).squeeze_dim::<1>(1));
        ArmoRmOutput { rewards, gating, score }
    }

    fn score(&self, batch: &Packed, dtype: HeadDtype) -> Result<Vec<Reward>, ScoreError> {
        let (reward_rows, gate_rows) = (self.reward_rows(batch)?, self.gate_rows(batch)?);
        let output = self.head(self.body.hidden(batch), &reward_rows, &gate_rows, dtype);
        let o = self.config.n_objectives;
        let (rewards, gating) = (values(output.rewards), values(output.gating));
        let rows = rewards.chunks_exact(o).zip(gating.chunks_exact(o));
        let scores = values(output.score);
        Ok(scores
            .into_iter()
            .zip(rows)
            .map(|(score, (rewards, gating))| Reward { score, rewards: rewards.to_vec(), gating: gating.to_vec() })
            .collect())
    }

    /// The device the parameters live on.
    pub fn device(&self) -> Device {
        self.body.device()
    }
}

impl Stack for ArmoRm {
    fn n_blocks(&self) -> usize {
        self.body.n_blocks()
    }

    fn embedding(&self) -> Embedding<'_> {
        self.body.embedding()
    }

    fn vocabulary_head(&self) -> VocabularyHead<'_> {
        self.body.vocabulary_head()
    }

    fn block(&self, i: usize, x_nd: Tensor<2>, batch: &Packed) -> Tensor<2> {
        self.body.block(i, x_nd, batch)
    }

    fn normed(&self, x_nd: Tensor<2>) -> Tensor<2> {
        self.body.normed(x_nd)
    }
}

impl Parameters for ArmoRm {
    fn walk(&mut self, visit: &mut dyn FnMut(&str, ParamMut<'_>)) {
        self.body.walk(visit);
        visit("regression_layer.weight", ParamMut::Linear(&mut self.regression));
        visit("reward_transform_matrix", ParamMut::Matrix(&mut self.transform));
        for (i, (weight, bias)) in self.gating.iter_mut().enumerate() {
            visit(&format!("gating.layers.{i}.weight"), ParamMut::Linear(weight));
            visit(&format!("gating.layers.{i}.bias"), ParamMut::Vector(bias));
        }
        visit("gating.logit_scale", ParamMut::Vector(&mut self.logit_scale));
    }
}

/// One row a conversation, found by a rule that looks at its ids.
fn read_rows(batch: &Packed, rule: impl Fn(&[u32]) -> Option<usize>) -> Result<Vec<usize>, ScoreError> {
    let segments = batch.segments().iter().enumerate();
    segments
        .map(|(index, segment)| {
            rule(&batch.sequence(segment))
                .and_then(|position| segment.tokens().nth(position))
                .ok_or(ScoreError::Empty { index })
        })
        .collect()
}

#[cfg(test)]
mod tests;

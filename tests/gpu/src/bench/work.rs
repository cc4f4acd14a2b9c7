//! The work that a shape is given, as every side is asked for it, and the memory it should take.
//!
//! Owns the tokens: they are made up, the same each time, and no two rows are alike.

use sluice_lm::config::Config;
use sluice_lm::memory::{SamplingLoad, Share, Sizes};
use sluice_lm::precision::Precision;
use sluice_train::backward::Kept;
use sluice_train::memory::{TrainingLoad, training, training_on_gpu};
use sluice_train::optimizer::Keeping;

use super::shape::Load;
use super::synthetic::GATE_PATTERN;
use super::{Train, Work};
use crate::device::Place;
use crate::training::form_name;

/// A step with the hyper-parameters of the published run.
pub fn train(config: &Config, load: &Load, keeping: Keeping) -> Train {
    let Load { n_pairs, micro_batch_pairs, row_tokens, row_prompt_tokens, .. } = *load;
    let vocabulary = config.model.vocab_size();
    let rows = |side: usize| -> Vec<Vec<u32>> {
        (0..n_pairs).map(|pair| row(pair, side, row_prompt_tokens, row_tokens, vocabulary)).collect()
    };
    Train {
        chosen: rows(1),
        rejected: rows(2),
        n_prompt: row_prompt_tokens,
        micro_batch_pairs,
        form: form_name(keeping),
        beta: 10.0,
        gamma_beta_ratio: 0.5,
        learning_rate: 8e-7,
        max_grad_norm: 1.0,
    }
}

/// Bytes of such a step.
pub fn training_bytes(place: Place, config: &Config, load: &Load, precision: Precision, keeping: Keeping) -> usize {
    let sizes = Sizes::of(config);
    let n_rows = 2 * load.micro_batch_pairs;
    let load = TrainingLoad {
        precision,
        keeping,
        kept: Kept::suited_to(sizes.n_parameters),
        n_tokens: n_rows * load.row_tokens,
        n_predicted: n_rows * (load.row_tokens - load.row_prompt_tokens),
    };
    Share::total(&match place {
        Place::Cpu => training(&sizes, load),
        Place::CubeCpu | Place::Cuda(_) => training_on_gpu(&sizes, load),
    })
}

/// Answers to different prompts, batch by batch.
pub fn sample(config: &Config, load: &Load, batches: &[usize]) -> Work {
    let vocabulary = config.model.vocab_size();
    let prompts = |n: usize| (0..n).map(|at| row(at, 0, 0, load.prompt_tokens, vocabulary)).collect();
    Work::Sample {
        batches: batches.iter().map(|n| prompts(*n)).collect(),
        n_new: load.new_tokens,
        temperature: 0.8,
        top_p: 0.95,
    }
}

/// Bytes of a batch of `n` answers.
pub fn sampling_bytes(place: Place, config: &Config, load: &Load, precision: Precision, n: usize) -> usize {
    let sizes = Sizes::of(config);
    let load = SamplingLoad { precision, max_batch: n, n_prompt: load.prompt_tokens, n_new: load.new_tokens };
    Share::total(&match place {
        Place::Cpu => sizes.sampling(load),
        Place::CubeCpu | Place::Cuda(_) => sizes.sampling_on_gpu(load),
    })
}

/// One batch of conversations, each with an assistant's turn.
pub fn score(config: &Config, load: &Load) -> Work {
    let Load { n_conversations, conversation_tokens, .. } = *load;
    let vocabulary = config.model.vocab_size();
    let conversation = |at: usize| {
        let mut ids = row(at, 0, 0, conversation_tokens, vocabulary);
        // The gate reads where an assistant's turn is opened.
        let place = conversation_tokens / 2;
        ids[place..place + GATE_PATTERN.len()].copy_from_slice(&GATE_PATTERN);
        ids
    };
    Work::Score { conversations: (0..n_conversations).map(conversation).collect(), gate_pattern: GATE_PATTERN.to_vec() }
}

/// Tokens of a row: those of the prompt are the pair's, the others the row's own. Specials are left out.
fn row(pair: usize, side: usize, n_prompt: usize, n_tokens: usize, vocabulary: usize) -> Vec<u32> {
    let n_special = 16;
    let token = |position: usize| {
        let row = if position < n_prompt { 3 * pair } else { 3 * pair + side };
        (n_special + (row * 7919 + position * 131) % (vocabulary - n_special)) as u32
    };
    (0..n_tokens).map(token).collect()
}

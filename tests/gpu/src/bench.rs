//! Speed and memory of the models at their published sizes, beside another library on the same device.
//!
//! Owns what is measured and how it is asked for: a side is a program that reads one request and answers it, so that each
//! measurement has a process, and a peak of memory, of its own. Both sides load the same files and read the same tokens.

pub mod flops;
pub mod ours;
pub mod shape;
pub mod side;
pub mod synthetic;
pub mod work;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::attention::Heads;

/// What a side is asked to do, once untimed and then `n_runs` times.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// `f32` or `bf16`.
    pub precision: String,
    pub n_threads: usize,
    pub n_runs: usize,
    /// The folder of the checkpoint.
    pub folder: PathBuf,
    /// Where compiled kernels are kept, for the side that keeps them.
    pub kernels: PathBuf,
    pub work: Work,
}

/// The work, with everything both sides have to agree on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// What the device can do at best.
    Ceilings { matmul_size: usize, copy_bytes: usize },
    /// Both attentions of a GPU alone, where it has them; asked of our side only.
    Attention { heads: Heads, n_sequences: usize, n_tokens: usize },
    /// An optimiser step of SimPO over pairs of rows.
    Train(Train),
    /// Answers to different prompts, each to its last token, batch by batch.
    Sample { batches: Vec<Vec<Vec<u32>>>, n_new: usize, temperature: f64, top_p: f64 },
    /// Scores of one batch of conversations.
    Score { conversations: Vec<Vec<u32>>, gate_pattern: Vec<u32> },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Train {
    pub chosen: Vec<Vec<u32>>,
    pub rejected: Vec<Vec<u32>>,
    /// The first tokens of every row, which are not predicted.
    pub n_prompt: usize,
    /// Pairs whose gradients are computed together.
    pub micro_batch_pairs: usize,
    /// How weights and moments are kept, for the side that has a choice: see [`crate::training::form_name`].
    pub form: String,
    pub beta: f64,
    pub gamma_beta_ratio: f64,
    pub learning_rate: f64,
    pub max_grad_norm: f64,
}

/// What a side found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The library and its version.
    pub library: String,
    /// As the device calls itself.
    pub device: String,
    pub load_seconds: f64,
    pub measured: Vec<Measured>,
}

/// One thing that was timed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    pub what: String,
    /// Of each timed run.
    pub seconds: Vec<f64>,
    /// The most memory of the device that the process had until then; on the CPU, of the machine.
    pub peak_bytes: u64,
    /// A number that both sides should agree on: the loss, the mean score.
    pub check: Option<f64>,
    /// How it was done, where a side had a choice.
    pub how: String,
}

impl Measured {
    /// The middle of the timed runs.
    pub fn median_seconds(&self) -> f64 {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

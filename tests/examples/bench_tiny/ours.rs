//! This project's side: the policy for sampling, and the same policy in training.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use burn::tensor::Device;
use sluice_lm::causal::CausalLm;
use sluice_lm::checkpoint::Checkpoint;
use sluice_lm::generate::{Decoding, GenerateConfig, Request, generate};
use sluice_lm::model::{CausalModel, load_causal};
use sluice_lm::params::Parameters;
use sluice_lm::precision::Precision;
use sluice_lm::sampling::Sampling;
use sluice_train::backward::Kept;
use sluice_train::batch::{Sequence, TokenPair};
use sluice_train::objective::{MarginLoss, Objective, Simpo};
use sluice_train::optimizer::AdamW;
use sluice_train::order::Order;
use sluice_train::schedule::{Decay, Schedule};
use sluice_train::task::PairTask;
use sluice_train::trainer::{Recipe, Trainer};

use crate::{
    BETA, Case, GAMMA_BETA_RATIO, LEARNING_RATE, MAX_GRAD_NORM, NEW_TOKENS, PAIRS, ROW_PROMPT_TOKENS, Ran, Side,
    TEMPERATURE, TOP_P, prompts, training_rows,
};

/// A loaded checkpoint.
pub struct Ours {
    policy: CausalModel,
    trainer: Trainer<CausalModel>,
    pairs: Vec<TokenPair>,
    pub vocab_size: usize,
    pub n_parameters: usize,
}

impl Ours {
    pub fn load(folder: &Path) -> Result<Self, Box<dyn Error>> {
        let mut policy = load_causal(&Checkpoint::open(folder)?, &Device::flex())?;
        let (vocab_size, n_parameters) = (policy.vocab_size(), policy.n_parameters());
        let rows = training_rows(vocab_size);
        let sequence = |ids: &Vec<u32>| Sequence::new(&ids[..ROW_PROMPT_TOKENS], &ids[ROW_PROMPT_TOKENS..]);
        let pair = |row: usize| TokenPair { chosen: sequence(&rows[row]), rejected: sequence(&rows[PAIRS + row]) };
        Ok(Self {
            trainer: Trainer::new(policy.clone(), AdamW::default())?,
            policy,
            pairs: (0..PAIRS).map(pair).collect(),
            vocab_size,
            n_parameters,
        })
    }

    fn sample(&self, batch: usize, sampled: bool) -> Result<Ran, Box<dyn Error>> {
        let sampling = Sampling::new(TEMPERATURE, None, Some(TOP_P), None)?;
        let config = GenerateConfig {
            decoding: if sampled { Decoding::Sample(sampling) } else { Decoding::Greedy },
            max_new_tokens: NEW_TOKENS,
            stop_ids: Vec::new(),
            max_batch: batch,
        };
        let started = Instant::now();
        let requests: Vec<Request> = (0..)
            .zip(prompts(batch, self.vocab_size))
            .map(|(seed, prompt)| Request { prompt: prompt.into(), seed })
            .collect();
        let mut token_ids = vec![Vec::new(); batch];
        generate(&self.policy, &requests, &config, &false.into(), &mut |row, completion| {
            token_ids[row] = completion.token_ids;
        })?;
        Ok(Ran { seconds: started.elapsed().as_secs_f64(), token_ids, loss: 0.0 })
    }

    fn step(&mut self) -> Result<Ran, Box<dyn Error>> {
        let (beta, gamma_beta_ratio) = (BETA, GAMMA_BETA_RATIO);
        let loss = MarginLoss::Sigmoid;
        let objective = Objective::Simpo(Simpo { beta, gamma_beta_ratio, loss, label_smoothing: 0.0, sft_weight: 0.0 });
        let n_steps = self.trainer.n_done + 1;
        let recipe = Recipe {
            order: Order::Given(vec![vec![(0..PAIRS).collect()]; n_steps]),
            schedule: Schedule { peak: LEARNING_RATE, decay: Decay::Constant, n_warmup_steps: 0, n_steps },
            adamw: AdamW::default(),
            max_grad_norm: Some(MAX_GRAD_NORM),
            micro_batch_tokens: usize::MAX,
            precision: Precision::F32,
            kept: Kept::All,
        };
        let started = Instant::now();
        let task = PairTask::new(&objective, &self.pairs, &[], usize::MAX)?;
        let metrics = self.trainer.step(&task, &recipe, &false.into())?;
        let loss = metrics.map_or(f64::NAN, |metrics| metrics.loss);
        Ok(Ran { seconds: started.elapsed().as_secs_f64(), token_ids: Vec::new(), loss })
    }
}

impl Side for Ours {
    fn run(&mut self, case: Case) -> Result<Ran, Box<dyn Error>> {
        match case {
            Case::Sample { batch, sampled } => self.sample(batch, sampled),
            Case::Step => self.step(),
        }
    }
}

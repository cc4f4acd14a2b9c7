//! From the parameters of the pipeline file to the settings of crate `train`, field by field.

use sluice_lm::config::Config;
use sluice_lm::memory::{Share, Sizes};
use sluice_lm::precision::Precision;
use sluice_spec::stage::train::objective as spec;
use sluice_spec::stage::train::{self, Optimiser, Passes, Tokens, Train};
use sluice_train::backward::Kept;
use sluice_train::batch::{BatchError, Limits, PromptKeep, ResponseHeader, Truncation};
use sluice_train::memory::{TrainingLoad, training, training_on_gpu};
use sluice_train::objective::{
    Cpo, Dpo, DpoLoss, Ipo, Kto, LogProbs, MarginLoss, Objective, Orpo, RDpo, Rrhf, Simpo, SlicHf,
};
use sluice_train::optimizer::{AdamW, Keeping, Master};
use sluice_train::order::{Order, Shuffle};
use sluice_train::schedule::{Decay, Schedule};
use sluice_train::trainer::Recipe;

use crate::{Device, Place};

/// How weights and moments are kept; where a step computes in f32, in f32.
pub fn keeping(params: &Train, precision: Precision) -> Keeping {
    if precision == Precision::F32 {
        return Keeping::default();
    }
    Keeping {
        master: match params.optimiser.master.value {
            train::Master::F32 => Master::F32,
            train::Master::Split => Master::Split,
            train::Master::Stochastic => Master::Stochastic,
        },
        moments: match params.optimiser.moments.value {
            train::Moments::F32 => Precision::F32,
            train::Moments::Bf16 => Precision::Bf16,
        },
    }
}

/// Order, schedule and optimiser of a run over `n_rows` rows.
///
/// The schedule spans the steps that are taken: with `max_steps` it ends earlier, and is not cut off.
pub fn recipe(params: &Train, n_rows: usize, n_parameters: usize, precision: Precision) -> Recipe {
    let Optimiser {
        learning_rate,
        schedule,
        warmup_ratio,
        weight_decay,
        betas,
        eps,
        max_grad_norm,
        master: _,
        moments: _,
    } = &params.optimiser;
    let Passes { epochs, max_steps, batch_size, micro_batch_tokens, share_prompt: _, recompute } = &params.passes;
    let shuffle = Shuffle { n_rows, batch_size: batch_size.get() as usize, seed: params.seed.get() };
    let n_all = shuffle.steps_per_epoch() * epochs.get() as usize;
    let n_steps = max_steps.value.map_or(n_all, |max| n_all.min(max.get() as usize));
    let decay = match schedule.value {
        train::Schedule::Cosine => Decay::Cosine,
        train::Schedule::Linear => Decay::Linear,
        train::Schedule::Constant => Decay::Constant,
    };
    Recipe {
        order: Order::Shuffled(shuffle),
        schedule: Schedule::with_warmup_ratio(learning_rate.get(), decay, warmup_ratio.get(), n_steps),
        adamw: AdamW {
            beta1: betas.first.get(),
            beta2: betas.second.get(),
            epsilon: eps.get(),
            weight_decay: weight_decay.get(),
        },
        max_grad_norm: Some(max_grad_norm.get()),
        micro_batch_tokens: micro_batch_tokens.get() as usize,
        precision,
        kept: kept(recompute.value, n_parameters),
    }
}

fn kept(recompute: Option<bool>, n_parameters: usize) -> Kept {
    match recompute {
        Some(true) => Kept::Blocks,
        Some(false) => Kept::All,
        None => Kept::suited_to(n_parameters),
    }
}

/// Bytes that a training holds at its fullest, counted from the configuration of the model it starts from. Every token of a
/// pass may be one that is predicted.
pub fn memory(params: &Train, config: &Config, device: Device) -> u64 {
    let mut sizes = Sizes::of(config);
    if let train::Objective::Reward(reward) = &params.objective.value {
        let n_fresh = reward.grow_layers.get() as usize;
        sizes = Sizes {
            n_blocks: sizes.n_blocks + n_fresh,
            n_parameters: sizes.n_parameters + n_fresh * sizes.of_a_block(),
            ..sizes
        };
    }
    let n_tokens = params.passes.micro_batch_tokens.get() as usize;
    let load = TrainingLoad {
        precision: device.precision,
        keeping: keeping(params, device.precision),
        kept: kept(params.passes.recompute.value, sizes.n_parameters),
        n_tokens,
        n_predicted: n_tokens,
    };
    let shares = match device.place {
        Place::Cpu => training(&sizes, load),
        Place::Cuda { index: _ } => training_on_gpu(&sizes, load),
    };
    Share::total(&shares) as u64
}

/// How examples are cut.
pub fn limits(tokens: &Tokens) -> Result<Limits, BatchError> {
    let Tokens { max_length, max_prompt_length, truncation, prompt_keep, response_header: _ } = tokens;
    let truncation = match truncation.value {
        train::Truncation::Budget => Truncation::Budget,
        train::Truncation::Reference => Truncation::Reference,
    };
    let prompt_keep = match prompt_keep.value {
        train::PromptKeep::End => PromptKeep::End,
        train::PromptKeep::Start => PromptKeep::Start,
    };
    Limits::new(max_length.get() as usize, max_prompt_length.get() as usize, truncation, prompt_keep)
}

/// Where the header of a response is counted.
pub fn response_header(tokens: &Tokens) -> ResponseHeader {
    match tokens.response_header.value {
        train::ResponseHeader::Prompt => ResponseHeader::Prompt,
        train::ResponseHeader::Response => ResponseHeader::Response,
    }
}

/// The preference objective, or `None` where the objective learns from single rows.
pub fn preference(objective: &train::Objective) -> Option<Objective> {
    Some(match objective {
        train::Objective::Simpo(spec::Simpo { beta, gamma_beta_ratio, loss, label_smoothing, sft_weight }) => {
            Objective::Simpo(Simpo {
                beta: beta.get(),
                gamma_beta_ratio: gamma_beta_ratio.get(),
                loss: margin_loss(loss.value),
                label_smoothing: label_smoothing.get(),
                sft_weight: sft_weight.get(),
            })
        }
        train::Objective::Dpo(spec::Dpo { beta, loss, label_smoothing }) => Objective::Dpo(Dpo {
            beta: beta.get(),
            loss: match loss.value {
                spec::DpoLoss::Sigmoid => DpoLoss::Sigmoid,
                spec::DpoLoss::Hinge => DpoLoss::Hinge,
                spec::DpoLoss::Robust => DpoLoss::Robust,
            },
            label_smoothing: label_smoothing.get(),
        }),
        train::Objective::Ipo(spec::Ipo { beta, log_probs }) => Objective::Ipo(Ipo {
            beta: beta.get(),
            log_probs: match log_probs.value {
                spec::LogProbs::Sum => LogProbs::Sum,
                spec::LogProbs::Mean => LogProbs::Mean,
            },
        }),
        train::Objective::Cpo(spec::Cpo { beta, cpo_alpha, loss, label_smoothing }) => Objective::Cpo(Cpo {
            beta: beta.get(),
            cpo_alpha: cpo_alpha.get(),
            loss: margin_loss(loss.value),
            label_smoothing: label_smoothing.get(),
        }),
        train::Objective::Kto(spec::Kto { beta, desirable_weight, undesirable_weight }) => Objective::Kto(Kto {
            beta: beta.get(),
            desirable_weight: desirable_weight.get(),
            undesirable_weight: undesirable_weight.get(),
        }),
        train::Objective::Orpo(spec::Orpo { lambda }) => Objective::Orpo(Orpo { lambda: lambda.get() }),
        train::Objective::SlicHf(spec::SlicHf { delta, lambda }) => {
            Objective::SlicHf(SlicHf { delta: delta.get(), lambda: lambda.get() })
        }
        train::Objective::Rrhf(spec::Rrhf { lambda }) => Objective::Rrhf(Rrhf { lambda: lambda.get() }),
        train::Objective::RDpo(spec::RDpo { beta, alpha }) => {
            Objective::RDpo(RDpo { beta: beta.get(), alpha: alpha.get() })
        }
        train::Objective::Sft(spec::Sft {}) | train::Objective::Reward(_) => return None,
    })
}

fn margin_loss(loss: spec::MarginLoss) -> MarginLoss {
    match loss {
        spec::MarginLoss::Sigmoid => MarginLoss::Sigmoid,
        spec::MarginLoss::Hinge => MarginLoss::Hinge,
    }
}

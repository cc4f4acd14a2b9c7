//! This project's side: loads the checkpoint of a request and does its work.
//!
//! Owns how each kind of work is put to the library, as the stages of a pipeline put it.
//!
//! n rows and columns of a square matrix

use std::time::Instant;

use burn::tensor::{Tensor, TensorData};
use sluice_lm::checkpoint::Checkpoint;
use sluice_lm::device::{keep_kernels, memory_use};
use sluice_lm::generate::{Decoding, GenerateConfig, Request as Wanted, generate};
#[cfg(any(feature = "cube-cpu", feature = "cuda"))]
use sluice_lm::kernel::AttentionKernel;
use sluice_lm::model::{CausalModel, load_causal, load_reward};
#[cfg(any(feature = "cube-cpu", feature = "cuda"))]
use sluice_lm::packed::Segment;
use sluice_lm::params::Parameters;
use sluice_lm::precision::{Placement, Precision};
use sluice_lm::reward::HeadDtype;
use sluice_lm::sampling::Sampling;
use sluice_lm::weights::{FreshWeights, WeightSource, values};
use sluice_train::backward::Kept;
use sluice_train::batch::{Sequence, TokenPair};
use sluice_train::objective::{MarginLoss, Objective, Simpo};
use sluice_train::optimizer::{AdamW, Keeping};
use sluice_train::order::Order;
use sluice_train::schedule::{Decay, Schedule};
use sluice_train::task::PairTask;
use sluice_train::trainer::{Recipe, TrainError, Trainer};

use super::{Answer, Measured, Request, Train, Work};
use crate::CheckError;
use crate::attention::Heads;
use crate::device::{Place, build};
use crate::machine::process_bytes;
use crate::training::{form_name, forms};

/// Does the work of a request.
pub fn answer(request: &Request) -> Result<Answer, CheckError> {
    let Request { device, precision, n_threads: _, n_runs, folder, kernels, work } = request;
    keep_kernels(kernels);
    let (device, name) = device.parse::<Place>()?.open()?;
    let precision = match precision.as_str() {
        "bf16" => Precision::Bf16,
        "f32" => Precision::F32,
        other => return Err(CheckError::Shape { what: format!("f32 or bf16, and not {other}") }),
    };
    let bench = Bench { placement: Placement::new(device, precision), n_runs: *n_runs };
    let started = Instant::now();
    let open = || Checkpoint::open(folder);
    let (load_seconds, measured) = match work {
        Work::Ceilings { matmul_size, copy_bytes } => (0.0, bench.ceilings(*matmul_size, *copy_bytes)?),
        Work::Attention { heads, n_sequences, n_tokens } => (0.0, bench.attention(*heads, *n_sequences, *n_tokens)?),
        Work::Train(train) => {
            // What is trained is loaded in f32.
            let load = || Ok(load_causal(&open()?, &bench.placement.device)?);
            let model = load()?;
            bench.sync()?;
            (started.elapsed().as_secs_f64(), bench.train(model, &load, train)?)
        }
        Work::Sample { batches, n_new, temperature, top_p } => {
            let model = load_causal(&open()?, &bench.placement)?;
            bench.sync()?;
            let loaded = started.elapsed().as_secs_f64();
            let sampling = Sampling::new(*temperature, None, Some(*top_p), None)?;
            let measured = batches.iter().map(|prompts| bench.sample(&model, prompts, *n_new, sampling));
            (loaded, measured.collect::<Result<Vec<_>, _>>()?)
        }
        Work::Score { conversations, gate_pattern: _ } => {
            let model = load_reward(&open()?, &bench.placement)?;
            bench.sync()?;
            let loaded = started.elapsed().as_secs_f64();
            let score = || {
                let rewards = model.score(conversations, HeadDtype::F32)?;
                let sum: f64 = rewards.iter().map(|reward| f64::from(reward.score)).sum();
                Ok(Some(sum / rewards.len().max(1) as f64))
            };
            (loaded, vec![bench.timed("score", "", score)?])
        }
    };
    Ok(Answer { library: format!("sluice ({})", build()), device: name, load_seconds, measured })
}

struct Bench {
    placement: Placement,
    n_runs: usize,
}

impl Bench {
    /// Once untimed, so that kernels are compiled and chosen, and then run by run.
    fn timed(
        &self,
        what: &str,
        how: &str,
        mut run: impl FnMut() -> Result<Option<f64>, CheckError>,
    ) -> Result<Measured, CheckError> {
        // What the first run gives is what both sides agree on: later ones go on from it.
        let check = run()?;
        self.sync()?;
        let mut seconds = Vec::with_capacity(self.n_runs);
        for _ in 0..self.n_runs {
            let started = Instant::now();
            run()?;
            self.sync()?;
            seconds.push(started.elapsed().as_secs_f64());
        }
        Ok(Measured { what: what.to_owned(), seconds, peak_bytes: self.peak_bytes(), check, how: how.to_owned() })
    }

    fn sync(&self) -> Result<(), CheckError> {
        let failed = |error| CheckError::Shape { what: format!("a device that answers: {error}") };
        self.placement.device.sync().map_err(failed)
    }

    /// What the device's allocator has taken, which it keeps; on the CPU the peak of the process.
    fn peak_bytes(&self) -> u64 {
        match memory_use(&self.placement.device) {
            Some(memory) => memory.reserved_bytes,
            None => process_bytes().map_or(0, |bytes| bytes.peak),
        }
    }

    /// A chain of products, each of which needs the one before, and a number added to every element of a tensor.
    fn ceilings(&self, n: usize, copy_bytes: usize) -> Result<Vec<Measured>, CheckError> {
        let Placement { device, precision } = &self.placement;
        let drawn = FreshWeights::new(1, 1.0 / (n as f64).sqrt(), 0.0).read("matrix", &[n, n])?;
        let data = TensorData::new(drawn, [n, n]);
        let matrix_nn = precision.hold(Tensor::<2>::from_data(data, device));
        let mut chain_nn = matrix_nn.clone();
        let product = self.timed("product", "", || {
            for _ in 0..PRODUCTS {
                chain_nn = chain_nn.clone().matmul(matrix_nn.clone());
            }
            // Nothing is left out that is read.
            values(chain_nn.clone().narrow(0, 0, 1));
            Ok(None)
        })?;
        let mut all = Some(Tensor::<1>::zeros([copy_bytes / precision.bytes()], (device, precision.dtype())));
        let copy = self.timed("copy", "", || {
            all = all.take().map(|all| all.add_scalar(1.0));
            Ok(None)
        })?;
        Ok(vec![product, copy])
    }

    /// Forward and backward pass of each attention that runs here, over sequences of one length.
    #[cfg(any(feature = "cube-cpu", feature = "cuda"))]
    fn attention(&self, heads: Heads, n_sequences: usize, n_tokens: usize) -> Result<Vec<Measured>, CheckError> {
        let spec = heads.spec(n_tokens);
        let [q, k, v, grad] = heads.inputs(n_sequences * n_tokens, &self.placement);
        let segments: Vec<Segment> = (0..n_sequences).map(|at| (at * n_tokens..(at + 1) * n_tokens).into()).collect();
        let mut measured = Vec::new();
        for (name, kernel) in [("flash", AttentionKernel::Flash), ("blocks", AttentionKernel::Blocks)] {
            if kernel.runs(&q, &spec) {
                let inputs = || [q.clone(), k.clone(), v.clone()];
                let (_, lse) = kernel.forward(inputs(), &segments, &spec);
                measured.push(self.timed(&format!("{name}, forward"), "", || {
                    let (out, _) = kernel.forward(inputs(), &segments, &spec);
                    // Nothing is left out that is read.
                    values(out.narrow(0, 0, 1));
                    Ok(None)
                })?);
                measured.push(self.timed(&format!("{name}, backward"), "", || {
                    let gradients = kernel.backward(inputs(), lse.clone(), grad.clone(), &segments, &spec);
                    for gradient in gradients {
                        values(gradient.narrow(0, 0, 1));
                    }
                    Ok(None)
                })?);
            }
        }
        Ok(measured)
    }

    #[cfg(not(any(feature = "cube-cpu", feature = "cuda")))]
    fn attention(&self, _heads: Heads, _n_sequences: usize, _n_tokens: usize) -> Result<Vec<Measured>, CheckError> {
        Ok(Vec::new())
    }

    fn train(
        &self,
        mut model: CausalModel,
        load: &dyn Fn() -> Result<CausalModel, CheckError>,
        train: &Train,
    ) -> Result<Vec<Measured>, CheckError> {
        let n_parameters = model.n_parameters();
        let precision = self.placement.precision;
        let pairs = pairs(train);
        let objective = Objective::Simpo(Simpo {
            beta: train.beta,
            gamma_beta_ratio: train.gamma_beta_ratio,
            loss: MarginLoss::Sigmoid,
            label_smoothing: 0.0,
            sft_weight: 0.0,
        });
        let all: Vec<usize> = (0..pairs.len()).collect();
        let step: Vec<Vec<usize>> = all.chunks(train.micro_batch_pairs.max(1)).map(<[usize]>::to_vec).collect();
        // Two tasks, each once untimed.
        let n_steps = 2 * (self.n_runs + 1);
        let recipe = Recipe {
            order: Order::Given(vec![step; n_steps]),
            schedule: Schedule { peak: train.learning_rate, decay: Decay::Constant, n_warmup_steps: 0, n_steps },
            adamw: AdamW::default(),
            max_grad_norm: Some(train.max_grad_norm),
            micro_batch_tokens: usize::MAX,
            precision,
            kept: Kept::suited_to(n_parameters),
        };
        let (mut trainer, keeping) = trainer(model, load, &recipe, &train.form)?;
        let how = format!("{}, {}", kept_name(recipe.kept), form_name(keeping));
        let mut measured = Vec::new();
        for (what, shares_prompts) in [("step", false), ("step, prompts shared", true)] {
            let task = PairTask::new(&objective, &pairs, &[], usize::MAX)?;
            let task = if shares_prompts { task.sharing_prompts() } else { task };
            let never = false.into();
            let step = || Ok(trainer.step(&task, &recipe, &never)?.map(|metrics| metrics.loss));
            measured.push(self.timed(what, &how, step)?);
        }
        Ok(measured)
    }

    fn sample(
        &self,
        model: &CausalModel,
        prompts: &[Vec<u32>],
        n_new: usize,
        sampling: Sampling,
    ) -> Result<Measured, CheckError> {
        let requests: Vec<Wanted> =
            prompts.iter().zip(0..).map(|(prompt, seed)| Wanted { prompt: prompt.as_slice().into(), seed }).collect();
        let config = GenerateConfig {
            decoding: Decoding::Sample(sampling),
            max_new_tokens: n_new,
            stop_ids: Vec::new(),
            max_batch: prompts.len(),
        };
        self.timed(&format!("sample {}", prompts.len()), "", || {
            let mut n_tokens = 0;
            generate(model, &requests, &config, &false.into(), &mut |_, answer| n_tokens += answer.token_ids.len())?;
            if n_tokens != prompts.len() * n_new {
                return Err(CheckError::Shape { what: format!("{n_new} tokens an answer, and not {n_tokens} in all") });
            }
            Ok(None)
        })
    }
}

/// Products of one timed run.
pub const PRODUCTS: usize = 10;

fn pairs(train: &Train) -> Vec<TokenPair> {
    let sequence = |ids: &Vec<u32>| Sequence::new(&ids[..train.n_prompt], &ids[train.n_prompt..]);
    let rows = train.chosen.iter().zip(&train.rejected);
    rows.map(|(chosen, rejected)| TokenPair { chosen: sequence(chosen), rejected: sequence(rejected) }).collect()
}

/// A trainer that keeps weights and moments as it is told to, or in f32 where the device has no other form; then the model is
/// loaded a second time, since at no time are there two.
fn trainer(
    model: CausalModel,
    load: &dyn Fn() -> Result<CausalModel, CheckError>,
    recipe: &Recipe,
    form: &str,
) -> Result<(Trainer<CausalModel>, Keeping), CheckError> {
    let keeping = match recipe.precision {
        Precision::F32 => Some(Keeping::default()),
        Precision::Bf16 => forms().find(|keeping| form_name(*keeping) == form),
    };
    let keeping = keeping.ok_or_else(|| CheckError::Shape { what: format!("a form of weights, and not `{form}`") })?;
    match Trainer::new(model, recipe.adamw)?.keeping(keeping) {
        Ok(trainer) => Ok((trainer, keeping)),
        Err(TrainError::Form { .. }) => Ok((Trainer::new(load()?, recipe.adamw)?, Keeping::default())),
        Err(error) => Err(error.into()),
    }
}

fn kept_name(kept: Kept) -> &'static str {
    match kept {
        Kept::All => "activations kept",
        Kept::Blocks => "blocks computed twice",
    }
}

//! `just bench-memory`: peak memory and time of training and sampling as they are chosen, beside what was predicted.
//!
//! Owns the cases and the model they share: fresh weights of the shape of Gemma 2. Each case is a process of its own, so that
//! its peak is its own.

use std::error::Error;
use std::fs;
use std::process::Command;
use std::time::Instant;

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use clap::Parser;
use serde_json::{Value, json};
use sluice_lm::config::{Attention, Config, Dtype, Gemma2Config, Head, ModelConfig};
use sluice_lm::gemma2::Gemma2;
use sluice_lm::generate::{Decoding, GenerateConfig, Request, generate};
use sluice_lm::kernel;
use sluice_lm::memory::{SamplingLoad, Share, Sizes};
use sluice_lm::precision::{Placement, Precision};
use sluice_lm::weights::{FreshWeights, Loader};
use sluice_tests::bench::{Machine, seconds};
use sluice_train::backward::Kept;
use sluice_train::batch::{Sequence, TokenPair};
use sluice_train::memory::{TrainingLoad, training};
use sluice_train::objective::{MarginLoss, Objective, Simpo};
use sluice_train::optimizer::{AdamW, Keeping, Master};
use sluice_train::order::Order;
use sluice_train::schedule::{Decay, Schedule};
use sluice_train::task::PairTask;
use sluice_train::trainer::{Recipe, Trainer};

/// The allocator of the program that is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Arguments {
    /// Hidden size of the model; its other sizes follow
    #[arg(long, default_value_t = 512)]
    hidden: usize,
    /// Tokens of a micro-batch
    #[arg(long, default_value_t = 4096)]
    tokens: usize,
    /// Measure one case in this process
    #[arg(long, hide = true)]
    only: Option<usize>,
}

/// What is measured.
#[derive(Clone, Copy)]
enum Case {
    Train {
        precision: Precision,
        keeping: Keeping,
        kept: Kept,
        shares_prompts: bool,
    },
    Sample {
        precision: Precision,
    },
    /// Log-probabilities over a vocabulary as large as the published one, and their gradient.
    Logps {
        is_whole: bool,
    },
}

const F32: Precision = Precision::F32;
const BF16: Precision = Precision::Bf16;

const CASES: [(&str, Case); 11] = [
    ("train in f32", train(F32, keep(Master::F32, F32), Kept::All, false)),
    ("train in f32, blocks computed twice", train(F32, keep(Master::F32, F32), Kept::Blocks, false)),
    ("train in f32, prompts shared", train(F32, keep(Master::F32, F32), Kept::All, true)),
    ("train in bf16, weights in f32", train(BF16, keep(Master::F32, F32), Kept::All, false)),
    ("train in bf16, split weights, blocks computed twice", train(BF16, keep(Master::Split, F32), Kept::Blocks, false)),
    (
        "train in bf16, stochastic rounding, blocks computed twice",
        train(BF16, keep(Master::Stochastic, F32), Kept::Blocks, false),
    ),
    (
        "train in bf16, stochastic rounding, moments in bf16, blocks computed twice",
        train(BF16, keep(Master::Stochastic, BF16), Kept::Blocks, false),
    ),
    ("sample in f32", Case::Sample { precision: F32 }),
    ("sample in bf16", Case::Sample { precision: BF16 }),
    ("log-probs of 2,048 tokens of 256,000, a chunk of logits at a time", Case::Logps { is_whole: false }),
    ("log-probs of 2,048 tokens of 256,000, all logits on the tape", Case::Logps { is_whole: true }),
];

const fn train(precision: Precision, keeping: Keeping, kept: Kept, shares_prompts: bool) -> Case {
    Case::Train { precision, keeping, kept, shares_prompts }
}

const fn keep(master: Master, moments: Precision) -> Keeping {
    Keeping { master, moments }
}

const ROW_TOKENS: usize = 256;
const ROW_PROMPT_TOKENS: usize = 64;
const ANSWERS: usize = 64;
const ANSWER_TOKENS: usize = 32;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    if let Some(case) = arguments.only {
        println!("{}", measured(CASES[case].1, &arguments)?);
        return Ok(());
    }
    let machine = Machine::look();
    let config = config(arguments.hidden);
    let sizes = Sizes::of(&config);
    println!(
        "\n{:.1} M parameters, {} tokens a micro-batch in rows of {ROW_TOKENS}, {ROW_PROMPT_TOKENS} of them prompt\n",
        sizes.n_parameters as f64 / 1e6,
        arguments.tokens
    );
    println!("| what | predicted | peak of the process | predicted of it | time of a step |");
    println!("| --- | --- | --- | --- | --- |");
    for (number, (name, case)) in CASES.iter().enumerate() {
        let report = child(number, &arguments)?;
        let shares = predicted(&sizes, *case, arguments.tokens);
        let (predicted, peak) = (Share::total(&shares) as f64, report["peak"].as_f64().unwrap_or(f64::NAN));
        let time = seconds(report["seconds"].as_f64().unwrap_or(f64::NAN));
        let (before, share) = match shares.is_empty() {
            true => (String::new(), String::new()),
            false => (format!("{:.0} MB", predicted / 1e6), format!("{:.3}", predicted / peak)),
        };
        println!("| {name} | {before} | {:.0} MB | {share} | {time} |", peak / 1e6);
        for Share { name, n_bytes } in shares.iter().filter(|share| share.n_bytes > 0) {
            eprintln!("    {name}: {:.0} MB", *n_bytes as f64 / 1e6);
        }
    }
    println!("\n{machine}");
    Ok(())
}

fn predicted(sizes: &Sizes, case: Case, n_tokens: usize) -> Vec<Share> {
    match case {
        Case::Train { precision, keeping, kept, shares_prompts } => {
            let n_pairs = n_pairs(n_tokens);
            let n_shared = if shares_prompts { n_pairs * ROW_PROMPT_TOKENS } else { 0 };
            let n_predicted = 2 * n_pairs * (ROW_TOKENS - ROW_PROMPT_TOKENS);
            let n_tokens = 2 * n_pairs * ROW_TOKENS - n_shared;
            training(sizes, TrainingLoad { precision, keeping, kept, n_tokens, n_predicted })
        }
        Case::Sample { precision } => {
            let (n_prompt, n_new) = (ROW_PROMPT_TOKENS, ANSWER_TOKENS);
            sizes.sampling(SamplingLoad { precision, max_batch: ANSWERS, n_prompt, n_new })
        }
        Case::Logps { .. } => Vec::new(),
    }
}

fn n_pairs(n_tokens: usize) -> usize {
    (n_tokens / (2 * ROW_TOKENS)).max(1)
}

fn child(number: usize, arguments: &Arguments) -> Result<Value, Box<dyn Error>> {
    let Arguments { hidden, tokens, only: _ } = arguments;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--only", &number.to_string(), "--hidden", &hidden.to_string(), "--tokens", &tokens.to_string()]);
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("{}: {}", CASES[number].0, String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Seconds of the last step, and the peak of this process in bytes.
fn measured(case: Case, arguments: &Arguments) -> Result<Value, Box<dyn Error>> {
    let model = |precision| model(&config(arguments.hidden), precision);
    let seconds = match case {
        // What is trained is loaded in f32.
        Case::Train { precision, keeping, kept, shares_prompts } => {
            steps(model(F32)?, precision, keeping, kept, shares_prompts, arguments.tokens)?
        }
        Case::Sample { precision } => answers(&model(precision)?)?,
        Case::Logps { is_whole } => logps(is_whole),
    };
    Ok(json!({ "seconds": seconds, "peak": peak_bytes()? }))
}

/// Two steps of two micro-batches.
fn steps(
    model: Gemma2,
    precision: Precision,
    keeping: Keeping,
    kept: Kept,
    shares_prompts: bool,
    n_tokens: usize,
) -> Result<f64, Box<dyn Error>> {
    let n_pairs = n_pairs(n_tokens);
    let sequence = |prompt: usize, seed: usize| {
        let ids =
            |from: usize, n: usize| -> Vec<u32> { (0..n).map(|i| ((from * 131 + i * 17) % 4096) as u32).collect() };
        Sequence::new(&ids(prompt, ROW_PROMPT_TOKENS), &ids(1000 + seed, ROW_TOKENS - ROW_PROMPT_TOKENS))
    };
    let pairs: Vec<TokenPair> = (0..2 * n_pairs)
        .map(|row| TokenPair { chosen: sequence(row, 2 * row), rejected: sequence(row, 2 * row + 1) })
        .collect();
    let objective = Objective::Simpo(Simpo {
        beta: 10.0,
        gamma_beta_ratio: 0.5,
        loss: MarginLoss::Sigmoid,
        label_smoothing: 0.0,
        sft_weight: 0.0,
    });
    let task = PairTask::new(&objective, &pairs, &[], usize::MAX)?;
    let task = if shares_prompts { task.sharing_prompts() } else { task };
    let batches = |_| vec![(0..n_pairs).collect(), (n_pairs..2 * n_pairs).collect()];
    let recipe = Recipe {
        order: Order::Given((0..2).map(batches).collect()),
        schedule: Schedule { peak: 1e-6, decay: Decay::Constant, n_warmup_steps: 0, n_steps: 2 },
        adamw: AdamW::default(),
        max_grad_norm: Some(1.0),
        micro_batch_tokens: usize::MAX,
        precision,
        kept,
    };
    let mut trainer = Trainer::new(model, recipe.adamw)?.keeping(keeping)?;
    let mut seconds = 0.0;
    for _ in 0..2 {
        let started = Instant::now();
        trainer.step(&task, &recipe, &false.into())?;
        seconds = started.elapsed().as_secs_f64();
    }
    Ok(seconds)
}

/// A batch of answers to prompts that differ.
fn answers(model: &Gemma2) -> Result<f64, Box<dyn Error>> {
    let prompt = |row: usize| (0..ROW_PROMPT_TOKENS).map(|i| ((row * 131 + i * 17) % 4096) as u32).collect::<Vec<_>>();
    let requests: Vec<Request> =
        (0..ANSWERS).map(|row| Request { prompt: prompt(row).into(), seed: row as u64 }).collect();
    let config = GenerateConfig {
        decoding: Decoding::Greedy,
        max_new_tokens: ANSWER_TOKENS,
        stop_ids: Vec::new(),
        max_batch: ANSWERS,
    };
    let started = Instant::now();
    generate(model, &requests, &config, &false.into(), &mut |_, _| {})?;
    Ok(started.elapsed().as_secs_f64() / ANSWER_TOKENS as f64)
}

/// Log-probabilities and their gradient, on a narrow model, so that the logits are what takes memory.
fn logps(is_whole: bool) -> f64 {
    const N_TOKENS: usize = 2048;
    const N_VOCABULARY: usize = 256_000;
    const WIDTH: usize = 64;
    let drawn = |n_rows: usize| {
        let values = (0..n_rows * WIDTH).map(|i| ((i as f32) * 0.618_034).fract() - 0.5).collect();
        Tensor::<2>::from_data(TensorData::new(values, [n_rows, WIDTH]), &Device::flex())
    };
    let (hidden_md, table_wd) = (drawn(N_TOKENS), drawn(N_VOCABULARY));
    let targets: Vec<u32> = (0..N_TOKENS).map(|i| (i * 131 % N_VOCABULARY) as u32).collect();
    let started = Instant::now();
    if is_whole {
        let [hidden_md, table_wd] = [hidden_md, table_wd].map(|x| x.autodiff().require_grad());
        let places = targets.iter().map(|id| i64::from(*id)).collect();
        let places_m1 = Tensor::<2, Int>::from_data(TensorData::new(places, [N_TOKENS, 1]), &hidden_md.device());
        let logits_mw = kernel::logits(hidden_md, table_wd, Some(30.0));
        let logps_m: Tensor<1> = log_softmax(logits_mw, 1).gather(1, places_m1).squeeze_dim(1);
        logps_m.sum().backward();
    } else {
        let logps_m = kernel::token_logps(hidden_md.clone(), table_wd.clone(), &targets, Some(30.0));
        let mut sum_n = Tensor::zeros([N_VOCABULARY * WIDTH], &Device::flex());
        kernel::token_logps_gradient(hidden_md, table_wd, logps_m.ones_like(), &targets, Some(30.0), &mut sum_n);
    }
    started.elapsed().as_secs_f64()
}

fn model(config: &Config, precision: Precision) -> Result<Gemma2, Box<dyn Error>> {
    let ModelConfig::Gemma2(sizes) = &config.model else { return Err("the model is a Gemma 2".into()) };
    let mut weights = FreshWeights::new(1, 0.02, 0.0);
    let placement = Placement::new(Device::flex(), precision);
    Ok(Gemma2::load(sizes, &mut Loader::new(&mut weights, placement))?)
}

/// The shape of Gemma 2 at another width: heads of 64, a feed-forward unit four times as wide, eight blocks.
fn config(hidden: usize) -> Config {
    let layer = |index: usize| if index.is_multiple_of(2) { Attention::Sliding } else { Attention::Global };
    Config {
        model: ModelConfig::Gemma2(Gemma2Config {
            vocab_size: 16_384,
            hidden_size: hidden,
            n_layers: 8,
            n_heads: hidden / 64,
            n_kv_heads: hidden / 128,
            head_dim: 64,
            intermediate_size: 4 * hidden,
            query_pre_attn_scalar: 64.0,
            attn_softcap: Some(50.0),
            final_softcap: Some(30.0),
            sliding_window: 128,
            layer_types: (0..8).map(layer).collect(),
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-6,
            tie_word_embeddings: true,
            max_position_embeddings: 1024,
        }),
        head: Head::CausalLm,
        labels: Vec::new(),
        bos_token_id: Some(2),
        eos_token_ids: vec![1],
        pad_token_id: Some(0),
        dtype: Some(Dtype::F32),
    }
}

/// The largest memory this process has had.
fn peak_bytes() -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM in /proc/self/status")?;
    let n_kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(n_kib * 1024)
}

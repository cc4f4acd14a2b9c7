//! The tiny job on one device, from prompts to a tuned policy: answer each prompt several times, score the answers, pair the
//! best with the worst, train with SimPO, answer held-out prompts again.
//!
//! Owns the smallest version of what the stages of a pipeline do, and what must have become better. Knows nothing of
//! tables and stores.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::Deserialize;
use sluice_lm::checkpoint::Checkpoint;
use sluice_lm::generate::{Completion, Decoding, GenerateConfig, Request, generate};
use sluice_lm::model::{CausalModel, load_causal, load_reward};
use sluice_lm::precision::Precision;
use sluice_lm::reward::{HeadDtype, RewardModel};
use sluice_lm::sampling::Sampling;
use sluice_lm::template::Message;
use sluice_train::backward::Kept;
use sluice_train::batch::{Sequence, TokenPair};
use sluice_train::metrics::StepMetrics;
use sluice_train::objective::{MarginLoss, Objective, Simpo};
use sluice_train::optimizer::AdamW;
use sluice_train::order::{Order, Shuffle};
use sluice_train::schedule::{Decay, Schedule};
use sluice_train::task::PairTask;
use sluice_train::trainer::{Hooks, Recipe, Trainer};

use crate::CheckError;
use crate::device::Subject;
use crate::fixture::Fixtures;
use crate::verdict::Finding;

const PROMPTS: &str = include_str!("../prompts.json");

/// Tokens of an answer.
const MAX_NEW_TOKENS: usize = 48;

/// Conversations scored together.
const SCORE_BATCH: usize = 64;

#[derive(Deserialize)]
struct Prompts {
    train: Vec<String>,
    heldout: Vec<String>,
}

/// How much of it is done.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub n_train: usize,
    pub n_heldout: usize,
    /// Answers a prompt.
    pub n_answers: usize,
    pub epochs: usize,
}

impl Size {
    /// All of it.
    pub const WHOLE: Size = Size { n_train: 160, n_heldout: 64, n_answers: 5, epochs: 3 };
    /// A part that is enough to see that it runs.
    pub const PART: Size = Size { n_train: 64, n_heldout: 32, n_answers: 4, epochs: 2 };
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Done {
    pub n_pairs: usize,
    pub steps: Vec<StepMetrics>,
    /// Mean score of greedy answers to held-out prompts.
    pub score_before: f64,
    pub score_after: f64,
}

/// A prompt with its tokens.
struct Asked {
    text: String,
    ids: Arc<[u32]>,
}

/// Runs the job. Answers, scores and steps of training are computed in the subject's precision.
pub fn run(subject: &Subject, fixtures: &Fixtures, size: Size) -> Result<Done, CheckError> {
    let prompts: Prompts = serde_json::from_str(PROMPTS)?;
    let policy_files = Checkpoint::open(&fixtures.tiny.join("policy"))?;
    let reward_files = Checkpoint::open(&fixtures.tiny.join("reward"))?;
    let policy = load_causal(&policy_files, &subject.placement)?;
    let judge = Judge { model: load_reward(&reward_files, &subject.placement)?, files: reward_files };
    let train = asked(&policy_files, &prompts.train[..size.n_train.min(prompts.train.len())])?;
    let heldout = asked(&policy_files, &prompts.heldout[..size.n_heldout.min(prompts.heldout.len())])?;

    let sampled = Decoding::Sample(Sampling::new(0.8, None, Some(0.95), None)?);
    let answers = answers(&policy, &policy_files, &train, size.n_answers, sampled)?;
    let scores = judge.scores(&policy_files, &train, size.n_answers, &answers)?;
    let pairs = pairs(&train, size.n_answers, &answers, &scores);
    // Weights are trained in f32, and a step computes in the subject's precision.
    let start = load_causal(&policy_files, &subject.placement.device)?;
    let score_before = mean_greedy(&start, &policy_files, &judge, &heldout)?;
    let (tuned, steps) = tuned(start, &pairs, size.epochs, subject.placement.precision)?;
    let score_after = mean_greedy(&tuned, &policy_files, &judge, &heldout)?;
    Ok(Done { n_pairs: pairs.len(), steps, score_before, score_after })
}

impl Done {
    /// What must hold of it.
    pub fn findings(&self) -> Vec<Finding> {
        let loss = |step: Option<&StepMetrics>| step.map_or(f64::NAN, |step| step.loss);
        let (first, last) = (loss(self.steps.first()), loss(self.steps.last()));
        vec![
            Finding::holds(format!("tiny job, {} pairs", self.n_pairs), self.n_pairs > 0),
            Finding::holds(format!("tiny job, loss {first:.3} to {last:.3}"), last < first),
            Finding::holds(
                format!("tiny job, score on held-out prompts {:.3} to {:.3}", self.score_before, self.score_after),
                self.score_after > self.score_before,
            ),
        ]
    }
}

fn asked(files: &Checkpoint, prompts: &[String]) -> Result<Vec<Asked>, CheckError> {
    let asked = prompts.iter().map(|text| {
        let ids = files.conversation_ids(&[Message::user(text.as_str())], true, 1)?;
        Ok(Asked { text: text.clone(), ids: ids.into() })
    });
    asked.collect()
}

/// `n` answers to each prompt, prompt after prompt.
fn answers(
    policy: &CausalModel,
    files: &Checkpoint,
    asked: &[Asked],
    n: usize,
    decoding: Decoding,
) -> Result<Vec<Completion>, CheckError> {
    let prompts = asked.iter().flat_map(|prompt| std::iter::repeat_n(&prompt.ids, n));
    let requests: Vec<Request> =
        prompts.zip(0..).map(|(prompt, seed)| Request { prompt: prompt.clone(), seed }).collect();
    let config = GenerateConfig { decoding, max_new_tokens: MAX_NEW_TOKENS, stop_ids: files.eos_ids(), max_batch: 64 };
    let mut answers: Vec<Option<Completion>> = vec![None; requests.len()];
    let mut take = |index: usize, answer: Completion| answers[index] = Some(answer);
    generate(policy, &requests, &config, &AtomicBool::new(false), &mut take)?;
    let all = answers.into_iter().collect::<Option<Vec<_>>>();
    all.ok_or_else(|| CheckError::Shape { what: "an answer to each request".to_owned() })
}

struct Judge {
    model: RewardModel,
    files: Checkpoint,
}

impl Judge {
    fn scores(
        &self,
        policy: &Checkpoint,
        asked: &[Asked],
        n: usize,
        answers: &[Completion],
    ) -> Result<Vec<f32>, CheckError> {
        let mut conversations = Vec::with_capacity(answers.len());
        for (index, answer) in answers.iter().enumerate() {
            let text = policy.tokenizer.decode(&answer.token_ids, true)?;
            let messages = [Message::user(asked[index / n].text.as_str()), Message::new("assistant", text)];
            conversations.push(self.files.conversation_ids(&messages, false, 1)?);
        }
        let mut scores = Vec::with_capacity(answers.len());
        for batch in conversations.chunks(SCORE_BATCH) {
            scores.extend(self.model.score(batch, HeadDtype::F32)?.into_iter().map(|reward| reward.score));
        }
        Ok(scores)
    }
}

/// The best and the worst answer of each prompt, where they differ in tokens and in score.
fn pairs(asked: &[Asked], n: usize, answers: &[Completion], scores: &[f32]) -> Vec<TokenPair> {
    let of_prompt = |(at, prompt): (usize, &Asked)| {
        let ours = at * n..(at + 1) * n;
        let best = ours.clone().max_by(|a, b| scores[*a].total_cmp(&scores[*b]))?;
        let worst = ours.min_by(|a, b| scores[*a].total_cmp(&scores[*b]))?;
        let differ = scores[best] > scores[worst] && answers[best].token_ids != answers[worst].token_ids;
        let sequence = |answer: usize| Sequence::new(&prompt.ids, &answers[answer].token_ids);
        differ.then(|| TokenPair { chosen: sequence(best), rejected: sequence(worst) })
    };
    asked.iter().enumerate().filter_map(of_prompt).collect()
}

fn mean_greedy(policy: &CausalModel, files: &Checkpoint, judge: &Judge, asked: &[Asked]) -> Result<f64, CheckError> {
    let answers = answers(policy, files, asked, 1, Decoding::Greedy)?;
    let scores = judge.scores(files, asked, 1, &answers)?;
    Ok(scores.iter().map(|score| f64::from(*score)).sum::<f64>() / scores.len().max(1) as f64)
}

fn tuned(
    policy: CausalModel,
    pairs: &[TokenPair],
    epochs: usize,
    precision: Precision,
) -> Result<(CausalModel, Vec<StepMetrics>), CheckError> {
    let loss = MarginLoss::Sigmoid;
    let simpo = Simpo { beta: 2.5, gamma_beta_ratio: 0.5, loss, label_smoothing: 0.0, sft_weight: 0.0 };
    let objective = Objective::Simpo(simpo);
    let task = PairTask::new(&objective, pairs, &[], 4096)?;
    let shuffle = Shuffle { n_rows: pairs.len(), batch_size: 16, seed: 42 };
    let n_steps = shuffle.steps_per_epoch() * epochs;
    let recipe = Recipe {
        schedule: Schedule::with_warmup_ratio(1e-4, Decay::Cosine, 0.1, n_steps),
        order: Order::Shuffled(shuffle),
        adamw: AdamW::default(),
        max_grad_norm: Some(1.0),
        micro_batch_tokens: 4096,
        precision,
        kept: Kept::All,
    };
    let mut steps = Vec::new();
    let mut on_step = |metrics: &StepMetrics, _: &Trainer<CausalModel>| {
        steps.push(metrics.clone());
        ControlFlow::Continue(())
    };
    let never = AtomicBool::new(false);
    let mut trainer = Trainer::new(policy, recipe.adamw)?;
    trainer.run(&task, &recipe, Hooks { cancel: &never, clock: &|| 0.0, on_step: &mut on_step })?;
    Ok((trainer.model, steps))
}

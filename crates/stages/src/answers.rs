//! Asking a policy: prompts in, answers out, several a prompt.
//!
//! Owns the passage from texts to requests and back, and what is wrong with prompts or weights that give no answer. Knows
//! nothing of tables. Answers come in the order of the prompts, then of the samples, whatever order they were finished in.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use sluice_lm::causal::CausalLm;
use sluice_lm::checkpoint::CheckpointError;
use sluice_lm::generate::{self, Completion, Decoding, GenerateConfig, GenerateError, Request, generate};
use sluice_lm::sampling::{Sampling, SamplingError};
use sluice_spec::stage::sample::Bos;
use sluice_spec::{Count, PositiveFraction, ProperFraction, Samples, Temperature};
use sluice_table::FinishReason;

use crate::StageError;
use crate::chat::prompt_ids;
use crate::model::Policy;
use crate::row_key::row_seed;

/// Prompts an error names before it only counts.
const N_NAMED: usize = 5;

/// A prompt to answer.
#[derive(Clone, Copy, Debug)]
pub struct Prompt<'a> {
    pub id: &'a str,
    pub text: &'a str,
}

/// How prompts are answered.
#[derive(Clone, Debug)]
pub struct Manner<'a> {
    pub decoding: Decoding,
    /// Answers a prompt.
    pub n: Samples,
    /// Tokens of one answer at most.
    pub max_new_tokens: Count,
    /// Tokens that end an answer, besides the policy's own.
    pub stop: &'a [String],
    pub bos: Bos,
    pub seed: u64,
    /// Answers worked on at one time.
    pub max_batch: Count,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Without special tokens, and without the token that ended it.
    pub text: String,
    /// The token that ended it included.
    pub token_ids: Vec<u32>,
    pub n_prompt_tokens: u32,
    /// Of the tokens under the policy at temperature 1, nats.
    pub logp_sum: f32,
    pub finish_reason: FinishReason,
    /// Of the answer's random stream.
    pub seed: u64,
}

/// Why prompts could not be answered.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    #[error("write prompt {id} in tokens")]
    Encode { id: String, source: CheckpointError },
    #[error(
        "{} no room for an answer in the policy's context of {max} tokens: {}{}; leave long prompts out where they are \
         ingested: `where` takes the length of their column, as in `length(prompt) < 2000`",
        if *n_prompts == 1 { "1 prompt leaves".to_owned() } else { format!("{n_prompts} prompts leave") },
        named.join(", "),
        if named.len() < *n_prompts { ", ..." } else { "" }
    )]
    TooLong { n_prompts: usize, max: usize, named: Vec<String> },
    #[error("`stop` names `{token}`, which is no single token of the policy's vocabulary")]
    UnknownStop { token: String },
    #[error("set up sampling")]
    Sampling { source: SamplingError },
    #[error("draw token {position} of answer {sample} to prompt {id}; look at the policy's weights")]
    Draw { id: String, sample: usize, position: usize, source: SamplingError },
    #[error("generate answers")]
    Generate { source: GenerateError },
    #[error("read answer {sample} to prompt {id} as text")]
    Decode { id: String, sample: usize, source: CheckpointError },
}

/// Drawing with these filters, or the most likely token at temperature 0.
pub fn decoding(
    temperature: Temperature,
    top_k: Option<Count>,
    top_p: Option<PositiveFraction>,
    min_p: Option<ProperFraction>,
) -> Result<Decoding, AnswerError> {
    if temperature.get() == 0.0 {
        return Ok(Decoding::Greedy);
    }
    let top_k = top_k.map(|k| k.get() as usize);
    let sampling = Sampling::new(temperature.get(), top_k, top_p.map(|p| p.get()), min_p.map(|p| p.get()));
    sampling.map(Decoding::Sample).map_err(|source| AnswerError::Sampling { source })
}

/// Answers every prompt `n` times, one prompt after the other; `on_answer` is told the tokens of each one done.
pub fn answer(
    policy: &Policy,
    prompts: &[Prompt<'_>],
    manner: &Manner<'_>,
    cancel: &AtomicBool,
    on_answer: &mut dyn FnMut(usize),
) -> Result<Vec<Answer>, StageError> {
    let n = manner.n.get() as usize;
    let requests = requests(policy, prompts, manner)?;
    let config = GenerateConfig {
        decoding: manner.decoding,
        max_new_tokens: manner.max_new_tokens.get() as usize,
        stop_ids: stop_ids(policy, manner.stop)?,
        max_batch: manner.max_batch.get() as usize,
    };
    let mut done: Vec<Option<Completion>> = vec![None; requests.len()];
    generate(&policy.model, &requests, &config, cancel, &mut |index, completion| {
        on_answer(completion.token_ids.len());
        done[index] = Some(completion);
    })
    .map_err(|source| failed(source, prompts, n))?;
    let answers = done.into_iter().zip(&requests).enumerate();
    answers
        .map(|(index, (completion, request))| {
            let completion = completion.expect("generation hands over every request that it does not refuse");
            read(policy, request, completion).map_err(|source| {
                let (id, sample) = (prompts[index / n].id.to_owned(), index % n);
                StageError::from(AnswerError::Decode { id, sample, source })
            })
        })
        .collect()
}

/// `n` requests a prompt, which share its tokens.
fn requests(policy: &Policy, prompts: &[Prompt<'_>], manner: &Manner<'_>) -> Result<Vec<Request>, AnswerError> {
    let max = policy.model.max_positions();
    let mut requests = Vec::with_capacity(prompts.len() * manner.n.get() as usize);
    let mut too_long: Vec<(Prompt<'_>, usize)> = Vec::new();
    for prompt in prompts {
        let ids = prompt_ids(&policy.checkpoint, prompt.text, manner.bos)
            .map_err(|source| AnswerError::Encode { id: prompt.id.to_owned(), source })?;
        if ids.len() >= max {
            too_long.push((*prompt, ids.len()));
        }
        let ids: Arc<[u32]> = ids.into();
        requests.extend(
            (0..manner.n.get())
                .map(|sample| Request { prompt: ids.clone(), seed: row_seed(manner.seed, prompt.id, sample) }),
        );
    }
    if too_long.is_empty() {
        return Ok(requests);
    }
    // The longest first: they are the ones to look at.
    too_long.sort_by_key(|(_, n_tokens)| std::cmp::Reverse(*n_tokens));
    let name = |(prompt, n_tokens): &(Prompt<'_>, usize)| {
        format!("{} with {n_tokens} tokens, \"{}\"", prompt.id, opening(prompt.text))
    };
    let named = too_long.iter().take(N_NAMED).map(name).collect();
    Err(AnswerError::TooLong { n_prompts: too_long.len(), max, named })
}

/// The first words of a text, in one line.
fn opening(text: &str) -> String {
    const N_CHARACTERS: usize = 40;
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.char_indices().nth(N_CHARACTERS) {
        Some((end, _)) => format!("{}...", words[..end].trim_end()),
        None => words,
    }
}

/// The policy's own end tokens and the user's.
fn stop_ids(policy: &Policy, stop: &[String]) -> Result<Vec<u32>, AnswerError> {
    let mut ids = policy.checkpoint.eos_ids();
    for token in stop {
        let id = policy.checkpoint.tokenizer.token_to_id(token);
        ids.push(id.ok_or_else(|| AnswerError::UnknownStop { token: token.clone() })?);
    }
    Ok(ids)
}

fn read(policy: &Policy, request: &Request, completion: Completion) -> Result<Answer, CheckpointError> {
    let Completion { token_ids, logps, finish_reason } = completion;
    let (finish_reason, n_words) = match finish_reason {
        generate::FinishReason::Stop => (FinishReason::Stop, token_ids.len().saturating_sub(1)),
        generate::FinishReason::Length => (FinishReason::Length, token_ids.len()),
    };
    Ok(Answer {
        text: policy.checkpoint.tokenizer.decode(&token_ids[..n_words], true)?,
        n_prompt_tokens: request.prompt.len() as u32,
        logp_sum: logps.iter().map(|logp| f64::from(*logp)).sum::<f64>() as f32,
        finish_reason,
        seed: request.seed,
        token_ids,
    })
}

/// Puts a prompt's id where generation knows the request's number.
fn failed(error: GenerateError, prompts: &[Prompt<'_>], n: usize) -> StageError {
    match error {
        GenerateError::Cancelled { .. } => StageError::Cancelled,
        GenerateError::Sampling { index, position, source } => {
            AnswerError::Draw { id: prompts[index / n].id.to_owned(), sample: index % n, position, source }.into()
        }
        source => AnswerError::Generate { source }.into(),
    }
}

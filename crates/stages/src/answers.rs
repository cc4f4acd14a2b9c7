//! Asking a policy: prompts in, answers out, several a prompt.
//!
//! Owns the passage from texts to requests and back, and what is wrong with prompts or weights that give no answer. Knows
//! nothing of tables. Answers come in the order of the prompts, then of the samples, whatever order they were finished in.
//! What was answered before, in whichever stage, is not asked again.

use std::sync::Arc;

use sluice_lm::causal::CausalLm;
use sluice_lm::checkpoint::CheckpointError;
use sluice_lm::generate::{self, Completion, GenerateConfig, GenerateError, Request, generate};
use sluice_lm::sampling::{Sampling, SamplingError};
use sluice_spec::stage::sample::Decoding;
use sluice_spec::{Count, Samples};
use sluice_store::{ModelDigest, RowKey};
use sluice_table::FinishReason;

use crate::chat::prompt_ids;
use crate::ledger::{self, Bytes, Ledger, Stored, write_list};
use crate::model::Policy;
use crate::row_key::{AnswerKeys, row_seed};
use crate::{Done, Progress, Reading, RowCount, StageContext, StageError};

/// Prompts an error names before it only counts.
const N_NAMED: usize = 5;

/// A prompt to answer.
#[derive(Clone, Copy, Debug)]
pub struct Prompt<'a> {
    pub id: &'a str,
    pub text: &'a str,
}

/// How prompts are answered.
#[derive(Clone, Copy, Debug)]
pub struct Manner<'a> {
    pub decoding: &'a Decoding,
    /// Answers a prompt.
    pub n: Samples,
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

/// Answers every prompt in every manner, and gives the answers by manner, then by prompt and sample; how many were known,
/// and what the others took. The policy is loaded when there is something to ask it, and is gone from memory afterwards.
pub fn ask(
    context: &StageContext<'_>,
    role: &str,
    prompts: &[Prompt<'_>],
    manners: &[Manner<'_>],
    progress: &mut Progress,
) -> Result<(Vec<Vec<Answer>>, RowCount, Done), StageError> {
    let (_, digest) = context.model(role)?;
    let mut ledgers = Vec::new();
    for manner in manners {
        let (keys, rows) = keys(digest, prompts, manner);
        ledgers.push(Ledger::open(context, keys.scope(context.device), rows)?);
    }
    let count: RowCount = ledgers.iter().map(Ledger::count).sum();
    progress.done += count.n_known;
    context.report(*progress);
    let mut done = Done::default();
    if count.n_known < count.n_rows {
        let policy = Policy::load(context, role)?;
        let (started, n_tokens) = ((context.clock)(), progress.n_tokens);
        for (ledger, manner) in ledgers.iter_mut().zip(manners) {
            done.n += fill(ledger, &policy, prompts, manner, context, progress)?;
        }
        (done.n_tokens, done.seconds) = (progress.n_tokens - n_tokens, (context.clock)() - started);
    }
    let answers = ledgers.into_iter().map(|ledger| ledger.finish((context.clock)()));
    Ok((answers.collect::<Result<_, _>>()?, count, done))
}

/// How many of the answers of [`ask`] are known: none of a policy that is not there yet.
pub fn count(
    reading: Reading<'_>,
    role: &str,
    prompts: &[Prompt<'_>],
    manners: &[Manner<'_>],
) -> Result<RowCount, StageError> {
    if !reading.has(role) {
        let n_each: u64 = manners.iter().map(|manner| u64::from(manner.n.get())).sum();
        return Ok(RowCount { n_rows: n_each * prompts.len() as u64, n_known: 0 });
    }
    let (_, digest) = reading.model(role)?;
    let counts = manners.iter().map(|manner| {
        let (keys, rows) = keys(digest, prompts, manner);
        ledger::count(reading.store, keys.scope(reading.device), &rows)
    });
    counts.sum()
}

/// The keys of all answers, by prompt and sample.
fn keys(policy: ModelDigest, prompts: &[Prompt<'_>], manner: &Manner<'_>) -> (AnswerKeys, Vec<RowKey>) {
    let keys = AnswerKeys::new(manner.decoding, policy);
    let samples = |prompt: &Prompt<'_>| (0..manner.n.get()).map(|sample| keys.key(prompt.text, sample)).collect();
    let rows: Vec<Vec<RowKey>> = prompts.iter().map(samples).collect();
    (keys, rows.concat())
}

/// Asks for what is missing, one prompt after the other, and says how much that was.
fn fill(
    ledger: &mut Ledger<Answer>,
    policy: &Policy,
    prompts: &[Prompt<'_>],
    manner: &Manner<'_>,
    context: &StageContext<'_>,
    progress: &mut Progress,
) -> Result<u64, StageError> {
    let n = manner.n.get() as usize;
    let missing: Vec<Asked<'_>> =
        ledger.missing().into_iter().map(|row| Asked { row, prompt: prompts[row / n], sample: row % n }).collect();
    put(policy, &missing, manner, context, progress, &mut |row, answer| ledger.put(row, answer, (context.clock)()))?;
    Ok(missing.len() as u64)
}

/// Answers once more, whatever is known: each prompt's sample of this number, in this order. Nothing is kept.
pub fn again(
    context: &StageContext<'_>,
    policy: &Policy,
    asked: &[(Prompt<'_>, u32)],
    manner: &Manner<'_>,
    progress: &mut Progress,
) -> Result<Vec<Answer>, StageError> {
    let asked = asked.iter().enumerate();
    let asked: Vec<Asked<'_>> =
        asked.map(|(row, (prompt, sample))| Asked { row, prompt: *prompt, sample: *sample as usize }).collect();
    let mut answers: Vec<Option<Answer>> = vec![None; asked.len()];
    put(policy, &asked, manner, context, progress, &mut |row, answer| answers[row] = Some(answer))?;
    Ok(answers.into_iter().map(|answer| answer.expect("every request is answered")).collect())
}

/// The tokens that a prompt is read as.
pub fn encoded(policy: &Policy, prompt: Prompt<'_>, decoding: &Decoding) -> Result<Vec<u32>, AnswerError> {
    prompt_ids(&policy.checkpoint, prompt.text, decoding.bos.value)
        .map_err(|source| AnswerError::Encode { id: prompt.id.to_owned(), source })
}

/// Puts prompts to a policy and hands over each answer with its row, in no fixed order.
fn put(
    policy: &Policy,
    asked: &[Asked<'_>],
    manner: &Manner<'_>,
    context: &StageContext<'_>,
    progress: &mut Progress,
    on_answer: &mut dyn FnMut(usize, Answer),
) -> Result<(), StageError> {
    let requests = requests(policy, asked, manner.decoding)?;
    let config = GenerateConfig {
        decoding: decoding(manner.decoding)?,
        max_new_tokens: manner.decoding.max_new_tokens.get() as usize,
        stop_ids: stop_ids(policy, &manner.decoding.stop)?,
        max_batch: manner.max_batch.get() as usize,
    };
    let mut unread = None;
    generate(&policy.model, &requests, &config, context.cancel, &mut |index, completion| {
        progress.done += 1;
        progress.n_tokens += completion.token_ids.len() as u64;
        context.report(*progress);
        match read(policy, &requests[index], completion) {
            Ok(answer) => on_answer(asked[index].row, answer),
            Err(source) => {
                let Asked { prompt, sample, .. } = asked[index];
                unread.get_or_insert(AnswerError::Decode { id: prompt.id.to_owned(), sample, source });
            }
        }
    })
    .map_err(|source| failed(source, asked))?;
    unread.map_or(Ok(()), |error| Err(error.into()))
}

/// An answer that is asked for.
#[derive(Clone, Copy)]
struct Asked<'a> {
    /// Among all answers.
    row: usize,
    prompt: Prompt<'a>,
    sample: usize,
}

/// Drawing with these filters, or the most likely token at temperature 0.
fn decoding(decoding: &Decoding) -> Result<generate::Decoding, AnswerError> {
    let Decoding { temperature, top_k, top_p, min_p, max_new_tokens: _, stop: _, bos: _, seed: _ } = decoding;
    if temperature.get() == 0.0 {
        return Ok(generate::Decoding::Greedy);
    }
    let (top_k, top_p, min_p) = (top_k.value, top_p.value, min_p.value);
    let top_k = top_k.map(|k| k.get() as usize);
    let sampling = Sampling::new(temperature.get(), top_k, top_p.map(|p| p.get()), min_p.map(|p| p.get()));
    sampling.map(generate::Decoding::Sample).map_err(|source| AnswerError::Sampling { source })
}

/// A request an answer; those to one prompt share its tokens.
fn requests(policy: &Policy, asked: &[Asked<'_>], decoding: &Decoding) -> Result<Vec<Request>, AnswerError> {
    let max = policy.model.max_positions();
    let mut requests = Vec::with_capacity(asked.len());
    let mut too_long: Vec<(Prompt<'_>, usize)> = Vec::new();
    for samples in asked.chunk_by(|one, next| one.prompt.id == next.prompt.id) {
        let prompt = samples[0].prompt;
        let ids = encoded(policy, prompt, decoding)?;
        if ids.len() >= max {
            too_long.push((prompt, ids.len()));
        }
        let ids: Arc<[u32]> = ids.into();
        requests.extend(samples.iter().map(|asked| Request {
            prompt: ids.clone(),
            seed: row_seed(decoding.seed.get(), prompt.id, asked.sample as u32),
        }));
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
fn failed(error: GenerateError, asked: &[Asked<'_>]) -> StageError {
    match error {
        GenerateError::Cancelled { .. } => StageError::Cancelled,
        GenerateError::Sampling { index, position, source } => {
            let Asked { prompt, sample, .. } = asked[index];
            AnswerError::Draw { id: prompt.id.to_owned(), sample, position, source }.into()
        }
        source => AnswerError::Generate { source }.into(),
    }
}

impl Stored for Answer {
    fn write(&self, bytes: &mut Vec<u8>) {
        let Self { text, token_ids, n_prompt_tokens, logp_sum, finish_reason, seed } = self;
        bytes.extend(n_prompt_tokens.to_le_bytes());
        bytes.extend(logp_sum.to_le_bytes());
        bytes.push(u8::from(*finish_reason == FinishReason::Stop));
        bytes.extend(seed.to_le_bytes());
        write_list(bytes, token_ids, u32::to_le_bytes);
        bytes.extend(text.as_bytes());
    }

    fn read(bytes: &mut Bytes<'_>) -> Option<Self> {
        Some(Self {
            n_prompt_tokens: bytes.u32()?,
            logp_sum: bytes.f32()?,
            finish_reason: if bytes.u8()? == 1 { FinishReason::Stop } else { FinishReason::Length },
            seed: bytes.u64()?,
            token_ids: bytes.list(u32::from_le_bytes)?,
            text: bytes.text()?.to_owned(),
        })
    }
}

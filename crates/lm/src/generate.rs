//! Sampling answers from a causal language model, many at a time.
//!
//! Owns the batch: slots of a key-value cache, each working on one request; a finished request leaves its slot to the next
//! waiting one, so that the batch stays full to the end. Requests that share a prompt are prefilled once. On the CPU a
//! small model works in as many batches as there are threads, since its products are too small to share. A request's
//! random numbers come from its own seed and the position, and a row of a product does not depend on the other rows, so
//! that an answer does not depend on its neighbours.
//! Knows nothing of text: requests and completions are token ids. A device that should not be waited for after each token
//! has a batch of its own (`generate/ahead.rs`).

#[cfg(any(test, feature = "cube"))]
mod ahead;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use crate::causal::{CausalLm, KvCache};
use crate::kernel::CachedSegment;
use crate::nn::token_ids;
use crate::sampling::{RowRng, Sampling, SamplingError, Scratch, draw, greedy, log_probability};
use crate::weights::values;

/// Tokens of prompts that a GPU reads in one pass, unless one prompt alone has more.
pub const PASS_TOKENS: usize = 8192;

/// One answer wanted.
#[derive(Clone, Debug)]
pub struct Request {
    /// The whole prompt, the bos and the opening of the model's turn included. Requests with one prompt share the `Arc`.
    pub prompt: Arc<[u32]>,
    /// Seed of this answer's random stream; unused when decoding greedily.
    pub seed: u64,
}

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decoding {
    /// The most likely one.
    Greedy,
    /// One drawn from the filtered distribution.
    Sample(Sampling),
}

/// What holds for all requests of a call.
#[derive(Clone, Debug)]
pub struct GenerateConfig {
    pub decoding: Decoding,
    /// Tokens of one answer at most, the stop token included.
    pub max_new_tokens: usize,
    /// Tokens that end an answer.
    pub stop_ids: Vec<u32>,
    /// Answers worked on at one time.
    pub max_batch: usize,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model gave a stop token, which is the last of the answer.
    Stop,
    /// The answer reached `max_new_tokens` or the end of the model's context.
    Length,
}

impl FinishReason {
    /// `stop` or `length`, as tables and JSON spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// The new tokens, a stop token included.
    pub token_ids: Vec<u32>,
    /// Log-probability of each in nats, under the model's unfiltered distribution at temperature 1.
    pub logps: Vec<f32>,
    pub finish_reason: FinishReason,
}

/// Why requests cannot be answered.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GenerateError {
    #[error("request {index} has an empty prompt")]
    EmptyPrompt { index: usize },
    #[error(
        "the prompt of request {index} has {n_tokens} tokens, which leaves no room for an answer in the model's context \
         of {max}; shorten the prompt or drop it"
    )]
    PromptTooLong { index: usize, n_tokens: usize, max: usize },
    #[error("request {index} holds token {id}, but the model's vocabulary ends at {vocab_size}")]
    UnknownToken { index: usize, id: u32, vocab_size: usize },
    #[error("draw token {position} of request {index}")]
    Sampling { index: usize, position: usize, source: SamplingError },
    #[error("stopped on request after {n_done} of {n_requests} answers")]
    Cancelled { n_done: usize, n_requests: usize },
}

/// Answers every request, handing over each answer as it ends, in no fixed order.
pub fn generate<M: CausalLm + Sync>(
    model: &M,
    requests: &[Request],
    config: &GenerateConfig,
    cancel: &AtomicBool,
    on_done: &mut dyn FnMut(usize, Completion),
) -> Result<(), GenerateError> {
    check(model, requests)?;
    #[cfg(feature = "cube")]
    if model.device() != burn::tensor::Device::flex() {
        return ahead::generate(model, requests, config, cancel, on_done);
    }
    let n_workers = n_workers(model, config);
    let config = &GenerateConfig { max_batch: config.max_batch.div_ceil(n_workers), ..config.clone() };
    let waiting = &Mutex::new((0..requests.len()).collect());
    // A worker that fails stops the others.
    let (failed, n_done) = (&AtomicBool::new(false), &AtomicUsize::new(0));
    let work = |sender: Sender<(usize, Completion)>| -> Result<(), GenerateError> {
        let mut batch = Batch::new(model, Slots::new(model, requests, config, waiting));
        while batch.slots.admit() {
            if cancel.load(Ordering::Relaxed) {
                let (n_done, n_requests) = (n_done.load(Ordering::Relaxed), requests.len());
                return Err(GenerateError::Cancelled { n_done, n_requests });
            }
            if failed.load(Ordering::Relaxed) {
                return Ok(());
            }
            let done = batch.step().inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
            n_done.fetch_add(done.len(), Ordering::Relaxed);
            for answer in done {
                // The receiver lives as long as the workers.
                let _ = sender.send(answer);
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let (sender, answers) = channel();
        let senders = vec![sender; n_workers];
        let workers = scope.spawn(|| senders.into_par_iter().with_max_len(1).map(work).collect::<Result<(), _>>());
        for (index, completion) in answers {
            on_done(index, completion);
        }
        workers.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// One batch a thread for a model that fits the caches; one batch for a larger one, whose products fill all threads.
fn n_workers<M: CausalLm>(model: &M, config: &GenerateConfig) -> usize {
    const SMALL: usize = 16 << 20;
    if model.clone().n_parameters() > SMALL {
        return 1;
    }
    rayon::current_num_threads().min(config.max_batch).max(1)
}

fn check<M: CausalLm>(model: &M, requests: &[Request]) -> Result<(), GenerateError> {
    let (max, vocab_size) = (model.max_positions(), model.vocab_size());
    for (index, request) in requests.iter().enumerate() {
        let n_tokens = request.prompt.len();
        if n_tokens == 0 {
            return Err(GenerateError::EmptyPrompt { index });
        }
        if n_tokens >= max {
            return Err(GenerateError::PromptTooLong { index, n_tokens, max });
        }
        if let Some(id) = request.prompt.iter().find(|id| **id as usize >= vocab_size) {
            return Err(GenerateError::UnknownToken { index, id: *id, vocab_size });
        }
    }
    Ok(())
}

/// The slots of a batch, and who waits for one.
struct Slots<'a> {
    requests: &'a [Request],
    config: &'a GenerateConfig,
    waiting: &'a Mutex<VecDeque<usize>>,
    /// Tokens of a sequence at most.
    max_positions: usize,
    rows: Vec<Option<Row>>,
}

/// A request at work in a slot.
struct Row {
    index: usize,
    state: Progress,
    rng: RowRng,
    token_ids: Vec<u32>,
    logps: Vec<f32>,
    scratch: Scratch,
}

enum Progress {
    /// The prompt is to be read.
    Fresh,
    /// The prompt is read by the row in this other slot, in the same step.
    Follows(usize),
    /// The prompt and all new tokens but the last are in the cache.
    Underway,
}

impl<'a> Slots<'a> {
    /// Room for as many answers at one time as are allowed and wanted, none taken.
    fn new<M: CausalLm>(
        model: &M,
        requests: &'a [Request],
        config: &'a GenerateConfig,
        waiting: &'a Mutex<VecDeque<usize>>,
    ) -> Self {
        let n_slots = config.max_batch.min(requests.len()).max(1);
        let rows = (0..n_slots).map(|_| None).collect();
        Self { requests, config, waiting, max_positions: model.max_positions(), rows }
    }

    /// Tokens of the longest sequence that may come about.
    fn capacity(&self) -> usize {
        let longest = self.requests.iter().map(|request| request.prompt.len()).max().unwrap_or(0);
        (longest + self.config.max_new_tokens).min(self.max_positions)
    }

    /// Puts waiting requests into free slots; false when nothing is left to do.
    fn admit(&mut self) -> bool {
        let mut leader: Option<usize> = None;
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for slot in 0..self.rows.len() {
            if self.rows[slot].is_some() {
                continue;
            }
            let Some(index) = waiting.pop_front() else { break };
            let request = &self.requests[index];
            let shared = leader.filter(|leader| {
                self.rows[*leader].as_ref().is_some_and(|row| self.requests[row.index].prompt == request.prompt)
            });
            let state = match shared {
                Some(leader) => Progress::Follows(leader),
                None => {
                    leader = Some(slot);
                    Progress::Fresh
                }
            };
            self.rows[slot] = Some(Row {
                index,
                state,
                rng: RowRng::new(request.seed),
                token_ids: Vec::new(),
                logps: Vec::new(),
                scratch: Scratch::default(),
            });
        }
        self.rows.iter().any(Option::is_some)
    }

    /// Why a row is done, if it is.
    fn reason(&self, row: &Row) -> Option<FinishReason> {
        let n_tokens = self.requests[row.index].prompt.len() + row.token_ids.len();
        let stopped = row.token_ids.last().is_some_and(|id| self.config.stop_ids.contains(id));
        let full = row.token_ids.len() >= self.config.max_new_tokens || n_tokens >= self.max_positions;
        match (stopped, full) {
            (true, _) => Some(FinishReason::Stop),
            (false, true) => Some(FinishReason::Length),
            (false, false) => None,
        }
    }

    /// Takes the rows that are done out of their slots.
    fn finished(&mut self) -> Vec<(usize, Completion)> {
        let mut done = Vec::new();
        for slot in 0..self.rows.len() {
            let Some(finish_reason) = self.rows[slot].as_ref().and_then(|row| self.reason(row)) else { continue };
            let row = self.rows[slot].take().expect("the slot holds a row");
            let completion = Completion { token_ids: row.token_ids, logps: row.logps, finish_reason };
            done.push((row.index, completion));
        }
        done
    }
}

struct Batch<'a, M> {
    model: &'a M,
    slots: Slots<'a>,
    cache: KvCache,
}

impl<'a, M: CausalLm> Batch<'a, M> {
    fn new(model: &'a M, slots: Slots<'a>) -> Self {
        // One slot more than rows: the place of a row that only keeps the products from being vectors.
        let cache = model.new_cache(slots.rows.len() + 1, slots.capacity());
        Self { model, slots, cache }
    }

    /// One forward pass over the slots: prompts of fresh rows and the last token of the others.
    fn step(&mut self) -> Result<Vec<(usize, Completion)>, GenerateError> {
        let mut ids = Vec::new();
        let mut segments = Vec::new();
        let mut last_rows = Vec::new();
        let mut logits_row_of_slot = vec![0; self.slots.rows.len()];
        for (slot, row) in self.slots.rows.iter().enumerate() {
            let Some(row) = row else { continue };
            let prompt = &self.slots.requests[row.index].prompt;
            let start = ids.len();
            let n_past = match row.state {
                Progress::Follows(_) => continue,
                Progress::Fresh => {
                    ids.extend_from_slice(prompt);
                    0
                }
                Progress::Underway => {
                    ids.extend(row.token_ids.last());
                    prompt.len() + row.token_ids.len() - 1
                }
            };
            let rows: Range<usize> = start..ids.len();
            logits_row_of_slot[slot] = last_rows.len();
            last_rows.push(rows.end - 1);
            segments.push(CachedSegment { rows, slot, n_past });
        }
        if ids.len() == 1 {
            // The product of a single row runs another kernel, which rounds differently from the one for many rows.
            ids.push(ids[0]);
            let slot = self.slots.rows.len();
            segments.push(CachedSegment { rows: 1..2, slot, n_past: segments[0].n_past });
            last_rows.push(1);
        }
        let ids_n = token_ids(&ids, self.model.vocab_size(), &self.model.device());
        let hidden = self.model.hidden_cached(ids_n, &segments.into(), &mut self.cache);
        let logits = self.model.next_logits(hidden, &last_rows, &self.cache);
        let logits = values(logits);
        self.share_prompts(&mut logits_row_of_slot);
        self.choose(&logits, &logits_row_of_slot)?;
        Ok(self.slots.finished())
    }

    /// Copies the prompt's cache from the row that read it to those that follow it.
    fn share_prompts(&mut self, logits_row_of_slot: &mut [usize]) {
        for slot in 0..self.slots.rows.len() {
            if let Some(Row { state: Progress::Follows(leader), index, .. }) = self.slots.rows[slot] {
                self.cache.copy_slot(leader, slot, self.slots.requests[index].prompt.len());
                logits_row_of_slot[slot] = logits_row_of_slot[leader];
            }
        }
    }

    /// Chooses the next token of every row.
    fn choose(&mut self, logits: &[f32], logits_row_of_slot: &[usize]) -> Result<(), GenerateError> {
        let (w, decoding) = (self.model.vocab_size(), self.slots.config.decoding);
        for (row, logits_row) in self.slots.rows.iter_mut().zip(logits_row_of_slot) {
            let Some(row) = row else { continue };
            row.state = Progress::Underway;
            let position = row.token_ids.len();
            let logits = &logits[logits_row * w..][..w];
            let id = next_token(logits, decoding, row).map_err(|source| GenerateError::Sampling {
                index: row.index,
                position,
                source,
            })?;
            row.token_ids.push(id);
            row.logps.push(log_probability(logits, id) as f32);
        }
        Ok(())
    }
}

fn next_token(logits: &[f32], decoding: Decoding, row: &mut Row) -> Result<u32, SamplingError> {
    match decoding {
        Decoding::Greedy => greedy(logits),
        Decoding::Sample(sampling) => {
            let uniform = row.rng.uniform(row.token_ids.len() as u64);
            let candidates = sampling.filter(logits, &mut row.scratch)?;
            let chosen = draw(candidates, uniform).ok_or(SamplingError::NothingLeft { n_logits: logits.len() })?;
            Ok(chosen.id)
        }
    }
}

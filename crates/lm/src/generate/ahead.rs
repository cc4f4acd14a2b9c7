//! Sampling on a device that should not be waited for: several steps are given to it at once, and their tokens read at once.
//!
//! Owns the order of that work. A token goes from its draw to the embedding of the next step on the device; what the host
//! knows beforehand goes along with each step: slots, positions and random numbers, which come from an answer's seed and the
//! position as they do elsewhere. A step computes every slot, also one that stands empty or is done, and prompts are read in
//! rounded numbers of tokens, so that a handful of shapes occurs. What a row makes after its end is cut off.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use burn::tensor::{Bool, Int, Tensor, TensorData};

use super::{Completion, Decoding, GenerateConfig, GenerateError, PASS_TOKENS, Progress, Request, Slots};
use crate::causal::{CausalLm, KvCache};
use crate::kernel::{CachedSegment, drawn};
use crate::nn::{pick, token_ids};
use crate::precision::Precision;
use crate::sampling::{Sampling, SamplingError};
use crate::weights::values;

/// Steps between two readings, at most.
const STEPS: usize = 8;

/// What their number is a multiple of.
const ROUNDED: usize = 256;

/// What the places of a slot are a multiple of, so that keys are read in whole vectors.
const ALIGNED: usize = 8;

/// Answers every request; see [`super::generate`].
pub fn generate<M: CausalLm>(
    model: &M,
    requests: &[Request],
    config: &GenerateConfig,
    cancel: &AtomicBool,
    on_done: &mut dyn FnMut(usize, Completion),
) -> Result<(), GenerateError> {
    let waiting: Mutex<VecDeque<usize>> = Mutex::new((0..requests.len()).collect());
    let mut batch = Ahead::new(model, Slots::new(model, requests, config, &waiting));
    let mut n_done = 0;
    while batch.slots.admit() {
        if cancel.load(Ordering::Relaxed) {
            return Err(GenerateError::Cancelled { n_done, n_requests: requests.len() });
        }
        for (index, completion) in batch.round()? {
            n_done += 1;
            on_done(index, completion);
        }
    }
    Ok(())
}

struct Ahead<'a, M> {
    model: &'a M,
    slots: Slots<'a>,
    cache: KvCache,
    capacity: usize,
    /// The last token of each slot, on the device.
    last_n: Tensor<1, Int>,
    /// Tokens drawn in each slot, read or not.
    n_drawn: Vec<usize>,
}

/// What one step drew: `[slots, 2]`, and in which of the slots it was wanted.
struct Draws {
    tokens_n2: Tensor<2>,
    slots: Vec<usize>,
}

impl<'a, M: CausalLm> Ahead<'a, M> {
    fn new(model: &'a M, mut slots: Slots<'a>) -> Self {
        // A product of a single row may round differently from the one for many rows.
        if slots.rows.len() == 1 {
            slots.rows.push(None);
        }
        let (n_slots, capacity) = (slots.rows.len(), slots.capacity());
        Self {
            model,
            // One slot more: the place of tokens that only round their number.
            cache: model.new_cache(n_slots + 1, capacity.next_multiple_of(ALIGNED)),
            capacity,
            last_n: token_ids(&vec![0; n_slots], model.vocab_size(), &model.device()),
            n_drawn: vec![0; n_slots],
            slots,
        }
    }

    /// Reads the prompts of fresh rows, goes some steps on with all rows, and then reads the tokens.
    fn round(&mut self) -> Result<Vec<(usize, Completion)>, GenerateError> {
        let is_fresh = |progress: &Progress| !matches!(progress, Progress::Underway);
        let mut draws = Vec::new();
        let fresh = self.slots_where(is_fresh);
        if !fresh.is_empty() {
            draws.push(self.read_prompts(fresh));
        }
        let all = self.slots_where(|_| true);
        for _ in 0..self.n_steps(&all) {
            draws.push(self.step(all.clone()));
        }
        self.read(draws)?;
        Ok(self.slots.finished())
    }

    fn slots_where(&self, holds: impl Fn(&Progress) -> bool) -> Vec<usize> {
        let rows = self.slots.rows.iter().enumerate();
        rows.filter(|(_, row)| row.as_ref().is_some_and(|row| holds(&row.state))).map(|(slot, _)| slot).collect()
    }

    /// Tokens of the prompt in a slot.
    fn n_prompt(&self, slot: usize) -> usize {
        self.slots.rows[slot].as_ref().map_or(0, |row| self.slots.requests[row.index].prompt.len())
    }

    /// How many steps the row that may go on longest can take.
    fn n_steps(&self, slots: &[usize]) -> usize {
        let left = |slot: &usize| {
            let most = self.slots.config.max_new_tokens.min(self.slots.max_positions - self.n_prompt(*slot));
            most.saturating_sub(self.n_drawn[*slot])
        };
        slots.iter().map(left).max().unwrap_or(0).min(STEPS)
    }

    /// Reads each prompt once, shares it with the rows that follow, and draws the first token of all of them.
    fn read_prompts(&mut self, fresh: Vec<usize>) -> Draws {
        let leaders = self.slots_where(|progress| matches!(progress, Progress::Fresh));
        let hidden = self.passes(&leaders).into_iter().map(|pass| self.read_pass(&pass)).collect();
        let hidden_md = Tensor::cat(hidden, 0);
        let mut leader_of_slot = vec![0; self.slots.rows.len()];
        for slot in &fresh {
            self.n_drawn[*slot] = 0;
            let Some(row) = self.slots.rows[*slot].as_mut() else { continue };
            let leader = match row.state {
                Progress::Follows(leader) => {
                    self.cache.copy_slot(leader, *slot, self.slots.requests[row.index].prompt.len());
                    leader
                }
                Progress::Fresh | Progress::Underway => *slot,
            };
            leader_of_slot[*slot] = leaders.iter().position(|other| *other == leader).unwrap_or(0);
        }
        for slot in &fresh {
            if let Some(row) = self.slots.rows[*slot].as_mut() {
                row.state = Progress::Underway;
            }
        }
        let logits_nw = self.model.next_logits(hidden_md, &leader_of_slot, &self.cache);
        self.draw(logits_nw, fresh)
    }

    /// Slots whose prompts are read together.
    fn passes(&self, leaders: &[usize]) -> Vec<Vec<usize>> {
        let mut passes: Vec<Vec<usize>> = Vec::new();
        let mut n_tokens = 0;
        for slot in leaders {
            n_tokens += self.n_prompt(*slot);
            match passes.last_mut() {
                Some(pass) if n_tokens <= PASS_TOKENS => pass.push(*slot),
                _ => {
                    n_tokens = self.n_prompt(*slot);
                    passes.push(vec![*slot]);
                }
            }
        }
        passes
    }

    /// Hidden states `[m, d]` after the last token of the prompts in these slots.
    fn read_pass(&mut self, slots: &[usize]) -> Tensor<2> {
        let (mut ids, mut segments, mut last_rows) = (Vec::new(), Vec::new(), Vec::new());
        for slot in slots {
            let Some(row) = &self.slots.rows[*slot] else { continue };
            let start = ids.len();
            ids.extend_from_slice(&self.slots.requests[row.index].prompt);
            segments.push(CachedSegment { rows: start..ids.len(), slot: *slot, n_past: 0 });
            last_rows.push(ids.len() - 1);
        }
        let n_rounded = ids.len().next_multiple_of(ROUNDED);
        while ids.len() < n_rounded {
            let start = ids.len();
            ids.resize((start + self.capacity).min(n_rounded), 0);
            segments.push(CachedSegment { rows: start..ids.len(), slot: self.slots.rows.len(), n_past: 0 });
        }
        let ids_n = token_ids(&ids, self.model.vocab_size(), &self.model.device());
        let hidden_nd = self.model.hidden_cached(ids_n, &segments.into(), &mut self.cache);
        pick(hidden_nd, &last_rows)
    }

    /// One token more in every slot.
    fn step(&mut self, slots: Vec<usize>) -> Draws {
        let n_slots = self.slots.rows.len();
        let segment = |slot: usize| {
            // The token that was drawn last is not in the cache; a row that is full goes on in its last place.
            let n_past = (self.n_prompt(slot) + self.n_drawn[slot]).saturating_sub(1).min(self.capacity - 1);
            CachedSegment { rows: slot..slot + 1, slot, n_past }
        };
        let segments: Arc<[CachedSegment]> = (0..n_slots).map(segment).collect();
        let hidden_nd = self.model.hidden_cached(self.last_n.clone(), &segments, &mut self.cache);
        let rows: Vec<usize> = (0..n_slots).collect();
        let logits_nw = self.model.next_logits(hidden_nd, &rows, &self.cache);
        self.draw(logits_nw, slots)
    }

    /// Draws a token in every slot, and takes it over in those where it is wanted.
    fn draw(&mut self, logits_nw: Tensor<2>, slots: Vec<usize>) -> Draws {
        let spec = match self.slots.config.decoding {
            Decoding::Greedy => None,
            Decoding::Sample(sampling) => Some(Sampling::draw_spec(&sampling)),
        };
        let uniforms: Vec<f32> = self
            .slots
            .rows
            .iter()
            .zip(&self.n_drawn)
            .map(|(row, n_drawn)| row.as_ref().map_or(0.0, |row| narrow(row.rng.uniform(*n_drawn as u64))))
            .collect();
        let tokens_n2 = drawn(Precision::F32.hold(logits_nw), &uniforms, spec);
        let ids_n = tokens_n2.clone().narrow(1, 0, 1).squeeze_dim::<1>(1).int();
        let n_slots = self.slots.rows.len();
        let is_wanted: Vec<bool> = (0..n_slots).map(|slot| slots.contains(&slot)).collect();
        let is_wanted = Tensor::<1, Bool>::from_data(TensorData::new(is_wanted, [n_slots]), &self.model.device());
        self.last_n = self.last_n.clone().mask_where(is_wanted, ids_n.cast(self.last_n.dtype()));
        slots.iter().for_each(|slot| self.n_drawn[*slot] += 1);
        Draws { tokens_n2, slots }
    }

    /// Reads what was drawn, all of it at once, and gives it to the rows that are not done.
    fn read(&mut self, draws: Vec<Draws>) -> Result<(), GenerateError> {
        let n_slots = self.slots.rows.len();
        let (tokens, wanted): (Vec<Tensor<2>>, Vec<Vec<usize>>) =
            draws.into_iter().map(|Draws { tokens_n2, slots }| (tokens_n2, slots)).unzip();
        let tokens = values(Tensor::cat(tokens, 0));
        for (of_step, slots) in tokens.chunks_exact(2 * n_slots).zip(wanted) {
            for slot in slots {
                let (id, logp) = (of_step[2 * slot] as u32, of_step[2 * slot + 1]);
                let Some(mut row) = self.slots.rows[slot].take() else { continue };
                if self.slots.reason(&row).is_none() {
                    let (index, position) = (row.index, row.token_ids.len());
                    let source = || match logp.is_nan() {
                        true => SamplingError::Logit { id: id as usize, value: logp },
                        false => SamplingError::NothingLeft { n_logits: self.model.vocab_size() },
                    };
                    if !logp.is_finite() {
                        return Err(GenerateError::Sampling { index, position, source: source() });
                    }
                    row.token_ids.push(id);
                    row.logps.push(logp);
                }
                self.slots.rows[slot] = Some(row);
            }
        }
        Ok(())
    }
}

/// A number in [0, 1) that stays below 1 in f32.
fn narrow(uniform: f64) -> f32 {
    const STEPS: f64 = 16_777_216.0;
    ((uniform * STEPS).floor() / STEPS) as f32
}

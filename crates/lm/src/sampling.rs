//! From logits to the next token: which tokens may be drawn, with what probabilities, and the draw itself.
//!
//! Owns the filters (temperature, top_k, top_p, min_p in that order, with the rules of the published processors) and
//! the random stream of a row. Knows nothing of models or batches; nothing is allocated per row once the scratch
//! buffers have grown.

use std::cmp::Ordering;

#[cfg(any(test, feature = "cube"))]
use crate::kernel::DrawSpec;
use crate::kernel::math::{self, vectorized};

/// How tokens are drawn. A filter that is not set is off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    temperature: f64,
    top_k: Option<usize>,
    top_p: Option<f64>,
    min_p: Option<f64>,
}

/// Settings or logits that no token can be drawn from.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum SamplingError {
    #[error("temperature is {0}; a number above 0 is needed")]
    Temperature(f64),
    #[error("top_k is 0; at least 1 token must stay")]
    TopK,
    #[error("top_p is {0}; a number above 0 and at most 1 is needed")]
    TopP(f64),
    #[error("min_p is {0}; a number from 0 to 1 is needed")]
    MinP(f64),
    #[error("logit {id} is {value}; every logit must be finite or minus infinity")]
    Logit { id: usize, value: f32 },
    #[error("all {n_logits} logits are minus infinity; one finite logit is needed")]
    NothingLeft { n_logits: usize },
}

/// A token that may be drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    pub id: u32,
    /// Among the candidates of this step; they sum to 1.
    pub probability: f64,
}

/// Buffers that a filter reuses from row to row.
#[derive(Debug, Default)]
pub struct Scratch {
    scores: Vec<f32>,
    weights: Vec<f32>,
    entries: Vec<Entry>,
    candidates: Vec<Candidate>,
}

/// `weight` is the probability relative to the most likely token: `exp(score - largest score)`.
#[derive(Clone, Copy, Debug)]
struct Entry {
    id: u32,
    score: f32,
    weight: f32,
}

impl Sampling {
    pub fn new(
        temperature: f64,
        top_k: Option<usize>,
        top_p: Option<f64>,
        min_p: Option<f64>,
    ) -> Result<Self, SamplingError> {
        // In f32, as the logits are divided: a positive f64 may round to zero there.
        if !(temperature as f32 > 0.0 && (temperature as f32).is_finite()) {
            return Err(SamplingError::Temperature(temperature));
        }
        if top_k == Some(0) {
            return Err(SamplingError::TopK);
        }
        if let Some(p) = top_p.filter(|p| !(*p > 0.0 && *p <= 1.0)) {
            return Err(SamplingError::TopP(p));
        }
        if let Some(p) = min_p.filter(|p| !(0.0..=1.0).contains(p)) {
            return Err(SamplingError::MinP(p));
        }
        Ok(Self { temperature, top_k, top_p, min_p })
    }

    /// The settings as a device takes them.
    #[cfg(any(test, feature = "cube"))]
    pub(crate) fn draw_spec(&self) -> DrawSpec {
        let Self { temperature, top_k, top_p, min_p } = *self;
        let narrow = |p: Option<f64>| p.map(|p| p as f32);
        DrawSpec { temperature: temperature as f32, top_k, top_p: narrow(top_p), min_p: narrow(min_p) }
    }

    /// The tokens that may be drawn, ascending by id, with their probabilities.
    ///
    /// * temperature: `score = logit / temperature`.
    /// * top_k: scores below the k-th largest are dropped, so entries equal to it all stay.
    /// * top_p: in ascending order, tokens are dropped while the cumulative probability is at most `1 - top_p`. Of equal
    ///   scores at the cut the lower ids stay; the published processors leave that to an unstable sort.
    /// * min_p: probabilities below `min_p` times the largest are dropped.
    ///
    /// Minus infinity is never a candidate. Takes O(vocabulary) time. Source: the processors of transformers.
    pub fn filter<'a>(&self, logits: &[f32], scratch: &'a mut Scratch) -> Result<&'a [Candidate], SamplingError> {
        let Self { temperature, top_k, top_p, min_p } = *self;
        let Scratch { scores, weights, entries, candidates } = scratch;
        score(logits, temperature as f32, scores)?;
        if let Some(k) = top_k.filter(|k| *k < scores.len()) {
            keep_top_k(k, scores, weights);
        }
        let total = weigh(scores, weights);
        match top_p.filter(|p| *p < 1.0) {
            Some(p) => keep_top_p(p, total, scores, weights, entries),
            None => collect(scores, weights, 0.0, entries),
        }
        if let Some(p) = min_p {
            entries.retain(|entry| f64::from(entry.weight) >= p);
        }
        Ok(normalise(entries, candidates))
    }
}

/// The candidate at `uniform` in [0, 1) of the cumulative probability, or `None` without candidates.
pub fn draw(candidates: &[Candidate], uniform: f64) -> Option<Candidate> {
    let total: f64 = candidates.iter().map(|candidate| candidate.probability).sum();
    let mut left = uniform * total;
    for candidate in candidates {
        left -= candidate.probability;
        if left < 0.0 {
            return Some(*candidate);
        }
    }
    // Rounding may leave a crumb after the last candidate; one with probability 0 is still never drawn.
    candidates.iter().rev().find(|candidate| candidate.probability > 0.0).copied()
}

/// The id of the largest logit; of equal ones the lowest.
pub fn greedy(logits: &[f32]) -> Result<u32, SamplingError> {
    let mut best: Option<(u32, f32)> = None;
    for (id, &value) in logits.iter().enumerate() {
        check_logit(id, value)?;
        if value > best.map_or(f32::NEG_INFINITY, |(_, best)| best) {
            best = Some((id as u32, value));
        }
    }
    best.map(|(id, _)| id).ok_or(SamplingError::NothingLeft { n_logits: logits.len() })
}

/// Natural logarithm of the probability of `id` under the unfiltered logits at temperature 1, nats.
pub fn log_probability(logits: &[f32], id: u32) -> f64 {
    let (largest, total) = vectorized(
        #[inline(always)]
        || {
            let largest = math::max(logits);
            (largest, math::sum_of_exp(logits, largest))
        },
    );
    f64::from(logits[id as usize] - largest) - total.ln()
}

/// The random numbers of one row, addressed by position, so that they do not depend on batches or restarts.
///
/// Number `i` is the top 53 bits of `mix(mix(seed) + (i + 1) · 0x9e3779b97f4a7c15)` over 2^53, where `mix` is the
/// finaliser of SplitMix64 (Steele, Lea and Flood 2014): the generator's own stream, read at any place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowRng {
    state: u64,
}

impl RowRng {
    /// Rows should have unrelated seeds, such as digests.
    pub fn new(seed: u64) -> Self {
        Self { state: mix(seed) }
    }

    /// A number in [0, 1); `position` counts the new tokens of the row from 0.
    pub fn uniform(&self, position: u64) -> f64 {
        let counter = position.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mix(self.state.wrapping_add(counter)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn check_logit(id: usize, value: f32) -> Result<(), SamplingError> {
    if value < f32::INFINITY { Ok(()) } else { Err(SamplingError::Logit { id, value }) }
}

/// `logit / temperature`, and that some token can be drawn from the result.
fn score(logits: &[f32], temperature: f32, scores: &mut Vec<f32>) -> Result<(), SamplingError> {
    scores.clear();
    scores.resize(logits.len(), 0.0);
    let (largest, is_sound) = vectorized(
        #[inline(always)]
        || {
            let mut is_sound = true;
            for (score, logit) in scores.iter_mut().zip(logits) {
                is_sound &= *logit < f32::INFINITY;
                *score = logit / temperature;
            }
            (math::max(scores), is_sound)
        },
    );
    if !is_sound {
        for (id, &logit) in logits.iter().enumerate() {
            check_logit(id, logit)?;
        }
    }
    if !largest.is_finite() {
        let top = math::max(logits);
        if top == f32::NEG_INFINITY {
            return Err(SamplingError::NothingLeft { n_logits: logits.len() });
        }
        // A small temperature has taken scores out of range, where they are all the same. Distances decide alone, so
        // they are taken from the largest logit, which is then at 0.
        scores.iter_mut().zip(logits).for_each(|(score, logit)| *score = (logit - top) / temperature);
    }
    Ok(())
}

/// Takes the scores below the k-th largest out of the running.
fn keep_top_k(k: usize, scores: &mut [f32], buffer: &mut Vec<f32>) {
    buffer.clear();
    buffer.extend_from_slice(scores);
    let (_, &mut smallest, _) = buffer.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    for score in scores.iter_mut().filter(|score| **score < smallest) {
        *score = f32::NEG_INFINITY;
    }
}

/// The weight of every score; gives back their sum.
fn weigh(scores: &[f32], weights: &mut Vec<f32>) -> f64 {
    weights.clear();
    weights.extend_from_slice(scores);
    vectorized(
        #[inline(always)]
        || {
            let largest = math::max(scores);
            for weight in weights.iter_mut() {
                *weight = math::exp(*weight - largest);
            }
            math::sum(weights)
        },
    )
}

/// The tokens in the running whose weight is at least `floor`.
fn collect(scores: &[f32], weights: &[f32], floor: f64, entries: &mut Vec<Entry>) {
    entries.clear();
    let rows = scores.iter().zip(weights).enumerate();
    let kept = rows.filter(|(_, (score, weight))| **score > f32::NEG_INFINITY && f64::from(**weight) >= floor);
    entries.extend(kept.map(|(id, (&score, &weight))| Entry { id: id as u32, score, weight }));
}

fn normalise<'a>(entries: &[Entry], candidates: &'a mut Vec<Candidate>) -> &'a [Candidate] {
    let total: f64 = entries.iter().map(|entry| f64::from(entry.weight)).sum();
    let largest = entries.iter().map(|entry| entry.score).fold(f32::NEG_INFINITY, f32::max);
    candidates.clear();
    // The unlikeliest tokens, which f32 cannot tell from nothing, keep their digits too.
    let weight = |entry: &Entry| match entry.weight > 1e-30 {
        true => f64::from(entry.weight),
        false => (f64::from(entry.score) - f64::from(largest)).exp(),
    };
    let probability = |entry: &Entry| weight(entry) / total;
    candidates.extend(entries.iter().map(|entry| Candidate { id: entry.id, probability: probability(entry) }));
    candidates
}

/// Ascending, a token goes while the mass up to and with it is at most `1 - top_p`: descending, it stays while the mass
/// before it is below `top_p`.
fn keep_top_p(top_p: f64, total: f64, scores: &[f32], weights: &[f32], entries: &mut Vec<Entry>) {
    // Tokens this light go whatever their order: all of them together weigh less than what may be dropped. Nearly the
    // whole vocabulary goes here, unsorted.
    let floor = (1.0 - top_p) * total / scores.len() as f64;
    collect(scores, weights, floor, entries);
    let cut = top_p_cut(top_p * total, entries);
    entries.retain(|entry| descending(entry, &cut) != Ordering::Greater);
    entries.sort_unstable_by_key(|entry| entry.id);
}

/// The last token that stays when tokens are taken, heaviest first, until they weigh `left`: looked for by halves, so that
/// no long list is ever sorted. Leaves the entries in another order.
fn top_p_cut(mut left: f64, entries: &mut [Entry]) -> Entry {
    let mut range = 0..entries.len();
    while range.len() > 1 {
        let middle = range.len() / 2;
        let part = &mut entries[range.clone()];
        part.select_nth_unstable_by(middle, descending);
        let upper: f64 = part[..middle].iter().map(|entry| f64::from(entry.weight)).sum();
        if upper < left {
            left -= upper;
            range.start += middle;
        } else {
            range.end = range.start + middle;
        }
    }
    entries[range.start]
}

/// Larger scores first, of equal ones the lower id.
fn descending(a: &Entry, b: &Entry) -> Ordering {
    b.score.total_cmp(&a.score).then(a.id.cmp(&b.id))
}

#[cfg(test)]
mod tests;

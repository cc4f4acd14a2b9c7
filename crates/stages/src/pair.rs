//! `pair`: of each prompt's scored responses, the best and the worst become a pair, or a rule says why not. It owns the
//! rules and their order, and refuses to know how scores came about.
//!
//! One pass over the rows keeps, for each prompt, where its best and its worst response are; a second pass over the
//! prompts applies the rules. No row is copied before it is chosen.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use arrow::array::RecordBatch;
use sluice_spec::stage::pair::{Choose, Identical, Pair, Ties};
use sluice_table::{
    DropRule, Dropped, DroppedBuilder, DroppedRow, PairRow, Pairs, PairsBuilder, Scores, Split, Vocabulary,
};

use crate::{Produced, Progress, StageContext, StageError};

/// Rows of a batch of the output.
const BATCH_ROWS: usize = 8192;
/// Rows an error names before it only counts.
const NAMED_ROWS: usize = 5;

/// Scores that give no pairs.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    #[error("there are no scores to pair")]
    NoScores,
    #[error("all {n_prompts} prompts dropped: {}; {hint}", counts.join(", "))]
    AllDropped { n_prompts: usize, counts: Vec<String>, hint: &'static str },
}

/// What `pair` makes of some scores.
#[derive(Debug)]
pub struct Selection {
    pub pairs: Vec<RecordBatch>,
    pub dropped: Vec<RecordBatch>,
    pub counts: Counts,
}

/// How many there were of everything.
#[derive(Debug, Clone, PartialEq)]
pub struct Counts {
    pub n_responses: usize,
    pub n_prompts: usize,
    pub n_pairs: usize,
    /// Responses that are no candidates, because their score is NaN or infinite.
    pub not_finite: NotFinite,
    /// Prompts dropped by each rule, in the order of `DropRule::ALL`.
    pub dropped: Vec<(DropRule, usize)>,
    /// Mean of chosen minus rejected score, 0 without pairs.
    pub mean_margin: f64,
    /// Mean tokens of the chosen responses, 0 without pairs.
    pub mean_chosen_tokens: f64,
    /// Mean tokens of the rejected responses, 0 without pairs.
    pub mean_rejected_tokens: f64,
}

pub fn run(params: &Pair, context: &StageContext<'_>) -> Result<Produced, StageError> {
    let batches = context.table("scores")?;
    let scores = batches
        .iter()
        .map(Scores::view)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| StageError::InputTable { role: "scores".to_owned(), source })?;
    context.stop_if_cancelled()?;
    let Selection { pairs, dropped, counts } = select(params, &scores)?;
    if let Some(warning) = counts.not_finite.warning(counts.n_responses) {
        context.warn(warning);
    }
    context.report(Progress::rows(counts.n_responses as u64, Some(counts.n_responses as u64)));
    let outputs = vec![
        context.write_table(Pairs::NAME, Pairs::schema(), pairs.into_iter().map(Ok))?,
        context.write_table(Dropped::NAME, Dropped::schema(), dropped.into_iter().map(Ok))?,
    ];
    Ok(Produced::new(outputs).with_metrics(counts.metrics().iter().map(|(name, value)| (name.as_str(), *value))))
}

/// Pairs the rows of some score tables, taken together. Prompts come in the order of their first row.
///
/// A response whose score is NaN or infinite is no candidate; the others of its prompt still are.
///
/// # Errors
/// No rows, or no pair at the end.
pub fn select(params: &Pair, scores: &[Scores]) -> Result<Selection, PairError> {
    let Pair { scores: _, choose, ties, identical, min_margin } = params;
    let Choose::BestWorst = choose.value;
    let rules = Rules { ties: ties.value, identical: identical.value, min_margin: min_margin.value.get() };

    let (candidates, not_finite) = gather(scores)?;
    let mut pairs = Batched { builder: PairsBuilder::new(), batches: Vec::new() };
    let mut dropped = DroppedBuilder::new();
    let mut tally = Tally::default();
    for prompt in &candidates {
        match rules.verdict(prompt, scores) {
            Some(rule) => {
                let (view, row) = prompt.best.of(scores);
                dropped.push(DroppedRow {
                    prompt_id: view.prompt_id(row),
                    prompt: view.prompt(row),
                    rule,
                    n_candidates: prompt.n_candidates + prompt.n_not_finite,
                });
                tally.drop(rule);
            }
            None => tally.keep(pairs.push(prompt, scores)),
        }
    }

    let counts = tally.counts(scores, candidates.len(), not_finite);
    if counts.n_pairs == 0 {
        return Err(counts.all_dropped());
    }
    Ok(Selection { pairs: pairs.finish(), dropped: vec![dropped.finish()], counts })
}

/// A row of one of several tables.
#[derive(Debug, Clone, Copy)]
struct Row {
    table: usize,
    row: usize,
}

impl Row {
    fn of(self, scores: &[Scores]) -> (&Scores, usize) {
        (&scores[self.table], self.row)
    }

    fn text(self, scores: &[Scores]) -> &str {
        scores[self.table].response(self.row)
    }
}

/// The candidates of one prompt, as far as choosing needs them.
#[derive(Debug, Clone)]
struct Candidates {
    n_candidates: u32,
    /// Responses beside them whose score is no number one can compare. Without candidates `best` and `worst` are one of
    /// these.
    n_not_finite: u32,
    best: Row,
    worst: Row,
    best_rank: (f32, u32),
    worst_rank: (f32, u32),
    /// Every response so far has the same text.
    all_identical: bool,
    heldout: bool,
}

/// Finds the best and the worst response of each prompt, and those that cannot be compared.
fn gather(scores: &[Scores]) -> Result<(Vec<Candidates>, NotFinite), PairError> {
    let mut prompts: Vec<Candidates> = Vec::new();
    let mut by_id: HashMap<&str, usize> = HashMap::new();
    let mut not_finite = NotFinite::default();
    let mut last: Option<(&str, usize)> = None;
    for (table, view) in scores.iter().enumerate() {
        for row in 0..view.len() {
            let (id, score, index) = (view.prompt_id(row), view.score(row), view.sample_index(row));
            if !score.is_finite() {
                not_finite.add(view, row);
            }
            let here = Row { table, row };
            // The responses of a prompt usually follow each other, and then no hash is needed.
            let known = match last {
                Some((last_id, prompt)) if last_id == id => Some(prompt),
                _ => match by_id.entry(id) {
                    Entry::Occupied(entry) => Some(*entry.get()),
                    Entry::Vacant(entry) => {
                        entry.insert(prompts.len());
                        None
                    }
                },
            };
            let prompt = known.unwrap_or(prompts.len());
            last = Some((id, prompt));
            match known {
                Some(prompt) if score.is_finite() => prompts[prompt].add(here, (score, index), scores),
                Some(prompt) => prompts[prompt].n_not_finite += 1,
                None => prompts.push(Candidates::first(here, (score, index), view.split(row) == Split::Heldout)),
            }
        }
    }
    if prompts.is_empty() { Err(PairError::NoScores) } else { Ok((prompts, not_finite)) }
}

impl Candidates {
    fn first(row: Row, rank: (f32, u32), heldout: bool) -> Self {
        let n_candidates = u32::from(rank.0.is_finite());
        Self {
            n_candidates,
            n_not_finite: 1 - n_candidates,
            best: row,
            worst: row,
            best_rank: rank,
            worst_rank: rank,
            all_identical: true,
            heldout,
        }
    }

    /// Among equal scores the lowest sample index counts, for the best and for the worst: so the choice does not depend
    /// on the order of rows, and is that of an argmax and an argmin over the samples.
    fn add(&mut self, row: Row, rank: (f32, u32), scores: &[Scores]) {
        if self.n_candidates == 0 {
            *self = Self { n_not_finite: self.n_not_finite, ..Self::first(row, rank, self.heldout) };
            return;
        }
        self.n_candidates += 1;
        self.all_identical = self.all_identical && self.best.text(scores) == row.text(scores);
        let (score, index) = rank;
        if score > self.best_rank.0 || (score == self.best_rank.0 && index < self.best_rank.1) {
            (self.best, self.best_rank) = (row, rank);
        }
        if score < self.worst_rank.0 || (score == self.worst_rank.0 && index < self.worst_rank.1) {
            (self.worst, self.worst_rank) = (row, rank);
        }
    }

    fn margin(&self) -> f32 {
        self.best_rank.0 - self.worst_rank.0
    }
}

/// The rules of the stage.
struct Rules {
    ties: Ties,
    identical: Identical,
    min_margin: f64,
}

impl Rules {
    /// The rule that drops a prompt, if any; the first that applies counts.
    fn verdict(&self, prompt: &Candidates, scores: &[Scores]) -> Option<DropRule> {
        let drop_identical = self.identical == Identical::Drop;
        let is_tie = prompt.margin() == 0.0;
        if prompt.heldout {
            Some(DropRule::Heldout)
        } else if prompt.n_candidates < 2 && prompt.n_not_finite > 0 {
            Some(DropRule::NotFinite)
        } else if prompt.n_candidates < 2 {
            Some(DropRule::SingleCandidate)
        } else if drop_identical && prompt.all_identical {
            Some(DropRule::Identical)
        } else if is_tie && self.ties == Ties::Drop {
            Some(DropRule::Tie)
        } else if drop_identical && prompt.best.text(scores) == prompt.worst.text(scores) {
            Some(DropRule::Identical)
        } else if f64::from(prompt.margin()) < self.min_margin {
            Some(DropRule::MinMargin)
        } else {
            None
        }
    }
}

/// Responses whose score is no number one can compare.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NotFinite {
    pub n_rows: usize,
    /// The first of them.
    rows: Vec<String>,
}

impl NotFinite {
    fn add(&mut self, view: &Scores, row: usize) {
        self.n_rows += 1;
        if self.rows.len() < NAMED_ROWS {
            let id = view.prompt_id(row);
            let (index, score) = (view.sample_index(row), view.score(row));
            self.rows.push(format!("prompt {} sample {index} has {score}", id.get(..8).unwrap_or(id)));
        }
    }

    /// What a user should hear of them, if there are any.
    pub fn warning(&self, n_total: usize) -> Option<String> {
        let Self { n_rows, rows } = self;
        let more = if rows.len() < *n_rows { ", ..." } else { "" };
        (*n_rows > 0).then(|| {
            format!(
                "{n_rows} of {n_total} scores are not finite, and their responses are left out: {}{more}",
                rows.join(", ")
            )
        })
    }
}

/// A pairs table that grows batch by batch.
struct Batched {
    builder: PairsBuilder,
    batches: Vec<RecordBatch>,
}

/// What the metrics need of a pair.
struct PairFacts {
    margin: f32,
    chosen_tokens: u32,
    rejected_tokens: u32,
}

impl Batched {
    fn push(&mut self, prompt: &Candidates, scores: &[Scores]) -> PairFacts {
        let ((chosen, c), (rejected, r)) = (prompt.best.of(scores), prompt.worst.of(scores));
        let margin = prompt.margin();
        let (chosen_tokens, rejected_tokens) = (chosen.n_tokens(c), rejected.n_tokens(r));
        self.builder.push(PairRow {
            pair_id: &pair_id(chosen.prompt_id(c), chosen.response(c), rejected.response(r)),
            prompt_id: chosen.prompt_id(c),
            prompt: chosen.prompt(c),
            reference: chosen.reference(c),
            group: chosen.group(c),
            chosen: chosen.response(c),
            rejected: rejected.response(r),
            chosen_index: chosen.sample_index(c),
            rejected_index: rejected.sample_index(r),
            chosen_score: chosen.score(c),
            rejected_score: rejected.score(r),
            margin,
            n_candidates: prompt.n_candidates,
            chosen_tokens,
            rejected_tokens,
            policy_digest: &joined(chosen.policy_digest(c), rejected.policy_digest(r)),
            reward_model_digest: &joined(chosen.reward_model_digest(c), rejected.reward_model_digest(r)),
        });
        if self.builder.len() == BATCH_ROWS {
            self.batches.push(self.builder.finish());
        }
        PairFacts { margin, chosen_tokens, rejected_tokens }
    }

    fn finish(mut self) -> Vec<RecordBatch> {
        if !self.builder.is_empty() {
            self.batches.push(self.builder.finish());
        }
        self.batches
    }
}

/// The digest of one model, or both where the two responses come from different ones: then it equals neither, and
/// whoever asks whether the pair is that model's own gets the right answer.
fn joined<'d>(one: &'d str, other: &'d str) -> std::borrow::Cow<'d, str> {
    if one == other { one.into() } else { format!("{one}+{other}").into() }
}

/// BLAKE3 over prompt id and both texts, each with its length before it; the first 128 bits in hex.
fn pair_id(prompt_id: &str, chosen: &str, rejected: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [prompt_id, chosen, rejected] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

/// Sums while prompts are judged.
#[derive(Default)]
struct Tally {
    n_pairs: usize,
    dropped: HashMap<DropRule, usize>,
    margin: f64,
    chosen_tokens: f64,
    rejected_tokens: f64,
}

impl Tally {
    fn drop(&mut self, rule: DropRule) {
        *self.dropped.entry(rule).or_default() += 1;
    }

    fn keep(&mut self, pair: PairFacts) {
        self.n_pairs += 1;
        self.margin += f64::from(pair.margin);
        self.chosen_tokens += f64::from(pair.chosen_tokens);
        self.rejected_tokens += f64::from(pair.rejected_tokens);
    }

    fn counts(&self, scores: &[Scores], n_prompts: usize, not_finite: NotFinite) -> Counts {
        let mean = |sum: f64| {
            if self.n_pairs == 0 { 0.0 } else { sum / self.n_pairs as f64 }
        };
        Counts {
            n_responses: scores.iter().map(Scores::len).sum(),
            n_prompts,
            n_pairs: self.n_pairs,
            not_finite,
            dropped: DropRule::ALL.iter().map(|rule| (*rule, self.dropped.get(rule).copied().unwrap_or(0))).collect(),
            mean_margin: mean(self.margin),
            mean_chosen_tokens: mean(self.chosen_tokens),
            mean_rejected_tokens: mean(self.rejected_tokens),
        }
    }
}

impl Counts {
    fn metrics(&self) -> Vec<(String, f64)> {
        let whole = |n: usize| n as f64;
        let dropped = self.dropped.iter().map(|(rule, n)| (format!("dropped_{rule}"), whole(*n)));
        let others = [
            ("responses", whole(self.n_responses)),
            ("prompts", whole(self.n_prompts)),
            ("pairs", whole(self.n_pairs)),
            ("not_finite", whole(self.not_finite.n_rows)),
            ("dropped", whole(self.n_prompts - self.n_pairs)),
            ("mean_margin", self.mean_margin),
            ("mean_chosen_tokens", self.mean_chosen_tokens),
            ("mean_rejected_tokens", self.mean_rejected_tokens),
        ];
        others.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(dropped).collect()
    }

    fn all_dropped(&self) -> PairError {
        let counts: Vec<(DropRule, usize)> = self.dropped.iter().copied().filter(|(_, n)| *n > 0).collect();
        let hint = match counts.iter().max_by_key(|(_, n)| *n).map(|(rule, _)| rule) {
            Some(DropRule::Identical) => "sample at a higher temperature, or set `identical: keep`",
            Some(DropRule::Tie) => "look at the scores, or set `ties: first`",
            Some(DropRule::MinMargin) => "lower `min_margin`",
            Some(DropRule::SingleCandidate) => "sample with `n: 2` or more",
            Some(DropRule::Heldout) => "sample with `split: train`",
            Some(DropRule::NotFinite) => "look at the reward model, or at the query that made the scores",
            None => "look at the scores",
        };
        let counts = counts.into_iter().map(|(rule, n)| format!("{n} {rule}")).collect();
        PairError::AllDropped { n_prompts: self.n_prompts, counts, hint }
    }
}

//! `score`: a reward model reads each response and gives it a number. It owns how rows are batched and what is counted
//! of the scores, and refuses to know how a conversation is judged.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatch;
use sluice_lm::checkpoint::{Checkpoint, CheckpointError};
use sluice_lm::packed::Family;
use sluice_lm::reward::{self, Reward, RewardModel, ScoreError};
use sluice_spec::stage::score::{HeadDtype, Score};
use sluice_store::{ModelDigest, RowKey};
use sluice_table::{Named, ResponseRow, Responses, ScoreRow, Scores, ScoresBuilder};
use sluice_train::order::{by_length, micro_batches};

use crate::chat::conversation_ids;
use crate::ledger::{self, Bytes, Ledger, Stored, write_list};
use crate::model::Judge;
use crate::prompts::views;
use crate::row_key::ScoreKeys;
use crate::{Done, Produced, Progress, Reading, RowCount, StageContext, StageError};

/// Rows of a batch of the output.
const BATCH_ROWS: usize = 8192;

/// Responses that could not be scored. `row` names a row by its prompt and its sample.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    #[error("there are no responses to score")]
    NoResponses,
    #[error("write {row} in tokens")]
    Encode { row: String, source: CheckpointError },
    #[error(
        "{n_rows} of {n_total} conversations are longer than the reward model's context of {max} tokens, the longest being \
         {longest} with {n_tokens}; lower `max_new_tokens` where they are sampled, or leave long prompts out where they \
         are ingested"
    )]
    TooLong { n_rows: usize, n_total: usize, longest: String, n_tokens: usize, max: usize },
    #[error("read the names of the reward model's objectives in {}", folder.display())]
    Names { folder: PathBuf, source: CheckpointError },
    #[error("score {row}")]
    Score { row: String, source: ScoreError },
}

/// A prompt and an answer to be judged.
#[derive(Clone, Copy, Debug)]
pub struct Conversation<'a> {
    pub prompt_id: &'a str,
    pub sample_index: u32,
    pub prompt: &'a str,
    pub response: &'a str,
}

pub fn run(params: &Score, context: &StageContext<'_>) -> Result<Produced, StageError> {
    let Score { responses: _, model: _, head_dtype, max_batch_tokens } = params;
    let batches = context.table("responses")?;
    let tables = views("responses", &batches, Responses::view)?;
    let rows: Vec<ResponseRow<'_>> = tables.iter().flat_map(Responses::rows).collect();
    if rows.is_empty() {
        return Err(JudgeError::NoResponses.into());
    }
    let conversations: Vec<Conversation<'_>> = rows.iter().map(Conversation::of).collect();
    let mut progress = Progress::rows(0, Some(rows.len() as u64));
    let max_tokens = max_batch_tokens.value.get() as usize;
    let (rewards, count, done) = judge(context, "model", &conversations, head_dtype.value, max_tokens, &mut progress)?;

    let (folder, digest) = context.model("model")?;
    let unnamed = |source| JudgeError::Names { folder: folder.to_owned(), source };
    let names = &Checkpoint::open_without_weights(folder).map_err(unnamed)?.config.labels;
    let digest = digest.to_string();
    let parts = rows.chunks(BATCH_ROWS).zip(rewards.chunks(BATCH_ROWS));
    let output = context.write_table(
        Scores::NAME,
        Scores::schema(),
        parts.map(|(rows, rewards)| Ok(batch(rows, rewards, names, &digest))),
    )?;
    let mut produced = Produced::new(vec![output]).with_metrics(metrics(&conversations, &rewards));
    produced.facts.insert("reward_model_digest".to_owned(), digest);
    produced.n_rows_reused = count.n_known;
    produced.done = Some(done);
    Ok(produced)
}

/// How many of the scores are known: none of a model that is not there yet. `None` without responses.
pub fn count_rows(params: &Score, reading: Reading<'_>) -> Result<Option<RowCount>, StageError> {
    if !reading.has("responses") {
        return Ok(None);
    }
    let batches = reading.table("responses")?;
    let tables = views("responses", &batches, Responses::view)?;
    let conversations: Vec<Conversation<'_>> =
        tables.iter().flat_map(Responses::rows).map(|row| Conversation::of(&row)).collect();
    if !reading.has("model") {
        return Ok(Some(RowCount { n_rows: conversations.len() as u64, n_known: 0 }));
    }
    let (_, digest) = reading.model("model")?;
    let (keys, rows) = keys(digest, params.head_dtype.value, &conversations);
    ledger::count(reading.store, keys.scope(reading.device), &rows).map(Some)
}

/// The rewards of conversations, in their order: those the judge has given before, in whichever stage, and those it gives
/// now; how many were known, and what the others took. It reads at most `max_tokens` tokens together, and is loaded when there is something to read.
pub fn judge(
    context: &StageContext<'_>,
    role: &str,
    conversations: &[Conversation<'_>],
    head: HeadDtype,
    max_tokens: usize,
    progress: &mut Progress,
) -> Result<(Vec<Reward>, RowCount, Done), StageError> {
    let (_, digest) = context.model(role)?;
    let (keys, rows) = keys(digest, head, conversations);
    let mut ledger = Ledger::open(context, keys.scope(context.device), rows)?;
    let count = ledger.count();
    progress.done += count.n_known;
    context.report(*progress);
    let missing = ledger.missing();
    let mut done = Done::default();
    if !missing.is_empty() {
        let unread: Vec<Conversation<'_>> = missing.iter().map(|row| conversations[*row]).collect();
        let mut n_read = 0;
        let mut on_batch = |Scored { rows, rewards, n_tokens }: Scored<'_>| {
            for (row, reward) in rows.iter().zip(rewards) {
                ledger.put(missing[*row], reward.clone(), (context.clock)());
            }
            progress.done += rows.len() as u64;
            progress.n_tokens += n_tokens as u64;
            n_read += n_tokens as u64;
            context.report(*progress);
        };
        let judge = Judge::load(context, role)?;
        let started = (context.clock)();
        judge.score_all(&unread, head, max_tokens, context.cancel, &mut on_batch)?;
        // What is said twice is read once, and counts twice: so it does where somebody counts rows beforehand.
        done = Done { n: count.n_rows - count.n_known, n_tokens: n_read, seconds: (context.clock)() - started };
    }
    // What was said twice was read once.
    progress.done += count.n_rows - count.n_known - missing.len() as u64;
    context.report(*progress);
    Ok((ledger.finish((context.clock)())?, count, done))
}

fn keys(judge: ModelDigest, head: HeadDtype, conversations: &[Conversation<'_>]) -> (ScoreKeys, Vec<RowKey>) {
    let keys = ScoreKeys::new(head, judge);
    let rows = conversations.iter().map(|one| keys.key(one.prompt, one.response)).collect();
    (keys, rows)
}

impl<'a> Conversation<'a> {
    fn of(row: &ResponseRow<'a>) -> Self {
        Self { prompt_id: row.prompt_id, sample_index: row.sample_index, prompt: row.prompt, response: row.response }
    }

    fn name(&self) -> String {
        format!("answer {} to prompt {}", self.sample_index, self.prompt_id)
    }
}

/// Conversations that were scored together.
pub struct Scored<'a> {
    /// Which they are.
    pub rows: &'a [usize],
    /// One for each of them.
    pub rewards: &'a [Reward],
    pub n_tokens: usize,
}

/// Scores conversations, given as token ids, in batches of at most `max_tokens` tokens, long ones first, and gives the
/// rewards in the order of the conversations. `on_batch` is told of each batch when it is done.
///
/// `None` when `cancel` was set before the end.
pub fn score_in_batches(
    model: &RewardModel,
    mut conversations: Vec<Vec<u32>>,
    head: reward::HeadDtype,
    max_tokens: usize,
    cancel: &AtomicBool,
    on_batch: &mut dyn FnMut(Scored<'_>),
) -> Result<Option<Vec<Reward>>, ScoreError> {
    let families = model.families(&conversations, max_tokens);
    let mut rewards: Vec<Option<Reward>> = vec![None; conversations.len()];
    for rows in batches(&conversations, &families, max_tokens) {
        if cancel.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let batch: Vec<Vec<u32>> = rows.iter().map(|row| std::mem::take(&mut conversations[*row])).collect();
        let scored = model.score(&batch, head).map_err(|mut error| {
            let index = index_mut(&mut error);
            *index = rows[*index];
            error
        })?;
        on_batch(Scored { rows: &rows, rewards: &scored, n_tokens: batch.iter().map(Vec::len).sum() });
        rows.into_iter().zip(scored).for_each(|(row, reward)| rewards[row] = Some(reward));
    }
    Ok(Some(rewards.into_iter().map(|reward| reward.expect("every row is in one batch")).collect()))
}

/// The rows of each batch: families by their longest conversation, long ones first, none of them in two batches.
fn batches(conversations: &[Vec<u32>], families: &[Family], max_tokens: usize) -> Vec<Vec<usize>> {
    let longest = |family: usize| families[family].sequences().map(|row| conversations[row].len()).max().unwrap_or(0);
    let n_tokens = |family: usize| families[family].n_tokens;
    let batches = micro_batches(&by_length(families.len(), &longest), &n_tokens, max_tokens);
    batches.iter().map(|batch| batch.iter().flat_map(|family| families[*family].sequences()).collect()).collect()
}

impl Judge {
    /// Scores conversations as [`score_in_batches`] does.
    pub fn score_all(
        &self,
        conversations: &[Conversation<'_>],
        head: HeadDtype,
        max_tokens: usize,
        cancel: &AtomicBool,
        on_batch: &mut dyn FnMut(Scored<'_>),
    ) -> Result<Vec<Reward>, StageError> {
        let head = match head {
            HeadDtype::F32 => reward::HeadDtype::F32,
            HeadDtype::Bf16 => reward::HeadDtype::Bf16,
        };
        let ids = self.encode(conversations)?;
        self.expect_room(conversations, &ids)?;
        let rewards =
            score_in_batches(&self.model, ids, head, max_tokens, cancel, on_batch).map_err(|mut source| {
                let row = conversations[*index_mut(&mut source)].name();
                JudgeError::Score { row, source }
            })?;
        rewards.ok_or(StageError::Cancelled)
    }

    /// Tells of everything that is too long before anything is scored.
    fn expect_room(&self, conversations: &[Conversation<'_>], ids: &[Vec<u32>]) -> Result<(), JudgeError> {
        let max = self.model.max_positions();
        let too_long = || conversations.iter().zip(ids).filter(|(_, ids)| ids.len() > max);
        match too_long().max_by_key(|(_, ids)| ids.len()) {
            None => Ok(()),
            Some((longest, ids)) => Err(JudgeError::TooLong {
                n_rows: too_long().count(),
                n_total: conversations.len(),
                longest: longest.name(),
                n_tokens: ids.len(),
                max,
            }),
        }
    }

    fn encode(&self, conversations: &[Conversation<'_>]) -> Result<Vec<Vec<u32>>, JudgeError> {
        let encode = |conversation: &Conversation<'_>| {
            conversation_ids(&self.checkpoint, conversation.prompt, conversation.response)
                .map_err(|source| JudgeError::Encode { row: conversation.name(), source })
        };
        conversations.iter().map(encode).collect()
    }
}

/// Which conversation an error speaks of.
fn index_mut(error: &mut ScoreError) -> &mut usize {
    match error {
        ScoreError::Empty { index }
        | ScoreError::TooLong { index, .. }
        | ScoreError::NoAssistantTurn { index, .. }
        | ScoreError::NotFinite { index, .. } => index,
    }
}

impl Stored for Reward {
    fn write(&self, bytes: &mut Vec<u8>) {
        let Self { score, rewards, gating } = self;
        bytes.extend(score.to_le_bytes());
        write_list(bytes, rewards, f32::to_le_bytes);
        write_list(bytes, gating, f32::to_le_bytes);
    }

    fn read(bytes: &mut Bytes<'_>) -> Option<Self> {
        let (score, rewards) = (bytes.f32()?, bytes.list(f32::from_le_bytes)?);
        Some(Self { score, rewards, gating: bytes.list(f32::from_le_bytes)? })
    }
}

fn batch(rows: &[ResponseRow<'_>], rewards: &[Reward], names: &[String], digest: &str) -> RecordBatch {
    let mut builder = ScoresBuilder::new();
    for (row, Reward { score, rewards, gating }) in rows.iter().zip(rewards) {
        let ResponseRow {
            response_id,
            prompt_id,
            prompt,
            reference,
            group,
            split,
            sample_index,
            response,
            token_ids: _,
            n_prompt_tokens,
            n_tokens,
            logp_sum,
            finish_reason,
            seed,
            policy_digest,
        } = *row;
        builder.push(ScoreRow {
            response_id,
            prompt_id,
            prompt,
            reference,
            group,
            split,
            sample_index,
            response,
            n_prompt_tokens,
            n_tokens,
            logp_sum,
            finish_reason,
            seed,
            policy_digest,
            score: *score,
            rewards: Named::new(names, rewards),
            gating: Named::new(names, gating),
            reward_model_digest: digest,
        });
    }
    builder.finish()
}

/// Rewards are not empty: no responses are refused before the judge is loaded.
fn metrics(conversations: &[Conversation<'_>], rewards: &[Reward]) -> [(&'static str, f64); 5] {
    let mut ranges: HashMap<&str, (f32, f32)> = HashMap::new();
    for (conversation, reward) in conversations.iter().zip(rewards) {
        let (low, high) = ranges.entry(conversation.prompt_id).or_insert((reward.score, reward.score));
        (*low, *high) = (low.min(reward.score), high.max(reward.score));
    }
    // By id, so that the sum does not depend on the order of a hash.
    let spreads: BTreeMap<&str, f64> = ranges.iter().map(|(id, (low, high))| (*id, f64::from(high - low))).collect();
    let n_tied = spreads.values().filter(|spread| **spread == 0.0).count();
    let (n_rows, n_prompts) = (rewards.len() as f64, spreads.len() as f64);
    [
        ("responses", n_rows),
        ("prompts", n_prompts),
        ("mean_score", rewards.iter().map(|reward| f64::from(reward.score)).sum::<f64>() / n_rows),
        ("mean_spread", spreads.values().sum::<f64>() / n_prompts),
        ("tied_share", n_tied as f64 / n_prompts),
    ]
}

#[cfg(test)]
mod tests {
    use sluice_lm::packed::Packed;
    use sluice_lm::reward::SHARED;

    use super::*;

    /// Prompts of 100 to 195 tokens with five answers of 20 to 180 each, their rows mixed.
    fn conversations() -> (Vec<Vec<u32>>, Vec<u32>) {
        let rows = (0..200u32).map(|row| {
            let (prompt, answer) = (row % 40, row / 40);
            let of_prompt = (0..100 + prompt * 39 % 96).map(|i| 1000 + prompt + i % 7);
            let of_answer = (0..20 + (prompt * 7 + answer * 37) % 161).map(|i| 10 + answer + i % 3);
            (of_prompt.chain(of_answer).collect(), prompt)
        });
        rows.unzip()
    }

    /// What is read of batches, as a GPU reads them.
    fn n_read(conversations: &[Vec<u32>], batches: &[Vec<usize>]) -> usize {
        let of_batch = |rows: &Vec<usize>| {
            let batch: Vec<&[u32]> = rows.iter().map(|row| conversations[*row].as_slice()).collect();
            Packed::families(&batch, &Family::alike(&batch, SHARED, usize::MAX)).n_tokens()
        };
        batches.iter().map(of_batch).sum()
    }

    #[test]
    fn answers_to_one_prompt_are_read_in_one_batch() {
        const MAX_TOKENS: usize = 4096;
        let (conversations, prompts) = conversations();
        let by_row = batches(&conversations, &Family::singles(&conversations), MAX_TOKENS);
        let families = Family::alike(&conversations, SHARED, MAX_TOKENS);
        let by_prompt = batches(&conversations, &families, MAX_TOKENS);
        let mut batches_of_prompt: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (number, rows) in by_prompt.iter().enumerate() {
            assert!(n_read(&conversations, std::slice::from_ref(rows)) <= MAX_TOKENS);
            rows.iter().for_each(|row| batches_of_prompt.entry(prompts[*row]).or_default().push(number));
        }
        assert_eq!(batches_of_prompt.len(), 40);
        assert!(
            batches_of_prompt.values().all(|batches| batches.len() == 5 && batches.windows(2).all(|w| w[0] == w[1]))
        );
        let n_tokens: usize = conversations.iter().map(Vec::len).sum();
        // Tokens, how many of them are read in batches by length and by prompt, and how many batches there are.
        let figures = (
            n_tokens,
            n_read(&conversations, &by_row),
            n_read(&conversations, &by_prompt),
            by_row.len(),
            by_prompt.len(),
        );
        assert_eq!(figures, (48_756, 48_055, 25_508, 13, 7));
    }

    /// A row is a batch's as before where nothing is shared: cut by length.
    #[test]
    fn conversations_that_are_read_whole_are_cut_by_length() {
        let conversations: Vec<Vec<u32>> = [3, 5, 4, 5].map(|n| vec![7; n]).into();
        assert_eq!(batches(&conversations, &Family::singles(&conversations), 9), [vec![1], vec![3, 2], vec![0]]);
    }
}

//! `sample`: the policy answers each prompt n times. It owns the rows of `responses` and what is counted of them, and
//! refuses to know how tokens are drawn.

use std::collections::HashSet;

use sluice_spec::stage::sample::Sample;
use sluice_table::{FinishReason, PromptRow, Prompts, ResponseRow, Responses, ResponsesBuilder};

use crate::answers::{Answer, Manner, ask, count};
use crate::prompts::{select, texts, views};
use crate::row_key::AnswerKeys;
use crate::{Produced, Progress, Reading, RowCount, StageContext, StageError};

/// Prompts whose answers make a batch of the output.
const BATCH_PROMPTS: usize = 4096;

pub fn run(params: &Sample, context: &StageContext<'_>) -> Result<Produced, StageError> {
    let Sample { prompts: _, model: _, selection, n, decoding, max_batch } = params;
    let batches = context.table("prompts")?;
    let tables = views("prompts", &batches, Prompts::view)?;
    let rows = select(&tables, selection)?;
    let (_, policy) = context.model("model")?;
    let n_each = n.value.get() as usize;
    let mut progress = Progress::rows(0, Some((rows.len() * n_each) as u64));
    let manner = Manner { decoding, n: n.value, max_batch: max_batch.value };
    let (answers, count, done) = ask(context, "model", &texts(&rows), &[manner], &mut progress)?;
    let answers: Vec<Answer> = answers.into_iter().flatten().collect();

    let writer = Writer { keys: AnswerKeys::new(decoding, policy), policy: policy.to_string(), n_each };
    let parts = rows.chunks(BATCH_PROMPTS).zip(answers.chunks(BATCH_PROMPTS * n_each));
    let output = context.write_table(
        Responses::NAME,
        Responses::schema(),
        parts.map(|(rows, answers)| Ok(writer.batch(rows, answers))),
    )?;
    let mut produced = Produced::new(vec![output]).with_metrics(metrics(&answers, n_each));
    produced.facts.insert("policy_digest".to_owned(), policy.to_string());
    produced.n_rows_reused = count.n_known;
    produced.done = Some(done);
    Ok(produced)
}

/// How many of the responses are known. `None` without prompts.
pub fn count_rows(params: &Sample, reading: Reading<'_>) -> Result<Option<RowCount>, StageError> {
    if !reading.has("prompts") {
        return Ok(None);
    }
    let batches = reading.table("prompts")?;
    let tables = views("prompts", &batches, Prompts::view)?;
    let rows = select(&tables, &params.selection)?;
    let manner = Manner { decoding: &params.decoding, n: params.n.value, max_batch: params.max_batch.value };
    count(reading, "model", &texts(&rows), &[manner]).map(Some)
}

/// What all rows share.
struct Writer {
    keys: AnswerKeys,
    policy: String,
    n_each: usize,
}

impl Writer {
    fn batch(&self, rows: &[PromptRow<'_>], answers: &[Answer]) -> arrow::array::RecordBatch {
        let mut builder = ResponsesBuilder::new();
        for (prompt, answers) in rows.iter().zip(answers.chunks(self.n_each)) {
            for (sample_index, answer) in (0u32..).zip(answers) {
                let Answer { text, token_ids, n_prompt_tokens, logp_sum, finish_reason, seed } = answer;
                builder.push(ResponseRow {
                    response_id: &self.keys.key(prompt.prompt, sample_index).to_string(),
                    prompt_id: prompt.prompt_id,
                    prompt: prompt.prompt,
                    reference: prompt.reference,
                    group: prompt.group,
                    split: prompt.split,
                    sample_index,
                    response: text,
                    token_ids,
                    n_prompt_tokens: *n_prompt_tokens,
                    n_tokens: token_ids.len() as u32,
                    logp_sum: *logp_sum,
                    finish_reason: *finish_reason,
                    seed: *seed,
                    policy_digest: &self.policy,
                });
            }
        }
        builder.finish()
    }
}

/// Answers are not empty: a policy with no prompts is refused before it is asked.
fn metrics(answers: &[Answer], n_each: usize) -> [(&'static str, f64); 7] {
    let n_responses = answers.len() as f64;
    let n_tokens: usize = answers.iter().map(|answer| answer.token_ids.len()).sum();
    let n_finished = answers.iter().filter(|answer| answer.finish_reason == FinishReason::Stop).count();
    let distinct = |answers: &[Answer]| answers.iter().map(|answer| &answer.text).collect::<HashSet<_>>().len();
    let n_distinct: usize = answers.chunks(n_each).map(distinct).sum();
    let logp: f64 = answers.iter().map(|answer| f64::from(answer.logp_sum)).sum();
    [
        ("prompts", (answers.len() / n_each) as f64),
        ("responses", n_responses),
        ("tokens", n_tokens as f64),
        ("mean_tokens", n_tokens as f64 / n_responses),
        ("mean_token_logp", logp / n_tokens as f64),
        ("finished_share", n_finished as f64 / n_responses),
        ("unique_share", n_distinct as f64 / n_responses),
    ]
}

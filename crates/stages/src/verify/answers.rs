//! Responses made again: the same tokens from the same seeds, and their log-probability.

use std::collections::BTreeMap;

use sluice_spec::stage::sample::Sample;
use sluice_table::{ResponseRow, Responses};
use sluice_train::batch::Sequence;
use sluice_train::logps::all_sequence_logps;

use super::{Compared, Likeness, Recheck, Tolerance, Verified};
use crate::answers::{Answer, Manner, Prompt, again, encoded};
use crate::model::Policy;
use crate::prompts::views;
use crate::row_key::AnswerKeys;
use crate::{Progress, StageContext, StageError};

/// Tokens that are read together where an answer is only read.
const READ_TOKENS: usize = 8192;

pub fn verify(params: &Sample, context: &StageContext<'_>, recheck: Recheck<'_>) -> Result<Verified, StageError> {
    let Sample { prompts: _, model: _, selection: _, n, decoding, max_batch } = params;
    let batches = super::stored_table(context, &recheck, 0)?;
    let tables = views(Responses::NAME, &batches, Responses::view)?;
    let rows: Vec<ResponseRow<'_>> = super::picked(tables.iter().flat_map(Responses::rows), recheck.rows);
    let policy = Policy::load(context, "model")?;
    let asked: Vec<(Prompt<'_>, u32)> =
        rows.iter().map(|row| (Prompt { id: row.prompt_id, text: row.prompt }, row.sample_index)).collect();
    let manner = Manner { decoding, n: n.value, max_batch: max_batch.value };
    let mut progress = Progress::rows(0, Some(rows.len() as u64));
    let answers = again(context, &policy, &asked, &manner, &mut progress)?;

    let tolerance = Tolerance::of(&recheck);
    let mut verified = Verified::new("rows", tolerance_text(tolerance, recheck.is_foreign));
    let keys = AnswerKeys::new(decoding, policy.digest);
    let digest = policy.digest.to_string();
    let mut parted: BTreeMap<usize, Compared> = BTreeMap::new();
    let mut compared = Vec::with_capacity(rows.len());
    for (at, (row, answer)) in rows.iter().zip(&answers).enumerate() {
        let whole = if row.response_id != keys.key(row.prompt, row.sample_index).to_string() {
            Compared::different("its id is not the one its prompt and parameters give".to_owned())
        } else if row.policy_digest != digest {
            Compared::different(format!("its policy is {}, and the model is {digest}", row.policy_digest))
        } else {
            compare(row, answer, tolerance)
        };
        // In other arithmetic a draw goes another way sooner or later; what was drawn must still be as likely as it says.
        if recheck.is_foreign && whole.likeness == Likeness::Different && row.token_ids != answer.token_ids {
            parted.insert(at, whole.clone());
        }
        compared.push(whole);
    }
    let places: Vec<usize> = parted.keys().copied().collect();
    let likely = read(context, &policy, params, &places.iter().map(|at| rows[*at]).collect::<Vec<_>>())?;
    for (at, logp) in places.into_iter().zip(likely) {
        compared[at] = Compared::numbers("log-probability of what was drawn,", rows[at].logp_sum, logp, tolerance);
        if compared[at].likeness == Likeness::Exact {
            compared[at] = Compared {
                likeness: Likeness::Near,
                what: "drawn otherwise now, as likely".to_owned(),
                deviation: 0.0,
            };
        }
    }
    for (row, compared) in rows.iter().zip(compared) {
        verified.count(compared, || format!("answer {} to prompt {}", row.sample_index, row.prompt_id));
    }
    Ok(verified)
}

fn tolerance_text(tolerance: Tolerance, is_foreign: bool) -> String {
    let text = tolerance.text("the same text, its log-probability");
    match is_foreign {
        false => text,
        true => format!("{text}; or another draw, and the stored one as likely as it says by the same measure"),
    }
}

fn compare(row: &ResponseRow<'_>, answer: &Answer, tolerance: Tolerance) -> Compared {
    let Answer { text, token_ids, n_prompt_tokens, logp_sum, finish_reason, seed } = answer;
    if row.seed != *seed {
        return Compared::different(format!("seed {} is {seed} now", row.seed));
    }
    if row.n_prompt_tokens != *n_prompt_tokens {
        return Compared::different(format!("{} tokens of the prompt are {n_prompt_tokens} now", row.n_prompt_tokens));
    }
    let logp = Compared::numbers("logp_sum", row.logp_sum, *logp_sum, tolerance);
    if row.token_ids == token_ids.as_slice() && row.response == text && row.finish_reason == *finish_reason {
        return logp;
    }
    if row.response == text && logp.likeness != Likeness::Different {
        return Compared { likeness: Likeness::Near, what: "the same text of other tokens".to_owned(), ..logp };
    }
    let at = row.token_ids.iter().zip(token_ids).position(|(stored, now)| stored != now);
    let at = at.unwrap_or(row.token_ids.len().min(token_ids.len()));
    let token = |ids: &[u32]| ids.get(at).map_or("the end".to_owned(), u32::to_string);
    let (stored, now) = (token(row.token_ids), token(token_ids));
    Compared::different(format!("token {at} of {} is {stored}, and {now} now", row.token_ids.len()))
}

/// The log-probabilities of stored answers, read and not drawn.
fn read(
    context: &StageContext<'_>,
    policy: &Policy,
    params: &Sample,
    rows: &[ResponseRow<'_>],
) -> Result<Vec<f32>, StageError> {
    let mut sequences = Vec::with_capacity(rows.len());
    for row in rows {
        let prompt = encoded(policy, Prompt { id: row.prompt_id, text: row.prompt }, &params.decoding)?;
        sequences.push(Sequence::new(&prompt, row.token_ids));
    }
    let sequences: Vec<&Sequence> = sequences.iter().collect();
    let sums = all_sequence_logps(&policy.model, &sequences, READ_TOKENS, context.cancel);
    Ok(sums.ok_or(StageError::Cancelled)?.into_iter().map(|sum| sum as f32).collect())
}

//! Comparisons made again: both answers, what the judge says of those that are stored, and all that follows from them.

use std::collections::HashMap;

use sluice_eval::{Bootstrap, Confidence, Outcome};
use sluice_spec::stage::evaluate::Evaluate;
use sluice_spec::stage::score::HeadDtype;
use sluice_store::table_digest;
use sluice_table::{ComparisonRow, Comparisons, FinishReason, MetricRow, Metrics, PromptRow, Split};

use super::{Compared, Likeness, Recheck, Tolerance, Verified};
use crate::answers::{Answer, Prompt, again};
use crate::evaluate::{self, JUDGE_BATCH_TOKENS, Round, Side, checked, measured, measuring, rounds};
use crate::model::{Judge, Policy};
use crate::prompts::views;
use crate::score::Conversation;
use crate::{Progress, StageContext, StageError};

pub fn verify(params: &Evaluate, context: &StageContext<'_>, recheck: Recheck<'_>) -> Result<Verified, StageError> {
    let batches = super::stored_table(context, &recheck, 0)?;
    let tables = views(Comparisons::NAME, &batches, Comparisons::view)?;
    let all: Vec<ComparisonRow<'_>> = tables.iter().flat_map(Comparisons::rows).collect();
    let rows: Vec<ComparisonRow<'_>> = super::picked(all.iter().copied(), recheck.rows);
    let rounds = rounds(&params.answers);
    let n_sides = if params.judge.is_some() { 4 } else { 2 };
    let mut progress = Progress::rows(0, Some(n_sides * rows.len() as u64));

    let tolerance = Tolerance::of(&recheck);
    let mut compared = vec![Compared::exact(); rows.len()];
    for role in ["candidate", "baseline"] {
        let answers = answers(params, context, role, &rounds, &rows, &mut progress)?;
        for ((compared, row), answer) in compared.iter_mut().zip(&rows).zip(answers) {
            let side = stored(row, role);
            *compared = compared.clone().worse(compare(role, side, &answer, recheck.is_foreign));
        }
    }
    if params.judge.is_some() {
        let scores = scores(context, &rows, &mut progress)?;
        for ((compared, row), (candidate, baseline)) in compared.iter_mut().zip(&rows).zip(scores) {
            for (role, now) in [("candidate", candidate), ("baseline", baseline)] {
                let one = match stored(row, role).score {
                    Some(score) => Compared::numbers(&format!("score of the {role}'s answer,"), score, now, tolerance),
                    None => Compared::different(format!("the {role}'s answer has no score")),
                };
                *compared = compared.clone().worse(one);
            }
        }
    }
    let mut verified = Verified::new("rows", tolerance_text(tolerance, recheck.is_foreign));
    for (row, compared) in rows.iter().zip(compared) {
        let name = || format!("{} answer {} to prompt {}", row.decoding, row.sample_index, row.prompt_id);
        verified.count(compared.worse(follows(params, row)), name);
    }
    metrics(params, context, &recheck, &all, &mut verified)?;
    Ok(verified)
}

fn tolerance_text(tolerance: Tolerance, is_foreign: bool) -> String {
    let text = tolerance.text("the same answers, the judge's scores of them");
    if is_foreign { format!("{text}; or another draw, and the scores of the stored ones") } else { text }
}

/// One side of a stored comparison.
#[derive(Clone, Copy)]
struct StoredSide<'a> {
    text: &'a str,
    score: Option<f32>,
    exact: Option<bool>,
    finished: bool,
    n_tokens: u32,
}

fn stored<'a>(row: &ComparisonRow<'a>, role: &str) -> StoredSide<'a> {
    match role {
        "candidate" => StoredSide {
            text: row.candidate,
            score: row.candidate_score,
            exact: row.candidate_exact,
            finished: row.candidate_finished,
            n_tokens: row.candidate_tokens,
        },
        _ => StoredSide {
            text: row.baseline,
            score: row.baseline_score,
            exact: row.baseline_exact,
            finished: row.baseline_finished,
            n_tokens: row.baseline_tokens,
        },
    }
}

/// The answers of one side, in the order of the rows.
fn answers(
    params: &Evaluate,
    context: &StageContext<'_>,
    role: &str,
    rounds: &[Round],
    rows: &[ComparisonRow<'_>],
    progress: &mut Progress,
) -> Result<Vec<Answer>, StageError> {
    let policy = Policy::load(context, role)?;
    let mut answers: Vec<Option<Answer>> = vec![None; rows.len()];
    for round in rounds {
        let places: Vec<usize> = (0..rows.len()).filter(|at| rows[*at].decoding == round.decoding).collect();
        let prompt = |at: &usize| (Prompt { id: rows[*at].prompt_id, text: rows[*at].prompt }, rows[*at].sample_index);
        let asked: Vec<(Prompt<'_>, u32)> = places.iter().map(prompt).collect();
        let made = again(context, &policy, &asked, &round.manner(params.max_batch.value), progress)?;
        places.into_iter().zip(made).for_each(|(at, answer)| answers[at] = Some(answer));
    }
    // A decoding that the parameters do not have was not asked for.
    let none = Answer {
        text: String::new(),
        token_ids: Vec::new(),
        n_prompt_tokens: 0,
        logp_sum: 0.0,
        finish_reason: FinishReason::Length,
        seed: 0,
    };
    Ok(answers.into_iter().map(|answer| answer.unwrap_or_else(|| none.clone())).collect())
}

fn compare(role: &str, stored: StoredSide<'_>, now: &Answer, is_foreign: bool) -> Compared {
    let finished = now.finish_reason == FinishReason::Stop;
    let n_tokens = now.token_ids.len() as u32;
    if (stored.text, stored.n_tokens, stored.finished) == (now.text.as_str(), n_tokens, finished) {
        return Compared::exact();
    }
    let what = format!("the {role}'s answer of {} tokens is another one of {n_tokens} now", stored.n_tokens);
    match is_foreign {
        // Tokens and log-probabilities of these answers are not stored; that they are scored as before is what is left.
        true => Compared { likeness: Likeness::Near, what, deviation: 0.0 },
        false => Compared::different(what),
    }
}

/// What the judge says of the stored answers.
fn scores(
    context: &StageContext<'_>,
    rows: &[ComparisonRow<'_>],
    progress: &mut Progress,
) -> Result<Vec<(f32, f32)>, StageError> {
    let mut places: HashMap<(&str, &str), usize> = HashMap::new();
    let mut conversations = Vec::new();
    for row in rows {
        for response in [row.candidate, row.baseline] {
            places.entry((row.prompt, response)).or_insert_with(|| {
                let (prompt_id, sample_index, prompt) = (row.prompt_id, row.sample_index, row.prompt);
                conversations.push(Conversation { prompt_id, sample_index, prompt, response });
                conversations.len() - 1
            });
        }
    }
    let judge = Judge::load(context, "judge")?;
    let rewards = super::scores::again(context, &judge, &conversations, HeadDtype::F32, JUDGE_BATCH_TOKENS, progress)?;
    let score = |row: &ComparisonRow<'_>, response| rewards[places[&(row.prompt, response)]].score;
    Ok(rows.iter().map(|row| (score(row, row.candidate), score(row, row.baseline))).collect())
}

/// Who won and what the checker says follow from what is stored, to the bit.
fn follows(params: &Evaluate, row: &ComparisonRow<'_>) -> Compared {
    let outcome =
        row.candidate_score.zip(row.baseline_score).and_then(|(candidate, baseline)| Outcome::of(candidate, baseline));
    let outcome = outcome.map(|outcome| outcome.points() as f32);
    if row.outcome != outcome {
        let text = |outcome: Option<f32>| outcome.map_or("none".to_owned(), |outcome| outcome.to_string());
        return Compared::different(format!("outcome {} is {} now", text(row.outcome), text(outcome)));
    }
    for role in ["candidate", "baseline"] {
        let side = stored(row, role);
        let exact = checked(params.check.value, side.text, side.finished, row.reference);
        if side.exact != exact {
            return Compared::different(format!("the checker says otherwise of the {role}'s answer now"));
        }
    }
    Compared::exact()
}

/// The metrics are a function of the comparisons: each that is not the same is told.
fn metrics(
    params: &Evaluate,
    context: &StageContext<'_>,
    recheck: &Recheck<'_>,
    rows: &[ComparisonRow<'_>],
    verified: &mut Verified,
) -> Result<(), StageError> {
    let answer = |side: StoredSide<'_>| Answer {
        text: side.text.to_owned(),
        token_ids: vec![0; side.n_tokens as usize],
        n_prompt_tokens: 0,
        logp_sum: 0.0,
        finish_reason: if side.finished { FinishReason::Stop } else { FinishReason::Length },
        seed: 0,
    };
    let answers: Vec<[Answer; 2]> =
        rows.iter().map(|row| ["candidate", "baseline"].map(|role| answer(stored(row, role)))).collect();
    let compared: Vec<evaluate::Compared<'_>> = rows
        .iter()
        .zip(&answers)
        .map(|(row, [candidate, baseline])| {
            let side = |role, answer| {
                let StoredSide { score, exact, .. } = stored(row, role);
                Side { answer, score, exact }
            };
            evaluate::Compared {
                prompt: PromptRow {
                    prompt_id: row.prompt_id,
                    prompt: row.prompt,
                    reference: row.reference,
                    group: row.group,
                    split: Split::Heldout,
                    source: "",
                    source_row: 0,
                    response: None,
                    label: None,
                },
                decoding: row.decoding,
                sample_index: row.sample_index,
                candidate: side("candidate", candidate),
                baseline: side("baseline", baseline),
                outcome: row.outcome.map(f64::from),
            }
        })
        .collect();
    let bootstrap = Bootstrap {
        confidence: Confidence::new(params.confidence.get()).map_err(|source| measuring("confidence", source))?,
        resamples: params.resamples.get(),
        seed: params.answers.seed.get(),
    };
    let now = measured(&compared, &bootstrap)?;
    let batches = super::stored_table(context, recheck, 1)?;
    let failed = |source| StageError::ReadStored { output: Metrics::NAME.to_owned(), source };
    let digest = |batches: &[arrow::array::RecordBatch]| table_digest(&Metrics::schema(), batches).map_err(failed);
    if digest(&batches)? == digest(std::slice::from_ref(&now))? {
        return Ok(());
    }
    let tables = views(Metrics::NAME, &batches, Metrics::view)?;
    let now = views(Metrics::NAME, std::slice::from_ref(&now), Metrics::view)?;
    let (stored, now): (Vec<MetricRow<'_>>, Vec<MetricRow<'_>>) =
        (tables.iter().flat_map(Metrics::rows).collect(), now.iter().flat_map(Metrics::rows).collect());
    if stored.len() != now.len() {
        let what = format!("there are {} metrics, and {} now", stored.len(), now.len());
        verified.count(Compared::different(what), || "metrics".to_owned());
        return Ok(());
    }
    for (stored, now) in stored.iter().zip(&now) {
        let is_same = (stored.metric, stored.decoding, stored.group) == (now.metric, now.decoding, now.group)
            && stored.value.to_bits() == now.value.to_bits()
            && (stored.low, stored.high, stored.n) == (now.low, now.high, now.n);
        if !is_same {
            let what = format!("{} is {} now", stored.value, now.value);
            let of = stored.decoding.map_or(String::new(), |decoding| format!(", {decoding}"));
            let group = stored.group.map_or(String::new(), |group| format!(", group `{group}`"));
            verified.count(Compared::different(what), || format!("metric {}{of}{group}", stored.metric));
        }
    }
    Ok(())
}

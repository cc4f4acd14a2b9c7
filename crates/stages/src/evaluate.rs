//! `evaluate`: candidate and baseline answer the same prompts with the same seeds; a checker and a judge compare them. It
//! owns how answers are paired, and refuses to know how they are made, judged or summed up.
//!
//! One model is in memory at a time: the candidate answers everything, then the baseline, then the judge reads both.

mod measures;

use std::collections::HashMap;

use arrow::array::RecordBatch;
use sluice_eval::{Bootstrap, Check, Confidence, EvalError, Outcome};
use sluice_spec::stage::evaluate::{self, Answers, Evaluate};
use sluice_spec::stage::sample::Bos;
use sluice_spec::stage::score::HeadDtype;
use sluice_table::{
    ComparisonRow, Comparisons, ComparisonsBuilder, Decoding, FinishReason, Metrics, PromptRow, Prompts,
};

use crate::answers::{Answer, Manner, Prompt, answer, decoding};
use crate::model::{Judge, Policy};
use crate::prompts::{select, views};
use crate::score::Conversation;
use crate::{Produced, Progress, StageContext, StageError};

/// Tokens the judge reads together.
const JUDGE_BATCH_TOKENS: usize = 8192;

/// Comparisons that could not be counted.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    #[error("measure `{metric}`")]
    Measure { metric: String, source: EvalError },
}

/// Both answers to one prompt under one decoding, and what was found of them.
#[derive(Clone, Copy, Debug)]
pub struct Compared<'a> {
    pub prompt: PromptRow<'a>,
    pub decoding: Decoding,
    pub sample_index: u32,
    pub candidate: Side<'a>,
    pub baseline: Side<'a>,
    /// 1 the candidate wins, ½ tie, 0 it loses; `None` without a judge.
    pub outcome: Option<f64>,
}

/// One answer.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    pub answer: &'a Answer,
    /// `None` without a judge.
    pub score: Option<f32>,
    /// `None` without a reference or a check.
    pub exact: Option<bool>,
}

pub fn run(params: &Evaluate, context: &StageContext<'_>) -> Result<Produced, StageError> {
    let Evaluate {
        prompts: _,
        candidate: _,
        baseline: _,
        judge,
        selection,
        answers,
        check,
        confidence,
        resamples,
        max_batch,
    } = params;
    let batches = context.table("prompts")?;
    let tables = views("prompts", &batches, Prompts::view)?;
    let rows = select(&tables, selection)?;
    let asked = asked(answers, max_batch.value)?;
    let n_answers: usize = asked.iter().map(|(_, manner)| manner.n.get() as usize * rows.len()).sum();
    let n_passes = if judge.is_some() { 4 } else { 2 };
    let mut progress = Progress::rows(0, Some((n_passes * n_answers) as u64));
    context.report(progress);

    let mut ask = |role: &str| ask(role, &rows, &asked, context, &mut progress);
    let (candidate, baseline) = (ask("candidate")?, ask("baseline")?);
    let mut compared = compare(&rows, &asked, [&candidate, &baseline], rule(check.value));
    if judge.is_some() {
        score(&mut compared, context, &mut progress)?;
    }

    let bootstrap = Bootstrap {
        confidence: Confidence::new(confidence.get()).map_err(|source| measuring("confidence", source))?,
        resamples: resamples.get(),
        seed: answers.seed.get(),
    };
    let measures = measures::all(&compared, &bootstrap)?;
    let outputs = vec![
        context.write_table(Comparisons::NAME, Comparisons::schema(), [Ok(table(&compared))])?,
        context.write_table(Metrics::NAME, Metrics::schema(), [Ok(measures::table(&measures))])?,
    ];
    let mut produced = Produced::new(outputs);
    produced.metrics = measures::summary(&measures);
    produced.metrics.insert("prompts".to_owned(), rows.len() as f64);
    for role in ["candidate", "baseline"] {
        produced.facts.insert(format!("{role}_digest"), context.model(role)?.1.to_string());
    }
    Ok(produced)
}

/// The decodings both sides answer under.
fn asked(answers: &Answers, max_batch: sluice_spec::Count) -> Result<Vec<(Decoding, Manner<'static>)>, StageError> {
    let Answers { n, temperature, top_p, greedy, max_new_tokens, seed } = answers;
    let manner = |decoding, n| Manner {
        decoding,
        n,
        max_new_tokens: max_new_tokens.value,
        stop: &[],
        bos: Bos::Single,
        seed: seed.value.get(),
        max_batch,
    };
    let sampled = decoding(temperature.value, None, Some(top_p.value), None)?;
    let mut asked = vec![(Decoding::Sampled, manner(sampled, n.value))];
    if let (true, Some(one)) = (greedy.value, sluice_spec::Samples::new(1)) {
        asked.insert(0, (Decoding::Greedy, manner(sluice_lm::generate::Decoding::Greedy, one)));
    }
    Ok(asked)
}

/// The answers of the policy of a role, by decoding. The policy is gone from memory afterwards.
fn ask(
    role: &str,
    rows: &[PromptRow<'_>],
    asked: &[(Decoding, Manner<'_>)],
    context: &StageContext<'_>,
    progress: &mut Progress,
) -> Result<Vec<Vec<Answer>>, StageError> {
    let policy = Policy::load(context, role)?;
    let prompts: Vec<Prompt<'_>> = rows.iter().map(|row| Prompt { id: row.prompt_id, text: row.prompt }).collect();
    let mut on_answer = |n_tokens: usize| {
        progress.done += 1;
        progress.n_tokens += n_tokens as u64;
        context.report(*progress);
    };
    let answers = asked.iter().map(|(_, manner)| answer(&policy, &prompts, manner, context.cancel, &mut on_answer));
    answers.collect()
}

/// Puts the two answers to each prompt side by side: prompt by prompt, within it by decoding and sample.
fn compare<'a>(
    rows: &[PromptRow<'a>],
    asked: &[(Decoding, Manner<'_>)],
    [candidate, baseline]: [&'a [Vec<Answer>]; 2],
    check: Option<Check>,
) -> Vec<Compared<'a>> {
    let mut compared = Vec::new();
    for (at, prompt) in rows.iter().enumerate() {
        // An answer that never ended has not said what it means.
        let exact = |answer: &Answer| {
            let (check, reference) = (check?, prompt.reference?);
            Some(answer.finish_reason == FinishReason::Stop && check.agrees(&answer.text, reference))
        };
        let side = |answer: &'a Answer| Side { answer, score: None, exact: exact(answer) };
        for (place, (decoding, manner)) in asked.iter().enumerate() {
            let n_each = manner.n.get() as usize;
            let of_prompt = at * n_each..(at + 1) * n_each;
            let pairs = candidate[place][of_prompt.clone()].iter().zip(&baseline[place][of_prompt]);
            compared.extend((0u32..).zip(pairs).map(|(sample_index, (candidate, baseline))| Compared {
                prompt: *prompt,
                decoding: *decoding,
                sample_index,
                candidate: side(candidate),
                baseline: side(baseline),
                outcome: None,
            }));
        }
    }
    compared
}

/// Lets the judge read every distinct answer once, so that equal answers have equal scores.
fn score(compared: &mut [Compared<'_>], context: &StageContext<'_>, progress: &mut Progress) -> Result<(), StageError> {
    let judge = Judge::load(context, "judge")?;
    let mut places: HashMap<(&str, &str), usize> = HashMap::new();
    let mut conversations: Vec<Conversation<'_>> = Vec::new();
    for row in compared.iter() {
        for side in [&row.candidate, &row.baseline] {
            let key = (row.prompt.prompt_id, side.answer.text.as_str());
            places.entry(key).or_insert_with(|| {
                conversations.push(Conversation {
                    prompt_id: row.prompt.prompt_id,
                    sample_index: row.sample_index,
                    prompt: row.prompt.prompt,
                    response: &side.answer.text,
                });
                conversations.len() - 1
            });
        }
    }
    let (head, cancel) = (HeadDtype::F32, context.cancel);
    let rewards = judge.score_all(&conversations, head, JUDGE_BATCH_TOKENS, cancel, &mut |n_rows, n_tokens| {
        progress.done += n_rows as u64;
        progress.n_tokens += n_tokens as u64;
        context.report(*progress);
    })?;
    for row in compared {
        let score = |side: &Side<'_>| rewards[places[&(row.prompt.prompt_id, side.answer.text.as_str())]].score;
        let (candidate, baseline) = (score(&row.candidate), score(&row.baseline));
        (row.candidate.score, row.baseline.score) = (Some(candidate), Some(baseline));
        row.outcome = Outcome::of(candidate, baseline).map(Outcome::points);
    }
    progress.done = progress.total.unwrap_or(progress.done);
    context.report(*progress);
    Ok(())
}

fn rule(check: evaluate::Check) -> Option<Check> {
    match check {
        evaluate::Check::Exact => Some(Check::Exact),
        evaluate::Check::LastSentence => Some(Check::LastSentence),
        evaluate::Check::Number => Some(Check::Number),
        evaluate::Check::None => None,
    }
}

fn measuring(metric: &str, source: EvalError) -> EvaluateError {
    EvaluateError::Measure { metric: metric.to_owned(), source }
}

fn table(compared: &[Compared<'_>]) -> RecordBatch {
    let mut builder = ComparisonsBuilder::new();
    for Compared { prompt, decoding, sample_index, candidate, baseline, outcome } in compared {
        let n_tokens = |side: &Side<'_>| side.answer.token_ids.len() as u32;
        builder.push(ComparisonRow {
            prompt_id: prompt.prompt_id,
            prompt: prompt.prompt,
            reference: prompt.reference,
            group: prompt.group,
            decoding: *decoding,
            sample_index: *sample_index,
            candidate: &candidate.answer.text,
            baseline: &baseline.answer.text,
            candidate_score: candidate.score,
            baseline_score: baseline.score,
            outcome: outcome.map(|outcome| outcome as f32),
            candidate_exact: candidate.exact,
            baseline_exact: baseline.exact,
            candidate_finished: candidate.finished(),
            baseline_finished: baseline.finished(),
            candidate_tokens: n_tokens(candidate),
            baseline_tokens: n_tokens(baseline),
        });
    }
    builder.finish()
}

impl Side<'_> {
    /// Whether the answer ended by itself.
    pub fn finished(&self) -> bool {
        self.answer.finish_reason == FinishReason::Stop
    }
}

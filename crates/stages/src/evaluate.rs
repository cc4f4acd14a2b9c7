//! `evaluate`: candidate and baseline answer the same prompts with the same seeds; a checker and a judge compare them. It
//! owns how answers are paired, and refuses to know how they are made, judged or summed up.
//!
//! One model is in memory at a time: the candidate answers everything, then the baseline, then the judge reads both.

mod measures;

use std::collections::HashMap;

use arrow::array::RecordBatch;
use sluice_eval::{Bootstrap, Check, Confidence, EvalError, Outcome};
use sluice_spec::stage::evaluate::{self, Answers, Evaluate};
use sluice_spec::stage::sample::{self, Bos};
use sluice_spec::stage::score::HeadDtype;
use sluice_spec::{Count, Located, Samples, Temperature};
use sluice_table::{
    ComparisonRow, Comparisons, ComparisonsBuilder, Decoding, FinishReason, Metrics, PromptRow, Prompts,
};

use crate::answers::{Answer, Manner, ask, count};
use crate::prompts::{select, texts, views};
use crate::score::{Conversation, judge};
use crate::{Done, Produced, Progress, Reading, RowCount, StageContext, StageError};

/// Tokens the judge reads together.
pub const JUDGE_BATCH_TOKENS: usize = 8192;

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
    let rounds = rounds(answers);
    let manners: Vec<Manner<'_>> = rounds.iter().map(|round| round.manner(max_batch.value)).collect();
    let n_answers: usize = rounds.iter().map(|round| round.n.get() as usize * rows.len()).sum();
    let n_passes = if judge.is_some() { 4 } else { 2 };
    let mut progress = Progress::rows(0, Some((n_passes * n_answers) as u64));

    let prompts = texts(&rows);
    let mut ask = |role: &str| ask(context, role, &prompts, &manners, &mut progress);
    let (candidate, of_candidate, mut done) = ask("candidate")?;
    let (baseline, of_baseline, done_by_baseline) = ask("baseline")?;
    done += done_by_baseline;
    let mut compared = compare(&rows, &rounds, [&candidate, &baseline], check.value);
    if judge.is_some() {
        // An answer is the unit; what it takes to judge it is part of what it takes.
        done += Done { n: 0, ..score(&mut compared, context, &mut progress)? };
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
    produced.done = Some(done);
    produced.n_rows_reused = of_candidate.n_known + of_baseline.n_known;
    for role in ["candidate", "baseline"] {
        produced.facts.insert(format!("{role}_digest"), context.model(role)?.1.to_string());
    }
    Ok(produced)
}

/// How many of the answers of both sides are known. What the judge says of them is not counted. `None` without prompts.
pub fn count_rows(params: &Evaluate, reading: Reading<'_>) -> Result<Option<RowCount>, StageError> {
    if !reading.has("prompts") {
        return Ok(None);
    }
    let batches = reading.table("prompts")?;
    let tables = views("prompts", &batches, Prompts::view)?;
    let prompts = texts(&select(&tables, &params.selection)?);
    let rounds = rounds(&params.answers);
    let manners: Vec<Manner<'_>> = rounds.iter().map(|round| round.manner(params.max_batch.value)).collect();
    let counts = ["candidate", "baseline"].into_iter().map(|role| count(reading, role, &prompts, &manners));
    counts.sum::<Result<RowCount, _>>().map(Some)
}

/// One of the decodings both sides answer under.
pub struct Round {
    pub decoding: Decoding,
    drawing: sample::Decoding,
    n: Samples,
}

impl Round {
    pub fn manner(&self, max_batch: Count) -> Manner<'_> {
        Manner { decoding: &self.drawing, n: self.n, max_batch }
    }
}

/// The decodings, in the order of the comparisons.
pub fn rounds(answers: &Answers) -> Vec<Round> {
    let Answers { n, temperature, top_p, greedy, max_new_tokens, seed } = answers;
    let drawing = |temperature, top_p| sample::Decoding {
        temperature: Located::default_of(temperature),
        top_k: Located::default_of(None),
        top_p: Located::default_of(top_p),
        min_p: Located::default_of(None),
        max_new_tokens: *max_new_tokens,
        stop: Located::default_of(Vec::new()),
        bos: Located::default_of(Bos::Single),
        seed: *seed,
    };
    let drawn = drawing(temperature.value, Some(top_p.value));
    let mut rounds = vec![Round { decoding: Decoding::Sampled, drawing: drawn, n: n.value }];
    if let (true, Some(zero), Some(one)) = (greedy.value, Temperature::new(0.0), Samples::new(1)) {
        rounds.insert(0, Round { decoding: Decoding::Greedy, drawing: drawing(zero, None), n: one });
    }
    rounds
}

/// Puts the two answers to each prompt side by side: prompt by prompt, within it by decoding and sample.
fn compare<'a>(
    rows: &[PromptRow<'a>],
    rounds: &[Round],
    [candidate, baseline]: [&'a [Vec<Answer>]; 2],
    check: evaluate::Check,
) -> Vec<Compared<'a>> {
    let mut compared = Vec::new();
    for (at, prompt) in rows.iter().enumerate() {
        let exact = |answer: &Answer| {
            checked(check, &answer.text, answer.finish_reason == FinishReason::Stop, prompt.reference)
        };
        let side = |answer: &'a Answer| Side { answer, score: None, exact: exact(answer) };
        for (place, round) in rounds.iter().enumerate() {
            let n_each = round.n.get() as usize;
            let of_prompt = at * n_each..(at + 1) * n_each;
            let pairs = candidate[place][of_prompt.clone()].iter().zip(&baseline[place][of_prompt]);
            compared.extend((0u32..).zip(pairs).map(|(sample_index, (candidate, baseline))| Compared {
                prompt: *prompt,
                decoding: round.decoding,
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
fn score(
    compared: &mut [Compared<'_>],
    context: &StageContext<'_>,
    progress: &mut Progress,
) -> Result<Done, StageError> {
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
    let (rewards, _, done) = judge(context, "judge", &conversations, HeadDtype::F32, JUDGE_BATCH_TOKENS, progress)?;
    for row in compared {
        let score = |side: &Side<'_>| rewards[places[&(row.prompt.prompt_id, side.answer.text.as_str())]].score;
        let (candidate, baseline) = (score(&row.candidate), score(&row.baseline));
        (row.candidate.score, row.baseline.score) = (Some(candidate), Some(baseline));
        row.outcome = Outcome::of(candidate, baseline).map(Outcome::points);
    }
    progress.done = progress.total.unwrap_or(progress.done);
    context.report(*progress);
    Ok(done)
}

/// What the checker says of an answer; `None` without a reference or a check. One that never ended has not said what it
/// means.
pub fn checked(check: evaluate::Check, text: &str, finished: bool, reference: Option<&str>) -> Option<bool> {
    let (check, reference) = (rule(check)?, reference?);
    Some(finished && check.agrees(text, reference))
}

/// The table of the measures of comparisons.
pub fn measured(compared: &[Compared<'_>], bootstrap: &Bootstrap) -> Result<RecordBatch, EvaluateError> {
    Ok(measures::table(&measures::all(compared, bootstrap)?))
}

fn rule(check: evaluate::Check) -> Option<Check> {
    match check {
        evaluate::Check::Exact => Some(Check::Exact),
        evaluate::Check::LastSentence => Some(Check::LastSentence),
        evaluate::Check::Number => Some(Check::Number),
        evaluate::Check::None => None,
    }
}

/// The error of a measure that could not be taken.
pub fn measuring(metric: &str, source: EvalError) -> EvaluateError {
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

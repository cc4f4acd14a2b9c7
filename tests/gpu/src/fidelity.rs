//! The models against the outputs of the original Python libraries (tests/fixtures, a README in each folder).
//!
//! Owns the tolerances of inference. In f32 they are those of the READMEs: ten times what f32 differs from f64. With tf32
//! products and in bf16 single values are not comparable between implementations, and means are compared instead: in bf16
//! within twice the mean difference that the reference's own bf16 run has to its f32 run, or that ours has on the CPU where
//! the reference has none; with tf32, whose factors have two more bits, within a quarter of that.

use std::sync::atomic::AtomicBool;

use serde_json::Value;
use sluice_lm::causal::CausalLm;
use sluice_lm::checkpoint::Checkpoint;
use sluice_lm::gemma2::Gemma2;
use sluice_lm::generate::{Completion, Decoding, GenerateConfig, Request, generate};
use sluice_lm::model::{CausalModel, load_causal, load_reward};
use sluice_lm::packed::Packed;
use sluice_lm::reward::{HeadDtype, Reward};
use sluice_lm::weights::values;

use crate::CheckError;
use crate::device::{Arithmetic, Subject};
use crate::fixture::Fixtures;
use crate::verdict::{Finding, attempt, compared, mean};

/// Every comparison of inference.
pub fn findings(subject: &Subject, fixtures: &Fixtures) -> Vec<Finding> {
    let mut found = attempt("gemma2-tiny", || {
        let model = gemma2(subject, fixtures, "gemma2-tiny")?;
        let mut found = every_padding(subject, fixtures, &model)?;
        found.extend(layer_by_layer(subject, fixtures, &model)?);
        found.extend(response_logps(subject, fixtures, &model)?);
        found.extend(generation(subject, fixtures, &model)?);
        Ok(found)
    });
    found.extend(attempt("gemma2-tiny-bf16", || from_bf16_shards(subject, fixtures)));
    for (folder, f32, bf16) in [
        ("llama3-armorm-tiny", 4e-5, 0.032),
        ("reward-seqcls-tiny", 4e-5, 0.11),
        ("reward-seqcls-gemma2-tiny", 3e-4, 0.3),
    ] {
        found.extend(attempt(folder, || rewards(subject, fixtures, folder, [f32, bf16])));
    }
    found
}

fn gemma2(subject: &Subject, fixtures: &Fixtures, folder: &str) -> Result<Gemma2, CheckError> {
    let checkpoint = Checkpoint::open(&fixtures.path(folder))?;
    match load_causal(&checkpoint, &subject.placement)? {
        CausalModel::Gemma2(model) => Ok(model),
        CausalModel::Llama(_) => Err(CheckError::Shape { what: format!("{folder} is a Gemma 2") }),
    }
}

/// Logits of every token, sequence after sequence.
fn logits(model: &impl CausalLm, rows: &[Vec<u32>]) -> Vec<f32> {
    let batch = Packed::new(rows);
    let all: Vec<usize> = (0..batch.n_tokens()).collect();
    values(model.logits(model.hidden(&batch), &all))
}

fn every_padding(subject: &Subject, fixtures: &Fixtures, model: &Gemma2) -> Result<Vec<Finding>, CheckError> {
    let expected = fixtures.tensors("gemma2-tiny/forward.safetensors")?;
    let mut found = Vec::new();
    for (side, ids) in [("right", "right."), ("left", "left."), ("left_positions", "left.")] {
        let rows = expected.token_rows(ids)?;
        let mut want = Vec::new();
        for row in 0..rows.len() {
            want.extend(expected.floats(&format!("{side}.logits.{row}"))?);
        }
        let what = format!("gemma2-tiny, logits, padded {side}");
        found.push(compared(subject.arithmetic, what, &logits(model, &rows), &want, LOGITS));
    }
    Ok(found)
}

const LOGITS: [f64; 2] = [9e-4, 0.42];

fn layer_by_layer(subject: &Subject, fixtures: &Fixtures, model: &Gemma2) -> Result<Vec<Finding>, CheckError> {
    let rows = fixtures.tensors("gemma2-tiny/forward.safetensors")?.token_rows("right.")?;
    let expected = fixtures.tensors("gemma2-tiny/hidden_states.safetensors")?;
    let mut found = Vec::new();
    for (layer, state) in model.hidden_by_layer(&Packed::new(&rows[..1])).into_iter().enumerate() {
        let want = expected.floats(&format!("hidden_states.{layer}"))?;
        let what = format!("gemma2-tiny, hidden states {layer}");
        found.push(compared(subject.arithmetic, what, &values(state), &want, [9e-4, HIDDEN[layer]]));
    }
    Ok(found)
}

/// In bf16, by layer.
const HIDDEN: [f64; 5] = [2.2e-3, 0.054, 0.13, 0.22, 0.46];

fn response_logps(subject: &Subject, fixtures: &Fixtures, model: &Gemma2) -> Result<Vec<Finding>, CheckError> {
    let rows: Vec<Value> = fixtures.json("gemma2-tiny/response_logprobs.json")?;
    let (mut found, mut want) = (Vec::new(), Vec::new());
    for row in &rows {
        let (prompt, response) = (ids(&row["prompt_ids"])?, ids(&row["response_ids"])?);
        found.extend(continued(model, &prompt, &response));
        want.extend(numbers(&row["logprobs"]));
    }
    Ok(vec![compared(subject.arithmetic, "gemma2-tiny, log-probabilities of responses", &found, &want, LOGPS)])
}

const LOGPS: [f64; 2] = [6e-4, 0.5];

/// Log-probabilities of a response after a prompt, read in one pass.
fn continued(model: &impl CausalLm, prompt: &[u32], response: &[u32]) -> Vec<f32> {
    let batch = Packed::new(&[[prompt, response].concat()]);
    let predicted_from: Vec<usize> = (0..response.len()).map(|token| prompt.len() + token - 1).collect();
    values(model.token_logps(model.hidden(&batch), &predicted_from, response))
}

/// Greedy continuations are those of the reference in f32; elsewhere a near tie may fall the other way. Everywhere the
/// log-probabilities that come out of the cache are those of one pass over the same tokens.
fn generation(subject: &Subject, fixtures: &Fixtures, model: &Gemma2) -> Result<Vec<Finding>, CheckError> {
    let cases: Vec<Value> = fixtures.json("gemma2-tiny/greedy.json")?;
    let mut prompts = Vec::new();
    for case in &cases {
        prompts.push(ids(&case["prompt_ids"])?);
    }
    let answers = answers(model, &prompts, Decoding::Greedy, 40)?;
    let mut n_same = 0;
    let (mut cached, mut at_once) = (Vec::new(), Vec::new());
    for ((case, prompt), answer) in cases.iter().zip(&prompts).zip(&answers) {
        n_same += usize::from(answer.token_ids == ids(&case["continuation_ids"])?);
        cached.extend_from_slice(&answer.logps);
        at_once.extend(continued(model, prompt, &answer.token_ids));
    }
    let mut found =
        vec![compared(subject.arithmetic, "gemma2-tiny, cached and at once", &cached, &at_once, [6e-4, 0.25])];
    if subject.arithmetic == Arithmetic::F32 {
        found.push(Finding::holds("gemma2-tiny, greedy continuations", n_same == cases.len()));
    }
    Ok(found)
}

/// Answers in the order of the prompts, in batches that slots are refilled in.
pub fn answers<M: CausalLm + Sync>(
    model: &M,
    prompts: &[Vec<u32>],
    decoding: Decoding,
    max_new_tokens: usize,
) -> Result<Vec<Completion>, CheckError> {
    let requests = prompts.iter().zip(0..).map(|(prompt, seed)| Request { prompt: prompt.as_slice().into(), seed });
    let requests: Vec<Request> = requests.collect();
    let config = GenerateConfig { decoding, max_new_tokens, stop_ids: Vec::new(), max_batch: 3 };
    let mut answers: Vec<Option<Completion>> = vec![None; requests.len()];
    let mut take = |index: usize, answer: Completion| answers[index] = Some(answer);
    generate(model, &requests, &config, &AtomicBool::new(false), &mut take)?;
    answers
        .into_iter()
        .collect::<Option<Vec<_>>>()
        .ok_or(CheckError::Shape { what: "an answer to each prompt".to_owned() })
}

/// The published bf16 weights: widened and run in f32, or run in bf16.
fn from_bf16_shards(subject: &Subject, fixtures: &Fixtures) -> Result<Vec<Finding>, CheckError> {
    /// What the reference's bf16 run differs from its f32 run, in the mean.
    const OF_REFERENCE: f64 = 0.0737;
    let model = gemma2(subject, fixtures, "gemma2-tiny-bf16")?;
    let expected = fixtures.tensors("gemma2-tiny-bf16/forward.safetensors")?;
    let rows = expected.token_rows("")?;
    let (mut full, mut half) = (Vec::new(), Vec::new());
    for row in 0..rows.len() {
        full.extend(expected.floats(&format!("f32.logits.{row}"))?);
        half.extend(expected.floats(&format!("bf16.logits.{row}"))?);
    }
    let ours = logits(&model, &rows);
    let tolerances = [4e-4, 2.0 * OF_REFERENCE];
    let mut found = vec![compared(subject.arithmetic, "gemma2-tiny-bf16, logits", &ours, &full, tolerances)];
    if subject.arithmetic == Arithmetic::Bf16 {
        let what = "gemma2-tiny-bf16, logits, mean to the reference in bf16";
        found.push(Finding::new(what, mean(&ours, &half), 2.0 * OF_REFERENCE));
    }
    let best = |logits: &[f32]| -> Vec<Option<usize>> {
        let rows = logits.chunks_exact(model.vocab_size());
        rows.map(|row| (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b]))).collect()
    };
    let n_other = best(&ours).into_iter().zip(best(&full)).filter(|(ours, full)| ours != full).count();
    let share = n_other as f64 / (full.len() / model.vocab_size()) as f64;
    found.push(Finding::new(
        "gemma2-tiny-bf16, share of other likeliest tokens",
        share,
        subject.arithmetic.pick(0.0, 0.02, 0.05),
    ));
    Ok(found)
}

fn rewards(
    subject: &Subject,
    fixtures: &Fixtures,
    folder: &str,
    [f32, bf16]: [f64; 2],
) -> Result<Vec<Finding>, CheckError> {
    let checkpoint = Checkpoint::open(&fixtures.path(folder))?;
    let model = load_reward(&checkpoint, &subject.placement)?;
    let rows: Vec<Value> = fixtures.json(&format!("{folder}/expected.json"))?;
    let mut conversations = Vec::new();
    for row in &rows {
        conversations.push(ids(&row["input_ids"])?);
    }
    let batched = model.score(&conversations, HeadDtype::F32)?;
    let (mut found, mut want, mut gating, mut want_gating) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    for ((row, conversation), Reward { score, rewards, gating: gate }) in rows.iter().zip(&conversations).zip(batched) {
        together.push(score);
        alone.push(model.score(std::slice::from_ref(conversation), HeadDtype::F32)?[0].score);
        found.push(score);
        want.extend(row["score"].as_f64().map(|score| score as f32));
        if !rewards.is_empty() {
            found.extend(rewards);
            want.extend(numbers(&row["rewards"]));
            gating.extend(gate);
            want_gating.extend(numbers(&row["gating_output"]));
        }
    }
    let mut all = vec![
        compared(subject.arithmetic, format!("{folder}, scores"), &found, &want, [f32, bf16]),
        compared(
            subject.arithmetic,
            format!("{folder}, scores alone and in a batch"),
            &alone,
            &together,
            [f32, bf16 / 2.0],
        ),
    ];
    if !gating.is_empty() {
        all.push(compared(subject.arithmetic, format!("{folder}, gating"), &gating, &want_gating, [f32, bf16 / 10.0]));
    }
    Ok(all)
}

/// A JSON list of token ids.
pub fn ids(value: &Value) -> Result<Vec<u32>, CheckError> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let ids = value.as_array().and_then(|values| values.iter().map(id).collect());
    ids.ok_or_else(|| CheckError::Shape { what: format!("token ids, and not {value}") })
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().into_iter().flatten().filter_map(|x| x.as_f64()).map(|x| x as f32).collect()
}

//! The models against the outputs of the original Python libraries (tests/fixtures, a README in each folder).

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use safetensors::SafeTensors;
use serde_json::Value;
use sluice_lm::causal::CausalLm;
use sluice_lm::checkpoint::Checkpoint;
use sluice_lm::gemma2::Gemma2;
use sluice_lm::generate::{Decoding, GenerateConfig, Request, generate};
use sluice_lm::model::{CausalModel, load_causal, load_reward};
use sluice_lm::packed::{Packed, Segment};
use sluice_lm::precision::{Placement, Precision};
use sluice_lm::reward::{HeadDtype, Reward};
use sluice_lm::stack::Stack;
use sluice_lm::weights::values;

fn fixture(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures")).join(path)
}

/// The rows of a JSON list.
fn rows(path: &str) -> Vec<Value> {
    serde_json::from_slice(&std::fs::read(fixture(path)).expect(path)).expect(path)
}

/// A safetensors file of expected values.
struct Expected(Vec<u8>);

impl Expected {
    fn open(path: &str) -> Self {
        Self(std::fs::read(fixture(path)).expect(path))
    }

    fn tensor(&self, name: &str) -> (Vec<usize>, Vec<u8>) {
        let file = SafeTensors::deserialize(&self.0).expect("a safetensors file");
        let view = file.tensor(name).unwrap_or_else(|_| panic!("tensor {name}"));
        (view.shape().to_vec(), view.data().to_vec())
    }

    fn f32(&self, name: &str) -> Vec<f32> {
        self.tensor(name).1.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    /// Values stored in f32 or in bf16.
    fn f32_of(&self, name: &str) -> Vec<f32> {
        let file = SafeTensors::deserialize(&self.0).expect("a safetensors file");
        match file.tensor(name).expect(name).dtype() {
            safetensors::Dtype::BF16 => {
                let bytes = self.tensor(name).1;
                let bits = bytes.chunks_exact(2).map(|b| u32::from(u16::from_le_bytes([b[0], b[1]])));
                bits.map(|bits| f32::from_bits(bits << 16)).collect()
            }
            _ => self.f32(name),
        }
    }

    /// Rows of token ids, cut to where the mask is set. The names of both tensors begin with `side`.
    fn rows(&self, side: &str) -> Vec<Vec<u32>> {
        let read = |name: String| -> (usize, Vec<i64>) {
            let (shape, bytes) = self.tensor(&name);
            let values = bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().expect("8 bytes"))).collect();
            (shape[1], values)
        };
        let (width, ids) = read(format!("{side}input_ids"));
        let (_, mask) = read(format!("{side}attention_mask"));
        let rows = ids.chunks_exact(width).zip(mask.chunks_exact(width));
        rows.map(|(ids, mask)| ids.iter().zip(mask).filter(|(_, mask)| **mask == 1).map(|(id, _)| *id as u32).collect())
            .collect()
    }
}

fn largest_difference(ours: &[f32], want: &[f32]) -> f32 {
    assert_eq!(ours.len(), want.len());
    ours.iter().zip(want).fold(0.0, |a, (x, y)| a.max((x - y).abs()))
}

/// Prints a row of the table of `just fidelity`, then holds the tolerance.
fn hold(folder: &str, what: &str, error: f32, tolerance: f32) {
    println!("| fixture {folder} | {what} | {error:.1e} | {tolerance:.1e} |");
    assert!(error <= tolerance, "{folder}, {what}: error {error:e} exceeds {tolerance:e}");
}

/// Prints a row of that table for what is compared to the bit.
fn held_exactly(folder: &str, what: &str) {
    println!("| fixture {folder} | {what} | 0 | exact |");
}

fn gemma2(folder: &str) -> (Checkpoint, Gemma2) {
    let checkpoint = Checkpoint::open(&fixture(folder)).expect(folder);
    match load_causal(&checkpoint, &Device::flex()).expect(folder) {
        CausalModel::Gemma2(model) => (checkpoint, model),
        CausalModel::Llama(_) => panic!("{folder} is a Gemma-2 model"),
    }
}

fn all_logits(model: &Gemma2, batch: &Packed) -> Vec<Vec<f32>> {
    let hidden = model.hidden(batch);
    let of = |segment: &Segment| {
        let rows: Vec<usize> = segment.rows.clone().collect();
        values(model.logits(hidden.clone(), &rows))
    };
    batch.segments().iter().map(of).collect()
}

#[test]
fn gemma2_logits_equal_the_reference_for_every_padding() {
    let (_, model) = gemma2("gemma2-tiny");
    let expected = Expected::open("gemma2-tiny/forward.safetensors");
    for (side, ids) in [("right", "right."), ("left", "left."), ("left_positions", "left.")] {
        let logits = all_logits(&model, &Packed::new(&expected.rows(ids)));
        for (i, ours) in logits.iter().enumerate() {
            let error = largest_difference(ours, &expected.f32(&format!("{side}.logits.{i}")));
            hold("gemma2-tiny", &format!("logits, {side} padded, row {i}"), error, 9e-4);
        }
    }
}

#[test]
fn gemma2_hidden_states_equal_the_reference_layer_by_layer() {
    let (_, model) = gemma2("gemma2-tiny");
    let row = &Expected::open("gemma2-tiny/forward.safetensors").rows("right.")[0];
    let expected = Expected::open("gemma2-tiny/hidden_states.safetensors");
    for (k, state) in model.hidden_by_layer(&Packed::new(&[row])).into_iter().enumerate() {
        let error = largest_difference(&values(state), &expected.f32(&format!("hidden_states.{k}")));
        hold("gemma2-tiny", &format!("hidden states {k}"), error, 9e-4);
    }
}

#[test]
fn gemma2_from_bf16_shards_equals_the_f32_run_of_the_same_weights() {
    let (_, model) = gemma2("gemma2-tiny-bf16");
    let expected = Expected::open("gemma2-tiny-bf16/forward.safetensors");
    let rows = expected.rows("");
    for (i, ours) in all_logits(&model, &Packed::new(&rows)).iter().enumerate() {
        let error = largest_difference(ours, &expected.f32(&format!("f32.logits.{i}")));
        hold("gemma2-tiny-bf16", &format!("logits, run in f32, row {i}"), error, 4e-4);
    }
}

/// The mean is held, as the README says: bf16 is not comparable bit by bit between implementations.
#[test]
fn gemma2_in_bf16_is_as_near_to_f32_as_the_reference_is() {
    let checkpoint = Checkpoint::open(&fixture("gemma2-tiny-bf16")).expect("the checkpoint opens");
    let model = load_causal(&checkpoint, Placement::new(Device::flex(), Precision::Bf16)).expect("the weights fit");
    let expected = Expected::open("gemma2-tiny-bf16/forward.safetensors");
    let rows = expected.rows("");
    let batch = Packed::new(&rows);
    let all: Vec<usize> = (0..batch.n_tokens()).collect();
    let logits = model.logits(model.hidden(&batch), &all);
    assert_eq!(logits.dtype(), burn::tensor::DType::BF16);
    let ours = values(logits);
    let of =
        |name: &str| (0..rows.len()).flat_map(|i| expected.f32_of(&format!("{name}.logits.{i}"))).collect::<Vec<_>>();
    let (full, half) = (of("f32"), of("bf16"));
    let mean = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f32>() / a.len() as f32;
    hold("gemma2-tiny-bf16", "logits, run in bf16, mean difference to f32", mean(&ours, &full), 2.0 * 0.0737);
    // Not asked for: the two bf16 runs differ less from each other than either does from f32.
    hold("gemma2-tiny-bf16", "logits, run in bf16, mean difference to the bf16 run", mean(&ours, &half), 0.0737);
    let best = |logits: &[f32]| {
        let rows = logits.chunks_exact(model.vocab_size());
        let best = rows.map(|row| (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])));
        best.collect::<Vec<_>>()
    };
    let (best_ours, best_full) = (best(&ours), best(&full));
    let n_other = best_ours.iter().zip(&best_full).filter(|(ours, full)| ours != full).count();
    // The published run in bf16 has the same best token everywhere, by luck where two are almost equal.
    hold("gemma2-tiny-bf16", "best token, run in bf16, share of others", n_other as f32 / best_full.len() as f32, 0.02);
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().expect("ids").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

#[test]
fn greedy_continuations_are_the_reference_ones_in_any_batch() {
    let (_, model) = gemma2("gemma2-tiny");
    let cases = rows("gemma2-tiny/greedy.json");
    let requests: Vec<Request> =
        cases.iter().map(|case| Request { prompt: ids(&case["prompt_ids"]).into(), seed: 0 }).collect();
    for max_batch in [1, 3, 64] {
        let config = GenerateConfig { decoding: Decoding::Greedy, max_new_tokens: 40, stop_ids: vec![], max_batch };
        let mut answers = vec![Vec::new(); cases.len()];
        generate(&model, &requests, &config, &false.into(), &mut |index, answer| answers[index] = answer.token_ids)
            .expect("four short prompts");
        for (case, answer) in cases.iter().zip(answers) {
            assert_eq!(answer, ids(&case["continuation_ids"]), "batch {max_batch}");
        }
    }
    held_exactly("gemma2-tiny", "greedy token ids, 4 prompts, 40 tokens each");
}

#[test]
fn response_log_probabilities_equal_the_reference() {
    let (_, model) = gemma2("gemma2-tiny");
    for (i, row) in rows("gemma2-tiny/response_logprobs.json").iter().enumerate() {
        let prompt = ids(&row["prompt_ids"]);
        let response = ids(&row["response_ids"]);
        let want = row["logprobs"].as_array().expect("log-probs");
        let want: Vec<f32> = want.iter().map(|x| x.as_f64().expect("a number") as f32).collect();
        let batch = Packed::new(&[[prompt.clone(), response.clone()].concat()]);
        let predicted_from: Vec<usize> = (0..response.len()).map(|k| prompt.len() + k - 1).collect();
        let logps: Tensor<1> = model.token_logps(model.hidden(&batch), &predicted_from, &response);
        hold("gemma2-tiny", &format!("response log-probs, row {i}"), largest_difference(&values(logps), &want), 6e-4);
    }
}

fn check_reward(folder: &str, tolerance: f32) {
    let checkpoint = Checkpoint::open(&fixture(folder)).expect(folder);
    let model = load_reward(&checkpoint, &Device::flex()).expect(folder);
    let rows = rows(&format!("{folder}/expected.json"));
    let conversations: Vec<Vec<u32>> = rows.iter().map(|row| ids(&row["input_ids"])).collect();
    let batched = model.score(&conversations, HeadDtype::F32).expect(folder);
    let numbers = |value: &Value| -> Vec<f32> {
        value.as_array().map_or(vec![], |v| v.iter().map(|x| x.as_f64().expect("a number") as f32).collect())
    };
    let mut errors = [0.0f32; 3];
    for ((row, conversation), ours) in rows.iter().zip(&conversations).zip(&batched) {
        let alone = &model.score(std::slice::from_ref(conversation), HeadDtype::F32).expect(folder)[0];
        let want = row["score"].as_f64().expect("a score") as f32;
        for Reward { score, rewards, gating } in [ours, alone] {
            errors[0] = errors[0].max((score - want).abs());
            if !rewards.is_empty() {
                errors[1] = errors[1].max(largest_difference(rewards, &numbers(&row["rewards"])));
                errors[2] = errors[2].max(largest_difference(gating, &numbers(&row["gating_output"])));
            }
        }
    }
    for (what, error) in ["score", "rewards", "gating"].iter().zip(errors) {
        hold(folder, &format!("{what}, batched and alone"), error, tolerance);
    }
}

#[test]
fn reward_models_equal_the_reference_batched_and_alone() {
    check_reward("llama3-armorm-tiny", 4e-5);
    check_reward("reward-seqcls-tiny", 4e-5);
    check_reward("reward-seqcls-gemma2-tiny", 3e-4);
}

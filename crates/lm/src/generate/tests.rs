//! The batch that runs ahead of its tokens against the one that waits for each, on a tiny model: the same answers from the
//! same seeds.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;

use super::{Completion, Decoding, FinishReason, GenerateConfig, GenerateError, Request, ahead, generate};
use crate::checkpoint::Checkpoint;
use crate::model::{CausalModel, load_causal};
use crate::sampling::Sampling;

fn model(device: &Device) -> CausalModel {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/gemma2-tiny");
    load_causal(&Checkpoint::open(&folder).expect("the fixture is there"), device).expect("the fixture is a model")
}

/// Prompts of several lengths, each asked three times: more than fit into a batch, so that slots change hands.
fn requests(n_prompts: usize) -> Vec<Request> {
    let prompt =
        |number: usize| -> Arc<[u32]> { (0..3 + 5 * number).map(|i| (7 * i + number) as u32 % 100 + 3).collect() };
    let of_prompt = |number: usize| {
        let prompt = prompt(number);
        (0..3).map(move |sample| Request { prompt: prompt.clone(), seed: (10 * number + sample) as u64 })
    };
    (0..n_prompts).flat_map(of_prompt).collect()
}

fn decodings() -> [Decoding; 3] {
    let sample = |temperature, top_k, top_p| {
        Decoding::Sample(Sampling::new(temperature, top_k, top_p, None).expect("the settings are right"))
    };
    [Decoding::Greedy, sample(0.8, None, Some(0.95)), sample(1.2, Some(20), None)]
}

fn config(decoding: Decoding, max_batch: usize) -> GenerateConfig {
    // Some answers end early, in the middle of a round.
    GenerateConfig { decoding, max_new_tokens: 21, stop_ids: (0..40).collect(), max_batch }
}

type Answers = Vec<Option<Completion>>;

fn collected(
    requests: &[Request],
    run: impl FnOnce(&mut dyn FnMut(usize, Completion)) -> Result<(), GenerateError>,
) -> Answers {
    let mut answers = vec![None; requests.len()];
    run(&mut |index, completion| {
        assert!(answers[index].replace(completion).is_none(), "one answer a request");
    })
    .expect("the requests can be answered");
    answers
}

#[track_caller]
fn assert_same(what: &str, ours: &Answers, want: &Answers) {
    for (index, (ours, want)) in ours.iter().zip(want).enumerate() {
        let (ours, want) = (ours.as_ref().expect("an answer"), want.as_ref().expect("an answer"));
        assert_eq!((&ours.token_ids, ours.finish_reason), (&want.token_ids, want.finish_reason), "{what}, {index}");
        for (ours, want) in ours.logps.iter().zip(&want.logps) {
            assert!((ours - want).abs() < 1e-4, "{what}, {index}: {ours} and {want}");
        }
    }
}

#[test]
fn running_ahead_changes_no_answer() {
    let (model, requests, go_on) = (model(&Device::flex()), requests(5), AtomicBool::new(false));
    let mut reasons = Vec::new();
    for decoding in decodings() {
        let config = |max_batch| config(decoding, max_batch);
        let want = collected(&requests, |on_done| generate(&model, &requests, &config(4), &go_on, on_done));
        for max_batch in [1, 4, 64] {
            let config = config(max_batch);
            let ours = collected(&requests, |on_done| ahead::generate(&model, &requests, &config, &go_on, on_done));
            assert_same(&format!("{decoding:?}, {max_batch} at a time"), &ours, &want);
        }
        reasons.extend(want.into_iter().flatten().map(|answer| answer.finish_reason));
    }
    assert!(reasons.contains(&FinishReason::Stop) && reasons.contains(&FinishReason::Length));
}

#[test]
fn a_batch_that_runs_ahead_can_be_stopped() {
    let (model, requests) = (model(&Device::flex()), requests(2));
    let config = config(Decoding::Greedy, 4);
    let stopped = ahead::generate(&model, &requests, &config, &AtomicBool::new(true), &mut |_, _| ());
    assert_eq!(stopped, Err(GenerateError::Cancelled { n_done: 0, n_requests: 6 }));
}

/// On CubeCL the logits differ in their last digits; that the answers are the same then holds for these seeds.
#[cfg(feature = "cube-cpu")]
#[test]
fn a_cubecl_device_gives_the_same_answers() {
    let (requests, go_on) = (requests(2), AtomicBool::new(false));
    let [_, sampled, _] = decodings();
    let config = config(sampled, 4);
    let run = |device: &Device| {
        let model = model(device);
        collected(&requests, |on_done| generate(&model, &requests, &config, &go_on, on_done))
    };
    assert_same("on CubeCL", &run(&Device::cpu()), &run(&Device::flex()));
}

//! What the stages that run models say of prompts, models and rows they cannot use.

use std::fs;

use expect_test::{Expect, expect};
use sluice_table::Split;

use crate::bench::{Bench, chain};
use crate::{DEMOS, PAIRS, PROMPTS, init_folder, plant_pairs, plant_responses, run, with_prompts};

fn check_fault(bench: &mut Bench, stage: &str, set: &[&str], expected: Expect) {
    let error = bench.run(stage, set).expect_err("the stage is to fail");
    expected.assert_eq(&chain(&error, bench));
}

#[test]
fn prompts_that_cannot_be_answered() {
    let mut bench = Bench::new();
    let long = "word ".repeat(9000);
    bench.plant_prompts(Split::Train, &[("Short.", None, None), (&long, None, None)]);
    check_fault(
        &mut bench,
        "responses",
        &[],
        expect![[
            r#"1 prompt leaves no room for an answer in the policy's context of 8192 tokens: c5c39a5d07e7e9e0fcb48a45ac3553cb with 27009 tokens, "word word word word word word word word..."; leave long prompts out where they are ingested: `where` takes the length of their column, as in `length(prompt) < 2000`"#
        ]],
    );
    check_fault(
        &mut bench,
        "responses",
        &["stages.responses.sample.split=heldout"],
        expect![
            "none of the 2 prompts is in the split `heldout`; raise `split.heldout` or name files in `heldout_from` where they are ingested"
        ],
    );
    bench.plant_prompts(Split::Train, &PROMPTS);
    check_fault(
        &mut bench,
        "responses",
        &["stages.responses.sample.stop=[nowhere]"],
        expect!["`stop` names `nowhere`, which is no single token of the policy's vocabulary"],
    );
}

#[test]
fn models_of_the_wrong_kind() {
    let mut bench = with_prompts(Split::Train);
    check_fault(
        &mut bench,
        "responses",
        &["stages.responses.sample.model=reward"],
        expect![[r#"
            load `model`
              llama3-armorm-tiny: is a reward model (LlamaForRewardModelWithGating); a causal language model is needed"#]],
    );
    plant_responses(&mut bench, &[("Hi?".to_owned(), "Yes.".to_owned())]);
    check_fault(
        &mut bench,
        "scores",
        &["stages.scores.score.model=policy"],
        expect![[r#"
            load `model`
              gemma2-tiny: is a causal language model (Gemma2ForCausalLM); a reward model is needed"#]],
    );
}

#[test]
fn a_tokenizer_that_does_not_fit() {
    let mut bench = with_prompts(Split::Train);
    let folder = bench.copy_model("gemma2-tiny", "other");
    let config = fs::read_to_string(folder.join("config.json")).expect("a configuration");
    fs::write(folder.join("config.json"), config.replace(r#""vocab_size": 512"#, r#""vocab_size": 500"#))
        .expect("written");
    check_fault(
        &mut bench,
        "responses",
        &["models.policy=other"],
        expect![[r#"
            load `model`
              other/tokenizer.json: has 512 ids, and the embedding has 500 rows; each id needs a row, and at most one row in 1000 may be without an id"#]],
    );
}

#[test]
fn a_judge_that_gives_nan() {
    let mut bench = Bench::new();
    plant_responses(&mut bench, &[("Hi?".to_owned(), "Yes.".to_owned()), ("Hi?".to_owned(), "No.".to_owned())]);
    damage(&bench, "nan", f32::NAN);
    check_fault(
        &mut bench,
        "scores",
        &["models.reward=nan"],
        expect![[r#"
        load `model`
          nan/model.safetensors: tensor `regression_layer.weight` is NaN at element 0; finite weights are needed"#]],
    );
    // Finite weights that overflow are found when a row is scored.
    damage(&bench, "huge", f32::MAX);
    check_fault(
        &mut bench,
        "scores",
        &["models.reward=huge"],
        expect![[r#"
            score answer 0 to prompt cba09147283756d16deb099b8c5033a4
              conversation 0 scores NaN: the reward model's weights are damaged or overflow"#]],
    );
}

/// A copy of the judge whose regression weights are all `value`.
fn damage(bench: &Bench, name: &str, value: f32) {
    let file = bench.copy_model("llama3-armorm-tiny", name).join("model.safetensors");
    let mut bytes = fs::read(&file).expect("weights");
    let n_header = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + n_header]).expect("JSON");
    let place = |end: usize| {
        let offset = header["regression_layer.weight"]["data_offsets"][end].as_u64().expect("an offset");
        8 + n_header + offset as usize
    };
    let (start, end) = (place(0), place(1));
    bytes[start..end].chunks_exact_mut(4).for_each(|weight| weight.copy_from_slice(&value.to_le_bytes()));
    fs::write(&file, bytes).expect("written");
}

#[test]
fn rows_that_cannot_be_trained_on() {
    let mut bench = Bench::new();
    init_folder(&bench);
    bench.plant_demos(&DEMOS);
    let reward = |objectives: &str| format!("stages.fresh.train.objective={{reward: {{objectives: {objectives}}}}}");
    check_fault(
        &mut bench,
        "fresh",
        &[&reward("[label, brevity]")],
        expect![
            "the rows have no column `brevity`, which is an objective of the reward model; they have prompt_id, prompt, reference, group, split, source, source_row, response, label"
        ],
    );
    check_fault(
        &mut bench,
        "fresh",
        &[&reward("[label]"), "stages.fresh.train.max_length=9"],
        expect![
            "row 0 of demos.jsonl has 28 tokens, more than the 9 tokens of `max_length`; change `max_length`, or leave the example out"
        ],
    );
    let long = "word ".repeat(9000);
    bench.plant_demos(&[("Speak.", &long, 1.0)]);
    check_fault(
        &mut bench,
        "fresh",
        &["stages.fresh.train.max_length=20000"],
        expect![
            "row 0 of demos.jsonl has 20000 tokens, more than the 8192 positions of the model; change `max_length`, or leave the example out"
        ],
    );
    bench.plant_prompts(Split::Heldout, &PROMPTS);
    check_fault(
        &mut bench,
        "fresh",
        &["stages.fresh.train.rows=prompts"],
        expect!["none of the 3 rows is in the split `train`; held-out rows are never trained on"],
    );
    bench.plant_prompts(Split::Train, &PROMPTS);
    check_fault(
        &mut bench,
        "fresh",
        &["stages.fresh.train.rows=prompts"],
        expect!["row 0 of prompts.jsonl has no response; map a column to it where the rows are ingested"],
    );
}

#[test]
fn pairs_of_another_policy() {
    let mut bench = Bench::new();
    plant_pairs(&mut bench, &"ab".repeat(32), &PAIRS);
    check_fault(
        &mut bench,
        "tuned",
        &[],
        expect![
            "3 of 3 pairs were answered by policy abababababababababababababababababababababababababababababababab, but the model to train is 0238f2d51d983697b7616570735324e34d26e28c48b4eb1d64ebc7689f9be31e; sample with the model that is trained, or set `off_policy: allow`"
        ],
    );
    run(&mut bench, "tuned", &["stages.tuned.train.off_policy=allow"]);
}

//! The stages that run models, over a real store, with random tiny weights: rows, digests, determinism, messages.

#[path = "models/bench.rs"]
mod bench;
#[path = "models/faults.rs"]
mod faults;
#[path = "models/live.rs"]
mod live;
#[path = "models/reference.rs"]
mod reference;
#[path = "models/resumed.rs"]
mod resumed;
#[path = "models/rows.rs"]
mod rows;
#[path = "models/verify.rs"]
mod verify;

use std::fs;

use expect_test::{Expect, expect};
use sluice_lm::checkpoint::Checkpoint;
use sluice_stages::Produced;
use sluice_table::{
    Comparisons, FinishReason, Metrics, PairRow, Pairs, PairsBuilder, PromptId, ResponseRow, Responses,
    ResponsesBuilder, Scores, Split, Steps,
};

use bench::{Bench, chain, fixtures};

const PROMPTS: [(&str, Option<&str>, Option<&str>); 3] = [
    ("Name the old baker.", Some("Tom"), Some("names")),
    ("What is 2 + 3?", Some("5"), Some("sums")),
    ("Say one word.", None, Some("names")),
];

const DEMOS: [(&str, &str, f32); 6] = [
    ("What is 2 + 3?", "It is 5.", 1.0),
    ("What is 2 + 3?", "It is 6.", 0.0),
    ("Name the old baker.", "Tom.", 1.0),
    ("Name the old baker.", "The recipe.", 0.0),
    ("Say one word.", "Train.", 1.0),
    ("Say one word.", "Two numbers.", 0.0),
];

fn with_prompts(split: Split) -> Bench {
    let mut bench = Bench::new();
    bench.plant_prompts(split, &PROMPTS);
    bench
}

fn run(bench: &mut Bench, stage: &str, set: &[&str]) -> Produced {
    bench.run(stage, set).unwrap_or_else(|error| panic!("{stage}: {}", chain(&error, bench)))
}

/// Prompt, chosen, rejected.
type PairTexts = (&'static str, &'static str, &'static str);

const PAIRS: [PairTexts; 3] =
    [("What is 2 + 3?", "It is 5.", "Six?"), ("Say one word.", "Train.", "Two numbers."), ("Who?", "Tom.", "The tea.")];

/// Plants the pairs that chosen and rejected texts make, answered by the policy of this digest.
fn plant_pairs(bench: &mut Bench, policy_digest: &str, pairs: &[PairTexts]) {
    let mut builder = PairsBuilder::new();
    for (prompt, chosen, rejected) in pairs {
        builder.push(PairRow {
            pair_id: "",
            prompt_id: &PromptId::of(prompt).to_string(),
            prompt,
            reference: None,
            group: None,
            chosen,
            rejected,
            chosen_index: 0,
            rejected_index: 1,
            chosen_score: 1.0,
            rejected_score: 0.0,
            margin: 1.0,
            n_candidates: 2,
            chosen_tokens: 4,
            rejected_tokens: 4,
            policy_digest,
            reward_model_digest: "",
        });
    }
    bench.plant("pairs", Pairs::NAME, &builder.finish());
}

fn plant_own_pairs(bench: &mut Bench) {
    let digest = bench.digest("gemma2-tiny").expect("a fixture").to_string();
    plant_pairs(bench, &digest, &PAIRS);
}

/// (prompt, sample index, tokens, key) of each response.
fn responses(bench: &Bench) -> Vec<(String, u32, Vec<u32>, String)> {
    let batch = bench.table("responses", "responses");
    let view = Responses::view(&batch).expect("a responses table");
    let row = |row: ResponseRow<'_>| {
        (row.prompt.to_owned(), row.sample_index, row.token_ids.to_vec(), row.response_id.to_owned())
    };
    view.rows().map(row).collect()
}

#[test]
fn responses_come_by_prompt_and_sample_whatever_the_batch() {
    let mut bench = with_prompts(Split::Train);
    let produced = run(&mut bench, "responses", &[]);
    let whole = responses(&bench);
    let mut order: Vec<String> = PROMPTS.iter().map(|(prompt, ..)| PromptId::of(prompt).to_string()).collect();
    order.sort();
    let found: Vec<(String, u32)> =
        whole.iter().map(|(prompt, sample, ..)| (PromptId::of(prompt).to_string(), *sample)).collect();
    let expected: Vec<(String, u32)> = order.iter().flat_map(|id| (0..3).map(|sample| (id.clone(), sample))).collect();
    assert_eq!(found, expected);
    assert_eq!(produced.n_rows, 9);
    assert_eq!(produced.metrics["responses"], 9.0);
    assert!(whole.iter().all(|(.., tokens, _)| (1..=6).contains(&tokens.len())));
    // Seeds belong to rows: neither the batch, nor the number of samples, nor the number of prompts moves a row.
    // Each of them in a store of its own, since one that knows a row does not make it again.
    for set in [["stages.responses.sample.max_batch=1"], ["stages.responses.sample.max_batch=4"]] {
        bench = with_prompts(Split::Train);
        run(&mut bench, "responses", &set);
        assert_eq!(responses(&bench), whole);
    }
    bench = with_prompts(Split::Train);
    run(&mut bench, "responses", &["stages.responses.sample.n=1", "stages.responses.sample.limit=2"]);
    let fewer: Vec<_> = whole.iter().filter(|(_, sample, ..)| *sample == 0).take(2).cloned().collect();
    assert_eq!(responses(&bench), fewer);
    run(&mut bench, "responses", &["stages.responses.sample.seed=8"]);
    assert!(responses(&bench).iter().zip(&whole).all(|(other, row)| other.3 != row.3));
    assert_ne!(responses(&bench), whole);
}

#[test]
fn a_double_bos_is_one_token_more() {
    let mut bench = with_prompts(Split::Train);
    let prompt_tokens = |bench: &Bench| -> Vec<u32> {
        let batch = bench.table("responses", "responses");
        Responses::view(&batch).expect("a responses table").rows().map(|row| row.n_prompt_tokens).collect()
    };
    run(&mut bench, "responses", &[]);
    let single = prompt_tokens(&bench);
    run(&mut bench, "responses", &["stages.responses.sample.bos=double"]);
    assert_eq!(prompt_tokens(&bench), single.iter().map(|n| n + 1).collect::<Vec<_>>());
}

/// Responses in the place of a policy's: prompt and text.
fn plant_responses(bench: &mut Bench, rows: &[(String, String)]) {
    let mut builder = ResponsesBuilder::new();
    for (sample_index, (prompt, response)) in (0u32..).zip(rows) {
        builder.push(ResponseRow {
            response_id: &sample_index.to_string(),
            prompt_id: &PromptId::of(prompt).to_string(),
            prompt,
            reference: None,
            group: None,
            split: Split::Train,
            sample_index,
            response,
            token_ids: &[1],
            n_prompt_tokens: 1,
            n_tokens: 1,
            logp_sum: -1.0,
            finish_reason: FinishReason::Stop,
            seed: 0,
            policy_digest: "",
        });
    }
    bench.plant("responses", Responses::NAME, &builder.finish());
}

#[test]
fn scores_are_those_of_the_fixture_in_the_order_of_the_rows() {
    let file = fs::read(fixtures().join("llama3-armorm-tiny/expected.json")).expect("a fixture");
    let rows: serde_json::Value = serde_json::from_slice(&file).expect("JSON");
    let text =
        |row: &serde_json::Value, turn: usize| row["messages"][turn]["content"].as_str().expect("a text").to_owned();
    let single_turn = |row: &&serde_json::Value| row["messages"].as_array().is_some_and(|turns| turns.len() == 2);
    let rows: Vec<_> = rows.as_array().expect("a list").iter().filter(single_turn).collect();
    let texts: Vec<_> = rows.iter().map(|row| (text(row, 0), text(row, 1))).collect();
    for set in ["stages.scores.score.max_batch_tokens=8192", "stages.scores.score.max_batch_tokens=1"] {
        let mut bench = Bench::new();
        plant_responses(&mut bench, &texts);
        run(&mut bench, "scores", &[set]);
        let batch = bench.table("scores", "scores");
        let scores = Scores::view(&batch).expect("a scores table");
        for (at, row) in rows.iter().enumerate() {
            let expected = row["score"].as_f64().expect("a number") as f32;
            assert!((scores.score(at) - expected).abs() < 4e-5, "row {at}: {} is not {expected}", scores.score(at));
            let first = row["rewards"][0].as_f64().expect("a number") as f32;
            assert!((scores.rewards(at).get("objective-00").expect("named") - first).abs() < 4e-5);
            assert_eq!(scores.gating(at).iter().count(), 19);
        }
    }
}

fn check_steps(bench: &Bench, stage: &str, expected: Expect) {
    let batch = bench.table(stage, "steps");
    let steps = Steps::view(&batch).expect("a steps table");
    let lines = steps.rows().map(|row| {
        let accuracy = row.accuracy.map_or("-".to_owned(), |accuracy| format!("{accuracy:.2}"));
        format!("{} epoch {:.2} loss {:.3} accuracy {accuracy}\n", row.step, row.epoch, row.loss)
    });
    expected.assert_eq(&lines.collect::<String>());
}

#[test]
fn a_policy_is_trained_on_its_own_pairs() {
    let mut bench = Bench::new();
    plant_own_pairs(&mut bench);
    run(&mut bench, "tuned", &[]);
    check_steps(
        &bench,
        "tuned",
        expect![[r#"
        1 epoch 1.00 loss 0.114 accuracy 1.00
        2 epoch 2.00 loss 0.000 accuracy 1.00
    "#]],
    );
    let digest = bench.output("tuned", "checkpoint").digest();
    let checkpoint = Checkpoint::open(&bench.checkpoint("tuned")).expect("a folder in Hugging Face layout");
    assert_eq!(checkpoint.digest().expect("readable weights").to_string(), digest);
    assert_ne!(digest, bench.digest("gemma2-tiny").expect("a fixture").to_string());
    // The same inputs give the same bytes.
    let first = bench.output("tuned", "checkpoint").clone();
    run(&mut bench, "tuned", &[]);
    assert_eq!(bench.output("tuned", "checkpoint"), &first);
    // The checkpoint is a policy like any other.
    bench.plant_prompts(Split::Train, &PROMPTS);
    run(&mut bench, "again", &[]);
    let batch = bench.table("again", "responses");
    assert_eq!(Responses::view(&batch).expect("a responses table").policy_digest(0), digest);
}

#[test]
fn a_run_says_what_each_step_did() {
    let mut bench = Bench::new();
    plant_own_pairs(&mut bench);
    // Before the first update the policy is its own reference: the loss is ln 2.
    run(&mut bench, "tuned", &["stages.tuned.train.objective={dpo: {beta: 0.1}}", "stages.tuned.train.max_steps=1"]);
    check_steps(
        &bench,
        "tuned",
        expect![[r#"
        1 epoch 1.00 loss 0.693 accuracy 0.00
    "#]],
    );
}

#[test]
fn examples_that_are_cut_are_counted_and_told() {
    let mut bench = Bench::new();
    plant_own_pairs(&mut bench);
    let produced = run(&mut bench, "tuned", &[]);
    let counts =
        |produced: &Produced| ["cut_examples", "cut_prompts", "cut_responses"].map(|name| produced.metrics[name]);
    assert_eq!((counts(&produced), bench.notices.take()), ([0.0; 3], Vec::new()));
    // What is told is what is counted.
    let check_told = |bench: &Bench, produced: &Produced, n_examples: usize, max_length: usize| {
        let [n_cut, n_prompts, n_responses] = counts(produced);
        assert!(n_cut >= 1.0 && n_cut <= n_prompts + n_responses, "{n_cut} {n_prompts} {n_responses}");
        let told = format!(
            "{n_cut} of {n_examples} examples are cut to `max_length` {max_length}: {n_prompts} lost tokens of the \
             prompt, {n_responses} of a response"
        );
        assert_eq!(bench.notices.take(), [told]);
    };
    let short = ["stages.tuned.train.max_length=16", "stages.tuned.train.max_prompt_length=12"];
    let produced = run(&mut bench, "tuned", &short);
    check_told(&bench, &produced, 3, 16);
    bench.plant_demos(&DEMOS);
    init_folder(&bench);
    let short = ["stages.fresh.train.max_length=20", "stages.fresh.train.max_prompt_length=15"];
    let produced = run(&mut bench, "fresh", &short);
    check_told(&bench, &produced, 6, 20);
}

#[test]
fn a_model_card_names_its_lineage() {
    let mut bench = Bench::new();
    plant_own_pairs(&mut bench);
    run(&mut bench, "tuned", &["stages.tuned.train.max_steps=1"]);
    let card = fs::read_to_string(bench.checkpoint("tuned").join("README.md")).expect("a model card");
    let policy = bench.digest("gemma2-tiny").expect("a fixture").to_string();
    let pairs = bench.output("pairs", "pairs").digest();
    let shown = card.replace(&policy, "POLICY").replace(&pairs, "PAIRS");
    expect![[r#"
        ---
        library_name: transformers
        tags: [sluice, simpo]
        ---

        # Gemma2ForCausalLM, trained with `simpo`

        Made by sluice. Weights are in f32; tokenizer, chat template and generation ids are those of the base.

        | lineage | |
        |---|---|
        | base | model `policy` |
        | base digest | `POLICY` |
        | examples | stage `pairs`, table digest `PAIRS` |
        | examples used | 3 |
        | optimiser steps | 1 |

        | parameter | value |
        |---|---|
        | model.init | false |
        | objective | simpo |
        | objective.simpo.beta | 2.0 |
        | objective.simpo.gamma_beta_ratio | 0.5 |
        | objective.simpo.loss | sigmoid |
        | objective.simpo.label_smoothing | 0.0 |
        | objective.simpo.sft_weight | 0.0 |
        | off_policy | deny |
        | learning_rate | 0.001 |
        | schedule | cosine |
        | warmup_ratio | 0.0 |
        | weight_decay | 0.0 |
        | betas | 0.9, 0.999 |
        | eps | 1e-8 |
        | max_grad_norm | 1.0 |
        | epochs | 2 |
        | max_steps | 1 |
        | batch_size | 2 |
        | micro_batch_tokens | 4096 |
        | max_length | 2048 |
        | max_prompt_length | 1800 |
        | truncation | budget |
        | prompt_keep | end |
        | response_header | prompt |
        | seed | 42 |
    "#]]
    .assert_eq(&shown);
}

#[test]
fn models_grow_from_nothing_to_a_judge() {
    let mut bench = Bench::new();
    bench.plant_demos(&DEMOS);
    init_folder(&bench);
    run(&mut bench, "fresh", &[]);
    // Fresh weights know nothing: the loss begins near ln 512 = 6.24.
    check_steps(
        &bench,
        "fresh",
        expect![[r#"
        1 epoch 0.33 loss 6.255 accuracy -
        2 epoch 0.67 loss 5.894 accuracy -
        3 epoch 1.00 loss 5.621 accuracy -
        4 epoch 1.33 loss 5.257 accuracy -
        5 epoch 1.67 loss 5.105 accuracy -
        6 epoch 2.00 loss 4.869 accuracy -
        7 epoch 2.33 loss 4.747 accuracy -
        8 epoch 2.67 loss 4.724 accuracy -
        9 epoch 3.00 loss 4.548 accuracy -
    "#]],
    );
    run(&mut bench, "judge", &[]);
    check_steps(
        &bench,
        "judge",
        expect![[r#"
        1 epoch 0.33 loss 3.635 accuracy 0.00
        2 epoch 0.67 loss 3.570 accuracy 1.00
        3 epoch 1.00 loss 3.715 accuracy 1.00
        4 epoch 1.33 loss 3.433 accuracy 1.00
        5 epoch 1.67 loss 3.423 accuracy 1.00
        6 epoch 2.00 loss 3.621 accuracy 1.00
    "#]],
    );
    let config = Checkpoint::open(&bench.checkpoint("judge")).expect("a folder in Hugging Face layout").config;
    assert_eq!(config.labels, ["label"]);
    plant_responses(&mut bench, &[("Say one word.".to_owned(), "Train.".to_owned())]);
    run(&mut bench, "judged", &[]);
}

/// Objectives are columns that `ingest` kept, one of them standing in for the label.
#[test]
fn a_judge_learns_from_kept_columns() {
    let mut bench = Bench::new();
    init_folder(&bench);
    let row = |(prompt, response, right): &(&str, &str, f32)| {
        let short = 10.0 / (10.0 + response.len() as f64);
        serde_json::json!({ "prompt": prompt, "response": response, "right": right, "short": short }).to_string() + "\n"
    };
    fs::write(bench.folder.path().join("demos.jsonl"), DEMOS.iter().map(row).collect::<String>()).expect("written");
    let demos = "stages.demos.ingest={from: demos.jsonl, map: {response: response}, keep: [short, right], dedup: false,
        split: {heldout: 0}}";
    run(&mut bench, "demos", &[demos]);
    let fresh = |weight: &str| {
        format!("stages.fresh.train.objective={{reward: {{objectives: [right, short], objectives_weight: {weight}}}}}")
    };
    run(&mut bench, "fresh", &[&fresh("1"), "stages.fresh.train.max_steps=2"]);
    check_steps(
        &bench,
        "fresh",
        expect![[r#"
        1 epoch 1.00 loss 4.916 accuracy 1.00
        2 epoch 2.00 loss 4.468 accuracy 1.00
    "#]],
    );
    let config = Checkpoint::open(&bench.checkpoint("fresh")).expect("a folder in Hugging Face layout").config;
    assert_eq!(config.labels, ["right", "short"]);
    run(&mut bench, "fresh", &[&fresh("0"), "stages.fresh.train.max_steps=2"]);
    check_steps(
        &bench,
        "fresh",
        expect![[r#"
        1 epoch 1.00 loss 4.469 accuracy 1.00
        2 epoch 2.00 loss 4.105 accuracy 1.00
    "#]],
    );
}

/// A folder that describes a causal Llama without weights.
fn init_folder(bench: &Bench) {
    let folder = bench.copy_model("llama3-armorm-tiny", "init");
    fs::remove_file(folder.join("model.safetensors")).expect("weights to remove");
    let config = fs::read_to_string(folder.join("config.json")).expect("a configuration");
    let config = config
        .replace("LlamaForRewardModelWithGating", "LlamaForCausalLM")
        .replace(r#""tie_word_embeddings": false"#, r#""tie_word_embeddings": true"#);
    let mut config: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&config).expect("an object");
    // What only a reward head has would be warned of.
    config.retain(|field, _| field != "num_objectives" && !field.starts_with("gating_"));
    fs::write(folder.join("config.json"), serde_json::to_string(&config).expect("JSON")).expect("a configuration");
}

#[test]
fn a_model_is_as_good_as_itself() {
    let mut bench = with_prompts(Split::Heldout);
    let produced = run(&mut bench, "report", &[]);
    let batch = bench.table("report", "comparisons");
    let rows = Comparisons::view(&batch).expect("a comparisons table");
    assert_eq!(rows.len(), PROMPTS.len() * 3);
    assert!(rows.rows().all(|row| row.candidate == row.baseline && row.outcome == Some(0.5)));
    assert!(rows.rows().all(|row| row.candidate_exact.is_some() == row.reference.is_some()));
    for (name, value) in [("win_rate_greedy", 0.5), ("win_rate_sampled", 0.5), ("length_ratio_sampled", 1.0)] {
        assert_eq!(produced.metrics[name], value, "{name}");
    }
    let batch = bench.table("report", "metrics");
    let metrics = Metrics::view(&batch).expect("a metrics table");
    let lines = metrics.rows().filter(|row| row.metric == "win_rate").map(|row| {
        let decoding = row.decoding.map_or(String::new(), |decoding| decoding.to_string());
        format!("{decoding} {} {} [{:?} {:?}] {}\n", row.group.unwrap_or("all"), row.value, row.low, row.high, row.n)
    });
    expect![[r#"
        greedy all 0.5 [Some(0.5) Some(0.5)] 3
        greedy names 0.5 [Some(0.5) Some(0.5)] 2
        greedy sums 0.5 [Some(0.5) Some(0.5)] 1
        sampled all 0.5 [Some(0.5) Some(0.5)] 6
        sampled names 0.5 [Some(0.5) Some(0.5)] 4
        sampled sums 0.5 [Some(0.5) Some(0.5)] 2
    "#]]
    .assert_eq(&lines.collect::<String>());
}

#[test]
fn a_trained_model_is_compared_with_its_base() {
    let mut bench = with_prompts(Split::Heldout);
    plant_own_pairs(&mut bench);
    run(&mut bench, "tuned", &[]);
    let produced = run(&mut bench, "report", &["stages.report.evaluate.candidate=tuned"]);
    for name in ["exact_accuracy_sampled_before", "exact_accuracy_sampled_after", "exact_accuracy_greedy_gain_low"] {
        assert!(produced.metrics.contains_key(name), "{name} is not among {:?}", produced.metrics.keys());
    }
}

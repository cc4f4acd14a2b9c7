//! The verbs over a single model folder give what the published stack gives: `generate`, `score`, `logprobs`,
//! `model inspect` against the fixtures of the original libraries.

use std::fs;

use serde_json::{Value, json};
use sluice_tests::{Project, fixture};

fn json_file(path: &str) -> Value {
    let text = fs::read_to_string(fixture(path)).expect("a fixture");
    serde_json::from_str(&text).expect("a fixture is JSON")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).expect("a list")
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect()
}

fn as_jsonl(rows: impl Iterator<Item = Value>) -> String {
    rows.map(|row| format!("{row}\n")).collect()
}

#[track_caller]
fn close(found: &Value, expected: &Value, tolerance: f64, what: &str) {
    let (found, expected) = (found.as_f64().expect("a number"), expected.as_f64().expect("a number"));
    assert!((found - expected).abs() <= tolerance, "{what}: {found}, expected {expected} within {tolerance}");
}

#[test]
fn greedy_continuations_are_those_of_the_reference() {
    let expected = json_file("gemma2-tiny/greedy.json");
    let project = Project::new();
    let ids = list(&expected).iter().map(|row| json!({"token_ids": row["prompt_ids"]}));
    project.write("ids.jsonl", &as_jsonl(ids));
    let texts = list(&expected).iter().map(|row| json!({"text": row["text"]}));
    project.write("texts.jsonl", &as_jsonl(texts));
    let model = fixture("gemma2-tiny").display().to_string();
    for input in ["ids.jsonl", "texts.jsonl"] {
        let arguments = [
            "generate",
            "--model",
            &model,
            "--input",
            input,
            "--greedy",
            "--ignore-stop",
            "--max-new-tokens",
            "40",
            "--json",
        ];
        let rows = lines(&project.sluice(arguments).ended(0).out);
        assert_eq!(rows.len(), list(&expected).len());
        for (row, expected) in rows.iter().zip(list(&expected)) {
            assert_eq!(row["token_ids"], expected["continuation_ids"], "row {} of {input}", row["index"]);
            assert_eq!((&row["finish_reason"], &row["sample"]), (&json!("length"), &json!(0)));
            assert_eq!(list(&row["logprobs"]).len(), 40);
        }
    }
}

/// Logits in bf16 are a few hundredths off, and so are the log-probabilities; answers read whole prompts and single tokens.
#[test]
fn the_precision_is_chosen_on_the_command_line() {
    let project = Project::new();
    let prompt = json!({"prompt": "Count to three, slowly."});
    project.write("rows.jsonl", &as_jsonl([prompt.clone(), prompt].into_iter()));
    let pair = json!({"prompt": "Name a colour.", "chosen": "Red, I think.", "rejected": "No."});
    project.write("pairs.jsonl", &as_jsonl([pair].into_iter()));
    let model = fixture("gemma2-tiny-bf16").display().to_string();
    let answer = |dtype: &str| {
        let arguments = ["generate", "--model", &model, "--input", "rows.jsonl", "--greedy", "--max-new-tokens", "6"];
        let rows = lines(&project.sluice(arguments.into_iter().chain(["--dtype", dtype, "--json"])).ended(0).out);
        assert_eq!((&rows[0]["token_ids"], &rows[0]["logprobs"]), (&rows[1]["token_ids"], &rows[1]["logprobs"]));
        rows[0]["logprobs"][0].clone()
    };
    let logp = |dtype: &str| {
        let arguments = ["logprobs", "--model", &model, "--input", "pairs.jsonl", "--dtype", dtype, "--json"];
        lines(&project.sluice(arguments).ended(0).out)[0]["chosen_logp_mean"].clone()
    };
    for of in [&answer as &dyn Fn(&str) -> Value, &logp] {
        let (half, full) = (of("bf16"), of("f32"));
        assert_ne!(half, full);
        close(&half, &full, 0.2, "bf16 beside f32");
        assert_eq!(of("auto"), full);
    }
}

#[test]
fn a_prompt_has_the_same_answers_whatever_stands_around_it() {
    let project = Project::new();
    project.write("one.jsonl", &as_jsonl([json!({"prompt": "Name a colour."})].into_iter()));
    let two = [json!({"prompt": "Count to three, slowly."}), json!({"prompt": "Name a colour."})];
    project.write("two.jsonl", &as_jsonl(two.into_iter()));
    let model = fixture("gemma2-tiny").display().to_string();
    let answers = |input: &str, index: u64| -> Vec<Value> {
        let arguments = [
            "generate",
            "--model",
            &model,
            "--input",
            input,
            "--n",
            "3",
            "--seed",
            "7",
            "--max-new-tokens",
            "8",
            "--json",
        ];
        let rows = lines(&project.sluice(arguments).ended(0).out);
        rows.into_iter().filter(|row| row["index"] == json!(index)).map(|row| row["token_ids"].clone()).collect()
    };
    let alone = answers("one.jsonl", 0);
    assert_eq!(alone.len(), 3);
    assert_ne!(alone[0], alone[1]);
    assert_eq!(alone, answers("two.jsonl", 1));
}

#[test]
fn scores_are_those_of_the_reference() {
    let expected = json_file("llama3-armorm-tiny/expected.json");
    let project = Project::new();
    project.write("rows.jsonl", &as_jsonl(list(&expected).iter().map(|row| json!({"messages": row["messages"]}))));
    let model = fixture("llama3-armorm-tiny").display().to_string();
    let rows = lines(&project.sluice(["score", "--model", &model, "--input", "rows.jsonl", "--json"]).ended(0).out);
    assert_eq!(rows.len(), list(&expected).len());
    for (row, expected) in rows.iter().zip(list(&expected)) {
        let what = format!("row {}", row["index"]);
        close(&row["score"], &expected["score"], 4e-5, &what);
        for (ours, theirs) in [("rewards", "rewards"), ("gating", "gating_output")] {
            let named = row[ours].as_object().expect("a map of names");
            assert_eq!(named.len(), 19);
            for (value, expected) in named.values().zip(list(&expected[theirs])) {
                close(value, expected, 4e-5, &format!("{what} {ours}"));
            }
        }
    }
}

#[test]
fn log_probabilities_and_losses_are_those_of_the_reference_trainer() {
    let expected = json_file("simpo-batch/rows.json");
    let (model, pairs) =
        (fixture("gemma2-tiny").display().to_string(), fixture("simpo-batch/pairs.parquet").display().to_string());
    let arguments = [
        "logprobs",
        "--model",
        &model,
        "--input",
        &pairs,
        "--json",
        "--max-length",
        "64",
        "--max-prompt-length",
        "36",
        "--truncation",
        "reference",
        "--prompt-keep",
        "end",
        "--response-header",
        "response",
        "--beta",
        "10",
        "--gamma-beta-ratio",
        "0.5",
    ];
    let rows = lines(&Project::new().sluice(arguments).ended(0).out);
    assert_eq!(rows.len(), list(&expected).len());
    for (row, expected) in rows.iter().zip(list(&expected)) {
        let what = format!("row {}", row["index"]);
        for (ours, theirs) in
            [("chosen_tokens", "chosen_response_tokens"), ("rejected_tokens", "rejected_response_tokens")]
        {
            assert_eq!(row[ours], expected[theirs], "{what} {ours}");
        }
        close(&row["chosen_logp_mean"], &expected["logp_mean_chosen"], 8e-5, &what);
        close(&row["rejected_logp_mean"], &expected["logp_mean_rejected"], 8e-5, &what);
        close(&row["loss"], &expected["loss"], 7e-4, &what);
    }
}

#[test]
fn a_model_is_looked_into() {
    let inspect = |folder: &str, code: i32| {
        let said = Project::new().sluice(["model", "inspect", folder, "--json"]).ended(code);
        lines(&said.out).remove(0)
    };
    let model = inspect(&fixture("gemma2-tiny").display().to_string(), 0);
    assert_eq!((&model["architecture"], &model["refused"]), (&json!("Gemma2ForCausalLM"), &json!([])));
    // Weights, their gradients and two moments.
    let parts = ["weights", "gradients", "moments"].map(|part| model["train_memory"][part].as_u64().expect("a size"));
    assert_eq!(parts.iter().sum::<u64>(), model["run_bytes"].as_u64().expect("a size") * 4);
    for kind in ["sample", "train"] {
        let parts = model[format!("{kind}_memory")].as_object().expect("parts");
        let sum: u64 = parts.values().filter_map(Value::as_u64).sum();
        assert_eq!(model[format!("{kind}_bytes")].as_u64(), Some(sum));
    }
    let refused = inspect("nowhere", 2);
    assert_eq!(list(&refused["refused"]).len(), 1);
}

#[test]
fn rows_that_do_not_fit_are_named() {
    let project = Project::new();
    project.write("rows.jsonl", "{\"prompt\": \"a\"}\n{\"prompts\": \"b\"}\n");
    project.write("broken.jsonl", "{\"prompt\": \"a\"}\n{\"prompt\": \n");
    let model = fixture("gemma2-tiny").display().to_string();
    let check = |input: &str, expected: &str| {
        let said = project.sluice(["generate", "--model", &model, "--input", input]).ended(2);
        assert!(said.err.contains(expected), "{}", said.err);
    };
    check("rows.jsonl", "rows.jsonl: row 1: has none of `prompt`, `messages`, `text` and `token_ids`");
    check("broken.jsonl", "broken.jsonl:2: not a JSON object");
    check("none.jsonl", "there is no file none.jsonl");
}

#[test]
fn a_gpu_that_is_not_there_is_told_in_one_sentence() {
    let project = Project::new();
    let model = fixture("gemma2-tiny").display().to_string();
    let arguments =
        |device| ["generate", "--model", &model, "--prompt", "x", "--max-new-tokens", "1", "--device", device];
    let said = project.sluice(arguments("cuda:99")).ended(2);
    assert_eq!(said.out, "");
    let lines: Vec<&str> = said.err.lines().filter(|line| !line.starts_with("warning: ")).collect();
    assert_eq!(lines.len(), 1, "{}", said.err);
    assert!(lines[0].contains("cuda:99"), "{}", said.err);
    project.sluice(arguments("auto")).ended(0);
    let said = project.sluice(arguments("gpu")).ended(2);
    assert!(said.err.contains("auto, cpu or cuda:N is needed"), "{}", said.err);
}

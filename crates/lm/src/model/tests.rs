//! Folders that are not the model that is needed, each a copy of a fixture with one thing changed.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::{gating_pattern, load_causal, load_reward};
use crate::checkpoint::Checkpoint;

fn fixture(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures")).join(name)
}

/// The messages of loading a copy of a fixture, as a causal model and as a reward model, in which `file` has some fields
/// changed.
fn check(name: &str, file: &str, fields: &[(&str, Value)], causal: Expect, reward: Expect) {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture(name)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    let file = folder.path().join(file);
    let mut object: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    fields.iter().for_each(|(field, value)| object[*field] = value.clone());
    fs::write(&file, object.to_string()).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let said = |error: Option<super::LoadError>| {
        let Some(error) = error else { return "loaded".to_owned() };
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            text.push_str(&format!("\n  {error}"));
            cause = error.source();
        }
        text.replace(&folder.path().display().to_string(), "DIR")
    };
    let by_loading =
        [said(load_causal(&checkpoint, &Device::flex()).err()), said(load_reward(&checkpoint, &Device::flex()).err())];
    causal.assert_eq(&by_loading[0]);
    reward.assert_eq(&by_loading[1]);
    // To look is to see what loading would.
    let by_looking = said(super::check(&checkpoint).err());
    assert!(by_loading.contains(&by_looking), "{by_looking}");
}

#[test]
fn the_wrong_kind() {
    check(
        "gemma2-tiny",
        "config.json",
        &[],
        expect!["loaded"],
        expect!["DIR: is a causal language model (Gemma2ForCausalLM); a reward model is needed"],
    );
    check(
        "llama3-armorm-tiny",
        "config.json",
        &[],
        expect!["DIR: is a reward model (LlamaForRewardModelWithGating); a causal language model is needed"],
        expect!["loaded"],
    );
    let two = [("id2label", json!({"0": "bad", "1": "good"})), ("label2id", json!({"bad": 0, "good": 1}))];
    check(
        "reward-seqcls-tiny",
        "config.json",
        &two,
        expect!["DIR: is a reward model (LlamaForSequenceClassification); a causal language model is needed"],
        expect!["DIR: gives 2 numbers for a conversation; a reward model with one is needed"],
    );
}

#[test]
fn an_armorm_whose_template_opens_no_answer() {
    let check = |template: Value, reward| {
        let causal =
            expect!["DIR: is a reward model (LlamaForRewardModelWithGating); a causal language model is needed"];
        check("llama3-armorm-tiny", "tokenizer_config.json", &[("chat_template", template)], causal, reward);
    };
    check(
        Value::Null,
        expect![[r#"
        DIR: render a prompt, to find the tokens that the gate of this reward model reads
          DIR: has no chat template; one is needed in tokenizer_config.json (`chat_template`) or chat_template.jinja"#]],
    );
    check(
        json!("{{ raise_exception('no users here') }}"),
        expect![[r#"
        DIR: render a prompt, to find the tokens that the gate of this reward model reads
          DIR/tokenizer_config.json: the chat template refuses the conversation (user): no users here"#]],
    );
    check(
        json!("{{ messages[0].content }}"),
        expect![
            "DIR: the chat template writes nothing of its own after a prompt; the gate of this reward model reads the tokens that open the answer"
        ],
    );
    check(
        json!("Answer!"),
        expect![
            "DIR: the chat template writes nothing of its own after a prompt; the gate of this reward model reads the tokens that open the answer"
        ],
    );
}

#[test]
fn the_gate_reads_what_the_template_writes() {
    let of = |name: &str| gating_pattern(&Checkpoint::open(&fixture(name)).unwrap()).unwrap();
    let expected = fs::read(fixture("llama3-armorm-tiny/gating_token_pattern.json")).unwrap();
    let expected: Value = serde_json::from_slice(&expected).unwrap();
    assert_eq!(json!(of("llama3-armorm-tiny")), expected["ids"]);
    // `<end_of_turn>\n<start_of_turn>model\n`
    expect!["[5, 6, 4, 418, 6]"].assert_eq(&format!("{:?}", of("gemma2-tiny")));
}

//! Whatever happens to the files of a model folder, opening and using it ends in an answer or in an error; never in a
//! panic, and never in memory for sizes that only a file claims.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use proptest::prelude::*;
use serde_json::{Value, json};
use sluice_lm::checkpoint::{Checkpoint, CheckpointError};
use sluice_lm::config::Head;
use sluice_lm::generate::{Decoding, GenerateConfig, Request, generate};
use sluice_lm::model::{LoadError, load_causal, load_reward};
use sluice_lm::reward::HeadDtype;
use sluice_lm::template::Message;
use tempfile::TempDir;

const MODELS: [&str; 4] = ["gemma2-tiny", "llama3-armorm-tiny", "reward-seqcls-tiny", "reward-seqcls-gemma2-tiny"];
const CONFIG: &str = "config.json";
const TEXTS: [&str; 5] =
    [CONFIG, "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"];

/// A copy of a fixture's folder, as far as it is a model.
fn folder(model: &str) -> TempDir {
    let from = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures")).join(model);
    let folder = tempfile::tempdir().expect("a folder");
    for name in TEXTS.into_iter().chain(["model.safetensors"]).filter(|name| from.join(name).is_file()) {
        fs::copy(from.join(name), folder.path().join(name)).expect("a file of the fixture");
    }
    folder
}

/// Opens the folder and does what a stage would: render, encode, load, answer or score, decode.
fn use_it(folder: &Path) -> Result<(), LoadError> {
    let checkpoint = Checkpoint::open(folder)?;
    let turns = [Message::user("Name a colour."), Message::assistant("Réd <eos>\u{0}")];
    let asked = checkpoint.conversation_ids(&turns[..1], true, 1)?;
    let whole = checkpoint.conversation_ids(&turns, false, 1)?;
    let device = Device::flex();
    if checkpoint.config.head == Head::CausalLm {
        let model = load_causal(&checkpoint, &device)?;
        let requests = [Request { prompt: asked.into(), seed: 1 }];
        let config = GenerateConfig {
            decoding: Decoding::Greedy,
            max_new_tokens: 2,
            stop_ids: checkpoint.eos_ids(),
            max_batch: 2,
        };
        // Weights that fit a damaged configuration may well give logits that are not finite: an error, too.
        let _ = generate(&model, &requests, &config, &AtomicBool::new(false), &mut |_, completion| {
            let _ = checkpoint.tokenizer.decode(&completion.token_ids, true);
        });
    } else {
        let model = load_reward(&checkpoint, &device)?;
        let _ = model.score(&[whole], HeadDtype::F32);
    }
    Ok(())
}

/// Uses the folder; an error must say something.
fn try_it(folder: &Path) {
    if let Err(error) = use_it(folder) {
        assert!(!error.to_string().is_empty());
        if let LoadError::Checkpoint(CheckpointError::Read { file, .. }) = &error {
            assert!(file.starts_with(folder));
        }
    }
}

/// Values that a field may have and should not.
fn odd() -> impl Strategy<Value = Value> {
    proptest::sample::select(vec![
        json!(null),
        json!(true),
        json!(0),
        json!(1),
        json!(2),
        json!(3),
        json!(-1),
        json!(7),
        json!(0.5),
        json!(1e-320),
        json!(1e308),
        json!(4_294_967_296_u64),
        json!(u64::MAX),
        json!(""),
        json!("float16"),
        json!("<bos>"),
        json!("{% for x in y %}"),
        json!([]),
        json!([1]),
        json!([-1, "a"]),
        json!({}),
        json!({"a": 1}),
        json!({"rope_type": "llama3", "factor": 0.0}),
    ])
}

/// Where the values of a document stand, as JSON pointers; of a long list or map the first few.
fn places(value: &Value, here: &str, found: &mut Vec<String>) {
    const FEW: usize = 40;
    let children: Vec<(String, &Value)> = match value {
        Value::Array(items) => items.iter().enumerate().map(|(index, item)| (index.to_string(), item)).collect(),
        Value::Object(fields) => fields.iter().map(|(name, field)| (name.clone(), field)).collect(),
        _ => Vec::new(),
    };
    for (name, child) in children.into_iter().take(FEW) {
        let place = format!("{here}/{}", name.replace('~', "~0").replace('/', "~1"));
        found.push(place.clone());
        places(child, &place, found);
    }
}

/// Puts `new` in the place of one value, or takes the value out of its map.
fn change(document: &mut Value, at: usize, new: Option<Value>) {
    let mut found = Vec::new();
    places(document, "", &mut found);
    let Some(place) = (!found.is_empty()).then(|| &found[at % found.len()]) else { return };
    match new {
        Some(new) => {
            if let Some(value) = document.pointer_mut(place) {
                *value = new;
            }
        }
        None => {
            let (parent, name) = place.rsplit_once('/').unwrap_or(("", place));
            if let Some(Value::Object(fields)) = document.pointer_mut(parent) {
                fields.remove(&name.replace("~1", "/").replace("~0", "~"));
            }
        }
    }
}

/// Pieces of a chat template, in any order.
fn template() -> impl Strategy<Value = String> {
    let pieces = [
        "{{ bos_token }}",
        "{{ messages[0].content }}",
        "{{ messages[0]['role'] | trim }}",
        "{% for message in messages %}",
        "{{ message.content }}",
        "{{ message['content'] | upper }}",
        "{{ loop.index0 / 0 }}",
        "{% endfor %}",
        "{% if add_generation_prompt %}",
        "{% if message.role == 'user' %}",
        "{% else %}",
        "{% endif %}",
        "{{ raise_exception('no') }}",
        "{% set x = messages[9] %}",
        "{{ x.y.z }}",
        "{{ 'a' * 1000 }}",
        "{{ range(10) | list | tojson }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ messages | length - 5 }}",
        "{%",
        "}}",
        "<start_of_turn>",
        "\n",
    ];
    let piece = prop_oneof![4 => proptest::sample::select(pieces.to_vec()).prop_map(str::to_owned), 1 => ".{0,6}"];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn a_value_is_another(
        model in proptest::sample::select(MODELS.to_vec()),
        file in proptest::sample::select(TEXTS.to_vec()),
        changes in proptest::collection::vec((any::<usize>(), proptest::option::weighted(0.8, odd())), 1..3),
    ) {
        let folder = folder(model);
        let path = folder.path().join(file);
        if let Ok(text) = fs::read(&path) {
            let mut document: Value = serde_json::from_slice(&text).expect("fixtures are JSON");
            changes.into_iter().for_each(|(at, new)| change(&mut document, at, new));
            fs::write(&path, document.to_string()).expect("a writable folder");
            try_it(folder.path());
        }
    }

    #[test]
    fn a_file_has_a_hole(
        model in proptest::sample::select(MODELS.to_vec()),
        file in proptest::sample::select(TEXTS.to_vec()),
        start in any::<usize>(),
        len in 0usize..40,
        filling in proptest::collection::vec(any::<u8>(), 0..6),
    ) {
        let folder = folder(model);
        let path = folder.path().join(file);
        if let Ok(mut bytes) = fs::read(&path) {
            let start = start % bytes.len();
            let end = (start + len).min(bytes.len());
            bytes.splice(start..end, filling);
            fs::write(&path, bytes).expect("a writable folder");
            try_it(folder.path());
        }
    }

    #[test]
    fn any_template(model in proptest::sample::select(MODELS.to_vec()), template in template()) {
        let folder = folder(model);
        fs::write(folder.path().join("chat_template.jinja"), template).expect("a writable folder");
        try_it(folder.path());
    }
}

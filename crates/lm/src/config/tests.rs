//! The fixtures' configurations in both spellings, what is refused, and that writing and reading agree.

use std::fs;
use std::path::Path;

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::{Attention, Config, Dtype, GenerationConfig, Head, ModelConfig};

const FIXTURES: [&str; 5] =
    ["gemma2-tiny", "gemma2-tiny-bf16", "llama3-armorm-tiny", "reward-seqcls-tiny", "reward-seqcls-gemma2-tiny"];

fn text(fixture: &str) -> String {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures"));
    fs::read_to_string(root.join(fixture).join("config.json")).unwrap()
}

fn parse(text: &str) -> Result<(Config, Vec<String>), String> {
    match Config::parse(text, Path::new("config.json")) {
        Ok((config, warnings)) => Ok((config, warnings.iter().map(|w| w.to_string()).collect())),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn fixtures_are_read_without_warnings_and_survive_writing() {
    for fixture in FIXTURES {
        let (config, warnings) = parse(&text(fixture)).unwrap();
        assert_eq!(warnings, [""; 0], "{fixture}");
        let stored = config.dtype.unwrap();
        let written = config.to_json(stored).to_string();
        assert_eq!(parse(&written), Ok((config, vec![])), "{fixture}");
    }
}

#[test]
fn both_spellings() {
    let (config, _) = parse(&text("gemma2-tiny")).unwrap();
    let ModelConfig::Gemma2(old) = config.model else { panic!() };
    assert_eq!(old.layer_types, [Attention::Sliding, Attention::Global, Attention::Sliding, Attention::Global]);
    assert_eq!((old.rope_theta, old.tie_word_embeddings, old.attn_softcap), (10_000.0, true, Some(50.0)));
    assert_eq!((config.eos_token_ids, config.dtype), (vec![1], Some(Dtype::F32)));
    let (config, _) = parse(&text("gemma2-tiny-bf16")).unwrap();
    let ModelConfig::Gemma2(new) = config.model else { panic!() };
    assert_eq!((new.layer_types.len(), new.head_dim, new.rope_theta), (5, 24, 10_000.0));
    assert_eq!((config.eos_token_ids, config.dtype), (vec![1, 5], Some(Dtype::Bf16)));
}

#[test]
fn heads() {
    let head = |fixture| {
        let (config, _) = parse(&text(fixture)).unwrap();
        (config.head, config.labels.len(), config.pad_token_id)
    };
    let armorm =
        Head::ArmoRm { num_objectives: 19, gating_hidden_dim: 32, gating_n_hidden: 3, gating_temperature: 10.0 };
    assert_eq!(head("llama3-armorm-tiny"), (armorm, 19, Some(511)));
    assert_eq!(head("reward-seqcls-tiny"), (Head::SequenceClassification { num_labels: 1 }, 1, Some(511)));
    assert_eq!(head("gemma2-tiny"), (Head::CausalLm, 0, Some(0)));
    // The published file has one placeholder label.
    let mut published: Value = serde_json::from_str(&text("llama3-armorm-tiny")).unwrap();
    published["id2label"] = json!({ "0": "LABEL_0" });
    let (config, _) = parse(&published.to_string()).unwrap();
    assert_eq!(config.labels[4], "helpsteer-verbosity");
}

/// What reading says when fields of a fixture's configuration are replaced; null removes one.
fn check(fixture: &str, changes: Value, wanted: Expect) {
    let mut config: Value = serde_json::from_str(&text(fixture)).unwrap();
    for (field, value) in changes.as_object().unwrap() {
        config[field] = value.clone();
    }
    let said = match parse(&config.to_string()) {
        Ok((_, warnings)) => warnings.join("\n"),
        Err(error) => error,
    };
    wanted.assert_eq(&said);
}

#[test]
fn refusals() {
    check(
        "gemma2-tiny",
        json!({ "attention_bias": true, "hidden_size": null, "head_dim": 31 }),
        expect![[r#"
            config.json: `hidden_size` is missing; a positive whole number is needed
            config.json: `head_dim` is 31; a positive even number is needed
            config.json: `attention_bias` is true; only false is computed"#]],
    );
    check(
        "gemma2-tiny",
        json!({ "num_hidden_layers": 4_000_000_000u64 }),
        expect!["config.json: `num_hidden_layers` is 4000000000; a whole number from 1 to 268435456 is needed"],
    );
    check(
        "gemma2-tiny",
        json!({ "num_hidden_layers": 100_000 }),
        expect!["config.json: `num_hidden_layers` is 100000; at most 4096 are read"],
    );
    check(
        "gemma2-tiny",
        json!({ "layer_types": ["full_attention"] }),
        expect![
            "config.json: `layer_types` does not fit `num_hidden_layers`; 4 entries, each sliding_attention or full_attention, are needed"
        ],
    );
    check(
        "gemma2-tiny",
        json!({ "hidden_activation": "gelu" }),
        expect![[r#"config.json: `hidden_activation` is "gelu"; only "gelu_pytorch_tanh" is computed"#]],
    );
    check(
        "gemma2-tiny",
        json!({ "architectures": ["Gemma3ForCausalLM"] }),
        expect![
            "config.json: `architectures` names `Gemma3ForCausalLM`; known are Gemma2ForCausalLM, Gemma2ForSequenceClassification, LlamaForCausalLM, LlamaForSequenceClassification, LlamaForRewardModelWithGating"
        ],
    );
    check(
        "gemma2-tiny",
        json!({ "model_type": "llama" }),
        expect![[r#"config.json: `model_type` is "llama"; only "gemma2" is computed"#]],
    );
    check(
        "gemma2-tiny",
        json!({ "quantization_config": { "bits": 4 } }),
        expect!["config.json: `quantization_config` is set; weights in f32, f16 or bf16 are needed"],
    );
    check(
        "gemma2-tiny",
        json!({ "eos_token_id": [1, 512] }),
        expect!["config.json: `eos_token_id` is 512; an id below the vocabulary size 512 is needed"],
    );
    check(
        "gemma2-tiny",
        json!({ "rms_norm_eps": -1.0, "torch_dtype": "int8" }),
        expect![[r#"
            config.json: `rms_norm_eps` is -1.0; a number above 0 is needed
            config.json: `torch_dtype` is "int8"; float32, float16 or bfloat16 is needed"#]],
    );
    check(
        "reward-seqcls-tiny",
        json!({ "rope_scaling": { "type": "linear", "factor": 2.0 } }),
        expect![[r#"config.json: `rope_scaling` has the rope_type "linear"; default and llama3 are computed"#]],
    );
    check(
        "reward-seqcls-tiny",
        json!({ "mlp_bias": true, "num_key_value_heads": 3 }),
        expect![[r#"
            config.json: `mlp_bias` is true; only false is computed
            config.json: `num_key_value_heads` is 3; a divisor of the 8 heads is needed"#]],
    );
    check(
        "reward-seqcls-tiny",
        json!({ "id2label": { "1": "x" } }),
        expect![[r#"config.json: `id2label` is not a map from "0", "1", .. to names"#]],
    );
}

/// Fields of the fixtures' files that may take any value of their type without another output.
const CHANGES_NOTHING: [&str; 12] = [
    "bos_token_id",
    "cache_implementation",
    "eos_token_id",
    "hidden_act",
    "initializer_range",
    "label2id",
    "pad_token_id",
    "pretraining_tp",
    "sliding_window_size",
    "torch_dtype",
    "transformers_version",
    "use_cache",
];

fn another(value: &Value) -> Value {
    match value {
        Value::Null => json!({ "type": "linear" }),
        Value::Bool(flag) => json!(!flag),
        Value::Number(n) => n.as_u64().map_or(json!(n.as_f64().unwrap() * 1.5 + 0.5), |n| json!(n + 2)),
        Value::String(_) => json!("other"),
        Value::Array(_) => json!(["other"]),
        Value::Object(_) => json!({ "0": "other" }),
    }
}

#[test]
fn every_field_counts_or_is_refused() {
    for fixture in ["gemma2-tiny", "llama3-armorm-tiny", "reward-seqcls-tiny"] {
        let original: Value = serde_json::from_str(&text(fixture)).unwrap();
        let lines = parse(&original.to_string()).unwrap().0.digest_lines();
        for (field, value) in original.as_object().unwrap() {
            let mut changed = original.clone();
            changed[field] = another(value);
            if let Ok((config, _)) = parse(&changed.to_string()) {
                let counts = config.digest_lines() != lines;
                let inert = CHANGES_NOTHING.contains(&field.as_str());
                assert!(counts || inert, "{fixture}: `{field}` is read and forgotten");
            }
        }
    }
}

#[test]
fn warnings() {
    check(
        "gemma2-tiny",
        json!({ "query_pre_attn_scalar": 224, "head_dim": 256 }),
        expect![
            "`query_pre_attn_scalar` is 224, as early copies of gemma-2-9b say by mistake; the publisher corrected it to 256"
        ],
    );
    check(
        "gemma2-tiny",
        json!({ "new_switch": 3, "use_cache": false }),
        expect!["`new_switch` is not known; it is taken to change nothing"],
    );
}

#[test]
fn not_json() {
    for bad in ["", "[]", "{\"a\": 1", "\u{feff}{}", "{\"rope_theta\": NaN}"] {
        assert_eq!(parse(bad).unwrap_err(), "config.json: not a JSON object", "{bad:?}");
    }
}

/// Frequencies of Llama 3.1 8B (theta 500000, head size 128, factor 8, low 1, high 4, 8192 tokens) at both ends and in
/// the joined range, worked out by hand from the rule.
#[test]
fn llama3_frequencies() {
    let mut config: Value = serde_json::from_str(&text("reward-seqcls-tiny")).unwrap();
    config["head_dim"] = json!(128);
    config["rope_scaling"] = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    });
    let (config, warnings) = parse(&config.to_string()).unwrap();
    assert_eq!(warnings, [""; 0]);
    let ModelConfig::Llama(llama) = &config.model else { panic!() };
    let frequencies = llama.inverse_frequencies();
    let plain = |i: i32| 500_000f64.powf(f64::from(-i) / 64.0);
    assert_eq!(frequencies[0], 1.0);
    assert!((frequencies[63] - plain(63) / 8.0).abs() < 1e-18);
    // i = 32: frequency 0.0014142, 8192 f / 2π = 1.84385 turns, s = 0.281283, factor (1 - s) / 8 + s = 0.371122.
    assert!((frequencies[32] / plain(32) - 0.371_122).abs() < 1e-6);
    assert_eq!(parse(&config.to_json(Dtype::F32).to_string()).unwrap().0.model, config.model);
}

#[test]
fn digest_lines_forget_the_spelling() {
    let (config, _) = parse(&text("gemma2-tiny-bf16")).unwrap();
    let mut old: Value = serde_json::from_str(&text("gemma2-tiny-bf16")).unwrap();
    let map = old.as_object_mut().unwrap();
    for field in ["rope_parameters", "layer_types", "dtype", "tie_word_embeddings"] {
        map.shift_remove(field);
    }
    map.insert("rope_theta".into(), json!(10000));
    assert_eq!(parse(&old.to_string()).unwrap().0.digest_lines(), config.digest_lines());
    old["rope_theta"] = json!(20000);
    assert_ne!(parse(&old.to_string()).unwrap().0.digest_lines(), config.digest_lines());
}

#[test]
fn generation() {
    let parse = |text: &str| {
        GenerationConfig::parse(text, Path::new("generation_config.json"), 512)
            .map(|(config, warnings)| (config.eos_token_ids, warnings.len()))
            .map_err(|error| error.to_string())
    };
    assert_eq!(parse(r#"{"eos_token_id": 1, "temperature": 0.6}"#), Ok((vec![1], 0)));
    assert_eq!(parse(r#"{"eos_token_id": [1, 5], "repetition_penalty": 1.1}"#), Ok((vec![1, 5], 1)));
    let wanted = "generation_config.json: `eos_token_id` is 512; an id below the vocabulary size 512 is needed";
    assert_eq!(parse(r#"{"eos_token_id": 512}"#), Err(wanted.to_owned()));
}

//! The small JSON files of the three model folders, spelled as Hugging Face spells them; weights come later.
//!
//! | folder | architecture | use |
//! |---|---|---|
//! | `policy` | Gemma2ForCausalLM, 4 layers | answers prompts |
//! | `reward-lm` | LlamaForCausalLM, 4 layers | the reward body's first phase: it learns to give right answers |
//! | `reward` | LlamaForRewardModelWithGating, 6 layers | judges answers: the body above with two fresh layers on top |

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::TasksError;
use crate::answers::Targets;
use crate::tokenizer::{GEMMA_SPECIALS, LLAMA_SPECIALS, VOCAB_SIZE, Vocabulary, special_id};

/// Longest sequence either model is made for, in tokens.
const MAX_POSITIONS: usize = 2048;

/// Gemma-2's turns: no system message, user and assistant in turn, the assistant called `model`.
const GEMMA_TEMPLATE: &str = concat!(
    "{{ bos_token }}",
    "{% for message in messages %}",
    "{% if message['role'] == 'system' %}",
    "{{ raise_exception('this model takes no system message') }}",
    "{% elif (message['role'] == 'user') != (loop.index0 % 2 == 0) %}",
    "{{ raise_exception('user and assistant must take turns, the user first') }}",
    "{% endif %}",
    "{% if message['role'] == 'assistant' %}{% set speaker = 'model' %}",
    "{% else %}{% set speaker = message['role'] %}{% endif %}",
    "{{ '<start_of_turn>' + speaker + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}",
    "{% endfor %}",
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}",
);

/// Llama-3's turns: any role, each with a header; the first one follows the begin token.
const LLAMA_TEMPLATE: &str = concat!(
    "{{ bos_token }}",
    "{% for message in messages %}",
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}",
    "{{ message['content'] | trim + '<|eot_id|>' }}",
    "{% endfor %}",
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
);

/// Writes the folders `policy`, `reward-lm` and `reward` under a folder; files of other names are left alone.
///
/// Gives the files written.
///
/// # Errors
/// [`TasksError`] if a folder or file cannot be written.
pub fn write(folder: &Path, vocabulary: &Vocabulary) -> Result<Vec<PathBuf>, TasksError> {
    let llama_tokens = [
        ("tokenizer.json", vocabulary.reward_document()),
        ("tokenizer_config.json", llama_tokenizer_config()),
        ("special_tokens_map.json", llama_special_tokens()),
    ];
    let mut policy = vec![
        ("tokenizer.json", vocabulary.policy_document()),
        ("tokenizer_config.json", gemma_tokenizer_config()),
        ("special_tokens_map.json", gemma_special_tokens()),
        ("config.json", policy_config()),
    ];
    let ends = [special_id("<eos>"), special_id("<end_of_turn>")];
    policy.push(("generation_config.json", generation_config("<bos>", json!(ends), "<pad>")));
    let mut reward_lm = llama_tokens.to_vec();
    reward_lm.push(("config.json", reward_lm_config()));
    let end = json!(special_id("<|eot_id|>"));
    reward_lm.push(("generation_config.json", generation_config("<|begin_of_text|>", end, "[PAD]")));
    let mut reward = llama_tokens.to_vec();
    reward.push(("config.json", reward_config()));

    let mut written = Vec::new();
    for (name, files) in [("policy", policy), ("reward-lm", reward_lm), ("reward", reward)] {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder).map_err(|source| TasksError::Write { path: folder.clone(), source })?;
        for (file, document) in files {
            let path = folder.join(file);
            let mut text =
                serde_json::to_string_pretty(&document).map_err(|source| TasksError::Json { file, source })?;
            text.push('\n');
            std::fs::write(&path, text).map_err(|source| TasksError::Write { path: path.clone(), source })?;
            written.push(path);
        }
    }
    Ok(written)
}

fn policy_config() -> Value {
    json!({
        "architectures": ["Gemma2ForCausalLM"],
        "attention_bias": false,
        "attention_dropout": 0.0,
        "attn_logit_softcapping": 50.0,
        "bos_token_id": special_id("<bos>"),
        "cache_implementation": "hybrid",
        "eos_token_id": special_id("<eos>"),
        "final_logit_softcapping": 30.0,
        "head_dim": 32,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 128,
        "initializer_range": 0.02,
        "intermediate_size": 384,
        "max_position_embeddings": MAX_POSITIONS,
        "model_type": "gemma2",
        "num_attention_heads": 4,
        "num_hidden_layers": 4,
        "num_key_value_heads": 2,
        "pad_token_id": special_id("<pad>"),
        "query_pre_attn_scalar": 32,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "sliding_window": 128,
        "tie_word_embeddings": true,
        "torch_dtype": "float32",
        "use_cache": true,
        "vocab_size": VOCAB_SIZE,
    })
}

/// What both Llama folders share.
fn llama_config(architecture: &str, n_layers: usize, tied: bool) -> Value {
    json!({
        "architectures": [architecture],
        "attention_bias": false,
        "attention_dropout": 0.0,
        "bos_token_id": special_id("<|begin_of_text|>"),
        "eos_token_id": special_id("<|eot_id|>"),
        "head_dim": 32,
        "hidden_act": "silu",
        "hidden_size": 96,
        "initializer_range": 0.02,
        "intermediate_size": 256,
        "max_position_embeddings": MAX_POSITIONS,
        "mlp_bias": false,
        "model_type": "llama",
        "num_attention_heads": 3,
        "num_hidden_layers": n_layers,
        "num_key_value_heads": 1,
        "pad_token_id": special_id("[PAD]"),
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-5,
        "rope_scaling": null,
        "rope_theta": 10000.0,
        "tie_word_embeddings": tied,
        "torch_dtype": "float32",
        "use_cache": true,
        "vocab_size": VOCAB_SIZE + LLAMA_SPECIALS.len(),
    })
}

fn reward_lm_config() -> Value {
    llama_config("LlamaForCausalLM", 4, true)
}

fn reward_config() -> Value {
    let mut config = llama_config("LlamaForRewardModelWithGating", 6, false);
    let names: serde_json::Map<String, Value> =
        Targets::NAMES.iter().enumerate().map(|(place, name)| (place.to_string(), json!(name))).collect();
    let places: serde_json::Map<String, Value> =
        Targets::NAMES.iter().enumerate().map(|(place, name)| ((*name).to_owned(), json!(place))).collect();
    config["num_objectives"] = json!(Targets::NAMES.len());
    config["gating_hidden_dim"] = json!(64);
    config["gating_n_hidden"] = json!(2);
    config["gating_temperature"] = json!(10);
    config["id2label"] = Value::Object(names);
    config["label2id"] = Value::Object(places);
    config
}

fn generation_config(bos: &str, ends: Value, pad: &str) -> Value {
    json!({ "bos_token_id": special_id(bos), "eos_token_id": ends, "pad_token_id": special_id(pad) })
}

fn gemma_special_tokens() -> Value {
    json!({
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"],
    })
}

fn gemma_tokenizer_config() -> Value {
    json!({
        "add_bos_token": true,
        "add_eos_token": false,
        "added_tokens_decoder": added_tokens_decoder(&GEMMA_SPECIALS),
        "additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"],
        "bos_token": "<bos>",
        "chat_template": GEMMA_TEMPLATE,
        "clean_up_tokenization_spaces": false,
        "eos_token": "<eos>",
        "model_max_length": MAX_POSITIONS,
        "pad_token": "<pad>",
        "padding_side": "left",
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<unk>",
    })
}

fn llama_special_tokens() -> Value {
    json!({ "bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "pad_token": "[PAD]" })
}

fn llama_tokenizer_config() -> Value {
    json!({
        "added_tokens_decoder": added_tokens_decoder(&LLAMA_SPECIALS),
        "bos_token": "<|begin_of_text|>",
        "chat_template": LLAMA_TEMPLATE,
        "clean_up_tokenization_spaces": false,
        "eos_token": "<|eot_id|>",
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": MAX_POSITIONS,
        "pad_token": "[PAD]",
        "tokenizer_class": "PreTrainedTokenizerFast",
    })
}

fn added_tokens_decoder(tokens: &[&str]) -> Value {
    let entry = |token: &&str| {
        let id = special_id(token).map(|id| id.to_string()).unwrap_or_default();
        let flags = json!({
            "content": token, "lstrip": false, "normalized": false, "rstrip": false, "single_word": false,
            "special": true,
        });
        (id, flags)
    };
    Value::Object(tokens.iter().map(entry).collect())
}

//! What `config.json` says about a model: the sizes and rules that change its outputs, in both spellings in use.
//!
//! Owns the reading and writing of Hugging Face configurations. Every field is used, refused, or on a list of fields
//! known to change nothing; a field on no list is returned as a warning. Knows nothing of tensors, files or devices.

mod fields;
mod gemma2;
mod generation;
mod llama;

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

pub use fields::{Fault, Warning};
pub use gemma2::{Attention, Gemma2Config};
pub use generation::GenerationConfig;
pub use llama::{LlamaConfig, RopeScaling};

use fields::Fields;

/// A model's configuration, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub model: ModelConfig,
    pub head: Head,
    /// Names of the outputs of a reward head, in order; empty for a causal language model.
    pub labels: Vec<String>,
    pub bos_token_id: Option<u32>,
    /// In the order written; one id or a list in the file.
    pub eos_token_ids: Vec<u32>,
    /// A reward head pools at the last token that is not this one.
    pub pad_token_id: Option<u32>,
    /// The dtype the publisher means the model to be run in (`torch_dtype` or `dtype`).
    pub dtype: Option<Dtype>,
}

/// The body of a model: everything below its head.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelConfig {
    Gemma2(Gemma2Config),
    Llama(LlamaConfig),
}

/// What stands on the final-normed hidden states.
#[derive(Clone, Debug, PartialEq)]
pub enum Head {
    /// Logits over the vocabulary.
    CausalLm,
    /// `score.weight [num_labels, hidden]` at the last token that is not padding.
    SequenceClassification { num_labels: usize },
    /// Regression on objectives, mixed by a gating network that reads the prompt.
    /// Source: the published `LlamaForRewardModelWithGating`.
    ArmoRm { num_objectives: usize, gating_hidden_dim: usize, gating_n_hidden: usize, gating_temperature: f64 },
}

/// The floating-point types weights are stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dtype {
    F32,
    F16,
    Bf16,
}

/// The names ArmoRM's publisher gives its 19 objectives, in order.
/// Its `config.json` carries one placeholder label, so they are kept here.
const ARMORM_OBJECTIVES: [&str; 19] = [
    "helpsteer-helpfulness",
    "helpsteer-correctness",
    "helpsteer-coherence",
    "helpsteer-complexity",
    "helpsteer-verbosity",
    "ultrafeedback-overall_score",
    "ultrafeedback-instruction_following",
    "ultrafeedback-truthfulness",
    "ultrafeedback-honesty",
    "ultrafeedback-helpfulness",
    "beavertails-is_safe",
    "prometheus-score",
    "argilla-overall_quality",
    "argilla-judge_lm",
    "code-complexity",
    "code-style",
    "code-explanation",
    "code-instruction-following",
    "code-readability",
];

/// Fields of any architecture that change no output: records of how the file was written, training-only
/// initialisation, switches of the Python library's return values, and token ids no model here reads.
const INERT: &[&str] = &[
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "_name_or_path",
    "add_cross_attention",
    "auto_map",
    "cache_implementation",
    "chunk_size_feed_forward",
    "decoder_start_token_id",
    "finetuning_task",
    "initializer_range",
    "is_decoder",
    "label2id",
    "output_attentions",
    "output_hidden_states",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "task_specific_params",
    "tokenizer_class",
    "torchscript",
    "transformers_version",
    "unsloth_version",
    "use_cache",
];

/// Why a configuration file is not usable; every fault of the file is in one error.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{}: not a JSON object", file.display())]
    Json { file: PathBuf, source: serde_json::Error },
    #[error("{}", Listed(file, faults))]
    Faults { file: PathBuf, faults: Vec<Fault> },
}

/// A line per fault, each with its file, as compilers print them.
struct Listed<'a>(&'a Path, &'a [Fault]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(file, faults) = self;
        for (i, fault) in faults.iter().enumerate() {
            let line_end = if i == 0 { "" } else { "\n" };
            write!(f, "{line_end}{}: {fault}", file.display())?;
        }
        Ok(())
    }
}

impl Config {
    /// Reads the text of a `config.json`; `file` is only named in messages.
    pub fn parse(text: &str, file: &Path) -> Result<(Config, Vec<Warning>), ConfigError> {
        let mut fields = Fields::parse(text, file)?;
        let config = read(&mut fields);
        let warnings = fields.finish(file, INERT)?;
        match config {
            Some(config) => Ok((config, warnings)),
            // `read` gives nothing only after it has recorded a fault, and `finish` has returned those.
            None => Err(ConfigError::Faults {
                file: file.to_owned(),
                faults: vec![Fault::new("architectures", "names no known model".into())],
            }),
        }
    }

    /// The class name in `architectures`.
    pub fn architecture(&self) -> &'static str {
        match (&self.model, &self.head) {
            (ModelConfig::Gemma2(_), Head::CausalLm) => "Gemma2ForCausalLM",
            (ModelConfig::Gemma2(_), _) => "Gemma2ForSequenceClassification",
            (ModelConfig::Llama(_), Head::CausalLm) => "LlamaForCausalLM",
            (ModelConfig::Llama(_), Head::SequenceClassification { .. }) => "LlamaForSequenceClassification",
            (ModelConfig::Llama(_), Head::ArmoRm { .. }) => "LlamaForRewardModelWithGating",
        }
    }

    /// The configuration in Hugging Face spelling, as the published models write it; `dtype` is that of the stored
    /// weights. Reading it back gives this configuration.
    pub fn to_json(&self, dtype: Dtype) -> Value {
        let mut map = Map::new();
        map.insert("architectures".into(), json!([self.architecture()]));
        match &self.model {
            ModelConfig::Gemma2(c) => c.write(&mut map),
            ModelConfig::Llama(c) => c.write(&mut map),
        }
        if let Some(id) = self.bos_token_id {
            map.insert("bos_token_id".into(), json!(id));
        }
        match self.eos_token_ids.as_slice() {
            [] => {}
            [id] => drop(map.insert("eos_token_id".into(), json!(id))),
            ids => drop(map.insert("eos_token_id".into(), json!(ids))),
        }
        if let Some(id) = self.pad_token_id {
            map.insert("pad_token_id".into(), json!(id));
        }
        map.insert("torch_dtype".into(), json!(dtype.torch_name()));
        self.write_head(&mut map);
        Value::Object(map)
    }

    /// The fields that change the outputs, as sorted `name=value` lines: what a model digest reads. Two spellings of
    /// one configuration give the same lines; the storage dtype is not among them.
    pub fn digest_lines(&self) -> Vec<String> {
        let Value::Object(mut map) = self.to_json(Dtype::F32) else {
            return Vec::new();
        };
        for outside in ["torch_dtype", "bos_token_id", "eos_token_id", "label2id"] {
            map.remove(outside);
        }
        if self.head == Head::CausalLm {
            map.remove("pad_token_id");
        }
        let mut lines: Vec<String> = map.iter().map(|(name, value)| format!("{name}={value}")).collect();
        lines.sort();
        lines
    }

    fn write_head(&self, map: &mut Map<String, Value>) {
        match &self.head {
            Head::CausalLm => return,
            Head::SequenceClassification { num_labels: _ } => {}
            Head::ArmoRm { num_objectives, gating_hidden_dim, gating_n_hidden, gating_temperature } => {
                map.insert("num_objectives".into(), json!(num_objectives));
                map.insert("gating_hidden_dim".into(), json!(gating_hidden_dim));
                map.insert("gating_n_hidden".into(), json!(gating_n_hidden));
                map.insert("gating_temperature".into(), json!(gating_temperature));
            }
        }
        let named = |(i, name): (usize, &String)| (i.to_string(), json!(name));
        let numbered = |(i, name): (usize, &String)| (name.clone(), json!(i));
        map.insert("id2label".into(), self.labels.iter().enumerate().map(named).collect());
        map.insert("label2id".into(), self.labels.iter().enumerate().map(numbered).collect());
    }
}

impl ModelConfig {
    pub fn vocab_size(&self) -> usize {
        match self {
            ModelConfig::Gemma2(c) => c.vocab_size,
            ModelConfig::Llama(c) => c.vocab_size,
        }
    }

    pub fn hidden_size(&self) -> usize {
        match self {
            ModelConfig::Gemma2(c) => c.hidden_size,
            ModelConfig::Llama(c) => c.hidden_size,
        }
    }

    /// The most tokens a row may have, counted from position 0.
    pub fn max_position_embeddings(&self) -> usize {
        match self {
            ModelConfig::Gemma2(c) => c.max_position_embeddings,
            ModelConfig::Llama(c) => c.max_position_embeddings,
        }
    }
}

impl Dtype {
    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
        }
    }

    /// As `torch_dtype` spells it.
    pub fn torch_name(self) -> &'static str {
        match self {
            Dtype::F32 => "float32",
            Dtype::F16 => "float16",
            Dtype::Bf16 => "bfloat16",
        }
    }
}

fn read(fields: &mut Fields) -> Option<Config> {
    let architecture = fields.architecture()?;
    let model = match architecture.as_str() {
        "Gemma2ForCausalLM" | "Gemma2ForSequenceClassification" => {
            fields.must_be("model_type", &json!("gemma2"));
            ModelConfig::Gemma2(gemma2::read(fields))
        }
        "LlamaForCausalLM" | "LlamaForSequenceClassification" | "LlamaForRewardModelWithGating" => {
            fields.must_be("model_type", &json!("llama"));
            ModelConfig::Llama(llama::read(fields))
        }
        other => {
            fields.fault("architectures", format!("names `{other}`; known are {}", KNOWN.join(", ")));
            return None;
        }
    };
    refuse_other_maths(fields);
    let (head, labels) = read_head(fields, &architecture);
    let vocab_size = model.vocab_size();
    Some(Config {
        bos_token_id: fields.token_id("bos_token_id", vocab_size),
        eos_token_ids: fields.token_ids("eos_token_id", vocab_size),
        pad_token_id: fields.token_id("pad_token_id", vocab_size),
        dtype: fields.dtype(),
        model,
        head,
        labels,
    })
}

const KNOWN: [&str; 5] = [
    "Gemma2ForCausalLM",
    "Gemma2ForSequenceClassification",
    "LlamaForCausalLM",
    "LlamaForSequenceClassification",
    "LlamaForRewardModelWithGating",
];

/// Switches that both bodies have in the Python library and that are not computed here.
fn refuse_other_maths(fields: &mut Fields) {
    fields.must_be("attention_bias", &json!(false));
    fields.must_be("attention_dropout", &json!(0.0));
    fields.must_be("is_encoder_decoder", &json!(false));
    fields.must_be("tie_encoder_decoder", &json!(false));
    fields.must_be("pruned_heads", &json!({}));
    fields.must_be_absent("quantization_config", "weights in f32, f16 or bf16 are needed");
}

fn read_head(fields: &mut Fields, architecture: &str) -> (Head, Vec<String>) {
    let mut names = fields.labels("id2label");
    let num_labels = fields.count_or("num_labels", if names.is_empty() { 2 } else { names.len() });
    match architecture {
        "LlamaForRewardModelWithGating" => {
            let num_objectives = fields.count_or("num_objectives", 19);
            if names.len() != num_objectives {
                names = objective_names(num_objectives);
            }
            let head = Head::ArmoRm {
                num_objectives,
                gating_hidden_dim: fields.count_or("gating_hidden_dim", 1024),
                gating_n_hidden: fields.count_or("gating_n_hidden", 3),
                gating_temperature: fields.number_or("gating_temperature", 10.0),
            };
            (head, names)
        }
        "Gemma2ForSequenceClassification" | "LlamaForSequenceClassification" => {
            if names.len() != num_labels {
                names = (0..num_labels).map(|i| format!("LABEL_{i}")).collect();
            }
            (Head::SequenceClassification { num_labels }, names)
        }
        _ => (Head::CausalLm, Vec::new()),
    }
}

fn objective_names(n: usize) -> Vec<String> {
    if n == ARMORM_OBJECTIVES.len() {
        return ARMORM_OBJECTIVES.map(str::to_owned).to_vec();
    }
    (0..n).map(|i| format!("objective-{i:02}")).collect()
}

/// `theta^(-2i/d)` for i in 0..d/2: the rotation per position of each pair of a head's `d` values, in radians.
fn inverse_frequencies(theta: f64, head_dim: usize) -> Vec<f64> {
    (0..head_dim / 2).map(|i| theta.powf(-2.0 * i as f64 / head_dim as f64)).collect()
}

#[cfg(test)]
mod tests;

//! Checkpoints of a given shape with random weights, written on the spot: bf16 in shards, as the published ones are.
//!
//! Owns the values. They are of the size that training starts from, so that nothing overflows and no product is skipped,
//! and are drawn once and repeated: what is measured does not depend on them.

use std::fs;
use std::path::Path;

use burn::tensor::Device;
use serde_json::{Map, Value, json};
use sluice_lm::checkpoint::{CheckpointError, CheckpointWriter, Companions};
use sluice_lm::config::{Config, Dtype, Head, ModelConfig};
use sluice_lm::gemma2::Gemma2;
use sluice_lm::llama::Llama;
use sluice_lm::precision::{Placement, Precision};
use sluice_lm::reward::{ArmoRm, ArmoRmConfig};
use sluice_lm::weights::{FreshWeights, Loader, WeightSource};

use crate::CheckError;

/// The tokens between a user's words and the assistant's in the template of these checkpoints.
pub const GATE_PATTERN: [u32; 4] = [7, 5, 8, 9];

/// Numbers that are drawn; a tensor takes them from a place of its own on.
const N_DRAWN: usize = 1 << 22;

/// Writes a checkpoint of this shape into a folder that is there.
pub fn write(folder: &Path, config: &Config) -> Result<(), CheckError> {
    // Companions are copied, so they come from elsewhere.
    let source = tempfile::tempdir().map_err(|source| CheckError::Write { file: folder.to_owned(), source })?;
    write_tokenizer(source.path(), config.model.vocab_size())?;
    let norm = if matches!(config.model, ModelConfig::Gemma2(_)) { 0.0 } else { 1.0 };
    let mut fresh = FreshWeights::new(1, 0.02, norm);
    let drawn = fresh.read("drawn", &[N_DRAWN])?;
    let mut writer = CheckpointWriter::new(folder);
    for (place, (name, shape)) in names(config)?.into_iter().enumerate() {
        let values = match shape.as_slice() {
            [_, _] if name != "reward_transform_matrix" => {
                // An odd step, so that no two tensors begin alike.
                drawn.iter().copied().cycle().skip(place * 104_729 % N_DRAWN).take(shape.iter().product()).collect()
            }
            _ => fresh.read(&name, &shape)?,
        };
        writer.tensor(&name, &shape, &values, Dtype::Bf16)?;
    }
    Ok(writer.finish(Companions { config, dtype: Dtype::Bf16, source: source.path(), card: "" })?)
}

/// Remembers which tensors a model asks for, and gives it none.
#[derive(Default)]
struct Names(Vec<(String, Vec<usize>)>);

impl WeightSource for Names {
    fn read(&mut self, _name: &str, _shape: &[usize]) -> Result<Vec<f32>, CheckpointError> {
        unreachable!("`check_only` says that nothing is to be read")
    }

    fn check_only(&mut self, name: &str, shape: &[usize]) -> Result<bool, CheckpointError> {
        self.0.push((name.to_owned(), shape.to_vec()));
        Ok(true)
    }
}

/// The published names and shapes of a model's tensors.
fn names(config: &Config) -> Result<Vec<(String, Vec<usize>)>, CheckError> {
    let mut names = Names::default();
    let mut loader = Loader::new(&mut names, Placement::new(Device::flex(), Precision::Bf16));
    match (&config.model, &config.head) {
        (ModelConfig::Gemma2(body), Head::CausalLm) => Gemma2::load(body, &mut loader).map(drop)?,
        (
            ModelConfig::Llama(body),
            &Head::ArmoRm { num_objectives, gating_hidden_dim, gating_n_hidden, gating_temperature },
        ) => {
            let head = ArmoRmConfig {
                n_objectives: num_objectives,
                gating_hidden_dim,
                gating_n_hidden,
                gating_temperature,
                pad_id: config.pad_token_id,
                gating_pattern: GATE_PATTERN.to_vec(),
            };
            let body = Llama::load_body(body, &mut loader)?;
            ArmoRm::load(body, head, &mut loader).map(drop)?;
        }
        (model, head) => {
            return Err(CheckError::Shape { what: format!("another model than {model:?} with {head:?}") });
        }
    }
    Ok(names.0)
}

/// A checkpoint has to have a tokenizer. Here it is a list of words, of which only the template's are ever read.
fn write_tokenizer(folder: &Path, n_vocabulary: usize) -> Result<(), CheckError> {
    // The two prompts that the template's own tokens are found by.
    let word = |id: usize| match id {
        3 => "a".to_owned(),
        4 => "7".to_owned(),
        _ => format!("w{id}"),
    };
    let vocabulary: Map<String, Value> = (0..n_vocabulary).map(|id| (word(id), json!(id))).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "w0"},
    });
    let template = "{% for message in messages %}w5 w6 {{ message.content }} w7 {% endfor %}\
                    {% if add_generation_prompt %}w5 w8 w9{% endif %}";
    let write = |name: &str, value: Value| {
        let file = folder.join(name);
        fs::write(&file, value.to_string()).map_err(|source| CheckError::Write { file, source })
    };
    write("tokenizer.json", tokenizer)?;
    write("tokenizer_config.json", json!({"chat_template": template}))
}

#[cfg(test)]
mod tests {
    use sluice_lm::checkpoint::Checkpoint;
    use sluice_lm::model::{check, load_reward};
    use sluice_lm::reward::RewardModel;

    use super::*;
    use crate::bench::shape::Shape;

    #[test]
    fn what_is_written_loads_and_opens_an_answer_as_the_gate_expects() {
        for config in [Shape::Tiny.policy(), Shape::Tiny.reward()].into_iter().flatten() {
            let folder = tempfile::tempdir().expect("a temporary folder");
            write(folder.path(), &config).expect("the folder takes it");
            let checkpoint = Checkpoint::open(folder.path()).expect("it opens");
            check(&checkpoint).expect("every tensor is there");
            if let Ok(RewardModel::ArmoRm(model)) = load_reward(&checkpoint, &Device::flex()) {
                assert_eq!(model.config().gating_pattern, GATE_PATTERN);
            }
        }
    }
}

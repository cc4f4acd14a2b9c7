//! A checkpoint of five million fresh weights, written once so that both sides load the same files.

use std::error::Error;
use std::fs;
use std::path::Path;

use burn::tensor::Device;
use serde_json::{Map, Value, json};
use sluice_lm::checkpoint::{CheckpointWriter, Companions};
use sluice_lm::config::{Attention, Config, Dtype, Gemma2Config, Head, ModelConfig};
use sluice_lm::gemma2::Gemma2;
use sluice_lm::weights::{FreshWeights, Loader};
use tempfile::TempDir;

const VOCAB_SIZE: usize = 4096;

/// Writes the checkpoint into a folder that is gone after the benchmark.
pub fn write() -> Result<TempDir, Box<dyn Error>> {
    let (source, folder) = (TempDir::new()?, TempDir::new()?);
    write_tokenizer(source.path())?;
    let config = config();
    let mut weights = FreshWeights::new(1, 0.02, 0.0);
    let ModelConfig::Gemma2(sizes) = &config.model else { return Err("the model is a Gemma 2".into()) };
    let mut model = Gemma2::load(sizes, &mut Loader::new(&mut weights, &Device::flex()))?;
    let mut writer = CheckpointWriter::new(folder.path());
    writer.parameters(&mut model, Dtype::F32)?;
    writer.finish(Companions { config: &config, dtype: Dtype::F32, source: source.path(), card: "" })?;
    Ok(folder)
}

fn config() -> Config {
    let layer = |index: usize| if index.is_multiple_of(2) { Attention::Sliding } else { Attention::Global };
    Config {
        model: ModelConfig::Gemma2(Gemma2Config {
            vocab_size: VOCAB_SIZE,
            hidden_size: 256,
            n_layers: 4,
            n_heads: 4,
            n_kv_heads: 2,
            head_dim: 64,
            intermediate_size: 1024,
            query_pre_attn_scalar: 64.0,
            attn_softcap: Some(50.0),
            final_softcap: Some(30.0),
            sliding_window: 128,
            layer_types: (0..4).map(layer).collect(),
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-6,
            tie_word_embeddings: true,
            max_position_embeddings: 1024,
        }),
        head: Head::CausalLm,
        labels: Vec::new(),
        bos_token_id: Some(2),
        eos_token_ids: vec![1],
        pad_token_id: Some(0),
        dtype: Some(Dtype::F32),
    }
}

/// A checkpoint has to have a tokenizer; here it is a list of words that nobody reads.
fn write_tokenizer(folder: &Path) -> Result<(), Box<dyn Error>> {
    let vocabulary: Map<String, Value> = (0..VOCAB_SIZE).map(|id| (format!("w{id}"), json!(id))).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "w0"},
    });
    fs::write(folder.join("tokenizer.json"), tokenizer.to_string())?;
    fs::write(folder.join("tokenizer_config.json"), "{}")?;
    Ok(())
}

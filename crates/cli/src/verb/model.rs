//! `model inspect`: what a model folder is, what it costs, and what would be refused and why.

use serde_json::{Value, json};
use sluice_lm::checkpoint::Checkpoint;
use sluice_lm::config::Head;
use sluice_stages::Device;

use crate::args::Global;
use crate::exit::{Exit, Failure, Outcome};
use crate::model_folder::{causal, folder, reward};
use crate::output::out;
use crate::render::model::{Inspected, inspected};
use crate::world::World;

/// Larger models are not loaded to be looked into; their tensors are read one by one for the digest.
const LOADED_BYTES: u64 = 4_000_000_000;
/// Bytes of memory for each parameter in f32.
const RUN_BYTES: u64 = 4;
/// Weights, gradients and two moments of the optimiser, in f32.
const TRAIN_BYTES: u64 = 16;

pub fn inspect(global: &Global, world: &World, reference: &str) -> Outcome {
    let folder = folder(reference, world)?;
    let model = match Checkpoint::open(&folder) {
        Ok(model) => model,
        Err(error) => {
            let failure = Failure::new(Exit::Usage, error);
            if global.json {
                out(format!("{}\n", json!({"folder": folder.display().to_string(), "refused": failure.chain()})));
                return Ok(Exit::Usage);
            }
            return Err(failure);
        }
    };
    let digest = model.digest().map_err(|error| Failure::new(Exit::Usage, error))?;
    let n_parameters = n_parameters(&model);
    let shown = Inspected {
        folder: folder.display().to_string(),
        architecture: model.config.architecture().to_owned(),
        n_parameters,
        dtype: dtypes(&model),
        digest: digest.to_string(),
        vocab_size: model.config.model.vocab_size() as u64,
        max_positions: model.config.model.max_position_embeddings() as u64,
        has_template: model.template().is_ok(),
        stored_bytes: model.weights.n_bytes(),
        run_bytes: n_parameters * RUN_BYTES,
        train_bytes: n_parameters * TRAIN_BYTES,
        warnings: model.warnings.iter().map(|(file, warning)| format!("{}: {warning}", file.display())).collect(),
        refused: refused(&model),
    };
    out(if global.json { format!("{}\n", object(&shown)) } else { inspected(&shown, world.out) });
    Ok(if shown.refused.is_empty() { Exit::Ok } else { Exit::Usage })
}

/// Scalars of all stored tensors.
pub fn n_parameters(model: &Checkpoint) -> u64 {
    model.weights.n_elements()
}

/// The types the tensors are stored in, as `bfloat16` or `float32 and bfloat16`.
fn dtypes(model: &Checkpoint) -> String {
    let mut names: Vec<&str> = model.weights.tensors().map(|(_, tensor)| tensor.dtype.torch_name()).collect();
    names.sort_unstable();
    names.dedup();
    names.join(" and ")
}

/// Loads the model as a stage would, and tells why that fails.
fn refused(model: &Checkpoint) -> Vec<String> {
    if model.weights.n_bytes() > LOADED_BYTES {
        return Vec::new();
    }
    let loaded = match model.config.head {
        Head::CausalLm => causal(model, Device::Cpu).map(drop),
        Head::SequenceClassification { .. } | Head::ArmoRm { .. } => reward(model, Device::Cpu).map(drop),
    };
    match loaded {
        Ok(()) => Vec::new(),
        Err(failure) => failure.chain(),
    }
}

fn object(shown: &Inspected) -> Value {
    let Inspected {
        folder,
        architecture,
        n_parameters,
        dtype,
        digest,
        vocab_size,
        max_positions,
        has_template,
        stored_bytes,
        run_bytes,
        train_bytes,
        warnings,
        refused,
    } = shown;
    json!({
        "folder": folder,
        "architecture": architecture,
        "parameters": n_parameters,
        "dtype": dtype,
        "digest": digest,
        "vocab_size": vocab_size,
        "max_positions": max_positions,
        "chat_template": has_template,
        "bytes": stored_bytes,
        "run_bytes": run_bytes,
        "train_bytes": train_bytes,
        "warnings": warnings,
        "refused": refused,
    })
}

//! Reading fixtures.

use std::path::PathBuf;

use burn::tensor::Device;
use safetensors::SafeTensors;
use serde::de::DeserializeOwned;
use sluice_lm::checkpoint::Checkpoint;
use sluice_lm::gemma2::Gemma2;
use sluice_lm::model::{CausalModel, load_causal, load_reward};
use sluice_lm::reward::{ArmoRm, RewardModel};

pub fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
}

pub fn json<T: DeserializeOwned>(name: &str) -> T {
    let text = std::fs::read(path(name)).expect("the fixture is there");
    serde_json::from_slice(&text).expect("the fixture has the shape of its README")
}

/// A safetensors file of f32 tensors, read as f64.
pub struct Tensors(Vec<u8>);

impl Tensors {
    pub fn open(name: &str) -> Self {
        Self(std::fs::read(path(name)).expect("the fixture is there"))
    }

    pub fn values(&self, name: &str) -> Vec<f64> {
        let file = SafeTensors::deserialize(&self.0).expect("a safetensors file");
        let tensor = file.tensor(name).expect("the fixture has this tensor");
        assert_eq!(tensor.dtype(), safetensors::Dtype::F32, "{name}");
        let floats = tensor.data().chunks_exact(4);
        floats.map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect()
    }
}

/// The tiny Gemma 2 that the batch and the trajectories start from, with its tokenizer and template.
pub fn gemma2_tiny() -> (Checkpoint, Gemma2) {
    let checkpoint = Checkpoint::open(&path("gemma2-tiny")).expect("the checkpoint opens");
    match load_causal(&checkpoint, &Device::flex()).expect("the weights fit") {
        CausalModel::Gemma2(model) => (checkpoint, model),
        CausalModel::Llama(_) => panic!("the fixture is a Gemma 2"),
    }
}

/// The tiny ArmoRM.
pub fn armorm_tiny() -> (Checkpoint, ArmoRm) {
    let checkpoint = Checkpoint::open(&path("llama3-armorm-tiny")).expect("the checkpoint opens");
    match load_reward(&checkpoint, &Device::flex()).expect("the weights fit") {
        RewardModel::ArmoRm(model) => (checkpoint, model),
        RewardModel::Llama(_) | RewardModel::Gemma2(_) => panic!("the fixture is an ArmoRM"),
    }
}

/// Prints a row of the table of `just fidelity`.
pub fn row(folder: &str, what: &str, error: f64, tolerance: f64) {
    println!("| fixture {folder} | {what} | {error:.1e} | {tolerance:.1e} |");
}

/// Largest absolute difference.
pub fn max_abs(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(f, e)| (f - e).abs()).fold(0.0, f64::max)
}

/// Euclidean norm.
pub fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|v| v * v).sum::<f64>().sqrt()
}

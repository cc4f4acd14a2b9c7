//! Where a model's weights come from: a checkpoint, or a checkpoint below and fresh weights above it.

use std::ops::Range;

use sluice_lm::checkpoint::{Checkpoint, CheckpointError};
use sluice_lm::weights::{FreshWeights, WeightSource};

/// A checkpoint that remembers which of its tensors were asked for.
pub struct Stored<'a> {
    checkpoint: &'a Checkpoint,
    used: Vec<String>,
}

impl<'a> Stored<'a> {
    pub fn new(checkpoint: &'a Checkpoint) -> Self {
        Self { checkpoint, used: Vec::new() }
    }

    /// Names in the order they were read.
    pub fn used(&self) -> &[String] {
        &self.used
    }
}

impl WeightSource for Stored<'_> {
    fn read(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, CheckpointError> {
        self.used.push(name.to_owned());
        self.checkpoint.tensor_f32(name, shape)
    }
}

/// The body of a causal checkpoint under fresh layers and a fresh reward head.
///
/// A fresh layer begins as the identity: what it would add to the residual stream goes through `o_proj` and
/// `down_proj`, and these are zero. Each tensor of the checkpoint keeps its name, so the fresh layers are the last ones.
pub struct Grown<'a> {
    body: Stored<'a>,
    fresh: FreshWeights,
    fresh_layers: Range<usize>,
}

impl<'a> Grown<'a> {
    /// `n_layers` are those of the checkpoint; `n_fresh` more stand above them.
    pub fn new(checkpoint: &'a Checkpoint, n_layers: usize, n_fresh: usize, fresh: FreshWeights) -> Self {
        Self { body: Stored::new(checkpoint), fresh, fresh_layers: n_layers..n_layers + n_fresh }
    }
}

impl WeightSource for Grown<'_> {
    fn read(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, CheckpointError> {
        let n_values = shape.iter().product();
        let is_fresh_layer = layer_of(name).is_some_and(|layer| self.fresh_layers.contains(&layer));
        if is_fresh_layer && (name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight")) {
            return Ok(vec![0.0; n_values]);
        }
        if name.starts_with("model.") && !is_fresh_layer {
            return self.body.read(name, shape);
        }
        self.fresh.read(name, shape)
    }
}

/// The layer a tensor belongs to: 3 of `model.layers.3.mlp.up_proj.weight`.
fn layer_of(name: &str) -> Option<usize> {
    name.strip_prefix("model.layers.")?.split('.').next()?.parse().ok()
}

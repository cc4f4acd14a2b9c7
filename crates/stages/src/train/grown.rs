//! Where the weights of a grown model come from: a checkpoint below, a random stream above it.

use std::ops::Range;

use sluice_lm::checkpoint::{Checkpoint, CheckpointError};
use sluice_lm::config::Head;
use sluice_lm::model::CheckpointSource;
use sluice_lm::weights::{FreshWeights, WeightSource};

/// A checkpoint under fresh layers and, where it has none, a fresh reward head.
///
/// A fresh layer begins as the identity: what it would add to the residual stream goes through `o_proj` and
/// `down_proj`, and these are zero. Each tensor of the checkpoint keeps its name, so the fresh layers are the last ones.
pub struct Grown<'a> {
    stored: CheckpointSource<'a>,
    has_head: bool,
    fresh: FreshWeights,
    fresh_layers: Range<usize>,
}

impl<'a> Grown<'a> {
    /// `n_layers` are those of the checkpoint; `n_fresh` more stand above them.
    pub fn new(checkpoint: &'a Checkpoint, n_layers: usize, n_fresh: usize, fresh: FreshWeights) -> Self {
        Self {
            stored: CheckpointSource::new(checkpoint),
            has_head: checkpoint.config.head != Head::CausalLm,
            fresh,
            fresh_layers: n_layers..n_layers + n_fresh,
        }
    }

    /// Whether the checkpoint is to have a tensor of this name.
    fn is_stored(&self, name: &str) -> bool {
        match layer_of(name) {
            Some(layer) => !self.fresh_layers.contains(&layer),
            None => name.starts_with("model.") || self.has_head,
        }
    }
}

impl WeightSource for Grown<'_> {
    fn read(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, CheckpointError> {
        if self.is_stored(name) {
            return self.stored.read(name, shape);
        }
        if layer_of(name).is_some() && (name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight")) {
            return Ok(vec![0.0; shape.iter().product()]);
        }
        self.fresh.read(name, shape)
    }
}

/// The layer a tensor belongs to: 3 of `model.layers.3.mlp.up_proj.weight`.
fn layer_of(name: &str) -> Option<usize> {
    name.strip_prefix("model.layers.")?.split('.').next()?.parse().ok()
}

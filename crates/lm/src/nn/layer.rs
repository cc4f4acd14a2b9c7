//! The two halves that decoder layers share: self-attention with its projections, and the gated feed-forward unit.
//!
//! Owns their parameters and the names these are published under. Knows nothing of norms and residuals: where they stand
//! sets the architectures apart, and is to be read in their files.
//!
//! n tokens, d hidden size, f feed-forward size

use std::sync::Arc;

use burn::tensor::Tensor;

use super::Context;
use crate::checkpoint::CheckpointError;
use crate::kernel::{Activation, AttentionSpec, glu, product};
use crate::params::ParamMut;
use crate::weights::Loader;

/// The published name of a weight of a layer: `model.layers.3.mlp.up_proj.weight` of `mlp.up_proj`.
pub fn of_layer(layer: usize, rest: &str) -> String {
    format!("model.layers.{layer}.{rest}.weight")
}

/// Queries, keys and values, attention, and the way back.
#[derive(Clone, Debug)]
pub struct SelfAttention {
    q_proj: Tensor<2>,
    k_proj: Tensor<2>,
    v_proj: Tensor<2>,
    o_proj: Tensor<2>,
    pub spec: Arc<AttentionSpec>,
}

impl SelfAttention {
    /// Reads the projections of a layer of hidden size `d`.
    pub fn load(
        layer: usize,
        d: usize,
        spec: Arc<AttentionSpec>,
        loader: &mut Loader<'_>,
    ) -> Result<Self, CheckpointError> {
        let (q, kv) = (spec.n_heads * spec.head_dim, spec.n_kv_heads * spec.head_dim);
        Ok(Self {
            q_proj: loader.linear(&of_layer(layer, "self_attn.q_proj"), d, q)?,
            k_proj: loader.linear(&of_layer(layer, "self_attn.k_proj"), d, kv)?,
            v_proj: loader.linear(&of_layer(layer, "self_attn.v_proj"), d, kv)?,
            o_proj: loader.linear(&of_layer(layer, "self_attn.o_proj"), q, d)?,
            spec,
        })
    }

    /// What layer number `layer` reads from its context: `[n, d]` to `[n, d]`.
    pub fn forward(&self, h_nd: Tensor<2>, layer: usize, context: &mut Context<'_>) -> Tensor<2> {
        let q = product(h_nd.clone(), &self.q_proj);
        let k = product(h_nd.clone(), &self.k_proj);
        let v = product(h_nd, &self.v_proj);
        product(context.attend(layer, q, k, v, &self.spec), &self.o_proj)
    }

    /// Visits the projections in the order they are read.
    pub fn walk(&mut self, layer: usize, visit: &mut dyn FnMut(&str, ParamMut<'_>)) {
        let Self { q_proj, k_proj, v_proj, o_proj, spec: _ } = self;
        visit(&of_layer(layer, "self_attn.q_proj"), ParamMut::Linear(q_proj));
        visit(&of_layer(layer, "self_attn.k_proj"), ParamMut::Linear(k_proj));
        visit(&of_layer(layer, "self_attn.v_proj"), ParamMut::Linear(v_proj));
        visit(&of_layer(layer, "self_attn.o_proj"), ParamMut::Linear(o_proj));
    }
}

/// A gated feed-forward unit: `(activation(h · gate) ⊙ (h · up)) · down`.
#[derive(Clone, Debug)]
pub struct Mlp {
    gate_proj: Tensor<2>,
    up_proj: Tensor<2>,
    down_proj: Tensor<2>,
    activation: Activation,
}

impl Mlp {
    /// Reads the unit of a layer of hidden size `d`, `f` wide.
    pub fn load(
        layer: usize,
        [d, f]: [usize; 2],
        activation: Activation,
        loader: &mut Loader<'_>,
    ) -> Result<Self, CheckpointError> {
        Ok(Self {
            gate_proj: loader.linear(&of_layer(layer, "mlp.gate_proj"), d, f)?,
            up_proj: loader.linear(&of_layer(layer, "mlp.up_proj"), d, f)?,
            down_proj: loader.linear(&of_layer(layer, "mlp.down_proj"), f, d)?,
            activation,
        })
    }

    /// `[n, d]` to `[n, d]`.
    pub fn forward(&self, h_nd: Tensor<2>) -> Tensor<2> {
        let gate_nf = product(h_nd.clone(), &self.gate_proj);
        let up_nf = product(h_nd, &self.up_proj);
        product(glu(gate_nf, up_nf, self.activation), &self.down_proj)
    }

    /// Visits the projections in the order they are read.
    pub fn walk(&mut self, layer: usize, visit: &mut dyn FnMut(&str, ParamMut<'_>)) {
        let Self { gate_proj, up_proj, down_proj, activation: _ } = self;
        visit(&of_layer(layer, "mlp.gate_proj"), ParamMut::Linear(gate_proj));
        visit(&of_layer(layer, "mlp.up_proj"), ParamMut::Linear(up_proj));
        visit(&of_layer(layer, "mlp.down_proj"), ParamMut::Linear(down_proj));
    }
}

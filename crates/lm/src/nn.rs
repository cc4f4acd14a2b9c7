//! What the architectures share around the fused operations: the halves of a layer, the embedding lookup and the two
//! ways to attend. Knows nothing of configurations or files.
//!
//! n tokens, d hidden size

mod layer;

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::kernel::{AttentionSpec, CachedSegment, LayerCache, self_attention};
use crate::packed::Segment;

pub use layer::{Mlp, SelfAttention, of_layer};

/// Where the tokens of a forward pass stand: packed sequences, or new tokens after those in a cache.
pub enum Context<'a> {
    /// Every sequence from its first token on.
    Packed(&'a Arc<[Segment]>),
    /// New tokens of cached sequences, one cache per layer.
    Cached(&'a Arc<[CachedSegment]>, &'a mut [LayerCache]),
}

impl Context<'_> {
    /// Attention of one layer.
    pub fn attend(
        &mut self,
        layer: usize,
        q: Tensor<2>,
        k: Tensor<2>,
        v: Tensor<2>,
        spec: &Arc<AttentionSpec>,
    ) -> Tensor<2> {
        match self {
            Self::Packed(segments) => self_attention(q, k, v, segments, spec),
            Self::Cached(segments, layers) => layers[layer].attend(q, k, v, segments, spec),
        }
    }
}

/// Indices as a tensor.
pub fn index(values: impl Iterator<Item = usize>, device: &Device) -> Tensor<1, Int> {
    let values: Vec<i64> = values.map(|value| value as i64).collect();
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n]), device)
}

/// Token ids as a tensor.
pub fn token_ids(ids: &[u32], device: &Device) -> Tensor<1, Int> {
    index(ids.iter().map(|id| *id as usize), device)
}

/// Rows `ids` of the embedding table: `[n, d]`.
pub fn embed(table_wd: &Tensor<2>, ids_n: Tensor<1, Int>) -> Tensor<2> {
    table_wd.clone().select(0, ids_n)
}

/// Rows `rows` of the hidden states: `[m, d]`.
pub fn pick(hidden_nd: Tensor<2>, rows: &[usize]) -> Tensor<2> {
    let rows = index(rows.iter().copied(), &hidden_nd.device());
    hidden_nd.select(0, rows)
}

/// The same matrix with its storage in row order, whatever view it was.
pub fn laid_out(matrix: Tensor<2>) -> Tensor<2> {
    let (device, dtype) = (matrix.device(), matrix.dtype());
    Tensor::from_data(matrix.into_data(), (&device, dtype))
}

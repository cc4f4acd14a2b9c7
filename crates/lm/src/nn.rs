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
///
/// # Panics
/// As [`expect_known`].
pub fn token_ids(ids: &[u32], n_vocabulary: usize, device: &Device) -> Tensor<1, Int> {
    expect_known(ids, n_vocabulary);
    index(ids.iter().map(|id| *id as usize), device)
}

/// Looks at token ids while they are on the host: past the end of a table a GPU reads what lies there, and says nothing.
///
/// # Panics
/// On an id that has no row of the vocabulary's `n_vocabulary`; loading a checkpoint has seen that its tokenizer has none.
#[track_caller]
pub fn expect_known(ids: &[u32], n_vocabulary: usize) {
    if let Some(place) = ids.iter().position(|id| *id as usize >= n_vocabulary) {
        let (id, n) = (ids[place], ids.len());
        panic!("token {id}, at place {place} of {n}, is past the vocabulary, which has {n_vocabulary}");
    }
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

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::kernel::token_logps;

    fn devices() -> Vec<Device> {
        let mut devices = vec![Device::flex()];
        devices.extend(compiled());
        devices
    }

    fn compiled() -> Option<Device> {
        #[cfg(feature = "cube-cpu")]
        return Some(Device::cpu());
        #[cfg(not(feature = "cube-cpu"))]
        None
    }

    fn said(work: impl FnOnce()) -> String {
        let panicked = catch_unwind(AssertUnwindSafe(work)).expect_err("the token is past the vocabulary");
        panicked.downcast_ref::<String>().expect("the message has numbers in it").clone()
    }

    /// Of a batch as of targets, whatever the device.
    #[test]
    fn a_token_past_the_vocabulary_is_named() {
        for device in devices() {
            let table_wd = Tensor::<2>::ones([5, 3], &device);
            let (last, past) = ([0, 4], [0, 4, 5, 9]);
            assert_eq!(embed(&table_wd, token_ids(&last, 5, &device)).dims(), [2, 3]);
            let hidden = |n| Tensor::<2>::ones([n, 3], &device);
            assert_eq!(token_logps(hidden(2), table_wd.clone(), &last, None).dims(), [2]);
            let want = "token 5, at place 2 of 4, is past the vocabulary, which has 5";
            assert_eq!(said(|| drop(token_ids(&past, 5, &device))), want);
            assert_eq!(said(|| drop(token_logps(hidden(4), table_wd.clone(), &past, None))), want);
        }
    }
}

//! What is done to the rows of a large matrix between two products: attention weights from scores, log-probabilities from
//! logits, heads turned to their positions, and their gradients; and a token drawn from logits.
//!
//! Owns the operations for devices whose products are the backend's own: each reads a row a few times and keeps nothing of
//! it. On CubeCL devices they are kernels (`rows/cube.rs`), on the CPU compositions of tensor operations (`rows/plain.rs`),
//! which the kernels are compared with. Knows nothing of heads and models: a row is a row.
//!
//! r rows, s columns

#[cfg(feature = "cube")]
pub(super) mod cube;
mod plain;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
#[cfg(feature = "fused")]
use burn::tensor::Shape;
use burn::tensor::Tensor;

use super::attention::Rope;
use crate::precision::Precision;

/// Which columns of a row of attention scores count, and what is done to them first.
///
/// Rows come sequence by sequence, within one query head by query head, and within that query by query, whose positions
/// follow each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreSpec {
    pub n_heads: usize,
    pub n_queries: usize,
    /// Position of the key of the first column.
    pub first_key: usize,
    /// How many keys a query sees, itself included; all earlier ones where absent.
    pub window: Option<usize>,
    /// Factor on a score, before everything else.
    pub scale: f32,
    /// `cap · tanh(score / cap)`.
    pub softcap: Option<f32>,
}

/// How a token is drawn: the filters of [`crate::sampling::Sampling`], in their order; `None` leaves one out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DrawSpec {
    /// Above 0.
    pub temperature: f32,
    pub top_k: Option<usize>,
    pub top_p: Option<f32>,
    pub min_p: Option<f32>,
}

/// Scores further below the largest than this have no weight that counts.
const LOWEST: f32 = 1e4;

/// Operations on rows of f32, and the products that make them, outside the tape.
#[backend_extension(Cube: cfg(feature = "cube"), Flex, Fusion: cfg(feature = "fused"))]
pub trait Rows: Backend {
    /// `lhs · rhs` of matrices or batches of them in one precision; the result is in f32, whatever they are.
    #[fusion(meta = fused::product)]
    fn product(lhs: FloatTensor<Self>, rhs: FloatTensor<Self>) -> FloatTensor<Self>;

    /// See [`weights`].
    #[fusion(meta = fused::weights)]
    fn weights(
        scores: FloatTensor<Self>,
        starts: Arc<[u32]>,
        spec: ScoreSpec,
        held: Precision,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// See [`weights_backward`].
    #[fusion(meta = fused::weights_backward)]
    fn weights_backward(
        scores: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        starts: Arc<[u32]>,
        spec: ScoreSpec,
        held: Precision,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// See [`turned`].
    #[fusion(meta = fused::turned)]
    fn turned(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        positions: Arc<[u32]>,
        direction: f32,
        held: Precision,
    ) -> FloatTensor<Self>;

    /// See [`logps`].
    #[fusion(dtype = logits, shape = Shape::from([logits[0]]))]
    fn logps(logits: FloatTensor<Self>, targets: Arc<[u32]>, softcap: Option<f32>) -> FloatTensor<Self>;

    /// See [`logps_backward`].
    #[fusion(meta = fused::logps_backward)]
    fn logps_backward(
        logits: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        targets: Arc<[u32]>,
        softcap: Option<f32>,
        held: Precision,
    ) -> FloatTensor<Self>;

    /// See [`drawn`].
    #[fusion(dtype = logits, shape = Shape::from([logits[0], 2]))]
    fn drawn(logits: FloatTensor<Self>, uniforms: Arc<[f32]>, spec: Option<DrawSpec>) -> FloatTensor<Self>;
}

/// Shapes and types of what an operation gives, for a backend that runs it later.
#[cfg(feature = "fused")]
mod fused {
    use burn::backend::fusion::custom::TensorSpec;
    use burn::tensor::{DType, Shape};

    use super::{Arc, Precision, ScoreSpec};

    fn held_as(shape: &Shape, held: Precision) -> TensorSpec {
        TensorSpec::new(shape.clone(), held.dtype())
    }

    pub fn product(lhs: &TensorSpec, rhs: &TensorSpec) -> TensorSpec {
        let (mut shape, last) = (lhs.shape.clone(), lhs.shape.rank() - 1);
        shape[last] = rhs.shape[last];
        TensorSpec::new(shape, DType::F32)
    }

    pub fn weights(
        scores: &TensorSpec,
        _starts: &Arc<[u32]>,
        _spec: &ScoreSpec,
        held: &Precision,
    ) -> (TensorSpec, TensorSpec) {
        let sums = TensorSpec::new(Shape::from([scores.shape[0]]), DType::F32);
        (held_as(&scores.shape, *held), sums)
    }

    pub fn weights_backward(
        scores: &TensorSpec,
        _lse: &TensorSpec,
        _grad: &TensorSpec,
        _starts: &Arc<[u32]>,
        _spec: &ScoreSpec,
        held: &Precision,
    ) -> (TensorSpec, TensorSpec) {
        (held_as(&scores.shape, *held), held_as(&scores.shape, *held))
    }

    pub fn turned(
        x: &TensorSpec,
        _cos: &TensorSpec,
        _sin: &TensorSpec,
        _positions: &Arc<[u32]>,
        _direction: &f32,
        held: &Precision,
    ) -> TensorSpec {
        held_as(&x.shape, *held)
    }

    pub fn logps_backward(
        logits: &TensorSpec,
        _grad: &TensorSpec,
        _targets: &Arc<[u32]>,
        _softcap: &Option<f32>,
        held: &Precision,
    ) -> TensorSpec {
        held_as(&logits.shape, *held)
    }
}

/// `lhs · rhs` of matrices or batches of them, summed and left in f32.
pub fn product<const D: usize>(lhs: Tensor<D>, rhs: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as Rows>::product(lhs.into_dispatch(), rhs.into_dispatch()))
}

/// Attention weights `[r, s]` of raw scores in f32, and the logarithm of each row's sum `[r]` in nats: the softmax over the
/// columns that count, 0 elsewhere, computed in f32 and held as asked. `starts` are the positions of each sequence's first
/// query.
pub fn weights(scores_rs: Tensor<2>, starts: &Arc<[u32]>, spec: ScoreSpec, held: Precision) -> (Tensor<2>, Tensor<1>) {
    let (weights, lse) = <Dispatch as Rows>::weights(scores_rs.into_dispatch(), starts.clone(), spec, held);
    (Tensor::from_dispatch(weights), Tensor::from_dispatch(lse))
}

/// The weights again, from the logarithms of the sums, and the gradient of the raw scores from that of the weights: for
/// `w = softmax(c(x))` it is `c'(x) · w · (grad − Σ w · grad)`.
pub fn weights_backward(
    scores_rs: Tensor<2>,
    lse_r: Tensor<1>,
    grad_rs: Tensor<2>,
    starts: &Arc<[u32]>,
    spec: ScoreSpec,
    held: Precision,
) -> (Tensor<2>, Tensor<2>) {
    let (weights, grad) = <Dispatch as Rows>::weights_backward(
        scores_rs.into_dispatch(),
        lse_r.into_dispatch(),
        grad_rs.into_dispatch(),
        starts.clone(),
        spec,
        held,
    );
    (Tensor::from_dispatch(weights), Tensor::from_dispatch(grad))
}

/// Heads `[n, heads · d]` turned to the positions of their rows by the tables of `rope`, computed in f32; a `direction` of −1
/// turns them back.
pub fn turned(x: Tensor<2>, rope: &Rope, positions: &Arc<[u32]>, direction: f32, held: Precision) -> Tensor<2> {
    let (cos, sin) = rope.on(&x.device());
    Tensor::from_dispatch(<Dispatch as Rows>::turned(
        x.into_dispatch(),
        cos.into_dispatch(),
        sin.into_dispatch(),
        positions.clone(),
        direction,
        held,
    ))
}

/// Log-probabilities `[r]` in nats of given tokens under `softcap(logits[r, w])`, from logits in f32.
pub fn logps(logits_rw: Tensor<2>, targets: &[u32], softcap: Option<f32>) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as Rows>::logps(logits_rw.into_dispatch(), targets.into(), softcap))
}

/// The gradient of the raw logits from that of the log-probabilities, computed in f32 and held as asked.
pub fn logps_backward(
    logits_rw: Tensor<2>,
    grad_r: Tensor<1>,
    targets: &[u32],
    softcap: Option<f32>,
    held: Precision,
) -> Tensor<2> {
    let (logits, grad) = (logits_rw.into_dispatch(), grad_r.into_dispatch());
    Tensor::from_dispatch(<Dispatch as Rows>::logps_backward(logits, grad, targets.into(), softcap, held))
}

/// A token from each row of `logits[r, w]` in f32, and its log-probability in nats under the row as it is: `[r, 2]`.
///
/// Without a `spec` it is the largest logit, of equal ones the first. With one it is the token at `uniforms[row]`, in [0, 1),
/// of the cumulative probability of those that the filters leave, in the order of the ids: what
/// [`crate::sampling::draw`] draws, as far as sums in f32 can tell. They differ where the number falls within the rounding of
/// a sum (some 1e-6 of it) of the border between two tokens, and where scores at the cut of `top_p` are equal: all of them
/// stay here, there the lower ids.
///
/// Ids below 2^24 are exact in f32. A row without a finite logit, or with one that is not a number, gives a log-probability
/// that is not finite.
pub fn drawn(logits_rw: Tensor<2>, uniforms: &[f32], spec: Option<DrawSpec>) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as Rows>::drawn(logits_rw.into_dispatch(), uniforms.into(), spec))
}

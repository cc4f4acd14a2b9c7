//! Adding to rows of a large sum where it lies.
//!
//! Owns how the gradient of a table with a row for each token is summed: in f32, whatever the table is held in, into a sum
//! that nobody else holds, and a slice of the table at a time, so that besides the sum nothing of the table's size exists.
//! Knows nothing of whose sum it is.
//!
//! m picked rows, d hidden size, w vocabulary, r rows that are added to, n numbers of a table

#[cfg(feature = "cube")]
mod cube;

use std::ops::Range;
use std::sync::Arc;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::Tensor;
use rayon::prelude::*;

/// Bytes of a table's gradient that exist at one time beside the sum, at most; or 128 rows.
pub const SLICE_BYTES: usize = 128 << 20;

/// Numbers that a thread adds together.
const BLOCK: usize = 32_768;

/// An operation outside the tape, in f32.
#[backend_extension(Cube: cfg(feature = "cube"), Flex, Fusion: cfg(feature = "fused"))]
pub trait Sums: Backend {
    /// See [`rows_added`].
    #[fusion(dtype = sum, shape = sum)]
    fn rows_added(sum: FloatTensor<Self>, part: FloatTensor<Self>, rows: Arc<[u32]>) -> FloatTensor<Self>;
}

/// The flat sum of a table `[w, d]` with row `i` of the part added to its row `rows[i]`; no row stands there twice. The sum is
/// changed in its place if nobody else holds it.
pub fn rows_added(sum_n: Tensor<1>, part_rd: Tensor<2>, rows: impl IntoIterator<Item = usize>) -> Tensor<1> {
    let rows = rows.into_iter().map(|row| row as u32).collect();
    Tensor::from_dispatch(<Dispatch as Sums>::rows_added(sum_n.into_dispatch(), part_rd.into_dispatch(), rows))
}

/// The flat sum of a table's gradient with that of some logits added, `dlogitsᵀ · hidden`. Rows of logits may come in several
/// parts; `product` multiplies and gives f32.
pub fn product_added(
    sum_n: Tensor<1>,
    dlogits_mw: &[Tensor<2>],
    hidden_md: &Tensor<2>,
    product: impl Fn(Tensor<2>, Tensor<2>) -> Tensor<2>,
) -> Tensor<1> {
    let slices = slices(dlogits_mw[0].dims()[1], rows_of_slice(hidden_md.dims()[1]));
    added_by(slices, sum_n, dlogits_mw, hidden_md, product)
}

fn added_by(
    slices: impl Iterator<Item = Range<usize>>,
    sum_n: Tensor<1>,
    dlogits_mw: &[Tensor<2>],
    hidden_md: &Tensor<2>,
    product: impl Fn(Tensor<2>, Tensor<2>) -> Tensor<2>,
) -> Tensor<1> {
    slices.into_iter().fold(sum_n, |sum_n, slice| {
        let columns = |part: &Tensor<2>| part.clone().narrow(1, slice.start, slice.len());
        // Laid together, which copies, only where there is something to lay together.
        let dlogits_mr = match dlogits_mw {
            [whole] => columns(whole),
            parts => Tensor::cat(parts.iter().map(columns).collect(), 0),
        };
        rows_added(sum_n, product(dlogits_mr.transpose(), hidden_md.clone()), slice)
    })
}

/// Rows of a table `[w, d]` whose gradients exist at one time: a multiple of a product's tile.
pub fn rows_of_slice(hidden: usize) -> usize {
    const TILE: usize = 128;
    (SLICE_BYTES / (size_of::<f32>() * hidden.max(1)) / TILE * TILE).max(TILE)
}

fn slices(n_rows: usize, n_slice: usize) -> impl Iterator<Item = Range<usize>> {
    (0..n_rows).step_by(n_slice).map(move |start| start..(start + n_slice).min(n_rows))
}

impl Sums for Flex {
    fn rows_added(mut sum: FloatTensor<Self>, part: FloatTensor<Self>, rows: Arc<[u32]>) -> FloatTensor<Self> {
        let d = part.shape()[1];
        let part = if part.as_slice::<f32>().is_some() { part } else { part.to_contiguous() };
        let (part, sums) = (part.as_slice::<f32>().expect("gradients are summed in f32"), sum.storage_mut::<f32>());
        let Some(first) = rows.first().map(|row| *row as usize) else { return sum };
        let add = |(sum, part): (&mut [f32], &[f32])| sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        if rows.iter().enumerate().all(|(i, row)| *row as usize == first + i) {
            sums[first * d..][..part.len()].par_chunks_mut(BLOCK).zip(part.par_chunks(BLOCK)).for_each(add);
        } else {
            let places = rows.iter().map(|row| *row as usize * d);
            places.zip(part.chunks_exact(d)).for_each(|(at, part)| add((&mut sums[at..at + d], part)));
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::weights::values;

    fn tensor<const D: usize>(values: &[f32], shape: [usize; D]) -> Tensor<D> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
    }

    #[test]
    fn rows_go_to_their_places() {
        let sum = || tensor(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [6]);
        let part = tensor(&[10.0, 20.0, 30.0, 40.0], [2, 2]);
        assert_eq!(values(rows_added(sum(), part.clone(), [1, 2])), [1.0, 2.0, 13.0, 24.0, 35.0, 46.0]);
        assert_eq!(values(rows_added(sum(), part.clone().transpose(), [2, 0])), [21.0, 42.0, 3.0, 4.0, 15.0, 36.0]);
        assert_eq!(values(rows_added(sum(), tensor(&[], [0, 2]), [])), values(sum()));
    }

    /// A copy would be a second table.
    #[test]
    fn the_sum_stays_in_its_place() {
        let place = |sum_n: Tensor<1>| {
            let primitive = sum_n.try_into_primitive::<Flex>().expect("it is on the CPU");
            (
                primitive.as_slice::<f32>().expect("it is in f32").as_ptr(),
                Tensor::<1>::from_primitive::<Flex>(primitive),
            )
        };
        let (before, sum_n) = place(tensor(&[0.0; 6], [6]));
        let dlogits = [tensor(&[1.0; 3], [1, 3])];
        let sum_n = product_added(sum_n, &dlogits, &tensor(&[1.0, 2.0], [1, 2]), Tensor::matmul);
        let (after, sum_n) = place(rows_added(sum_n, tensor(&[1.0, 2.0], [1, 2]), [2]));
        assert_eq!((values(sum_n), after), (vec![1.0, 2.0, 1.0, 2.0, 2.0, 4.0], before));
    }

    /// Three tokens' logits over a vocabulary of three, hidden size 1, in parts and in slices.
    #[test]
    fn a_product_is_added_by_slices() {
        let dlogits = tensor(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0], [3, 3]);
        let hidden = tensor(&[1.0, 10.0, 100.0], [3, 1]);
        let parts = [dlogits.clone().narrow(0, 0, 2), dlogits.clone().narrow(0, 2, 1)];
        for dlogits in [&parts[..], &[dlogits]] {
            for n_slice in [1, 2, 3] {
                let sum = tensor(&[0.5, 0.0, 0.0], [3]);
                let sum = added_by(slices(3, n_slice), sum, dlogits, &hidden, Tensor::matmul);
                assert_eq!(values(sum), [741.5, 852.0, 963.0], "{n_slice} rows a slice");
            }
        }
    }

    #[test]
    fn slices_are_bounded() {
        assert_eq!(slices(300, rows_of_slice(1 << 20)).collect::<Vec<_>>(), [0..128, 128..256, 256..300]);
        // 128 MiB hold 9362 rows of the published Gemma's hidden size.
        assert_eq!(rows_of_slice(3584), 9344);
    }
}

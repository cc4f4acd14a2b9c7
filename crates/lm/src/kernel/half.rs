//! Products with weights held in bf16 on the CPU, summed in f32.
//!
//! Owns the widening of a weight, a strip at a time, so that it never exists in f32 whole: the backend's own product would
//! widen all of it in each call, on one thread. Knows nothing of models.
//!
//! m rows, k inner size, n columns

use std::ops::Range;

use burn::backend::flex::FlexDevice;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{DType, TensorData};
use half::bf16;
use rayon::prelude::*;

type CpuTensor = FloatTensor<Flex>;

/// Columns of a strip: its widened copy stays within a processor's caches.
const STRIP: usize = 128;

/// `x[m, k] · w[k, n]`, rounded to bf16. Only the weight has to be in bf16.
pub fn product(x: &CpuTensor, weight: &CpuTensor) -> CpuTensor {
    let [m, n] = [x.shape()[0], weight.shape()[1]];
    let strips = strips(x, weight);
    let mut out = vec![bf16::ZERO; m * n];
    out.par_chunks_mut(n.max(1)).enumerate().for_each(|(row, out)| {
        for (out, strip) in out.chunks_mut(STRIP).zip(&strips) {
            let width = out.len();
            for (out, value) in out.iter_mut().zip(&strip[row * width..][..width]) {
                *out = bf16::from_f32(*value);
            }
        }
    });
    Flex::float_from_data(TensorData::new(out, [m, n]), &FlexDevice)
}

#[inline(always)]
fn widened(x: bf16) -> f32 {
    f32::from_bits(u32::from(x.to_bits()) << 16)
}

/// The strips of `x · w` in f32, `[m, columns of the strip]` each.
fn strips(x: &CpuTensor, weight: &CpuTensor) -> Vec<Vec<f32>> {
    let [k, n] = [weight.shape()[0], weight.shape()[1]];
    let x = wide_matrix(x);
    // A weight in published order comes as the turned view of its rows.
    let turned = Flex::float_swap_dims(weight.clone(), 0, 1);
    let is_turned = weight.as_slice::<bf16>().is_none() && turned.as_slice::<bf16>().is_some();
    let whole = if is_turned { turned } else { contiguous(weight) };
    let values = elements(&whole);
    let columns: Vec<Range<usize>> = (0..n).step_by(STRIP).map(|start| start..(start + STRIP).min(n)).collect();
    let strip = |columns: &Range<usize>| {
        let width = columns.len();
        let strip = if is_turned {
            let rows = values[columns.start * k..columns.end * k].iter().map(|value| widened(*value)).collect();
            Flex::float_swap_dims(wrap(rows, [width, k]), 0, 1)
        } else {
            let row = |row: usize| values[row * n + columns.start..][..width].iter().map(|value| widened(*value));
            wrap((0..k).flat_map(row).collect(), [k, width])
        };
        let product = Flex::float_matmul(x.clone(), strip);
        product.as_slice::<f32>().expect("a product is in f32 and laid out row after row").to_vec()
    };
    columns.par_iter().map(strip).collect()
}

fn wide_matrix(x: &CpuTensor) -> CpuTensor {
    if x.dtype() == DType::F32 {
        return x.clone();
    }
    let x = contiguous(x);
    wrap(elements(&x).iter().map(|value| widened(*value)).collect(), [x.shape()[0], x.shape()[1]])
}

fn wrap(values: Vec<f32>, shape: [usize; 2]) -> CpuTensor {
    Flex::float_from_data(TensorData::new(values, shape), &FlexDevice)
}

fn contiguous(tensor: &CpuTensor) -> CpuTensor {
    if tensor.as_slice::<bf16>().is_some() { tensor.clone() } else { tensor.to_contiguous() }
}

fn elements(tensor: &CpuTensor) -> &[bf16] {
    tensor.as_slice::<bf16>().expect("bf16 tensors are laid out row after row here")
}

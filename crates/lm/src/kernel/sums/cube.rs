//! The addition as a CubeCL kernel: a unit for each number of the part.

use burn::backend::tensor::FloatTensor;
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use cubecl::prelude::*;

use super::{Arc, Sums, TensorMetadata};
use crate::kernel::elements::{one_each, owned};
use crate::kernel::rows::cube::{narrow, words};

impl Sums for CubeBackend {
    fn rows_added(sum: FloatTensor<Self>, part: FloatTensor<Self>, rows: Arc<[u32]>) -> FloatTensor<Self> {
        if rows.is_empty() {
            return sum;
        }
        let (sum, part) = (owned(sum), into_contiguous(part));
        let (count, dim) = one_each(&part, 1);
        let (rows, d) = (words(&rows, &part.device), narrow(part.shape()[1]));
        add_kernel::launch(
            &sum.client.clone(),
            count,
            dim,
            sum.required_address_type(),
            sum.clone().into_tensor_arg(),
            part.into_tensor_arg(),
            rows.into_tensor_arg(),
            d,
        );
        sum
    }
}

#[cube(launch, address_type = "dynamic")]
fn add_kernel(sum: &mut Tensor<f32>, part: &Tensor<f32>, rows: &Tensor<u32>, d: u32) {
    let d = d as usize;
    if ABSOLUTE_POS < part.len() {
        let at = rows[ABSOLUTE_POS / d] as usize * d + ABSOLUTE_POS % d;
        sum[at] += part[ABSOLUTE_POS];
    }
}

//! From published tensors to a model's parameters.
//!
//! Owns the passage between the two layouts of a linear weight and the drawing of fresh weights. Knows nothing of file
//! formats: a source hands over the values of one named tensor at a time, so that loading streams.

use burn::tensor::{Shape, Tensor, TensorData};
use half::bf16;
use rayon::prelude::*;

use crate::checkpoint::CheckpointError;
use crate::params::ParamMut;
use crate::precision::{Placement, Precision};

/// Where the values of a model's tensors come from.
pub trait WeightSource {
    /// The values of tensor `name` in row order, which must have `shape`.
    fn read(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, CheckpointError>;

    /// As [`WeightSource::read`], rounded to bf16.
    fn read_bf16(&mut self, name: &str, shape: &[usize]) -> Result<Vec<bf16>, CheckpointError> {
        Ok(self.read(name, shape)?.into_iter().map(bf16::from_f32).collect())
    }

    /// Looks whether [`WeightSource::read`] would succeed, and says whether that is all that is wanted: the tensors of the
    /// model then have no elements.
    fn check_only(&mut self, _name: &str, _shape: &[usize]) -> Result<bool, CheckpointError> {
        Ok(false)
    }
}

/// Reads tensors from a source onto a device.
pub struct Loader<'a> {
    source: &'a mut dyn WeightSource,
    placement: Placement,
}

impl<'a> Loader<'a> {
    /// A loader that puts what it reads where `placement` says, and holds it as it says.
    pub fn new(source: &'a mut dyn WeightSource, placement: impl Into<Placement>) -> Self {
        Self { source, placement: placement.into() }
    }

    /// From here on tensors are held in f32, as the heads of reward models are.
    pub fn in_f32(&mut self) -> &mut Self {
        self.placement.precision = Precision::F32;
        self
    }

    /// A vector of `n` values.
    pub fn vector(&mut self, name: &str, n: usize) -> Result<Tensor<1>, CheckpointError> {
        self.read(name, &[n], None)
    }

    /// A matrix held as published.
    pub fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Tensor<2>, CheckpointError> {
        self.read(name, &shape, None)
    }

    /// A linear weight, published `[out, in]`, held `[in, out]`.
    pub fn linear(&mut self, name: &str, n_in: usize, n_out: usize) -> Result<Tensor<2>, CheckpointError> {
        self.read(name, &[n_out, n_in], Some([n_out, n_in]))
    }

    /// A tensor in the run-time type, turned where it is a matrix to be turned.
    fn read<const D: usize>(
        &mut self,
        name: &str,
        shape: &[usize],
        turn: Option<[usize; 2]>,
    ) -> Result<Tensor<D>, CheckpointError> {
        let Placement { device, precision } = &self.placement;
        let options = (device, precision.dtype());
        if self.source.check_only(name, shape)? {
            return Ok(Tensor::zeros(Shape::from([0; D]), options));
        }
        let held_shape = turn.map_or_else(|| shape.to_vec(), |[n_rows, n_columns]| vec![n_columns, n_rows]);
        let data = match precision {
            Precision::F32 => TensorData::new(held(self.source.read(name, shape)?, turn), held_shape),
            Precision::Bf16 => TensorData::new(held(self.source.read_bf16(name, shape)?, turn), held_shape),
        };
        Ok(Tensor::from_data(data, options))
    }
}

fn held<T: Copy + Default + Send + Sync>(values: Vec<T>, turn: Option<[usize; 2]>) -> Vec<T> {
    match turn {
        Some([n_rows, n_columns]) => transposed(&values, n_rows, n_columns),
        None => values,
    }
}

/// A `[rows, columns]` matrix in row order, turned to `[columns, rows]`.
fn transposed<T: Copy + Default + Send + Sync>(values: &[T], n_rows: usize, n_columns: usize) -> Vec<T> {
    // Square tiles keep both sides of the copy within a few cache lines.
    const TILE: usize = 32;
    let mut out = vec![T::default(); values.len()];
    out.par_chunks_mut((TILE * n_rows).max(1)).enumerate().for_each(|(tile, out)| {
        let first_column = tile * TILE;
        for row_tile in (0..n_rows).step_by(TILE) {
            for (column, out) in out.chunks_exact_mut(n_rows).enumerate() {
                for row in row_tile..(row_tile + TILE).min(n_rows) {
                    out[row] = values[row * n_columns + first_column + column];
                }
            }
        }
    });
    out
}

/// The values of a parameter in the order its published tensor has.
pub fn published_values(param: &ParamMut<'_>) -> Vec<f32> {
    match param {
        ParamMut::Vector(tensor) => values((*tensor).clone()),
        ParamMut::Matrix(tensor) => values((*tensor).clone()),
        ParamMut::Linear(tensor) => {
            let [n_in, n_out] = tensor.dims();
            transposed(&values((*tensor).clone()), n_in, n_out)
        }
    }
}

/// The elements of a tensor in row order, as f32.
pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_into_vec().expect("converted to f32 just now")
}

/// Fresh weights: matrices drawn from a normal distribution, norms at their neutral value, biases at zero, the transform
/// of a reward head at the identity.
pub struct FreshWeights {
    seed: u64,
    /// Standard deviation of matrices; `initializer_range` of the published configs (0.02).
    std: f64,
    /// What a norm weight starts at: 0 where the model adds 1 to it, 1 elsewhere.
    norm: f32,
}

impl FreshWeights {
    /// Draws from `seed`: each tensor has a stream of its own, named after it, so that adding a layer moves no other.
    pub fn new(seed: u64, std: f64, norm: f32) -> Self {
        Self { seed, std, norm }
    }
}

impl WeightSource for FreshWeights {
    fn read(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, CheckpointError> {
        let n = shape.iter().product();
        if name.ends_with("norm.weight") {
            return Ok(vec![self.norm; n]);
        }
        if name.ends_with(".bias") {
            return Ok(vec![0.0; n]);
        }
        if name.ends_with("logit_scale") {
            return Ok(vec![1.0; n]);
        }
        if let ("reward_transform_matrix", &[o, _]) = (name, shape) {
            return Ok((0..n).map(|i| if i % (o + 1) == 0 { 1.0 } else { 0.0 }).collect());
        }
        let mut stream = blake3::Hasher::new_derive_key("sluice fresh weights v1")
            .update(&self.seed.to_le_bytes())
            .update(name.as_bytes())
            .finalize_xof();
        let mut uniform = || {
            let mut bytes = [0; 8];
            stream.fill(&mut bytes);
            // 53 bits, shifted by half a step: never 0, never 1.
            ((u64::from_le_bytes(bytes) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
        };
        let mut values = Vec::with_capacity(n + 1);
        while values.len() < n {
            // Box and Muller 1958: two normal draws from two uniform ones.
            let radius = self.std * (-2.0 * uniform().ln()).sqrt();
            let angle = std::f64::consts::TAU * uniform();
            values.push((radius * angle.cos()) as f32);
            values.push((radius * angle.sin()) as f32);
        }
        values.truncate(n);
        Ok(values)
    }
}

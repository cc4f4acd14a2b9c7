//! AdamW, the forms its weights and moments are kept in, and the norm of the whole gradient.
//!
//! Owns the optimiser's state, keyed by the published names of the parameters, and gradients while they accumulate.
//! Knows nothing of losses or schedules. The arithmetic of one parameter is a kernel of crate `lm`.

use std::collections::BTreeMap;

use burn::tensor::{Device, Gradients, Int, Tensor};
use rayon::iter::ParallelIterator;
use rayon::slice::ParallelSlice;
use serde::Serialize;
use sluice_lm::kernel::{AdamWSpec, SplitWeight, adamw, adamw_split};
use sluice_lm::params::{ParamMut, Parameters, held};
use sluice_lm::precision::Precision;
use sluice_lm::vocabulary::Table;

/// AdamW, Loshchilov and Hutter 2019, arXiv 1711.05101: Adam with decay applied to the weights, scaled by the rate, on
/// every parameter. Bias correction as in PyTorch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct AdamW {
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 }
    }
}

/// How weights keep what bf16 cannot hold: AdamW with a rate of 8e-7 moves a weight of 0.02 by less than a hundredth of the
/// distance to its neighbour in bf16, and rounded to nearest it never moves at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Master {
    /// Weights in f32; a step computes on copies in its own precision.
    #[default]
    F32,
    /// Weights in bf16, and apart from them the 16 bits that f32 has more: the same steps as with f32 in 4 bytes a parameter
    /// instead of 6.
    Split,
    /// Weights in bf16 alone, each update rounded up or down by chance, so that it is right on average.
    Stochastic,
}

impl Master {
    /// As pipeline files spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Split => "split",
            Self::Stochastic => "stochastic",
        }
    }
}

/// How a training keeps what it carries from step to step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keeping {
    pub master: Master,
    /// The precision of both moments. In bf16 they are rounded by chance: a second moment decays by a thousandth in a step,
    /// which is less than half the way to its neighbour in bf16, and rounded to nearest it would never decay.
    pub moments: Precision,
}

/// First and second moment of one parameter, flat, in the order its model holds it in memory.
#[derive(Clone, Debug)]
pub struct Moments {
    pub first_n: Tensor<1>,
    pub second_n: Tensor<1>,
}

/// The state of AdamW over a model.
#[derive(Clone, Debug)]
pub struct Optimizer {
    settings: AdamW,
    keeping: Keeping,
    state: State,
}

/// What an optimiser carries from step to step, by published parameter name.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Steps taken.
    pub n_steps: u64,
    pub moments: BTreeMap<String, Moments>,
    /// What split weights lack, flat, in i16.
    pub rests: BTreeMap<String, Tensor<1, Int>>,
}

impl Optimizer {
    /// A fresh state: moments are zero and come into being with the first gradient.
    pub fn new(settings: AdamW) -> Self {
        Self { settings, keeping: Keeping::default(), state: State::default() }
    }

    /// The same optimiser in another state.
    pub fn restored(self, state: State) -> Self {
        Self { state, ..self }
    }

    /// How weights and moments are kept.
    pub fn keeping(&self) -> Keeping {
        self.keeping
    }

    /// Puts the weights of a model, which are in f32, into another form. No step has been taken yet.
    pub fn keep<M: Parameters>(&mut self, model: &mut M, keeping: Keeping) {
        self.keeping = keeping;
        let master = keeping.master;
        let rests = &mut self.state.rests;
        model.walk(&mut |name, param| match param {
            ParamMut::Vector(weight) => keep(name, weight, master, rests),
            ParamMut::Matrix(weight) | ParamMut::Linear(weight) => keep(name, weight, master, rests),
        });
    }

    /// The model with its weights in f32, to the bit.
    pub fn exact<M: Parameters + Clone>(&self, model: &M) -> M {
        let mut model = match self.keeping.master {
            Master::F32 | Master::Split => model.clone(),
            Master::Stochastic => held(model, Precision::F32),
        };
        if self.keeping.master == Master::Split {
            model.walk(&mut |name, param| match param {
                ParamMut::Vector(weight) => self.complete(name, weight),
                ParamMut::Matrix(weight) | ParamMut::Linear(weight) => self.complete(name, weight),
            });
        }
        model
    }

    fn complete<const D: usize>(&self, name: &str, weight: &mut Tensor<D>) {
        let Some(rest_n) = self.state.rests.get(name) else { return };
        let shape = weight.dims();
        let split = SplitWeight { weight_n: weight.clone().reshape([-1]), rest_n: rest_n.clone() };
        *weight = split.exact().reshape(shape);
    }

    /// Steps taken.
    pub fn n_steps(&self) -> u64 {
        self.state.n_steps
    }

    /// Moments by published parameter name.
    pub fn moments(&self) -> &BTreeMap<String, Moments> {
        &self.state.moments
    }

    /// What split weights lack, by published parameter name.
    pub fn rests(&self) -> &BTreeMap<String, Tensor<1, Int>> {
        &self.state.rests
    }

    /// One step against `gradients`, each multiplied by `grad_scale`. A parameter without one stays as it is.
    pub fn step<M: Parameters>(&mut self, model: &mut M, gradients: GradientSum, learning_rate: f64, grad_scale: f64) {
        let AdamW { beta1, beta2, epsilon, weight_decay } = self.settings;
        self.state.n_steps += 1;
        let step = self.state.n_steps;
        let spec = AdamWSpec { learning_rate, beta1, beta2, epsilon, weight_decay, step, grad_scale, seed: 0 };
        let mut by_name = gradients.by_name;
        model.walk(&mut |name, param| {
            let Some(grad_n) = by_name.remove(name) else { return };
            match param {
                ParamMut::Vector(weight) => self.update(name, weight, grad_n, spec),
                ParamMut::Matrix(weight) | ParamMut::Linear(weight) => self.update(name, weight, grad_n, spec),
            }
        });
    }

    /// Updates one parameter and its moments in place. Each tensor has one owner here, so the kernel writes where the old
    /// values lie.
    fn update<const D: usize>(&mut self, name: &str, weight: &mut Tensor<D>, grad_n: Tensor<1>, spec: AdamWSpec) {
        let shape = weight.dims();
        let weight_n = weight.extract().reshape([-1]);
        let spec = AdamWSpec { seed: chance_seed(name, spec.step), ..spec };
        let Moments { first_n, second_n } = self.state.moments.remove(name).unwrap_or_else(|| {
            let zeros = || Tensor::zeros(grad_n.dims(), (&grad_n.device(), self.keeping.moments.dtype()));
            Moments { first_n: zeros(), second_n: zeros() }
        });
        let (weight_n, first_n, second_n) = match (self.keeping.master, self.state.rests.remove(name)) {
            (Master::Split, Some(rest_n)) => {
                let split = SplitWeight { weight_n, rest_n };
                let (SplitWeight { weight_n, rest_n }, first_n, second_n) =
                    adamw_split(split, first_n, second_n, grad_n, spec);
                self.state.rests.insert(name.to_owned(), rest_n);
                (weight_n, first_n, second_n)
            }
            (Master::F32 | Master::Split | Master::Stochastic, _) => adamw(weight_n, first_n, second_n, grad_n, spec),
        };
        *weight = weight_n.reshape(shape);
        self.state.moments.insert(name.to_owned(), Moments { first_n, second_n });
    }
}

fn keep<const D: usize>(
    name: &str,
    weight: &mut Tensor<D>,
    master: Master,
    rests: &mut BTreeMap<String, Tensor<1, Int>>,
) {
    match master {
        Master::F32 => {}
        Master::Split => {
            let shape = weight.dims();
            let SplitWeight { weight_n, rest_n } = SplitWeight::of(weight.extract().reshape([-1]));
            *weight = weight_n.reshape(shape);
            rests.insert(name.to_owned(), rest_n);
        }
        Master::Stochastic => *weight = Precision::Bf16.hold(weight.extract()),
    }
}

/// What the roundings of a parameter in a step depend on: nothing but which these are, so that a run that is resumed takes
/// the same ones.
fn chance_seed(name: &str, step: u64) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key("sluice stochastic rounding v1");
    hasher.update(&step.to_le_bytes()).update(name.as_bytes());
    let mut head = [0; 8];
    head.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(head)
}

/// Gradients by published parameter name, summed over micro-batches in f32.
#[derive(Default)]
pub struct GradientSum {
    by_name: BTreeMap<String, Tensor<1>>,
}

impl GradientSum {
    /// Adds the gradients of the trained parameters from a backward pass over `tracked`, the model on the tape.
    pub fn add<M: Parameters>(
        &mut self,
        tracked: &mut M,
        gradients: &mut Gradients,
        is_trained: &dyn Fn(&str) -> bool,
    ) {
        tracked.walk(&mut |name, param| {
            if !is_trained(name) {
                return;
            }
            let grad_n = match param {
                ParamMut::Vector(weight) => weight.grad_remove(gradients),
                ParamMut::Matrix(weight) | ParamMut::Linear(weight) => {
                    weight.grad_remove(gradients).map(|grad| grad.reshape([-1]))
                }
            };
            let Some(grad_n) = grad_n.map(|grad_n| Precision::F32.hold(grad_n)) else { return };
            let total_n = match self.by_name.remove(name) {
                Some(total_n) => total_n + grad_n,
                None => grad_n,
            };
            self.by_name.insert(name.to_owned(), total_n);
        });
    }

    /// The sum of a table's gradients, for what adds to it by itself: see [`Table`].
    pub fn of_table(&mut self, table: Table<'_>) -> &mut Tensor<1> {
        let zeros = || {
            let [w, d] = table.weight_wd.dims();
            Tensor::zeros([w * d], (&table.weight_wd.device(), Precision::F32.dtype()))
        };
        self.by_name.entry(table.name.to_owned()).or_insert_with(zeros)
    }

    /// Root of the sum of squares over all gradients.
    pub fn norm(&mut self) -> f64 {
        self.by_name.values_mut().map(square_sum).sum::<f64>().sqrt()
    }

    /// The gradient of one parameter, flat, in memory order.
    pub fn get(&self, name: &str) -> Option<&Tensor<1>> {
        self.by_name.get(name)
    }
}

/// Elements whose squares are summed together.
const BLOCK: usize = 32_768;

/// Elements whose squares a device makes at one time.
const PART: usize = 2048 * BLOCK;

/// Sum of squares: of fixed blocks, so that it depends neither on threads nor on length, and of their sums in f64.
fn square_sum(grad_n: &mut Tensor<1>) -> f64 {
    let device = grad_n.device();
    if device != Device::flex() {
        return square_sum_on_device(grad_n);
    }
    let data = grad_n.extract().into_data();
    let blocks: Vec<f64> = match data.as_slice::<f32>() {
        Ok(values) => values.par_chunks(BLOCK).map(|block| block.iter().map(|&g| f64::from(g).powi(2)).sum()).collect(),
        Err(_) => data.iter::<f64>().map(|g| g * g).collect(),
    };
    *grad_n = Tensor::from_data(data, &device);
    blocks.iter().sum()
}

/// The same with blocks summed in f32 where the gradient lies, along a dimension: a sum over all of a tensor is one of
/// atomic additions there, whose order nobody knows. Squares may exist, so that they are made of a part at a time.
fn square_sum_on_device(grad_n: &Tensor<1>) -> f64 {
    let [n] = grad_n.dims();
    let n_whole = n / BLOCK * BLOCK;
    let starts = (0..n_whole).step_by(PART);
    let parts =
        starts.map(|start| (start, PART.min(n_whole - start), BLOCK)).chain([(n_whole, n - n_whole, n - n_whole)]);
    let sums = parts.filter(|(_, n_elements, _)| *n_elements > 0).map(|(start, n_elements, block)| {
        let rows = grad_n.clone().narrow(0, start, n_elements).reshape([n_elements / block, block]);
        rows.square().sum_dim(1).into_data().iter::<f64>().sum::<f64>()
    });
    sums.sum()
}

/// The factor that brings a gradient of `norm` to at most `max_norm`: PyTorch's `min(1, max_norm / (norm + 1e-6))`.
pub fn clip_factor(norm: f64, max_norm: Option<f64>) -> f64 {
    max_norm.map_or(1.0, |max_norm| (max_norm / (norm + 1e-6)).min(1.0))
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, TensorData};

    use super::*;

    /// In the last places of two blocks and in what is left of a third; without such a rest; without a block; nothing at all.
    #[test]
    fn squares_are_summed_alike_on_a_device() {
        let of = |n: usize, places: &[(usize, f32)]| {
            let mut values = vec![0.0; n];
            places.iter().for_each(|(at, value)| values[*at] = *value);
            Tensor::<1>::from_data(TensorData::new(values, [n]), (&Device::flex(), DType::F32))
        };
        let places = [(BLOCK - 1, 1.0), (2 * BLOCK - 1, -1.0), (2 * BLOCK, 1.0), (2 * BLOCK + 6, -2.0), (0, 0.5)];
        for (mut grad_n, want) in [
            (of(2 * BLOCK + 7, &places), 7.25),
            (of(2 * BLOCK, &places[..2]), 2.0),
            (of(3, &[(2, -3.0)]), 9.0),
            (of(0, &[]), 0.0),
        ] {
            assert_eq!((square_sum_on_device(&grad_n), square_sum(&mut grad_n)), (want, want));
        }
    }
}

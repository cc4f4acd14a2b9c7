//! AdamW with f32 moments, and the norm of the whole gradient.
//!
//! Owns the optimiser's state, keyed by the published names of the parameters, and gradients while they accumulate.
//! Knows nothing of losses or schedules. The arithmetic of one parameter is a kernel of crate `lm`.

use std::collections::BTreeMap;

use burn::tensor::{Device, Gradients, Tensor};
use rayon::iter::ParallelIterator;
use rayon::slice::ParallelSlice;
use serde::Serialize;
use sluice_lm::kernel::{AdamWSpec, adamw};
use sluice_lm::params::{ParamMut, Parameters};

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

/// First and second moment of one parameter, flat, f32, in the order its model holds it in memory.
#[derive(Clone, Debug)]
pub struct Moments {
    pub first_n: Tensor<1>,
    pub second_n: Tensor<1>,
}

/// The state of AdamW over a model.
#[derive(Clone, Debug)]
pub struct Optimizer {
    settings: AdamW,
    n_steps: u64,
    moments: BTreeMap<String, Moments>,
}

impl Optimizer {
    /// A fresh state: moments are zero and come into being with the first gradient.
    pub fn new(settings: AdamW) -> Self {
        Self { settings, n_steps: 0, moments: BTreeMap::new() }
    }

    /// A state as [`Optimizer::moments`] and [`Optimizer::n_steps`] gave it.
    pub fn restore(settings: AdamW, n_steps: u64, moments: BTreeMap<String, Moments>) -> Self {
        Self { settings, n_steps, moments }
    }

    /// Steps taken.
    pub fn n_steps(&self) -> u64 {
        self.n_steps
    }

    /// Moments by published parameter name.
    pub fn moments(&self) -> &BTreeMap<String, Moments> {
        &self.moments
    }

    /// One step against `gradients`, each multiplied by `grad_scale`. A parameter without one stays as it is.
    pub fn step<M: Parameters>(&mut self, model: &mut M, gradients: GradientSum, learning_rate: f64, grad_scale: f64) {
        let AdamW { beta1, beta2, epsilon, weight_decay } = self.settings;
        self.n_steps += 1;
        let step = self.n_steps;
        let spec = AdamWSpec { learning_rate, beta1, beta2, epsilon, weight_decay, step, grad_scale };
        let mut by_name = gradients.by_name;
        model.walk(&mut |name, param| {
            let Some(grad_n) = by_name.remove(name) else { return };
            let moments = self.moments.remove(name);
            let moments = match param {
                ParamMut::Vector(weight) => update(weight, moments, grad_n, spec),
                ParamMut::Matrix(weight) | ParamMut::Linear(weight) => update(weight, moments, grad_n, spec),
            };
            self.moments.insert(name.to_owned(), moments);
        });
    }
}

/// Updates one parameter in place and gives back its moments. Each tensor has one owner here, so the kernel writes
/// where the old values lie.
fn update<const D: usize>(
    weight: &mut Tensor<D>,
    moments: Option<Moments>,
    grad_n: Tensor<1>,
    spec: AdamWSpec,
) -> Moments {
    let shape = weight.dims();
    let weight_n = weight.extract().reshape([-1]);
    let Moments { first_n, second_n } =
        moments.unwrap_or_else(|| Moments { first_n: grad_n.zeros_like(), second_n: grad_n.zeros_like() });
    let (weight_n, first_n, second_n) = adamw(weight_n, first_n, second_n, grad_n, spec);
    *weight = weight_n.reshape(shape);
    Moments { first_n, second_n }
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
            let Some(grad_n) = grad_n else { return };
            let total_n = match self.by_name.remove(name) {
                Some(total_n) => total_n + grad_n,
                None => grad_n,
            };
            self.by_name.insert(name.to_owned(), total_n);
        });
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

/// Sum of squares: in f64 over fixed blocks on the CPU, so that it depends neither on threads nor on length; by the
/// device's own f32 reduction elsewhere.
fn square_sum(grad_n: &mut Tensor<1>) -> f64 {
    const BLOCK: usize = 32_768;
    let device = grad_n.device();
    if device != Device::flex() {
        return grad_n.clone().square().sum().into_scalar::<f32>().into();
    }
    let data = grad_n.extract().into_data();
    let blocks: Vec<f64> = match data.as_slice::<f32>() {
        Ok(values) => values.par_chunks(BLOCK).map(|block| block.iter().map(|&g| f64::from(g).powi(2)).sum()).collect(),
        Err(_) => data.iter::<f64>().map(|g| g * g).collect(),
    };
    *grad_n = Tensor::from_data(data, &device);
    blocks.iter().sum()
}

/// The factor that brings a gradient of `norm` to at most `max_norm`: PyTorch's `min(1, max_norm / (norm + 1e-6))`.
pub fn clip_factor(norm: f64, max_norm: Option<f64>) -> f64 {
    max_norm.map_or(1.0, |max_norm| (max_norm / (norm + 1e-6)).min(1.0))
}

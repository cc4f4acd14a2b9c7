//! Naming and walking the parameters of a model.
//!
//! Owns the one walk over a model's tensors that loading, saving, optimising and counting share. Knows nothing of files
//! or of training: a visitor sees the published name of a tensor and the tensor itself.

use burn::tensor::Tensor;

use crate::precision::Precision;

/// A parameter as its model holds it.
///
/// Linear weights lie `[in, out]` in memory, since `x @ w` is then the fast row-major product, and `[out, in]` on disk.
pub enum ParamMut<'a> {
    /// A vector: norm weights, biases, scales.
    Vector(&'a mut Tensor<1>),
    /// A matrix held as it is on disk: the embedding table, a transform.
    Matrix(&'a mut Tensor<2>),
    /// The weight of a linear map: `[in, out]` in memory, `[out, in]` on disk.
    Linear(&'a mut Tensor<2>),
}

impl ParamMut<'_> {
    /// The shape the published checkpoint has for this parameter.
    pub fn published_shape(&self) -> Vec<usize> {
        match self {
            Self::Vector(tensor) => tensor.dims().to_vec(),
            Self::Matrix(tensor) => tensor.dims().to_vec(),
            Self::Linear(tensor) => {
                let [n_in, n_out] = tensor.dims();
                vec![n_out, n_in]
            }
        }
    }

    /// Number of scalars.
    pub fn n_scalars(&self) -> usize {
        self.published_shape().iter().product()
    }
}

/// A model whose parameters can be walked in a fixed order under their published names
/// (`model.layers.0.self_attn.q_proj.weight`).
pub trait Parameters {
    /// Calls `visit` once for each parameter, always in the same order.
    fn walk(&mut self, visit: &mut dyn FnMut(&str, ParamMut<'_>));

    /// Number of scalars over all parameters.
    fn n_parameters(&mut self) -> usize {
        let mut n = 0;
        self.walk(&mut |_, param| n += param.n_scalars());
        n
    }
}

/// The same model with every parameter in `precision`; shares the storage of those that are so already.
pub fn held<M: Parameters + Clone>(model: &M, precision: Precision) -> M {
    let mut model = model.clone();
    model.walk(&mut |_, param| match param {
        ParamMut::Vector(tensor) => *tensor = precision.hold(tensor.clone()),
        ParamMut::Matrix(tensor) | ParamMut::Linear(tensor) => *tensor = precision.hold(tensor.clone()),
    });
    model
}

/// The same model with every parameter on the autodiff tape, ready for one forward and backward pass.
///
/// Shares the storage of the plain model.
pub fn tracked<M: Parameters + Clone>(model: &M) -> M {
    tracked_where(model, |_| true)
}

/// As [`tracked`], with only those parameters on the tape whose published names are wanted.
pub fn tracked_where<M: Parameters + Clone>(model: &M, is_wanted: impl Fn(&str) -> bool) -> M {
    let mut model = model.clone();
    model.walk(&mut |name, param| match param {
        _ if !is_wanted(name) => {}
        ParamMut::Vector(tensor) => *tensor = tensor.clone().autodiff().require_grad(),
        ParamMut::Matrix(tensor) | ParamMut::Linear(tensor) => {
            *tensor = tensor.clone().autodiff().require_grad();
        }
    });
    model
}

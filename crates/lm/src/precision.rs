//! What a model's numbers are held in, and on which device they lie.
//!
//! Owns the two run-time types. Knows nothing of what weights are stored as in a file: any stored type is read into
//! either.

use burn::tensor::{DType, Device, FloatDType, Tensor};
use half::bf16;

/// What weights are held in and what activations are rounded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub enum Precision {
    /// 32 bits throughout.
    #[default]
    F32,
    /// Weights and activations in bf16, rounded where the Python library rounds in its eager bf16 run; products are summed
    /// in f32, and norms, softmax and log-probabilities are computed in f32.
    Bf16,
}

impl Precision {
    /// `f32` or `bf16`, as command lines and pipeline files spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    /// Bytes of one number.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }

    /// The tensors' type.
    pub const fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
        }
    }

    /// The precision of a tensor. Everything but bf16 counts as f32.
    pub fn of<const D: usize>(tensor: &Tensor<D>) -> Self {
        if tensor.dtype() == DType::BF16 { Self::Bf16 } else { Self::F32 }
    }

    /// The tensor held in this precision, rounded to nearest even.
    pub fn hold<const D: usize>(self, tensor: Tensor<D>) -> Tensor<D> {
        match self {
            _ if tensor.dtype() == self.dtype() => tensor,
            Self::F32 => tensor.cast(FloatDType::F32),
            Self::Bf16 => tensor.cast(FloatDType::BF16),
        }
    }

    /// f32 values rounded as if they had been held in this precision; they stay in f32.
    pub fn round<const D: usize>(self, wide: Tensor<D>) -> Tensor<D> {
        match self {
            Self::F32 => wide,
            Self::Bf16 => wide.cast(FloatDType::BF16).cast(FloatDType::F32),
        }
    }

    /// A single number rounded to this precision.
    pub fn round_scalar(self, x: f64) -> f64 {
        match self {
            Self::F32 => x,
            Self::Bf16 => bf16::from_f64(x).to_f64(),
        }
    }
}

/// Where a model's weights go and what they are held in.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    pub device: Device,
    pub precision: Precision,
}

impl Placement {
    pub fn new(device: Device, precision: Precision) -> Self {
        Self { device, precision }
    }
}

/// In f32.
impl From<&Device> for Placement {
    fn from(device: &Device) -> Self {
        Self::new(device.clone(), Precision::F32)
    }
}

impl From<&Placement> for Placement {
    fn from(placement: &Placement) -> Self {
        placement.clone()
    }
}

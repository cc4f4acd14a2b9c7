//! What the checks run on, by the names of the command line.

use std::fmt;
use std::str::FromStr;

use burn::tensor::Device;
use clap::ValueEnum;
use sluice_lm::device::{GpuError, gpu};
use sluice_lm::precision::{Placement, Precision};
use sluice_train::optimizer::Master;

/// Where tensors are put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The backend of the CPU.
    Cpu,
    /// The backend of the GPU, on the CPU.
    CubeCpu,
    Cuda(usize),
}

/// A precision as the command line names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Held {
    F32,
    Bf16,
}

impl From<Held> for Precision {
    fn from(held: Held) -> Self {
        match held {
            Held::F32 => Self::F32,
            Held::Bf16 => Self::Bf16,
        }
    }
}

/// How weights are kept, as the command line names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    F32,
    Split,
    Stochastic,
}

impl From<Form> for Master {
    fn from(form: Form) -> Self {
        match form {
            Form::F32 => Self::F32,
            Form::Split => Self::Split,
            Form::Stochastic => Self::Stochastic,
        }
    }
}

/// How this program was built, as far as the GPU's backend is concerned.
pub fn build() -> &'static str {
    match () {
        () if cfg!(feature = "cuda-nvrtc") => "cuda, kernels by NVRTC",
        () if cfg!(feature = "cuda-fused") => "cuda, operations fused, kernels by LLVM",
        () if cfg!(feature = "cuda") => "cuda, kernels by LLVM",
        () if cfg!(feature = "cube-cpu") => "the GPU's backend on the CPU, operations fused",
        () => "the CPU alone",
    }
}

/// How exact the products of a place are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    F32,
    /// Factors rounded to 10 bits, sums in f32: what the matrix units of a GPU make of f32.
    Tf32,
    Bf16,
}

/// Why a place cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error("`{0}` is no place; cpu, cube-cpu or cuda:N is needed")]
    Unknown(String),
    #[error("this build has no cube-cpu; it needs the feature of that name")]
    NoCubeCpu,
    #[error(transparent)]
    Gpu(#[from] GpuError),
}

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        match (text, text.strip_prefix("cuda:").map(str::parse)) {
            ("cpu", _) => Ok(Self::Cpu),
            ("cube-cpu", _) => Ok(Self::CubeCpu),
            (_, Some(Ok(index))) => Ok(Self::Cuda(index)),
            _ => Err(PlaceError::Unknown(text.to_owned())),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::CubeCpu => f.write_str("cube-cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl Place {
    /// Opens it: the device, and what it calls itself.
    pub fn open(self) -> Result<(Device, String), PlaceError> {
        match self {
            Self::Cpu => Ok((Device::flex(), "the CPU".to_owned())),
            #[cfg(feature = "cube-cpu")]
            Self::CubeCpu => Ok((Device::cpu(), "the CPU, by way of compiled kernels".to_owned())),
            #[cfg(not(feature = "cube-cpu"))]
            Self::CubeCpu => Err(PlaceError::NoCubeCpu),
            Self::Cuda(index) => {
                let gpu = gpu(index)?;
                Ok((gpu.device, gpu.name))
            }
        }
    }

    /// What tensors held in `precision` are multiplied with here.
    pub fn arithmetic(self, precision: Precision) -> Arithmetic {
        match (precision, self) {
            (Precision::Bf16, _) => Arithmetic::Bf16,
            (Precision::F32, Self::Cuda(_)) => Arithmetic::Tf32,
            (Precision::F32, Self::Cpu | Self::CubeCpu) => Arithmetic::F32,
        }
    }
}

impl Arithmetic {
    /// One of three values.
    pub fn pick<T>(self, f32: T, tf32: T, bf16: T) -> T {
        match self {
            Self::F32 => f32,
            Self::Tf32 => tf32,
            Self::Bf16 => bf16,
        }
    }

    /// `f32`, `tf32`, `bf16`.
    pub fn name(self) -> &'static str {
        self.pick("f32", "tf32", "bf16")
    }
}

/// A device under test.
#[derive(Clone, Debug)]
pub struct Subject {
    pub placement: Placement,
    pub arithmetic: Arithmetic,
}

impl Subject {
    /// Tensors of `precision` at an open place.
    pub fn new(place: Place, device: &Device, precision: Precision) -> Self {
        Self { placement: Placement::new(device.clone(), precision), arithmetic: place.arithmetic(precision) }
    }
}

//! The GPUs that models can run on, in this build and on this machine.
//!
//! Owns finding one without falling over where there is none, and what is kept of the kernels that are compiled and chosen
//! for it while it runs. Knows nothing of models, and nothing of how a user names a device.

use std::path::{Path, PathBuf};

use burn::tensor::Device;

/// A GPU that answers.
#[derive(Clone, Debug)]
pub struct Gpu {
    pub index: usize,
    /// As it calls itself, e.g. `NVIDIA H200`.
    pub name: String,
    /// What tensors are put on.
    pub device: Device,
}

/// Why there is no such GPU.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    #[error("this build computes on the CPU alone; cuda:{index} needs one with the feature `cuda`")]
    NotBuilt { index: usize },
    #[error(
        "there is no GPU for cuda:{index}: the NVIDIA driver's library (libcuda.so.1) is not here or lists no device; \
         where `nvidia-smi` names one, put the library's folder into LD_LIBRARY_PATH, and elsewhere use `--device cpu`"
    )]
    None { index: usize },
    #[error("there is no cuda:{index}: this machine's GPUs are {}", listed(*.n_gpus))]
    Absent { index: usize, n_gpus: usize },
    #[error(
        "kernels are compiled with NVIDIA's library of mathematical functions, and there is no nvvm/libdevice/libdevice.10.bc in \
         {}; install the CUDA toolkit or its part alone (`pip install nvidia-cuda-nvcc-cu12`), and set CUDA_PATH to the \
         folder that has nvvm in it; elsewhere use `--device cpu`",
        folders(looked_in)
    )]
    NoLibdevice { looked_in: Vec<PathBuf> },
    #[error("cuda:{index} does not start: {message}; `nvidia-smi` shows its state and who uses it")]
    Broken { index: usize, message: String },
}

/// `cuda:0 to cuda:3`.
fn listed(n_gpus: usize) -> String {
    if n_gpus == 1 { "cuda:0 alone".to_owned() } else { format!("cuda:0 to cuda:{}", n_gpus - 1) }
}

/// `/usr/local/cuda, /opt/cuda`.
fn folders(folders: &[PathBuf]) -> String {
    folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// What a GPU's allocator holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryUse {
    /// Of live tensors.
    pub used_bytes: u64,
    /// Taken from the device, those kept for later tensors included.
    pub reserved_bytes: u64,
}

/// Whether this build can use a GPU at all.
pub const fn is_built() -> bool {
    cfg!(feature = "cuda")
}

/// Number of GPUs. 0 where this build has no use for them, the driver is missing, or it lists none; opens none of them.
pub fn n_gpus() -> usize {
    #[cfg(feature = "cuda")]
    {
        Device::enumerate(burn::tensor::DeviceType::Cuda).into_vec().len()
    }
    #[cfg(not(feature = "cuda"))]
    0
}

/// Looks whether a GPU is there; does not open it.
pub fn find_gpu(index: usize) -> Result<(), GpuError> {
    if !is_built() {
        return Err(GpuError::NotBuilt { index });
    }
    match n_gpus() {
        0 => Err(GpuError::None { index }),
        n_gpus if index >= n_gpus => Err(GpuError::Absent { index, n_gpus }),
        _ => find_libdevice(std::env::var_os("CUDA_PATH").map(PathBuf::from)),
    }
}

/// Looks whether kernels can be compiled that call a mathematical function: an exponential is one. The backend looks in the
/// same places; NVRTC has the functions in itself.
fn find_libdevice(cuda_path: Option<PathBuf>) -> Result<(), GpuError> {
    const TOOLKITS: [&str; 4] = ["/usr/local/cuda", "/opt/cuda", "/usr/lib/cuda", "/usr"];
    if cfg!(feature = "cuda-nvrtc") {
        return Ok(());
    }
    let looked_in = cuda_path.map_or_else(|| TOOLKITS.map(PathBuf::from).into(), |folder| vec![folder]);
    match looked_in.iter().any(|folder| folder.join("nvvm/libdevice/libdevice.10.bc").is_file()) {
        true => Ok(()),
        false => Err(GpuError::NoLibdevice { looked_in }),
    }
}

/// Opens a GPU.
pub fn gpu(index: usize) -> Result<Gpu, GpuError> {
    find_gpu(index)?;
    open(index)
}

#[cfg(feature = "cuda")]
fn open(index: usize) -> Result<Gpu, GpuError> {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    let device = Device::cuda(index);
    // The backend has no other way to say that a context cannot be made.
    let opened = catch_unwind(AssertUnwindSafe(|| (device.identity().map(|identity| identity.name), device.sync())));
    let broken = |message: String| GpuError::Broken { index, message };
    match opened {
        Ok((name, Ok(()))) => Ok(Gpu { index, name: name.unwrap_or_default(), device }),
        Ok((_, Err(error))) => Err(broken(error.to_string())),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            Err(broken(text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()))
        }
    }
}

#[cfg(not(feature = "cuda"))]
fn open(index: usize) -> Result<Gpu, GpuError> {
    Err(GpuError::NotBuilt { index })
}

/// Whether the kernels that read and write the bits of a float are there for this device: for the CPU, and for what CubeCL
/// compiles for.
pub fn has_bit_kernels(device: &Device) -> bool {
    *device == Device::flex() || cfg!(feature = "cube")
}

/// What a device's allocator holds; `None` on the CPU.
pub fn memory_use(device: &Device) -> Option<MemoryUse> {
    let usage = device.memory_pool_usage()?;
    Some(MemoryUse { used_bytes: usage.bytes_in_use, reserved_bytes: usage.bytes_reserved })
}

/// Keeps compiled kernels, and which of them was fastest for which shape, in `folder`: one database that the next process
/// on the same kind of GPU starts from. A folder that a `cubecl.toml` or `burn.toml` names comes first.
///
/// To be called before the first use of a device; later calls change nothing. False where this build compiles no kernels
/// or the settings stand already.
pub fn keep_kernels(folder: &Path) -> bool {
    #[cfg(feature = "cube")]
    {
        use cubecl::config::cache::CacheConfig;
        use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};

        let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
        if matches!(config.environment.path, CacheConfig::Target) {
            config.environment.path = CacheConfig::Directory(folder.to_owned());
            config.compilation.cache = true;
        }
        CubeClRuntimeConfig::try_set(config)
    }
    #[cfg(not(feature = "cube"))]
    {
        let _ = folder;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(not(feature = "cuda-nvrtc"))]
    #[test]
    fn the_mathematical_functions_are_looked_for_where_the_toolkit_is() {
        let toolkit = tempfile::tempdir().expect("a temporary folder");
        let find = || find_libdevice(Some(toolkit.path().to_owned()));
        let error = find().expect_err("it is empty");
        assert!(error.to_string().contains(&format!("libdevice.10.bc in {};", toolkit.path().display())), "{error}");
        let folder = toolkit.path().join("nvvm/libdevice");
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("libdevice.10.bc"), "").expect("a file");
        assert_eq!(find(), Ok(()));
    }

    #[test]
    fn a_gpu_that_is_not_there_is_one_clear_sentence() {
        let told = |error: GpuError| error.to_string();
        let absent = |n_gpus| told(GpuError::Absent { index: 7, n_gpus });
        assert_eq!(absent(1), "there is no cuda:7: this machine's GPUs are cuda:0 alone");
        assert_eq!(absent(4), "there is no cuda:7: this machine's GPUs are cuda:0 to cuda:3");
        let error = gpu(10_000).expect_err("no machine has that many");
        let expected = match (is_built(), n_gpus()) {
            (false, _) => GpuError::NotBuilt { index: 10_000 },
            (true, 0) => GpuError::None { index: 10_000 },
            (true, n_gpus) => GpuError::Absent { index: 10_000, n_gpus },
        };
        assert_eq!(error, expected);
    }
}

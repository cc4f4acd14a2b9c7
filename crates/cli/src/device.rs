//! What models run on, and what they compute in: from the words of the command line, or else of the pipeline file, to a device
//! that is there. Refuses to know what a model is.

use sluice_lm::device::{find_gpu, is_built, keep_kernels, n_gpus};
use sluice_spec::Dtype;
use sluice_stages::{Device, Place, Precision};

use crate::args::{DeviceChoice, DtypeChoice, Global};
use crate::exit::{Exit, Failure};
use crate::world::World;

/// The device and the precision that are meant; whether the device is there is for [`found`] to say. Keys depend on both.
/// `of_file` is what the pipeline file says, if there is one.
pub fn chosen(global: &Global, of_file: Dtype) -> Device {
    let place = match global.device {
        DeviceChoice::Cpu => Place::Cpu,
        DeviceChoice::Auto if n_gpus() == 0 => Place::Cpu,
        DeviceChoice::Auto => Place::Cuda { index: 0 },
        DeviceChoice::Cuda(index) => Place::Cuda { index },
    };
    let suits = match place {
        Place::Cpu => Precision::F32,
        Place::Cuda { .. } => Precision::Bf16,
    };
    let precision = match (global.dtype, of_file) {
        (Some(DtypeChoice::F32), _) | (None, Dtype::F32) => Precision::F32,
        (Some(DtypeChoice::Bf16), _) | (None, Dtype::Bf16) => Precision::Bf16,
        // `auto` on the command line overrules the file.
        (Some(DtypeChoice::Auto), _) | (None, Dtype::Auto) => suits,
    };
    Device { place, precision }
}

/// Looks whether a device is there, before anything runs on it.
///
/// # Errors
/// `Exit::Usage`, with what is missing, for a GPU that this build or this machine has not.
pub fn found(device: Device, world: &World) -> Result<(), Failure> {
    let Place::Cuda { index } = device.place else { return Ok(()) };
    find_gpu(index).map_err(|error| Failure::new(Exit::Usage, error))?;
    keep_kernels(&world.kernels);
    Ok(())
}

/// The device of a verb that runs a model at once.
pub fn ready(global: &Global, world: &World) -> Result<Device, Failure> {
    let device = chosen(global, Dtype::Auto);
    found(device, world)?;
    Ok(device)
}

/// What a run says of its device, in a build that has a choice.
pub fn told(device: Device, choice: DeviceChoice) -> Option<String> {
    if !is_built() {
        return None;
    }
    let numerics = device.numerics();
    Some(match (device.place, choice) {
        (Place::Cuda { index }, _) => format!("models run on cuda:{index} ({numerics})"),
        (Place::Cpu, DeviceChoice::Auto) => {
            format!("models run on the CPU ({numerics}): there is no NVIDIA driver here, or it lists no GPU")
        }
        (Place::Cpu, _) => format!("models run on the CPU ({numerics})"),
    })
}

//! What models run on: from the word of the command line to a device that is there. Refuses to know what a model is.

use sluice_lm::device::{find_gpu, is_built, keep_kernels, n_gpus};
use sluice_stages::Device;

use crate::args::{DeviceChoice, Global};
use crate::exit::{Exit, Failure};
use crate::world::World;

/// The device that is meant; whether it is there is for [`found`] to say. Keys depend on it.
pub fn chosen(choice: DeviceChoice) -> Device {
    match choice {
        DeviceChoice::Cpu => Device::Cpu,
        DeviceChoice::Auto if n_gpus() == 0 => Device::Cpu,
        DeviceChoice::Auto => Device::Cuda { index: 0 },
        DeviceChoice::Cuda(index) => Device::Cuda { index },
    }
}

/// Looks whether a device is there, before anything runs on it.
///
/// # Errors
/// `Exit::Usage`, with what is missing, for a GPU that this build or this machine has not.
pub fn found(device: Device, world: &World) -> Result<(), Failure> {
    let Device::Cuda { index } = device else { return Ok(()) };
    find_gpu(index).map_err(|error| Failure::new(Exit::Usage, error))?;
    keep_kernels(&world.kernels);
    Ok(())
}

/// The device of a verb that runs a model at once.
pub fn ready(global: &Global, world: &World) -> Result<Device, Failure> {
    let device = chosen(global.device);
    found(device, world)?;
    Ok(device)
}

/// What a run says of its device, in a build that has a choice.
pub fn told(device: Device, choice: DeviceChoice) -> Option<String> {
    if !is_built() {
        return None;
    }
    let numerics = device.numerics();
    Some(match (device, choice) {
        (Device::Cuda { index }, _) => format!("models run on cuda:{index} ({numerics})"),
        (Device::Cpu, DeviceChoice::Auto) => {
            format!("models run on the CPU ({numerics}): there is no NVIDIA driver here, or it lists no GPU")
        }
        (Device::Cpu, _) => format!("models run on the CPU ({numerics})"),
    })
}

//! A CUDA driver without a GPU.
//!
//! In the place of `libcuda.so.1` it lets a program that was built for GPUs run where there is none. Kernels are compiled as
//! ever and handed over, memory is asked for and given back, work is launched: all of it is counted, within the limits of
//! one kind of card, and nothing is computed. What is read back is zeros, so no number of such a run means anything but
//! these counts. They are written at the end of the process to the file that [`REPORT`] names.
//!
//! Owns the limits and the counts ([`card`]). Knows of the driver's interface what Burn's CUDA backend calls ([`calls`]);
//! a program that calls more ends with the name of what is missing.

pub mod calls;
pub mod card;

/// The variable of the environment with the path of the report; without it nothing is written.
pub const REPORT: &str = "STAND_IN_REPORT";

/// The variable of the environment with the bytes of memory the card has, where they are not those of an H200.
pub const MEMORY: &str = "STAND_IN_MEMORY";

/// The variable of the environment with a folder that takes the code of each kernel, as `NAME.ptx`.
pub const KERNELS: &str = "STAND_IN_KERNELS";

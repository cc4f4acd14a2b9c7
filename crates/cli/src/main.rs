//! The binary `sluice`: arguments in, one verb done, an exit code out. This crate is the only one that prints and the
//! only one that looks at environment, clock, terminal and current folder; what it shows is made by the others.

mod alone;
mod args;
mod device;
mod exit;
mod history;
mod hub;
mod interrupt;
mod live;
mod log;
mod memory;
mod model_folder;
mod output;
mod pipeline_file;
mod preflight;
mod progress;
mod render;
mod secret;
mod selection;
mod session;
mod tables;
mod tested;
mod verb;
mod wire;
mod world;

use std::process::ExitCode;

use clap::Parser;
use sluice_spec::Diagnostics;

use crate::args::{Cli, Global};
use crate::exit::Failure;
use crate::world::World;

/// Every operation on the CPU allocates its result. The system's allocator gives large blocks back to the kernel each
/// time, and the page faults of getting them again cost generation up to half of its speed.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    log::start(&cli.global);
    let world = World::look(&cli.global);
    let global = cli.global.clone();
    match verb::run(cli, world.clone()) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            tell(&failure, &global, &world);
            failure.exit.into()
        }
    }
}

/// Faults of a pipeline file are shown one by one, every other failure as one message; with `--json` as JSON lines.
fn tell(failure: &Failure, global: &Global, world: &World) {
    match (failure.cause.downcast_ref::<Diagnostics>(), global.json) {
        (Some(faults), true) => {
            render::diagnostics::json(faults).iter().for_each(|fault| output::out(format!("{fault}\n")));
        }
        (Some(faults), false) => output::err(render::diagnostics::text(faults, world.err, world.columns.min(140))),
        (None, true) => output::out(format!("{}\n", render::failure::json(failure))),
        (None, false) => output::err(render::failure::text(failure, world.err)),
    }
}

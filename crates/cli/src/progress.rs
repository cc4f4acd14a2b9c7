//! A run while it happens. Owns who is told what and how often: a terminal sees one line a stage, redrawn; a file sees
//! few lines; a program sees JSON. Refuses to know how stages run.

mod bytes_read;
mod live;
mod meter;
mod plain;
mod program;
mod transfer;

use sluice_engine::Event;

use crate::args::{Global, LogFormat};
use crate::world::World;

pub use bytes_read::BytesRead;
pub use live::Live;
pub use plain::Plain;
pub use program::{JsonLines, Logged};
pub use transfer::Transfer;

/// Somebody who watches a run. Events come from several threads.
pub trait Watch: Send + Sync {
    /// Something happened.
    fn event(&self, event: &Event);

    /// The user asked to stop; `message` says what that means.
    fn interrupted(&self, message: &str);
}

/// The watcher that fits the command line and the terminal.
pub fn watcher(global: &Global, world: &World) -> Box<dyn Watch> {
    match (global.json, global.log_format) {
        (true, _) => Box::new(JsonLines::new()),
        (false, LogFormat::Json) => Box::new(Logged::new()),
        (false, LogFormat::Text) if global.quiet => Box::new(Silent),
        (false, LogFormat::Text) if world.live => Box::new(Live::new(world.err)),
        (false, LogFormat::Text) => Box::new(Plain::new(world.err)),
    }
}

/// `--quiet`.
struct Silent;

impl Watch for Silent {
    fn event(&self, _event: &Event) {}

    fn interrupted(&self, _message: &str) {}
}

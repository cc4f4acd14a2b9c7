//! Ctrl-C, and what a system sends to end a program (SIGTERM, SIGHUP): the first asks the run to stop where nothing is lost,
//! the second ends the process at once.
//! Either is safe: what is committed stays, and what is not was never visible.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::exit::Exit;

/// Installs the handler and gives the flag it sets. `announce` is called once, from another thread.
pub fn flag(announce: impl Fn() + Send + 'static) -> Arc<AtomicBool> {
    let cancel = Arc::new(AtomicBool::new(false));
    let flag = cancel.clone();
    let handler = move || {
        if flag.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(Exit::Interrupted.code()));
        }
        announce();
    };
    // Only a second handler in one process could be refused; then Ctrl-C ends the process, which is safe too.
    if let Err(error) = ctrlc::set_handler(handler) {
        tracing::debug!(%error, "no handler for interrupts");
    }
    cancel
}

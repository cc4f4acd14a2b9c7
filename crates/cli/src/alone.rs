//! Waiting for the moment in which nobody adds to the store. Owns how long and what is said meanwhile.

use std::thread;
use std::time::{Duration, Instant};

use sluice_store::StoreError;

use crate::exit::{Exit, Failure};
use crate::output::err;
use crate::session::{Session, store_failure};

/// Time between two tries.
const POLL: Duration = Duration::from_millis(20);
/// Time after which the user is told what is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// What `attempt` gives once it gives something: nothing means that somebody else is at it.
///
/// # Errors
/// `Exit::Locked` where nothing is waited for; what the store says.
pub fn alone<T>(
    session: &Session,
    no_wait: bool,
    mut attempt: impl FnMut() -> Result<Option<T>, StoreError>,
) -> Result<T, Failure> {
    let started = Instant::now();
    let mut is_told = false;
    loop {
        if let Some(done) = attempt().map_err(store_failure)? {
            return Ok(done);
        }
        if no_wait {
            let message = "another process is adding to the store, or taking away from it";
            return Err(Failure::new(Exit::Locked, message).help("try again, or leave out --no-wait to wait for it"));
        }
        if !is_told && started.elapsed() >= PATIENCE && !session.global.quiet {
            is_told = true;
            err("waiting for another process that is adding to the store\n");
        }
        thread::sleep(POLL);
    }
}

//! The threads that the store divides its work among: hashing, decoding. They are its own: those of the shared pool may be
//! at the answers of a stage for an hour, and what another stage reads or writes meanwhile would wait for them.

use std::sync::LazyLock;

use rayon::{ThreadPool, ThreadPoolBuilder};

/// Does work that rayon divides, on the store's threads. Not worth it below some hundred kilobytes.
pub(crate) fn divided<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    static THREADS: LazyLock<Option<ThreadPool>> = LazyLock::new(|| ThreadPoolBuilder::new().build().ok());
    match &*THREADS {
        Some(threads) => threads.install(work),
        None => work(),
    }
}

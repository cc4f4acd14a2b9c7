//! Locks, all of them the operating system's own (`File::lock` of the standard library): when a process dies, however it
//! dies, its locks are free, and none is ever cleaned by hand.
//!
//! | lock              | held by                                   | says                                              |
//! |-------------------|-------------------------------------------|---------------------------------------------------|
//! | `locks/KEY`       | whoever computes a key, one at a time     | a result is computed once however many want it    |
//! | `locks/r17`       | a run, from its first moment to its last  | the run is alive                                  |
//! | `locks/store`     | everybody who adds, for moments; whoever takes away, alone | what was found is there when it is named |
//!
//! A lock file that nobody holds may be removed by whoever holds it. So a lock counts only if its file still has its name
//! once it is held; otherwise a newer file is looked for.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

use crate::digest::StageKey;
use crate::error::StoreError;
use crate::layout::Layout;
use crate::runs::RunId;

/// The right to compute one key. Released when dropped, or when the process dies.
#[derive(Debug)]
pub struct KeyLock {
    key: StageKey,
    // Closing the file releases the lock.
    _file: File,
}

impl KeyLock {
    /// The key this lock is for.
    pub fn key(&self) -> StageKey {
        self.key
    }

    /// Wait until nobody else has the key.
    pub(crate) fn wait(layout: &Layout, key: StageKey) -> Result<Self, StoreError> {
        layout.create()?;
        let file = wait(&layout.lock(key), File::lock)?;
        Ok(Self { key, _file: file })
    }

    /// The lock, or `None` if somebody else has it.
    pub(crate) fn poll(layout: &Layout, key: StageKey) -> Result<Option<Self>, StoreError> {
        layout.create()?;
        let file = poll(&layout.lock(key), File::try_lock)?;
        Ok(file.map(|file| Self { key, _file: file }))
    }
}

/// The sign that a run is alive. Released when dropped, or when the process dies.
#[derive(Debug)]
pub struct RunLock {
    // Closing the file releases the lock.
    _file: File,
}

impl RunLock {
    /// The lock of a run that begins, or `None` if the number is taken.
    pub(crate) fn take(layout: &Layout, run: RunId) -> Result<Option<Self>, StoreError> {
        Ok(poll(&layout.run_lock(run), File::try_lock)?.map(|file| Self { _file: file }))
    }

    /// Whether a run is alive. Writes nothing.
    pub(crate) fn is_held(layout: &Layout, run: RunId) -> bool {
        is_held(&layout.run_lock(run))
    }
}

/// The right to add to the store, or to take away from it. Released when dropped, or when the process dies.
#[derive(Debug)]
pub struct StoreLock {
    // Closing the file releases the lock.
    _file: File,
}

impl StoreLock {
    /// The right to add, which many have at one time. Waits while somebody takes away.
    pub(crate) fn shared(layout: &Layout) -> Result<Self, StoreError> {
        Ok(Self { _file: wait(&layout.store_lock(), File::lock_shared)? })
    }

    /// The right to take away, which nobody has beside others; `None` while somebody adds or takes away.
    pub(crate) fn poll_alone(layout: &Layout) -> Result<Option<Self>, StoreError> {
        Ok(poll(&layout.store_lock(), File::try_lock)?.map(|file| Self { _file: file }))
    }
}

/// Removes a lock file unless somebody holds it. Whether it was removed.
pub(crate) fn remove_if_free(path: &Path) -> Result<bool, StoreError> {
    let free = poll(path, File::try_lock)?;
    // Removed while held: whoever opened it before finds that it has lost its name.
    free.map_or(Ok(false), |_held| crate::disk::remove_file(path).map(|()| true))
}

/// Whether somebody holds a lock. Writes nothing.
pub(crate) fn is_held(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    // Shared, so that two who ask at one time do not take each other for a holder.
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

fn wait(path: &Path, lock: impl Fn(&File) -> io::Result<()>) -> Result<File, StoreError> {
    loop {
        let file = open(path)?;
        lock(&file).map_err(|error| StoreError::io("lock", path, error))?;
        if has_name(&file, path) {
            return Ok(file);
        }
    }
}

fn poll(path: &Path, lock: impl Fn(&File) -> Result<(), TryLockError>) -> Result<Option<File>, StoreError> {
    loop {
        let file = open(path)?;
        match lock(&file) {
            Ok(()) if has_name(&file, path) => return Ok(Some(file)),
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(StoreError::io("lock", path, error)),
        }
    }
}

fn open(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|error| StoreError::io("open lock", path, error))
}

/// Whether the file is still the one of this name.
#[cfg(unix)]
fn has_name(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata().map(id), fs::metadata(path).map(id)) {
        (Ok(held), Ok(named)) => held == named,
        _ => false,
    }
}

/// Other systems do not remove a file that is open.
#[cfg(not(unix))]
fn has_name(_: &File, path: &Path) -> bool {
    fs::metadata(path).is_ok()
}

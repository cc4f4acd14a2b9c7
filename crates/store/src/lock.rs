//! One lock for each key, so that a result is computed once however many runs want it. The locks are the
//! operating system's own (`File::lock` of the standard library): when a process dies, however it dies, its
//! locks are free, and none is ever cleaned by hand.

use std::fs::{File, OpenOptions, TryLockError};

use crate::digest::StageKey;
use crate::error::StoreError;
use crate::layout::Layout;

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
        let file = open(layout, key)?;
        file.lock().map_err(|error| StoreError::io("lock", &layout.lock(key), error))?;
        Ok(Self { key, _file: file })
    }

    /// The lock, or `None` if somebody else has it.
    pub(crate) fn poll(layout: &Layout, key: StageKey) -> Result<Option<Self>, StoreError> {
        let file = open(layout, key)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { key, _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(StoreError::io("lock", &layout.lock(key), error)),
        }
    }
}

fn open(layout: &Layout, key: StageKey) -> Result<File, StoreError> {
    layout.create()?;
    let path = layout.lock(key);
    // The file stays when the lock goes: removing it would race with somebody who has just opened it.
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| StoreError::io("open lock", &path, error))
}

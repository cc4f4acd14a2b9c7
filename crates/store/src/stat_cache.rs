//! Remembers the digests of files outside the store by (path, size, mtime, inode), so that a run with nothing to
//! do costs a stat for each input instead of a read. It is a cache: losing it costs time, and no digest it
//! gives is ever older than the file it is for.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::digest::ContentHash;
use crate::disk;
use crate::error::StoreError;
use crate::layout::Layout;
use crate::sealed::{self, Form};

/// Filesystems stamp files with a coarse clock: a file changed twice within one tick has one mtime. A digest
/// taken this soon after the last change is not remembered.
const CLOCK_TICK: Duration = Duration::from_millis(50);

/// Why a folder has no digest.
#[derive(Debug, thiserror::Error)]
pub enum FolderDigestError<E: std::error::Error + 'static> {
    /// The folder could not be looked at.
    #[error(transparent)]
    Store(StoreError),
    /// The caller's function failed.
    #[error(transparent)]
    Compute(E),
}

/// Version of the file's form. Version 1 was a map without a seal, where a flipped byte could go unnoticed and give a
/// wrong key; it is read as empty, and programs of its time read version 2 as empty.
const SCHEMA_VERSION: u32 = 2;

const FORM: Form = Form { what: "stat cache", sealed_since: 2, supported: SCHEMA_VERSION };

/// The file.
#[derive(Serialize, Deserialize)]
struct Stored {
    schema_version: u32,
    entries: HashMap<String, Entry>,
}

pub(crate) struct StatCache {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    loaded: bool,
    entries: HashMap<String, Entry>,
    /// When the entries that are not on disk yet were computed.
    fresh: HashMap<String, Instant>,
}

/// A digest, and what it is the digest of.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Entry {
    stamp: Stamp,
    digest: ContentHash,
}

/// What must be unchanged for a digest to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    /// Over (relative path, size, mtime, inode) of every file.
    hash: ContentHash,
    /// The youngest of them, nanoseconds since 1970.
    newest_ns: u64,
}

impl StatCache {
    pub fn new(layout: &Layout) -> Self {
        Self { path: layout.stat_cache(), state: Mutex::default() }
    }

    /// The digest of a file's bytes.
    pub fn file(&self, path: &Path) -> Result<ContentHash, StoreError> {
        self.remember("bytes", path, || disk::hash_file(path))
    }

    /// The caller's digest of a folder, computed again only if a file below it changed. `purpose` names the
    /// function and its version: two functions never share a digest.
    pub fn folder<E: std::error::Error + 'static>(
        &self,
        path: &Path,
        purpose: &str,
        compute: impl FnOnce(&Path) -> Result<[u8; 32], E>,
    ) -> Result<[u8; 32], FolderDigestError<E>> {
        enum Fault<E> {
            Store(StoreError),
            Compute(E),
        }
        impl<E> From<StoreError> for Fault<E> {
            fn from(error: StoreError) -> Self {
                Self::Store(error)
            }
        }
        self.remember(purpose, path, || compute(path).map(ContentHash::from_bytes).map_err(Fault::Compute))
            .map(|digest| *digest.as_bytes())
            .map_err(|fault| match fault {
                Fault::Store(error) => FolderDigestError::Store(error),
                Fault::Compute(error) => FolderDigestError::Compute(error),
            })
    }

    fn remember<E: From<StoreError>>(
        &self,
        purpose: &str,
        path: &Path,
        compute: impl FnOnce() -> Result<ContentHash, E>,
    ) -> Result<ContentHash, E> {
        let stamp = stamp(path)?;
        let name = format!("{purpose}:{}", path.display());
        if let Some(entry) = self.state().entries.get(&name).filter(|entry| entry.stamp == stamp) {
            return Ok(entry.digest);
        }
        // The lock is not held while hashing: several models may be digested side by side.
        let started = Instant::now();
        let digest = compute()?;
        let mut state = self.state();
        state.entries.insert(name.clone(), Entry { stamp, digest });
        state.fresh.insert(name, started);
        Ok(digest)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.loaded {
            state.loaded = true;
            state.entries = self.on_disk();
        }
        state
    }

    /// The remembered files and folders that are gone.
    pub fn forgettable(&self) -> Vec<PathBuf> {
        let mut gone: Vec<PathBuf> =
            self.on_disk().keys().map(|name| path_of(name)).filter(|path| !path.exists()).collect();
        gone.sort();
        gone.dedup();
        gone
    }

    /// Forgets some paths, in the file, too.
    pub fn forget(&self, paths: &[&Path]) -> Result<(), StoreError> {
        let is_named = |name: &String| paths.contains(&path_of(name).as_path());
        self.state().entries.retain(|name, _| !is_named(name));
        let mut entries = self.on_disk();
        entries.retain(|name, _| !is_named(name));
        self.write(entries)
    }

    fn on_disk(&self) -> HashMap<String, Entry> {
        // A damaged cache is an empty cache, and one without a seal is that of an older program.
        disk::get(&self.path).ok().flatten().and_then(|bytes| read(&self.path, &bytes).ok()).unwrap_or_default()
    }

    /// Write down what was computed since the last time.
    pub fn save(&self, layout: &Layout) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.fresh.is_empty() {
            return Ok(());
        }
        layout.create()?;
        let now = filesystem_now(&self.path)?;
        // Another run may have added its own since we read the file.
        let mut entries = self.on_disk();
        for (name, started) in std::mem::take(&mut state.fresh) {
            let Some(entry) = state.entries.get(&name) else {
                continue;
            };
            let newest = UNIX_EPOCH + Duration::from_nanos(entry.stamp.newest_ns);
            let hashed_at = now.checked_sub(started.elapsed()).unwrap_or(UNIX_EPOCH);
            if newest + CLOCK_TICK < hashed_at {
                entries.insert(name, *entry);
            } else {
                entries.remove(&name);
            }
        }
        self.write(entries)
    }

    fn write(&self, entries: HashMap<String, Entry>) -> Result<(), StoreError> {
        disk::replace(&self.path, &sealed::encode(&self.path, &Stored { schema_version: SCHEMA_VERSION, entries })?)
    }
}

/// The path of an entry's name, which is `PURPOSE:PATH`.
fn path_of(name: &str) -> PathBuf {
    PathBuf::from(name.split_once(':').map_or(name, |(_, path)| path))
}

/// The entries in a file at `path`, checked.
pub(crate) fn read(path: &Path, bytes: &[u8]) -> Result<HashMap<String, Entry>, StoreError> {
    sealed::decode(path, bytes, &FORM).map(|Stored { schema_version: _, entries }| entries)
}

/// The time by the clock that stamps files, which need not be this machine's.
fn filesystem_now(near: &Path) -> Result<SystemTime, StoreError> {
    let probe = disk::beside(near);
    let now = fs::write(&probe, b"").and_then(|()| fs::metadata(&probe)?.modified());
    let removed = fs::remove_file(&probe);
    now.and_then(|now| removed.map(|()| now)).map_err(|error| StoreError::io("write", &probe, error))
}

/// The stamp of a file, or of everything below a folder. Links are followed: a model folder may be made of them.
fn stamp(path: &Path) -> Result<Stamp, StoreError> {
    let mut files: Vec<(String, fs::Metadata)> = Vec::new();
    let read = |path: &Path, error: io::Error| StoreError::read("read", path, error);
    let root = fs::metadata(path).map_err(|error| read(path, error))?;
    let mut waiting = Vec::new();
    if root.is_dir() {
        waiting.push(String::new());
    } else {
        files.push((String::new(), root));
    }
    while let Some(prefix) = waiting.pop() {
        let here = path.join(&prefix);
        for entry in fs::read_dir(&here).map_err(|error| read(&here, error))? {
            let entry = entry.map_err(|error| read(&here, error))?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            let metadata = fs::metadata(entry.path()).map_err(|error| read(&entry.path(), error))?;
            if !metadata.is_dir() {
                files.push((name, metadata));
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                // A linked folder is not entered: links can form a loop.
                waiting.push(format!("{name}/"));
            }
        }
    }
    files.sort_by(|(left, _), (right, _)| left.cmp(right));
    let mut hasher = blake3::Hasher::new();
    let mut newest_ns = 0;
    for (name, metadata) in files {
        let mtime_ns = mtime_ns(&metadata);
        newest_ns = newest_ns.max(mtime_ns);
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
        for number in [metadata.len(), mtime_ns, inode(&metadata)] {
            hasher.update(&number.to_le_bytes());
        }
    }
    Ok(Stamp { hash: ContentHash::from_bytes(*hasher.finalize().as_bytes()), newest_ns })
}

fn mtime_ns(metadata: &fs::Metadata) -> u64 {
    let since = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| since.as_nanos() as u64)
}

#[cfg(unix)]
fn inode(metadata: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_: &fs::Metadata) -> u64 {
    0
}

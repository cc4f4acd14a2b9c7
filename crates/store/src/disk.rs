//! The few ways bytes reach the disk: write and sync, publish if absent, replace, get. It owns the order of
//! sync and rename, and refuses to know what the bytes mean.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::digest::ContentHash;
use crate::divided::divided;
use crate::error::StoreError;

/// What a put-if-absent found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    /// The path was free and now has our bytes.
    Created,
    /// Somebody else's bytes were already there, and still are.
    Existed,
}

/// The bytes of a file, or `None` if there is no such file.
pub(crate) fn get(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(StoreError::read("read", path, error)),
    }
}

/// The JSON text of a value, for a file at `path`.
pub(crate) fn encode<T: Serialize>(path: &Path, value: &T) -> Result<Vec<u8>, StoreError> {
    let mut bytes = serde_json::to_vec(value).map_err(|source| StoreError::Encode { path: path.to_owned(), source })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The names in a folder, in no order; none if there is no such folder.
pub(crate) fn list(path: &Path) -> Result<Vec<String>, StoreError> {
    let read = || -> io::Result<Vec<String>> {
        fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        names => names.map_err(|error| StoreError::read("list folder", path, error)),
    }
}

pub(crate) fn create_folder(path: &Path) -> Result<(), StoreError> {
    fs::create_dir_all(path).map_err(|error| StoreError::io("create folder", path, error))
}

/// Whether there is a file or a folder.
pub(crate) fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// The size of a file, or of all files below a folder; what cannot be looked at counts nothing.
pub(crate) fn size(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    if !metadata.is_dir() {
        return metadata.len();
    }
    fs::read_dir(path).into_iter().flatten().flatten().map(|entry| size(&entry.path())).sum()
}

/// Remove a file; that it is gone already is no fault.
pub(crate) fn remove_file(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", path, error)),
        _ => Ok(()),
    }
}

/// Sync a folder, so that the names in it survive a power cut.
pub(crate) fn sync_folder(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(|error| StoreError::io("sync folder", path, error))
}

/// Write a new private file, to be synced once it has its public name.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Result<File, StoreError> {
    let write = || {
        let mut file = File::create_new(path)?;
        file.write_all(bytes).map(|()| file)
    };
    write().map_err(|error| StoreError::io("write", path, error))
}

fn write_and_sync(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// The private file that becomes `path`, written by `write`. One that a full disk cut short is taken away again.
fn write_private(path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> Result<PathBuf, StoreError> {
    let private = beside(path);
    match write(&private) {
        Ok(()) => Ok(private),
        Err(error) => {
            // What was the matter is in `error`.
            let _ = fs::remove_file(&private);
            Err(StoreError::io("write", path, error))
        }
    }
}

/// Give a finished private file its public name, unless the name is taken. The private name is gone afterwards either
/// way. Nothing is synced.
pub(crate) fn publish_if_absent(private: &Path, public: &Path) -> Result<Put, StoreError> {
    create_folder(public.parent().unwrap_or(Path::new(".")))?;
    match link_if_absent(private, public) {
        Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::CrossesDevices => {
            let copy = copy_beside(private, public)?;
            fs::remove_file(private).map_err(|error| StoreError::io("remove", private, error))?;
            link_if_absent(&copy, public)
        }
        put => put,
    }
}

/// Sync a file that has its public name, and with it the name: see the note on syncs in crates/README.md. One that a full
/// disk or a broken one does not take is taken away again.
pub(crate) fn sync_published(file: &File, public: &Path) -> Result<(), StoreError> {
    file.sync_all().map_err(|error| {
        // What was the matter is in `error`.
        let _ = fs::remove_file(public);
        StoreError::io("sync", public, error)
    })
}

/// A copy of a finished file under a private name beside `public`, synced: a user may have moved a folder of the store to
/// another device, and no name leads from one device to another.
pub(crate) fn copy_beside(private: &Path, public: &Path) -> Result<PathBuf, StoreError> {
    let copy = |copy: &Path| -> io::Result<()> {
        fs::copy(private, copy)?;
        File::open(copy)?.sync_all()
    };
    write_private(public, copy)
}

/// Write a small file under its public name unless the name is taken, without a sync: for files that may be
/// lost, but never half-written.
pub(crate) fn claim(path: &Path, bytes: &[u8]) -> Result<Put, StoreError> {
    let private = write_private(path, |private| fs::write(private, bytes))?;
    link_if_absent(&private, path)
}

fn link_if_absent(private: &Path, public: &Path) -> Result<Put, StoreError> {
    let put = match fs::hard_link(private, public) {
        Ok(()) => Put::Created,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Put::Existed,
        // Some filesystems have no hard links. The callers hold the key's lock or publish by content, so a
        // check followed by a rename cannot replace anything different.
        Err(_) if public.exists() => Put::Existed,
        Err(_) => {
            fs::rename(private, public).map_err(|error| StoreError::io("publish", public, error))?;
            return Ok(Put::Created);
        }
    };
    fs::remove_file(private).map_err(|error| StoreError::io("remove", private, error))?;
    Ok(put)
}

/// Write a small file under its public name unless the name is taken, and sync it and its folder; readers see all of it
/// or nothing.
pub(crate) fn write_if_absent(path: &Path, bytes: &[u8]) -> Result<Put, StoreError> {
    let private = write_private(path, |private| write_and_sync(private, bytes))?;
    let put = publish_if_absent(&private, path)?;
    if put == Put::Created {
        sync_folder(path.parent().unwrap_or(Path::new(".")))?;
    }
    Ok(put)
}

/// Replace a small file; readers see the old or the new bytes. Not synced: for files that may be lost.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let private = write_private(path, |private| fs::write(private, bytes))?;
    fs::rename(&private, path).map_err(|error| StoreError::io("replace", path, error))
}

/// Replace a small file and sync it and its folder.
pub(crate) fn replace_synced(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let private = write_private(path, |private| write_and_sync(private, bytes))?;
    fs::rename(&private, path).map_err(|error| StoreError::io("replace", path, error))?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// A private name in the same folder, that no other process or thread uses.
pub(crate) fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}", unique()))
}

/// `PID.N`, different for every call on this machine.
pub(crate) fn unique() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{}.{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Make a finished file unwritable, against accidents.
pub(crate) fn make_read_only(path: &Path) -> Result<(), StoreError> {
    let seal = || -> io::Result<()> {
        let mut permissions = fs::metadata(path)?.permissions();
        permissions.set_readonly(true);
        fs::set_permissions(path, permissions)
    };
    seal().map_err(|error| StoreError::io("make read-only", path, error))
}

/// BLAKE3 of a file's bytes. Large runs are hashed on all processors.
pub(crate) fn hash_file(path: &Path) -> Result<ContentHash, StoreError> {
    hash_file_telling(path, &|_| {})
}

/// As [`hash_file`], and tells of bytes as they are read.
pub(crate) fn hash_file_telling(path: &Path, watch: &dyn Fn(u64)) -> Result<ContentHash, StoreError> {
    // A checkpoint is gigabytes; a run has to be long to be worth dividing.
    const CHUNK_BYTES: usize = 16 << 20;
    const DIVIDED_BYTES: usize = 1 << 20;
    let hash = || -> io::Result<ContentHash> {
        let mut file = File::open(path)?;
        let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        let mut hasher = blake3::Hasher::new();
        let mut chunk = vec![0; CHUNK_BYTES.min(length.saturating_add(1))];
        loop {
            let n = fill(&mut file, &mut chunk)?;
            watch(n as u64);
            match &chunk[..n] {
                [] => break,
                run if run.len() >= DIVIDED_BYTES => {
                    divided(|| hasher.update_rayon(run));
                }
                run => {
                    hasher.update(run);
                }
            }
        }
        Ok(ContentHash::from_bytes(*hasher.finalize().as_bytes()))
    };
    hash().map_err(|error| StoreError::read("read", path, error))
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while n < buffer.len() {
        match file.read(&mut buffer[n..])? {
            0 => break,
            more => n += more,
        }
    }
    Ok(n)
}

/// A writer that hashes what passes through it.
pub(crate) struct HashingWriter<W> {
    inner: W,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl<W: Write> HashingWriter<W> {
    pub fn new(inner: W) -> Self {
        Self { inner, hasher: blake3::Hasher::new(), bytes: 0 }
    }

    /// The hash of all bytes so far, and their number.
    pub fn written(&self) -> (ContentHash, u64) {
        (ContentHash::from_bytes(*self.hasher.finalize().as_bytes()), self.bytes)
    }

    pub fn inner(&self) -> &W {
        &self.inner
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

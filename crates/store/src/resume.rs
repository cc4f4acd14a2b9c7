//! Unfinished work: the last save of a long computation, so that a process that dies costs what was done since and not
//! all of it. It owns which save counts and that its bytes are those that were written, and refuses to know what they
//! mean.
//!
//! ```text
//! resume/KEY/head.json   how far the work is, which of the states counts, its length and its BLAKE3; two lines as in a
//!                        record, the second being the BLAKE3 of the first
//! resume/KEY/N.state     the state, one stream of bytes
//! ```
//!
//! Only the holder of the key's lock touches the folder. A save writes the next state beside the last one, syncs it, and
//! only then replaces the head; the last one goes after that. So at any moment the head names a whole state, and there are
//! never more than two, the time of a save excepted never more than one. The folder goes with the commit of its key.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::attempt::Attempt;
use crate::checked;
use crate::digest::{ContentHash, StageKey};
use crate::disk::{self, HashingWriter};
use crate::error::StoreError;
use crate::layout::Layout;
use crate::store::Store;

const HEAD: &str = "head.json";
/// Version of the head. A reader that meets another one begins the work anew.
const VERSION: u32 = 1;
/// Large writes: a state is as large as a model and its optimiser.
const CHUNK_BYTES: usize = 1 << 20;

/// How far a computation is when it saves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HowFar<'a> {
    /// What the bytes are: their form and its version, and all that decides whether another program may go on from them
    /// and is not in the key.
    pub form: &'a str,
    /// Units done, such as optimiser steps.
    pub done: u64,
    /// Units in all.
    pub total: u64,
}

/// The last save of a key that has no record yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfinished {
    version: u32,
    /// See [`HowFar::form`].
    pub form: String,
    /// See [`HowFar::done`].
    pub done: u64,
    /// See [`HowFar::total`].
    pub total: u64,
    /// The number of the state that counts.
    state: u64,
    /// Size of the state.
    pub bytes: u64,
    blake3: ContentHash,
}

impl Store {
    /// What is saved of a key, if it is whole as far as its head and its length tell; the state is not read.
    ///
    /// # Errors
    /// `Io` when the disk refuses.
    pub fn unfinished(&self, key: StageKey) -> Result<Option<Unfinished>, StoreError> {
        let head = match Unfinished::read(self.layout(), key) {
            Err(StoreError::Corrupt { .. } | StoreError::Json { .. }) => None,
            head => head?,
        };
        let is_whole = |head: &Unfinished| {
            fs::metadata(head.path(self.layout(), key)).is_ok_and(|state| state.len() == head.bytes)
        };
        Ok(head.filter(is_whole))
    }
}

impl Attempt {
    /// The save an earlier attempt at this key left, its bytes checked, and the file at its start. What earlier attempts
    /// left beside it is removed.
    ///
    /// # Errors
    /// `Corrupt`, `Json` or `Io` for a save that is not whole; [`Attempt::forget`] makes room for a new one.
    pub fn unfinished(&self) -> Result<Option<(Unfinished, File)>, StoreError> {
        let (layout, key) = (self.memory(), self.key());
        let Some(head) = Unfinished::read(layout, key)? else {
            return Ok(None);
        };
        sweep(layout, key, Some(&head))?;
        let path = head.path(layout, key);
        let check = || -> io::Result<(File, ContentHash)> {
            let mut file = File::open(&path)?;
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(&mut file)?;
            file.seek(SeekFrom::Start(0))?;
            Ok((file, ContentHash::from_bytes(*hasher.finalize().as_bytes())))
        };
        let (file, found) = check().map_err(|error| StoreError::read("read", &path, error))?;
        if found != head.blake3 {
            return Err(StoreError::Corrupt { path, expected: head.blake3, found });
        }
        Ok(Some((head, file)))
    }

    /// Saves the work in place of the last save, which counts until this one is safe. `write` hands over the state.
    ///
    /// # Errors
    /// `NoSpace`, `ReadOnly`, `Io`, those of `write` among them. The last save is then still there.
    pub fn save_unfinished(
        &self,
        how_far: HowFar<'_>,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<Unfinished, StoreError> {
        let (layout, key) = (self.memory(), self.key());
        let folder = layout.resume(key);
        disk::create_folder(&folder)?;
        // A head that does not read names nothing to keep.
        let last = Unfinished::read(layout, key).unwrap_or_default();
        sweep(layout, key, last.as_ref())?;
        let HowFar { form, done, total } = how_far;
        let mut head = Unfinished {
            version: VERSION,
            form: form.to_owned(),
            done,
            total,
            state: last.as_ref().map_or(0, |last| last.state + 1),
            bytes: 0,
            blake3: ContentHash::from_bytes([0; 32]),
        };
        let path = head.path(layout, key);
        let save = || -> io::Result<()> {
            let mut sink = HashingWriter::new(BufWriter::with_capacity(CHUNK_BYTES, File::create(&path)?));
            write(&mut sink)?;
            sink.flush()?;
            sink.inner().get_ref().sync_all()?;
            (head.blake3, head.bytes) = sink.written();
            Ok(())
        };
        let saved = save().map_err(|error| StoreError::io("save", &path, error));
        if let Err(error) = saved.and_then(|()| disk::sync_folder(&folder)) {
            // Half a state is of no use, and a full disk needs the room.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        let file = folder.join(HEAD);
        disk::replace_synced(&file, &checked::encode(&file, &head)?)?;
        if last.is_none() {
            // The folder's own name is to survive a power cut, too.
            disk::sync_folder(folder.parent().unwrap_or(Path::new(".")))?;
        }
        sweep(layout, key, Some(&head))?;
        Ok(head)
    }

    /// Removes what is saved of this key.
    ///
    /// # Errors
    /// `ReadOnly`, `Io`.
    pub fn forget(&self) -> Result<(), StoreError> {
        remove(self.memory(), self.key())
    }
}

impl Unfinished {
    /// The head of a key's save.
    fn read(layout: &Layout, key: StageKey) -> Result<Option<Self>, StoreError> {
        let path = layout.resume(key).join(HEAD);
        let Some(bytes) = disk::get(&path)? else {
            return Ok(None);
        };
        let head: Self = serde_json::from_slice(checked::first_line(&path, &bytes)?)
            .map_err(|source| StoreError::Json { path: path.clone(), source })?;
        Ok(Some(head).filter(|head| head.version == VERSION))
    }

    fn path(&self, layout: &Layout, key: StageKey) -> PathBuf {
        layout.resume(key).join(format!("{}.state", self.state))
    }
}

/// Looks at the last save of a key, whole.
///
/// # Errors
/// `Corrupt` and `Json` for one that is damaged, `Gone` for a head without its state, `Io`.
pub(crate) fn check(layout: &Layout, key: StageKey, watch: &dyn Fn(u64)) -> Result<(), StoreError> {
    let Some(head) = Unfinished::read(layout, key)? else { return Ok(()) };
    let (path, expected) = (head.path(layout, key), head.blake3);
    if !disk::exists(&path) {
        return Err(StoreError::Gone { path, expected });
    }
    let found = disk::hash_file_telling(&path, watch)?;
    if found == expected { Ok(()) } else { Err(StoreError::Corrupt { path, expected, found }) }
}

/// Removes every file of the folder but the head and the state it names: what a dead process did not finish.
fn sweep(layout: &Layout, key: StageKey, head: Option<&Unfinished>) -> Result<(), StoreError> {
    let folder = layout.resume(key);
    let kept = head.map(|head| format!("{}.state", head.state));
    for name in disk::list(&folder)? {
        if name != HEAD && Some(&name) != kept.as_ref() {
            let path = folder.join(name);
            fs::remove_file(&path).map_err(|error| StoreError::io("remove", &path, error))?;
        }
    }
    Ok(())
}

/// Removes the folder of a key.
pub(crate) fn remove(layout: &Layout, key: StageKey) -> Result<(), StoreError> {
    let folder = layout.resume(key);
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", &folder, error)),
        _ => Ok(()),
    }
}

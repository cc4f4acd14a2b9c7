//! One attempt at computing a key: a private folder to write in, and the commit that makes the result public.
//! It owns the order of publication: artifacts first, synced, and the record last. It refuses to know how the
//! artifacts are made.
//!
//! Two syncs make a stage of one table last: that of the table and that of its record, each once the file has its public
//! name, since the file systems in use write a file's new name with the file. A power cut before them, or a file system
//! that keeps names otherwise, loses the result and nothing else: sizes are looked at with every record, digests with the
//! first read, and what does not fit is made again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::digest::{ContentHash, ModelDigest, RowScope, StageKey};
use crate::disk::{self, Put};
use crate::error::StoreError;
use crate::layout::Layout;
use crate::lock::{KeyLock, StoreLock};
use crate::reading::{missing_output, read_parquet, verify};
use crate::record::{Artifact, CheckpointArtifact, Output, Record, RecordDraft};
use crate::resume;
use crate::rows::KnownRows;
use crate::table_writer::TableWriter;

/// A private folder in `tmp/`, with the key's lock. Dropped without a commit, it leaves nothing behind;
/// if the process dies, the next attempt at any key sweeps it away.
pub struct Attempt {
    layout: Layout,
    /// Where rows that are known and unfinished work lie: in the store, or in the private folder of an attempt that is to
    /// remember nothing.
    memory: Layout,
    lock: KeyLock,
    folder: PathBuf,
    written: Mutex<BTreeMap<String, Written>>,
    row_scopes: Mutex<BTreeSet<RowScope>>,
}

/// An artifact that is finished but not public yet.
struct Written {
    path: PathBuf,
    artifact: Artifact,
    /// A table's file, to be synced; the files of a checkpoint are synced already.
    file: Option<File>,
}

/// What a commit found.
#[derive(Debug, Clone, PartialEq)]
pub enum Committed {
    /// The key had no record; it has this one now.
    Stored(Record),
    /// The key already had a record with the same result; this is that one.
    Same(Record),
    /// The key already had a record with a different result. The first one stays.
    Diverged {
        /// The record that stays.
        kept: Box<Record>,
        /// The record that was to be committed; its artifacts are kept too.
        ours: Box<Record>,
        /// The file that says so.
        evidence: PathBuf,
    },
}

impl Committed {
    /// The record that holds for the key from now on.
    pub fn record(&self) -> &Record {
        match self {
            Self::Stored(record) | Self::Same(record) => record,
            Self::Diverged { kept, .. } => kept,
        }
    }
}

impl Attempt {
    pub(crate) fn begin(layout: Layout, lock: KeyLock) -> Result<Self, StoreError> {
        layout.create()?;
        let key = lock.key();
        for (other, folder) in layout.attempts()? {
            if other == key {
                // We hold the key's lock, so whoever made this is dead.
                fs::remove_dir_all(&folder).map_err(|error| StoreError::io("remove dead attempt", &folder, error))?;
            } else if let Ok(Some(_lock)) = KeyLock::poll(&layout, other) {
                // Nobody works on that key. It may never be attempted again, and what is left of it may be large; if it
                // cannot be removed now, it is in nobody's way.
                let _ = fs::remove_dir_all(&folder);
            }
        }
        sweep_finished(&layout, key)?;
        let folder = layout.tmp().join(format!("{key}.{}", disk::unique()));
        fs::create_dir(&folder).map_err(|error| StoreError::io("create attempt", &folder, error))?;
        let memory = layout.clone();
        Ok(Self { layout, memory, lock, folder, written: Mutex::default(), row_scopes: Mutex::default() })
    }

    /// Hide what earlier attempts know: no row and no unfinished work is there, and what this one keeps goes with it.
    pub(crate) fn forget_everything(&mut self) {
        self.memory = Layout::private(&self.folder.join("memory"));
    }

    /// The key that is being computed.
    pub fn key(&self) -> StageKey {
        self.lock.key()
    }

    /// The private folder. Anything in it that is not finished as an output goes with the attempt.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Where unfinished work lies.
    pub(crate) fn memory(&self) -> &Layout {
        &self.memory
    }

    /// Open the output table `name` (letters, digits, `_`), once for each name.
    pub fn write_table(&self, name: &str, schema: SchemaRef) -> Result<TableWriter<'_>, StoreError> {
        TableWriter::create(self, name, schema)
    }

    /// Create an empty private folder for the output checkpoint `name`, once for each name.
    pub fn folder(&self, name: &str) -> Result<AttemptFolder<'_>, StoreError> {
        let path = self.folder.join(name);
        fs::create_dir(&path).map_err(|error| StoreError::io("create folder", &path, error))?;
        Ok(AttemptFolder { attempt: self, name: name.to_owned(), path })
    }

    /// The rows of a scope that earlier attempts kept. The record will name the scope, and rows that are added are this
    /// key's as long as it has no record: so they are kept as long as the result, or the run that did not get so far.
    ///
    /// # Errors
    /// `Io` when a file that is there cannot be read.
    pub fn rows(&self, scope: RowScope) -> Result<KnownRows, StoreError> {
        self.row_scopes.lock().unwrap_or_else(PoisonError::into_inner).insert(scope);
        KnownRows::read(&self.memory, scope, Some(self.key()))
    }

    /// All rows of a finished output table, before it is public.
    ///
    /// # Errors
    /// `OutputKind` for a checkpoint, `UnwrittenOutput` for a table this attempt did not finish.
    pub fn read_table(&self, output: &Output) -> Result<Vec<RecordBatch>, StoreError> {
        output.table()?;
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let unwritten = || StoreError::UnwrittenOutput { key: self.key(), output: output.name.clone() };
        read_parquet(&written.get(&output.name).ok_or_else(unwritten)?.path)
    }

    /// Remember a finished output until the commit.
    pub(crate) fn keep(&self, name: &str, path: PathBuf, artifact: Artifact, file: Option<File>) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.insert(name.to_owned(), Written { path, artifact, file });
    }

    /// Publish the outputs, then the record, and forget what was saved of the unfinished work. The first record of a
    /// key stays; a different later result is written down as a divergence. A record whose artifacts are damaged or
    /// gone is replaced.
    ///
    /// # Errors
    /// `UnwrittenOutput` when the draft names what this attempt did not finish; `NoSpace`, `ReadOnly`, `Io`.
    /// After an error the key has no new record.
    pub fn commit(self, draft: RecordDraft) -> Result<Committed, StoreError> {
        let committed = self.publish(draft)?;
        // What is left of it is removed with the next attempt at any key.
        let _ = resume::remove(&self.layout, self.key());
        Ok(committed)
    }

    fn publish(&self, draft: RecordDraft) -> Result<Committed, StoreError> {
        let scopes = std::mem::take(&mut *self.row_scopes.lock().unwrap_or_else(PoisonError::into_inner));
        let record = Record::new(self.key(), draft, scopes.into_iter().collect());
        // An artifact that is there already must still be there when the record names it.
        let _entered = StoreLock::shared(&self.layout)?;
        self.publish_outputs(&record)?;
        let public = self.layout.record(self.key());
        let bytes = record.to_bytes(&public)?;
        let existing = disk::get(&public)?.map(|bytes| Record::from_bytes(&public, &bytes));
        match existing {
            None => {
                let private = self.folder.join("record.json");
                let file = disk::write_new(&private, &bytes)?;
                match disk::publish_if_absent(&private, &public)? {
                    Put::Created => disk::sync_published(&file, &public).map(|()| Committed::Stored(record)),
                    // Only a program that does not take the key's lock can have come between.
                    Put::Existed => self.commit_second(record, &bytes),
                }
            }
            Some(Err(error)) if error.is_damage() => {
                disk::replace_synced(&public, &bytes)?;
                Ok(Committed::Stored(record))
            }
            Some(Err(error)) => Err(error),
            Some(Ok(_)) => self.commit_second(record, &bytes),
        }
    }

    /// Commit to a key that has a readable record.
    fn commit_second(&self, ours: Record, bytes: &[u8]) -> Result<Committed, StoreError> {
        let public = self.layout.record(self.key());
        let first = disk::get(&public)?.map(|bytes| Record::from_bytes(&public, &bytes)).transpose()?;
        let Some(first) = first else {
            disk::replace_synced(&public, bytes)?;
            return Ok(Committed::Stored(ours));
        };
        // Read whole, since damage may be what made somebody compute the key again.
        let is_whole = |output: &Output| verify(&self.layout, &output.artifact).is_ok();
        let first_is_whole = first.outputs.iter().all(is_whole);
        if ours.same_result(&first) {
            if first_is_whole {
                return Ok(Committed::Same(first));
            }
            // The same rows in another file: the record must name the file that exists.
            disk::replace_synced(&public, bytes)?;
            return Ok(Committed::Stored(ours));
        }
        let (kept, other) = if first_is_whole { (&first, &ours) } else { (&ours, &first) };
        let evidence = self.write_divergence(other)?;
        if !first_is_whole {
            disk::replace_synced(&public, bytes)?;
        }
        Ok(Committed::Diverged { kept: Box::new(kept.clone()), ours: Box::new(ours), evidence })
    }

    fn write_divergence(&self, other: &Record) -> Result<PathBuf, StoreError> {
        let mut n = 1;
        loop {
            let path = self.layout.divergence(self.key(), n);
            if disk::write_if_absent(&path, &other.to_bytes(&path)?)? == Put::Created {
                return Ok(path);
            }
            n += 1;
        }
    }

    fn publish_outputs(&self, record: &Record) -> Result<(), StoreError> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let unwritten = |output: &str| StoreError::UnwrittenOutput { key: self.key(), output: output.to_owned() };
        for output in &record.outputs {
            let Written { path, artifact, file } =
                written.remove(&output.name).ok_or_else(|| unwritten(&output.name))?;
            if artifact != output.artifact {
                return Err(unwritten(&output.name));
            }
            let is_whole = verify(&self.layout, &artifact).is_ok();
            match (&artifact, file) {
                (Artifact::Table(table), Some(file)) => {
                    publish_blob(&path, &self.layout.object(table.blob), file, is_whole)?;
                }
                (Artifact::Table(_), None) => return Err(unwritten(&output.name)),
                (Artifact::Checkpoint(checkpoint), _) => {
                    publish_folder(&path, &self.layout.checkpoint(checkpoint.folder), is_whole)?;
                }
            }
        }
        Ok(())
    }
}

/// Removes saves of keys that have a result: whoever committed it died before it could.
fn sweep_finished(layout: &Layout, own: StageKey) -> Result<(), StoreError> {
    for key in layout.resumes()?.into_iter().filter(|key| *key != own) {
        let path = layout.record(key);
        let record = disk::get(&path)?.map(|bytes| Record::from_bytes(&path, &bytes));
        let is_done = matches!(record, Some(Ok(record)) if missing_output(layout, &record).is_none());
        if let (true, Ok(Some(_lock))) = (is_done, KeyLock::poll(layout, key)) {
            let _ = resume::remove(layout, key);
        }
    }
    Ok(())
}

impl Drop for Attempt {
    fn drop(&mut self) {
        // A leftover is swept by the next attempt, so a failure here loses nothing.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A private folder that becomes a checkpoint.
pub struct AttemptFolder<'a> {
    attempt: &'a Attempt,
    name: String,
    path: PathBuf,
}

impl AttemptFolder<'_> {
    /// Where to write the files.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sync every file, make it read-only, and hand the folder to the attempt, which publishes it when it
    /// commits. `digest` is the caller's digest of the model in it.
    pub fn seal(self, digest: ModelDigest) -> Result<CheckpointArtifact, StoreError> {
        let files = files_below(&self.path)?;
        let mut bytes = 0;
        for file in &files {
            let path = self.path.join(file);
            let sync = || {
                let file = fs::File::open(&path)?;
                file.sync_all()?;
                Ok(file.metadata()?.len())
            };
            bytes += sync().map_err(|error| StoreError::io("sync", &path, error))?;
            disk::make_read_only(&path)?;
        }
        disk::sync_folder(&self.path)?;
        let folder = hash_folder(&self.path)?;
        let checkpoint = CheckpointArtifact { digest, folder, n_files: files.len() as u64, bytes };
        self.attempt.keep(&self.name, self.path, Artifact::Checkpoint(checkpoint.clone()), None);
        Ok(checkpoint)
    }
}

/// `is_whole` says that the blob is there already. One that is there and damaged is replaced.
fn publish_blob(private: &Path, public: &Path, file: File, is_whole: bool) -> Result<(), StoreError> {
    if is_whole {
        // Whoever published it may not have got so far as to sync it.
        let file = File::open(public).map_err(|error| StoreError::read("open table", public, error))?;
        return file.sync_all().map_err(|error| StoreError::io("sync", public, error));
    }
    disk::make_read_only(private)?;
    disk::create_folder(public.parent().unwrap_or(Path::new(".")))?;
    match fs::rename(private, public) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            let copy = disk::copy_beside(private, public)?;
            fs::rename(&copy, public).map_err(|error| StoreError::io("publish", public, error))?;
            return disk::sync_folder(public.parent().unwrap_or(Path::new(".")));
        }
        renamed => renamed.map_err(|error| StoreError::io("publish", public, error))?,
    }
    disk::sync_published(&file, public)
}

fn publish_folder(private: &Path, public: &Path, is_whole: bool) -> Result<(), StoreError> {
    if is_whole {
        return Ok(());
    }
    if public.exists() {
        fs::remove_dir_all(public).map_err(|error| StoreError::io("remove damaged", public, error))?;
    }
    match fs::rename(private, public) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            let copy = copy_folder_beside(private, public)?;
            fs::rename(&copy, public).map_err(|error| StoreError::io("publish", public, error))?;
        }
        renamed => renamed.map_err(|error| StoreError::io("publish", public, error))?,
    }
    disk::sync_folder(public.parent().unwrap_or(Path::new(".")))
}

/// A copy of a sealed folder under a private name beside `public`, which is on another device.
fn copy_folder_beside(private: &Path, public: &Path) -> Result<PathBuf, StoreError> {
    let copy = disk::beside(public);
    let whole = || -> Result<(), StoreError> {
        for file in files_below(private)? {
            let (from, to) = (private.join(&file), copy.join(&file));
            disk::create_folder(to.parent().unwrap_or(&copy))?;
            let copied = fs::copy(&from, &to).and_then(|_| fs::File::open(&to)?.sync_all());
            copied.map_err(|error| StoreError::io("write", &to, error))?;
        }
        disk::sync_folder(&copy)
    };
    whole().inspect_err(|_| {
        // What was the matter is in the error.
        let _ = fs::remove_dir_all(&copy);
    })?;
    Ok(copy)
}

/// The content address of a folder: over its files' sorted relative paths and hashes.
pub(crate) fn hash_folder(folder: &Path) -> Result<ContentHash, StoreError> {
    hash_folder_telling(folder, &|_| {})
}

/// As [`hash_folder`], and tells of bytes as they are read.
pub(crate) fn hash_folder_telling(folder: &Path, watch: &dyn Fn(u64)) -> Result<ContentHash, StoreError> {
    let mut hasher = blake3::Hasher::new_derive_key("sluice folder v1");
    for file in files_below(folder)? {
        let hash = disk::hash_file_telling(&folder.join(&file), watch)?;
        hasher.update(&(file.len() as u64).to_le_bytes());
        hasher.update(file.as_bytes());
        hasher.update(hash.as_bytes());
    }
    Ok(ContentHash::from_bytes(*hasher.finalize().as_bytes()))
}

/// Relative paths of all files below a folder, with `/` between the parts, sorted.
fn files_below(folder: &Path) -> Result<Vec<String>, StoreError> {
    let mut files = Vec::new();
    let mut waiting = vec![String::new()];
    while let Some(prefix) = waiting.pop() {
        let here = folder.join(&prefix);
        let list = |error| StoreError::read("list folder", &here, error);
        for entry in fs::read_dir(&here).map_err(list)? {
            let entry = entry.map_err(list)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type().map_err(list)?.is_dir() {
                waiting.push(format!("{prefix}{name}/"));
            } else {
                files.push(format!("{prefix}{name}"));
            }
        }
    }
    files.sort();
    Ok(files)
}

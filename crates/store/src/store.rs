//! The store as its users see it: look a key up, lock it, attempt it, and the history of runs. It owns no
//! format and no path of its own; those are in `record`, `runs` and `layout`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::attempt::Attempt;
use crate::digest::{ContentHash, StageKey};
use crate::disk;
use crate::error::StoreError;
use crate::layout::Layout;
use crate::lock::{KeyLock, RunLock, StoreLock};
use crate::reading::missing_output;
use crate::record::Record;
use crate::runs::{self, RunId, RunManifest};
use crate::stat_cache::{FolderDigestError, StatCache};

/// A store folder. Cloning it is cheap and shares what it remembers; it may be used from several threads, and
/// several processes may have the same folder open.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    layout: Layout,
    stat_cache: StatCache,
    verified: Mutex<HashSet<ContentHash>>,
}

/// What the store knows about a key.
#[derive(Debug)]
pub enum Lookup {
    /// A record, and all of its artifacts are there.
    Hit(Record),
    /// No record.
    Absent,
    /// A record, one of whose artifacts is gone or cut short. Computing the key again heals it.
    Incomplete {
        /// The record.
        record: Record,
        /// The name of the output that is gone.
        output: String,
    },
    /// A record that does not read. Computing the key again heals it.
    Damaged(StoreError),
}

impl Store {
    /// Open the store at `root`. The folder is created by the first write, not here, so that reading a store,
    /// or finding that there is none, never needs permission to write.
    ///
    /// # Errors
    /// `NewerFormat` for a store of a newer program, `NotAStore` for a folder with some other `format` file.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, StoreError> {
        Layout::open(root.as_ref()).map(Self::with_layout)
    }

    pub(crate) fn with_layout(layout: Layout) -> Self {
        let stat_cache = StatCache::new(&layout);
        Self { inner: Arc::new(Inner { layout, stat_cache, verified: Mutex::default() }) }
    }

    /// The store's folder.
    pub fn root(&self) -> &Path {
        self.layout().root()
    }

    /// The record of a key if it can be used: readable, with all of its artifacts. One small read and a stat an
    /// output; no artifact is opened.
    ///
    /// # Errors
    /// `NewerRecord`, `Io`.
    pub fn lookup(&self, key: StageKey) -> Result<Option<Record>, StoreError> {
        match self.inspect(key)? {
            Lookup::Hit(record) => Ok(Some(record)),
            Lookup::Absent | Lookup::Incomplete { .. } | Lookup::Damaged(_) => Ok(None),
        }
    }

    /// Like [`Store::lookup`], and says why there is nothing to use.
    pub fn inspect(&self, key: StageKey) -> Result<Lookup, StoreError> {
        match self.record(key) {
            Ok(None) => Ok(Lookup::Absent),
            Ok(Some(record)) => match missing_output(self.layout(), &record) {
                None => Ok(Lookup::Hit(record)),
                Some(output) => {
                    let output = output.name.clone();
                    Ok(Lookup::Incomplete { record, output })
                }
            },
            Err(error) if error.is_damage() => Ok(Lookup::Damaged(error)),
            Err(error) => Err(error),
        }
    }

    /// The record of a key, whether or not its artifacts still exist: enough to explain, not to build upon.
    ///
    /// # Errors
    /// `Corrupt` and `Json` for a damaged record, `NewerRecord`, `Io`.
    pub fn record(&self, key: StageKey) -> Result<Option<Record>, StoreError> {
        let path = self.layout().record(key);
        disk::get(&path)?.map(|bytes| Record::from_bytes(&path, &bytes)).transpose()
    }

    /// Wait until nobody else computes the key. Afterwards look it up again: the other may have finished it.
    pub fn lock(&self, key: StageKey) -> Result<KeyLock, StoreError> {
        KeyLock::wait(self.layout(), key)
    }

    /// The lock of a key, or `None` while somebody else computes it.
    pub fn try_lock(&self, key: StageKey) -> Result<Option<KeyLock>, StoreError> {
        KeyLock::poll(self.layout(), key)
    }

    /// Begin to compute a key, waiting for its lock.
    pub fn begin(&self, key: StageKey) -> Result<Attempt, StoreError> {
        self.begin_locked(self.lock(key)?)
    }

    /// Begin to compute a key again as if nobody ever had: what earlier attempts know of its rows and steps is hidden, and
    /// nothing of it is kept unless it is committed. Waits for the key's lock.
    pub fn begin_blind(&self, key: StageKey) -> Result<Attempt, StoreError> {
        let mut attempt = self.begin(key)?;
        attempt.forget_everything();
        Ok(attempt)
    }

    /// Begin to compute a key whose lock the caller has. The attempt keeps the lock until it is committed or
    /// dropped.
    pub fn begin_locked(&self, lock: KeyLock) -> Result<Attempt, StoreError> {
        Attempt::begin(self.layout().clone(), lock)
    }

    /// BLAKE3 of a file outside the store; a stat if the file is unchanged since the last time.
    ///
    /// # Errors
    /// `Io` when the file cannot be read.
    pub fn file_digest(&self, path: &Path) -> Result<ContentHash, StoreError> {
        self.inner.stat_cache.file(path)
    }

    /// The caller's digest of a folder outside the store; a stat a file if nothing below it changed. `purpose`
    /// names the function and its version, e.g. `model digest v1`.
    pub fn folder_digest<E: std::error::Error + 'static>(
        &self,
        path: &Path,
        purpose: &str,
        compute: impl FnOnce(&Path) -> Result<[u8; 32], E>,
    ) -> Result<[u8; 32], FolderDigestError<E>> {
        self.inner.stat_cache.folder(path, purpose, compute)
    }

    /// Write down the digests computed so far, for the next process. A caller may ignore the error: the next
    /// process reads the files again, and nothing else is lost.
    pub fn save_stat_cache(&self) -> Result<(), StoreError> {
        let _entered = self.enter()?;
        self.inner.stat_cache.save(self.layout())
    }

    /// Files and folders outside the store that it remembers and that are gone.
    pub(crate) fn forgettable(&self) -> Vec<PathBuf> {
        self.inner.stat_cache.forgettable()
    }

    pub(crate) fn forget(&self, paths: &[&Path]) -> Result<(), StoreError> {
        self.inner.stat_cache.forget(paths)
    }

    /// Take the next free run number, with the manifest that `make` builds for it. The run counts as alive as long as the
    /// lock is held, and nothing that its manifest names is taken away.
    pub fn begin_run(&self, make: impl Fn(RunId) -> RunManifest) -> Result<(RunManifest, RunLock), StoreError> {
        runs::begin(self.layout(), make)
    }

    /// Whether a run is going on in some process.
    pub fn is_alive(&self, run: RunId) -> bool {
        RunLock::is_held(self.layout(), run)
    }

    /// The right to rely on what is found in the store until it is written down in a run's manifest or in a record; to be
    /// held for moments. `None` where the store is not there yet or cannot be written to, since then nothing is taken away.
    ///
    /// # Errors
    /// `NoSpace`, `Io`.
    pub fn enter(&self) -> Result<Option<StoreLock>, StoreError> {
        if !self.layout().exists() {
            return Ok(None);
        }
        match StoreLock::shared(self.layout()) {
            Ok(lock) => Ok(Some(lock)),
            Err(StoreError::ReadOnly { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replace the manifest of a run.
    pub fn update_run(&self, manifest: &RunManifest) -> Result<(), StoreError> {
        let _entered = self.enter()?;
        runs::update(self.layout(), manifest)
    }

    /// All runs, oldest first.
    pub fn runs(&self) -> Result<Vec<RunId>, StoreError> {
        runs::list(self.layout())
    }

    /// The manifest of a run, or `None` if there is no such run.
    ///
    /// # Errors
    /// `Corrupt`, `Unsealed` and `Json` for a damaged manifest, `NewerFile`, `Io`.
    pub fn run(&self, run: RunId) -> Result<Option<RunManifest>, StoreError> {
        runs::get(self.layout(), run)
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.inner.layout
    }

    pub(crate) fn verified(&self) -> &Mutex<HashSet<ContentHash>> {
        &self.inner.verified
    }
}

//! Takes away what nothing leads to any more. It owns what is kept and in which order the rest goes, and refuses to know
//! what a stage is: names in manifests are only shown.
//!
//! What is kept: runs, all of them unless a policy says otherwise, and what they lead to. A run names keys, a key has a
//! record, a record names tables, checkpoints and row journals. A record about another one is kept with that, whoever made
//! it. An unfinished stage has no record; its rows and its saved training are kept as long as a kept run names its key.
//!
//! Why nothing is taken from a run that is going on, however it falls out with this in time:
//!
//! * Whoever takes away holds the lock of the store alone, from before it looks until it is done. Whoever relies on what
//!   it finds holds the same lock together with others, until what it found is written down where this looks: a run from
//!   its look at a record until its manifest names the key; a commit from its look at the artifacts that are there until
//!   the record names them; a writer of rows until its segment is locked; a tag until it is there; whoever writes a file
//!   under a private name until it has its own. So a thing is either named before this looks, and kept, or looked for
//!   after it is gone, and made again.
//! * A run that is going on is kept whatever the policy says: it holds a lock of its own that dies with it. Its manifest
//!   names a stage before the stage begins, so that the result is rooted before there is one.
//! * Attempts, saved training and segments of journals are judged by their own locks; what somebody holds stays.
//! * What is younger than the grace period stays even when nothing names it: for programs that know nothing of these
//!   locks, and for people who change their minds.
//!
//! Why a kill in the middle loses nothing: manifests go first, then records, then what they named, and the folders of the
//! former are synced before the next begin. At every moment, also after a power cut, whatever is there names only what is
//! there, or what a record-less key may miss anyway; the rest is garbage again next time.

mod roots;
mod sweep;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::digest::{ContentHash, RowScope, StageKey};
use crate::disk;
use crate::error::StoreError;
use crate::layout::Layout;
use crate::lock::{self, StoreLock};
use crate::record::Record;
use crate::rows;
use crate::runs::RunId;
use crate::store::Store;

use roots::Roots;

/// What stays although nothing else leads to it.
#[derive(Debug, Clone, Copy)]
pub struct GcPolicy {
    /// The newest runs of each pipeline and profile that stay; all of them when none.
    pub keep_runs: Option<usize>,
    /// Runs that started at this time or later stay, in milliseconds since 1970; all of them when none. With both, a run
    /// stays when either says so.
    pub keep_since_unix_ms: Option<u64>,
    /// What was written at this time or later stays, by the time of its file.
    pub keep_written_since: SystemTime,
}

/// What a piece of garbage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GarbageKind {
    /// The manifest of a run that the policy lets go.
    Run,
    /// The record of a key that no run names.
    Record,
    /// A second result of such a key.
    Divergence,
    /// A table that no record names.
    Table,
    /// A checkpoint that no record names.
    Checkpoint,
    /// A row journal that no record and no unfinished stage names.
    Rows,
    /// Saved training of a key that is finished, or that no run names.
    Unfinished,
    /// What a dead process was writing.
    Attempt,
    /// What a repair took away.
    Damaged,
    /// A lock file that nobody holds.
    Lock,
    /// A remembered digest of a file that is gone.
    Remembered,
}

impl GarbageKind {
    /// In words, one of them.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Record => "record",
            Self::Divergence => "divergence",
            Self::Table => "table",
            Self::Checkpoint => "checkpoint",
            Self::Rows => "row journal",
            Self::Unfinished => "saved training",
            Self::Attempt => "dead attempt",
            Self::Damaged => "damaged",
            Self::Lock => "free lock",
            Self::Remembered => "stat cache entry",
        }
    }
}

/// A piece of garbage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Garbage {
    /// What it is.
    pub kind: GarbageKind,
    /// The stage or the table it is of, such as `pairs.dropped`; for a run its pipeline.
    pub of: Option<String>,
    /// The newest run that named it.
    pub run: Option<RunId>,
    /// Its size on the disk.
    pub bytes: u64,
    /// The file or folder; for a remembered digest the file that is gone.
    pub path: PathBuf,
}

/// All garbage of a store.
#[derive(Debug, Clone, Default)]
pub struct Collection {
    /// What goes, in the order in which it does.
    pub garbage: Vec<Garbage>,
    /// How many things stay for their youth alone.
    pub n_young: u64,
    /// And their size.
    pub young_bytes: u64,
    /// Runs that stay.
    pub n_runs_kept: usize,
    /// Records of an older program that do not say which row journals they used; as long as one stays, all journals do.
    pub n_without_scopes: usize,
}

impl Collection {
    /// The size of all that goes.
    pub fn bytes(&self) -> u64 {
        self.garbage.iter().map(|garbage| garbage.bytes).sum()
    }
}

impl Store {
    /// What [`Store::collect`] would take away. Nothing is written.
    ///
    /// # Errors
    /// What a damaged or newer manifest, tag or record gives that may name something to keep; `Io`.
    pub fn garbage(&self, policy: &GcPolicy) -> Result<Collection, StoreError> {
        let _entered = self.enter()?;
        Marking::new(self, policy)?.collection()
    }

    /// Takes away all garbage, after `tell` has been told what it is. `None` while somebody adds to the store; that is for
    /// moments.
    ///
    /// # Errors
    /// Those of [`Store::garbage`]; `ReadOnly`.
    pub fn collect(&self, policy: &GcPolicy, tell: impl FnOnce(&Collection)) -> Result<Option<Collection>, StoreError> {
        self.layout().create()?;
        let Some(_alone) = StoreLock::poll_alone(self.layout())? else { return Ok(None) };
        let collection = Marking::new(self, policy)?.collection()?;
        tell(&collection);
        sweep::sweep(self, &collection.garbage)?;
        Ok(Some(collection))
    }
}

/// One look over the store.
struct Marking<'a> {
    store: &'a Store,
    layout: &'a Layout,
    policy: &'a GcPolicy,
    roots: Roots,
    /// What kept records lead to.
    content: HashSet<ContentHash>,
    scopes: HashSet<RowScope>,
    /// What an artifact or a journal is of, as far as any record tells.
    owners: HashMap<ContentHash, (String, StageKey)>,
    scope_owners: HashMap<RowScope, StageKey>,
    collection: Collection,
}

impl<'a> Marking<'a> {
    fn new(store: &'a Store, policy: &'a GcPolicy) -> Result<Self, StoreError> {
        let layout = store.layout();
        let roots = Roots::find(store, policy)?;
        let collection = Collection { n_runs_kept: roots.n_kept, ..Collection::default() };
        Ok(Self {
            store,
            layout,
            policy,
            roots,
            content: HashSet::new(),
            scopes: HashSet::new(),
            owners: HashMap::new(),
            scope_owners: HashMap::new(),
            collection,
        })
    }

    fn collection(mut self) -> Result<Collection, StoreError> {
        for (run, pipeline) in std::mem::take(&mut self.roots.dropped) {
            let path = self.layout.run(run);
            self.put(GarbageKind::Run, Some(pipeline), Some(run), path);
        }
        self.records()?;
        self.divergences()?;
        self.artifacts()?;
        self.journals()?;
        self.unfinished()?;
        self.attempts()?;
        self.leftovers()?;
        self.locks()?;
        for path in self.store.forgettable() {
            let kind = GarbageKind::Remembered;
            self.collection.garbage.push(Garbage { kind, of: None, run: None, bytes: 0, path });
        }
        Ok(self.collection)
    }

    /// A record that nobody names and that is young leads on as one that is kept: its artifacts may be old.
    fn records(&mut self) -> Result<(), StoreError> {
        for (key, path) in self.layout.records()? {
            let record = disk::get(&path)?.map(|bytes| Record::from_bytes(&path, &bytes));
            let about = record.as_ref().and_then(|record| record.as_ref().ok()?.about);
            let is_live = [Some(key), about].iter().flatten().any(|key| self.roots.keys.contains(key));
            let stays = is_live || self.is_young(&path);
            match record {
                None => continue,
                Some(Ok(record)) => self.take_record(&record, stays),
                // Of one that is to be kept, nobody knows what it leads to.
                Some(Err(error)) if is_live => return Err(error),
                Some(Err(_)) => {}
            }
            if !is_live {
                let name = self.roots.names.stage(key);
                self.put_unless_young(GarbageKind::Record, name.map(str::to_owned), self.roots.names.run(key), path);
            }
        }
        Ok(())
    }

    fn take_record(&mut self, record: &Record, stays: bool) {
        let stage = self.roots.names.stage(record.key).unwrap_or(&record.kind).to_owned();
        for (at, output) in record.outputs.iter().enumerate() {
            let content = output.artifact.content();
            let name = if at == 0 { stage.clone() } else { format!("{stage}.{}", output.name) };
            self.owners.entry(content).or_insert((name, record.key));
            if stays {
                self.content.insert(content);
            }
        }
        for scope in record.row_scopes.iter().flatten() {
            self.scope_owners.entry(*scope).or_insert(record.key);
            if stays {
                self.scopes.insert(*scope);
            }
        }
        self.collection.n_without_scopes += usize::from(stays && record.row_scopes.is_none());
    }

    fn divergences(&mut self) -> Result<(), StoreError> {
        for (key, path) in self.layout.divergences()? {
            let is_live = self.roots.keys.contains(&key);
            let stays = is_live || self.is_young(&path);
            if let Some(Ok(record)) = disk::get(&path)?.map(|bytes| Record::from_bytes(&path, &bytes)) {
                self.take_record(&record, stays);
            }
            if !is_live {
                let name = self.roots.names.stage(key).map(str::to_owned);
                self.put_unless_young(GarbageKind::Divergence, name, self.roots.names.run(key), path);
            }
        }
        Ok(())
    }

    fn artifacts(&mut self) -> Result<(), StoreError> {
        let objects = self.layout.objects()?.into_iter().map(|found| (GarbageKind::Table, found));
        let checkpoints = self.layout.checkpoints()?.into_iter().map(|found| (GarbageKind::Checkpoint, found));
        for (kind, (content, path)) in objects.chain(checkpoints) {
            if !self.content.contains(&content) {
                let owner = self.owners.get(&content);
                let (name, key) = (owner.map(|(name, _)| name.clone()), owner.map(|(_, key)| *key));
                let run = key.and_then(|key| self.roots.names.run(key));
                self.put_unless_young(kind, name, run, path);
            }
        }
        Ok(())
    }

    fn journals(&mut self) -> Result<(), StoreError> {
        for (scope, folder) in self.layout.scopes()? {
            let made_for = rows::made_for(&folder)?;
            let is_named = self.scopes.contains(&scope)
                || self.collection.n_without_scopes > 0
                || made_for.iter().any(|key| self.roots.keys.contains(key));
            if is_named || rows::is_written(&folder)? || rows::has_other_files(&folder)? {
                continue;
            }
            let key = self.scope_owners.get(&scope).or(made_for.first()).copied();
            let name = key.and_then(|key| self.roots.names.stage(key)).map(str::to_owned);
            let run = key.and_then(|key| self.roots.names.run(key));
            self.put_unless_young(GarbageKind::Rows, name, run, folder);
        }
        Ok(())
    }

    fn unfinished(&mut self) -> Result<(), StoreError> {
        for key in self.layout.resumes()? {
            let folder = self.layout.resume(key);
            let is_finished = matches!(self.store.record(key), Ok(Some(_)));
            if lock::is_held(&self.layout.lock(key)) || (self.roots.keys.contains(&key) && !is_finished) {
                continue;
            }
            let (name, run) = (self.roots.names.stage(key).map(str::to_owned), self.roots.names.run(key));
            if is_finished {
                self.put(GarbageKind::Unfinished, name, run, folder);
            } else {
                self.put_unless_young(GarbageKind::Unfinished, name, run, folder);
            }
        }
        Ok(())
    }

    /// What nobody holds is dead, however young.
    fn attempts(&mut self) -> Result<(), StoreError> {
        for (key, folder) in self.layout.attempts()? {
            if !lock::is_held(&self.layout.lock(key)) {
                let (name, run) = (self.roots.names.stage(key).map(str::to_owned), self.roots.names.run(key));
                self.put(GarbageKind::Attempt, name, run, folder);
            }
        }
        Ok(())
    }

    /// Private files whose writers died, and what was taken away as damaged.
    fn leftovers(&mut self) -> Result<(), StoreError> {
        for path in self.layout.private_files()? {
            self.put_unless_young(GarbageKind::Attempt, None, None, path);
        }
        for name in disk::list(&self.layout.damaged())? {
            let path = self.layout.damaged().join(&name);
            self.put_unless_young(GarbageKind::Damaged, None, None, path);
        }
        Ok(())
    }

    fn locks(&mut self) -> Result<(), StoreError> {
        for path in self.layout.locks()? {
            if !lock::is_held(&path) {
                self.put(GarbageKind::Lock, None, None, path);
            }
        }
        Ok(())
    }

    fn is_young(&self, path: &Path) -> bool {
        is_young(path, self.policy)
    }

    fn put_unless_young(&mut self, kind: GarbageKind, of: Option<String>, run: Option<RunId>, path: PathBuf) {
        if self.is_young(&path) {
            self.collection.n_young += 1;
            self.collection.young_bytes += disk::size(&path);
        } else {
            self.put(kind, of, run, path);
        }
    }

    fn put(&mut self, kind: GarbageKind, of: Option<String>, run: Option<RunId>, path: PathBuf) {
        let bytes = disk::size(&path);
        self.collection.garbage.push(Garbage { kind, of, run, bytes, path });
    }
}

/// Whether a file, or the youngest file of a folder, is within the grace period. A time that lies ahead, as a clock that
/// was set back leaves it, is within it; a file without a time, too.
fn is_young(path: &Path, policy: &GcPolicy) -> bool {
    let Ok(metadata) = fs::metadata(path) else { return true };
    let is_recent = metadata.modified().map_or(true, |time| time >= policy.keep_written_since);
    let entries = || fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    is_recent || (metadata.is_dir() && entries().any(|below| is_young(&below, policy)))
}

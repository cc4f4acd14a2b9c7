//! Looks at everything in the store, byte by byte, and names what is not as it was written. It owns what is looked at and
//! how each is mended, and refuses to know how a key is derived: the caller says that.
//!
//! Mending takes the damaged thing away, into `damaged/`, and with it every record that names it. Without a record a
//! result does not exist, so the next run that wants it makes it again. Rows of journals are dropped one by one. Only what
//! nobody could make again is not simply taken away: a run's manifest is put back from the tag that has a copy of it, if
//! one has. Nothing is mended on the word of an earlier look: each thing is looked at again while nobody can add to the
//! store, since a run may have made it again meanwhile.

mod check;
mod mend;
mod strays;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use crate::digest::{ContentHash, RowScope, StageKey};
use crate::disk;
use crate::error::StoreError;
use crate::layout::Layout;
use crate::lock::StoreLock;
use crate::names::Names;
use crate::record::{Leaf, Record};
use crate::rows::segment;
use crate::runs::{self, RunId};
use crate::store::Store;
use crate::tags::{self, TagName};

/// The key that leaves have, by the caller's derivation.
pub type Derive<'a> = &'a (dyn Fn(&[Leaf]) -> StageKey + Sync);

/// One thing in the store that can be damaged.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Subject {
    Format,
    Table(ContentHash),
    Checkpoint(ContentHash),
    Record(StageKey),
    Divergence(StageKey, PathBuf),
    Rows(RowScope, u32),
    Unfinished(StageKey),
    Run(RunId),
    Tag(TagName),
    StatCache,
}

/// What is wrong with a thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    subject: Subject,
    /// The file or folder.
    pub path: PathBuf,
    /// The stage or table it is of; for a run's manifest and a tag their names.
    pub of: Option<String>,
    /// The newest run that named it.
    pub run: Option<RunId>,
    /// What is wrong, in a few words.
    pub what: String,
}

impl Fault {
    /// What the thing is, in words.
    pub fn kind(&self) -> &'static str {
        match self.subject {
            Subject::Format => "format file",
            Subject::Table(_) => "table",
            Subject::Checkpoint(_) => "checkpoint",
            Subject::Record(_) => "record",
            Subject::Divergence(..) => "divergence",
            Subject::Rows(..) => "row journal",
            Subject::Unfinished(_) => "saved training",
            Subject::Run(_) => "run manifest",
            Subject::Tag(_) => "tag",
            Subject::StatCache => "stat cache",
        }
    }

    /// What a repair does about it.
    pub fn mending(&self) -> &'static str {
        match self.subject {
            Subject::Format => "is written anew",
            Subject::Table(_) | Subject::Checkpoint(_) | Subject::Record(_) => {
                "is taken away; the next run that needs it makes it again"
            }
            Subject::Divergence(..) => "is taken away; it was evidence only",
            Subject::Rows(..) => "is rid of its damaged rows; the next run that needs them makes them again",
            Subject::Unfinished(_) => "is taken away; the training begins anew",
            Subject::Run(_) => "is put back from a tag, or taken away; then nothing keeps what this run alone made",
            Subject::Tag(_) => "is taken away; set it again",
            Subject::StatCache => "is taken away; files are read again",
        }
    }
}

/// What a look over the store found.
#[derive(Debug, Clone, Default)]
pub struct Checkup {
    /// Files and folders looked at.
    pub n_things: u64,
    /// Rows of journals among them.
    pub n_rows: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What is damaged, by what it is and where.
    pub faults: Vec<Fault>,
    /// Files that are none of the store's.
    pub strays: Vec<PathBuf>,
    /// Files of a newer program, which this one cannot look into.
    pub n_newer: u64,
}

/// How a repair went.
#[derive(Debug, Clone, Default)]
pub struct Mended {
    /// Those that are mended, or were not damaged any more.
    pub mended: Vec<Fault>,
    /// Those that somebody is writing to just now.
    pub in_use: Vec<Fault>,
}

impl Store {
    /// Opens a store to look at it, also one whose format file is damaged: the folders say what it is.
    ///
    /// # Errors
    /// As [`Store::open`], but for a format file that says nothing.
    pub fn open_damaged(root: impl AsRef<Path>) -> Result<Self, StoreError> {
        match Self::open(&root) {
            Err(StoreError::NotAStore { .. }) if Layout::looks_like_one(root.as_ref()) => {
                Ok(Self::with_layout(Layout::unchecked(root.as_ref())))
            }
            opened => opened,
        }
    }

    /// How many bytes a look over the store reads, as far as names and sizes tell.
    pub fn bytes_to_check(&self) -> u64 {
        disk::size(self.root())
    }

    /// Looks at everything. Nothing is written, and runs may go on meanwhile. `watch` is told of bytes as they are read,
    /// from several threads.
    ///
    /// # Errors
    /// `Io` when a file cannot be read at all.
    pub fn check_all(&self, derive: Derive<'_>, watch: &(dyn Fn(u64) + Sync)) -> Result<Checkup, StoreError> {
        // Nobody takes away what this is about to look at.
        let _entered = self.enter()?;
        let subjects = self.subjects()?;
        let read = AtomicU64::new(0);
        let count = |bytes: u64| {
            read.fetch_add(bytes, Ordering::Relaxed);
            watch(bytes);
        };
        let looks: Vec<_> =
            subjects.par_iter().map(|subject| (subject, check::check(self, subject, derive, &count))).collect();
        let mut checkup =
            Checkup { n_things: subjects.len() as u64, strays: strays::find(self.layout())?, ..Checkup::default() };
        let mut found = Vec::new();
        for (subject, look) in looks {
            let look = look?;
            checkup.n_rows += look.n_rows;
            checkup.n_newer += u64::from(look.is_newer);
            found.extend(look.what.map(|what| (subject.clone(), what)));
        }
        checkup.bytes = read.into_inner();
        let owners = Owners::find(self)?;
        let damaged: HashSet<ContentHash> = found.iter().filter_map(|(subject, _)| subject.content()).collect();
        found.extend(owners.records_of(&damaged));
        found.sort_by_cached_key(|(subject, _)| (subject.rank(), self.place(subject)));
        found.dedup_by(|(one, _), (other, _)| one == other);
        let fault = |(subject, what)| {
            let (of, run) = owners.of(&subject);
            Fault { path: self.place(&subject), subject, of, run, what }
        };
        checkup.faults = found.into_iter().map(fault).collect();
        Ok(checkup)
    }

    /// Mends what is still damaged. `None` while somebody adds to the store; that is for moments.
    ///
    /// # Errors
    /// `ReadOnly`, `NoSpace`, `Io`.
    pub fn mend(&self, faults: &[Fault], derive: Derive<'_>) -> Result<Option<Mended>, StoreError> {
        self.layout().create_folders()?;
        let Some(_alone) = StoreLock::poll_alone(self.layout())? else { return Ok(None) };
        let mut mended = Mended::default();
        for fault in faults {
            // Artifacts come before records, so that a record whose artifact went is damaged by now.
            let is_damaged = check::check(self, &fault.subject, derive, &|_| {})?.what.is_some();
            if !is_damaged || mend::mend(self, &fault.subject)? {
                mended.mended.push(fault.clone());
            } else {
                mended.in_use.push(fault.clone());
            }
        }
        Ok(Some(mended))
    }

    /// Everything there is to look at, large things first.
    fn subjects(&self) -> Result<Vec<Subject>, StoreError> {
        let layout = self.layout();
        let mut subjects = Vec::new();
        subjects.extend(layout.checkpoints()?.into_iter().map(|(hash, _)| Subject::Checkpoint(hash)));
        subjects.extend(layout.resumes()?.into_iter().map(Subject::Unfinished));
        for (scope, folder) in layout.scopes()? {
            subjects.extend(segment::segments(&folder)?.into_iter().map(|number| Subject::Rows(scope, number)));
        }
        subjects.extend(layout.objects()?.into_iter().map(|(hash, _)| Subject::Table(hash)));
        subjects.extend(layout.records()?.into_iter().map(|(key, _)| Subject::Record(key)));
        subjects.extend(layout.divergences()?.into_iter().map(|(key, path)| Subject::Divergence(key, path)));
        subjects.extend(runs::list(layout)?.into_iter().map(Subject::Run));
        subjects.extend(tags::names(layout)?.into_iter().map(Subject::Tag));
        subjects.extend([Subject::StatCache, Subject::Format]);
        subjects.retain(|subject| disk::exists(&self.place(subject)));
        Ok(subjects)
    }

    /// Where a thing is.
    fn place(&self, subject: &Subject) -> PathBuf {
        let layout = self.layout();
        match subject {
            Subject::Format => layout.format(),
            Subject::Table(hash) => layout.object(*hash),
            Subject::Checkpoint(hash) => layout.checkpoint(*hash),
            Subject::Record(key) => layout.record(*key),
            Subject::Divergence(_, path) => path.clone(),
            Subject::Rows(scope, _) => layout.rows(*scope),
            Subject::Unfinished(key) => layout.resume(*key),
            Subject::Run(run) => layout.run(*run),
            Subject::Tag(name) => layout.tag(name),
            Subject::StatCache => layout.stat_cache(),
        }
    }
}

impl Subject {
    fn content(&self) -> Option<ContentHash> {
        match self {
            Self::Table(hash) | Self::Checkpoint(hash) => Some(*hash),
            _ => None,
        }
    }

    /// The order of mending: what is named before what names it, and tags last, which have the copies of manifests.
    fn rank(&self) -> u8 {
        match self {
            Self::Format => 0,
            Self::Table(_) | Self::Checkpoint(_) => 1,
            Self::Rows(..) | Self::Unfinished(_) => 2,
            Self::Record(_) | Self::Divergence(..) => 3,
            Self::Run(_) => 4,
            Self::Tag(_) | Self::StatCache => 5,
        }
    }
}

/// What things are of, as far as anything tells.
struct Owners {
    names: Names,
    /// The records and divergences that name an artifact, each with the output.
    naming: HashMap<ContentHash, Vec<(Subject, StageKey, String)>>,
    scopes: HashMap<RowScope, StageKey>,
}

impl Owners {
    fn find(store: &Store) -> Result<Self, StoreError> {
        let layout = store.layout();
        let mut owners = Self { names: Names::default(), naming: HashMap::new(), scopes: HashMap::new() };
        store.tags()?.iter().for_each(|tag| owners.names.take(&tag.manifest));
        for run in runs::list(layout)? {
            if let Ok(Some(manifest)) = store.run(run) {
                owners.names.take(&manifest);
            }
        }
        let records = layout.records()?.into_iter().map(|(key, path)| (Subject::Record(key), path));
        let divergences = layout.divergences()?.into_iter();
        let divergences = divergences.map(|(key, path)| (Subject::Divergence(key, path.clone()), path));
        for (subject, path) in records.chain(divergences) {
            if let Ok(Some(bytes)) = disk::get(&path)
                && let Ok(record) = Record::from_bytes(&path, &bytes)
            {
                owners.take(subject, &record);
            }
        }
        Ok(owners)
    }

    fn take(&mut self, subject: Subject, record: &Record) {
        for (at, output) in record.outputs.iter().enumerate() {
            let stage = self.names.stage(record.key).unwrap_or(&record.kind);
            let name = if at == 0 { stage.to_owned() } else { format!("{stage}.{}", output.name) };
            let naming = self.naming.entry(output.artifact.content()).or_default();
            naming.push((subject.clone(), record.key, name));
        }
        for scope in record.row_scopes.iter().flatten() {
            self.scopes.insert(*scope, record.key);
        }
    }

    /// The records that name something damaged, and what to say of each.
    fn records_of(&self, damaged: &HashSet<ContentHash>) -> Vec<(Subject, String)> {
        let naming = damaged.iter().filter_map(|hash| self.naming.get(hash)).flatten();
        naming.map(|(subject, _, name)| (subject.clone(), format!("what it names is damaged: {name}"))).collect()
    }

    fn of(&self, subject: &Subject) -> (Option<String>, Option<RunId>) {
        let of_key = |key: StageKey| (self.names.stage(key).map(str::to_owned), self.names.run(key));
        match subject {
            Subject::Table(hash) | Subject::Checkpoint(hash) => {
                match self.naming.get(hash).and_then(|naming| naming.first()) {
                    Some((_, key, name)) => (Some(name.clone()), self.names.run(*key)),
                    None => (None, None),
                }
            }
            Subject::Record(key) | Subject::Divergence(key, _) | Subject::Unfinished(key) => of_key(*key),
            Subject::Rows(scope, _) => self.scopes.get(scope).map_or((None, None), |key| of_key(*key)),
            Subject::Run(run) => (None, Some(*run)),
            Subject::Tag(name) => (Some(name.to_string()), None),
            Subject::Format | Subject::StatCache => (None, None),
        }
    }
}

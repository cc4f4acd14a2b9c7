//! Looks at one thing of the store, whole.

use std::io;
use std::path::Path;

use crate::attempt;
use crate::digest::StageKey;
use crate::disk;
use crate::error::StoreError;
use crate::fsck::{Derive, Subject};
use crate::layout::Layout;
use crate::reading::missing_output;
use crate::record::Record;
use crate::resume;
use crate::rows::segment;
use crate::runs;
use crate::stat_cache;
use crate::store::Store;
use crate::tags;

/// What is wrong with a file, in words; `None` for one that is right.
type Found = Result<Option<String>, StoreError>;

/// What a look at one thing found.
#[derive(Default)]
pub(super) struct Look {
    /// What is wrong, if anything is.
    pub what: Option<String>,
    pub n_rows: u64,
    /// Whether a newer program wrote it.
    pub is_newer: bool,
}

const OTHER_BYTES: &str = "its bytes are not those that were written";

/// Looks at one thing. That it is gone is no fault: somebody may have taken it away since it was listed.
pub(super) fn check(
    store: &Store,
    subject: &Subject,
    derive: Derive<'_>,
    watch: &dyn Fn(u64),
) -> Result<Look, StoreError> {
    let layout = store.layout();
    let file = |path: &Path, read: &dyn Fn(&[u8]) -> Found| {
        let bytes = disk::get(path)?;
        watch(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64));
        bytes.map_or(Ok(Look::default()), |bytes| verdict(read(&bytes)))
    };
    let content = |is_right: bool| if is_right { None } else { Some(OTHER_BYTES.to_owned()) };
    match subject {
        Subject::Format => verdict(Layout::open(store.root()).map(|_| None)),
        Subject::Table(hash) => {
            let found = disk::hash_file_telling(&layout.object(*hash), watch);
            verdict(found.map(|found| content(found == *hash)))
        }
        Subject::Checkpoint(hash) => {
            let found = attempt::hash_folder_telling(&layout.checkpoint(*hash), watch);
            verdict(found.map(|found| content(found == *hash)))
        }
        Subject::Record(key) => {
            let path = layout.record(*key);
            file(&path, &|bytes| {
                Record::from_bytes(&path, bytes).map(|record| of_record(layout, *key, &record, derive))
            })
        }
        Subject::Divergence(key, path) => {
            file(path, &|bytes| Record::from_bytes(path, bytes).map(|record| of_record(layout, *key, &record, derive)))
        }
        Subject::Rows(scope, number) => {
            let health = segment::check(&layout.rows(*scope), *number, watch)?;
            let (n_damaged, n_rows) = (health.n_damaged, health.n_rows);
            let what = (n_damaged > 0).then(|| format!("{n_damaged} of {n_rows} rows are not those that were written"));
            Ok(Look { what, n_rows, is_newer: false })
        }
        Subject::Unfinished(key) => verdict(resume::check(layout, *key, watch).map(|()| None)),
        Subject::Run(run) => {
            let path = layout.run(*run);
            file(&path, &|bytes| {
                let manifest = runs::from_bytes(&path, bytes)?;
                Ok((manifest.run != *run).then(|| format!("it is the manifest of run {}", manifest.run)))
            })
        }
        Subject::Tag(name) => {
            let path = layout.tag(name);
            file(&path, &|bytes| {
                let tag = tags::from_bytes(&path, bytes)?;
                Ok((tag.name != *name).then(|| format!("it is the tag `{}`", tag.name)))
            })
        }
        Subject::StatCache => {
            let path = layout.stat_cache();
            file(&path, &|bytes| stat_cache::read(&path, bytes).map(|_| None))
        }
    }
}

/// What is wrong with a record that reads.
fn of_record(layout: &Layout, key: StageKey, record: &Record, derive: Derive<'_>) -> Option<String> {
    if record.key != key || derive(&record.leaves) != key {
        return Some("its name is not the key of what it says".to_owned());
    }
    let lacking = missing_output(layout, record)?;
    Some(format!("its output `{}` is gone, or has another size", lacking.name))
}

/// Damage is what is looked for, and a newer form is not for this program to judge; any other error is one.
fn verdict(read: Found) -> Result<Look, StoreError> {
    let damaged = |what: &str| Ok(Look { what: Some(what.to_owned()), ..Look::default() });
    match read {
        Ok(what) => Ok(Look { what, ..Look::default() }),
        Err(StoreError::NewerRecord { .. } | StoreError::NewerFile { .. }) => {
            Ok(Look { is_newer: true, ..Look::default() })
        }
        Err(StoreError::Corrupt { .. } | StoreError::Unsealed { .. }) => damaged(OTHER_BYTES),
        Err(StoreError::Gone { .. }) => damaged("a file of it is gone"),
        Err(StoreError::Json { .. }) => damaged("it is cut short, or something else was written over it"),
        Err(StoreError::NotAStore { .. }) => damaged("it does not say which version the store has"),
        Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(Look::default()),
        Err(error) => Err(error),
    }
}

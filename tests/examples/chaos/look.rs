//! What a store must look like whenever nobody works on it: every name a complete thing, every row whole. Read through crate
//! `store` where it can answer, and by the promises of its documentation where it cannot.
//!
//! Owns what counts as a violation. Knows nothing of runs and kills.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use sluice_store::{Artifact, RowKey, RowScope, RunId, StageKey, Store};

/// A store at one moment.
#[derive(Default)]
pub struct Seen {
    /// The whole rows of the journal, by scope.
    pub rows: BTreeMap<RowScope, BTreeSet<RowKey>>,
    /// The bytes of every record.
    pub records: BTreeMap<StageKey, Vec<u8>>,
    /// Files and folders of processes that are gone: nobody reads them as results.
    pub leftovers: Vec<PathBuf>,
    /// What must not be.
    pub faults: Vec<String>,
}

/// Looks at everything in a store that nobody works on.
pub fn look(root: &Path) -> Result<Seen, Box<dyn Error>> {
    let store = Store::open(root)?;
    let mut seen = Seen::default();
    seen.rows(&store)?;
    seen.records(&store)?;
    seen.objects(&store)?;
    seen.runs(&store)?;
    for folder in ["objects", "checkpoints", "records", "divergences", "runs", "locks", "tags", "resume", ""] {
        let names = names(&root.join(folder))?;
        seen.leftovers
            .extend(names.into_iter().filter(|name| is_private(name)).map(|name| root.join(folder).join(name)));
    }
    seen.leftovers.extend(names(&root.join("tmp"))?.into_iter().map(|name| root.join("tmp").join(name)));
    Ok(seen)
}

impl Seen {
    /// Rows of all scopes.
    pub fn n_rows(&self) -> usize {
        self.rows.values().map(BTreeSet::len).sum()
    }

    /// What was there before and is not any more: rows, and records or their bytes.
    pub fn lost_since(&self, before: &Seen) -> Vec<String> {
        let mut lost = Vec::new();
        for (scope, rows) in &before.rows {
            let n_lost = self.rows.get(scope).map_or(rows.len(), |now| rows.difference(now).count());
            if n_lost > 0 {
                lost.push(format!("{n_lost} of {} journaled rows of scope {} are gone", rows.len(), scope.short()));
            }
        }
        for (key, bytes) in &before.records {
            match self.records.get(key) {
                None => lost.push(format!("the record {} is gone", key.short())),
                Some(now) if now != bytes => lost.push(format!("the record {} is another", key.short())),
                Some(_) => {}
            }
        }
        lost
    }

    fn rows(&mut self, store: &Store) -> Result<(), Box<dyn Error>> {
        for name in names(&store.root().join("rows"))? {
            let Ok(scope) = name.parse::<RowScope>() else {
                self.faults.push(format!("rows/{name} is no scope"));
                continue;
            };
            let known = store.rows(scope)?;
            let mut whole = BTreeSet::new();
            for key in known.keys() {
                match known.get(key)? {
                    Some(_) => drop(whole.insert(key)),
                    None => self.faults.push(format!(
                        "row {} of scope {} has a key and no bytes",
                        key.short(),
                        scope.short()
                    )),
                }
            }
            self.rows.insert(scope, whole);
        }
        Ok(())
    }

    /// Every record reads, and all it names is there and has the bytes that were written.
    fn records(&mut self, store: &Store) -> Result<(), Box<dyn Error>> {
        let folder = store.root().join("records");
        for name in names(&folder)?.into_iter().filter(|name| !is_private(name)) {
            let Some(key) = name.strip_suffix(".json").and_then(|key| key.parse::<StageKey>().ok()) else {
                self.faults.push(format!("records/{name} is no key"));
                continue;
            };
            self.records.insert(key, fs::read(folder.join(&name))?);
            let record = match store.record(key) {
                Ok(Some(record)) => record,
                Ok(None) => continue,
                Err(error) => {
                    self.faults.push(error.to_string());
                    continue;
                }
            };
            for output in &record.outputs {
                let read = match &output.artifact {
                    Artifact::Table(_) => store.read_table(output).map(drop),
                    Artifact::Checkpoint(_) => store.checkpoint_path(output).map(drop),
                };
                if let Err(error) = read {
                    self.faults.push(format!("record {} of a {} stage: {error}", key.short(), record.kind));
                }
            }
        }
        Ok(())
    }

    /// Every object has the digest it is named after, whether or not a record names it.
    fn objects(&mut self, store: &Store) -> Result<(), Box<dyn Error>> {
        let folder = store.root().join("objects");
        for head in names(&folder)?.into_iter().filter(|name| !is_private(name)) {
            for tail in names(&folder.join(&head))? {
                let path = folder.join(&head).join(&tail);
                if is_private(&tail) {
                    self.leftovers.push(path);
                } else if store.file_digest(&path)?.to_string() != format!("{head}{tail}") {
                    self.faults.push(format!("objects/{head}/{tail} has other bytes than its name says"));
                }
            }
        }
        Ok(())
    }

    /// Every manifest reads.
    fn runs(&mut self, store: &Store) -> Result<(), Box<dyn Error>> {
        for name in names(&store.root().join("runs"))?.into_iter().filter(|name| !is_private(name)) {
            match name.strip_suffix(".json").and_then(|run| run.parse::<RunId>().ok()).map(|run| store.run(run)) {
                Some(Ok(Some(_))) => {}
                Some(Ok(None)) | None => self.faults.push(format!("runs/{name} is no run")),
                Some(Err(error)) => self.faults.push(error.to_string()),
            }
        }
        Ok(())
    }
}

/// Whether a name is one that only its writer uses, before it gives the file its public name.
fn is_private(name: &str) -> bool {
    name.starts_with('.') && name != ".gitignore"
}

/// The names in a folder, sorted; none if it is not there.
fn names(folder: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

//! Takes garbage away, in the order in which it was listed: what names before what is named. It refuses to judge what is
//! garbage.

use std::fs;
use std::io;
use std::path::Path;

use crate::disk;
use crate::error::StoreError;
use crate::gc::{Garbage, GarbageKind};
use crate::lock;
use crate::store::Store;

/// Takes all of it away. The caller holds the lock of the store alone.
pub(super) fn sweep(store: &Store, garbage: &[Garbage]) -> Result<(), StoreError> {
    let layout = store.layout();
    let of = |kinds: &'static [GarbageKind]| garbage.iter().filter(move |garbage| kinds.contains(&garbage.kind));
    let named = [
        (&[GarbageKind::Run][..], vec![layout.runs()]),
        (
            &[GarbageKind::Record, GarbageKind::Divergence][..],
            vec![layout.records_folder(), layout.divergences_folder()],
        ),
    ];
    for (kinds, folders) in named {
        let mut any = false;
        for garbage in of(kinds) {
            disk::remove_file(&garbage.path)?;
            any = true;
        }
        if any {
            folders.iter().try_for_each(|folder| disk::sync_folder(folder))?;
        }
    }
    for Garbage { kind, path, .. } in garbage {
        match kind {
            // Gone already, or together below.
            GarbageKind::Run | GarbageKind::Record | GarbageKind::Divergence | GarbageKind::Remembered => {}
            GarbageKind::Lock => drop(lock::remove_if_free(path)?),
            GarbageKind::Table
            | GarbageKind::Checkpoint
            | GarbageKind::Rows
            | GarbageKind::Unfinished
            | GarbageKind::Attempt
            | GarbageKind::Damaged => remove(path)?,
        }
    }
    let forgotten: Vec<&Path> = of(&[GarbageKind::Remembered]).map(|garbage| garbage.path.as_path()).collect();
    if forgotten.is_empty() { Ok(()) } else { store.forget(&forgotten) }
}

/// Removes a file or a folder with all below it; that it is gone already is no fault.
fn remove(path: &Path) -> Result<(), StoreError> {
    if !path.is_dir() {
        return disk::remove_file(path);
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", path, error)),
        _ => Ok(()),
    }
}

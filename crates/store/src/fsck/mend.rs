//! Mends one thing that is damaged. The caller holds the lock of the store alone, and has just looked.

use std::fs;
use std::path::Path;

use crate::disk;
use crate::error::StoreError;
use crate::fsck::Subject;
use crate::layout::Layout;
use crate::lock;
use crate::rows::segment;
use crate::sealed;
use crate::store::Store;

/// Mends a thing. Whether it did: what somebody is writing to is left for later.
pub(super) fn mend(store: &Store, subject: &Subject) -> Result<bool, StoreError> {
    let layout = store.layout();
    match subject {
        Subject::Format => disk::replace_synced(&layout.format(), &Layout::format_text())?,
        Subject::Rows(scope, number) => return segment::mend(&layout.rows(*scope), *number),
        Subject::Unfinished(key) if lock::is_held(&layout.lock(*key)) => return Ok(false),
        Subject::Run(run) => {
            let tags = store.tags()?;
            let path = layout.run(*run);
            // A run that goes on writes its manifest itself.
            if store.is_alive(*run) {
                return Ok(false);
            }
            take_away(layout, &path)?;
            if let Some(tag) = tags.into_iter().find(|tag| tag.run() == *run) {
                disk::replace_synced(&path, &sealed::encode(&path, &tag.manifest)?)?;
            }
        }
        Subject::Table(_)
        | Subject::Checkpoint(_)
        | Subject::Record(_)
        | Subject::Divergence(..)
        | Subject::Unfinished(_)
        | Subject::Tag(_)
        | Subject::StatCache => take_away(layout, &store.place(subject))?,
    }
    Ok(true)
}

/// Moves a file or a folder into `damaged/`, under a name that says what it was: somebody may want to look at it.
fn take_away(layout: &Layout, path: &Path) -> Result<(), StoreError> {
    let within = path.strip_prefix(layout.root()).unwrap_or(path);
    let parts: Vec<_> = within.iter().map(|part| part.to_string_lossy()).collect();
    let name = format!("{}.{}", parts.join("-"), disk::unique());
    let to = layout.damaged().join(name);
    fs::rename(path, &to).map_err(|error| StoreError::io("take away", path, error))?;
    disk::sync_folder(path.parent().unwrap_or(Path::new(".")))
}

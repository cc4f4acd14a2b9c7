//! Files in the store's folder that are none of its: told, and left where they are.

use std::path::{Path, PathBuf};

use crate::digest::{ContentHash, RowScope, StageKey};
use crate::disk;
use crate::error::StoreError;
use crate::layout::{self, Layout};
use crate::rows;
use crate::runs::RunId;
use crate::tags::TagName;

/// Every file whose name the store does not give, sorted.
pub(super) fn find(layout: &Layout) -> Result<Vec<PathBuf>, StoreError> {
    let root = layout.root();
    let is_key = |name: &str| name.parse::<StageKey>().is_ok();
    let json = |name: &str| name.strip_suffix(".json").map(str::to_owned);
    let mut strays = Vec::new();
    strays.extend(others(root, &layout::is_of_root)?);
    strays.extend(others(&layout.records_folder(), &|name| json(name).is_some_and(|name| is_key(&name)))?);
    strays.extend(others(&layout.divergences_folder(), &|name| {
        json(name)
            .is_some_and(|name| name.split_once('.').is_some_and(|(key, n)| is_key(key) && n.parse::<u64>().is_ok()))
    })?);
    strays.extend(others(&layout.runs(), &|name| json(name).is_some_and(|name| name.parse::<RunId>().is_ok()))?);
    strays.extend(others(&layout.tags(), &|name| json(name).is_some_and(|name| name.parse::<TagName>().is_ok()))?);
    strays.extend(others(&root.join("checkpoints"), &|name| name.parse::<ContentHash>().is_ok())?);
    strays.extend(others(&root.join("resume"), &is_key)?);
    strays.extend(others(&root.join("rows"), &|name| name.parse::<RowScope>().is_ok())?);
    strays
        .extend(others(&root.join("locks"), &|name| is_key(name) || name == "store" || name.parse::<RunId>().is_ok())?);
    strays.extend(others(&layout.tmp(), &|name| name.split('.').next().is_some_and(is_key))?);
    strays.extend(others(&root.join("objects"), &|name| name.len() == 2)?);
    for prefix in disk::list(&root.join("objects"))?.into_iter().filter(|name| name.len() == 2) {
        let is_object = |name: &str| format!("{prefix}{name}").parse::<ContentHash>().is_ok();
        strays.extend(others(&root.join("objects").join(&prefix), &is_object)?);
    }
    for (_, folder) in layout.scopes()? {
        strays.extend(others(&folder, &rows::is_of_journal)?);
    }
    strays.sort();
    Ok(strays)
}

/// What a folder holds besides files of known names and private files, which are somebody's to finish or `gc`'s to remove.
fn others(folder: &Path, is_known: &dyn Fn(&str) -> bool) -> Result<Vec<PathBuf>, StoreError> {
    let names = disk::list(folder)?;
    let strays = names.iter().filter(|name| !is_known(name) && !layout::is_private(name));
    Ok(strays.map(|name| folder.join(name)).collect())
}

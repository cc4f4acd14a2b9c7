//! One segment of a row journal as a whole: every entry and every row looked at, and the damaged ones taken out. It refuses
//! to know who asks for rows.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use crate::disk;
use crate::error::StoreError;
use crate::rows::{Entry, KEYS, ROWS, head};

/// What a segment is like.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Health {
    pub n_rows: u64,
    /// Entries that do not read, and rows that are not those that were written.
    pub n_damaged: u64,
}

/// The segments of a journal, by number.
pub(crate) fn segments(folder: &Path) -> Result<Vec<u32>, StoreError> {
    let names = disk::list(folder)?;
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| name.strip_suffix(KEYS)?.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Looks at every entry and every row. What stands at the end and was not finished is no damage: a writer is at it, or
/// died, and the next one goes on there.
pub(crate) fn check(folder: &Path, number: u32, watch: &dyn Fn(u64)) -> Result<Health, StoreError> {
    let (health, _) = look(folder, number, watch)?;
    Ok(health)
}

/// Takes damaged entries out, so that their rows are made again. Whether it did: not while somebody appends.
///
/// Entries move towards the front, each onto a place whose own entry has moved already. A kill in between leaves some
/// twice, and none is lost.
pub(crate) fn mend(folder: &Path, number: u32) -> Result<bool, StoreError> {
    let path = folder.join(format!("{number}{KEYS}"));
    let file = File::options().read(true).write(true).open(&path);
    let mut file = file.map_err(|error| StoreError::io("open", &path, error))?;
    if file.try_lock().is_err() {
        return Ok(false);
    }
    let (_, sound) = look(folder, number, &|_| {})?;
    let mut write = || -> io::Result<()> {
        file.seek(SeekFrom::Start(0))?;
        for entry in &sound {
            file.write_all(entry)?;
        }
        file.set_len((sound.len() * Entry::BYTES) as u64)?;
        file.sync_all()
    };
    write().map_err(|error| StoreError::io("mend", &path, error))?;
    Ok(true)
}

/// The health of a segment, and its sound entries in order.
fn look(folder: &Path, number: u32, watch: &dyn Fn(u64)) -> Result<(Health, Vec<[u8; Entry::BYTES]>), StoreError> {
    // Keys first: a writer that is at work writes a row before its key.
    let keys = disk::get(&folder.join(format!("{number}{KEYS}")))?.unwrap_or_default();
    watch(keys.len() as u64);
    let path = folder.join(format!("{number}{ROWS}"));
    let (keys, _torn) = keys.as_chunks::<{ Entry::BYTES }>();
    let mut health = Health::default();
    let mut rows = match File::open(&path) {
        Ok(rows) => rows,
        // The names of a new segment that a power cut took apart.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((health, Vec::new())),
        Err(error) => return Err(StoreError::read("open", &path, error)),
    };
    let failed = |error| StoreError::read("read", &path, error);
    let n_bytes = rows.metadata().map_err(failed)?.len();
    let is_whole = |entry: &Entry| entry.place.end() <= n_bytes;
    let n_finished = keys.iter().rposition(|bytes| Entry::of(bytes).is_some_and(|entry| is_whole(&entry)));
    let mut sound = Vec::new();
    let mut row = Vec::new();
    let mut at = 0;
    for bytes in &keys[..n_finished.map_or(0, |last| last + 1)] {
        health.n_rows += 1;
        let mut is_sound = || -> io::Result<bool> {
            let Some(entry) = Entry::of(bytes).filter(is_whole) else { return Ok(false) };
            if at != entry.place.offset {
                rows.seek(SeekFrom::Start(entry.place.offset))?;
            }
            row.resize(entry.place.length as usize, 0);
            rows.read_exact(&mut row)?;
            at = entry.place.end();
            Ok(head(&row) == entry.place.check)
        };
        if is_sound().map_err(failed)? {
            sound.push(*bytes);
        } else {
            health.n_damaged += 1;
        }
        watch(row.len() as u64);
    }
    Ok((health, sound))
}

//! The row journal: results of single rows, each under a key of its own, so that a later run makes only what is new and
//! a killed one goes on where it was. It owns the form of the files and what survives a kill, and refuses to know what a
//! row is.
//!
//! ```text
//! rows/SCOPE/N.v1.rows   the bytes of the rows, end to end
//! rows/SCOPE/N.v1.keys   an entry of 64 bytes for each of them, written after it:
//!                        key 32 | offset 8 | length 4 | BLAKE3 of the row 12 | BLAKE3 of all that 8
//! rows/SCOPE/KEY.for     empty; rows here were made for the stage of this key, which may not have a record yet
//! ```
//!
//! A scope is everything that rows share, so that one who looks for rows reads only what may match. The keys lie apart
//! from the rows: a million of them are 64 MB to read, however long the rows are. Integers are little-endian; a hash is
//! its first bytes. Another version of the form has another name, and neither sees the other's files.
//!
//! Only one process appends to a segment, the one that has the lock of its keys; a process that finds them all locked
//! begins the next. So there are as many segments as there ever were writers at one time, and none needs merging. What a
//! dead writer left half-written has no valid entry, is read by nobody, and is cut off by the next writer. Of two entries
//! with one key the later one counts, and that of the lower segment, which is where a damaged row is written again.

pub(crate) mod segment;

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::hash::{BuildHasherDefault, Hasher};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::digest::{RowKey, RowScope, StageKey};
use crate::disk;
use crate::error::StoreError;
use crate::layout::Layout;
use crate::lock::{self, StoreLock};
use crate::store::Store;

const KEYS: &str = ".v1.keys";
const ROWS: &str = ".v1.rows";
const FOR: &str = ".for";

/// Bytes that are read at once, rows that nobody asked for included.
const READ_BYTES: u64 = 1 << 20;
/// Rows after which a writer syncs, whatever the time: so many come in less than the seconds below only where a row is
/// cheap to make again.
const SYNC_ROWS: u64 = 1 << 15;
/// Seconds after which it does, whatever the rows.
const SYNC_SECONDS: f64 = 5.0;

impl Store {
    /// The rows of a scope that earlier writers kept. The rows themselves stay on disk until they are asked for.
    ///
    /// # Errors
    /// `Io` when a file that is there cannot be read.
    pub fn rows(&self, scope: RowScope) -> Result<KnownRows, StoreError> {
        KnownRows::read(self.layout(), scope, None)
    }
}

/// The rows of a scope, as they were when they were read.
pub struct KnownRows {
    layout: Layout,
    scope: RowScope,
    /// For which stage rows are added.
    stage: Option<StageKey>,
    /// By key, the segment and the place in it.
    places: HashMap<RowKey, (u32, Place), BuildHasherDefault<OwnHash>>,
    segments: Vec<Segment>,
}

/// A file of rows, open for reading.
struct Segment {
    path: PathBuf,
    rows: File,
}

impl KnownRows {
    pub(crate) fn read(layout: &Layout, scope: RowScope, stage: Option<StageKey>) -> Result<Self, StoreError> {
        let folder = layout.rows(scope);
        let names = disk::list(&folder)?;
        let mut numbers: Vec<u32> = names.iter().filter_map(|name| name.strip_suffix(KEYS)?.parse().ok()).collect();
        // The lowest last, since a later place replaces an earlier one.
        numbers.sort_unstable_by(|left, right| right.cmp(left));
        let (layout, mut places, mut segments) = (layout.clone(), HashMap::default(), Vec::new());
        for number in numbers {
            let path = folder.join(format!("{number}{ROWS}"));
            // Keys first: a writer that is at work writes a row before its key.
            let keys = disk::get(&folder.join(format!("{number}{KEYS}")))?.unwrap_or_default();
            let rows = match File::open(&path) {
                Ok(rows) => rows,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(StoreError::read("open", &path, error)),
            };
            let n_bytes = rows.metadata().map_err(|error| StoreError::read("read", &path, error))?.len();
            let segment = segments.len() as u32;
            places.reserve(keys.len() / Entry::BYTES);
            places.extend(entries(&keys, n_bytes).map(|entry| (entry.key, (segment, entry.place))));
            segments.push(Segment { path, rows });
        }
        Ok(Self { layout, scope, stage, places, segments })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The keys there are rows of, in no order.
    pub fn keys(&self) -> impl Iterator<Item = RowKey> + '_ {
        self.places.keys().copied()
    }

    /// Whether there is a row of this key; its bytes are not looked at.
    pub fn contains(&self, key: RowKey) -> bool {
        self.places.contains_key(&key)
    }

    /// The bytes of a row; none if it is not there, or damaged, which is the same to one who can make it again.
    ///
    /// # Errors
    /// `Io` when the disk refuses.
    pub fn get(&self, key: RowKey) -> Result<Option<Vec<u8>>, StoreError> {
        let Some((segment, place)) = self.places.get(&key) else { return Ok(None) };
        let Segment { path, rows } = &self.segments[*segment as usize];
        let mut bytes = vec![0; place.length as usize];
        let mut read = |mut rows: &File| -> io::Result<()> {
            rows.seek(SeekFrom::Start(place.offset))?;
            rows.read_exact(&mut bytes)
        };
        match read(rows) {
            Ok(()) => Ok((head(&bytes) == place.check).then_some(bytes)),
            // Somebody has cut the file since.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(StoreError::read("read", path, error)),
        }
    }

    /// The bytes of many rows, in no order: `take` gets the number of a key among `keys`, and the row. Rows that are not
    /// there, or damaged, are passed over. What lies close together is read at once, so that a million rows cost a few
    /// hundred reads.
    ///
    /// # Errors
    /// `Io` when the disk refuses.
    pub fn get_all(&self, keys: &[RowKey], mut take: impl FnMut(usize, &[u8])) -> Result<(), StoreError> {
        let found = |(at, key): (usize, &RowKey)| self.places.get(key).map(|(segment, place)| (*segment, *place, at));
        let mut wanted: Vec<(u32, Place, usize)> = keys.iter().enumerate().filter_map(found).collect();
        wanted.sort_unstable_by_key(|(segment, place, _)| (*segment, place.offset));
        let mut bytes = Vec::new();
        let mut rest = wanted.as_slice();
        while let Some((segment, first, _)) = rest.first() {
            let near = |(other, place, _): &&(u32, Place, usize)| {
                other == segment && place.end().saturating_sub(first.offset) <= READ_BYTES
            };
            // One that is longer than a reading is read alone.
            let n = rest.iter().take_while(near).count().max(1);
            let (here, later) = rest.split_at(n);
            rest = later;
            let end = here.iter().map(|(_, place, _)| place.end()).max().unwrap_or(first.offset);
            let Segment { path, rows } = &self.segments[*segment as usize];
            bytes.clear();
            let mut read = |mut rows: &File| -> io::Result<()> {
                rows.seek(SeekFrom::Start(first.offset))?;
                rows.take(end - first.offset).read_to_end(&mut bytes).map(drop)
            };
            read(rows).map_err(|error| StoreError::read("read", path, error))?;
            for (_, place, at) in here {
                let start = (place.offset - first.offset) as usize;
                // Somebody may have cut the file since.
                let row = bytes.get(start..start + place.length as usize);
                if let Some(row) = row.filter(|row| head(row) == place.check) {
                    take(*at, row);
                }
            }
        }
        Ok(())
    }

    /// Takes the first segment that nobody writes to. `now_s` is the caller's clock, here and below.
    ///
    /// # Errors
    /// `ReadOnly`, `NoSpace`, `Io`.
    pub fn writer(&self, now_s: f64) -> Result<RowWriter, StoreError> {
        self.layout.create()?;
        // The folder must not be taken away before its segment is locked.
        let _entered = StoreLock::shared(&self.layout)?;
        let folder = self.layout.rows(self.scope);
        disk::create_folder(&folder)?;
        if let Some(stage) = self.stage {
            open(&folder.join(format!("{stage}{FOR}")))?;
        }
        for number in 0_u32.. {
            let path = folder.join(format!("{number}{KEYS}"));
            let keys = open(&path)?;
            match keys.try_lock() {
                Ok(()) => return RowWriter::take(keys, path, folder.join(format!("{number}{ROWS}")), now_s),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(StoreError::io("lock", &path, error)),
            }
        }
        unreachable!("four billion processes write rows of one scope")
    }
}

/// Appends rows to a segment that is locked until this is dropped. What is appended survives the death of the process at
/// once, and a power cut after the next sync.
pub struct RowWriter {
    keys: File,
    rows: File,
    path: PathBuf,
    n_bytes: u64,
    /// Whether the names of the files may not be on the disk yet.
    is_new: bool,
    n_unsynced: u64,
    synced_s: f64,
}

impl RowWriter {
    /// Cuts off what a dead writer did not finish, and goes on behind the rest.
    fn take(mut keys: File, keys_path: PathBuf, path: PathBuf, now_s: f64) -> Result<Self, StoreError> {
        let mut rows = open(&path)?;
        let mut take = || -> io::Result<u64> {
            let mut bytes = Vec::new();
            keys.read_to_end(&mut bytes)?;
            let whole = bytes.len() / Entry::BYTES * Entry::BYTES;
            let n_bytes = entries(&bytes, rows.metadata()?.len()).map(|entry| entry.place.end()).max().unwrap_or(0);
            keys.set_len(whole as u64)?;
            keys.seek(SeekFrom::Start(whole as u64))?;
            rows.set_len(n_bytes)?;
            rows.seek(SeekFrom::Start(n_bytes))?;
            Ok(n_bytes)
        };
        let n_bytes = take().map_err(|error| StoreError::io("take over", &keys_path, error))?;
        Ok(Self { keys, rows, path, n_bytes, is_new: n_bytes == 0, n_unsynced: 0, synced_s: now_s })
    }

    /// Keeps a row. Now and then this waits for the disk. After an error the writer is of no more use.
    ///
    /// # Errors
    /// `NoSpace`, `Io`.
    pub fn append(&mut self, key: RowKey, row: &[u8], now_s: f64) -> Result<(), StoreError> {
        let failed = |error| StoreError::io("append to", &self.path, error);
        let length = u32::try_from(row.len()).map_err(|_| failed(io::ErrorKind::FileTooLarge.into()))?;
        let place = Place { offset: self.n_bytes, length, check: head(row) };
        self.rows.write_all(row).map_err(failed)?;
        self.keys.write_all(&Entry { key, place }.to_bytes()).map_err(failed)?;
        self.n_bytes = place.end();
        self.n_unsynced += 1;
        if self.n_unsynced >= SYNC_ROWS || now_s - self.synced_s >= SYNC_SECONDS {
            self.sync(now_s)?;
        }
        Ok(())
    }

    /// Waits until all that was appended is on the disk.
    pub fn sync(&mut self, now_s: f64) -> Result<(), StoreError> {
        if self.n_unsynced > 0 {
            let sync = |file: &File| if self.is_new { file.sync_all() } else { file.sync_data() };
            let both = sync(&self.rows).and_then(|()| sync(&self.keys));
            both.map_err(|error| StoreError::io("sync", &self.path, error))?;
        }
        (self.is_new, self.n_unsynced, self.synced_s) = (false, 0, now_s);
        Ok(())
    }
}

impl Drop for RowWriter {
    fn drop(&mut self) {
        if self.n_unsynced > 0 {
            // Whoever stops a run is told how many rows are kept. A failure here costs rows only if the power goes, too.
            let _ = self.rows.sync_data().and_then(|()| self.keys.sync_data());
        }
    }
}

/// The stages that rows of a journal were made for.
pub(crate) fn made_for(folder: &Path) -> Result<Vec<StageKey>, StoreError> {
    let names = disk::list(folder)?;
    Ok(names.iter().filter_map(|name| name.strip_suffix(FOR)?.parse().ok()).collect())
}

/// Whether somebody appends to a journal.
pub(crate) fn is_written(folder: &Path) -> Result<bool, StoreError> {
    let names = disk::list(folder)?;
    Ok(names.iter().any(|name| name.ends_with(KEYS) && lock::is_held(&folder.join(name))))
}

/// Whether a journal has files that this program does not know, such as those of a newer one.
pub(crate) fn has_other_files(folder: &Path) -> Result<bool, StoreError> {
    Ok(!disk::list(folder)?.iter().all(|name| is_of_journal(name)))
}

/// Whether a name is one of a journal's files.
pub(crate) fn is_of_journal(name: &str) -> bool {
    let is_segment = |end| name.strip_suffix(end).is_some_and(|number| number.parse::<u32>().is_ok());
    let is_mark = name.strip_suffix(FOR).is_some_and(|key| key.parse::<StageKey>().is_ok());
    is_segment(KEYS) || is_segment(ROWS) || is_mark
}

fn open(path: &Path) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.open(path).map_err(|error| StoreError::io("open", path, error))
}

/// A key and where its row is.
struct Entry {
    key: RowKey,
    place: Place,
}

/// Where in a file a row is, and what it hashes to.
#[derive(Clone, Copy)]
struct Place {
    offset: u64,
    length: u32,
    check: [u8; 12],
}

/// The valid entries of a file of keys, whose rows lie within the first `n_bytes` of theirs.
fn entries(keys: &[u8], n_bytes: u64) -> impl Iterator<Item = Entry> + '_ {
    let (keys, _torn) = keys.as_chunks::<{ Entry::BYTES }>();
    keys.iter().filter_map(Entry::of).filter(move |entry| entry.place.end() <= n_bytes)
}

impl Entry {
    const BYTES: usize = 64;
    const CHECKED: usize = 56;

    fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..32].copy_from_slice(self.key.as_bytes());
        bytes[32..40].copy_from_slice(&self.place.offset.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.place.length.to_le_bytes());
        bytes[44..56].copy_from_slice(&self.place.check);
        let check: [u8; 8] = head(&bytes[..Self::CHECKED]);
        bytes[56..].copy_from_slice(&check);
        bytes
    }

    /// None for bytes that were not written as an entry.
    fn of(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        if head::<8>(&bytes[..Self::CHECKED]) != bytes[Self::CHECKED..] {
            return None;
        }
        let (key, rest) = bytes.split_first_chunk::<32>()?;
        let (offset, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let place = Place {
            offset: u64::from_le_bytes(*offset),
            length: u32::from_le_bytes(*length),
            check: *rest.first_chunk()?,
        };
        Some(Self { key: RowKey::from_bytes(*key), place })
    }
}

impl Place {
    fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.length))
    }
}

/// A key is a hash already: its first bytes serve as the hash of a table.
#[derive(Default)]
struct OwnHash(u64);

impl Hasher for OwnHash {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.first_chunk().map_or(self.0, |head| u64::from_le_bytes(*head));
    }

    /// The length of an array, which says nothing.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The first bytes of the BLAKE3 of some bytes.
fn head<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let hash = *blake3::hash(bytes).as_bytes();
    std::array::from_fn(|at| hash[at])
}

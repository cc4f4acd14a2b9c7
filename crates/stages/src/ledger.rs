//! The rows that a stage makes one by one: which of them earlier runs made, and that each one made now is kept at once.
//!
//! Owns the passage between rows and the bytes of the store's journal. Knows nothing of how a row is made, nor what its
//! key says.

use std::collections::{HashMap, HashSet};

use sluice_store::{RowKey, RowScope, RowWriter, Store};

use crate::{RowCount, StageContext, StageError};

/// A row as bytes and back. Bytes come back as they were written, since the journal checks them; a change of the form
/// needs a new context of the rows' scope.
pub trait Stored: Clone {
    fn write(&self, bytes: &mut Vec<u8>);

    /// None for bytes that were written in no such form.
    fn read(bytes: &mut Bytes<'_>) -> Option<Self>;
}

/// Room for all rows of a stage, filled with those that are known.
pub struct Ledger<R> {
    keys: Vec<RowKey>,
    rows: Vec<Option<R>>,
    n_known: usize,
    /// Those that are in the journal, where none of them may be taken from it.
    unread: HashSet<usize>,
    /// None while nothing is to be kept.
    writer: Option<RowWriter>,
    failed: Option<StageError>,
    buffer: Vec<u8>,
}

impl<R: Stored> Ledger<R> {
    /// Finds the rows that are known. Where some are not, the journal is opened for them here, so that a store that
    /// cannot be written to is told before any work. The stage's record will name the scope.
    ///
    /// In a stage that makes everything anew no row is known. What the journal has stays in it: the first result of a
    /// row holds, as that of a stage does.
    pub fn open(context: &StageContext<'_>, scope: RowScope, keys: Vec<RowKey>) -> Result<Self, StageError> {
        let known = context.attempt.rows(scope).map_err(unkept)?;
        let mut rows: Vec<Option<R>> = keys.iter().map(|_| None).collect();
        let mut unread = HashSet::new();
        if context.fresh {
            unread.extend((0..keys.len()).filter(|at| known.contains(keys[*at])));
        } else {
            known.get_all(&keys, |at, bytes| rows[at] = R::read(&mut Bytes(bytes))).map_err(unkept)?;
        }
        let n_known = rows.iter().flatten().count();
        let keeps_some = n_known + unread.len() < rows.len();
        let writer = if keeps_some { Some(known.writer((context.clock)()).map_err(unkept)?) } else { None };
        Ok(Self { keys, rows, n_known, unread, writer, failed: None, buffer: Vec::new() })
    }

    /// How many rows there are, and how many were known.
    pub fn count(&self) -> RowCount {
        RowCount { n_rows: self.rows.len() as u64, n_known: self.n_known as u64 }
    }

    /// The rows to be made, ascending; of those with one key, the first.
    pub fn missing(&self) -> Vec<usize> {
        let mut first = HashMap::new();
        let unknown = self.rows.iter().zip(&self.keys).enumerate().filter(|(_, (row, _))| row.is_none());
        unknown.filter(|(at, (_, key))| *first.entry(**key).or_insert(*at) == *at).map(|(at, _)| at).collect()
    }

    /// Takes a row that was made, and keeps it. If that fails, the rows go on, and [`Ledger::finish`] tells.
    pub fn put(&mut self, at: usize, row: R, now_s: f64) {
        if let Some(writer) = self.writer.as_mut().filter(|_| !self.unread.contains(&at)) {
            self.buffer.clear();
            row.write(&mut self.buffer);
            if let Err(error) = writer.append(self.keys[at], &self.buffer, now_s) {
                (self.failed, self.writer) = (Some(unkept(error)), None);
            }
        }
        self.rows[at] = Some(row);
    }

    /// All rows. Every one of [`Ledger::missing`] has been put.
    pub fn finish(mut self, now_s: f64) -> Result<Vec<R>, StageError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if let Some(writer) = &mut self.writer {
            writer.sync(now_s).map_err(unkept)?;
        }
        // What was not put has the key of a row that was.
        let mut first = HashMap::new();
        for (at, key) in self.keys.iter().enumerate() {
            let first = *first.entry(*key).or_insert(at);
            if self.rows[at].is_none() {
                self.rows[at] = self.rows[first].clone();
            }
        }
        Ok(self.rows.into_iter().map(|row| row.expect("every row that was missing has been put")).collect())
    }
}

/// How many of these rows are known; none of them is read.
pub fn count(store: &Store, scope: RowScope, keys: &[RowKey]) -> Result<RowCount, StageError> {
    let known = store.rows(scope).map_err(unkept)?;
    let n_known = keys.iter().filter(|key| known.contains(**key)).count();
    Ok(RowCount { n_rows: keys.len() as u64, n_known: n_known as u64 })
}

fn unkept(source: sluice_store::StoreError) -> StageError {
    StageError::Rows { source }
}

/// The bytes of a row, read from the front. Integers and floats are little-endian.
pub struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    pub fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_le_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    pub fn f32(&mut self) -> Option<f32> {
        self.take().map(f32::from_le_bytes)
    }

    /// A list that was written with [`write_list`].
    pub fn list<const N: usize, T>(&mut self, of: fn([u8; N]) -> T) -> Option<Vec<T>> {
        let n = self.u32()? as usize;
        let (items, rest) = self.0.split_at_checked(n.checked_mul(N)?)?;
        self.0 = rest;
        Some(items.as_chunks::<N>().0.iter().map(|item| of(*item)).collect())
    }

    /// The text that all the rest is.
    pub fn text(&mut self) -> Option<&'a str> {
        str::from_utf8(std::mem::take(&mut self.0)).ok()
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }
}

/// The number of items, and the items.
pub fn write_list<const N: usize, T: Copy>(bytes: &mut Vec<u8>, items: &[T], to: fn(T) -> [u8; N]) {
    bytes.extend((items.len() as u32).to_le_bytes());
    items.iter().for_each(|item| bytes.extend(to(*item)));
}

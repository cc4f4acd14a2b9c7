//! The row journal: what is kept, what survives a torn tail and a flipped byte, and two writers at one time.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Instant;

use sluice_store::{RowKey, RowScope, Store};

const SCOPE: RowScope = RowScope::from_bytes([9; 32]);

struct Journal {
    _folder: tempfile::TempDir,
    store: Store,
}

impl Journal {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path().join("s")).expect("an empty store");
        Self { _folder: folder, store }
    }

    /// A journal of the rows 0, 1, ... `n - 1`.
    fn of(n: u32) -> Self {
        let journal = Self::new();
        journal.append(0..n);
        journal
    }

    /// Appends as one process does, and dies without a word.
    fn append(&self, rows: impl IntoIterator<Item = u32>) {
        let mut writer = self.store.rows(SCOPE).expect("a journal").writer(0.0).expect("a writer");
        for n in rows {
            writer.append(key(n), &row(n), 0.0).expect("a row");
        }
    }

    /// The numbers below `n` whose rows are there, and right, whether they are asked for one by one or all at once.
    fn known(&self, n: u32) -> Vec<u32> {
        let known = self.store.rows(SCOPE).expect("a journal");
        let right = |bytes: &[u8], n: u32| assert_eq!(bytes, row(n), "row {n}");
        let one_by_one: Vec<u32> = (0..n)
            .filter(|n| known.get(key(*n)).expect("a readable journal").map(|bytes| right(&bytes, *n)).is_some())
            .collect();
        let keys: Vec<RowKey> = (0..n).map(key).collect();
        let mut at_once = Vec::new();
        known
            .get_all(&keys, |at, bytes| {
                right(bytes, at as u32);
                at_once.push(at as u32);
            })
            .expect("a readable journal");
        at_once.sort_unstable();
        assert_eq!(at_once, one_by_one);
        one_by_one
    }

    fn file(&self, name: &str) -> PathBuf {
        self.store.root().join("rows").join(SCOPE.to_string()).join(name)
    }

    fn files(&self) -> Vec<String> {
        let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name().into_string();
        let mut names: Vec<_> =
            fs::read_dir(self.file("")).expect("a folder").map(|entry| name(entry).expect("a name")).collect();
        names.sort();
        names
    }
}

/// Both files of the only segment, to be put back.
struct Saved(Vec<(PathBuf, Vec<u8>)>);

impl Saved {
    fn of(journal: &Journal) -> Self {
        let bytes = |name: &str| (journal.file(name), fs::read(journal.file(name)).expect("a file"));
        Self(vec![bytes("0.v1.keys"), bytes("0.v1.rows")])
    }

    fn restore(&self) {
        self.0.iter().for_each(|(file, bytes)| fs::write(file, bytes).expect("a writable file"));
    }
}

fn key(n: u32) -> RowKey {
    RowKey::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

/// Rows differ in length, and one of them is empty.
fn row(n: u32) -> Vec<u8> {
    format!("row {n};").into_bytes().repeat(n as usize % 4)
}

fn cut(path: &Path, length: u64) {
    OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(length)).expect("a shorter file");
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).expect("a file").len()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("a file");
    bytes[at] ^= 1;
    fs::write(path, bytes).expect("a damaged file");
}

#[test]
fn rows_are_found_again() {
    let journal = Journal::of(6);
    assert_eq!(journal.known(8), [0, 1, 2, 3, 4, 5]);
    journal.append(6..8);
    assert_eq!(journal.known(8), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(journal.files(), ["0.v1.keys", "0.v1.rows"]);
    let other = journal.store.rows(RowScope::from_bytes([8; 32])).expect("a journal");
    assert!(other.is_empty() && !other.contains(key(0)));
}

/// A tail torn at any byte of the last entry or the last row costs that row alone, and the next writer goes on there.
#[test]
fn a_torn_tail_costs_the_last_row() {
    const N: u32 = 4;
    let journal = Journal::of(N);
    let saved = Saved::of(&journal);
    let last = row(N - 1).len() as u64;
    for (name, tail) in [("0.v1.keys", 64), ("0.v1.rows", last)] {
        for torn in 1..=tail {
            saved.restore();
            let file = journal.file(name);
            let whole = length(&file);
            cut(&file, whole - torn);
            assert_eq!(journal.known(N), [0, 1, 2], "{name}, {torn} bytes short");
            journal.append([N - 1, N]);
            assert_eq!(journal.known(N + 1), [0, 1, 2, 3, 4], "{name}, {torn} bytes short, gone on");
            journal.append([N + 1]);
            assert_eq!(journal.known(N + 2), [0, 1, 2, 3, 4, 5], "{name}, {torn} bytes short, gone on twice");
        }
    }
}

/// A flipped bit anywhere costs the row it is in, until that is written again.
#[test]
fn a_flipped_bit_costs_its_row() {
    const N: u32 = 4;
    let journal = Journal::of(N);
    let saved = Saved::of(&journal);
    for name in ["0.v1.keys", "0.v1.rows"] {
        for at in 0..length(&journal.file(name)) as usize {
            saved.restore();
            flip(&journal.file(name), at);
            let left = journal.known(N);
            assert_eq!(left.len(), 3, "{name}, byte {at}: {left:?}");
            journal.append((0..N).filter(|n| !left.contains(n)));
            assert_eq!(journal.known(N), [0, 1, 2, 3], "{name}, byte {at}, written again");
            saved.restore();
        }
    }
}

/// Locks belong to an open file, so that two writers in one process stand for two processes.
#[test]
fn writers_at_one_time_have_a_segment_each() {
    let journal = Journal::of(1);
    let one = Store::open(journal.store.root()).expect("a store");
    let other = Store::open(journal.store.root()).expect("a store");
    let write = |store: &Store, n: u32| {
        let mut writer = store.rows(SCOPE).expect("a journal").writer(0.0).expect("a writer");
        writer.append(key(n), &row(n), 0.0).expect("a row");
        writer
    };
    let (mut one, mut other) = (write(&one, 1), write(&other, 2));
    for n in 3..60 {
        let writer = if n % 2 == 0 { &mut one } else { &mut other };
        writer.append(key(n), &row(n), f64::from(n)).expect("a row");
        assert_eq!(journal.known(60), (0..=n).collect::<Vec<_>>());
    }
    assert_eq!(journal.files(), ["0.v1.keys", "0.v1.rows", "1.v1.keys", "1.v1.rows"]);
    // A row damaged in the second segment is written again to the first, and counts from there.
    drop((one, other));
    flip(&journal.file("1.v1.rows"), 0);
    let n = (0..60).find(|n| !journal.known(60).contains(n)).expect("a damaged row");
    journal.append([n]);
    assert_eq!(journal.known(60).len(), 60);
    assert_eq!(journal.files().len(), 4);
}

/// Prints what a million rows cost; a figure to look at, and nothing is held to it.
#[test]
fn a_million_rows_open() {
    let n = 100_000;
    let journal = Journal::new();
    let bytes = vec![7; 600];
    let mut writer = journal.store.rows(SCOPE).expect("a journal").writer(0.0).expect("a writer");
    let started = Instant::now();
    for n in 0..n {
        writer.append(key(n), &bytes, 0.0).expect("a row");
    }
    println!("append: {:.2} µs a row", started.elapsed().as_secs_f64() * 1e6 / f64::from(n));
    let started = Instant::now();
    let known = journal.store.rows(SCOPE).expect("a journal");
    println!("open: {:.3} s a million rows", started.elapsed().as_secs_f64() * 1e6 / f64::from(n));
    assert_eq!(known.len(), n as usize);
}

#[test]
fn long_rows_are_read_beside_short_ones() {
    let journal = Journal::new();
    let long = |n: u32| vec![n as u8; if n.is_multiple_of(3) { 3 << 20 } else { 100_000 }];
    let mut writer = journal.store.rows(SCOPE).expect("a journal").writer(0.0).expect("a writer");
    for n in 0..20 {
        writer.append(key(n), &long(n), 0.0).expect("a row");
    }
    let known = journal.store.rows(SCOPE).expect("a journal");
    let keys: Vec<RowKey> = (0..25).rev().map(key).collect();
    let mut found = Vec::new();
    known
        .get_all(&keys, |at, bytes| {
            let n = 24 - at as u32;
            assert!(bytes == long(n), "row {n}");
            found.push(n);
        })
        .expect("a readable journal");
    assert_eq!(found, (0..20).collect::<Vec<_>>());
}

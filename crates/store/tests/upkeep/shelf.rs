//! A store with results, runs and journals in it, made by hand.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow::array::{ArrayRef, Int32Array, RecordBatch};
use sluice_store::{
    Artifact, GcPolicy, HowFar, Leaf, LeafValue, ModelDigest, Outcome, Output, RUN_SCHEMA_VERSION, RecordDraft, RowKey,
    RowScope, RunId, RunLock, RunManifest, RunStage, StageKey, Store,
};

/// Everything is young.
pub const YOUNG: GcPolicy =
    GcPolicy { keep_runs: None, keep_since_unix_ms: None, keep_written_since: SystemTime::UNIX_EPOCH };

pub struct Shelf {
    folder: tempfile::TempDir,
    pub store: Store,
}

/// A key is its number.
pub fn key(n: u8) -> StageKey {
    StageKey::from_bytes([n; 32])
}

/// The derivation of these keys: the number is the only leaf.
pub fn derive(leaves: &[Leaf]) -> StageKey {
    match leaves.first().map(|leaf| &leaf.value) {
        Some(LeafValue::Int(n)) => key(u8::try_from(*n).unwrap_or(0)),
        _ => key(0),
    }
}

fn numbers(n: u8) -> RecordBatch {
    RecordBatch::try_from_iter([("n", Arc::new(Int32Array::from(vec![i32::from(n); 100])) as ArrayRef)])
        .expect("one column")
}

/// A policy under which nothing is young.
pub fn policy(keep_runs: Option<usize>, keep_since_unix_ms: Option<u64>) -> GcPolicy {
    let tomorrow = SystemTime::now() + Duration::from_secs(86_400);
    GcPolicy { keep_runs, keep_since_unix_ms, keep_written_since: tomorrow }
}

impl Shelf {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path().join("s")).expect("an empty store");
        Self { folder, store }
    }

    /// The store as another process finds it.
    pub fn again(&self) -> Store {
        Store::open(self.store.root()).expect("a store")
    }

    /// A result of a key: a table that says its number, and a journal it looked into.
    pub fn result(&self, n: u8) {
        self.result_of(n, n);
    }

    /// A result of a key with the table of another number.
    pub fn result_of(&self, n: u8, content: u8) {
        self.commit(n, content, None);
    }

    /// A result of a key that says something about that of another.
    pub fn result_about(&self, n: u8, other: u8) {
        self.commit(n, n, Some(key(other)));
    }

    fn commit(&self, n: u8, content: u8, about: Option<StageKey>) {
        let attempt = self.store.begin(key(n)).expect("an attempt");
        self.rows(&attempt, content);
        let mut writer = attempt.write_table("numbers", numbers(content).schema()).expect("a table");
        writer.write(&numbers(content)).expect("rows");
        let table = writer.finish().expect("a table");
        let outputs = vec![Output { name: "numbers".to_owned(), artifact: Artifact::Table(table) }];
        attempt.commit(RecordDraft { about, ..draft(n, outputs) }).expect("a record");
    }

    /// A result that is a checkpoint.
    pub fn checkpoint(&self, n: u8) {
        let attempt = self.store.begin(key(n)).expect("an attempt");
        let folder = attempt.folder("checkpoint").expect("a folder");
        fs::write(folder.path().join("weights"), [n; 1000]).expect("a file");
        let artifact = Artifact::Checkpoint(folder.seal(ModelDigest::from_bytes([n; 32])).expect("a checkpoint"));
        let outputs = vec![Output { name: "checkpoint".to_owned(), artifact }];
        attempt.commit(draft(n, outputs)).expect("a record");
    }

    /// Rows of a stage that did not get to its end, and a save of its training.
    pub fn unfinished(&self, n: u8) {
        let attempt = self.store.begin(key(n)).expect("an attempt");
        self.rows(&attempt, n);
        let how_far = HowFar { form: "test v1", done: 1, total: 2 };
        attempt.save_unfinished(how_far, |sink| sink.write_all(&[n; 500])).expect("a save");
    }

    fn rows(&self, attempt: &sluice_store::Attempt, n: u8) {
        let mut writer = attempt.rows(RowScope::from_bytes([n; 32])).expect("rows").writer(0.0).expect("a writer");
        for row in 0..3_u8 {
            writer.append(RowKey::from_bytes([row; 32]), &[row; 20], 0.0).expect("a row");
        }
    }

    /// A run that names keys by stage, and is over.
    pub fn run(&self, started_unix_ms: u64, stages: &[(&str, u8)]) -> RunId {
        self.living_run(started_unix_ms, stages).0
    }

    /// A run that goes on as long as its lock is kept.
    pub fn living_run(&self, started_unix_ms: u64, stages: &[(&str, u8)]) -> (RunId, RunLock) {
        let stages: Vec<RunStage> = stages
            .iter()
            .map(|(name, n)| RunStage {
                name: (*name).to_owned(),
                kind: "sql".to_owned(),
                outcome: Outcome::Ran,
                key: Some(key(*n)),
                tests: Vec::new(),
            })
            .collect();
        let make = |run| RunManifest { run, started_unix_ms, stages: stages.clone(), ..manifest() };
        let (manifest, lock) = self.store.begin_run(make).expect("a run");
        (manifest.run, lock)
    }

    pub fn tag(&self, name: &str, run: RunId) {
        let manifest = self.store.run(run).expect("a store").expect("a run");
        self.store.tag(&name.parse().expect("a name"), manifest, 0, false).expect("a tag");
    }

    /// What there is, by kind and number: `record 1`, `table 1`, `rows 1`, `run r1`.
    pub fn there(&self) -> Vec<String> {
        let mut there = Vec::new();
        let mut list = |folder: &str, word: &str| {
            for name in self.names(folder) {
                let n = u8::from_str_radix(&name[..2], 16).unwrap_or(0);
                there.push(if folder == "runs" {
                    name.trim_end_matches(".json").to_owned()
                } else {
                    format!("{word} {n}")
                });
            }
        };
        list("runs", "run");
        list("records", "record");
        list("rows", "rows");
        list("resume", "save");
        there.push(format!("{} tables", self.tables().len()));
        there.push(format!("{} checkpoints", self.names("checkpoints").len()));
        there
    }

    pub fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.store.root().join(folder)).expect("a folder of the store");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    pub fn tables(&self) -> Vec<PathBuf> {
        files(&self.store.root().join("objects"))
    }

    /// A copy of the store, in which things may go wrong.
    pub fn copy(&self, name: &str) -> PathBuf {
        let to = self.folder.path().join(name);
        for file in files(self.store.root()) {
            let within = file.strip_prefix(self.store.root()).expect("below the root");
            let file_to = to.join(within);
            fs::create_dir_all(file_to.parent().expect("a folder")).expect("a folder");
            fs::copy(&file, &file_to).expect("a copy");
        }
        for folder in ["objects", "checkpoints", "records", "runs", "rows", "resume", "tags", "damaged", "tmp", "locks"]
        {
            fs::create_dir_all(to.join(folder)).expect("a folder");
        }
        to
    }
}

fn manifest() -> RunManifest {
    RunManifest {
        schema_version: RUN_SCHEMA_VERSION,
        run: "r1".parse().expect("a run"),
        pipeline: "p".to_owned(),
        profile: None,
        program: None,
        set: Vec::new(),
        targets: Vec::new(),
        started_unix_ms: 0,
        seconds: 0.0,
        outcome: Outcome::Ran,
        stages: Vec::new(),
    }
}

fn draft(n: u8, outputs: Vec<Output>) -> RecordDraft {
    let leaf = Leaf { path: "n".to_owned(), value: LeafValue::Int(i64::from(n)), place: None };
    RecordDraft { kind: "sql".to_owned(), leaves: vec![leaf], outputs, ..RecordDraft::default() }
}

/// All files below a folder, sorted.
pub fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() { waiting.push(entry) } else { found.push(entry) }
        }
    }
    found.sort();
    found
}

/// Flips a bit of a file, which may be read-only.
pub fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("a file");
    bytes[at] ^= 1;
    fs::remove_file(path).expect("a file");
    fs::write(path, bytes).expect("a file");
}

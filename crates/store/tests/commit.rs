//! Attempts, commits, and what survives when they do not end well.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use sluice_store::{
    Artifact, Committed, Leaf, LeafValue, Lookup, ModelDigest, Outcome, Output, RUN_SCHEMA_VERSION, Record,
    RecordDraft, RunManifest, StageKey, Store, StoreError, Work,
};

const KEY: StageKey = StageKey::from_bytes([7; 32]);

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path().join("s")).expect("an empty store");
    (folder, store)
}

fn numbers(values: &[i32]) -> RecordBatch {
    RecordBatch::try_from_iter([("n", Arc::new(Int32Array::from(values.to_vec())) as ArrayRef)]).expect("one column")
}

fn commit(store: &Store, values: &[i32]) -> Committed {
    let attempt = store.begin(KEY).expect("an attempt");
    let batch = numbers(values);
    let mut writer = attempt.write_table("numbers", batch.schema()).expect("a table");
    writer.write(&batch).expect("rows");
    let table = writer.finish().expect("a table");
    attempt
        .commit(draft(vec![Output { name: "numbers".to_owned(), artifact: Artifact::Table(table) }]))
        .expect("a commit")
}

fn draft(outputs: Vec<Output>) -> RecordDraft {
    let place = Some("p.yaml:3:9".to_owned());
    RecordDraft {
        kind: "sql".to_owned(),
        stage_version: 1,
        leaves: vec![Leaf { path: "sql.query".to_owned(), value: LeafValue::Text("select 1".to_owned()), place }],
        outputs,
        metrics: BTreeMap::from([("mean".to_owned(), 0.5), ("lost".to_owned(), f64::NAN)]),
        facts: BTreeMap::from([("device".to_owned(), "cpu".to_owned())]),
        n_rows_reused: 0,
        n_steps_resumed: 0,
        notices: Vec::new(),
        about: Some(StageKey::from_bytes([8; 32])),
        work: Some(Work { unit: "rows".to_owned(), n_done: 3, n_tokens: 12, seconds: 0.125, n_rows_read: 3 }),
        seconds: 0.25,
        created_unix_ms: 1_000,
    }
}

fn record(store: &Store) -> Record {
    store.lookup(KEY).expect("a readable store").expect("a record")
}

fn blob(store: &Store) -> PathBuf {
    store.table_path(&record(store).outputs[0]).expect("a table")
}

/// All files below a folder except locks, as relative paths.
fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() { waiting.push(entry) } else { found.push(entry) }
        }
    }
    let relative = |path: &PathBuf| path.strip_prefix(root).expect("below the root").display().to_string();
    let mut found: Vec<String> = found.iter().map(relative).filter(|path| !path.starts_with("locks")).collect();
    found.sort();
    found
}

#[test]
fn a_commit_is_found_again_whole() {
    let (_folder, store) = store();
    let Committed::Stored(stored) = commit(&store, &[1, 2, 3]) else { panic!("the first commit is stored") };
    assert_eq!(record(&store), stored);
    assert_eq!(stored.metrics.keys().collect::<Vec<_>>(), ["mean"], "a metric without a JSON form is left out");
    assert_eq!(store.read_table(&stored.outputs[0]).expect("rows"), [numbers(&[1, 2, 3])]);
    assert!(fs::metadata(blob(&store)).expect("a file").permissions().readonly());
}

#[test]
fn a_record_that_lacks_what_came_later_is_read() {
    let (folder, store) = store();
    let Committed::Stored(stored) = commit(&store, &[1, 2, 3]) else { panic!("the first commit is stored") };
    let file = folder.path().join("s/records").join(format!("{KEY}.json"));
    let text = fs::read_to_string(&file).expect("a record");
    let mut record: serde_json::Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
    let fields = record.as_object_mut().expect("an object");
    for later in ["n_rows_reused", "n_steps_resumed", "notices", "row_scopes", "work", "about"] {
        fields.remove(later);
    }
    let line = record.to_string();
    fs::write(&file, format!("{line}\n{{\"blake3\":\"{}\"}}\n", blake3::hash(line.as_bytes()))).expect("a record");
    let old = store.lookup(KEY).expect("a readable store").expect("a record");
    assert_eq!((&old.outputs, &old.leaves), (&stored.outputs, &stored.leaves));
    assert_eq!((old.work, old.row_scopes, old.about), (None, None, None));
}

#[test]
fn opening_and_looking_write_nothing() {
    let (folder, store) = store();
    assert!(store.lookup(KEY).expect("a readable store").is_none());
    assert!(store.runs().expect("a readable store").is_empty());
    assert!(!folder.path().join("s").exists());
}

#[test]
fn an_attempt_that_is_dropped_leaves_nothing() {
    let (_folder, store) = store();
    drop(store.lock(KEY).expect("a lock"));
    let before = files(store.root());
    let attempt = store.begin(KEY).expect("an attempt");
    let mut writer = attempt.write_table("numbers", numbers(&[1]).schema()).expect("a table");
    writer.write(&numbers(&[1])).expect("rows");
    drop(writer);
    drop(attempt);
    assert_eq!(files(store.root()), before);
}

#[test]
fn what_a_dead_attempt_left_is_ignored_and_swept() {
    let (_folder, store) = store();
    drop(store.lock(KEY).expect("a lock"));
    let dead = store.root().join("tmp").join(format!("{KEY}.999999.0"));
    fs::create_dir(&dead).expect("a folder");
    fs::write(dead.join("record.json"), "{\"schema_ver").expect("a torn record");
    fs::write(dead.join("numbers.parquet"), "PAR1").expect("a torn table");
    assert!(store.lookup(KEY).expect("a readable store").is_none());
    commit(&store, &[1]);
    assert!(!dead.exists());
}

#[test]
fn the_first_of_two_results_stays_and_the_other_is_evidence() {
    let (_folder, store) = store();
    commit(&store, &[1, 2]);
    assert!(matches!(commit(&store, &[1, 2]), Committed::Same(_)));
    let Committed::Diverged { kept, ours, evidence } = commit(&store, &[1, 3]) else { panic!("another result") };
    assert_eq!(*kept, record(&store));
    assert_eq!(store.read_table(&kept.outputs[0]).expect("rows"), [numbers(&[1, 2])]);
    assert_eq!(store.read_table(&ours.outputs[0]).expect("rows"), [numbers(&[1, 3])]);
    assert!(evidence.exists());
}

#[test]
fn a_lost_table_is_a_miss_and_heals() {
    let (_folder, store) = store();
    commit(&store, &[1, 2]);
    fs::remove_file(blob(&store)).expect("the table");
    assert!(store.lookup(KEY).expect("a readable store").is_none());
    let Lookup::Incomplete { output, .. } = store.inspect(KEY).expect("a readable store") else { panic!("incomplete") };
    assert_eq!(output, "numbers");
    commit(&store, &[1, 2]);
    record(&store);
}

#[test]
fn a_flipped_byte_is_found_before_it_is_read() {
    let (_folder, store) = store();
    commit(&store, &[1, 2]);
    // Another process: this one has already checked the table.
    let again = Store::open(store.root()).expect("a store");
    let path = blob(&store);
    flip(&path, 20);
    let error = again.read_table(&record(&again).outputs[0]).expect_err("damaged");
    assert!(error.to_string().contains("the next run makes it again"), "{error}");
    fs::remove_file(path).expect("the table");
    commit(&again, &[1, 2]);
    assert_eq!(again.read_table(&record(&again).outputs[0]).expect("rows"), [numbers(&[1, 2])]);
}

#[test]
fn a_damaged_record_is_a_miss_and_heals() {
    let (_folder, store) = store();
    commit(&store, &[1, 2]);
    let path = store.root().join("records").join(format!("{KEY}.json"));
    let length = fs::metadata(&path).expect("a record").len() as usize;
    for position in [0, 20, length / 2, length - 3] {
        flip(&path, position);
        assert!(matches!(store.inspect(KEY), Ok(Lookup::Damaged(_))), "byte {position}");
        assert!(matches!(commit(&store, &[1, 2]), Committed::Stored(_)), "byte {position}");
        record(&store);
    }
    fs::write(&path, &fs::read(&path).expect("a record")[..length / 3]).expect("a torn record");
    assert!(matches!(store.inspect(KEY), Ok(Lookup::Damaged(_))));
}

fn flip(path: &Path, position: usize) {
    let mut bytes = fs::read(path).expect("a file");
    bytes[position] ^= 1;
    fs::remove_file(path).expect("a file");
    fs::write(path, bytes).expect("a file");
}

#[test]
fn a_checkpoint_is_sealed_and_addressed_by_its_files() {
    let (_folder, store) = store();
    let model = ModelDigest::from_bytes([3; 32]);
    let attempt = store.begin(KEY).expect("an attempt");
    let folder = attempt.folder("checkpoint").expect("a folder");
    fs::write(folder.path().join("config.json"), "{}").expect("a file");
    fs::create_dir(folder.path().join("original")).expect("a folder");
    fs::write(folder.path().join("original/weights"), [0; 100]).expect("a file");
    let checkpoint = folder.seal(model).expect("a checkpoint");
    assert_eq!((checkpoint.n_files, checkpoint.bytes), (2, 102));
    let output = Output { name: "checkpoint".to_owned(), artifact: Artifact::Checkpoint(checkpoint) };
    attempt.commit(draft(vec![output.clone()])).expect("a commit");
    let path = store.checkpoint_path(&output).expect("a folder");
    assert!(fs::metadata(path.join("config.json")).expect("a file").permissions().readonly());
    flip(&path.join("original/weights"), 5);
    let error = Store::open(store.root()).expect("a store").checkpoint_path(&output).expect_err("damaged");
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    let error = store.read_table(&output).expect_err("not a table");
    assert_eq!(error.to_string(), "output `checkpoint` is a checkpoint, not a table");
}

/// Someone has moved the large folders to a large disk.
#[cfg(target_os = "linux")]
#[test]
fn a_store_may_span_two_devices() {
    let (_folder, store) = store();
    let other = tempfile::TempDir::new_in("/dev/shm").expect("a folder in memory");
    fs::create_dir_all(store.root()).expect("a folder");
    for name in ["objects", "checkpoints"] {
        fs::create_dir(other.path().join(name)).expect("a folder");
        std::os::unix::fs::symlink(other.path().join(name), store.root().join(name)).expect("a link");
    }
    let attempt = store.begin(KEY).expect("an attempt");
    let mut table = attempt.write_table("rows", numbers(&[1, 2]).schema()).expect("a table");
    table.write(&numbers(&[1, 2])).expect("rows");
    let table = Output { name: "rows".to_owned(), artifact: Artifact::Table(table.finish().expect("a table")) };
    let folder = attempt.folder("checkpoint").expect("a folder");
    fs::create_dir(folder.path().join("part")).expect("a folder");
    fs::write(folder.path().join("part/model"), b"weights").expect("a file");
    let checkpoint = folder.seal(ModelDigest::from_bytes([7; 32])).expect("a checkpoint");
    let checkpoint = Output { name: "checkpoint".to_owned(), artifact: Artifact::Checkpoint(checkpoint) };
    attempt.commit(draft(vec![table.clone(), checkpoint.clone()])).expect("a commit");
    let store = Store::open(store.root()).expect("a store");
    assert_eq!(store.read_table(&table).expect("rows"), [numbers(&[1, 2])]);
    let found = store.checkpoint_path(&checkpoint).expect("a checkpoint");
    assert_eq!(fs::read(found.join("part/model")).expect("a file"), b"weights");
    assert!(files(other.path()).iter().all(|name| !name.contains("/.")), "{:?}", files(other.path()));
}

#[test]
fn a_commit_names_only_what_was_written() {
    let (_folder, store) = store();
    commit(&store, &[1]);
    let output = record(&store).outputs[0].clone();
    let attempt = store.begin(KEY).expect("an attempt");
    let error = attempt.commit(draft(vec![output])).expect_err("nothing was written");
    assert!(error.to_string().contains("output `numbers` was not written by this attempt"), "{error}");
}

#[test]
fn a_batch_of_other_columns_is_refused() {
    let (_folder, store) = store();
    let attempt = store.begin(KEY).expect("an attempt");
    let mut writer = attempt.write_table("numbers", numbers(&[]).schema()).expect("a table");
    let texts =
        RecordBatch::try_from_iter([("n", Arc::new(StringArray::from(vec!["1"])) as ArrayRef)]).expect("a column");
    let error = writer.write(&texts).expect_err("texts");
    assert_eq!(error.to_string(), "table `numbers` was opened with columns (n Int32), and got a batch with (n Utf8)");
}

#[test]
fn the_second_waits_for_the_first_and_sees_its_result() {
    let (_folder, store) = store();
    let attempt = store.begin(KEY).expect("an attempt");
    assert!(store.try_lock(KEY).expect("a lock file").is_none());
    let other = Store::open(store.root()).expect("a store");
    let waiting = thread::spawn(move || {
        let _lock = other.lock(KEY).expect("a lock");
        other.lookup(KEY).expect("a readable store").is_some()
    });
    thread::sleep(Duration::from_millis(30));
    assert!(!waiting.is_finished());
    attempt.commit(draft(Vec::new())).expect("a commit");
    assert!(waiting.join().expect("the other thread"), "the record was there when the lock came free");
}

#[test]
fn a_newer_store_says_what_to_do() {
    let (_folder, store) = store();
    commit(&store, &[1]);
    fs::write(store.root().join("format"), "sluice-store 9\n").expect("a format file");
    let error = Store::open(store.root()).err().expect("a newer store");
    let text = error.to_string().replace(&store.root().display().to_string(), "S");
    assert_eq!(
        text,
        "store `S` has format 9, this program reads up to 1; use the newer program, or another store folder"
    );
    fs::write(store.root().join("format"), "%PDF").expect("a format file");
    assert!(matches!(Store::open(store.root()), Err(StoreError::NotAStore { .. })));
}

#[test]
#[cfg(target_os = "linux")]
fn a_read_only_store_reads_and_refuses_to_write() {
    let (_folder, store) = store();
    commit(&store, &[1]);
    // A folder nobody may create files in, not even the superuser.
    for name in ["locks", "tmp", "runs"] {
        fs::remove_dir_all(store.root().join(name)).expect("a folder");
        std::os::unix::fs::symlink("/sys/kernel", store.root().join(name)).expect("a link");
    }
    record(&store);
    let other = StageKey::from_bytes([8; 32]);
    let error = store.begin(other).err().expect("read-only");
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error:?}");
    assert!(error.to_string().ends_with("the store is read-only; make the folder writable, or choose another store"));
    assert!(matches!(store.begin_run(|run| manifest(run, 1)), Err(StoreError::ReadOnly { .. })));
}

fn manifest(run: sluice_store::RunId, started_unix_ms: u64) -> RunManifest {
    RunManifest {
        schema_version: RUN_SCHEMA_VERSION,
        run,
        pipeline: "p".to_owned(),
        profile: None,
        program: Some("0.1.0".to_owned()),
        set: vec!["params.seed=1".to_owned()],
        targets: Vec::new(),
        started_unix_ms,
        seconds: 0.0,
        outcome: Outcome::Running,
        stages: Vec::new(),
    }
}

#[test]
fn runs_are_numbered_and_kept() {
    let (_folder, store) = store();
    let (first, alive) = store.begin_run(|run| manifest(run, 1)).expect("a run");
    let (mut second, _alive) = store.begin_run(|run| manifest(run, 2)).expect("a run");
    second.outcome = Outcome::Hit;
    store.update_run(&second).expect("a run");
    let runs = store.runs().expect("a list");
    assert_eq!(runs.iter().map(ToString::to_string).collect::<Vec<_>>(), ["r1", "r2"]);
    assert_eq!(store.run(second.run).expect("a run"), Some(second.clone()));
    // Alive for everybody who has the folder open, and dead when its process is.
    let other = Store::open(store.root()).expect("a store");
    drop(alive);
    assert_eq!([first.run, second.run].map(|run| other.is_alive(run)), [false, true]);
    assert_eq!(store.run(first.run).expect("a run"), Some(first));
}

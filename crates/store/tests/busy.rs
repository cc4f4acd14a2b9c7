//! The store beside work that has all threads of the shared pool, as a stage that samples has.

use std::sync::mpsc::{channel, sync_channel};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use sluice_store::{Artifact, Output, RecordDraft, StageKey, Store};

/// Three row groups, and more bytes than one thread alone is asked to hash.
const N_ROWS: i64 = 300_000;

#[test]
fn tables_are_written_and_read_while_the_shared_threads_are_busy() {
    let n_threads = rayon::current_num_threads();
    let gate = Arc::new(Barrier::new(n_threads + 1));
    let (begun, begins) = channel();
    for _ in 0..n_threads {
        let (gate, begun) = (gate.clone(), begun.clone());
        rayon::spawn(move || {
            begun.send(()).expect("the test listens");
            gate.wait();
        });
    }
    (0..n_threads).for_each(|_| begins.recv().expect("a thread of the pool"));

    let (done, is_done) = sync_channel(1);
    thread::spawn(move || done.send(write_and_read()));
    // Without threads of its own the store would wait for the gate, which opens last.
    assert_eq!(is_done.recv_timeout(Duration::from_secs(100)), Ok(N_ROWS as usize));
    gate.wait();
}

/// How many rows come back.
fn write_and_read() -> usize {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path().join("s")).expect("an empty store");
    let attempt = store.begin(StageKey::from_bytes([1; 32])).expect("an attempt");
    let numbers = Arc::new((0..N_ROWS).collect::<Int64Array>()) as ArrayRef;
    let batch = RecordBatch::try_from_iter([("n", numbers)]).expect("one column");
    let mut writer = attempt.write_table("numbers", batch.schema()).expect("a table");
    writer.write(&batch).expect("rows");
    let output = Output { name: "numbers".to_owned(), artifact: Artifact::Table(writer.finish().expect("a table")) };
    attempt.commit(RecordDraft { outputs: vec![output.clone()], ..RecordDraft::default() }).expect("a record");
    // As another process finds it: the bytes are checked before they are read.
    let store = Store::open(folder.path().join("s")).expect("a store");
    store.read_table(&output).expect("a table").iter().map(RecordBatch::num_rows).sum()
}

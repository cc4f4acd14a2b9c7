//! The steps of a training that is going on, as who asks meanwhile finds them.

use std::fs;

use crate::resumed::{KEY, Training};

/// Whenever a training tells how far it is, its steps so far are those that its table has in the end.
#[test]
fn steps_are_a_table_while_they_are_taken() {
    let training = Training::of("tuned", &["epochs=6"]);
    let mut bench = training.bench();
    training.stop(&mut bench, 4);
    training.finish(&mut bench);
    let whole = bench.table("tuned", "steps");
    let told = bench.live.take();
    let done: Vec<u64> = told.iter().map(|(done, _)| *done).collect();
    // The second run goes on from the fourth step.
    assert_eq!(done, [0, 1, 2, 3, 4, 4, 5, 6]);
    for (done, live) in told {
        let Some(live) = live else {
            assert_eq!(done, 0);
            continue;
        };
        assert_eq!(live.columns(), whole.slice(0, done as usize).columns(), "at step {done}");
    }
    // The table itself is there now.
    assert!(bench.live_steps(KEY).is_none());
}

/// A line that is half-written is not read, and what a dead attempt told is nobody's.
#[test]
fn only_whole_steps_of_a_living_training_are_read() {
    let training = Training::of("tuned", &["epochs=6"]);
    let mut bench = training.bench();
    let folder = bench.folder.path().join(format!(".sluice/tmp/{KEY}.dead"));
    fs::create_dir_all(&folder).expect("a writable store");
    fs::write(folder.join("steps.live"), "{\"step\":1,\"loss\":0.5}\n{\"step\":2,\"lo").expect("a writable store");
    assert!(bench.live_steps(KEY).is_none());
    let store = sluice_store::Store::open(bench.folder.path().join(".sluice")).expect("a store");
    let lock = store.lock(KEY).expect("a lock");
    assert_eq!(bench.live_steps(KEY).map(|steps| steps.num_rows()), Some(1));
    drop(lock);
    training.finish(&mut bench);
    assert!(!folder.exists());
}

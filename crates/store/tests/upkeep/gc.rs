//! What stays and what goes.

use std::fs;
use std::sync::mpsc;
use std::thread;

use expect_test::{Expect, expect};
use sluice_store::{GarbageKind, GcPolicy, Outcome, RowScope, RunStage, Store};

use crate::shelf::{Shelf, YOUNG, derive, key, policy};

#[track_caller]
fn check(shelf: &Shelf, policy: &GcPolicy, expected: Expect) {
    let dry = shelf.again().garbage(policy).expect("a look");
    let collected = shelf.again().collect(policy, |_| {}).expect("a collection").expect("nobody else is there");
    assert_eq!(dry.garbage, collected.garbage, "a dry run tells what is done");
    expected.assert_eq(&shelf.there().join(", "));
    let checkup = shelf.again().check_all(&derive, &|_| {}).expect("a look");
    assert!(checkup.faults.is_empty(), "{:?}", checkup.faults);
}

#[test]
fn what_a_run_or_a_tag_leads_to_stays() {
    let shelf = Shelf::new();
    for n in 1..=4 {
        shelf.result(n);
    }
    shelf.checkpoint(5);
    shelf.checkpoint(6);
    let first = shelf.run(1, &[("a", 1), ("b", 2)]);
    shelf.run(2, &[("a", 3), ("c", 5)]);
    shelf.tag("gold", first);
    // A manifest that is lost is still in the tag.
    fs::remove_file(shelf.store.root().join("runs/r1.json")).expect("a manifest");
    check(
        &shelf,
        &policy(None, None),
        expect!["r2, record 1, record 2, record 3, record 5, rows 1, rows 2, rows 3, 3 tables, 1 checkpoints"],
    );
}

#[test]
fn what_is_said_about_a_result_stays_as_long_as_that() {
    let shelf = Shelf::new();
    shelf.result(1);
    shelf.result(2);
    shelf.result_about(3, 1);
    shelf.result_about(4, 2);
    shelf.run(1, &[("a", 1)]);
    check(&shelf, &policy(None, None), expect!["r1, record 1, record 3, rows 1, rows 3, 2 tables, 0 checkpoints"]);
}

#[test]
fn what_is_young_stays_with_all_it_leads_to() {
    let shelf = Shelf::new();
    shelf.result(1);
    shelf.run(1, &[]);
    let collected = shelf.store.collect(&YOUNG, |_| {}).expect("a collection").expect("nobody else is there");
    // Locks have no age.
    assert!(collected.garbage.iter().all(|garbage| garbage.kind == GarbageKind::Lock), "{:?}", collected.garbage);
    assert!(collected.n_young > 0 && collected.young_bytes > 0);
    assert_eq!(shelf.there(), ["r1", "record 1", "rows 1", "1 tables", "0 checkpoints"]);
}

#[test]
fn a_policy_lets_runs_go_but_never_the_last_results() {
    let shelf = Shelf::new();
    for n in 1..=6 {
        shelf.result(n);
    }
    shelf.run(10, &[("a", 1), ("b", 2)]);
    shelf.run(20, &[("a", 3), ("b", 4)]);
    // The last run did not get to `b`: what it had before stays.
    shelf.run(30, &[("a", 5), ("b", 7)]);
    check(&shelf, &policy(Some(1), None), expect!["r3, record 4, record 5, rows 4, rows 5, 2 tables, 0 checkpoints"]);
}

#[test]
fn tagged_and_living_runs_stay_whatever_the_policy() {
    let shelf = Shelf::new();
    for n in 1..=5 {
        shelf.result(n);
    }
    let first = shelf.run(10, &[("a", 1)]);
    let (_, alive) = shelf.living_run(20, &[("a", 2)]);
    shelf.run(30, &[("a", 3)]);
    shelf.run(40, &[("a", 4)]);
    shelf.run(50, &[("a", 5)]);
    shelf.tag("gold", first);
    check(
        &shelf,
        &policy(Some(2), None),
        expect![[
            r#"r1, r2, r4, r5, record 1, record 2, record 4, record 5, rows 1, rows 2, rows 4, rows 5, 4 tables, 0 checkpoints"#
        ]],
    );
    drop(alive);
    check(
        &shelf,
        &policy(Some(2), Some(45)),
        expect!["r1, r4, r5, record 1, record 4, record 5, rows 1, rows 4, rows 5, 3 tables, 0 checkpoints"],
    );
}

/// A run that follows another is not older than it, whatever the clock said.
#[test]
fn a_clock_that_was_set_back_makes_no_run_old() {
    let shelf = Shelf::new();
    for n in 1..=4 {
        shelf.result(n);
    }
    for (n, started) in [(1, 100), (2, 900), (3, 5), (4, 950)] {
        shelf.run(started, &[("a", n)]);
    }
    check(
        &shelf,
        &policy(None, Some(500)),
        expect!["r2, r3, r4, record 2, record 3, record 4, rows 2, rows 3, rows 4, 3 tables, 0 checkpoints"],
    );
}

#[test]
fn unfinished_work_stays_as_long_as_its_run() {
    let shelf = Shelf::new();
    shelf.unfinished(1);
    shelf.unfinished(2);
    shelf.run(1, &[("a", 1)]);
    check(&shelf, &policy(None, None), expect!["r1, rows 1, save 1, 0 tables, 0 checkpoints"]);
    // Once it is finished, a save that is left is of no use.
    shelf.result(1);
    let save = shelf.store.root().join("resume").join(key(1).to_string());
    fs::create_dir(&save).and_then(|()| fs::write(save.join("0.state"), "left")).expect("a save");
    check(&shelf, &policy(None, None), expect!["r1, record 1, rows 1, 1 tables, 0 checkpoints"]);
}

#[test]
fn what_somebody_holds_stays() {
    let shelf = Shelf::new();
    shelf.unfinished(1);
    let attempt = shelf.store.begin(key(1)).expect("an attempt");
    let writer = shelf.store.rows(RowScope::from_bytes([1; 32])).expect("rows").writer(0.0).expect("a writer");
    check(&shelf, &policy(None, None), expect!["rows 1, save 1, 0 tables, 0 checkpoints"]);
    assert!(attempt.path().is_dir(), "the attempt goes on");
    // And while somebody relies on what it found, nothing at all goes.
    let entered = shelf.store.enter().expect("a lock");
    assert!(shelf.again().collect(&policy(None, None), |_| {}).expect("a look").is_none());
    drop((attempt, writer, entered));
    check(&shelf, &policy(None, None), expect!["0 tables, 0 checkpoints"]);
    assert_eq!(shelf.names("tmp"), Vec::<String>::new());
}

#[test]
fn old_records_keep_every_journal() {
    let shelf = Shelf::new();
    shelf.result(1);
    shelf.unfinished(2);
    shelf.run(1, &[("a", 1)]);
    // As a program wrote it that did not know the field.
    let path = shelf.store.root().join("records").join(format!("{}.json", key(1)));
    let text = fs::read_to_string(&path).expect("a record");
    let line = text.lines().next().expect("a line");
    let mut record: serde_json::Value = serde_json::from_str(line).expect("JSON");
    record.as_object_mut().expect("an object").remove("row_scopes").expect("a new record names its journals");
    let line = record.to_string();
    fs::write(&path, format!("{line}\n{{\"blake3\":\"{}\"}}\n", blake3::hash(line.as_bytes()))).expect("a record");
    let collected = shelf.store.garbage(&policy(None, None)).expect("a look");
    assert_eq!(collected.n_without_scopes, 1);
    check(&shelf, &policy(None, None), expect!["r1, record 1, rows 1, rows 2, 1 tables, 0 checkpoints"]);
}

#[test]
fn damage_that_hides_what_is_kept_stops_everything() {
    let shelf = Shelf::new();
    shelf.result(1);
    let run = shelf.run(1, &[("a", 1)]);
    shelf.tag("gold", run);
    for file in ["runs/r1.json", "tags/gold.json", &format!("records/{}.json", key(1))] {
        let path = shelf.store.root().join(file);
        let sound = fs::read(&path).expect("a file");
        fs::write(&path, &sound[..sound.len() / 2]).expect("a torn file");
        let error = shelf.again().collect(&policy(None, None), |_| {}).expect_err("nobody knows what to keep");
        assert!(error.is_damage() && error.path() == Some(&path), "{file}: {error}");
        fs::write(&path, sound).expect("a file");
    }
    check(&shelf, &policy(None, None), expect!["r1, record 1, rows 1, 1 tables, 0 checkpoints"]);
}

/// Whatever part of it is done when the power goes: what is left names only what is there.
#[test]
fn a_kill_at_any_moment_leaves_a_sound_store() {
    let shelf = Shelf::new();
    for n in 1..=3 {
        shelf.result(n);
    }
    // Two keys, one table: it stays as long as one of them does.
    shelf.result_of(4, 1);
    shelf.checkpoint(5);
    shelf.run(1, &[("a", 1), ("b", 2), ("c", 5)]);
    shelf.run(2, &[("a", 4), ("b", 3)]);
    let garbage = shelf.store.garbage(&policy(Some(1), None)).expect("a look").garbage;
    let n_named = garbage.iter().filter(|garbage| garbage.kind != GarbageKind::Lock).count();
    assert_eq!(n_named, 7, "a run, three records, a table, a checkpoint, a journal: {garbage:?}");
    for n_done in 0..=n_named {
        let copy = shelf.copy(&format!("copy{n_done}"));
        for garbage in &garbage[..n_done] {
            let path = copy.join(garbage.path.strip_prefix(shelf.store.root()).expect("below the root"));
            if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.expect("it was there");
        }
        let store = Store::open(&copy).expect("a store");
        let checkup = store.check_all(&derive, &|_| {}).expect("a look");
        assert!(checkup.faults.is_empty(), "after {n_done}: {:?}", checkup.faults);
        store.collect(&policy(Some(1), None), |_| {}).expect("a collection").expect("nobody else is there");
        let left = store.garbage(&policy(Some(1), None)).expect("a look").garbage;
        assert!(left.is_empty(), "after {n_done}, and again: {left:?}");
    }
}

/// One makes results and names them in a run as the engine does, the other takes away whatever nobody names.
#[test]
fn results_and_collections_at_one_time() {
    let shelf = Shelf::new();
    let (run, _alive) = shelf.living_run(1, &[]);
    let mut manifest = shelf.store.run(run).expect("a store").expect("a run");
    let (begun, beginnings) = mpsc::channel();
    thread::scope(|scope| {
        // One collection for each result, while that is made.
        let collector = scope.spawn(|| {
            let collect = |()| shelf.again().collect(&policy(None, None), |_| {}).expect("a collection");
            beginnings.into_iter().filter_map(collect).map(|collected| collected.garbage.len()).sum::<usize>()
        });
        for n in 1..40 {
            // Every other result is named before it is there, as that of a stage that begins.
            if n % 2 == 0 {
                let (name, kind, outcome) = (format!("a{n}"), "sql".to_owned(), Outcome::Running);
                manifest.stages.push(RunStage { name, kind, outcome, key: Some(key(n)), tests: Vec::new() });
                shelf.store.update_run(&manifest).expect("a manifest");
            }
            begun.send(()).expect("the other listens");
            // Tables are few, so that one that is about to go is often the one that is made.
            shelf.result_of(n, n % 3);
        }
        drop(begun);
        assert!(collector.join().expect("no panic") > 0, "some results had no name");
    });
    for n in (2..40).step_by(2) {
        let record = shelf.again().lookup(key(n)).expect("a store").expect("a named result is whole");
        shelf.again().read_table(&record.outputs[0]).expect("its rows are there");
    }
}

//! What is found damaged, and how it is mended.

use std::fs;
use std::path::Path;

use expect_test::{Expect, expect};
use sluice_store::{Checkup, Lookup, RowKey, RowScope, Store};

use crate::shelf::{Shelf, derive, files, flip, key, policy};

/// Two finished results in a run with a tag, a checkpoint, and a stage that did not get to its end.
fn shelf() -> Shelf {
    let shelf = Shelf::new();
    shelf.result(1);
    shelf.result(2);
    shelf.checkpoint(3);
    shelf.unfinished(4);
    let run = shelf.run(1, &[("a", 1), ("b", 2), ("c", 3), ("d", 4)]);
    shelf.tag("gold", run);
    shelf.run(2, &[("a", 1)]);
    let file = shelf.store.root().join("../rows.csv");
    fs::write(&file, "a,b\n").expect("a file");
    let past = std::time::SystemTime::now() - std::time::Duration::from_secs(10);
    fs::File::options().write(true).open(&file).and_then(|file| file.set_modified(past)).expect("a time");
    shelf.store.file_digest(&file).expect("a digest");
    shelf.store.save_stat_cache().expect("a stat cache");
    shelf
}

fn look(store: &Store) -> Checkup {
    store.check_all(&derive, &|_| {}).expect("a look")
}

/// A line a fault, the store's folder and digests left out.
fn told(checkup: &Checkup) -> String {
    let line = |fault: &sluice_store::Fault| {
        let of = fault.of.as_deref().unwrap_or("-");
        let run = fault.run.map_or("-".to_owned(), |run| run.to_string());
        format!("{} {of} {run}: {}\n", fault.kind(), fault.what)
    };
    checkup.faults.iter().map(line).collect()
}

/// Damages a copy, looks, mends, looks again, and collects: the store is sound after that.
#[track_caller]
fn check(shelf: &Shelf, name: &str, damage: impl Fn(&Path), expected: Expect) {
    let copy = shelf.copy(name);
    damage(&copy);
    let store = Store::open_damaged(&copy).expect("a store");
    let checkup = look(&store);
    expected.assert_eq(&told(&checkup));
    let mended = store.mend(&checkup.faults, &derive).expect("a repair").expect("nobody else is there");
    assert_eq!((mended.mended.len(), mended.in_use.len()), (checkup.faults.len(), 0));
    let store = Store::open(&copy).expect("a sound store");
    assert_eq!(told(&look(&store)), "", "after the repair");
    store.collect(&policy(None, None), |_| {}).expect("a collection").expect("nobody else is there");
    assert_eq!(told(&look(&store)), "", "after a collection");
}

#[test]
fn a_sound_store_is_said_to_be_one() {
    let shelf = shelf();
    let checkup = look(&shelf.store);
    assert_eq!(told(&checkup), "");
    assert_eq!((checkup.n_rows, checkup.strays.len(), checkup.n_newer), (9, 0, 0));
    let sizes = files(shelf.store.root()).iter().map(|file| fs::metadata(file).expect("a file").len()).sum::<u64>();
    assert!(checkup.bytes > sizes / 2 && checkup.bytes <= sizes, "{} of {sizes}", checkup.bytes);
}

#[test]
fn each_kind_of_file_is_told_by_name() {
    let shelf = shelf();
    let nth = |folder: &'static str, n: usize| move |store: &Path| files(&store.join(folder))[n].clone();
    let of_key = |n: u8| move |store: &Path| store.join("records").join(format!("{}.json", key(n)));
    check(
        &shelf,
        "table",
        |store| flip(&nth("objects", 0)(store), 20),
        expect![[r#"
            table a r2: its bytes are not those that were written
            record a r2: what it names is damaged: a
        "#]],
    );
    check(
        &shelf,
        "checkpoint",
        |store| flip(&nth("checkpoints", 0)(store), 20),
        expect![[r#"
            checkpoint c r1: its bytes are not those that were written
            record c r1: what it names is damaged: c
        "#]],
    );
    check(
        &shelf,
        "record",
        |store| flip(&of_key(1)(store), 40),
        expect![[r#"
            record a r2: its bytes are not those that were written
        "#]],
    );
    check(
        &shelf,
        "another record",
        |store| assert!(fs::copy(of_key(1)(store), of_key(9)(store)).expect("a copy") > 0),
        expect![[r#"
            record - -: its name is not the key of what it says
        "#]],
    );
    check(
        &shelf,
        "a lost table",
        |store| fs::remove_file(nth("objects", 0)(store)).expect("a table"),
        expect![[r#"
            record a r2: its output `numbers` is gone, or has another size
        "#]],
    );
    check(
        &shelf,
        "a journal",
        |store| {
            let folder = store.join("rows").join(RowScope::from_bytes([2; 32]).to_string());
            flip(&folder.join("0.v1.rows"), 25);
            flip(&folder.join("0.v1.keys"), 0);
        },
        expect![[r#"
            row journal b r1: 2 of 3 rows are not those that were written
        "#]],
    );
    check(
        &shelf,
        "a save",
        |store| flip(&store.join("resume").join(key(4).to_string()).join("0.state"), 100),
        expect![[r#"
            saved training d r1: its bytes are not those that were written
        "#]],
    );
    check(
        &shelf,
        "a manifest",
        |store| flip(&store.join("runs/r2.json"), 30),
        expect![[r#"
            run manifest - r2: its bytes are not those that were written
        "#]],
    );
    check(
        &shelf,
        "a tag",
        |store| flip(&store.join("tags/gold.json"), 90),
        expect![[r#"
            tag gold -: its bytes are not those that were written
        "#]],
    );
    check(
        &shelf,
        "a cache",
        |store| flip(&store.join("stat-cache.json"), 60),
        expect![[r#"
            stat cache - -: its bytes are not those that were written
        "#]],
    );
    check(
        &shelf,
        "a format",
        |store| fs::write(store.join("format"), "sluice-stnre 1\n").expect("a file"),
        expect![[r#"
            format file - -: it does not say which version the store has
        "#]],
    );
    check(
        &shelf,
        "a torn record",
        |store| {
            let bytes = fs::read(of_key(1)(store)).expect("a record");
            fs::write(of_key(1)(store), &bytes[..bytes.len() / 2]).expect("a torn record");
        },
        expect![[r#"
            record a r2: it is cut short, or something else was written over it
        "#]],
    );
}

/// A flipped bit anywhere in a file that is small enough to try them all.
#[test]
fn every_flipped_byte_is_found() {
    let shelf = shelf();
    let small = ["runs/r1.json", "tags/gold.json", "stat-cache.json", &format!("records/{}.json", key(1))];
    for file in small {
        let path = shelf.store.root().join(file);
        let sound = fs::read(&path).expect("a file");
        // The newline at the end of a file of one line is no part of what it says.
        for at in 0..sound.len() - 1 {
            let mut bytes = sound.clone();
            bytes[at] ^= 4;
            fs::write(&path, &bytes).expect("a damaged file");
            let told = told(&look(&shelf.again()));
            assert!(told.lines().count() >= 1, "{file}, byte {at}: {}", String::from_utf8_lossy(&bytes));
        }
        fs::write(&path, sound).expect("a file");
    }
    assert_eq!(told(&look(&shelf.again())), "");
}

#[test]
fn a_manifest_comes_back_from_its_tag() {
    let shelf = shelf();
    let run = "r1".parse().expect("a run");
    let sound = shelf.store.run(run).expect("a store");
    flip(&shelf.store.root().join("runs/r1.json"), 30);
    let faults = look(&shelf.store).faults;
    assert_eq!(faults.len(), 1);
    shelf.store.mend(&faults, &derive).expect("a repair").expect("nobody else is there");
    assert_eq!(shelf.store.run(run).expect("a sound manifest"), sound);
}

#[test]
fn a_mended_journal_has_the_sound_rows_and_takes_new_ones() {
    let shelf = shelf();
    let scope = RowScope::from_bytes([2; 32]);
    let keys = shelf.store.root().join("rows").join(scope.to_string()).join("0.v1.keys");
    flip(&keys, 3);
    let faults = look(&shelf.store).faults;
    let known = |n: u8| {
        let rows = shelf.store.rows(scope).expect("a journal");
        rows.get(RowKey::from_bytes([n; 32])).expect("a readable journal")
    };
    // Not while somebody appends.
    let writer = shelf.store.rows(scope).expect("rows").writer(0.0).expect("a writer");
    let mended = shelf.store.mend(&faults, &derive).expect("a repair").expect("nobody holds the store");
    assert_eq!((mended.mended.len(), mended.in_use.len()), (0, 1));
    drop(writer);
    shelf.store.mend(&faults, &derive).expect("a repair").expect("nobody else is there");
    assert_eq!(fs::metadata(&keys).expect("a file").len(), 2 * 64);
    assert_eq!([0, 1, 2].map(known), [None, Some(vec![1; 20]), Some(vec![2; 20])]);
    let mut writer = shelf.store.rows(scope).expect("rows").writer(0.0).expect("a writer");
    writer.append(RowKey::from_bytes([0; 32]), &[0; 20], 0.0).expect("a row");
    drop(writer);
    assert_eq!([0, 1, 2].map(known), [Some(vec![0; 20]), Some(vec![1; 20]), Some(vec![2; 20])]);
    assert_eq!(told(&look(&shelf.store)), "");
}

#[test]
fn a_torn_tail_and_private_files_are_no_damage() {
    let shelf = shelf();
    let folder = shelf.store.root().join("rows").join(RowScope::from_bytes([2; 32]).to_string());
    let cut = |name: &str, n: u64| {
        let file = fs::File::options().write(true).open(folder.join(name)).expect("a file");
        file.set_len(file.metadata().expect("a file").len() - n).expect("a shorter file");
    };
    cut("0.v1.keys", 10);
    cut("0.v1.rows", 30);
    fs::write(shelf.store.root().join("runs/.r3.json.77.0"), "{").expect("a file of a dead writer");
    let checkup = look(&shelf.store);
    assert_eq!((told(&checkup).as_str(), checkup.strays.len()), ("", 0));
}

#[test]
fn strays_and_newer_files_are_told_apart_from_damage() {
    let shelf = shelf();
    let root = shelf.store.root();
    for name in ["notes.txt", "objects/ab/notes", "runs/run1.json", "rows/notes"] {
        fs::create_dir_all(root.join(name).parent().expect("a folder")).expect("a folder");
        fs::write(root.join(name), "mine").expect("a file");
    }
    let mut record = serde_json::Map::new();
    record.insert("schema_version".to_owned(), 9.into());
    let line = serde_json::Value::Object(record).to_string();
    let check = format!("{line}\n{{\"blake3\":\"{}\"}}\n", blake3::hash(line.as_bytes()));
    fs::write(root.join("records").join(format!("{}.json", key(9))), check).expect("a newer record");
    let checkup = look(&shelf.store);
    assert_eq!((told(&checkup).as_str(), checkup.n_newer), ("", 1));
    let strays: Vec<String> = checkup
        .strays
        .iter()
        .map(|path| path.strip_prefix(root).expect("below the root").display().to_string())
        .collect();
    assert_eq!(strays, ["notes.txt", "objects/ab/notes", "rows/notes", "runs/run1.json"]);
}

#[test]
fn a_repair_leaves_what_was_made_again_meanwhile() {
    let shelf = shelf();
    let table = shelf.tables()[0].clone();
    flip(&table, 20);
    let faults = look(&shelf.store).faults;
    // A run made it again before anybody repaired.
    shelf.result(1);
    shelf.result(2);
    let mended = shelf.store.mend(&faults, &derive).expect("a repair").expect("nobody else is there");
    assert_eq!(mended.mended.len(), faults.len());
    assert!(matches!(shelf.store.inspect(key(2)), Ok(Lookup::Hit(_))));
    assert_eq!(shelf.names("damaged"), Vec::<String>::new());
}

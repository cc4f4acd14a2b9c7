//! Digests of files outside the store: right after every change, and a stat when nothing changed.

use std::convert::Infallible;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use sluice_store::{Store, StoreError};

fn age(path: &Path) {
    let past = SystemTime::now() - Duration::from_secs(10);
    let file = fs::File::options().write(true).open(path).expect("a file");
    file.set_modified(past).expect("a time");
}

#[test]
fn a_changed_file_has_a_new_digest() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path().join("s")).expect("a store");
    let path = folder.path().join("rows.csv");
    fs::write(&path, "a,b\n1,2\n").expect("a file");
    let first = store.file_digest(&path).expect("a digest");
    assert_eq!(first.to_string(), blake3::hash(b"a,b\n1,2\n").to_hex().as_str());
    fs::write(&path, "a,b\n1,3\n").expect("a file");
    assert_ne!(store.file_digest(&path).expect("a digest"), first);
    let missing = store.file_digest(&folder.path().join("none")).expect_err("no file");
    assert!(matches!(missing, StoreError::Io { .. }));
}

/// After the clock has been set back, a file may change and keep its time.
#[test]
fn a_file_from_the_future_is_digested_each_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("rows.csv");
    let future = SystemTime::now() + Duration::from_secs(86_400);
    let digest = |text: &str| {
        fs::write(&path, text).expect("a file");
        fs::File::options().write(true).open(&path).expect("a file").set_modified(future).expect("a time");
        let store = Store::open(folder.path().join("s")).expect("a store");
        let digest = store.file_digest(&path).expect("a digest");
        store.save_stat_cache().expect("saved");
        digest
    };
    assert_ne!(digest("a,b\n1,2\n"), digest("a,b\n1,3\n"));
}

#[test]
fn an_unchanged_folder_is_not_digested_again_by_the_next_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = folder.path().join("model");
    fs::create_dir(&model).expect("a folder");
    fs::write(model.join("config.json"), "{}").expect("a file");
    age(&model.join("config.json"));
    let computed = AtomicUsize::new(0);
    let digest = |store: &Store, purpose: &str| {
        let compute = |_: &Path| {
            computed.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Infallible>([purpose.len() as u8; 32])
        };
        store.folder_digest(&model, purpose, compute).expect("a digest")
    };
    let check = |purpose: &str, expected: usize, when: &str| {
        let store = Store::open(folder.path().join("s")).expect("a store");
        assert_eq!(digest(&store, purpose), [purpose.len() as u8; 32]);
        assert_eq!(digest(&store, purpose), [purpose.len() as u8; 32]);
        store.save_stat_cache().expect("saved");
        assert_eq!(computed.load(Ordering::Relaxed), expected, "{when}");
    };
    check("model v1", 1, "first");
    check("model v1", 1, "unchanged");
    check("model v2!", 2, "another function");
    fs::write(model.join("config.json"), "[]").expect("a file");
    check("model v1", 3, "changed");
    check("model v1", 4, "changed within the clock's tick, so not remembered");
    age(&model.join("config.json"));
    check("model v1", 5, "touched");
    check("model v1", 5, "unchanged");
    fs::write(folder.path().join("s/stat-cache.json"), "{").expect("a torn cache");
    check("model v1", 6, "the cache is damaged");
}

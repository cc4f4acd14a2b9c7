//! Unfinished work: what is saved is taken up whole or not at all, and never more than two states lie on the disk.

use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;

use sluice_store::{Attempt, HowFar, RecordDraft, StageKey, Store, StoreError};

const KEY: StageKey = StageKey::from_bytes([7; 32]);
const OTHER: StageKey = StageKey::from_bytes([8; 32]);

struct Shop {
    folder: tempfile::TempDir,
    store: Store,
}

impl Shop {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path().join("s")).expect("an empty store");
        Self { folder, store }
    }

    fn begin(&self, key: StageKey) -> Attempt {
        self.store.begin(key).expect("an attempt")
    }

    fn folder(&self) -> PathBuf {
        self.store.root().join("resume").join(KEY.to_string())
    }

    /// Names and sizes in the folder of the key.
    fn files(&self) -> String {
        let Ok(entries) = fs::read_dir(self.folder()) else { return "nothing".to_owned() };
        let mut files: Vec<String> = entries
            .map(|entry| entry.expect("an entry"))
            .map(|entry| format!("{} {}", entry.file_name().display(), entry.metadata().expect("a file").len()))
            .filter(|file| !file.starts_with("head.json"))
            .collect();
        files.sort();
        files.join(", ")
    }

    /// What the next attempt takes up.
    fn taken_up(&self) -> String {
        match self.begin(KEY).unfinished() {
            Ok(None) => "nothing".to_owned(),
            Ok(Some((head, mut file))) => {
                let mut text = String::new();
                file.read_to_string(&mut text).expect("a readable state");
                format!("{} at {}/{} in {}", text, head.done, head.total, head.form)
            }
            Err(error) => {
                let text = error.to_string().replace(&self.folder.path().display().to_string(), "");
                text.replace(&KEY.to_string(), "KEY")
            }
        }
    }
}

fn save(attempt: &Attempt, done: u64, state: &str) {
    let how_far = HowFar { form: "f1", done, total: 9 };
    attempt.save_unfinished(how_far, |sink| sink.write_all(state.as_bytes())).expect("a save");
}

#[test]
fn the_last_save_is_taken_up() {
    let shop = Shop::new();
    assert_eq!((shop.taken_up().as_str(), shop.files().as_str()), ("nothing", "nothing"));
    let attempt = shop.begin(KEY);
    save(&attempt, 1, "one");
    save(&attempt, 2, "two!");
    assert_eq!(shop.files(), "1.state 4");
    let told = shop.store.unfinished(KEY).expect("a readable store").expect("a save");
    assert_eq!((told.done, told.total, told.bytes), (2, 9, 4));
    // The attempt dies, the save does not.
    drop(attempt);
    assert_eq!(shop.taken_up(), "two! at 2/9 in f1");
    assert_eq!(shop.taken_up(), "two! at 2/9 in f1");
    // Another key has none of it.
    assert!(shop.begin(OTHER).unfinished().expect("a readable store").is_none());
    let attempt = shop.begin(KEY);
    attempt.forget().expect("a writable store");
    drop(attempt);
    assert_eq!((shop.taken_up().as_str(), shop.files().as_str()), ("nothing", "nothing"));
}

#[test]
fn a_save_that_fails_leaves_the_last_one() {
    let shop = Shop::new();
    let attempt = shop.begin(KEY);
    save(&attempt, 1, "one");
    let failed = attempt.save_unfinished(HowFar { form: "f1", done: 2, total: 9 }, |sink| {
        sink.write_all(b"half of tw")?;
        Err(io::ErrorKind::StorageFull.into())
    });
    assert!(matches!(failed, Err(StoreError::NoSpace { .. })));
    assert_eq!(shop.files(), "0.state 3");
    drop(attempt);
    assert_eq!(shop.taken_up(), "one at 1/9 in f1");
}

#[test]
fn what_a_dead_process_left_behind_goes() {
    let shop = Shop::new();
    save(&shop.begin(KEY), 1, "one");
    // It died after the state was written and before the head was.
    fs::write(shop.folder().join("1.state"), "two").expect("a writable folder");
    fs::write(shop.folder().join(".head.json.1.2"), "{").expect("a writable folder");
    assert_eq!(shop.taken_up(), "one at 1/9 in f1");
    assert_eq!(shop.files(), "0.state 3");
}

#[test]
fn a_commit_forgets_the_save() {
    let shop = Shop::new();
    let attempt = shop.begin(KEY);
    save(&attempt, 1, "one");
    attempt.commit(RecordDraft::default()).expect("a commit");
    assert_eq!(shop.files(), "nothing");
    // And where it died in between, the next attempt at any key does.
    save(&shop.begin(KEY), 1, "one");
    assert_eq!(shop.files(), "0.state 3");
    drop(shop.begin(OTHER));
    assert_eq!(shop.files(), "nothing");
}

/// Damages a save; what is then said of it, and whether a plan counts on it.
#[track_caller]
fn check_damage(damage: impl FnOnce(&PathBuf), is_counted_on: bool, said: &str) {
    let shop = Shop::new();
    save(&shop.begin(KEY), 1, "one");
    damage(&shop.folder());
    let told = shop.taken_up();
    assert!(told.starts_with(said), "{told}");
    assert_eq!(shop.store.unfinished(KEY).expect("a readable store").is_some(), is_counted_on);
    // There is a way on: the damaged save is replaced like any other.
    let attempt = shop.begin(KEY);
    save(&attempt, 3, "three");
    drop(attempt);
    assert_eq!(shop.taken_up(), "three at 3/9 in f1");
    assert!(["0.state 5", "1.state 5"].contains(&shop.files().as_str()), "{}", shop.files());
}

#[test]
fn a_damaged_save_is_not_taken_up() {
    let write = |name: &'static str, bytes: &'static str| {
        move |folder: &PathBuf| fs::write(folder.join(name), bytes).expect("a writable folder")
    };
    let remove =
        |name: &'static str| move |folder: &PathBuf| fs::remove_file(folder.join(name)).expect("a file of the save");
    let (head, state) = ("head.json", "0.state");
    check_damage(write(state, "onf"), true, "`/s/resume/KEY/0.state` is damaged: its content has digest ");
    check_damage(write(state, "on"), false, "`/s/resume/KEY/0.state` is damaged: its content has digest ");
    check_damage(remove(state), false, "read `/s/resume/KEY/0.state`");
    check_damage(write(head, "{}"), false, "read `/s/resume/KEY/head.json`: it is not what this program writes");
    let lie = "{\"version\":1}\n{\"blake3\":\"0000000000000000000000000000000000000000000000000000000000000000\"}\n";
    check_damage(write(head, lie), false, "`/s/resume/KEY/head.json` is damaged");
    // Without a head nothing was ever saved.
    check_damage(remove(head), false, "nothing");
}

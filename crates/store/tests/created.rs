//! A store that is created while others open it.

use std::thread;

use sluice_store::{StageKey, Store};

/// Whoever looks while another creates the folders sees a store, and not somebody else's folder.
#[test]
fn a_store_opens_at_every_moment_of_its_creation() {
    for _ in 0..100 {
        let folder = tempfile::tempdir().expect("a folder");
        let root = &folder.path().join("store");
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(move || {
                    while !root.join("format").exists() {
                        Store::open(root).expect("a store");
                    }
                });
            }
            let store = Store::open(root).expect("a store");
            store.begin(StageKey::from_bytes([1; 32])).map(drop).expect("an attempt");
        });
    }
}

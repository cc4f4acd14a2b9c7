//! What differs between two tables: rows found again by their ids or as wholes, columns by name and type.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Float32Array, Int64Array, RecordBatch, StringArray};
use expect_test::{Expect, expect};
use proptest::prelude::*;
use sluice_store::{Artifact, ColumnChange, Comparison, Matching, Output, RecordDraft, StageKey, Store};

struct Tables {
    _folder: tempfile::TempDir,
    store: Store,
}

impl Tables {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path().join("s")).expect("an empty store");
        Self { _folder: folder, store }
    }

    fn put(&self, n: u8, batches: &[RecordBatch]) -> Output {
        let attempt = self.store.begin(StageKey::from_bytes([n; 32])).expect("an attempt");
        let mut writer = attempt.write_table("rows", batches[0].schema()).expect("a table");
        batches.iter().for_each(|batch| writer.write(batch).expect("rows"));
        let table = writer.finish().expect("a table");
        let output = Output { name: "rows".to_owned(), artifact: Artifact::Table(table) };
        attempt.commit(RecordDraft { outputs: vec![output.clone()], ..RecordDraft::default() }).expect("a record");
        output
    }

    fn compare(&self, old: &[RecordBatch], new: &[RecordBatch], ids: &[&[&str]], n_shown: usize) -> Comparison {
        let (old, new) = (self.put(1, old), self.put(2, new));
        let matching = Matching { ids, left_out: &["digest"] };
        self.store.compare_tables(&old, &new, matching, n_shown).expect("a comparison")
    }
}

fn rows(rows: &[(&str, i64, f32)]) -> RecordBatch {
    let ids: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|(id, ..)| *id)));
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, n, _)| *n)));
    let scores: ArrayRef = Arc::new(Float32Array::from_iter_values(rows.iter().map(|(.., score)| *score)));
    let digests: ArrayRef =
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(id, n, score)| format!("{id}{n}{score}"))));
    RecordBatch::try_from_iter([("id", ids), ("n", numbers), ("score", scores), ("digest", digests)])
        .expect("columns of one length")
}

fn told(comparison: &Comparison) -> String {
    let Comparison { matched_by, n_old, n_new, n_same, n_changed, n_added, n_removed, changed_columns, .. } =
        comparison;
    let csv = |batch: &RecordBatch| {
        let mut bytes = Vec::new();
        let mut writer = arrow::csv::WriterBuilder::new().with_header(false).build(&mut bytes);
        writer.write(batch).expect("rows");
        drop(writer);
        String::from_utf8(bytes).expect("text").lines().collect::<Vec<_>>().join(" ")
    };
    format!(
        "{n_old} -> {n_new} by {matched_by:?}: {n_same} same, {n_changed} changed {changed_columns:?}, {n_added} added, \
         {n_removed} removed\n+ {}\n- {}\n~ {} / {}\n",
        csv(&comparison.added),
        csv(&comparison.removed),
        csv(&comparison.changed.0),
        csv(&comparison.changed.1)
    )
}

#[track_caller]
fn check(old: &[(&str, i64, f32)], new: &[(&str, i64, f32)], expected: Expect) {
    let tables = Tables::new();
    let ids: &[&[&str]] = &[&["nowhere"], &["id", "n"], &["id"]];
    expected.assert_eq(&told(&tables.compare(&[rows(old)], &[rows(new)], ids, 2)));
}

#[test]
fn rows_are_found_again_by_the_first_ids_that_tell_them_apart() {
    check(
        &[("a", 1, 0.5), ("a", 2, 0.25), ("b", 1, 1.0), ("c", 1, 1.0)],
        &[("c", 1, 1.0), ("a", 2, 0.5), ("d", 1, 0.0), ("a", 1, 0.5)],
        expect![[r#"
            4 -> 4 by ["id", "n"]: 2 same, 1 changed [("score", 1)], 1 added, 1 removed
            + d,1,0.0,d10
            - b,1,1.0,b11
            ~ a,2,0.25,a20.25 / a,2,0.5,a20.5
        "#]],
    );
    check(
        &[("a", 1, 0.5), ("b", 2, 0.25)],
        &[("a", 2, 0.75), ("b", 2, 0.25)],
        expect![[r#"
            2 -> 2 by ["id", "n"]: 1 same, 0 changed [], 1 added, 1 removed
            + a,2,0.75,a20.75
            - a,1,0.5,a10.5
            ~  / 
        "#]],
    );
    // Alike by every set of ids: as wholes, each as often as it is there.
    check(
        &[("a", 1, 0.5), ("a", 1, 0.5), ("a", 1, 0.25)],
        &[("a", 1, 0.5), ("a", 1, 0.75), ("a", 1, 0.5), ("a", 1, 0.5)],
        expect![[r#"
            3 -> 4 by []: 2 same, 0 changed [], 2 added, 1 removed
            + a,1,0.75,a10.75 a,1,0.5,a10.5
            - a,1,0.25,a10.25
            ~  / 
        "#]],
    );
    check(
        &[("a", 1, 0.5)],
        &[("a", 1, 0.5)],
        expect![[r#"
            1 -> 1 by ["id", "n"]: 1 same, 0 changed [], 0 added, 0 removed
            + 
            - 
            ~  / 
        "#]],
    );
}

#[test]
fn columns_are_compared_by_name_and_type() {
    let tables = Tables::new();
    let without = |batch: RecordBatch, columns: &[usize]| batch.project(columns).expect("columns");
    let old = without(rows(&[("a", 1, 0.5)]), &[0, 1, 2]);
    let text: ArrayRef = Arc::new(StringArray::from(vec![Some("1")]));
    let ids = old.column(0).clone();
    let new = RecordBatch::try_from_iter_with_nullable([("n", text, true), ("id", ids, false)]).expect("two columns");
    let found = tables.compare(std::slice::from_ref(&old), &[new], &[&["id"]], 1);
    let (name, from, to) = ("n".to_owned(), "Int64".to_owned(), "Utf8 or null".to_owned());
    let retyped = ColumnChange::Retyped { name, from, to };
    let removed = ColumnChange::Removed { name: "score".to_owned(), from: "Float32".to_owned() };
    assert_eq!(found.columns, [retyped, removed]);
    assert_eq!((found.n_same, found.n_changed), (1, 0), "what both have is alike");
    // Nothing in common.
    let other: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let found = tables.compare(&[old], &[RecordBatch::try_from_iter([("x", other)]).expect("a column")], &[&["id"]], 1);
    assert_eq!((found.n_old, found.n_new, found.n_added, found.n_removed), (1, 2, 2, 1));
    assert_eq!((found.added.num_rows(), found.removed.num_rows()), (1, 1));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// The counts are those of a comparison by hand, however the rows are cut into batches.
    #[test]
    fn counts_are_those_of_sets(
        old in prop::collection::btree_map(0_i64..40, 0_i64..3, 1..30),
        new in prop::collection::btree_map(0_i64..40, 0_i64..3, 1..30),
        at in 0_usize..30,
    ) {
        let table = |map: &std::collections::BTreeMap<i64, i64>| {
            let rows: Vec<(String, i64)> = map.iter().map(|(id, n)| (id.to_string(), *n)).collect();
            let rows: Vec<(&str, i64, f32)> = rows.iter().map(|(id, n)| (id.as_str(), *n, 0.0)).collect();
            let batch = self::rows(&rows);
            let at = at.min(batch.num_rows());
            vec![batch.slice(0, at), batch.slice(at, batch.num_rows() - at)]
        };
        let found = Tables::new().compare(&table(&old), &table(&new), &[&["id"]], 100);
        let n = |wanted: &dyn Fn(&i64, &i64) -> bool| new.iter().filter(|(id, n)| wanted(id, n)).count() as u64;
        prop_assert_eq!(found.n_same, n(&|id, n| old.get(id) == Some(n)));
        prop_assert_eq!(found.n_changed, n(&|id, n| old.get(id).is_some_and(|then| then != n)));
        prop_assert_eq!(found.n_added, n(&|id, _| !old.contains_key(id)));
        prop_assert_eq!(found.n_removed, old.keys().filter(|id| !new.contains_key(*id)).count() as u64);
        prop_assert_eq!(found.added.num_rows() as u64, found.n_added);
        prop_assert_eq!(found.changed.0.num_rows() as u64, found.n_changed);
    }
}

/// Prints what many rows cost; a figure to look at, and nothing is held to it.
#[test]
fn many_rows_are_compared() {
    const N: i64 = 30_000;
    let tables = Tables::new();
    let table = |changed: i64| {
        let rows: Vec<(String, i64)> =
            (0..N).map(|n| (format!("prompt {n}"), if n < changed { -n } else { n })).collect();
        let rows: Vec<(&str, i64, f32)> = rows.iter().map(|(id, n)| (id.as_str(), *n, 1.0)).collect();
        self::rows(&rows)
    };
    let (old, new) = (tables.put(1, &[table(0)]), tables.put(2, &[table(11)]));
    let started = Instant::now();
    let found = tables.store.compare_tables(&old, &new, Matching { ids: &[&["id"]], left_out: &[] }, 3);
    println!("compare: {:.2} µs a row", started.elapsed().as_secs_f64() * 1e6 / N as f64);
    let found = found.expect("a comparison");
    assert_eq!((found.n_same, found.n_changed), (N as u64 - 10, 10));
}

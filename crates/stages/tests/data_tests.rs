//! Data tests over tables of a real store: which rows are at fault, what is kept of them, and what is said where no rows
//! tell it.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::{Array, ArrayRef, BooleanArray, Float32Array, Int64Array, RecordBatch, StringArray};
use expect_test::{Expect, expect};
use sluice_spec::{Options, Pipeline, Test, parse};
use sluice_sql::{Format, render};
use sluice_stages::StageError;
use sluice_stages::test::{MAX_KEPT, TestContext, TestRun, Tested, run};
use sluice_store::{Artifact, Output, Record, RecordDraft, StageKey, Store};

/// A store with a table `picked` and another, `prompts`, both made by hand.
struct Bench {
    _folder: tempfile::TempDir,
    store: Store,
    picked: Output,
    prompts: Output,
}

fn texts(texts: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(texts.to_vec()))
}

fn table(store: &Store, n: u8, columns: Vec<(&str, ArrayRef, bool)>) -> Output {
    let batch = RecordBatch::try_from_iter_with_nullable(columns).expect("columns of one length");
    let attempt = store.begin(StageKey::from_bytes([n; 32])).expect("an attempt");
    let mut writer = attempt.write_table("table", batch.schema()).expect("a table");
    writer.write(&batch).expect("rows");
    let output = Output { name: "table".to_owned(), artifact: Artifact::Table(writer.finish().expect("a table")) };
    attempt.commit(RecordDraft { outputs: vec![output.clone()], ..RecordDraft::default() }).expect("a record");
    output
}

impl Bench {
    fn new() -> Bench {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path().join(".sluice")).expect("a store");
        let picked = table(
            &store,
            1,
            vec![
                ("id", texts(&[Some("a"), Some("b"), Some("b"), None, Some("it's")]), true),
                (
                    "margin",
                    Arc::new(Float32Array::from(vec![Some(0.1), Some(2.5), None, Some(f32::NAN), Some(-1.0)])),
                    true,
                ),
                ("n", Arc::new(Int64Array::from(vec![1, 2, 2, 4, 5])), false),
                ("held", Arc::new(BooleanArray::from(vec![true, false, true, true, false])), false),
            ],
        );
        let prompts = table(&store, 2, vec![("id", texts(&[Some("a"), Some("b"), None]), true)]);
        Bench { _folder: folder, store, picked, prompts }
    }

    fn make(&self, tests: &str, n: u8) -> Vec<Result<Tested, StageError>> {
        let pipeline = pipeline(tests);
        let stage = pipeline.stages.last().expect("the stage is there");
        let record = self.record();
        let tables: Vec<Vec<(String, Output)>> = stage.tests.iter().map(|test| self.tables(test)).collect();
        let key = |at: usize| StageKey::from_bytes([n + at as u8; 32]);
        let attempts: Vec<_> = (0..tables.len()).map(|at| self.store.begin(key(at)).expect("an attempt")).collect();
        let runs: Vec<TestRun<'_>> = stage
            .tests
            .iter()
            .zip(&tables)
            .zip(&attempts)
            .map(|((test, tables), attempt)| TestRun { test, tables, attempt })
            .collect();
        let context = TestContext { store: &self.store, record: &record, cancel: &AtomicBool::new(false) };
        let made = run(&runs, &context);
        for (attempt, made) in attempts.into_iter().zip(&made) {
            if let Ok(Tested { rows: Some(rows), .. }) = made {
                let draft = RecordDraft { outputs: vec![rows.clone()], ..RecordDraft::default() };
                attempt.commit(draft).expect("a record");
            }
        }
        made
    }

    fn tables(&self, test: &Test) -> Vec<(String, Output)> {
        let names = test.others().map(|table| (table.name.clone(), self.prompts.clone()));
        std::iter::once(("this".to_owned(), self.picked.clone())).chain(names).collect()
    }

    fn record(&self) -> Record {
        let attempt = self.store.begin(StageKey::from_bytes([255; 32])).expect("an attempt");
        let metrics = [("gain".to_owned(), -0.125), ("rows".to_owned(), 5.0)].into();
        let draft = RecordDraft { metrics, ..RecordDraft::default() };
        attempt.commit(draft).expect("a record").record().clone()
    }

    /// What a test found: how many rows, which, and in words.
    fn check(&self, test: &str, expected: Expect) {
        let made = self.make(&format!("[{test}]"), 100).remove(0);
        let shown = match made {
            Ok(Tested { n_failed, rows, found }) => {
                let rows = rows.map_or(String::new(), |rows| {
                    let batches = self.store.read_table(&rows).expect("the rows that were committed");
                    render(&batches, Format::Csv).expect("rows have a text")
                });
                let found = found.map_or(String::new(), |found| format!("{found}\n"));
                format!("{n_failed} failed\n{found}{rows}")
            }
            Err(error) => {
                let mut text = error.to_string();
                let mut cause = error.source();
                while let Some(inner) = cause {
                    text += &format!("\n  because: {inner}");
                    cause = inner.source();
                }
                text
            }
        };
        expected.assert_eq(&shown);
    }
}

fn pipeline(tests: &str) -> Pipeline {
    let text = format!(
        "\
version: 1
stages:
  prompts: {{ ingest: {{ from: a.jsonl }} }}
  picked:
    sql: {{ from: [prompts], query: select 1 }}
    tests: {tests}
"
    );
    parse("p.yaml", &text, &Options::default()).unwrap_or_else(|faults| panic!("{faults}"))
}

#[test]
fn columns_without_nulls_and_without_doubles() {
    let bench = Bench::new();
    bench.check(
        "not_null: [n, held]",
        expect![[r#"
        0 failed
    "#]],
    );
    bench.check(
        "not_null: [id, margin]",
        expect![[r#"
        2 failed
        id,margin,n,held
        b,,2,true
        ,NaN,4,true
    "#]],
    );
    bench.check(
        "unique: n",
        expect![[r#"
        1 failed
        n,n_rows
        2,2
    "#]],
    );
    // A null is not the double of a null.
    bench.check(
        "unique: [id, held]",
        expect![[r#"
        0 failed
    "#]],
    );
    bench.check(
        "unique: [id, n]",
        expect![[r#"
        1 failed
        id,n,n_rows
        b,2,2
    "#]],
    );
}

#[test]
fn ranges_words_and_relationships() {
    let bench = Bench::new();
    // 0.1 of 32 bits is the end itself; what is no number lies in no range, and null is left out.
    bench.check(
        "range: { column: margin, min: -1, max: 0.1 }",
        expect![[r#"
        2 failed
        id,margin,n,held
        b,2.5,2,false
        ,NaN,4,true
    "#]],
    );
    bench.check(
        "range: { column: n, min: 1, max: 5 }",
        expect![[r#"
        0 failed
    "#]],
    );
    bench.check(
        "range: { column: n, max: 4.5 }",
        expect![[r#"
        1 failed
        id,margin,n,held
        it's,-1.0,5,false
    "#]],
    );
    bench.check(
        "accepted_values: { column: id, values: [a, \"it's\"] }",
        expect![[r#"
        2 failed
        id,margin,n,held
        b,2.5,2,false
        b,,2,true
    "#]],
    );
    bench.check(
        "accepted_values: { column: n, values: [1, 2, 4, 5] }",
        expect![[r#"
        0 failed
    "#]],
    );
    bench.check(
        "accepted_values: { column: held, values: [true] }",
        expect![[r#"
        2 failed
        id,margin,n,held
        b,2.5,2,false
        it's,-1.0,5,false
    "#]],
    );
    bench.check(
        "relationship: { column: id, to: prompts }",
        expect![[r#"
        1 failed
        id,margin,n,held
        it's,-1.0,5,false
    "#]],
    );
}

#[test]
fn queries() {
    let bench = Bench::new();
    bench.check(
        "sql: select * from this where n > 10",
        expect![[r#"
        0 failed
    "#]],
    );
    bench.check(
        "sql: \"select id, n * 2 as twice from this where held\"",
        expect![[r#"
        3 failed
        id,twice
        a,2
        b,4
        ,8
    "#]],
    );
    bench.check(
        "{ sql: select p.id from prompts p left join this t on p.id = t.id where t.id is null, from: [prompts] }",
        expect![[r#"
            1 failed
            id
            ""
        "#]],
    );
}

#[test]
fn numbers_are_told_in_words() {
    let bench = Bench::new();
    bench.check(
        "row_count: { min: 1 }",
        expect![[r#"
        0 failed
        there are 5 rows
    "#]],
    );
    bench.check(
        "row_count: { min: 6, max: 10 }",
        expect![[r#"
        1 failed
        there are 5 rows; 6 to 10 is wanted
    "#]],
    );
    bench.check(
        "row_count: { max: 4 }",
        expect![[r#"
        1 failed
        there are 5 rows; at most 4 is wanted
    "#]],
    );
    bench.check(
        "metric: { name: gain, min: 0 }",
        expect![[r#"
        1 failed
        gain is -0.125; at least 0 is wanted
    "#]],
    );
    bench.check(
        "metric: { name: gain, min: -0.125, max: -0.125 }",
        expect![[r#"
        0 failed
        gain is -0.125
    "#]],
    );
}

#[test]
fn what_cannot_be_made_says_why() {
    let bench = Bench::new();
    bench.check("not_null: [idd]", expect!["there is no column `idd`; the table has `id`, `margin`, `n`, `held`"]);
    bench.check("metric: { name: gian, min: 0 }", expect!["the stage reports no `gian`; it reports `gain`, `rows`"]);
    bench.check("sql: select * from that", expect!["at 1:15: there is no table `that`; there is `this`"]);
    bench.check(
        "sql: select nn from this",
        expect!["at 1:8: there is no column `nn`; there is `id`, `margin`, `n`, `held`"],
    );
    bench.check(
        "sql: select now() as t from this",
        expect!["at 1:8: `now()` gives another value at each run, so its result cannot be kept"],
    );
    bench.check("sql: delete from this", expect!["only a query can be answered: SELECT, EXPLAIN or DESCRIBE"]);
    bench.check("sql: \"select id, id from this\"", expect![[r#"projections require unique expression names but the expression "this.id" at position 0 and "this.id" at position 1 have the same name. Consider aliasing ("AS") one of them"#]]);
    // One that cannot be made says nothing of the others.
    let made = bench.make("[sql: select, not_null: n]", 60);
    assert!(made[0].is_err());
    assert_eq!(made[1].as_ref().map(|tested| tested.n_failed).ok(), Some(0));
}

#[test]
fn contracts() {
    let bench = Bench::new();
    let check = |columns: &str, expected: Expect| {
        let text = format!("[]\n    columns: {columns}");
        let made = bench.make(&text, 150).remove(0).expect("a contract can be checked");
        let rows = made.rows.map_or(String::new(), |rows| {
            render(&bench.store.read_table(&rows).expect("the rows"), Format::Csv).expect("text")
        });
        expected.assert_eq(&format!("{} failed\n{rows}", made.n_failed));
    };
    check(
        "{ id: text, margin: float32, n: int64!, held: bool!, \"*\": none }",
        expect![[r#"
        0 failed
    "#]],
    );
    check(
        "{ id: text!, margin: float64, n: any!, extra?: text, gone: text }",
        expect![[r#"
        3 failed
        column,expected,found
        margin,float64,float32
        gone,text,absent
        id,text!,1 row is null
    "#]],
    );
    check(
        "{ id: text, n: int64, \"*\": none }",
        expect![[r#"
        2 failed
        column,expected,found
        margin,none,float32
        held,none,bool
    "#]],
    );
}

/// However many rows fail, all are counted and the first are kept.
#[test]
fn very_many_rows_are_counted_and_not_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path().join(".sluice")).expect("a store");
    let n = 20_000;
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..n));
    let picked = table(&store, 1, vec![("n", numbers, false)]);
    let prompts = picked.clone();
    let bench = Bench { _folder: folder, store, picked, prompts };
    let made = bench.make("[range: { column: n, min: 5 , max: 10 }]", 9).remove(0).expect("a range can be checked");
    assert_eq!(made.n_failed, n as u64 - 6);
    let rows = made.rows.expect("rows at fault");
    assert_eq!(rows.n_rows(), Some(MAX_KEPT as u64));
    let first = bench.store.read_table(&rows).expect("the rows");
    assert_eq!(
        first[0].column(0).as_ref().slice(0, 7).to_data(),
        Int64Array::from(vec![0, 1, 2, 3, 4, 11, 12]).slice(0, 7).to_data()
    );
}

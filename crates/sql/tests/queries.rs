//! Queries over small tables: what they answer, and what they say when they cannot.

use std::error::Error;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Float32Array, RecordBatch, StringArray, UInt32Array};
use arrow::datatypes::DataType;
use expect_test::{Expect, expect};
use parquet::arrow::ArrowWriter;
use sluice_sql::{Constant, Format, NamedTable, Session, SqlError, TableData, UnionPart, render};

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).expect("columns of one length")
}

fn scores() -> RecordBatch {
    batch(vec![
        ("prompt_id", Arc::new(StringArray::from(vec!["a", "a", "b", "b", "c"]))),
        ("sample_index", Arc::new(UInt32Array::from(vec![0, 1, 0, 1, 0]))),
        ("score", Arc::new(Float32Array::from(vec![0.5, 0.25, -1.0, 2.0, 0.0]))),
    ])
}

fn dropped() -> RecordBatch {
    batch(vec![
        ("prompt_id", Arc::new(StringArray::from(vec!["c"]))),
        ("rule", Arc::new(StringArray::from(vec!["single_candidate"]))),
    ])
}

fn in_memory(name: &str, batch: RecordBatch) -> NamedTable {
    let data = TableData::Batches { schema: batch.schema(), batches: vec![batch] };
    NamedTable { name: name.to_owned(), data }
}

fn session() -> Session {
    Session::new(vec![in_memory("scores", scores()), in_memory("pairs.dropped", dropped())]).expect("a session")
}

fn said(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}\n  because: {}", said(source)),
        None => error.to_string(),
    }
}

/// Answers a query as CSV, or says why not.
fn check(query: &str, expected: Expect) {
    let answer = session().query(query).and_then(|batches| render(&batches, Format::Csv));
    expected.assert_eq(&answer.unwrap_or_else(|error: SqlError| said(&error)));
}

#[test]
fn rows_come_in_the_order_of_the_query_or_else_of_the_table() {
    check(
        "select prompt_id, max(score) as best from scores group by prompt_id",
        expect![[r#"
            prompt_id,best
            a,0.5
            b,2.0
            c,0.0
        "#]],
    );
    check(
        "select prompt_id, sample_index from scores order by score desc limit 2",
        expect![[r#"
            prompt_id,sample_index
            b,1
            a,0
        "#]],
    );
}

#[test]
fn a_second_table_of_a_stage_is_named_after_the_stage() {
    check(
        "select s.prompt_id, d.rule from scores s left join pairs.dropped d using (prompt_id) where s.sample_index = 0 order by 1",
        expect![[r#"
            prompt_id,rule
            a,
            b,
            c,single_candidate
        "#]],
    );
}

#[test]
fn an_answer_without_rows_has_its_columns() {
    check(
        "select prompt_id from scores where score > 100",
        expect![[r#"
        prompt_id
    "#]],
    );
}

#[test]
fn tables_made_within_the_query_are_no_tables_of_the_session() {
    check(
        "with best as (select prompt_id, max(score) as s from scores group by 1) select count(*) as n from best where s > 0",
        expect![[r#"
            n
            2
        "#]],
    );
    check(
        "select value from generate_series(1, 2)",
        expect![[r#"
        value
        1
        2
    "#]],
    );
}

#[test]
fn a_table_that_does_not_exist_names_those_that_do() {
    check("select *\nfrom scroes", expect!["at 2:6: there is no table `scroes`; there is `pairs.dropped`, `scores`"]);
    check(
        "select * from pairs.droped",
        expect!["at 1:21: there is no table `pairs.droped`; there is `pairs.dropped`, `scores`"],
    );
}

#[test]
fn a_column_that_does_not_exist_names_those_that_do() {
    check(
        "select prompt_id,\n  scor from scores",
        expect!["at 2:3: there is no column `scor`; there is `prompt_id`, `sample_index`, `score`"],
    );
    check(
        "select prompt_id from scores where margin > 1",
        expect!["at 1:36: there is no column `margin`; there is `prompt_id`, `sample_index`, `score`"],
    );
}

#[test]
fn faults_of_the_text_have_their_place() {
    check("select from scores where", expect!["at 1:25: expected: an expression, found: EOF"]);
    check("selec prompt_id from scores", expect!["at 1:1: expected: an SQL statement, found: selec"]);
    check("select 'open from scores", expect!["at 1:8: unterminated string literal"]);
    check("", expect!["the query is empty"]);
    check("select 1; select 2", expect!["there are 2 statements; ask one at a time"]);
    check("select best_of(score) from scores", expect!["at 1:8: invalid function 'best_of'; did you mean 'bit_or'?"]);
}

#[test]
fn only_queries_are_answered() {
    check("drop table scores", expect!["only a query can be answered: SELECT, EXPLAIN or DESCRIBE"]);
    check(
        "create table x as select * from scores",
        expect!["only a query can be answered: SELECT, EXPLAIN or DESCRIBE"],
    );
    check(
        "describe scores",
        expect![[r#"
        column_name,data_type,is_nullable
        prompt_id,Utf8,NO
        sample_index,UInt32,NO
        score,Float32,NO
    "#]],
    );
    check(
        "insert into scores select * from scores",
        expect!["only a query can be answered: SELECT, EXPLAIN or DESCRIBE"],
    );
    check(
        "set datafusion.execution.batch_size = 1",
        expect!["only a query can be answered: SELECT, EXPLAIN or DESCRIBE"],
    );
}

#[test]
fn a_fault_while_running_keeps_its_cause() {
    check(
        "select cast(prompt_id as int) as n from scores",
        expect![[r#"
            run the query
              because: Cast error: Cannot cast string 'a' to value of Int32 type"#]],
    );
}

/// Whether an answer to the query may be kept.
fn check_repeatable(query: &str, expected: Expect) {
    let session = session();
    let answer = session.stream_repeatable(query).map(|batches| batches.schema().fields().len());
    expected.assert_eq(&answer.map_or_else(|error| said(&error), |n| format!("{n} columns")));
}

#[test]
fn functions_of_chance_and_of_the_clock_are_refused_where_the_answer_is_kept() {
    check_repeatable("select prompt_id, lower(prompt_id) from scores", expect!["2 columns"]);
    check_repeatable(
        "select prompt_id from scores\norder by random()",
        expect!["at 2:10: `random()` gives another value at each run, so its result cannot be kept"],
    );
    check_repeatable(
        "select * from (select now() as at from scores)",
        expect!["at 1:23: `now()` gives another value at each run, so its result cannot be kept"],
    );
    check_repeatable(
        "select prompt_id from scores where score > (select max(random()) from scores)",
        expect!["at 1:56: `random()` gives another value at each run, so its result cannot be kept"],
    );
}

fn parquet(folder: &tempfile::TempDir, name: &str, batch: &RecordBatch) -> PathBuf {
    let path = folder.path().join(name);
    let mut writer =
        ArrowWriter::try_new(File::create(&path).expect("a new file"), batch.schema(), None).expect("a writer");
    writer.write(batch).expect("rows");
    writer.close().expect("a footer");
    path
}

#[test]
fn parquet_files_need_no_extension_and_may_have_odd_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = parquet(&folder, "a [1] *%2F é", &scores());
    let table = NamedTable { name: "scores".to_owned(), data: TableData::Parquet(vec![path]) };
    let session = Session::new(vec![table]).expect("a session");
    let batches =
        session.query("select prompt_id, cast(score as varchar) as s from scores where score > 0.3").expect("rows");
    assert_eq!(batches[0].schema().field(0).data_type(), &DataType::Utf8);
    expect![[r#"
        {"prompt_id":"a","s":"0.5"}
        {"prompt_id":"b","s":"2.0"}
    "#]]
    .assert_eq(&render(&batches, Format::Jsonl).expect("text"));
}

#[test]
fn a_file_that_is_not_parquet_is_named_only_when_it_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("broken");
    std::fs::write(&path, "not a table").expect("a new file");
    let broken = NamedTable { name: "broken".to_owned(), data: TableData::Parquet(vec![path.clone()]) };
    let session = Session::new(vec![broken, in_memory("scores", scores())]).expect("a session");
    assert_eq!(session.query("select * from scores").expect("rows")[0].num_rows(), 5);
    let error = session.query("select * from broken").expect_err("no table");
    expect![["read FILE as Parquet"]].assert_eq(&error.to_string().replace(&path.display().to_string(), "FILE"));
}

#[test]
fn every_format_renders_nulls_lists_and_long_text() {
    let query = "select prompt_id, make_array(score, null) as list, repeat('line\n', 2) as long, repeat('x', 80) as longer, nullif(prompt_id, 'a') as maybe
                 from scores where sample_index = 0 and prompt_id < 'c'";
    let batches = session().query(query).expect("rows");
    let rendered: String = [Format::Table, Format::Csv, Format::Json, Format::Jsonl]
        .into_iter()
        .map(|format| render(&batches, format).expect("text") + "\n")
        .collect();
    expect![[r#"
        +-----------+----------+--------------+---------------------------------------------------------------------------+-------+
        | prompt_id | list     | long         | longer                                                                    | maybe |
        +-----------+----------+--------------+---------------------------------------------------------------------------+-------+
        | a         | [0.5, ]  | line\nline\n | xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx… |       |
        | b         | [-1.0, ] | line\nline\n | xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx… | b     |
        +-----------+----------+--------------+---------------------------------------------------------------------------+-------+

        prompt_id,list,long,longer,maybe
        a,"[0.5, ]","line
        line
        ",xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx,
        b,"[-1.0, ]","line
        line
        ",xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx,b

        [{"prompt_id":"a","list":[0.5,null],"long":"line\nline\n","longer":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx","maybe":null},{"prompt_id":"b","list":[-1.0,null],"long":"line\nline\n","longer":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx","maybe":"b"}]

        {"prompt_id":"a","list":[0.5,null],"long":"line\nline\n","longer":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx","maybe":null}
        {"prompt_id":"b","list":[-1.0,null],"long":"line\nline\n","longer":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx","maybe":"b"}

    "#]].assert_eq(&rendered);
    let none = session().query("select 1 as one where false").expect("no rows");
    assert_eq!(render(&none, Format::Json).expect("text"), "[]\n");
    assert_eq!(render(&none, Format::Csv).expect("text"), "one\n");
}

/// A bound against accidents of the order of seconds, such as inferring every table when a session opens.
#[test]
fn a_session_over_many_files_opens_only_those_a_query_reads() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = parquet(&folder, "scores.parquet", &scores());
    let tables = (0..2000).map(|i| NamedTable {
        name: format!("t{i}"),
        data: TableData::Parquet(vec![if i == 7 { path.clone() } else { folder.path().join("absent") }]),
    });
    let start = Instant::now();
    let session = Session::new(tables.collect()).expect("a session");
    let opened = start.elapsed();
    session.query("select count(*) from t7").expect("rows");
    println!("opened in {opened:?}, first answer after {:?}", start.elapsed());
    let again = Instant::now();
    session.query("select prompt_id, max(score) from t7 group by 1 order by 1").expect("rows");
    println!("second answer took {:?}", again.elapsed());
}

#[test]
fn a_union_has_the_values_of_its_parts_in_front_and_columns_by_name() {
    let part = |table: &str, lr: f64, seed: i64| UnionPart {
        table: table.to_owned(),
        values: vec![
            ("lr".to_owned(), Constant::Float(Some(lr))),
            ("score".to_owned(), Constant::Int(Some(seed))),
            ("start".to_owned(), Constant::Text(None)),
        ],
    };
    let parts = vec![part("tuned[lr=0.001,score=1]", 0.001, 1), part("tuned[lr=1,score=2].steps", 1.0, 2)];
    let missing = vec![part("tuned[lr=0.001,score=1]", 0.001, 1), part("nothing", 1.0, 2)];
    let tables = vec![
        in_memory("tuned[lr=0.001,score=1]", scores()),
        in_memory("tuned[lr=1,score=2].steps", dropped()),
        NamedTable { name: "tuned".to_owned(), data: TableData::Union(parts) },
        NamedTable { name: "missing".to_owned(), data: TableData::Union(missing) },
    ];
    let session = Session::new(tables).expect("a session");
    let check = |query: &str, expected: Expect| {
        let answer = session.query(query).and_then(|batches| render(&batches, Format::Csv));
        expected.assert_eq(&answer.unwrap_or_else(|error: SqlError| said(&error)));
    };
    check(
        "select * from tuned order by prompt_id, sample_index, lr",
        expect![[r#"
        lr,matrix_score,start,prompt_id,sample_index,score,rule
        0.001,1,,a,0,0.5,
        0.001,1,,a,1,0.25,
        0.001,1,,b,0,-1.0,
        0.001,1,,b,1,2.0,
        0.001,1,,c,0,0.0,
        1.0,2,,c,,,single_candidate
    "#]],
    );
    check(
        "select lr, count(*) as n, max(score) as best from tuned group by lr order by lr",
        expect![[r#"
        lr,n,best
        0.001,5,2.0
        1.0,1,
    "#]],
    );
    check(
        "select count(*) as n from \"tuned[lr=0.001,score=1]\"",
        expect![[r#"
        n
        5
    "#]],
    );
    check(
        "select rule from \"tuned[lr=1,score=2]\".steps",
        expect![[r#"
        rule
        single_candidate
    "#]],
    );
    check(
        "select * from missing",
        expect![
            "there is no table `nothing`; there is `missing`, `tuned`, `tuned[lr=0.001,score=1]`, `tuned[lr=1,score=2].steps`"
        ],
    );
}

//! The user's files: which of them a pattern means, what their columns are, and their rows in order.

use std::error::Error;
use std::fs;
use std::path::Path;

use arrow::array::RecordBatch;
use expect_test::{Expect, expect};
use sluice_sql::{DataFile, DataFormat, Format, Session, SqlError, matching, render};

fn project(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    folder
}

fn said(error: &dyn Error, folder: &Path) -> String {
    let text = error.to_string().replace(&folder.display().to_string(), "PROJECT");
    match error.source() {
        Some(source) => format!("{text}\n  because: {}", said(source, folder)),
        None => text,
    }
}

/// Lists the files that match, or says why none does.
fn check_matching(patterns: &[&str], expected: Expect) {
    let folder = project(&[
        ("data/b.jsonl", ""),
        ("data/a.jsonl", ""),
        ("data/a.csv", ""),
        ("data/deep/er/c.jsonl", ""),
        ("data/.hidden.jsonl", ""),
        ("top.parquet", ""),
    ]);
    let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
    let answer = match matching(folder.path(), &patterns) {
        Ok(files) => files
            .iter()
            .map(|file| format!("{}\n", file.strip_prefix(folder.path()).unwrap_or(file).display()))
            .collect(),
        Err(error) => said(&error, folder.path()),
    };
    expected.assert_eq(&answer);
}

#[test]
fn patterns_give_sorted_files_each_once() {
    check_matching(
        &["data/*.jsonl", "data/b.jsonl"],
        expect![[r#"
        data/a.jsonl
        data/b.jsonl
    "#]],
    );
    check_matching(
        &["**/*.jsonl"],
        expect![[r#"
        data/a.jsonl
        data/b.jsonl
        data/deep/er/c.jsonl
    "#]],
    );
    check_matching(
        &["*/?.*", "./top.parquet"],
        expect![[r#"
            data/a.csv
            data/a.jsonl
            data/b.jsonl
            top.parquet
        "#]],
    );
}

#[test]
fn a_pattern_without_a_file_says_what_is_there() {
    check_matching(
        &["data/*.jsonl", "data/promts.jsonl"],
        expect![
            "no file matches `data/promts.jsonl` in PROJECT; beside it there is `data/a.csv`, `data/a.jsonl`, `data/b.jsonl`, `data/deep`"
        ],
    );
    check_matching(
        &["dta/*.jsonl"],
        expect!["no file matches `dta/*.jsonl` in PROJECT; beside it there is `data`, `top.parquet`"],
    );
    check_matching(
        &["data/deep"],
        expect!["PROJECT/data/deep is a folder; name the files in it, for example `data/deep/*.parquet`"],
    );
}

/// Reads columns of a file and whether the condition holds, as CSV.
fn check_scan(name: &str, text: &str, as_text: &[&str], columns: &[&str], condition: Option<&str>, expected: Expect) {
    let folder = project(&[(name, text)]);
    let path = folder.path().join(name);
    let scan = || -> Result<Vec<RecordBatch>, SqlError> {
        let session = Session::new(Vec::new())?;
        let file = DataFile::open(&session, &path, DataFormat::of_extension(&path)?, as_text)?;
        let condition = condition.map(|text| file.condition(text)).transpose()?;
        file.scan(columns, condition)?.collect()
    };
    let answer = scan().and_then(|batches| render(&batches, Format::Csv));
    expected.assert_eq(&answer.unwrap_or_else(|error| said(&error, folder.path())));
}

const CSV: &str = "id,keep,text\n007,1,\"two\nlines, quoted \"\"so\"\"\"\n8,2,\n";

#[test]
fn csv_keeps_text_as_text_and_lines_within_quotes() {
    check_scan(
        "x.csv",
        CSV,
        &["id"],
        &["id", "text", "keep"],
        None,
        expect![[r#"
            keep,column0,column1,column2
            true,007,"two
            lines, quoted ""so""",1
            true,8,,2
        "#]],
    );
    check_scan(
        "x.csv",
        CSV,
        &[],
        &["id"],
        Some("keep > 1"),
        expect![[r#"
        keep,column0
        false,7
        true,8
    "#]],
    );
}

const JSONL: &str = "{\"q\": \"one\", \"n\": 1}\n{\"q\": \"two\"}\n{\"q\": \"three\", \"n\": 3}\n";

#[test]
fn a_condition_that_is_null_does_not_hold() {
    check_scan(
        "x.jsonl",
        JSONL,
        &[],
        &["q"],
        Some("n >= 1"),
        expect![[r#"
        keep,column0
        true,one
        false,two
        true,three
    "#]],
    );
}

#[test]
fn a_condition_says_where_it_is_wrong() {
    check_scan("x.jsonl", JSONL, &[], &["q"], Some("n + 1"), expect!["the condition is Int64, expected Boolean"]);
    check_scan(
        "x.jsonl",
        JSONL,
        &[],
        &["q"],
        Some("q = 'one' and m = 2"),
        expect!["at 1:15: there is no column `m`; there is `q`, `n`"],
    );
    check_scan("x.jsonl", JSONL, &[], &["q"], Some("q ="), expect!["at 1:4: expected: an expression, found: EOF"]);
    check_scan(
        "x.jsonl",
        JSONL,
        &[],
        &["q"],
        Some("true) or (n > 1"),
        expect!["at 1:5: expected: end of expression, found: )"],
    );
}

#[test]
fn files_that_are_not_what_they_seem_are_named() {
    check_scan(
        "x.jsonl",
        "{\"q\": \"one\"}\n{\"q\": \n",
        &[],
        &["q"],
        None,
        expect!["PROJECT/x.jsonl:2: the line is not JSON from character 5 on: EOF while parsing a value"],
    );
    check_scan(
        "x.parquet",
        "PAR",
        &[],
        &["q"],
        None,
        expect![[r#"
            read PROJECT/x.parquet as Parquet
              because: parquet files are at least 8 bytes long, but file length is 3"#]],
    );
    check_scan(
        "x.csv",
        "a,b\n1\n",
        &[],
        &["a"],
        None,
        expect![[r#"
            read PROJECT/x.csv as CSV
              because: encountered unequal lengths between records on CSV file. Expected 2 records, found 1 records at line 2"#]],
    );
    check_scan(
        "x.txt",
        "",
        &[],
        &["a"],
        None,
        expect!["the extension of PROJECT/x.txt is none of parquet, jsonl, ndjson and csv"],
    );
}

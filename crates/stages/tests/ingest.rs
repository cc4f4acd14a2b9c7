//! From files to prompts: what is read, what is left out, what is split off, and what is said when it cannot be.

use std::error::Error;
use std::fs;
use std::path::Path;

use expect_test::{Expect, expect};
use sluice_spec::{Kind, Options, parse};
use sluice_stages::ingest::{Ingested, ingest};
use sluice_table::{Prompts, Split};

/// The parameters of an `ingest` stage, given as YAML.
fn params(body: &str) -> sluice_spec::stage::Ingest {
    let text = format!("version: 1\nstages:\n  prompts: {{ ingest: {{ {body} }} }}\n");
    let pipeline = parse("test.yaml", &text, &Options::default()).unwrap_or_else(|faults| panic!("{faults:?}"));
    match &pipeline.stages[0].kind {
        Kind::Ingest(params) => params.clone(),
        other => panic!("{other:?}"),
    }
}

fn said(error: &dyn Error, folder: &Path) -> String {
    let text = error.to_string().replace(&folder.display().to_string(), "PROJECT");
    match error.source() {
        Some(source) => format!("{text}\n  because: {}", said(source, folder)),
        None => text,
    }
}

/// Ingests files and prints the rows and the counts that are not 0, or the error.
fn check(body: &str, files: &[(&str, &str)], expected: Expect) {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    let printed = match ingest(&params(body), folder.path(), &|_| Ok(())) {
        Ok(ingested) => shown(&ingested),
        Err(error) => said(&error, folder.path()),
    };
    expected.assert_eq(&printed);
}

fn shown(ingested: &Ingested) -> String {
    let mut lines = Vec::new();
    for batch in &ingested.batches {
        for row in Prompts::view(batch).expect("a prompts table").rows() {
            let extra = [("reference", row.reference), ("group", row.group), ("response", row.response)];
            let extra: String =
                extra.iter().filter_map(|(name, value)| value.map(|value| format!(" {name}={value:?}"))).collect();
            let label = row.label.map(|label| format!(" label={label}")).unwrap_or_default();
            lines.push(format!("{:?} {} {}:{}{extra}{label}", row.prompt, row.split, row.source, row.source_row));
        }
    }
    let counts = ingested.counts.metrics();
    lines.extend(counts.iter().filter(|(_, n)| *n > 0.0).map(|(name, n)| format!("{name}: {n}")));
    lines.join("\n")
}

const NO_SPLIT: &str = "split: { heldout: 0 }";

#[test]
fn the_formats_are_told_by_extension_and_files_are_sorted() {
    check(
        &format!("from: 'data/*', map: {{ prompt: q, reference: a }}, {NO_SPLIT}"),
        &[
            ("data/b.jsonl", "{\"q\": \"one\", \"a\": 1}\n{\"q\": \"two\", \"a\": 2}\n"),
            ("data/a.csv", "a,q\n007,\"three, and\nmore\"\n,four\n"),
        ],
        expect![[r#"
            "three, and\nmore" train a.csv:0 reference="007"
            "four" train a.csv:1
            "one" train b.jsonl:0 reference="1"
            "two" train b.jsonl:1 reference="2"
            rows_read: 4
            train: 4"#]],
    );
}

#[test]
fn every_column_of_the_map_is_read() {
    check(
        "from: x.jsonl, map: { prompt: q, reference: r, group: g, response: a, label: l }, split: { column: s }",
        &[(
            "x.jsonl",
            "{\"q\": \"one\", \"r\": true, \"g\": \"sums\", \"a\": \"two\", \"l\": 1, \"s\": \"train\"}\n\
             {\"q\": \"two\", \"r\": false, \"g\": \"\", \"a\": null, \"s\": \"heldout\"}\n",
        )],
        expect![[r#"
            "one" train x.jsonl:0 reference="true" group="sums" response="two" label=1
            "two" heldout x.jsonl:1 reference="false"
            rows_read: 2
            train: 1
            heldout: 1"#]],
    );
}

#[test]
fn rows_that_are_left_out_are_counted_and_numbers_of_rows_stay() {
    check(
        &format!("from: x.jsonl, where: n > 0, {NO_SPLIT}"),
        &[(
            "x.jsonl",
            "{\"prompt\": \"a\", \"n\": 0}\n{\"prompt\": \"b\", \"n\": 1}\n{\"prompt\": \"b\", \"n\": 2}\n\
             {\"prompt\": \"  \", \"n\": 3}\n{\"n\": 4}\n{\"prompt\": \"c\"}\n{\"prompt\": \"d\", \"n\": 5}\n",
        )],
        expect![[r#"
            "b" train x.jsonl:1
            "d" train x.jsonl:6
            rows_read: 7
            dropped_where: 2
            dropped_empty: 2
            dropped_duplicate: 1
            train: 2"#]],
    );
}

#[test]
fn duplicates_stay_when_asked_and_the_limit_counts_rows_that_are_kept() {
    let file = [("x.csv", "prompt\na\na\nb\nc\n")];
    check(&format!("from: x.csv, dedup: false, limit: 3, {NO_SPLIT}"), &file, expect![[r#"
        "a" train x.csv:0
        "a" train x.csv:1
        "b" train x.csv:2
        rows_read: 3
        train: 3"#]]);
    check(&format!("from: x.csv, limit: 2, {NO_SPLIT}"), &file, expect![[r#"
        "a" train x.csv:0
        "b" train x.csv:2
        rows_read: 3
        dropped_duplicate: 1
        train: 2"#]]);
}

#[test]
fn a_prompt_of_the_heldout_files_is_not_trained_on() {
    check(
        &format!("from: train.csv, heldout_from: test.csv, {NO_SPLIT}"),
        &[("train.csv", "prompt\na\nb\nc\n"), ("test.csv", "prompt\nb\nd\n")],
        expect![[r#"
            "a" train train.csv:0
            "c" train train.csv:2
            "b" heldout test.csv:0
            "d" heldout test.csv:1
            rows_read: 5
            dropped_contaminated: 1
            train: 2
            heldout: 2"#]],
    );
}

#[test]
fn the_split_depends_on_text_and_seed_alone() {
    let text: String = (0..20_000).map(|i| format!("question {i}\n")).collect();
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("x.csv"), format!("prompt\n{text}")).expect("a file");
    let heldout = |body: &str| -> Vec<String> {
        let ingested = ingest(&params(body), folder.path(), &|_| Ok(())).expect("prompts");
        let views = ingested.batches.iter().map(|batch| Prompts::view(batch).expect("a prompts table"));
        let of_view = |view: Prompts| {
            view.rows().filter(|row| row.split == Split::Heldout).map(|row| row.prompt.to_owned()).collect::<Vec<_>>()
        };
        views.flat_map(of_view).collect()
    };
    let all = heldout("from: x.csv, split: { heldout: 0.1 }");
    // 2,000 are expected, with a standard deviation of 42.
    assert!((1_830..2_170).contains(&all.len()), "{} held out", all.len());
    let first = heldout("from: x.csv, split: { heldout: 0.1 }, limit: 10000");
    assert_eq!(first, all[..first.len()]);
    let other = heldout("from: x.csv, split: { heldout: 0.1, seed: 1 }");
    let common = other.iter().filter(|prompt| all.contains(prompt)).count();
    assert!(common < 300, "{common} held out under both seeds");
}

#[test]
fn files_that_do_not_fit_say_what_would() {
    let file = [("data/x.csv", "question,answr,n\na,b,1\n")];
    check("from: data/y.csv", &file, expect!["no file matches `data/y.csv` in PROJECT; beside it there is `data/x.csv`"]);
    check("from: data/x.csv", &file, expect!["data/x.csv has no column `prompt` to read `map.prompt` from; it has `question`, `answr`, `n`"]);
    check("from: data/x.csv, map: { prompt: question, reference: answer }", &file, expect!["data/x.csv has no column `answer` to read `map.reference` from; it has `question`, `answr`, `n`; did you mean `answr`?"]);
    check("from: data/x.csv, map: { prompt: question, label: answr }", &file, expect!["column `answr` of data/x.csv is Utf8, but `map.label` is read from numbers"]);
    check("from: data/x.csv, map: { prompt: question }, where: m > 1", &file, expect![[r#"
        apply the condition `m > 1` to data/x.csv
          because: at 1:1: there is no column `m`; there is `question`, `answr`, `n`"#]]);
    check("from: data/x.csv, map: { prompt: question }, where: n > 1", &file, expect!["no prompts left of 1 rows: 1 dropped_where"]);
    check("from: data/x.csv, map: { prompt: question }, split: { column: answr }", &file, expect!["row 0 of data/x.csv has the split `b`, expected `train` or `heldout`"]);
    check("from: data/x.csv, format: parquet", &file, expect![[r#"
        read PROJECT/data/x.csv as Parquet
          because: Parquet error: Invalid Parquet file. Corrupt footer"#]]);
}

#[test]
fn files_without_rows_and_prompts_that_are_no_text_are_refused() {
    check("from: x.jsonl", &[("x.jsonl", "")], expect!["x.jsonl has no rows"]);
    check("from: x.csv", &[("x.csv", "prompt\n")], expect!["no prompts left of 0 rows: "]);
    check("from: x.jsonl", &[("x.jsonl", "{\"prompt\": [{\"role\": \"user\"}]}\n")], expect![[r#"column `prompt` of x.jsonl is List(Struct("role": Utf8)), but `map.prompt` is read from text"#]]);
    check("from: x.jsonl", &[("x.jsonl", "{\"prompt\": 1}\n")], expect!["column `prompt` of x.jsonl is Int64, but `map.prompt` is read from text"]);
}

//! From files to prompts: what is read, what is left out, what is split off, and what is said when it cannot be.

use std::error::Error;
use std::fs;
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::util::display::array_value_to_string;
use expect_test::{Expect, expect};
use sluice_spec::{Kind, Options, parse};
use sluice_sql::Session;
use sluice_stages::StageError;
use sluice_stages::ingest::{Counts, PromptFiles};
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

/// All that a stage reads.
struct Ingested {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    counts: Counts,
}

fn ingest(body: &str, folder: &Path) -> Result<Ingested, StageError> {
    let (session, params) = (Session::new(Vec::new())?, params(body));
    let files = PromptFiles::open(&session, &params, folder)?;
    let mut batches = Vec::new();
    let counts = files.read(&mut |step| {
        batches.extend(step.prompts);
        Ok(())
    })?;
    Ok(Ingested { schema: files.schema().clone(), batches, counts })
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
    let printed = match ingest(body, folder.path()) {
        Ok(ingested) => shown(&ingested),
        Err(error) => said(&error, folder.path()),
    };
    expected.assert_eq(&printed);
}

fn shown(ingested: &Ingested) -> String {
    let mut lines = Vec::new();
    for batch in &ingested.batches {
        for (n_row, row) in Prompts::view(batch).expect("a prompts table").rows().enumerate() {
            let extra = [("reference", row.reference), ("group", row.group), ("response", row.response)];
            let extra: String =
                extra.iter().filter_map(|(name, value)| value.map(|value| format!(" {name}={value:?}"))).collect();
            let label = row.label.map(|label| format!(" label={label}")).unwrap_or_default();
            let kept = kept(batch, n_row);
            lines.push(format!("{:?} {} {}:{}{extra}{label}{kept}", row.prompt, row.split, row.source, row.source_row));
        }
    }
    let counts = ingested.counts.metrics();
    lines.extend(counts.iter().filter(|(_, n)| *n > 0.0).map(|(name, n)| format!("{name}: {n}")));
    lines.join("\n")
}

/// The cells behind those of a `prompts` table, each with its type.
fn kept(batch: &RecordBatch, row: usize) -> String {
    let own = Prompts::schema().fields().len();
    let columns = batch.schema_ref().fields().iter().zip(batch.columns()).skip(own);
    let cell = |column| array_value_to_string(column, row).expect("a value that can be shown");
    columns.map(|(field, column)| format!(" {}={:?}:{}", field.name(), cell(column), field.data_type())).collect()
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
fn duplicates_stay_when_asked_and_a_limit_counts_prompts() {
    let file = [("x.csv", "prompt\na\na\nb\nc\n")];
    // The ids of b, a and c begin with 10, 17 and ea.
    check(
        &format!("from: x.csv, dedup: false, limit: 2, {NO_SPLIT}"),
        &file,
        expect![[r#"
        "a" train x.csv:0
        "a" train x.csv:1
        "b" train x.csv:2
        rows_read: 4
        dropped_limit: 1
        train: 3"#]],
    );
    check(
        &format!("from: x.csv, limit: 1, {NO_SPLIT}"),
        &file,
        expect![[r#"
        "b" train x.csv:2
        rows_read: 4
        dropped_duplicate: 1
        dropped_limit: 2
        train: 1"#]],
    );
    check(
        &format!("from: x.csv, limit: 3, {NO_SPLIT}"),
        &file,
        expect![[r#"
        "a" train x.csv:0
        "b" train x.csv:2
        "c" train x.csv:3
        rows_read: 4
        dropped_duplicate: 1
        train: 3"#]],
    );
}

/// The prompts of each split, in the order of the table.
fn prompts_of(body: &str, folder: &Path, split: Split) -> Vec<String> {
    let ingested = ingest(body, folder).expect("prompts");
    let views = ingested.batches.iter().map(|batch| Prompts::view(batch).expect("a prompts table"));
    let of_view = |view: Prompts| {
        view.rows().filter(|row| row.split == split).map(|row| row.prompt.to_owned()).collect::<Vec<_>>()
    };
    views.flat_map(of_view).collect()
}

#[test]
fn a_limit_takes_so_many_of_each_split_and_a_smaller_one_takes_some_of_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let rows: String = (0..3_000).map(|i| format!("question {i}\n")).collect();
    fs::write(folder.path().join("x.csv"), format!("prompt\n{rows}")).expect("a file");
    fs::write(folder.path().join("h.csv"), "prompt\nquestion 1\nheld out\n").expect("a file");
    let of = |limit: &str, split| {
        let body = format!("from: x.csv, heldout_from: h.csv, split: {{ heldout: 0.1 }}, limit: {limit}");
        prompts_of(&body, folder.path(), split)
    };
    for split in [Split::Train, Split::Heldout] {
        let (all, larger, smaller) = (of("null", split), of("40", split), of("20", split));
        assert_eq!((larger.len(), smaller.len()), (40, 20));
        assert!(all.len() > 100, "{} prompts in all", all.len());
        // What is taken keeps its order.
        let kept: Vec<&String> = all.iter().filter(|prompt| larger.contains(prompt)).collect();
        assert_eq!(kept, larger.iter().collect::<Vec<_>>());
        assert!(smaller.iter().all(|prompt| larger.contains(prompt)));
        assert_ne!(smaller, all[..20], "the choice does not follow the file");
    }
    assert!(!of("3000", Split::Train).contains(&"question 1".to_owned()));
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
        let ingested = ingest(body, folder.path()).expect("prompts");
        let views = ingested.batches.iter().map(|batch| Prompts::view(batch).expect("a prompts table"));
        let of_view = |view: Prompts| {
            view.rows().filter(|row| row.split == Split::Heldout).map(|row| row.prompt.to_owned()).collect::<Vec<_>>()
        };
        views.flat_map(of_view).collect()
    };
    let all = heldout("from: x.csv, split: { heldout: 0.1 }");
    // 2,000 are expected, with a standard deviation of 42.
    assert!((1_830..2_170).contains(&all.len()), "{} held out", all.len());
    let other = heldout("from: x.csv, split: { heldout: 0.1, seed: 1 }");
    let common = other.iter().filter(|prompt| all.contains(prompt)).count();
    assert!(common < 300, "{common} held out under both seeds");
}

#[test]
fn kept_columns_stand_behind_the_others_in_their_own_types() {
    check(
        &format!("from: 'x/*.jsonl', heldout_from: h.csv, keep: [n, tags, keep], where: n < 9, {NO_SPLIT}"),
        &[
            (
                "x/a.jsonl",
                "{\"prompt\": \"a\", \"n\": 1, \"tags\": \"t\", \"keep\": 0.5}\n\
                {\"prompt\": \"b\", \"n\": 9, \"tags\": \"u\", \"keep\": 1.5}\n\
                {\"prompt\": \"c\", \"tags\": \"v\", \"keep\": 2.5, \"n\": 3}\n",
            ),
            (
                "x/b.jsonl",
                "{\"prompt\": \"a\", \"n\": 2, \"tags\": \"w\", \"keep\": 3.5}\n\
                {\"prompt\": \"d\", \"n\": 4, \"tags\": null, \"keep\": 4.5}\n\
                {\"prompt\": \"h\", \"n\": 4, \"tags\": \"x\", \"keep\": 5.5}\n",
            ),
            ("h.csv", "n,keep,tags,prompt\n7,6.5,y,h\n"),
        ],
        expect![[r#"
            "a" train a.jsonl:0 n="1":Int64 tags="t":Utf8 keep="0.5":Float64
            "c" train a.jsonl:2 n="3":Int64 tags="v":Utf8 keep="2.5":Float64
            "d" train b.jsonl:1 n="4":Int64 tags="":Utf8 keep="4.5":Float64
            "h" heldout h.csv:0 n="7":Int64 tags="y":Utf8 keep="6.5":Float64
            rows_read: 7
            dropped_where: 1
            dropped_duplicate: 1
            dropped_contaminated: 1
            train: 3
            heldout: 1"#]],
    );
}

#[test]
fn kept_columns_of_many_batches_keep_to_their_rows() {
    let rows: String =
        (0..40_000).map(|i| format!("{{\"prompt\": \"question {i}\", \"n\": {i}, \"l\": [{i}]}}\n")).collect();
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("x.jsonl"), rows).expect("a file");
    let body = "from: x.jsonl, keep: [l, n], where: n % 3 < 2, split: { heldout: 0 }";
    let ingested = ingest(body, folder.path()).expect("prompts");
    assert!(ingested.batches.len() > 1);
    let mut expected = (0..40_000_u32).filter(|i| i % 3 < 2);
    for batch in &ingested.batches {
        assert_eq!(batch.schema(), ingested.schema);
        for (n_row, row) in Prompts::view(batch).expect("a prompts table").rows().enumerate() {
            let i = expected.next().expect("a row");
            assert_eq!(row.prompt, format!("question {i}"));
            assert_eq!(kept(batch, n_row), format!(" l=\"[{i}]\":List(Int64) n=\"{i}\":Int64"));
        }
    }
    assert_eq!(expected.next(), None);
    let ingested = ingest(&format!("{body}, limit: 100"), folder.path()).expect("prompts");
    for batch in &ingested.batches {
        for (n_row, row) in Prompts::view(batch).expect("a prompts table").rows().enumerate() {
            let i = row.prompt.strip_prefix("question ").expect("a prompt of the file");
            assert_eq!(kept(batch, n_row), format!(" l=\"[{i}]\":List(Int64) n=\"{i}\":Int64"));
        }
    }
    assert_eq!(ingested.batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 100);
}

#[test]
fn rows_are_handed_on_before_the_file_is_read_to_its_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let of = |n_rows: usize, text: &str, limit: &str| -> Vec<(u64, usize)> {
        let rows: String = (0..n_rows).map(|i| format!("{i} {text}\n")).collect();
        fs::write(folder.path().join("x.csv"), format!("prompt\n{rows}")).expect("a file");
        let (session, params) = (Session::new(Vec::new()).expect("a session"), params(&format!("from: x.csv{limit}")));
        let files = PromptFiles::open(&session, &params, folder.path()).expect("files");
        let mut steps = Vec::new();
        let counts = files.read(&mut |step| {
            steps.push((step.n_read, step.prompts.map_or(0, |prompts| prompts.num_rows())));
            Ok(())
        });
        assert_eq!(counts.expect("prompts").n_read, n_rows as u64);
        steps
    };
    let given = |steps: &[(u64, usize)]| -> Vec<(u64, usize)> {
        steps.iter().copied().filter(|(_, n_prompts)| *n_prompts > 0).collect()
    };
    assert_eq!(given(&of(20_000, "", "")), [(8_192, 8_192), (16_384, 8_192), (20_000, 3_616)]);
    // Long rows come in fewer: 1,024 of 10,000 bytes are more than a batch needs.
    assert_eq!(given(&of(3_000, &"word ".repeat(2_000), "")), [(1_024, 1_024), (2_048, 1_024), (3_000, 952)]);
    // Under a limit the file is read twice, since the last row may have the first id.
    let steps = of(20_000, "", ", limit: 10, split: { heldout: 0 }");
    assert_eq!(given(&steps), [(20_000, 10)]);
    assert_eq!(steps.iter().filter(|(n_read, _)| *n_read == 1_024).count(), 2);
}

#[test]
fn kept_columns_must_be_there_in_one_type() {
    check(
        "from: x.csv, keep: [grde]",
        &[("x.csv", "prompt,grade\na,1\n")],
        expect!["x.csv has no column `grde` to read `keep` from; it has `prompt`, `grade`; did you mean `grade`?"],
    );
    check(
        "from: [x.csv, y.csv], keep: [grade]",
        &[("x.csv", "prompt,grade\na,1\n"), ("y.csv", "prompt,grade\nb,0.5\n")],
        expect![
            "`keep` names column `grade`, which is Int64 in x.csv and Float64 in y.csv; it must have one type in all files"
        ],
    );
}

#[test]
fn files_that_do_not_fit_say_what_would() {
    let file = [("data/x.csv", "question,answr,n\na,b,1\n")];
    check(
        "from: data/y.csv",
        &file,
        expect!["no file matches `data/y.csv` in PROJECT; beside it there is `data/x.csv`"],
    );
    check(
        "from: data/x.csv",
        &file,
        expect!["data/x.csv has no column `prompt` to read `map.prompt` from; it has `question`, `answr`, `n`"],
    );
    check(
        "from: data/x.csv, map: { prompt: question, reference: answer }",
        &file,
        expect![
            "data/x.csv has no column `answer` to read `map.reference` from; it has `question`, `answr`, `n`; did you mean `answr`?"
        ],
    );
    check(
        "from: data/x.csv, map: { prompt: question, label: answr }",
        &file,
        expect!["column `answr` of data/x.csv is Utf8, but `map.label` is read from numbers"],
    );
    check(
        "from: data/x.csv, map: { prompt: question }, where: m > 1",
        &file,
        expect![[r#"
        apply the condition `m > 1` to data/x.csv
          because: at 1:1: there is no column `m`; there is `question`, `answr`, `n`"#]],
    );
    check(
        "from: data/x.csv, map: { prompt: question }, where: n > 1",
        &file,
        expect!["none of 1 rows gives a prompt: 1 do not meet `where`"],
    );
    check(
        "from: data/x.csv, map: { prompt: question }, split: { column: answr }",
        &file,
        expect!["row 0 of data/x.csv has the split `b`, expected `train` or `heldout`"],
    );
    check(
        "from: data/x.csv, format: parquet",
        &file,
        expect![[r#"
            read PROJECT/data/x.csv as Parquet
              because: invalid Parquet file. Corrupt footer"#]],
    );
}

#[test]
fn files_without_rows_and_prompts_that_are_no_text_are_refused() {
    check("from: x.jsonl", &[("x.jsonl", "")], expect!["x.jsonl has no rows"]);
    check("from: x.csv", &[("x.csv", "prompt\n")], expect!["the files have no rows"]);
    check(
        "from: x.jsonl",
        &[("x.jsonl", "{\"prompt\": [{\"role\": \"user\"}]}\n")],
        expect![[r#"column `prompt` of x.jsonl is List(Struct("role": Utf8)), but `map.prompt` is read from text"#]],
    );
    check(
        "from: x.jsonl",
        &[("x.jsonl", "{\"prompt\": 1}\n")],
        expect!["column `prompt` of x.jsonl is Int64, but `map.prompt` is read from text"],
    );
}

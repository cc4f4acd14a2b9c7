//! What a user may do without anything running again: move the project, keep the models elsewhere, write a file of rows
//! anew, choose another store or another number of threads. And what a plan says of the price of what does run.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use expect_test::expect;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::{WriterProperties, WriterVersion};
use serde_json::Value;
use sluice_tests::six_stages::{PROMPTS, six_stages, six_stages_with_models};
use sluice_tests::{Project, binary};

const FILE: &str = "p.yaml";

/// Of each stage, its state, its key and the digest of its result, by the last line of `run --json`.
fn results(said: &str) -> Vec<(String, String, String)> {
    let report: Value =
        serde_json::from_str(said.lines().last().unwrap_or_default()).expect("the last line is an object");
    let text = |stage: &Value, name: &str| stage[name].as_str().unwrap_or("?").to_owned();
    let stages = report["stages"].as_array().expect("`stages` is a list");
    stages.iter().map(|stage| (text(stage, "state"), text(stage, "key"), text(stage, "digest"))).collect()
}

fn run(project: &Project, more: &[&str]) -> Vec<(String, String, String)> {
    let arguments = ["run", FILE, "--json"].iter().chain(more);
    results(&project.sluice(arguments).ended(0).out)
}

fn states(results: &[(String, String, String)]) -> Vec<&str> {
    results.iter().map(|(state, ..)| state.as_str()).collect()
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").map(|entry| entry.expect("an entry")) {
        let to = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy_folder(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).expect("a file")),
        }
    }
}

#[test]
fn a_project_that_moves_keeps_its_results() {
    let project = six_stages_with_models(FILE);
    let first = run(&project, &[]);
    let elsewhere = Project::new();
    copy_folder(project.path(), &elsewhere.path().join("deep/down"));
    let moved =
        results(&elsewhere.sluice(["run", "deep/down/p.yaml", "--project", "deep/down", "--json"]).ended(0).out);
    assert_eq!(states(&moved), ["hit"; 6]);
    let same = |left: &[(String, String, String)], right: &[(String, String, String)]| {
        left.iter().zip(right).all(|(left, right)| (&left.1, &left.2) == (&right.1, &right.2))
    };
    assert!(same(&first, &moved));
    // Models in other folders, with the same files in them.
    copy_folder(&project.path().join("policy"), &project.path().join("models/first"));
    project.edit(FILE, "policy: policy\n", "policy: models/first\n");
    assert_eq!(states(&run(&project, &[])), ["hit"; 6]);
    // Another store computes the same, under the same keys, with one thread as with several.
    for threads in ["1", "3"] {
        let mut command = Command::new(binary());
        command.args(["run", FILE, "--json", "--store", &format!("store-{threads}")]).current_dir(project.path());
        let said = command.env("RAYON_NUM_THREADS", threads).output().expect("the binary starts").stdout;
        let other = results(&String::from_utf8(said).expect("text"));
        assert_eq!(states(&other), ["ran"; 6], "{threads} threads");
        assert!(same(&first, &other), "{threads} threads:\n{first:#?}\n{other:#?}");
    }
}

/// The user's file as Parquet, in one of two ways to write it.
fn write_parquet(project: &Project, properties: WriterProperties) {
    let rows: Vec<Value> = PROMPTS.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let column = |name: &str| Arc::new(rows.iter().map(|row| row[name].as_str()).collect::<StringArray>()) as ArrayRef;
    let batch = RecordBatch::try_from_iter([("prompt", column("prompt")), ("answer", column("answer"))]);
    let batch = batch.expect("two columns");
    let file = File::create(project.path().join("prompts.parquet")).expect("a file");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).expect("a writer");
    writer.write(&batch).expect("rows");
    writer.close().expect("a footer");
}

#[test]
fn a_file_of_rows_written_anew_is_read_again_and_nothing_more() {
    let project = six_stages(FILE);
    project.edit(FILE, "from: prompts.jsonl", "from: prompts.parquet");
    write_parquet(&project, WriterProperties::default());
    run(&project, &[]);
    let other = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_writer_version(WriterVersion::PARQUET_2_0)
        .set_dictionary_enabled(false)
        .set_max_row_group_row_count(Some(2))
        .build();
    write_parquet(&project, other);
    assert_eq!(states(&run(&project, &[])), ["ran", "hit", "hit", "hit", "hit", "hit"]);
}

/// Each stage of a plan: name, rows, what is known of its units, and whether the rest is predicted.
fn prices(project: &Project, more: &[&str]) -> String {
    let arguments = ["plan", FILE, "--json"].iter().chain(more);
    let said = project.sluice(arguments).ended(0).out;
    let lines = said.lines().map(|line| serde_json::from_str::<Value>(line).expect("an object a line"));
    let told = lines.map(|line| {
        if let Some(total) = line.get("total") {
            let n = |name: &str| total[name].as_u64().expect("a number");
            let (hit, partial, run) = (n("hit"), n("partial"), n("run"));
            return format!("{hit} hit, {partial} partial, {run} to run, {} unknown\n", n("unknown"));
        }
        let price = &line["price"];
        if price.is_null() {
            return format!("{} {}\n", line["name"].as_str().unwrap_or("?"), line["state"].as_str().unwrap_or("?"));
        }
        let about = if price["rows_exact"].as_bool() == Some(true) { "" } else { "~" };
        let predicted = ["tokens", "seconds", "bytes"].iter().filter(|name| price[**name].is_number());
        let predicted: Vec<&str> = predicted.copied().collect();
        format!(
            "{} {}: {about}{} rows, {} of {} {} known; {} by {}\n",
            line["name"].as_str().unwrap_or("?"),
            line["state"].as_str().unwrap_or("?"),
            price["rows"],
            price["units_known"],
            price["units"],
            price["unit"].as_str().unwrap_or("?"),
            predicted.join(", "),
            price["evidence"]["basis"].as_str().unwrap_or("nothing"),
        )
    });
    told.collect()
}

#[test]
fn a_plan_has_its_price() {
    let project = six_stages(FILE);
    expect![[r#"
        prompts run: ~null rows, 0 of 299 bytes known;  by nothing
        responses pending: ~null rows, 0 of null rows known;  by nothing
        scores pending: ~null rows, 0 of null rows known;  by nothing
        pairs pending: ~null rows, 0 of null rows known;  by nothing
        tuned pending: ~null rows, 0 of null examples known;  by nothing
        report pending: ~null rows, 0 of null answers known;  by nothing
        0 hit, 0 partial, 6 to run, 6 unknown
    "#]]
    .assert_eq(&prices(&project, &[]));
    // What can be counted is counted before anything has a price.
    project.sluice(["run", FILE, "prompts", "--quiet"]).ended(0);
    expect![[r#"
        prompts hit
        responses run: 18 rows, 0 of 18 rows known;  by nothing
        scores pending: 18 rows, 0 of 18 rows known;  by nothing
        pairs pending: ~null rows, 0 of 18 rows known;  by nothing
        tuned pending: ~null rows, 0 of null examples known;  by nothing
        report pending: 12 rows, 0 of 24 answers known;  by nothing
        1 hit, 0 partial, 5 to run, 5 unknown
    "#]]
    .assert_eq(&prices(&project, &[]));
    project.sluice(["run", FILE, "--quiet"]).ended(0);
    expect![[r#"
        prompts hit
        responses partial: 30 rows, 18 of 30 rows known; tokens, seconds, bytes by stage
        scores pending: 30 rows, 18 of 30 rows known; tokens, seconds, bytes by stage
        pairs pending: ~4 rows, 0 of 30 rows known; tokens, seconds, bytes by stage
        tuned pending: ~null rows, 0 of 4 examples known; tokens, seconds, bytes by stage
        report pending: 12 rows, 12 of 24 answers known; tokens, seconds, bytes by stage
        1 hit, 3 partial, 2 to run, 0 unknown
    "#]]
    .assert_eq(&prices(&project, &["--set", "stages.responses.sample.n=5"]));
    expect![[r#"
        prompts hit
        responses hit
        scores hit
        pairs hit
        tuned run: ~null rows, 0 of 8 examples known; tokens, seconds, bytes by stage
        report pending: 12 rows, 12 of 24 answers known; tokens, seconds, bytes by stage
        4 hit, 1 partial, 1 to run, 0 unknown
    "#]]
    .assert_eq(&prices(&project, &["--set", "stages.tuned.train.epochs=2"]));
    // As many rows again in the file.
    let more: String = PROMPTS.lines().map(|line| format!("{}\n", line.replace("a ", "another "))).collect();
    project.write("prompts.jsonl", &format!("{PROMPTS}{more}"));
    expect![[r#"
        prompts run: ~12 rows, 0 of 622 bytes known; tokens, seconds, bytes by stage
        responses pending: ~36 rows, 0 of 36 rows known; tokens, seconds, bytes by stage
        scores pending: ~36 rows, 0 of 36 rows known; tokens, seconds, bytes by stage
        pairs pending: ~8 rows, 0 of 36 rows known; tokens, seconds, bytes by stage
        tuned pending: ~null rows, 0 of 8 examples known; tokens, seconds, bytes by stage
        report pending: ~24 rows, 0 of 48 answers known; tokens, seconds, bytes by stage
        0 hit, 0 partial, 6 to run, 0 unknown
    "#]]
    .assert_eq(&prices(&project, &[]));
    // The total ends the table, with the run it is taken from.
    let plan = project.sluice(["plan", FILE]).ended(0).out;
    let told: Vec<&str> = plan.lines().rev().take(4).collect();
    let [memory, since, first, total] = told.as_slice() else { panic!("{plan}") };
    assert!(total.starts_with("6 stages: 1 to run, 5 pending; about "), "{plan}");
    assert!(first.starts_with("  prompts as in r1, "), "{plan}");
    assert!(since.starts_with("  responses, scores, pairs, tuned, report as in r2, "), "{plan}");
    assert!(memory.starts_with("  memory while training: tuned "), "{plan}");
}

//! `ingest` on data sets nobody here wrote. They are not part of the project: where they are absent, the test says so and
//! checks nothing.

use std::path::{Path, PathBuf};

use sluice_spec::{Kind, Options, parse};
use sluice_sql::Session;
use sluice_stages::ingest::{Counts, PromptFiles};
use sluice_table::Prompts;

/// Counts of the files `from` under the map, and the first prompt; `None` where the data set is absent.
fn read(set: &str, body: &str) -> Option<(Counts, String)> {
    let folder = data().join(set);
    if !folder.is_dir() {
        println!("skipped: {} is absent", folder.display());
        return None;
    }
    let text = format!("version: 1\nstages:\n  prompts: {{ ingest: {{ {body} }} }}\n");
    let pipeline = parse("test.yaml", &text, &Options::default()).unwrap_or_else(|faults| panic!("{faults:?}"));
    let Kind::Ingest(params) = &pipeline.stages[0].kind else { panic!("not an ingest stage") };
    let session = Session::new(Vec::new()).expect("a session");
    let mut batches = Vec::new();
    let read = PromptFiles::open(&session, params, &folder).and_then(|files| {
        files.read(&mut |step| {
            batches.extend(step.prompts);
            Ok(())
        })
    });
    let counts = read.unwrap_or_else(|error| panic!("{set}: {error}"));
    let first = Prompts::view(&batches[0]).expect("a prompts table").prompt(0).to_owned();
    Some((counts, first))
}

/// Where the data sets lie on machines that have them: beside the checkout.
fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data")
}

#[test]
fn grade_school_problems_give_one_prompt_each() {
    let body = "from: train.parquet, heldout_from: test.parquet, map: { prompt: question, reference: answer }, split: { heldout: 0 }";
    let Some((counts, first)) = read("gsm8k", body) else { return };
    assert_eq!(counts, Counts { n_read: 8792, n_train: 7473, n_heldout: 1319, ..Counts::default() });
    assert!(first.starts_with("Natalia sold clips"), "{first}");
}

#[test]
fn whole_numbers_may_be_references_and_conditions_may_use_them() {
    let body =
        "from: '*.parquet', map: { prompt: question, reference: final_answer_int }, where: final_answer_int < 10";
    let Some((counts, _)) = read("gsm8k", body) else { return };
    assert_eq!(counts.n_read, 8792);
    assert_eq!(counts.n_filtered + counts.n_train + counts.n_heldout, 8792);
    assert!(counts.n_filtered > 4000 && counts.n_heldout > 0);
}

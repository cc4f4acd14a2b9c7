//! Rows that earlier runs made: what is made again and what is not, and that a table is the same either way.

use std::fs;
use std::path::PathBuf;

use sluice_stages::{RowCount, StageError};
use sluice_store::Output;
use sluice_table::Split;

use crate::bench::{Bench, chain};
use crate::plant_responses;

type Prompt = (&'static str, Option<&'static str>, Option<&'static str>);

const PROMPTS: [Prompt; 4] = [
    ("Name the old baker.", Some("Tom"), None),
    ("What is 2 + 3?", Some("5"), None),
    ("Say one word.", None, None),
    ("Who has the tea?", None, None),
];

fn with_prompts(prompts: &[Prompt]) -> Bench {
    let mut bench = Bench::new();
    bench.plant_prompts(Split::Train, prompts);
    bench
}

/// Runs a stage; its first output, and how many rows were known. The plan before it said the same.
fn run(bench: &mut Bench, stage: &str, set: &[&str]) -> (Output, u64) {
    let count = bench.count(stage, set).expect("rows to count");
    let produced = bench.run(stage, set).unwrap_or_else(|error| panic!("{stage}: {}", chain(&error, bench)));
    assert_eq!(produced.n_rows_reused, count.n_known, "{stage} {set:?}");
    (produced.outputs[0].clone(), produced.n_rows_reused)
}

/// A run `before` and a run `after` in one store: how many rows the second one takes from the first. Its table is that of
/// a store which knows nothing.
#[track_caller]
fn check(before: (&[Prompt], &str), after: (&[Prompt], &str), reused: u64) {
    let mut bench = with_prompts(before.0);
    run(&mut bench, "responses", &[before.1]);
    bench.plant_prompts(Split::Train, after.0);
    let (output, found) = run(&mut bench, "responses", &[after.1]);
    let (fresh, none) = run(&mut with_prompts(after.0), "responses", &[after.1]);
    assert_eq!((found, none), (reused, 0));
    assert_eq!(output, fresh);
}

const AS_IT_IS: &str = "stages.responses.sample.n=3";

#[test]
fn only_new_samples_are_drawn() {
    let three = &PROMPTS[..3];
    check((three, AS_IT_IS), (three, "stages.responses.sample.n=5"), 9);
    check((three, AS_IT_IS), (three, "stages.responses.sample.n=2"), 6);
    check((three, AS_IT_IS), (three, "stages.responses.sample.max_batch=1"), 9);
}

#[test]
fn only_new_prompts_are_answered() {
    let changed = [PROMPTS[0], ("What is 2 + 4?", Some("6"), None), PROMPTS[2]];
    check((&PROMPTS[..3], AS_IT_IS), (&PROMPTS, AS_IT_IS), 9);
    check((&PROMPTS[..3], AS_IT_IS), (&changed, AS_IT_IS), 6);
    check((&PROMPTS, AS_IT_IS), (&PROMPTS, "stages.responses.sample.limit=2"), 6);
    // A reference is no part of what the policy reads.
    let other = [("Say one word.", Some("Train."), Some("words"))];
    check((&PROMPTS, AS_IT_IS), (&other, AS_IT_IS), 3);
}

#[test]
fn other_drawing_is_made_again() {
    for set in ["temperature=0.8", "top_k=5", "top_p=0.9", "min_p=0.1", "max_new_tokens=5", "bos=double", "seed=8"] {
        check((&PROMPTS[..2], AS_IT_IS), (&PROMPTS[..2], &format!("stages.responses.sample.{set}")), 0);
    }
    check((&PROMPTS[..2], AS_IT_IS), (&PROMPTS[..2], "stages.responses.sample.stop=[<eos>]"), 0);
}

#[test]
fn a_run_that_was_stopped_goes_on() {
    const LONG: [&str; 3] = [
        "stages.responses.sample.n=20",
        "stages.responses.sample.max_new_tokens=20",
        "stages.responses.sample.max_batch=1",
    ];
    let mut bench = with_prompts(&PROMPTS);
    let n_rows = 80;
    let mut known = 0;
    for stop in [5, 20, 50] {
        bench.stop_at = Some(stop);
        assert!(matches!(bench.run("responses", &LONG), Err(StageError::Cancelled)), "stopped at {stop}");
        let count = bench.count("responses", &LONG).expect("rows to count");
        assert_eq!(count.n_rows, n_rows);
        assert!((stop.max(known)..n_rows).contains(&count.n_known), "{} at {stop}", count.n_known);
        known = count.n_known;
    }
    bench.stop_at = None;
    let (output, reused) = run(&mut bench, "responses", &LONG);
    assert_eq!(reused, known);
    assert_eq!(output, run(&mut with_prompts(&PROMPTS), "responses", &LONG).0);
}

/// The only file of this ending in the row journal.
fn journal_file(bench: &Bench, ending: &str) -> PathBuf {
    let below = |folder: PathBuf| {
        let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
        entries.collect::<Vec<_>>()
    };
    let scopes = below(bench.folder.path().join(".sluice/rows"));
    let files: Vec<PathBuf> = scopes.into_iter().flat_map(below).collect();
    let mut files = files.into_iter().filter(|file| file.to_string_lossy().ends_with(ending));
    let file = files.next().expect("a file");
    assert_eq!(files.next(), None, "one scope with one segment");
    file
}

#[test]
fn a_damaged_row_is_made_again() {
    let mut bench = with_prompts(&PROMPTS[..3]);
    let (whole, _) = run(&mut bench, "responses", &[]);
    let file = journal_file(&bench, ".rows");
    let mut bytes = fs::read(&file).expect("rows");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(&file, bytes).expect("a damaged journal");
    // The plan counts keys and reads no row, so that it does not see the damage.
    assert_eq!(bench.count("responses", &[]).expect("rows to count"), RowCount { n_rows: 9, n_known: 9 });
    let produced = bench.run("responses", &[]).expect("responses");
    assert_eq!((produced.outputs[0].clone(), produced.n_rows_reused), (whole.clone(), 8));
    assert_eq!(run(&mut bench, "responses", &[]), (whole, 9));
}

#[test]
fn only_new_conversations_are_scored() {
    // One of them is said twice.
    const FEW: [(&str, &str); 3] = [("Who?", "Tom."), ("Who?", "The tea."), ("Who?", "Tom.")];
    const MORE: [(&str, &str); 5] =
        [("Who?", "Nobody."), ("Who?", "Tom."), ("What?", "Tom."), ("Who?", "The tea."), ("Who?", "Tom.")];
    const BF16: &str = "stages.scores.score.head_dtype=bf16";
    let owned =
        |rows: &[(&str, &str)]| rows.iter().map(|(one, two)| (one.to_string(), two.to_string())).collect::<Vec<_>>();
    let mut bench = Bench::new();
    plant_responses(&mut bench, &owned(&FEW));
    assert_eq!(run(&mut bench, "scores", &[]).1, 0);
    plant_responses(&mut bench, &owned(&MORE));
    let (output, reused) = run(&mut bench, "scores", &[]);
    assert_eq!(reused, 3);
    let (other_head, none) = run(&mut bench, "scores", &[BF16]);
    assert_eq!(none, 0);
    let mut fresh = Bench::new();
    plant_responses(&mut fresh, &owned(&MORE));
    assert_eq!(output, run(&mut fresh, "scores", &["stages.scores.score.max_batch_tokens=1"]).0);
    assert_eq!(other_head, run(&mut fresh, "scores", &[BF16]).0);
    // Nothing left to do needs no model, and gives the same.
    assert_eq!(run(&mut bench, "scores", &[]), (output, 5));
}

#[test]
fn an_evaluation_asks_what_is_new() {
    let with_heldout = || {
        let mut bench = Bench::new();
        bench.plant_prompts(Split::Heldout, &PROMPTS);
        bench
    };
    let counted = |bench: &Bench, set: &[&str]| bench.count("report", set).expect("rows to count");
    let mut bench = with_heldout();
    // Both sides are one policy here: 4 prompts, once greedily and twice by chance, by two sides.
    assert_eq!(counted(&bench, &[]), RowCount { n_rows: 24, n_known: 0 });
    bench.run("report", &[]).expect("a report");
    const THREE: [&str; 1] = ["stages.report.evaluate.n=3"];
    assert_eq!(counted(&bench, &THREE), RowCount { n_rows: 32, n_known: 24 });
    let outputs = bench.run("report", &THREE).expect("a report").outputs;
    assert_eq!(outputs, with_heldout().run("report", &THREE).expect("a report").outputs);
    assert_eq!(run(&mut bench, "report", &THREE).1, 32);
}

//! Several processes on one store, and processes that end early: one works, the others wait and share, nothing is made
//! twice, no row that was kept is lost, and no lock outlives its process. The longer form is `just chaos`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use sluice_store::{RowScope, Store};
use sluice_tests::running::{Ended, Running, Signal};
use sluice_tests::six_stages::{STAGES, six_stages};
use sluice_tests::{Project, binary};

/// Answers enough for a stage to be caught in the middle.
const LONG: [&str; 4] =
    ["--set", "stages.responses.sample.n=200", "--set", "stages.responses.sample.max_new_tokens=64"];

fn call(project: &Project, words: &[&str]) -> Running {
    let mut command = Command::new(binary());
    command.args(words).current_dir(project.path());
    Running::start(command)
}

/// Every stage's value of a field of the report, of a run that ended well.
fn stages(ended: &Ended, field: &str) -> BTreeMap<String, Value> {
    assert_eq!(ended.code, Some(0), "{:?} {}", ended.lines.last(), ended.err);
    let report = ended.report();
    let stages = report["stages"].as_array().expect("`stages` is a list");
    stages.iter().map(|stage| (stage["name"].as_str().unwrap_or("?").to_owned(), stage[field].clone())).collect()
}

/// How often each stage was computed by some runs.
fn n_computed(ended: &[Ended]) -> BTreeMap<String, usize> {
    let mut n = BTreeMap::new();
    for (stage, state) in ended.iter().flat_map(|ended| stages(ended, "state")) {
        *n.entry(stage).or_default() += usize::from(state == "ran" || state == "partial");
    }
    n
}

/// The rows of each scope in the journal.
fn journal(store: &Path) -> Vec<usize> {
    let store = Store::open(store).expect("a store");
    let scopes = std::fs::read_dir(store.root().join("rows")).into_iter().flatten().flatten();
    let scopes = scopes.filter_map(|entry| entry.file_name().to_str()?.parse::<RowScope>().ok());
    scopes.map(|scope| store.rows(scope).expect("a journal").len()).collect()
}

/// A run in the middle of its answers.
fn busy(project: &Project, words: &[&str]) -> Running {
    let mut run = call(project, &[&["run", "p.yaml"], words, &LONG[..]].concat());
    let store = project.path().join(".sluice");
    assert!(run.until(|| journal(&store).iter().sum::<usize>() > 0), "rows are kept while they are made");
    run
}

/// What `plan` says of the answers.
fn planned(project: &Project) -> Value {
    let plan = project.sluice([&["plan", "p.yaml", "responses", "--json"], &LONG[..]].concat()).ended(0).out;
    let mut lines = plan.lines().map(|line| serde_json::from_str::<Value>(line).expect("one object a line"));
    lines.find(|line| line["name"] == "responses").expect("the stage")
}

fn n_files(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

#[test]
fn three_runs_at_once_compute_each_stage_once() {
    let project = six_stages("p.yaml");
    let store = project.path().join(".sluice");
    let runs: Vec<Running> = (0..3).map(|_| call(&project, &["run", "p.yaml", "--json"])).collect();
    let ended: Vec<Ended> = runs.into_iter().map(|mut run| run.wait()).collect();
    assert_eq!(n_computed(&ended), STAGES.map(|stage| (stage.to_owned(), 1)).into());
    let digests: Vec<_> = ended.iter().map(|ended| stages(ended, "digest")).collect();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    let folder = |name: &str| n_files(&store.join(name));
    assert_eq!((folder("records"), folder("divergences"), folder("tmp"), folder("runs")), (6, 0, 0, 3));
}

#[test]
fn a_waiting_run_takes_over_from_one_that_is_killed() {
    let project = six_stages("p.yaml");
    let store = project.path().join(".sluice");
    let run = || call(&project, &[&["run", "p.yaml", "responses", "--json"], &LONG[..]].concat());
    let mut worker = run();
    worker.find(|line| line.is("stage_started", "responses")).expect("a run that works");
    let mut other = run();
    other.find(|line| line.is("stage_waiting", "responses")).expect("a run that waits");
    assert!(worker.until(|| journal(&store).iter().sum::<usize>() > 0), "rows are kept while they are made");
    worker.signal(Signal::Kill);
    worker.wait();
    let n_rows: usize = journal(&store).iter().sum();
    // No lock has to be cleaned: the first thing heard of the other is how far the one before it was.
    let first = other.find(|line| line.is("stage_progress", "responses")).expect("the other works now").event();
    assert_eq!((first["done"].as_u64(), first["total"].as_u64()), (Some(n_rows as u64), Some(1200)));
    let ended = other.wait();
    assert_eq!(stages(&ended, "rows_reused")["responses"], n_rows);
    assert_eq!(journal(&store).iter().sum::<usize>(), 1200);
    let scope = std::fs::read_dir(store.join("rows")).expect("a journal").flatten().next().expect("a scope").path();
    assert_eq!(n_files(&scope), 3, "the segment of the killed run is gone on with, for the same stage");
}

#[test]
fn two_pipelines_share_what_they_have_in_common() {
    let project = six_stages("p.yaml");
    std::fs::copy(project.path().join("p.yaml"), project.path().join("q.yaml")).expect("a writable folder");
    project.edit("q.yaml", "ties: drop", "ties: first, min_margin: 0.01");
    let mut one = call(&project, &["run", "p.yaml", "--json"]);
    let mut other = call(&project, &["run", "q.yaml", "--json"]);
    let ended = [one.wait(), other.wait()];
    let n = n_computed(&ended);
    assert_eq!((n["prompts"], n["responses"], n["scores"], n["pairs"]), (1, 1, 1, 2));
}

#[test]
fn questions_are_answered_while_a_run_works() {
    let project = six_stages("p.yaml");
    let mut run = busy(&project, &["responses", "--json"]);
    let plan = planned(&project);
    assert_eq!((&plan["state"], &plan["rows"]), (&Value::from("partial"), &Value::from(1200)));
    project.sluice(["sql", "p.yaml", "select count(*) from prompts"]).ended(0);
    project.sluice(["status", "p.yaml"]).ended(0);
    assert_eq!(stages(&run.wait(), "state")["responses"], "ran");
}

#[test]
fn a_killed_run_loses_the_rows_under_way_alone() {
    let project = six_stages("p.yaml");
    let store = project.path().join(".sluice");
    busy(&project, &[]).kill();
    let plan = planned(&project);
    assert_eq!((&plan["state"], &plan["rows_known"]), (&Value::from("partial"), &Value::from(journal(&store)[0])));
    // The locks went with their owner, and what it left is swept by the next attempt at any key.
    project.sluice(["run", "p.yaml", "pairs", "--quiet"]).ended(0);
    assert_eq!(n_files(&store.join("tmp")), 0);
}

#[cfg(unix)]
#[test]
fn a_stopped_run_says_what_is_kept() {
    for signal in [Signal::Interrupt, Signal::Terminate] {
        let project = six_stages("p.yaml");
        let store = project.path().join(".sluice");
        let mut run = busy(&project, &[]);
        run.signal(signal);
        let ended = run.wait();
        let out: String = ended.lines.iter().map(|line| format!("{}\n", line.text)).collect();
        assert_eq!(ended.code, Some(130), "{out}{}", ended.err);
        let kept = journal(&store)[0];
        let told = out.lines().find(|line| line.starts_with("responses")).unwrap_or_default();
        let words: Vec<&str> = told.split_whitespace().collect();
        let shown = words.iter().position(|word| *word == "of").map(|at| words[at - 1].replace(',', ""));
        assert_eq!((words.get(1), shown), (Some(&"interrupted"), Some(kept.to_string())), "{out}");
        assert!(told.ends_with("of 1,200 rows kept"), "{out}");
        assert_eq!(planned(&project)["rows_known"], kept);
        assert_eq!(n_files(&store.join("tmp")), 0);
    }
}

/// A training of many short steps, saved after every fifth.
const MANY_STEPS: [&str; 4] =
    ["--set", "stages.tuned.train.epochs=200", "--set", "stages.tuned.train.checkpoint={every_steps: 5}"];

/// A run in the middle of its training, which has saved itself.
fn training(project: &Project) -> Running {
    let mut run = call(project, &[&["run", "p.yaml", "tuned"], &MANY_STEPS[..]].concat());
    let saves = project.path().join(".sluice/resume");
    let heads = || std::fs::read_dir(&saves).into_iter().flatten().flatten().map(|key| key.path().join("head.json"));
    assert!(run.until(|| heads().any(|head| head.is_file())), "a training saves itself");
    run
}

/// The line of a table that is about the training.
fn line_of_tuned(text: &str) -> &str {
    text.lines().find(|line| line.starts_with("tuned")).expect("a line")
}

/// Digests of the checkpoint and of the steps.
fn trained(project: &Project) -> Vec<Value> {
    let said = project.sluice([&["show", "p.yaml", "tuned", "--json"], &MANY_STEPS[..]].concat()).ended(0);
    let shown: Value = serde_json::from_str(&said.out).expect("an object");
    shown["outputs"].as_array().expect("a list").iter().map(|output| output["digest"].clone()).collect()
}

/// What a training comes to that nobody stops.
fn trained_whole() -> Vec<Value> {
    let project = six_stages("p.yaml");
    project.sluice([&["run", "p.yaml", "tuned", "--quiet"], &MANY_STEPS[..]].concat()).ended(0);
    trained(&project)
}

/// Goes on with a training that was stopped, and looks whether it becomes the one that never was.
fn check_goes_on(project: &Project) {
    let plan = project.sluice([&["plan", "p.yaml", "tuned"], &MANY_STEPS[..]].concat()).ended(0).out;
    let planned = line_of_tuned(&plan);
    assert!(planned.contains("partial") && planned.contains("resumes at step "), "{planned}");
    let run = project.sluice([&["run", "p.yaml", "tuned"], &MANY_STEPS[..]].concat()).ended(0).out;
    let resumed = line_of_tuned(&run);
    assert!(resumed.contains("partial") && resumed.contains("resumed at step "), "{resumed}");
    assert_eq!(trained(project), trained_whole());
    assert_eq!(n_files(&project.path().join(".sluice/resume")), 0);
}

#[test]
fn a_killed_training_goes_on_from_its_last_save() {
    let project = six_stages("p.yaml");
    training(&project).kill();
    check_goes_on(&project);
}

#[cfg(unix)]
#[test]
fn a_stopped_training_saves_itself() {
    let project = six_stages("p.yaml");
    let mut run = training(&project);
    run.signal(Signal::Interrupt);
    let ended = run.wait();
    let out: String = ended.lines.iter().map(|line| format!("{}\n", line.text)).collect();
    assert_eq!(ended.code, Some(130), "{out}{}", ended.err);
    let told = line_of_tuned(&out);
    assert!(told.contains("interrupted") && told.contains("saved at step "), "{told}");
    check_goes_on(&project);
}

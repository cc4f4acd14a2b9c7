//! Damage, its repair, and what is taken away, as a user of the program meets them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use expect_test::expect;
use serde_json::Value;
use sluice_tests::running::Running;
use sluice_tests::six_stages::six_stages;
use sluice_tests::{Project, binary};

const RUN: &[&str] = &["run", "p.yaml"];

/// The first file below a folder of the store.
fn first(project: &Project, folder: &str) -> PathBuf {
    let mut entries: Vec<PathBuf> = fs::read_dir(project.path().join(".sluice").join(folder))
        .expect("a folder of the store")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    entries.sort();
    let entry = entries.remove(0);
    if entry.is_dir() {
        first(project, &entry.strip_prefix(project.path().join(".sluice")).expect("below").display().to_string())
    } else {
        entry
    }
}

/// Flips a bit of a file, which may be read-only.
fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("a file");
    bytes[at] ^= 1;
    fs::remove_file(path).expect("a writable folder");
    fs::write(path, bytes).expect("a writable folder");
}

/// The file of a stage's first output.
fn output(project: &Project, stage: &str) -> PathBuf {
    let shown = project.sluice(["show", "p.yaml", stage, "--rows", "0", "--json"]).ended(0).out;
    let shown: Value = serde_json::from_str(&shown).expect("one object");
    let output = &shown["outputs"][0];
    project.path().join(output["path"].as_str().or(output["folder"].as_str()).expect("a path"))
}

/// Name, state and digest of every stage.
fn status(project: &Project) -> Vec<(String, String, String)> {
    let status = project.sluice(["status", "p.yaml", "--json"]).ended(0).out;
    let stage = |line: &str| {
        let stage: Value = serde_json::from_str(line).expect("one object a line");
        let text = |field: &str| stage[field].as_str().unwrap_or_default().to_owned();
        (text("name"), text("state"), text("digest"))
    };
    status.lines().map(stage).collect()
}

/// The lines that tell of damage, sorted, since they come in the order of keys: what is damaged, without its place.
fn faults(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().filter(|line| line.starts_with("damaged")).collect();
    lines.sort_unstable();
    lines.into_iter().map(|line| format!("{line}\n")).collect()
}

#[test]
fn damage_in_each_kind_of_file_is_named_and_healed() {
    let project = six_stages("p.yaml");
    project.sluice(RUN).ended(0);
    project.sluice(["tag", "gold", "r1"]).ended(0);
    project.sluice(RUN).ended(0);
    let before = status(&project);
    let sound = project.sluice(["fsck"]).ended(0).out;
    assert!(sound.starts_with("all ") && sound.contains(" things are as they were written\nread "), "{sound}");

    flip(&output(&project, "scores"), 100);
    flip(&output(&project, "tuned").join("model.safetensors"), 4000);
    let status_of_pairs = project.sluice(["show", "p.yaml", "pairs", "--json", "--rows", "0"]).ended(0).out;
    let pairs: Value = serde_json::from_str(&status_of_pairs).expect("one object");
    let record = project.path().join(format!(".sluice/records/{}.json", pairs["key"].as_str().expect("a key")));
    flip(&record, 300);
    flip(&project.path().join(".sluice/runs/r1.json"), 40);
    flip(&project.path().join(".sluice/tags/gold.json"), 40);
    // The first entry's key, and a row of the same or another journal.
    flip(&first(&project, "rows"), 10);

    let found = project.sluice(["fsck"]).ended(4).out;
    expect![[r#"
        damaged checkpoint tuned of run r2: its bytes are not those that were written
        damaged record pairs of run r2: its bytes are not those that were written
        damaged record scores of run r2: what it names is damaged: scores
        damaged record tuned of run r2: what it names is damaged: tuned
        damaged row journal report of run r2: 1 of 6 rows are not those that were written
        damaged run manifest of run r1: its bytes are not those that were written
        damaged table scores of run r2: its bytes are not those that were written
        damaged tag gold: its bytes are not those that were written
    "#]]
    .assert_eq(&faults(&found));
    assert!(found.contains("things damaged; `sluice fsck --repair` mends\n"), "{found}");
    // What is to be kept cannot be known.
    project.sluice(["gc"]).ended(4);
    let json = project.sluice(["fsck", "--repair", "--json"]).ended(4).out;
    let last: Value = serde_json::from_str(json.lines().last().unwrap_or_default()).expect("one object a line");
    assert_eq!((&last["n_faults"], &last["n_mended"]), (&8.into(), &8.into()));
    project.sluice(["fsck"]).ended(0);
    assert_ne!(status(&project), before);
    project.sluice(RUN).ended(0);
    assert_eq!(status(&project), before, "the run made everything again as it was");
    project.sluice(["fsck"]).ended(0);
}

#[test]
fn a_run_that_meets_damage_names_it_and_heals_it() {
    let project = six_stages("p.yaml");
    project.sluice(RUN).ended(0);
    let before = status(&project);
    let (scores, tuned) = (output(&project, "scores"), output(&project, "tuned"));
    flip(&scores, 100);
    flip(&tuned.join("model.safetensors"), 4000);
    // Another rule that gives the same pairs: they are read from the scores; nothing reads the weights.
    project.edit("p.yaml", "ties: drop", "ties: first");
    let said = project.sluice(RUN).ended(0);
    let told = |stage: &str, output: &str, file: &Path| {
        let file = file.strip_prefix(project.path()).expect("below the project").display().to_string();
        format!("{stage:9}  its output `{output}` is damaged, and is made again: {file}\n")
    };
    assert!(said.err.contains(&told("scores", "scores", &scores)), "{}", said.err);
    // A question about the answers: now they are read.
    let again = project.sluice(["run", "p.yaml", "--set", "stages.report.evaluate.seed=3"]).ended(0);
    assert!(again.err.contains(&told("tuned", "checkpoint", &tuned)), "{}", again.err);
    let digests =
        |stages: &[(String, String, String)]| stages[..5].iter().map(|(.., digest)| digest.clone()).collect::<Vec<_>>();
    assert_eq!(digests(&status(&project)), digests(&before));
    project.sluice(["fsck"]).ended(0);
}

#[test]
fn what_no_run_leads_to_goes_and_the_rest_stays() {
    let project = six_stages("p.yaml");
    project.sluice(RUN).ended(0);
    project.edit("p.yaml", "ties: drop", "ties: drop, min_margin: 0.5");
    project.sluice(["run", "p.yaml", "pairs"]).ended(0);
    project.edit("p.yaml", "min_margin: 0.5", "min_margin: 0.25");
    project.edit("p.yaml", "learning_rate: 1.0e-5", "learning_rate: 2.0e-5");
    project.sluice(RUN).ended(0);
    let gc = |arguments: &[&str]| project.sluice([&["gc", "--grace-hours", "0"], arguments].concat()).ended(0).out;
    // Everything is reached from some run, but for locks.
    let all = gc(&["--dry-run", "--json"]);
    assert!(all.lines().rev().skip(1).all(|line| line.contains(r#""kind":"free lock""#)), "{all}");
    // Young things stay.
    let young = project.sluice(["gc", "--keep-runs", "1"]).ended(0).out;
    assert!(young.contains("3 runs stay"), "{young}");

    let listed = gc(&["--keep-runs", "1", "--dry-run"]);
    let names: String =
        listed.lines().map(|line| line.split_whitespace().take(3).collect::<Vec<_>>().join(" ") + "\n").collect();
    let rows = |what: &str| names.lines().filter(|line| line.starts_with(what)).count();
    // r1 is the last run over all stages but one, and r2 one of a few: both go, r3 stays.
    assert_eq!((rows("run p.yaml"), rows("checkpoint tuned r1"), rows("table pairs r2")), (2, 1, 1), "{listed}");
    assert!(listed.contains("would free "), "{listed}");
    let done = gc(&["--keep-runs", "1"]);
    assert!(done.contains("freed ") && done.contains("1 run stays"), "{done}");
    assert_eq!(gc(&["--keep-runs", "1"]).lines().last(), Some("nothing to take away; 1 run stays"));
    project.sluice(["plan", "p.yaml", "--exit-code"]).ended(0);
    project.sluice(["fsck"]).ended(0);
    project.sluice(["show", "pairs@r1"]).ended(2);
}

#[test]
fn a_collection_beside_a_run_takes_nothing_from_it() {
    let project = six_stages("p.yaml");
    let long = ["--set", "stages.responses.sample.n=240", "--set", "stages.responses.sample.max_new_tokens=32"];
    let mut command = Command::new(binary());
    command.args([RUN, &["--json"], &long[..]].concat()).current_dir(project.path());
    let mut run = Running::start(command);
    run.find(|line| line.is("stage_started", "responses")).expect("a run that works");
    // Two runs want one stage, and one of them does not wait.
    let refused = project.sluice([RUN, &["responses", "--no-wait"], &long[..]].concat()).ended(5);
    assert!(refused.err.contains("another run is computing it"), "{}", refused.err);
    let collect = || project.sluice(["gc", "--grace-hours", "0", "--keep-runs", "0", "--quiet"]).ended(0);
    collect();
    for stage in ["scores", "pairs", "tuned", "report"] {
        run.find(|line| line.is("stage_started", stage)).expect("a run that works");
        collect();
    }
    let ended = run.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    project.sluice([&["plan", "p.yaml", "--exit-code"], &long[..]].concat()).ended(0);
    project.sluice(["fsck"]).ended(0);
}

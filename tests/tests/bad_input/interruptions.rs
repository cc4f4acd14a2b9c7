//! Runs that end early or meet another: nothing is lost but the stage that ran, and no lock outlives its process.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use sluice_tests::{Project, binary};

use crate::damage::{files, project};

/// Enough answers for a stage to be caught in the middle.
const LONG: [&str; 4] =
    ["--set", "stages.responses.sample.n=400", "--set", "stages.responses.sample.max_new_tokens=64"];

/// Starts a run and waits until a stage has begun.
fn begun(project: &Project, stage: &str) -> Child {
    let mut command = Command::new(binary());
    command.args(["run", "p.yaml"]).args(LONG).current_dir(project.path());
    let mut run = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    let told = BufReader::new(run.stderr.as_mut().expect("stderr is piped"));
    let start = told.lines().map_while(Result::ok).find(|line| line.starts_with(stage) && line.contains("starts"));
    assert!(start.is_some(), "`{stage}` never began");
    run
}

fn plan(project: &Project) -> Vec<String> {
    let plan = project.sluice([&["plan", "p.yaml"], &LONG[..]].concat()).ended(0).out;
    let state = |line: &str| line.split_whitespace().nth(2).map(str::to_owned);
    plan.lines().skip(1).take(6).filter_map(state).collect()
}

#[test]
fn a_killed_run_loses_the_running_stage_alone() {
    let project = project();
    let mut run = begun(&project, "responses");
    run.kill().expect("the run is alive");
    run.wait().expect("the run is over");
    assert_eq!(plan(&project), ["hit", "run", "run", "run", "run", "run"]);
    // The locks went with their owner, and what it left is swept by the next attempt at any key.
    project.sluice(["run", "p.yaml", "pairs", "--quiet"]).ended(0);
    assert_eq!(files(&project, ".sluice/tmp"), Vec::<std::path::PathBuf>::new());
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_where_nothing_is_lost() {
    let project = project();
    let mut run = begun(&project, "responses");
    let sent = Command::new("kill").args(["-INT", &run.id().to_string()]).status().expect("`kill` is there");
    assert!(sent.success());
    // The rest of stderr is read to its end, so that the run is not stopped by a closed pipe.
    let rest: Vec<String> =
        BufReader::new(run.stderr.take().expect("stderr is piped")).lines().map_while(Result::ok).collect();
    assert_eq!(run.wait().expect("the run is over").code(), Some(130), "{rest:?}");
    assert_eq!(plan(&project), ["hit", "run", "run", "run", "run", "run"]);
    assert_eq!(files(&project, ".sluice/tmp"), Vec::<std::path::PathBuf>::new());
}

#[test]
fn two_runs_at_once_compute_each_stage_once() {
    let project = project();
    let run = || {
        let mut command = Command::new(binary());
        command.args(["run", "p.yaml", "--json"]).current_dir(project.path());
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the binary starts")
    };
    let mut n_ran = std::collections::BTreeMap::<String, usize>::new();
    for run in [run(), run()] {
        let said = run.wait_with_output().expect("the run ends");
        assert!(said.status.success());
        let text = String::from_utf8(said.stdout).expect("output is UTF-8");
        let report: serde_json::Value =
            serde_json::from_str(text.lines().last().unwrap_or_default()).expect("the last line is an object");
        for stage in report["stages"].as_array().expect("`stages` is a list") {
            let name = stage["name"].as_str().unwrap_or("?").to_owned();
            *n_ran.entry(name).or_default() += usize::from(stage["state"] == "ran");
        }
    }
    assert_eq!(n_ran.len(), 6);
    assert!(n_ran.values().all(|n| *n == 1), "{n_ran:?}");
}

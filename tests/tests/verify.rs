//! `verify`: results made again by the program, on tiny models of the real architectures.

use std::fs;

use expect_test::expect;
use serde_json::Value;
use sluice_tests::six_stages::six_stages;
use sluice_tests::{Project, without_times};

const FILE: &str = "p.yaml";

fn made() -> Project {
    let project = six_stages(FILE);
    project.sluice(["run", FILE, "--quiet"]).ended(0);
    project
}

/// Every file of the store but locks, manifests and caches, with its bytes.
fn results(project: &Project) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = ["objects", "checkpoints", "records", "divergences", "rows", "resume", "tmp"]
        .map(|name| project.path().join(".sluice").join(name))
        .to_vec();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().map(|entry| entry.expect("an entry").path()) {
            match entry.is_dir() {
                true => folders.push(entry),
                false => files.push((entry.display().to_string(), fs::read(&entry).expect("a file"))),
            }
        }
    }
    files.sort();
    files
}

#[test]
fn what_was_made_here_is_exact_and_nothing_is_kept_of_the_check() {
    let project = made();
    let before = results(&project);
    let said = project.sluice(["verify", FILE, "--rows", "4"]).ended(0);
    expect![[r#"
        stage kind found made again exact near different time
        prompts ingest exact 6/6 6 0 0 *
        responses sample exact 4/18 4 0 0 *
        scores score exact 4/18 4 0 0 *
        pairs pair exact 6/6 6 0 0 *
        tuned train skipped
        report evaluate exact 4/12 4 0 0 *
        6 stages: 5 exact, 1 skipped; 4 rows of each result, drawn with seed 0
        tuned is skipped: a training is done again as a whole, and only with --train or --recompute 100%
    "#]]
    .assert_eq(&without_times(&said.out));
    let all = project.sluice(["verify", FILE, "--recompute", "100%"]).ended(0);
    expect![[r#"
        stage kind found made again exact near different time
        prompts ingest exact 6/6 6 0 0 *
        responses sample exact 18/18 18 0 0 *
        scores score exact 18/18 18 0 0 *
        pairs pair exact 6/6 6 0 0 *
        tuned train exact all 1 0 0 *
        report evaluate exact 12/12 12 0 0 *
        6 stages: 6 exact; 100 % of each result, at least a row, drawn with seed 0
    "#]]
    .assert_eq(&without_times(&all.out));
    assert_eq!(results(&project), before);
    project.sluice(["plan", FILE, "--exit-code"]).ended(0);
}

#[test]
fn the_rows_are_drawn_by_the_seed() {
    let project = made();
    let drawn = |more: &[&str]| -> Vec<u64> {
        let arguments = ["verify", FILE, "responses", "--rows", "4", "--json"].iter().chain(more);
        let said = project.sluice(arguments).ended(0).out;
        let report: Value = serde_json::from_str(&said).expect("one object");
        let [stage] = report["stages"].as_array().expect("a list").as_slice() else { panic!("one stage: {said}") };
        assert_eq!((stage["verdict"].as_str(), stage["of"].as_u64()), (Some("exact"), Some(18)));
        stage["rows"].as_array().expect("a list").iter().map(|row| row.as_u64().expect("a number")).collect()
    };
    assert_eq!((drawn(&[]).len(), drawn(&[])), (4, drawn(&["--seed", "0"])));
    assert_ne!(drawn(&[]), drawn(&["--seed", "1"]));
}

/// A stored table that is not what its stage makes: as if a faulty machine had made it.
#[test]
fn what_does_not_come_out_again_is_told_and_ends_with_4() {
    let project = made();
    // The same tables, under the keys of other parameters.
    let forged = forge(&project, "scores", "stages.scores.score.head_dtype=bf16");
    let said = project.sluice(["verify", FILE, "scores", "--rows", "18", "--set", &forged]).ended(4);
    assert!(said.out.contains("scores  score  different") || said.out.contains("different"), "{}", said.out);
    assert!(said.out.contains("score") && said.out.contains(" now\n"), "{}", said.out);
    let forged = forge(&project, "pairs", "stages.pairs.pair.min_margin=0.5");
    let said = project.sluice(["verify", FILE, "pairs", "--set", &forged]).ended(4);
    assert!(said.out.contains("the record of the other result is kept in "), "{}", said.out);
    let kept = fs::read_dir(project.path().join(".sluice/divergences")).expect("a folder").count();
    assert_eq!(kept, 1);
}

/// Gives a stage's result the key of other parameters, and says which.
fn forge(project: &Project, stage: &str, set: &str) -> String {
    let key = |more: &[&str]| -> (String, Value) {
        let mut arguments = vec!["plan", FILE, stage, "--json"];
        arguments.extend(more);
        let said = project.sluice(arguments).ended(0).out;
        let planned = said.lines().map(|line| serde_json::from_str::<Value>(line).expect("an object"));
        let planned = planned.into_iter().find(|one| one["name"] == stage).expect("the stage");
        (planned["key"].as_str().expect("a key").to_owned(), planned)
    };
    let (old, _) = key(&[]);
    let (new, _) = key(&["--set", set]);
    let records = project.path().join(".sluice/records");
    let text = fs::read_to_string(records.join(format!("{old}.json"))).expect("a record");
    let line = text.lines().next().expect("a line").replace(&old, &new);
    let check = blake3::hash(line.as_bytes());
    fs::write(records.join(format!("{new}.json")), format!("{line}\n{{\"blake3\":\"{check}\"}}\n")).expect("a record");
    set.to_owned()
}

#[test]
fn a_check_of_nothing_says_what_is_missing() {
    let project = six_stages(FILE);
    let said = project.sluice(["verify", FILE, "pairs"]).ended(0);
    expect![[r#"
        stage kind found made again exact near different time
        pairs pair skipped
        1 stage: 1 skipped; 1 % of each result, at least a row, drawn with seed 0
        pairs is skipped: `scores`, which it reads, has no result
    "#]]
    .assert_eq(&without_times(&said.out));
    let wrong = project.sluice(["verify", FILE, "--recompute", "5"]).ended(2);
    assert!(wrong.err.contains("a share above 0% and up to 100% is needed, as in 5%"), "{}", wrong.err);
    project.sluice(["verify", FILE, "--rows", "0"]).ended(2);
}

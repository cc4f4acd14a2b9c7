//! The binary end to end, on tiny models of the real architectures.

use std::fs;

use expect_test::{Expect, expect};
use sluice_tests::six_stages::PROMPTS;
use sluice_tests::{Project, Said, without_times};

/// Six stages, as in the shipped pipeline, that run in a second.
fn six_stages() -> Project {
    sluice_tests::six_stages::six_stages("pipelines/p.yaml")
}

/// Each stage's state of a run, from the last line of `run --json`.
fn states(said: &Said) -> String {
    let last = said.out.lines().last().unwrap_or_default();
    let report: serde_json::Value = serde_json::from_str(last).expect("the last line is an object");
    let stages = report["stages"].as_array().expect("`stages` is a list");
    let state = |stage: &serde_json::Value| {
        format!("{} {}\n", stage["name"].as_str().unwrap_or("?"), stage["state"].as_str().unwrap_or("?"))
    };
    stages.iter().map(state).collect()
}

#[track_caller]
fn check_states(project: &Project, arguments: &[&str], expected: Expect) {
    let arguments = ["run", "pipelines/p.yaml", "--json"].iter().chain(arguments);
    expected.assert_eq(&states(&project.sluice(arguments).ended(0)));
}

#[test]
fn a_run_is_done_once_and_a_changed_rule_reruns_what_follows() {
    let project = six_stages();
    check_states(
        &project,
        &[],
        expect![[r#"
            prompts ran
            responses ran
            scores ran
            pairs ran
            tuned ran
            report ran
        "#]],
    );

    let again = project.sluice(["run"]).ended(0);
    assert!(again.out.starts_with("nothing to do: all 6 stages of pipelines/p.yaml are up to date"), "{}", again.out);
    assert_eq!((again.out.lines().count(), again.err.as_str()), (1, ""));
    project.sluice(["plan", "--exit-code"]).ended(0);

    // A rule that drops other pairs.
    project.edit("pipelines/p.yaml", "ties: drop", "ties: drop, min_margin: 0.5");
    let plan = project.sluice(["plan", "--exit-code"]).ended(10);
    expect![[r#"
        stage kind state rows est. why
        prompts ingest hit 6 - -
        responses sample hit 18 - -
        scores score hit 18 - -
        pairs pair run ~4 * pair.min_margin 0.0 -> 0.5 (pipelines/p.yaml:13:53)
        tuned train pending - * waits for `pairs`
        report evaluate pending 12/24 * waits for `tuned`
        6 stages: 3 hit, 1 to run, 2 pending; about * 462 tokens, * (as in r1, just now)
        memory while training: tuned *
    "#]]
    .assert_eq(&without_times(&plan.out));
    let why = project.sluice(["why", "pairs"]).ended(0);
    expect![[r#"
        pairs would run, because this changed since run r2:
          pair.min_margin  0.0  →  0.5  pipelines/p.yaml:13:53
    "#]]
    .assert_eq(&why.out);
    check_states(
        &project,
        &["--quiet"],
        expect![[r#"
            prompts hit
            responses hit
            scores hit
            pairs ran
            tuned ran
            report partial
        "#]],
    );

    // Another rule that gives the same pairs: nothing after it runs.
    project.edit("pipelines/p.yaml", "ties: drop", "ties: first");
    check_states(
        &project,
        &[],
        expect![[r#"
        prompts hit
        responses hit
        scores hit
        pairs ran
        tuned hit
        report hit
    "#]],
    );

    // A comment, the order of keys and a default written out change nothing.
    project.edit(
        "pipelines/p.yaml",
        "n: 3, split: all",
        "# as before\n             split: all, n: 3, temperature: 1.0",
    );
    project.sluice(["plan", "--exit-code"]).ended(0);
}

#[test]
fn rows_that_are_known_are_not_made_again() {
    let project = six_stages();
    project.sluice(["run", "pipelines/p.yaml", "scores"]).ended(0);
    project.edit("pipelines/p.yaml", "n: 3, split", "n: 5, split");
    project.write("prompts.jsonl", &PROMPTS.replace("Name a day.", "Name a month."));
    project.sluice(["run", "pipelines/p.yaml", "prompts"]).ended(0);
    let plan = project.sluice(["plan", "scores"]).ended(0).out;
    let lines = plan.lines().map(|line| line.split_whitespace().take(4).collect::<Vec<_>>().join(" ") + "\n");
    expect![[r#"
        stage kind state rows
        prompts ingest hit 6
        responses sample partial 15/30
        scores score pending 15/30
        3 stages: 1 hit,
    "#]]
    .assert_eq(&lines.collect::<String>());
    check_states(
        &project,
        &["scores"],
        expect![[r#"
            prompts hit
            responses partial
            scores partial
        "#]],
    );
}

#[test]
fn results_are_shown_and_queried() {
    let project = six_stages();
    project.sluice(["run", "pipelines/p.yaml", "pairs"]).ended(0);
    let query = "select count(*) as n, count(distinct prompt_id) as prompts from responses";
    expect![[r#"
        n,prompts
        18,6
    "#]]
    .assert_eq(&project.sluice(["sql", query, "--format", "csv"]).ended(0).out);
    let union = "select (select count(*) from pairs) + (select count(*) from pairs.dropped) as prompts";
    expect![[r#"
        [{"prompts":6}]
    "#]]
    .assert_eq(&project.sluice(["sql", union, "--json"]).ended(0).out);
    let unknown = project.sluice(["sql", "select * from report"]).ended(2);
    expect![[r#"
        error: at 1:15: there is no table `report`; there is `pairs`, `pairs.dropped`, `prompts`, `responses`, `scores`
          help: stage `report` has no such table yet; `sluice run pipelines/p.yaml report` makes it
    "#]]
    .assert_eq(&unknown.err);
    let shown = project.sluice(["show", "pairs.dropped", "--rows", "0"]).ended(0).out;
    assert!(shown.contains("\npairs.dropped  "), "{shown}");
    project.sluice(["show", "tuned"]).ended(2);
    project.sluice(["status"]).ended(0);
    project.sluice(["dag", "--format", "mermaid"]).ended(0);
}

#[test]
fn every_fault_of_a_file_is_shown() {
    let project = Project::new();
    let broken = "\
version: 1
models: { policy: m }
stages:
  prompts: { ingest: { from: a.jsonl } }
  responses: { sample: { prompts: promts, model: policy, temprature: 0.8, n: 0 } }
";
    project.write("p.yaml", broken);
    let said = project.sluice(["check", "p.yaml"]).ended(2);
    expect![[r#"
          error: stage `responses`: `sample.prompts` reads `promts`, which no stage makes
           ╭─[p.yaml:5:35]
         4 │   prompts: { ingest: { from: a.jsonl } }
         5 │   responses: { sample: { prompts: promts, model: policy, temprature: 0.8, n: 0 } }
           ·                                   ──────
           ╰────
          help: did you mean `prompts` (line 4)?

          error: stage `responses`: `sample` has no key `temprature`
           ╭─[p.yaml:5:58]
         4 │   prompts: { ingest: { from: a.jsonl } }
         5 │   responses: { sample: { prompts: promts, model: policy, temprature: 0.8, n: 0 } }
           ·                                                          ──────────
           ╰────
          help: did you mean `temperature`?

          error: stage `responses`: `sample.n` must be a whole number from 1 to 10000, not 0
           ╭─[p.yaml:5:78]
         4 │   prompts: { ingest: { from: a.jsonl } }
         5 │   responses: { sample: { prompts: promts, model: policy, temprature: 0.8, n: 0 } }
           ·                                                                              ─
           ╰────

        error: 3 faults in p.yaml
    "#]]
    .assert_eq(&said.err);
    assert_eq!(said.out, "");
    let faults = project.sluice(["check", "p.yaml", "--json"]).ended(2).out;
    let places: String = faults
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("one object a line"))
        .map(|fault| format!("{}:{} {}\n", fault["line"], fault["column"], fault["code"]))
        .collect();
    expect![[r#"
        5:35 "unknown-name"
        5:58 "unknown-key"
        5:78 "out-of-range"
    "#]]
    .assert_eq(&places);
}

#[test]
fn exit_codes_say_what_went_wrong() {
    let project = six_stages();
    let check = |arguments: &[&str], code: i32, expected: Expect| {
        let said = project.sluice(arguments).ended(code);
        // What stages say on the way has times in it.
        let end = said.err.find("error:").map_or("", |at| &said.err[at..]);
        expected.assert_eq(end);
    };
    let run = |set: &'static str| ["run", "pipelines/p.yaml", "--set", set];
    check(
        &["plan", "missing.yaml"],
        2,
        expect![[r#"
        error: there is no file missing.yaml
          help: there is pipelines/p.yaml
    "#]],
    );
    check(
        &["why", "pears"],
        2,
        expect![[r#"
            error: there is no stage `pears`
              help: there is `prompts`, `responses`, `scores`, `pairs`, `tuned`, `report`
        "#]],
    );
    check(
        &run("stages.pairs.pair.ties=frist"),
        2,
        expect![[r#"
        error: stage `pairs`: `pair.ties` must be `drop` or `first`, not `frist`
           ╭─[--set:1:24]
         1 │ stages.pairs.pair.ties=frist
           ·                        ─────
           ╰────
          help: did you mean `first`?

        error: 1 fault in pipelines/p.yaml
    "#]],
    );
    check(
        &run("stages.prompts.ingest.from=none.jsonl"),
        2,
        expect![[r#"
        error: no file matches `none.jsonl` in .; beside it there is `pipelines`, `prompts.jsonl`
           ╭─[--set:1:28]
         1 │ stages.prompts.ingest.from=none.jsonl
           ·                            ──────────
           ╰────

        error: 1 fault in pipelines/p.yaml
    "#]],
    );
    check(
        &run("models.policy=nowhere"),
        2,
        expect![[r#"
        error: there is no folder nowhere, which should hold the model
           ╭─[--set:1:15]
         1 │ models.policy=nowhere
           ·               ───────
           ╰────

        error: 1 fault in pipelines/p.yaml
    "#]],
    );
    check(
        &run("models.policy=hf://nobody/nothing"),
        6,
        expect![[r#"
        error: `hf://nobody/nothing`: looked in hub/models--nobody--nothing/snapshots/main; fetch it with `hf download nobody/nothing --revision main`
           ╭─[--set:1:15]
         1 │ models.policy=hf://nobody/nothing
           ·               ───────────────────
           ╰────

        error: 1 fault in pipelines/p.yaml
    "#]],
    );
    check(
        &run("stages.prompts.ingest.map.prompt=question"),
        3,
        expect![[r#"
        error: stage `prompts` failed
          because: prompts.jsonl has no column `question` to read `map.prompt` from; it has `prompt`, `answer`
          help: mend it and run again; finished stages are kept
    "#]],
    );
    check(
        &run("stages.pairs.pair.min_margin=1000"),
        3,
        expect![[r#"
        error: stage `pairs` failed
          because: all 6 prompts dropped: 2 heldout, 4 min_margin; lower `min_margin`
          help: mend it and run again; finished stages are kept
    "#]],
    );
}

#[test]
fn a_newer_or_foreign_store_is_refused() {
    let project = six_stages();
    project.write(".sluice/format", "sluice-store 999\n");
    let said = project.sluice(["status", "pipelines/p.yaml"]).ended(2);
    assert!(said.err.contains("has format 999"), "{}", said.err);
    project.write(".sluice/format", "something else\n");
    project.sluice(["status", "pipelines/p.yaml"]).ended(2);
}

#[test]
fn damage_in_the_store_is_told() {
    let project = six_stages();
    project.sluice(["run", "pipelines/p.yaml", "prompts"]).ended(0);
    let shown = project.sluice(["show", "prompts", "--rows", "0", "--json"]).ended(0).out;
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("one object");
    let table = project.path().join(shown["outputs"][0]["path"].as_str().expect("a path"));
    let mut bytes = fs::read(&table).expect("the stored table");
    bytes[10] ^= 1;
    fs::remove_file(&table).expect("a writable folder");
    fs::write(&table, bytes).expect("a writable folder");
    let said = project.sluice(["sql", "pipelines/p.yaml", "select * from prompts"]).ended(4);
    assert!(said.err.contains("is damaged"), "{}", said.err);
}

#[test]
fn help_lists_the_exit_codes() {
    let help = Project::new().sluice(["--help"]).ended(0).out;
    assert!(help.contains("Exit codes:") && help.contains("130  interrupted"), "{help}");
}

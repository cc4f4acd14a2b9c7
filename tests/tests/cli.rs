//! The binary end to end, on tiny models of the real architectures.

use expect_test::{Expect, expect};
use sluice_tests::{Project, Said, fixture};

/// Prompts of a user; the fixture models answer nonsense to them, but they answer.
const PROMPTS: &str = r#"{"prompt": "Name a colour.", "answer": "red"}
{"prompt": "Name a fruit.", "answer": "plum"}
{"prompt": "Count to three.", "answer": "1 2 3"}
{"prompt": "Say good morning.", "answer": "Good morning."}
{"prompt": "Spell the word cat.", "answer": "c a t"}
{"prompt": "Name a day.", "answer": "Monday"}
"#;

/// Six stages, as in the shipped pipeline.
const PIPELINE: &str = "\
version: 1
models:
  policy: POLICY
  reward: REWARD
stages:
  prompts:
    ingest: { from: prompts.jsonl, map: { prompt: prompt, reference: answer }, split: { heldout: 0.4 } }
  responses:
    sample: { prompts: prompts, model: policy, n: 3, split: all, max_new_tokens: 6, seed: 1 }
  scores:
    score: { responses: responses, model: reward }
  pairs:
    pair: { scores: scores, ties: drop }
  tuned:
    train:
      pairs: pairs
      model: policy
      objective: { simpo: { beta: 10, gamma_beta_ratio: 0.5 } }
      learning_rate: 1.0e-5
      batch_size: 2
      max_length: 64
      max_prompt_length: 48
  report:
    evaluate:
      prompts: prompts
      candidate: tuned
      baseline: policy
      judge: reward
      split: all
      max_new_tokens: 6
      resamples: 20
";

/// A project with six stages that run in seconds.
fn six_stages() -> Project {
    let project = Project::new();
    project.write("prompts.jsonl", PROMPTS);
    let models = [("POLICY", "gemma2-tiny"), ("REWARD", "llama3-armorm-tiny")];
    let text = models
        .iter()
        .fold(PIPELINE.to_owned(), |text, (word, name)| text.replace(word, &fixture(name).display().to_string()));
    project.write("pipelines/p.yaml", &text);
    project
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

    project.edit("pipelines/p.yaml", "ties: drop", "ties: first, min_margin: 0.01");
    let plan = project.sluice(["plan", "--exit-code"]).ended(10);
    expect![[""]].assert_eq(&plan.out);
    let why = project.sluice(["why", "pairs"]).ended(0);
    expect![[""]].assert_eq(&why.out);
    check_states(
        &project,
        &["--quiet"],
        expect![[r#"
            prompts hit
            responses hit
            scores hit
            pairs ran
            tuned ran
            report ran
        "#]],
    );

    // A comment, the order of keys and a default written out change nothing.
    project.edit("pipelines/p.yaml", "n: 3, split: all", "split: all, n: 3, temperature: 1.0 # as before");
    project.sluice(["plan", "--exit-code"]).ended(0);
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
    expect![[""]].assert_eq(&unknown.err);
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
    expect![[""]].assert_eq(&said.err);
    assert_eq!(said.out, "");
    let faults = project.sluice(["check", "p.yaml", "--json"]).ended(2).out;
    let places: String = faults
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("one object a line"))
        .map(|fault| format!("{}:{} {}\n", fault["line"], fault["column"], fault["code"]))
        .collect();
    expect![[""]].assert_eq(&places);
}

#[test]
fn exit_codes_say_what_went_wrong() {
    let project = six_stages();
    let check = |arguments: &[&str], code: i32, expected: Expect| {
        let said = project.sluice(arguments).ended(code);
        expected.assert_eq(&said.err.replace(&fixture("").display().to_string(), "FIXTURES/"));
    };
    check(&["plan", "missing.yaml"], 2, expect![[""]]);
    check(&["why", "pears"], 2, expect![[""]]);
    check(&["run", "pipelines/p.yaml", "--set", "stages.pairs.pair.ties=frist"], 2, expect![[""]]);
    check(&["run", "pipelines/p.yaml", "--set", "stages.prompts.ingest.from=none.jsonl"], 1, expect![[""]]);
    check(&["run", "pipelines/p.yaml", "--set", "stages.prompts.ingest.map.prompt=question"], 3, expect![[""]]);
    check(&["run", "pipelines/p.yaml", "--set", "models.policy=nowhere"], 1, expect![[""]]);
    check(&["run", "pipelines/p.yaml", "--set", "models.policy=hf://nobody/nothing"], 6, expect![[""]]);
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
fn help_lists_the_exit_codes() {
    let help = Project::new().sluice(["--help"]).ended(0).out;
    assert!(help.contains("Exit codes:") && help.contains("130  interrupted"), "{help}");
}

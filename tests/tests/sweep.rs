//! Which stages a command is about, and how often they run: selectors, `--force`, `matrix:`, `limits`, as a user meets
//! them.

use expect_test::{Expect, expect};
use serde_json::Value;
use sluice_tests::six_stages::six_stages;
use sluice_tests::{Project, Said};

/// The last line of `run --json`.
fn report(said: &Said) -> Value {
    serde_json::from_str(said.out.lines().last().unwrap_or_default()).expect("the last line is an object")
}

/// Each stage's state of a run.
fn states(said: &Said) -> String {
    let report = report(said);
    let state = |stage: &Value| format!("{} {}", text(&stage["name"]), text(&stage["state"]));
    report["stages"].as_array().expect("`stages` is a list").iter().map(state).collect::<Vec<_>>().join("\n")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

#[test]
fn selectors_choose_stages_in_every_verb() {
    let project = six_stages("p.yaml");
    project.edit("p.yaml", "ties: drop }", "ties: drop }\n    tags: [nightly]");
    let names = |words: &[&str]| {
        let said = project.sluice(words.iter().chain(&["--json"])).ended(0).out;
        let lines = said.lines().map(|line| serde_json::from_str::<Value>(line).expect("one object a line"));
        // The last line of a plan is what the stages come to.
        let names = lines.filter(|line| line.get("total").is_none()).map(|line| text(&line["name"]).to_owned());
        names.collect::<Vec<_>>().join(" ")
    };
    expect!["prompts responses scores pairs"].assert_eq(&names(&["plan", "p.yaml", "pairs"]));
    expect!["prompts responses scores pairs tuned"].assert_eq(&names(&["plan", "p.yaml", "tag:nightly+1"]));
    expect!["pairs tuned"].assert_eq(&names(&["status", "p.yaml", "tag:nightly+1"]));
    expect!["scores pairs tuned"].assert_eq(&names(&["status", "p.yaml", "1+pairs+", "--exclude", "kind:evaluate"]));
    project.sluice(["run", "p.yaml", "pairs", "--quiet"]).ended(0);
    expect!["tuned report"].assert_eq(&names(&["status", "p.yaml", "state:changed"]));
    // A selection brings up to date what it needs, and an empty one nothing.
    expect![[r#"
        prompts hit
        responses hit
        scores hit
        pairs hit
        tuned ran"#]]
    .assert_eq(&states(&project.sluice(["run", "p.yaml", "state:changed", "--exclude", "report", "--json"]).ended(0)));
    expect![[r#"
        nothing to do: no stage is selected
    "#]]
    .assert_eq(&project.sluice(["run", "p.yaml", "state:changed,kind:sample"]).ended(0).out);
    expect![[r#"
        sample responses
        └─ score scores
    "#]]
    .assert_eq(&left(&project.sluice(["dag", "p.yaml", "s*", "responses"]).ended(0).out));
    let unknown =
        |word: &str, expected: Expect| expected.assert_eq(&project.sluice(["run", "p.yaml", word]).ended(2).err);
    unknown(
        "pears",
        expect![[r#"
        error: there is no stage `pears`
          help: there is `prompts`, `responses`, `scores`, `pairs`, `tuned`, `report`
    "#]],
    );
    unknown(
        "tag:nigthly",
        expect![[r#"
        error: no stage has the tag `nigthly`
          help: did you mean `nightly`?
    "#]],
    );
}

/// What stands before the inputs of a drawing.
fn left(drawing: &str) -> String {
    drawing.lines().map(|line| line.split("<-").next().unwrap_or_default().trim_end().to_owned() + "\n").collect()
}

#[test]
fn a_forced_stage_runs_again_and_says_what_came_of_it() {
    let project = six_stages("p.yaml");
    project.sluice(["run", "p.yaml", "tuned", "--quiet"]).ended(0);
    let forced = project.sluice(["run", "p.yaml", "tuned", "--force", "responses", "scores", "--json"]).ended(0);
    expect![[r#"
        prompts hit
        responses ran
        scores ran
        pairs hit
        tuned hit"#]]
    .assert_eq(&states(&forced));
    let found = |stage: usize| report(&forced)["stages"][stage]["recomputed"].to_string();
    assert_eq!((found(1), found(2)), (r#"{"result":"same"}"#.to_owned(), r#"{"result":"same"}"#.to_owned()));
    let rows = |stage: usize| report(&forced)["stages"][stage]["rows_reused"].to_string();
    assert_eq!((rows(1), rows(2)), ("0".to_owned(), "0".to_owned()));
    // Without selectors it is what the run is about, and not what that needs. The file may stand behind it.
    let forced = project.sluice(["run", "p.yaml", "pairs", "--force", "--json"]).ended(0);
    expect![[r#"
        prompts hit
        responses hit
        scores hit
        pairs ran"#]]
    .assert_eq(&states(&forced));
    let said = project.sluice(["run", "--force", "p.yaml", "tuned", "--exclude", "report"]).ended(0).out;
    assert!(said.contains("computed again: the same result"), "{said}");
}

#[test]
fn a_limit_is_a_try_and_the_run_without_it_pays_for_the_rest() {
    let project = six_stages("p.yaml");
    let tried = project.sluice(["run", "p.yaml", "scores", "--limit", "1"]).ended(0).out;
    assert!(tried.contains("a limit is on: prompts takes 1 prompt of each split (--limit 1)"), "{tried}");
    assert!(tried.contains("4 dropped: limit"), "{tried}");
    let plan = project.sluice(["plan", "p.yaml", "scores", "--limit", "1"]).ended(0).out;
    assert!(plan.ends_with("a limit is on: prompts takes 1 prompt of each split (--limit 1)\n"), "{plan}");
    let why = project.sluice(["why", "p.yaml", "prompts"]).ended(0).out;
    expect![[r#"
        prompts would run, because this changed since run r1:
          ingest.limit  1  →  none  was --limit 1
    "#]]
    .assert_eq(&why);
    // Of the 18 answers, those to two prompts are there.
    project.sluice(["run", "p.yaml", "prompts", "--quiet"]).ended(0);
    let plan = project.sluice(["plan", "p.yaml", "responses", "--json"]).ended(0).out;
    let mut stages = plan.lines().map(|line| serde_json::from_str::<Value>(line).expect("one object a line"));
    let responses = stages.find(|stage| stage["name"] == "responses").expect("the stage");
    assert_eq!((&responses["rows_known"], &responses["rows"]), (&Value::from(6), &Value::from(18)));
    let full = project.sluice(["run", "p.yaml", "scores", "--json"]).ended(0);
    let reused = |stage: usize| report(&full)["stages"][stage]["rows_reused"].clone();
    assert_eq!((reused(1), reused(2)), (Value::from(6), Value::from(6)));
    // In the file, for one stage.
    project.edit("p.yaml", "stages:", "limits: { prompts: 1 }\nstages:");
    let again = project.sluice(["run", "p.yaml", "scores"]).ended(0).out;
    assert!(again.starts_with("nothing to do"), "{again}");
    assert!(again.contains("(p.yaml:5:20)"), "{again}");
}

const MATRIX: &str = "learning_rate: ${matrix.lr}";

/// The six stages with two learning rates.
fn sweep() -> Project {
    let project = six_stages("p.yaml");
    project.edit("p.yaml", "learning_rate: 1.0e-5", MATRIX);
    project.edit("p.yaml", "  report:", "    matrix: { lr: [1e-5, 1e-2] }\n  report:");
    project
}

#[test]
fn a_matrix_gives_one_run_and_one_table() {
    let project = sweep();
    let plan = project.sluice(["plan", "p.yaml"]).ended(0).out;
    expect![[r#"
        stage            kind      state  rows  why
        prompts          ingest    run       -  never ran
        responses        sample    run       -  never ran
        scores           score     run       -  never ran
        pairs            pair      run       -  never ran
        tuned[lr=1e-5]   train     run       -  never ran
        tuned[lr=0.01]   train     run       -  never ran
        report[lr=1e-5]  evaluate  run       -  never ran
        report[lr=0.01]  evaluate  run       -  never ran
        8 stages: 8 to run
          no estimate: nothing like this has run here yet
          memory while training: tuned 143.1 MB
    "#]]
    .assert_eq(&plan);
    expect![[r#"
        pair pairs                    <- scores
        └─ train tuned[lr] ×2         <- pairs, model=policy
           └─ evaluate report[lr] ×2  <- prompts, candidate=tuned, baseline=policy, judge=reward
    "#]]
    .assert_eq(&project.sluice(["dag", "p.yaml", "pairs+"]).ended(0).out);
    let said = project.sluice(["run", "p.yaml"]).ended(0).out;
    let table = said.split_once("\nreport, ").map_or("", |(_, table)| table);
    let table: Vec<&str> = table.split("\n\n").next().unwrap_or_default().lines().collect();
    assert_eq!(table.len(), 5, "{said}");
    assert!(table[0].starts_with("2 cells") && table[1].trim_start().starts_with("lr  "), "{said}");
    assert!(table[2].trim_start().starts_with("1e-5  ") && table[3].trim_start().starts_with("0.01  "), "{said}");

    let json = project.sluice(["run", "p.yaml", "--json"]).ended(0);
    let comparison = &report(&json)["comparisons"][0];
    assert_eq!((text(&comparison["stage"]), comparison["axes"].to_string()), ("report", r#"["lr"]"#.to_owned()));
    assert_eq!(comparison["cells"][1]["values"].to_string(), r#"{"lr":0.01}"#);
    assert_eq!(text(&comparison["cells"][1]["name"]), "report[lr=0.01]");

    // Each cell is a table, and the stage is all of them.
    let sql = |query: &str, expected: Expect| {
        expected.assert_eq(&project.sluice(["sql", query, "--format", "csv"]).ended(0).out);
    };
    sql(
        "select lr, count(*) as n from report group by lr order by lr",
        expect![[r#"
        lr,n
        0.00001,12
        0.01,12
    "#]],
    );
    sql(
        "select lr, count(distinct metric) > 5 as many from report.metrics group by lr order by lr",
        expect![[r#"
        lr,many
        0.00001,true
        0.01,true
    "#]],
    );
    sql(
        "select count(*) as n from \"report[lr=0.01]\"",
        expect![[r#"
        n
        12
    "#]],
    );
    sql(
        "select lr, max(step) as steps from tuned.steps group by lr order by 1",
        expect![[r#"
        lr,steps
        0.00001,2
        0.01,2
    "#]],
    );
    sql(
        "select max(step) as steps from \"tuned[lr=0.01]\".steps",
        expect![[r#"
        steps
        2
    "#]],
    );

    let shown = project.sluice(["show", "tuned", "--rows", "1"]).ended(0).out;
    assert!(shown.starts_with("tuned  2 cells\n  tuned[lr=1e-5]"), "{shown}");
    assert!(shown.contains("\ntuned.steps\n"), "{shown}");
    let shown = project.sluice(["show", "tuned[lr=1.0E-2]", "--rows", "0"]).ended(0).out;
    assert!(shown.starts_with("tuned[lr=0.01]  train, made"), "{shown}");

    // Another value is another cell, and the others are what they were.
    let more =
        project.sluice(["run", "p.yaml", "tuned", "--json", "--set", "stages.tuned.matrix.lr=[1e-2, 1e-3]"]).ended(0);
    expect![[r#"
        prompts hit
        responses hit
        scores hit
        pairs hit
        tuned[lr=0.01] hit
        tuned[lr=0.001] ran"#]]
    .assert_eq(&states(&more));
    let why = project.sluice(["why", "p.yaml", "tuned", "--set", "stages.tuned.train.batch_size=3"]).ended(0).out;
    expect![[r#"
        tuned[lr=1e-5] would run, because this changed since run r2:
          train.batch_size  2  →  3  --set stages.tuned.train.batch_size=3
        tuned[lr=0.01] would run, because this changed since run r3:
          train.batch_size  2  →  3  --set stages.tuned.train.batch_size=3
    "#]]
    .assert_eq(&why);
    let one = project.sluice(["run", "p.yaml", "tuned[lr=1e-5]"]).ended(0).out;
    assert!(one.starts_with("nothing to do: all 5 stages of p.yaml are up to date ("), "{one}");
}

#[test]
fn many_cells_are_told_in_few_lines() {
    let project = sweep();
    let rates: Vec<String> = (1..=30).map(|n| format!("{n}e-6")).collect();
    let set = format!("stages.tuned.matrix.lr=[{}]", rates.join(", "));
    let plan = project.sluice(["plan", "p.yaml", "--set", &set]).ended(0).out;
    expect![[r#"
        stage             kind      state  rows  why
        prompts           ingest    run       -  never ran
        responses         sample    run       -  never ran
        scores            score     run       -  never ran
        pairs             pair      run       -  never ran
        tuned, 30 cells   train     run       -  never ran
        report, 30 cells  evaluate  run       -  never ran
        64 stages: 64 to run
          no estimate: nothing like this has run here yet
          memory while training: tuned 143.1 MB
    "#]]
    .assert_eq(&plan);
    assert_eq!(project.sluice(["plan", "p.yaml", "--json", "--set", &set]).ended(0).out.lines().count(), 64 + 1);
    let status = project.sluice(["status", "p.yaml", "--set", &set]).ended(0).out;
    expect![[r#"
        prompts           missing  -  -  -  never ran
        responses         waits    -  -  -  waits for `prompts`
        scores            waits    -  -  -  waits for `responses`
        pairs             waits    -  -  -  waits for `scores`
        tuned, 30 cells   waits    -  -  -  waits for `pairs`
        report, 30 cells  waits    -  -  -  waits for `prompts`, `tuned`
    "#]]
    .assert_eq(&status);
}

#[test]
fn faults_of_a_matrix_are_told_once() {
    let project = sweep();
    let faults = project.sluice([
        "check",
        "p.yaml",
        "--set",
        "stages.tuned.matrix.lr=[-1, 2]",
        "--set",
        "stages.report.evaluate.judge=policy",
    ]);
    expect![[r#"
          error: stage `tuned`: `train.learning_rate` must be a number above 0, not -1
           ╭─[--set:1:25]
         1 │ stages.tuned.matrix.lr=[-1, 2]
           ·                         ──
           ╰────

        error: 1 fault in p.yaml
    "#]]
    .assert_eq(&faults.ended(2).err);
    let misfit = project.sluice(["check", "p.yaml", "--set", "stages.report.evaluate.judge=policy"]);
    assert_eq!(misfit.ended(2).err.matches("error:").count(), 2);
}

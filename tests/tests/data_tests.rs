//! Data tests and contracts as a user meets them: in runs, plans, queries and a verb of their own.

use expect_test::{Expect, expect};
use serde_json::Value;
use sluice_tests::six_stages::six_stages;
use sluice_tests::{Project, Said};

const PROMPTS: &str = r#"{"prompt": "Name a colour.", "answer": "red", "kind": "colour", "level": 1}
{"prompt": "Name a fruit.", "answer": "plum", "kind": "fruit", "level": 2}
{"prompt": "Name another colour.", "answer": "blue", "kind": "colour", "level": 3}
{"prompt": "Name a day.", "answer": null, "kind": "day", "level": 9}
"#;

const PIPELINE: &str = "\
version: 1
stages:
  prompts:
    ingest: { from: prompts.jsonl, map: { reference: answer, group: kind }, keep: [level], split: { heldout: 0 } }
    columns: { prompt_id: text!, reference: text, level: int64 }
    tests:
      - unique: [prompt_id]
      - accepted_values: { column: group, values: [colour, fruit] }
        severity: warn
        name: known_group
  hard:
    sql: { from: [prompts], query: 'select prompt_id, prompt, level from prompts where level > 1 order by level' }
    tests:
      - range: { column: level, max: 5 }
      - relationship: { column: prompt_id, to: prompts }
  counts:
    sql: { from: [hard], query: select count(*) as n from hard }
";

fn project() -> Project {
    let project = Project::new();
    project.write("prompts.jsonl", PROMPTS);
    project.write("p.yaml", PIPELINE);
    project
}

/// What was said, without what the stages told on the way and without times.
fn told(said: &Said) -> String {
    let at = ["error:", "warning:"].iter().filter_map(|word| said.err.find(word)).min();
    at.map_or(String::new(), |at| said.err[at..].to_owned())
}

fn states(said: &Said) -> String {
    let report: Value = serde_json::from_str(said.out.lines().last().unwrap_or_default()).expect("a report");
    let state = |stage: &Value| {
        let tests = stage["tests"].as_array().into_iter().flatten();
        let tests: Vec<String> = tests
            .map(|test| {
                let known = if test["known"] == true { " (known)" } else { "" };
                format!("{} {}{known}", test["name"].as_str().unwrap_or("?"), test["outcome"].as_str().unwrap_or("?"))
            })
            .collect();
        let (name, state) = (stage["name"].as_str().unwrap_or("?"), stage["state"].as_str().unwrap_or("?"));
        format!("{name} {state}: {}\n", tests.join(", ")).replace(": \n", "\n")
    };
    report["stages"].as_array().into_iter().flatten().map(state).collect()
}

#[track_caller]
fn check_run(project: &Project, code: i32, expected: Expect) {
    expected.assert_eq(&states(&project.sluice(["run", "p.yaml", "--json"]).ended(code)));
}

#[test]
fn a_failing_test_blocks_what_follows_and_its_rows_are_a_table() {
    let project = project();
    let run = project.sluice(["run", "p.yaml"]).ended(3);
    expect![[r#"
        warning: test `known_group` of stage `prompts` failed: 1 row (p.yaml:8:9)
          row 1
            prompt_id   c5b1403a0586341a0847679f53b6bdae
            prompt      Name a day.
            reference   -
            group       day
            split       train
            source      prompts.jsonl
            source_row  3
            response    -
            label       -
            level       9
          help: `sluice sql 'select * from prompts.failed.known_group' -p p.yaml` shows them all
        error: test `range_level` of stage `hard` failed: 1 row (p.yaml:14:9)
          prompt_id                         prompt       level
          c5b1403a0586341a0847679f53b6bdae  Name a day.      9
          help: `sluice sql 'select * from hard.failed.range_level' -p p.yaml` shows them all
        help: what reads `hard` does not run until its tests pass; its result is kept
    "#]]
    .assert_eq(&told(&run));
    let counts = run.out.lines().find(|line| line.contains(" stages: ")).unwrap_or_default();
    assert!(counts.ends_with("; 5 tests: 3 passed, 1 warns, 1 failed"), "{}", run.out);
    // The rows are queried and shown like every other table.
    let query = "select level, prompt from hard.failed.range_level";
    expect![[r#"
        level,prompt
        9,Name a day.
    "#]]
    .assert_eq(&project.sluice(["sql", query, "--format", "csv"]).ended(0).out);
    let shown = project.sluice(["show", "hard.failed.range_level", "--rows", "0"]).ended(0).out;
    assert!(shown.contains("\nhard.failed.range_level  1 row, "), "{shown}");
    let shown = project.sluice(["show", "hard", "--rows", "0"]).ended(0).out;
    let tests: String =
        shown.lines().skip_while(|line| !line.starts_with("stage")).take(4).map(|l| format!("{l}\n")).collect();
    expect![[r#"
        stage  test                    outcome  found  place
        hard   range_level             failed   1 row  p.yaml:14:9
        hard   relationship_prompt_id  passed          p.yaml:15:9
        2 tests: 1 passed, 1 failed
    "#]]
    .assert_eq(&tests);
    let plan = project.sluice(["plan"]).ended(0).out;
    expect![[r#"
        stage    kind    state  rows  why
        prompts  ingest  hit       4  -
        hard     sql     fail      -  a test failed, `range_level`: 1 row (p.yaml:14:9)
        counts   sql     run       -  never ran
        3 stages: 1 hit, 1 to run, 1 that would fail
          no estimate: nothing like this has run here yet
    "#]]
    .assert_eq(&plan);
    // Nothing was lost: a test that is mended lets the rest run, and no stage is computed again.
    project.edit("p.yaml", "max: 5", "max: 10");
    let plan = project.sluice(["plan", "--exit-code"]).ended(10).out;
    expect![[r#"
        stage    kind    state  rows  why
        prompts  ingest  hit       4  -
        hard     sql     hit       3  1 test to make
        counts   sql     run       -  never ran
        3 stages: 2 hit, 1 to run
          no estimate: nothing like this has run here yet
    "#]]
    .assert_eq(&plan);
    check_run(
        &project,
        0,
        expect![[r#"
        prompts hit: columns passed (known), unique_prompt_id passed (known), known_group warned (known)
        hard hit: range_level passed, relationship_prompt_id passed (known)
        counts ran
    "#]],
    );
    check_run(
        &project,
        0,
        expect![[r#"
        prompts hit: columns passed (known), unique_prompt_id passed (known), known_group warned (known)
        hard hit: range_level passed (known), relationship_prompt_id passed (known)
        counts hit
    "#]],
    );
    let again = project.sluice(["run"]).ended(0);
    assert!(again.out.starts_with("nothing to do: all 3 stages of p.yaml are up to date"), "{}", again.out);
    assert!(again.out.ends_with("; 5 tests: 4 passed, 1 warns\n"), "{}", again.out);
    expect![[r#"
        warning: test `known_group` of stage `prompts` failed: 1 row (p.yaml:8:9)
          help: `sluice sql 'select * from prompts.failed.known_group'` shows them all
    "#]]
    .assert_eq(&again.err);
    project.sluice(["run", "--quiet"]).ended(0);
}

#[test]
fn the_verb_makes_tests_and_nothing_else() {
    let project = project();
    let nothing = project.sluice(["test", "p.yaml"]).ended(0);
    expect![[r#"
        stage    test  outcome    found  place
        prompts        no result
        hard           no result
        no tests; 2 stages have no result to test
    "#]]
    .assert_eq(&nothing.out);
    project.sluice(["run", "p.yaml", "--quiet"]).ended(3);
    project.edit("p.yaml", "unique: [prompt_id]", "unique: [group]");
    let tested = project.sluice(["test"]).ended(3);
    expect![[r#"
        stage    test                    outcome  found  place
        prompts  columns                 passed          p.yaml:5:5
        prompts  unique_group            failed   1 row  p.yaml:7:9
        prompts  known_group             warns    1 row  p.yaml:8:9
        hard     range_level             failed   1 row  p.yaml:14:9
        hard     relationship_prompt_id  passed          p.yaml:15:9
        5 tests: 2 passed, 1 warns, 2 failed
    "#]]
    .assert_eq(&tested.out);
    expect![[r#"
        error: test `unique_group` of stage `prompts` failed: 1 row (p.yaml:7:9)
          group   n_rows
          colour       2
          help: `sluice sql 'select * from prompts.failed.unique_group'` shows them all
        warning: test `known_group` of stage `prompts` failed: 1 row (p.yaml:8:9)
          row 1
            prompt_id   c5b1403a0586341a0847679f53b6bdae
            prompt      Name a day.
            reference   -
            group       day
            split       train
            source      prompts.jsonl
            source_row  3
            response    -
            label       -
            level       9
          help: `sluice sql 'select * from prompts.failed.known_group'` shows them all
        error: test `range_level` of stage `hard` failed: 1 row (p.yaml:14:9)
          prompt_id                         prompt       level
          c5b1403a0586341a0847679f53b6bdae  Name a day.      9
          help: `sluice sql 'select * from hard.failed.range_level'` shows them all
    "#]]
    .assert_eq(&tested.err);
    let one = project.sluice(["test", "hard", "--json"]).ended(3).out;
    let object: Value = serde_json::from_str(&one).expect("one object");
    assert_eq!((&object["name"], &object["there"]), (&"hard".into(), &true.into()));
    let test = &object["tests"][0];
    let keys: Vec<&String> = test.as_object().into_iter().flatten().map(|(key, _)| key).collect();
    assert_eq!(keys, ["name", "check", "severity", "outcome", "failures", "known", "place", "key"]);
    assert_eq!((&test["failures"], &test["known"], &test["place"]), (&1.into(), &true.into(), &"p.yaml:14:9".into()));
    project.sluice(["status"]).ended(0);
}

#[test]
fn a_contract_is_checked_beforehand_where_columns_are_known_and_afterwards_where_they_are_not() {
    let project = project();
    project.edit("p.yaml", "reference: text, level: int64", "reference: float32, level: int64, gruop: text");
    let said = project.sluice(["check", "p.yaml"]).ended(2);
    expect![[r#"
          error: stage `prompts`: `columns.reference` is float32, and `prompts` has it as text
           ╭─[p.yaml:5:45]
         4 │     ingest: { from: prompts.jsonl, map: { reference: answer, group: kind }, keep: [level], split: { heldout: 0 } }
         5 │     columns: { prompt_id: text!, reference: float32, level: int64, gruop: text }
           ·                                             ───────
         6 │     tests:
           ╰────
          help: write `reference: text`

          error: stage `prompts`: `columns.gruop` is a column that `prompts` does not have
           ╭─[p.yaml:5:75]
         4 │     ingest: { from: prompts.jsonl, map: { reference: answer, group: kind }, keep: [level], split: { heldout: 0 } }
         5 │     columns: { prompt_id: text!, reference: float32, level: int64, gruop: text }
           ·                                                                           ────
         6 │     tests:
           ╰────
          help: did you mean `group`?

        error: 2 faults in p.yaml
    "#]].assert_eq(&said.err);
    // What only the rows tell: the type of a kept column, a null, the columns of a query.
    project.write("p.yaml", &PIPELINE.replace("reference: text, level: int64", "reference: text!, level: float64"));
    project.edit("p.yaml", "sql: { from: [hard]", "columns: { n: int32!, \"*\": none }\n    sql: { from: [hard]");
    project.sluice(["check", "p.yaml"]).ended(0);
    let run = project.sluice(["run", "p.yaml"]).ended(3);
    expect![[r#"
        error: test `columns` of stage `prompts` failed: 2 columns (p.yaml:5:5)
          level      expected float64  found int64          p.yaml:5:59
          reference  expected text!    found 1 row is null  p.yaml:5:45
          help: `sluice sql 'select * from prompts.failed.columns' -p p.yaml` shows them all
        warning: test `known_group` of stage `prompts` failed: 1 row (p.yaml:8:9)
          row 1
            prompt_id   c5b1403a0586341a0847679f53b6bdae
            prompt      Name a day.
            reference   -
            group       day
            split       train
            source      prompts.jsonl
            source_row  3
            response    -
            label       -
            level       9
          help: `sluice sql 'select * from prompts.failed.known_group' -p p.yaml` shows them all
        help: what reads `prompts` does not run until its tests pass; its result is kept
    "#]]
    .assert_eq(&told(&run));
    let query = "select * from prompts.failed.columns";
    expect![[r#"
        column,expected,found
        level,float64,int64
        reference,text!,1 row is null
    "#]]
    .assert_eq(&project.sluice(["sql", query, "--format", "csv"]).ended(0).out);
    // The result is there all the same.
    project.sluice(["show", "prompts", "--rows", "0"]).ended(0);
    project.edit("p.yaml", "reference: text!, level: float64", "reference: text");
    project.edit("p.yaml", "max: 5", "max: 10");
    let run = project.sluice(["run", "p.yaml"]).ended(3);
    expect![[r#"
        warning: test `known_group` of stage `prompts` failed: 1 row (p.yaml:8:9)
          help: `sluice sql 'select * from prompts.failed.known_group' -p p.yaml` shows them all
        error: test `columns` of stage `counts` failed: 1 column (p.yaml:17:5)
          n  expected int32!  found int64  p.yaml:17:19
          help: `sluice sql 'select * from counts.failed.columns' -p p.yaml` shows them all
        help: what reads `counts` does not run until its tests pass; its result is kept
    "#]]
    .assert_eq(&told(&run));
}

#[test]
fn a_test_that_cannot_be_made_is_a_fault_of_the_file() {
    let project = project();
    project.edit("p.yaml", "range: { column: level, max: 5 }", "sql: select levle from this");
    let run = project.sluice(["run", "p.yaml"]).ended(2);
    expect![[r#"
        warning: test `known_group` of stage `prompts` failed: 1 row (p.yaml:8:9)
          row 1
            prompt_id   c5b1403a0586341a0847679f53b6bdae
            prompt      Name a day.
            reference   -
            group       day
            split       train
            source      prompts.jsonl
            source_row  3
            response    -
            label       -
            level       9
          help: `sluice sql 'select * from prompts.failed.known_group' -p p.yaml` shows them all
        error: stage `hard` failed
          because: test `sql` cannot be made (p.yaml:14:9)
          because: at 1:8: there is no column `levle`; there is `prompt_id`, `prompt`, `level`
          help: mend it and run again; finished stages are kept
    "#]]
    .assert_eq(&told(&run));
    expect![[r#"
        error: test `sql` of stage `hard` cannot be made: at 1:8: there is no column `levle`; there is `prompt_id`, `prompt`, `level` (p.yaml:14:9)
    "#]].assert_eq(&told(&project.sluice(["test", "hard"]).ended(2)));
}

#[test]
fn a_metric_is_a_gate() {
    let project = six_stages("p.yaml");
    project.edit("p.yaml", "  report:\n", "  report:\n    tests:\n      - metric: { name: win_rate_sampled, min: 1.5 }\n      - metric: { name: prompts, min: 6 }\n");
    let run = project.sluice(["run", "p.yaml"]).ended(3);
    let told = told(&run);
    let rate =
        told.split("win_rate_sampled is ").nth(1).and_then(|rest| rest.split(';').next()).unwrap_or("RATE").to_owned();
    expect![[r#"
        error: test `metric_win_rate_sampled` of stage `report` failed: win_rate_sampled is RATE; at least 1.5 is wanted (p.yaml:25:9)
        help: what reads `report` does not run until its tests pass; its result is kept
    "#]].assert_eq(&told.replace(&rate, "RATE"));
}

/// Of the cells of one stage, two have a row that breaks a test.
const MATRIX: &str = "\
version: 1
stages:
  prompts: { ingest: { from: prompts.jsonl, keep: [level], split: { heldout: 0 } } }
  above:
    sql: { from: [prompts], query: 'select prompt, level from prompts where level > ${matrix.least} order by level' }
    matrix: { least: [1, 4, 9] }
    tests:
      - range: { column: level, max: 8 }
      - unique: [level]
  counts:
    sql: { from: [above], query: select count(*) as n from above }
";

#[test]
fn the_tests_of_a_matrix_are_made_for_each_cell() {
    let project = project();
    project.write("p.yaml", MATRIX);
    check_run(
        &project,
        3,
        expect![[r#"
            prompts ran
            above[least=1] failed: range_level failed, unique_level passed
            above[least=4] failed: range_level failed, unique_level passed
            above[least=9] ran: range_level passed, unique_level passed
            counts[least=1] blocked
            counts[least=4] blocked
            counts[least=9] ran
        "#]],
    );
    expect![[r#"
        error: test `range_level` of stage `above[least=4]` failed: 1 row (p.yaml:8:9)
          prompt       level
          Name a day.      9
          help: `sluice sql 'select * from "above[least=4]".failed.range_level'` shows them all
    "#]]
    .assert_eq(&project.sluice(["test", "above[least=4]"]).ended(3).err);
    // The rows at fault are a table for each cell that has any, and all of them together.
    let rows = |table: &str| {
        let query = format!("select * from {table}");
        project.sluice(["sql", &query, "--format", "csv"]).ended(0).out
    };
    expect![[r#"
        prompt,level
        Name a day.,9
    "#]]
    .assert_eq(&rows("\"above[least=4]\".failed.range_level"));
    expect![[r#"
        least,prompt,level
        1,Name a day.,9
        4,Name a day.,9
    "#]]
    .assert_eq(&rows("above.failed.range_level order by least"));
    let none = project.sluice(["sql", "select * from \"above[least=9]\".failed.range_level"]).ended(2).err;
    assert!(none.contains("there is no table `above[least=9].failed.range_level`"), "{none}");
    // One cell more makes its own tests, and the others none again.
    project.edit("p.yaml", "[1, 4, 9]", "[1, 4, 9, 2]");
    check_run(
        &project,
        3,
        expect![[r#"
            prompts hit
            above[least=1] failed: range_level failed (known), unique_level passed (known)
            above[least=4] failed: range_level failed (known), unique_level passed (known)
            above[least=9] hit: range_level passed (known), unique_level passed (known)
            above[least=2] failed: range_level failed, unique_level passed
            counts[least=1] blocked
            counts[least=4] blocked
            counts[least=9] hit
            counts[least=2] blocked
        "#]],
    );
}

#[test]
fn an_outcome_stays_in_the_store_as_long_as_what_was_tested() {
    let project = project();
    project.sluice(["run", "p.yaml", "prompts", "--quiet"]).ended(0);
    // No run has made this test.
    project.edit("p.yaml", "unique: [prompt_id]", "unique: [group]");
    project.sluice(["test", "prompts"]).ended(3);
    let collect = |policy: &[&str]| {
        project.sluice([&["gc", "--grace-hours", "0", "--quiet"], policy].concat()).ended(0);
        project.sluice(["fsck"]).ended(0);
    };
    collect(&[]);
    let tested = project.sluice(["test", "prompts", "--json"]).ended(3).out;
    let tested: Value = serde_json::from_str(&tested).expect("one object");
    assert_eq!((&tested["tests"][1]["name"], &tested["tests"][1]["known"]), (&"unique_group".into(), &true.into()));
    let query = "select \"group\", n_rows from prompts.failed.unique_group";
    expect![[r#"
        group,n_rows
        colour,2
    "#]]
    .assert_eq(&project.sluice(["sql", query, "--format", "csv"]).ended(0).out);
    // It goes with the last run that had the result: equal rows are tested anew.
    project.write("prompts.jsonl", &PROMPTS.replace("a colour", "one colour"));
    project.sluice(["run", "p.yaml", "--quiet"]).ended(3);
    collect(&["--keep-runs", "1"]);
    project.write("prompts.jsonl", PROMPTS);
    check_run(
        &project,
        3,
        expect![[r#"
        prompts failed: columns passed, unique_group failed, known_group warned
        hard blocked
        counts blocked
    "#]],
    );
}

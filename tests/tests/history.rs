//! The history of a store as its users see it: runs, tags, and tables as they were.

use expect_test::{Expect, expect};
use sluice_tests::{Project, Said};

const ROWS: &str = r#"{"question": "One?", "topic": "a"}
{"question": "Two?", "topic": "b"}
{"question": "Three?", "topic": "a"}
"#;

/// Two stages without a model.
const PIPELINE: &str = "\
version: 1
stages:
  prompts: { ingest: { from: rows.jsonl, map: { prompt: question, group: topic }, split: { heldout: 0 } } }
  groups: { sql: { from: [prompts], query: 'select \"group\", count(*) as n from prompts group by \"group\" order by \"group\"' } }
";

/// A project with three runs: the second has another row, the third nothing new.
fn three_runs() -> Project {
    let project = Project::new();
    project.write("rows.jsonl", ROWS);
    project.write("p.yaml", PIPELINE);
    project.sluice(["run", "p.yaml"]).ended(0);
    project.write("rows.jsonl", &format!("{ROWS}{}\n", r#"{"question": "Four?", "topic": "b"}"#));
    project.sluice(["run", "p.yaml", "--set", "stages.prompts.ingest.from=rows.jsonl"]).ended(0);
    project.sluice(["run", "p.yaml"]).ended(0);
    project
}

/// What is said, in columns without the times.
fn without_times(said: &Said) -> String {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_time = |at: usize| {
            matches!(words[at], "just" | "now" | "ms" | "s") || matches!(words.get(at + 1), Some(&"ms" | &"s"))
        };
        (0..words.len()).filter(|at| !is_time(*at)).map(|at| words[at]).collect::<Vec<_>>().join(" ") + "\n"
    };
    said.out.lines().map(line).collect()
}

#[track_caller]
fn check_sql(project: &Project, query: &str, expected: Expect) {
    expected.assert_eq(&project.sluice(["sql", query, "--format", "csv"]).ended(0).out);
}

#[track_caller]
fn check_refused(project: &Project, arguments: &[&str], expected: Expect) {
    expected.assert_eq(&project.sluice(arguments).ended(2).err);
}

#[test]
fn runs_are_listed_with_how_they_were_called() {
    let project = three_runs();
    project.sluice(["tag", "first", "r1"]).ended(0);
    expect![[r#"
        run started state time ran hit of pipeline tags
        r1 ran 2 0 2 p.yaml first
        r2 ran 2 0 2 p.yaml
        r3 hit 0 2 2 p.yaml
    "#]]
    .assert_eq(&without_times(&project.sluice(["runs"]).ended(0)));
    let listed = project.sluice(["runs", "p.yaml", "-n", "2", "--json"]).ended(0).out;
    let objects: Vec<serde_json::Value> =
        listed.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect();
    assert_eq!(objects.len(), 2);
    assert_eq!(objects[0]["run"], "r2");
    assert_eq!(objects[0]["set"][0], "stages.prompts.ingest.from=rows.jsonl");
    assert_eq!(objects[0]["program"], env!("CARGO_PKG_VERSION"));
    assert_eq!(objects[1]["stages"][1]["outcome"], "hit");
    assert_eq!(project.sluice(["runs", "other.yaml"]).ended(0).out, "nothing has been run yet\n");
}

#[test]
fn a_tag_never_moves_silently() {
    let project = three_runs();
    let say = |arguments: &[&str], code: i32| {
        let said = project.sluice(arguments).ended(code);
        said.out + &said.err
    };
    expect![[r#"
        gold is run r1 of p.yaml
    "#]]
    .assert_eq(&say(&["tag", "gold", "r1"], 0));
    expect![[r#"
        gold is run r1 of p.yaml already
    "#]]
    .assert_eq(&say(&["tag", "gold", "prev"], 0));
    expect![[r#"
        error: tag `gold` names run r1; `--force` makes it name r3
    "#]]
    .assert_eq(&say(&["tag", "gold"], 2));
    expect![[r#"
        gold is run r3 of p.yaml; it was r1
    "#]]
    .assert_eq(&say(&["tag", "gold", "--force"], 0));
    expect![[r#"
        tag run started pipeline
        gold r3 p.yaml
    "#]]
    .assert_eq(&without_times(&project.sluice(["tag", "--list"]).ended(0)));
    expect![[r#"
        gold is no tag any more; it was run r3
    "#]]
    .assert_eq(&say(&["tag", "gold", "--delete"], 0));
    expect![[r#"
        error: there is no tag `gold`
          help: there are none yet; `sluice tag gold` makes it
    "#]]
    .assert_eq(&say(&["tag", "gold", "--delete"], 2));
    expect![[r#"
        error: `r7` cannot be a tag, since it names a run already; choose another word
    "#]]
    .assert_eq(&say(&["tag", "r7"], 2));
    expect![[r#"
        error: the store has no run r9
          help: it has r1 to r3
    "#]]
    .assert_eq(&say(&["tag", "gold", "r9"], 2));
}

#[test]
fn tables_are_asked_for_as_they_were() {
    let project = three_runs();
    project.sluice(["tag", "gold-1", "r1"]).ended(0);
    let counts = "select (select count(*) from prompts) as now, (select count(*) from prompts@prev) as prev, \
                  (select count(*) from prompts@r2) as r2, (select count(*) from \"prompts@tag:gold-1\") as gold";
    check_sql(
        &project,
        counts,
        expect![[r#"
            now,prev,r2,gold
            4,3,4,3
        "#]],
    );
    check_sql(
        &project,
        "select g.\"group\", g.n, groups.n as now from groups@tag:gold-1 g join groups using (\"group\") order by 1",
        expect![[r#"
            group,n,now
            a,2,2
            b,1,2
        "#]],
    );
    let shown = project.sluice(["show", "prompts@r1", "--json", "--rows", "0"]).ended(0).out;
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("one object");
    assert_eq!((&shown["run"], &shown["outputs"][0]["rows"]), (&"r1".into(), &3.into()));
    let shown = project.sluice(["show", "prompts@prev", "--rows", "0"]).ended(0).out;
    assert!(shown.starts_with("prompts of run r1  ingest, made "), "{shown}");
    let why = project.sluice(["why", "groups", "--vs", "tag:gold-1"]).ended(0).out;
    assert!(
        why.starts_with("groups is up to date; since run r1, this changed in its key:\n  input.prompts  "),
        "{why}"
    );
    expect![[r#"
        groups is up to date; nothing in its key differs from run r2
    "#]]
    .assert_eq(&project.sluice(["why", "groups", "--vs", "r2"]).ended(0).out);
}

#[test]
fn what_was_never_there_is_told_with_what_was() {
    let project = three_runs();
    project.sluice(["tag", "gold", "r1"]).ended(0);
    check_refused(
        &project,
        &["sql", "select * from prompts@r9"],
        expect![[r#"
            error: the store has no run r9
              help: it has r1 to r3
        "#]],
    );
    check_refused(
        &project,
        &["show", "prompts@tag:golt"],
        expect![[r#"
            error: there is no tag `golt`
              help: did you mean `gold`?
        "#]],
    );
    check_refused(
        &project,
        &["sql", "select * from prompt@r1"],
        expect![[r#"
            error: run r1 had no stage `prompt`
              help: did you mean `prompts`?
        "#]],
    );
    check_refused(
        &project,
        &["sql", "select * from prompts.dropped@r1"],
        expect![[r#"
            error: there is no table `prompts.dropped` in run r1
              help: stage `prompts` made prompts
        "#]],
    );
    check_refused(
        &project,
        &["why", "prompts", "--vs", "17"],
        expect![[r#"
            error: `17` names no run; a run is `r` and a number, `last`, `prev`, or `tag:` and a name, as in r17 and tag:gold
        "#]],
    );
    check_refused(
        &project,
        &["sql", "select * from prompts@yesterday"],
        expect![[r#"
            error: `yesterday` names no run; a run is `r` and a number, `last`, `prev`, or `tag:` and a name, as in r17 and tag:gold
        "#]],
    );
}

/// What is said, without times.
fn diffed(project: &Project, arguments: &[&str]) -> String {
    let said = project.sluice([&["diff"], arguments].concat()).ended(0).out;
    let is_hex = |word: &str| word.len() >= 12 && word.chars().all(|c| c.is_ascii_hexdigit());
    let line = |line: &str| {
        let words = line.split(' ').map(|word| if is_hex(word) { "*" } else { word });
        words.collect::<Vec<_>>().join(" ") + "\n"
    };
    said.lines().map(line).collect()
}

#[test]
fn two_runs_are_compared_down_to_the_row() {
    let project = three_runs();
    project.sluice(["tag", "gold", "r1"]).ended(0);
    project.edit("p.yaml", "count(*) as n from", "count(*) * 2 as n, max(split) as part from");
    project.sluice(["run", "p.yaml"]).ended(0);
    expect![[r#"
        -  r1  just now  p.yaml
        +  r2  just now  p.yaml  --set stages.prompts.ingest.from=rows.jsonl

        prompts  ingest
          input.from  *  →  *  --set stages.prompts.ingest.from=rows.jsonl
          rows_read  3  →  4  +1
          train      3  →  4  +1
          prompts: 3 → 4 rows: 1 added, 3 the same (by prompt_id)
            + prompt_id *  prompt Four?  group b  split train  source rows.jsonl  source_row 3

        groups  sql
          input.prompts  *  →  *  p.yaml:4:27
          groups: 2 → 2 rows: 1 changed, 1 the same (by group)
            changed in n 1
            ~ group b  n 1 → 2
    "#]]
    .assert_eq(&diffed(&project, &["r1", "r2"]));
    expect![[r#"
        -  r3 (prev)  just now  p.yaml
        +  r4 (last)  just now  p.yaml

        groups  sql
          sql.query  …ount(*) as n from pr…  →  …ount(*) * 2 as n, max(split) as part from pr…  p.yaml:4:44
          groups: 2 → 2 rows: 2 changed (by group)
            column part, Utf8 or null, is new
            changed in n 2
            ~ group a  n 2 → 4
            ~ group b  n 2 → 4

        the same in both: prompts
    "#]]
    .assert_eq(&diffed(&project, &[]));
    expect![[r#"
        -  r1 (tag:gold)  just now  p.yaml
        +  r4             just now  p.yaml

        groups  sql
          input.prompts  *            →  *                                    p.yaml:4:27
          sql.query      …ount(*) as n from pr…  →  …ount(*) * 2 as n, max(split) as part from pr…  p.yaml:4:44
          groups: 2 → 2 rows: 2 changed (by group)
            column part, Utf8 or null, is new
            changed in n 2
            ~ group a  n 2 → 4
    "#]]
    .assert_eq(&diffed(&project, &["tag:gold", "r4", "groups", "--rows", "1"]));
    expect![[r#"
        -  r2  just now  p.yaml  --set stages.prompts.ingest.from=rows.jsonl
        +  r3  just now  p.yaml

        nothing differs
    "#]]
    .assert_eq(&diffed(&project, &["r2", "r3"]));
    let compared = project.sluice(["diff", "r1", "r2", "--json"]).ended(0).out;
    let compared: serde_json::Value = serde_json::from_str(&compared).expect("one object");
    let prompts = &compared["stages"][0]["outputs"][0];
    assert_eq!((&compared["old"], &compared["new"]), (&"r1".into(), &"r2".into()));
    assert_eq!((&prompts["n_added"], &prompts["n_same"]), (&1.into(), &3.into()));
    assert_eq!(prompts["added"][0]["prompt"], "Four?");
    assert_eq!(compared["stages"][1]["outputs"][0]["changed"].as_array().map(Vec::len), Some(1));
    // As the file is now: the last result is there, and what a changed line would make is not.
    project.edit("p.yaml", "* 2", "* 3");
    let now = diffed(&project, &["last", "now"]);
    assert!(now.ends_with("groups  sql  no result in now\n\nthe same in both: prompts\n"), "{now}");
    check_refused(
        &project,
        &["diff", "r1", "gold"],
        expect![[r#"
        error: neither run had a stage `gold`
          help: there is prompts, groups
    "#]],
    );
    check_refused(
        &project,
        &["diff", "r1", "r2", "group"],
        expect![[r#"
        error: neither run had a stage `group`
          help: did you mean `groups`?
    "#]],
    );
    check_refused(
        &project,
        &["diff", "prev", "r1"],
        expect![[r#"
        error: no earlier run of p.yaml differs in anything
    "#]],
    );
}

//! The table stages on a real store: outputs, metrics, and that equal inputs give equal tables.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use expect_test::{Expect, expect};
use sluice_spec::{Kind, Options, parse};
use sluice_sql::{Format, NamedTable, Session, TableData, render};
use sluice_stages::{Device, InputData, Produced, StageContext, StageError, StageInput, run};
use sluice_store::{Artifact, Output, RecordDraft, StageKey, Store};
use sluice_table::{FinishReason, Named, PromptId, ScoreRow, Scores, ScoresBuilder, Split};

/// A project with one prompts table, made by an `ingest` stage.
struct Project {
    folder: tempfile::TempDir,
    store: Store,
}

impl Project {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let rows: String = (0..40).map(|i| format!("question {i},{}\n", ["sums", "dates"][i % 2])).collect();
        fs::write(folder.path().join("x.csv"), format!("prompt,family\n{rows}")).expect("a file");
        let store = Store::open(folder.path().join(".sluice")).expect("a store");
        Self { folder, store }
    }

    /// Runs a stage as attempt number `attempt` and commits it.
    fn run(&self, kind: &Kind, inputs: &[StageInput], attempt: u8) -> Result<Produced, StageError> {
        let attempt = self.store.begin(StageKey::from_bytes([attempt; 32])).expect("an attempt");
        let context = StageContext {
            project: self.folder.path(),
            store: &self.store,
            inputs,
            attempt: &attempt,
            fresh: false,
            device: Device::CPU,
            progress: &|_| {},
            notify: &|_| {},
            clock: &|| 0.0,
            cancel: &AtomicBool::new(false),
        };
        let produced = run(kind, &context)?;
        let draft = RecordDraft { outputs: produced.outputs.clone(), ..RecordDraft::default() };
        attempt.commit(draft).expect("a record");
        Ok(produced)
    }

    fn prompts(&self, attempt: u8) -> Produced {
        let kinds = kinds("prompts: { ingest: { from: x.csv, map: { group: family }, split: { heldout: 0.2 } } }");
        self.run(&kinds[0], &[], attempt).expect("prompts")
    }

    /// A fixed `scores` table: a clear pair, a tie, a small margin, a held-out prompt and one with a single answer.
    fn scores(&self, attempt: u8) -> Output {
        let mut builder = ScoresBuilder::new();
        let rows = [
            ("clear", Split::Train, 0, "yes", 1.5),
            ("clear", Split::Train, 1, "no", -0.25),
            ("clear", Split::Train, 2, "perhaps", 0.5),
            ("tie", Split::Train, 0, "one", 0.75),
            ("tie", Split::Train, 1, "two", 0.75),
            ("small", Split::Train, 0, "more", 0.5),
            ("small", Split::Train, 1, "less", 0.375),
            ("held", Split::Heldout, 0, "a", 1.0),
            ("held", Split::Heldout, 1, "b", 0.0),
            ("single", Split::Train, 0, "alone", 2.0),
        ];
        for (prompt, split, sample_index, response, score) in rows {
            let n_tokens = response.len() as u32;
            builder.push(ScoreRow {
                response_id: &format!("{prompt}-{sample_index}"),
                prompt_id: &PromptId::of(prompt).to_string(),
                prompt,
                reference: Some("yes").filter(|_| sample_index == 0),
                group: Some("fixed"),
                split,
                sample_index,
                response,
                n_prompt_tokens: 3,
                n_tokens,
                logp_sum: -0.5 * n_tokens as f32,
                finish_reason: FinishReason::Stop,
                seed: u64::from(sample_index),
                policy_digest: "policy",
                score,
                rewards: Named::new(&["right".to_owned()], &[score]),
                gating: Named::new(&["right".to_owned()], &[1.0]),
                reward_model_digest: "reward",
            });
        }
        let (name, batch) = (Scores::NAME, builder.finish());
        let attempt = self.store.begin(StageKey::from_bytes([attempt; 32])).expect("an attempt");
        let mut writer = attempt.write_table(name, batch.schema()).expect("a table");
        writer.write(&batch).expect("rows");
        let table = writer.finish().expect("a table");
        let output = Output { name: name.to_owned(), artifact: Artifact::Table(table) };
        attempt.commit(RecordDraft { outputs: vec![output.clone()], ..RecordDraft::default() }).expect("a record");
        output
    }

    fn shown(&self, output: &Output, query: &str) -> String {
        let data = TableData::Stored { store: self.store.clone(), output: output.clone() };
        let session = Session::new(vec![NamedTable { name: "t".to_owned(), data }]).expect("a session");
        render(&session.query(query).expect("rows"), Format::Csv).expect("text")
    }
}

/// The kinds of a pipeline's stages, in the order of the file.
fn kinds(stages: &str) -> Vec<Kind> {
    let text = format!("version: 1\nmodels: {{ m: m }}\nstages:\n  {stages}\n");
    let pipeline = parse("test.yaml", &text, &Options::default()).unwrap_or_else(|faults| panic!("{faults:?}"));
    pipeline.stages.into_iter().map(|stage| stage.kind).collect()
}

fn said(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}\n  because: {}", said(source)),
        None => error.to_string(),
    }
}

/// Runs a query as a `sql` stage over `prompts` and prints its table, or the error.
fn check_query(query: &str, expected: Expect) {
    let project = Project::new();
    let prompts = project.prompts(1).outputs[0].clone();
    let kinds = kinds(&format!(
        "prompts: {{ ingest: {{ from: x.csv }} }}\n  out: {{ sql: {{ from: [prompts], query: \"{query}\" }} }}"
    ));
    let inputs = [StageInput { role: "prompts".to_owned(), data: InputData::Table(prompts) }];
    let printed = match project.run(&kinds[1], &inputs, 2) {
        Ok(produced) => project.shown(&produced.outputs[0], "select * from t"),
        Err(error) => said(&error),
    };
    expected.assert_eq(&printed);
}

#[test]
fn a_query_becomes_a_table_in_its_order() {
    check_query(
        "select \\\"group\\\", count(*) as n from prompts group by 1 order by 1",
        expect![[r#"
        group,n
        dates,20
        sums,20
    "#]],
    );
    check_query(
        "select prompt from prompts where prompt = 'nothing'",
        expect![[r#"
        prompt
    "#]],
    );
}

#[test]
fn a_query_that_cannot_be_kept_says_why() {
    check_query(
        "select * from scores",
        expect!["the query reads `scores`, which is not in `from`; `from` has prompts"],
    );
    check_query(
        "select prompt, prompt from prompts",
        expect![[
            r#"projections require unique expression names but the expression "prompts.prompt" at position 0 and "prompts.prompt" at position 1 have the same name. Consider aliasing ("AS") one of them"#
        ]],
    );
    check_query(
        "select prompt as a, reference as a from prompts",
        expect![[
            r#"projections require unique expression names but the expression "prompts.prompt AS a" at position 0 and "prompts.reference AS a" at position 1 have the same name. Consider aliasing ("AS") one of them"#
        ]],
    );
    check_query(
        "select p.prompt, q.prompt from prompts p join prompts q using (prompt_id)",
        expect!["two columns of the answer are called `prompt`; name one of them with AS"],
    );
    check_query(
        "select prompt from prompts order by random()",
        expect!["at 1:37: `random()` gives another value at each run, so its result cannot be kept"],
    );
    check_query(
        "select promt from prompts",
        expect![
            "at 1:8: there is no column `promt`; there is `prompt_id`, `prompt`, `reference`, `group`, `split`, `source`, `source_row`, `response`, `label`"
        ],
    );
}

#[test]
fn equal_files_give_an_equal_table_and_metrics() {
    let project = Project::new();
    let (one, two) = (project.prompts(1), project.prompts(2));
    assert_eq!(one, two);
    assert_eq!(one.n_rows, 40);
    expect![[r#"{"dropped_contaminated": 0.0, "dropped_duplicate": 0.0, "dropped_empty": 0.0, "dropped_limit": 0.0, "dropped_where": 0.0, "heldout": 12.0, "rows_read": 40.0, "train": 28.0}"#]].assert_eq(&format!("{:?}", one.metrics));
    let query = "select split, count(*) as n, min(source) as source from t group by 1 order by 1";
    expect![[r#"
        split,n,source
        heldout,12,x.csv
        train,28,x.csv
    "#]]
    .assert_eq(&project.shown(&one.outputs[0], query));
}

#[test]
fn a_stage_that_is_asked_to_stop_leaves_nothing() {
    let project = Project::new();
    let attempt = project.store.begin(StageKey::from_bytes([1; 32])).expect("an attempt");
    let context = StageContext {
        project: project.folder.path(),
        store: &project.store,
        inputs: &[],
        attempt: &attempt,
        fresh: false,
        device: Device::CPU,
        progress: &|_| {},
        notify: &|_| {},
        clock: &|| 0.0,
        cancel: &AtomicBool::new(true),
    };
    let error = run(&kinds("prompts: { ingest: { from: x.csv } }")[0], &context).expect_err("stopped");
    assert!(matches!(error, StageError::Cancelled), "{error}");
    drop(attempt);
    assert!(project.store.lookup(StageKey::from_bytes([1; 32])).expect("readable").is_none());
    assert!(is_empty(&project.store.root().join("objects")) && is_empty(&project.store.root().join("tmp")));
}

/// What each kind that runs no model makes of a small fixed input. A digest that changes makes every user compute what
/// follows again, under keys that say nothing changed: raise the kind's `VERSION` with it.
#[test]
fn the_tables_of_a_version_never_change() {
    let project = Project::new();
    let rows = r#"{"q": "Two and two?", "a": "4", "level": 2, "part": "train"}
{"q": "two  and two?", "a": "four", "level": 2, "part": "train"}
{"q": "Which day is it?", "a": null, "level": 3, "part": "heldout"}
{"q": "Say \u00e9t\u00e9.", "a": "\u00e9t\u00e9", "level": 1, "part": "train"}
{"q": "", "a": "nothing", "level": 1, "part": "train"}
"#;
    fs::write(project.folder.path().join("rows.jsonl"), rows).expect("a file");
    let kinds = kinds(
        "rows: { ingest: { from: rows.jsonl, map: { prompt: q, reference: a }, keep: [level], split: { column: part } } }
  byhash: { ingest: { from: x.csv, map: { group: family }, split: { heldout: 0.2, seed: 3 }, limit: 6 } }
  counts: { sql: { from: [byhash], query: 'select \"group\", split, count(*) as n, min(prompt) as first from byhash
    group by 1, 2 order by 1, 2' } }
  responses: { sample: { prompts: rows, model: m } }
  scores: { score: { responses: responses, model: m } }
  pairs: { pair: { scores: scores, ties: first, min_margin: 0.25 } }",
    );
    let byhash = project.run(&kinds[1], &[], 2).expect("prompts");
    let table =
        |role: &str, output: &Output| StageInput { role: role.to_owned(), data: InputData::Table(output.clone()) };
    let made = [
        ("ingest, by a column", project.run(&kinds[0], &[], 1).expect("prompts")),
        ("sql", project.run(&kinds[2], &[table("byhash", &byhash.outputs[0])], 3).expect("counts")),
        ("pair", project.run(&kinds[5], &[table("scores", &project.scores(4))], 5).expect("pairs")),
        ("ingest, by digest", byhash),
    ];
    let mut told = String::new();
    for (what, produced) in &made {
        for output in &produced.outputs {
            told += &format!("{what}: {} {} {}\n", output.name, output.n_rows().unwrap_or(0), output.digest());
        }
    }
    expect![[r#"
        ingest, by a column: prompts 4 e56578cdb634721c88dadf2500bdc1fe9683f5bc313cb6d777acd1b94e086a30
        sql: table 4 78d59333e6d219bbc1a7c451115f0404f1a789f0e7eccb5a6410dd4b0b144c33
        pair: pairs 1 88137999a7c9ca0f1e3b4e41aab77a41da0e6049822f5491f32df0fa0df28105
        pair: dropped 4 58ded393670e5449d501b3dd9ae32d5e1856eb866ca73663d707a8e9c959130f
        ingest, by digest: prompts 12 7b2a8ab3cd317de7535530ea4202ab467fc60694c6fce68392b30b4343bc62ae
    "#]]
    .assert_eq(&told);
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

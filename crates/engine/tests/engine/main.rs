//! The run loop over a real store with a runner that computes texts instead of models. Each case is a pipeline,
//! a change, and the lines that tell what happened.

mod damaged;
mod explained;
mod fake;
mod forced;
mod keys;
mod price;
mod swept;
mod tested;
mod verify;

use std::collections::BTreeSet;
use std::fs;
use std::sync::Mutex;
use std::time::Instant;

use expect_test::{Expect, expect};
use fake::{FakeRunner, Workshop};
use serde_json::Value;
use sluice_engine::{Event, derive_key};
use sluice_store::LeafValue;

const PIPELINE: &str = "\
version: 1
models: { policy: models/policy, reward: models/reward }
stages:
  prompts:   { ingest: { from: prompts.jsonl } }
  responses: { sample: { prompts: prompts, model: policy, n: 5, temperature: 0.8 } }
  scores:    { score: { responses: responses, model: reward } }
  pairs:     { pair: { scores: scores, ties: drop } }
  lengths:   { sql: { from: [responses], query: select count(*) from responses } }
  tuned:
    train:
      pairs: pairs
      model: policy
      objective: { simpo: { beta: 10, gamma_beta_ratio: 0.5 } }
      learning_rate: 8.0e-7
  report:    { evaluate: { prompts: prompts, candidate: tuned, baseline: policy, judge: reward } }
";

fn with(old: &str, new: &str) -> String {
    assert!(PIPELINE.contains(old), "`{old}` is in the pipeline");
    PIPELINE.replace(old, new)
}

/// Run `before`, then `after` in the same store, and compare what the second run did.
fn check(before: &str, after: &str, expected: Expect) {
    let shop = Workshop::new();
    let runner = FakeRunner::default();
    shop.run(before, &runner);
    expected.assert_eq(&shop.run(after, &runner));
}

#[test]
fn a_first_run_computes_everything() {
    let shop = Workshop::new();
    let runner = FakeRunner::default();
    let told = shop.run(PIPELINE, &runner);
    expect![[r#"
        prompts ran: never ran
        responses ran: never ran
        scores ran: never ran
        pairs ran: never ran
        lengths ran: never ran
        tuned ran: never ran
        report ran: never ran
        run ran
    "#]]
    .assert_eq(&told);
}

#[test]
fn a_second_run_does_nothing() {
    let nothing = || {
        expect![[r#"
            prompts hit
            responses hit
            scores hit
            pairs hit
            lengths hit
            tuned hit
            report hit
            run hit
        "#]]
    };
    check(PIPELINE, PIPELINE, nothing());
    let default_written = with("ties: drop", "ties: drop, min_margin: 0.0");
    check(PIPELINE, &default_written, nothing());
    let reordered = with("n: 5, temperature: 0.8", "temperature: 0.8, n: 5");
    check(PIPELINE, &format!("# another comment\n{reordered}"), nothing());
    check(PIPELINE, &with("ties: drop } }", "ties: drop }, tags: [nightly] }"), nothing());
}

#[test]
fn a_changed_rule_runs_its_stage_and_what_follows() {
    check(
        PIPELINE,
        &with("ties: drop", "ties: first"),
        expect![[r#"
        prompts hit
        responses hit
        scores hit
        pairs ran: pair.ties drop -> first (p.yaml:7:46)
        lengths hit
        tuned ran: input.pairs * -> * (p.yaml:11:14)
        report ran: input.candidate * -> * (p.yaml:15:57)
        run ran
    "#]],
    );
}

#[test]
fn a_value_that_goes_back_to_its_default_says_where_it_was() {
    check(
        &with("ties: drop", "ties: first"),
        &with(", ties: drop", ""),
        expect![[r#"
        prompts hit
        responses hit
        scores hit
        pairs ran: pair.ties first -> drop (was p.yaml:7:46)
        lengths hit
        tuned ran: input.pairs * -> * (p.yaml:11:14)
        report ran: input.candidate * -> * (p.yaml:15:57)
        run ran
    "#]],
    );
}

#[test]
fn a_change_that_yields_the_same_table_stops_there() {
    let shop = Workshop::new();
    let runner = FakeRunner::default().making("pairs", "the same pairs");
    shop.run(PIPELINE, &runner);
    expect![[r#"
        prompts hit
        responses hit
        scores hit
        pairs ran: pair.ties drop -> first (p.yaml:7:46)
        lengths hit
        tuned hit
        report hit
        run ran
    "#]]
    .assert_eq(&shop.run(&with("ties: drop", "ties: first"), &runner));
}

#[test]
fn a_changed_file_and_a_changed_model_are_seen() {
    let shop = Workshop::new();
    shop.run(PIPELINE, &FakeRunner::default());
    let told = shop.run(PIPELINE, &FakeRunner::default().with_outside("models/reward", "another model"));
    expect![[r#"
        prompts hit
        responses hit
        scores ran: input.model * -> * (p.yaml:6:54)
        pairs ran: input.scores * -> * (p.yaml:7:32)
        lengths hit
        tuned ran: input.pairs * -> * (p.yaml:11:14)
        report ran: input.candidate * -> * (p.yaml:15:57), input.judge * -> * (p.yaml:15:89)
        run ran
    "#]]
    .assert_eq(&told);
    let told = shop.run(PIPELINE, &FakeRunner::default().with_outside("prompts.jsonl", "other rows"));
    assert!(told.starts_with("prompts ran: input.from"), "{told}");
}

#[test]
fn a_failure_blocks_what_needs_it_and_nothing_else() {
    let shop = Workshop::new();
    let runner = FakeRunner::default().failing("scores");
    expect![[r#"
        prompts ran: never ran
        responses ran: never ran
        scores failed: scores fails
        pairs blocked: `scores`, which it needs, has no result
        lengths ran: never ran
        tuned blocked: `scores`, which it needs, has no result
        report blocked: `scores`, which it needs, has no result
        run failed
    "#]]
    .assert_eq(&shop.run(PIPELINE, &runner));
    // Nothing is lost: the stages that finished are hits now.
    expect![[r#"
        prompts hit
        responses hit
        scores ran: never ran
        pairs ran: never ran
        lengths hit
        tuned ran: never ran
        report ran: never ran
        run ran
    "#]]
    .assert_eq(&shop.run(PIPELINE, &FakeRunner::default()));
}

#[test]
fn a_missing_file_fails_its_stage_before_it_runs() {
    let shop = Workshop::new();
    let told = shop.run(PIPELINE, &FakeRunner::default().without_outside("prompts.jsonl"));
    expect![[r#"
        prompts failed: `prompts.jsonl` is not there
        responses blocked: `prompts`, which it needs, has no result
        scores blocked: `prompts`, which it needs, has no result
        pairs blocked: `prompts`, which it needs, has no result
        lengths blocked: `prompts`, which it needs, has no result
        tuned blocked: `prompts`, which it needs, has no result
        report blocked: `prompts`, which it needs, has no result
        run failed
    "#]]
    .assert_eq(&told);
}

#[test]
fn a_panic_is_the_failure_of_its_stage() {
    let shop = Workshop::new();
    let told = shop.run(PIPELINE, &FakeRunner::default().panicking("lengths"));
    assert!(told.contains("lengths failed: the stage stopped with a panic: lengths panics"), "{told}");
    assert!(told.contains("report ran"), "{told}");
}

#[test]
fn an_interrupted_run_goes_on_later() {
    let shop = Workshop::new();
    let runner = FakeRunner::default().interrupted_in("responses");
    expect![[r#"
        prompts ran: never ran
        responses interrupted
        scores interrupted
        pairs interrupted
        lengths interrupted
        tuned interrupted
        report interrupted
        run interrupted
    "#]]
    .assert_eq(&shop.run(PIPELINE, &runner));
    let told = shop.run(PIPELINE, &FakeRunner::default());
    assert!(told.starts_with("prompts hit\nresponses ran: never ran\nscores ran"), "{told}");
}

#[test]
fn only_what_a_target_needs_runs() {
    let shop = Workshop::new();
    let runner = FakeRunner::default();
    expect![[r#"
        prompts ran: never ran
        responses ran: never ran
        lengths ran: never ran
        run ran
    "#]]
    .assert_eq(&shop.run_targets(PIPELINE, &runner, &["lengths"]));
    assert_eq!(
        shop.try_run(PIPELINE, &runner, &["lenghts"]).expect_err("a misspelt target"),
        "no stage is named `lenghts`; the pipeline has `prompts`, `responses`, `scores`, `pairs`, `lengths`, `tuned`, `report`"
    );
}

#[test]
fn a_clock_that_goes_back_changes_nothing() {
    let shop = Workshop::new();
    let runner = FakeRunner::default();
    let changed = with("ties: drop", "ties: first");
    shop.at(|| 2_000_000).run(PIPELINE, &runner);
    shop.at(|| 1_000).run(&changed, &runner);
    // What came last is told by the runs' numbers, and what holds by keys: neither is a time.
    expect![[r#"
        pairs, against r1
          pair.ties drop -> first (p.yaml:7:46)"#]]
    .assert_eq(&shop.at(|| 0).why(&changed, &runner, "pairs"));
    assert!(shop.at(|| 0).run(PIPELINE, &runner).ends_with("run hit\n"));
    let store = shop.store();
    let times = store.runs().expect("runs").into_iter().map(|run| {
        let manifest = store.run(run).expect("a readable store").expect("a manifest");
        (run.to_string(), manifest.started_unix_ms)
    });
    let expected = [("r1".to_owned(), 2_000_000), ("r2".to_owned(), 1_000), ("r3".to_owned(), 0)];
    assert_eq!(times.collect::<Vec<_>>(), expected);
}

#[test]
fn two_engines_at_once_share_one_result() {
    let shop = Workshop::new();
    let runner = FakeRunner::default().taking_ms(20);
    let told: Vec<String> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..3).map(|_| scope.spawn(|| shop.run(PIPELINE, &runner))).collect();
        runs.into_iter().map(|run| run.join().expect("a run")).collect()
    });
    assert_eq!(runner.runs(), 7, "each stage once: {told:?}");
    assert!(told.iter().all(|told| told.ends_with("run hit\n") || told.ends_with("run ran\n")), "{told:?}");
}

#[test]
fn one_stage_at_a_time_has_the_accelerator() {
    let lanes: String = (0..4)
        .map(|lane| {
            format!(
                "  p{lane}: {{ ingest: {{ from: p{lane}.jsonl }} }}\n  \
                 s{lane}: {{ sample: {{ prompts: p{lane}, model: policy }} }}\n"
            )
        })
        .collect();
    let pipeline = format!("version: 1\nmodels: {{ policy: models/policy }}\nstages:\n{lanes}");
    let shop = Workshop::new();
    let runner = FakeRunner::default().taking_ms(15);
    shop.run(&pipeline, &runner);
    assert_eq!(runner.most_at_once("sample"), 1);
    assert_eq!(runner.most_at_once("ingest"), 2);
}

#[test]
fn numerics_are_in_the_keys_of_model_stages_only() {
    let shop = Workshop::new();
    let runner = FakeRunner::default();
    shop.run(PIPELINE, &runner);
    let told = shop.with_numerics("cuda-bf16").run(PIPELINE, &runner);
    expect![[r#"
        prompts hit
        responses ran: engine.numerics cpu-f32 -> cuda-bf16
        scores ran: engine.numerics cpu-f32 -> cuda-bf16, input.responses * -> * (p.yaml:6:36)
        pairs ran: input.scores * -> * (p.yaml:7:32)
        lengths ran: input.responses * -> * (p.yaml:8:30)
        tuned ran: engine.numerics cpu-f32 -> cuda-bf16, input.pairs * -> * (p.yaml:11:14)
        report ran: engine.numerics cpu-f32 -> cuda-bf16, input.candidate * -> * (p.yaml:15:57)
        run ran
    "#]]
    .assert_eq(&told);
}

#[test]
#[cfg(target_os = "linux")]
fn a_read_only_store_still_gives_its_results() {
    let shop = Workshop::new();
    let runner = FakeRunner::default();
    shop.run(PIPELINE, &runner);
    for name in ["locks", "tmp", "runs"] {
        fs::remove_dir_all(shop.store().root().join(name)).expect("a folder");
        // A folder nobody may create files in, not even the superuser.
        std::os::unix::fs::symlink("/sys/kernel", shop.store().root().join(name)).expect("a link");
    }
    assert!(shop.run(PIPELINE, &runner).ends_with("run hit\n"));
    let told = shop.run(&with("ties: drop", "ties: first"), &runner);
    assert!(told.contains("pairs failed: open lock"), "{told}");
    assert!(told.contains("the store is read-only; make the folder writable, or choose another store"), "{told}");
}

#[test]
fn every_leaf_is_in_the_key_and_their_order_is_not() {
    let shop = Workshop::new();
    shop.run(PIPELINE, &FakeRunner::default());
    let mut flipped = BTreeSet::new();
    for stage in ["prompts", "responses", "scores", "pairs", "lengths", "tuned", "report"] {
        let record = shop.record(PIPELINE, stage);
        assert_eq!(derive_key(&record.leaves), record.key);
        let mut backwards = record.leaves.clone();
        backwards.reverse();
        assert_eq!(derive_key(&backwards), record.key, "{stage}, reordered");
        for index in 0..record.leaves.len() {
            let mut leaves = record.leaves.clone();
            leaves[index].place = Some("elsewhere.yaml:1:1".to_owned());
            assert_eq!(derive_key(&leaves), record.key, "a place is not in the key");
            for other in others(&leaves[index].value) {
                leaves[index].value = other;
                assert_ne!(derive_key(&leaves), record.key, "{stage}: {:?}", leaves[index]);
            }
            leaves.remove(index);
            assert_ne!(derive_key(&leaves), record.key, "{stage}, without one leaf");
            flipped.insert(record.leaves[index].path.clone());
        }
    }
    for path in ["sample.temperature", "pair.ties", "train.learning_rate", "input.prompts", "engine.numerics"] {
        assert!(flipped.contains(path), "{path} is among {flipped:?}");
    }
}

/// Values that differ from `value` in content or only in type.
fn others(value: &LeafValue) -> Vec<LeafValue> {
    let all = [
        LeafValue::Null,
        LeafValue::Bool(false),
        LeafValue::Int(1),
        LeafValue::Float(1.0),
        LeafValue::Text("1".to_owned()),
        LeafValue::Digest("1".to_owned()),
        LeafValue::List(vec![LeafValue::Text("1".to_owned())]),
        LeafValue::List(vec![LeafValue::Text("1".to_owned()); 2]),
    ];
    all.into_iter().filter(|other| other != value).collect()
}

#[test]
fn the_key_of_known_leaves_never_changes() {
    let leaf = |path: &str, value| sluice_store::Leaf { path: path.to_owned(), value, place: None };
    let leaves = [
        leaf("engine.key_schema", LeafValue::Int(1)),
        leaf("pair.ties", LeafValue::Text("drop".to_owned())),
        leaf("pair.min_margin", LeafValue::Float(-0.0)),
        leaf("pair.limit", LeafValue::Null),
        leaf("pair.flags", LeafValue::List(vec![LeafValue::Bool(true), LeafValue::Int(-1)])),
        leaf("input.scores", LeafValue::Digest("ab".repeat(32))),
    ];
    // If this changes, every store has to be computed again: raise `KEY_SCHEMA` instead.
    expect!["51a4763207ceee7e6ccbed590dd1f5c18573214327c8a2414961936ce5abf8a5"]
        .assert_eq(&derive_key(&leaves).to_string());
}

#[test]
fn the_json_of_a_run_has_the_promised_form() {
    let shop = Workshop::new();
    let pipeline = "version: 1\nstages:\n  prompts: { ingest: { from: a.csv } }\n";
    let events = Mutex::new(Vec::new());
    let keep = |event: Event| {
        let json = serde_json::to_value(&event).expect("JSON");
        events.lock().expect("no panic").push(masked("", json).to_string());
    };
    shop.run_with(pipeline, &FakeRunner::default(), &keep);
    expect![[r#"
        {"event":"run_started","run":"r1","pipeline":"p","stages":[{"name":"prompts","kind":"ingest"}]}
        {"event":"stage_started","stage":"prompts","key":"*","reason":"never ran"}
        {"event":"stage_progress","stage":"prompts","done":1,"total":1,"unit":"rows","n_tokens":null,"loss":null}
        {"event":"stage_finished","stage":"prompts","key":"*","rows":1,"rows_reused":0,"seconds":"*","digest":"*","metrics":{"length":64.0}}
        {"event":"run_finished","run":"r1","pipeline":"p","outcome":"ran","seconds":"*","stages":[{"name":"prompts","kind":"ingest","state":"ran","rows":1,"rows_reused":0,"seconds":"*","digest":"*","key":"*","reason":"never ran"}],"metrics":{"prompts.length":64.0}}"#]].assert_eq(&events.into_inner().expect("no panic").join("\n"));
}

/// The value without what differs from run to run (times), or whenever a kind gets a parameter (digests).
fn masked(name: &str, value: Value) -> Value {
    match value {
        Value::Number(_) if name.ends_with("seconds") => Value::from("*"),
        Value::String(text) if text.len() == 64 => Value::from("*"),
        Value::Array(items) => items.into_iter().map(|item| masked("", item)).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name.clone(), masked(&name, value))).collect(),
        other => other,
    }
}

#[test]
fn a_run_with_nothing_to_do_is_fast() {
    let lane = |lane: usize| {
        let step = |step: usize| {
            let from = if step == 1 { format!("p{lane}") } else { format!("q{lane}_{}", step - 1) };
            format!("  q{lane}_{step}: {{ sql: {{ from: [{from}], query: 'select * from {from}' }} }}\n")
        };
        let steps: String = (1..5).map(step).collect();
        format!("  p{lane}: {{ ingest: {{ from: p{lane}.csv }} }}\n{steps}")
    };
    let lanes: String = (0..40).map(lane).collect();
    let pipeline = format!("version: 1\nstages:\n{lanes}");
    let shop = Workshop::new();
    let runner = FakeRunner::default();
    let started = Instant::now();
    shop.run(&pipeline, &runner);
    let first = started.elapsed();
    let started = Instant::now();
    let told = shop.run(&pipeline, &runner);
    println!("200 stages: first run {first:?}, nothing to do {:?} with parsing", started.elapsed());
    assert!(told.ends_with("run hit\n"));
    assert_eq!(runner.runs(), 200);
}

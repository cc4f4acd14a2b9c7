//! What is in a key and what is not, leaf by leaf. Each kind is written out in full; each of its leaves is then given
//! another value at its own place in the text, and the key must change and the reason must name that leaf, old and new,
//! and that place. The leaves themselves drive the test: one without another value to try fails it.

mod forms;

use std::fmt::Write as _;

use expect_test::{Expect, expect};
use sluice_engine::{KEY_SCHEMA, LeafChange, PlanState, Reason, RunOptions, derive_key};
use sluice_spec::{Leaf, Location, Options, Pipeline, Source, Span, parse};
use sluice_store::{LeafValue, Outcome, RUN_SCHEMA_VERSION, RecordDraft, RunManifest, RunStage, StageKey};

use crate::fake::{FakeRunner, Workshop};
use forms::{AROUND, EVALUATE, FORMS, Form, INGEST, OBJECTIVES, ONLY_WORD, PAIR, SAMPLE, SCORE, SQL, TRAIN, TWEAKS};

fn file(stage: &str) -> String {
    format!("{AROUND}  stage: {stage}\n")
}

fn read(text: &str) -> Pipeline {
    parse("p.yaml", text, &Options::default()).unwrap_or_else(|faults| panic!("{faults}\n{text}"))
}

/// The leaves of the stage under test, with their places.
fn leaves_of(pipeline: &Pipeline) -> (String, Vec<Leaf>) {
    let mut leaves = Vec::new();
    let stage = pipeline.stages.last().expect("the stage under test");
    stage.kind.leaves(&mut leaves);
    (stage.kind.name().name().to_owned(), leaves)
}

/// What a run would do with the stage under test.
fn planned(shop: &Workshop, text: &str, runner: &FakeRunner) -> PlanState {
    shop.with_options(text, &Options::default(), runner, |engine| {
        let stages = engine.plan_states(&["stage".to_owned()]).expect("a plan");
        stages.into_iter().last().expect("the stage under test").state
    })
}

/// The key the stage would run under, and what changed since it last did.
#[track_caller]
fn changed(shop: &Workshop, text: &str, runner: &FakeRunner) -> (StageKey, Vec<LeafChange>) {
    match planned(shop, text, runner) {
        PlanState::Run { key, reason: Reason::Changed(changes) } => (key, changes),
        other => panic!("the stage should run because something changed, and is {other:?}\n{text}"),
    }
}

/// Gives each leaf below `prefix` another value at its place, and tells what the reason to run says.
fn flip_all(shop: &Workshop, full: &str, prefix: &str, flips: &[(&str, &str)]) -> String {
    let text = file(full);
    let pipeline = read(&text);
    let (kind, leaves) = leaves_of(&pipeline);
    let runner = FakeRunner::default();
    shop.run_targets(&text, &runner, &["stage"]);
    let key = shop.record(&text, "stage").key;
    let mut told = String::new();
    for leaf in leaves.iter().filter(|leaf| leaf.path.starts_with(prefix)) {
        let path = format!("{kind}.{}", leaf.path);
        let other = flips.iter().find(|(flipped, _)| *flipped == leaf.path);
        let (_, other) = other.unwrap_or_else(|| panic!("leaf `{path}` has no other value to try: give it one here"));
        let place = leaf.place.unwrap_or_else(|| panic!("leaf `{path}` is not written down in the full form"));
        if *other == ONLY_WORD {
            writeln!(told, "{path} has one value").expect("text");
            continue;
        }
        let mut edited = text.clone();
        edited.replace_range(place.range(), other);
        let (other_key, changes) = changed(shop, &edited, &runner);
        assert_ne!(other_key, key, "{path}");
        let at = pipeline.sources.place(place).to_string();
        for change in &changes {
            let is_it = change.path == path && change.place.as_ref() == Some(&at);
            assert!(is_it || follows(&path, &change.path), "{path} is changed, and {change} is told");
        }
        let shown = changes.iter().find(|change| change.path == path).expect("the leaf is told");
        assert_ne!(shown.old, shown.new, "{path}");
        writeln!(told, "{shown}").expect("text");
    }
    for (path, _) in flips {
        assert!(leaves.iter().any(|leaf| leaf.path == *path), "`{path}` is no leaf of {kind} any more");
    }
    told
}

/// Leaves that cannot stay when another one changes: another objective has its own, and fresh weights are no stored model.
fn follows(changed: &str, other: &str) -> bool {
    match changed {
        "train.objective" => other.starts_with("train.objective."),
        "train.model.init" => other == "input.model",
        _ => false,
    }
}

fn check(form: &Form, expected: Expect) {
    expected.assert_eq(&flip_all(&Workshop::new(), form.full, "", form.flips));
}

#[test]
fn every_leaf_of_ingest_is_in_the_key() {
    check(
        &INGEST,
        expect![[r#"
        ingest.format none -> csv (p.yaml:10:78)
        ingest.map.prompt prompt -> question (p.yaml:11:42)
        ingest.map.reference none -> answer (p.yaml:11:61)
        ingest.map.group none -> family (p.yaml:11:74)
        ingest.map.response none -> said (p.yaml:11:90)
        ingest.map.label none -> right (p.yaml:11:103)
        ingest.keep [] -> [level] (p.yaml:10:90)
        ingest.where none -> level > 2 (p.yaml:10:101)
        ingest.dedup true -> false (p.yaml:10:114)
        ingest.limit none -> 100 (p.yaml:11:21)
        ingest.split.column none -> part (p.yaml:12:31)
        ingest.split.heldout 0.05 -> 0.1 (p.yaml:12:46)
        ingest.split.seed 0 -> 1 (p.yaml:12:58)
    "#]],
    );
}

#[test]
fn every_leaf_of_sample_is_in_the_key() {
    check(
        &SAMPLE,
        expect![[r#"
        sample.split train -> all (p.yaml:10:61)
        sample.limit none -> 600 (p.yaml:10:75)
        sample.n 1 -> 5 (p.yaml:10:84)
        sample.temperature 1.0 -> 0.8 (p.yaml:10:100)
        sample.top_k none -> 40 (p.yaml:10:112)
        sample.top_p none -> 0.95 (p.yaml:11:21)
        sample.min_p none -> 0.05 (p.yaml:11:34)
        sample.max_new_tokens 256 -> 48 (p.yaml:11:56)
        sample.stop [] -> [</s>] (p.yaml:11:67)
        sample.bos single -> double (p.yaml:11:76)
        sample.seed 0 -> 42 (p.yaml:11:90)
    "#]],
    );
}

#[test]
fn every_leaf_of_score_is_in_the_key() {
    check(
        &SCORE,
        expect![[r#"
        score.head_dtype f32 -> bf16 (p.yaml:10:70)
    "#]],
    );
}

#[test]
fn every_leaf_of_pair_is_in_the_key() {
    check(
        &PAIR,
        expect![[r#"
        pair.choose has one value
        pair.ties drop -> first (p.yaml:10:62)
        pair.identical drop -> keep (p.yaml:10:79)
        pair.min_margin 0.0 -> 0.5 (p.yaml:10:97)
    "#]],
    );
}

#[test]
fn every_leaf_of_train_is_in_the_key() {
    check(
        &TRAIN,
        expect![[r#"
        train.model.init false -> true (p.yaml:10:42)
        train.objective simpo -> dpo (p.yaml:10:60)
        train.objective.simpo.beta 10.0 -> 2.5 (p.yaml:10:77)
        train.objective.simpo.gamma_beta_ratio 0.5 -> 0.3 (p.yaml:10:99)
        train.objective.simpo.loss sigmoid -> hinge (p.yaml:10:110)
        train.objective.simpo.label_smoothing 0.0 -> 0.1 (p.yaml:11:31)
        train.objective.simpo.sft_weight 0.0 -> 0.2 (p.yaml:11:48)
        train.off_policy deny -> allow (p.yaml:11:69)
        train.learning_rate 8e-7 -> 1e-6 (p.yaml:11:90)
        train.schedule cosine -> linear (p.yaml:11:108)
        train.warmup_ratio 0.1 -> 0.2 (p.yaml:12:28)
        train.weight_decay 0.0 -> 0.01 (p.yaml:12:47)
        train.betas [0.9, 0.999] -> [0.9, 0.95] (p.yaml:12:59)
        train.eps 1e-8 -> 1e-6 (p.yaml:12:78)
        train.max_grad_norm 1.0 -> 2.0 (p.yaml:12:101)
        train.epochs 1 -> 2 (p.yaml:12:114)
        train.max_steps none -> 100 (p.yaml:13:25)
        train.batch_size 128 -> 64 (p.yaml:13:43)
        train.micro_batch_tokens 4096 -> 2048 (p.yaml:13:68)
        train.max_length 2048 -> 4096 (p.yaml:13:86)
        train.max_prompt_length 1800 -> 900 (p.yaml:13:111)
        train.truncation budget -> reference (p.yaml:14:26)
        train.prompt_keep end -> start (p.yaml:14:47)
        train.response_header prompt -> response (p.yaml:14:69)
        train.seed 42 -> 1 (p.yaml:14:83)
    "#]],
    );
}

#[test]
fn every_leaf_of_evaluate_is_in_the_key() {
    check(
        &EVALUATE,
        expect![[r#"
        evaluate.split heldout -> all (p.yaml:10:99)
        evaluate.limit none -> 10 (p.yaml:10:115)
        evaluate.n 1 -> 2 (p.yaml:10:124)
        evaluate.temperature 0.8 -> 0.7 (p.yaml:11:27)
        evaluate.top_p 0.95 -> 0.9 (p.yaml:11:39)
        evaluate.greedy true -> false (p.yaml:11:53)
        evaluate.max_new_tokens 256 -> 48 (p.yaml:11:75)
        evaluate.seed 0 -> 1 (p.yaml:11:86)
        evaluate.check exact -> number (p.yaml:11:96)
        evaluate.confidence 0.95 -> 0.9 (p.yaml:11:115)
        evaluate.resamples 1000 -> 100 (p.yaml:12:25)
    "#]],
    );
}

#[test]
fn every_leaf_of_sql_is_in_the_key() {
    check(
        &SQL,
        expect![[r#"
            sql.query select 1 -> select 2 (p.yaml:10:56)
        "#]],
    );
}

/// The leaves all objectives share are those of `train` above; each adds its own.
#[test]
fn every_leaf_of_every_objective_is_in_the_key() {
    let names: Vec<&str> = OBJECTIVES.iter().map(|(name, ..)| *name).chain(["simpo"]).collect();
    for name in sluice_spec::stage::train::Objective::NAMES {
        assert!(names.contains(name), "objective `{name}` is not tried here");
    }
    let (shop, mut told) = (Workshop::new(), String::new());
    for (name, keys, flips) in OBJECTIVES {
        let examples = if ["sft", "reward"].contains(&name) { "rows: demos" } else { "pairs: pairs" };
        let full = TRAIN.full.replace("pairs: pairs", examples);
        let (head, rest) = full.split_once("{ simpo: {").expect("the objective");
        let (_, tail) = rest.split_once("} }").expect("its end");
        let full = format!("{head}{{ {name}: {{ {keys} }} }}{tail}");
        let another = match name {
            "sft" => "{ reward: { objectives: [other] } }",
            "reward" => "{ sft: {} }",
            _ => "{ simpo: { beta: 1, gamma_beta_ratio: 0 } }",
        };
        let paths: Vec<String> = flips.iter().map(|(key, _)| format!("objective.{name}.{key}")).collect();
        let own = paths.iter().map(String::as_str).zip(flips.iter().map(|(_, other)| *other));
        let flips: Vec<(&str, &str)> = own.chain([("objective", another)]).collect();
        told += &flip_all(&shop, &full, "objective", &flips);
    }
    expect![[r#"
        train.objective dpo -> simpo (p.yaml:10:60)
        train.objective.dpo.beta 0.1 -> 0.2 (p.yaml:10:75)
        train.objective.dpo.loss sigmoid -> robust (p.yaml:10:86)
        train.objective.dpo.label_smoothing 0.0 -> 0.1 (p.yaml:10:112)
        train.objective ipo -> simpo (p.yaml:10:60)
        train.objective.ipo.beta 0.1 -> 0.2 (p.yaml:10:75)
        train.objective.ipo.log_probs sum -> mean (p.yaml:10:91)
        train.objective cpo -> simpo (p.yaml:10:60)
        train.objective.cpo.beta 0.1 -> 0.2 (p.yaml:10:75)
        train.objective.cpo.cpo_alpha 1.0 -> 0.5 (p.yaml:10:91)
        train.objective.cpo.loss sigmoid -> hinge (p.yaml:10:102)
        train.objective.cpo.label_smoothing 0.0 -> 0.1 (p.yaml:10:128)
        train.objective kto -> simpo (p.yaml:10:60)
        train.objective.kto.beta 0.1 -> 0.2 (p.yaml:10:75)
        train.objective.kto.desirable_weight 1.0 -> 2.0 (p.yaml:10:98)
        train.objective.kto.undesirable_weight 1.0 -> 3.0 (p.yaml:10:123)
        train.objective orpo -> simpo (p.yaml:10:60)
        train.objective.orpo.lambda 0.1 -> 0.2 (p.yaml:10:78)
        train.objective slic_hf -> simpo (p.yaml:10:60)
        train.objective.slic_hf.delta 1.0 -> 2.0 (p.yaml:10:80)
        train.objective.slic_hf.lambda 0.1 -> 0.2 (p.yaml:10:93)
        train.objective rrhf -> simpo (p.yaml:10:60)
        train.objective.rrhf.lambda 1.0 -> 0.5 (p.yaml:10:78)
        train.objective r_dpo -> simpo (p.yaml:10:60)
        train.objective.r_dpo.beta 0.1 -> 0.2 (p.yaml:10:77)
        train.objective.r_dpo.alpha 0.05 -> 0.1 (p.yaml:10:89)
        train.objective reward -> sft (p.yaml:10:59)
        train.objective.reward.objectives [right] -> [right, short] (p.yaml:10:83)
        train.objective.reward.correctness_weight 1.0 -> 2.0 (p.yaml:10:112)
        train.objective.reward.objectives_weight 1.0 -> 2.0 (p.yaml:10:136)
        train.objective.reward.lm_weight 0.5 -> 0.0 (p.yaml:10:152)
        train.objective.reward.preference_weight 1.0 -> 2.0 (p.yaml:10:176)
        train.objective.reward.grow_layers 0 -> 1 (p.yaml:10:194)
        train.objective sft -> reward (p.yaml:10:59)
    "#]]
    .assert_eq(&told);
}

/// The content of each thing a stage reads is a leaf, in the place that names the thing.
#[test]
fn every_input_is_in_the_key() {
    let on_rows =
        TRAIN.full.replace("pairs: pairs", "rows: demos").replace("model: actor", "model: { init: shapes/s }");
    let (head, rest) = on_rows.split_once("{ simpo: {").expect("the objective");
    let (_, tail) = rest.split_once("} }").expect("its end");
    let on_rows = format!("{head}{{ sft: {{}} }}{tail}");
    let (shop, mut told) = (Workshop::new(), String::new());
    for full in FORMS.iter().map(|form| form.full).chain([on_rows.as_str()]) {
        let text = file(full);
        let pipeline = read(&text);
        let stage = pipeline.stages.last().expect("the stage under test");
        for input in stage.kind.inputs() {
            let mut runner = FakeRunner::default();
            shop.run_targets(&text, &runner, &["stage"]);
            let key = shop.record(&text, "stage").key;
            let mut edited = text.clone();
            match &input.source {
                Source::Files(patterns) => runner = runner.with_outside(&patterns.join("\n"), "other rows"),
                Source::Folder(folder) => runner = runner.with_outside(folder, "another shape"),
                Source::Model(name) => {
                    let Some(Location::Folder(folder)) = pipeline.model(name).map(|model| &model.location) else {
                        panic!("a model in a folder")
                    };
                    runner = runner.with_outside(folder, "other weights");
                }
                Source::Stage(read) => {
                    let tweak = TWEAKS.iter().find(|(stage, ..)| *stage == read.stage.as_str());
                    let (stage, old, new) = tweak.expect("a stage of the surroundings");
                    edited = text.replacen(old, new, 1);
                    shop.run_targets(&edited, &runner, &[stage]);
                }
            }
            let (other_key, changes) = changed(&shop, &edited, &runner);
            assert_ne!(other_key, key, "{}", input.role);
            let [change] = changes.as_slice() else { panic!("one change, not {changes:?}") };
            assert_eq!(change.path, format!("input.{}", input.role));
            assert!(matches!(
                (&change.old, &change.new),
                (Some(LeafValue::Digest(old)), Some(LeafValue::Digest(new))) if old != new
            ));
            let place = pipeline.sources.place(input.place.expect("inputs are written down"));
            let place = place.to_string();
            // An edit further up in the same line of text moves nothing below it.
            assert_eq!(change.place.as_deref(), Some(place.as_str()));
            writeln!(told, "{} {} ({place})", stage.kind.name().name(), change.path).expect("text");
        }
    }
    expect![[r#"
        ingest input.from (p.yaml:10:28)
        ingest input.heldout_from (p.yaml:10:58)
        sample input.prompts (p.yaml:10:31)
        sample input.model (p.yaml:10:47)
        score input.responses (p.yaml:10:32)
        score input.model (p.yaml:10:50)
        pair input.scores (p.yaml:10:28)
        train input.pairs (p.yaml:10:28)
        train input.model (p.yaml:10:42)
        evaluate input.prompts (p.yaml:10:33)
        evaluate input.candidate (p.yaml:10:53)
        evaluate input.baseline (p.yaml:10:70)
        evaluate input.judge (p.yaml:10:84)
        sql input.pairs.dropped (p.yaml:10:26)
        sql input.demos (p.yaml:10:41)
        train input.rows (p.yaml:10:27)
        train input.model (p.yaml:10:41)
    "#]]
    .assert_eq(&told);
}

/// As if an earlier program had derived the key: the leaves of the engine itself.
#[test]
fn every_leaf_of_the_engine_is_in_the_key() {
    let (whole, shop, mut told) = (Workshop::new(), Workshop::new(), String::new());
    for form in &FORMS {
        let text = file(form.full);
        let reads: Vec<String> = read(&text).stages.last().map_or(Vec::new(), |stage| {
            let upstream = |source| match source {
                Source::Stage(read) => Some(read.stage.to_string()),
                _ => None,
            };
            stage.kind.inputs().into_iter().filter_map(|input| upstream(input.source)).collect()
        });
        whole.run_targets(&text, &FakeRunner::default(), &["stage"]);
        let leaves = whole.record(&text, "stage").leaves;
        let key = derive_key(&leaves);
        if !reads.is_empty() {
            let targets: Vec<&str> = reads.iter().map(String::as_str).collect();
            shop.run_targets(&text, &FakeRunner::default(), &targets);
        }
        for at in (0..leaves.len()).filter(|at| leaves[*at].path.starts_with("engine.")) {
            let mut earlier = leaves.clone();
            earlier[at].value = match &earlier[at].value {
                LeafValue::Int(value) => LeafValue::Int(value - 1),
                LeafValue::Text(text) => LeafValue::Text(format!("{text}-0")),
                other => panic!("a leaf of the engine is {other:?}"),
            };
            plant(&shop, earlier);
            let (found, changes) = changed(&shop, &text, &FakeRunner::default());
            assert_eq!(found, key);
            let [change] = changes.as_slice() else { panic!("one change, not {changes:?}") };
            assert_eq!((&change.path, &change.place), (&leaves[at].path, &None));
            writeln!(told, "{change}").expect("text");
        }
    }
    expect![[r#"
        engine.key_schema 0 -> 1
        engine.kind ingest-0 -> ingest
        engine.stage_version 1 -> 2
        engine.key_schema 0 -> 1
        engine.kind sample-0 -> sample
        engine.numerics cpu-f32-0 -> cpu-f32
        engine.stage_version 0 -> 1
        engine.key_schema 0 -> 1
        engine.kind score-0 -> score
        engine.numerics cpu-f32-0 -> cpu-f32
        engine.stage_version 0 -> 1
        engine.key_schema 0 -> 1
        engine.kind pair-0 -> pair
        engine.stage_version 0 -> 1
        engine.key_schema 0 -> 1
        engine.kind train-0 -> train
        engine.numerics cpu-f32-0 -> cpu-f32
        engine.stage_version 2 -> 3
        engine.key_schema 0 -> 1
        engine.kind evaluate-0 -> evaluate
        engine.numerics cpu-f32-0 -> cpu-f32
        engine.stage_version 0 -> 1
        engine.key_schema 0 -> 1
        engine.kind sql-0 -> sql
        engine.stage_version 0 -> 1
    "#]]
    .assert_eq(&told);
    assert_eq!(KEY_SCHEMA, 1, "a test of the derivation is in main.rs");
}

/// A record with these leaves, and a run in which `stage` had it.
fn plant(shop: &Workshop, leaves: Vec<sluice_store::Leaf>) {
    let (store, key) = (shop.store(), derive_key(&leaves));
    let attempt = store.begin(key).expect("an attempt");
    attempt.commit(RecordDraft { leaves, ..RecordDraft::default() }).expect("a record");
    let stage = RunStage {
        name: "stage".to_owned(),
        kind: String::new(),
        outcome: Outcome::Ran,
        key: Some(key),
        tests: Vec::new(),
    };
    let manifest = |run| RunManifest {
        schema_version: RUN_SCHEMA_VERSION,
        run,
        pipeline: "p".to_owned(),
        profile: None,
        program: None,
        set: Vec::new(),
        targets: Vec::new(),
        started_unix_ms: 0,
        seconds: 0.0,
        outcome: Outcome::Ran,
        stages: vec![stage.clone()],
    };
    store.begin_run(manifest).expect("a manifest");
}

/// Order, defaults, spelling, comments, keys of speed, the store, the number of slots and the way to a profile: none of
/// these is in the key of any kind.
#[test]
fn what_changes_no_result_changes_no_key() {
    let (shop, elsewhere, runner) = (Workshop::new(), Workshop::new(), FakeRunner::default());
    let key_in = |shop: &Workshop, text: &str, cpu_slots: usize| {
        shop.with_options(text, &Options::default(), &runner, |engine| {
            let options = RunOptions { targets: vec!["stage".to_owned()], cpu_slots, ..RunOptions::default() };
            let report = engine.run(&options, &Default::default(), &|_| {}).expect("a run");
            report.stage("stage").and_then(|stage| stage.key).expect("a key")
        })
    };
    for form in &FORMS {
        let whole = file(form.full);
        let key = key_in(&shop, &whole, 2);
        assert_eq!(key_in(&elsewhere, &whole, 9), key, "another store, and more slots");
        let same = |text: &str, profile: Option<&str>, what: &str| {
            let options = Options { profile: profile.map(str::to_owned), set: Vec::new() };
            let state = shop.with_options(text, &options, &runner, |engine| {
                engine.plan_states(&["stage".to_owned()]).expect("a plan").pop().expect("the stage").state
            });
            match state {
                PlanState::Hit { key: found, .. } => assert_eq!(found, key, "{what}"),
                other => panic!("{what}: the result should be there, and is {other:?}\n{text}"),
            }
        };
        same(&file(form.short), None, "defaults left out");
        same(&file(form.respelt), None, "other spellings");
        let spread = whole.replace("\nstages:", "\n\nstages: # here");
        same(&format!("# a comment\n{spread}# and another\n"), None, "comments and empty lines");
        // The stage first in the file, before all it reads.
        let (head, tail) = AROUND.split_once("stages:\n").expect("stages");
        same(&format!("{head}stages:\n  stage: {}\n{tail}", form.full), None, "another order of stages");
        // The whole stage as a value of a profile: the first one, or one that is named.
        let this = format!("  this: {{ stage: {} }}\n", form.full);
        let that = "  that: { stage: { sql: { from: [pairs], query: select 9 } } }\n";
        let through = |profiles: &str| {
            let head = AROUND.replacen("models:", &format!("profiles:\n{profiles}models:"), 1);
            format!("{head}  stage: ${{profile.stage}}\n")
        };
        same(&through(&format!("{this}{that}")), None, "the first profile");
        same(&through(&format!("{that}{this}")), Some("this"), "a profile that is named");
    }
}

/// A value that comes from outside the file is the value all the same; only its place is another.
#[test]
fn a_value_from_the_command_line_is_the_value_of_the_file() {
    let (shop, runner, text) = (Workshop::new(), FakeRunner::default(), file(SAMPLE.full));
    shop.run_targets(&text, &runner, &["stage"]);
    let set = Options { profile: None, set: vec!["stages.stage.sample.temperature=0.8".to_owned()] };
    let state = shop.with_options(&text, &set, &runner, |engine| {
        engine.plan_states(&["stage".to_owned()]).expect("a plan").pop().expect("the stage").state
    });
    let PlanState::Run { key, .. } = &state else { panic!("the stage should run, and is {state:?}") };
    let (written, _) = changed(&shop, &text.replace("temperature: 1.0", "temperature: 8.0e-1"), &runner);
    assert_eq!(*key, written);
    assert_eq!(state.to_string(), "sample.temperature 1.0 -> 0.8 (--set stages.stage.sample.temperature=0.8)");
}

/// A model in another folder, and files under other names, with the same content.
#[test]
fn contents_count_and_not_where_they_lie() {
    let same = |path: &str| FakeRunner::default().with_outside(path, "the same");
    let shop = Workshop::new();
    for (form, here, there) in [
        (&SAMPLE, "models/actor", "elsewhere/actor"),
        (&SCORE, "models/critic", "elsewhere/critic"),
        (&EVALUATE, "models/actor", "elsewhere/actor"),
        (&TRAIN, "models/actor", "elsewhere/actor"),
        (&INGEST, "rows/*.jsonl", "elsewhere/*.jsonl"),
    ] {
        let text = file(form.full);
        shop.run_targets(&text, &same(here), &["stage"]);
        let moved = text.replace(here, there);
        assert_ne!(moved, text);
        let state = planned(&shop, &moved, &same(there));
        assert!(matches!(state, PlanState::Hit { .. }), "{there}: {state:?}");
    }
}

/// A key for each kind. One that changes by accident makes every user compute everything again: raise the version of the
/// kind, or `KEY_SCHEMA`, where it changes on purpose.
#[test]
fn the_key_of_each_kind_never_changes() {
    let (shop, mut told) = (Workshop::new(), String::new());
    for form in &FORMS {
        // What is read has a content of its own, so that a key depends on its own kind alone.
        let mut runner = FakeRunner::default();
        for (stage, ..) in TWEAKS {
            runner = runner.making(stage, stage);
        }
        let text = file(form.full);
        shop.run_targets(&text, &runner, &["stage"]);
        let (kind, _) = leaves_of(&read(&text));
        writeln!(told, "{kind} {}", shop.record(&text, "stage").key).expect("text");
    }
    expect![[r#"
        ingest 30abafaa26716507d067393b316316d529b347fc237a33c260ec897d6bd74f76
        sample c36ef67bb474bc7670b20c58736b1bc30b31ea252bc75de63803255edd7b08cc
        score 79ab89150f6ab4dc70dd58cf4d507f0fb2821fab2507635af61b9d507009c5f4
        pair 295abeb5d26b2edc23977850e8796512bec576794c9f050fcae90c4e5879bd11
        train f6df7958f8e28b6f2bb8d5413ddf24ca5df9a4dc92fd2053fbd41cc47406e921
        evaluate 38e965818feb08ad10f06701be5d2a431ca1ca1c7208e9a87ac50bb02ffcaa99
        sql 2505c441c3b411e377de8d45e893cacce5ce5ebf95217555467db7ab0bf45cfe
    "#]]
    .assert_eq(&told);
}

/// Spans are what the edits above rely on: a leaf's place is its value, whole.
#[test]
fn a_place_covers_its_value() {
    let pipeline = read(&file(SAMPLE.full));
    let (_, leaves) = leaves_of(&pipeline);
    let at = |path: &str| -> &str {
        let place: Option<Span> = leaves.iter().find(|leaf| leaf.path == path).and_then(|leaf| leaf.place);
        pipeline.sources.slice(place.expect("a place"))
    };
    assert_eq!((at("temperature"), at("stop"), at("bos")), ("1.0", "[]", "single"));
}

//! The leaves of each kind: what enters a key, and that spelling does not.

use expect_test::{Expect, expect};
use sluice_spec::{Kind, Leaf, LeafValue, Options, Pipeline, Source, parse};

/// Every stage that the stage under test may read.
const AROUND: &str = "version: 1
models: { policy: models/policy, reward: models/reward }
stages:
  prompts: { ingest: { from: a.jsonl } }
  responses: { sample: { prompts: prompts, model: policy } }
  scores: { score: { responses: responses, model: reward } }
  pairs: { pair: { scores: scores } }
";

fn pipeline(stage: &str) -> Pipeline {
    let text = format!("{AROUND}  stage: {stage}\n");
    parse("p.yaml", &text, &Options::default()).unwrap_or_else(|faults| panic!("{faults}"))
}

fn leaves_of(stage: &str) -> Vec<Leaf> {
    let mut leaves = Vec::new();
    let pipeline = pipeline(stage);
    pipeline.stages.last().expect("the stage is there").kind.leaves(&mut leaves);
    leaves
}

/// `short` leaves all defaults out; `long` writes every key down, in another order. Both have the same leaves.
fn check(short: &str, long: &str, expected: Expect) {
    let (short, long) = (leaves_of(short), leaves_of(long));
    let shown = |leaves: &[Leaf]| -> String {
        leaves.iter().map(|leaf| format!("{} = {}\n", leaf.path, shown_value(&leaf.value))).collect()
    };
    expected.assert_eq(&shown(&short));
    assert_eq!(shown(&short), shown(&long));
    for leaf in &long {
        assert!(leaf.place.is_some(), "`{}` is not written down in the long form", leaf.path);
    }
}

fn shown_value(value: &LeafValue) -> String {
    match value {
        LeafValue::Null => "null".to_owned(),
        LeafValue::Bool(value) => format!("bool {value}"),
        LeafValue::Int(value) => format!("int {value}"),
        LeafValue::Float(value) => format!("float {value:?}"),
        LeafValue::Str(text) => format!("text {text:?}"),
        LeafValue::List(items) => {
            format!("[{}]", items.iter().map(shown_value).collect::<Vec<_>>().join(", "))
        }
    }
}

#[test]
fn ingest() {
    check(
        "{ ingest: { from: a.jsonl } }",
        "{ ingest: { split: { seed: 0, heldout: 5e-2, column: null }, limit: ~, dedup: true, where: , keep: [], heldout_from: b.csv,
           map: { label: null, response: null, group: null, reference: null, prompt: prompt }, format: null, from: [a.jsonl] } }",
        expect![[r#"
            format = null
            map.prompt = text "prompt"
            map.reference = null
            map.group = null
            map.response = null
            map.label = null
            keep = []
            where = null
            dedup = bool true
            limit = null
            split.column = null
            split.heldout = float 0.05
            split.seed = int 0
        "#]],
    );
}

#[test]
fn sample() {
    check(
        "{ sample: { prompts: prompts, model: policy } }",
        "{ sample: { max_batch: 7, bos: single, seed: 0x0, stop: [], max_new_tokens: 256, min_p: null, top_p: null, top_k: null,
           temperature: 1, n: +1, limit: null, split: train, model: policy, prompts: prompts } }",
        expect![[r#"
            split = text "train"
            limit = null
            n = int 1
            temperature = float 1.0
            top_k = null
            top_p = null
            min_p = null
            max_new_tokens = int 256
            stop = []
            bos = text "single"
            seed = int 0
        "#]],
    );
}

#[test]
fn score() {
    check(
        "{ score: { responses: responses, model: reward } }",
        "{ score: { max_batch_tokens: 1, head_dtype: f32, model: reward, responses: responses } }",
        expect![[r#"
            head_dtype = text "f32"
        "#]],
    );
}

#[test]
fn pair() {
    check(
        "{ pair: { scores: scores } }",
        "{ pair: { min_margin: -0.0, identical: 'drop', ties: \"drop\", choose: best_worst, scores: scores } }",
        expect![[r#"
            choose = text "best_worst"
            ties = text "drop"
            identical = text "drop"
            min_margin = float 0.0
        "#]],
    );
}

#[test]
fn evaluate() {
    check(
        "{ evaluate: { prompts: prompts, candidate: policy, baseline: policy } }",
        "{ evaluate: { max_batch: 1, resamples: 1000, confidence: .95, check: exact, seed: 0, max_new_tokens: 256, greedy: True,
           top_p: 0.95, temperature: 8e-1, n: 1, limit: null, split: heldout, judge: null, baseline: policy,
           candidate: policy, prompts: prompts } }",
        expect![[r#"
            split = text "heldout"
            limit = null
            n = int 1
            temperature = float 0.8
            top_p = float 0.95
            greedy = bool true
            max_new_tokens = int 256
            seed = int 0
            check = text "exact"
            confidence = float 0.95
            resamples = int 1000
        "#]],
    );
}

#[test]
fn sql() {
    check(
        "{ sql: { from: pairs.dropped, query: select 1 } }",
        "{ sql: { query: 'select 1', from: [pairs.dropped] } }",
        expect![[r#"
            query = text "select 1"
        "#]],
    );
}

/// The keys of `train` beside `pairs`, `model` and `objective`, written out.
const TRAIN: &str = "seed: 42, response_header: prompt, prompt_keep: end, truncation: budget, max_prompt_length: 1800, master: f32, moments: f32, share_prompt: false,
  max_length: 2048, micro_batch_tokens: 4096, batch_size: 128, max_steps: null, epochs: 1, max_grad_norm: 1, eps: 1e-8,
  betas: [0.9, 0.999], weight_decay: 0, warmup_ratio: 0.1, schedule: cosine, off_policy: deny, learning_rate: 0.000001";

#[test]
fn train() {
    check(
        "{ train: { pairs: pairs, model: policy, objective: { simpo: { beta: 10, gamma_beta_ratio: 0.5 } }, learning_rate: 1e-6 } }",
        &format!(
            "{{ train: {{ {TRAIN}, objective: {{ simpo: {{ sft_weight: 0, label_smoothing: 0, loss: sigmoid,
               gamma_beta_ratio: 5e-1, beta: 10.0 }} }}, model: policy, pairs: pairs }} }}"
        ),
        expect![[r#"
            model.init = bool false
            objective = text "simpo"
            objective.simpo.beta = float 10.0
            objective.simpo.gamma_beta_ratio = float 0.5
            objective.simpo.loss = text "sigmoid"
            objective.simpo.label_smoothing = float 0.0
            objective.simpo.sft_weight = float 0.0
            off_policy = text "deny"
            learning_rate = float 1e-6
            schedule = text "cosine"
            warmup_ratio = float 0.1
            weight_decay = float 0.0
            betas = [float 0.9, float 0.999]
            eps = float 1e-8
            max_grad_norm = float 1.0
            epochs = int 1
            max_steps = null
            batch_size = int 128
            micro_batch_tokens = int 4096
            max_length = int 2048
            max_prompt_length = int 1800
            truncation = text "budget"
            prompt_keep = text "end"
            response_header = text "prompt"
            seed = int 42
        "#]],
    );
}

#[test]
fn objectives() {
    let cases = [
        ("dpo", "label_smoothing: 0, loss: sigmoid, beta: 0.1"),
        ("ipo", "log_probs: sum, beta: 0.1"),
        ("cpo", "label_smoothing: 0, loss: sigmoid, cpo_alpha: 1, beta: 0.1"),
        ("kto", "undesirable_weight: 1, desirable_weight: 1, beta: 0.1"),
        ("orpo", "lambda: 0.1"),
        ("slic_hf", "lambda: 0.1, delta: 1"),
        ("rrhf", "lambda: 1"),
        ("r_dpo", "alpha: 0.05, beta: 0.1"),
    ];
    let mut shown = String::new();
    for (name, written) in cases {
        let with = |body: &str| {
            let stage = format!(
                "{{ train: {{ {TRAIN}, objective: {{ {name}: {{ {body} }} }}, model: policy, pairs: pairs }} }}"
            );
            leaves_of(&stage).into_iter().filter(|leaf| leaf.path.starts_with("objective."))
        };
        for (short, long) in with("").zip(with(written)) {
            assert_eq!((&short.path, &short.value), (&long.path, &long.value));
            assert!(long.place.is_some(), "`{}` is not written down in the long form", long.path);
            shown.push_str(&format!("{} = {}\n", short.path, shown_value(&short.value)));
        }
    }
    expect![[r#"
        objective.dpo.beta = float 0.1
        objective.dpo.loss = text "sigmoid"
        objective.dpo.label_smoothing = float 0.0
        objective.ipo.beta = float 0.1
        objective.ipo.log_probs = text "sum"
        objective.cpo.beta = float 0.1
        objective.cpo.cpo_alpha = float 1.0
        objective.cpo.loss = text "sigmoid"
        objective.cpo.label_smoothing = float 0.0
        objective.kto.beta = float 0.1
        objective.kto.desirable_weight = float 1.0
        objective.kto.undesirable_weight = float 1.0
        objective.orpo.lambda = float 0.1
        objective.slic_hf.delta = float 1.0
        objective.slic_hf.lambda = float 0.1
        objective.rrhf.lambda = float 1.0
        objective.r_dpo.beta = float 0.1
        objective.r_dpo.alpha = float 0.05
    "#]]
    .assert_eq(&shown);
}

#[test]
fn training_of_a_reward_model() {
    check(
        "{ train: { rows: prompts, model: { init: shapes/reward }, objective: { reward: { objectives: [right, short] } }, learning_rate: 1e-6 } }",
        &format!(
            "{{ train: {{ {TRAIN}, objective: {{ reward: {{ grow_layers: 0, preference_weight: 1, lm_weight: 0.5, objectives_weight: 1, correctness_weight: 1,
               objectives: [right, short] }} }}, model: {{ init: shapes/reward }}, rows: prompts }} }}"
        ),
        expect![[r#"
            model.init = bool true
            objective = text "reward"
            objective.reward.objectives = [text "right", text "short"]
            objective.reward.correctness_weight = float 1.0
            objective.reward.objectives_weight = float 1.0
            objective.reward.lm_weight = float 0.5
            objective.reward.preference_weight = float 1.0
            objective.reward.grow_layers = int 0
            off_policy = text "deny"
            learning_rate = float 1e-6
            schedule = text "cosine"
            warmup_ratio = float 0.1
            weight_decay = float 0.0
            betas = [float 0.9, float 0.999]
            eps = float 1e-8
            max_grad_norm = float 1.0
            epochs = int 1
            max_steps = null
            batch_size = int 128
            micro_batch_tokens = int 4096
            max_length = int 2048
            max_prompt_length = int 1800
            truncation = text "budget"
            prompt_keep = text "end"
            response_header = text "prompt"
            seed = int 42
        "#]],
    );
}

/// Keys that are a matter of speed, and the names of inputs, are no leaves.
#[test]
fn speed_and_names_change_no_leaf() {
    let same = [
        (
            "{ sample: { prompts: prompts, model: policy } }",
            "{ sample: { prompts: prompts, model: reward, max_batch: 9 } }",
        ),
        (
            "{ score: { responses: responses, model: reward } }",
            "{ score: { responses: responses, model: policy, max_batch_tokens: 9 } }",
        ),
        ("{ ingest: { from: a.jsonl } }", "{ ingest: { from: [b/*.parquet], heldout_from: c.csv } }"),
        (
            "{ train: { pairs: pairs, model: policy, objective: { dpo: {} }, learning_rate: 1, checkpoint: auto } }",
            "{ train: { pairs: pairs, model: policy, objective: { dpo: {} }, learning_rate: 1,
               checkpoint: { every_steps: 50 } } }",
        ),
        (
            "{ train: { pairs: pairs, model: policy, objective: { dpo: {} }, learning_rate: 1 } }",
            "{ train: { pairs: pairs, model: policy, objective: { dpo: {} }, learning_rate: 1, recompute: true } }",
        ),
    ];
    let bare = |stage| -> Vec<_> { leaves_of(stage).into_iter().map(|leaf| (leaf.path, leaf.value)).collect() };
    for (one, other) in same {
        assert_eq!(bare(one), bare(other));
    }
}

/// Keys that came later are leaves where they say something new, so that results from before them are still found.
#[test]
fn later_keys_are_leaves_where_they_are_not_the_default() {
    let paths = |keys: &str| -> Vec<String> {
        let stage = format!(
            "{{ train: {{ pairs: pairs, model: policy, objective: {{ dpo: {{}} }}, learning_rate: 1{keys} }} }}"
        );
        leaves_of(&stage).into_iter().map(|leaf| leaf.path).collect()
    };
    let before = paths("");
    assert_eq!(paths(", share_prompt: false, master: f32, moments: f32"), before);
    let added: Vec<String> = paths(", share_prompt: true, master: split, moments: bf16")
        .into_iter()
        .filter(|path| !before.contains(path))
        .collect();
    assert_eq!(added, ["master", "moments", "share_prompt"]);
}

/// Its default is the published share of `max_length`.
#[test]
fn max_prompt_length_follows_max_length() {
    for (max_length, expected) in [(2048, 1800), (1024, 900), (256, 225), (2, 1), (1, 1)] {
        let stage = format!(
            "{{ train: {{ pairs: pairs, model: policy, objective: {{ dpo: {{}} }}, learning_rate: 1, max_length: {max_length} }} }}"
        );
        let leaves = leaves_of(&stage);
        let leaf = leaves.iter().find(|leaf| leaf.path == "max_prompt_length").expect("it is a leaf");
        assert_eq!((&leaf.value, leaf.place), (&LeafValue::Int(expected), None));
    }
}

/// What stands where: inputs in order, with the place that names each.
#[test]
fn inputs_and_places() {
    let pipeline =
        pipeline("{ evaluate: { prompts: prompts, candidate: policy, baseline: policy, judge: reward, n: 3 } }");
    let stage = pipeline.stages.last().expect("the stage is there");
    let mut shown = String::new();
    for input in stage.kind.inputs() {
        let source = match &input.source {
            Source::Stage(read) => format!("stage {}", read.stage),
            Source::Model(name) => format!("model {name}"),
            Source::Files(patterns) => format!("files {patterns:?}"),
            Source::Folder(folder) => format!("folder {folder}"),
        };
        let place = pipeline.sources.place(input.place.expect("inputs are written down"));
        shown.push_str(&format!("{place} {} = {source}\n", input.role));
    }
    let Kind::Evaluate(params) = &stage.kind else { panic!("the kind is evaluate") };
    let n = params.answers.n.place.expect("n is written down");
    shown.push_str(&format!("{} {}\n", pipeline.sources.place(n), pipeline.sources.slice(n)));
    expect![[r#"
        p.yaml:8:33 prompts = stage prompts
        p.yaml:8:53 candidate = model policy
        p.yaml:8:71 baseline = model policy
        p.yaml:8:86 judge = model reward
        p.yaml:8:97 3
    "#]]
    .assert_eq(&shown);
}

//! Stages with a matrix: the cells they become, what each reads, and what a value comes to in it.

use std::fmt::Write as _;

use expect_test::{Expect, expect};
use sluice_spec::{Leaf, Options, Pipeline, Source, parse};

fn read(stages: &str, set: &[&str]) -> Result<Pipeline, String> {
    let text = format!("version: 1\nmodels: {{ policy: models/policy, reward: models/reward }}\nstages:\n{stages}");
    let set = set.iter().map(|text| (*text).to_owned()).collect();
    parse("p.yaml", &text, &Options { profile: None, set }).map_err(|faults| faults.to_string())
}

/// A line a stage: its name and what it reads.
fn check(stages: &str, set: &[&str], expected: Expect) {
    let shown = read(stages, set).map(|pipeline| {
        let mut lines = String::new();
        for stage in &pipeline.stages {
            let inputs = stage.kind.inputs();
            let inputs = inputs.iter().filter_map(|input| match &input.source {
                Source::Stage(read) => Some(format!("{}={}", input.role, read.stage)),
                Source::Model(name) => Some(format!("{}={name}", input.role)),
                Source::Files(_) | Source::Folder(_) => None,
            });
            let line = format!("{} <- {}", stage.name, inputs.collect::<Vec<_>>().join(" "));
            let _ = writeln!(lines, "{}", line.trim_end());
        }
        lines
    });
    expected.assert_eq(&shown.unwrap_or_else(|faults| faults));
}

/// The written leaves of the stages whose names begin so.
fn check_leaves(stages: &str, named: &str, expected: Expect) {
    let pipeline = read(stages, &[]).unwrap_or_else(|faults| panic!("{faults}"));
    let mut lines = String::new();
    for stage in pipeline.stages.iter().filter(|stage| stage.name.as_str().starts_with(named)) {
        let mut leaves: Vec<Leaf> = Vec::new();
        stage.kind.leaves(&mut leaves);
        let _ = writeln!(lines, "{}", stage.name);
        for Leaf { path, value, place } in leaves {
            if let Some(place) = place {
                let _ = writeln!(lines, "  {path} = {value:?} at {}", pipeline.sources.place(place));
            }
        }
    }
    expected.assert_eq(&lines);
}

const SWEEP: &str = "  prompts: { ingest: { from: a.jsonl } }
  responses: { sample: { prompts: prompts, model: policy, n: 2 } }
  scores: { score: { responses: responses, model: reward } }
  pairs: { pair: { scores: scores } }
  tuned:
    train:
      pairs: pairs
      model: policy
      objective: { simpo: { beta: \"${matrix.beta}\", gamma_beta_ratio: 0.5 } }
      learning_rate: ${matrix.lr}
    matrix: { lr: [1e-3, 3.0e-3], beta: [2.5, 10] }
";

#[test]
fn a_stage_becomes_the_product_of_its_axes() {
    check(
        SWEEP,
        &[],
        expect![[r#"
        prompts <-
        responses <- prompts=prompts model=policy
        scores <- responses=responses model=reward
        pairs <- scores=scores
        tuned[lr=0.001,beta=2.5] <- pairs=pairs model=policy
        tuned[lr=0.001,beta=10] <- pairs=pairs model=policy
        tuned[lr=0.003,beta=2.5] <- pairs=pairs model=policy
        tuned[lr=0.003,beta=10] <- pairs=pairs model=policy
    "#]],
    );
    check(
        SWEEP,
        &["stages.tuned.matrix.lr=[1.0e-6]", "stages.tuned.matrix.beta={low: 1, high: 100}"],
        expect![[r#"
            prompts <-
            responses <- prompts=prompts model=policy
            scores <- responses=responses model=reward
            pairs <- scores=scores
            tuned[lr=1e-6,beta=low] <- pairs=pairs model=policy
            tuned[lr=1e-6,beta=high] <- pairs=pairs model=policy
        "#]],
    );
    check(
        SWEEP,
        &["stages.tuned.matrix.exclude=[{lr: 0.001, beta: 10}]"],
        expect![[r#"
        prompts <-
        responses <- prompts=prompts model=policy
        scores <- responses=responses model=reward
        pairs <- scores=scores
        tuned[lr=0.001,beta=2.5] <- pairs=pairs model=policy
        tuned[lr=0.003,beta=2.5] <- pairs=pairs model=policy
        tuned[lr=0.003,beta=10] <- pairs=pairs model=policy
    "#]],
    );
}

#[test]
fn a_value_keeps_its_type_and_its_place() {
    check_leaves(
        SWEEP,
        "tuned[lr=0.003",
        expect![[r#"
        tuned[lr=0.003,beta=2.5]
          model.init = Bool(false) at p.yaml:11:14
          objective = Str("simpo") at p.yaml:12:18
          objective.simpo.beta = Float(2.5) at p.yaml:14:42
          objective.simpo.gamma_beta_ratio = Float(0.5) at p.yaml:12:71
          learning_rate = Float(0.003) at p.yaml:14:26
        tuned[lr=0.003,beta=10]
          model.init = Bool(false) at p.yaml:11:14
          objective = Str("simpo") at p.yaml:12:18
          objective.simpo.beta = Float(10.0) at p.yaml:14:47
          objective.simpo.gamma_beta_ratio = Float(0.5) at p.yaml:12:71
          learning_rate = Float(0.003) at p.yaml:14:26
    "#]],
    );
}

#[test]
fn what_reads_a_matrix_has_its_cells() {
    let report = "  report: { evaluate: { prompts: prompts, candidate: tuned, baseline: policy, judge: reward } }\n";
    check(
        &format!("{SWEEP}{report}"),
        &["stages.tuned.matrix.lr=[1e-3]"],
        expect![[r#"
        prompts <-
        responses <- prompts=prompts model=policy
        scores <- responses=responses model=reward
        pairs <- scores=scores
        tuned[lr=0.001,beta=2.5] <- pairs=pairs model=policy
        tuned[lr=0.001,beta=10] <- pairs=pairs model=policy
        report[lr=0.001,beta=2.5] <- prompts=prompts candidate=tuned[lr=0.001,beta=2.5] baseline=policy judge=reward
        report[lr=0.001,beta=10] <- prompts=prompts candidate=tuned[lr=0.001,beta=10] baseline=policy judge=reward
    "#]],
    );
    // One cell in two spellings, and some of the cells.
    let names = |candidate: &str| {
        let report = report.replace("candidate: tuned", &format!("candidate: '{candidate}'"));
        let pipeline = read(&format!("{SWEEP}{report}"), &["stages.tuned.matrix.lr=[1e-3, 5e-3]"]);
        let stages = pipeline.unwrap_or_else(|faults| panic!("{faults}")).stages;
        let of_report = stages.iter().filter(|stage| stage.base().as_str() == "report");
        of_report
            .map(|stage| {
                let read: Vec<String> = stage
                    .kind
                    .inputs()
                    .iter()
                    .filter_map(|input| match &input.source {
                        Source::Stage(read) if input.role == "candidate" => Some(read.stage.to_string()),
                        _ => None,
                    })
                    .collect();
                format!("{} <- {}", stage.name, read.concat())
            })
            .collect::<Vec<_>>()
            .join("\n")
    };
    expect!["report <- tuned[lr=0.001,beta=10]"].assert_eq(&names("tuned[lr=1e-3,beta=10.0]"));
    expect!["report <- tuned[lr=0.001,beta=10]"].assert_eq(&names("tuned[beta=10,lr=0.001]"));
    expect![[r#"
        report[lr=0.001] <- tuned[lr=0.001,beta=2.5]
        report[lr=0.005] <- tuned[lr=0.005,beta=2.5]"#]]
    .assert_eq(&names("tuned[beta=2.5]"));
}

const TWO: &str = "  prompts: { ingest: { from: a.jsonl } }
  a: { sample: { prompts: prompts, model: policy, seed: \"${matrix.seed}\" }, matrix: { seed: [1, 2] } }
";

#[test]
fn two_matrices_multiply_and_a_shared_axis_is_joined() {
    let b =
        "  b: { sample: { prompts: prompts, model: policy, temperature: '${matrix.t}' }, matrix: { t: [0, 0.5] } }\n";
    let both = "  both: { sql: { from: [a, b], query: select 1 } }\n";
    check(
        &format!("{TWO}{b}{both}"),
        &[],
        expect![[r#"
        prompts <-
        a[seed=1] <- prompts=prompts model=policy
        a[seed=2] <- prompts=prompts model=policy
        b[t=0] <- prompts=prompts model=policy
        b[t=0.5] <- prompts=prompts model=policy
        both[seed=1,t=0] <- a=a[seed=1] b=b[t=0]
        both[seed=1,t=0.5] <- a=a[seed=1] b=b[t=0.5]
        both[seed=2,t=0] <- a=a[seed=2] b=b[t=0]
        both[seed=2,t=0.5] <- a=a[seed=2] b=b[t=0.5]
    "#]],
    );
    let b = "  b: { sample: { prompts: prompts, model: policy, n: 2, seed: '${matrix.seed}' }, matrix: { seed: [2, 1] } }\n";
    check(
        &format!("{TWO}{b}{both}"),
        &[],
        expect![[r#"
        prompts <-
        a[seed=1] <- prompts=prompts model=policy
        a[seed=2] <- prompts=prompts model=policy
        b[seed=2] <- prompts=prompts model=policy
        b[seed=1] <- prompts=prompts model=policy
        both[seed=1] <- a=a[seed=1] b=b[seed=1]
        both[seed=2] <- a=a[seed=2] b=b[seed=2]
    "#]],
    );
    // Along two ways from one matrix, the cells stay together.
    let b = "  b: { score: { responses: a, model: reward } }\n";
    check(
        &format!("{TWO}{b}{both}"),
        &[],
        expect![[r#"
        prompts <-
        a[seed=1] <- prompts=prompts model=policy
        a[seed=2] <- prompts=prompts model=policy
        b[seed=1] <- responses=a[seed=1] model=reward
        b[seed=2] <- responses=a[seed=2] model=reward
        both[seed=1] <- a=a[seed=1] b=b[seed=1]
        both[seed=2] <- a=a[seed=2] b=b[seed=2]
    "#]],
    );
}

#[test]
fn a_stage_with_a_matrix_of_its_own_may_read_one_and_use_its_values() {
    let b = "  b: { sample: { prompts: prompts, model: policy, seed: '${matrix.seed}', n: '${matrix.n}' }, matrix: { n: [1, 2] } }\n";
    check(
        &format!("{TWO}{b}"),
        &[],
        expect![[r#"
        p.yaml:6:57: stage `b`: `${matrix.seed}` names no axis of its matrix [reference]
            6 |   b: { sample: { prompts: prompts, model: policy, seed: '${matrix.seed}', n: '${matrix.n}' }, matrix: { n: [1, 2] } }
              |                                                         ^^^^^^^^^^^^^^^^
               help: it has n
    "#]],
    );
    let c = "  c: { sql: { from: a, query: 'select ${matrix.seed} as seed, ${matrix.n} as n from a' }, matrix: { n: [1, 2] } }\n";
    check(
        &format!("{TWO}{c}"),
        &[],
        expect![[r#"
        prompts <-
        a[seed=1] <- prompts=prompts model=policy
        a[seed=2] <- prompts=prompts model=policy
        c[seed=1,n=1] <- a=a[seed=1]
        c[seed=1,n=2] <- a=a[seed=1]
        c[seed=2,n=1] <- a=a[seed=2]
        c[seed=2,n=2] <- a=a[seed=2]
    "#]],
    );
    check_leaves(
        &format!("{TWO}{c}"),
        "c[",
        expect![[r#"
        c[seed=1,n=1]
          query = Str("select 1 as seed, 1 as n from a") at p.yaml:6:31
        c[seed=1,n=2]
          query = Str("select 1 as seed, 2 as n from a") at p.yaml:6:31
        c[seed=2,n=1]
          query = Str("select 2 as seed, 1 as n from a") at p.yaml:6:31
        c[seed=2,n=2]
          query = Str("select 2 as seed, 2 as n from a") at p.yaml:6:31
    "#]],
    );
}

#[test]
fn an_axis_may_name_stages_and_hold_values_of_any_shape() {
    let stages = "  prompts: { ingest: { from: a.jsonl } }
  tuned:
    train:
      rows: prompts
      model: ${matrix.start}
      objective: ${matrix.objective}
      learning_rate: ${matrix.run.lr}
      epochs: ${matrix.run.epochs}
    matrix:
      start: [policy, first]
      objective: { sft: { sft: {} } }
      run: { short: { lr: 1e-3, epochs: 1 }, long: { lr: 1e-4, epochs: 3 } }
      exclude: [{ start: first, run: long }]
  first: { train: { rows: prompts, model: policy, objective: { sft: {} }, learning_rate: 1e-3 } }
";
    check(
        stages,
        &[],
        expect![[r#"
        prompts <-
        tuned[start=policy,objective=sft,run=short] <- rows=prompts model=policy
        tuned[start=policy,objective=sft,run=long] <- rows=prompts model=policy
        tuned[start=first,objective=sft,run=short] <- rows=prompts model=first
        first <- rows=prompts model=policy
    "#]],
    );
    check_leaves(
        stages,
        "tuned[start=policy,objective=sft,run=long",
        expect![[r#"
        tuned[start=policy,objective=sft,run=long]
          model.init = Bool(false) at p.yaml:13:15
          objective = Str("sft") at p.yaml:14:25
          learning_rate = Float(0.0001) at p.yaml:15:58
          epochs = Int(3) at p.yaml:15:72
    "#]],
    );
}

#[test]
fn parameters_may_stand_for_axes_and_for_their_values() {
    let text = "\
version: 1
params: { lr: \"${matrix.lr}\", rates: [1e-3, 2e-3], seed: 7 }
models: { policy: models/policy }
stages:
  rows: { ingest: { from: a.jsonl } }
  tuned:
    train: { rows: rows, model: policy, objective: { sft: {} }, learning_rate: \"${params.lr}\", seed: \"${params.seed}\" }
    matrix: { lr: \"${params.rates}\" }
";
    let pipeline = parse("p.yaml", text, &Options::default()).unwrap_or_else(|faults| panic!("{faults}"));
    let names: Vec<&str> = pipeline.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["rows", "tuned[lr=0.001]", "tuned[lr=0.002]"]);
}

#[test]
fn a_limit_is_the_tightest_of_three() {
    let limits = |own: &str, section: &str, set: &[&str]| {
        let text = format!(
            "version: 1\nparams: {{ few: 3 }}\nlimits: {{ {section} }}\nstages:\n  \
             a: {{ ingest: {{ from: a.csv, limit: {own} }} }}\n  b: {{ ingest: {{ from: b.csv }} }}\n"
        );
        let set = set.iter().map(|text| (*text).to_owned()).collect();
        let pipeline =
            parse("p.yaml", &text, &Options { profile: None, set }).unwrap_or_else(|faults| panic!("{faults}"));
        let on = pipeline
            .limits
            .iter()
            .map(|limit| format!("{}={} {}", limit.stage, limit.count.get(), pipeline.sources.place(limit.place)));
        on.collect::<Vec<_>>().join(", ")
    };
    expect![""].assert_eq(&limits("null", "", &[]));
    expect!["a=5 p.yaml:3:14"].assert_eq(&limits("null", "a: 5", &[]));
    expect![""].assert_eq(&limits("4", "a: 5", &[]));
    expect!["a=3 p.yaml:2:16"].assert_eq(&limits("9", "a: \"${params.few}\", b: null", &[]));
    expect!["a=5 p.yaml:3:14, b=7 --limit 7"].assert_eq(&limits("9", "a: 5", &["limits.*=7"]));
    expect!["a=7 --limit 7, b=2 --set limits.b=2"].assert_eq(&limits("9", "", &["limits.b=2", "limits.*=7"]));
    expect![""].assert_eq(&limits("9", "a: 5", &["limits.a="]));
}

//! Plans as trees: order, and what hangs below what.

use expect_test::{Expect, expect};
use sluice_plan::{Cells, Plan, plan};
use sluice_spec::{KindName, Options, parse};

fn plan_of(name: &str, text: &str, profile: Option<&str>) -> Result<Plan, String> {
    let options = Options { profile: profile.map(str::to_owned), set: Vec::new() };
    parse(name, text, &options).and_then(plan).map_err(|faults| faults.to_string())
}

/// The tree, or the faults.
fn check(stages: &str, expected: Expect) {
    let text = format!("version: 1\nmodels: {{ policy: models/policy, reward: models/reward }}\nstages:\n{stages}");
    let shown = match plan_of("p.yaml", &text, None) {
        Ok(plan) => plan.to_string(),
        Err(faults) => faults,
    };
    expected.assert_eq(&shown);
}

fn main_pipeline(profile: &str) -> Plan {
    let text = include_str!("../../../pipelines/simpo-gemma.yaml");
    plan_of("simpo-gemma.yaml", text, Some(profile)).expect("the main pipeline has no faults")
}

#[test]
fn the_main_pipeline_is_a_line() {
    expect![[r#"
        ingest prompts                  <- from=data/tasks/preference.parquet data/tasks/heldout_final.parquet
        └─ sample responses             <- prompts, model=policy
           └─ score scores              <- responses, model=reward
              └─ pair pairs             <- scores
                 └─ train tuned         <- pairs, model=policy
                    └─ evaluate report  <- prompts, candidate=tuned, baseline=policy, judge=reward
    "#]]
    .assert_eq(&main_pipeline("tiny").to_string());
    expect![[r#"
        ingest prompts                  <- from=prompts/*.parquet
        └─ sample responses             <- prompts, model=policy
           └─ score scores              <- responses, model=reward
              └─ pair pairs             <- scores
                 └─ train tuned         <- pairs, model=policy
                    └─ evaluate report  <- prompts, candidate=tuned, baseline=policy, judge=reward
    "#]]
    .assert_eq(&main_pipeline("gemma-2-9b-it").to_string());
}

#[test]
fn each_tiny_model_is_a_language_model_first() {
    let text = include_str!("../../../pipelines/tiny-models.yaml");
    let plan = plan_of("tiny-models.yaml", text, None).expect("it has no faults");
    expect![[r#"
        ingest clean_rows     <- from=data/tasks/sft_clean.parquet
        └─ train taught       <- rows=clean_rows, model=data/tiny/policy
        ingest mixed_rows     <- from=data/tasks/sft_mixed.parquet
        └─ train policy       <- rows=mixed_rows, model=taught
        ingest right_rows     <- from=data/tasks/reward_rows.parquet
        └─ train reader       <- rows=right_rows, model=data/tiny/reward-lm
        ingest labelled_rows  <- from=data/tasks/reward_rows.parquet
        └─ train reward       <- rows=labelled_rows, model=reader
    "#]]
    .assert_eq(&plan.to_string());
}

#[test]
fn the_sweep_makes_its_pairs_once() {
    let plan = plan_of("sweep.yaml", include_str!("../../../pipelines/sweep.yaml"), None).expect("it has no faults");
    expect![[r#"
        ingest prompts                              <- from=data/tasks/preference.parquet data/tasks/heldout_final.parquet
        └─ sample responses                         <- prompts, model=policy
           └─ score scores                          <- responses, model=reward
              └─ pair pairs                         <- scores
                 └─ train tuned[lr,beta] ×9         <- pairs, model=policy
                    └─ evaluate report[lr,beta] ×9  <- prompts, candidate=tuned, baseline=policy, judge=reward
    "#]].assert_eq(&plan.to_string());
}

#[test]
fn two_branches_meet_in_a_query() {
    check(
        "  prompts: { ingest: { from: [a.jsonl, b.jsonl], heldout_from: c.csv } }
  a: { sample: { prompts: prompts, model: policy, seed: 1 } }
  b: { sample: { prompts: prompts, model: policy, seed: 2 } }
  both: { sql: { from: [a, b], query: select * from a union all select * from b } }
  count: { sql: { from: a, query: select count(*) from a } }
",
        expect![[r#"
            ingest prompts   <- from=a.jsonl b.jsonl, heldout_from=c.csv
            ├─ sample a      <- prompts, model=policy
            │  └─ sql count  <- a
            └─ sample b      <- prompts, model=policy
               └─ sql both   <- a, b
        "#]],
    );
}

#[test]
fn a_stage_may_stand_before_what_it_reads() {
    check(
        "  report: { evaluate: { prompts: prompts, candidate: tuned, baseline: policy } }
  tuned: { train: { pairs: pairs, model: policy, objective: { dpo: {} }, learning_rate: 1e-6 } }
  pairs: { pair: { scores: scores } }
  losses: { sql: { from: [tuned.steps, pairs.dropped], query: select 1 } }
  scores: { score: { responses: responses, model: reward } }
  responses: { sample: { prompts: prompts, model: policy } }
  prompts: { ingest: { from: a.jsonl } }
",
        expect![[r#"
            ingest prompts                  <- from=a.jsonl
            └─ sample responses             <- prompts, model=policy
               └─ score scores              <- responses, model=reward
                  └─ pair pairs             <- scores
                     └─ train tuned         <- pairs, model=policy
                        ├─ evaluate report  <- prompts, candidate=tuned, baseline=policy
                        └─ sql losses       <- tuned.steps, pairs.dropped
        "#]],
    );
}

#[test]
fn stages_without_edges_keep_the_order_of_the_file() {
    check(
        "  z: { ingest: { from: z.jsonl } }
  a: { ingest: { from: a.jsonl } }
  m: { ingest: { from: m.jsonl } }
",
        expect![[r#"
            ingest z  <- from=z.jsonl
            ingest a  <- from=a.jsonl
            ingest m  <- from=m.jsonl
        "#]],
    );
}

#[test]
fn a_chain_of_training_rounds() {
    check(
        "  rows: { ingest: { from: rows.parquet, map: { response: answer, label: grade }, keep: [short] } }
  base: { train: { rows: rows, model: { init: configs/tiny }, objective: { sft: {} }, learning_rate: 1e-3 } }
  judge: { train: { rows: rows, model: base, objective: { reward: { objectives: [right, short] } }, learning_rate: 1e-3 } }
  answers: { sample: { prompts: rows, model: base } }
  scores: { score: { responses: answers, model: judge } }
",
        expect![[r#"
            ingest rows            <- from=rows.parquet
            └─ train base          <- rows, model=configs/tiny
               ├─ train judge      <- rows, model=base
               └─ sample answers   <- prompts=rows, model=base
                  └─ score scores  <- responses=answers, model=judge
        "#]],
    );
}

#[test]
fn an_objective_needs_its_columns_filled() {
    check(
        "  rows: { ingest: { from: rows.parquet } }
  graded: { sql: { from: rows, query: select * from rows } }
  base: { train: { rows: rows, model: policy, objective: { sft: {} }, learning_rate: 1e-3 } }
  judge: { train: { rows: rows, model: policy, objective: { reward: { objectives: [right] } }, learning_rate: 1e-3 } }
  fine: { train: { rows: graded, model: policy, objective: { sft: {} }, learning_rate: 1e-3 } }
",
        expect![[r#"
            p.yaml:6:26: stage `base` learns from `response`, which `rows` does not fill [missing-key]
                6 |   base: { train: { rows: rows, model: policy, objective: { sft: {} }, learning_rate: 1e-3 } }
                  |                          ^^^^
                4 |   rows: { ingest: { from: rows.parquet } }
                  |                           ^^^^^^^^^^^^ the files are read here
                   help: say which columns of the files they are: `map: { response: COLUMN }`

            p.yaml:7:27: stage `judge` learns from `response` and `label`, which `rows` does not fill [missing-key]
                7 |   judge: { train: { rows: rows, model: policy, objective: { reward: { objectives: [right] } }, learning_rate: 1e-3 } }
                  |                           ^^^^
                4 |   rows: { ingest: { from: rows.parquet } }
                  |                           ^^^^^^^^^^^^ the files are read here
                   help: say which columns of the files they are: `map: { response: COLUMN, label: COLUMN }`
        "#]],
    );
}

#[test]
fn held_out_prompts_have_to_be_held_out() {
    let report = "report: { evaluate: { prompts: prompts, candidate: policy, baseline: policy } }";
    let none = "prompts: { ingest: { from: a.jsonl, split: { heldout: 0 } } }";
    check(
        &format!("  {none}\n  {report}\n"),
        expect![[r#"
            p.yaml:5:34: stage `report` answers the prompts of `prompts` that are held out, and none is [contradiction]
                5 |   report: { evaluate: { prompts: prompts, candidate: policy, baseline: policy } }
                  |                                  ^^^^^^^
                4 |   prompts: { ingest: { from: a.jsonl, split: { heldout: 0 } } }
                  |                                                         ^ the share that is held out
                   help: raise `split.heldout`, name files in `heldout_from`, or write `split: all` to answer every prompt
        "#]],
    );
    let answers = "answers: { sample: { prompts: prompts, model: policy, split: heldout } }";
    check(
        &format!("  {none}\n  {answers}\n"),
        expect![[r#"
            p.yaml:5:64: stage `answers` answers the prompts of `prompts` that are held out, and none is [contradiction]
                5 |   answers: { sample: { prompts: prompts, model: policy, split: heldout } }
                  |                                                                ^^^^^^^
                4 |   prompts: { ingest: { from: a.jsonl, split: { heldout: 0 } } }
                  |                                                         ^ the share that is held out
                   help: raise `split.heldout`, name files in `heldout_from`, or write `split: all` to answer every prompt
        "#]],
    );
    // Files of their own, a column, a share: then it is known when they are read.
    for some in ["heldout_from: b.jsonl, split: { heldout: 0 }", "split: { column: split, heldout: 0 }", "limit: 9"] {
        let prompts = format!("prompts: {{ ingest: {{ from: a.jsonl, {some} }} }}");
        let text = format!("version: 1\nmodels: {{ policy: p }}\nstages:\n  {prompts}\n  {report}\n");
        assert_eq!(plan_of("p.yaml", &text, None).map(|plan| plan.stages().len()), Ok(2));
    }
}

#[test]
fn objectives_of_a_reward_model_are_columns_of_its_rows() {
    check(
        "  bare: { ingest: { from: rows.parquet, map: { response: answer } } }
  graded: { ingest: { from: rows.parquet, map: { response: answer, label: grade } } }
  kept: { ingest: { from: rows.parquet, map: { response: answer }, keep: [right, short, sure] } }
  a: { train: { rows: bare, model: policy, objective: { reward: { objectives: [right, short] } }, learning_rate: 1e-3 } }
  b: { train: { rows: graded, model: policy, objective: { reward: { objectives: [right, short, sure] } }, learning_rate: 1e-3 } }
  c: { train: { rows: kept, model: policy, objective: { reward: { objectives: [right, short] } }, learning_rate: 1e-3 } }
  d: { train: { rows: bare, model: policy, objective: { reward: { objectives: [right, label] } }, learning_rate: 1e-3 } }
",
        expect![[r#"
            p.yaml:7:23: stage `a` learns from `label` and `short`, which `bare` does not fill [missing-key]
                7 |   a: { train: { rows: bare, model: policy, objective: { reward: { objectives: [right, short] } }, learning_rate: 1e-3 } }
                  |                       ^^^^
                4 |   bare: { ingest: { from: rows.parquet, map: { response: answer } } }
                  |                           ^^^^^^^^^^^^ the files are read here
                   help: say which columns of the files they are: `map: { label: COLUMN }` and `keep: [short]`

            p.yaml:8:23: stage `b` learns from `short` and `sure`, which `graded` does not fill [missing-key]
                8 |   b: { train: { rows: graded, model: policy, objective: { reward: { objectives: [right, short, sure] } }, learning_rate: 1e-3 } }
                  |                       ^^^^^^
                5 |   graded: { ingest: { from: rows.parquet, map: { response: answer, label: grade } } }
                  |                             ^^^^^^^^^^^^ the files are read here
                   help: say which columns of the files they are: `keep: [short, sure]`

            p.yaml:10:23: stage `d` learns from `label`, which `bare` does not fill [missing-key]
               10 |   d: { train: { rows: bare, model: policy, objective: { reward: { objectives: [right, label] } }, learning_rate: 1e-3 } }
                  |                       ^^^^
                4 |   bare: { ingest: { from: rows.parquet, map: { response: answer } } }
                  |                           ^^^^^^^^^^^^ the files are read here
                   help: say which columns of the files they are: `map: { label: COLUMN }`
        "#]],
    );
}

#[test]
fn the_graph_in_mermaid_and_dot() {
    let plan = main_pipeline("tiny");
    expect![[r#"
        flowchart TD
          prompts["prompts<br/>ingest"]
          responses["responses<br/>sample"]
          scores["scores<br/>score"]
          pairs["pairs<br/>pair"]
          tuned["tuned<br/>train"]
          report["report<br/>evaluate"]
          model_policy(["policy"])
          model_reward(["reward"])
          prompts -->|prompts| responses
          model_policy -->|model| responses
          responses -->|responses| scores
          model_reward -->|model| scores
          scores -->|scores| pairs
          pairs -->|pairs| tuned
          model_policy -->|model| tuned
          prompts -->|prompts| report
          tuned -->|candidate| report
          model_policy -->|baseline| report
          model_reward -->|judge| report
    "#]]
    .assert_eq(&plan.to_mermaid(&plan.stages().collect::<Vec<_>>(), Cells::Folded));
    expect![[r#"
        digraph pipeline {
          node [shape=box];
          prompts [label="prompts\ningest"];
          responses [label="responses\nsample"];
          scores [label="scores\nscore"];
          pairs [label="pairs\npair"];
          tuned [label="tuned\ntrain"];
          report [label="report\nevaluate"];
          model_policy [label="policy", shape=ellipse];
          model_reward [label="reward", shape=ellipse];
          prompts -> responses [label="prompts"];
          model_policy -> responses [label="model"];
          responses -> scores [label="responses"];
          model_reward -> scores [label="model"];
          scores -> pairs [label="scores"];
          pairs -> tuned [label="pairs"];
          model_policy -> tuned [label="model"];
          prompts -> report [label="prompts"];
          tuned -> report [label="candidate"];
          model_policy -> report [label="baseline"];
          model_reward -> report [label="judge"];
        }
    "#]]
    .assert_eq(&plan.to_dot(&plan.stages().collect::<Vec<_>>(), Cells::Folded));
}

const SWEEP: &str = "  prompts: { ingest: { from: a.jsonl, map: { response: answer } } }
  tuned:
    train: { rows: prompts, model: \"${matrix.start}\", objective: { sft: {} }, learning_rate: \"${matrix.lr}\" }
    matrix: { lr: [1e-3, 3e-3], start: [policy, first] }
  first: { train: { rows: prompts, model: policy, objective: { sft: {} }, learning_rate: 1e-3 } }
  report: { evaluate: { prompts: prompts, candidate: tuned, baseline: 'tuned[lr=1e-3,start=policy]' } }
  both: { sql: { from: [report, report.metrics], query: select 1 } }
";

#[test]
fn cells_are_drawn_as_one_or_each() {
    check(
        SWEEP,
        expect![[r#"
        ingest prompts                         <- from=a.jsonl
        └─ train first                         <- rows=prompts, model=policy
           └─ train tuned[lr,start] ×4         <- rows=prompts, model=policy|first
              └─ evaluate report[lr,start] ×4  <- prompts, candidate=tuned, baseline=tuned[lr=0.001,start=policy]
                 └─ sql both[lr,start] ×4      <- report, report.metrics
    "#]],
    );
    let text = format!("version: 1\nmodels: {{ policy: models/policy }}\nstages:\n{SWEEP}");
    let plan = plan_of("p.yaml", &text, None).unwrap_or_else(|faults| panic!("{faults}"));
    let stages: Vec<_> = plan.stages().filter(|stage| stage.kind.name() != KindName::Sql).collect();
    expect![[r#"
        ingest prompts                                  <- from=a.jsonl
        ├─ train tuned[lr=0.001,start=policy]           <- rows=prompts, model=policy
        │  └─ evaluate report[lr=0.001,start=policy]    <- prompts, candidate=tuned[lr=0.001,start=policy], baseline=tuned[lr=0.001,start=policy]
        ├─ train tuned[lr=0.003,start=policy]           <- rows=prompts, model=policy
        │  └─ evaluate report[lr=0.003,start=policy]    <- prompts, candidate=tuned[lr=0.003,start=policy], baseline=tuned[lr=0.001,start=policy]
        └─ train first                                  <- rows=prompts, model=policy
           ├─ train tuned[lr=0.001,start=first]         <- rows=prompts, model=first
           │  └─ evaluate report[lr=0.001,start=first]  <- prompts, candidate=tuned[lr=0.001,start=first], baseline=tuned[lr=0.001,start=policy]
           └─ train tuned[lr=0.003,start=first]         <- rows=prompts, model=first
              └─ evaluate report[lr=0.003,start=first]  <- prompts, candidate=tuned[lr=0.003,start=first], baseline=tuned[lr=0.001,start=policy]
    "#]].assert_eq(&plan.to_tree(&stages, Cells::Each));
    expect![[r#"
        flowchart TD
          prompts["prompts<br/>ingest"]
          CELL1["tuned[lr=0.001,start=policy]<br/>train"]
          CELL2["tuned[lr=0.003,start=policy]<br/>train"]
          first["first<br/>train"]
          model_policy(["policy"])
          prompts -->|prompts| CELL1
          model_policy -->|model| CELL1
          prompts -->|prompts| CELL2
          model_policy -->|model| CELL2
          prompts -->|prompts| first
          model_policy -->|model| first
    "#]]
    .assert_eq(&plan.to_mermaid(&stages[..4], Cells::Each));
    expect![[r#"
        digraph pipeline {
          node [shape=box];
          prompts [label="prompts\ningest"];
          "tuned[lr=0.001,start=policy]" [label="tuned[lr=0.001,start=policy]\ntrain"];
          "tuned[lr=0.003,start=policy]" [label="tuned[lr=0.003,start=policy]\ntrain"];
          first [label="first\ntrain"];
          model_policy [label="policy", shape=ellipse];
          prompts -> "tuned[lr=0.001,start=policy]" [label="prompts"];
          model_policy -> "tuned[lr=0.001,start=policy]" [label="model"];
          prompts -> "tuned[lr=0.003,start=policy]" [label="prompts"];
          model_policy -> "tuned[lr=0.003,start=policy]" [label="model"];
          prompts -> first [label="prompts"];
          model_policy -> first [label="model"];
        }
    "#]]
    .assert_eq(&plan.to_dot(&stages[..4], Cells::Each));
    expect![[r#"
        flowchart TD
          prompts["prompts<br/>ingest"]
          tuned["tuned[lr,start] ×4<br/>train"]
          first["first<br/>train"]
          report["report[lr,start] ×4<br/>evaluate"]
          model_policy(["policy"])
          prompts -->|prompts| tuned
          first -->|model| tuned
          model_policy -->|model| tuned
          prompts -->|prompts| first
          model_policy -->|model| first
          prompts -->|prompts| report
          tuned -->|candidate| report
          tuned -->|baseline| report
    "#]]
    .assert_eq(&plan.to_mermaid(&stages, Cells::Folded));
    // What is not drawn is not drawn an edge from.
    expect![[r#"
        train tuned[lr,start] ×1  <- rows=prompts, model=policy
    "#]]
    .assert_eq(&plan.to_tree(&stages[1..2], Cells::Folded));
}

#[test]
fn a_long_chain_does_not_run_off_to_the_right() {
    let links = (1..18).map(|n| format!("  s{n}: {{ sql: {{ from: s{}, query: select 1 }} }}\n", n - 1));
    check(
        &format!("  s0: {{ ingest: {{ from: a.jsonl }} }}\n{}", links.collect::<String>()),
        expect![[r#"
        ingest s0                                      <- from=a.jsonl
        └─ sql s1                                      <- s0
           └─ sql s2                                   <- s1
              └─ sql s3                                <- s2
                 └─ sql s4                             <- s3
                    └─ sql s5                          <- s4
                       └─ sql s6                       <- s5
                          └─ sql s7                    <- s6
                             └─ sql s8                 <- s7
                                └─ sql s9              <- s8
                                   └─ sql s10          <- s9
                                      └─ sql s11       <- s10
                                         └─ sql s12    <- s11
                                            ⋮ sql s13  <- s12
                                            ⋮ sql s14  <- s13
                                            ⋮ sql s15  <- s14
                                            ⋮ sql s16  <- s15
                                            ⋮ sql s17  <- s16
    "#]],
    );
}

#[test]
fn a_fault_of_all_cells_is_told_once() {
    check(
        "  bare: { ingest: { from: rows.parquet } }
  tuned:
    train: { rows: bare, model: policy, objective: { sft: {} }, learning_rate: \"${matrix.lr}\" }
    matrix: { lr: [1e-3, 3e-3] }
",
        expect![[r#"
            p.yaml:6:20: stage `tuned` learns from `response`, which `bare` does not fill [missing-key]
                6 |     train: { rows: bare, model: policy, objective: { sft: {} }, learning_rate: "${matrix.lr}" }
                  |                    ^^^^
                4 |   bare: { ingest: { from: rows.parquet } }
                  |                           ^^^^^^^^^^^^ the files are read here
                   help: say which columns of the files they are: `map: { response: COLUMN }`
        "#]],
    );
}

/// The stages around `pairs`, whose tests are under test.
fn check_pairs(pairs: &str, expected: Expect) {
    let stages = format!(
        "  prompts: {{ ingest: {{ from: a.jsonl, keep: [score, length] }} }}
  responses: {{ sample: {{ prompts: prompts, model: policy }} }}
  scores: {{ score: {{ responses: responses, model: reward }} }}
  pairs:
    pair: {{ scores: scores }}
{pairs}  picked: {{ sql: {{ from: [pairs], query: select 1 as n }} }}
"
    );
    check(&stages, expected);
}

#[test]
fn tests_name_columns_that_are_there() {
    check_pairs(
        "    tests:
      - not_null: [chosen, rejectd]
      - range: { column: prompt, min: 0 }
      - { unique: [rule], table: dropped }
      - { not_null: [margin], table: dropped }
      - relationship: { column: prompt_id, to: prompts }
      - { sql: select 1, from: [scores, picked] }
      - row_count: { min: 1 }
",
        expect![[r#"
            p.yaml:10:28: stage `pairs`: test `not_null_chosen_rejectd` reads `rejectd`, which `pairs` does not have [unknown-name]
               10 |       - not_null: [chosen, rejectd]
                  |                            ^^^^^^^
                   help: did you mean `rejected`?

            p.yaml:11:26: stage `pairs`: test `range_prompt` is a range over `prompt`, which is text [wrong-type]
               11 |       - range: { column: prompt, min: 0 }
                  |                          ^^^^^^
                   help: a range is one of numbers

            p.yaml:13:22: stage `pairs`: test `not_null_margin` reads `margin`, which `pairs.dropped` does not have [unknown-name]
               13 |       - { not_null: [margin], table: dropped }
                  |                      ^^^^^^
                   help: it has `prompt_id`, `prompt`, `rule` and `n_candidates`

            p.yaml:15:41: stage `pairs`: test `sql` reads `picked`, which is not made before `pairs` [unknown-name]
               15 |       - { sql: select 1, from: [scores, picked] }
                  |                                         ^^^^^^
                   help: a test reads what its stage makes, and what its stage reads, directly or not
        "#]],
    );
}

#[test]
fn a_contract_is_checked_as_far_as_columns_are_known() {
    check_pairs(
        "    columns: { prompt_id: text!, reference: text!, margin: float64!, reward: float32, extra?: int32 }
",
        expect![[r#"
            p.yaml:9:60: stage `pairs`: `columns.margin` is float64!, and `pairs` has it as float32! [wrong-product]
                9 |     columns: { prompt_id: text!, reference: text!, margin: float64!, reward: float32, extra?: int32 }
                  |                                                            ^^^^^^^^
                   help: write `margin: float32!`

            p.yaml:9:78: stage `pairs`: `columns.reward` is a column that `pairs` does not have [wrong-product]
                9 |     columns: { prompt_id: text!, reference: text!, margin: float64!, reward: float32, extra?: int32 }
                  |                                                                              ^^^^^^^
                   help: did you mean `reward_model_digest`?
        "#]],
    );
    check_pairs(
        "    columns: { prompt_id: text, \"*\": none }
",
        expect![[r#"
            p.yaml:9:5: stage `pairs`: `columns` allows no further column, and `pairs` has `pair_id`, `prompt`, `reference`, `group`, `chosen`, `rejected`, `chosen_index`, `rejected_index`, `chosen_score`, `rejected_score`, `margin`, `n_candidates`, `chosen_tokens`, `rejected_tokens`, `policy_digest` and `reward_model_digest` [wrong-product]
                9 |     columns: { prompt_id: text, "*": none }
                  |     ^^^^^^^
                   help: name them, or leave `"*": none` out
        "#]],
    );
    // Of kept columns only the names are known, of a query nothing.
    let open = "  prompts:
    ingest: { from: a.jsonl, keep: [score] }
    columns: { score: float64!, label: float32, scor: float64 }
    tests: [range: { column: score, min: 0 }]
  counts:
    sql: { from: [prompts], query: select 1 as n }
    columns: { n: int64!, m: text }
    tests: [unique: [k]]
";
    check(
        open,
        expect![[r#"
        p.yaml:6:55: stage `prompts`: `columns.scor` is a column that `prompts` does not have [wrong-product]
            6 |     columns: { score: float64!, label: float32, scor: float64 }
              |                                                       ^^^^^^^
               help: did you mean `score`?
    "#]],
    );
}

//! Selectors on one plan: which stages each selects, and what is said to those that select nothing.

use std::collections::BTreeSet;

use expect_test::{Expect, expect};
use sluice_plan::{Plan, SelectError, Selector, plan};
use sluice_spec::{Options, StageName, parse};

const PIPELINE: &str = "\
version: 1
models: { policy: models/policy, reward: models/reward }
stages:
  prompts: { ingest: { from: a.jsonl }, tags: [data] }
  responses: { sample: { prompts: prompts, model: policy }, tags: [nightly, gpu] }
  scores: { score: { responses: responses, model: reward }, tags: gpu }
  pairs: { pair: { scores: scores } }
  clearest: { sql: { from: [pairs, prompts], query: select 1 } }
  tuned:
    train:
      pairs: pairs
      model: policy
      objective: { simpo: { beta: \"${matrix.beta}\", gamma_beta_ratio: 0.5 } }
      learning_rate: ${matrix.lr}
    matrix: { lr: [1e-3, 3e-3], beta: [2.5, 10] }
    tags: [nightly]
  report: { evaluate: { prompts: prompts, candidate: tuned, baseline: policy, judge: reward } }
";

fn the_plan() -> Plan {
    parse("p.yaml", PIPELINE, &Options::default()).and_then(plan).unwrap_or_else(|faults| panic!("{faults}"))
}

/// The names that are selected, or why none is. Words behind `!` are left out.
fn check(words: &str, expected: Expect) {
    let plan = the_plan();
    let changed: BTreeSet<StageName> = plan
        .stages()
        .filter(|stage| ["pairs", "tuned[lr=0.001,beta=10]"].contains(&stage.name.as_str()))
        .map(|stage| stage.name.clone())
        .collect();
    let (words, excluded) = words.split_once('!').unwrap_or((words, ""));
    let parse = |words: &str| words.split_whitespace().map(Selector::parse).collect::<Result<Vec<_>, _>>();
    let selected = parse(words).and_then(|words| plan.select(&words, &parse(excluded)?, &changed));
    let shown = match selected {
        Ok(stages) => stages.iter().map(|stage| stage.name.as_str()).collect::<Vec<_>>().join(" "),
        Err(error) => told(&error),
    };
    expected.assert_eq(&shown);
}

fn told(error: &SelectError) -> String {
    let help = error.help().map_or_else(String::new, |help| format!("; {help}"));
    format!("{error}{help}")
}

#[test]
fn by_name() {
    check("pairs", expect!["pairs"]);
    check("scores pairs prompts", expect!["prompts scores pairs"]);
    check("s* *s", expect!["prompts responses scores pairs"]);
    check(
        "*",
        expect![
            "prompts responses scores pairs clearest tuned[lr=0.001,beta=2.5] tuned[lr=0.001,beta=10] tuned[lr=0.003,beta=2.5] tuned[lr=0.003,beta=10] report[lr=0.001,beta=2.5] report[lr=0.001,beta=10] report[lr=0.003,beta=2.5] report[lr=0.003,beta=10]"
        ],
    );
    check(
        "z*",
        expect![
            "there is no stage `z*`; there is `prompts`, `responses`, `scores`, `pairs`, `clearest`, `tuned`, `report`"
        ],
    );
    check(
        "pears",
        expect![
            "there is no stage `pears`; there is `prompts`, `responses`, `scores`, `pairs`, `clearest`, `tuned`, `report`"
        ],
    );
    check(
        "pairs.dropped",
        expect![
            "there is no stage `pairs.dropped`; there is `prompts`, `responses`, `scores`, `pairs`, `clearest`, `tuned`, `report`"
        ],
    );
}

#[test]
fn by_tag_kind_and_state() {
    check("tag:gpu", expect!["responses scores"]);
    check(
        "tag:nightly",
        expect![
            "responses tuned[lr=0.001,beta=2.5] tuned[lr=0.001,beta=10] tuned[lr=0.003,beta=2.5] tuned[lr=0.003,beta=10]"
        ],
    );
    check("kind:sample kind:sql", expect!["responses clearest"]);
    check("state:changed", expect!["pairs tuned[lr=0.001,beta=10]"]);
    check("tag:nigthly", expect!["no stage has the tag `nigthly`; did you mean `nightly`?"]);
    check("kind:smaple", expect!["`smaple` is no kind of stage; did you mean `sample`?"]);
    check("state:fresh", expect!["`state:fresh` selects nothing; the state to select by is `changed`"]);
    check("tags:gpu", expect!["nothing is selected by `tags:`; did you mean `tag`?"]);
    check("what:gpu", expect!["nothing is selected by `what:`; it is `tag:`, `kind:` or `state:`"]);
}

#[test]
fn along_the_edges() {
    check("+scores", expect!["prompts responses scores"]);
    check(
        "scores+",
        expect![
            "scores pairs clearest tuned[lr=0.001,beta=2.5] tuned[lr=0.001,beta=10] tuned[lr=0.003,beta=2.5] tuned[lr=0.003,beta=10] report[lr=0.001,beta=2.5] report[lr=0.001,beta=10] report[lr=0.003,beta=2.5] report[lr=0.003,beta=10]"
        ],
    );
    check(
        "+pairs+",
        expect![
            "prompts responses scores pairs clearest tuned[lr=0.001,beta=2.5] tuned[lr=0.001,beta=10] tuned[lr=0.003,beta=2.5] tuned[lr=0.003,beta=10] report[lr=0.001,beta=2.5] report[lr=0.001,beta=10] report[lr=0.003,beta=2.5] report[lr=0.003,beta=10]"
        ],
    );
    check("1+pairs", expect!["scores pairs"]);
    check("2+pairs", expect!["responses scores pairs"]);
    check("0+pairs", expect!["pairs"]);
    check(
        "pairs+1",
        expect![
            "pairs clearest tuned[lr=0.001,beta=2.5] tuned[lr=0.001,beta=10] tuned[lr=0.003,beta=2.5] tuned[lr=0.003,beta=10]"
        ],
    );
    check("1+scores+1", expect!["responses scores pairs"]);
    check("1+state:changed", expect!["scores pairs tuned[lr=0.001,beta=10]"]);
    check("+kind:score", expect!["prompts responses scores"]);
}

#[test]
fn by_cell() {
    check(
        "tuned",
        expect!["tuned[lr=0.001,beta=2.5] tuned[lr=0.001,beta=10] tuned[lr=0.003,beta=2.5] tuned[lr=0.003,beta=10]"],
    );
    check("tuned[beta=10]", expect!["tuned[lr=0.001,beta=10] tuned[lr=0.003,beta=10]"]);
    check("tuned[lr=1e-3,beta=10.0]", expect!["tuned[lr=0.001,beta=10]"]);
    check("tuned[beta=10,lr=0.001]+", expect!["tuned[lr=0.001,beta=10] report[lr=0.001,beta=10]"]);
    check("*[lr=3e-3,beta=2.5]", expect!["tuned[lr=0.003,beta=2.5] report[lr=0.003,beta=2.5]"]);
    check("1+report[lr=1e-3,beta=10],kind:train", expect!["tuned[lr=0.001,beta=10]"]);
    check("tuned[beta=11]", expect!["`tuned` has no cell with `beta=11`; its `beta` is `2.5`, `10`"]);
    check("tuned[betta=10]", expect!["`tuned` has no cell with `betta=10`; did you mean `beta`?"]);
    check("pairs[beta=10]", expect!["`pairs` has no cell with `beta=10`; it has no matrix"]);
    check("tuned[beta=10", expect!["`tuned[beta=10` has a `[` that is never closed"]);
    check("tuned[beta]", expect!["`beta` in `tuned[beta]` is not of the form `AXIS=VALUE`"]);
}

#[test]
fn unions_intersections_and_exclusions() {
    check("tag:nightly,kind:sample", expect!["responses"]);
    check("+pairs,tag:gpu pairs+1,kind:sql", expect!["responses scores clearest"]);
    check("tag:data,kind:sql", expect![[r#""#]]);
    check("* ! tuned+", expect!["prompts responses scores pairs clearest"]);
    check("+pairs ! scores tag:data", expect!["responses pairs"]);
    check("pairs ! pairs", expect![[r#""#]]);
    check(
        "pairs ! pears",
        expect![
            "there is no stage `pears`; there is `prompts`, `responses`, `scores`, `pairs`, `clearest`, `tuned`, `report`"
        ],
    );
    check("pairs,", expect!["the selector `pairs,` is empty beside a `,`"]);
    check("+", expect!["the selector `+` is empty"]);
}

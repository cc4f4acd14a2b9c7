//! Data tests and contracts as they are read: their names, what they read, and what of them enters the key of an outcome.

use std::fmt::Write as _;

use expect_test::{Expect, expect};
use sluice_spec::{Leaf, LeafValue, Options, Pipeline, parse};

fn pipeline(pairs: &str) -> Pipeline {
    let text = format!(
        "\
version: 1
models: {{ policy: models/policy, reward: models/reward }}
stages:
  prompts: {{ ingest: {{ from: a.jsonl }} }}
  responses: {{ sample: {{ prompts: prompts, model: policy }} }}
  scores: {{ score: {{ responses: responses, model: reward }} }}
  pairs:
    pair: {{ scores: scores }}
{pairs}"
    );
    parse("p.yaml", &text, &Options::default()).unwrap_or_else(|faults| panic!("{faults}"))
}

fn value(value: &LeafValue) -> String {
    match value {
        LeafValue::Null => "null".to_owned(),
        LeafValue::Bool(value) => value.to_string(),
        LeafValue::Int(value) => value.to_string(),
        LeafValue::Float(value) => format!("{value:?}"),
        LeafValue::Str(text) => format!("{text:?}"),
        LeafValue::List(items) => format!("[{}]", items.iter().map(self::value).collect::<Vec<_>>().join(", ")),
    }
}

fn check(pairs: &str, expected: Expect) {
    let pipeline = pipeline(pairs);
    let stage = pipeline.stages.last().expect("the stage is there");
    let mut shown = String::new();
    for test in &stage.tests {
        let mut leaves: Vec<Leaf> = Vec::new();
        test.leaves(&mut leaves);
        let leaves: Vec<String> = leaves.iter().map(|leaf| format!("{}={}", leaf.path, value(&leaf.value))).collect();
        let reads = test
            .tables(&stage.name)
            .into_iter()
            .map(|(name, of)| format!("{name} is {}.{}", of.stage, of.product.name()));
        let place = pipeline.sources.place(test.place);
        writeln!(shown, "{} {} at {place}", test.name, test.severity.value).expect("a string takes all text");
        writeln!(shown, "  reads {}", reads.collect::<Vec<_>>().join(", ")).expect("a string takes all text");
        writeln!(shown, "  {}", leaves.join(" ")).expect("a string takes all text");
    }
    expected.assert_eq(&shown);
}

#[test]
fn each_check_has_a_name_and_leaves() {
    check(
        r#"
    tests:
      - not_null: [chosen, rejected]
      - not_null: chosen
      - unique: [prompt_id]
      - range: { column: margin, min: 0, max: 50 }
      - accepted_values: { column: rule, values: [tie, 1, 0.5, true] }
        table: dropped
      - row_count: { min: 1000 }
      - relationship: { column: prompt_id, to: prompts }
      - relationship: { column: prompt_id, to: pairs.dropped, key: id }
      - sql: "select * from this where chosen = rejected"
        severity: warn
        name: no_identical
      - sql: select 1
        from: [prompts, pairs.dropped]
      - sql: select 2
      - metric: { name: Margin-mean, min: 0.5 }
"#,
        expect![[r#"
            not_null_chosen_rejected error at p.yaml:11:9
              reads this is pairs.pairs
              check="not_null" columns=["chosen", "rejected"]
            not_null_chosen error at p.yaml:12:9
              reads this is pairs.pairs
              check="not_null" columns=["chosen"]
            unique_prompt_id error at p.yaml:13:9
              reads this is pairs.pairs
              check="unique" columns=["prompt_id"]
            range_margin error at p.yaml:14:9
              reads this is pairs.pairs
              check="range" column="margin" min=0.0 max=50.0
            accepted_values_rule error at p.yaml:15:9
              reads this is pairs.dropped
              check="accepted_values" column="rule" values=["tie", 1, 0.5, true]
            row_count error at p.yaml:17:9
              reads this is pairs.pairs
              check="row_count" min=1000 max=null
            relationship_prompt_id error at p.yaml:18:9
              reads this is pairs.pairs, prompts is prompts.prompts
              check="relationship" column="prompt_id" key="prompt_id"
            relationship_prompt_id_2 error at p.yaml:19:9
              reads this is pairs.pairs, pairs.dropped is pairs.dropped
              check="relationship" column="prompt_id" key="id"
            no_identical warn at p.yaml:20:9
              reads this is pairs.pairs
              check="sql" query="select * from this where chosen = rejected"
            sql error at p.yaml:23:9
              reads this is pairs.pairs, prompts is prompts.prompts, pairs.dropped is pairs.dropped
              check="sql" query="select 1"
            sql_2 error at p.yaml:25:9
              reads this is pairs.pairs
              check="sql" query="select 2"
            metric_margin_mean error at p.yaml:26:9
              reads 
              check="metric" name="Margin-mean" min=0.5 max=null
        "#]],
    );
}

#[test]
fn a_contract_is_the_first_test() {
    check(
        r#"
    tests: [unique: [prompt_id]]
    columns: { prompt_id: text!, margin: " float32 ! ", "extra?": map<list<uint32>>, "*": none }
"#,
        expect![[r#"
            columns error at p.yaml:11:5
              reads this is pairs.pairs
              check="columns" open=false columns.prompt_id="text!" columns.margin="float32!" columns.extra?="map<list<uint32>>"
            unique_prompt_id error at p.yaml:10:13
              reads this is pairs.pairs
              check="unique" columns=["prompt_id"]
        "#]],
    );
    check(
        "    columns: { any: any }\n",
        expect![[r#"
        columns error at p.yaml:9:5
          reads this is pairs.pairs
          check="columns" open=true columns.any="any"
    "#]],
    );
    check("    columns:\n    tests:\n", expect![""]);
}

/// A test says what is done with a result, and not what it is.
#[test]
fn no_test_is_a_leaf_of_its_stage() {
    let leaves = |pairs: &str| {
        let mut leaves: Vec<Leaf> = Vec::new();
        pipeline(pairs).stages.last().expect("the stage is there").kind.leaves(&mut leaves);
        leaves.into_iter().map(|leaf| (leaf.path, leaf.value)).collect::<Vec<_>>()
    };
    assert_eq!(leaves("    tests: [row_count: { max: 3 }]\n    columns: { prompt_id: text }\n"), leaves(""));
}

#[test]
fn a_token_is_a_reference() {
    let text = "\
version: 1
params: { token: ${env:HF_TOKEN} }
profiles: { a: { policy: { from: hf://owner/name@v1, token: ${params.token} } } }
models:
  policy: ${profile.policy}
  reward: { from: \"hf://owner/other\", token: \"${file:~/secrets/token}\" }
  plain: hf://owner/name
  folder: { from: models/folder }
stages: { prompts: { ingest: { from: a.jsonl } } }
";
    let set = vec!["models.plain={from: hf://owner/set, token: ${env:OTHER}}".to_owned()];
    let pipeline = parse("p.yaml", text, &Options { profile: None, set }).unwrap_or_else(|faults| panic!("{faults}"));
    let shown = pipeline.models.iter().map(|model| {
        let token = model.token.as_ref().map_or("no token".to_owned(), |token| {
            format!("{} at {}", token.value, pipeline.sources.place(token.place.expect("it is written down")))
        });
        format!("{} {:?} at {}, {token}\n", model.name, model.location, pipeline.sources.place(model.place))
    });
    expect![[r#"
        policy HuggingFace { owner: "owner", name: "name", revision: Some("v1") } at p.yaml:3:34, ${env:HF_TOKEN} at p.yaml:2:18
        reward HuggingFace { owner: "owner", name: "other", revision: None } at p.yaml:6:19, ${file:~/secrets/token} at p.yaml:6:46
        plain HuggingFace { owner: "owner", name: "set", revision: None } at --set models.plain={from: hf://owner/set, token: ${env:OTHER}}, ${env:OTHER} at --set models.plain={from: hf://owner/set, token: ${env:OTHER}}
        folder Folder("models/folder") at p.yaml:8:19, no token
    "#]].assert_eq(&shown.collect::<String>());
}

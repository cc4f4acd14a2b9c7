//! Profiles, references and overrides where they work: what a value comes to, and where it is said to stand.

use expect_test::{Expect, expect};
use sluice_spec::{Dtype, Leaf, Location, Options, parse};

const TEXT: &str = "\
version: 1
params: { seed: 7, name: tiny, deep: { n: 3 }, hot: 1.5 }
profiles:
  small: { root: models, sampling: { limit: 10 }, cost: \"$${x}\", params: { hot: 0.5 } }
  large: { root: /big, sampling: { limit: null }, cost: ${params.seed} dollars }
models:
  policy: ${profile.root}/${params.name}-v${params.seed}
stages:
  prompts: { ingest: { from: 'x', where: \"a = '${profile.cost}'\" } }
  responses: { sample: { prompts: prompts, model: policy, n: ${params.deep.n}, limit: ${ profile.sampling.limit }, seed: \"${params.seed}\", temperature: ${params.hot} } }
";

/// The model's folder and the written leaves of the two stages.
fn check(profile: Option<&str>, set: &[&str], expected: Expect) {
    let options =
        Options { profile: profile.map(str::to_owned), set: set.iter().map(|text| (*text).to_owned()).collect() };
    let shown = match parse("p.yaml", TEXT, &options) {
        Err(faults) => faults.to_string(),
        Ok(pipeline) => {
            let Some(Location::Folder(folder)) = pipeline.models.first().map(|model| &model.location) else {
                panic!("the model is a folder")
            };
            let mut leaves: Vec<Leaf> = Vec::new();
            pipeline.stages.iter().for_each(|stage| stage.kind.leaves(&mut leaves));
            let written = leaves.iter().filter_map(|leaf| {
                Some(format!("{} = {:?} at {}\n", leaf.path, leaf.value, pipeline.sources.place(leaf.place?)))
            });
            std::iter::once(format!("{folder}\n")).chain(written).collect()
        }
    };
    expected.assert_eq(&shown);
}

#[test]
fn the_first_profile_is_the_default() {
    check(
        None,
        &[],
        expect![[r#"
        models/tiny-v7
        where = Str("a = '${x}'") at p.yaml:9:42
        limit = Int(10) at p.yaml:4:45
        n = Int(3) at p.yaml:2:43
        temperature = Float(0.5) at p.yaml:4:81
        seed = Int(7) at p.yaml:2:17
    "#]],
    );
}

#[test]
fn another_profile() {
    check(
        Some("large"),
        &[],
        expect![[r#"
        /big/tiny-v7
        where = Str("a = '7 dollars'") at p.yaml:9:42
        limit = Null at p.yaml:5:43
        n = Int(3) at p.yaml:2:43
        temperature = Float(1.5) at p.yaml:2:53
        seed = Int(7) at p.yaml:2:17
    "#]],
    );
}

#[test]
fn overrides_of_params_and_profile_reach_every_reader() {
    check(
        None,
        &["params.seed=8", "profile.root=elsewhere", "profiles.small.sampling={limit: 4}", "params.hot=2"],
        expect![[r#"
            elsewhere/tiny-v8
            where = Str("a = '${x}'") at p.yaml:9:42
            limit = Int(4) at --set profiles.small.sampling={limit: 4}
            n = Int(3) at p.yaml:2:43
            temperature = Float(2.0) at --set params.hot=2
            seed = Int(8) at --set params.seed=8
        "#]],
    );
}

#[test]
fn overrides_of_stages_come_last_and_win() {
    check(
        None,
        &[
            "stages.responses.sample.seed=9",
            "stages.responses.sample.top_p=${params.hot}",
            "stages.responses.sample.limit=",
            "models.policy=m",
            "stages.prompts.ingest.split.heldout=0.5",
        ],
        expect![[r#"
            m
            where = Str("a = '${x}'") at p.yaml:9:42
            split.heldout = Float(0.5) at --set stages.prompts.ingest.split.heldout=0.5
            limit = Null at --set stages.responses.sample.limit=
            n = Int(3) at p.yaml:2:43
            temperature = Float(0.5) at p.yaml:4:81
            top_p = Float(0.5) at p.yaml:4:81
            seed = Int(9) at --set stages.responses.sample.seed=9
        "#]],
    );
}

#[test]
fn an_override_can_give_a_whole_stage() {
    check(
        None,
        &["stages.responses={sample: {prompts: prompts, model: policy, n: 2}}"],
        expect![[r#"
        models/tiny-v7
        where = Str("a = '${x}'") at p.yaml:9:42
        n = Int(2) at --set stages.responses={sample: {prompts: prompts, model: policy, n: 2}}
    "#]],
    );
}

#[test]
fn the_precision_may_come_from_the_profile() {
    let of = |line: &str, profile: &str| {
        let text = format!(
            "version: 1\nprofiles: {{ small: {{ dtype: f32 }}, large: {{ dtype: bf16 }} }}\n{line}\n\
             stages: {{ prompts: {{ ingest: {{ from: x }} }} }}\n"
        );
        let options = Options { profile: Some(profile.to_owned()), set: Vec::new() };
        parse("p.yaml", &text, &options).map(|pipeline| pipeline.dtype).map_err(|faults| faults.to_string())
    };
    assert_eq!(of("dtype: ${profile.dtype}", "small"), Ok(Dtype::F32));
    assert_eq!(of("dtype: ${profile.dtype}", "large"), Ok(Dtype::Bf16));
    assert_eq!(of("", "large"), Ok(Dtype::Auto));
}

//! The rules of `pair`: which two responses become a pair, which rule drops a prompt, and what is said when none is left.

use std::time::Instant;

use expect_test::{Expect, expect};
use sluice_spec::{Kind, Options, parse};
use sluice_stages::pair::{Selection, select};
use sluice_table::{Dropped, FinishReason, Named, Pairs, PromptId, ScoreRow, Scores, ScoresBuilder, Split};

/// The parameters of a `pair` stage with these rules.
fn rules(rules: &str) -> sluice_spec::stage::Pair {
    let text = format!(
        "version: 1\nmodels: {{ policy: m, reward: m }}\nstages:\n  prompts: {{ ingest: {{ from: a.jsonl }} }}\n  \
         responses: {{ sample: {{ prompts: prompts, model: policy }} }}\n  scores: {{ score: {{ responses: responses, model: reward }} }}\n  \
         pairs: {{ pair: {{ scores: scores, {rules} }} }}\n"
    );
    let pipeline = parse("test.yaml", &text, &Options::default()).expect("a pipeline");
    let pair = pipeline.stages.iter().find_map(|stage| match &stage.kind {
        Kind::Pair(params) => Some(params.clone()),
        _ => None,
    });
    pair.expect("a pair stage")
}

/// Scores, one line for each prompt: `prompt: response=score response=score ...`; `!prompt` is held out.
fn table(lines: &str) -> Scores {
    let mut builder = ScoresBuilder::new();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (prompt, responses) = line.split_once(':').expect("a prompt and its responses");
        let heldout = prompt.starts_with('!');
        for (index, response) in responses.split_whitespace().enumerate() {
            let (text, score) = response.split_once('=').expect("a response and its score");
            push(&mut builder, prompt, heldout, index as u32, text, score.parse().expect("a number"));
        }
    }
    Scores::view(&builder.finish()).expect("a scores table")
}

fn push(builder: &mut ScoresBuilder, prompt: &str, heldout: bool, index: u32, response: &str, score: f32) {
    builder.push(ScoreRow {
        response_id: "",
        prompt_id: &PromptId::of(prompt).to_string(),
        prompt,
        reference: None,
        group: None,
        split: if heldout { Split::Heldout } else { Split::Train },
        sample_index: index,
        response,
        n_prompt_tokens: 1,
        n_tokens: response.len() as u32,
        logp_sum: 0.0,
        finish_reason: FinishReason::Stop,
        seed: 0,
        policy_digest: "policy",
        score,
        rewards: Named::new(&[], &[]),
        gating: Named::new(&[], &[]),
        reward_model_digest: "reward",
    });
}

/// Applies rules to scores and prints pairs, dropped prompts and counts, or the error.
fn check(with: &str, lines: &str, expected: Expect) {
    let printed = match select(&rules(with), &[table(lines)]) {
        Ok(selection) => shown(&selection),
        Err(error) => error.to_string(),
    };
    expected.assert_eq(&printed);
}

fn shown(selection: &Selection) -> String {
    let mut lines = Vec::new();
    for batch in &selection.pairs {
        lines.extend(Pairs::view(batch).expect("a pairs table").rows().map(|pair| {
            format!(
                "{}: {}[{}] over {}[{}] by {} of {}",
                pair.prompt,
                pair.chosen,
                pair.chosen_index,
                pair.rejected,
                pair.rejected_index,
                pair.margin,
                pair.n_candidates
            )
        }));
    }
    for batch in &selection.dropped {
        let dropped = Dropped::view(batch).expect("a dropped table");
        lines.extend(dropped.rows().map(|row| format!("{}: {} of {}", row.prompt, row.rule, row.n_candidates)));
    }
    lines.join("\n")
}

#[test]
fn best_and_worst_become_a_pair_and_prompts_keep_their_order() {
    check(
        "",
        "two: a=1.5 b=-0.5 c=3 d=2
         one: x=0.25 y=0.5",
        expect![[r#"
            two: c[2] over b[1] by 3.5 of 4
            one: y[1] over x[0] by 0.25 of 2"#]],
    );
}

#[test]
fn among_equal_scores_the_first_response_counts() {
    check(
        "",
        "best: a=1 b=2 c=2 d=0
         worst: a=1 b=0 c=0 d=0.5",
        expect![[r#"
            best: b[1] over d[3] by 2 of 4
            worst: a[0] over b[1] by 1 of 4"#]],
    );
}

#[test]
fn the_first_rule_that_applies_drops_a_prompt() {
    check(
        "min_margin: 0.5",
        "kept: a=1 b=0.5
         narrow: a=1 b=0.75
         tie: a=1 b=1
         same: a=1 a=1
         same but for the score: a=1 a=0.25
         best and worst are the same: a=1 b=0.5 a=0
         alone: a=1
         !kept away: a=1 b=0",
        expect![[r#"
            kept: a[0] over b[1] by 0.5 of 2
            narrow: min_margin of 2
            tie: tie of 2
            same: identical of 2
            same but for the score: identical of 2
            best and worst are the same: identical of 3
            alone: single_candidate of 1
            !kept away: heldout of 2"#]],
    );
}

#[test]
fn the_published_run_keeps_ties_and_identical_texts() {
    // Method, section 3.2: argmax and argmin take the first index, so five equal scores pair the first with itself.
    check(
        "ties: first, identical: keep",
        "tie: a=1 b=1 c=1
         same: a=1 a=0",
        expect![[r#"
            tie: a[0] over a[0] by 0 of 3
            same: a[0] over a[1] by 1 of 2"#]],
    );
    check(
        "ties: first",
        "tie: a=1 b=1 c=1
         kept: a=1 b=0",
        expect![[r#"
            kept: a[0] over b[1] by 1 of 2
            tie: identical of 3"#]],
    );
}

#[test]
fn a_response_whose_score_is_no_number_is_no_candidate() {
    check(
        "",
        "one: a=NaN b=1 c=0
         first: a=inf b=-inf c=3 d=2
         two: a=1 b=inf
         none: a=NaN b=NaN
         alone: a=NaN",
        expect![[r#"
            one: b[1] over c[2] by 1 of 2
            first: c[2] over d[3] by 1 of 2
            two: not_finite of 2
            none: not_finite of 2
            alone: not_finite of 1"#]],
    );
    check(
        "",
        "one: a=NaN b=1\ntwo: a=NaN a=NaN",
        expect!["all 2 prompts dropped: 2 not_finite; look at the reward model, or at the query that made the scores"],
    );
}

#[test]
fn scores_that_are_not_finite_are_named() {
    let warning = |text: &str| select(&rules(""), &[table(text)]).expect("pairs").counts.not_finite.warning(9);
    assert_eq!(warning("one: a=1 b=0"), None);
    expect![
        "2 of 9 scores are not finite, and their responses are left out: prompt d33fb48a sample 0 has NaN, prompt dc770fff sample 1 has inf"
    ]
    .assert_eq(&warning("one: a=NaN b=1 c=0\ntwo: a=1 b=inf").expect("a warning"));
    let many = format!("one: a=1 b=0\nmany: {}", "a=NaN ".repeat(9));
    expect![
        "9 of 9 scores are not finite, and their responses are left out: prompt de67511a sample 0 has NaN, prompt de67511a sample 1 has NaN, prompt de67511a sample 2 has NaN, prompt de67511a sample 3 has NaN, prompt de67511a sample 4 has NaN, ..."
    ]
    .assert_eq(&warning(&many).expect("a warning"));
}

#[test]
fn when_nothing_is_left_the_rules_are_counted_and_the_remedy_named() {
    check("", "", expect!["there are no scores to pair"]);
    check(
        "",
        "one: a=1 a=1\ntwo: a=1 a=0\nthree: a=1 b=1",
        expect!["all 3 prompts dropped: 1 tie, 2 identical; sample at a higher temperature, or set `identical: keep`"],
    );
    check("min_margin: 5", "one: a=1 b=0", expect!["all 1 prompts dropped: 1 min_margin; lower `min_margin`"]);
    check("", "one: a=1\ntwo: a=1", expect!["all 2 prompts dropped: 2 single_candidate; sample with `n: 2` or more"]);
}

#[test]
fn responses_of_one_prompt_need_not_follow_each_other() {
    let scores = [table("one: a=1\ntwo: a=0"), table("two: x=1 b=3\none: y=0 b=0.5")];
    let selection = select(&rules(""), &scores).expect("pairs");
    // The tables number their responses from 0, so that `one` has two responses of index 0.
    expect![[r#"
        one: a[0] over y[0] by 1 of 3
        two: b[1] over a[0] by 3 of 3"#]]
    .assert_eq(&shown(&selection));
}

#[test]
fn counts_are_worked_by_hand() {
    let scores = table("one: aaaa=3 b=1\ntwo: aa=1 bbb=0.5\nthree: a=1 a=1\nfour: a=0");
    let Selection { counts, .. } = select(&rules(""), &[scores]).expect("pairs");
    assert_eq!((counts.n_responses, counts.n_prompts, counts.n_pairs), (7, 4, 2));
    assert_eq!(counts.mean_margin, (2.0 + 0.5) / 2.0);
    assert_eq!(counts.mean_chosen_tokens, (4.0 + 2.0) / 2.0);
    assert_eq!(counts.mean_rejected_tokens, (1.0 + 3.0) / 2.0);
    let dropped: usize = counts.dropped.iter().map(|(_, n)| n).sum();
    assert_eq!(dropped, 2);
}

#[test]
fn pairs_name_both_policies_where_two_answered() {
    let mut one = ScoresBuilder::new();
    push(&mut one, "p", false, 0, "a", 1.0);
    let batch = one.finish();
    let mut two = ScoresBuilder::new();
    let view = Scores::view(&batch).expect("a scores table");
    two.push(ScoreRow { policy_digest: "other", response: "b", sample_index: 1, score: 0.0, ..view.row(0) });
    let other = Scores::view(&two.finish()).expect("a scores table");
    let selection = select(&rules(""), &[view, other]).expect("pairs");
    let pairs = Pairs::view(&selection.pairs[0]).expect("a pairs table");
    assert_eq!((pairs.policy_digest(0), pairs.reward_model_digest(0)), ("policy+other", "reward"));
}

/// A million responses; the time is printed for whoever looks, and bounded only against accidents.
#[test]
fn a_million_responses_are_paired_in_a_moment() {
    let mut builder = ScoresBuilder::new();
    for prompt in 0..200_000_u32 {
        let name = format!("prompt {prompt}");
        for index in 0..5 {
            let score = (prompt.wrapping_mul(2_654_435_761).rotate_left(index * 7) >> 8) as f32;
            push(&mut builder, &name, false, index, ["a", "bb", "ccc", "dddd", "eeeee"][index as usize], score);
        }
    }
    let scores = [Scores::view(&builder.finish()).expect("a scores table")];
    let start = Instant::now();
    let selection = select(&rules(""), &scores).expect("pairs");
    let seconds = start.elapsed().as_secs_f64();
    println!("paired {:.1} million responses a second", 1.0 / seconds);
    assert!(selection.counts.n_pairs > 190_000);
    assert!(seconds < 10.0, "{seconds} s for a million responses");
}

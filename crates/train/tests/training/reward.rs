//! Training of a reward model: parts of the loss, the cut of a batch, what stays fixed.

use expect_test::expect;
use serde_json::Value;
use sluice_lm::params::Parameters;
use sluice_lm::reward::ArmoRm;
use sluice_lm::weights::published_values;
use sluice_train::batch::Sequence;
use sluice_train::task::{RewardRow, RewardTask, RewardWeights};

use crate::fixture;
use crate::tasks::{check_cut, trained};

const ALL: RewardWeights = RewardWeights { correctness: 1.0, objectives: 0.5, preference: 1.0, lm: 0.5 };

/// Six prompts with a right and a wrong answer each. The answer of the first twelve fixture conversations is what
/// follows the gate; the wrong one is the right one with a token exchanged.
fn rows() -> Vec<RewardRow> {
    let conversations: Vec<Value> = fixture::json("llama3-armorm-tiny/expected.json");
    let mut rows = Vec::new();
    for (prompt, conversation) in conversations.iter().take(6).enumerate() {
        let ids = conversation["input_ids"].as_array().expect("a list of ids").iter();
        let ids: Vec<u32> = ids.map(|id| id.as_u64().and_then(|id| id.try_into().ok()).expect("an id")).collect();
        let gate: usize = conversation["gate_position"].as_u64().and_then(|at| at.try_into().ok()).expect("a position");
        let (opening, answer) = ids.split_at(gate + 5);
        let mut wrong = answer.to_vec();
        wrong[0] = 300;
        for (label, answer) in [(1.0, answer), (0.0, wrong.as_slice())] {
            let targets = (1..19).map(|objective| objective as f32 / 19.0).collect();
            rows.push(RewardRow { prompt, sequence: Sequence::new(opening, answer), label, targets });
        }
    }
    rows
}

fn values(model: &ArmoRm, wanted: &str) -> Vec<f32> {
    let mut found = Vec::new();
    model.clone().walk(&mut |name, param| {
        if name == wanted {
            found = published_values(&param);
        }
    });
    found
}

#[test]
fn a_batch_does_not_depend_on_its_cut() {
    let (_, model) = fixture::armorm_tiny();
    let rows = rows();
    check_cut(&model, &RewardTask::new(ALL, &rows, &model).expect("the model reads the rows"));
}

#[test]
fn each_part_is_learned_and_the_transform_stays() {
    let (_, model) = fixture::armorm_tiny();
    let rows = rows();
    let none = RewardWeights { correctness: 0.0, objectives: 0.0, preference: 0.0, lm: 0.0 };
    let parts = [
        RewardWeights { correctness: 1.0, ..none },
        RewardWeights { objectives: 1.0, ..none },
        RewardWeights { preference: 1.0, ..none },
        RewardWeights { lm: 1.0, ..none },
        ALL,
    ];
    for weights in parts {
        let task = RewardTask::new(weights, &rows, &model).expect("the model reads the rows");
        let (first, last, after) = trained(model.clone(), &task, 1e-3);
        assert!(last.loss < 0.9 * first.loss, "{weights:?}: {} then {}", first.loss, last.loss);
        let transform = "reward_transform_matrix";
        assert_eq!(values(&after, transform), values(&model, transform));
        assert_ne!(values(&after, "model.norm.weight"), values(&model, "model.norm.weight"));
        if weights.preference > 0.0 {
            assert_eq!(last.pairs.map(|pairs| pairs.accuracy), Some(1.0));
        }
    }
}

#[test]
fn rows_that_do_not_fit_are_refused() {
    let (_, model) = fixture::armorm_tiny();
    let refusal = |change: &dyn Fn(&mut RewardRow)| {
        let mut rows = rows();
        change(&mut rows[1]);
        let refused = RewardTask::new(ALL, &rows, &model);
        refused.err().map(|fault| fault.to_string()).expect("the rows are refused")
    };
    expect!["row 1 has 0 targets; the reward model has 18 objectives beside the first"]
        .assert_eq(&refusal(&|row| row.targets.clear()));
    expect!["read row 1 with the reward model"].assert_eq(&refusal(&|row| row.sequence = Sequence::new(&[5], &[6])));
}

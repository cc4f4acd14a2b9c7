//! Conversations that share what they begin with, against the same read whole, on the fixtures' reward models.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde_json::Value;

use super::{HeadDtype, RewardModel, SHARED, ScoreError};
use crate::checkpoint::Checkpoint;
use crate::model::load_reward;
use crate::packed::{Family, Packed};
use crate::precision::{Placement, Precision};

const FOLDERS: [&str; 3] = ["llama3-armorm-tiny", "reward-seqcls-tiny", "reward-seqcls-gemma2-tiny"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
}

fn model(folder: &str, precision: Precision) -> RewardModel {
    let checkpoint = Checkpoint::open(&fixture(folder)).expect(folder);
    load_reward(&checkpoint, Placement::new(Device::flex(), precision)).expect(folder)
}

/// Two of the fixture's conversations, made longer at their start and continued in four ways each, one of these by nothing;
/// answers to the two take turns.
fn conversations(folder: &str) -> Vec<Vec<u32>> {
    let text = std::fs::read_to_string(fixture(folder).join("expected.json")).expect(folder);
    let rows: Vec<Value> = serde_json::from_str(&text).expect(folder);
    let prompt = |row: &Value| -> Vec<u32> {
        let ids = row["input_ids"].as_array().expect("token ids").iter();
        let ids: Vec<u32> = ids.map(|id| id.as_u64().expect("a token id") as u32).collect();
        [ids[..4].repeat(8), ids].concat()
    };
    let prompts: Vec<Vec<u32>> = rows.iter().take(2).map(prompt).collect();
    let answer = |number: u32| (0..3 * number).map(move |i| 5 + (7 * i + number) % 40);
    (0..4)
        .flat_map(|number| prompts.iter().map(move |prompt| prompt.iter().copied().chain(answer(number)).collect()))
        .collect()
}

#[test]
fn a_shared_beginning_changes_no_score() {
    for folder in FOLDERS {
        let conversations = conversations(folder);
        let families = Family::alike(&conversations, SHARED, usize::MAX);
        let n_tokens = Packed::new(&conversations).n_tokens();
        let n_shared = n_tokens - Packed::families(&conversations, &families).n_tokens();
        assert!(n_shared > n_tokens / 2, "{folder}: {n_shared} tokens are read once");
        // To the bit: sums run over the same keys in the same order, and a row of a product does not depend on the others.
        for precision in [Precision::F32, Precision::Bf16] {
            let model = model(folder, precision);
            let whole = model.score(&conversations, HeadDtype::F32).expect(folder);
            let shared = model.score_sharing(&conversations, HeadDtype::F32).expect(folder);
            assert_eq!(shared, whole, "{folder} in {}", precision.name());
        }
    }
}

#[test]
fn what_cannot_be_scored_keeps_its_index() {
    let model = model("llama3-armorm-tiny", Precision::F32);
    let mut conversations = conversations("llama3-armorm-tiny");
    conversations.insert(3, vec![9, 8, 7]);
    for scored in [model.score(&conversations, HeadDtype::F32), model.score_sharing(&conversations, HeadDtype::F32)] {
        assert!(matches!(scored, Err(ScoreError::NoAssistantTurn { index: 3, .. })), "{scored:?}");
    }
    conversations[3].clear();
    let empty = model.score_sharing(&conversations, HeadDtype::F32);
    assert!(matches!(empty, Err(ScoreError::Empty { index: 3 })), "{empty:?}");
}

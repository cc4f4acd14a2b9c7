//! `score`: what a reward model folder says of conversations, without a pipeline.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use sluice_lm::checkpoint::Checkpoint;
use sluice_lm::model::load_reward;
use sluice_lm::reward::{HeadDtype, Reward};
use sluice_train::order::{by_length, micro_batches};

use crate::args::{Global, Score};
use crate::exit::{Exit, Failure, Outcome};
use crate::model_folder::{conversation, open, rows};
use crate::output::out;
use crate::world::World;

/// Tokens read together.
const MAX_BATCH_TOKENS: usize = 8192;

pub fn run(global: &Global, world: &World, args: &Score) -> Outcome {
    let model = open(&args.model, world, global.quiet)?;
    let rows = rows(&args.input)?;
    let mut ids = Vec::with_capacity(rows.len());
    for row in &rows {
        let messages = row.messages("messages")?.ok_or_else(|| row.fault("has no `messages`"))?;
        ids.push(conversation(&model, &messages, false).map_err(|failure| row.wrap(failure))?);
    }
    let device =
        sluice_stages::model::device(sluice_stages::Device::Cpu).map_err(|error| Failure::new(Exit::Usage, error))?;
    let reward = load_reward(&model, &device).map_err(|error| Failure::new(Exit::Usage, error))?;
    let lengths: Vec<usize> = ids.iter().map(Vec::len).collect();
    let n_tokens = |row: usize| lengths[row];
    // Rewards are told in the order of the rows, and computed in an order that fills the batches.
    let mut rewards: BTreeMap<usize, Reward> = BTreeMap::new();
    for batch in micro_batches(&by_length(ids.len(), &n_tokens), &n_tokens, MAX_BATCH_TOKENS) {
        let conversations: Vec<Vec<u32>> = batch.iter().map(|row| std::mem::take(&mut ids[*row])).collect();
        let scored = reward.score(&conversations, HeadDtype::F32).map_err(|error| Failure::new(Exit::Failed, error))?;
        rewards.extend(batch.into_iter().zip(scored));
    }
    for (row, reward) in &rewards {
        out(if global.json {
            format!("{}\n", object(&model, *row, reward))
        } else {
            format!("{row}\t{}\n", reward.score)
        });
    }
    Ok(Exit::Ok)
}

fn object(model: &Checkpoint, index: usize, reward: &Reward) -> Value {
    let Reward { score, rewards, gating } = reward;
    let named = |values: &[f32]| -> Map<String, Value> {
        model.config.labels.iter().zip(values).map(|(name, value)| (name.clone(), json!(value))).collect()
    };
    let mut object = json!({"index": index, "score": score});
    if !rewards.is_empty() {
        object["rewards"] = Value::Object(named(rewards));
        object["gating"] = Value::Object(named(gating));
    }
    object
}

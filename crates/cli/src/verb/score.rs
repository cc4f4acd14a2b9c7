//! `score`: what a reward model folder says of conversations, without a pipeline.

use serde_json::{Map, Value, json};
use sluice_lm::checkpoint::Checkpoint;
use sluice_lm::reward::{HeadDtype, Reward, ScoreError};
use sluice_stages::score::score_in_batches;

use crate::args::{Global, Score};
use crate::device;
use crate::exit::{Exit, Failure, Outcome};
use crate::interrupt;
use crate::model_folder::{conversation, expect_room, open, reward, rows};
use crate::output::{err, out};
use crate::world::World;

/// Tokens read together.
const MAX_BATCH_TOKENS: usize = 8192;

pub fn run(global: &Global, world: &World, args: &Score) -> Outcome {
    let model = open(&args.model, global, world)?;
    let rows = rows(&args.input)?;
    let mut ids = Vec::with_capacity(rows.len());
    for row in &rows {
        let messages = row.messages("messages")?.ok_or_else(|| row.fault("has no `messages`"))?;
        if let Some(last) = messages.last().filter(|last| last.role != "assistant") {
            let message =
                format!("`messages` ends with the role `{}`; `assistant` is needed, whose answer is scored", last.role);
            return Err(row.fault(message));
        }
        let tokens = conversation(&model, &messages, false).map_err(|failure| row.wrap(failure))?;
        expect_room(&model, tokens.len()).map_err(|message| row.fault(message))?;
        ids.push(tokens);
    }
    let judge = reward(&model, device::ready(global, world)?)?;
    let cancel = interrupt::flag(|| err("stopping\n"));
    let rewards = score_in_batches(&judge, ids, HeadDtype::F32, MAX_BATCH_TOKENS, &cancel, &mut |_| {});
    let failed = |error: ScoreError| {
        let exit = if matches!(error, ScoreError::NotFinite { .. }) { Exit::Failed } else { Exit::Usage };
        Failure::new(exit, format!("{}: {error}", args.input.display()))
    };
    let Some(rewards) = rewards.map_err(failed)? else {
        return Ok(Exit::Interrupted);
    };
    for (row, reward) in rewards.iter().enumerate() {
        out(if global.json {
            format!("{}\n", object(&model, row, reward))
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

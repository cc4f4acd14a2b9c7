//! Scores given again: the reward, every objective and the gating.

use sluice_lm::checkpoint::Checkpoint;
use sluice_lm::reward::Reward;
use sluice_spec::stage::score::{HeadDtype, Score};
use sluice_table::{Named, ScoreRow, Scores};

use super::{Compared, Recheck, Tolerance, Verified};
use crate::model::Judge;
use crate::prompts::views;
use crate::score::{Conversation, Scored};
use crate::{Progress, StageContext, StageError};

pub fn verify(params: &Score, context: &StageContext<'_>, recheck: Recheck<'_>) -> Result<Verified, StageError> {
    let Score { responses: _, model: _, head_dtype, max_batch_tokens } = params;
    let batches = super::stored_table(context, &recheck, 0)?;
    let tables = views(Scores::NAME, &batches, Scores::view)?;
    let rows: Vec<ScoreRow<'_>> = super::picked(tables.iter().flat_map(Scores::rows), recheck.rows);
    let conversations: Vec<Conversation<'_>> = rows
        .iter()
        .map(|row| Conversation {
            prompt_id: row.prompt_id,
            sample_index: row.sample_index,
            prompt: row.prompt,
            response: row.response,
        })
        .collect();
    let judge = Judge::load(context, "model")?;
    let mut progress = Progress::rows(0, Some(rows.len() as u64));
    let max_tokens = max_batch_tokens.value.get() as usize;
    let rewards = again(context, &judge, &conversations, head_dtype.value, max_tokens, &mut progress)?;

    let tolerance = Tolerance::of(&recheck);
    let mut verified = Verified::new("rows", tolerance.text("the score and each objective"));
    let (names, digest) = (labels(&judge.checkpoint), judge.digest.to_string());
    for (row, reward) in rows.iter().zip(&rewards) {
        let compared = match row.reward_model_digest == digest {
            true => compare(row, reward, names, tolerance),
            false => Compared::different(format!(
                "its reward model is {}, and the model is {digest}",
                row.reward_model_digest
            )),
        };
        verified.count(compared, || format!("answer {} to prompt {}", row.sample_index, row.prompt_id));
    }
    Ok(verified)
}

/// The rewards of conversations, read by a judge that is there.
pub fn again(
    context: &StageContext<'_>,
    judge: &Judge,
    conversations: &[Conversation<'_>],
    head: HeadDtype,
    max_tokens: usize,
    progress: &mut Progress,
) -> Result<Vec<Reward>, StageError> {
    let mut on_batch = |Scored { rows, rewards: _, n_tokens }: Scored<'_>| {
        progress.done += rows.len() as u64;
        progress.n_tokens += n_tokens as u64;
        context.report(*progress);
    };
    judge.score_all(conversations, head, max_tokens, context.cancel, &mut on_batch)
}

fn labels(checkpoint: &Checkpoint) -> &[String] {
    &checkpoint.config.labels
}

fn compare(row: &ScoreRow<'_>, reward: &Reward, names: &[String], tolerance: Tolerance) -> Compared {
    let Reward { score, rewards, gating } = reward;
    let mut compared = Compared::numbers("score", row.score, *score, tolerance);
    for (what, stored, now) in [("reward of", row.rewards, rewards), ("gate of", row.gating, gating)] {
        compared = compared.worse(compare_named(what, stored, names, now, tolerance));
    }
    compared
}

fn compare_named(what: &str, stored: Named<'_>, names: &[String], now: &[f32], tolerance: Tolerance) -> Compared {
    if stored.iter().count() != now.len() {
        return Compared::different(format!(
            "there are {} numbers of objectives, and {} now",
            stored.iter().count(),
            now.len()
        ));
    }
    names.iter().zip(now).fold(Compared::exact(), |worst, (name, now)| {
        let one = match stored.get(name) {
            Some(stored) => Compared::numbers(&format!("{what} `{name}`,"), stored, *now, tolerance),
            None => Compared::different(format!("there is no {what} `{name}`")),
        };
        worst.worse(one)
    })
}

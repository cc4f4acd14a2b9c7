//! `logprobs`: chosen and rejected answers under any causal language model folder, and the SimPO loss of each pair.

use serde_json::json;
use sluice_lm::checkpoint::Checkpoint;
use sluice_lm::template::Message;
use sluice_train::batch::{self, Formatter, Limits, TokenPair};
use sluice_train::logps::pair_logps;
use sluice_train::objective::{MarginLoss, Objective, PairFacts, Simpo};

use crate::args::{Global, Logprobs, PromptKeep, ResponseHeader, Truncation};
use crate::device;
use crate::exit::{Exit, Failure, Outcome};
use crate::interrupt;
use crate::model_folder::{Row, causal, expect_room, open, rows};
use crate::output::{err, out};
use crate::world::World;

/// Tokens read together.
const MAX_BATCH_TOKENS: usize = 8192;

pub fn run(global: &Global, world: &World, args: &Logprobs) -> Outcome {
    let model = open(&args.model, global, world)?;
    let formatter = formatter(args, &model)?;
    let rows = rows(&args.input)?;
    let pairs: Vec<TokenPair> = rows.iter().map(|row| pair(row, &model, &formatter)).collect::<Result<_, _>>()?;
    let causal = causal(&model, device::ready(global, world)?)?;
    let cancel = interrupt::flag(|| err("stopping\n"));
    let Some(sums) = pair_logps(&causal, &pairs, MAX_BATCH_TOKENS, &cancel) else { return Ok(Exit::Interrupted) };
    for ((row, pair), (chosen, rejected)) in rows.iter().zip(&pairs).zip(sums) {
        let told = Told::new(row.index, pair, chosen, rejected, args);
        out(if global.json { told.json() } else { told.text() });
    }
    Ok(Exit::Ok)
}

/// How the rows become tokens.
fn formatter<'a>(args: &Logprobs, model: &'a Checkpoint) -> Result<Formatter<'a>, Failure> {
    let header = match args.response_header {
        ResponseHeader::Prompt => batch::ResponseHeader::Prompt,
        ResponseHeader::Response => batch::ResponseHeader::Response,
    };
    let truncation = match args.truncation {
        Truncation::Budget => batch::Truncation::Budget,
        Truncation::Reference => batch::Truncation::Reference,
    };
    let keep = match args.prompt_keep {
        PromptKeep::Start => batch::PromptKeep::Start,
        PromptKeep::End => batch::PromptKeep::End,
    };
    // The published 1,800 of 2,048, as in the stage `train`.
    let share = (u64::from(args.max_length) * 225 / 256).max(1) as usize;
    let max_prompt_length = args.max_prompt_length.map_or(share, |length| length as usize);
    let limits = Limits::new(args.max_length as usize, max_prompt_length, truncation, keep)
        .map_err(|error| Failure::new(Exit::Usage, error))?;
    Formatter::new(model, header, limits).map_err(|error| Failure::new(Exit::Usage, error))
}

/// The tokens of a row's two answers.
fn pair(row: &Row, model: &Checkpoint, formatter: &Formatter<'_>) -> Result<TokenPair, Failure> {
    let (prompt, [chosen, rejected]) = turns(row)?;
    let pair = formatter.pair(&prompt, &chosen, &rejected).map(|(pair, _)| pair);
    let pair = pair.map_err(|error| row.wrap(Failure::new(Exit::Usage, error)))?;
    let n_tokens = pair.chosen.n_tokens().max(pair.rejected.n_tokens());
    expect_room(model, n_tokens).map_err(|message| row.fault(format!("{message}; lower --max-length")))?;
    Ok(pair)
}

/// A row's prompt and its two answers, whichever way it spells them.
fn turns(row: &Row) -> Result<(Vec<Message>, [String; 2]), Failure> {
    if row.field("chosen").is_some_and(serde_json::Value::is_string) {
        let text = |name: &str| row.text(name)?.map(str::to_owned).ok_or_else(|| row.fault(format!("has no `{name}`")));
        return Ok((vec![Message::user(text("prompt")?)], [text("chosen")?, text("rejected")?]));
    }
    let conversation = |name: &str| -> Result<(Vec<Message>, String), Failure> {
        let mut messages = row.messages(name)?.ok_or_else(|| row.fault(format!("has no `{name}`")))?;
        match messages.pop() {
            Some(last) if last.role == "assistant" => Ok((messages, last.content)),
            _ => Err(row.fault(format!("`{name}` does not end with an assistant's message"))),
        }
    };
    let ((prompt, chosen), (other, rejected)) = (conversation("chosen")?, conversation("rejected")?);
    let same = prompt.len() == other.len()
        && prompt.iter().zip(&other).all(|(left, right)| left.role == right.role && left.content == right.content);
    if !same {
        return Err(row.fault("`chosen` and `rejected` answer different prompts"));
    }
    Ok((prompt, [chosen, rejected]))
}

/// What is told of a pair.
struct Told {
    index: usize,
    n_chosen: usize,
    n_rejected: usize,
    chosen_sum: f64,
    rejected_sum: f64,
    loss: f64,
}

impl Told {
    fn new(index: usize, pair: &TokenPair, chosen_sum: f64, rejected_sum: f64, args: &Logprobs) -> Told {
        let (n_chosen, n_rejected) = (pair.chosen.n_predicted(), pair.rejected.n_predicted());
        let simpo = Objective::Simpo(Simpo {
            beta: args.beta,
            gamma_beta_ratio: args.gamma_beta_ratio,
            loss: MarginLoss::Sigmoid,
            label_smoothing: 0.0,
            sft_weight: 0.0,
        });
        let facts = [PairFacts { chosen_len: n_chosen, rejected_len: n_rejected, reference: None }];
        let loss = simpo.losses_of_sums(&[(chosen_sum, rejected_sum)], &facts)[0];
        Told { index, n_chosen, n_rejected, chosen_sum, rejected_sum, loss }
    }

    fn means(&self) -> (f64, f64) {
        (self.chosen_sum / self.n_chosen as f64, self.rejected_sum / self.n_rejected as f64)
    }

    fn json(&self) -> String {
        let Told { index, n_chosen, n_rejected, chosen_sum, rejected_sum, loss } = self;
        let (chosen_mean, rejected_mean) = self.means();
        let row = json!({
            "index": index,
            "chosen_tokens": n_chosen,
            "rejected_tokens": n_rejected,
            "chosen_logp_sum": chosen_sum,
            "chosen_logp_mean": chosen_mean,
            "rejected_logp_sum": rejected_sum,
            "rejected_logp_mean": rejected_mean,
            "loss": loss,
        });
        format!("{row}\n")
    }

    fn text(&self) -> String {
        let (chosen, rejected) = self.means();
        let Told { index, n_chosen, n_rejected, loss, .. } = self;
        let side = |name: &str, mean: f64, n: &usize| format!("{name} {mean:.4} a token of {n}");
        let (chosen, rejected) = (side("chosen", chosen, n_chosen), side("rejected", rejected, n_rejected));
        format!("{index}\t{chosen}\t{rejected}\tloss {loss:.4}\n")
    }
}

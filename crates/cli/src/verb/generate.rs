//! `generate`: answers of any causal language model folder, without a pipeline.
//!
//! A row's random stream depends on the seed, the prompt and the sample number alone, as in the stage `sample`: a prompt
//! gets the same answers whatever stands around it.

use std::io::Write;
use std::sync::Arc;

use serde_json::json;
use sluice_lm::checkpoint::Checkpoint;
use sluice_lm::generate::{Completion, Decoding, FinishReason, GenerateConfig, GenerateError, Request, generate};
use sluice_lm::sampling::Sampling;
use sluice_lm::template::Message;
use sluice_stages::row_key::row_seed;
use sluice_table::PromptId;

use crate::args::{Generate, Global};
use crate::device;
use crate::exit::{Exit, Failure, Outcome};
use crate::interrupt;
use crate::model_folder::{Row, causal, conversation, expect_askable, open, rows};
use crate::output::{err, out};
use crate::world::World;

/// What a row may give, one of them.
const FIELDS: [&str; 4] = ["prompt", "messages", "text", "token_ids"];

/// Answers worked on at one time.
const MAX_BATCH: usize = 64;

/// A prompt to answer.
struct Asked {
    index: usize,
    /// Names the prompt's random stream.
    id: String,
    ids: Arc<[u32]>,
}

pub fn run(global: &Global, world: &World, args: &Generate) -> Outcome {
    let decoding = decoding(args)?;
    let model = open(&args.model, global, world)?;
    let asked = asked(args, &model)?;
    let requests: Vec<Request> = asked
        .iter()
        .flat_map(|prompt| {
            (0..args.n)
                .map(|sample| Request { prompt: prompt.ids.clone(), seed: row_seed(args.seed, &prompt.id, sample) })
        })
        .collect();
    let config = GenerateConfig {
        decoding,
        max_new_tokens: args.max_new_tokens as usize,
        stop_ids: if args.ignore_stop { Vec::new() } else { model.eos_ids() },
        max_batch: MAX_BATCH,
    };
    let causal = causal(&model, device::ready(global, world)?)?;
    let cancel = interrupt::flag(|| err("stopping; answers that are done are printed\n"));
    // Answers end in no fixed order and are told in that of the rows.
    let mut done: Vec<Option<Completion>> = vec![None; requests.len()];
    let mut next = 0;
    let mut tell = |index: usize, completion: Completion| {
        done[index] = Some(completion);
        while let Some(completion) = done.get_mut(next).and_then(Option::take) {
            let (prompt, sample) = (&asked[next / args.n as usize], next % args.n as usize);
            print(global, args, &model, prompt.index, sample, &completion, asked.len());
            next += 1;
        }
    };
    match generate(&causal, &requests, &config, &cancel, &mut tell) {
        Ok(()) => Ok(Exit::Ok),
        Err(GenerateError::Cancelled { .. }) => Ok(Exit::Interrupted),
        Err(error @ GenerateError::Sampling { .. }) => Err(Failure::new(Exit::Failed, error)),
        Err(error) => Err(Failure::new(Exit::Usage, error)),
    }
}

fn decoding(args: &Generate) -> Result<Decoding, Failure> {
    if args.greedy || args.temperature == Some(0.0) {
        return Ok(Decoding::Greedy);
    }
    let top_k = args.top_k.map(|k| k as usize);
    let sampling = Sampling::new(args.temperature.unwrap_or(1.0), top_k, args.top_p, args.min_p);
    sampling.map(Decoding::Sample).map_err(|error| Failure::new(Exit::Usage, error))
}

/// The prompts of the command line or of the file.
fn asked(args: &Generate, model: &Checkpoint) -> Result<Vec<Asked>, Failure> {
    if let Some(prompt) = &args.prompt {
        let ids = conversation(model, &[Message::user(prompt.clone())], true)?;
        expect_askable(model, &ids).map_err(|message| Failure::usage(format!("--prompt: {message}")))?;
        return Ok(vec![Asked { index: 0, id: PromptId::of(prompt).to_string(), ids: ids.into() }]);
    }
    let Some(file) = &args.input else { return Err(Failure::usage("--prompt or --input is needed")) };
    rows(file)?.iter().map(|row| of_row(row, model)).collect()
}

fn of_row(row: &Row, model: &Checkpoint) -> Result<Asked, Failure> {
    let wrap = |failure| row.wrap(failure);
    let given: Vec<&str> = FIELDS.into_iter().filter(|field| row.field(field).is_some()).collect();
    if let [first, second, ..] = given.as_slice() {
        return Err(row.fault(format!("has `{first}` and `{second}`; one of them is needed")));
    }
    let by_ids = |ids: &[u32]| {
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        blake3::hash(&bytes).to_hex().to_string()
    };
    let (id, ids) = if let Some(prompt) = row.text("prompt")? {
        let ids = conversation(model, &[Message::user(prompt)], true).map_err(wrap)?;
        (PromptId::of(prompt).to_string(), ids)
    } else if let Some(messages) = row.messages("messages")? {
        if messages.last().is_some_and(|last| last.role == "assistant") {
            return Err(row.fault("`messages` ends with the role `assistant`; a turn to be answered is needed last"));
        }
        let ids = conversation(model, &messages, true).map_err(wrap)?;
        (by_ids(&ids), ids)
    } else if let Some(text) = row.text("text")? {
        let ids = model.tokenizer.encode_begun(text, 1).map_err(|error| row.wrap(Failure::new(Exit::Usage, error)))?;
        (by_ids(&ids), ids)
    } else if let Some(ids) = row.token_ids("token_ids")? {
        (by_ids(&ids), ids)
    } else {
        return Err(row.fault("has none of `prompt`, `messages`, `text` and `token_ids`"));
    };
    expect_askable(model, &ids).map_err(|message| row.fault(message))?;
    Ok(Asked { index: row.index, id, ids: ids.into() })
}

fn print(
    global: &Global,
    args: &Generate,
    model: &Checkpoint,
    index: usize,
    sample: usize,
    completion: &Completion,
    n_prompts: usize,
) {
    let Completion { token_ids, logps, finish_reason } = completion;
    let body = match (finish_reason, token_ids.split_last()) {
        (FinishReason::Stop, Some((_, body))) => body,
        _ => token_ids,
    };
    // Ids that a model gave are ids of its tokenizer: that was checked when the folder was opened.
    let text = model.tokenizer.decode(body, true).unwrap_or_default();
    if global.json {
        let row = json!({
            "index": index, "sample": sample, "text": text, "token_ids": token_ids, "logprobs": logps,
            "finish_reason": finish_reason.name(),
        });
        out(format!("{row}\n"));
    } else if n_prompts == 1 && args.n == 1 {
        out(format!("{text}\n"));
    } else {
        out(format!("[{index}.{sample}] {text}\n"));
    }
    let _ = std::io::stdout().flush();
}

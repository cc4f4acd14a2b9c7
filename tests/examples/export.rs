//! `just check-transformers`, first half: writes checkpoints as this project exports them, and what it computes on them.
//!
//! Owns the cases. `tests/bench/exported.py` loads the folders with transformers and compares.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use clap::Parser;
use serde_json::{Value, json};
use sluice_lm::causal::CausalLm;
use sluice_lm::checkpoint::{Checkpoint, CheckpointWriter, Companions, WriteError};
use sluice_lm::config::{Dtype, Head};
use sluice_lm::model::{load_causal, load_reward};
use sluice_lm::packed::Packed;
use sluice_lm::params::Parameters;
use sluice_lm::reward::{HeadDtype, RewardModel};
use sluice_lm::stack::Stack;
use sluice_lm::template::Message;
use sluice_lm::weights::values;
use sluice_tests::fixture;

#[derive(Parser)]
struct Arguments {
    /// Where the folders go
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Further checkpoints to export and compare
    #[arg(value_name = "DIR")]
    checkpoints: Vec<PathBuf>,
}

/// A checkpoint and how it is written.
struct Case {
    name: String,
    from: PathBuf,
    dtype: Dtype,
    shard_bytes: Option<u64>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { out, checkpoints } = Arguments::parse();
    let case = |name: &str, from: &str, dtype, shard_bytes| Case {
        name: name.to_owned(),
        from: fixture(from),
        dtype,
        shard_bytes,
    };
    let mut cases = vec![
        case("gemma2", "gemma2-tiny", Dtype::F32, None),
        case("gemma2-shards", "gemma2-tiny", Dtype::F32, Some(200_000)),
        case("gemma2-bf16", "gemma2-tiny-bf16", Dtype::Bf16, None),
        case("llama-reward", "reward-seqcls-tiny", Dtype::F32, None),
        case("gemma2-reward", "reward-seqcls-gemma2-tiny", Dtype::F32, None),
    ];
    for (index, from) in checkpoints.into_iter().enumerate() {
        cases.push(Case { name: format!("given-{index}"), from, dtype: Dtype::F32, shard_bytes: None });
    }
    for case in cases {
        let expected = export(&case, &out.join(&case.name))?;
        fs::write(out.join(format!("{}.json", case.name)), expected.to_string())?;
    }
    Ok(())
}

/// Writes the folder, loads it again, and gives what it computes.
fn export(case: &Case, folder: &Path) -> Result<Value, Box<dyn Error>> {
    fs::create_dir_all(folder)?;
    let source = Checkpoint::open(&case.from)?;
    match source.config.head {
        Head::CausalLm => {
            write(&mut load_causal(&source, &Device::flex())?, &source, case, folder)?;
            logits(&Checkpoint::open(folder)?)
        }
        _ => {
            match load_reward(&source, &Device::flex())? {
                RewardModel::Llama(mut model) => write(&mut model, &source, case, folder)?,
                RewardModel::Gemma2(mut model) => write(&mut model, &source, case, folder)?,
                RewardModel::ArmoRm(mut model) => write(&mut model, &source, case, folder)?,
            }
            score(&Checkpoint::open(folder)?)
        }
    }
}

fn write(model: &mut impl Parameters, source: &Checkpoint, case: &Case, folder: &Path) -> Result<(), WriteError> {
    let mut writer = match case.shard_bytes {
        Some(bytes) => CheckpointWriter::with_shards(folder, bytes),
        None => CheckpointWriter::new(folder),
    };
    writer.parameters(model, case.dtype)?;
    writer.finish(Companions { config: &source.config, dtype: case.dtype, source: &source.folder, card: "" })
}

/// Longer than a window of the small models, so that sliding and global layers differ.
fn conversation() -> Vec<Message> {
    let message = |role: &str, content: &str| Message { role: role.to_owned(), content: content.to_owned() };
    vec![
        message("user", "Which of the seven days comes after Friday, and which one comes two days before it?"),
        message("assistant", "After Friday comes Saturday. Two days before Friday it is Wednesday, 3 x 7 = 21."),
    ]
}

/// The conversation, as the folder's own template and tokenizer write it.
fn read(checkpoint: &Checkpoint) -> Result<(Value, Vec<u32>), Box<dyn Error>> {
    let messages = conversation();
    let text = checkpoint.template()?.render(&messages, false)?;
    let ids = checkpoint.tokenizer.encode(&text)?;
    let messages: Vec<Value> =
        messages.iter().map(|message| json!({"role": message.role, "content": message.content})).collect();
    Ok((json!({"messages": messages, "text": text, "token_ids": ids}), ids))
}

/// Logits of every position, `[tokens, vocabulary]`.
fn logits(checkpoint: &Checkpoint) -> Result<Value, Box<dyn Error>> {
    let (mut expected, ids) = read(checkpoint)?;
    let model = load_causal(checkpoint, &Device::flex())?;
    let rows: Vec<usize> = (0..ids.len()).collect();
    let hidden = model.hidden(&Packed::new(&[ids]));
    let logits = values(model.logits(hidden, &rows));
    let logits: Vec<&[f32]> = logits.chunks(model.vocab_size()).collect();
    expected["logits"] = json!(logits);
    Ok(expected)
}

fn score(checkpoint: &Checkpoint) -> Result<Value, Box<dyn Error>> {
    let (mut expected, ids) = read(checkpoint)?;
    let rewards = load_reward(checkpoint, &Device::flex())?.score(&[ids], HeadDtype::F32)?;
    expected["score"] = json!(rewards.first().map(|reward| reward.score));
    Ok(expected)
}

//! What the verbs over a single model folder share: finding, opening and loading it, conversations as token ids, rows of
//! a file. Refuses to know of pipelines and stores.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use sluice_lm::checkpoint::{Checkpoint, HubModel};
use sluice_lm::model::{CausalModel, LoadError, load_causal, load_reward};
use sluice_lm::precision::Placement;
use sluice_lm::reward::RewardModel;
use sluice_lm::template::Message;
use sluice_sql::{DataFormat, Format, NamedTable, Session, TableData, render};
use sluice_stages::Device;
use sluice_stages::model::placement;

use crate::args::Global;
use crate::exit::{Exit, Failure};
use crate::hub;
use crate::output::err;
use crate::pipeline_file::not_text;
use crate::progress::Transfer;
use crate::world::World;

/// The folder of a reference: a path as it is, `hf://...` in the local cache, into which it is fetched if it is not there.
pub fn folder(reference: &str, global: &Global, world: &World) -> Result<PathBuf, Failure> {
    let Some(model) = HubModel::parse(reference).map_err(hub::failure)? else { return Ok(PathBuf::from(reference)) };
    let transfer = Transfer::new(global, world);
    Ok(world.hub.obtain(&model, None, &|step| transfer.step(step))?.folder)
}

/// Opens a model folder and passes its warnings on.
pub fn open(reference: &str, global: &Global, world: &World) -> Result<Checkpoint, Failure> {
    let folder = folder(reference, global, world)?;
    let opened = Checkpoint::open(&folder).map_err(|error| Failure::new(Exit::Usage, error))?;
    if !global.quiet {
        opened.warnings.iter().for_each(|(file, warning)| err(format!("warning: {}: {warning}\n", file.display())));
    }
    Ok(opened)
}

/// The causal language model of an opened folder.
pub fn causal(model: &Checkpoint, device: Device) -> Result<CausalModel, Failure> {
    load(model, device, load_causal)
}

/// The reward model of an opened folder.
pub fn reward(model: &Checkpoint, device: Device) -> Result<RewardModel, Failure> {
    load(model, device, load_reward)
}

fn load<M>(
    model: &Checkpoint,
    device: Device,
    load: impl FnOnce(&Checkpoint, Placement) -> Result<M, LoadError>,
) -> Result<M, Failure> {
    let placement = placement(device).map_err(|error| Failure::new(Exit::Usage, error))?;
    load(model, placement).map_err(|error| Failure::new(Exit::Usage, error))
}

/// A conversation as token ids with one begin token; `opens_answer` adds the header of the turn to be written.
pub fn conversation(model: &Checkpoint, messages: &[Message], opens_answer: bool) -> Result<Vec<u32>, Failure> {
    model.conversation_ids(messages, opens_answer, 1).map_err(|error| Failure::new(Exit::Usage, error))
}

/// Refuses a prompt that the model cannot go on from, and says why.
pub fn expect_askable(model: &Checkpoint, ids: &[u32]) -> Result<(), String> {
    let (max, n_ids) = (model.config.model.max_position_embeddings(), model.config.model.vocab_size());
    if let Some(id) = ids.iter().find(|id| **id as usize >= n_ids) {
        return Err(format!("token {id} is none of the model's {n_ids}"));
    }
    match ids.len() {
        0 => Err("there is no token to begin with".to_owned()),
        n if n >= max => Err(format!("its {n} tokens leave no room for an answer in the model's context of {max}")),
        _ => Ok(()),
    }
}

/// Refuses a conversation longer than the model's context, and says so.
pub fn expect_room(model: &Checkpoint, n_tokens: usize) -> Result<(), String> {
    let max = model.config.model.max_position_embeddings();
    if n_tokens <= max {
        return Ok(());
    }
    Err(format!("its {n_tokens} tokens are more than the model's context of {max}"))
}

/// A row of an input file.
pub struct Row {
    /// Counted from 0; what the output calls `index`.
    pub index: usize,
    fields: Map<String, Value>,
    file: PathBuf,
}

/// The rows of a JSONL or Parquet file.
pub fn rows(file: &Path) -> Result<Vec<Row>, Failure> {
    let usage = |error| Failure::new(Exit::Usage, error);
    let text = match DataFormat::of_extension(file).map_err(usage)? {
        DataFormat::Jsonl => read(file)?,
        DataFormat::Parquet | DataFormat::Csv if !file.is_file() => return Err(no_file(file)),
        DataFormat::Parquet => parquet_as_json(file)?,
        DataFormat::Csv => {
            return Err(Failure::usage(format!("{} is CSV, which has no lists of messages", file.display())));
        }
    };
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let row = |(index, (line, text)): (usize, (usize, &str))| match serde_json::from_str(text) {
        Ok(fields) => Ok(Row { index, fields, file: file.to_owned() }),
        Err(error) => {
            // The line that it counts is always the first.
            let what = error.to_string();
            let what = what.split(" at line ").next().unwrap_or_default();
            Err(Failure::usage(format!("{}:{}: not a JSON object: {what}", file.display(), line + 1)))
        }
    };
    let rows: Vec<Row> = lines.enumerate().map(row).collect::<Result<_, _>>()?;
    if rows.is_empty() {
        return Err(Failure::usage(format!("{} has no rows", file.display())));
    }
    Ok(rows)
}

fn read(file: &Path) -> Result<String, Failure> {
    let bytes = fs::read(file).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => no_file(file),
        _ => Failure::usage(format!("read {}: {error}", file.display())),
    })?;
    String::from_utf8(bytes).map_err(|error| not_text(file, &error))
}

fn no_file(file: &Path) -> Failure {
    Failure::usage(format!("there is no file {}", file.display()))
}

fn parquet_as_json(file: &Path) -> Result<String, Failure> {
    let table = NamedTable { name: "input".to_owned(), data: TableData::Parquet(vec![file.to_owned()]) };
    Session::new(vec![table])
        .and_then(|session| session.query("select * from input"))
        .and_then(|batches| render(&batches, Format::Jsonl))
        .map_err(|error| Failure::new(Exit::Usage, error))
}

impl Row {
    /// The value of a field that is there and not null.
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    /// A text.
    pub fn text(&self, name: &str) -> Result<Option<&str>, Failure> {
        match self.field(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.fault(format!("`{name}` is not a text"))),
        }
    }

    /// Messages: objects with `role` and `content`.
    pub fn messages(&self, name: &str) -> Result<Option<Vec<Message>>, Failure> {
        let Some(value) = self.field(name) else { return Ok(None) };
        let wrong = || self.fault(format!("`{name}` is not a list of objects with `role` and `content`"));
        let message = |value: &Value| {
            let text = |key: &str| value.get(key).and_then(Value::as_str);
            Some(Message::new(text("role")?, text("content")?))
        };
        let messages: Vec<Message> =
            value.as_array().ok_or_else(wrong)?.iter().map(message).collect::<Option<_>>().ok_or_else(wrong)?;
        if messages.is_empty() {
            return Err(self.fault(format!("`{name}` is empty")));
        }
        Ok(Some(messages))
    }

    /// Token ids.
    pub fn token_ids(&self, name: &str) -> Result<Option<Vec<u32>>, Failure> {
        let Some(value) = self.field(name) else { return Ok(None) };
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids = value.as_array().and_then(|values| values.iter().map(id).collect());
        ids.map(Some).ok_or_else(|| self.fault(format!("`{name}` is not a list of token ids")))
    }

    /// A failure of this row.
    pub fn fault(&self, message: impl std::fmt::Display) -> Failure {
        Failure::usage(format!("{}: row {}: {message}", self.file.display(), self.index))
    }

    /// A failure further down, told with the row.
    pub fn wrap(&self, failure: Failure) -> Failure {
        let Failure { exit, cause, help } = failure;
        let cause = RowFailure { file: self.file.clone(), index: self.index, cause };
        Failure { exit, cause: Box::new(cause), help }
    }
}

/// A failure with the row it is of.
#[derive(Debug, thiserror::Error)]
#[error("{}: row {index}", file.display())]
struct RowFailure {
    file: PathBuf,
    index: usize,
    #[source]
    cause: Box<dyn std::error::Error + Send + Sync>,
}

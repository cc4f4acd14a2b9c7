//! What the verbs over a single model folder share: finding and opening it, conversations as token ids, rows of a file.
//! Refuses to know of pipelines and stores.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use sluice_lm::checkpoint::{self, Checkpoint, HubError};
use sluice_lm::template::Message;
use sluice_sql::{DataFormat, Format, NamedTable, Session, TableData, render};

use crate::exit::{Exit, Failure};
use crate::output::err;
use crate::world::World;

/// The folder of a reference: a path as it is, `hf://...` in the local cache.
pub fn folder(reference: &str, world: &World) -> Result<PathBuf, Failure> {
    checkpoint::resolve(reference, &world.hub).map_err(|error| match error {
        HubError::Reference { .. } => Failure::new(Exit::Usage, error),
        HubError::Absent { .. } | HubError::Read { .. } => Failure::new(Exit::Remote, error),
    })
}

/// Opens a model folder and passes its warnings on.
pub fn open(reference: &str, world: &World, quiet: bool) -> Result<Checkpoint, Failure> {
    let opened = Checkpoint::open(&folder(reference, world)?).map_err(|error| Failure::new(Exit::Usage, error))?;
    if !quiet {
        opened.warnings.iter().for_each(|(file, warning)| err(format!("warning: {}: {warning}\n", file.display())));
    }
    Ok(opened)
}

/// A conversation as token ids with one begin token; `opens_answer` adds the header of the turn to be written.
pub fn conversation(model: &Checkpoint, messages: &[Message], opens_answer: bool) -> Result<Vec<u32>, Failure> {
    let failed = |error: checkpoint::CheckpointError| Failure::new(Exit::Usage, error);
    let text = model.template().map_err(failed)?.render(messages, opens_answer);
    let text = text.map_err(|error| Failure::new(Exit::Usage, error))?;
    with_bos(model, &text)
}

/// A text as token ids with one begin token in front, if the tokenizer has one.
pub fn with_bos(model: &Checkpoint, text: &str) -> Result<Vec<u32>, Failure> {
    let mut ids = model.tokenizer.encode(text).map_err(|error| Failure::new(Exit::Usage, error))?;
    if let Some(bos) = model.tokenizer.bos_id() {
        let n_written = ids.iter().take_while(|id| **id == bos).count();
        ids.splice(..n_written, [bos]);
    }
    Ok(ids)
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
            let message = format!("{}:{}: not a JSON object: {error}", file.display(), line + 1);
            Err(Failure::usage(message))
        }
    };
    let rows: Vec<Row> = lines.enumerate().map(row).collect::<Result<_, _>>()?;
    if rows.is_empty() {
        return Err(Failure::usage(format!("{} has no rows", file.display())));
    }
    Ok(rows)
}

fn read(file: &Path) -> Result<String, Failure> {
    fs::read_to_string(file).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => no_file(file),
        std::io::ErrorKind::InvalidData => Failure::usage(format!("{} is not UTF-8 text", file.display())),
        _ => Failure::usage(format!("read {}: {error}", file.display())),
    })
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

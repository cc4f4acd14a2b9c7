//! The record of an action: what a key produced, from which leaves, with which facts. It owns the stored form
//! and its version, and refuses to know what a leaf or a metric means.
//!
//! A record file has two lines: the record as JSON, and the BLAKE3 of that line.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::checked;
use crate::digest::{ContentHash, ModelDigest, RowScope, StageKey, TableDigest};
use crate::error::StoreError;

/// Version of the record's form. Readers refuse newer ones and default the fields that older ones lack.
pub const RECORD_SCHEMA_VERSION: u32 = 1;

/// What one action produced. Published once, last, and never changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`RECORD_SCHEMA_VERSION`] of the writer.
    pub schema_version: u32,
    /// The key this is the record of.
    pub key: StageKey,
    /// The kind of the stage, e.g. `sample`.
    pub kind: String,
    /// The kind's hand-bumped version.
    pub stage_version: u32,
    /// Everything that went into the key, sorted by path.
    pub leaves: Vec<Leaf>,
    /// The artifacts, in the order the stage declared them; the first is the stage's own table or checkpoint.
    pub outputs: Vec<Output>,
    /// Named numbers the stage reports. Finite.
    pub metrics: BTreeMap<String, f64>,
    /// Provenance that is not part of the key, e.g. `policy_digest`, `device`.
    pub facts: BTreeMap<String, String>,
    /// Rows that were taken from earlier results instead of computed.
    #[serde(default)]
    pub n_rows_reused: u64,
    /// Steps that were taken over from an attempt that did not end, instead of computed.
    #[serde(default)]
    pub n_steps_resumed: u64,
    /// What a user should hear about the result.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<Notice>,
    /// The row journals the action looked into, sorted: while the record is worth keeping, they are. None in a record of
    /// a program that did not write them down, which may have used any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_scopes: Option<Vec<RowScope>>,
    /// The result that this one says something about, as the outcome of a data test does: whatever keeps that keeps this.
    /// Older programs pass over it, and keep what a run names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<StageKey>,
    /// What was worked through, for whoever predicts the next action: none in the record of a program that did not count it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<Work>,
    /// Wall-clock seconds the action took.
    pub seconds: f64,
    /// When it was committed, milliseconds since 1970 by the caller's clock.
    pub created_unix_ms: u64,
}

/// A record before it has a key.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RecordDraft {
    /// See [`Record::kind`].
    pub kind: String,
    /// See [`Record::stage_version`].
    pub stage_version: u32,
    /// See [`Record::leaves`].
    pub leaves: Vec<Leaf>,
    /// See [`Record::outputs`].
    pub outputs: Vec<Output>,
    /// See [`Record::metrics`]; non-finite values have no JSON form and are left out.
    pub metrics: BTreeMap<String, f64>,
    /// See [`Record::facts`].
    pub facts: BTreeMap<String, String>,
    /// See [`Record::n_rows_reused`].
    pub n_rows_reused: u64,
    /// See [`Record::n_steps_resumed`].
    pub n_steps_resumed: u64,
    /// See [`Record::notices`].
    pub notices: Vec<Notice>,
    /// See [`Record::about`].
    pub about: Option<StageKey>,
    /// See [`Record::work`].
    pub work: Option<Work>,
    /// See [`Record::seconds`].
    pub seconds: f64,
    /// See [`Record::created_unix_ms`].
    pub created_unix_ms: u64,
}

/// Something a user should hear about a result, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// How much it matters.
    pub level: NoticeLevel,
    /// One line.
    pub text: String,
}

/// How much a notice matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeLevel {
    /// Good to know.
    Note,
    /// Something may be other than the user thinks.
    Warning,
}

/// What an action worked through one by one, and what that took.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// What is counted: `rows`, `answers`, `examples` (times the passes over them), `bytes`.
    pub unit: String,
    /// How many of them, without those taken from earlier results.
    pub n_done: u64,
    /// Tokens made or read for these.
    pub n_tokens: u64,
    /// Seconds spent on these. What [`Record::seconds`] has beyond them went to loading models and writing tables.
    pub seconds: f64,
    /// Rows of the tables that were read.
    pub n_rows_read: u64,
}

/// One thing that went into a key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Leaf {
    /// Dotted path, e.g. `pair.ties` or `input.scores`.
    pub path: String,
    /// The value, typed: `1`, `1.0` and `"1"` differ.
    pub value: LeafValue,
    /// Where it was written, e.g. `pipelines/simpo-gemma.yaml:31:18`; none for a default or a derived value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
}

/// The value of a leaf.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeafValue {
    /// Not given.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A finite number.
    Float(f64),
    /// A text.
    Text(String),
    /// The hex digest of an input's content.
    Digest(String),
    /// Several values, in order.
    List(Vec<LeafValue>),
}

impl std::fmt::Display for LeafValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => f.write_str("none"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            // `{:?}` keeps the point of `1.0`, so that a float never looks like a whole number.
            Self::Float(value) => write!(f, "{value:?}"),
            Self::Text(text) => f.write_str(text),
            Self::Digest(hex) => f.write_str(hex.get(..12).unwrap_or(hex)),
            Self::List(values) => {
                f.write_str("[")?;
                for (index, value) in values.iter().enumerate() {
                    write!(f, "{}{value}", if index == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
        }
    }
}

/// A named artifact of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// The name the stage gave it, e.g. `pairs`, `dropped`, `checkpoint`.
    pub name: String,
    /// What it is and where.
    pub artifact: Artifact,
}

/// The kinds of artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Artifact {
    /// A Parquet file.
    Table(TableArtifact),
    /// A sealed folder.
    Checkpoint(CheckpointArtifact),
}

/// A stored table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableArtifact {
    /// Over schema and rows: what downstream keys see.
    pub digest: TableDigest,
    /// Over the bytes of the Parquet file: its address.
    pub blob: ContentHash,
    /// Number of rows.
    pub n_rows: u64,
    /// Size of the Parquet file.
    pub bytes: u64,
}

/// A stored folder that holds a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointArtifact {
    /// Over tensors, config, tokenizer, template: what downstream keys see.
    pub digest: ModelDigest,
    /// Over the files: its address.
    pub folder: ContentHash,
    /// Number of files.
    pub n_files: u64,
    /// Sum of their sizes.
    pub bytes: u64,
}

impl Artifact {
    /// The digest of the stored bytes: the artifact's address.
    pub fn content(&self) -> ContentHash {
        match self {
            Self::Table(table) => table.blob,
            Self::Checkpoint(checkpoint) => checkpoint.folder,
        }
    }

    /// The size of the stored bytes.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Table(table) => table.bytes,
            Self::Checkpoint(checkpoint) => checkpoint.bytes,
        }
    }
}

impl Output {
    /// The logical digest, as text.
    pub fn digest(&self) -> String {
        match &self.artifact {
            Artifact::Table(table) => table.digest.to_string(),
            Artifact::Checkpoint(checkpoint) => checkpoint.digest.to_string(),
        }
    }

    /// Number of rows; none for a checkpoint.
    pub fn n_rows(&self) -> Option<u64> {
        match &self.artifact {
            Artifact::Table(table) => Some(table.n_rows),
            Artifact::Checkpoint(_) => None,
        }
    }

    /// The table, or an error that says what it is instead.
    pub fn table(&self) -> Result<&TableArtifact, StoreError> {
        match &self.artifact {
            Artifact::Table(table) => Ok(table),
            Artifact::Checkpoint(_) => {
                Err(StoreError::OutputKind { output: self.name.clone(), found: "checkpoint", wanted: "table" })
            }
        }
    }

    /// The checkpoint, or an error that says what it is instead.
    pub fn checkpoint(&self) -> Result<&CheckpointArtifact, StoreError> {
        match &self.artifact {
            Artifact::Checkpoint(checkpoint) => Ok(checkpoint),
            Artifact::Table(_) => {
                Err(StoreError::OutputKind { output: self.name.clone(), found: "table", wanted: "checkpoint" })
            }
        }
    }
}

impl Record {
    pub(crate) fn new(key: StageKey, draft: RecordDraft, row_scopes: Vec<RowScope>) -> Self {
        let RecordDraft {
            kind,
            stage_version,
            leaves,
            outputs,
            mut metrics,
            facts,
            n_rows_reused,
            n_steps_resumed,
            work,
            notices,
            about,
            seconds,
            created_unix_ms,
        } = draft;
        metrics.retain(|_, value| value.is_finite());
        Self {
            schema_version: RECORD_SCHEMA_VERSION,
            key,
            kind,
            stage_version,
            leaves,
            outputs,
            metrics,
            facts,
            n_rows_reused,
            n_steps_resumed,
            work,
            notices,
            row_scopes: Some(row_scopes),
            about,
            seconds,
            created_unix_ms,
        }
    }

    /// The output of this name.
    pub fn output(&self, name: &str) -> Option<&Output> {
        self.outputs.iter().find(|output| output.name == name)
    }

    /// Whether two records say the same: equal names and logical digests. Bytes, times and metrics may differ.
    pub fn same_result(&self, other: &Record) -> bool {
        let result = |record: &Record| -> Vec<(String, String)> {
            record.outputs.iter().map(|output| (output.name.clone(), output.digest())).collect()
        };
        result(self) == result(other)
    }

    pub(crate) fn to_bytes(&self, path: &Path) -> Result<Vec<u8>, StoreError> {
        checked::encode(path, self)
    }

    /// The record in a file at `path`, checked.
    pub(crate) fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Self, StoreError> {
        let json = |source| StoreError::Json { path: path.to_owned(), source };
        let record = checked::first_line(path, bytes)?;
        let Version { schema_version } = serde_json::from_slice(record).map_err(json)?;
        if schema_version > RECORD_SCHEMA_VERSION {
            let supported = RECORD_SCHEMA_VERSION;
            return Err(StoreError::NewerRecord { path: path.to_owned(), found: schema_version, supported });
        }
        serde_json::from_slice(record).map_err(json)
    }
}

/// The one field every version of a record has.
#[derive(Deserialize)]
struct Version {
    schema_version: u32,
}

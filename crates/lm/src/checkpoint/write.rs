//! A model folder that the Python libraries load: safetensors, one file or shards with an index, and the files around
//! them.
//!
//! Owns the bytes that are written. Knows nothing of what a model computes, and nothing of atomic publication: the caller
//! hands in a private folder and seals it afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use serde_json::{Map, Value, json};

use crate::config::{Config, Dtype};
use crate::params::Parameters;
use crate::weights::published_values;

/// Shards hold at most this many bytes of tensors, as the Python library's do.
const SHARD_BYTES: u64 = 5_000_000_000;

/// The files that a folder has around its weights and that training leaves as they are.
const COMPANIONS: [&str; 7] = [
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
];

/// Writes the tensors of a model one by one, then the files around them.
///
/// A safetensors header stands before its data and needs every tensor's place, so tensors go to a data file per dtype
/// first and are copied behind the header when their shard is full.
#[derive(Debug)]
pub struct CheckpointWriter {
    folder: PathBuf,
    shard_bytes: u64,
    open: Vec<Part>,
    closed: Vec<Shard>,
    names: BTreeSet<String>,
}

/// What stands around the weights.
#[derive(Clone, Copy, Debug)]
pub struct Companions<'a> {
    pub config: &'a Config,
    /// What `config.json` tells the Python library to load the weights as.
    pub dtype: Dtype,
    /// The folder that tokenizer, chat template and generation ids are copied from.
    pub source: &'a Path,
    /// The text of the model card, `README.md`.
    pub card: &'a str,
}

/// Why a folder could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("write {}", file.display())]
    Write { file: PathBuf, source: io::Error },
    #[error("{}: tensor `{name}` has {n_elements} elements; shape {shape:?} needs another number", folder.display())]
    Shape { folder: PathBuf, name: String, n_elements: usize, shape: Vec<usize> },
    #[error("{}: tensor `{name}` was written already", folder.display())]
    Twice { folder: PathBuf, name: String },
    #[error(
        "{}: tensor `{name}` is {value} at element {element} as {}; finite weights are needed",
        folder.display(),
        dtype.torch_name()
    )]
    NotFinite { folder: PathBuf, name: String, value: f32, element: usize, dtype: Dtype },
}

/// The tensors of one dtype of the shard being written. Wider dtypes come first in a file, so that every tensor begins
/// at a multiple of its element size.
#[derive(Debug)]
struct Part {
    dtype: Dtype,
    file: PathBuf,
    sink: BufWriter<File>,
    n_bytes: u64,
    tensors: Vec<(String, Vec<usize>, u64)>,
}

#[derive(Debug)]
struct Shard {
    file: PathBuf,
    n_bytes: u64,
    names: Vec<String>,
}

impl CheckpointWriter {
    /// Starts in a folder that exists and is the caller's own.
    pub fn new(folder: &Path) -> Self {
        Self::with_shards(folder, SHARD_BYTES)
    }

    /// Like [`CheckpointWriter::new`], with shards of at most `shard_bytes` bytes of tensors (a larger tensor stands
    /// alone).
    pub fn with_shards(folder: &Path, shard_bytes: u64) -> Self {
        let (open, closed, names) = (Vec::new(), Vec::new(), BTreeSet::new());
        Self { folder: folder.to_owned(), shard_bytes, open, closed, names }
    }

    /// Adds a tensor, row-major, rounded to nearest even where `dtype` is narrower than `f32`.
    pub fn tensor(&mut self, name: &str, shape: &[usize], data: &[f32], dtype: Dtype) -> Result<(), WriteError> {
        let (folder, owned) = (self.folder.clone(), name.to_owned());
        if shape.iter().product::<usize>() != data.len() {
            let (n_elements, shape) = (data.len(), shape.to_vec());
            return Err(WriteError::Shape { folder, name: owned, n_elements, shape });
        }
        if !self.names.insert(owned.clone()) {
            return Err(WriteError::Twice { folder, name: owned });
        }
        if let Some((element, value)) = first_not_finite(data, dtype) {
            return Err(WriteError::NotFinite { folder, name: owned, value, element, dtype });
        }
        let n_bytes = (data.len() * dtype.bytes()) as u64;
        let n_open: u64 = self.open.iter().map(|part| part.n_bytes).sum();
        if n_open > 0 && n_open + n_bytes > self.shard_bytes {
            self.close_shard()?;
        }
        let part = self.part(dtype)?;
        write_elements(&mut part.sink, data, dtype).map_err(wrote(&part.file))?;
        part.tensors.push((owned, shape.to_vec(), n_bytes));
        part.n_bytes += n_bytes;
        Ok(())
    }

    /// Adds every tensor of a model; stops at the first that fails.
    pub fn parameters(&mut self, model: &mut impl Parameters, dtype: Dtype) -> Result<(), WriteError> {
        let mut written = Ok(());
        model.walk(&mut |name, param| {
            if written.is_ok() {
                written = self.tensor(name, &param.published_shape(), &published_values(&param), dtype);
            }
        });
        written
    }

    /// Names the shards, writes the index where there are several, and the files around the weights.
    pub fn finish(mut self, companions: Companions<'_>) -> Result<(), WriteError> {
        let Companions { config, dtype, source, card } = companions;
        self.close_shard()?;
        self.name_shards()?;
        self.write_text("config.json", &pretty(&config.to_json(dtype)))?;
        self.write_text("README.md", card)?;
        for name in COMPANIONS {
            let (from, to) = (source.join(name), self.folder.join(name));
            if from.exists() {
                // Only the bytes: a source may be read-only, and a copy of it should not be. They are read before anything
                // is written, since the folder may be its own source.
                let bytes = fs::read(&from).map_err(wrote(&from))?;
                let mut to_file = File::create(&to).map_err(wrote(&to))?;
                to_file.write_all(&bytes).and_then(|()| to_file.sync_all()).map_err(wrote(&to))?;
            }
        }
        Ok(())
    }

    fn part(&mut self, dtype: Dtype) -> Result<&mut Part, WriteError> {
        let at = match self.open.binary_search_by_key(&dtype, |part| part.dtype) {
            Ok(at) => at,
            Err(at) => {
                let file = self.folder.join(format!(".{}.part", dtype.torch_name()));
                let sink = BufWriter::with_capacity(1 << 20, File::create(&file).map_err(wrote(&file))?);
                self.open.insert(at, Part { dtype, file, sink, n_bytes: 0, tensors: Vec::new() });
                at
            }
        };
        Ok(&mut self.open[at])
    }

    fn close_shard(&mut self) -> Result<(), WriteError> {
        let parts = std::mem::take(&mut self.open);
        let file = self.folder.join(format!(".shard-{}.part", self.closed.len()));
        let header = header(&parts);
        let mut into = File::create(&file).map_err(wrote(&file))?;
        into.write_all(&header).map_err(wrote(&file))?;
        let mut shard = Shard { file, n_bytes: 0, names: Vec::new() };
        for part in parts {
            shard.n_bytes += part.n_bytes;
            shard.names.extend(part.tensors.into_iter().map(|(name, _, _)| name));
            drop(part.sink.into_inner().map_err(|error| wrote(&part.file)(error.into_error()))?);
            let mut from = File::open(&part.file).map_err(wrote(&part.file))?;
            io::copy(&mut from, &mut into).map_err(wrote(&shard.file))?;
            fs::remove_file(&part.file).map_err(wrote(&part.file))?;
        }
        into.sync_all().map_err(wrote(&shard.file))?;
        self.closed.push(shard);
        Ok(())
    }

    fn name_shards(&self) -> Result<(), WriteError> {
        let n_shards = self.closed.len();
        let mut weight_map = BTreeMap::new();
        for (i, shard) in self.closed.iter().enumerate() {
            let name = match n_shards {
                1 => "model.safetensors".to_owned(),
                _ => format!("model-{:05}-of-{n_shards:05}.safetensors", i + 1),
            };
            fs::rename(&shard.file, self.folder.join(&name)).map_err(wrote(&shard.file))?;
            weight_map.extend(shard.names.iter().map(|tensor| (tensor.as_str(), name.clone())));
        }
        if n_shards == 1 {
            return Ok(());
        }
        let total_size: u64 = self.closed.iter().map(|shard| shard.n_bytes).sum();
        let index = json!({ "metadata": { "total_size": total_size }, "weight_map": weight_map });
        self.write_text("model.safetensors.index.json", &pretty(&index))
    }

    fn write_text(&self, name: &str, text: &str) -> Result<(), WriteError> {
        let file = self.folder.join(name);
        let written = File::create(&file).and_then(|mut to| {
            to.write_all(text.as_bytes())?;
            to.sync_all()
        });
        written.map_err(wrote(&file))
    }
}

/// The length and the JSON header of a shard, padded with spaces to a multiple of 8 bytes.
fn header(parts: &[Part]) -> Vec<u8> {
    let mut map = Map::new();
    map.insert("__metadata__".into(), json!({ "format": "pt" }));
    let mut offset = 0;
    for part in parts {
        let dtype = match part.dtype {
            Dtype::F32 => "F32",
            Dtype::F16 => "F16",
            Dtype::Bf16 => "BF16",
        };
        for (name, shape, n_bytes) in &part.tensors {
            let end = offset + n_bytes;
            let entry = json!({ "dtype": dtype, "shape": shape, "data_offsets": [offset, end] });
            map.insert(name.clone(), entry);
            offset = end;
        }
    }
    let mut json = Value::Object(map).to_string().into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.extend(json);
    header
}

fn first_not_finite(data: &[f32], dtype: Dtype) -> Option<(usize, f32)> {
    let stored = |x: f32| match dtype {
        Dtype::F32 => x,
        Dtype::F16 => f16::from_f32(x).to_f32(),
        Dtype::Bf16 => bf16::from_f32(x).to_f32(),
    };
    data.iter().map(|x| stored(*x)).enumerate().find(|(_, x)| !x.is_finite())
}

fn write_elements(sink: &mut impl Write, data: &[f32], dtype: Dtype) -> io::Result<()> {
    const PIECE: usize = 1 << 16;
    let mut bytes = Vec::with_capacity(PIECE * dtype.bytes());
    data.chunks(PIECE).try_for_each(|piece| {
        bytes.clear();
        match dtype {
            Dtype::F32 => bytes.extend(piece.iter().flat_map(|x| x.to_le_bytes())),
            Dtype::F16 => bytes.extend(piece.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes())),
            Dtype::Bf16 => bytes.extend(piece.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes())),
        }
        sink.write_all(&bytes)
    })
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn wrote(file: &Path) -> impl FnOnce(io::Error) -> WriteError {
    let file = file.to_owned();
    move |source| WriteError::Write { file, source }
}

//! A trainer on disk, between two steps.
//!
//! Owns the folder layout. A trainer that is loaded takes the same further steps as one that was never stopped: the
//! order of rows and the learning rate are functions of the step, so weights, moments and the step are all there is to
//! keep.
//!
//! The folder holds `trainer.json` and the one safetensors file it names. Tensors are called `weight/NAME`,
//! `first/NAME` and `second/NAME` after the published parameter names; they are f32 and lie as in memory, linear maps
//! `[in, out]`, so they are no checkpoint for other programs. Files are written under other names and renamed,
//! `trainer.json` last: a crash leaves the folder as it was before.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use safetensors::tensor::{Dtype, SafeTensors, View, serialize_to_file};
use serde::{Deserialize, Serialize};
use sluice_lm::params::{ParamMut, Parameters};
use thiserror::Error;

use crate::optimizer::{AdamW, Moments, Optimizer};
use crate::trainer::Trainer;

/// Layout of the folder. A reader refuses every other number.
const FORMAT: u32 = 1;
const HEAD_FILE: &str = "trainer.json";

/// Why a trainer cannot be kept or taken up again.
#[derive(Debug, Error)]
pub enum ResumeError {
    #[error("{operation} {}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: std::io::Error },
    #[error("write tensors to {}", path.display())]
    Write { path: PathBuf, source: safetensors::SafeTensorError },
    #[error("read {}", path.display())]
    Head { path: PathBuf, source: serde_json::Error },
    #[error("{} has format {found}, this program reads {FORMAT}", path.display())]
    Format { path: PathBuf, found: u32 },
    #[error("{} was saved under other settings ({}); start afresh or put them back", path.display(), keys.join(", "))]
    Settings { path: PathBuf, keys: Vec<String> },
    #[error("{} is damaged: its BLAKE3 is {found}, {HEAD_FILE} says {expected}", path.display())]
    Damaged { path: PathBuf, found: String, expected: String },
    #[error("read tensors of {}", path.display())]
    Read { path: PathBuf, source: safetensors::SafeTensorError },
    #[error("{}: tensor {name} is {found}, the model needs {expected}", path.display())]
    Tensor { path: PathBuf, name: String, found: String, expected: String },
    #[error("{}: tensor {name} belongs to no parameter of the model", path.display())]
    Unknown { path: PathBuf, name: String },
}

#[derive(Serialize, Deserialize)]
struct Head {
    format: u32,
    n_done: usize,
    n_optimizer_steps: u64,
    /// The safetensors file beside this one.
    tensors: String,
    blake3: String,
    /// What the caller trained with; a resumed run must use the same.
    settings: BTreeMap<String, serde_json::Value>,
}

/// Saves a trainer into `folder`, which is made if need be, in place of what was saved there before.
pub fn save<M: Parameters + Clone>(
    folder: &Path,
    trainer: &Trainer<M>,
    settings: &BTreeMap<String, serde_json::Value>,
) -> Result<(), ResumeError> {
    fs::create_dir_all(folder).map_err(|source| ResumeError::Io { operation: "make", path: folder.into(), source })?;
    let before = read_head(folder)?;
    let tensors = format!("step-{:08}.safetensors", trainer.n_done);
    let path = folder.join(&tensors);
    let partial = folder.join("partial.safetensors");
    serialize_to_file(stored_tensors(trainer), None, &partial)
        .map_err(|source| ResumeError::Write { path: partial.clone(), source })?;
    let blake3 = digest(&partial)?;
    publish(&partial, &path)?;
    let head = Head {
        format: FORMAT,
        n_done: trainer.n_done,
        n_optimizer_steps: trainer.optimizer.n_steps(),
        tensors: tensors.clone(),
        blake3,
        settings: settings.clone(),
    };
    write_head(folder, &head)?;
    match before {
        Some(old) if old.tensors != tensors => remove(&folder.join(old.tensors)),
        _ => Ok(()),
    }
}

/// Takes up the trainer saved in `folder`, or `None` where none was saved. `model` gives the architecture; its weights
/// are replaced.
pub fn load<M: Parameters>(
    folder: &Path,
    mut model: M,
    adamw: AdamW,
    settings: &BTreeMap<String, serde_json::Value>,
    device: &Device,
) -> Result<Option<Trainer<M>>, ResumeError> {
    let Some(head) = read_head(folder)? else { return Ok(None) };
    let keys = differing_keys(&head.settings, settings);
    if !keys.is_empty() {
        return Err(ResumeError::Settings { path: folder.join(HEAD_FILE), keys });
    }
    let path = folder.join(&head.tensors);
    let bytes = fs::read(&path).map_err(|source| ResumeError::Io { operation: "read", path: path.clone(), source })?;
    let found = blake3::hash(&bytes).to_hex().to_string();
    if found != head.blake3 {
        return Err(ResumeError::Damaged { path, found, expected: head.blake3 });
    }
    let file = SafeTensors::deserialize(&bytes).map_err(|source| ResumeError::Read { path: path.clone(), source })?;
    let mut reader = Reader { path: &path, device, left: file.tensors().into_iter().collect() };
    let mut moments = BTreeMap::new();
    let mut fault = None;
    model.walk(&mut |name, param| {
        if fault.is_none() {
            fault = reader.restore(name, param, &mut moments).err();
        }
    });
    if let Some(fault) = fault {
        return Err(fault);
    }
    if let Some(name) = reader.left.into_keys().next() {
        return Err(ResumeError::Unknown { path: path.clone(), name });
    }
    let optimizer = Optimizer::restore(adamw, head.n_optimizer_steps, moments);
    Ok(Some(Trainer { model, optimizer, n_done: head.n_done }))
}

/// A tensor on its way to disk; its bytes are read from the device when they are written.
struct Stored {
    values_n: Tensor<1>,
    shape: Vec<usize>,
}

impl View for Stored {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let values: Vec<u8> = self.values_n.to_data().iter::<f32>().flat_map(f32::to_le_bytes).collect();
        Cow::Owned(values)
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * size_of::<f32>()
    }
}

fn stored_tensors<M: Parameters + Clone>(trainer: &Trainer<M>) -> Vec<(String, Stored)> {
    let mut model = trainer.model.clone();
    let mut stored = Vec::new();
    model.walk(&mut |name, param| {
        let (values_n, shape) = match param {
            ParamMut::Vector(weight) => (weight.clone(), weight.dims().to_vec()),
            ParamMut::Matrix(weight) | ParamMut::Linear(weight) => {
                (weight.clone().reshape([-1]), weight.dims().to_vec())
            }
        };
        if let Some(Moments { first_n, second_n }) = trainer.optimizer.moments().get(name) {
            for (part, values_n) in [("first", first_n), ("second", second_n)] {
                let tensor = Stored { values_n: values_n.clone(), shape: shape.clone() };
                stored.push((format!("{part}/{name}"), tensor));
            }
        }
        stored.push((format!("weight/{name}"), Stored { values_n, shape }));
    });
    stored
}

/// The tensors of an open file that were not taken yet.
struct Reader<'a> {
    path: &'a Path,
    device: &'a Device,
    left: BTreeMap<String, safetensors::tensor::TensorView<'a>>,
}

impl Reader<'_> {
    fn restore(
        &mut self,
        name: &str,
        param: ParamMut<'_>,
        moments: &mut BTreeMap<String, Moments>,
    ) -> Result<(), ResumeError> {
        let shape = match param {
            ParamMut::Vector(weight) => {
                let shape = weight.dims();
                *weight = self.required(&format!("weight/{name}"), &shape)?;
                shape.to_vec()
            }
            ParamMut::Matrix(weight) | ParamMut::Linear(weight) => {
                let shape = weight.dims();
                *weight = self.required(&format!("weight/{name}"), &shape)?.reshape(shape);
                shape.to_vec()
            }
        };
        if self.left.contains_key(&format!("first/{name}")) {
            let first_n = self.required(&format!("first/{name}"), &shape)?;
            let second_n = self.required(&format!("second/{name}"), &shape)?;
            moments.insert(name.to_owned(), Moments { first_n, second_n });
        }
        Ok(())
    }

    /// The values of a tensor, flat.
    fn required(&mut self, name: &str, shape: &[usize]) -> Result<Tensor<1>, ResumeError> {
        let expected = format!("f32 {shape:?}");
        let found = self.left.remove(name).ok_or_else(|| self.fault(name, "absent".to_owned(), &expected))?;
        if found.dtype() != Dtype::F32 || found.shape() != shape {
            return Err(self.fault(name, format!("{:?} {:?}", found.dtype(), found.shape()), &expected));
        }
        let values: Vec<f32> =
            found.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let n_values = values.len();
        Ok(Tensor::from_data(TensorData::new(values, [n_values]), self.device))
    }

    fn fault(&self, name: &str, found: String, expected: &str) -> ResumeError {
        ResumeError::Tensor { path: self.path.into(), name: name.to_owned(), found, expected: expected.to_owned() }
    }
}

fn read_head(folder: &Path) -> Result<Option<Head>, ResumeError> {
    let path = folder.join(HEAD_FILE);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ResumeError::Io { operation: "read", path, source }),
    };
    // The format is read alone first: another format may have other fields.
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let fail = |source| ResumeError::Head { path: path.clone(), source };
    let Format { format } = serde_json::from_slice(&text).map_err(fail)?;
    if format != FORMAT {
        return Err(ResumeError::Format { path, found: format });
    }
    serde_json::from_slice(&text).map(Some).map_err(fail)
}

fn write_head(folder: &Path, head: &Head) -> Result<(), ResumeError> {
    let partial = folder.join("partial.json");
    let fail = |source| ResumeError::Io { operation: "write", path: partial.clone(), source };
    let text = serde_json::to_vec_pretty(head).map_err(|error| fail(error.into()))?;
    File::create(&partial).and_then(|mut file| file.write_all(&text)).map_err(fail)?;
    publish(&partial, &folder.join(HEAD_FILE))
}

/// Makes a written file durable and gives it its name.
fn publish(partial: &Path, path: &Path) -> Result<(), ResumeError> {
    let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all());
    let fail = |operation, path: &Path, source| ResumeError::Io { operation, path: path.into(), source };
    sync(partial).map_err(|source| fail("sync", partial, source))?;
    fs::rename(partial, path).map_err(|source| fail("name", path, source))?;
    match path.parent() {
        Some(folder) => sync(folder).map_err(|source| fail("sync", folder, source)),
        None => Ok(()),
    }
}

fn remove(path: &Path) -> Result<(), ResumeError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ResumeError::Io { operation: "remove", path: path.into(), source: error })
        }
        _ => Ok(()),
    }
}

fn digest(path: &Path) -> Result<String, ResumeError> {
    let fail = |source| ResumeError::Io { operation: "read", path: path.into(), source };
    let mut hasher = blake3::Hasher::new();
    let file = File::open(path).map_err(fail)?;
    hasher.update_reader(file).map_err(fail)?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// Keys whose values differ, or that one side lacks.
fn differing_keys(
    saved: &BTreeMap<String, serde_json::Value>,
    given: &BTreeMap<String, serde_json::Value>,
) -> Vec<String> {
    let mut keys: Vec<String> = saved.keys().chain(given.keys()).cloned().collect();
    keys.sort();
    keys.dedup();
    keys.retain(|key| saved.get(key) != given.get(key));
    keys
}

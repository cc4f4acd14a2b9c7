//! Reading the reference outputs of tests/fixtures.
//!
//! Owns the folder, which is given where a check does not run in the workspace, and the forms of the files. A fixture that
//! does not read is a broken copy: the error names the file.

use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde::de::DeserializeOwned;

/// The folder of the fixtures, and that of the tiny models.
#[derive(Clone, Debug)]
pub struct Fixtures {
    /// tests/fixtures.
    pub fixtures: PathBuf,
    /// data/tiny.
    pub tiny: PathBuf,
}

/// A fixture that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FixtureError {
    #[error("read {}", file.display())]
    Read { file: PathBuf, source: std::io::Error },
    #[error("read {} as JSON", file.display())]
    Json { file: PathBuf, source: serde_json::Error },
    #[error("read {} as safetensors", file.display())]
    Tensors { file: PathBuf, source: safetensors::SafeTensorError },
    #[error("{}: tensor {name} is {dtype:?}", file.display())]
    Type { file: PathBuf, name: String, dtype: Dtype },
}

impl Fixtures {
    /// The folders under the root of the project or of a copy of these folders.
    pub fn under(root: &Path) -> Self {
        Self { fixtures: root.join("tests/fixtures"), tiny: root.join("data/tiny") }
    }

    /// A file or folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.fixtures.join(name)
    }

    /// A JSON file.
    pub fn json<T: DeserializeOwned>(&self, name: &str) -> Result<T, FixtureError> {
        let file = self.path(name);
        let bytes = read(&file)?;
        serde_json::from_slice(&bytes).map_err(|source| FixtureError::Json { file, source })
    }

    /// A safetensors file.
    pub fn tensors(&self, name: &str) -> Result<Tensors, FixtureError> {
        let file = self.path(name);
        Ok(Tensors { bytes: read(&file)?, file })
    }
}

fn read(file: &Path) -> Result<Vec<u8>, FixtureError> {
    std::fs::read(file).map_err(|source| FixtureError::Read { file: file.to_owned(), source })
}

/// Named tensors.
pub struct Tensors {
    file: PathBuf,
    bytes: Vec<u8>,
}

impl Tensors {
    fn view<T>(&self, name: &str, read: impl FnOnce(Dtype, &[usize], &[u8]) -> Option<T>) -> Result<T, FixtureError> {
        let broken = |source| FixtureError::Tensors { file: self.file.clone(), source };
        let file = SafeTensors::deserialize(&self.bytes).map_err(broken)?;
        let tensor = file.tensor(name).map_err(broken)?;
        let dtype = tensor.dtype();
        read(dtype, tensor.shape(), tensor.data()).ok_or_else(|| FixtureError::Type {
            file: self.file.clone(),
            name: name.to_owned(),
            dtype,
        })
    }

    /// Values stored in f32 or in bf16.
    pub fn floats(&self, name: &str) -> Result<Vec<f32>, FixtureError> {
        self.view(name, |dtype, _, bytes| match dtype {
            Dtype::F32 => {
                let words = bytes.chunks_exact(4);
                Some(words.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
            }
            Dtype::BF16 => {
                let halves = bytes.chunks_exact(2);
                Some(halves.map(|b| f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16)).collect())
            }
            _ => None,
        })
    }

    /// Rows of token ids, cut to where the mask is set. The names of both tensors begin with `side`.
    pub fn token_rows(&self, side: &str) -> Result<Vec<Vec<u32>>, FixtureError> {
        let read = |name: String| {
            self.view(&name, |dtype, shape, bytes| {
                let words = bytes.chunks_exact(8);
                let values = words.map(|b| i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]));
                (dtype == Dtype::I64 && shape.len() == 2).then(|| (shape[1], values.collect::<Vec<i64>>()))
            })
        };
        let (width, ids) = read(format!("{side}input_ids"))?;
        let (_, mask) = read(format!("{side}attention_mask"))?;
        let kept = |(ids, mask): (&[i64], &[i64])| {
            let kept = ids.iter().zip(mask).filter(|(_, mask)| **mask == 1);
            kept.map(|(id, _)| *id as u32).collect()
        };
        Ok(ids.chunks_exact(width).zip(mask.chunks_exact(width)).map(kept).collect())
    }
}

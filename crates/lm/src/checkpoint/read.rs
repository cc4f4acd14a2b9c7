//! Tensors out of one safetensors file or of shards with an index.
//!
//! Owns the table of what lies where, that an index names what is there, and the conversion to run-time types. Knows
//! nothing of models. Tensors are read one at a time, by position, so
//! that memory holds the model and one tensor's buffer pieces.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::tensor::Dtype as FileDtype;

use super::header::{read_header, read_index};
use crate::config::Dtype;

/// Elements that one read fetches and converts.
const PIECE: usize = 1 << 18;

pub(super) const SINGLE: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// The tensors of a model folder.
#[derive(Debug)]
pub struct Weights {
    shards: Vec<Shard>,
    tensors: BTreeMap<String, StoredTensor>,
}

/// Where a tensor lies and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTensor {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    shard: usize,
    /// Bytes from the start of the file.
    offset: u64,
}

#[derive(Debug)]
struct Shard {
    file: PathBuf,
    handle: File,
}

/// Why weights cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    #[error("read {}", file.display())]
    Read { file: PathBuf, source: io::Error },
    #[error("{}: holds neither {SINGLE} nor {INDEX}", folder.display())]
    NoWeights { folder: PathBuf },
    #[error("{}: {message}", file.display())]
    Header { file: PathBuf, message: String },
    #[error("{}: {message}", file.display())]
    Index { file: PathBuf, message: String },
    #[error("{}: tensor `{name}` is stored as {found}; F32, F16 or BF16 is needed", file.display())]
    Dtype { file: PathBuf, name: String, found: String },
    #[error("{}: tensor `{name}` is missing; shape {shape:?} is needed", file.display())]
    Missing { file: PathBuf, name: String, shape: Vec<usize> },
    #[error("{}: tensor `{name}` has shape {found:?}; {wanted:?} is needed", file.display())]
    Shape { file: PathBuf, name: String, found: Vec<usize>, wanted: Vec<usize> },
    #[error("{}: tensor `{name}` is {value} at element {element}; finite weights are needed", file.display())]
    NotFinite { file: PathBuf, name: String, value: f32, element: usize },
    #[error("{}: read tensor `{name}`", file.display())]
    Tensor { file: PathBuf, name: String, source: io::Error },
    #[error("{}: {} that the model does not have: {}", file.display(), counted(names.len()), named(names))]
    Extra { file: PathBuf, names: Vec<String> },
}

fn counted(n: usize) -> String {
    if n == 1 { "holds 1 tensor".into() } else { format!("holds {n} tensors") }
}

fn named(names: &[String]) -> String {
    let shown = names.iter().take(4).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > 4 { format!("{shown}, ..") } else { shown }
}

/// A type that weights can be loaded as.
pub trait Element: Copy + Default + Send {
    fn from_f32(x: f32) -> Self;
}

impl Element for f32 {
    fn from_f32(x: f32) -> Self {
        x
    }
}

impl Element for bf16 {
    fn from_f32(x: f32) -> Self {
        bf16::from_f32(x)
    }
}

impl Weights {
    /// Opens the files of a folder and checks their headers against their sizes.
    pub fn open(folder: &Path) -> Result<Self, WeightsError> {
        let index = folder.join(INDEX);
        let mut weights = Self::none();
        if folder.join(SINGLE).exists() {
            weights.add_shard(folder.join(SINGLE))?;
        } else if index.exists() {
            weights.add_indexed(folder, &index)?;
        } else {
            return Err(WeightsError::NoWeights { folder: folder.to_owned() });
        }
        Ok(weights)
    }

    pub(super) fn none() -> Self {
        Self { shards: Vec::new(), tensors: BTreeMap::new() }
    }

    /// Names, ascending.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Names and descriptions, ascending by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &StoredTensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Bytes of all tensors as they are stored.
    pub fn n_bytes(&self) -> u64 {
        self.tensors.values().map(|tensor| (tensor.n_elements() * tensor.dtype.bytes()) as u64).sum()
    }

    /// Number of scalars over all tensors.
    pub fn n_elements(&self) -> u64 {
        self.tensors.values().map(|tensor| tensor.n_elements() as u64).sum()
    }

    /// The elements of a tensor, row-major; its shape must be `shape`, and all of them finite.
    pub fn tensor<T: Element>(&self, name: &str, shape: &[usize]) -> Result<Vec<T>, WeightsError> {
        let tensor = self.find(name, shape)?;
        // The header check has shown that this many elements lie in the file.
        let mut elements = vec![T::default(); tensor.n_elements()];
        let pieces = elements.par_chunks_mut(PIECE).enumerate();
        pieces.try_for_each(|(i, piece)| self.decode_piece(name, tensor, i * PIECE, piece))?;
        Ok(elements)
    }

    /// Looks whether [`Weights::tensor`] would succeed, and keeps nothing.
    pub fn check(&self, name: &str, shape: &[usize]) -> Result<(), WeightsError> {
        let tensor = self.find(name, shape)?;
        let n_elements = tensor.n_elements();
        (0..n_elements.div_ceil(PIECE)).into_par_iter().try_for_each(|i| {
            let mut piece = vec![0.0f32; (n_elements - i * PIECE).min(PIECE)];
            self.decode_piece(name, tensor, i * PIECE, &mut piece)
        })
    }

    /// Looks whether there is a tensor of a name and a shape; reads nothing.
    pub fn expect(&self, name: &str, shape: &[usize]) -> Result<(), WeightsError> {
        self.find(name, shape).map(drop)
    }

    /// The tensor of a name and a shape.
    fn find(&self, name: &str, shape: &[usize]) -> Result<&StoredTensor, WeightsError> {
        let Some(tensor) = self.tensors.get(name) else {
            let (file, name, shape) = (self.any_file(), name.to_owned(), shape.to_vec());
            return Err(WeightsError::Missing { file, name, shape });
        };
        if tensor.shape != shape {
            let (file, name) = (self.file_of(tensor), name.to_owned());
            let (found, wanted) = (tensor.shape.clone(), shape.to_vec());
            return Err(WeightsError::Shape { file, name, found, wanted });
        }
        Ok(tensor)
    }

    /// Reads the elements from `first` on into `piece`; all of them must be finite.
    fn decode_piece<T: Element>(
        &self,
        name: &str,
        tensor: &StoredTensor,
        first: usize,
        piece: &mut [T],
    ) -> Result<(), WeightsError> {
        let mut bytes = vec![0; piece.len() * tensor.dtype.bytes()];
        self.fill(name, tensor, first, &mut bytes)?;
        decode(tensor.dtype, &bytes, piece).map_or(Ok(()), |(at, value)| {
            let (file, name, element) = (self.file_of(tensor), name.to_owned(), first + at);
            Err(WeightsError::NotFinite { file, name, value, element })
        })
    }

    pub(super) fn expect_no_extra<S: AsRef<str>>(
        &self,
        used: &[S],
        harmless: impl Fn(&str) -> bool,
    ) -> Result<(), WeightsError> {
        let used: std::collections::HashSet<&str> = used.iter().map(AsRef::as_ref).collect();
        let extra = |name: &&str| !used.contains(name) && !harmless(name);
        let names: Vec<String> = self.names().filter(extra).map(str::to_owned).collect();
        match names.first() {
            None => Ok(()),
            Some(first) => Err(WeightsError::Extra { file: self.file_of(&self.tensors[first]), names }),
        }
    }

    /// Feeds the stored bytes of a tensor to `sink`, in order.
    pub(super) fn stream(&self, name: &str, sink: &mut dyn FnMut(&[u8])) -> Result<(), WeightsError> {
        let tensor = &self.tensors[name];
        let mut bytes = Vec::new();
        for first in (0..tensor.n_elements()).step_by(PIECE) {
            bytes.resize((tensor.n_elements() - first).min(PIECE) * tensor.dtype.bytes(), 0);
            self.fill(name, tensor, first, &mut bytes)?;
            sink(&bytes);
        }
        Ok(())
    }

    /// The error for an element that is not finite.
    pub(super) fn not_finite(&self, name: &str, element: usize, value: f32) -> WeightsError {
        WeightsError::NotFinite { file: self.file_of(&self.tensors[name]), name: name.to_owned(), value, element }
    }

    fn fill(&self, name: &str, tensor: &StoredTensor, first: usize, bytes: &mut [u8]) -> Result<(), WeightsError> {
        let shard = &self.shards[tensor.shard];
        let offset = tensor.offset + (first * tensor.dtype.bytes()) as u64;
        shard.handle.read_exact_at(bytes, offset).map_err(|source| WeightsError::Tensor {
            file: shard.file.clone(),
            name: name.to_owned(),
            source,
        })
    }

    fn file_of(&self, tensor: &StoredTensor) -> PathBuf {
        self.shards[tensor.shard].file.clone()
    }

    fn any_file(&self) -> PathBuf {
        self.shards.first().map(|shard| shard.file.clone()).unwrap_or_default()
    }

    fn add_indexed(&mut self, folder: &Path, index: &Path) -> Result<(), WeightsError> {
        let wrong = |message| WeightsError::Index { file: index.to_owned(), message };
        let mut by_shard: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, shard) in read_index(index)? {
            by_shard.entry(shard).or_default().push(name);
        }
        for (shard, names) in &by_shard {
            let file = folder.join(shard);
            // A shard is a file beside its index; anything else could reach outside the folder.
            if Path::new(shard).file_name() != Some(shard.as_ref()) {
                return Err(wrong(format!("names the shard `{shard}`; a plain file name is needed")));
            }
            if !file.is_file() {
                return Err(wrong(format!("names the shard `{shard}`, which is missing")));
            }
            self.add_shard(file)?;
            let here = self.shards.len() - 1;
            if let Some(name) = names.iter().find(|name| self.tensors.get(*name).is_none_or(|t| t.shard != here)) {
                return Err(wrong(format!("says that `{shard}` holds tensor `{name}`, which it does not")));
            }
            let n_here = self.tensors.values().filter(|tensor| tensor.shard == here).count();
            if n_here != names.len() {
                return Err(wrong(format!("lists {} tensors for `{shard}`, which holds {n_here}", names.len())));
            }
        }
        Ok(())
    }

    fn add_shard(&mut self, file: PathBuf) -> Result<(), WeightsError> {
        let read = |source| WeightsError::Read { file: file.clone(), source };
        let handle = File::open(&file).map_err(read)?;
        let n_file_bytes = handle.metadata().map_err(read)?.len();
        let (metadata, data_start) = read_header(&handle, &file, n_file_bytes)?;
        let shard = self.shards.len();
        for (name, info) in metadata.tensors() {
            let dtype = match info.dtype {
                FileDtype::F32 => Dtype::F32,
                FileDtype::F16 => Dtype::F16,
                FileDtype::BF16 => Dtype::Bf16,
                other => {
                    return Err(WeightsError::Dtype { file, name, found: format!("{other:?}") });
                }
            };
            let offset = data_start + info.data_offsets.0 as u64;
            let tensor = StoredTensor { dtype, shape: info.shape.clone(), shard, offset };
            if self.tensors.insert(name.clone(), tensor).is_some() {
                let message = format!("holds tensor `{name}`, which another shard holds too");
                return Err(WeightsError::Header { file, message });
            }
        }
        self.shards.push(Shard { file, handle });
        Ok(())
    }
}

impl StoredTensor {
    pub fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// The first element that is not finite, and its value; all the bits of its exponent are set.
pub(super) fn first_not_finite(dtype: Dtype, bytes: &[u8]) -> Option<(usize, f32)> {
    fn first<const N: usize>(
        bytes: &[u8],
        is_finite: impl Fn([u8; N]) -> bool,
        widen: impl Fn([u8; N]) -> f32,
    ) -> Option<(usize, f32)> {
        let (elements, _) = bytes.as_chunks::<N>();
        // Without a way out of the loop it runs on vectors.
        if elements.iter().fold(true, |all, element| all & is_finite(*element)) {
            return None;
        }
        let found = elements.iter().position(|element| !is_finite(*element))?;
        Some((found, widen(elements[found])))
    }
    match dtype {
        Dtype::F32 => first(bytes, |b| f32::from_le_bytes(b).is_finite(), f32::from_le_bytes),
        Dtype::F16 => first(bytes, |b| u16::from_le_bytes(b) & 0x7c00 != 0x7c00, |b| f16::from_le_bytes(b).to_f32()),
        Dtype::Bf16 => first(bytes, |b| u16::from_le_bytes(b) & 0x7f80 != 0x7f80, |b| bf16::from_le_bytes(b).to_f32()),
    }
}

/// Converts little-endian elements and tells the first that is not finite.
fn decode<T: Element>(dtype: Dtype, bytes: &[u8], into: &mut [T]) -> Option<(usize, f32)> {
    match dtype {
        Dtype::F32 => convert(bytes, into, f32::from_le_bytes),
        Dtype::F16 => convert(bytes, into, |b| f16::from_le_bytes(b).to_f32()),
        Dtype::Bf16 => convert(bytes, into, |b| bf16::from_le_bytes(b).to_f32()),
    }
}

fn convert<const N: usize, T: Element>(
    bytes: &[u8],
    into: &mut [T],
    widen: impl Fn([u8; N]) -> f32,
) -> Option<(usize, f32)> {
    let (elements, _) = bytes.as_chunks::<N>();
    let mut finite = true;
    for (slot, element) in into.iter_mut().zip(elements) {
        let x = widen(*element);
        finite &= x.is_finite();
        *slot = T::from_f32(x);
    }
    if finite {
        return None;
    }
    elements.iter().map(|element| widen(*element)).enumerate().find(|(_, x)| !x.is_finite())
}

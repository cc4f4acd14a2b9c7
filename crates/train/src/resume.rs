//! A trainer between two steps, as one stream of bytes and back.
//!
//! Owns the form of the stream. A trainer that is read takes the same further steps as one that was never stopped: the
//! order of rows, the learning rate and all else that looks like chance are functions of the step, so weights, moments,
//! the step and the figures of the steps so far are all there is to keep. Knows nothing of where the bytes lie, who
//! checks them, and when they are written.
//!
//! The stream is a safetensors file. Tensors are called `weight/NAME`, `first/NAME` and `second/NAME` after the
//! published parameter names, and `rest/NAME` where a split weight has one; they have the type they have in memory and lie as they lie there, linear maps `[in, out]`,
//! so they are no checkpoint for other programs. `steps` is a table of figures, a row for each finished step. One tensor
//! at a time is in memory on the way.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Seek, SeekFrom, Write};

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use sluice_lm::params::{ParamMut, Parameters};
use thiserror::Error;

use crate::metrics::{PairMetrics, StepMetrics};
use crate::optimizer::{Keeping, Master, Moments, State};
use crate::trainer::Trainer;

/// Names the form of the stream; changes when what is written could be misread by an older reader.
pub const FORM: &str = "trainer v1";

/// The limit of the format's own library; a header is read into memory whole.
const LARGEST_HEADER_BYTES: u64 = 100_000_000;
const STEPS: &str = "steps";
const N_OPTIMIZER_STEPS: &str = "n_optimizer_steps";
/// The parts of a weight.
const WEIGHT: &str = "weight";
const REST: &str = "rest";

/// Why a stream is not the trainer that is needed.
#[derive(Debug, Error)]
pub enum ResumeError {
    #[error("read the saved trainer")]
    Read(#[from] io::Error),
    #[error("the saved trainer does not hold together: {message}")]
    Form { message: String },
    #[error("tensor {name} of the saved trainer is {found}, the model needs {expected}")]
    Tensor { name: String, found: String, expected: String },
    #[error("tensor {name} of the saved trainer belongs to no parameter of the model")]
    Unknown { name: String },
}

/// Writes a trainer and the figures of its steps so far.
///
/// # Errors
/// Those of `sink`; `Unsupported` for a model whose weights are of a type the format has no name for.
pub fn write<M: Parameters + Clone>(
    trainer: &Trainer<M>,
    steps: &[StepMetrics],
    sink: &mut dyn Write,
) -> io::Result<()> {
    let tensors = kept_tensors(trainer);
    let figures: Vec<u8> = steps.iter().flat_map(figures).flat_map(f64::to_le_bytes).collect();
    let mut header = Header::default();
    header.add(STEPS, Dtype::F64, vec![steps.len(), N_FIGURES]);
    for Kept { name, shape, values } in &tensors {
        header.add(name, stored_dtype(values.dtype())?, shape.clone());
    }
    sink.write_all(&header.finish(trainer.optimizer.n_steps())?)?;
    sink.write_all(&figures)?;
    for Kept { values, .. } in tensors {
        sink.write_all(values.into_data().as_bytes())?;
    }
    Ok(())
}

/// Reads what [`write`] wrote. `fresh` is the trainer before its first step; its weights are replaced.
pub fn read<M: Parameters>(
    source: &mut (impl Read + Seek),
    fresh: Trainer<M>,
    device: &Device,
) -> Result<(Trainer<M>, Vec<StepMetrics>), ResumeError> {
    let Trainer { mut model, optimizer, n_done: _ } = fresh;
    let mut reader = Reader::open(source, device)?;
    let steps = reader.steps()?;
    let mut state = State { n_steps: reader.n_optimizer_steps, ..State::default() };
    let keeping = optimizer.keeping();
    let mut fault = None;
    model.walk(&mut |name, param| {
        if fault.is_none() {
            fault = reader.restore(name, param, keeping, &mut state).err();
        }
    });
    if let Some(fault) = fault {
        return Err(fault);
    }
    if let Some(name) = reader.left.into_keys().next() {
        return Err(ResumeError::Unknown { name });
    }
    Ok((Trainer { model, optimizer: optimizer.restored(state), n_done: steps.len() }, steps))
}

/// Bytes that [`write`] would write, within a header.
pub fn n_bytes<M: Parameters + Clone>(trainer: &Trainer<M>) -> u64 {
    let n_values = |kept: &Kept| kept.shape.iter().product::<usize>() as u64;
    let tensors = kept_tensors(trainer);
    let now: u64 = tensors.iter().map(|kept| n_values(kept) * kept.values.dtype().size() as u64).sum();
    if !trainer.optimizer.moments().is_empty() {
        return now;
    }
    // Moments come into being with the first step: two for each weight.
    let both = 2 * trainer.optimizer.keeping().moments.bytes() as u64;
    let of_moments = |kept: &Kept| if kept.name.starts_with(WEIGHT) { n_values(kept) * both } else { 0 };
    now + tensors.iter().map(of_moments).sum::<u64>()
}

/// A tensor on its way out; its bytes are read from the device when they are written.
struct Kept {
    name: String,
    shape: Vec<usize>,
    values: Values,
}

/// The values of a tensor, flat.
enum Values {
    Floats(Tensor<1>),
    Ints(Tensor<1, Int>),
}

impl Values {
    fn dtype(&self) -> DType {
        match self {
            Self::Floats(values_n) => values_n.dtype(),
            Self::Ints(values_n) => values_n.dtype(),
        }
    }

    fn into_data(self) -> TensorData {
        match self {
            Self::Floats(values_n) => values_n.into_data(),
            Self::Ints(values_n) => values_n.into_data(),
        }
    }
}

fn kept_tensors<M: Parameters + Clone>(trainer: &Trainer<M>) -> Vec<Kept> {
    let mut model = trainer.model.clone();
    let mut kept = Vec::new();
    model.walk(&mut |name, param| {
        let (values_n, shape) = match param {
            ParamMut::Vector(weight) => (weight.clone(), weight.dims().to_vec()),
            ParamMut::Matrix(weight) | ParamMut::Linear(weight) => {
                (weight.clone().reshape([-1]), weight.dims().to_vec())
            }
        };
        let mut keep = |part: &str, values: Values| {
            kept.push(Kept { name: format!("{part}/{name}"), shape: shape.clone(), values });
        };
        keep(WEIGHT, Values::Floats(values_n));
        if let Some(rest_n) = trainer.optimizer.rests().get(name) {
            keep(REST, Values::Ints(rest_n.clone()));
        }
        if let Some(Moments { first_n, second_n }) = trainer.optimizer.moments().get(name) {
            keep("first", Values::Floats(first_n.clone()));
            keep("second", Values::Floats(second_n.clone()));
        }
    });
    kept
}

/// The header of a safetensors file, tensor by tensor in the order of their bytes.
#[derive(Default)]
struct Header {
    tensors: Vec<(String, TensorInfo)>,
    n_bytes: usize,
}

impl Header {
    fn add(&mut self, name: &str, dtype: Dtype, shape: Vec<usize>) {
        let start = self.n_bytes;
        self.n_bytes += shape.iter().product::<usize>() * dtype.bitsize() / 8;
        self.tensors.push((name.to_owned(), TensorInfo { dtype, shape, data_offsets: (start, self.n_bytes) }));
    }

    fn finish(self, n_optimizer_steps: u64) -> io::Result<Vec<u8>> {
        let about = HashMap::from([(N_OPTIMIZER_STEPS.to_owned(), n_optimizer_steps.to_string())]);
        let metadata = Metadata::new(Some(about), self.tensors).map_err(io::Error::other)?;
        let mut json = serde_json::to_vec(&metadata)?;
        json.resize(json.len().next_multiple_of(8), b' ');
        Ok([&(json.len() as u64).to_le_bytes(), json.as_slice()].concat())
    }
}

/// The tensors of a stream that were not taken yet.
struct Reader<'a, R> {
    source: &'a mut R,
    device: &'a Device,
    /// Where the bytes of the first tensor are.
    data_start: u64,
    left: BTreeMap<String, TensorInfo>,
    n_optimizer_steps: u64,
}

impl<'a, R: Read + Seek> Reader<'a, R> {
    fn open(source: &'a mut R, device: &'a Device) -> Result<Self, ResumeError> {
        let wrong = |message: String| ResumeError::Form { message };
        let n_stream = source.seek(SeekFrom::End(0))?;
        source.seek(SeekFrom::Start(0))?;
        let mut length = [0; 8];
        source.read_exact(&mut length)?;
        let n_header = u64::from_le_bytes(length);
        if n_header > LARGEST_HEADER_BYTES.min(n_stream.saturating_sub(8)) {
            return Err(wrong(format!("its header would have {n_header} of {n_stream} bytes")));
        }
        let mut header = vec![0; n_header as usize];
        source.read_exact(&mut header)?;
        let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| wrong(error.to_string()))?;
        let data_start = 8 + n_header;
        // No tensor is then larger than the stream.
        if n_stream - data_start != metadata.data_len() as u64 {
            let described = metadata.data_len();
            return Err(wrong(format!("it describes {described} bytes of tensors, and has {}", n_stream - data_start)));
        }
        let about = metadata.metadata().as_ref().and_then(|about| about.get(N_OPTIMIZER_STEPS)?.parse().ok());
        let n_optimizer_steps = about.ok_or_else(|| wrong(format!("it does not say `{N_OPTIMIZER_STEPS}`")))?;
        let left = metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        Ok(Self { source, device, data_start, left, n_optimizer_steps })
    }

    fn restore(
        &mut self,
        name: &str,
        param: ParamMut<'_>,
        keeping: Keeping,
        state: &mut State,
    ) -> Result<(), ResumeError> {
        let shape = match param {
            ParamMut::Vector(weight) => {
                let shape = weight.dims();
                *weight = self.tensor(&format!("weight/{name}"), &shape, weight.dtype())?;
                shape.to_vec()
            }
            ParamMut::Matrix(weight) | ParamMut::Linear(weight) => {
                let shape = weight.dims();
                *weight = self.tensor(&format!("weight/{name}"), &shape, weight.dtype())?.reshape(shape);
                shape.to_vec()
            }
        };
        if self.left.contains_key(&format!("first/{name}")) {
            let first_n = self.tensor(&format!("first/{name}"), &shape, keeping.moments.dtype())?;
            let second_n = self.tensor(&format!("second/{name}"), &shape, keeping.moments.dtype())?;
            state.moments.insert(name.to_owned(), Moments { first_n, second_n });
        }
        if keeping.master == Master::Split {
            let bytes = self.bytes(&format!("{REST}/{name}"), Dtype::I16, &shape)?;
            let data = TensorData::from_bytes_vec(bytes, [shape.iter().product::<usize>()], DType::I16);
            state.rests.insert(name.to_owned(), Tensor::from_data(data, (self.device, DType::I16)));
        }
        Ok(())
    }

    /// The values of a tensor, flat.
    fn tensor(&mut self, name: &str, shape: &[usize], dtype: DType) -> Result<Tensor<1>, ResumeError> {
        let bytes = self.bytes(name, stored_dtype(dtype)?, shape)?;
        let n_values = shape.iter().product::<usize>();
        let data = TensorData::from_bytes_vec(bytes, [n_values], dtype);
        Ok(Tensor::from_data(data, (self.device, dtype)))
    }

    /// The figures of the steps.
    fn steps(&mut self) -> Result<Vec<StepMetrics>, ResumeError> {
        let n_steps = self.left.get(STEPS).and_then(|info| info.shape.first().copied()).unwrap_or(0);
        let bytes = self.bytes(STEPS, Dtype::F64, &[n_steps, N_FIGURES])?;
        let (values, _) = bytes.as_chunks::<8>();
        let figures: Vec<f64> = values.iter().map(|value| f64::from_le_bytes(*value)).collect();
        let (rows, _) = figures.as_chunks::<N_FIGURES>();
        Ok(rows.iter().map(step).collect())
    }

    fn bytes(&mut self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<Vec<u8>, ResumeError> {
        let fault = |found: String| {
            let expected = format!("{dtype} {shape:?}");
            ResumeError::Tensor { name: name.to_owned(), found, expected }
        };
        let info = self.left.remove(name).ok_or_else(|| fault("absent".to_owned()))?;
        if info.dtype != dtype || info.shape != shape {
            return Err(fault(format!("{} {:?}", info.dtype, info.shape)));
        }
        let (start, end) = info.data_offsets;
        self.source.seek(SeekFrom::Start(self.data_start + start as u64))?;
        let mut bytes = vec![0; end - start];
        self.source.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

fn stored_dtype(dtype: DType) -> io::Result<Dtype> {
    match dtype {
        DType::F32 => Ok(Dtype::F32),
        DType::F16 => Ok(Dtype::F16),
        DType::BF16 => Ok(Dtype::BF16),
        DType::I16 => Ok(Dtype::I16),
        other => Err(io::Error::new(io::ErrorKind::Unsupported, format!("weights of type {}", other.name()))),
    }
}

/// Columns of `steps`, in the order of [`figures`].
const N_FIGURES: usize = 12;
/// Which of a step's optional figures it has; they are added.
const HAS_PAIRS: u8 = 1;
const HAS_CHOSEN: u8 = 2;
const HAS_REJECTED: u8 = 4;

/// A step as a row of numbers; whole ones are exact.
fn figures(step: &StepMetrics) -> [f64; N_FIGURES] {
    let StepMetrics { step, epoch, loss, pairs, grad_norm, learning_rate, n_tokens, seconds } = *step;
    let mut has = 0;
    let (mut margin, mut accuracy, mut chosen, mut rejected) = (0.0, 0.0, 0.0, 0.0);
    if let Some(PairMetrics { margin: of_margin, accuracy: of_accuracy, chosen_logp, rejected_logp }) = pairs {
        has |= HAS_PAIRS;
        (margin, accuracy) = (of_margin, of_accuracy);
        if let Some(logp) = chosen_logp {
            has |= HAS_CHOSEN;
            chosen = logp;
        }
        if let Some(logp) = rejected_logp {
            has |= HAS_REJECTED;
            rejected = logp;
        }
    }
    let (step, n_tokens) = (step as f64, n_tokens as f64);
    let has = f64::from(has);
    [step, epoch, loss, grad_norm, learning_rate, n_tokens, seconds, has, margin, accuracy, chosen, rejected]
}

fn step(figures: &[f64; N_FIGURES]) -> StepMetrics {
    let [step, epoch, loss, grad_norm, learning_rate, n_tokens, seconds, has, margin, accuracy, chosen, rejected] =
        *figures;
    let has = has as u8;
    let pairs = (has & HAS_PAIRS != 0).then(|| PairMetrics {
        margin,
        accuracy,
        chosen_logp: (has & HAS_CHOSEN != 0).then_some(chosen),
        rejected_logp: (has & HAS_REJECTED != 0).then_some(rejected),
    });
    let (step, n_tokens) = (step as usize, n_tokens as usize);
    StepMetrics { step, epoch, loss, pairs, grad_norm, learning_rate, n_tokens, seconds }
}

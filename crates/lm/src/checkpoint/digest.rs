//! The identity of a model's outputs.

use std::fmt;

use rayon::prelude::*;

use super::read::first_not_finite;
use super::{Checkpoint, WeightsError};

/// BLAKE3 over the sorted (tensor name, dtype, shape, data digest), the configuration fields that change the outputs,
/// the tokenizer and the chat template. File names, shards, the order of tensors and how `config.json` is spelled do not
/// enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelDigest(pub [u8; 32]);

/// Changes when the encoding below does, so that old digests match nothing new.
const CONTEXT: &str = "sluice model digest v1";

impl ModelDigest {
    /// With `finite`, weights that are not finite are an error: all of them are read here anyhow.
    pub(super) fn of(checkpoint: &Checkpoint, finite: bool) -> Result<Self, WeightsError> {
        let mut encoding = Encoding(blake3::Hasher::new_derive_key(CONTEXT));
        let weights = &checkpoint.weights;
        let tensors: Vec<_> = weights.tensors().collect();
        let digests: Vec<_> = tensors
            .par_iter()
            .map(|(name, tensor)| {
                let mut hasher = blake3::Hasher::new();
                let (mut n_read, mut not_finite) = (0, None);
                weights.stream(name, &mut |bytes| {
                    hasher.update(bytes);
                    if finite && not_finite.is_none() {
                        not_finite = first_not_finite(tensor.dtype, bytes).map(|(at, value)| (n_read + at, value));
                    }
                    n_read += bytes.len() / tensor.dtype.bytes();
                })?;
                match not_finite {
                    None => Ok(hasher.finalize()),
                    Some((element, value)) => Err(weights.not_finite(name, element, value)),
                }
            })
            .collect::<Result<_, WeightsError>>()?;
        encoding.count(tensors.len());
        for ((name, tensor), data) in tensors.iter().zip(&digests) {
            encoding.bytes(name.as_bytes());
            encoding.bytes(tensor.dtype.torch_name().as_bytes());
            encoding.count(tensor.shape.len());
            tensor.shape.iter().for_each(|size| encoding.count(*size));
            encoding.bytes(data.as_bytes());
        }
        let lines = checkpoint.config.digest_lines();
        encoding.count(lines.len());
        lines.iter().for_each(|line| encoding.bytes(line.as_bytes()));
        encoding.bytes(checkpoint.tokenizer.digest().as_bytes());
        encoding.bytes(checkpoint.template.as_ref().map_or("", |template| template.source()).as_bytes());
        Ok(Self(*encoding.0.finalize().as_bytes()))
    }
}

impl fmt::Display for ModelDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Parts with their lengths before them, so that no two lists of parts have the same bytes.
struct Encoding(blake3::Hasher);

impl Encoding {
    fn count(&mut self, n: usize) {
        self.0.update(&(n as u64).to_le_bytes());
    }

    fn bytes(&mut self, part: &[u8]) {
        self.count(part.len());
        self.0.update(part);
    }
}

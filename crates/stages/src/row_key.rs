//! The identity of one response, and the seed it is drawn from.
//!
//! Owns the two encodings. Both depend on the prompt and the sample alone among the rows of a table, so that neither the
//! order of prompts nor their number changes a response.

use std::fmt;

use blake3::Hasher;
use sluice_spec::stage::sample::{self, Decoding};
use sluice_spec::{LeafSink, LeafValue, Span};
use sluice_store::ModelDigest;

/// BLAKE3 over what decides a response: version of the kind, decoding parameters, policy, prompt text, sample index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RowKey([u8; 32]);

/// Makes the keys of all rows of a stage.
pub struct RowKeys {
    /// Has read all that the rows share.
    shared: Hasher,
}

/// Changes when the encoding below does, so that old keys match nothing new.
const KEY_CONTEXT: &str = "sluice response row key v1";
const SEED_CONTEXT: &str = "sluice response row seed v1";

impl RowKeys {
    pub fn new(decoding: &Decoding, policy: ModelDigest) -> Self {
        let mut encoding = Encoding(Hasher::new_derive_key(KEY_CONTEXT));
        encoding.0.update(&sample::VERSION.to_le_bytes());
        decoding.leaves(&mut encoding);
        encoding.0.update(policy.as_bytes());
        Self { shared: encoding.0 }
    }

    pub fn row_key(&self, prompt: &str, sample_index: u32) -> RowKey {
        let mut encoding = Encoding(self.shared.clone());
        encoding.text(prompt);
        encoding.0.update(&sample_index.to_le_bytes());
        RowKey(*encoding.0.finalize().as_bytes())
    }
}

impl RowKey {
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

/// The seed of a row's random stream: the first 8 bytes, little endian, of BLAKE3 over seed, prompt id and sample index.
pub fn row_seed(seed: u64, prompt_id: &str, sample_index: u32) -> u64 {
    let mut encoding = Encoding(Hasher::new_derive_key(SEED_CONTEXT));
    encoding.0.update(&seed.to_le_bytes());
    encoding.text(prompt_id);
    encoding.0.update(&sample_index.to_le_bytes());
    let mut head = [0; 8];
    head.copy_from_slice(&encoding.0.finalize().as_bytes()[..8]);
    u64::from_le_bytes(head)
}

/// Parts with their kind and length before them, so that no two rows have the same bytes.
struct Encoding(Hasher);

impl Encoding {
    fn text(&mut self, text: &str) {
        self.0.update(&(text.len() as u64).to_le_bytes());
        self.0.update(text.as_bytes());
    }

    fn value(&mut self, value: &LeafValue) {
        match value {
            LeafValue::Null => drop(self.0.update(b"n")),
            LeafValue::Bool(value) => drop(self.0.update(b"b").update(&[u8::from(*value)])),
            LeafValue::Int(value) => drop(self.0.update(b"i").update(&value.to_le_bytes())),
            LeafValue::Float(value) => drop(self.0.update(b"f").update(&value.to_bits().to_le_bytes())),
            LeafValue::Str(text) => {
                self.0.update(b"s");
                self.text(text);
            }
            LeafValue::List(values) => {
                self.0.update(b"l").update(&(values.len() as u64).to_le_bytes());
                values.iter().for_each(|value| self.value(value));
            }
        }
    }
}

impl LeafSink for Encoding {
    fn leaf(&mut self, path: &str, value: LeafValue, _place: Option<Span>) {
        self.text(path);
        self.value(&value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_differ_by_each_part() {
        let seeds = [row_seed(0, "a", 0), row_seed(1, "a", 0), row_seed(0, "b", 0), row_seed(0, "a", 1)];
        let mut distinct = seeds.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), seeds.len());
    }
}

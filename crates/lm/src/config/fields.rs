//! Takes the fields of a JSON object one by one and remembers every fault, so that a file is judged in one go.
//!
//! Owns defaults, ranges and the words of the messages; knows nothing of models. A fault leaves a harmless value
//! behind; [`Fields::finish`] turns the faults into one error before anybody sees it.

use std::fmt;
use std::path::Path;

use serde_json::{Map, Value};

use super::{ConfigError, Dtype};

/// No size in a configuration may exceed this; it keeps arithmetic on sizes from overflowing.
const LARGEST_COUNT: usize = 1 << 28;
/// The deepest published model has 126 layers; a list is made with this many entries.
const MOST_LAYERS: usize = 4096;

/// One thing that is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub field: String,
    /// Continues a sentence that begins with the field's name.
    pub message: String,
}

/// Something a user should hear about a file that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    pub field: String,
    /// Continues a sentence that begins with the field's name.
    pub message: String,
}

pub(super) struct Fields {
    map: Map<String, Value>,
    faults: Vec<Fault>,
    warnings: Vec<Warning>,
}

impl Fault {
    pub(super) fn new(field: &str, message: String) -> Self {
        Self { field: field.to_owned(), message }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.field, self.message)
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.field, self.message)
    }
}

impl Fields {
    pub(super) fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let map = serde_json::from_str(text).map_err(|source| ConfigError::Json { file: file.to_owned(), source })?;
        Ok(Self { map, faults: Vec::new(), warnings: Vec::new() })
    }

    /// The faults as one error, or the warnings, among them one for each field nobody took and `inert` does not list.
    pub(super) fn finish(mut self, file: &Path, inert: &[&str]) -> Result<Vec<Warning>, ConfigError> {
        if !self.faults.is_empty() {
            return Err(ConfigError::Faults { file: file.to_owned(), faults: self.faults });
        }
        for (field, value) in &self.map {
            if !inert.contains(&field.as_str()) && !value.is_null() {
                let message = "is not known; it is taken to change nothing".to_owned();
                self.warnings.push(Warning { field: field.clone(), message });
            }
        }
        Ok(self.warnings)
    }

    pub(super) fn fault(&mut self, field: &str, message: String) {
        self.faults.push(Fault::new(field, message));
    }

    pub(super) fn warn(&mut self, field: &str, message: String) {
        self.warnings.push(Warning { field: field.to_owned(), message });
    }

    /// Removes a field; null counts as absent.
    pub(super) fn take(&mut self, field: &str) -> Option<Value> {
        self.map.shift_remove(field).filter(|value| !value.is_null())
    }

    /// Whether the file spells the field, be it as null.
    pub(super) fn has(&self, field: &str) -> bool {
        self.map.contains_key(field)
    }

    pub(super) fn count(&mut self, field: &str) -> usize {
        match self.take(field) {
            Some(value) => self.as_count(field, &value, LARGEST_COUNT),
            None => {
                self.fault(field, "is missing; a positive whole number is needed".into());
                1
            }
        }
    }

    pub(super) fn count_or(&mut self, field: &str, default: usize) -> usize {
        match self.take(field) {
            Some(value) => self.as_count(field, &value, LARGEST_COUNT),
            None => default,
        }
    }

    pub(super) fn layers(&mut self) -> usize {
        let n_layers = self.count("num_hidden_layers");
        if n_layers > MOST_LAYERS {
            self.fault("num_hidden_layers", format!("is {n_layers}; at most {MOST_LAYERS} are read"));
            return 1;
        }
        n_layers
    }

    pub(super) fn number_or(&mut self, field: &str, default: f64) -> f64 {
        match self.take(field) {
            Some(value) => self.as_number(field, &value),
            None => default,
        }
    }

    /// Null switches the feature off; an absent field means `default`.
    pub(super) fn optional_number(&mut self, field: &str, default: f64) -> Option<f64> {
        if !self.has(field) {
            return Some(default);
        }
        let value = self.take(field)?;
        Some(self.as_number(field, &value))
    }

    pub(super) fn flag_or(&mut self, field: &str, default: bool) -> bool {
        match self.take(field) {
            None => default,
            Some(Value::Bool(flag)) => flag,
            Some(other) => {
                self.fault(field, format!("is {other}; true or false is needed"));
                default
            }
        }
    }

    /// Accepts an absent field or exactly `wanted` (numbers by value).
    pub(super) fn must_be(&mut self, field: &str, wanted: &Value) {
        let Some(found) = self.take(field) else {
            return;
        };
        let same = match (found.as_f64(), wanted.as_f64()) {
            (Some(found), Some(wanted)) => found == wanted,
            _ => found == *wanted,
        };
        if !same {
            self.fault(field, format!("is {found}; only {wanted} is computed"));
        }
    }

    pub(super) fn must_be_absent(&mut self, field: &str, instead: &str) {
        if self.take(field).is_some() {
            self.fault(field, format!("is set; {instead}"));
        }
    }

    pub(super) fn architecture(&mut self) -> Option<String> {
        match self.take("architectures") {
            Some(Value::Array(names)) if names.len() == 1 && names[0].is_string() => {
                names[0].as_str().map(str::to_owned)
            }
            Some(other) => {
                self.fault("architectures", format!("is {other}; a list of one class name is needed"));
                None
            }
            None => {
                self.fault("architectures", "is missing; a list of one class name is needed".into());
                None
            }
        }
    }

    pub(super) fn dtype(&mut self) -> Option<Dtype> {
        let old = self.take("torch_dtype");
        let (field, value) = match self.take("dtype") {
            Some(new) => ("dtype", new),
            None => ("torch_dtype", old?),
        };
        match value.as_str() {
            Some("float32") => Some(Dtype::F32),
            Some("float16") => Some(Dtype::F16),
            Some("bfloat16") => Some(Dtype::Bf16),
            _ => {
                self.fault(field, format!("is {value}; float32, float16 or bfloat16 is needed"));
                None
            }
        }
    }

    pub(super) fn token_id(&mut self, field: &str, vocab_size: usize) -> Option<u32> {
        let value = self.take(field)?;
        self.as_token_id(field, &value, vocab_size)
    }

    /// One id or a list of ids.
    pub(super) fn token_ids(&mut self, field: &str, vocab_size: usize) -> Vec<u32> {
        match self.take(field) {
            None => Vec::new(),
            Some(Value::Array(values)) => {
                values.iter().filter_map(|value| self.as_token_id(field, value, vocab_size)).collect()
            }
            Some(value) => self.as_token_id(field, &value, vocab_size).into_iter().collect(),
        }
    }

    /// The values of a map `"0": name, "1": name, ..`, in the order of its numbers.
    pub(super) fn labels(&mut self, field: &str) -> Vec<String> {
        let Some(value) = self.take(field) else {
            return Vec::new();
        };
        let names = value
            .as_object()
            .and_then(|map| (0..map.len()).map(|i| map.get(&i.to_string())?.as_str().map(str::to_owned)).collect());
        names.unwrap_or_else(|| {
            self.fault(field, "is not a map from \"0\", \"1\", .. to names".into());
            Vec::new()
        })
    }

    fn as_count(&mut self, field: &str, value: &Value, largest: usize) -> usize {
        match value.as_u64() {
            Some(n) if n >= 1 && n <= largest as u64 => n as usize,
            _ => {
                self.fault(field, format!("is {value}; a whole number from 1 to {largest} is needed"));
                1
            }
        }
    }

    pub(super) fn as_number(&mut self, field: &str, value: &Value) -> f64 {
        match value.as_f64() {
            Some(x) if x > 0.0 && x.is_finite() => x,
            _ => {
                self.fault(field, format!("is {value}; a number above 0 is needed"));
                1.0
            }
        }
    }

    fn as_token_id(&mut self, field: &str, value: &Value, vocab_size: usize) -> Option<u32> {
        match value.as_u64().and_then(|id| u32::try_from(id).ok()) {
            Some(id) if (id as usize) < vocab_size => Some(id),
            _ => {
                self.fault(field, format!("is {value}; an id below the vocabulary size {vocab_size} is needed"));
                None
            }
        }
    }
}

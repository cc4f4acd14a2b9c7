//! What `generation_config.json` says: the ids that end a generation. How to draw tokens is the caller's word, so the
//! sampling defaults in the file are read by nobody here.

use std::path::Path;

use super::ConfigError;
use super::fields::{Fields, Warning};

/// The ids of a `generation_config.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GenerationConfig {
    pub bos_token_id: Option<u32>,
    /// Any of these ends a generation; one id or a list in the file.
    pub eos_token_ids: Vec<u32>,
    pub pad_token_id: Option<u32>,
}

/// Records of how the file was written, and sampling settings that a caller always states itself.
const INERT: &[&str] = &[
    "_from_model_config",
    "cache_implementation",
    "do_sample",
    "max_length",
    "max_new_tokens",
    "min_p",
    "output_attentions",
    "output_hidden_states",
    "return_dict_in_generate",
    "temperature",
    "top_k",
    "top_p",
    "transformers_version",
    "use_cache",
];

impl GenerationConfig {
    /// Reads the text of a `generation_config.json`; `file` is only named in messages.
    pub fn parse(text: &str, file: &Path, vocab_size: usize) -> Result<(Self, Vec<Warning>), ConfigError> {
        let mut fields = Fields::parse(text, file)?;
        let config = Self {
            bos_token_id: fields.token_id("bos_token_id", vocab_size),
            eos_token_ids: fields.token_ids("eos_token_id", vocab_size),
            pad_token_id: fields.token_id("pad_token_id", vocab_size),
        };
        Ok((config, fields.finish(file, INERT)?))
    }
}

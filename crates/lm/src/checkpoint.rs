//! A model folder in Hugging Face layout: its configuration, tokenizer, chat template, generation ids and weights.
//!
//! Owns what files a folder has and that they fit one another. Knows nothing of how a model computes; a model asks for
//! its tensors by published name and shape. Nothing here allocates by a number that a file claims and its size does not
//! bear out.

mod digest;
mod header;
mod hub;
mod read;
mod write;

use std::fs;
use std::path::{Path, PathBuf};

use crate::config::{Config, ConfigError, GenerationConfig, ModelConfig, Warning};
use crate::template::{ChatTemplate, Message, TemplateError};
use crate::tokenizer::{Tokenizer, TokenizerError};

pub use digest::ModelDigest;
pub use hub::{HubError, HubModel, Snapshot, shards};
pub use read::{Element, StoredTensor, Weights, WeightsError};
pub use write::{CheckpointWriter, Companions, WriteError};

/// An opened model folder. Weights are read when asked for.
#[derive(Debug)]
pub struct Checkpoint {
    pub folder: PathBuf,
    pub config: Config,
    pub tokenizer: Tokenizer,
    pub weights: Weights,
    /// What a user should hear about the folder; each names its file.
    pub warnings: Vec<(PathBuf, Warning)>,
    template: Option<ChatTemplate>,
    generation: Option<GenerationConfig>,
}

/// Why a folder is not a usable model.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("read {}", file.display())]
    Read { file: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error(
        "{}: has no chat template; one is needed in tokenizer_config.json (`chat_template`) or chat_template.jinja",
        folder.display()
    )]
    NoTemplate { folder: PathBuf },
    #[error("{}: is not a folder; a model folder in Hugging Face layout is needed", folder.display())]
    NotAFolder { folder: PathBuf },
}

impl Checkpoint {
    /// Opens a folder with weights.
    pub fn open(folder: &Path) -> Result<Self, CheckpointError> {
        Self::assemble(folder, Weights::open)
    }

    /// Opens a folder that only describes a model; its weights are to be drawn at random, and `weights` is empty.
    pub fn open_without_weights(folder: &Path) -> Result<Self, CheckpointError> {
        Self::assemble(folder, |_| Ok(Weights::none()))
    }

    /// A tensor by its published name, widened or rounded to `f32`, row-major.
    pub fn tensor_f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, CheckpointError> {
        Ok(self.weights.tensor::<f32>(name, shape)?)
    }

    /// Published names, ascending.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.weights.names()
    }

    /// Refuses a folder with tensors that the model did not ask for, since it then is another model.
    ///
    /// Two leftovers are known to be harmless: rotary tables that old library versions saved, and the copy of a tied
    /// head.
    pub fn expect_no_extra<S: AsRef<str>>(&self, used: &[S]) -> Result<(), CheckpointError> {
        let tied = match &self.config.model {
            ModelConfig::Gemma2(c) => c.tie_word_embeddings,
            ModelConfig::Llama(c) => c.tie_word_embeddings,
        };
        let harmless = |name: &str| name.ends_with(".rotary_emb.inv_freq") || (tied && name == "lm_head.weight");
        Ok(self.weights.expect_no_extra(used, harmless)?)
    }

    /// The chat template; a conversation cannot be rendered without one.
    pub fn template(&self) -> Result<&ChatTemplate, CheckpointError> {
        self.template.as_ref().ok_or_else(|| CheckpointError::NoTemplate { folder: self.folder.clone() })
    }

    /// A conversation in tokens, behind exactly `n_bos` begin tokens; with `opens_answer` it ends with the header of the
    /// turn to be written.
    pub fn conversation_ids(
        &self,
        turns: &[Message],
        opens_answer: bool,
        n_bos: usize,
    ) -> Result<Vec<u32>, CheckpointError> {
        let text = self.template()?.render(turns, opens_answer)?;
        Ok(self.tokenizer.encode_begun(&text, n_bos)?)
    }

    /// The ids that end a generation: those of `generation_config.json`, without it those of `config.json`, and without
    /// them the tokenizer's.
    pub fn eos_ids(&self) -> Vec<u32> {
        let stated = self.generation.as_ref().map(|generation| generation.eos_token_ids.as_slice());
        let ids = stated.filter(|ids| !ids.is_empty()).unwrap_or(&self.config.eos_token_ids);
        if ids.is_empty() { self.tokenizer.eos_id().into_iter().collect() } else { ids.to_vec() }
    }

    /// Identity of the model's outputs; reads every weight once. See [`ModelDigest`].
    pub fn digest(&self) -> Result<ModelDigest, CheckpointError> {
        Ok(ModelDigest::of(self, false)?)
    }

    /// As [`Checkpoint::digest`], and refuses weights that are not finite.
    pub fn digest_of_finite(&self) -> Result<ModelDigest, CheckpointError> {
        Ok(ModelDigest::of(self, true)?)
    }

    fn assemble(
        folder: &Path,
        weights: impl FnOnce(&Path) -> Result<Weights, WeightsError>,
    ) -> Result<Self, CheckpointError> {
        if !folder.is_dir() {
            return Err(CheckpointError::NotAFolder { folder: folder.to_owned() });
        }
        let config_file = folder.join("config.json");
        let (config, warnings) = Config::parse(&read(&config_file)?, &config_file)?;
        let mut warnings: Vec<_> = warnings.into_iter().map(|warning| (config_file.clone(), warning)).collect();
        let mut tokenizer = Tokenizer::load(folder)?;
        let n_spare = tokenizer.expect_rows(config.model.vocab_size())?;
        if n_spare > 0 {
            let message = format!(
                "has {} ids, and the embedding {n_spare} more rows: padding, which has no text should it be sampled",
                tokenizer.n_ids()
            );
            warnings.push((tokenizer.file().to_owned(), Warning { field: "vocab".to_owned(), message }));
        }
        let generation = read_generation(folder, &config, &mut warnings)?;
        Ok(Self {
            template: read_template(folder, &tokenizer)?,
            weights: weights(folder)?,
            folder: folder.to_owned(),
            config,
            tokenizer,
            warnings,
            generation,
        })
    }
}

fn read_generation(
    folder: &Path,
    config: &Config,
    warnings: &mut Vec<(PathBuf, Warning)>,
) -> Result<Option<GenerationConfig>, CheckpointError> {
    let file = folder.join("generation_config.json");
    if !file.exists() {
        return Ok(None);
    }
    let (generation, new) = GenerationConfig::parse(&read(&file)?, &file, config.model.vocab_size())?;
    warnings.extend(new.into_iter().map(|warning| (file.clone(), warning)));
    Ok(Some(generation))
}

/// A template file of its own wins over the one in the tokenizer's configuration, as in the Python library.
fn read_template(folder: &Path, tokenizer: &Tokenizer) -> Result<Option<ChatTemplate>, CheckpointError> {
    let file = folder.join("chat_template.jinja");
    if file.exists() {
        return Ok(Some(ChatTemplate::compile(&read(&file)?, tokenizer.specials(), &file)?));
    }
    let Some(source) = tokenizer.chat_template() else {
        return Ok(None);
    };
    Ok(Some(ChatTemplate::compile(source, tokenizer.specials(), &folder.join("tokenizer_config.json"))?))
}

fn read(file: &Path) -> Result<String, CheckpointError> {
    fs::read_to_string(file).map_err(|source| CheckpointError::Read { file: file.to_owned(), source })
}

#[cfg(test)]
mod tests;

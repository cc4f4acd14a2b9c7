//! Text to token ids and back, exactly as the published tokenizer does it.
//!
//! Owns the files `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json` of a model folder. Knows
//! nothing of chat templates' rules or of models: it hands out the template's text and checks ids against a number of
//! embedding rows that the caller states.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use serde_json::{Map, Value};

/// A tokenizer with its special ids.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    file: PathBuf,
    specials: BTreeMap<String, String>,
    n_ids: usize,
    /// Rows of the embedding behind the ids: they can be sampled, and have no text.
    n_spare: usize,
    chat_template: Option<String>,
    digest: blake3::Hash,
}

/// Why a tokenizer is not usable, or a text or an id is not its own.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    #[error("read {}", file.display())]
    Read { file: PathBuf, source: std::io::Error },
    #[error("{}: not a JSON object", file.display())]
    Json { file: PathBuf, source: serde_json::Error },
    #[error("{}: not a tokenizer of a known form: {message}", file.display())]
    Form { file: PathBuf, message: String },
    #[error("{}: `{name}` is {found}; a token's text is needed", file.display())]
    Special { file: PathBuf, name: String, found: String },
    #[error("{}: `{name}` is `{token}`, which is no token of the vocabulary", file.display())]
    SpecialUnknown { file: PathBuf, name: String, token: String },
    #[error(
        "{}: has {n_ids} ids, and the embedding has {n_rows} rows; each id needs a row, and at most one row in \
         {ROWS_A_SPARE} may be without an id",
        file.display()
    )]
    Size { file: PathBuf, n_ids: usize, n_rows: usize },
    #[error("{}: holds the ids up to {largest} but not {missing}", file.display())]
    Hole { file: PathBuf, largest: u32, missing: u32 },
    #[error("{}: encode a text of {bytes} bytes: {message}", file.display())]
    Encode { file: PathBuf, bytes: usize, message: String },
    #[error("{}: decode {n_ids} ids: {message}", file.display())]
    Decode { file: PathBuf, n_ids: usize, message: String },
}

/// Rows of an embedding among which one may be without an id. Published embeddings are padded to a multiple of 8, 64 or 128
/// rows; a tokenizer that leaves out more is that of another model.
const ROWS_A_SPARE: usize = 1000;

/// The special tokens a template may write and a model may need, by the names the config files use.
const SPECIAL_NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

impl Tokenizer {
    /// Loads the tokenizer of a model folder.
    pub fn load(folder: &Path) -> Result<Self, TokenizerError> {
        let file = folder.join("tokenizer.json");
        let bytes = read(&file)?;
        let wrong = |message: String| TokenizerError::Form { file: file.clone(), message };
        // The library panics at a file that stops being text or JSON within its decoders.
        let text = std::str::from_utf8(&bytes).map_err(|error| wrong(error.to_string()))?;
        serde_json::from_str::<IgnoredAny>(text).map_err(|error| wrong(error.to_string()))?;
        // And at some that are JSON and hold together badly, such as merges shorter than the prefix of their parts.
        let parsed = catch_unwind(|| tokenizers::Tokenizer::from_bytes(&bytes));
        let parsed = parsed.map_err(|_| wrong("its parts do not hold together".to_owned()))?;
        let mut inner = parsed.map_err(|error| wrong(error.to_string()))?;
        // A file may carry the cutting and padding of somebody's training run; a text here is never cut.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| wrong(error.to_string()))?;
        let config = Settings::load(folder)?;
        let n_ids = count_ids(&inner, &file)?;
        let digest = digest(&bytes, &config.specials);
        let Settings { file: settings, specials, chat_template } = config;
        let tokenizer = Self { inner, file, specials, n_ids, n_spare: 0, chat_template, digest };
        tokenizer.check_specials(&settings)?;
        Ok(tokenizer)
    }

    /// Token ids of a text, with nothing added: a rendered chat template already holds its bos.
    ///
    /// The text of a special token inside `text` becomes that token.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let fail = |message| TokenizerError::Encode { file: self.file.clone(), bytes: text.len(), message };
        let encoding = self.inner.encode_fast(text, false).map_err(|error| fail(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Token ids of a text behind exactly `n_bos` begin tokens, however many it writes itself. A tokenizer without a
    /// begin token leaves the text as it is.
    pub fn encode_begun(&self, text: &str, n_bos: usize) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = self.encode(text)?;
        if let Some(bos) = self.bos_id() {
            let n_written = ids.iter().take_while(|id| **id == bos).count();
            ids.splice(..n_written, std::iter::repeat_n(bos, n_bos));
        }
        Ok(ids)
    }

    /// The text of token ids; `skip_special` leaves out special tokens such as bos. Bytes that are no UTF-8 become
    /// U+FFFD; a row of the embedding that has no id has no text.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TokenizerError> {
        let fail = |message| TokenizerError::Decode { file: self.file.clone(), n_ids: ids.len(), message };
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.n_ids + self.n_spare) {
            return Err(fail(format!("{id} is past the last id {}", self.n_ids - 1)));
        }
        // The library leaves out an id that it does not know.
        self.inner.decode(ids, skip_special).map_err(|error| fail(error.to_string()))
    }

    /// The id of exactly this token.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token as the vocabulary spells it (`▁the`, `<0x0A>`).
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    pub fn bos_id(&self) -> Option<u32> {
        self.special_id("bos_token")
    }

    pub fn eos_id(&self) -> Option<u32> {
        self.special_id("eos_token")
    }

    /// Special tokens by the names templates use: `bos_token` → `<bos>`.
    pub fn specials(&self) -> &BTreeMap<String, String> {
        &self.specials
    }

    /// Number of ids, added tokens included; the ids are `0..n_ids`.
    pub fn n_ids(&self) -> usize {
        self.n_ids
    }

    /// The source of the chat template that `tokenizer_config.json` carries.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }

    /// Over the bytes of `tokenizer.json` and the special tokens.
    pub fn digest(&self) -> blake3::Hash {
        self.digest
    }

    /// Takes note of the rows of the embedding. An id without a row cannot be embedded, and a row without an id can be
    /// sampled and has no text; some of these are padding, and their number is given back.
    pub fn expect_rows(&mut self, n_rows: usize) -> Result<usize, TokenizerError> {
        match n_rows.checked_sub(self.n_ids) {
            Some(n_spare) if n_spare <= n_rows / ROWS_A_SPARE => {
                self.n_spare = n_spare;
                Ok(n_spare)
            }
            _ => Err(TokenizerError::Size { file: self.file.clone(), n_ids: self.n_ids, n_rows }),
        }
    }

    /// The file of the ids.
    pub fn file(&self) -> &Path {
        &self.file
    }

    fn special_id(&self, name: &str) -> Option<u32> {
        self.token_to_id(self.specials.get(name)?)
    }

    fn check_specials(&self, file: &Path) -> Result<(), TokenizerError> {
        for (name, token) in &self.specials {
            if self.token_to_id(token).is_none() {
                let (file, name, token) = (file.to_owned(), name.clone(), token.clone());
                return Err(TokenizerError::SpecialUnknown { file, name, token });
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer").field("file", &self.file).field("n_ids", &self.n_ids).finish_non_exhaustive()
    }
}

/// What is read of `tokenizer_config.json` and `special_tokens_map.json`. Everything else there steers the Python
/// class around the tokenizer and repeats `tokenizer.json`.
struct Settings {
    file: PathBuf,
    specials: BTreeMap<String, String>,
    chat_template: Option<String>,
}

impl Settings {
    /// The map fills in what the config does not say.
    fn load(folder: &Path) -> Result<Self, TokenizerError> {
        let file = folder.join("tokenizer_config.json");
        let mut specials = BTreeMap::new();
        let map_file = folder.join("special_tokens_map.json");
        if map_file.exists() {
            take_specials(&read_object(&map_file)?, &map_file, &mut specials)?;
        }
        let config = read_object(&file)?;
        take_specials(&config, &file, &mut specials)?;
        let chat_template = match config.get("chat_template") {
            None | Some(Value::Null) => None,
            Some(Value::String(source)) => Some(source.clone()),
            Some(Value::Array(named)) => named.iter().find_map(default_template),
            Some(other) => {
                let (name, found) = ("chat_template".to_owned(), other.to_string());
                return Err(TokenizerError::Special { file, name, found });
            }
        };
        Ok(Self { file, specials, chat_template })
    }
}

/// A list of templates is `{"name": .., "template": ..}`; conversations use the one named `default`.
fn default_template(entry: &Value) -> Option<String> {
    let is_default = entry.get("name")?.as_str()? == "default";
    is_default.then(|| entry.get("template")?.as_str().map(str::to_owned))?
}

/// A special token is its text, or a map that holds the text as `content`.
fn take_specials(
    from: &Map<String, Value>,
    file: &Path,
    into: &mut BTreeMap<String, String>,
) -> Result<(), TokenizerError> {
    for name in SPECIAL_NAMES {
        let Some(value) = from.get(name).filter(|value| !value.is_null()) else {
            continue;
        };
        let Some(text) = value.as_str().or_else(|| value.get("content")?.as_str()) else {
            let (file, name, found) = (file.to_owned(), name.to_owned(), value.to_string());
            return Err(TokenizerError::Special { file, name, found });
        };
        into.insert(name.to_owned(), text.to_owned());
    }
    Ok(())
}

fn count_ids(inner: &tokenizers::Tokenizer, file: &Path) -> Result<usize, TokenizerError> {
    let mut ids: Vec<u32> = inner.get_vocab(true).into_values().collect();
    ids.sort_unstable();
    ids.dedup();
    let hole = ids.iter().zip(0..).find(|(id, wanted)| **id != *wanted);
    if let (Some((_, missing)), Some(&largest)) = (hole, ids.last()) {
        return Err(TokenizerError::Hole { file: file.to_owned(), largest, missing });
    }
    Ok(ids.len())
}

fn digest(tokenizer_json: &[u8], specials: &BTreeMap<String, String>) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_derive_key("sluice tokenizer v1");
    let specials = specials.iter().flat_map(|(name, token)| [name.as_bytes(), token.as_bytes()]);
    for part in std::iter::once(tokenizer_json).chain(specials) {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    hasher.finalize()
}

fn read(file: &Path) -> Result<Vec<u8>, TokenizerError> {
    fs::read(file).map_err(|source| TokenizerError::Read { file: file.to_owned(), source })
}

fn read_object(file: &Path) -> Result<Map<String, Value>, TokenizerError> {
    serde_json::from_slice(&read(file)?).map_err(|source| TokenizerError::Json { file: file.to_owned(), source })
}

#[cfg(test)]
mod tests;

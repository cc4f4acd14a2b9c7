//! `hf://owner/name@revision` to a folder of the local Hugging Face cache.
//!
//! Owns the reference's syntax, the cache's layout, and which files make a snapshot whole. Knows nothing of networks: what
//! is absent is an error that says how to fetch it.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::read::{INDEX, SINGLE};

/// The revision that is meant where none is said.
const DEFAULT_REVISION: &str = "main";

/// A model of the hub.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HubModel {
    owner: String,
    name: String,
    revision: Option<String>,
}

/// A model of the hub in the local cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub folder: PathBuf,
    /// What the revision stood for when it was fetched.
    pub commit: String,
}

/// Why a reference to a model leads to no folder.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error("`{reference}`: hf://owner/name or hf://owner/name@revision is needed")]
    Reference { reference: String },
    #[error("`{model}`: looked in {}; fetch it with `{}`", folder.display(), model.command())]
    Absent { model: HubModel, folder: PathBuf },
    #[error("`{model}`: {} lacks {}; fetch the rest with `{}`", folder.display(), listed(missing), model.command())]
    Incomplete { model: HubModel, folder: PathBuf, missing: Vec<String> },
    #[error("`{model}`: read {}", file.display())]
    Read { model: HubModel, file: PathBuf, source: std::io::Error },
}

impl HubModel {
    /// The parts of a reference, each of which leads nowhere else in a path.
    pub fn new(owner: &str, name: &str, revision: Option<&str>) -> Option<Self> {
        let revision_is_plain = revision.is_none_or(|revision| revision.split('/').all(is_plain));
        (is_plain(owner) && is_plain(name) && revision_is_plain).then(|| Self {
            owner: owner.to_owned(),
            name: name.to_owned(),
            revision: revision.map(str::to_owned),
        })
    }

    /// Reads `hf://owner/name@revision`; `None` for a path.
    pub fn parse(reference: &str) -> Result<Option<Self>, HubError> {
        let Some(id) = reference.strip_prefix("hf://") else { return Ok(None) };
        let (repository, revision) = match id.split_once('@') {
            Some((repository, revision)) => (repository, Some(revision)),
            None => (id, None),
        };
        let model = repository.split_once('/').and_then(|(owner, name)| Self::new(owner, name, revision));
        model.map(Some).ok_or_else(|| HubError::Reference { reference: reference.to_owned() })
    }

    /// `owner/name`.
    pub fn id(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// A branch, a tag or a commit.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(DEFAULT_REVISION)
    }

    /// The command of the hub's own tools that fetches it into the same cache.
    pub fn command(&self) -> String {
        format!("hf download {} --revision {}", self.id(), self.revision())
    }

    /// The model's folder in the cache, with the blobs, refs and snapshots of all its revisions.
    pub fn repository_folder(&self, cache_root: &Path) -> PathBuf {
        cache_root.join(format!("models--{}--{}", self.owner, self.name))
    }

    /// The snapshot in the cache, whose `hub` folder is `cache_root`, with every file that a model needs.
    pub fn cached(&self, cache_root: &Path) -> Result<Snapshot, HubError> {
        let repository = self.repository_folder(cache_root);
        let named = self.read_ref(&repository.join("refs").join(self.revision()))?;
        let commit = named.filter(|commit| is_plain(commit)).unwrap_or_else(|| self.revision().to_owned());
        let folder = repository.join("snapshots").join(&commit);
        if !folder.is_dir() {
            return Err(HubError::Absent { model: self.clone(), folder });
        }
        let missing = self.missing_files(&folder)?;
        if missing.is_empty() {
            return Ok(Snapshot { folder, commit });
        }
        Err(HubError::Incomplete { model: self.clone(), folder, missing })
    }

    /// The files that a model cannot do without and that a snapshot lacks: libraries fetch files one by one, so that a
    /// folder may hold a tokenizer alone.
    fn missing_files(&self, folder: &Path) -> Result<Vec<String>, HubError> {
        let lacks = |name: &str| !folder.join(name).exists();
        let mut missing: Vec<String> =
            ["config.json", "tokenizer.json"].into_iter().filter(|name| lacks(name)).map(str::to_owned).collect();
        let index = folder.join(INDEX);
        match (lacks(SINGLE), index.exists()) {
            (false, _) => {}
            (true, false) => missing.push(SINGLE.to_owned()),
            (true, true) => {
                let text = fs::read_to_string(&index).map_err(|source| self.unread(&index, source))?;
                missing.extend(shards(&text).into_iter().filter(|shard| lacks(shard)));
            }
        }
        Ok(missing)
    }

    /// A branch or tag is a file that holds a commit; a commit has none.
    fn read_ref(&self, file: &Path) -> Result<Option<String>, HubError> {
        if !file.is_file() {
            return Ok(None);
        }
        let text = fs::read_to_string(file).map_err(|source| self.unread(file, source))?;
        Ok(Some(text.trim().to_owned()))
    }

    fn unread(&self, file: &Path, source: std::io::Error) -> HubError {
        HubError::Read { model: self.clone(), file: file.to_owned(), source }
    }
}

impl fmt::Display for HubModel {
    /// The reference, as it was written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf://{}/{}", self.owner, self.name)?;
        self.revision.iter().try_for_each(|revision| write!(f, "@{revision}"))
    }
}

/// The files an index over weights names, each once and only those that lie beside it; none for a text that is no index,
/// which is found when the folder is opened.
pub fn shards(index: &str) -> Vec<String> {
    let Ok(index) = serde_json::from_str::<serde_json::Value>(index) else { return Vec::new() };
    let named = index["weight_map"].as_object().into_iter().flat_map(|map| map.values());
    let mut files: Vec<String> =
        named.filter_map(|file| file.as_str()).filter(|file| is_plain(file)).map(str::to_owned).collect();
    files.sort_unstable();
    files.dedup();
    files
}

/// A part of a path that leads nowhere else.
fn is_plain(part: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !part.is_empty() && part != "." && part != ".." && part.chars().all(allowed)
}

fn listed(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

//! `hf://owner/name@revision` to a folder of the local Hugging Face cache.
//!
//! Owns the cache's layout. Knows nothing of networks: what is absent is an error that says how to fetch it.

use std::fs;
use std::path::{Path, PathBuf};

/// Why a reference to a model leads to no folder.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error("`{reference}`: hf://owner/name or hf://owner/name@revision is needed")]
    Reference { reference: String },
    #[error("`{reference}`: looked in {}; fetch it with `{command}`", folder.display())]
    Absent { reference: String, folder: PathBuf, command: String },
    #[error("`{reference}`: read {}", file.display())]
    Read { reference: String, file: PathBuf, source: std::io::Error },
}

/// The folder a model reference stands for: a path is itself, and `hf://owner/name@revision` (a branch, a tag or a
/// commit; `main` when left out) is a snapshot under `cache_root`, the cache's `hub` folder.
pub fn resolve(reference: &str, cache_root: &Path) -> Result<PathBuf, HubError> {
    let Some(id) = reference.strip_prefix("hf://") else {
        return Ok(PathBuf::from(reference));
    };
    let malformed = || HubError::Reference { reference: reference.to_owned() };
    let (repository, revision) = id.split_once('@').unwrap_or((id, "main"));
    let (owner, name) = repository.split_once('/').ok_or_else(malformed)?;
    let revision_is_plain = !revision.is_empty() && revision.split('/').all(is_plain);
    if !is_plain(owner) || !is_plain(name) || !revision_is_plain {
        return Err(malformed());
    }
    let repository_folder = cache_root.join(format!("models--{owner}--{name}"));
    let commit = read_ref(reference, &repository_folder.join("refs").join(revision))?;
    let snapshots = repository_folder.join("snapshots");
    let folder = snapshots.join(commit.as_deref().filter(|commit| is_plain(commit)).unwrap_or(revision));
    if folder.is_dir() {
        return Ok(folder);
    }
    let command = format!("huggingface-cli download {owner}/{name} --revision {revision}");
    Err(HubError::Absent { reference: reference.to_owned(), folder, command })
}

/// A branch or tag is a file that holds a commit; a commit has none.
fn read_ref(reference: &str, file: &Path) -> Result<Option<String>, HubError> {
    if !file.is_file() {
        return Ok(None);
    }
    let text = fs::read_to_string(file).map_err(|source| HubError::Read {
        reference: reference.to_owned(),
        file: file.to_owned(),
        source,
    })?;
    Ok(Some(text.trim().to_owned()))
}

/// A part of a path that leads nowhere else.
fn is_plain(part: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !part.is_empty() && part != "." && part != ".." && part.chars().all(allowed)
}

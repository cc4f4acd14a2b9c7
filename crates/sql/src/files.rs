//! From paths and globs to files, and from a file's name to its format. It lists folders and opens nothing.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::SqlError;

/// How the rows of a file are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataFormat {
    Parquet,
    /// One JSON object per line.
    Jsonl,
    /// Comma-separated, with a header line.
    Csv,
}

impl DataFormat {
    pub fn of_extension(path: &Path) -> Result<Self, SqlError> {
        let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
        match extension.as_deref() {
            Some("parquet") => Ok(Self::Parquet),
            Some("jsonl" | "ndjson") => Ok(Self::Jsonl),
            Some("csv") => Ok(Self::Csv),
            _ => Err(SqlError::UnknownFormat { path: path.to_owned() }),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Parquet => "Parquet",
            Self::Jsonl => "JSONL",
            Self::Csv => "CSV",
        }
    }
}

/// The files that match any of the patterns, sorted by path, each once. A pattern is a path relative to `folder` in
/// which `*` stands for any text and `?` for one character within a name, and `**` for any number of folders. Every
/// pattern must match something.
pub fn matching(folder: &Path, patterns: &[String]) -> Result<Vec<PathBuf>, SqlError> {
    let mut files = Vec::new();
    for pattern in patterns {
        let found = expand(folder, pattern)?;
        if found.is_empty() {
            let present = names_beside(folder, pattern);
            return Err(SqlError::NoSuchFile { pattern: pattern.clone(), folder: folder.to_owned(), present });
        }
        files.extend(found);
    }
    let mut files: Vec<PathBuf> = files.iter().map(|file| tidy(file)).collect();
    files.sort();
    files.dedup();
    Ok(files)
}

/// `./x` is `x` to a reader.
fn tidy(path: &Path) -> PathBuf {
    path.strip_prefix(".").unwrap_or(path).to_owned()
}

fn expand(folder: &Path, pattern: &str) -> Result<Vec<PathBuf>, SqlError> {
    let whole = folder.join(pattern);
    if !pattern.contains(['*', '?']) {
        if whole.is_dir() {
            return Err(SqlError::Folder { pattern: pattern.trim_end_matches('/').to_owned(), path: tidy(&whole) });
        }
        return Ok(if whole.is_file() { vec![whole] } else { Vec::new() });
    }
    let base = if Path::new(pattern).is_absolute() { PathBuf::from("/") } else { folder.to_owned() };
    let segments: Vec<&str> = pattern.split('/').filter(|segment| !segment.is_empty()).collect();
    let mut files = Vec::new();
    walk(&base, &segments, &mut files)?;
    Ok(files)
}

/// Collects the files below `folder` whose path matches the segments that are left.
fn walk(folder: &Path, segments: &[&str], files: &mut Vec<PathBuf>) -> Result<(), SqlError> {
    let Some((&segment, rest)) = segments.split_first() else {
        return Ok(());
    };
    if segment == "**" {
        walk(folder, rest, files)?;
        for (name, path) in entries(folder)? {
            // A link to a folder is not followed: it could lead back up.
            if !name.starts_with('.') && path.is_dir() && !path.is_symlink() {
                walk(&path, segments, files)?;
            }
        }
        return Ok(());
    }
    if !segment.contains(['*', '?']) {
        let path = folder.join(segment);
        return take(path, rest, files);
    }
    for (name, path) in entries(folder)? {
        // As in a shell, a wildcard does not reach hidden names.
        if name_matches(segment, &name) && (segment.starts_with('.') || !name.starts_with('.')) {
            take(path, rest, files)?;
        }
    }
    Ok(())
}

fn take(path: PathBuf, rest: &[&str], files: &mut Vec<PathBuf>) -> Result<(), SqlError> {
    if rest.is_empty() && path.is_file() {
        files.push(path);
    } else if !rest.is_empty() && path.is_dir() {
        walk(&path, rest, files)?;
    }
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, SqlError> {
    let failed = |source| SqlError::ListFolder { path: folder.to_owned(), source };
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        entries.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    entries.sort();
    Ok(entries)
}

/// The names in the deepest folder of the pattern that exists, at most ten: what the user may have meant.
fn names_beside(folder: &Path, pattern: &str) -> Vec<String> {
    let mut nearest = folder.to_owned();
    let mut written = PathBuf::new();
    let segments: Vec<&str> = pattern.split('/').collect();
    for segment in &segments[..segments.len().saturating_sub(1)] {
        let next = if segment.is_empty() { PathBuf::from("/") } else { nearest.join(segment) };
        if !next.is_dir() {
            break;
        }
        written = if segment.is_empty() { PathBuf::from("/") } else { written.join(segment) };
        nearest = next;
    }
    let names = entries(&nearest).unwrap_or_default().into_iter().map(|(name, _)| name);
    names.filter(|name| !name.starts_with('.')).take(10).map(|name| written.join(name).display().to_string()).collect()
}

/// Whether a name matches one segment of a pattern, by remembering the last `*` and where it began to match.
fn name_matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&'*') {
            star = Some((p, n));
            p += 1;
        } else if pattern.get(p).is_some_and(|&letter| letter == '?' || letter == name[n]) {
            p += 1;
            n += 1;
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            p = at + 1;
            n = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&letter| letter == '*')
}

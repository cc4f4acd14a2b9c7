//! Small files of two lines: a value as JSON, and `{"blake3": ...}` of that line, so that a damaged file is found and
//! its content made anew instead of believed. It owns that form, and refuses to know the values.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::digest::ContentHash;
use crate::disk;
use crate::error::StoreError;

/// The second line.
#[derive(Serialize, Deserialize)]
struct Check {
    blake3: ContentHash,
}

/// The two lines of a value, for a file at `path`.
pub(crate) fn encode<T: Serialize>(path: &Path, value: &T) -> Result<Vec<u8>, StoreError> {
    let mut bytes = disk::encode(path, value)?;
    let check = Check { blake3: ContentHash::from_bytes(*blake3::hash(bytes.trim_ascii_end()).as_bytes()) };
    bytes.extend(disk::encode(path, &check)?);
    Ok(bytes)
}

/// The first line of the file at `path`, checked.
///
/// # Errors
/// `Corrupt` when it is not the line that was written, `Json` when there is no check to be read.
pub(crate) fn first_line<'b>(path: &Path, bytes: &'b [u8]) -> Result<&'b [u8], StoreError> {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (line, check) = bytes.split_at(end);
    let check: Check =
        serde_json::from_slice(check).map_err(|source| StoreError::Json { path: path.to_owned(), source })?;
    let found = ContentHash::from_bytes(*blake3::hash(line).as_bytes());
    if found != check.blake3 {
        return Err(StoreError::Corrupt { path: path.to_owned(), expected: check.blake3, found });
    }
    Ok(line)
}

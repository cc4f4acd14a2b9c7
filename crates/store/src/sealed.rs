//! JSON files that end with the digest of their own text, so that a flipped byte in one is found and never believed:
//! run manifests, tags, the stat cache. It owns the form of the seal, and refuses to know what is sealed.
//!
//! The seal is the last field of the object, `"blake3"`, over the object's text without that field. So a sealed file is
//! JSON like any other, one line, and programs that know no seals read it as if there were none.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::digest::ContentHash;
use crate::disk;
use crate::error::StoreError;

const OPENS: &[u8] = b",\"blake3\":\"";
const CLOSES: &[u8] = b"\"}";
const HEX_BYTES: usize = 64;

/// Versions of a sealed form.
pub(crate) struct Form {
    /// What a file of it is called in messages, such as `run manifest`.
    pub what: &'static str,
    /// The first version whose files are all sealed.
    pub sealed_since: u32,
    /// The newest version this program reads.
    pub supported: u32,
}

/// The one field every version of every form has.
#[derive(Deserialize)]
struct Version {
    schema_version: u32,
}

/// The sealed text of an object with at least one field, for a file at `path`.
pub(crate) fn encode<T: Serialize>(path: &Path, value: &T) -> Result<Vec<u8>, StoreError> {
    let mut text = disk::encode(path, value)?;
    text.truncate(text.trim_ascii_end().len());
    let seal = blake3::hash(&text).to_hex();
    text.truncate(text.len().saturating_sub(1));
    text.extend_from_slice(OPENS);
    text.extend_from_slice(seal.as_bytes());
    text.extend_from_slice(CLOSES);
    text.push(b'\n');
    Ok(text)
}

/// The value in a file at `path`, whose seal is checked.
///
/// # Errors
/// `Corrupt` when the text is not the one that was sealed, `Unsealed` when a seal should be there, `NewerFile`, `Json`.
pub(crate) fn decode<T: DeserializeOwned>(path: &Path, bytes: &[u8], form: &Form) -> Result<T, StoreError> {
    let json = |source| StoreError::Json { path: path.to_owned(), source };
    let text = unseal(path, bytes)?;
    let Version { schema_version } = serde_json::from_slice(text.as_deref().unwrap_or(bytes)).map_err(json)?;
    let Form { what, sealed_since, supported } = *form;
    if schema_version > supported {
        return Err(StoreError::NewerFile { what, path: path.to_owned(), found: schema_version, supported });
    }
    match text {
        Some(text) => serde_json::from_slice(&text).map_err(json),
        None if schema_version >= sealed_since => Err(StoreError::Unsealed { path: path.to_owned() }),
        None => serde_json::from_slice(bytes).map_err(json),
    }
}

/// The text that was sealed, or `None` where there is no seal.
pub(crate) fn unseal(path: &Path, bytes: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    let Some((text, hex)) = split(bytes.trim_ascii_end()) else { return Ok(None) };
    let text = [text, b"}"].concat();
    let found = ContentHash::from_bytes(*blake3::hash(&text).as_bytes());
    // By the digits themselves: another spelling of the same number is damage, too.
    if found.to_string().as_bytes() == hex {
        return Ok(Some(text));
    }
    match std::str::from_utf8(hex).ok().and_then(|hex| hex.parse().ok()) {
        Some(expected) if expected != found => Err(StoreError::Corrupt { path: path.to_owned(), expected, found }),
        _ => Err(StoreError::Unsealed { path: path.to_owned() }),
    }
}

/// What stands before the seal, and its digits.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let start = bytes.len().checked_sub(OPENS.len() + HEX_BYTES + CLOSES.len())?;
    let (text, seal) = bytes.split_at(start);
    Some((text, seal.strip_prefix(OPENS)?.strip_suffix(CLOSES)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: Form = Form { what: "note", sealed_since: 2, supported: 2 };

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Note {
        schema_version: u32,
        text: String,
    }

    fn read(bytes: &[u8]) -> Result<Note, StoreError> {
        decode(Path::new("note.json"), bytes, &FORM)
    }

    fn note(schema_version: u32) -> (Note, Vec<u8>) {
        let note = Note { schema_version, text: "kept".to_owned() };
        let bytes = encode(Path::new("note.json"), &note).expect("JSON");
        (note, bytes)
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let (note, bytes) = note(2);
        assert_eq!(read(&bytes).expect("sealed"), note);
        // The newline behind the object is no part of it.
        for at in 0..bytes.len() - 1 {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                assert!(read(&bytes).is_err(), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn a_seal_is_asked_for_where_the_version_has_one() {
        let old = br#"{"schema_version":1,"text":"kept"}"#;
        assert_eq!(read(old).expect("older than seals"), note(1).0);
        let unsealed = br#"{"schema_version":2,"text":"kept"}"#;
        assert!(matches!(read(unsealed), Err(StoreError::Unsealed { .. })));
        let error = read(&note(3).1).expect_err("newer");
        assert_eq!(
            error.to_string(),
            "note `note.json` has version 3, this program reads up to 2; use the newer program"
        );
    }

    #[test]
    fn fields_of_another_program_are_left_alone() {
        let mut newer = serde_json::to_value(note(2).0).expect("JSON");
        newer["mood"] = "good".into();
        let bytes = encode(Path::new("note.json"), &newer).expect("JSON");
        assert_eq!(read(&bytes).expect("sealed"), note(2).0);
    }
}

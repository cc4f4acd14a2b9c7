//! Tags: names that people give to runs they want to keep. A tag holds a copy of its run's manifest, so that the loss of
//! one does not lose what the other names. It owns the names and the stored form, and refuses to know what a run made.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::disk::{self, Put};
use crate::error::StoreError;
use crate::layout::Layout;
use crate::runs::{RunId, RunManifest};
use crate::sealed::{self, Form};
use crate::store::Store;

/// Version of a tag's stored form. The first one is sealed already.
pub const TAG_SCHEMA_VERSION: u32 = 1;

const FORM: Form = Form { what: "tag", sealed_since: 1, supported: TAG_SCHEMA_VERSION };

/// Longest name, in characters.
const MAX_CHARS: usize = 64;

/// The name of a tag: lower case letters, digits, `_` and `-`, beginning with a letter, and no name of a run. It is a
/// word in queries, as in `pairs@tag:gold`, which know no upper case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TagName(String);

impl TagName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TagName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that cannot be a tag's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TagNameError {
    /// It has other characters, or too many.
    #[error(
        "`{text}` cannot be a tag: a letter from a to z is expected, then letters, digits, `_` and `-`, at most {MAX_CHARS} of them"
    )]
    Characters {
        /// The text.
        text: String,
    },
    /// It is how a run is named already.
    #[error("`{text}` cannot be a tag, since it names a run already; choose another word")]
    Reserved {
        /// The text.
        text: String,
    },
}

impl FromStr for TagName {
    type Err = TagNameError;

    fn from_str(text: &str) -> Result<Self, TagNameError> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
        let is_word = text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(plain);
        if !is_word || text.len() > MAX_CHARS {
            return Err(TagNameError::Characters { text: text.to_owned() });
        }
        if text.parse::<RunId>().is_ok() || ["prev", "last", "now"].contains(&text) {
            return Err(TagNameError::Reserved { text: text.to_owned() });
        }
        Ok(Self(text.to_owned()))
    }
}

impl Serialize for TagName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TagName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A tag.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tag {
    /// [`TAG_SCHEMA_VERSION`] of the writer.
    pub schema_version: u32,
    /// Its name.
    pub name: TagName,
    /// When it was set, milliseconds since 1970 by the caller's clock.
    pub created_unix_ms: u64,
    /// The run it names, as it was then.
    pub manifest: RunManifest,
}

impl Tag {
    /// The run it names.
    pub fn run(&self) -> RunId {
        self.manifest.run
    }
}

/// What setting a tag did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tagged {
    /// It is new.
    Created,
    /// It named this run already.
    Same,
    /// It named another run, and was moved.
    Moved {
        /// The run it named.
        from: RunId,
    },
}

impl Store {
    /// Names a run. A tag that names another run is moved if `may_move`, and never silently.
    ///
    /// # Errors
    /// `TagTaken` when the tag names another run and may not be moved; `ReadOnly`, `NoSpace`, `Io`.
    pub fn tag(
        &self,
        name: &TagName,
        manifest: RunManifest,
        created_unix_ms: u64,
        may_move: bool,
    ) -> Result<Tagged, StoreError> {
        self.layout().create()?;
        // Nobody may take the run away before the tag is there.
        let _entered = self.enter()?;
        let run = manifest.run;
        let path = self.layout().tag(name);
        let tag = Tag { schema_version: TAG_SCHEMA_VERSION, name: name.clone(), created_unix_ms, manifest };
        let bytes = sealed::encode(&path, &tag)?;
        if disk::write_if_absent(&path, &bytes)? == Put::Created {
            return Ok(Tagged::Created);
        }
        // One that does not read names no run any more.
        let from = self.tagged(name).ok().flatten().map(|tag| tag.run());
        match from {
            Some(from) if from == run => Ok(Tagged::Same),
            Some(from) if !may_move => Err(StoreError::TagTaken { name: name.clone(), from, to: run }),
            from => {
                disk::replace_synced(&path, &bytes)?;
                Ok(from.map_or(Tagged::Created, |from| Tagged::Moved { from }))
            }
        }
    }

    /// Takes a tag away; the run stays. The run it named, or `None` if there was no such tag.
    ///
    /// # Errors
    /// What reading the tag gives, and `ReadOnly`, `Io`.
    pub fn untag(&self, name: &TagName) -> Result<Option<RunId>, StoreError> {
        let Some(tag) = self.tagged(name)? else { return Ok(None) };
        disk::remove_file(&self.layout().tag(name))?;
        disk::sync_folder(&self.layout().tags())?;
        Ok(Some(tag.run()))
    }

    /// The tag of a name, or `None` if there is none.
    ///
    /// # Errors
    /// `Corrupt`, `Unsealed` and `Json` for a damaged tag, `NewerFile`, `Io`.
    pub fn tagged(&self, name: &TagName) -> Result<Option<Tag>, StoreError> {
        let path = self.layout().tag(name);
        disk::get(&path)?.map(|bytes| from_bytes(&path, &bytes)).transpose()
    }

    /// The names of all tags, sorted.
    ///
    /// # Errors
    /// `Io` when the folder cannot be read.
    pub fn tag_names(&self) -> Result<Vec<TagName>, StoreError> {
        names(self.layout())
    }

    /// All tags that read, by name.
    ///
    /// # Errors
    /// `Io` when the folder cannot be read.
    pub fn tags(&self) -> Result<Vec<Tag>, StoreError> {
        Ok(self.tag_names()?.iter().filter_map(|name| self.tagged(name).ok().flatten()).collect())
    }
}

pub(crate) fn names(layout: &Layout) -> Result<Vec<TagName>, StoreError> {
    let files = disk::list(&layout.tags())?;
    let mut names: Vec<TagName> = files.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect();
    names.sort();
    Ok(names)
}

pub(crate) fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Tag, StoreError> {
    sealed::decode(path, bytes, &FORM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_and_no_runs() {
        let check = |text: &str, expected: Result<(), &str>| {
            let found = text.parse::<TagName>().map(drop).map_err(|error| error.to_string());
            match (found, expected) {
                (Ok(()), Ok(())) => {}
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{text}: {found}"),
                (found, expected) => panic!("{text}: {found:?}, not {expected:?}"),
            }
        };
        for good in ["gold", "v1", "paper-2026_final", "r", "r1x", &"a".repeat(64)] {
            check(good, Ok(()));
        }
        for bad in ["", "Gold", "1st", "a b", "a.b", "a/b", "tag:gold", "über", &"a".repeat(65)] {
            check(bad, Err("letters, digits"));
        }
        for taken in ["r17", "prev", "last", "now"] {
            check(taken, Err("names a run already"));
        }
    }
}

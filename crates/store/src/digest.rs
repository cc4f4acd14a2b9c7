//! The digests of the store, one type each, so that a key is never taken for the hash of some bytes.
//! All are 32 bytes of BLAKE3 written as 64 lowercase hex digits. How each is computed is decided elsewhere.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text that should be a digest and is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a digest: 64 hex digits are expected")]
pub struct DigestError {
    /// The text that was read.
    pub text: String,
}

macro_rules! digest_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The digest with these 32 bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The first 12 hex digits, for people; never an address.
            pub fn short(&self) -> String {
                self.to_string()[..12].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = DigestError;

            fn from_str(text: &str) -> Result<Self, DigestError> {
                blake3::Hash::from_hex(text)
                    .map(|hash| Self(*hash.as_bytes()))
                    .map_err(|_| DigestError { text: text.to_owned() })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

digest_type! {
    /// The key of an action: what would be computed, from what. It names a record.
    StageKey
}
digest_type! {
    /// The BLAKE3 of stored bytes: of a blob, or of a folder's sorted (relative path, file hash).
    ContentHash
}
digest_type! {
    /// The logical digest of a table: schema and rows, not bytes. This is what downstream keys see.
    TableDigest
}
digest_type! {
    /// The digest of a model: tensors, the config that changes the maths, tokenizer, chat template.
    ModelDigest
}
digest_type! {
    /// The key of a single row: what was made, from what, of all that its scope does not say.
    RowKey
}
digest_type! {
    /// What the rows of a journal share, such as the model that made them.
    RowScope
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_survives_text_and_json() {
        let key = StageKey::from_bytes(*blake3::hash(b"k").as_bytes());
        assert_eq!(key.to_string().parse(), Ok(key));
        let json = serde_json::to_string(&key).expect("a string");
        assert_eq!(serde_json::from_str::<StageKey>(&json).expect("a key"), key);
        assert_eq!(key.short().len(), 12);
    }

    #[test]
    fn a_text_that_is_no_digest_says_what_is_expected() {
        let error = "r17".parse::<ContentHash>().expect_err("not hex");
        assert_eq!(error.to_string(), "`r17` is not a digest: 64 hex digits are expected");
    }
}

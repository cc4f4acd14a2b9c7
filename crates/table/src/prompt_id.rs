//! The identity of a prompt: a digest of its text, so that it survives files, order and splits.

use std::fmt;

/// BLAKE3 of a prompt's text, cut to 128 bits; 32 lowercase hex digits as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PromptId([u8; 16]);

impl PromptId {
    /// The id of a prompt with exactly this text; no normalisation.
    pub fn of(prompt: &str) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&blake3::hash(prompt.as_bytes()).as_bytes()[..16]);
        Self(id)
    }

    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for PromptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digits: [u8; 32] = std::array::from_fn(|at| {
            let byte = self.0[at / 2];
            DIGITS[usize::from(if at % 2 == 0 { byte >> 4 } else { byte & 15 })]
        });
        f.write_str(str::from_utf8(&digits).unwrap_or_default())
    }
}

impl fmt::Debug for PromptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PromptId({self})")
    }
}

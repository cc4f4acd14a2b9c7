//! The digests that the hub names its files by: SHA-256 of large files, and Git's SHA-1 of small ones. Both name the blob
//! in the cache too. Knows nothing of networks.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use ring::digest;

/// The digest of a file's content, as 40 or 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    hex: String,
}

/// A content being digested.
pub struct Sum(digest::Context);

impl Digest {
    const SHA1_DIGITS: usize = 40;
    const SHA256_DIGITS: usize = 64;

    /// `None` for a text that is neither. It becomes a file's name, so nothing else passes.
    pub fn parse(hex: &str) -> Option<Digest> {
        let plain = hex.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c));
        let known = [Self::SHA1_DIGITS, Self::SHA256_DIGITS].contains(&hex.len());
        (plain && known).then(|| Digest { hex: hex.to_owned() })
    }

    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// Begins the digest of a content of this length. Git puts a header before the content.
    pub fn begin(&self, n_bytes: u64) -> Sum {
        if self.hex.len() == Self::SHA256_DIGITS {
            return Sum(digest::Context::new(&digest::SHA256));
        }
        let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        context.update(format!("blob {n_bytes}\0").as_bytes());
        Sum(context)
    }
}

impl Sum {
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Takes a whole file, and leaves its end to be written at.
    pub fn update_from(&mut self, file: &mut File) -> io::Result<()> {
        const CHUNK_BYTES: usize = 1 << 20;
        file.seek(SeekFrom::Start(0))?;
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match file.read(&mut chunk)? {
                0 => return Ok(()),
                n => self.update(&chunk[..n]),
            }
        }
    }

    pub fn finish(self) -> String {
        self.0.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `git hash-object` and `sha256sum` say of "hello\n".
    #[test]
    fn digests_are_those_of_the_tools() {
        let cases = [
            "ce013625030ba8dba906f756967f9e9ca394464a",
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
        ];
        for expected in cases {
            let digest = Digest::parse(expected).expect("a digest");
            let mut sum = digest.begin(6);
            sum.update(b"hel");
            sum.update(b"lo\n");
            assert_eq!(sum.finish(), expected);
        }
        for other in ["", "../x", &"g".repeat(40), &"A".repeat(64), "ce01"] {
            assert_eq!(Digest::parse(other), None);
        }
    }
}

//! Secrets, looked up where a pipeline says they are, and only when they are needed.
//!
//! Owns the look and its faults, which name the place and never the content. Refuses to know what a secret is for.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sluice_spec::{Secret, SecretRef};

/// A secret and where it came from, for messages: "`${env:HF_TOKEN}`".
#[derive(Debug, Clone)]
pub struct Found {
    pub secret: Secret,
    pub origin: String,
}

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("the environment variable `{name}` is not set")]
    Unset { name: String },
    #[error("there is no file {}", path.display())]
    NoFile { path: PathBuf },
    #[error("read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{origin} is empty")]
    Empty { origin: String },
    #[error("{origin} has a blank or a character that no token has")]
    NotAToken { origin: String },
}

/// Looks a reference up. A path is relative to the project folder; `~/` is the user's own.
pub fn look_up(reference: &SecretRef, project: &Path) -> Result<Found, SecretError> {
    let text = match reference {
        SecretRef::Env(name) => match env::var(name) {
            Ok(text) => text,
            Err(env::VarError::NotPresent) => return Err(SecretError::Unset { name: name.clone() }),
            Err(env::VarError::NotUnicode(_)) => {
                return Err(SecretError::NotAToken { origin: format!("`{reference}`") });
            }
        },
        SecretRef::File(path) => read(&absolute(path, project))?,
    };
    token(&text, format!("`{reference}`"))
}

/// The text of a file.
pub fn read(path: &Path) -> Result<String, SecretError> {
    fs::read_to_string(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => SecretError::NoFile { path: path.to_owned() },
        _ => SecretError::Read { path: path.to_owned(), source },
    })
}

/// A text that can be sent as a token: what else a header could not take is refused here, since the library that sends it
/// would show it.
pub fn token(text: &str, origin: String) -> Result<Found, SecretError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(SecretError::Empty { origin });
    }
    if !text.chars().all(|c| c.is_ascii_graphic()) {
        return Err(SecretError::NotAToken { origin });
    }
    Ok(Found { secret: Secret::new(text), origin })
}

fn absolute(path: &str, project: &Path) -> PathBuf {
    let home = || env::var_os("HOME").filter(|home| !home.is_empty());
    match path.strip_prefix("~/").zip(home()) {
        Some((rest, home)) => Path::new(&home).join(rest),
        None => project.join(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_is_not_there_is_named_and_one_that_is_no_token_not_shown() {
        let said = |reference: SecretRef| match look_up(&reference, Path::new("nowhere")) {
            Ok(found) => format!("{found:?}"),
            Err(error) => error.to_string(),
        };
        let unset = SecretRef::Env("SLUICE_NO_SUCH_VARIABLE".to_owned());
        assert_eq!(said(unset), "the environment variable `SLUICE_NO_SUCH_VARIABLE` is not set");
        assert_eq!(said(SecretRef::File("token".to_owned())), "there is no file nowhere/token");
        let check = |text: &str, expected: &str| {
            let said = token(text, "`${env:T}`".to_owned())
                .map_or_else(|error| error.to_string(), |found| format!("{found:?}"));
            assert_eq!(said, expected);
        };
        check(" hf_abc\n", "Found { secret: ***, origin: \"`${env:T}`\" }");
        check(" \n", "`${env:T}` is empty");
        check("hf abc", "`${env:T}` has a blank or a character that no token has");
        check("hf_ä", "`${env:T}` has a blank or a character that no token has");
    }
}

//! Values that nobody may see: the references that stand for them in a file, and the type that holds one.
//! Owns that a secret is never printed, compared or stored; refuses to look one up, which is done outside, and only when
//! it is needed.

use std::fmt;

use crate::diagnostic::{Code, Diagnostic};
use crate::reader::{Read, Reader};
use crate::tree::{Node, Value};

/// Where a secret is accepted, for messages.
pub(crate) const EXAMPLE: &str = "models.policy.token";

/// Where a secret is to be found. This is all that a pipeline knows of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SecretRef {
    /// `${env:NAME}`: an environment variable.
    Env(String),
    /// `${file:PATH}`: a file, relative to the project folder; blanks around its text are not part of it.
    File(String),
}

impl fmt::Display for SecretRef {
    /// As it is written in a file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretRef::Env(name) => write!(f, "${{env:{name}}}"),
            SecretRef::File(path) => write!(f, "${{file:{path}}}"),
        }
    }
}

impl SecretRef {
    /// What stands between the braces of a reference, if it names a secret; `Err` says what is wrong with the name.
    pub(crate) fn parse(reference: &str) -> Option<Result<SecretRef, String>> {
        let (kind, name) = reference.trim().split_once(':')?;
        let name = name.trim();
        match kind.trim_end() {
            "env" if is_variable(name) => Some(Ok(SecretRef::Env(name.to_owned()))),
            "env" => {
                Some(Err(format!("`{name}` is not the name of an environment variable; write `${{env:HF_TOKEN}}`")))
            }
            "file" if !name.is_empty() => Some(Ok(SecretRef::File(name.to_owned()))),
            "file" => Some(Err("a path is needed behind `file:`; write `${file:PATH}`".to_owned())),
            _ => None,
        }
    }

    /// What a value that came from here would be, for the message that it may not: "an environment variable".
    pub(crate) fn origin(&self) -> &'static str {
        match self {
            SecretRef::Env(_) => "an environment variable",
            SecretRef::File(_) => "the text of a file",
        }
    }

    /// The message for a place that takes no secret.
    pub(crate) fn misplaced(&self, whereabouts: &str) -> String {
        let origin = self.origin();
        format!("{whereabouts} is `{self}`, but {origin} is only read for a secret such as `{EXAMPLE}`")
    }
}

fn is_variable(name: &str) -> bool {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    plain && name.starts_with(|c: char| !c.is_ascii_digit())
}

impl Read for SecretRef {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.value {
            Value::Secret(secret) => Some(secret.clone()),
            Value::Broken => None,
            // What stands there may be the secret itself: it is not repeated, and the text it stands in is masked.
            _ => {
                let message = format!(
                    "{} must be `${{env:NAME}}` or `${{file:PATH}}`, never the secret itself",
                    reader.whereabouts()
                );
                let fault = Diagnostic::new(Code::Secret, node.span, message);
                reader.report(fault.help("put it into an environment variable or a file, and name that here"));
                None
            }
        }
    }
}

/// The text of a secret. It has no `Display`, no equality and no stored form, and its `Debug` form is `***`.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text, for whoever has to send it where it belongs.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        let held = (Secret::new("hf_abc"), Some(vec![Secret::new("hf_abc")]));
        assert_eq!(format!("{held:?}"), "(***, Some([***]))");
        assert_eq!(format!("{held:#?}").matches("hf_abc").count(), 0);
    }

    #[test]
    fn references_to_secrets() {
        let parsed = |text: &str| match SecretRef::parse(text) {
            None => "no secret".to_owned(),
            Some(Ok(secret)) => secret.to_string(),
            Some(Err(message)) => message,
        };
        let cases = [
            ("env:HF_TOKEN", "${env:HF_TOKEN}"),
            (" env: _a1 ", "${env:_a1}"),
            ("file:~/.hf/token", "${file:~/.hf/token}"),
            ("params.seed", "no secret"),
            ("environment:X", "no secret"),
        ];
        for (text, expected) in cases {
            assert_eq!(parsed(text), expected);
        }
        assert!(parsed("env:1A").contains("is not the name of an environment variable"));
        assert!(parsed("env:").contains("is not the name of an environment variable"));
        assert!(parsed("file: ").contains("a path is needed"));
    }
}

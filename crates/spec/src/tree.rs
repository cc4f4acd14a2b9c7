//! A YAML document as a tree in which every value and key knows its place.
//! Owns the shape; refuses to know what any key means.

use crate::secret::SecretRef;
use crate::span::Span;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub struct Node {
    pub value: Value,
    pub span: Span,
}

/// What YAML 1.2's core schema makes of a value.
#[derive(Debug, Clone)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    List(Vec<Node>),
    /// Keys in the order of the file, each once.
    Map(Vec<Entry>),
    /// A text, or the whole value, that waits for the values of a matrix. None is left when a stage is read.
    Open(Vec<Part>),
    /// `${env:NAME}` or `${file:PATH}`, which only a reader of secrets takes.
    Secret(SecretRef),
    /// Something whose fault is already reported; reading it stays silent.
    Broken,
}

/// A piece of a text that waits for the values of a matrix.
#[derive(Debug, Clone)]
pub enum Part {
    Text(String),
    /// `${matrix.lr}`: an axis, and the keys below its value.
    Axis(Vec<String>),
}

/// A key with its value.
#[derive(Debug, Clone)]
pub struct Entry {
    pub key: Key,
    pub value: Node,
}

/// A key and where it stands.
#[derive(Debug, Clone)]
pub struct Key {
    pub text: String,
    pub span: Span,
}

impl Node {
    pub(crate) fn broken(span: Span) -> Node {
        Node { value: Value::Broken, span }
    }

    pub(crate) fn empty_map(span: Span) -> Node {
        Node { value: Value::Map(Vec::new()), span }
    }

    /// The entries of a map; a null counts as a map without entries.
    pub(crate) fn entries(&self) -> Option<&[Entry]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            Value::Null => Some(&[]),
            _ => None,
        }
    }

    /// The value under `key`, if this is a map that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        let entry = self.entries()?.iter().find(|entry| entry.key.text == key)?;
        Some(&entry.value)
    }

    /// The value in words, for messages: "the text `warm`", "a list".
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(value) => format!("{value}"),
            Value::Int(value) => format!("{value}"),
            Value::Float(value) => format!("{value:?}"),
            Value::Str(text) => format!("the text `{}`", shortened(text)),
            Value::List(items) if items.is_empty() => "an empty list".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Map(entries) if entries.is_empty() => "an empty map".to_owned(),
            Value::Map(_) => "a map".to_owned(),
            Value::Open(_) => "a reference to a matrix".to_owned(),
            Value::Secret(secret) => format!("`{secret}`"),
            Value::Broken => "something unreadable".to_owned(),
        }
    }
}

/// The first line of a text, cut to a length that fits into a message.
fn shortened(text: &str) -> String {
    const MAX_CHARS: usize = 40;
    let line = text.lines().next().unwrap_or("");
    if line.chars().count() > MAX_CHARS || line.len() < text.trim_end().len() {
        format!("{}…", line.chars().take(MAX_CHARS).collect::<String>())
    } else {
        line.to_owned()
    }
}

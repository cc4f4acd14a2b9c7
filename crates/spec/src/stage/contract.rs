//! The contract of a stage: which columns its table has, of which types, and whether they may be null or absent.
//!
//! Owns the words for types and what they mean; refuses to know the types of a table, which whoever has one compares with
//! these. What is known beforehand is checked beforehand; the rest is checked when the stage has its result, as a test of
//! severity `error` named `columns`: the result stays, and what reads the stage does not run.
//!
//! ```yaml
//! columns: { prompt_id: text!, margin: float32!, label?: bool, "*": none }
//! ```
//!
//! A type ends in `!` where no row is null; a name ends in `?` where the column may be absent. Further columns may be
//! there, unless `"*": none` says otherwise. The types are `text`, `bool`, `int8` to `int64`, `uint8` to `uint64`,
//! `float16` to `float64`, `date`, `timestamp`, `decimal`, `list<TYPE>`, `map<TYPE>` (from texts to a type) and `any`.

use std::fmt;

use crate::diagnostic::{Code, Diagnostic};
use crate::leaf::{LeafSink, LeafValue};
use crate::reader::{Read, Reader};
use crate::span::Span;
use crate::suggest::did_you_mean;
use crate::tree::{Entry, Node, Value};

/// Which columns a table has.
#[derive(Debug, Clone, PartialEq)]
pub struct Contract {
    /// In the order of the file, each once.
    pub columns: Vec<ColumnRule>,
    /// Whether the table may have further columns.
    pub open: bool,
}

/// What one column is.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnRule {
    pub name: String,
    pub kind: ColumnType,
    /// No row is null.
    pub not_null: bool,
    /// The column may be absent.
    pub optional: bool,
    /// Where the type stands.
    pub place: Span,
}

/// The type of a column, in the words of a pipeline file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnType {
    /// Whatever it is.
    Any,
    Text,
    Bool,
    /// With so many bits.
    Int(u8),
    UInt(u8),
    Float(u8),
    Date,
    Timestamp,
    Decimal,
    List(Box<ColumnType>),
    /// From texts to this type.
    Map(Box<ColumnType>),
}

impl Contract {
    pub(crate) fn leaves(&self, sink: &mut dyn LeafSink) {
        let Contract { columns, open } = self;
        sink.leaf("open", LeafValue::Bool(*open), None);
        for rule in columns {
            let ColumnRule { name, kind: _, not_null: _, optional, place } = rule;
            let optional = if *optional { "?" } else { "" };
            sink.leaf(&format!("columns.{name}{optional}"), LeafValue::Str(rule.expected()), Some(*place));
        }
    }

    /// The rule for a column.
    pub fn rule(&self, column: &str) -> Option<&ColumnRule> {
        self.columns.iter().find(|rule| rule.name == column)
    }
}

impl ColumnRule {
    /// The type as it is written: `float32!`.
    pub fn expected(&self) -> String {
        format!("{}{}", self.kind, if self.not_null { "!" } else { "" })
    }
}

impl fmt::Display for ColumnType {
    /// As it is written in a file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ColumnType::Any => f.write_str("any"),
            ColumnType::Text => f.write_str("text"),
            ColumnType::Bool => f.write_str("bool"),
            ColumnType::Int(bits) => write!(f, "int{bits}"),
            ColumnType::UInt(bits) => write!(f, "uint{bits}"),
            ColumnType::Float(bits) => write!(f, "float{bits}"),
            ColumnType::Date => f.write_str("date"),
            ColumnType::Timestamp => f.write_str("timestamp"),
            ColumnType::Decimal => f.write_str("decimal"),
            ColumnType::List(of) => write!(f, "list<{of}>"),
            ColumnType::Map(of) => write!(f, "map<{of}>"),
        }
    }
}

impl ColumnType {
    /// The types that are one word.
    const WORDS: [(&'static str, ColumnType); 17] = [
        ("any", ColumnType::Any),
        ("text", ColumnType::Text),
        ("bool", ColumnType::Bool),
        ("int8", ColumnType::Int(8)),
        ("int16", ColumnType::Int(16)),
        ("int32", ColumnType::Int(32)),
        ("int64", ColumnType::Int(64)),
        ("uint8", ColumnType::UInt(8)),
        ("uint16", ColumnType::UInt(16)),
        ("uint32", ColumnType::UInt(32)),
        ("uint64", ColumnType::UInt(64)),
        ("float16", ColumnType::Float(16)),
        ("float32", ColumnType::Float(32)),
        ("float64", ColumnType::Float(64)),
        ("date", ColumnType::Date),
        ("timestamp", ColumnType::Timestamp),
        ("decimal", ColumnType::Decimal),
    ];

    /// What other systems call them.
    const ALIASES: [(&'static str, &'static str); 12] = [
        ("string", "text"),
        ("str", "text"),
        ("utf8", "text"),
        ("varchar", "text"),
        ("boolean", "bool"),
        ("int", "int64"),
        ("integer", "int64"),
        ("bigint", "int64"),
        ("float", "float32"),
        ("real", "float32"),
        ("double", "float64"),
        ("datetime", "timestamp"),
    ];

    /// Whether a column of a type is what this says; `found` is the word for that type.
    pub fn accepts(&self, found: &str) -> bool {
        let inner = |outer: &str| found.strip_prefix(outer)?.strip_prefix('<')?.strip_suffix('>');
        match self {
            ColumnType::Any => true,
            ColumnType::List(of) => inner("list").is_some_and(|found| of.accepts(found)),
            ColumnType::Map(of) => inner("map").is_some_and(|found| of.accepts(found)),
            word => word.to_string() == found,
        }
    }

    fn parse(text: &str) -> Option<ColumnType> {
        let inner = |outer: &str| text.strip_prefix(outer)?.strip_prefix('<')?.strip_suffix('>').map(str::trim);
        if let Some(of) = inner("list") {
            return Some(ColumnType::List(Box::new(ColumnType::parse(of)?)));
        }
        if let Some(of) = inner("map") {
            return Some(ColumnType::Map(Box::new(ColumnType::parse(of)?)));
        }
        Self::WORDS.iter().find(|(word, _)| *word == text).map(|(_, kind)| kind.clone())
    }

    /// What a word that is no type was meant to be.
    fn suggestion(text: &str) -> String {
        let folded = text.to_ascii_lowercase();
        let alias = Self::ALIASES.iter().find(|(alias, _)| *alias == folded).map(|(_, word)| format!("write `{word}`"));
        alias.or_else(|| did_you_mean(&folded, Self::WORDS.iter().map(|(word, _)| *word))).unwrap_or_else(|| {
            "the types are text, bool, int32, uint32, float32, .., date, timestamp, decimal, list<TYPE>, map<TYPE> and any"
                .to_owned()
        })
    }
}

impl Read for Contract {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(entries) = node.entries() else {
            return reader.wrong_type(node, "a map from columns to types, as in `{ prompt_id: text! }`");
        };
        let mut contract = Contract { columns: Vec::new(), open: true };
        for entry in entries {
            let Entry { key, value } = entry;
            if key.text == "*" {
                reader.under("*", key.span, |reader| {
                    contract.open = reader.word(value, &["any", "none"]) != Some(1);
                });
                continue;
            }
            let (name, optional) = match key.text.strip_suffix('?') {
                Some(name) => (name, true),
                None => (key.text.as_str(), false),
            };
            if let Some(first) = contract.rule(name) {
                let message = format!("{} has `{name}` twice", reader.whereabouts());
                let fault = Diagnostic::new(Code::SpeltTwice, key.span, message);
                reader.report(fault.related(first.place, "first").help("keep one of them"));
                continue;
            }
            let Some((kind, not_null)) = reader.under(&key.text, key.span, |reader| read_type(value, reader)) else {
                continue;
            };
            contract.columns.push(ColumnRule { name: name.to_owned(), kind, not_null, optional, place: value.span });
        }
        Some(contract)
    }
}

/// A type, and whether it ends in `!`.
fn read_type(node: &Node, reader: &mut Reader<'_>) -> Option<(ColumnType, bool)> {
    let Value::Str(_) = &node.value else { return reader.wrong_type(node, "a type, a text such as `float32!`") };
    let text = String::read(node, reader)?;
    let (word, not_null) = match text.trim().strip_suffix('!') {
        Some(word) => (word.trim_end(), true),
        None => (text.trim(), false),
    };
    if let Some(kind) = ColumnType::parse(word) {
        return Some((kind, not_null));
    }
    let message = format!("{} is `{text}`, which is no type", reader.whereabouts());
    reader.report(Diagnostic::new(Code::OutOfRange, node.span, message).help(ColumnType::suggestion(word)));
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_as_they_are_written() {
        let nested = ["list<uint32>", "map<float32>", "list<list<text>>", "map<list<bool>>"];
        for word in ColumnType::WORDS.iter().map(|(word, _)| *word).chain(nested) {
            assert_eq!(ColumnType::parse(word).map(|kind| kind.to_string()).as_deref(), Some(word));
        }
        let accepts = |kind: &str, found: &str| ColumnType::parse(kind).is_some_and(|kind| kind.accepts(found));
        assert!(
            accepts("any", "Binary")
                && accepts("list<any>", "list<list<text>>")
                && accepts("map<float32>", "map<float32>")
        );
        assert!(
            !accepts("list<uint32>", "list<int32>") && !accepts("list<any>", "text") && !accepts("float32", "float64")
        );
        for word in ["", "list", "list<>", "list<string>", "text!", "Text"] {
            assert_eq!(ColumnType::parse(word), None, "{word}");
        }
        for (alias, word) in ColumnType::ALIASES {
            assert!(ColumnType::parse(word).is_some(), "{alias}");
            assert_eq!(ColumnType::suggestion(alias), format!("write `{word}`"));
        }
    }
}

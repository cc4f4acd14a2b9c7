//! The typed reader over the located tree: asks for fields by name and type, and reports every fault on the way.
//! Owns the wording of type and key faults; refuses to know the stage kinds.

mod fields;
mod refs;

use crate::cell::Pinned;
use crate::diagnostic::{Code, Diagnostic};
use crate::index::Index;
use crate::matrix::CellReads;
use crate::names::StageName;
use crate::span::{Located, Span};
use crate::suggest::did_you_mean;
use crate::tree::{Node, Value};

pub(crate) use fields::Fields;

/// A type that can be read from a value. `None` means that the fault is reported.
pub(crate) trait Read: Sized {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self>;
}

/// Where reading stands, what names exist, and the faults found so far.
pub(crate) struct Reader<'a> {
    pub(crate) index: &'a Index,
    faults: &'a mut Vec<Diagnostic>,
    /// The owner of what is read, for messages: "stage `pairs`".
    subject: String,
    /// The keys from the subject down to the value being read.
    trail: Vec<String>,
    /// The innermost of these keys: where a missing key is shown.
    head: Span,
    /// The stages that were named so far.
    reads: Vec<StageRead>,
    /// The stages that names stand for in the cell that is read.
    cells: Option<&'a CellReads>,
    /// Whether data tests are read.
    in_tests: bool,
}

/// A stage that is named, perhaps with the values that pin a cell of it.
#[derive(Debug, Clone)]
pub(crate) struct StageRead {
    pub pinned: Pinned,
    /// Where it is named first.
    pub place: Span,
    /// What names it, for the beginning of a message.
    pub whereabouts: String,
    /// Whether only data tests name it. The stage waits for none of those, and has its cells without them.
    pub only_in_tests: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(index: &'a Index, faults: &'a mut Vec<Diagnostic>, subject: &str, head: Span) -> Self {
        let (trail, reads) = (Vec::new(), Vec::new());
        Reader { index, faults, subject: subject.to_owned(), trail, head, reads, cells: None, in_tests: false }
    }

    /// Reads names of stages as they are meant in one cell.
    pub(crate) fn in_cell(self, cells: Option<&'a CellReads>) -> Self {
        Reader { cells, ..self }
    }

    /// Reads the data tests of a stage.
    pub(crate) fn in_tests<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> T {
        self.in_tests = true;
        let value = read(self);
        self.in_tests = false;
        value
    }

    /// The stages that were named.
    pub(crate) fn into_reads(self) -> Vec<StageRead> {
        self.reads
    }

    /// Whether the subject is the stage of this name.
    fn is_stage(&self, name: &StageName) -> bool {
        self.subject == format!("stage `{name}`")
    }

    pub(crate) fn report(&mut self, fault: Diagnostic) {
        self.faults.push(fault);
    }

    /// "stage `pairs`: `pair.ties`", for the beginning of a message.
    pub(crate) fn whereabouts(&self) -> String {
        match (self.subject.as_str(), self.trail.join(".")) {
            (subject, trail) if trail.is_empty() => subject.to_owned(),
            ("", trail) => format!("`{trail}`"),
            (subject, trail) => format!("{subject}: `{trail}`"),
        }
    }

    /// Reads the value under a key, with the key on the trail.
    pub(crate) fn under<T>(&mut self, key: &str, head: Span, read: impl FnOnce(&mut Self) -> T) -> T {
        let outer = std::mem::replace(&mut self.head, head);
        self.trail.push(key.to_owned());
        let value = read(self);
        self.trail.pop();
        self.head = outer;
        value
    }

    /// Reports that a value is of another type than `expected`.
    pub(crate) fn wrong_type<T>(&mut self, node: &Node, expected: &str) -> Option<T> {
        match &node.value {
            Value::Broken => return None,
            Value::Secret(secret) => {
                let message = secret.misplaced(&self.whereabouts());
                let fault = Diagnostic::new(Code::Reference, node.span, message);
                self.report(fault.help("write the value, or give it with `--set`"));
                return None;
            }
            _ => {}
        }
        let message = format!("{} must be {expected}, not {}", self.whereabouts(), node.describe());
        let mut fault = Diagnostic::new(Code::WrongType, self.place(node), message);
        fault.help = type_help(node, expected);
        self.report(fault);
        None
    }

    /// Reports that a value of the right type lies outside of what is allowed.
    pub(crate) fn out_of_range<T>(&mut self, node: &Node, allowed: &str) -> Option<T> {
        let message = format!("{} must be {allowed}, not {}", self.whereabouts(), node.describe());
        self.report(Diagnostic::new(Code::OutOfRange, self.place(node), message));
        None
    }

    /// The place of a value; an absent one is shown at its key.
    fn place(&self, node: &Node) -> Span {
        let is_absent = matches!(node.value, Value::Null) && node.span.len == 0;
        if is_absent && node.span.source == self.head.source { self.head } else { node.span }
    }

    /// A finite number; a whole number will do.
    pub(crate) fn number(&mut self, node: &Node, expected: &str) -> Option<f64> {
        match node.value {
            Value::Float(value) => Some(value),
            Value::Int(value) => Some(value as f64),
            _ => self.wrong_type(node, expected),
        }
    }

    pub(crate) fn integer(&mut self, node: &Node, expected: &str) -> Option<i64> {
        match node.value {
            Value::Int(value) => Some(value),
            Value::Float(_) => self.out_of_range(node, expected),
            _ => self.wrong_type(node, expected),
        }
    }

    /// The index of the value among `words`.
    pub(crate) fn word(&mut self, node: &Node, words: &[&'static str]) -> Option<usize> {
        let expected = one_of(words);
        let Value::Str(text) = &node.value else {
            return self.wrong_type(node, &expected);
        };
        let found = words.iter().position(|word| word == text);
        if found.is_none() {
            let message = format!("{} must be {expected}, not `{text}`", self.whereabouts());
            let mut fault = Diagnostic::new(Code::OutOfRange, node.span, message);
            fault.help = did_you_mean(text, words.iter().copied());
            self.report(fault);
        }
        found
    }

    /// The one key of a map that says which of several things it is, and what stands under that key. The keys in `beside`
    /// may be there too.
    pub(crate) fn one_of<'n>(
        &mut self,
        node: &'n Node,
        names: &[&'static str],
        beside: &[&'static str],
    ) -> Option<(&'static str, &'n Node, Span)> {
        let expected = match beside {
            [] => format!("a map with one key: {}", one_of(names)),
            _ => format!("a map with one of the keys {}", one_of(names)),
        };
        let entries = match &node.value {
            Value::Map(entries) => entries.as_slice(),
            Value::Str(text) if names.contains(&text.as_str()) => {
                let message = format!("{} must be {expected}, not {}", self.whereabouts(), node.describe());
                let fault = Diagnostic::new(Code::WrongType, node.span, message);
                self.report(fault.help(format!("write `{{ {text}: {{}} }}`")));
                return None;
            }
            _ => return self.wrong_type(node, &expected),
        };
        let known = |text: &str| names.iter().copied().find(|name| *name == text);
        if let Some(tag) = entries.iter().find(|entry| entry.key.text == "kind") {
            let name = match &tag.value.value {
                Value::Str(name) => known(name),
                _ => None,
            };
            let message = format!("{} has no key `kind`: the kind is itself the key", self.whereabouts());
            let fault = Diagnostic::new(Code::UnknownKey, tag.key.span, message);
            self.report(fault.help(format!("write `{}: {{ ... }}`", name.unwrap_or(names[0]))));
            return None;
        }
        let mut n_unknown = 0;
        let is_known = |text: &str| known(text).is_some() || beside.contains(&text);
        for entry in entries.iter().filter(|entry| !is_known(&entry.key.text)) {
            n_unknown += 1;
            let message = format!("{} has no `{}`", self.whereabouts(), entry.key.text);
            let free = beside.iter().filter(|key| entries.iter().all(|entry| entry.key.text != **key));
            let help =
                did_you_mean(&entry.key.text, names.iter().chain(free).copied()).unwrap_or_else(|| match beside {
                    [] => format!("it is {}", one_of(names)),
                    _ => format!("it is {}; beside that it may have {}", one_of(names), one_of(beside)),
                });
            self.report(Diagnostic::new(Code::UnknownKey, entry.key.span, message).help(help));
        }
        let mut chosen = entries.iter().filter_map(|entry| Some((known(&entry.key.text)?, entry)));
        let first = chosen.next();
        if let (Some((name, first)), Some((other, second))) = (first, chosen.next()) {
            let message = format!("{} is both `{name}` and `{other}`", self.whereabouts());
            let fault = Diagnostic::new(Code::Contradiction, second.key.span, message);
            self.report(fault.related(first.key.span, "first").help("keep one of them"));
        } else if entries.is_empty() {
            self.wrong_type::<()>(node, &expected);
        } else if first.is_none() && n_unknown == 0 {
            let message = format!("{} does not say what it is", self.whereabouts());
            let fault = Diagnostic::new(Code::MissingKey, self.head, message);
            self.report(fault.help(format!("add one of the keys {}", one_of(names))));
        }
        first.map(|(name, entry)| (name, &entry.value, entry.key.span))
    }
}

/// "`a`, `b` or `c`".
fn one_of(words: &[&'static str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

/// What to write instead of a value of the wrong type, where that can be told.
fn type_help(node: &Node, expected: &str) -> Option<String> {
    match &node.value {
        Value::Str(text) if expected == bool::EXPECTED => match text.to_lowercase().as_str() {
            "yes" | "on" | "y" => Some(format!("`{text}` is a text in YAML 1.2; write `true`")),
            "no" | "off" | "n" => Some(format!("`{text}` is a text in YAML 1.2; write `false`")),
            _ => None,
        },
        Value::Str(text)
            if expected.contains("number") && text.replace('_', "").parse::<f64>().is_ok_and(f64::is_finite) =>
        {
            Some(format!("write {} without quotes and underscores", text.replace('_', "")))
        }
        Value::Bool(_) | Value::Int(_) | Value::Float(_) if expected.contains("text") => {
            Some("put it in quotes to make it a text".to_owned())
        }
        _ => None,
    }
}

/// What a type is called in a message.
trait Expected {
    const EXPECTED: &'static str;
}

impl Expected for bool {
    const EXPECTED: &'static str = "`true` or `false`";
}

impl Read for bool {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        match node.value {
            Value::Bool(value) => Some(value),
            _ => reader.wrong_type(node, Self::EXPECTED),
        }
    }
}

impl Read for String {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.value {
            Value::Str(text) if text.trim().is_empty() => reader.out_of_range(node, "a text that is not empty"),
            Value::Str(text) => Some(text.clone()),
            _ => reader.wrong_type(node, "a text"),
        }
    }
}

/// Null stands for "not given", so that `--set a.b=` and a profile can take an option away.
impl<T: Read> Read for Option<T> {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        match node.value {
            Value::Null => Some(None),
            _ => T::read(node, reader).map(Some),
        }
    }
}

impl<T: Read> Read for Vec<T> {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let Value::List(items) = &node.value else {
            return reader.wrong_type(node, "a list");
        };
        // Every item is read before the first fault ends it, so that all of them are reported.
        let read: Vec<Option<T>> = items.iter().map(|item| T::read(item, reader)).collect();
        read.into_iter().collect()
    }
}

impl<T: Read> Read for Located<T> {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        Some(Located::at(T::read(node, reader)?, node.span))
    }
}

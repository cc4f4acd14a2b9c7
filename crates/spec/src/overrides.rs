//! `--set a.b=c`: values put into the document from outside of the file.
//! Owns the path syntax and where a path may lead; refuses to know what the values mean.

use crate::diagnostic::{Code, Diagnostic};
use crate::span::{SourceId, Span};
use crate::suggest::did_you_mean;
use crate::tree::{Entry, Key, Node, Value};
use crate::yaml;

/// One `--set` argument, taken apart.
pub(crate) struct Override {
    /// The path from the document root; never empty.
    pub path: Vec<Key>,
    pub value: Node,
    /// The whole path, where a fault of it is shown.
    pub place: Span,
}

impl Override {
    /// Takes `a.b=c` apart, the value read as YAML.
    pub(crate) fn parse(index: usize, text: &str, faults: &mut Vec<Diagnostic>) -> Option<Override> {
        let source = SourceId::set(index);
        let (path, value) = text.split_once('=').unwrap_or((text, ""));
        let place = span(source, text, 0, path.len());
        let mut keys = Vec::new();
        let mut offset = 0;
        for word in path.split('.') {
            keys.push(Key { text: word.to_owned(), span: span(source, text, offset, word.len()) });
            offset += word.len() + 1;
        }
        if !text.contains('=') || keys.iter().any(|key| key.text.trim().is_empty()) {
            let message = format!("`{text}` is not of the form `PATH=VALUE`");
            let fault = Diagnostic::new(Code::Override, place, message);
            faults.push(fault.help("for example `--set params.seed=1`"));
            return None;
        }
        let n_before = faults.len();
        let value_at = span(source, text, path.len() + 1, value.len());
        let parsed = yaml::parse(value, source, faults);
        for fault in &mut faults[n_before..] {
            fault.place = shifted(fault.place, value_at);
        }
        let mut value = parsed?;
        shift(&mut value, value_at);
        Some(Override { path: keys, value, place })
    }

    /// The first key: which part of the document is meant.
    pub(crate) fn root(&self) -> &str {
        self.path.first().map_or("", |key| key.text.as_str())
    }

    /// Puts the value into `root`. The first `n_known` keys must be there already, the others are made.
    pub(crate) fn apply(self, root: &mut Node, n_known: usize, faults: &mut Vec<Diagnostic>) {
        let Override { path, value, place } = self;
        let Some((last, parents)) = path.split_last() else { return };
        let mut node = root;
        for (depth, key) in parents.iter().enumerate() {
            let walked = walked(&path[..depth]);
            match child(node, key, &walked, depth < n_known, place, faults) {
                Some(next) => node = next,
                None => return,
            }
        }
        let walked = walked(parents);
        if let Some(slot) = child(node, last, &walked, path.len() <= n_known, place, faults) {
            *slot = value;
        }
    }
}

/// The value under `key`, made when it is missing and need not be known.
fn child<'n>(
    node: &'n mut Node,
    key: &Key,
    walked: &str,
    known: bool,
    place: Span,
    faults: &mut Vec<Diagnostic>,
) -> Option<&'n mut Node> {
    if matches!(node.value, Value::Null) {
        node.value = Value::Map(Vec::new());
    }
    let described = node.describe();
    let entries = match &mut node.value {
        Value::Map(entries) => entries,
        Value::Broken => return None,
        _ => {
            let message = format!("`{walked}` is {described}, so there is no `{}` in it to set", key.text);
            let fault = Diagnostic::new(Code::Override, place, message);
            faults.push(fault.help(format!("set the whole: `--set '{walked}=...'`")));
            return None;
        }
    };
    let found = entries.iter().position(|entry| entry.key.text == key.text);
    if found.is_none() && known {
        let keys: Vec<&str> = entries.iter().map(|entry| entry.key.text.as_str()).collect();
        let within = if walked.is_empty() { "a pipeline file" } else { &format!("`{walked}`") };
        let message = format!("{within} has no `{}` to set", key.text);
        let mut fault = Diagnostic::new(Code::Override, key.span, message);
        fault.help = did_you_mean(&key.text, keys.iter().copied())
            .or_else(|| (!keys.is_empty()).then(|| format!("it has {}", keys.join(", "))));
        faults.push(fault);
        return None;
    }
    let at = found.unwrap_or_else(|| {
        entries.push(Entry { key: key.clone(), value: Node::empty_map(key.span) });
        entries.len() - 1
    });
    entries.get_mut(at).map(|entry| &mut entry.value)
}

fn walked(path: &[Key]) -> String {
    path.iter().map(|key| key.text.as_str()).collect::<Vec<_>>().join(".")
}

fn span(source: SourceId, text: &str, offset: usize, len: usize) -> Span {
    let before = text.get(..offset).unwrap_or("");
    let as_u32 = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Span { source, offset: as_u32(offset), len: as_u32(len), line: 1, column: as_u32(before.chars().count() + 1) }
}

/// Moves a value's spans from its own text to the whole argument.
fn shift(node: &mut Node, by: Span) {
    node.span = shifted(node.span, by);
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| shift(item, by)),
        Value::Map(entries) => {
            for entry in entries {
                entry.key.span = shifted(entry.key.span, by);
                shift(&mut entry.value, by);
            }
        }
        _ => {}
    }
}

fn shifted(span: Span, by: Span) -> Span {
    let column = if span.line == 1 { span.column + by.column - 1 } else { span.column };
    Span { source: by.source, offset: span.offset + by.offset, column, ..span }
}

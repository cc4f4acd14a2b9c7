//! The values of one cell put in the place of `${matrix.x}`.
//!
//! Owns lookup in a cell and text insertion. A reference that is the whole value takes the matrix's value with its type
//! and its place; inside a longer text the value is spelt out, and the place stays that of the text.

use crate::diagnostic::{Code, Diagnostic};
use crate::interpolate::{closed, spelt};
use crate::matrix::axes::Point;
use crate::span::Span;
use crate::suggest::did_you_mean;
use crate::tree::{Entry, Node, Part, Value};

/// Whether anything in a value waits for a matrix.
pub(super) fn is_open(node: &Node) -> bool {
    match &node.value {
        Value::Open(_) => true,
        Value::List(items) => items.iter().any(is_open),
        Value::Map(entries) => entries.iter().any(|entry| is_open(&entry.value)),
        _ => false,
    }
}

/// The names of the axes that a value waits for.
pub(super) fn axes_of(node: &Node, found: &mut Vec<String>) {
    match &node.value {
        Value::Open(parts) => {
            let axes = parts.iter().filter_map(|part| match part {
                Part::Axis(keys) => keys.first().cloned(),
                Part::Text(_) => None,
            });
            found.extend(axes);
        }
        Value::List(items) => items.iter().for_each(|item| axes_of(item, found)),
        Value::Map(entries) => entries.iter().for_each(|entry| axes_of(&entry.value, found)),
        _ => {}
    }
}

/// What becomes of a reference to an axis that the cell does not have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unknown {
    /// It may be an axis of a stage that is read, which is not known yet.
    Unsettled,
    Fault,
}

/// A copy of `node` with the values of a cell in it.
pub(super) fn fill(node: &Node, stage: &str, cell: &[Point], unknown: Unknown, faults: &mut Vec<Diagnostic>) -> Node {
    Filler { stage, cell, unknown, faults }.node(node)
}

struct Filler<'a, 'f> {
    stage: &'a str,
    cell: &'a [Point],
    unknown: Unknown,
    faults: &'f mut Vec<Diagnostic>,
}

impl Filler<'_, '_> {
    fn node(&mut self, node: &Node) -> Node {
        let value = match &node.value {
            Value::Open(parts) => return self.open(parts, node.span),
            Value::List(items) => Value::List(items.iter().map(|item| self.node(item)).collect()),
            Value::Map(entries) => {
                let entry = |entry: &Entry| Entry { key: entry.key.clone(), value: self.node(&entry.value) };
                Value::Map(entries.iter().map(entry).collect())
            }
            other => other.clone(),
        };
        Node { value, span: node.span }
    }

    fn open(&mut self, parts: &[Part], span: Span) -> Node {
        if let [Part::Axis(keys)] = parts {
            return self.value(keys, span).cloned().unwrap_or(Node::broken(span));
        }
        let mut filled = Vec::new();
        for part in parts {
            match part {
                Part::Text(text) => filled.push(Part::Text(text.clone())),
                Part::Axis(keys) => {
                    let Some(node) = self.value(keys, span) else { return Node::broken(span) };
                    match spelt(&written(keys), node, span) {
                        Ok(parts) => filled.extend(parts),
                        Err(fault) => {
                            self.faults.extend(fault);
                            return Node::broken(span);
                        }
                    }
                }
            }
        }
        Node { value: closed(filled), span }
    }

    /// The value that keys lead to; the first of them is the axis.
    fn value(&mut self, keys: &[String], span: Span) -> Option<&Node> {
        let (axis, below) = keys.split_first()?;
        let Some(point) = self.cell.iter().find(|point| point.coordinate.axis == *axis) else {
            if self.unknown == Unknown::Fault {
                self.unknown_axis(axis, keys, span);
            }
            return None;
        };
        let mut node = point.node.as_ref();
        for key in below {
            let Some(next) = node.get(key) else {
                let path = written(keys);
                let message = format!("`${{{path}}}`: `{}` has no `{key}`", point.coordinate.label);
                let mut fault = Diagnostic::new(Code::Reference, span, message);
                fault = fault.related(node.span, "this value");
                let known = node.entries().unwrap_or(&[]).iter().map(|entry| entry.key.text.as_str());
                fault.help = did_you_mean(key, known);
                self.faults.push(fault);
                return None;
            };
            node = next;
        }
        Some(node)
    }

    fn unknown_axis(&mut self, axis: &str, keys: &[String], span: Span) {
        let known: Vec<&str> = self.cell.iter().map(|point| point.coordinate.axis.as_str()).collect();
        let message = format!("stage `{}`: `${{{}}}` names no axis of its matrix", self.stage, written(keys));
        let fault = Diagnostic::new(Code::Reference, span, message);
        let help = did_you_mean(axis, known.iter().copied()).unwrap_or_else(|| match known.as_slice() {
            [] => format!("write `matrix: {{ {axis}: [...] }}` beside its kind"),
            _ => format!("it has {}", known.join(", ")),
        });
        self.faults.push(fault.help(help));
    }
}

fn written(keys: &[String]) -> String {
    format!("matrix.{}", keys.join("."))
}

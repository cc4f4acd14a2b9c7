//! `matrix: { lr: [1e-3, 3e-3], objective: { simpo: {...}, dpo: {...} }, exclude: [...] }` beside a stage's kind.
//!
//! Owns the reading of axes, their labels, and the product of their values. Refuses to know what reads the stage.

use std::sync::Arc;

use crate::cell::{Coordinate, label_of_float};
use crate::diagnostic::{Code, Diagnostic};
use crate::leaf::LeafValue;
use crate::matrix::MAX_CELLS;
use crate::span::Span;
use crate::suggest::did_you_mean;
use crate::tree::{Entry, Key, Node, Value};

/// The key among the axes that leaves cells out.
const EXCLUDE: &str = "exclude";
/// A longer label makes names that nobody reads.
const MAX_LABEL: usize = 48;

/// A value of an axis: where it lies, and what `${matrix.AXIS}` stands for there.
#[derive(Debug, Clone)]
pub(super) struct Point {
    pub coordinate: Coordinate,
    pub node: Arc<Node>,
}

/// An axis with its values in the order of the file.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    pub name: String,
    /// Where it is named.
    pub place: Span,
    pub points: Vec<Point>,
}

impl Axis {
    pub(super) fn labels(&self) -> impl Iterator<Item = &str> {
        self.points.iter().map(|point| point.coordinate.label.as_str())
    }

    pub(super) fn has(&self, label: &str) -> bool {
        self.labels().any(|other| other == label)
    }
}

/// The axes of a stage and the cells it has by itself: every combination that is not left out.
#[derive(Debug, Default)]
pub(super) struct Matrix {
    pub axes: Vec<Axis>,
    /// One point an axis. A stage without axes has one cell without points.
    pub cells: Vec<Vec<Point>>,
    /// Whether something is wrong with it, which is reported: then values that wait for it are none of the user's faults.
    pub is_broken: bool,
}

impl Matrix {
    /// The matrix of a stage that has none.
    pub(super) fn none() -> Matrix {
        Matrix { axes: Vec::new(), cells: vec![Vec::new()], is_broken: false }
    }

    /// `stage` is the key of the stage.
    pub(super) fn read(stage: &Key, matrix: &Entry, faults: &mut Vec<Diagnostic>) -> Matrix {
        let n_before = faults.len();
        let read = Matrix::read_axes(stage, matrix, faults);
        Matrix { is_broken: faults.len() > n_before, ..read }
    }

    fn read_axes(stage: &Key, matrix: &Entry, faults: &mut Vec<Diagnostic>) -> Matrix {
        let mut reader = AxisReader { stage: &stage.text, faults };
        let Some(entries) = matrix.value.entries() else {
            reader.wrong_type(&matrix.value, "matrix", "a map of axes, as in `{ lr: [1e-3, 3e-3] }`");
            return Matrix::none();
        };
        let axes: Vec<Axis> =
            entries.iter().filter(|entry| entry.key.text != EXCLUDE).filter_map(|entry| reader.axis(entry)).collect();
        let excluded = entries.iter().find(|entry| entry.key.text == EXCLUDE);
        let excluded = excluded.map_or(Vec::new(), |entry| reader.excluded(&entry.value, &axes));
        let n_cells = axes.iter().try_fold(1_usize, |n, axis| n.checked_mul(axis.points.len()));
        if n_cells.is_none_or(|n| n > MAX_CELLS) {
            let message = format!("stage `{}`: `matrix` has more than {MAX_CELLS} cells", stage.text);
            faults.push(Diagnostic::new(Code::OutOfRange, matrix.key.span, message).help("leave values out"));
            return Matrix::none();
        }
        let mut cells = vec![Vec::new()];
        for axis in &axes {
            let longer = |cell: &Vec<Point>| {
                let cell = cell.clone();
                axis.points.iter().map(move |point| cell.iter().chain([point]).cloned().collect())
            };
            cells = cells.iter().flat_map(longer).collect();
        }
        cells.retain(|cell: &Vec<Point>| !excluded.iter().any(|left_out| left_out.fits(cell)));
        if cells.is_empty() {
            let message = format!("stage `{}`: `matrix` has no cell left", stage.text);
            let fault = Diagnostic::new(Code::Contradiction, matrix.key.span, message);
            faults.push(fault.help("take an entry out of `exclude`"));
            return Matrix::none();
        }
        Matrix { axes, cells, is_broken: false }
    }
}

/// Values that a cell which is left out has on some axes.
struct LeftOut(Vec<(String, String)>);

impl LeftOut {
    fn fits(&self, cell: &[Point]) -> bool {
        let has = |axis: &str, label: &str| {
            cell.iter().any(|point| point.coordinate.axis == axis && point.coordinate.label == label)
        };
        self.0.iter().all(|(axis, label)| has(axis, label))
    }
}

struct AxisReader<'a, 'f> {
    stage: &'a str,
    faults: &'f mut Vec<Diagnostic>,
}

impl AxisReader<'_, '_> {
    fn report(&mut self, code: Code, place: Span, what: &str) -> &mut Diagnostic {
        let message = format!("stage `{}`: {what}", self.stage);
        self.faults.push(Diagnostic::new(code, place, message));
        let last = self.faults.len() - 1;
        &mut self.faults[last]
    }

    fn wrong_type(&mut self, node: &Node, trail: &str, expected: &str) {
        if !matches!(node.value, Value::Broken) {
            let what = format!("`{trail}` must be {expected}, not {}", node.describe());
            self.report(Code::WrongType, node.span, &what);
        }
    }

    /// An axis is a list of plain values, or a map from a name to a value of any shape.
    fn axis(&mut self, entry: &Entry) -> Option<Axis> {
        let Entry { key, value } = entry;
        let name = &key.text;
        let follows = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(follows) {
            let fault = self.report(Code::BadName, key.span, &format!("`{name}` cannot be the name of an axis"));
            fault.help = Some("a name starts with a lower-case letter; letters, digits and `_` may follow".to_owned());
            return None;
        }
        let named: Vec<(Option<String>, LeafValue, &Node)> = match &value.value {
            Value::List(items) => items.iter().filter_map(|item| self.plain(name, item)).collect(),
            Value::Map(entries) => {
                let named = |entry: &'_ Entry| (Some(entry.key.text.clone()), LeafValue::Str(entry.key.text.clone()));
                entries.iter().map(|entry| (named(entry), &entry.value)).map(|((l, v), node)| (l, v, node)).collect()
            }
            _ => {
                self.wrong_type(value, &format!("matrix.{name}"), "a list of values, as in `[1e-3, 3e-3]`");
                return None;
            }
        };
        let mut axis = Axis { name: name.clone(), place: key.span, points: Vec::new() };
        for (label, leaf, node) in named {
            let Some(label) = label else { continue };
            if let Some(first) = axis.points.iter().find(|point| point.coordinate.label == label) {
                let first = first.coordinate.place;
                let fault =
                    self.report(Code::Contradiction, node.span, &format!("`matrix.{name}` has `{label}` twice"));
                *fault = fault.clone().related(first, "first").help("leave one of them out");
                continue;
            }
            if !self.is_safe(name, &label, node) {
                continue;
            }
            let coordinate = Coordinate { axis: name.clone(), label, value: leaf, place: node.span };
            axis.points.push(Point { coordinate, node: Arc::new(node.clone()) });
        }
        if axis.points.is_empty() {
            let is_empty = matches!(&value.value, Value::List(items) if items.is_empty())
                || matches!(&value.value, Value::Map(entries) if entries.is_empty());
            if is_empty {
                self.report(Code::OutOfRange, value.span, &format!("`matrix.{name}` has no values"));
            }
            return None;
        }
        Some(axis)
    }

    /// The label of a value that needs no name.
    fn plain<'n>(&mut self, axis: &str, node: &'n Node) -> Option<(Option<String>, LeafValue, &'n Node)> {
        let (label, leaf) = match &node.value {
            Value::Null => ("null".to_owned(), LeafValue::Null),
            Value::Bool(value) => (value.to_string(), LeafValue::Bool(*value)),
            Value::Int(value) => (value.to_string(), LeafValue::Int(*value)),
            Value::Float(value) => (label_of_float(*value), LeafValue::Float(*value)),
            Value::Str(text) => (text.clone(), LeafValue::Str(text.clone())),
            Value::Broken => return None,
            Value::Open(_) => {
                self.report(Code::Reference, node.span, &format!("`matrix.{axis}` refers to the matrix it is part of"));
                return None;
            }
            Value::List(_) | Value::Map(_) | Value::Secret(_) => {
                let what = format!("a value of `matrix.{axis}` is {}, which makes no name", node.describe());
                let fault = self.report(Code::WrongType, node.span, &what);
                fault.help = Some(format!("give each value a name: `{axis}: {{ first: ..., second: ... }}`"));
                return None;
            }
        };
        Some((Some(label), leaf, node))
    }

    /// Whether a label can be part of a name.
    fn is_safe(&mut self, axis: &str, label: &str, node: &Node) -> bool {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if !label.is_empty() && label.len() <= MAX_LABEL && label.chars().all(is_plain) {
            return true;
        }
        let shown: String = label.chars().take(MAX_LABEL).collect();
        let what = format!("`{shown}` of `matrix.{axis}` cannot stand in the name of a cell");
        let fault = self.report(Code::BadName, node.span, &what);
        fault.help = Some(format!(
            "a name has at most {MAX_LABEL} letters, digits, `.`, `_` and `-`; give the value one: \
             `{axis}: {{ NAME: VALUE, ... }}`"
        ));
        false
    }

    /// The entries of `exclude`.
    fn excluded(&mut self, node: &Node, axes: &[Axis]) -> Vec<LeftOut> {
        let items = match &node.value {
            Value::List(items) => items.as_slice(),
            Value::Null => &[],
            _ => {
                self.wrong_type(node, "matrix.exclude", "a list of maps, as in `[{ lr: 1e-3, beta: 10 }]`");
                return Vec::new();
            }
        };
        items.iter().filter_map(|item| self.left_out(item, axes)).collect()
    }

    fn left_out(&mut self, node: &Node, axes: &[Axis]) -> Option<LeftOut> {
        let Some(entries) = node.entries().filter(|entries| !entries.is_empty()) else {
            self.wrong_type(node, "matrix.exclude", "a list of maps, as in `[{ lr: 1e-3, beta: 10 }]`");
            return None;
        };
        let mut left_out = Vec::new();
        for Entry { key, value } in entries {
            let Some(axis) = axes.iter().find(|axis| axis.name == key.text) else {
                let fault = self.report(
                    Code::UnknownName,
                    key.span,
                    &format!("`matrix.exclude` names `{}`, which is no axis", key.text),
                );
                fault.help = did_you_mean(&key.text, axes.iter().map(|axis| axis.name.as_str()));
                return None;
            };
            let (label, _, _) = self.plain(&key.text, value)?;
            let label = label?;
            if !axis.has(&label) {
                let what = format!("`matrix.exclude` names `{label}`, which `matrix.{}` does not have", axis.name);
                let fault = self.report(Code::UnknownName, value.span, &what);
                fault.help = Some(format!("it has {}", axis.labels().collect::<Vec<_>>().join(", ")));
                return None;
            }
            left_out.push((axis.name.clone(), label));
        }
        Some(LeftOut(left_out))
    }
}

//! Which line of a JSONL file is at fault, looked for after a reader has refused the file: readers below tell neither
//! line nor column. Owns the wording; refuses to know which columns anybody wants.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::{Map, Value};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A line that no reader of JSONL takes, counted from 1, and why.
pub(crate) struct LineFault {
    pub line: u64,
    pub message: String,
}

/// The first fault of a file; none if every line by itself is sound, or if the file cannot be read.
pub(crate) fn first_fault(path: &Path) -> Option<LineFault> {
    let mut file = BufReader::new(File::open(path).ok()?);
    let mut columns: BTreeMap<String, (Shape, u64)> = BTreeMap::new();
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        if file.read_until(b'\n', &mut bytes).ok()? == 0 {
            return None;
        }
        if bytes.trim_ascii().is_empty() {
            continue;
        }
        if line == 1 && bytes.starts_with(BYTE_ORDER_MARK) {
            let message = "the file begins with a byte order mark; save it as UTF-8 without one".to_owned();
            return Some(LineFault { line, message });
        }
        let fault = object(bytes.trim_ascii_end()).and_then(|row| mixed(&row, line, &mut columns));
        if let Err(message) = fault {
            return Some(LineFault { line, message });
        }
    }
    None
}

fn object(line: &[u8]) -> Result<Map<String, Value>, String> {
    let text = std::str::from_utf8(line)
        .map_err(|error| format!("the line is not UTF-8 text from byte {} on", error.valid_up_to() + 1))?;
    match serde_json::from_str(text) {
        Ok(Value::Object(row)) => Ok(row),
        Ok(other) => {
            Err(format!("the line is {}; each line must be a JSON object, `{{...}}`", Shape::of(&other).name()))
        }
        Err(error) => {
            // The line that it counts is always the first.
            let message = error.to_string();
            let what = message.split(" at line ").next().unwrap_or_default();
            Err(format!("the line is not JSON from character {} on: {what}", error.column().max(1)))
        }
    }
}

/// Takes up the shapes of a row's values, and refuses one that is not the shape its column had before.
fn mixed(row: &Map<String, Value>, line: u64, columns: &mut BTreeMap<String, (Shape, u64)>) -> Result<(), String> {
    for (column, value) in row.iter().filter(|(_, value)| !value.is_null()) {
        let shape = Shape::of(value);
        match columns.get(column) {
            None => drop(columns.insert(column.clone(), (shape, line))),
            Some((known, _)) if known.mixes_with(shape) => {}
            Some((known, first)) => {
                return Err(format!("`{column}` is {}, and {} in line {first}", shape.name(), known.name()));
            }
        }
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Text,
    Number,
    Boolean,
    List,
    Object,
    Null,
}

impl Shape {
    fn of(value: &Value) -> Self {
        match value {
            Value::Null => Shape::Null,
            Value::Bool(_) => Shape::Boolean,
            Value::Number(_) => Shape::Number,
            Value::String(_) => Shape::Text,
            Value::Array(_) => Shape::List,
            Value::Object(_) => Shape::Object,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Shape::Text => "a text",
            Shape::Number => "a number",
            Shape::Boolean => "`true` or `false`",
            Shape::List => "a list",
            Shape::Object => "an object",
            Shape::Null => "null",
        }
    }

    /// Texts, numbers and booleans of one column are read as texts together.
    fn mixes_with(self, other: Shape) -> bool {
        let nests = |shape| matches!(shape, Shape::List | Shape::Object);
        self == other || !(nests(self) || nests(other))
    }
}

//! Cells of a matrix and their names: `tuned[lr=0.001,beta=10]`.
//!
//! Owns how a cell is named, and how such a name, whole or in part, is read. Refuses to know which cells there are.
//!
//! A number has one spelling, whatever the file's: `1e-3`, `0.001` and `1.0e-3` are `0.001`, and `10.0` is `10`. A name
//! has no character that a path, a manifest or a terminal would take for something else.

use std::fmt;

use crate::leaf::LeafValue;
use crate::names::StageName;
use crate::span::Span;

/// Which cell of a matrix a stage is.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// The stage as the file names it.
    pub base: StageName,
    /// Its value on every axis, in the order of its name; never empty.
    pub coordinates: Vec<Coordinate>,
}

/// A value on an axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Coordinate {
    pub axis: String,
    /// The value as it stands in names.
    pub label: String,
    /// The value itself; of one with a name of its own, the name.
    pub value: LeafValue,
    /// Where it is written.
    pub place: Span,
}

impl Cell {
    /// The name of the stage that is this cell.
    pub(crate) fn name(&self) -> StageName {
        StageName::new(&self.to_string())
    }

    /// The coordinate on an axis.
    pub fn on(&self, axis: &str) -> Option<&Coordinate> {
        self.coordinates.iter().find(|coordinate| coordinate.axis == axis)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cell { base, coordinates } = self;
        let pairs = coordinates.iter().map(|Coordinate { axis, label, .. }| (axis.as_str(), label.as_str()));
        f.write_str(&cell_name(base.as_str(), pairs))
    }
}

/// `tuned[lr=0.001,beta=10]`; the base alone where there are no pairs.
pub(crate) fn cell_name<'p>(base: &str, pairs: impl IntoIterator<Item = (&'p str, &'p str)>) -> String {
    let pairs: Vec<String> = pairs.into_iter().map(|(axis, label)| format!("{axis}={label}")).collect();
    if pairs.is_empty() { base.to_owned() } else { format!("{base}[{}]", pairs.join(",")) }
}

/// A stage, and the axes on which it is pinned: `tuned`, `tuned[lr=1e-3]`, `tuned[lr=1e-3,beta=10]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pinned {
    pub base: String,
    /// Axis and label, in the order they are written; labels are those of cells' names.
    pub pins: Vec<(String, String)>,
}

/// What is wrong with the brackets of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CellNameError {
    /// No `]` follows the `[`.
    Unclosed { text: String },
    /// Something follows the `]`.
    Trailing { text: String },
    /// What stands between two commas is no `AXIS=VALUE`.
    NoPair { text: String, pair: String },
    /// One axis has two values.
    Twice { text: String, axis: String },
}

impl fmt::Display for CellNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unclosed { text } => write!(f, "`{text}` has a `[` that is never closed"),
            Self::Trailing { text } => write!(f, "`{text}` goes on after the `]`"),
            Self::NoPair { text, pair } => write!(f, "`{pair}` in `{text}` is not of the form `AXIS=VALUE`"),
            Self::Twice { text, axis } => write!(f, "`{text}` gives `{axis}` twice"),
        }
    }
}

impl std::error::Error for CellNameError {}

impl Pinned {
    /// Takes a name apart.
    ///
    /// # Errors
    /// The brackets do not close, or hold something else than `AXIS=VALUE` pairs.
    pub fn parse(text: &str) -> Result<Pinned, CellNameError> {
        let Some((base, rest)) = text.split_once('[') else {
            return Ok(Pinned { base: text.to_owned(), pins: Vec::new() });
        };
        let unclosed = || CellNameError::Unclosed { text: text.to_owned() };
        let (inside, after) = rest.split_once(']').ok_or_else(unclosed)?;
        if !after.is_empty() {
            return Err(CellNameError::Trailing { text: text.to_owned() });
        }
        let mut pins: Vec<(String, String)> = Vec::new();
        for pair in inside.split(',') {
            let no_pair = || CellNameError::NoPair { text: text.to_owned(), pair: pair.trim().to_owned() };
            let (axis, value) = pair.split_once('=').ok_or_else(no_pair)?;
            let (axis, label) = (axis.trim(), normal_label(value.trim()));
            if axis.is_empty() || label.is_empty() {
                return Err(no_pair());
            }
            if pins.iter().any(|(other, _)| other == axis) {
                return Err(CellNameError::Twice { text: text.to_owned(), axis: axis.to_owned() });
            }
            pins.push((axis.to_owned(), label));
        }
        Ok(Pinned { base: base.to_owned(), pins })
    }

    /// Whether a cell has all the values that are pinned.
    pub fn fits(&self, cell: &Cell) -> bool {
        cell.base.as_str() == self.base
            && self.pins.iter().all(|(axis, label)| cell.on(axis).is_some_and(|found| found.label == *label))
    }
}

impl fmt::Display for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&cell_name(&self.base, self.pins.iter().map(|(axis, label)| (axis.as_str(), label.as_str()))))
    }
}

/// `pairs.dropped` as stage and product; the dots of a cell's values belong to its name.
pub fn split_product(text: &str) -> (&str, Option<&str>) {
    let end_of_name = text.rfind(']').map_or(0, |at| at + 1);
    match text[end_of_name..].split_once('.') {
        Some((rest, product)) => (&text[..end_of_name + rest.len()], Some(product)),
        None => (text, None),
    }
}

/// The label of a value that is written `text`: a number in its one spelling, anything else as it is.
pub(crate) fn normal_label(text: &str) -> String {
    if let Ok(whole) = text.parse::<i64>() {
        return whole.to_string();
    }
    // The words that Rust reads as numbers are texts here.
    let is_number = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    match text.parse::<f64>() {
        Ok(value) if is_number && value.is_finite() => label_of_float(value),
        _ => text.to_owned(),
    }
}

/// The shortest spelling that reads back as the same number.
pub(crate) fn label_of_float(value: f64) -> String {
    /// Beyond this, a float has no digits for its ones.
    const WHOLE: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() < WHOLE { format!("{}", value as i64) } else { format!("{value:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_label() {
        for (texts, label) in [
            (&["1e-3", "0.001", "1.0e-3", "1E-3", ".001", "+0.001"][..], "0.001"),
            (&["10", "10.0", "1e1", "+10"], "10"),
            (&["8e-7", "0.0000008", "8.0e-07"], "8e-7"),
            (&["-0", "0", "0.0", "-0.0"], "0"),
            (&["1e300"], "1e300"),
            (&["inf"], "inf"),
            (&["nan"], "nan"),
            (&["a-b"], "a-b"),
        ] {
            for text in texts {
                assert_eq!(normal_label(text), label, "{text}");
            }
        }
    }

    #[test]
    fn names_are_taken_apart() {
        let check = |text: &str, expected: &str| {
            let shown = match Pinned::parse(text) {
                Ok(pinned) => pinned.to_string(),
                Err(error) => error.to_string(),
            };
            assert_eq!(shown, expected);
        };
        check("tuned", "tuned");
        check("tuned[lr=1e-3, beta = 10.0]", "tuned[lr=0.001,beta=10]");
        check("tuned[lr=1e-3", "`tuned[lr=1e-3` has a `[` that is never closed");
        check("tuned[lr=1]x", "`tuned[lr=1]x` goes on after the `]`");
        check("tuned[]", "`` in `tuned[]` is not of the form `AXIS=VALUE`");
        check("tuned[lr]", "`lr` in `tuned[lr]` is not of the form `AXIS=VALUE`");
        check("tuned[lr=]", "`lr=` in `tuned[lr=]` is not of the form `AXIS=VALUE`");
        check("tuned[lr=1,lr=2]", "`tuned[lr=1,lr=2]` gives `lr` twice");
    }

    #[test]
    fn a_product_stands_behind_the_name() {
        assert_eq!(split_product("pairs"), ("pairs", None));
        assert_eq!(split_product("pairs.dropped"), ("pairs", Some("dropped")));
        assert_eq!(split_product("tuned[lr=0.001].steps"), ("tuned[lr=0.001]", Some("steps")));
        assert_eq!(split_product("tuned[lr=0.001]"), ("tuned[lr=0.001]", None));
        assert_eq!(split_product(".x"), ("", Some("x")));
    }
}

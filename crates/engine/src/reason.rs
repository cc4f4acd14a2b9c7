//! Why a stage runs, in terms of the leaves of its key: what each was in the earlier record and what it is now.
//! It owns the comparison and its text, and refuses to know where the earlier record was found.

use std::cmp::Ordering;
use std::fmt;

use serde::Serialize;
use sluice_store::{Leaf, LeafValue};

/// One leaf that differs from the earlier record.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LeafChange {
    /// The leaf's path, e.g. `pair.ties`, `input.scores`.
    pub path: String,
    /// What it was; none if the earlier key did not have it.
    pub old: Option<LeafValue>,
    /// What it is; none if the key no longer has it.
    pub new: Option<LeafValue>,
    /// Where it was written then.
    pub old_place: Option<String>,
    /// Where it is written now; none for a default or a derived value.
    pub place: Option<String>,
}

impl fmt::Display for LeafChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |value: &Option<LeafValue>| value.as_ref().map_or("absent".to_owned(), ToString::to_string);
        write!(f, "{} {} -> {}", self.path, text(&self.old), text(&self.new))?;
        // A value that went back to its default is explained by where it no longer stands.
        match (&self.place, &self.old_place) {
            (Some(place), _) => write!(f, " ({place})"),
            (None, Some(old)) => write!(f, " (was {old})"),
            (None, None) => Ok(()),
        }
    }
}

/// What differs between two sets of leaves, sorted by path. Both are sorted.
pub fn compare_leaves(old: &[Leaf], new: &[Leaf]) -> Vec<LeafChange> {
    let mut changes = Vec::new();
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return changes,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(left), Some(right)) => left.path.cmp(&right.path),
        };
        let left = if order == Ordering::Greater { None } else { old.next() };
        let right = if order == Ordering::Less { None } else { new.next() };
        if left.map(|leaf| &leaf.value) != right.map(|leaf| &leaf.value) {
            changes.extend(left.or(right).map(|leaf| LeafChange {
                path: leaf.path.clone(),
                old: left.map(|leaf| leaf.value.clone()),
                new: right.map(|leaf| leaf.value.clone()),
                old_place: left.and_then(|leaf| leaf.place.clone()),
                place: right.and_then(|leaf| leaf.place.clone()),
            }));
        }
    }
}

/// Why a stage has to run.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// No earlier run has a record for it.
    NeverRan,
    /// Its key differs from that of the most recent record in these leaves.
    Changed(Vec<LeafChange>),
    /// Its record names an output that is no longer in the store.
    OutputGone {
        /// The output's name.
        output: String,
    },
    /// Its output is not what was written: a stage that reads it found out.
    OutputDamaged {
        /// The output's name.
        output: String,
        /// The file or folder of the store.
        file: String,
    },
    /// Its record does not read.
    RecordDamaged,
    /// It has a result, and is wanted anew.
    Forced,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverRan => f.write_str("never ran"),
            Self::Changed(changes) => write_changes(f, changes),
            Self::OutputGone { output } => write!(f, "its output `{output}` is gone from the store"),
            Self::OutputDamaged { output, file } => write!(f, "its output `{output}` is damaged: {file}"),
            Self::RecordDamaged => f.write_str("its record in the store is damaged"),
            Self::Forced => f.write_str("forced"),
        }
    }
}

/// The first changes, and how many more there are: a reason is one line.
pub(crate) fn write_changes(f: &mut fmt::Formatter<'_>, changes: &[LeafChange]) -> fmt::Result {
    const SHOWN: usize = 3;
    for (index, change) in changes.iter().take(SHOWN).enumerate() {
        write!(f, "{}{change}", if index == 0 { "" } else { ", " })?;
    }
    match changes.len().checked_sub(SHOWN) {
        Some(more @ 1..) => write!(f, ", and {more} more"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use expect_test::{Expect, expect};

    use super::*;

    fn leaf(path: &str, value: LeafValue, place: Option<&str>) -> Leaf {
        Leaf { path: path.to_owned(), value, place: place.map(str::to_owned) }
    }

    fn check(old: &[Leaf], new: &[Leaf], expected: Expect) {
        expected.assert_eq(&Reason::Changed(compare_leaves(old, new)).to_string());
    }

    #[test]
    fn changes_are_told_with_values_and_places() {
        let text = |text: &str| LeafValue::Text(text.to_owned());
        let drop = leaf("pair.ties", text("drop"), None);
        let first = leaf("pair.ties", text("first"), Some("p.yaml:31:18"));
        check(from_ref(&drop), from_ref(&first), expect!["pair.ties drop -> first (p.yaml:31:18)"]);
        check(from_ref(&first), from_ref(&drop), expect!["pair.ties first -> drop (was p.yaml:31:18)"]);
        let int = |value| leaf("sample.n", LeafValue::Int(value), None);
        let float = leaf("sample.n", LeafValue::Float(3.0), None);
        check(&[int(3)], &[float], expect!["sample.n 3 -> 3.0"]);
        check(&[], &[int(3)], expect!["sample.n absent -> 3"]);
        let many = |value| ["a", "b", "c", "d", "e"].map(|path| leaf(path, LeafValue::Int(value), None));
        check(&many(1), &many(2), expect!["a 1 -> 2, b 1 -> 2, c 1 -> 2, and 2 more"]);
    }
}

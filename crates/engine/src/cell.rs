//! Cells of a matrix in the forms that events and reports have: `{"stage": "tuned", "values": {"lr": 0.001}}`.
//! It owns that form, and refuses to know how cells come about.

use serde::{Serialize, Serializer};
use sluice_spec::{Cell, LeafValue, Stage, StageName};

use crate::event::as_text;

/// Which cell of a matrix a stage is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CellInfo {
    /// The stage as the file names it.
    #[serde(serialize_with = "as_text")]
    pub stage: StageName,
    /// The value on each axis, in the order of the cell's name.
    pub values: CellValues,
}

/// Axes with their values, in order; a map in JSON.
#[derive(Debug, Clone, PartialEq)]
pub struct CellValues(pub Vec<(String, LeafValue)>);

impl CellInfo {
    /// Of a stage that is a cell.
    pub fn of(stage: &Stage) -> Option<Self> {
        let Cell { base, coordinates } = stage.cell.as_ref()?;
        let values = coordinates.iter().map(|on| (on.axis.clone(), on.value.clone()));
        Some(Self { stage: base.clone(), values: CellValues(values.collect()) })
    }
}

impl Serialize for CellValues {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(axis, value)| (axis, Bare(value))))
    }
}

/// A value without the name of its type. One that makes a name is never a list.
struct Bare<'a>(&'a LeafValue);

impl Serialize for Bare<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            LeafValue::Null | LeafValue::List(_) => serializer.serialize_unit(),
            LeafValue::Bool(value) => serializer.serialize_bool(*value),
            LeafValue::Int(value) => serializer.serialize_i64(*value),
            LeafValue::Float(value) => serializer.serialize_f64(*value),
            LeafValue::Str(text) => serializer.serialize_str(text),
        }
    }
}

//! From a file's columns to what `ingest` reads: which column feeds what, whether it is there and of a type that can, and
//! the values row by row. It refuses to judge rows.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float32Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Schema};
use sluice_spec::stage::ingest::{ColumnMap, Kept, Split as SplitParams};
use strsim::jaro_winkler;

use super::IngestError;

/// How alike two names must be for one to be offered in place of the other.
const SIMILAR: f64 = 0.8;

/// The columns to read, each with the parameter that names it.
pub(super) struct Columns<'a> {
    chosen: Vec<(Role, &'a str)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Prompt,
    Reference,
    Group,
    Response,
    Label,
    Split,
    Kept,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::Prompt => "map.prompt",
            Role::Reference => "map.reference",
            Role::Group => "map.group",
            Role::Response => "map.response",
            Role::Label => "map.label",
            Role::Split => "split.column",
            Role::Kept => "keep",
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Role::Prompt | Role::Response | Role::Split => "text",
            Role::Reference | Role::Group => "text, whole numbers or booleans",
            Role::Label => "numbers",
            Role::Kept => "values of any type",
        }
    }

    fn reads(self, found: &DataType) -> bool {
        let is_text = found.is_string() || matches!(found, DataType::Dictionary(_, values) if values.is_string());
        match self {
            // A column without any value has no type.
            _ if found.is_null() => self != Role::Prompt,
            Role::Kept => true,
            Role::Prompt | Role::Response | Role::Split => is_text,
            Role::Reference | Role::Group => is_text || found.is_integer() || *found == DataType::Boolean,
            Role::Label => found.is_numeric() || *found == DataType::Boolean,
        }
    }
}

impl<'a> Columns<'a> {
    pub(super) fn of(map: &'a ColumnMap, split: &'a SplitParams, keep: &'a Kept) -> Self {
        let ColumnMap { prompt, reference, group, response, label } = map;
        let optional = [
            (Role::Reference, reference),
            (Role::Group, group),
            (Role::Response, response),
            (Role::Label, label),
            (Role::Split, &split.column),
        ];
        let optional = optional.into_iter().filter_map(|(role, column)| Some((role, column.value.as_deref()?)));
        let kept = keep.names().iter().map(|column| (Role::Kept, column.as_str()));
        Self { chosen: std::iter::once((Role::Prompt, prompt.value.as_str())).chain(optional).chain(kept).collect() }
    }

    pub(super) fn names(&self) -> Vec<&'a str> {
        self.chosen.iter().map(|(_, column)| *column).collect()
    }

    /// The columns whose values are texts, also where they look like numbers.
    pub(super) fn text_names(&self) -> Vec<&'a str> {
        let is_text = |role: Role| !matches!(role, Role::Label | Role::Kept);
        self.chosen.iter().filter(|(role, _)| is_text(*role)).map(|(_, column)| *column).collect()
    }

    /// Whether a file has what is to be read, in types that can be.
    pub(super) fn check(&self, file: &str, schema: &Schema) -> Result<(), IngestError> {
        if schema.fields().is_empty() {
            return Err(IngestError::EmptyFile { file: file.to_owned() });
        }
        for (role, column) in &self.chosen {
            let Ok(field) = schema.field_with_name(column) else {
                return Err(missing(file, column, *role, schema));
            };
            if !role.reads(field.data_type()) {
                return Err(IngestError::ColumnType {
                    file: file.to_owned(),
                    column: (*column).to_owned(),
                    role: role.name(),
                    found: field.data_type().clone(),
                    expected: role.expected(),
                });
            }
        }
        Ok(())
    }

    /// The values of a scanned batch, whose columns are `keep` and then `names()`.
    pub(super) fn values(&self, file: &str, batch: &RecordBatch) -> Result<Values, IngestError> {
        let as_type = |role: Role, wanted: &DataType| -> Result<Option<ArrayRef>, IngestError> {
            let Some(i) = self.chosen.iter().position(|(chosen, _)| *chosen == role) else {
                return Ok(None);
            };
            let array = batch.column(i + 1);
            // `check` let only types pass that convert; what is left is a text past the limit of its type.
            cast(array, wanted).map(Some).map_err(|_| IngestError::ColumnType {
                file: file.to_owned(),
                column: self.chosen[i].1.to_owned(),
                role: role.name(),
                found: array.data_type().clone(),
                expected: role.expected(),
            })
        };
        let text = |role| -> Result<Option<StringArray>, IngestError> {
            Ok(as_type(role, &DataType::Utf8)?.map(|array| array.as_string::<i32>().clone()))
        };
        let chosen = self.chosen.iter().zip(&batch.columns()[1..]);
        Ok(Values {
            keep: batch.column(0).as_boolean().clone(),
            prompt: text(Role::Prompt)?,
            reference: text(Role::Reference)?,
            group: text(Role::Group)?,
            response: text(Role::Response)?,
            split: text(Role::Split)?,
            label: as_type(Role::Label, &DataType::Float32)?.map(|array| array.as_primitive::<Float32Type>().clone()),
            kept: chosen.filter(|((role, _), _)| *role == Role::Kept).map(|(_, column)| column.clone()).collect(),
        })
    }
}

fn missing(file: &str, column: &str, role: Role, schema: &Schema) -> IngestError {
    let present: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let likeness = |name: &str| jaro_winkler(&name.to_lowercase(), &column.to_lowercase());
    let nearest = present.iter().copied().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    IngestError::MissingColumn {
        file: file.to_owned(),
        column: column.to_owned(),
        role: role.name(),
        suggestion: nearest.filter(|name| likeness(name) >= SIMILAR).map(str::to_owned),
        present: present.into_iter().map(|name| format!("`{name}`")).collect(),
    }
}

/// The values of one batch.
pub(super) struct Values {
    keep: BooleanArray,
    prompt: Option<StringArray>,
    reference: Option<StringArray>,
    group: Option<StringArray>,
    response: Option<StringArray>,
    split: Option<StringArray>,
    label: Option<Float32Array>,
    kept: Vec<ArrayRef>,
}

impl Values {
    pub(super) fn len(&self) -> usize {
        self.keep.len()
    }

    pub(super) fn keep(&self, row: usize) -> bool {
        self.keep.value(row)
    }

    pub(super) fn prompt(&self, row: usize) -> Option<&str> {
        text(&self.prompt, row)
    }

    pub(super) fn reference(&self, row: usize) -> Option<&str> {
        text(&self.reference, row)
    }

    pub(super) fn group(&self, row: usize) -> Option<&str> {
        text(&self.group, row)
    }

    pub(super) fn response(&self, row: usize) -> Option<&str> {
        text(&self.response, row)
    }

    pub(super) fn split(&self, row: usize) -> Option<&str> {
        text(&self.split, row)
    }

    pub(super) fn label(&self, row: usize) -> Option<f32> {
        self.label.as_ref().filter(|labels| labels.is_valid(row)).map(|labels| labels.value(row))
    }

    /// The kept columns, whole.
    pub(super) fn kept(&self) -> &[ArrayRef] {
        &self.kept
    }
}

/// An empty cell is an absent one: CSV cannot tell them apart.
fn text(column: &Option<StringArray>, row: usize) -> Option<&str> {
    let column = column.as_ref().filter(|column| column.is_valid(row))?;
    Some(column.value(row)).filter(|text| !text.is_empty())
}

//! What tests and contracts say of columns and stages, as far as it shows before anything runs.
//!
//! Owns the comparison with the columns of the known tables; refuses to look into a table, and leaves to the run what only
//! the run can tell: the columns of a query, the types of kept columns, whether a value is null.

use sluice_spec::stage::contract::{ColumnRule, Contract};
use sluice_spec::{
    Check, Code, Diagnostic, Kind, Pipeline, Product, Source, Span, Stage, StageName, Test, did_you_mean,
};
use sluice_table::type_word;

use crate::columns::{kind_of, listed};

pub(crate) fn faults(pipeline: &Pipeline) -> Vec<Diagnostic> {
    let mut faults = Vec::new();
    for stage in &pipeline.stages {
        for test in &stage.tests {
            faults.extend(unmade(pipeline, stage, test));
            let Some(known) = test.table.and_then(|product| Known::of(stage, product)) else { continue };
            faults.extend(absent(stage, test, &known));
            if let Check::Columns(contract) = &test.check {
                faults.extend(broken(stage, contract, test.place, &known));
            }
        }
    }
    faults
}

/// What is known of a table before it is made.
struct Known {
    /// What a user calls it: `pairs`, `pairs.dropped`.
    table: String,
    /// Name, type in words, whether it may be null.
    columns: Vec<(String, String, bool)>,
    /// Columns of which only the name is known.
    untyped: Vec<String>,
}

/// What is known of one column.
enum Column<'k> {
    Typed { word: &'k str, nullable: bool },
    Untyped,
    Absent,
}

impl Known {
    /// `None` for a table of any shape.
    fn of(stage: &Stage, product: Product) -> Option<Known> {
        let Product::Table(kind) = product else { return None };
        let schema = kind_of(kind).schema()?;
        let untyped = match &stage.kind {
            Kind::Ingest(ingest) => ingest.keep.names().to_vec(),
            _ => Vec::new(),
        };
        let table = match product.comes_first() {
            true => stage.name.to_string(),
            false => format!("{}.{}", stage.name, product.name()),
        };
        let fields = schema.fields().iter();
        let columns =
            fields.map(|field| (field.name().clone(), type_word(field.data_type()), field.is_nullable())).collect();
        Some(Known { table, columns, untyped })
    }

    fn column(&self, name: &str) -> Column<'_> {
        match self.columns.iter().find(|(known, ..)| known == name) {
            Some((_, word, nullable)) => Column::Typed { word, nullable: *nullable },
            None if self.untyped.iter().any(|known| known == name) => Column::Untyped,
            None => Column::Absent,
        }
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|(name, ..)| name.as_str()).chain(self.untyped.iter().map(String::as_str))
    }

    /// What would be right instead of a column that is not there.
    fn suggestion(&self, name: &str) -> String {
        did_you_mean(name, self.names()).unwrap_or_else(|| {
            let names: Vec<String> = self.names().map(|name| format!("`{name}`")).collect();
            format!("it has {}", listed(&names))
        })
    }
}

/// Columns that a test names and the table does not have, and ranges over what is no number.
fn absent(stage: &Stage, test: &Test, known: &Known) -> Vec<Diagnostic> {
    let mut faults = Vec::new();
    for column in test.check.columns() {
        let place = column.place.unwrap_or(test.place);
        match known.column(column) {
            Column::Absent => {
                let message = format!(
                    "stage `{}`: test `{}` reads `{}`, which `{}` does not have",
                    stage.name, test.name, column.value, known.table
                );
                faults.push(Diagnostic::new(Code::UnknownName, place, message).help(known.suggestion(column)));
            }
            Column::Typed { word, .. } if matches!(test.check, Check::Range(_)) && !is_number(word) => {
                let message = format!(
                    "stage `{}`: test `{}` is a range over `{}`, which is {word}",
                    stage.name, test.name, column.value
                );
                faults.push(Diagnostic::new(Code::WrongType, place, message).help("a range is one of numbers"));
            }
            Column::Typed { .. } | Column::Untyped => {}
        }
    }
    faults
}

fn is_number(word: &str) -> bool {
    ["int", "uint", "float", "decimal"].iter().any(|kind| word.starts_with(kind))
}

/// Where the known columns are not those of a contract. Whether a column that may be null has a null shows in the rows.
fn broken(stage: &Stage, contract: &Contract, place: Span, known: &Known) -> Vec<Diagnostic> {
    let mut faults = Vec::new();
    for rule in &contract.columns {
        let ColumnRule { name, kind, not_null: _, optional, place } = rule;
        match known.column(name) {
            Column::Typed { word, nullable } if !kind.accepts(word) => {
                let found = format!("{word}{}", if nullable { "" } else { "!" });
                let message = format!(
                    "stage `{}`: `columns.{name}` is {}, and `{}` has it as {found}",
                    stage.name,
                    rule.expected(),
                    known.table
                );
                faults.push(
                    Diagnostic::new(Code::WrongProduct, *place, message).help(format!("write `{name}: {found}`")),
                );
            }
            Column::Absent if !optional => {
                let message = format!(
                    "stage `{}`: `columns.{name}` is a column that `{}` does not have",
                    stage.name, known.table
                );
                faults.push(Diagnostic::new(Code::WrongProduct, *place, message).help(known.suggestion(name)));
            }
            Column::Typed { .. } | Column::Untyped | Column::Absent => {}
        }
    }
    let further: Vec<String> =
        known.names().filter(|name| contract.rule(name).is_none()).map(|name| format!("`{name}`")).collect();
    if !contract.open && !further.is_empty() {
        let message = format!(
            "stage `{}`: `columns` allows no further column, and `{}` has {}",
            stage.name,
            known.table,
            listed(&further)
        );
        faults.push(Diagnostic::new(Code::WrongProduct, place, message).help("name them, or leave `\"*\": none` out"));
    }
    faults
}

/// Tables that a test reads and that are not there when it runs: those of stages which its own does not read, directly or
/// not.
fn unmade(pipeline: &Pipeline, stage: &Stage, test: &Test) -> Vec<Diagnostic> {
    let others: Vec<_> = test.others().collect();
    if others.is_empty() {
        return Vec::new();
    }
    let before = before(pipeline, &stage.name);
    let unmade = others.into_iter().filter(|table| !before.contains(&&table.made.stage));
    let fault = |table: &sluice_spec::Located<sluice_spec::TableRef>| {
        let (name, read) = (&stage.name, &table.made.stage);
        let message = format!("stage `{name}`: test `{}` reads `{read}`, which is not made before `{name}`", test.name);
        let fault = Diagnostic::new(Code::UnknownName, table.place.unwrap_or(test.place), message);
        fault.help("a test reads what its stage makes, and what its stage reads, directly or not")
    };
    unmade.map(fault).collect()
}

/// A stage and all that it reads, directly or not.
fn before<'p>(pipeline: &'p Pipeline, name: &'p StageName) -> Vec<&'p StageName> {
    let mut found = vec![name];
    let mut next = 0;
    while let Some(name) = found.get(next).copied() {
        next += 1;
        let inputs = pipeline.stage(name).map(|stage| stage.kind.inputs()).unwrap_or_default();
        for input in inputs {
            let Source::Stage(read) = input.source else { continue };
            // The pipeline's own name lives as long as the pipeline does.
            let Some(stage) = pipeline.stage(&read.stage) else { continue };
            if !found.contains(&&stage.name) {
                found.push(&stage.name);
            }
        }
    }
    found
}

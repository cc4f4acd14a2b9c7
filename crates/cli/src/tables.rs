//! Results as tables a query can name. A table is called like the stage that made it; a stage's second table is called
//! after a dot, as in `pairs.dropped`, `tuned.steps`, `report.metrics`. The tables of a matrix's cells have the cells'
//! names, and the name of the stage itself is all of them, with the axes as columns in front.

use sluice_spec::{Cell, Coordinate, LeafValue, Pipeline, StageName};
use sluice_sql::{Constant, NamedTable, TableData, UnionPart};
use sluice_store::{Artifact, Output, Record, Store};

use crate::session::Found;

/// An output of a stage and its name.
pub struct NamedOutput<'a> {
    pub name: String,
    pub output: &'a Output,
}

/// The outputs of a stage's result, by the names they are asked for. The one meant by the stage's name alone is the first.
pub fn named<'a>(stage: &str, record: &'a Record) -> Vec<NamedOutput<'a>> {
    let name = |(at, output): (usize, &Output)| match at {
        0 => stage.to_owned(),
        _ => format!("{stage}.{}", output.name),
    };
    let outputs = record.outputs.iter().enumerate();
    outputs.map(|(at, output)| NamedOutput { name: name((at, output)), output }).collect()
}

/// Rows of a stage's own table; none where the stage's own output is a checkpoint.
pub fn n_rows(record: &Record) -> Option<u64> {
    record.outputs.first().and_then(Output::n_rows)
}

/// The outputs of some results, each with its stage.
pub fn outputs(results: &[Found]) -> impl Iterator<Item = (&StageName, NamedOutput<'_>)> {
    results.iter().flat_map(|Found { stage, record, .. }| {
        named(stage.as_str(), record).into_iter().map(move |output| (stage, output))
    })
}

/// The tables among some outputs, each with its stage. None is opened before a query asks for it.
pub fn stored_tables<'a>(
    outputs: impl Iterator<Item = (&'a StageName, NamedOutput<'a>)>,
    store: &Store,
) -> impl Iterator<Item = (&'a StageName, NamedTable)> {
    let tables = outputs.filter(|(_, NamedOutput { output, .. })| matches!(output.artifact, Artifact::Table(_)));
    tables.map(|(stage, NamedOutput { name, output })| (stage, stored(name, output, store)))
}

/// The tables, and those of a matrix's cells once more as one.
pub fn with_unions<'a>(
    pipeline: &Pipeline,
    named: impl IntoIterator<Item = (&'a StageName, NamedTable)>,
) -> Vec<NamedTable> {
    let mut tables = Vec::new();
    let mut unions: Vec<(String, Vec<(String, &Cell)>)> = Vec::new();
    for (stage, table) in named {
        if let Some(cell) = pipeline.stage(stage).and_then(|stage| stage.cell.as_ref()) {
            let of_base = table.name.replacen(stage.as_str(), cell.base.as_str(), 1);
            match unions.iter_mut().find(|(union, _)| *union == of_base) {
                Some((_, parts)) => parts.push((table.name.clone(), cell)),
                None => unions.push((of_base, vec![(table.name.clone(), cell)])),
            }
        }
        tables.push(table);
    }
    tables.extend(unions.into_iter().map(|(name, parts)| NamedTable { name, data: TableData::Union(union(&parts)) }));
    tables
}

/// A stored table under a name.
pub fn stored(name: String, output: &Output, store: &Store) -> NamedTable {
    NamedTable { name, data: TableData::Stored { store: store.clone(), output: output.clone() } }
}

/// The cells' tables, each with its values on the axes.
pub fn union(parts: &[(String, &Cell)]) -> Vec<UnionPart> {
    let mut axes: Vec<&str> = Vec::new();
    for coordinate in parts.iter().flat_map(|(_, cell)| &cell.coordinates) {
        if !axes.contains(&coordinate.axis.as_str()) {
            axes.push(&coordinate.axis);
        }
    }
    let types: Vec<fn(Option<&Coordinate>) -> Constant> =
        axes.iter().map(|axis| column(parts.iter().filter_map(|(_, cell)| cell.on(axis)))).collect();
    let part = |(table, cell): &(String, &Cell)| UnionPart {
        table: table.clone(),
        values: axes.iter().zip(&types).map(|(axis, constant)| ((*axis).to_owned(), constant(cell.on(axis)))).collect(),
    };
    parts.iter().map(part).collect()
}

/// How the values of an axis are put into a column: by the narrowest type that has room for all of them.
fn column<'c>(values: impl Iterator<Item = &'c Coordinate>) -> fn(Option<&Coordinate>) -> Constant {
    let values: Vec<&LeafValue> = values.map(|on| &on.value).filter(|value| **value != LeafValue::Null).collect();
    let all = |is: fn(&LeafValue) -> bool| values.iter().all(|value| is(value));
    if all(|value| matches!(value, LeafValue::Int(_))) {
        |on| Constant::Int(on.and_then(|on| if let LeafValue::Int(value) = on.value { Some(value) } else { None }))
    } else if all(|value| matches!(value, LeafValue::Int(_) | LeafValue::Float(_))) {
        |on| {
            Constant::Float(on.and_then(|on| match on.value {
                LeafValue::Int(value) => Some(value as f64),
                LeafValue::Float(value) => Some(value),
                _ => None,
            }))
        }
    } else if all(|value| matches!(value, LeafValue::Bool(_))) {
        |on| Constant::Bool(on.and_then(|on| if let LeafValue::Bool(value) = on.value { Some(value) } else { None }))
    } else {
        |on| Constant::Text(on.filter(|on| on.value != LeafValue::Null).map(|on| on.label.clone()))
    }
}

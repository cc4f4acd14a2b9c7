//! Results as tables a query can name. A table is called like the stage that made it; a stage's second table is called
//! after a dot, as in `pairs.dropped`, `tuned.steps`, `report.metrics`.

use sluice_sql::{NamedTable, TableData};
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

/// All tables of some results. None is opened before a query asks for it.
pub fn tables(results: &[Found], store: &Store) -> Vec<NamedTable> {
    let outputs = results.iter().flat_map(|found| named(found.stage.as_str(), &found.record));
    let tables = outputs.filter(|named| matches!(named.output.artifact, Artifact::Table(_)));
    tables.map(|NamedOutput { name, output }| stored(name, output, store)).collect()
}

/// A stored table under a name.
pub fn stored(name: String, output: &Output, store: &Store) -> NamedTable {
    NamedTable { name, data: TableData::Stored { store: store.clone(), output: output.clone() } }
}

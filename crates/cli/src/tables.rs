//! Results as tables a query can name. A table is called like the stage that made it; a stage's second table is called
//! after a dot, as in `pairs.dropped`, `tuned.steps`, `report.metrics`.

use sluice_spec::Pipeline;
use sluice_sql::{NamedTable, TableData};
use sluice_store::{Artifact, Output, Record, Store, StoreError};

use crate::session::Found;

/// An output of a stage and its name.
pub struct NamedOutput<'a> {
    pub name: String,
    pub output: &'a Output,
}

/// The outputs of a result, by the names they are asked for.
pub fn named<'a>(pipeline: &Pipeline, found: &'a Found) -> Vec<NamedOutput<'a>> {
    // The product meant by the stage's name alone is the first of its kind.
    let products = pipeline.stage(&found.stage).map_or(&[][..], |stage| stage.kind.products());
    let first = products.first().map(|product| product.name());
    let name = |output: &Output| match first == Some(output.name.as_str()) {
        true => found.stage.to_string(),
        false => format!("{}.{}", found.stage, output.name),
    };
    found.record.outputs.iter().map(|output| NamedOutput { name: name(output), output }).collect()
}

/// Rows of a stage's own table; none where the stage's own output is a checkpoint.
pub fn n_rows(record: &Record) -> Option<u64> {
    record.outputs.first().and_then(Output::n_rows)
}

/// All tables of some results.
pub fn tables(pipeline: &Pipeline, results: &[Found], store: &Store) -> Result<Vec<NamedTable>, StoreError> {
    let mut tables = Vec::new();
    for NamedOutput { name, output } in results.iter().flat_map(|found| named(pipeline, found)) {
        if matches!(output.artifact, Artifact::Table(_)) {
            let path = store.table_path(output)?;
            tables.push(NamedTable { name, data: TableData::Parquet(vec![path]) });
        }
    }
    Ok(tables)
}

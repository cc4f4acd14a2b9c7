//! `sql`: a query over tables of the run becomes a table. It knows no column; the query names them.

use std::collections::BTreeSet;

use sluice_spec::stage::sql::Sql;
use sluice_sql::{NamedTable, Session, SqlError, TableData};
use sluice_table::TableKind;

use crate::{Produced, Progress, StageContext, StageError};

/// A query that cannot be kept as a table.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    #[error("the query reads `{table}`, which is not in `from`; `from` has {}", known.join(", "))]
    NotDeclared { table: String, known: Vec<String> },
    #[error("two columns of the answer are called `{column}`; name one of them with AS")]
    DuplicateColumn { column: String },
}

pub fn run(params: &Sql, context: &StageContext<'_>) -> Result<Produced, StageError> {
    let Sql { from, query } = params;
    let mut tables = Vec::with_capacity(from.value.len());
    for table in &from.value {
        let name = table.value.name.clone();
        let data = TableData::Stored { store: context.store.clone(), output: context.output(&name)?.clone() };
        tables.push(NamedTable { name, data });
    }

    let session = Session::new(tables)?;
    let answer = session.stream_repeatable(&query.value).map_err(undeclared)?;
    let schema = answer.schema();
    let mut names = BTreeSet::new();
    if let Some(field) = schema.fields().iter().find(|field| !names.insert(field.name().as_str())) {
        return Err(QueryError::DuplicateColumn { column: field.name().clone() }.into());
    }

    let mut n_rows = 0;
    let batches = answer.map(|batch| {
        let batch = batch?;
        n_rows += batch.num_rows() as u64;
        context.report(Progress::rows(n_rows, None));
        Ok(batch)
    });
    let output = context.write_table(TableKind::Any.name(), schema, batches)?;
    let n_rows = output.n_rows().unwrap_or(0) as f64;
    Ok(Produced::new(vec![output]).with_metrics([("rows", n_rows)]))
}

/// A stage's tables are those it declares, so the remedy for an unknown table is another one than at a prompt.
fn undeclared(error: SqlError) -> StageError {
    match error {
        SqlError::UnknownTable { place: _, table, known } => QueryError::NotDeclared { table, known }.into(),
        other => other.into(),
    }
}

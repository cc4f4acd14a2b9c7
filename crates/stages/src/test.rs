//! How a data test runs: each check becomes a query over the table under test that gives the rows at fault.
//!
//! Owns those queries, and that at most [`MAX_KEPT`] rows are kept, however many fail. Knows nothing of severities, nor what
//! follows. What is counted and what a metric is compared with is told in words; everything else in rows.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use sluice_spec::stage::test::{AcceptedValues, Check, Metric, Range, Relationship, RowCount, Scalar, THIS, Test};
use sluice_spec::{Finite, split_product};
use sluice_sql::{NamedTable, Session, TableData};
use sluice_store::{Artifact, Attempt, Output, Record, Store};
use sluice_table::type_word;

use crate::StageError;
use crate::contract;
use crate::sql::QueryError;

/// Rows of one test that are kept.
pub const MAX_KEPT: usize = 1000;

/// The name of the output that holds the rows at fault.
pub const FAILED: &str = "failed";

/// What the tests of a stage share.
pub struct TestContext<'a> {
    pub store: &'a Store,
    /// The result of the stage, for its metrics.
    pub record: &'a Record,
    pub cancel: &'a AtomicBool,
}

/// One test that is to be made.
pub struct TestRun<'a> {
    pub test: &'a Test,
    /// The tables of `Test::tables`, by their names there.
    pub tables: &'a [(String, Output)],
    /// Where the rows at fault are written.
    pub attempt: &'a Attempt,
}

/// What a test has found.
#[derive(Debug, Clone, PartialEq)]
pub struct Tested {
    /// Rows at fault; 1 for a number that is out of its range; 0 when the test passes.
    pub n_failed: u64,
    /// The first of them, written into the attempt; none when there are none, or when there are no rows to show.
    pub rows: Option<Output>,
    /// What was found, in words, where rows do not say it.
    pub found: Option<String>,
}

/// Why a test cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TestError {
    #[error("there is no column `{column}`; the table has {}", known.join(", "))]
    NoColumn { column: String, known: Vec<String> },
    #[error("the stage reports no `{metric}`; it reports {}", listed(known))]
    NoMetric { metric: String, known: Vec<String> },
    #[error("the table under test was not handed to it")]
    NoTable,
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "no numbers".to_owned() } else { names.join(", ") }
}

/// Makes the tests of one stage; each has its own answer. Those of one table share a session.
pub fn run(tests: &[TestRun<'_>], context: &TestContext<'_>) -> Vec<Result<Tested, StageError>> {
    let mut sessions: Vec<(&Output, Session)> = Vec::new();
    tests.iter().map(|test| one(test, tests, &mut sessions, context)).collect()
}

fn one<'t>(
    run: &TestRun<'t>,
    all: &[TestRun<'t>],
    sessions: &mut Vec<(&'t Output, Session)>,
    context: &TestContext<'_>,
) -> Result<Tested, StageError> {
    match &run.test.check {
        Check::Metric(metric) => return Ok(measured(metric, context.record)?),
        Check::RowCount(wanted) => return Ok(counted(wanted, this(run)?)),
        _ => {}
    }
    let output = this(run)?;
    let at = match sessions.iter().position(|(known, _)| *known == output) {
        Some(at) => at,
        None => {
            sessions.push((output, session(output, all, context.store)?));
            sessions.len() - 1
        }
    };
    let session = &sessions[at].1;
    let schema = context.store.table_schema(output);
    let schema = schema.map_err(|source| StageError::ReadInput { role: THIS.to_owned(), source })?;
    match &run.test.check {
        Check::Columns(wanted) => contract::run(wanted, session, &schema, run.attempt),
        check => {
            expect_columns(check, &schema)?;
            keep(&query(check, &schema), session, run.attempt, context.cancel)
        }
    }
}

/// A session over a table under test, and all that the tests of it read. A stored table is opened when a query names it.
fn session(this: &Output, all: &[TestRun<'_>], store: &Store) -> Result<Session, StageError> {
    let of_this = all.iter().filter(|run| run.tables.iter().any(|(name, output)| name == THIS && output == this));
    let mut names = BTreeSet::new();
    let tables = of_this.flat_map(|run| run.tables).filter(|(name, _)| names.insert(name));
    let named = tables.map(|(name, output)| NamedTable {
        name: name.clone(),
        data: TableData::Stored { store: store.clone(), output: output.clone() },
    });
    Ok(Session::new(named.collect())?)
}

/// Counts the rows of an answer, and keeps the first of them.
fn keep(query: &str, session: &Session, attempt: &Attempt, cancel: &AtomicBool) -> Result<Tested, StageError> {
    let answer = session.stream_repeatable(query)?;
    let schema = answer.schema();
    let mut names = BTreeSet::new();
    if let Some(field) = schema.fields().iter().find(|field| !names.insert(field.name().as_str())) {
        return Err(QueryError::DuplicateColumn { column: field.name().clone() }.into());
    }
    let mut n_failed = 0;
    let mut kept: Vec<RecordBatch> = Vec::new();
    for batch in answer {
        if cancel.load(Ordering::Relaxed) {
            return Err(StageError::Cancelled);
        }
        let batch = batch?;
        let room = MAX_KEPT.saturating_sub(n_failed).min(batch.num_rows());
        if room > 0 {
            kept.push(batch.slice(0, room));
        }
        n_failed += batch.num_rows();
    }
    let rows = if n_failed > 0 { Some(written(attempt, schema, &kept)?) } else { None };
    Ok(Tested { n_failed: n_failed as u64, rows, found: None })
}

/// Writes the rows at fault into the attempt.
pub(crate) fn written(attempt: &Attempt, schema: SchemaRef, batches: &[RecordBatch]) -> Result<Output, StageError> {
    let failed = |source| StageError::WriteOutput { table: FAILED.to_owned(), source };
    let mut writer = attempt.write_table(FAILED, schema).map_err(failed)?;
    for batch in batches {
        writer.write(batch).map_err(failed)?;
    }
    let table = writer.finish().map_err(failed)?;
    Ok(Output { name: FAILED.to_owned(), artifact: Artifact::Table(table) })
}

/// The table under test.
fn this<'t>(run: &TestRun<'t>) -> Result<&'t Output, TestError> {
    let found = run.tables.iter().find(|(name, _)| name == THIS);
    found.map(|(_, output)| output).ok_or(TestError::NoTable)
}

/// Refuses a check of a column that is not there: a query would name it, and not the test.
fn expect_columns(check: &Check, schema: &SchemaRef) -> Result<(), TestError> {
    let absent = check.columns().iter().find(|column| schema.field_with_name(column).is_err());
    let Some(absent) = absent else { return Ok(()) };
    let known = schema.fields().iter().map(|field| format!("`{}`", field.name())).collect();
    Err(TestError::NoColumn { column: absent.value.clone(), known })
}

/// The query that gives the rows at fault.
fn query(check: &Check, schema: &SchemaRef) -> String {
    match check {
        Check::NotNull(columns) => {
            let nulls: Vec<String> = columns.iter().map(|column| format!("{} is null", quoted(column))).collect();
            format!("select * from {THIS} where {}", nulls.join(" or "))
        }
        Check::Unique(columns) => {
            let columns: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
            let (list, known) = (columns.join(", "), columns.join(" is not null and "));
            format!(
                "select {list}, count(*) as n_rows from {THIS} where {known} is not null \
                 group by {list} having count(*) > 1 order by {list}"
            )
        }
        Check::Range(Range { column, min, max }) => {
            let data_type = schema.field_with_name(column).map_or(&DataType::Null, |field| field.data_type());
            // An end is rounded as the values are: 0.1 of 32 bits is not above 0.1 of 64.
            let end = |end: Finite| match data_type {
                DataType::Float32 => format!("cast({} as real)", number(end.get())),
                _ => number(end.get()),
            };
            let column = quoted(column);
            let mut faults = Vec::new();
            faults.extend(min.value.map(|min| format!("{column} < {}", end(min))));
            faults.extend(max.value.map(|max| format!("{column} > {}", end(max))));
            // What is no number lies in no range.
            faults.extend(data_type.is_floating().then(|| format!("isnan({column})")));
            format!("select * from {THIS} where {}", faults.join(" or "))
        }
        Check::AcceptedValues(AcceptedValues { column, values }) => {
            let values: Vec<String> = values.iter().map(literal).collect();
            format!("select * from {THIS} where {} not in ({})", quoted(column), values.join(", "))
        }
        Check::Relationship(Relationship { column, to, key }) => {
            let (stage, product) = split_product(&to.name);
            let product = product.map(|product| format!(".{}", quoted(product))).unwrap_or_default();
            let (column, key, to) = (quoted(column), quoted(key), format!("{}{product}", quoted(stage)));
            format!(
                "select * from {THIS} where {column} is not null and {column} not in \
                 (select {key} from {to} where {key} is not null)"
            )
        }
        Check::Sql(query) => query.value.clone(),
        Check::Metric(_) | Check::RowCount(_) | Check::Columns(_) => String::new(),
    }
}

/// Whether a number lies in its range.
fn measured(metric: &Metric, record: &Record) -> Result<Tested, TestError> {
    let Metric { name, min, max } = metric;
    let Some(&value) = record.metrics.get(&name.value) else {
        let known = record.metrics.keys().map(|name| format!("`{name}`")).collect();
        return Err(TestError::NoMetric { metric: name.value.clone(), known });
    };
    let (min, max) = (min.value.map(|min| min.get()), max.value.map(|max| max.get()));
    let fits = min.is_none_or(|min| value >= min) && max.is_none_or(|max| value <= max);
    let found = format!("{} is {}", name.value, number(value));
    Ok(verdict(fits, found, min.map(number), max.map(number)))
}

/// Whether a table has as many rows as it should.
fn counted(wanted: &RowCount, table: &Output) -> Tested {
    let RowCount { min, max } = wanted;
    let n_rows = table.n_rows().unwrap_or(0);
    let (min, max) = (min.value.map(|min| u64::from(min.get())), max.value.map(|max| u64::from(max.get())));
    let fits = min.is_none_or(|min| n_rows >= min) && max.is_none_or(|max| n_rows <= max);
    let found = format!(
        "there {} {n_rows} {}",
        if n_rows == 1 { "is" } else { "are" },
        if n_rows == 1 { "row" } else { "rows" }
    );
    verdict(fits, found, min.map(|min| min.to_string()), max.map(|max| max.to_string()))
}

fn verdict(fits: bool, found: String, min: Option<String>, max: Option<String>) -> Tested {
    let wanted = match (min, max) {
        (Some(min), Some(max)) => format!("{min} to {max}"),
        (Some(min), None) => format!("at least {min}"),
        (None, Some(max)) => format!("at most {max}"),
        (None, None) => "anything".to_owned(),
    };
    let found = if fits { found } else { format!("{found}; {wanted} is wanted") };
    Tested { n_failed: u64::from(!fits), rows: None, found: Some(found) }
}

/// A name as SQL takes it whatever is in it.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(value: &Scalar) -> String {
    match value {
        Scalar::Text(text) => format!("'{}'", text.replace('\'', "''")),
        Scalar::Int(value) => value.to_string(),
        Scalar::Float(value) => number(*value),
        Scalar::Bool(value) => value.to_string(),
    }
}

/// A number with its point only where it needs one.
fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 { format!("{value:.0}") } else { format!("{value:?}") }
}

/// The columns of a schema in words, for a contract: name, type, whether it may be null.
pub(crate) fn in_words(schema: &SchemaRef) -> Vec<(String, String, bool)> {
    let fields = schema.fields().iter();
    fields.map(|field| (field.name().clone(), type_word(field.data_type()), field.is_nullable())).collect()
}

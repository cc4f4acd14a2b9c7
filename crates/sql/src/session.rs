//! A session: named tables, and the blocking questions one may ask about them. Tables are opened when a query names
//! them, so a session over a thousand tables costs no more than one over those it reads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider, TableProvider};
use datafusion::common::{DataFusionError, TableReference};
use datafusion::datasource::MemTable;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast;
use futures::StreamExt;
use sluice_store::{Output, Store};
use tokio::runtime::Runtime;

use crate::error::{SqlError, cause_of};
use crate::files::DataFormat;
use crate::names::statements;
use crate::parquet_table::table_of_files;
use crate::place::Place;
use crate::repeatable::changing_function;
use crate::union::{self, UnionPart};

/// A table and the name a query knows it by: `pairs`, `pairs.dropped`, or `pairs.failed.not_null_prompt`.
#[derive(Clone)]
pub struct NamedTable {
    pub name: String,
    pub data: TableData,
}

/// Where the rows of a table are.
#[derive(Clone)]
pub enum TableData {
    /// An output of a stage. Its bytes are checked when a query first reads it.
    Stored { store: Store, output: Output },
    /// In Parquet files of one schema.
    Parquet(Vec<PathBuf>),
    /// In memory.
    Batches { schema: SchemaRef, batches: Vec<RecordBatch> },
    /// In other tables of the session, one after another.
    Union(Vec<UnionPart>),
}

/// Answers queries over named tables.
pub struct Session {
    runtime: Runtime,
    context: SessionContext,
    tables: BTreeMap<String, TableData>,
}

impl Session {
    pub fn new(tables: Vec<NamedTable>) -> Result<Self, SqlError> {
        // One thread, the caller's: rows come in one order, and small queries start without waiting for others.
        let runtime =
            tokio::runtime::Builder::new_current_thread().build().map_err(|source| SqlError::Runtime { source })?;
        let tables = tables.into_iter().map(|table| (table.name, table.data)).collect();
        Ok(Self { runtime, context: SessionContext::new_with_config(config()), tables })
    }

    /// The names of the tables, sorted.
    pub fn table_names(&self) -> impl Iterator<Item = &str> {
        self.tables.keys().map(String::as_str)
    }

    /// All rows of an answer. There is always a first batch, so that its columns are known also without rows.
    pub fn query(&self, query: &str) -> Result<Vec<RecordBatch>, SqlError> {
        self.stream(query)?.collect_all()
    }

    /// The rows of an answer, batch by batch.
    pub fn stream(&self, query: &str) -> Result<Batches<'_>, SqlError> {
        let plan = self.plan(query)?;
        self.start(plan)
    }

    /// As [`Session::stream`], for an answer that is kept: refuses functions that give another value at each run.
    pub fn stream_repeatable(&self, query: &str) -> Result<Batches<'_>, SqlError> {
        let plan = self.plan(query)?;
        let changing = changing_function(&plan).map_err(|error| SqlError::of_plan(query, &error))?;
        if let Some(function) = changing {
            return Err(SqlError::NotRepeatable { place: Place::of_word(query, &function), function });
        }
        self.start(plan)
    }

    fn plan(&self, query: &str) -> Result<LogicalPlan, SqlError> {
        let fault = |error| SqlError::of_plan(query, &error);
        let state = self.context.state();
        let statement = only_query(query)?;
        for reference in state.resolve_table_references(&statement).map_err(fault)? {
            self.open(query, &reference)?;
        }
        self.runtime.block_on(state.statement_to_plan(statement)).map_err(fault)
    }

    /// Makes one table of the query known to DataFusion.
    fn open(&self, query: &str, reference: &TableReference) -> Result<(), SqlError> {
        let fault = |error| SqlError::of_plan(query, &error);
        let name = reference.to_string();
        if self.context.table_exist(reference.clone()).is_ok_and(|exists| exists) {
            return Ok(());
        }
        let Some(data) = self.tables.get(&name) else {
            if self.context.state_ref().read().table_functions().contains_key(&name) {
                return Ok(());
            }
            let known = self.table_names().map(str::to_owned).collect();
            return Err(SqlError::UnknownTable { place: Place::of_word(query, reference.table()), table: name, known });
        };
        let provider = self.provider(query, &name, data)?;
        match reference {
            TableReference::Bare { .. } => {}
            TableReference::Partial { schema, .. } => self.add_schema(None, schema).map_err(fault)?,
            TableReference::Full { catalog, schema, .. } => self.add_schema(Some(catalog), schema).map_err(fault)?,
        }
        self.context.register_table(reference.clone(), provider).map_err(fault)?;
        Ok(())
    }

    fn provider(&self, query: &str, name: &str, data: &TableData) -> Result<Arc<dyn TableProvider>, SqlError> {
        let fault = |error| SqlError::of_plan(query, &error);
        Ok(match data {
            TableData::Stored { store, output } => {
                let stored = |source| SqlError::Stored { table: name.to_owned(), source };
                self.parquet(&[store.table_path(output).map_err(stored)?])?
            }
            TableData::Parquet(files) => self.parquet(files)?,
            TableData::Batches { schema, batches } => {
                Arc::new(MemTable::try_new(schema.clone(), vec![batches.clone()]).map_err(fault)?)
            }
            TableData::Union(parts) => {
                let mut opened = Vec::with_capacity(parts.len());
                for part in parts {
                    let Some(data) = self.tables.get(&part.table) else {
                        let known = self.table_names().map(str::to_owned).collect();
                        return Err(SqlError::UnknownTable { place: None, table: part.table.clone(), known });
                    };
                    opened.push((part, self.provider(query, &part.table, data)?));
                }
                union::view(&opened).map_err(fault)?
            }
        })
    }

    fn parquet(&self, files: &[PathBuf]) -> Result<Arc<dyn TableProvider>, SqlError> {
        let format = Arc::new(ParquetFormat::default().with_force_view_types(false));
        self.runtime.block_on(table_of_files(&self.context, files, format, None)).map_err(|error| {
            SqlError::read_file(files.first().map_or(Path::new(""), PathBuf::as_path), DataFormat::Parquet, error)
        })
    }

    /// `pairs.dropped` is table `dropped` in schema `pairs` of the session's own catalog; `pairs.failed.x` is table `x` in
    /// schema `failed` of a catalog `pairs`.
    fn add_schema(&self, catalog: Option<&str>, name: &str) -> Result<(), DataFusionError> {
        let own = &self.context.state_ref().read().config_options().catalog.default_catalog.clone();
        let catalog_name = catalog.unwrap_or(own);
        let catalog = self.context.catalog(catalog_name).unwrap_or_else(|| {
            let catalog: Arc<dyn CatalogProvider> = Arc::new(MemoryCatalogProvider::new());
            self.context.register_catalog(catalog_name, catalog.clone());
            catalog
        });
        match catalog.schema(name) {
            Some(_) => Ok(()),
            None => catalog.register_schema(name, Arc::new(MemorySchemaProvider::new())).map(|_| ()),
        }
    }

    fn start(&self, plan: LogicalPlan) -> Result<Batches<'_>, SqlError> {
        let run = async {
            let frame = self.context.execute_logical_plan(plan).await?;
            frame.execute_stream().await
        };
        let stream = self.runtime.block_on(run).map_err(|error| SqlError::Execute { source: cause_of(error) })?;
        Ok(Batches::new(self, stream, None))
    }

    pub(crate) fn context(&self) -> &SessionContext {
        &self.context
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }
}

/// The one statement of a query, which asks and changes nothing.
pub(crate) fn only_query(query: &str) -> Result<Statement, SqlError> {
    let mut statements = statements(query)?;
    match (statements.pop(), statements.len()) {
        (Some(statement @ Statement::Explain(_)), 0) => Ok(statement),
        (Some(Statement::Statement(statement)), 0)
            if matches!(
                *statement,
                ast::Statement::Query(_) | ast::Statement::Explain { .. } | ast::Statement::ExplainTable { .. }
            ) =>
        {
            Ok(Statement::Statement(statement))
        }
        (Some(_), 0) => Err(SqlError::NotAQuery),
        (None, _) => Err(SqlError::Syntax { place: None, message: "the query is empty".to_owned() }),
        (Some(_), n) => {
            Err(SqlError::Syntax { place: None, message: format!("there are {} statements; ask one at a time", n + 1) })
        }
    }
}

fn config() -> SessionConfig {
    let mut config = SessionConfig::new().with_target_partitions(1).with_collect_statistics(false);
    let options = config.options_mut();
    options.sql_parser.collect_spans = true;
    // Text stays Utf8, as the tables of this project have it.
    options.sql_parser.map_string_types_to_utf8view = false;
    options.execution.parquet.schema_force_view_types = false;
    config
}

/// The record batches of an answer, in order.
pub struct Batches<'s> {
    session: &'s Session,
    stream: SendableRecordBatchStream,
    /// The file behind the stream, if it is only one: an error names it.
    file: Option<(PathBuf, DataFormat)>,
}

impl<'s> Batches<'s> {
    pub(crate) fn new(
        session: &'s Session,
        stream: SendableRecordBatchStream,
        file: Option<(PathBuf, DataFormat)>,
    ) -> Self {
        Self { session, stream, file }
    }

    /// The columns of the answer, known before the first row.
    pub fn schema(&self) -> SchemaRef {
        self.stream.schema()
    }

    fn collect_all(self) -> Result<Vec<RecordBatch>, SqlError> {
        let schema = self.schema();
        let mut batches = self.collect::<Result<Vec<RecordBatch>, SqlError>>()?;
        if batches.is_empty() {
            batches.push(RecordBatch::new_empty(schema));
        }
        Ok(batches)
    }
}

impl Iterator for Batches<'_> {
    type Item = Result<RecordBatch, SqlError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.session.runtime.block_on(self.stream.next())?;
        Some(next.map_err(|error| match &self.file {
            Some((path, format)) => SqlError::read_file(path, *format, error),
            None => SqlError::Execute { source: cause_of(error) },
        }))
    }
}

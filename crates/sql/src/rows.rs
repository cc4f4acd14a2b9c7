//! One file of the user as rows, in file order: chosen columns, and whether a condition holds for each row. Rows for
//! which it does not hold are delivered too, so that the caller can count them and knows each row's number.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::{Column, DataFusionError, ToDFSchema};
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::logical_expr::{Expr, ExprSchemable, lit};
use datafusion::prelude::SessionContext;

use crate::error::SqlError;
use crate::files::DataFormat;
use crate::parquet_table::table_of_files;
use crate::session::{Batches, Session};

/// Rows of a batch: few, since a row may be a whole document.
const BATCH_ROWS: usize = 1024;

/// A file whose columns are known.
pub struct DataFile<'s> {
    session: &'s Session,
    path: PathBuf,
    format: DataFormat,
    table: Arc<dyn TableProvider>,
}

/// A question with a yes or a no for each row of a file; null counts as no.
pub struct Condition(Expr);

impl<'s> DataFile<'s> {
    /// Opens a file and learns its columns: from the footer of Parquet, from all rows of JSONL and CSV. In a CSV file
    /// everything that looks like a number is one, except in the columns `as_text`: `007` may be a text.
    pub fn open(session: &'s Session, path: &Path, format: DataFormat, as_text: &[&str]) -> Result<Self, SqlError> {
        let open = async {
            let files = [path.to_owned()];
            let table = table_of_files(session.context(), &files, file_format(format), None).await?;
            if format != DataFormat::Csv {
                return Ok(table);
            }
            let schema = with_text(&table.schema(), as_text);
            table_of_files(session.context(), &files, file_format(format), Some(schema)).await
        };
        let table = session.runtime().block_on(open).map_err(|error| SqlError::read_file(path, format, error))?;
        Ok(Self { session, path: path.to_owned(), format, table })
    }

    /// The columns of the file.
    pub fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    /// Reads a SQL expression over the columns of the file.
    ///
    /// # Errors
    /// What is wrong with the text, with the place in it.
    pub fn condition(&self, text: &str) -> Result<Condition, SqlError> {
        let fault = |error: DataFusionError| SqlError::of_plan(text, &error);
        let schema = self.table.schema().to_dfschema().map_err(|error| self.failed(error))?;
        let expression = self.session.context().parse_sql_expr(text, &schema).map_err(fault)?;
        let found = expression.get_type(&schema).map_err(fault)?;
        if found != DataType::Boolean {
            return Err(SqlError::NotACondition { found });
        }
        Ok(Condition(expression.is_true()))
    }

    /// Reads every row in file order: a column `keep` (Boolean, no nulls), which says whether the condition holds, and
    /// then the columns asked for. Without a condition it always holds.
    pub fn scan(&self, columns: &[&str], condition: Option<Condition>) -> Result<Batches<'s>, SqlError> {
        let keep = condition.map_or_else(|| lit(true), |Condition(expression)| expression);
        // Names by position: a file may have a column `keep`, and one column may be asked for twice.
        let chosen = columns
            .iter()
            .enumerate()
            .map(|(i, column)| Expr::Column(Column::new_unqualified(*column)).alias(format!("column{i}")));
        let selection: Vec<Expr> = std::iter::once(keep.alias("keep")).chain(chosen).collect();
        let scan = async {
            let mut state = self.session.context().state();
            *state.config_mut() = state.config().clone().with_batch_size(BATCH_ROWS);
            let frame = SessionContext::new_with_state(state).read_table(self.table.clone())?;
            frame.select(selection)?.execute_stream().await
        };
        let stream = self.session.runtime().block_on(scan).map_err(|error| self.failed(error))?;
        Ok(Batches::new(self.session, stream, Some((self.path.clone(), self.format))))
    }

    fn failed(&self, error: DataFusionError) -> SqlError {
        SqlError::read_file(&self.path, self.format, error)
    }
}

fn file_format(format: DataFormat) -> Arc<dyn FileFormat> {
    match format {
        DataFormat::Parquet => Arc::new(ParquetFormat::default().with_force_view_types(false)),
        // A type guessed from the first thousand rows would fail at the first row that differs.
        DataFormat::Jsonl => Arc::new(JsonFormat::default().with_schema_infer_max_rec(usize::MAX)),
        DataFormat::Csv => Arc::new(
            CsvFormat::default()
                .with_has_header(true)
                .with_newlines_in_values(true)
                .with_schema_infer_max_rec(usize::MAX),
        ),
    }
}

fn with_text(schema: &Schema, as_text: &[&str]) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| {
        if as_text.contains(&field.name().as_str()) {
            Arc::new(Field::new(field.name(), DataType::Utf8, true))
        } else {
            field.clone()
        }
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

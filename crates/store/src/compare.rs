//! What differs between two stored tables, row by row. It owns how rows are found again and how cells are compared, and
//! refuses to know what the columns mean: which of them tell rows apart is said by the caller.
//!
//! Both tables are read once, batch by batch, and once more as far as rows are to be shown. Of each row a number a cell is
//! kept, a hash of 8 bytes, and of the second table nothing; so 300,000 rows of 17 columns take 40 MB.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::path::PathBuf;

use arrow::array::{RecordBatch, RecordBatchReader};
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rayon::prelude::*;

use crate::divided::divided;
use crate::error::StoreError;
use crate::logical::MEASURED;
use crate::record::Output;
use crate::store::Store;

/// Rows of a batch that is read.
const BATCH_ROWS: usize = 8192;

/// How rows are found again.
#[derive(Debug, Clone, Copy)]
pub struct Matching<'a> {
    /// Sets of columns that may tell rows apart, the best first. The first that both tables have, and under which no two
    /// rows of either are alike, is taken; without one, rows are compared as wholes.
    pub ids: &'a [&'a [&'a str]],
    /// Columns that are not compared, such as those computed from the others.
    pub left_out: &'a [&'a str],
}

/// What differs between two tables.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// Columns that only one has, or that have other types.
    pub columns: Vec<ColumnChange>,
    /// The columns by which rows were found again; empty where they were compared as wholes.
    pub matched_by: Vec<String>,
    /// Rows of the old table.
    pub n_old: u64,
    /// Rows of the new table.
    pub n_new: u64,
    /// Rows that are alike in every column both have.
    pub n_same: u64,
    /// Rows that are there in both and differ.
    pub n_changed: u64,
    /// Rows that only the new table has.
    pub n_added: u64,
    /// Rows that only the old table has.
    pub n_removed: u64,
    /// The columns in which changed rows differ, each with how many do, in the order of the new table.
    pub changed_columns: Vec<(String, u64)>,
    /// The first added rows.
    pub added: RecordBatch,
    /// The first removed rows.
    pub removed: RecordBatch,
    /// The first changed rows, as they were and as they are.
    pub changed: (RecordBatch, RecordBatch),
}

/// A column that is not the same in both tables. Types are Arrow's, with ` or null` where nulls are allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnChange {
    /// Only the new table has it.
    Added {
        /// Its name.
        name: String,
        /// Its type.
        to: String,
    },
    /// Only the old table has it.
    Removed {
        /// Its name.
        name: String,
        /// Its type.
        from: String,
    },
    /// Both have it, with different types.
    Retyped {
        /// Its name.
        name: String,
        /// Its type in the old table.
        from: String,
        /// Its type in the new one.
        to: String,
    },
}

impl Store {
    /// What differs between two tables, with up to `n_shown` rows of each kind of difference.
    ///
    /// # Errors
    /// Those of [`Store::table_path`]; `Parquet` and `Arrow` for what cannot be read.
    pub fn compare_tables(
        &self,
        old: &Output,
        new: &Output,
        matching: Matching<'_>,
        n_shown: usize,
    ) -> Result<Comparison, StoreError> {
        let (old, new) = (Table::open(self, old)?, Table::open(self, new)?);
        let compared = compared(&old.schema, &new.schema, matching.left_out);
        if compared.is_empty() {
            return Matched::none(&old, &new).comparison(&old, &new, &[], Vec::new(), n_shown);
        }
        let has_all = |ids: &&&[&str]| ids.iter().all(|id| compared.iter().any(|name| name == id));
        for ids in matching.ids.iter().filter(has_all) {
            let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
            if let Some(found) = Matched::of(&old, &new, &compared, &ids)? {
                return found.comparison(&old, &new, &compared, ids, n_shown);
            }
        }
        let whole = Matched::of(&old, &new, &compared, &[])?;
        whole.unwrap_or_default().comparison(&old, &new, &compared, Vec::new(), n_shown)
    }
}

/// A table on disk, checked.
struct Table {
    path: PathBuf,
    schema: SchemaRef,
    n_rows: u64,
}

impl Table {
    fn open(store: &Store, output: &Output) -> Result<Self, StoreError> {
        let n_rows = output.table()?.n_rows;
        Ok(Self { path: store.table_path(output)?, schema: store.table_schema(output)?, n_rows })
    }

    /// All batches, in order.
    fn batches(&self) -> Result<impl RecordBatchReader, StoreError> {
        let file = File::open(&self.path).map_err(|error| StoreError::read("open table", &self.path, error))?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).map(|reader| reader.with_batch_size(BATCH_ROWS));
        reader.and_then(ParquetRecordBatchReaderBuilder::build).map_err(|source| StoreError::Parquet {
            operation: "read",
            table: self.path.display().to_string(),
            source,
        })
    }

    fn failed(&self, source: ArrowError) -> StoreError {
        StoreError::Arrow { operation: "compare", table: self.path.display().to_string(), source }
    }

    /// Some rows, in the order asked for.
    fn rows(&self, wanted: &[u64]) -> Result<RecordBatch, StoreError> {
        let mut found: HashMap<u64, RecordBatch> = HashMap::new();
        let mut first = 0;
        for batch in self.batches()? {
            if wanted.iter().all(|row| found.contains_key(row)) {
                break;
            }
            let batch = batch.map_err(|source| self.failed(source))?;
            let end = first + batch.num_rows() as u64;
            for row in wanted.iter().filter(|row| (first..end).contains(*row)) {
                found.insert(*row, batch.slice((row - first) as usize, 1));
            }
            first = end;
        }
        let rows: Vec<RecordBatch> = wanted.iter().filter_map(|row| found.get(row).cloned()).collect();
        concat_batches(&self.schema, &rows).map_err(|source| self.failed(source))
    }
}

/// The columns that are compared: both tables have them, with one type, and they are no measurements.
fn compared(old: &Schema, new: &Schema, left_out: &[&str]) -> Vec<String> {
    let is_measured = |schema: &Schema, name: &str| {
        schema
            .field_with_name(name)
            .is_ok_and(|field| field.metadata().get(MEASURED).is_some_and(|value| value == "true"))
    };
    let both = new.fields().iter().filter(|field| {
        old.field_with_name(field.name()).is_ok_and(|other| other.data_type() == field.data_type())
            && !left_out.contains(&field.name().as_str())
            && !is_measured(new, field.name())
    });
    both.map(|field| field.name().clone()).collect()
}

/// The numbers of a batch's cells, row by row.
struct Cells {
    converters: Vec<RowConverter>,
    names: Vec<String>,
}

impl Cells {
    fn of(table: &Table, names: &[String]) -> Result<Self, StoreError> {
        let converter = |name: &String| {
            let field = table.schema.field_with_name(name)?;
            RowConverter::new(vec![SortField::new(field.data_type().clone())])
        };
        let converters =
            names.iter().map(converter).collect::<Result<_, _>>().map_err(|source| table.failed(source))?;
        Ok(Self { converters, names: names.to_vec() })
    }

    fn numbers(&mut self, batch: &RecordBatch) -> Result<Vec<u64>, ArrowError> {
        let of_column = |(name, converter): (&String, &mut RowConverter)| -> Result<Vec<u64>, ArrowError> {
            let column = batch.column(batch.schema_ref().index_of(name)?).clone();
            let cells = converter.convert_columns(&[column])?;
            Ok(cells.iter().map(|cell| number(cell.as_ref())).collect())
        };
        let columns: Result<Vec<Vec<u64>>, ArrowError> =
            divided(|| self.names.par_iter().zip(&mut self.converters).map(of_column).collect());
        let columns = columns?;
        Ok((0..batch.num_rows()).flat_map(|row| columns.iter().map(move |column| column[row])).collect())
    }
}

/// A number that is another for other bytes. It is compared within this process and stored nowhere, so it need not be the
/// same in the next version of the standard library.
fn number(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

/// Rows found again, by their places.
#[derive(Default)]
struct Matched {
    n_old: u64,
    n_new: u64,
    n_same: u64,
    added: Vec<u64>,
    removed: Vec<u64>,
    /// Old and new place.
    changed: Vec<(u64, u64)>,
    /// For each compared column, in how many changed rows it differs.
    n_by_column: Vec<u64>,
}

impl Matched {
    /// Of tables without a column in common, no row is found again.
    fn none(old: &Table, new: &Table) -> Self {
        let (added, removed) = ((0..new.n_rows).collect(), (0..old.n_rows).collect());
        Self { n_old: old.n_rows, n_new: new.n_rows, added, removed, ..Self::default() }
    }

    /// Finds the rows of the new table in the old one by some columns, or as wholes if there are none. `None` when two rows
    /// of a table are alike in these columns.
    fn of(old: &Table, new: &Table, compared: &[String], ids: &[String]) -> Result<Option<Self>, StoreError> {
        let n = compared.len();
        let is_id: Vec<bool> = compared.iter().map(|name| ids.is_empty() || ids.contains(name)).collect();
        let mut old_cells = Vec::with_capacity(usize::try_from(old.n_rows).unwrap_or(0) * n);
        let mut places = Places::default();
        let mut cells = Cells::of(old, compared)?;
        for batch in old.batches()? {
            let numbers = batch.and_then(|batch| cells.numbers(&batch)).map_err(|source| old.failed(source))?;
            for row in numbers.chunks_exact(n) {
                if !places.put(identity(row, &is_id), ids.is_empty()) {
                    return Ok(None);
                }
            }
            old_cells.extend(numbers);
        }
        let mut matched = Self { n_old: places.n, n_by_column: vec![0; n], ..Self::default() };
        let mut is_found = vec![false; usize::try_from(places.n).unwrap_or(0)];
        let mut seen = Places::default();
        let mut cells = Cells::of(new, compared)?;
        for batch in new.batches()? {
            let numbers = batch.and_then(|batch| cells.numbers(&batch)).map_err(|source| new.failed(source))?;
            for row in numbers.chunks_exact(n) {
                let (place, id) = (seen.n, identity(row, &is_id));
                if !seen.put(id, ids.is_empty()) {
                    return Ok(None);
                }
                let Some(before) = places.place(id, seen.times(id)) else {
                    matched.added.push(place);
                    continue;
                };
                is_found[before as usize] = true;
                let then = &old_cells[before as usize * n..][..n];
                if then == row {
                    matched.n_same += 1;
                    continue;
                }
                matched.changed.push((before, place));
                let differing = then.iter().zip(row).zip(&mut matched.n_by_column).filter(|((a, b), _)| a != b);
                differing.for_each(|(_, n)| *n += 1);
            }
        }
        matched.n_new = seen.n;
        matched.removed = (0..places.n).filter(|place| !is_found[*place as usize]).collect();
        Ok(Some(matched))
    }

    fn comparison(
        self,
        old: &Table,
        new: &Table,
        compared: &[String],
        matched_by: Vec<String>,
        n_shown: usize,
    ) -> Result<Comparison, StoreError> {
        let Self { n_old, n_new, n_same, added, removed, changed, n_by_column } = self;
        let first = |places: &[u64]| places[..places.len().min(n_shown)].to_vec();
        let (were, are): (Vec<u64>, Vec<u64>) = changed.iter().take(n_shown).copied().unzip();
        let changed_columns = compared.iter().cloned().zip(n_by_column).filter(|(_, n)| *n > 0).collect();
        Ok(Comparison {
            columns: column_changes(&old.schema, &new.schema),
            matched_by,
            n_old,
            n_new,
            n_same,
            n_changed: changed.len() as u64,
            n_added: added.len() as u64,
            n_removed: removed.len() as u64,
            changed_columns,
            added: new.rows(&first(&added))?,
            removed: old.rows(&first(&removed))?,
            changed: (old.rows(&were)?, new.rows(&are)?),
        })
    }
}

/// Where rows are, by what tells them apart. Rows that are alike are told apart by how often they came before.
#[derive(Default)]
struct Places {
    places: HashMap<(u64, u64), u64>,
    times: HashMap<u64, u64>,
    n: u64,
}

impl Places {
    /// Takes the next row. Whether it did: a second one of an identity is refused unless it `may_repeat`.
    fn put(&mut self, id: u64, may_repeat: bool) -> bool {
        let times = self.times.entry(id).or_default();
        *times += 1;
        if *times > 1 && !may_repeat {
            return false;
        }
        self.places.insert((id, *times), self.n);
        self.n += 1;
        true
    }

    fn times(&self, id: u64) -> u64 {
        self.times.get(&id).copied().unwrap_or(0)
    }

    fn place(&self, id: u64, times: u64) -> Option<u64> {
        self.places.get(&(id, times)).copied()
    }
}

fn identity(row: &[u64], is_id: &[bool]) -> u64 {
    let mut hasher = DefaultHasher::new();
    row.iter().zip(is_id).filter(|(_, is_id)| **is_id).for_each(|(cell, _)| hasher.write_u64(*cell));
    hasher.finish()
}

/// Columns by name: removed ones and those of another type in the order of the old table, added ones behind.
fn column_changes(old: &Schema, new: &Schema) -> Vec<ColumnChange> {
    let text = |field: &arrow::datatypes::Field| {
        format!("{}{}", field.data_type(), if field.is_nullable() { " or null" } else { "" })
    };
    let changed = old.fields().iter().filter_map(|field| {
        let (name, from) = (field.name().clone(), text(field));
        match new.field_with_name(&name) {
            Err(_) => Some(ColumnChange::Removed { name, from }),
            Ok(other) => (text(other) != from).then(|| ColumnChange::Retyped { name, from, to: text(other) }),
        }
    });
    let is_new = |name: &str| old.field_with_name(name).is_err();
    let added = new.fields().iter().filter(|field| is_new(field.name()));
    changed.chain(added.map(|field| ColumnChange::Added { name: field.name().clone(), to: text(field) })).collect()
}

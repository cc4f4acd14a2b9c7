//! The logical digest of a table: over its columns and its rows in order, and over nothing else. Batch layout,
//! dictionary and view encodings, 32- or 64-bit offsets, codec, row groups and metadata cannot change it. It
//! refuses to know where the rows come from and where they go.
//!
//! Definition, version 1. Each column is three byte streams in row order: one validity byte a row, the lengths
//! (u64, little-endian) of its non-null texts or lists, and the bytes of its non-null values; nested columns add
//! the same three for each child, over the non-null parents only. A stream never depends on where a batch ends,
//! so nothing has to be re-blocked, and whole value buffers go through BLAKE3 at once. The digest is BLAKE3 over
//! the canonical schema and, for each column, its three stream hashes and its children's.
//! Floats: every NaN is one NaN and -0 is 0. A map keeps the order of its entries.

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, FixedSizeListArray, GenericListArray, MapArray, OffsetSizeTrait,
    RecordBatch,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{cast, filter, is_not_null};
use arrow::datatypes::{
    ByteArrayType, DataType, Field, GenericBinaryType, GenericStringType, IntervalUnit, Schema, TimeUnit,
};
use arrow::error::ArrowError;

use crate::digest::TableDigest;
use crate::error::StoreError;

/// Field metadata key. A column whose field has it with value `true` holds a measurement (seconds, tokens per
/// second): it is stored, and it never enters a logical digest.
pub const MEASURED: &str = "sluice.measured";

/// Bytes collected before they are hashed: BLAKE3 needs long runs to use the processor's vector units.
const STREAM_BYTES: usize = 1 << 16;

/// The logical digest of some batches of one table, in order.
pub fn table_digest(schema: &Schema, batches: &[RecordBatch]) -> Result<TableDigest, StoreError> {
    let mut hasher = LogicalHasher::new(schema)?;
    for batch in batches {
        hasher.update(batch)?;
    }
    Ok(hasher.finish())
}

/// Computes a logical digest batch by batch.
pub struct LogicalHasher {
    schema: Vec<u8>,
    columns: Vec<(usize, String, ColumnHasher)>,
}

impl LogicalHasher {
    /// A hasher for tables of this schema.
    ///
    /// # Errors
    /// `ColumnType` when a column's type has no canonical form (unions).
    pub fn new(schema: &Schema) -> Result<Self, StoreError> {
        let mut text = String::new();
        let mut columns = Vec::new();
        for (index, field) in schema.fields().iter().enumerate() {
            if field.metadata().get(MEASURED).is_some_and(|value| value == "true") {
                continue;
            }
            write_field(&mut text, field).map_err(|data_type| StoreError::ColumnType {
                column: field.name().clone(),
                data_type: data_type.to_string(),
            })?;
            columns.push((index, field.name().clone(), ColumnHasher::of(field.data_type())));
        }
        Ok(Self { schema: text.into_bytes(), columns })
    }

    /// Add the rows of one batch, whose columns are those of the schema up to encoding.
    pub fn update(&mut self, batch: &RecordBatch) -> Result<(), StoreError> {
        for (index, name, column) in &mut self.columns {
            column.update(batch.column(*index)).map_err(|source| StoreError::Arrow {
                operation: "digest",
                table: name.clone(),
                source,
            })?;
        }
        Ok(())
    }

    /// The canonical text of the hashed columns' types without nullability: equal for two schemas exactly when
    /// one's columns can be cast to the other's without changing a value.
    pub(crate) fn types_text(&self) -> String {
        String::from_utf8_lossy(&self.schema).replace(" null;", ";")
    }

    /// The digest of everything added.
    pub fn finish(self) -> TableDigest {
        let mut hasher = blake3::Hasher::new_derive_key("sluice table digest v1");
        hasher.update(&(self.schema.len() as u64).to_le_bytes());
        hasher.update(&self.schema);
        for (_, _, column) in self.columns {
            hasher.update(column.finish().as_bytes());
        }
        TableDigest::from_bytes(*hasher.finalize().as_bytes())
    }
}

/// Hashes a byte stream in long runs.
#[derive(Default)]
struct Stream {
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
}

impl Stream {
    fn push(&mut self, bytes: &[u8]) {
        if self.buffer.len() + bytes.len() > STREAM_BYTES {
            self.hasher.update(&self.buffer);
            self.buffer.clear();
        }
        if bytes.len() >= STREAM_BYTES {
            self.hasher.update(bytes);
        } else {
            self.buffer.extend_from_slice(bytes);
        }
    }

    fn finish(mut self) -> blake3::Hash {
        self.hasher.update(&self.buffer);
        self.hasher.finalize()
    }
}

#[derive(Default)]
struct ColumnHasher {
    validity: Stream,
    lengths: Stream,
    values: Stream,
    children: Vec<ColumnHasher>,
}

impl ColumnHasher {
    /// A hasher with all of its children, so that a table without batches has the digest of one without rows.
    fn of(data_type: &DataType) -> Self {
        let children = match data_type {
            DataType::Dictionary(_, values) => return Self::of(values),
            DataType::RunEndEncoded(_, values) => return Self::of(values.data_type()),
            DataType::List(item)
            | DataType::LargeList(item)
            | DataType::ListView(item)
            | DataType::LargeListView(item)
            | DataType::FixedSizeList(item, _) => vec![Self::of(item.data_type())],
            DataType::Struct(fields) => fields.iter().map(|field| Self::of(field.data_type())).collect(),
            // A map's entries are a struct of key and value, which are its children here.
            DataType::Map(entries, _) => return Self::of(entries.data_type()),
            _ => Vec::new(),
        };
        Self { children, ..Self::default() }
    }

    fn update(&mut self, array: &ArrayRef) -> Result<(), ArrowError> {
        let array = plain(array)?;
        if array.logical_null_count() == 0 {
            self.validity.push(&vec![1; array.len()]);
            return self.values(&array);
        }
        // What lies under a null (a stale value, a list with a length) is not part of the table.
        let valid = is_not_null(&array)?;
        self.validity.push(&bytes_of(&valid));
        self.values(&filter(&array, &valid)?)
    }

    /// Add the values of an array without nulls at this level.
    fn values(&mut self, array: &ArrayRef) -> Result<(), ArrowError> {
        match array.data_type() {
            DataType::Null => {}
            DataType::Boolean => self.values.push(&bytes_of(array.as_boolean())),
            DataType::Float16 => self.floats::<2>(array, |bits| canonical_f16(u16::from_le_bytes(bits)).to_le_bytes()),
            DataType::Float32 => self.floats::<4>(array, |bits| canonical_f32(f32::from_le_bytes(bits)).to_le_bytes()),
            DataType::Float64 => self.floats::<8>(array, |bits| canonical_f64(f64::from_le_bytes(bits)).to_le_bytes()),
            DataType::Utf8 => self.texts::<GenericStringType<i32>>(array),
            DataType::LargeUtf8 => self.texts::<GenericStringType<i64>>(array),
            DataType::Binary => self.texts::<GenericBinaryType<i32>>(array),
            DataType::LargeBinary => self.texts::<GenericBinaryType<i64>>(array),
            DataType::FixedSizeBinary(width) => self.raw(array, *width as usize),
            DataType::List(_) => self.list(array.as_list::<i32>())?,
            DataType::LargeList(_) => self.list(array.as_list::<i64>())?,
            DataType::FixedSizeList(..) => self.fixed_list(array.as_fixed_size_list())?,
            DataType::Map(..) => self.map(array.as_map())?,
            DataType::Struct(_) => {
                for (index, column) in array.as_struct().columns().iter().enumerate() {
                    self.children[index].update(column)?;
                }
            }
            primitive => {
                let width = primitive
                    .primitive_width()
                    .ok_or_else(|| ArrowError::NotYetImplemented(format!("a digest of {primitive}")))?;
                self.raw(array, width);
            }
        }
        Ok(())
    }

    fn raw(&mut self, array: &ArrayRef, width: usize) {
        let data = array.to_data();
        self.values.push(&data.buffers()[0].as_slice()[data.offset() * width..(data.offset() + data.len()) * width]);
    }

    fn floats<const W: usize>(&mut self, array: &ArrayRef, canonical: impl Fn([u8; W]) -> [u8; W]) {
        let data = array.to_data();
        let bytes = &data.buffers()[0].as_slice()[data.offset() * W..(data.offset() + data.len()) * W];
        let (values, _) = bytes.as_chunks::<W>();
        // In runs of a stream's size, so that a large batch is not copied whole.
        for run in values.chunks(STREAM_BYTES / W) {
            let canonical: Vec<[u8; W]> = run.iter().map(|bits| canonical(*bits)).collect();
            self.values.push(canonical.as_flattened());
        }
    }

    fn texts<T: ByteArrayType>(&mut self, array: &ArrayRef) {
        let array = array.as_bytes::<T>();
        let (start, end) = self.offsets(array.offsets());
        self.values.push(&array.value_data()[start..end]);
    }

    fn list<O: OffsetSizeTrait>(&mut self, array: &GenericListArray<O>) -> Result<(), ArrowError> {
        let (start, end) = self.offsets(array.offsets());
        self.children[0].update(&array.values().slice(start, end - start))
    }

    fn fixed_list(&mut self, array: &FixedSizeListArray) -> Result<(), ArrowError> {
        let width = array.value_length() as u64;
        self.lengths.push(&width.to_le_bytes().repeat(array.len()));
        let start = array.value_offset(0) as usize;
        self.children[0].update(&array.values().slice(start, array.len() * width as usize))
    }

    fn map(&mut self, array: &MapArray) -> Result<(), ArrowError> {
        let (start, end) = self.offsets(array.offsets());
        self.children[0].update(&array.keys().slice(start, end - start))?;
        self.children[1].update(&array.values().slice(start, end - start))
    }

    /// Add the lengths between offsets, and return the range they cover.
    fn offsets<O: OffsetSizeTrait>(&mut self, offsets: &OffsetBuffer<O>) -> (usize, usize) {
        let lengths: Vec<[u8; 8]> =
            offsets.windows(2).map(|pair| ((pair[1] - pair[0]).as_usize() as u64).to_le_bytes()).collect();
        self.lengths.push(lengths.as_flattened());
        (offsets[0].as_usize(), offsets[offsets.len() - 1].as_usize())
    }

    fn finish(self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for stream in [self.validity, self.lengths, self.values] {
            hasher.update(stream.finish().as_bytes());
        }
        for child in self.children {
            hasher.update(child.finish().as_bytes());
        }
        hasher.finalize()
    }
}

/// The same values without dictionary, run-end or view encoding at this level.
fn plain(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match array.data_type() {
        DataType::Dictionary(_, values) => plain(&cast(array, values)?),
        DataType::RunEndEncoded(_, values) => plain(&cast(array, values.data_type())?),
        DataType::Utf8View => cast(array, &DataType::LargeUtf8),
        DataType::BinaryView => cast(array, &DataType::LargeBinary),
        DataType::ListView(field) => cast(array, &DataType::List(field.clone())),
        DataType::LargeListView(field) => cast(array, &DataType::LargeList(field.clone())),
        _ => Ok(array.clone()),
    }
}

fn bytes_of(array: &BooleanArray) -> Vec<u8> {
    array.values().iter().map(u8::from).collect()
}

fn canonical_f16(bits: u16) -> u16 {
    match bits & 0x7fff {
        0 => 0,
        magnitude if magnitude > 0x7c00 => 0x7e00,
        _ => bits,
    }
}

fn canonical_f32(value: f32) -> f32 {
    // Adding zero turns -0 into 0 and leaves every other number alone.
    if value.is_nan() { f32::from_bits(0x7fc0_0000) } else { value + 0.0 }
}

fn canonical_f64(value: f64) -> f64 {
    if value.is_nan() { f64::from_bits(0x7ff8_0000_0000_0000) } else { value + 0.0 }
}

/// Write `NAME_BYTES:NAME type null;`, or return the type that has no canonical form.
fn write_field<'a>(text: &mut String, field: &'a Field) -> Result<(), &'a DataType> {
    text.push_str(&format!("{}:{} ", field.name().len(), field.name()));
    write_item(text, field)
}

/// Like [`write_field`] without the name: the children of lists and maps have names by accident only.
fn write_item<'a>(text: &mut String, field: &'a Field) -> Result<(), &'a DataType> {
    write_type(text, field.data_type())?;
    text.push_str(if field.is_nullable() { " null;" } else { ";" });
    Ok(())
}

fn write_type<'a>(text: &mut String, data_type: &'a DataType) -> Result<(), &'a DataType> {
    match data_type {
        DataType::Dictionary(_, values) => return write_type(text, values),
        DataType::RunEndEncoded(_, values) => return write_type(text, values.data_type()),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => text.push_str("utf8"),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => text.push_str("binary"),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => {
            text.push_str("list<");
            write_item(text, item)?;
            text.push('>');
        }
        DataType::Struct(fields) => {
            text.push_str("struct<");
            for field in fields {
                write_field(text, field)?;
            }
            text.push('>');
        }
        DataType::Map(entries, _) => {
            let DataType::Struct(fields) = entries.data_type() else {
                return Err(data_type);
            };
            text.push_str("map<");
            for field in fields {
                write_item(text, field)?;
            }
            text.push('>');
        }
        DataType::Union(..) => return Err(data_type),
        DataType::Null => text.push_str("nothing"),
        DataType::Boolean => text.push_str("bool"),
        DataType::Int8 => text.push_str("i8"),
        DataType::Int16 => text.push_str("i16"),
        DataType::Int32 => text.push_str("i32"),
        DataType::Int64 => text.push_str("i64"),
        DataType::UInt8 => text.push_str("u8"),
        DataType::UInt16 => text.push_str("u16"),
        DataType::UInt32 => text.push_str("u32"),
        DataType::UInt64 => text.push_str("u64"),
        DataType::Float16 => text.push_str("f16"),
        DataType::Float32 => text.push_str("f32"),
        DataType::Float64 => text.push_str("f64"),
        DataType::FixedSizeBinary(width) => text.push_str(&format!("binary{width}")),
        DataType::Date32 => text.push_str("date32"),
        DataType::Date64 => text.push_str("date64"),
        DataType::Time32(unit) => text.push_str(&format!("time32-{}", unit_name(*unit))),
        DataType::Time64(unit) => text.push_str(&format!("time64-{}", unit_name(*unit))),
        DataType::Duration(unit) => text.push_str(&format!("duration-{}", unit_name(*unit))),
        DataType::Timestamp(unit, zone) => {
            let zone = zone.as_deref().unwrap_or("");
            text.push_str(&format!("timestamp-{} {}:{zone}", unit_name(*unit), zone.len()));
        }
        DataType::Interval(IntervalUnit::YearMonth) => text.push_str("interval-months"),
        DataType::Interval(IntervalUnit::DayTime) => text.push_str("interval-day-time"),
        DataType::Interval(IntervalUnit::MonthDayNano) => text.push_str("interval-month-day-nano"),
        DataType::Decimal32(precision, scale) => text.push_str(&format!("decimal32({precision},{scale})")),
        DataType::Decimal64(precision, scale) => text.push_str(&format!("decimal64({precision},{scale})")),
        DataType::Decimal128(precision, scale) => text.push_str(&format!("decimal128({precision},{scale})")),
        DataType::Decimal256(precision, scale) => text.push_str(&format!("decimal256({precision},{scale})")),
    }
    Ok(())
}

fn unit_name(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "s",
        TimeUnit::Millisecond => "ms",
        TimeUnit::Microsecond => "us",
        TimeUnit::Nanosecond => "ns",
    }
}

//! The types a column can have: for each, how it is declared in a schema, read by row and built. Knows no table.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, BooleanBuilder, Float32Array, Float32Builder,
    ListArray, ListBuilder, MapArray, MapBuilder, MapFieldNames, PrimitiveArray, PrimitiveBuilder, RecordBatch,
    StringArray, StringBuilder, UInt32Builder, new_null_array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, UInt32Type, UInt64Type};

use crate::error::TableError;
use crate::words::Vocabulary;

/// Metadata key of a field that holds a measurement, such as seconds. A measured column never enters a logical digest:
/// two runs that differ only there are the same result.
pub const MEASURED: &str = "sluice.measured";

/// What a row holds in a column of type `C`: `&str` for `Utf8`, `Option<f32>` for `Option<Float32>`, ...
pub type Cell<'a, C> = <C as Column>::Value<'a>;

/// The type of a column.
pub trait Column {
    /// A whole column that is known to be right.
    type Array;
    type Builder;
    type Value<'a>: Copy;

    const NULLABLE: bool = false;
    const MEASURED: bool = false;

    fn data_type() -> DataType;
    /// `array` is of `data_type()`; nulls in it read as some value of the type. Fails at the first row with a text that
    /// is none of the words of the column.
    fn read(array: &ArrayRef) -> Result<Self::Array, NotAWord>;
    fn value(array: &Self::Array, row: usize) -> Self::Value<'_>;

    fn builder() -> Self::Builder;
    fn append(builder: &mut Self::Builder, value: Self::Value<'_>);
    fn append_null(builder: &mut Self::Builder);
    fn finish(builder: &mut Self::Builder) -> ArrayRef;
}

/// A row whose text is outside the vocabulary of its column.
pub struct NotAWord {
    row: usize,
    found: String,
    expected: Vec<String>,
}

pub(crate) fn field<C: Column>(name: &str) -> Field {
    let field = Field::new(name, C::data_type(), C::NULLABLE);
    if C::MEASURED { field.with_metadata(HashMap::from([(MEASURED.to_owned(), "true".to_owned())])) } else { field }
}

pub(crate) fn read<C: Column>(
    table: &'static str,
    column: &'static str,
    batch: &RecordBatch,
) -> Result<C::Array, TableError> {
    let expected = C::data_type();
    let array = match batch.column_by_name(column) {
        Some(array) => converted(table, column, array, &expected)?,
        None if C::NULLABLE => new_null_array(&expected, batch.num_rows()),
        None => {
            let found = batch.schema_ref().fields().iter().map(|field| field.name().clone()).collect();
            return Err(TableError::MissingColumn { table, column, expected, found });
        }
    };
    if !C::NULLABLE
        && let Some(row) = (0..array.len()).find(|&row| array.is_null(row))
    {
        return Err(TableError::Null { table, column, expected, row });
    }
    C::read(&array).map_err(|NotAWord { row, found, expected }| TableError::UnknownWord {
        table,
        column,
        expected,
        found,
        row,
    })
}

fn converted(
    table: &'static str,
    column: &'static str,
    array: &ArrayRef,
    expected: &DataType,
) -> Result<ArrayRef, TableError> {
    let found = array.data_type();
    if found == expected {
        return Ok(array.clone());
    }
    if !readable_as(found, expected) {
        return Err(TableError::WrongType { table, column, expected: expected.clone(), found: found.clone() });
    }
    // A value that does not fit is an error and not a null.
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, expected, &options).map_err(|source| TableError::Convert {
        table,
        column,
        expected: expected.clone(),
        found: found.clone(),
        source,
    })
}

fn readable_as(found: &DataType, expected: &DataType) -> bool {
    match (found, expected) {
        (DataType::Null, _) => true,
        (DataType::Dictionary(_, values), _) => readable_as(values, expected),
        (DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View, DataType::Utf8) => true,
        (DataType::List(found) | DataType::LargeList(found), DataType::List(expected)) => {
            readable_as(found.data_type(), expected.data_type())
        }
        (DataType::Map(found, _), DataType::Map(expected, _)) => match (found.data_type(), expected.data_type()) {
            (DataType::Struct(found), DataType::Struct(expected)) => {
                found.len() == expected.len()
                    && found.iter().zip(expected).all(|(f, e)| readable_as(f.data_type(), e.data_type()))
            }
            _ => false,
        },
        (found, DataType::Float32 | DataType::Float64) => found.is_integer() || found.is_floating(),
        (found, expected) => found == expected || (found.is_integer() && expected.is_integer()),
    }
}

/// A column that may be null, and then may also be absent.
impl<C: Column> Column for Option<C> {
    type Array = (Option<NullBuffer>, C::Array);
    type Builder = C::Builder;
    type Value<'a> = Option<C::Value<'a>>;

    const NULLABLE: bool = true;
    const MEASURED: bool = C::MEASURED;

    fn data_type() -> DataType {
        C::data_type()
    }
    fn read(array: &ArrayRef) -> Result<Self::Array, NotAWord> {
        Ok((array.nulls().cloned(), C::read(array)?))
    }
    fn value(array: &Self::Array, row: usize) -> Option<C::Value<'_>> {
        let (nulls, values) = array;
        let is_null = nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
        (!is_null).then(|| C::value(values, row))
    }
    fn builder() -> C::Builder {
        C::builder()
    }
    fn append(builder: &mut C::Builder, value: Option<C::Value<'_>>) {
        match value {
            Some(value) => C::append(builder, value),
            None => C::append_null(builder),
        }
    }
    fn append_null(builder: &mut C::Builder) {
        C::append_null(builder);
    }
    fn finish(builder: &mut C::Builder) -> ArrayRef {
        C::finish(builder)
    }
}

/// A column that holds a measurement; see [`MEASURED`].
pub struct Measured<C>(PhantomData<C>);

impl<C: Column> Column for Measured<C> {
    type Array = C::Array;
    type Builder = C::Builder;
    type Value<'a> = C::Value<'a>;

    const NULLABLE: bool = C::NULLABLE;
    const MEASURED: bool = true;

    fn data_type() -> DataType {
        C::data_type()
    }
    fn read(array: &ArrayRef) -> Result<C::Array, NotAWord> {
        C::read(array)
    }
    fn value(array: &C::Array, row: usize) -> C::Value<'_> {
        C::value(array, row)
    }
    fn builder() -> C::Builder {
        C::builder()
    }
    fn append(builder: &mut C::Builder, value: C::Value<'_>) {
        C::append(builder, value);
    }
    fn append_null(builder: &mut C::Builder) {
        C::append_null(builder);
    }
    fn finish(builder: &mut C::Builder) -> ArrayRef {
        C::finish(builder)
    }
}

/// Text.
pub struct Utf8;

impl Column for Utf8 {
    type Array = StringArray;
    type Builder = StringBuilder;
    type Value<'a> = &'a str;

    fn data_type() -> DataType {
        DataType::Utf8
    }
    fn read(array: &ArrayRef) -> Result<StringArray, NotAWord> {
        Ok(array.as_string::<i32>().clone())
    }
    fn value(array: &StringArray, row: usize) -> &str {
        array.value(row)
    }
    fn builder() -> StringBuilder {
        StringBuilder::new()
    }
    fn append(builder: &mut StringBuilder, value: &str) {
        builder.append_value(value);
    }
    fn append_null(builder: &mut StringBuilder) {
        builder.append_null();
    }
    fn finish(builder: &mut StringBuilder) -> ArrayRef {
        Arc::new(builder.finish())
    }
}

/// A text that is one word of a closed vocabulary.
pub struct Word<W>(PhantomData<W>);

impl<W: Vocabulary> Column for Word<W> {
    type Array = Arc<[W]>;
    type Builder = StringBuilder;
    type Value<'a> = W;

    fn data_type() -> DataType {
        DataType::Utf8
    }
    fn read(array: &ArrayRef) -> Result<Arc<[W]>, NotAWord> {
        let words = array.as_string::<i32>().iter().enumerate().map(|(row, text)| match text {
            None => Ok(W::ALL[0]),
            Some(text) => W::from_word(text).ok_or_else(|| NotAWord {
                row,
                found: text.to_owned(),
                expected: W::ALL.iter().map(|known| known.word().to_owned()).collect(),
            }),
        });
        words.collect()
    }
    fn value(array: &Arc<[W]>, row: usize) -> W {
        array[row]
    }
    fn builder() -> StringBuilder {
        StringBuilder::new()
    }
    fn append(builder: &mut StringBuilder, value: W) {
        builder.append_value(value.word());
    }
    fn append_null(builder: &mut StringBuilder) {
        builder.append_null();
    }
    fn finish(builder: &mut StringBuilder) -> ArrayRef {
        Arc::new(builder.finish())
    }
}

/// A number of Arrow type `T`.
pub struct Number<T>(PhantomData<T>);

pub type UInt32 = Number<UInt32Type>;
pub type UInt64 = Number<UInt64Type>;
pub type Float32 = Number<Float32Type>;
pub type Float64 = Number<Float64Type>;

impl<T: ArrowPrimitiveType> Column for Number<T> {
    type Array = PrimitiveArray<T>;
    type Builder = PrimitiveBuilder<T>;
    type Value<'a> = T::Native;

    fn data_type() -> DataType {
        T::DATA_TYPE
    }
    fn read(array: &ArrayRef) -> Result<PrimitiveArray<T>, NotAWord> {
        Ok(array.as_primitive::<T>().clone())
    }
    fn value(array: &PrimitiveArray<T>, row: usize) -> T::Native {
        array.value(row)
    }
    fn builder() -> PrimitiveBuilder<T> {
        PrimitiveBuilder::new()
    }
    fn append(builder: &mut PrimitiveBuilder<T>, value: T::Native) {
        builder.append_value(value);
    }
    fn append_null(builder: &mut PrimitiveBuilder<T>) {
        builder.append_null();
    }
    fn finish(builder: &mut PrimitiveBuilder<T>) -> ArrayRef {
        Arc::new(builder.finish())
    }
}

/// True or false.
pub struct Boolean;

impl Column for Boolean {
    type Array = BooleanArray;
    type Builder = BooleanBuilder;
    type Value<'a> = bool;

    fn data_type() -> DataType {
        DataType::Boolean
    }
    fn read(array: &ArrayRef) -> Result<BooleanArray, NotAWord> {
        Ok(array.as_boolean().clone())
    }
    fn value(array: &BooleanArray, row: usize) -> bool {
        array.value(row)
    }
    fn builder() -> BooleanBuilder {
        BooleanBuilder::new()
    }
    fn append(builder: &mut BooleanBuilder, value: bool) {
        builder.append_value(value);
    }
    fn append_null(builder: &mut BooleanBuilder) {
        builder.append_null();
    }
    fn finish(builder: &mut BooleanBuilder) -> ArrayRef {
        Arc::new(builder.finish())
    }
}

/// A list of whole numbers, such as token ids.
pub struct UInt32List;

impl Column for UInt32List {
    type Array = ListArray;
    type Builder = ListBuilder<UInt32Builder>;
    type Value<'a> = &'a [u32];

    fn data_type() -> DataType {
        DataType::List(Arc::new(Field::new_list_field(DataType::UInt32, true)))
    }
    fn read(array: &ArrayRef) -> Result<ListArray, NotAWord> {
        Ok(array.as_list::<i32>().clone())
    }
    fn value(array: &ListArray, row: usize) -> &[u32] {
        let offsets = array.value_offsets();
        let all = array.values().as_primitive::<UInt32Type>().values();
        &all[offsets[row] as usize..offsets[row + 1] as usize]
    }
    fn builder() -> Self::Builder {
        ListBuilder::new(UInt32Builder::new())
    }
    fn append(builder: &mut Self::Builder, value: &[u32]) {
        builder.values().append_slice(value);
        builder.append(true);
    }
    fn append_null(builder: &mut Self::Builder) {
        builder.append(false);
    }
    fn finish(builder: &mut Self::Builder) -> ArrayRef {
        Arc::new(builder.finish())
    }
}

/// Numbers by name, such as the objectives of a reward model.
pub struct Utf8Float32Map;

/// The value of a [`Utf8Float32Map`] column: names and numbers, in the order of the model's own list.
#[derive(Clone, Copy)]
pub struct Named<'a>(Entries<'a>);

#[derive(Clone, Copy)]
enum Entries<'a> {
    Given { names: &'a [String], values: &'a [f32] },
    Stored { names: &'a StringArray, values: &'a [f32], start: usize },
}

impl<'a> Named<'a> {
    /// Pairs each name with the value at the same place; the longer of the two is cut.
    pub fn new(names: &'a [String], values: &'a [f32]) -> Self {
        let n = names.len().min(values.len());
        Self(Entries::Given { names: &names[..n], values: &values[..n] })
    }

    pub fn iter(self) -> impl Iterator<Item = (&'a str, f32)> {
        let values = self.values();
        (0..values.len()).map(move |i| match self.0 {
            Entries::Given { names, .. } => (names[i].as_str(), values[i]),
            Entries::Stored { names, start, .. } => (names.value(start + i), values[i]),
        })
    }

    pub fn get(self, name: &str) -> Option<f32> {
        self.iter().find(|(candidate, _)| *candidate == name).map(|(_, value)| value)
    }

    pub fn values(self) -> &'a [f32] {
        match self.0 {
            Entries::Given { values, .. } | Entries::Stored { values, .. } => values,
        }
    }
}

impl std::fmt::Debug for Named<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Column for Utf8Float32Map {
    type Array = MapArray;
    type Builder = MapBuilder<StringBuilder, Float32Builder>;
    type Value<'a> = Named<'a>;

    fn data_type() -> DataType {
        let key = Field::new("key", DataType::Utf8, false);
        let value = Field::new("value", DataType::Float32, true);
        DataType::Map(Arc::new(Field::new("entries", DataType::Struct(vec![key, value].into()), false)), false)
    }
    fn read(array: &ArrayRef) -> Result<MapArray, NotAWord> {
        Ok(array.as_map().clone())
    }
    fn value(array: &MapArray, row: usize) -> Named<'_> {
        let offsets = array.value_offsets();
        let (start, end) = (offsets[row] as usize, offsets[row + 1] as usize);
        let all: &Float32Array = array.values().as_primitive();
        let names = array.keys().as_string::<i32>();
        Named(Entries::Stored { names, values: &all.values()[start..end], start })
    }
    fn builder() -> Self::Builder {
        let names = MapFieldNames { entry: "entries".to_owned(), key: "key".to_owned(), value: "value".to_owned() };
        MapBuilder::new(Some(names), StringBuilder::new(), Float32Builder::new())
    }
    fn append(builder: &mut Self::Builder, value: Named<'_>) {
        for (name, number) in value.iter() {
            builder.keys().append_value(name);
            builder.values().append_value(number);
        }
        builder.append(true).expect("one value was appended for each key");
    }
    fn append_null(builder: &mut Self::Builder) {
        builder.append(false).expect("no key and no value were appended");
    }
    fn finish(builder: &mut Self::Builder) -> ArrayRef {
        Arc::new(builder.finish())
    }
}

//! The logical digest of one table in many encodings: in memory as dictionaries, runs, views and wider offsets at any
//! depth, on disk with any codec, page version and size of row groups. It is one digest, and it moves with the rows.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, Float32Array, Float64Array, Int32Array, Int64Array, Int64Builder, ListBuilder,
    RecordBatch, StringArray, StringBuilder, StructArray, new_empty_array, new_null_array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use proptest::prelude::*;
use sluice_store::{TableDigest, table_digest};

/// One row: few distinct values, so that dictionaries and runs have something to do, and a null wherever there may be one.
#[derive(Debug, Clone)]
struct Row {
    word: Option<String>,
    number: Option<i64>,
    float: f64,
    bytes: Option<Vec<u8>>,
    nested: Option<Vec<Option<Vec<Option<String>>>>>,
    pair: Option<(Option<i32>, Option<String>)>,
}

fn word() -> impl Strategy<Value = Option<String>> {
    proptest::option::of(prop_oneof![Just(String::new()), Just("a".to_owned()), Just("ab".to_owned()), "\\PC{13,20}"])
}

fn float() -> impl Strategy<Value = f64> {
    let other_nan = f64::from_bits(0xfff8_0000_0000_0001);
    prop_oneof![Just(0.0), Just(-0.0), Just(f64::NAN), Just(other_nan), Just(f64::NEG_INFINITY), any::<f64>()]
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let inner = proptest::option::of(proptest::collection::vec(word(), 0..3));
    let row = (
        word(),
        proptest::option::of(-1..2_i64),
        float(),
        proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)),
        proptest::option::of(proptest::collection::vec(inner, 0..3)),
        proptest::option::of((proptest::option::of(0..2_i32), word())),
    )
        .prop_map(|(word, number, float, bytes, nested, pair)| Row { word, number, float, bytes, nested, pair });
    proptest::collection::vec(row, 0..40)
}

fn batch_of(rows: &[Row]) -> RecordBatch {
    let words: StringArray = rows.iter().map(|row| row.word.clone()).collect();
    let numbers: Int64Array = rows.iter().map(|row| row.number).collect();
    let floats: Float64Array = rows.iter().map(|row| Some(row.float)).collect();
    let bytes: BinaryArray = rows.iter().map(|row| row.bytes.as_deref()).collect();
    let mut nested = ListBuilder::new(ListBuilder::new(StringBuilder::new()));
    for row in rows {
        for inner in row.nested.iter().flatten() {
            for word in inner.iter().flatten() {
                nested.values().values().append_option(word.as_deref());
            }
            nested.values().append(inner.is_some());
        }
        nested.append(row.nested.is_some());
    }
    let fields =
        Fields::from(vec![Field::new("number", DataType::Int32, true), Field::new("word", DataType::Utf8, true)]);
    let first: Int32Array = rows.iter().map(|row| row.pair.as_ref().and_then(|(number, _)| *number)).collect();
    let second: StringArray = rows.iter().map(|row| row.pair.as_ref().and_then(|(_, word)| word.as_deref())).collect();
    let nulls = NullBuffer::from(rows.iter().map(|row| row.pair.is_some()).collect::<Vec<_>>());
    let pairs = StructArray::new(fields, vec![Arc::new(first), Arc::new(second)], Some(nulls));
    RecordBatch::try_from_iter_with_nullable([
        ("word", Arc::new(words) as ArrayRef, true),
        ("number", Arc::new(numbers) as ArrayRef, true),
        ("float", Arc::new(floats) as ArrayRef, false),
        ("bytes", Arc::new(bytes) as ArrayRef, true),
        ("nested", Arc::new(nested.finish()) as ArrayRef, true),
        ("pair", Arc::new(pairs) as ArrayRef, true),
    ])
    .expect("columns of one length")
}

fn digest(batches: &[RecordBatch]) -> TableDigest {
    table_digest(batches[0].schema_ref(), batches).expect("every type has a canonical form")
}

fn dictionary(key: DataType, value: DataType) -> DataType {
    DataType::Dictionary(Box::new(key), Box::new(value))
}

fn runs(ends: DataType, value: DataType) -> DataType {
    DataType::RunEndEncoded(Arc::new(Field::new("run_ends", ends, false)), Arc::new(Field::new("values", value, true)))
}

/// A list's item by some other name, which is not part of a type.
fn item(data_type: DataType) -> FieldRef {
    Arc::new(Field::new("element", data_type, true))
}

/// Every encoding under test: which column, and as what.
fn encodings() -> Vec<(&'static str, DataType)> {
    use DataType::{
        BinaryView, Float64, Int8, Int16, Int32, Int64, LargeBinary, LargeList, LargeListView, LargeUtf8, List,
        ListView, UInt16, Utf8, Utf8View,
    };
    let texts = [
        LargeUtf8,
        Utf8View,
        dictionary(Int8, Utf8),
        dictionary(UInt16, LargeUtf8),
        dictionary(Int32, Utf8View),
        runs(Int16, Utf8),
        runs(Int64, LargeUtf8),
    ];
    let numbers = [dictionary(Int16, Int64), runs(Int32, Int64)];
    let bytes = [LargeBinary, BinaryView, dictionary(Int32, DataType::Binary)];
    let inner = |words: DataType| List(item(words));
    let nested = [
        List(item(inner(LargeUtf8))),
        List(item(inner(dictionary(Int32, Utf8)))),
        List(item(LargeList(item(Utf8View)))),
        LargeList(item(inner(Utf8))),
        LargeList(item(LargeList(item(LargeUtf8)))),
        ListView(item(inner(Utf8))),
        LargeListView(item(inner(Utf8))),
    ];
    let pair = |number: DataType, word: DataType| {
        DataType::Struct(Fields::from(vec![Field::new("number", number, true), Field::new("word", word, true)]))
    };
    let pairs = [pair(Int32, Utf8View), pair(dictionary(Int32, Int32), dictionary(Int16, Utf8))];
    let of = |column: &'static str, types: Vec<DataType>| types.into_iter().map(move |one| (column, one));
    of("word", texts.into())
        .chain(of("number", numbers.into()))
        .chain(of("float", vec![dictionary(Int32, Float64), runs(Int32, Float64)]))
        .chain(of("bytes", bytes.into()))
        .chain(of("nested", nested.into()))
        .chain(of("pair", pairs.into()))
        .collect()
}

/// The same rows with one column in another encoding.
fn recast(batch: &RecordBatch, column: &str, data_type: &DataType) -> RecordBatch {
    let index = batch.schema().index_of(column).expect("a column of the table");
    let mut columns = batch.columns().to_vec();
    columns[index] = cast(&columns[index], data_type).expect("an encoding of the same type");
    let mut fields: Vec<Field> = batch.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    fields[index] = fields[index].clone().with_data_type(data_type.clone());
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("the same rows")
}

/// The table through a Parquet file.
fn through_parquet(
    batch: &RecordBatch,
    properties: WriterProperties,
    arrow_schema: bool,
) -> (SchemaRef, Vec<RecordBatch>) {
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(!arrow_schema);
    let mut file = tempfile::tempfile().expect("a file");
    let mut writer = ArrowWriter::try_new_with_options(&mut file, batch.schema(), options).expect("a writer");
    writer.write(batch).expect("rows");
    writer.close().expect("a footer");
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("a Parquet file").with_batch_size(7);
    let schema = reader.schema().clone();
    (schema, reader.build().expect("a reader").collect::<Result<_, _>>().expect("the rows"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_encoding_in_memory_changes_the_digest(rows in rows(), cut in 0..40_usize) {
        let whole = batch_of(&rows);
        let expected = digest(std::slice::from_ref(&whole));
        let cut = cut.min(rows.len());
        for (column, data_type) in encodings() {
            let other = recast(&whole, column, &data_type);
            prop_assert_eq!(digest(std::slice::from_ref(&other)), expected, "`{}` as {}", column, data_type);
            let parts = [other.slice(0, cut), other.slice(cut, rows.len() - cut)];
            prop_assert_eq!(digest(&parts), expected, "`{}` as {}, cut at {}", column, data_type, cut);
        }
    }

    #[test]
    fn no_encoding_on_disk_changes_the_digest(rows in rows(), group in 1..50_usize, page in 1..50_usize) {
        let whole = batch_of(&rows);
        let expected = digest(std::slice::from_ref(&whole));
        let zstd = Compression::ZSTD(ZstdLevel::default());
        for codec in [Compression::UNCOMPRESSED, Compression::SNAPPY, zstd] {
            for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
                for with_dictionary in [false, true] {
                    let properties = WriterProperties::builder()
                        .set_compression(codec)
                        .set_writer_version(version)
                        .set_dictionary_enabled(with_dictionary)
                        .set_max_row_group_row_count(Some(group))
                        .set_data_page_row_count_limit(page)
                        .set_write_batch_size(page)
                        .set_statistics_enabled(EnabledStatistics::None)
                        .set_created_by("another writer".to_owned())
                        .build();
                    // Without the Arrow schema in the file, its columns come back with the types of Parquet.
                    let (schema, read) = through_parquet(&whole, properties, with_dictionary);
                    let found = table_digest(&schema, &read).expect("a digest");
                    prop_assert_eq!(found, expected, "{:?} {:?} dictionary {}", codec, version, with_dictionary);
                }
            }
        }
    }

    /// A value that changes anywhere, at any depth, changes the digest, whatever the encoding.
    #[test]
    fn a_changed_value_changes_the_digest(rows in rows(), at in any::<prop::sample::Index>(), change in 0..6_usize) {
        prop_assume!(!rows.is_empty());
        let mut changed = rows.clone();
        let row = &mut changed[at.index(rows.len())];
        match change {
            0 => row.word = Some(row.word.take().map_or("new".to_owned(), |word| word + "x")),
            1 => row.number = row.number.map_or(Some(0), |number| (number > 0).then_some(number - 1)),
            2 => row.float = if row.float == 1.0 { 2.0 } else { 1.0 },
            3 => row.bytes.get_or_insert_default().push(0),
            4 => row.nested.get_or_insert_default().push(None),
            _ => row.pair = if row.pair.is_some() { None } else { Some((None, None)) },
        }
        let (before, after) = (batch_of(&rows), batch_of(&changed));
        prop_assert_ne!(digest(std::slice::from_ref(&before)), digest(std::slice::from_ref(&after)));
        for (column, data_type) in encodings() {
            let (before, after) = (recast(&before, column, &data_type), recast(&after, column, &data_type));
            prop_assert_ne!(digest(&[before]), digest(&[after]), "`{}` as {}", column, data_type);
        }
    }
}

#[test]
fn a_table_without_rows_has_one_digest_however_it_is_written() {
    let empty = batch_of(&[]);
    let expected = digest(std::slice::from_ref(&empty));
    assert_eq!(table_digest(empty.schema_ref(), &[]).expect("a digest"), expected, "no batches");
    assert_eq!(digest(&[empty.clone(), empty.clone()]), expected, "two empty batches");
    for (column, data_type) in encodings() {
        let other = recast(&empty, column, &data_type);
        assert_eq!(table_digest(other.schema_ref(), &[]).expect("a digest"), expected, "`{column}` as {data_type}");
        assert_eq!(digest(&[other]), expected, "`{column}` as {data_type}, an empty batch");
    }
    let (schema, read) = through_parquet(&empty, WriterProperties::default(), true);
    assert_eq!(table_digest(&schema, &read).expect("a digest"), expected, "through a file");
    assert_ne!(expected, digest(&[one(new_empty_array(&DataType::Int64))]), "the columns count");
}

fn one(array: ArrayRef) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable([("c", array, true)]).expect("one column")
}

/// A dictionary or a run may hold its null as a value, as well as beside its values.
#[test]
fn a_null_is_a_null_wherever_it_is_kept() {
    let plain: ArrayRef = Arc::new(Int64Array::from(vec![Some(7), None, None, Some(7)]));
    let expected = digest(&[one(plain.clone())]);
    let values: ArrayRef = Arc::new(Int64Array::from(vec![None, Some(7)]));
    let keys = Int32Array::from(vec![Some(1), None, Some(0), Some(1)]);
    let coded = arrow::array::DictionaryArray::new(keys, values.clone());
    assert_eq!(digest(&[one(Arc::new(coded))]), expected);
    let values = concat(&[values.slice(1, 1).as_ref(), values.as_ref()]).expect("seven, null, seven");
    let ends = Int32Array::from(vec![1, 3, 4]);
    let runs = arrow::array::RunArray::try_new(&ends, &values).expect("three runs");
    assert_eq!(digest(&[one(Arc::new(runs.clone()))]), expected);
    assert_eq!(
        digest(&[one(Arc::new(runs.slice(1, 3)))]),
        digest(&[one(plain.slice(1, 3))]),
        "a part that begins within a run"
    );
    let nothing = [
        new_null_array(&DataType::Int64, 3),
        cast(&new_null_array(&DataType::Null, 3), &DataType::Int64).expect("nulls"),
    ];
    let [left, right] = nothing.map(|array| digest(&[one(array)]));
    assert_eq!(left, right);
}

/// NaNs and zeros below lists and structs are canonical, too.
#[test]
fn floats_are_canonical_at_any_depth() {
    let list = |values: [f32; 3]| {
        let field: FieldRef = Arc::new(Field::new_list_field(DataType::Float32, true));
        let values: ArrayRef = Arc::new(Float32Array::from(values.to_vec()));
        let inner =
            arrow::array::ListArray::new(field, arrow::buffer::OffsetBuffer::from_lengths([1, 2]), values, None);
        let fields = Fields::from(vec![Field::new("x", inner.data_type().clone(), true)]);
        one(Arc::new(StructArray::new(fields, vec![Arc::new(inner)], None)))
    };
    let other_nan = f32::from_bits(0xffc0_0001);
    assert_eq!(digest(&[list([f32::NAN, 0.0, 1.0])]), digest(&[list([other_nan, -0.0, 1.0])]));
    assert_ne!(digest(&[list([f32::NAN, 0.0, 1.0])]), digest(&[list([0.0, f32::NAN, 1.0])]));
}

/// The lengths of lists count, and not only what is in them.
#[test]
fn the_cut_between_nested_lists_counts() {
    let nested = |cuts: &[&[usize]]| {
        let mut builder = ListBuilder::new(ListBuilder::new(Int64Builder::new()));
        let mut next = 0;
        for row in cuts {
            for length in *row {
                for _ in 0..*length {
                    builder.values().values().append_value(next);
                    next += 1;
                }
                builder.values().append(true);
            }
            builder.append(true);
        }
        digest(&[one(Arc::new(builder.finish()))])
    };
    let shapes: [&[&[usize]]; 5] =
        [&[&[1, 2], &[1]], &[&[2, 1], &[1]], &[&[1], &[2, 1]], &[&[1, 2, 1], &[]], &[&[4], &[]]];
    let digests: std::collections::HashSet<TableDigest> = shapes.iter().map(|shape| nested(shape)).collect();
    assert_eq!(digests.len(), shapes.len());
}

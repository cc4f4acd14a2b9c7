//! The logical digest: what must not change it, what must, and how fast it is.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeListArray, Float32Array,
    Float32Builder, Float64Array, Int32Array, LargeStringArray, ListArray, MapBuilder, RecordBatch, StringArray,
    StringBuilder, StructArray, TimestampMicrosecondArray, UInt32Array, UInt64Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use proptest::prelude::*;
use sluice_store::{MEASURED, Output, StageKey, Store, TableDigest, table_digest};

/// One row of the property test: everything a table of the pipeline can hold.
#[derive(Debug, Clone)]
struct Row {
    text: Option<String>,
    number: u64,
    float: f32,
    flag: Option<bool>,
    tokens: Option<Vec<u32>>,
    rewards: Vec<(String, f32)>,
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let row = (
        proptest::option::of(".{0,12}"),
        any::<u64>(),
        any::<f32>(),
        proptest::option::of(any::<bool>()),
        proptest::option::of(proptest::collection::vec(any::<u32>(), 0..5)),
        proptest::collection::vec(("[a-z]{1,4}", any::<f32>()), 0..3),
    )
        .prop_map(|(text, number, float, flag, tokens, rewards)| Row {
            text,
            number,
            float,
            flag,
            tokens,
            rewards,
        });
    proptest::collection::vec(row, 0..60)
}

fn batch_of(rows: &[Row]) -> RecordBatch {
    let texts: StringArray = rows.iter().map(|row| row.text.clone()).collect();
    let numbers: UInt64Array = rows.iter().map(|row| Some(row.number)).collect();
    let floats: Float32Array = rows.iter().map(|row| Some(row.float)).collect();
    let flags: BooleanArray = rows.iter().map(|row| row.flag).collect();
    let tokens = ListArray::from_iter_primitive::<arrow::datatypes::UInt32Type, _, _>(
        rows.iter().map(|row| row.tokens.as_ref().map(|ids| ids.iter().map(|id| Some(*id)).collect::<Vec<_>>())),
    );
    let mut rewards = MapBuilder::new(None, StringBuilder::new(), Float32Builder::new());
    for row in rows {
        for (name, value) in &row.rewards {
            rewards.keys().append_value(name);
            rewards.values().append_value(*value);
        }
        rewards.append(true).expect("as many keys as values");
    }
    RecordBatch::try_from_iter_with_nullable([
        ("text", Arc::new(texts) as ArrayRef, true),
        ("number", Arc::new(numbers) as ArrayRef, false),
        ("float", Arc::new(floats) as ArrayRef, false),
        ("flag", Arc::new(flags) as ArrayRef, true),
        ("tokens", Arc::new(tokens) as ArrayRef, true),
        ("rewards", Arc::new(rewards.finish()) as ArrayRef, false),
    ])
    .expect("columns of one length")
}

fn digest(batches: &[RecordBatch]) -> TableDigest {
    table_digest(&batches[0].schema(), batches).expect("every type has a canonical form")
}

/// The same rows with one column in another encoding.
fn recast(batch: &RecordBatch, column: usize, data_type: DataType) -> RecordBatch {
    let mut columns = batch.columns().to_vec();
    columns[column] = cast(&columns[column], &data_type).expect("an encoding of the same type");
    let mut fields: Vec<Field> = batch.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    fields[column] = fields[column].clone().with_data_type(data_type);
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("the same rows")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn batches_and_encodings_do_not_change_the_digest(rows in rows(), cut in 0usize..60) {
        let whole = batch_of(&rows);
        let expected = digest(std::slice::from_ref(&whole));
        let cut = cut.min(rows.len());
        let parts = [whole.slice(0, cut), whole.slice(cut, rows.len() - cut)];
        prop_assert_eq!(digest(&parts), expected, "cut at {}", cut);
        let rebuilt = [batch_of(&rows[..cut]), batch_of(&rows[cut..])];
        prop_assert_eq!(digest(&rebuilt), expected, "rebuilt in two");
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        for data_type in [DataType::LargeUtf8, DataType::Utf8View, dictionary] {
            prop_assert_eq!(digest(&[recast(&whole, 0, data_type.clone())]), expected, "as {}", data_type);
        }
        let item = match whole.column(4).data_type() { DataType::List(item) => item.clone(), _ => unreachable!() };
        for data_type in [DataType::LargeList(item.clone()), DataType::ListView(item)] {
            prop_assert_eq!(digest(&[recast(&whole, 4, data_type.clone())]), expected, "as {}", data_type);
        }
    }

    #[test]
    fn a_stored_table_reads_back_with_its_digest(rows in rows(), cut in 0usize..60) {
        let whole = batch_of(&rows);
        let cut = cut.min(rows.len());
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("an empty store");
        let attempt = store.begin(StageKey::from_bytes([1; 32])).expect("an attempt");
        let mut writer = attempt.write_table("t", whole.schema()).expect("a table");
        writer.write(&whole.slice(0, cut)).expect("rows");
        writer.write(&recast(&whole, 0, DataType::Utf8View).slice(cut, rows.len() - cut)).expect("rows as views");
        let table = writer.finish().expect("a table");
        prop_assert_eq!(table.digest, digest(std::slice::from_ref(&whole)));
        let output = Output { name: "t".to_owned(), artifact: sluice_store::Artifact::Table(table) };
        let draft = sluice_store::RecordDraft { outputs: vec![output.clone()], ..Default::default() };
        attempt.commit(draft).expect("a commit");
        let read = store.read_table(&output).expect("the rows");
        prop_assert_eq!(table_digest(&whole.schema(), &read).expect("a digest"), digest(std::slice::from_ref(&whole)));
        let schema = store.table_schema(&output).expect("a schema");
        prop_assert_eq!(concat_batches(&schema, &read).expect("rows").num_rows(), rows.len());
    }

    #[test]
    fn order_counts(rows in rows()) {
        let whole = batch_of(&rows);
        let backwards: UInt32Array = (0..rows.len() as u32).rev().map(Some).collect();
        let reversed = take_record_batch(&whole, &backwards).expect("the rows");
        let equal = digest(std::slice::from_ref(&whole)) == digest(std::slice::from_ref(&reversed));
        prop_assert_eq!(equal, same_rows(&whole, &reversed));
    }
}

/// Equality by the digest's rules: one NaN, one zero.
fn same_rows(left: &RecordBatch, right: &RecordBatch) -> bool {
    let text = |batch: &RecordBatch| {
        let text = arrow::util::pretty::pretty_format_batches(std::slice::from_ref(batch)).expect("printable");
        text.to_string().replace("-0.0", "0.0")
    };
    text(left) == text(right)
}

fn one(name: &str, array: impl Array + 'static) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable([(name, Arc::new(array) as ArrayRef, true)]).expect("one column")
}

#[test]
fn tables_that_differ_have_different_digests() {
    let entry = |key: &str, value: f32| {
        let mut map = MapBuilder::new(None, StringBuilder::new(), Float32Builder::new());
        map.keys().append_value(key);
        map.values().append_value(value);
        map.append(true).expect("an entry");
        map.finish()
    };
    let structs = |name: &str, null: bool| {
        let fields = Fields::from(vec![Field::new(name, DataType::Int32, true)]);
        let nulls = null.then(|| NullBuffer::from(vec![false]));
        StructArray::new(fields, vec![Arc::new(Int32Array::from(vec![1])) as ArrayRef], nulls)
    };
    let cases = [
        ("a text", one("c", StringArray::from(vec!["ab", "c"]))),
        ("the cut moved", one("c", StringArray::from(vec!["a", "bc"]))),
        ("another name", one("d", StringArray::from(vec!["ab", "c"]))),
        ("a null", one("c", StringArray::from(vec![Some("ab"), None, Some("c")]))),
        ("an empty text", one("c", StringArray::from(vec!["ab", "", "c"]))),
        ("null last", one("c", StringArray::from(vec![Some("ab"), Some("c"), None]))),
        ("bytes", one("c", BinaryArray::from(vec![b"ab".as_ref(), b"c"]))),
        ("i32", one("c", Int32Array::from(vec![1, 2]))),
        ("u32", one("c", UInt32Array::from(vec![1, 2]))),
        ("f32", one("c", Float32Array::from(vec![1.0, 2.0]))),
        ("f64", one("c", Float64Array::from(vec![1.0, 2.0]))),
        ("date", one("c", Date32Array::from(vec![1, 2]))),
        ("timestamp", one("c", TimestampMicrosecondArray::from(vec![1, 2]))),
        ("timestamp with zone", one("c", TimestampMicrosecondArray::from(vec![1, 2]).with_timezone("UTC"))),
        ("decimal", one("c", Decimal128Array::from(vec![1, 2]))),
        (
            "decimal, other scale",
            one("c", Decimal128Array::from(vec![1, 2]).with_precision_and_scale(38, 2).expect("fits")),
        ),
        ("map", one("c", entry("a", 1.0))),
        ("map, other key", one("c", entry("b", 1.0))),
        ("map, other value", one("c", entry("a", 2.0))),
        ("struct", one("c", structs("x", false))),
        ("struct, other field", one("c", structs("y", false))),
        ("null struct", one("c", structs("x", true))),
        ("no rows", one("c", StringArray::from(Vec::<&str>::new()))),
    ];
    let mut seen: HashMap<TableDigest, &str> = HashMap::new();
    for (name, batch) in &cases {
        if let Some(other) = seen.insert(digest(std::slice::from_ref(batch)), name) {
            panic!("`{name}` and `{other}` have one digest");
        }
    }
}

#[test]
fn what_lies_under_a_null_is_not_part_of_the_table() {
    let list = |hidden: &[u32]| {
        let mut values = vec![7];
        values.extend(hidden);
        let offsets = OffsetBuffer::new(ScalarBuffer::from(vec![0, 1, values.len() as i32]));
        let item = Arc::new(Field::new_list_field(DataType::UInt32, true));
        ListArray::new(item, offsets, Arc::new(UInt32Array::from(values)), Some(NullBuffer::from(vec![true, false])))
    };
    assert_eq!(digest(&[one("c", list(&[]))]), digest(&[one("c", list(&[1, 2, 3]))]));
}

#[test]
fn floats_have_one_nan_and_one_zero() {
    let quiet = Float64Array::from(vec![f64::NAN, 0.0]);
    let other = Float64Array::from(vec![f64::from_bits(0xfff0_0000_0000_0001), -0.0]);
    assert_eq!(digest(&[one("c", quiet)]), digest(&[one("c", other)]));
}

#[test]
fn fixed_and_free_lists_are_one_type() {
    let item = Arc::new(Field::new_list_field(DataType::Int32, true));
    let values = Arc::new(Int32Array::from(vec![1, 2, 3, 4]));
    let fixed = FixedSizeListArray::new(item.clone(), 2, values.clone(), None);
    let free = ListArray::new(item, OffsetBuffer::from_lengths([2, 2]), values, None);
    assert_eq!(digest(&[one("c", fixed.slice(1, 1))]), digest(&[one("c", free.slice(1, 1))]));
}

#[test]
fn measured_columns_and_metadata_are_left_out() {
    let table = |seconds: f32, metadata: &[(&str, &str)]| {
        let metadata: HashMap<String, String> =
            metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let schema: SchemaRef = Arc::new(Schema::new(vec![
            Field::new("step", DataType::UInt32, false),
            Field::new("seconds", DataType::Float32, false).with_metadata(metadata),
        ]));
        let columns: Vec<ArrayRef> =
            vec![Arc::new(UInt32Array::from(vec![1])), Arc::new(Float32Array::from(vec![seconds]))];
        digest(&[RecordBatch::try_new(schema, columns).expect("two columns")])
    };
    assert_eq!(table(1.0, &[(MEASURED, "true")]), table(2.0, &[(MEASURED, "true")]));
    assert_eq!(table(1.0, &[("unit", "s")]), table(1.0, &[]));
    assert_ne!(table(1.0, &[]), table(2.0, &[]));
}

#[test]
fn the_digest_of_a_known_table_never_changes() {
    let batch = RecordBatch::try_from_iter([
        ("prompt", Arc::new(LargeStringArray::from(vec!["two and two", "seven"])) as ArrayRef),
        ("score", Arc::new(Float32Array::from(vec![0.25, -1.5])) as ArrayRef),
    ])
    .expect("two columns");
    // Stored keys are built on this value: if it changes, the definition needs a new version.
    assert_eq!(digest(&[batch]).to_string(), GOLDEN);
}

const GOLDEN: &str = "5b5a6cbf4c2b6850e7b1217b194226207413a98991527ac7d95938f583619cfd";

#[test]
fn narrow_tables_are_written_fast() {
    let rows = 1_000_000;
    let ids: StringArray = (0..rows).map(|row| Some(format!("{row:032x}"))).collect();
    let scores: Float32Array = (0..rows).map(|row| Some(row as f32)).collect();
    let batch =
        RecordBatch::try_from_iter([("id", Arc::new(ids) as ArrayRef), ("score", Arc::new(scores) as ArrayRef)])
            .expect("two columns");
    let started = Instant::now();
    let digest = digest(std::slice::from_ref(&batch));
    let hashed = started.elapsed();
    let folder = tempfile::tempdir().expect("a folder");
    let attempt =
        Store::open(folder.path()).and_then(|store| store.begin(StageKey::from_bytes([1; 32]))).expect("an attempt");
    let started = Instant::now();
    let mut writer = attempt.write_table("t", batch.schema()).expect("a table");
    for start in (0..rows as usize).step_by(8192) {
        writer.write(&batch.slice(start, 8192.min(rows as usize - start))).expect("rows");
    }
    assert_eq!(writer.finish().expect("a table").digest, digest);
    // Not a timed test: the figures are for whoever runs it with `--nocapture`.
    println!("1 M rows: digest {hashed:?}, Parquet and digests {:?}", started.elapsed());
}

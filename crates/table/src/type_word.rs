//! Types of columns in one word each, as people write them: `text`, `float32`, `list<uint32>`. Encodings of one type have
//! one word. Knows no table.

use arrow::datatypes::DataType;

/// The word for a type; a type without one has Arrow's own name.
pub fn type_word(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".to_owned(),
        DataType::Dictionary(_, values) => type_word(values),
        DataType::RunEndEncoded(_, values) => type_word(values.data_type()),
        DataType::Boolean => "bool".to_owned(),
        DataType::Date32 | DataType::Date64 => "date".to_owned(),
        DataType::Timestamp(..) => "timestamp".to_owned(),
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            "decimal".to_owned()
        }
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => format!("list<{}>", type_word(item.data_type())),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 && type_word(fields[0].data_type()) == "text" => {
                format!("map<{}>", type_word(fields[1].data_type()))
            }
            _ => data_type.to_string(),
        },
        // `Int64` is `int64`, and so on.
        data_type if data_type.is_integer() || data_type.is_floating() => data_type.to_string().to_ascii_lowercase(),
        data_type => data_type.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use arrow::datatypes::{Field, TimeUnit};

    use super::*;
    use crate::TableKind;

    #[test]
    fn encodings_of_one_type_have_one_word() {
        let item = |data_type| Arc::new(Field::new("item", data_type, true));
        let cases = [
            (DataType::Utf8View, "text"),
            (DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::LargeUtf8)), "text"),
            (DataType::Boolean, "bool"),
            (DataType::UInt16, "uint16"),
            (DataType::Float16, "float16"),
            (DataType::Timestamp(TimeUnit::Second, None), "timestamp"),
            (DataType::LargeList(item(DataType::Int64)), "list<int64>"),
            (DataType::List(item(DataType::List(item(DataType::Utf8)))), "list<list<text>>"),
            (DataType::Binary, "Binary"),
        ];
        for (data_type, word) in cases {
            assert_eq!(type_word(&data_type), word);
        }
    }

    #[test]
    fn every_type_of_a_table_has_a_word() {
        let schemas = TableKind::ALL.iter().filter_map(|kind| kind.schema());
        let words: BTreeSet<String> = schemas
            .flat_map(|schema| schema.fields().iter().map(|field| type_word(field.data_type())).collect::<Vec<_>>())
            .collect();
        let expected = ["bool", "float32", "float64", "list<uint32>", "map<float32>", "text", "uint32", "uint64"]
            .map(str::to_owned);
        assert_eq!(words, BTreeSet::from(expected));
    }
}

//! The column table in the docs of each table is its schema: same columns, same order, same types.

use arrow::datatypes::{DataType, Field};
use sluice_table::{MEASURED, TableKind};

const SOURCES: [&str; 5] = [
    include_str!("../src/prompts.rs"),
    include_str!("../src/responses.rs"),
    include_str!("../src/pairs.rs"),
    include_str!("../src/steps.rs"),
    include_str!("../src/evaluation.rs"),
];

#[test]
fn every_documented_column_table_is_the_schema() {
    let documented: Vec<Vec<String>> = SOURCES.iter().flat_map(|source| column_tables(source)).collect();
    let declared: Vec<Vec<String>> = TableKind::ALL
        .into_iter()
        .filter_map(TableKind::schema)
        .map(|schema| schema.fields().iter().map(|field| described(field)).collect())
        .collect();
    assert_eq!(documented, declared);
}

/// The column tables of a source file, each row as `name | type | null`.
fn column_tables(source: &str) -> Vec<Vec<String>> {
    let mut tables: Vec<Vec<String>> = Vec::new();
    for line in source.lines() {
        let Some(row) = line.trim().strip_prefix("/// |") else {
            continue;
        };
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        if cells[0] == "column" {
            tables.push(Vec::new());
        } else if !cells[0].starts_with('-')
            && let Some(table) = tables.last_mut()
        {
            let measured = if cells[3].starts_with("measured:") { " | measured" } else { "" };
            table.push(format!("{} | {} | {}{measured}", cells[0], cells[1], cells[2]));
        }
    }
    tables
}

fn described(field: &Field) -> String {
    let null = if field.is_nullable() { "yes" } else { "no" };
    let measured = if field.metadata().contains_key(MEASURED) { " | measured" } else { "" };
    format!("{} | {} | {null}{measured}", field.name(), type_name(field.data_type()))
}

fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::List(item) => format!("List({})", type_name(item.data_type())),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) => {
                format!("Map({}, {})", type_name(fields[0].data_type()), type_name(fields[1].data_type()))
            }
            other => other.to_string(),
        },
        other => other.to_string(),
    }
}

//! How a contract is checked against a table that is there: columns and types by its schema, nulls by counting them.
//!
//! Owns the comparison, whose result is a table of its own: a row for each column that is not as it should be.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{Int64Type, SchemaRef};
use sluice_spec::stage::contract::{ColumnRule, Contract};
use sluice_spec::stage::test::THIS;
use sluice_sql::Session;
use sluice_store::Attempt;

use crate::StageError;
use crate::test::{Tested, in_words, quoted, written};

/// One column that is not as the contract has it.
struct Fault {
    column: String,
    expected: String,
    found: String,
}

/// Compares a table with its contract.
pub(crate) fn run(
    contract: &Contract,
    session: &Session,
    schema: &SchemaRef,
    attempt: &Attempt,
) -> Result<Tested, StageError> {
    let Contract { columns, open } = contract;
    let known = in_words(schema);
    let find = |name: &str| known.iter().find(|(known, ..)| known == name);
    let mut faults = Vec::new();
    for rule in columns {
        let ColumnRule { name, kind, not_null: _, optional, place: _ } = rule;
        match find(name) {
            None if *optional => {}
            None => faults.push(fault(name, rule.expected(), "absent".to_owned())),
            Some((_, word, _)) if !kind.accepts(word) => faults.push(fault(name, rule.expected(), word.clone())),
            Some(_) => {}
        }
    }
    // What has another type, or is not there, is at fault already.
    let may_be_null = |rule: &&ColumnRule| {
        rule.not_null
            && find(&rule.name).is_some_and(|(_, _, nullable)| *nullable)
            && faults.iter().all(|fault| fault.column != rule.name)
    };
    let nullable: Vec<&ColumnRule> = columns.iter().filter(may_be_null).collect();
    for (rule, n_nulls) in nullable.iter().zip(nulls(&nullable, session)?) {
        if n_nulls > 0 {
            let noun = if n_nulls == 1 { "row is" } else { "rows are" };
            faults.push(fault(&rule.name, rule.expected(), format!("{n_nulls} {noun} null")));
        }
    }
    if !open {
        let further = known.iter().filter(|(name, ..)| contract.rule(name).is_none());
        faults.extend(further.map(|(name, word, _)| fault(name, "none".to_owned(), word.clone())));
    }
    if faults.is_empty() {
        return Ok(Tested { n_failed: 0, rows: None, found: None });
    }
    let n_failed = faults.len() as u64;
    let batch = table(&faults)?;
    Ok(Tested { n_failed, rows: Some(written(attempt, batch.schema(), &[batch])?), found: None })
}

fn fault(column: &str, expected: String, found: String) -> Fault {
    Fault { column: column.to_owned(), expected, found }
}

/// How many rows are null in each of these columns.
fn nulls(rules: &[&ColumnRule], session: &Session) -> Result<Vec<i64>, StageError> {
    if rules.is_empty() {
        return Ok(Vec::new());
    }
    let counts: Vec<String> = rules
        .iter()
        .enumerate()
        .map(|(at, rule)| format!("count(*) filter (where {} is null) as n{at}", quoted(&rule.name)))
        .collect();
    let answer = session.query(&format!("select {} from {THIS}", counts.join(", ")))?;
    let batch = answer.iter().find(|batch| batch.num_rows() > 0);
    let count = |column: &ArrayRef| column.as_primitive_opt::<Int64Type>().map_or(0, |counts| counts.value(0));
    Ok(batch.map_or(vec![0; rules.len()], |batch| batch.columns().iter().map(count).collect()))
}

/// | column   | type | null | meaning                                       |
/// |----------|------|------|-----------------------------------------------|
/// | column   | Utf8 | no   | a column of the table or of the contract      |
/// | expected | Utf8 | no   | its type by the contract; `none` for a column that should not be there |
/// | found    | Utf8 | no   | its type, that it is absent, or how many rows are null |
fn table(faults: &[Fault]) -> Result<RecordBatch, StageError> {
    let texts =
        |text: fn(&Fault) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(faults.iter().map(text))) };
    let columns = [
        ("column", texts(|fault| &fault.column)),
        ("expected", texts(|fault| &fault.expected)),
        ("found", texts(|fault| &fault.found)),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, texts)| (name, texts, false)))
        .map_err(|source| StageError::Contract { source })
}

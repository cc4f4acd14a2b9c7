//! Stages that are made again as a whole: tables compared by digest and then row by row, a training by its checkpoint and
//! then by its losses.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use sluice_spec::stage::Kind;
use sluice_store::Output;
use sluice_table::{StepRow, Steps};

use super::{Compared, Likeness, Recheck, Tolerance, Verified};
use crate::prompts::views;
use crate::{Produced, StageContext, StageError, run};

/// Characters of a cell that are shown.
const N_CHARACTERS: usize = 40;

/// Makes all tables of a stage again.
pub fn tables(kind: &Kind, context: &StageContext<'_>, recheck: Recheck<'_>) -> Result<Verified, StageError> {
    let produced = run(kind, context)?;
    let mut verified = Verified::new("rows", "nothing: rows are equal or they are not".to_owned());
    for (stored, now) in recheck.stored.iter().zip(&produced.outputs) {
        if stored.digest() == now.digest() {
            verified.n_exact += stored.n_rows().unwrap_or(0);
        } else {
            compare_tables(context, stored, now, &mut verified)?;
        }
    }
    verified.produced = (verified.n_different > 0).then_some(produced);
    Ok(verified)
}

fn compare_tables(
    context: &StageContext<'_>,
    stored: &Output,
    now: &Output,
    verified: &mut Verified,
) -> Result<(), StageError> {
    let failed = |source| StageError::ReadStored { output: stored.name.clone(), source };
    let written = |source| StageError::WriteOutput { table: now.name.clone(), source };
    let stored_rows = Rows::new(context.store.read_table(stored).map_err(failed)?);
    let now_rows = Rows::new(context.attempt.read_table(now).map_err(written)?);
    let n_before = verified.n_different;
    for at in 0..stored_rows.len().max(now_rows.len()) {
        let name = || format!("{}, row {at}", stored.name);
        let compared = match (stored_rows.at(at), now_rows.at(at)) {
            (Some(stored), Some(now)) => compare_rows(stored, now).map_err(shown)?,
            (Some(_), None) => Compared::different("it is not made now".to_owned()),
            (None, _) => Compared::different("it was not there".to_owned()),
        };
        verified.count(compared, name);
    }
    // The rows read alike and the digests do not: the types of the columns changed.
    if verified.n_different == n_before {
        verified.count(Compared::different("the columns have other types now".to_owned()), || stored.name.clone());
    }
    Ok(())
}

fn shown(source: ArrowError) -> StageError {
    StageError::ShowRow { source }
}

/// The rows of some batches, by number.
struct Rows {
    batches: Vec<RecordBatch>,
    starts: Vec<usize>,
}

/// A row of a batch.
#[derive(Clone, Copy)]
struct Row<'a> {
    batch: &'a RecordBatch,
    row: usize,
}

impl Rows {
    fn new(batches: Vec<RecordBatch>) -> Self {
        let mut starts = vec![0];
        for batch in &batches {
            starts.push(starts[starts.len() - 1] + batch.num_rows());
        }
        Self { batches, starts }
    }

    fn len(&self) -> usize {
        self.starts[self.starts.len() - 1]
    }

    fn at(&self, at: usize) -> Option<Row<'_>> {
        let of = self.starts.partition_point(|start| *start <= at).checked_sub(1)?;
        Some(Row { batch: self.batches.get(of)?, row: at - self.starts[of] })
    }
}

/// Equal as they are printed. -0 and NaN of any kind print as what they are, and digests know one of each.
fn compare_rows(stored: Row<'_>, now: Row<'_>) -> Result<Compared, ArrowError> {
    let options = FormatOptions::default().with_null("none");
    let cell = |row: Row<'_>, column: usize| -> Result<String, ArrowError> {
        let formatter = ArrayFormatter::try_new(row.batch.column(column), &options)?;
        Ok(formatter.value(row.row).try_to_string()?.replace("-0.0", "0.0"))
    };
    let (fields, other) = (stored.batch.schema(), now.batch.schema());
    let names = |fields: &arrow::datatypes::Schema| -> Vec<String> {
        fields.fields().iter().map(|field| field.name().clone()).collect()
    };
    if names(&fields) != names(&other) {
        let what = format!("its columns are {}, and {} now", names(&fields).join(", "), names(&other).join(", "));
        return Ok(Compared::different(what));
    }
    for (column, field) in fields.fields().iter().enumerate() {
        let (old, new) = (cell(stored, column)?, cell(now, column)?);
        if old != new {
            return Ok(Compared::different(format!("{} {} is {} now", field.name(), opening(&old), opening(&new))));
        }
    }
    Ok(Compared::exact())
}

/// The beginning of a cell, in one line.
fn opening(text: &str) -> String {
    let line = text.replace('\n', " ");
    match line.char_indices().nth(N_CHARACTERS) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

/// Trains again, from the first step.
pub fn training(kind: &Kind, context: &StageContext<'_>, recheck: Recheck<'_>) -> Result<Verified, StageError> {
    let produced = run(kind, context)?;
    let tolerance = Tolerance { share: if recheck.is_foreign { 0.05 } else { 1e-3 } };
    let mut verified = Verified::new("results", tolerance.text("as many steps, each loss"));
    let is_same = recheck.stored.iter().zip(&produced.outputs).all(|(stored, now)| stored.digest() == now.digest());
    let compared = if is_same { Compared::exact() } else { compare_steps(context, &recheck, &produced, tolerance)? };
    verified.count(compared, || "checkpoint".to_owned());
    verified.produced = (verified.n_different > 0).then_some(produced);
    Ok(verified)
}

/// Other weights are near as long as the training went the same way.
fn compare_steps(
    context: &StageContext<'_>,
    recheck: &Recheck<'_>,
    produced: &Produced,
    tolerance: Tolerance,
) -> Result<Compared, StageError> {
    let written = |source| StageError::WriteOutput { table: Steps::NAME.to_owned(), source };
    let (stored, now) = (super::stored_table(context, recheck, 1)?, context.attempt.read_table(&produced.outputs[1]));
    let (stored, now) =
        (views(Steps::NAME, &stored, Steps::view)?, views(Steps::NAME, &now.map_err(written)?, Steps::view)?);
    let (stored, now): (Vec<StepRow<'_>>, Vec<StepRow<'_>>) =
        (stored.iter().flat_map(Steps::rows).collect(), now.iter().flat_map(Steps::rows).collect());
    if stored.len() != now.len() {
        return Ok(Compared::different(format!("{} steps are {} now", stored.len(), now.len())));
    }
    let near =
        Compared { likeness: Likeness::Near, what: "other weights after the same losses".to_owned(), deviation: 0.0 };
    Ok(stored.iter().zip(&now).fold(near, |worst, (stored, now)| {
        worst.worse(Compared::numbers(&format!("loss of step {},", stored.step), stored.loss, now.loss, tolerance))
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, StringArray};

    use super::*;

    #[test]
    fn rows_are_found_across_batches_and_differ_by_column() {
        let batch = |texts: &[&str], numbers: &[f64]| {
            let texts: ArrayRef = Arc::new(StringArray::from(texts.to_vec()));
            let numbers: ArrayRef = Arc::new(Float64Array::from(numbers.to_vec()));
            RecordBatch::try_from_iter([("text", texts), ("number", numbers)]).expect("two columns")
        };
        let one = Rows::new(vec![batch(&["a", "b"], &[0.0, 1.0]), batch(&[], &[]), batch(&["c"], &[2.0])]);
        let other = Rows::new(vec![batch(&["a", "b", "d"], &[-0.0, 1.5, 2.0])]);
        let told = |at| match (one.at(at), other.at(at)) {
            (Some(one), Some(other)) => compare_rows(one, other).expect("printable").what,
            _ => "not there".to_owned(),
        };
        assert_eq!([0, 1, 2, 3].map(told), ["", "number 1.0 is 1.5 now", "text c is d now", "not there"]);
    }
}

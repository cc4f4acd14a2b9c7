//! Rows for people: a table that fits the terminal, or one field a line where there are too many columns for that.
//!
//! Owns the layout. What a program reads (CSV, JSON) is whole and is written by crate `sql`.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::render::columns::{Align, Columns};
use crate::render::paint::{Ink, Paint};

/// A text column is not made narrower than this; rather, fields are written below one another.
const NARROWEST: usize = 16;
/// Spaces between columns.
const GAP: usize = 2;

/// The rows of batches of one schema in lines of at most `width` characters. Longer texts end in an ellipsis.
pub fn rows(batches: &[RecordBatch], width: usize, paint: Paint) -> Result<String, ArrowError> {
    let Some(schema) = batches.first().map(RecordBatch::schema) else { return Ok(String::new()) };
    let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    let aligns: Vec<Align> = schema
        .fields()
        .iter()
        .map(|field| if field.data_type().is_numeric() { Align::Right } else { Align::Left })
        .collect();
    let mut cells = Vec::new();
    for batch in batches {
        cells.extend(texts(batch)?);
    }
    let natural: Vec<usize> = (0..names.len())
        .map(|column| {
            let texts = std::iter::once(&names).chain(&cells).map(|row| row[column].chars().count());
            texts.max().unwrap_or(0)
        })
        .collect();
    Ok(match widest(&natural, width) {
        Some(cap) => across(&names, &aligns, &cells, cap, paint),
        None => down(&names, &cells, width, paint),
    })
}

/// The cells of a batch, row by row, each as one line.
fn texts(batch: &RecordBatch) -> Result<Vec<Vec<String>>, ArrowError> {
    let options = FormatOptions::default().with_null("-");
    let formatters = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
        .collect::<Result<Vec<_>, _>>()?;
    (0..batch.num_rows())
        .map(|row| formatters.iter().map(|cell| cell.value(row).try_to_string().map(|text| one_line(&text))).collect())
        .collect()
}

/// The text without anything that moves a terminal's cursor.
pub fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' => '⏎',
            c if c.is_control() => ' ',
            c => c,
        })
        .collect()
}

/// The largest width a column may have so that all of them fit; `None` where even narrow ones do not.
fn widest(natural: &[usize], width: usize) -> Option<usize> {
    let gaps = GAP * natural.len().saturating_sub(1);
    let fits = |cap: usize| natural.iter().map(|width| (*width).min(cap)).sum::<usize>() + gaps <= width;
    (NARROWEST..=width).rev().find(|cap| fits(*cap))
}

fn across(names: &[String], aligns: &[Align], cells: &[Vec<String>], cap: usize, paint: Paint) -> String {
    let mut table = Columns::new(aligns);
    table.line_of(names.iter().map(|name| (cut(name, cap), Ink::Name)));
    for row in cells {
        table.line_of(row.iter().map(|text| (cut(text, cap), Ink::Plain)));
    }
    table.render(paint)
}

fn down(names: &[String], cells: &[Vec<String>], width: usize, paint: Paint) -> String {
    let name_width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let room = width.saturating_sub(name_width + 2 * GAP).max(NARROWEST);
    let mut text = String::new();
    for (index, row) in cells.iter().enumerate() {
        text += &format!("{}\n", paint.ink(Ink::Dim, format!("row {}", index + 1)));
        let mut table = Columns::new(&[Align::Left, Align::Left, Align::Left]);
        for (name, value) in names.iter().zip(row) {
            table.row([(String::new(), Ink::Plain), (name.clone(), Ink::Name), (cut(value, room), Ink::Plain)]);
        }
        text += &table.render(paint);
    }
    text
}

/// At most `width` characters; an ellipsis stands for what is cut off.
pub fn cut(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        None => text.to_owned(),
        Some(_) => text.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float32Array, StringArray};
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(width: usize, expected: Expect) {
        let margins: ArrayRef = Arc::new(Float32Array::from(vec![3.5, 0.25]));
        let text = |texts: [Option<&str>; 2]| -> ArrayRef { Arc::new(StringArray::from(texts.to_vec())) };
        let prompts = text([Some("Name a colour.\nThen another."), Some("Count to three.")]);
        let groups = text([None, Some("counting")]);
        let batch = RecordBatch::try_from_iter([("margin", margins), ("prompt", prompts), ("group", groups)]);
        let shown = rows(&[batch.expect("columns of one length")], width, Paint::OFF);
        expected.assert_eq(&shown.expect("cells have texts"));
    }

    #[test]
    fn rows_fit_the_terminal() {
        check(
            80,
            expect![[r#"
            margin  prompt                        group
               3.5  Name a colour.⏎Then another.  -
              0.25  Count to three.               counting
        "#]],
        );
        check(
            36,
            expect![[r#"
            margin  prompt              group
               3.5  Name a colour.⏎Th…  -
              0.25  Count to three.     counting
        "#]],
        );
        check(
            30,
            expect![[r#"
            row 1
              margin  3.5
              prompt  Name a colour.⏎Then…
              group   -
            row 2
              margin  0.25
              prompt  Count to three.
              group   counting
        "#]],
        );
    }
}

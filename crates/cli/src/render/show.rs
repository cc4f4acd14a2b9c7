//! `show STAGE`: a result, its tables and its checkpoints.

use std::collections::BTreeMap;

use serde_json::Value;
use sluice_store::{Notice, NoticeLevel};

use crate::render::columns::{Align, Columns};
use crate::render::paint::{Ink, Paint};
use crate::render::quantity::{ago, bytes, counted, parameters, seconds};

/// A result as a whole.
#[derive(Debug, Clone)]
pub struct ShownStage {
    pub stage: String,
    pub kind: String,
    pub key: String,
    pub seconds: f64,
    pub age_seconds: u64,
    /// The earlier run that was asked for.
    pub run: Option<String>,
    /// The run it is of, when the pipeline has changed since.
    pub stale: Option<String>,
    pub metrics: BTreeMap<String, f64>,
    pub facts: BTreeMap<String, String>,
    /// What it told when it was made.
    pub notices: Vec<Notice>,
}

/// A table.
#[derive(Debug, Clone)]
pub struct ShownTable {
    pub name: String,
    /// Name, type, whether nulls are allowed.
    pub columns: Vec<(String, String, bool)>,
    pub n_rows: u64,
    pub bytes: u64,
    pub digest: String,
    pub path: String,
    /// The first rows, drawn.
    pub rows: String,
}

/// A checkpoint.
#[derive(Debug, Clone)]
pub struct ShownCheckpoint {
    pub name: String,
    pub architecture: String,
    pub n_parameters: u64,
    pub config: Value,
    pub n_files: u64,
    pub bytes: u64,
    pub digest: String,
    pub folder: String,
}

/// A cell of a matrix, in one line.
#[derive(Debug, Clone)]
pub struct ShownCell {
    pub stage: String,
    pub rows: Option<u64>,
    pub seconds: f64,
    pub age_seconds: u64,
    pub digest: String,
    /// The run it is of, when the pipeline has changed since.
    pub stale: Option<String>,
}

/// The cells of a stage that have a result, of `n_cells` in all.
pub fn cells(base: &str, n_cells: usize, cells: &[ShownCell], paint: Paint) -> String {
    let n = match cells.len() == n_cells {
        true => counted(n_cells as u64, "cell"),
        false => format!("{} of {}", cells.len(), counted(n_cells as u64, "cell")),
    };
    let (left, right) = (Align::Left, Align::Right);
    let mut table = Columns::new(&[left, left, right, right, left, left, left]);
    for ShownCell { stage, rows, seconds: took, age_seconds, digest, stale } in cells {
        let stale = stale.as_ref().map(|run| format!("of run {run}; the pipeline has changed since"));
        table.row([
            (String::new(), Ink::Plain),
            (stage.clone(), Ink::Name),
            (rows.map_or("-".to_owned(), |n| counted(n, "row")), Ink::Plain),
            (seconds(*took), Ink::Plain),
            (digest.get(..12).unwrap_or(digest).to_owned(), Ink::Dim),
            (ago(*age_seconds), Ink::Dim),
            (stale.unwrap_or_default(), Ink::Active),
        ]);
    }
    format!("{}  {n}\n{}", paint.ink(Ink::Bold, base), table.render(paint))
}

/// What is said of the result before its outputs.
pub fn stage(shown: &ShownStage, paint: Paint) -> String {
    let ShownStage { stage, kind, key, seconds: took, age_seconds, run, stale, metrics, facts, notices } = shown;
    let of_run = run.as_ref().map_or_else(String::new, |run| format!(" of run {run}"));
    let mut text = format!(
        "{}{of_run}  {kind}, made {} in {}, key {}\n",
        paint.ink(Ink::Bold, stage),
        ago(*age_seconds),
        seconds(*took),
        key.get(..12).unwrap_or(key)
    );
    if let Some(run) = stale {
        text += &paint.ink(Ink::Active, format!("this is the result of run {run}; the pipeline has changed since\n"));
    }
    for Notice { level, text: told } in notices {
        text += &match level {
            NoticeLevel::Note => format!("{told}\n"),
            NoticeLevel::Warning => format!("{}\n", paint.ink(Ink::Active, format!("warning: {told}"))),
        };
    }
    let mut table = Columns::new(&[Align::Left, Align::Left, Align::Left]);
    let empty = || (String::new(), Ink::Plain);
    for (name, value) in metrics {
        table.row([empty(), (name.clone(), Ink::Name), (number(*value), Ink::Plain)]);
    }
    for (name, value) in facts {
        table.row([empty(), (name.clone(), Ink::Name), (value.clone(), Ink::Plain)]);
    }
    text + &table.render(paint)
}

/// A table: size, place, columns, first rows.
pub fn table(shown: &ShownTable, paint: Paint) -> String {
    let ShownTable { name, columns, n_rows, bytes: size, digest, path, rows } = shown;
    let mut text = head(name, &format!("{}, {}", counted(*n_rows, "row"), bytes(*size)), digest, path, paint);
    let mut table = Columns::new(&[Align::Left, Align::Left, Align::Left, Align::Left]);
    for (name, kind, nullable) in columns {
        let null = if *nullable { "or null" } else { "" };
        table.row([
            (String::new(), Ink::Plain),
            (name.clone(), Ink::Name),
            (kind.clone(), Ink::Plain),
            (null.to_owned(), Ink::Dim),
        ]);
    }
    text += &table.render(paint);
    if rows.is_empty() { text } else { format!("{text}\n{rows}") }
}

/// A checkpoint: architecture, size, place, configuration.
pub fn checkpoint(shown: &ShownCheckpoint, paint: Paint) -> String {
    let ShownCheckpoint { name, architecture, n_parameters, config, n_files, bytes: size, digest, folder } = shown;
    let facts = format!(
        "{architecture}, {} parameters, {}, {}",
        parameters(*n_parameters),
        counted(*n_files, "file"),
        bytes(*size)
    );
    let mut text = head(name, &facts, digest, folder, paint);
    let mut table = Columns::new(&[Align::Left, Align::Left, Align::Left]);
    for (key, value) in config.as_object().into_iter().flatten() {
        table.row([(String::new(), Ink::Plain), (key.clone(), Ink::Name), (value.to_string(), Ink::Plain)]);
    }
    text += &table.render(paint);
    text
}

fn head(name: &str, facts: &str, digest: &str, path: &str, paint: Paint) -> String {
    let digest = digest.get(..12).unwrap_or(digest);
    format!("\n{}  {facts}, digest {digest}\n{}\n", paint.ink(Ink::Bold, name), paint.ink(Ink::Dim, path))
}

/// Whole numbers without a point, others with four digits.
fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 { format!("{value:.0}") } else { format!("{value:.4}") }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_table_shows_its_columns_and_rows() {
        let shown = ShownTable {
            name: "pairs.dropped".to_owned(),
            columns: vec![("prompt_id".into(), "Utf8".into(), false), ("rule".into(), "Utf8".into(), true)],
            n_rows: 12,
            bytes: 4096,
            digest: "0123456789abcdef".to_owned(),
            path: ".sluice/objects/ab/cd".to_owned(),
            rows: "+--+\n".to_owned(),
        };
        expect![[r#"

            pairs.dropped  12 rows, 4.1 kB, digest 0123456789ab
            .sluice/objects/ab/cd
              prompt_id  Utf8
              rule       Utf8  or null

            +--+
        "#]]
        .assert_eq(&table(&shown, Paint::OFF));
    }

    #[test]
    fn a_result_says_when_and_from_what() {
        let shown = ShownStage {
            stage: "pairs".to_owned(),
            kind: "pair".to_owned(),
            key: "0123456789abcdef".to_owned(),
            seconds: 0.2,
            age_seconds: 100,
            run: None,
            stale: Some("r3".to_owned()),
            metrics: BTreeMap::from([("dropped.tie".to_owned(), 12.0), ("margin_mean".to_owned(), 0.25)]),
            facts: BTreeMap::from([("policy_digest".to_owned(), "abc".to_owned())]),
            notices: vec![Notice { level: NoticeLevel::Note, text: "resumed at step 2 of 9".to_owned() }],
        };
        expect![[r#"
            pairs  pair, made 1 min ago in 200 ms, key 0123456789ab
            this is the result of run r3; the pipeline has changed since
            resumed at step 2 of 9
              dropped.tie    12
              margin_mean    0.2500
              policy_digest  abc
        "#]]
        .assert_eq(&stage(&shown, Paint::OFF));
    }
}

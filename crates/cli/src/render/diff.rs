//! `diff`: what differs between two runs, stage by stage. Owns the layout; the comparison is the store's and the engine's.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use sluice_engine::LeafChange;
use sluice_store::{ColumnChange, Comparison};
use sluice_table::DERIVED;

use crate::render::columns::{Align, Columns};
use crate::render::paint::{Ink, Paint};
use crate::render::quantity::{ago, count, counted};
use crate::render::rows::{cut, one_line};
use crate::render::why;

/// A run, as it is introduced.
#[derive(Debug, Clone)]
pub struct SideShown {
    /// `r3`, `r3 (prev)`, `now`.
    pub name: String,
    /// None for the pipeline as it is.
    pub age_seconds: Option<u64>,
    pub pipeline: String,
    pub profile: Option<String>,
    /// `--set` of the command line.
    pub set: Vec<String>,
    pub is_alive: bool,
}

/// A stage in two runs.
#[derive(Debug, Clone)]
pub struct StageDiff {
    pub name: String,
    pub kind: String,
    pub differs: Differs,
}

/// How a stage differs.
#[derive(Debug, Clone)]
pub enum Differs {
    Same,
    OnlyOld,
    OnlyNew,
    NoResult { in_old: bool },
    Unequal(Box<Unequal>),
}

/// What differs between two results of a stage.
#[derive(Debug, Clone)]
pub struct Unequal {
    pub changes: Vec<LeafChange>,
    pub metrics: Vec<Metric>,
    pub outputs: Vec<(String, OutputDiff)>,
}

/// A number that a stage reports.
#[derive(Debug, Clone)]
pub struct Metric {
    pub name: String,
    pub old: Option<f64>,
    pub new: Option<f64>,
}

/// How an output differs.
#[derive(Debug, Clone)]
pub enum OutputDiff {
    OnlyOld,
    OnlyNew,
    Same {
        n_rows: Option<u64>,
    },
    /// What is no table.
    Digests {
        old: String,
        new: String,
    },
    /// A table whose rows are not there any more.
    Unreadable {
        n_old: u64,
        n_new: u64,
        why: String,
    },
    Table(Box<Comparison>),
}

/// Longest value of a cell in a row that is shown.
const CELL: usize = 32;

/// The whole difference in lines of at most `width` characters, but for places and parameters, which are not cut.
pub fn diff(
    old: &SideShown,
    new: &SideShown,
    stages: &[StageDiff],
    width: usize,
    paint: Paint,
) -> Result<String, ArrowError> {
    let mut text = sides(old, new, paint);
    let mut same = Vec::new();
    for StageDiff { name, kind, differs } in stages {
        let head = format!("\n{}  {}", paint.ink(Ink::Bold, name), paint.ink(Ink::Dim, kind));
        match differs {
            Differs::Same => same.push(name.as_str()),
            Differs::OnlyOld => text += &format!("{head}  only in {}\n", old.name),
            Differs::OnlyNew => text += &format!("{head}  only in {}\n", new.name),
            Differs::NoResult { in_old } => {
                text += &format!("{head}  no result in {}\n", if *in_old { &old.name } else { &new.name });
            }
            Differs::Unequal(unequal) => {
                text += &format!("{head}\n{}", of_stage(unequal, width, paint)?);
            }
        }
    }
    if same.len() == stages.len() {
        text += "\nnothing differs\n";
    } else if !same.is_empty() {
        text += &paint.ink(Ink::Dim, format!("\nthe same in both: {}\n", same.join(", ")));
    }
    Ok(text)
}

fn sides(old: &SideShown, new: &SideShown, paint: Paint) -> String {
    let mut table = Columns::new(&[Align::Left; 5]);
    for (sign, SideShown { name, age_seconds, pipeline, profile, set, is_alive }) in [("-", old), ("+", new)] {
        let profile = profile.as_ref().map_or_else(String::new, |profile| format!(", {profile}"));
        let set: Vec<String> = set.iter().map(|set| format!("--set {set}")).collect();
        let alive = if *is_alive { ", goes on" } else { "" };
        let when = age_seconds.map_or_else(|| "the file as it is".to_owned(), ago);
        table.row([
            (sign.to_owned(), if sign == "-" { Ink::Bad } else { Ink::Good }),
            (name.clone(), Ink::Name),
            (format!("{when}{alive}"), Ink::Dim),
            (format!("{pipeline}{profile}"), Ink::Plain),
            (set.join(" "), Ink::Dim),
        ]);
    }
    table.render(paint)
}

fn of_stage(unequal: &Unequal, width: usize, paint: Paint) -> Result<String, ArrowError> {
    let Unequal { changes, metrics, outputs } = unequal;
    let mut text = why::table(changes, paint) + &metric_table(metrics, paint);
    for (name, output) in outputs {
        let name = paint.ink(Ink::Name, name);
        text += &match output {
            OutputDiff::OnlyOld => format!("  {name}: is not made any more\n"),
            OutputDiff::OnlyNew => format!("  {name}: was not made before\n"),
            OutputDiff::Same { n_rows: None } => format!("  {name}: the same\n"),
            OutputDiff::Same { n_rows: Some(n) } => format!("  {name}: the same {}\n", counted(*n, "row")),
            OutputDiff::Digests { old, new } => {
                let short = |digest: &str| digest.get(..12).unwrap_or(digest).to_owned();
                format!("  {name}: another one, digest {} → {}\n", short(old), short(new))
            }
            OutputDiff::Unreadable { n_old, n_new, why } => {
                let what = paint.ink(Ink::Active, format!("not compared: {why}"));
                format!("  {name}: {} → {}; {what}\n", count(*n_old), counted(*n_new, "row"))
            }
            OutputDiff::Table(table) => format!("  {name}: {}", of_table(table, width, paint)?),
        };
    }
    Ok(text)
}

fn metric_table(metrics: &[Metric], paint: Paint) -> String {
    let (left, right) = (Align::Left, Align::Right);
    let mut table = Columns::new(&[left, left, right, left, right, right]);
    for Metric { name, old, new } in metrics {
        let value = |value: &Option<f64>| value.map_or("absent".to_owned(), number);
        let change = match (old, new) {
            (Some(old), Some(new)) => signed(new - old),
            _ => String::new(),
        };
        table.row([
            (String::new(), Ink::Plain),
            (name.clone(), Ink::Name),
            (value(old), Ink::Bad),
            ("→".to_owned(), Ink::Dim),
            (value(new), Ink::Good),
            (change, Ink::Dim),
        ]);
    }
    table.render(paint)
}

fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 { format!("{value:.0}") } else { format!("{value:.4}") }
}

fn signed(change: f64) -> String {
    let text = number(change);
    if change > 0.0 { format!("+{text}") } else { text }
}

fn of_table(table: &Comparison, width: usize, paint: Paint) -> Result<String, ArrowError> {
    let Comparison {
        columns, matched_by, n_old, n_new, n_same, n_changed, n_added, n_removed, changed_columns, ..
    } = table;
    let mut parts = Vec::new();
    for (n, word) in [(n_removed, "removed"), (n_added, "added"), (n_changed, "changed"), (n_same, "the same")] {
        if *n > 0 {
            parts.push(format!("{} {word}", count(*n)));
        }
    }
    if n_same == n_old && n_same == n_new {
        parts = vec!["the same rows in another order, or other columns".to_owned()];
    }
    let by = if matched_by.is_empty() { "as whole rows".to_owned() } else { format!("by {}", matched_by.join(", ")) };
    let mut text = format!(
        "{} → {}: {} {}\n",
        count(*n_old),
        counted(*n_new, "row"),
        parts.join(", "),
        paint.ink(Ink::Dim, format!("({by})"))
    );
    for change in columns {
        let ink = |name: &str| paint.ink(Ink::Name, name);
        text += &match change {
            ColumnChange::Retyped { name, from, to } => format!("    column {} was {from}, is {to}\n", ink(name)),
            ColumnChange::Removed { name, from } => format!("    column {}, {from}, is gone\n", ink(name)),
            ColumnChange::Added { name, to } => format!("    column {}, {to}, is new\n", ink(name)),
        };
    }
    if !changed_columns.is_empty() {
        let columns: Vec<String> = changed_columns.iter().map(|(name, n)| format!("{name} {}", count(*n))).collect();
        text += &format!("{}\n", cut(&format!("    changed in {}", columns.join(", ")), width));
    }
    let rows = RowsShown { ids: matched_by, width, paint };
    text += &rows.whole("-", Ink::Bad, &table.removed)?;
    text += &rows.whole("+", Ink::Good, &table.added)?;
    text += &rows.changed(&table.changed.0, &table.changed.1, changed_columns)?;
    Ok(text)
}

/// How rows are written: a line each, what tells them apart first.
struct RowsShown<'a> {
    ids: &'a [String],
    width: usize,
    paint: Paint,
}

impl RowsShown<'_> {
    /// Rows that are there in one table only.
    fn whole(&self, sign: &str, ink: Ink, batch: &RecordBatch) -> Result<String, ArrowError> {
        let names: Vec<&str> = batch.schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
        let is_id = |name: &&&str| self.ids.iter().any(|id| id == **name);
        let (ids, others): (Vec<&str>, Vec<&str>) = names.iter().partition(is_id);
        let mut text = String::new();
        for row in 0..batch.num_rows() {
            let mut cells = Vec::new();
            for name in &ids {
                cells.push(format!("{name} {}", short(&cell(batch, name, row)?)));
            }
            // Digests say nothing to a reader, and what is not there takes no room.
            for name in others.iter().filter(|name| !DERIVED.contains(name)) {
                let value = cell(batch, name, row)?;
                if !is_digest(&value) && value != NULL {
                    cells.push(format!("{name} {}", cut(&value, CELL)));
                }
            }
            text += &self.line(sign, ink, &cells);
        }
        Ok(text)
    }

    /// Rows that differ, with the columns in which they do.
    fn changed(&self, old: &RecordBatch, new: &RecordBatch, columns: &[(String, u64)]) -> Result<String, ArrowError> {
        let mut text = String::new();
        for row in 0..new.num_rows() {
            let mut cells = Vec::new();
            for name in self.ids {
                cells.push(format!("{name} {}", short(&cell(new, name, row)?)));
            }
            for (name, _) in columns {
                let (was, is) = (cell(old, name, row)?, cell(new, name, row)?);
                if was != is {
                    let (was, is) = why::apart(&short(&was), &short(&is));
                    cells.push(format!("{name} {was} → {is}"));
                }
            }
            text += &self.line("~", Ink::Active, &cells);
        }
        Ok(text)
    }

    fn line(&self, sign: &str, ink: Ink, cells: &[String]) -> String {
        let room = self.width.saturating_sub(6).max(CELL);
        format!("    {} {}\n", self.paint.ink(ink, sign), cut(&cells.join("  "), room))
    }
}

/// A cell as one line of text.
fn cell(batch: &RecordBatch, name: &str, row: usize) -> Result<String, ArrowError> {
    let column = batch.column(batch.schema_ref().index_of(name)?);
    let options = FormatOptions::default().with_null(NULL);
    let text = ArrayFormatter::try_new(column.as_ref(), &options)?.value(row).try_to_string()?;
    Ok(one_line(&text))
}

/// How a cell without a value is written.
const NULL: &str = "-";

/// Whether a text is a digest, which only programs read.
fn is_digest(text: &str) -> bool {
    text.len() >= 32 && text.chars().all(|c| c.is_ascii_hexdigit())
}

/// A digest by its first digits.
fn short(text: &str) -> String {
    if is_digest(text) { text.chars().take(12).collect() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float32Array, StringArray};
    use expect_test::expect;
    use sluice_store::LeafValue;

    use super::*;

    fn pairs(ids: &[&str], margins: &[f32], chosen: &[&str]) -> RecordBatch {
        let text = |texts: &[&str]| -> ArrayRef { Arc::new(StringArray::from(texts.to_vec())) };
        let margins: ArrayRef = Arc::new(Float32Array::from(margins.to_vec()));
        let columns = [("prompt_id", text(ids)), ("margin", margins), ("chosen", text(chosen))];
        RecordBatch::try_from_iter(columns).expect("columns of one length")
    }

    fn side(name: &str, age_seconds: Option<u64>, set: &[&str]) -> SideShown {
        SideShown {
            name: name.to_owned(),
            age_seconds,
            pipeline: "p.yaml".to_owned(),
            profile: Some("tiny".to_owned()),
            set: set.iter().map(|set| (*set).to_owned()).collect(),
            is_alive: false,
        }
    }

    fn stage(name: &str, kind: &str, differs: Differs) -> StageDiff {
        StageDiff { name: name.to_owned(), kind: kind.to_owned(), differs }
    }

    #[test]
    fn each_stage_says_what_differs() {
        let change = LeafChange {
            path: "pair.min_margin".to_owned(),
            old: Some(LeafValue::Float(0.0)),
            new: Some(LeafValue::Float(0.5)),
            old_place: None,
            place: Some("p.yaml:13:53".to_owned()),
        };
        let metric = |name: &str, old, new| Metric { name: name.to_owned(), old, new };
        let table = Comparison {
            columns: vec![
                ColumnChange::Retyped {
                    name: "margin".to_owned(),
                    from: "Float64".to_owned(),
                    to: "Float32".to_owned(),
                },
                ColumnChange::Added { name: "group".to_owned(), to: "Utf8 or null".to_owned() },
            ],
            matched_by: vec!["prompt_id".to_owned()],
            n_old: 18_000,
            n_new: 12_001,
            n_same: 11_999,
            n_changed: 1,
            n_added: 1,
            n_removed: 6_000,
            changed_columns: vec![("margin".to_owned(), 1), ("chosen".to_owned(), 1)],
            added: pairs(
                &["a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1"],
                &[2.0],
                &["a long text that is cut where the cell of a row ends"],
            ),
            removed: pairs(&["b2"], &[0.25], &["blue"]),
            changed: (pairs(&["c3"], &[0.5], &["red"]), pairs(&["c3"], &[0.75], &["green"])),
        };
        let unequal = Unequal {
            changes: vec![change],
            metrics: vec![
                metric("dropped_min_margin", None, Some(6000.0)),
                metric("margin_mean", Some(0.25), Some(0.5)),
            ],
            outputs: vec![
                ("pairs".to_owned(), OutputDiff::Table(Box::new(table))),
                ("pairs.dropped".to_owned(), OutputDiff::Same { n_rows: Some(3) }),
            ],
        };
        let weights = Unequal {
            changes: Vec::new(),
            metrics: Vec::new(),
            outputs: vec![("tuned".to_owned(), OutputDiff::Digests { old: "ab".repeat(9), new: "cd".repeat(9) })],
        };
        let stages = [
            stage("prompts", "ingest", Differs::Same),
            stage("pairs", "pair", Differs::Unequal(Box::new(unequal))),
            stage("tuned", "train", Differs::Unequal(Box::new(weights))),
            stage("report", "evaluate", Differs::NoResult { in_old: false }),
            stage("lengths", "sql", Differs::OnlyOld),
        ];
        let (old, new) = (side("r1 (tag:gold)", Some(172_900), &[]), side("r3", Some(3), &["params.seed=2"]));
        expect![[r#"
            -  r1 (tag:gold)  2 days ago  p.yaml, tiny
            +  r3             just now    p.yaml, tiny  --set params.seed=2

            pairs  pair
              pair.min_margin  0.0  →  0.5  p.yaml:13:53
              dropped_min_margin  absent  →    6000
              margin_mean         0.2500  →  0.5000  +0.2500
              pairs: 18,000 → 12,001 rows: 6,000 removed, 1 added, 1 changed, 11,999 the same (by prompt_id)
                column margin was Float64, is Float32
                column group, Utf8 or null, is new
                changed in margin 1, chosen 1
                - prompt_id b2  margin 0.25  chosen blue
                + prompt_id a1a1a1a1a1a1  margin 2.0  chosen a long text that is cut where …
                ~ prompt_id c3  margin 0.5 → 0.75  chosen red → green
              pairs.dropped: the same 3 rows

            tuned  train
              tuned: another one, digest abababababab → cdcdcdcdcdcd

            report  evaluate  no result in r3

            lengths  sql  only in r1 (tag:gold)

            the same in both: prompts
        "#]]
        .assert_eq(&diff(&old, &new, &stages, 80, Paint::OFF).expect("cells have texts"));
        let same = [stage("prompts", "ingest", Differs::Same)];
        let told = diff(&old, &new, &same, 80, Paint::OFF).expect("cells have texts");
        assert!(told.ends_with("\nnothing differs\n"), "{told}");
    }
}

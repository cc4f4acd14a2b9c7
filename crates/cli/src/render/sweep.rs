//! The cells of a matrix side by side: a row a cell, a column an axis, then the figures in which they differ.
//!
//! Owns which figures are shown and in which words. Knows them by the names that stages give them, as `report` does.

use sluice_engine::{ComparedCell, Comparison};
use sluice_spec::{Better, LeafValue};

use crate::render::columns::{Align, Columns};
use crate::render::paint::{Ink, Paint};
use crate::render::quantity::{count, percent};

/// A figure that is shown, what it is called here, and how it is written.
type Figure<'a> = (&'a str, &'a str, fn(f64) -> String);

/// Figures of `evaluate` and of `train`, the most telling first.
const FIGURES: [Figure<'static>; 10] = [
    ("exact_accuracy_sampled_after", "right, sampled", percent),
    ("win_rate_sampled", "preferred, sampled", percent),
    ("exact_accuracy_greedy_after", "right, greedy", percent),
    ("win_rate_greedy", "preferred, greedy", percent),
    ("mean_tokens_sampled_after", "tokens, sampled", |value| format!("{value:.1}")),
    ("format_adherence_sampled_after", "format kept", percent),
    ("loss_last", "loss", |value| format!("{value:.4}")),
    ("accuracy_last", "pairs ranked right", percent),
    ("margin_last", "margin", |value| format!("{value:.3}")),
    ("steps", "steps", |value| count(value as u64)),
];

/// Cells above which only the best are shown.
const MANY: usize = 40;
/// How many of them.
const SHOWN: usize = 20;

/// What stands behind the best value of a column.
const BEST: &str = " *";

/// The table of a comparison in lines of at most `width` characters; figures for which there is no room are left out.
pub fn sweep(comparison: &Comparison, width: usize, paint: Paint) -> String {
    let Comparison { stage, kind: _, axes, metrics, cells } = comparison;
    let differs = |name: &str| metrics.iter().any(|metric| metric.name == name);
    let mut figures: Vec<Figure<'_>> = FIGURES.iter().copied().filter(|(name, ..)| differs(name)).collect();
    if figures.is_empty() {
        figures = metrics
            .iter()
            .map(|metric| (metric.name.as_str(), metric.name.as_str(), plain as fn(f64) -> String))
            .collect();
    }
    let better = |name: &str| metrics.iter().find(|metric| metric.name == name).and_then(|metric| metric.better);
    let chosen = chosen(cells, figures.iter().find_map(|(name, ..)| Some((*name, better(name)?))));
    loop {
        let lines = table(axes, &figures, &chosen, paint, better);
        let widest =
            table(axes, &figures, &chosen, Paint { on: false }, better).iter().map(|line| line.chars().count()).max();
        if figures.len() <= 1 || widest.unwrap_or(0) <= width {
            let mut text = format!("{}\n", paint.ink(Ink::Bold, headline(stage.as_str(), cells.len(), chosen.len())));
            text.extend(lines.into_iter().map(|line| line + "\n"));
            let has_best = figures.iter().any(|(name, ..)| better(name).is_some());
            if has_best {
                text += &format!("{}\n", paint.ink(Ink::Dim, format!("{} the best of its column", BEST.trim())));
            }
            return text;
        }
        figures.pop();
    }
}

fn headline(stage: &str, n_cells: usize, n_shown: usize) -> String {
    match n_cells == n_shown {
        true => format!("{stage}, {} cells", count(n_cells as u64)),
        false => format!("{stage}, the best {} of {} cells", count(n_shown as u64), count(n_cells as u64)),
    }
}

/// The cells that are shown: all, or the best in the first figure that can be judged.
fn chosen<'c>(cells: &'c [ComparedCell], judged: Option<(&str, Better)>) -> Vec<&'c ComparedCell> {
    let mut chosen: Vec<&ComparedCell> = cells.iter().collect();
    if chosen.len() <= MANY {
        return chosen;
    }
    if let Some((name, better)) = judged {
        let value = |cell: &ComparedCell| cell.metrics.get(name).copied();
        chosen.sort_by(|left, right| match (value(left), value(right)) {
            (Some(left), Some(right)) if better == Better::Higher => right.total_cmp(&left),
            (Some(left), Some(right)) => left.total_cmp(&right),
            (left, right) => right.is_some().cmp(&left.is_some()),
        });
    }
    chosen.truncate(SHOWN);
    chosen
}

fn table(
    axes: &[String],
    figures: &[Figure<'_>],
    cells: &[&ComparedCell],
    paint: Paint,
    better: impl Fn(&str) -> Option<Better>,
) -> Vec<String> {
    // A column with a best value has room for its mark in every row.
    let mark = |name: &str, is_best: bool| match (better(name).is_some(), is_best) {
        (true, true) => BEST,
        (true, false) => "  ",
        (false, _) => "",
    };
    let aligns: Vec<Align> = axes.iter().map(|_| Align::Right).chain(figures.iter().map(|_| Align::Right)).collect();
    let mut table = Columns::new(&aligns);
    let of_axes = axes.iter().map(|axis| (axis.clone(), Ink::Name));
    let of_figures = figures.iter().map(|(name, words, _)| (format!("{words}{}", mark(name, false)), Ink::Dim));
    table.line_of(of_axes.chain(of_figures));
    for cell in cells {
        let value = |axis: &String| cell.values.0.iter().find(|(own, _)| own == axis).map(|(_, value)| label(value));
        let of_axes = axes.iter().map(|axis| (value(axis).unwrap_or_else(|| "-".to_owned()), Ink::Plain));
        let of_figures = figures.iter().map(|(name, _, write)| {
            let is_best = cell.best.contains(*name);
            let value = cell.metrics.get(*name).map_or_else(|| "-".to_owned(), |value| write(*value));
            (format!("{value}{}", mark(name, is_best)), if is_best { Ink::Good } else { Ink::Plain })
        });
        table.line_of(of_axes.chain(of_figures).collect::<Vec<_>>());
    }
    table.lines(paint).into_iter().map(|line| format!("  {}", line.trim_end())).collect()
}

/// A number nobody has given a form to.
fn plain(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 { count_signed(value) } else { format!("{value:.4}") }
}

fn count_signed(value: f64) -> String {
    let sign = if value < 0.0 { "-" } else { "" };
    format!("{sign}{}", count(value.abs() as u64))
}

/// A value of an axis as cells are named.
fn label(value: &LeafValue) -> String {
    match value {
        LeafValue::Null => "null".to_owned(),
        LeafValue::Bool(value) => value.to_string(),
        LeafValue::Int(value) => value.to_string(),
        LeafValue::Float(value) if value.fract() == 0.0 && value.abs() < 1e15 => format!("{value:.0}"),
        LeafValue::Float(value) => format!("{value:?}"),
        LeafValue::Str(text) => text.clone(),
        LeafValue::List(_) => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use expect_test::{Expect, expect};
    use sluice_engine::{CellValues, ComparedMetric};

    use super::*;

    /// Of cells over a rate and a scale, with one value of each metric.
    fn comparison(metrics: &[(&str, Option<Better>)], cells: &[(f64, i64, &[f64])]) -> Comparison {
        let pipeline = "version: 1\nstages: { report: { ingest: { from: a.csv } } }\n";
        let pipeline = sluice_spec::parse("p", pipeline, &sluice_spec::Options::default()).expect("a pipeline");
        let name = pipeline.stages[0].name.clone();
        let best = |metric: usize, value: f64| {
            metrics[metric].1.is_some() && cells.iter().all(|(_, _, values)| values[metric] <= value)
        };
        let cell = |(rate, beta, values): &(f64, i64, &[f64])| ComparedCell {
            name: name.clone(),
            values: CellValues(vec![
                ("lr".to_owned(), LeafValue::Float(*rate)),
                ("beta".to_owned(), LeafValue::Int(*beta)),
            ]),
            metrics: metrics
                .iter()
                .zip(*values)
                .map(|((name, _), value)| ((*name).to_owned(), *value))
                .collect::<BTreeMap<_, _>>(),
            best: (0..metrics.len()).filter(|at| best(*at, values[*at])).map(|at| metrics[at].0.to_owned()).collect(),
        };
        Comparison {
            stage: name.clone(),
            kind: "evaluate",
            axes: vec!["lr".to_owned(), "beta".to_owned()],
            metrics: metrics
                .iter()
                .map(|(name, better)| ComparedMetric { name: (*name).to_owned(), better: *better })
                .collect(),
            cells: cells.iter().map(cell).collect(),
        }
    }

    #[track_caller]
    fn check(comparison: &Comparison, width: usize, expected: Expect) {
        let shown = sweep(comparison, width, Paint::OFF);
        assert!(shown.lines().all(|line| line.chars().count() <= width), "{shown}");
        expected.assert_eq(&shown);
    }

    #[test]
    fn a_row_a_cell_and_the_best_marked() {
        let up = Some(Better::Higher);
        let comparison = comparison(
            &[
                ("exact_accuracy_sampled_after", up),
                ("win_rate_sampled", up),
                ("exact_accuracy_greedy_after", up),
                ("mean_tokens_sampled_after", None),
                ("prompts", None),
            ],
            &[
                (1e-3, 10, &[0.59, 0.643, 0.601, 5.6, 1076.0]),
                (3e-3, 10, &[0.612, 0.62, 0.601, 5.25, 1076.0]),
                (8e-7, 2, &[0.4, 0.51, 0.55, 8.1, 1075.0]),
            ],
        );
        check(
            &comparison,
            120,
            expect![[r#"
            report, 3 cells
                 lr  beta  right, sampled    preferred, sampled    right, greedy    tokens, sampled
              0.001    10          59.0 %                64.3 % *         60.1 % *              5.6
              0.003    10          61.2 % *              62.0 %           60.1 % *              5.2
               8e-7     2          40.0 %                51.0 %           55.0 %                8.1
            * the best of its column
        "#]],
        );
        check(
            &comparison,
            80,
            expect![[r#"
            report, 3 cells
                 lr  beta  right, sampled    preferred, sampled    right, greedy
              0.001    10          59.0 %                64.3 % *         60.1 % *
              0.003    10          61.2 % *              62.0 %           60.1 % *
               8e-7     2          40.0 %                51.0 %           55.0 %
            * the best of its column
        "#]],
        );
        check(
            &comparison,
            60,
            expect![[r#"
            report, 3 cells
                 lr  beta  right, sampled    preferred, sampled
              0.001    10          59.0 %                64.3 % *
              0.003    10          61.2 % *              62.0 %
               8e-7     2          40.0 %                51.0 %
            * the best of its column
        "#]],
        );
    }

    #[test]
    fn of_many_cells_the_best_are_shown() {
        let values: Vec<[f64; 1]> = (0..50).map(|at| [f64::from(at % 7) / 10.0]).collect();
        let cells: Vec<(f64, i64, &[f64])> =
            values.iter().enumerate().map(|(at, value)| (at as f64 / 8.0, 1, value.as_slice())).collect();
        let comparison = comparison(&[("win_rate_sampled", Some(Better::Higher))], &cells);
        let shown = sweep(&comparison, 80, Paint::OFF);
        expect![[r#"
            report, the best 20 of 50 cells
                 lr  beta  preferred, sampled
               0.75     1              60.0 % *
              1.625     1              60.0 % *
                2.5     1              60.0 % *
        "#]]
        .assert_eq(&shown.lines().take(5).map(|line| format!("{line}\n")).collect::<String>());
        assert_eq!(shown.lines().count(), SHOWN + 3);
    }

    #[test]
    fn figures_nobody_knows_are_shown_by_their_names() {
        let comparison =
            comparison(&[("rows", None), ("share", None)], &[(0.5, 1, &[1200.0, 0.25]), (1.0, 1, &[-3.0, 1.0])]);
        check(
            &comparison,
            80,
            expect![[r#"
            report, 2 cells
               lr  beta   rows   share
              0.5     1  1,200  0.2500
                1     1     -3       1
        "#]],
        );
    }
}

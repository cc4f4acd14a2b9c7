//! Cells of a stage from those of the stages it reads: what both have an axis for is joined, the rest is multiplied.
//!
//! Owns the join and its faults. Refuses to know how a stage names what it reads.

use std::collections::HashMap;

use crate::cell::Pinned;
use crate::diagnostic::{Code, Diagnostic};
use crate::matrix::axes::{Axis, Point};
use crate::matrix::{CellReads, MAX_CELLS};
use crate::names::StageName;
use crate::reader::StageRead;
use crate::suggest::did_you_mean;

/// Labels, or axes, in the order of a cell's name.
type Labels<'a> = Vec<&'a str>;
/// Cells by their labels on some axes.
type Index<'c, 'u> = HashMap<Labels<'u>, Vec<&'c Side<'u>>>;

/// A cell of a stage.
#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    /// In the order of the cell's name; empty for a stage without a matrix.
    pub points: Vec<Point>,
    /// The stage that each name stands for in this cell.
    pub reads: CellReads,
}

/// The cells of a stage that is read.
#[derive(Debug)]
pub(super) struct Upstream {
    /// Every axis of any cell.
    pub axes: Vec<Axis>,
    /// The points of each cell and its name.
    pub cells: Vec<(Vec<Point>, StageName)>,
}

/// Joins what is read to the rows so far. `None` means that the fault is reported, or was before.
pub(super) fn join(
    rows: Vec<Row>,
    axes: &mut Vec<Axis>,
    upstream: &Upstream,
    read: &StageRead,
    faults: &mut Vec<Diagnostic>,
) -> Option<Vec<Row>> {
    check_pins(upstream, read, faults)?;
    let pinned = |axis: &str| read.pinned.pins.iter().any(|(other, _)| other == axis);
    let fits = |points: &[Point]| read.pinned.pins.iter().all(|(axis, pin)| label(points, axis) == Some(pin));
    let cells: Vec<Side<'_>> = upstream
        .cells
        .iter()
        .filter(|(points, _)| fits(points))
        .map(|(points, name)| Side {
            points: points.iter().filter(|point| !pinned(&point.coordinate.axis)).collect(),
            name,
        })
        .collect();
    if cells.is_empty() {
        let message = format!("{} reads `{}`, which the matrix leaves out", read.whereabouts, read.pinned);
        faults.push(Diagnostic::new(Code::UnknownName, read.place, message));
        return None;
    }
    for axis in upstream.axes.iter().filter(|axis| !pinned(&axis.name)) {
        if let Err(there) = take_up(axis, axes) {
            faults.push(clash(axis, &there, read));
            return None;
        }
    }
    let joined = matched(rows, &cells, &read.pinned);
    if joined.is_empty() {
        let message =
            format!("{} reads `{}`, no cell of which fits what else the stage reads", read.whereabouts, read.pinned);
        faults.push(Diagnostic::new(Code::Contradiction, read.place, message));
        return None;
    }
    if joined.len() > MAX_CELLS {
        let message = format!("{} reads `{}`, which makes more than {MAX_CELLS} cells", read.whereabouts, read.pinned);
        let fault = Diagnostic::new(Code::OutOfRange, read.place, message);
        faults.push(fault.help("read one cell by its name, or leave values out"));
        return None;
    }
    Some(joined)
}

/// Finds, for each row, the one cell that a data test means: that with the row's values on all axes which are not
/// pinned. A test makes no cells, so a row without one keeps the name as it is, and the plan reports it.
pub(super) fn point_out(rows: &mut [Row], upstream: &Upstream, read: &StageRead, faults: &mut Vec<Diagnostic>) {
    if check_pins(upstream, read, faults).is_none() {
        return;
    }
    let pinned = |axis: &str| read.pinned.pins.iter().any(|(other, _)| other == axis);
    let fits = |points: &[Point]| read.pinned.pins.iter().all(|(axis, pin)| label(points, axis) == Some(pin));
    // By the axes of a cell, since nearly always all have the same, and then by its labels.
    let mut by_axes: Vec<(Labels<'_>, HashMap<Labels<'_>, &StageName>)> = Vec::new();
    for (points, name) in upstream.cells.iter().filter(|(points, _)| !points.is_empty() && fits(points)) {
        let free = || points.iter().map(|point| &point.coordinate).filter(|at| !pinned(&at.axis));
        let axes: Vec<&str> = free().map(|at| at.axis.as_str()).collect();
        let labels: Vec<&str> = free().map(|at| at.label.as_str()).collect();
        match by_axes.iter_mut().find(|(others, _)| *others == axes) {
            Some((_, cells)) => drop(cells.insert(labels, name)),
            None => by_axes.push((axes, HashMap::from([(labels, name)]))),
        }
    }
    for Row { points, reads } in rows {
        let found = by_axes.iter().find_map(|(axes, cells)| {
            let labels: Option<Vec<&str>> = axes.iter().map(|axis| label(points, axis)).collect();
            cells.get(&labels?).copied()
        });
        if let Some(name) = found {
            reads.insert(read.pinned.clone(), name.clone());
        }
    }
}

/// The stage's own points, put behind those of what it reads; on an axis that both have, the own point stays.
pub(super) fn with_own(rows: Vec<Row>, own: &[Point]) -> Vec<Row> {
    let agrees = |row: &Row| {
        own.iter().all(|point| {
            let there = row.points.iter().find(|other| other.coordinate.axis == point.coordinate.axis);
            there.is_none_or(|other| other.coordinate.label == point.coordinate.label)
        })
    };
    let mut rows: Vec<Row> = rows.into_iter().filter(agrees).collect();
    for row in &mut rows {
        for point in own {
            match row.points.iter_mut().find(|other| other.coordinate.axis == point.coordinate.axis) {
                Some(there) => *there = point.clone(),
                None => row.points.push(point.clone()),
            }
        }
    }
    rows
}

/// Takes up an axis; one that is there already must have the same values, or it is given back.
pub(super) fn take_up(axis: &Axis, axes: &mut Vec<Axis>) -> Result<(), Axis> {
    let Some(there) = axes.iter().find(|other| other.name == axis.name) else {
        axes.push(axis.clone());
        return Ok(());
    };
    let is_same = axis.points.len() == there.points.len() && axis.labels().all(|label| there.has(label));
    if is_same { Ok(()) } else { Err(there.clone()) }
}

/// A cell of what is read, without the points it is pinned at.
struct Side<'u> {
    points: Vec<&'u Point>,
    name: &'u StageName,
}

impl<'u> Side<'u> {
    fn axes(&self) -> Vec<&'u str> {
        self.points.iter().map(|point| point.coordinate.axis.as_str()).collect()
    }
}

/// Every row with every cell that has the same value on each axis both have, rows first.
fn matched(rows: Vec<Row>, cells: &[Side<'_>], pinned: &Pinned) -> Vec<Row> {
    // Cells of one stage nearly always have the same axes, and so do rows; then there is one group and one index.
    let mut groups: Vec<(Vec<&str>, Vec<&Side<'_>>)> = Vec::new();
    for cell in cells {
        let axes = cell.axes();
        match groups.iter_mut().find(|(others, _)| *others == axes) {
            Some((_, group)) => group.push(cell),
            None => groups.push((axes, vec![cell])),
        }
    }
    let mut indices: HashMap<(usize, Labels<'_>), Index<'_, '_>> = HashMap::new();
    let mut joined = Vec::new();
    for row in &rows {
        for (number, (axes, group)) in groups.iter().enumerate() {
            let shared: Vec<&str> = axes.iter().copied().filter(|axis| label(&row.points, axis).is_some()).collect();
            let of_row: Vec<&str> = shared.iter().filter_map(|axis| label(&row.points, axis)).collect();
            let index = indices.entry((number, shared)).or_insert_with_key(|(_, shared)| indexed(group, shared));
            joined.extend(index.get(&of_row).into_iter().flatten().map(|cell| extended(row, cell, pinned)));
        }
    }
    joined
}

/// The cells by their labels on some axes.
fn indexed<'c, 'u>(cells: &[&'c Side<'u>], axes: &[&str]) -> Index<'c, 'u> {
    let mut index = Index::new();
    for cell in cells {
        let on = |axis: &&str| cell.points.iter().find(|point| point.coordinate.axis == **axis);
        let labels = axes.iter().filter_map(on).map(|point| point.coordinate.label.as_str());
        index.entry(labels.collect()).or_default().push(cell);
    }
    index
}

fn extended(row: &Row, cell: &Side<'_>, pinned: &Pinned) -> Row {
    let mut row = row.clone();
    for point in &cell.points {
        if label(&row.points, &point.coordinate.axis).is_none() {
            row.points.push((*point).clone());
        }
    }
    row.reads.insert(pinned.clone(), cell.name.clone());
    row
}

fn label<'p>(points: &'p [Point], axis: &str) -> Option<&'p str> {
    points.iter().find(|point| point.coordinate.axis == axis).map(|point| point.coordinate.label.as_str())
}

fn clash(axis: &Axis, there: &Axis, read: &StageRead) -> Diagnostic {
    let StageRead { pinned, place, whereabouts, only_in_tests: _ } = read;
    let name = &axis.name;
    let message =
        format!("{whereabouts} reads `{pinned}`, whose axis `{name}` has other values than one it has already");
    Diagnostic::new(Code::Contradiction, *place, message)
        .related(there.place, "one")
        .related(axis.place, "the other")
        .help("an axis of one name is one axis: give both the same values, or rename one of them")
}

fn check_pins(upstream: &Upstream, read: &StageRead, faults: &mut Vec<Diagnostic>) -> Option<()> {
    let StageRead { pinned, place, whereabouts, only_in_tests: _ } = read;
    for (name, label) in &pinned.pins {
        let Some(axis) = upstream.axes.iter().find(|axis| axis.name == *name) else {
            let known: Vec<&str> = upstream.axes.iter().map(|axis| axis.name.as_str()).collect();
            let message = match known.as_slice() {
                [] => format!("{whereabouts} reads `{pinned}`, but `{}` has no matrix", pinned.base),
                _ => format!("{whereabouts} reads `{pinned}`, but `{}` has no axis `{name}`", pinned.base),
            };
            let mut fault = Diagnostic::new(Code::UnknownName, *place, message);
            fault.help = did_you_mean(name, known.iter().copied())
                .or_else(|| (!known.is_empty()).then(|| format!("it has {}", known.join(", "))));
            faults.push(fault);
            return None;
        };
        if !axis.has(label) {
            let message = format!("{whereabouts} reads `{pinned}`, but `{name}` of `{}` is never {label}", pinned.base);
            let fault = Diagnostic::new(Code::UnknownName, *place, message).related(axis.place, "its values");
            let known: Vec<&str> = axis.labels().collect();
            faults.push(fault.help(format!("it is {}", known.join(", "))));
            return None;
        }
    }
    Some(())
}

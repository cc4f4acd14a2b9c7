//! Faults of many cells told once.
//!
//! Owns the rule: a fault that all cells have is told as if there were one; one that only some have is told with the
//! matrix values that these, and not all, have in common.

use crate::diagnostic::Diagnostic;
use crate::matrix::axes::Point;

/// The faults of a stage's cells: for each, the number of the cell that has it.
#[derive(Default)]
pub(super) struct Once {
    faults: Vec<(Diagnostic, Vec<usize>)>,
}

impl Once {
    pub(super) fn add(&mut self, cell: usize, faults: Vec<Diagnostic>) {
        for fault in faults {
            match self.faults.iter_mut().find(|(known, _)| *known == fault) {
                Some((_, cells)) if cells.last() == Some(&cell) => {}
                Some((_, cells)) => cells.push(cell),
                None => self.faults.push((fault, vec![cell])),
            }
        }
    }

    /// The faults, where `points` has those of each cell.
    pub(super) fn into_faults(self, points: &[&[Point]]) -> impl Iterator<Item = Diagnostic> {
        self.faults.into_iter().map(|(mut fault, cells)| {
            if cells.len() < points.len() {
                for point in common(&cells, points) {
                    let place = point.coordinate.place;
                    if fault.place == place || fault.related.iter().any(|related| related.place == place) {
                        continue;
                    }
                    let label = format!("where `{}` is {}", point.coordinate.axis, point.coordinate.label);
                    fault = fault.related(point.coordinate.place, label);
                }
            }
            fault
        })
    }
}

/// The points that all of these cells have and some other cell does not.
fn common<'p>(cells: &[usize], points: &[&'p [Point]]) -> Vec<&'p Point> {
    let has = |cell: usize, wanted: &Point| points[cell].iter().any(|point| point.coordinate == wanted.coordinate);
    let of_some = |point: &&Point| !(0..points.len()).all(|cell| has(cell, point));
    let of_these = |point: &&Point| cells.iter().all(|cell| has(*cell, point));
    let first = cells.first().map_or(&[][..], |cell| points[*cell]);
    first.iter().filter(of_these).filter(of_some).collect()
}

//! Stages with a matrix, and those that read them: each is read once for each of its cells.
//!
//! Owns the way from entries to cells. It goes twice over the stages: first to learn which stages each one reads, then,
//! once the cells of all are known, to read it in each of its cells. Refuses to know the parameters of a kind.

mod axes;
mod fill;
mod join;
mod once;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use crate::cell::{Cell, Pinned};
use crate::diagnostic::{Code, Diagnostic};
use crate::entry::ReadStage;
use crate::index::Index;
use crate::matrix::axes::{Axis, Matrix, Point};
use crate::matrix::fill::{Unknown, axes_of, fill, is_open};
use crate::matrix::join::{Row, Upstream, join, point_out, take_up, with_own};
use crate::matrix::once::Once;
use crate::names::StageName;
use crate::reader::StageRead;
use crate::stage::Stage;
use crate::tree::{Entry, Node, Value};

/// Cells of one stage. A sweep of more is a slip.
const MAX_CELLS: usize = 10_000;

/// The key of a matrix beside a stage's kind.
pub(crate) const MATRIX: &str = "matrix";

/// The stage that a name stands for, in one cell.
pub(crate) type CellReads = HashMap<Pinned, StageName>;

/// Reads every stage, in the order of the file; the cells of a stage stand in its place.
pub(crate) fn read_stages(entries: &[Entry], index: &Index, faults: &mut Vec<Diagnostic>) -> Vec<Stage> {
    let mut drafts: Vec<Draft<'_>> = entries.iter().map(|entry| Draft::of(entry, index, faults)).collect();
    check_use(&drafts, faults);
    let by_name: HashMap<&str, usize> =
        entries.iter().enumerate().map(|(at, entry)| (entry.key.text.as_str(), at)).collect();
    for at in order(&drafts, &by_name) {
        let settled = drafts[at].settle(&drafts, &by_name, faults);
        drafts[at].settled = settled;
    }
    let unsettled: HashSet<String> = drafts
        .iter()
        .filter(|draft| matches!(draft.settled, Settled::No))
        .map(|draft| draft.entry.key.text.clone())
        .collect();
    drafts.into_iter().flat_map(|draft| draft.finish(index, &unsettled, faults)).collect()
}

/// A stage on its way.
struct Draft<'e> {
    /// Without the matrix.
    entry: Cow<'e, Entry>,
    matrix: Matrix,
    /// Whether values of it wait for a matrix.
    is_open: bool,
    /// The stage as each of its own cells has it while nothing is known of what it reads; of the first cell alone where
    /// all of them read the same.
    first: Vec<ReadStage>,
    first_faults: Vec<Diagnostic>,
    settled: Settled,
}

/// What is known of a stage's cells.
enum Settled {
    /// Nothing, as yet or because it reads itself in a circle.
    No,
    /// Its cells cannot be told, nor those of what reads it; the reason is reported.
    Broken,
    Cells {
        rows: Vec<Row>,
        upstream: Upstream,
    },
}

impl<'e> Draft<'e> {
    fn of(entry: &'e Entry, index: &Index, faults: &mut Vec<Diagnostic>) -> Draft<'e> {
        let (entry, matrix) = without_matrix(entry);
        let matrix = matrix.map_or_else(Matrix::none, |matrix| Matrix::read(&entry.key, matrix, faults));
        let is_open = is_open(&entry.value);
        // Only texts name stages; where the axes have none, every cell reads what the first one reads.
        let may_differ = is_open && matrix.axes.iter().flat_map(|axis| &axis.points).any(|point| has_text(&point.node));
        let n_read = if may_differ { matrix.cells.len() } else { 1 };
        let mut first = Vec::new();
        let mut once = Once::default();
        for (number, cell) in matrix.cells.iter().take(n_read).enumerate() {
            let mut of_cell = Vec::new();
            let filled = filled(&entry, is_open, cell, Unknown::Unsettled, &mut of_cell);
            first.push(Stage::read(&filled, index, None, &mut of_cell));
            once.add(number, of_cell);
        }
        let points: Vec<&[Point]> = matrix.cells.iter().take(n_read).map(Vec::as_slice).collect();
        let first_faults = once.into_faults(&points).collect();
        Draft { entry, matrix, is_open, first, first_faults, settled: Settled::No }
    }

    /// The cells, given those of all stages that are read.
    fn settle(&self, drafts: &[Draft<'_>], by_name: &HashMap<&str, usize>, faults: &mut Vec<Diagnostic>) -> Settled {
        if self.matrix.is_broken {
            return Settled::Broken;
        }
        let mut axes: Vec<Axis> = Vec::new();
        let mut all: Vec<Row> = Vec::new();
        for (number, own) in self.matrix.cells.iter().enumerate() {
            let Some(ReadStage { reads, .. }) = self.first.get(number).or(self.first.first()) else { continue };
            let mut rows = vec![Row::default()];
            for read in reads.iter().filter(|read| !read.only_in_tests) {
                let upstream = match by_name.get(read.pinned.base.as_str()).map(|at| &drafts[*at].settled) {
                    Some(Settled::Cells { upstream, .. }) => upstream,
                    Some(Settled::Broken) => return Settled::Broken,
                    Some(Settled::No) | None => continue,
                };
                if upstream.axes.is_empty() && read.pinned.pins.is_empty() {
                    continue;
                }
                match join(rows, &mut axes, upstream, read, faults) {
                    Some(joined) => rows = joined,
                    None => return Settled::Broken,
                }
            }
            all.extend(with_own(rows, own));
        }
        for axis in &self.matrix.axes {
            if let Err(there) = take_up(axis, &mut axes) {
                faults.push(self.clash(axis, &there));
                return Settled::Broken;
            }
        }
        sort(&mut all, &axes);
        let named = |row: &Row| (row.points.clone(), self.name(row));
        let upstream = Upstream { cells: all.iter().map(named).collect(), axes };
        for read in self.read_by_tests() {
            let of_read = match by_name.get(read.pinned.base.as_str()).map(|at| &drafts[*at]) {
                Some(draft) if std::ptr::eq(draft, self) => &upstream,
                Some(Draft { settled: Settled::Cells { upstream, .. }, .. }) => upstream,
                // Whatever is not settled by now is not made before this stage, which the plan reports.
                Some(_) | None => continue,
            };
            point_out(&mut all, of_read, read, faults);
        }
        Settled::Cells { rows: all, upstream }
    }

    /// The stages that only data tests name, each way of naming one once.
    fn read_by_tests(&self) -> Vec<&StageRead> {
        let mut found: Vec<&StageRead> = Vec::new();
        for read in self.first.iter().flat_map(|first| &first.reads).filter(|read| read.only_in_tests) {
            if found.iter().all(|other| other.pinned != read.pinned) {
                found.push(read);
            }
        }
        found
    }

    /// The stages that this one is in the end, and its faults. `unsettled` are the stages of circles, and what is behind
    /// them.
    fn finish(self, index: &Index, unsettled: &HashSet<String>, faults: &mut Vec<Diagnostic>) -> Vec<Stage> {
        let rows = match &self.settled {
            Settled::Broken => {
                faults.extend(self.first_faults);
                return Vec::new();
            }
            Settled::No => {
                faults.extend(self.first_faults);
                // One cell stands for all: one that leads back into the circle, so that it is found.
                let leads_back = |read: &ReadStage| {
                    let mut own = read.reads.iter().filter(|read| !read.only_in_tests);
                    own.any(|read| unsettled.contains(&read.pinned.base))
                };
                return self.first.into_iter().find(leads_back).and_then(|read| read.stage).into_iter().collect();
            }
            Settled::Cells { rows, .. } => rows,
        };
        if let [Row { points, reads }] = rows.as_slice()
            && points.is_empty()
            && reads.is_empty()
            && !self.is_open
        {
            faults.extend(self.first_faults);
            return self.first.into_iter().filter_map(|read| read.stage).collect();
        }
        let mut stages = Vec::with_capacity(rows.len());
        let mut once = Once::default();
        for (number, row) in rows.iter().enumerate() {
            let mut of_cell = Vec::new();
            let filled = filled(&self.entry, self.is_open, &row.points, Unknown::Fault, &mut of_cell);
            let read = Stage::read(&filled, index, Some(&row.reads), &mut of_cell);
            once.add(number, of_cell);
            if let Some(mut stage) = read.stage {
                stage.cell = self.cell(row);
                stage.name = self.name(row);
                stages.push(stage);
            }
        }
        let points: Vec<&[Point]> = rows.iter().map(|row| row.points.as_slice()).collect();
        faults.extend(once.into_faults(&points));
        stages
    }

    fn cell(&self, row: &Row) -> Option<Cell> {
        let coordinates = row.points.iter().map(|point| point.coordinate.clone());
        (!row.points.is_empty())
            .then(|| Cell { base: StageName::new(&self.entry.key.text), coordinates: coordinates.collect() })
    }

    fn name(&self, row: &Row) -> StageName {
        self.cell(row).map_or_else(|| StageName::new(&self.entry.key.text), |cell| cell.name())
    }

    fn clash(&self, axis: &Axis, there: &Axis) -> Diagnostic {
        let name = &axis.name;
        let message = format!(
            "stage `{}`: the axis `{name}` of its matrix has other values than that of a stage it reads",
            self.entry.key.text
        );
        Diagnostic::new(Code::Contradiction, axis.place, message)
            .related(there.place, "the other")
            .help("an axis of one name is one axis: give both the same values, or rename one of them")
    }
}

/// An entry without its matrix, and the matrix.
fn without_matrix(entry: &Entry) -> (Cow<'_, Entry>, Option<&Entry>) {
    let entries = entry.value.entries().unwrap_or(&[]);
    let Some(matrix) = entries.iter().find(|entry| entry.key.text == MATRIX) else {
        return (Cow::Borrowed(entry), None);
    };
    let others = entries.iter().filter(|entry| entry.key.text != MATRIX).cloned().collect();
    let value = Node { value: Value::Map(others), span: entry.value.span };
    (Cow::Owned(Entry { key: entry.key.clone(), value }), Some(matrix))
}

fn filled<'e>(
    entry: &'e Entry,
    is_open: bool,
    cell: &[Point],
    unknown: Unknown,
    faults: &mut Vec<Diagnostic>,
) -> Cow<'e, Entry> {
    if !is_open {
        return Cow::Borrowed(entry);
    }
    let Entry { key, value } = entry;
    Cow::Owned(Entry { key: key.clone(), value: fill(value, &key.text, cell, unknown, faults) })
}

fn has_text(node: &Node) -> bool {
    match &node.value {
        Value::Str(_) => true,
        Value::List(items) => items.iter().any(has_text),
        Value::Map(entries) => entries.iter().any(|entry| has_text(&entry.value)),
        _ => false,
    }
}

/// Reports axes whose values are put nowhere: their cells would all be the same.
fn check_use(drafts: &[Draft<'_>], faults: &mut Vec<Diagnostic>) {
    if drafts.iter().all(|draft| draft.matrix.axes.is_empty()) {
        return;
    }
    let mut used = Vec::new();
    drafts.iter().for_each(|draft| axes_of(&draft.entry.value, &mut used));
    let used: HashSet<String> = used.into_iter().collect();
    for draft in drafts {
        for axis in draft.matrix.axes.iter().filter(|axis| !used.contains(&axis.name)) {
            let (stage, name) = (&draft.entry.key.text, &axis.name);
            let message = format!("stage `{stage}`: nothing takes the values of `matrix.{name}`");
            let fault = Diagnostic::new(Code::UnknownKey, axis.place, message);
            faults.push(fault.help(format!("write `${{matrix.{name}}}` where they belong")));
        }
    }
}

/// The stages after all they read. Those in a circle, and those behind one, are left out.
fn order(drafts: &[Draft<'_>], by_name: &HashMap<&str, usize>) -> Vec<usize> {
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); drafts.len()];
    let mut n_missing = vec![0_usize; drafts.len()];
    for (at, draft) in drafts.iter().enumerate() {
        for read in draft.first.iter().flat_map(|first| &first.reads).filter(|read| !read.only_in_tests) {
            if let Some(&from) = by_name.get(read.pinned.base.as_str()) {
                readers[from].push(at);
                n_missing[at] += 1;
            }
        }
    }
    let mut order: Vec<usize> = (0..drafts.len()).filter(|at| n_missing[*at] == 0).collect();
    let mut n_done = 0;
    while let Some(&at) = order.get(n_done) {
        n_done += 1;
        for &reader in &readers[at] {
            n_missing[reader] -= 1;
            if n_missing[reader] == 0 {
                order.push(reader);
            }
        }
    }
    order
}

/// Rows in the order of their values, the last axis running fastest.
fn sort(rows: &mut [Row], axes: &[Axis]) {
    let places: HashMap<(&str, &str), usize> = axes
        .iter()
        .flat_map(|axis| axis.labels().enumerate().map(|(at, label)| ((axis.name.as_str(), label), at)))
        .collect();
    let place = |point: &Point| {
        places.get(&(point.coordinate.axis.as_str(), point.coordinate.label.as_str())).copied().unwrap_or(usize::MAX)
    };
    rows.sort_by_cached_key(|row| row.points.iter().map(place).collect::<Vec<usize>>());
}

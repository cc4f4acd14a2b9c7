//! The cells of a matrix side by side: what each came to, and which is best. It owns the choice of stages and of numbers
//! that are worth comparing, and refuses to know what a number means; which way it is better is the kind's to say.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::{Serialize, Serializer};
use sluice_plan::Plan;
use sluice_spec::{Better, KindName, StageName};

use crate::cell::{CellInfo, CellValues};
use crate::event::as_text;
use crate::report::StageReport;

/// A stage with a matrix, cell by cell.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// The stage as the file names it.
    #[serde(serialize_with = "as_text")]
    pub stage: StageName,
    /// Its kind.
    pub kind: &'static str,
    /// The axes, in the order of the cells' names.
    pub axes: Vec<String>,
    /// The numbers that are not the same in all cells, by name.
    pub metrics: Vec<ComparedMetric>,
    /// The cells that have a result, in plan order.
    pub cells: Vec<ComparedCell>,
}

/// A number that cells differ in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ComparedMetric {
    /// Its name.
    pub name: String,
    /// Which way it is better, `higher` or `lower`, if it is known.
    #[serde(serialize_with = "as_word")]
    pub better: Option<Better>,
}

fn as_word<S: Serializer>(better: &Option<Better>, serializer: S) -> Result<S::Ok, S::Error> {
    better.map(Better::name).serialize(serializer)
}

/// A cell and its numbers.
#[derive(Debug, Clone, Serialize)]
pub struct ComparedCell {
    /// Its name.
    #[serde(serialize_with = "as_text")]
    pub name: StageName,
    /// Its value on each axis.
    pub values: CellValues,
    /// Those of its numbers that differ.
    pub metrics: BTreeMap<String, f64>,
    /// The numbers in which no cell is better.
    pub best: BTreeSet<String>,
}

/// The stages with a matrix that end in numbers: those of `train` and `evaluate` that no other of them reads.
pub(crate) fn comparisons(plan: &Plan, reports: &[StageReport]) -> Vec<Comparison> {
    let mut groups: Vec<(&StageName, Vec<&StageReport>)> = Vec::new();
    let mut places: HashMap<&StageName, usize> = HashMap::new();
    let has_numbers =
        |report: &&StageReport| [KindName::Train.name(), KindName::Evaluate.name()].contains(&report.kind);
    for report in reports.iter().filter(has_numbers) {
        let Some(CellInfo { stage, .. }) = &report.cell else { continue };
        let at = *places.entry(stage).or_insert_with(|| {
            groups.push((stage, Vec::new()));
            groups.len() - 1
        });
        groups[at].1.push(report);
    }
    let read = read_further(plan, &groups);
    groups.retain(|(stage, _)| !read.contains(*stage));
    groups.into_iter().filter_map(|(stage, cells)| compare(stage, &cells)).collect()
}

/// Those of the groups that another of them reads, itself or through others.
fn read_further(plan: &Plan, groups: &[(&StageName, Vec<&StageReport>)]) -> HashSet<StageName> {
    let bases: HashSet<&StageName> = groups.iter().map(|(stage, _)| *stage).collect();
    let mut waiting: Vec<&StageName> = groups.iter().flat_map(|(_, cells)| cells).map(|cell| &cell.name).collect();
    let (mut seen, mut read) = (HashSet::new(), HashSet::new());
    while let Some(name) = waiting.pop() {
        for upstream in plan.reads(name) {
            if bases.contains(upstream.base()) {
                read.insert(upstream.base().clone());
            }
            if seen.insert(&upstream.name) {
                waiting.push(&upstream.name);
            }
        }
    }
    read
}

/// None where fewer than two cells have a result, or their numbers are all the same.
fn compare(stage: &StageName, reports: &[&StageReport]) -> Option<Comparison> {
    let done: Vec<_> = reports.iter().filter_map(|report| Some((report, report.record.as_ref()?))).collect();
    let ((first, _), [_, ..]) = (done.first()?, done.get(1..)?) else { return None };
    let kind = KindName::ALL.into_iter().find(|kind| kind.name() == first.kind)?;
    let names: BTreeSet<&String> = done.iter().flat_map(|(_, record)| record.metrics.keys()).collect();
    let values =
        |name: &str| -> Vec<Option<f64>> { done.iter().map(|(_, record)| record.metrics.get(name).copied()).collect() };
    let differs = |name: &&String| values(name).windows(2).any(|two| two[0] != two[1]);
    let metrics: Vec<ComparedMetric> = names
        .into_iter()
        .filter(differs)
        .map(|name| ComparedMetric { name: name.clone(), better: kind.better(name) })
        .collect();
    if metrics.is_empty() {
        return None;
    }
    let best: HashMap<&str, f64> = metrics
        .iter()
        .filter_map(|ComparedMetric { name, better }| {
            let known = values(name).into_iter().flatten();
            let best = match better.as_ref()? {
                Better::Higher => known.fold(f64::NEG_INFINITY, f64::max),
                Better::Lower => known.fold(f64::INFINITY, f64::min),
            };
            Some((name.as_str(), best))
        })
        .collect();
    let cells = done.iter().map(|(report, record)| {
        let own: BTreeMap<String, f64> = metrics
            .iter()
            .filter_map(|metric| Some((metric.name.clone(), *record.metrics.get(&metric.name)?)))
            .collect();
        let is_best = |(name, value): &(&String, &f64)| best.get(name.as_str()) == Some(*value);
        ComparedCell {
            name: report.name.clone(),
            values: report.cell.as_ref().map_or(CellValues(Vec::new()), |cell| cell.values.clone()),
            best: own.iter().filter(is_best).map(|(name, _)| name.clone()).collect(),
            metrics: own,
        }
    });
    let cells: Vec<ComparedCell> = cells.collect();
    let mut axes: Vec<String> = Vec::new();
    for (axis, _) in cells.iter().flat_map(|cell| &cell.values.0) {
        if !axes.contains(axis) {
            axes.push(axis.clone());
        }
    }
    Some(Comparison { stage: stage.clone(), kind: kind.name(), axes, metrics, cells })
}

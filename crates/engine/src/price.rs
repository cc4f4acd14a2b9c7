//! What a plan would cost: rows, tokens, seconds and bytes of each stage that would run, from what earlier runs spent on a
//! row, and how old that evidence is. It owns the prediction; where nothing like a stage has run, it predicts nothing.

mod evidence;
mod flow;

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;
use sluice_spec::{Product, Source, Stage, StageName};
use sluice_store::{Leaf, Record};

use crate::explain::{Counts, PlanState, PlannedStage};
use crate::history::History;
use crate::run::{Engine, EngineError};
use crate::runner::{Given, JobInput, RowCount};
use evidence::{Archive, Found, Rate};
use flow::{Flow, Known, Prospect};

pub use evidence::{Basis, Evidence};

/// A plan and what it would cost.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PricedPlan {
    /// The wanted stages, in plan order.
    pub stages: Vec<PricedStage>,
    /// Of all stages that would run.
    pub total: Total,
}

/// A stage of a plan and what it would cost.
#[derive(Debug, Clone, Serialize)]
pub struct PricedStage {
    /// The stage.
    #[serde(flatten)]
    pub planned: PlannedStage,
    /// None for a stage that has its result, and for one that would fail.
    pub price: Option<Price>,
}

/// What a stage is expected to cost. What nothing tells of is none.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Price {
    /// Rows of its first table, known ones included.
    pub rows: Option<u64>,
    /// Whether `rows` was counted and not estimated.
    pub rows_exact: bool,
    /// What is worked through one by one: `rows`, `answers`, `examples`, `bytes`.
    pub unit: &'static str,
    /// How many of them, known ones included.
    pub units: Option<u64>,
    /// How many of them are known from earlier runs.
    pub units_known: u64,
    /// Tokens made or read.
    pub tokens: Option<u64>,
    /// Wall-clock seconds, with the loading of models.
    pub seconds: Option<f64>,
    /// Size of its outputs.
    pub bytes: Option<u64>,
    /// Where seconds, tokens and bytes come from.
    pub evidence: Option<Evidence>,
}

/// What the stages that would run are expected to cost together.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Total {
    /// Stages that have a result.
    pub hit: usize,
    /// Stages of which some rows are known.
    pub partial: usize,
    /// Other stages that would run, or are decided when what they read is there.
    pub run: usize,
    /// Stages that would fail.
    pub fail: usize,
    /// Rows of the stages of which some are known.
    pub partial_units: u64,
    /// Those of them that are known.
    pub partial_units_known: u64,
    /// Of the stages whose price is known; none if there is none.
    pub seconds: Option<f64>,
    /// See `seconds`.
    pub tokens: Option<u64>,
    /// See `seconds`.
    pub bytes: Option<u64>,
    /// Stages that would run and of whose cost nothing is known.
    pub unknown: usize,
}

impl Engine<'_> {
    /// Like [`Engine::plan_rows`], with what each stage would cost.
    ///
    /// # Errors
    /// `UnknownStage`; `Store` when the store does not read.
    pub fn plan_priced(&self, targets: &[String]) -> Result<PricedPlan, EngineError> {
        let (planned, counts) = self.plan_counted(targets)?;
        let history = History::new(self.store, self.pipeline);
        let profile = self.plan.pipeline().profile.as_ref().map(|profile| profile.as_str());
        let archive = Archive::new(self.store, &history, profile);
        let pricer = Pricer { engine: self, archive, counts, flows: RefCell::default(), now_unix_ms: (self.clock)() };
        let stages = pricer.stages(planned)?;
        let total = total(&stages);
        Ok(PricedPlan { stages, total })
    }
}

/// Prices the stages of a plan in its order, so that what a stage makes is there when another reads it.
struct Pricer<'a> {
    engine: &'a Engine<'a>,
    archive: Archive<'a>,
    counts: Counts,
    flows: RefCell<HashMap<(StageName, Product), Flow>>,
    now_unix_ms: u64,
}

impl Pricer<'_> {
    fn stages(&self, planned: Vec<PlannedStage>) -> Result<Vec<PricedStage>, EngineError> {
        let by_name: HashMap<&StageName, &Stage> =
            self.engine.plan.stages().map(|stage| (&stage.name, stage)).collect();
        let mut resolver = self.engine.resolver();
        let mut records: HashMap<StageName, Arc<Record>> = HashMap::new();
        let mut priced = Vec::with_capacity(planned.len());
        for planned in planned {
            let Some(stage) = by_name.get(&planned.name) else { continue };
            let (flows, price) = match &planned.state {
                PlanState::Hit { record, .. } => {
                    records.insert(planned.name.clone(), record.clone());
                    (flow::of_record(&stage.kind, record), None)
                }
                PlanState::Fail { .. } => (Vec::new(), None),
                PlanState::Run { .. }
                | PlanState::Partial { .. }
                | PlanState::Pending { .. }
                | PlanState::Fetch { .. } => {
                    let known = resolver.known(stage, |name| records.get(name).cloned());
                    let (prospect, price) = self.price(stage, &planned.state, &known.leaves, &known.inputs)?;
                    (prospect.flows, Some(price))
                }
            };
            let flows = flows.into_iter().map(|(product, flow)| ((planned.name.clone(), product), flow));
            self.flows.borrow_mut().extend(flows);
            priced.push(PricedStage { planned, price });
        }
        Ok(priced)
    }

    fn price(
        &self,
        stage: &Stage,
        state: &PlanState,
        leaves: &[Leaf],
        inputs: &[JobInput],
    ) -> Result<(Prospect, Price), EngineError> {
        let found = self.archive.like(stage, leaves)?;
        let count = self.counts.get(&stage.name).copied().or_else(|| self.count(stage, state, inputs));
        let flow = |role: &str| self.flow(stage, role);
        let prospect = flow::prospect(
            &stage.kind,
            &Known {
                flow: &flow,
                count,
                last: found.as_ref().filter(|found| found.basis == Basis::Stage).map(Found::newest),
                n_bytes: self.n_bytes(inputs),
                is_unchanged: matches!(state, PlanState::Pending { changes, .. } if changes.is_empty()),
            },
        );
        let price = price(&stage.kind.products()[0], &prospect, found.as_ref(), self.now_unix_ms);
        Ok((prospect, Price { unit: unit(stage), ..price }))
    }

    /// What of a waiting stage can be counted: what the inputs that are there tell.
    fn count(&self, stage: &Stage, state: &PlanState, inputs: &[JobInput]) -> Option<RowCount> {
        // A failure to count is told by the run; a prediction does without.
        let waits = matches!(state, PlanState::Pending { .. });
        if waits { self.engine.runner.count_rows(stage, inputs).ok().flatten() } else { None }
    }

    /// The table that a stage reads under a role.
    fn flow(&self, stage: &Stage, role: &str) -> Flow {
        let input = stage.kind.inputs().into_iter().find(|input| input.role == role);
        let Some(Source::Stage(read)) = input.map(|input| input.source) else { return Flow::default() };
        self.flows.borrow().get(&(read.stage, read.product)).copied().unwrap_or_default()
    }

    /// Size of the files a stage reads; none if it reads none, or they are not there.
    fn n_bytes(&self, inputs: &[JobInput]) -> Option<u64> {
        let files = inputs.iter().filter_map(|input| match &input.given {
            Given::Files { patterns, .. } => Some(patterns),
            Given::Output { .. } | Given::Model { .. } | Given::Config { .. } => None,
        });
        let sizes: Option<Vec<u64>> = files.map(|patterns| self.engine.runner.files_bytes(patterns).ok()).collect();
        sizes.filter(|sizes| !sizes.is_empty()).map(|sizes| sizes.iter().sum())
    }
}

/// What the units of a stage's records are.
pub(crate) fn unit(stage: &Stage) -> &'static str {
    use sluice_spec::KindName::{Evaluate, Ingest, Pair, Sample, Score, Sql, Train};
    match stage.kind.name() {
        Ingest => "bytes",
        Sample | Score | Pair | Sql => "rows",
        Train => "examples",
        Evaluate => "answers",
    }
}

fn price(first: &Product, prospect: &Prospect, found: Option<&Found>, now_unix_ms: u64) -> Price {
    let Prospect { flows, units, units_known, units_in_all } = prospect;
    let own = flows.iter().find(|(product, _)| product == first).map_or(Flow::default(), |(_, flow)| *flow);
    let mut price = Price {
        rows: own.rows,
        rows_exact: own.is_exact,
        units: *units_in_all,
        units_known: *units_known,
        ..Price::default()
    };
    let Some((found, n_units)) = found.zip(*units) else { return price };
    let Some(Rate { seconds, tokens, overhead_s, evidence }) = found.rate(n_units, now_unix_ms) else { return price };
    price.seconds = Some(overhead_s + seconds * n_units as f64);
    price.tokens = Some((tokens * n_units as f64).round() as u64);
    price.bytes = bytes(flows, found.newest());
    price.evidence = Some(evidence);
    price
}

/// Each table is as large for a row as it was; a checkpoint is as large as it was.
fn bytes(flows: &[(Product, Flow)], last: &Record) -> Option<u64> {
    let sizes = last.outputs.iter().map(|output| {
        let rows = flows.iter().find(|(product, _)| product.name() == output.name).and_then(|(_, flow)| flow.rows);
        match (output.n_rows(), rows) {
            (Some(then @ 1..), Some(now)) => output.artifact.bytes() as f64 * now as f64 / then as f64,
            _ => output.artifact.bytes() as f64,
        }
    });
    Some(sizes.sum::<f64>().round() as u64)
}

fn total(stages: &[PricedStage]) -> Total {
    let mut total = Total::default();
    for PricedStage { planned, price } in stages {
        let Some(price) = price else {
            match planned.state {
                PlanState::Hit { .. } => total.hit += 1,
                _ => total.fail += 1,
            }
            continue;
        };
        if price.units_known > 0 {
            total.partial += 1;
            total.partial_units += price.units.unwrap_or(price.units_known);
            total.partial_units_known += price.units_known;
        } else {
            total.run += 1;
        }
        match price.seconds {
            Some(seconds) => {
                *total.seconds.get_or_insert(0.0) += seconds;
                *total.tokens.get_or_insert(0) += price.tokens.unwrap_or(0);
                *total.bytes.get_or_insert(0) += price.bytes.unwrap_or(0);
            }
            None => total.unknown += 1,
        }
    }
    total
}

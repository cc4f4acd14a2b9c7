//! The plan of a pipeline: its stages in an order that can run, with what flows between them checked.
//!
//! Owns order, selection, the columns a stage needs to find filled, the split it reads, and the pictures of the graph.
//! Knows nothing of disk, keys, time or how a stage runs.

mod checks;
mod columns;
mod fold;
mod graph;
mod order;
mod select;
mod splits;
mod tree;

use std::collections::HashSet;
use std::fmt;

use sluice_spec::{Diagnostics, Pipeline, Stage, StageName};

use crate::order::Edges;

pub use fold::Cells;
pub use select::{SelectError, Selector};

/// A pipeline whose stages can run one after the other.
#[derive(Debug, Clone)]
pub struct Plan {
    pipeline: Pipeline,
    /// Places in the pipeline's stages; each stands after all it reads.
    order: Vec<usize>,
    edges: Edges,
}

/// Orders the stages and checks what they read of each other.
///
/// # Errors
///
/// Every input that lacks columns or prompts its reader needs, with its place in the file.
pub fn plan(pipeline: Pipeline) -> Result<Plan, Diagnostics> {
    let mut faults = columns::faults(&pipeline);
    faults.extend(splits::faults(&pipeline));
    faults.extend(checks::faults(&pipeline));
    let edges = Edges::of(&pipeline);
    match order::order(&pipeline, &edges) {
        Ok(order) if faults.is_empty() => Ok(Plan { pipeline, order, edges }),
        Ok(_) => Err(Diagnostics::new(pipeline.sources, faults)),
        Err(circle) => {
            faults.push(circle);
            Err(Diagnostics::new(pipeline.sources, faults))
        }
    }
}

impl Plan {
    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// Every stage after all it reads; in the order of the file where that leaves a choice.
    pub fn stages(&self) -> impl ExactSizeIterator<Item = &Stage> {
        self.order.iter().map(|&at| &self.pipeline.stages[at])
    }

    /// The stages that a stage reads, each once.
    pub fn reads(&self, stage: &StageName) -> impl Iterator<Item = &Stage> {
        let reads = self.pipeline.position(stage).map_or(&[][..], |at| &self.edges.reads[at]);
        reads.iter().map(|&at| &self.pipeline.stages[at])
    }

    /// These stages and all they need, each after all it reads.
    pub fn with_needs<'a>(&'a self, stages: impl IntoIterator<Item = &'a StageName>) -> Vec<&'a Stage> {
        let mut waiting: Vec<usize> = stages.into_iter().filter_map(|name| self.pipeline.position(name)).collect();
        let mut wanted: HashSet<usize> = HashSet::new();
        while let Some(at) = waiting.pop() {
            if wanted.insert(at) {
                waiting.extend(&self.edges.reads[at]);
            }
        }
        self.order.iter().filter(|at| wanted.contains(at)).map(|&at| &self.pipeline.stages[at]).collect()
    }

    /// Some stages as a text tree: each once, below the last of the stages it reads.
    pub fn to_tree(&self, stages: &[&Stage], cells: Cells) -> String {
        tree::draw(stages, cells)
    }

    /// Some stages as a Mermaid flowchart.
    pub fn to_mermaid(&self, stages: &[&Stage], cells: Cells) -> String {
        graph::mermaid(self, stages, cells)
    }

    /// Some stages in Graphviz' language.
    pub fn to_dot(&self, stages: &[&Stage], cells: Cells) -> String {
        graph::dot(self, stages, cells)
    }
}

impl fmt::Display for Plan {
    /// The whole graph as a tree.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_tree(&self.stages().collect::<Vec<_>>(), Cells::Folded))
    }
}

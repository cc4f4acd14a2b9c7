//! The plan of a pipeline: its stages in an order that can run, with what flows between them checked.
//!
//! Owns order, the columns a stage needs to find filled, the split it reads, and the pictures of the graph. Knows nothing of disk,
//! keys, time or how a stage runs.

mod columns;
mod graph;
mod order;
mod splits;
mod tree;

use std::fmt;

use sluice_spec::{Diagnostics, Pipeline, Stage};

/// A pipeline whose stages can run one after the other.
#[derive(Debug, Clone)]
pub struct Plan {
    pipeline: Pipeline,
    /// Indices into the pipeline's stages; each stands after all it reads.
    order: Vec<usize>,
}

/// Orders the stages and checks what they read of each other.
///
/// # Errors
///
/// Every input that lacks columns or prompts its reader needs, with its place in the file.
pub fn plan(pipeline: Pipeline) -> Result<Plan, Diagnostics> {
    let mut faults = columns::faults(&pipeline);
    faults.extend(splits::faults(&pipeline));
    match order::order(&pipeline) {
        Ok(order) if faults.is_empty() => Ok(Plan { pipeline, order }),
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

    /// The graph as a Mermaid flowchart.
    pub fn to_mermaid(&self) -> String {
        graph::mermaid(self)
    }

    /// The graph in Graphviz' language.
    pub fn to_dot(&self) -> String {
        graph::dot(self)
    }
}

impl fmt::Display for Plan {
    /// The graph as a tree: each stage once, below the last of the stages it reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&tree::draw(self))
    }
}

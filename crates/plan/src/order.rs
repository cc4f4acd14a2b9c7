//! The order of stages.
//! Owns "each after all it reads, else as in the file"; refuses to know what stages do.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use sluice_spec::{Code, Diagnostic, Pipeline, Source};

/// Who reads whom. Stages are their places in the pipeline's list.
#[derive(Debug, Clone)]
pub(crate) struct Edges {
    /// What each stage reads, each once, in the order of its inputs.
    pub reads: Vec<Vec<usize>>,
    /// What reads each stage, each once, in the order of the file.
    pub readers: Vec<Vec<usize>>,
}

impl Edges {
    pub(crate) fn of(pipeline: &Pipeline) -> Edges {
        let mut edges = Edges {
            reads: Vec::with_capacity(pipeline.stages.len()),
            readers: vec![Vec::new(); pipeline.stages.len()],
        };
        for (at, stage) in pipeline.stages.iter().enumerate() {
            let mut reads: Vec<usize> = Vec::new();
            for input in stage.kind.inputs() {
                let Source::Stage(read) = &input.source else { continue };
                if let Some(from) = pipeline.position(&read.stage).filter(|from| !reads.contains(from)) {
                    reads.push(from);
                    edges.readers[from].push(at);
                }
            }
            edges.reads.push(reads);
        }
        edges
    }
}

/// The stages in an order that can run, or one fault if they read each other in a circle.
pub(crate) fn order(pipeline: &Pipeline, edges: &Edges) -> Result<Vec<usize>, Diagnostic> {
    let mut n_missing: Vec<usize> = edges.reads.iter().map(Vec::len).collect();
    // The heap gives the first ready stage of the file, which makes the order stable.
    let mut ready: BinaryHeap<Reverse<usize>> =
        (0..n_missing.len()).filter(|&at| n_missing[at] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(n_missing.len());
    while let Some(Reverse(at)) = ready.pop() {
        order.push(at);
        for &reader in &edges.readers[at] {
            n_missing[reader] -= 1;
            if n_missing[reader] == 0 {
                ready.push(Reverse(reader));
            }
        }
    }
    match (0..n_missing.len()).find(|&at| n_missing[at] > 0) {
        None => Ok(order),
        Some(at) => {
            let stage = &pipeline.stages[at];
            let message = format!("stage `{}` waits for itself", stage.name);
            Err(Diagnostic::new(Code::Cycle, stage.name_span, message))
        }
    }
}

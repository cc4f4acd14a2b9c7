//! The order of stages.
//! Owns "each after all it reads, else as in the file"; refuses to know what stages do.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use sluice_spec::{Code, Diagnostic, Pipeline, Source, StageName};

/// Indices of the stages in an order that can run, or one fault if they read each other in a circle.
pub(crate) fn order(pipeline: &Pipeline) -> Result<Vec<usize>, Diagnostic> {
    let by_name: HashMap<&StageName, usize> =
        pipeline.stages.iter().enumerate().map(|(at, stage)| (&stage.name, at)).collect();
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); pipeline.stages.len()];
    let mut n_missing: Vec<usize> = vec![0; pipeline.stages.len()];
    for (at, stage) in pipeline.stages.iter().enumerate() {
        for input in stage.kind.inputs() {
            let Source::Stage(read) = &input.source else { continue };
            if let Some(&from) = by_name.get(&read.stage) {
                readers[from].push(at);
                n_missing[at] += 1;
            }
        }
    }
    // The heap gives the first ready stage of the file, which makes the order stable.
    let mut ready: BinaryHeap<Reverse<usize>> =
        (0..n_missing.len()).filter(|&at| n_missing[at] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(n_missing.len());
    while let Some(Reverse(at)) = ready.pop() {
        order.push(at);
        for &reader in &readers[at] {
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

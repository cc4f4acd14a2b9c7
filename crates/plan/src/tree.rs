//! The plan as a text tree.
//! Owns the drawing; refuses to know more of a stage than its kind, name and inputs.

use std::collections::HashMap;

use sluice_spec::{Input, Source, Stage, StageName};

use crate::Plan;

/// One line a stage, roots first; a stage hangs below the last of the stages it reads.
pub(crate) fn draw(plan: &Plan) -> String {
    let stages: Vec<&Stage> = plan.stages().collect();
    let position: HashMap<&StageName, usize> = stages.iter().enumerate().map(|(at, stage)| (&stage.name, at)).collect();
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); stages.len()];
    let mut roots = Vec::new();
    for (at, stage) in stages.iter().enumerate() {
        let read = stage.kind.inputs().into_iter().filter_map(|input| match input.source {
            Source::Stage(read) => position.get(&read.stage).copied(),
            _ => None,
        });
        match read.max() {
            Some(last) => children[last].push(at),
            None => roots.push(at),
        }
    }
    let mut lines = Vec::new();
    for root in roots {
        branch(root, "", "", &stages, &children, &mut lines);
    }
    let width = lines.iter().map(|(left, _)| left.chars().count()).max().unwrap_or(0);
    lines.iter().map(|(left, right)| format!("{left:width$}  <- {right}\n")).collect()
}

/// Draws a stage and what hangs below it. `lead` goes before its own line, `margin` before those below.
fn branch(
    at: usize,
    lead: &str,
    margin: &str,
    stages: &[&Stage],
    children: &[Vec<usize>],
    lines: &mut Vec<(String, String)>,
) {
    let stage = stages[at];
    let inputs = stage.kind.inputs();
    let right: Vec<String> = inputs.iter().map(input).collect();
    lines.push((format!("{lead}{} {}", stage.kind.name().name(), stage.name), right.join(", ")));
    for (index, &child) in children[at].iter().enumerate() {
        let (corner, beam) = if index + 1 == children[at].len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        branch(child, &format!("{margin}{corner}"), &format!("{margin}{beam}"), stages, children, lines);
    }
}

/// `model=policy`, or `pairs` alone where the parameter has the name of what it reads.
fn input(input: &Input) -> String {
    let source = match &input.source {
        Source::Stage(read) if read.product.comes_first() => read.stage.to_string(),
        Source::Stage(read) => format!("{}.{}", read.stage, read.product.name()),
        Source::Model(model) => model.to_string(),
        Source::Files(patterns) => patterns.join(" "),
        Source::Folder(folder) => folder.clone(),
    };
    if source == input.role { source } else { format!("{}={source}", input.role) }
}

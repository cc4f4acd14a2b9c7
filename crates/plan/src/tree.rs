//! The plan as a text tree.
//! Owns the drawing; refuses to know more of a stage than its kind, name and inputs.

use sluice_spec::Stage;

use crate::fold::{Cells, Node, NodeInput, nodes};

/// Below this depth a chain goes straight down: further to the right nobody would read it.
const DEEPEST: usize = 12;

/// One line a node, roots first; a node hangs below the last of those it reads.
pub(crate) fn draw(stages: &[&Stage], cells: Cells) -> String {
    let nodes = nodes(stages, cells);
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    let mut roots = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        match node.inputs.iter().flat_map(|input| &input.from).max() {
            Some(last) => children[*last].push(at),
            None => roots.push(at),
        }
    }
    let mut lines: Vec<(String, String)> = Vec::with_capacity(nodes.len());
    // The lines still to be drawn, the next one last: a node, what goes before it, what goes before those below, depth.
    let mut waiting: Vec<(usize, String, String, usize)> =
        roots.into_iter().rev().map(|root| (root, String::new(), String::new(), 0)).collect();
    while let Some((at, lead, margin, depth)) = waiting.pop() {
        lines.push(line(&nodes[at], &lead));
        let last = children[at].len().saturating_sub(1);
        for (index, &child) in children[at].iter().enumerate().rev() {
            let (corner, beam) = match (index == last, depth < DEEPEST) {
                (true, true) => ("└─ ", "   "),
                (false, true) => ("├─ ", "│  "),
                (_, false) => ("⋮ ", ""),
            };
            waiting.push((child, format!("{margin}{corner}"), format!("{margin}{beam}"), depth + 1));
        }
    }
    let width = lines.iter().map(|(left, _)| left.chars().count()).max().unwrap_or(0);
    lines.iter().map(|(left, right)| format!("{left:width$}  <- {right}\n")).collect()
}

fn line(node: &Node<'_>, lead: &str) -> (String, String) {
    let Node { stage, name, n_cells, inputs } = node;
    let n_cells = n_cells.map_or_else(String::new, |n| format!(" ×{n}"));
    let inputs: Vec<String> = inputs.iter().map(NodeInput::text).collect();
    (format!("{lead}{} {name}{n_cells}", stage.kind.name().name()), inputs.join(", "))
}

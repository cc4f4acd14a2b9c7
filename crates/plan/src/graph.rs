//! The graph in two drawing languages.
//! Owns their syntax; refuses to lay anything out.

use std::fmt::Write as _;

use sluice_spec::{Product, Source, Stage};

use crate::Plan;
use crate::fold::{Cells, Node, nodes};

/// An edge: from a stage or a model to a stage, under the name of the parameter that reads it.
struct Edge {
    from: String,
    to: String,
    label: String,
}

pub(crate) fn mermaid(plan: &Plan, stages: &[&Stage], cells: Cells) -> String {
    let nodes = nodes(stages, cells);
    let mut out = "flowchart TD\n".to_owned();
    for (at, node) in nodes.iter().enumerate() {
        let (id, title, kind) = (mermaid_id(at, node), title(node), node.stage.kind.name().name());
        line(&mut out, format_args!("  {id}[\"{title}<br/>{kind}\"]"));
    }
    for model in models(plan, &nodes) {
        line(&mut out, format_args!("  model_{model}([\"{model}\"])"));
    }
    for Edge { from, to, label } in edges(&nodes, mermaid_id) {
        line(&mut out, format_args!("  {from} -->|{label}| {to}"));
    }
    out
}

pub(crate) fn dot(plan: &Plan, stages: &[&Stage], cells: Cells) -> String {
    let nodes = nodes(stages, cells);
    let mut out = "digraph pipeline {\n  node [shape=box];\n".to_owned();
    for (at, node) in nodes.iter().enumerate() {
        let (id, title, kind) = (dot_id(at, node), title(node), node.stage.kind.name().name());
        line(&mut out, format_args!("  {id} [label=\"{title}\\n{kind}\"];"));
    }
    for model in models(plan, &nodes) {
        line(&mut out, format_args!("  model_{model} [label=\"{model}\", shape=ellipse];"));
    }
    for Edge { from, to, label } in edges(&nodes, dot_id) {
        line(&mut out, format_args!("  {from} -> {to} [label=\"{label}\"];"));
    }
    out + "}\n"
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{text}");
}

fn title(node: &Node<'_>) -> String {
    let n_cells = node.n_cells.map_or_else(String::new, |n| format!(" ×{n}"));
    format!("{}{n_cells}", node.name)
}

/// Names of stages are lower case, so a cell's cannot be one of them.
fn mermaid_id(at: usize, node: &Node<'_>) -> String {
    let is_one_cell = node.stage.cell.is_some() && node.n_cells.is_none();
    if is_one_cell { format!("CELL{at}") } else { node.stage.base().to_string() }
}

fn dot_id(_at: usize, node: &Node<'_>) -> String {
    let is_one_cell = node.stage.cell.is_some() && node.n_cells.is_none();
    if is_one_cell { format!("\"{}\"", node.name) } else { node.stage.base().to_string() }
}

/// The models, in the order of the file; where only some stages are drawn, those that they read.
fn models<'p>(plan: &'p Plan, nodes: &[Node<'_>]) -> Vec<&'p str> {
    let is_read = |name: &str| {
        let sources = nodes.iter().flat_map(|node| &node.inputs).flat_map(|input| &input.sources);
        sources.into_iter().any(|source| matches!(source, Source::Model(model) if model.as_str() == name))
    };
    plan.pipeline().models.iter().map(|model| model.name.as_str()).filter(|name| is_read(name)).collect()
}

/// What stages read of stages and models; the user's files are not drawn.
fn edges(nodes: &[Node<'_>], id: fn(usize, &Node<'_>) -> String) -> Vec<Edge> {
    let mut edges = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        let to = id(at, node);
        for input in &node.inputs {
            let product = input.sources.iter().find_map(|source| match source {
                Source::Stage(read) if read.product != Product::Checkpoint => Some(read.product.name()),
                _ => None,
            });
            let of_stages = input.from.iter().map(|&from| (id(from, &nodes[from]), product.unwrap_or(&input.role)));
            let of_models = input.sources.iter().filter_map(|source| match source {
                Source::Model(model) => Some((format!("model_{model}"), input.role.as_str())),
                _ => None,
            });
            edges.extend(of_stages.chain(of_models).map(|(from, label)| Edge {
                from,
                to: to.clone(),
                label: label.to_owned(),
            }));
        }
    }
    edges
}

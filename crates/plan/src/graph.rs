//! The graph in two drawing languages.
//! Owns their syntax; refuses to lay anything out.

use std::fmt::Write as _;

use sluice_spec::{Product, Source};

use crate::Plan;

/// An edge: from a stage or a model to a stage, under the name of the parameter that reads it.
struct Edge {
    from: String,
    to: String,
    label: String,
}

pub(crate) fn mermaid(plan: &Plan) -> String {
    let mut out = "flowchart TD\n".to_owned();
    for stage in plan.stages() {
        line(&mut out, format_args!("  {}[\"{}<br/>{}\"]", stage.name, stage.name, stage.kind.name().name()));
    }
    for model in &plan.pipeline().models {
        line(&mut out, format_args!("  model_{}([\"{}\"])", model.name, model.name));
    }
    for Edge { from, to, label } in edges(plan) {
        line(&mut out, format_args!("  {from} -->|{label}| {to}"));
    }
    out
}

pub(crate) fn dot(plan: &Plan) -> String {
    let mut out = "digraph pipeline {\n  node [shape=box];\n".to_owned();
    for stage in plan.stages() {
        line(&mut out, format_args!("  {} [label=\"{}\\n{}\"];", stage.name, stage.name, stage.kind.name().name()));
    }
    for model in &plan.pipeline().models {
        line(&mut out, format_args!("  model_{} [label=\"{}\", shape=ellipse];", model.name, model.name));
    }
    for Edge { from, to, label } in edges(plan) {
        line(&mut out, format_args!("  {from} -> {to} [label=\"{label}\"];"));
    }
    out + "}\n"
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{text}");
}

/// What stages read of stages and models; the user's files are not drawn.
fn edges(plan: &Plan) -> Vec<Edge> {
    let mut edges = Vec::new();
    for stage in plan.stages() {
        for input in stage.kind.inputs() {
            let from = match &input.source {
                Source::Stage(read) => read.stage.to_string(),
                Source::Model(model) => format!("model_{model}"),
                Source::Files(_) | Source::Folder(_) => continue,
            };
            let label = match &input.source {
                Source::Stage(read) if read.product != Product::Checkpoint => read.product.name().to_owned(),
                _ => input.role,
            };
            edges.push(Edge { from, to: stage.name.to_string(), label });
        }
    }
    edges
}

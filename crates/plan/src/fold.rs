//! What is drawn of a plan: a node a stage, or one for all cells of a matrix.
//!
//! Owns the folding; refuses to know any picture.

use std::collections::HashMap;

use sluice_spec::{Source, Stage, StageName};

/// How the cells of a matrix are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cells {
    /// As one, with their number.
    Folded,
    Each,
}

/// A node of a picture.
pub(crate) struct Node<'a> {
    /// The stage, or the first of its cells.
    pub stage: &'a Stage,
    /// `tuned`, `tuned[lr,beta]` for folded cells, `tuned[lr=0.001,beta=10]` for one.
    pub name: String,
    /// How many cells are folded into it.
    pub n_cells: Option<usize>,
    pub inputs: Vec<NodeInput>,
}

/// What a node reads under one role.
pub(crate) struct NodeInput {
    pub role: String,
    /// What it is, each once; several where cells read different things.
    pub sources: Vec<Source>,
    /// The nodes among them.
    pub from: Vec<usize>,
}

impl NodeInput {
    /// `model=policy`, or `pairs` alone where the role has the name of what is read.
    pub(crate) fn text(&self) -> String {
        let sources: Vec<String> = self.sources.iter().map(source).collect();
        let sources = sources.join("|");
        if sources == self.role { sources } else { format!("{}={sources}", self.role) }
    }
}

/// The nodes of some stages, in their order.
pub(crate) fn nodes<'a>(stages: &[&'a Stage], cells: Cells) -> Vec<Node<'a>> {
    let mut groups: Vec<Vec<&Stage>> = Vec::new();
    let mut group_of: HashMap<&StageName, usize> = HashMap::new();
    let mut by_base: HashMap<&StageName, usize> = HashMap::new();
    for stage in stages {
        let base = stage.cell.as_ref().filter(|_| cells == Cells::Folded).map(|cell| &cell.base);
        let at = base.and_then(|base| by_base.get(base).copied()).unwrap_or(groups.len());
        match groups.get_mut(at) {
            Some(group) => group.push(stage),
            None => groups.push(vec![stage]),
        }
        if let Some(base) = base {
            by_base.insert(base, at);
        }
        group_of.insert(&stage.name, at);
    }
    groups.iter().filter_map(|group| node(group, &group_of, cells)).collect()
}

fn node<'a>(group: &[&'a Stage], group_of: &HashMap<&StageName, usize>, cells: Cells) -> Option<Node<'a>> {
    let first = *group.first()?;
    let mut inputs: Vec<NodeInput> = Vec::new();
    for input in group.iter().flat_map(|stage| stage.kind.inputs()) {
        let at = inputs.iter().position(|known| known.role == input.role).unwrap_or_else(|| {
            inputs.push(NodeInput { role: input.role.clone(), sources: Vec::new(), from: Vec::new() });
            inputs.len() - 1
        });
        let known = &mut inputs[at];
        if let Source::Stage(read) = &input.source
            && let Some(from) = group_of.get(&read.stage).filter(|from| !known.from.contains(from))
        {
            known.from.push(*from);
        }
        if !known.sources.contains(&input.source) {
            known.sources.push(input.source);
        }
    }
    let folded = first.cell.as_ref().filter(|_| cells == Cells::Folded);
    let name = folded.map_or_else(
        || first.name.to_string(),
        |cell| {
            let axes: Vec<&str> = cell.coordinates.iter().map(|coordinate| coordinate.axis.as_str()).collect();
            format!("{}[{}]", cell.base, axes.join(","))
        },
    );
    if folded.is_some() {
        inputs.iter_mut().for_each(fold);
    }
    Some(Node { stage: first, name, n_cells: folded.map(|_| group.len()), inputs })
}

/// Cells that are read one by one are told as the stage they are cells of.
fn fold(input: &mut NodeInput) {
    if input.sources.len() < 2 {
        return;
    }
    let mut folded: Vec<Source> = Vec::new();
    for source in input.sources.drain(..) {
        let source = match source {
            Source::Stage(read) => Source::Stage(read.of_base()),
            other => other,
        };
        if !folded.contains(&source) {
            folded.push(source);
        }
    }
    input.sources = folded;
}

fn source(source: &Source) -> String {
    match source {
        Source::Stage(read) if read.product.comes_first() => read.stage.to_string(),
        Source::Stage(read) => format!("{}.{}", read.stage, read.product.name()),
        Source::Model(model) => model.to_string(),
        Source::Files(patterns) => patterns.join(" "),
        Source::Folder(folder) => folder.clone(),
    }
}

//! `dag`: the stages and what they read, drawn.

use sluice_plan::Cells;

use crate::args::{Dag, DagFormat};
use crate::exit::{Exit, Outcome};
use crate::output::out;
use crate::selection::select;
use crate::session::Session;

pub fn run(session: &Session, args: &Dag) -> Outcome {
    let (project, words) = session.project(&args.words)?;
    let stages = select(session, &project, words, &args.exclude)?;
    let cells = if args.cells { Cells::Each } else { Cells::Folded };
    out(match args.format {
        DagFormat::Tree => project.plan.to_tree(&stages, cells),
        DagFormat::Mermaid => project.plan.to_mermaid(&stages, cells),
        DagFormat::Dot => project.plan.to_dot(&stages, cells),
    });
    Ok(Exit::Ok)
}

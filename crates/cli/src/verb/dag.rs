//! `dag`: the stages and what they read, drawn.

use crate::args::{Dag, DagFormat};
use crate::exit::{Exit, Outcome};
use crate::output::out;
use crate::session::Session;

pub fn run(session: &Session, args: &Dag) -> Outcome {
    let (project, _) = session.project(&args.words)?;
    out(match args.format {
        DagFormat::Tree => project.plan.to_string(),
        DagFormat::Mermaid => project.plan.to_mermaid(),
        DagFormat::Dot => project.plan.to_dot(),
    });
    Ok(Exit::Ok)
}

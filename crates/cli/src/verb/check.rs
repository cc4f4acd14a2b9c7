//! `check FILE`: every fault of a pipeline file, files and models that are not there among them. The faults
//! themselves are printed like every other failure.

use serde_json::json;

use crate::args::Only;
use crate::exit::{Exit, Outcome};
use crate::output::out;
use crate::preflight::{self, Depth};
use crate::render::quantity::counted;
use crate::session::Session;

pub fn run(session: &Session, args: &Only) -> Outcome {
    let (project, _) = session.project(&args.words)?;
    preflight::check(&project, &[], Depth::Headers)?;
    let pipeline = project.plan.pipeline();
    let profile = pipeline.profile.as_ref().map(|profile| profile.as_str());
    let n_stages = pipeline.stages.len();
    if session.global.json {
        out(format!("{}\n", json!({"file": project.name, "faults": 0, "stages": n_stages, "profile": profile})));
    } else if !session.global.quiet {
        let profile = profile.map_or_else(String::new, |profile| format!(", profile {profile}"));
        out(format!("{}: no faults ({}{profile})\n", project.name, counted(n_stages as u64, "stage")));
    }
    Ok(Exit::Ok)
}

//! `sql QUERY`: a question over the tables of a pipeline.

use arrow::array::RecordBatch;
use sluice_sql::{Format, SqlError, render};

use crate::args::{AnswerFormat, Sql};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{err, out};
use crate::render::Ink;
use crate::render::quantity::counted;
use crate::render::rows::rows;
use crate::session::{Project, Session, store_failure};
use crate::tables::tables;
use crate::world::World;

pub fn run(session: &Session, args: &Sql) -> Outcome {
    let (project, rest) = session.project(&args.words)?;
    let [query] = rest else {
        return Err(Failure::usage("one query is to be given").help("as in `sql 'select count(*) from pairs'`"));
    };
    let results = session.results(&project)?;
    let pipeline = project.plan.pipeline();
    let tables = tables(pipeline, &results, &session.store).map_err(store_failure)?;
    let answer = sluice_sql::Session::new(tables).and_then(|session| session.query(query));
    let batches = answer.map_err(|error| failure(error, session, &project))?;
    for found in results.iter().filter(|found| asks_for(query, found.stage.as_str())) {
        if let (Some(run), false) = (found.stale, session.global.quiet) {
            err(format!("note: `{}` is the result of run {run}; the pipeline has changed since\n", found.stage));
        }
    }
    let format = match args.format {
        Some(AnswerFormat::Csv) => Format::Csv,
        Some(AnswerFormat::Json) => Format::Json,
        Some(AnswerFormat::Jsonl) => Format::Jsonl,
        None if session.global.json => Format::Json,
        Some(AnswerFormat::Table) | None => {
            let World { columns, out: paint, .. } = &session.world;
            let n_rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
            let table = rows(&batches, *columns, *paint).map_err(|error| Failure::new(Exit::Failed, error))?;
            out(format!("{table}{}\n", paint.ink(Ink::Dim, format!("({})", counted(n_rows as u64, "row")))));
            return Ok(Exit::Ok);
        }
    };
    out(render(&batches, format).map_err(|error| Failure::new(Exit::Failed, error))?);
    Ok(Exit::Ok)
}

/// Whether a word of the query is the stage; a note too many does no harm.
fn asks_for(query: &str, stage: &str) -> bool {
    query.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word.eq_ignore_ascii_case(stage))
}

fn failure(error: SqlError, session: &Session, project: &Project) -> Failure {
    let exit = match &error {
        SqlError::Runtime { .. } | SqlError::Execute { .. } => Exit::Failed,
        _ => Exit::Usage,
    };
    let unmade = match &error {
        SqlError::UnknownTable { table, .. } => {
            let stage = table.split('.').next().unwrap_or_default();
            project.plan.stages().find(|known| known.name.as_str() == stage)
        }
        _ => None,
    };
    let failure = Failure::new(exit, error);
    match unmade {
        Some(stage) => {
            let run = session.command(&format!("run {} {}", project.name, stage.name), None);
            failure.help(format!("stage `{}` has no such table yet; `{run}` makes it", stage.name))
        }
        None => failure,
    }
}

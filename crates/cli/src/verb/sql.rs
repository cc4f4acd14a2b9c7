//! `sql QUERY`: a question over the tables of a pipeline, as they are and as they were in earlier runs.

use arrow::array::RecordBatch;
use sluice_sql::{Format, NamedTable, SqlError, render, table_names};
use sluice_store::Artifact;

use crate::args::{AnswerFormat, Sql};
use crate::exit::{Exit, Failure, Outcome};
use crate::history::{RunWord, split};
use crate::output::{err, out};
use crate::render::Ink;
use crate::render::quantity::counted;
use crate::render::rows::rows;
use crate::session::{Found, Project, Session};
use crate::tables::{NamedOutput, named, stored, tables};
use crate::wire::exit_of_store;
use crate::world::World;

pub fn run(session: &Session, args: &Sql) -> Outcome {
    let (project, rest) = session.project(&args.words)?;
    let [query] = rest else {
        return Err(Failure::usage("one query is to be given").help("as in `sql 'select count(*) from pairs'`"));
    };
    let results = session.results(&project)?;
    let asked = table_names(query).map_err(|error| failure(error, session, &project))?;
    let mut tables = tables(&results, &session.store);
    for name in &asked {
        tables.extend(earlier_table(session, &project, &results, name)?);
    }
    let answer = sluice_sql::Session::new(tables).and_then(|session| session.query(query));
    let batches = answer.map_err(|error| failure(error, session, &project))?;
    for found in results.iter().filter(|found| asked.iter().any(|name| is_of(name, found.stage.as_str()))) {
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

/// The table of an earlier run that a name like `pairs.dropped@r3` means; none for a name without a run.
fn earlier_table(
    session: &Session,
    project: &Project,
    results: &[Found],
    name: &str,
) -> Result<Option<NamedTable>, Failure> {
    let (table, Some(run)) = split(name)? else { return Ok(None) };
    let stage = table.split('.').next().unwrap_or(table);
    let present = results.iter().find(|found| found.stage.as_str() == stage).map(|found| &found.record);
    let record = match (&run, present) {
        (RunWord::Now, Some(present)) => present.clone(),
        (RunWord::Now, None) => return Err(Failure::usage(format!("stage `{stage}` has no result yet"))),
        _ => {
            let present = present.map(|record| record.key);
            session.earlier(&run, &project.name, stage, present)?.whole(stage)?.record
        }
    };
    let outputs = named(stage, &record);
    match outputs.iter().find(|output| output.name == table) {
        Some(NamedOutput { output, .. }) if matches!(output.artifact, Artifact::Table(_)) => {
            Ok(Some(stored(name.to_owned(), output, &session.store)))
        }
        _ => {
            let known: Vec<&str> = outputs.iter().map(|output| output.name.as_str()).collect();
            let failure = Failure::usage(format!("there is no table `{table}` in run {run}"));
            Err(failure.help(format!("stage `{stage}` made {}", known.join(", "))))
        }
    }
}

/// Whether a table is an output of a stage as it is now.
fn is_of(table: &str, stage: &str) -> bool {
    table.strip_prefix(stage).is_some_and(|rest| rest.is_empty() || (rest.starts_with('.') && !rest.contains('@')))
}

fn failure(error: SqlError, session: &Session, project: &Project) -> Failure {
    let exit = match &error {
        SqlError::Runtime { .. } | SqlError::Execute { .. } => Exit::Failed,
        SqlError::Stored { source, .. } => exit_of_store(source),
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

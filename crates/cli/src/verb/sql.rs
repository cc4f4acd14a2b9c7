//! `sql QUERY`: a question over the tables of a pipeline, as they are and as they were in earlier runs.

use arrow::array::RecordBatch;
use sluice_spec::{Pipeline, Stage, split_product};
use sluice_sql::{Format, NamedTable, SqlError, TableData, render, table_names};
use sluice_store::Artifact;

use crate::args::{AnswerFormat, Sql};
use crate::exit::{Exit, Failure, Outcome};
use crate::history::{RunWord, split};
use crate::live::{self, Live};
use crate::output::{err, out};
use crate::render::Ink;
use crate::render::quantity::{count, counted};
use crate::render::rows::rows;
use crate::session::{Found, Project, Session, quoted};
use crate::tables::{NamedOutput, named, outputs, stored, stored_tables, union, with_unions};
use crate::tested;
use crate::wire::exit_of_store;
use crate::world::World;

pub fn run(session: &Session, args: &Sql) -> Outcome {
    let (project, rest) = session.project(&args.words)?;
    let [query] = rest else {
        return Err(Failure::usage("one query is to be given").help("as in `sql 'select count(*) from pairs'`"));
    };
    let results = session.results(&project)?;
    let asked = table_names(query).map_err(|error| failure(error, session, &project))?;
    let tested = tested::known(session, &project, &results)?;
    let live = live::steps(session, &project, &asked)?;
    let is_live = |name: &str| live.iter().any(|live| live.table.name == name);
    let present = stored_tables(outputs(&results).chain(tested::outputs(&tested)), &session.store);
    let present = present.filter(|(_, table)| !is_live(&table.name));
    let growing = live.iter().map(|live| (&live.stage, live.table.clone()));
    let mut tables = with_unions(project.plan.pipeline(), present.chain(growing));
    for name in &asked {
        tables.extend(earlier_tables(session, &project, &results, name)?);
    }
    let answer = sluice_sql::Session::new(tables).and_then(|session| session.query(query));
    let batches = answer.map_err(|error| failure(error, session, &project))?;
    if !session.global.quiet {
        let finished: Vec<String> = asked.iter().filter(|name| !is_live(name)).cloned().collect();
        let mut notes: Vec<String> = live.iter().map(so_far).collect();
        notes.extend(stale(project.plan.pipeline(), &results, &finished));
        notes.iter().for_each(|note| err(format!("note: {note}\n")));
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

/// The table of an earlier run that a name like `pairs.dropped@r3` means; none for a name without a run. Of a stage with
/// a matrix these are the tables of its cells, and all of them under the name itself.
fn earlier_tables(
    session: &Session,
    project: &Project,
    results: &[Found],
    name: &str,
) -> Result<Vec<NamedTable>, Failure> {
    let (table, Some(run)) = split(name)? else { return Ok(Vec::new()) };
    let (stage, product) = split_product(table);
    let cells: Vec<&Stage> =
        project.plan.stages().filter(|known| known.cell.is_some() && known.base().as_str() == stage).collect();
    if cells.is_empty() {
        return Ok(vec![earlier_table(session, project, results, (stage, product), &run, name)?]);
    }
    let mut tables = Vec::new();
    let mut parts = Vec::new();
    let mut missing = None;
    for cell in cells {
        let own = cell.name.as_str();
        let part = product.map_or_else(|| format!("{own}@{run}"), |product| format!("{own}.{product}@{run}"));
        match earlier_table(session, project, results, (own, product), &run, &part) {
            Ok(table) => {
                tables.push(table);
                parts.extend(cell.cell.as_ref().map(|cell| (part, cell)));
            }
            // A run may have had other cells.
            Err(failure) => missing = missing.or(Some(failure)),
        }
    }
    if let (true, Some(failure)) = (tables.is_empty(), missing) {
        return Err(failure);
    }
    tables.push(NamedTable { name: name.to_owned(), data: TableData::Union(union(&parts)) });
    Ok(tables)
}

/// A stage's own table, or that of its product, as it was in a run, under a name.
fn earlier_table(
    session: &Session,
    project: &Project,
    results: &[Found],
    (stage, product): (&str, Option<&str>),
    run: &RunWord,
    name: &str,
) -> Result<NamedTable, Failure> {
    let present = results.iter().find(|found| found.stage.as_str() == stage).map(|found| &found.record);
    let record = match (run, present) {
        (RunWord::Now, Some(present)) => present.clone(),
        (RunWord::Now, None) => return Err(Failure::usage(format!("stage `{stage}` has no result yet"))),
        _ => {
            let present = present.map(|record| record.key);
            session.earlier(run, &project.name, stage, present)?.whole(stage)?.record
        }
    };
    let table = product.map_or_else(|| stage.to_owned(), |product| format!("{stage}.{product}"));
    let outputs = named(stage, &record);
    match outputs.iter().find(|output| output.name == table) {
        Some(NamedOutput { output, .. }) if matches!(output.artifact, Artifact::Table(_)) => {
            Ok(stored(name.to_owned(), output, &session.store))
        }
        _ => {
            let known: Vec<&str> = outputs.iter().map(|output| output.name.as_str()).collect();
            let failure = Failure::usage(format!("there is no table `{table}` in run {run}"));
            Err(failure.help(format!("stage `{stage}` made {}", known.join(", "))))
        }
    }
}

fn so_far(Live { run, n_rows, table, .. }: &Live) -> String {
    format!("`{}` has the {} so far of run {run}, which is at it", table.name, counted(*n_rows as u64, "row"))
}

/// A note on each stage of the query whose result is not that of the pipeline as it is.
fn stale(pipeline: &Pipeline, results: &[Found], asked: &[String]) -> Vec<String> {
    // Every stage that is asked for, by the name it is asked for under, with its cells.
    let mut by_name: Vec<(&str, Vec<&Found>)> = Vec::new();
    for name in asked.iter().filter(|table| !table.contains('@')).map(|table| split_product(table).0) {
        let is_it = |found: &&Found| {
            let base = pipeline.stage(&found.stage).map(Stage::base);
            found.stage.as_str() == name || base.is_some_and(|base| base.as_str() == name)
        };
        if by_name.iter().all(|(known, _)| *known != name) {
            by_name.push((name, results.iter().filter(is_it).collect()));
        }
    }
    let note = |(name, found): (&str, Vec<&Found>)| {
        let runs: Vec<String> = found.iter().filter_map(|found| Some(found.stale?.to_string())).collect();
        match (runs.as_slice(), found.len()) {
            ([], _) => None,
            ([run], 1) => Some(format!("`{name}` is the result of run {run}; the pipeline has changed since")),
            (runs, n) => Some(format!(
                "{} of the {} of `{name}` with a result have that of an earlier run; the pipeline has changed since",
                count(runs.len() as u64),
                counted(n as u64, "cell")
            )),
        }
    };
    by_name.into_iter().filter_map(note).collect()
}

fn failure(error: SqlError, session: &Session, project: &Project) -> Failure {
    let exit = match &error {
        SqlError::Runtime { .. } | SqlError::Execute { .. } => Exit::Failed,
        SqlError::Stored { source, .. } => exit_of_store(source),
        _ => Exit::Usage,
    };
    let unmade = match &error {
        SqlError::UnknownTable { table, .. } => {
            let (stage, _) = split_product(table);
            let is_it = |known: &&Stage| known.name.as_str() == stage || known.base().as_str() == stage;
            project
                .plan
                .stages()
                .find(is_it)
                .map(|known| if known.name.as_str() == stage { &known.name } else { known.base() })
        }
        _ => None,
    };
    let failure = Failure::new(exit, error);
    match unmade {
        Some(stage) => {
            let run = session.command(&format!("run {} {}", project.name, quoted(stage.as_str())), None);
            failure.help(format!("stage `{stage}` has no such table yet; `{run}` makes it"))
        }
        None => failure,
    }
}

//! `show STAGE` of a stage with a matrix: a line a cell, and the first rows of the cells' tables put together.

use sluice_spec::{Product, Stage};
use sluice_store::Output;

use crate::exit::{Exit, Failure};
use crate::output::out;
use crate::render::Ink;
use crate::render::rows::rows;
use crate::render::show::{ShownCell, cells};
use crate::session::{Found, Project, Session};
use crate::tables::{n_rows, named, outputs, stored_tables, with_unions};
use crate::world::now_unix_ms;

/// `stages` are cells of one stage.
pub fn show(
    session: &Session,
    project: &Project,
    results: &[Found],
    stages: &[&Stage],
    product: Option<&str>,
    n_shown: u64,
) -> Result<(), Failure> {
    let pipeline = project.plan.pipeline();
    let of_cell = |stage: &&Stage| results.iter().find(|found| found.stage == stage.name).cloned();
    let results: Vec<Found> = stages.iter().filter_map(of_cell).collect();
    let Some(stage) = stages.first() else { return Ok(()) };
    let base = stage.base().as_str();
    let Some(first) = results.first() else {
        let run = session.command(&format!("run {} {base}", project.name), None);
        return Err(Failure::usage(format!("no cell of `{base}` has a result yet")).help(format!("`{run}` makes them")));
    };
    let tables_of: Vec<&Product> =
        stage.kind.products().iter().filter(|made| matches!(made, Product::Table(_))).collect();
    let wanted = tables_of.into_iter().filter(|made| product.is_none_or(|product| product == made.name()));
    let names: Vec<String> = wanted
        .map(|made| if made.comes_first() { base.to_owned() } else { format!("{base}.{}", made.name()) })
        .collect();
    if let (Some(product), true) = (product, names.is_empty()) {
        let known: Vec<String> =
            named(first.stage.as_str(), &first.record).into_iter().map(|output| output.name).collect();
        let failure = Failure::usage(format!("`{base}` made no table `{product}`"));
        return Err(failure.help(format!("a cell of it made {}", known.join(", "))));
    }
    let paint = session.world.out;
    let shown: Vec<ShownCell> = results.iter().map(shown_cell).collect();
    out(cells(base, stages.len(), &shown, paint));
    let tables = with_unions(pipeline, stored_tables(outputs(&results), &session.store));
    let sql = sluice_sql::Session::new(tables);
    let sql = sql.map_err(|error| Failure::new(Exit::Failed, error))?;
    for name in names.iter().filter(|_| n_shown > 0) {
        // A dotted name is a table of a schema.
        let quoted = name.split('.').map(|part| format!("\"{part}\"")).collect::<Vec<_>>().join(".");
        let answer = sql.query(&format!("select * from {quoted} limit {n_shown}"));
        let batches = answer.map_err(|error| Failure::new(Exit::Failed, error))?;
        let rows = rows(&batches, session.world.columns, paint).map_err(|error| Failure::new(Exit::Failed, error))?;
        out(format!("{}\n{rows}", paint.ink(Ink::Bold, name)));
    }
    Ok(())
}

fn shown_cell(found: &Found) -> ShownCell {
    let Found { stage, record, stale } = found;
    ShownCell {
        stage: stage.to_string(),
        rows: n_rows(record),
        seconds: record.seconds,
        age_seconds: now_unix_ms().saturating_sub(record.created_unix_ms) / 1000,
        digest: record.outputs.first().map(Output::digest).unwrap_or_default(),
        stale: stale.map(|run| run.to_string()),
    }
}

//! `show STAGE[@RUN]`: what it made. Tables with their columns and first rows, checkpoints with their configuration.

mod cells;

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use sluice_engine::TestReport;
use sluice_lm::checkpoint::Checkpoint;
use sluice_lm::config::Dtype;
use sluice_spec::{Pinned, split_product};
use sluice_sql::{NamedTable, TableData};
use sluice_store::{Artifact, CheckpointArtifact, Record, RunId, TableArtifact};

use crate::args::Show;
use crate::exit::{Exit, Failure, Outcome};
use crate::history::{Earlier, RunWord, split};
use crate::output::out;
use crate::render::rows::rows;
use crate::render::show::{ShownCheckpoint, ShownStage, ShownTable, checkpoint, stage, table};
use crate::render::tested::{TestLine, outcomes};
use crate::selection::select;
use crate::session::{Found, Project, Session, quoted, store_failure};
use crate::tables::{NamedOutput, named};
use crate::tested::{self, Tested};
use crate::world::{now_unix_ms, tidy};

pub fn run(session: &Session, args: &Show) -> Outcome {
    let (project, rest) = session.project(&args.words)?;
    let [word] = rest else {
        return Err(Failure::usage("one stage is to be named")
            .help("as in `show pairs`, `show pairs.dropped` or `show pairs@r17`"));
    };
    let (name, run) = split(word)?;
    let (name, product) = split_product(name);
    if let Some(run @ (RunWord::Number(_) | RunWord::Last | RunWord::Tag(_))) = &run {
        // The run may be of a pipeline that had other stages.
        let name = Pinned::parse(name).map_or_else(|_| name.to_owned(), |pinned| pinned.to_string());
        let Earlier { run, record, .. } = session.earlier(run, &project.name, &name, None)?.whole(&name)?;
        show(session, &Shown { name, record, run: Some(run), stale: None, tested: Vec::new() }, product, args.rows)?;
        return Ok(Exit::Ok);
    }
    let stages = select(session, &project, &[name.to_owned()], &[])?;
    let results = session.results(&project)?;
    match stages.as_slice() {
        [first, _, ..] if !session.global.json && stages.iter().all(|stage| stage.base() == first.base()) => {
            cells::show(session, &project, &results, &stages, product, args.rows)?;
        }
        stages => {
            for stage in stages {
                let shown = result(session, &project, &results, stage.name.as_str(), run.as_ref())?;
                show(session, &shown, product, args.rows)?;
            }
        }
    }
    Ok(Exit::Ok)
}

fn show(session: &Session, shown: &Shown, product: Option<&str>, n_rows: u64) -> Result<(), Failure> {
    let Shown { name, record, run, stale, tested } = shown;
    let mut outputs = named(name, record);
    outputs.extend(tested::outputs(tested).map(|(_, output)| output));
    let known: Vec<String> = outputs.iter().map(|output| output.name.clone()).collect();
    // The stage alone means all it made, and not the rows at fault of its tests; a dotted name means one table.
    let failed = format!("{name}.failed.");
    let is_meant = |output: &NamedOutput<'_>| match product {
        Some(product) => output.output.name == product || output.name == format!("{name}.{product}"),
        None => !output.name.starts_with(&failed),
    };
    let wanted: Vec<NamedOutput<'_>> = outputs.into_iter().filter(is_meant).collect();
    if let (Some(product), true) = (product, wanted.is_empty()) {
        let failure = Failure::usage(format!("stage `{name}` made no `{name}.{product}`"));
        return Err(failure.help(format!("it made {}", known.join(", "))));
    }
    let shown = ShownStage {
        stage: name.clone(),
        kind: record.kind.clone(),
        key: record.key.to_string(),
        seconds: record.seconds,
        age_seconds: now_unix_ms().saturating_sub(record.created_unix_ms) / 1000,
        run: run.map(|run| run.to_string()),
        stale: stale.map(|run| run.to_string()),
        metrics: record.metrics.clone(),
        facts: record.facts.clone(),
        notices: record.notices.clone(),
    };
    let paint = session.world.out;
    let tests: Vec<&TestReport> = tested.iter().flat_map(|tested| &tested.tests).collect();
    if !session.global.json {
        out(stage(&shown, paint));
        if product.is_none() && !tests.is_empty() {
            let of_stage = |of: &Tested| of.tests.iter().map(|test| tested::line(&of.stage, test)).collect::<Vec<_>>();
            let lines: Vec<TestLine> = tested.iter().flat_map(of_stage).collect();
            out(format!("\n{}", outcomes(&lines, paint)));
        }
    }
    let mut objects = Vec::new();
    for output in wanted {
        match &output.output.artifact {
            Artifact::Table(artifact) => {
                let shown = shown_table(session, &output, artifact, n_rows)?;
                objects.push(table_object(&shown));
                if !session.global.json {
                    out(table(&shown, paint));
                }
            }
            Artifact::Checkpoint(artifact) => {
                let shown = shown_checkpoint(session, &output, artifact)?;
                objects.push(
                    json!({"name": shown.name, "digest": shown.digest, "folder": shown.folder, "config": shown.config}),
                );
                if !session.global.json {
                    out(checkpoint(&shown, paint));
                }
            }
        }
    }
    if session.global.json {
        let ShownStage { stage, kind, key, seconds, age_seconds: _, run, stale, metrics, facts, notices } = shown;
        let object = json!({
            "name": stage, "kind": kind, "key": key, "seconds": seconds, "run": run, "stale": stale,
            "metrics": metrics, "facts": facts, "notices": notices, "tests": tests,
            "outputs": objects,
        });
        out(format!("{object}\n"));
    }
    Ok(())
}

/// What is to be shown.
struct Shown {
    name: String,
    record: Arc<Record>,
    /// The earlier run that was asked for.
    run: Option<RunId>,
    /// The run it is of, when the pipeline has changed since.
    stale: Option<RunId>,
    /// What is known of its tests; of an earlier run nothing is told.
    tested: Vec<Tested>,
}

/// The result of a stage as it is, or the one before.
fn result(
    session: &Session,
    project: &Project,
    results: &[Found],
    name: &str,
    run: Option<&RunWord>,
) -> Result<Shown, Failure> {
    let found = results.iter().find(|found| found.stage.as_str() == name);
    if run == Some(&RunWord::Prev) {
        let present = found.map(|found| found.record.key);
        let Earlier { run, record, .. } = session.earlier(&RunWord::Prev, &project.name, name, present)?;
        return Ok(Shown { name: name.to_owned(), record, run: Some(run), stale: None, tested: Vec::new() });
    }
    let Some(Found { stage: _, record, stale }) = found else {
        let run = session.command(&format!("run {} {}", project.name, quoted(name)), None);
        return Err(Failure::usage(format!("stage `{name}` has no result yet")).help(format!("`{run}` makes it")));
    };
    let mut tested = tested::known(session, project, results)?;
    tested.retain(|tested| tested.stage.as_str() == name);
    Ok(Shown { name: name.to_owned(), record: record.clone(), run: None, stale: *stale, tested })
}

fn shown_table(
    session: &Session,
    output: &NamedOutput<'_>,
    artifact: &TableArtifact,
    n_rows: u64,
) -> Result<ShownTable, Failure> {
    let store = &session.store;
    let schema = store.table_schema(output.output).map_err(store_failure)?;
    let path = store.table_path(output.output).map_err(store_failure)?;
    let columns =
        schema.fields().iter().map(|field| (field.name().clone(), field.data_type().to_string(), field.is_nullable()));
    let rows = if n_rows == 0 { String::new() } else { first_rows(&path, n_rows, session)? };
    Ok(ShownTable {
        name: output.name.clone(),
        columns: columns.collect(),
        n_rows: artifact.n_rows,
        bytes: artifact.bytes,
        digest: artifact.digest.to_string(),
        path: shown_path(&path),
        rows,
    })
}

/// The first rows as a table. A query reads no more of a file than it needs.
fn first_rows(path: &Path, n_rows: u64, session: &Session) -> Result<String, Failure> {
    let table = NamedTable { name: "shown".to_owned(), data: TableData::Parquet(vec![path.to_owned()]) };
    let query = format!("select * from shown limit {n_rows}");
    sluice_sql::Session::new(vec![table])
        .and_then(|session| session.query(&query))
        .map_err(|error| Failure::new(Exit::Failed, error))
        .and_then(|batches| {
            let rows = rows(&batches, session.world.columns, session.world.out);
            rows.map_err(|error| Failure::new(Exit::Failed, error))
        })
}

fn shown_checkpoint(
    session: &Session,
    output: &NamedOutput<'_>,
    artifact: &CheckpointArtifact,
) -> Result<ShownCheckpoint, Failure> {
    let folder = session.store.checkpoint_path(output.output).map_err(store_failure)?;
    let opened = Checkpoint::open(&folder).map_err(|error| Failure::new(Exit::Failed, error))?;
    Ok(ShownCheckpoint {
        name: output.name.clone(),
        architecture: opened.config.architecture().to_owned(),
        n_parameters: crate::verb::model::n_parameters(&opened),
        config: opened.config.to_json(opened.config.dtype.unwrap_or(Dtype::F32)),
        n_files: artifact.n_files,
        bytes: artifact.bytes,
        digest: artifact.digest.to_string(),
        folder: shown_path(&folder),
    })
}

fn shown_path(path: &Path) -> String {
    tidy(path).display().to_string()
}

fn table_object(table: &ShownTable) -> Value {
    let ShownTable { name, columns, n_rows, bytes, digest, path, rows: _ } = table;
    let columns: Vec<Value> = columns
        .iter()
        .map(|(name, kind, nullable)| json!({"name": name, "type": kind, "nullable": nullable}))
        .collect();
    json!({"name": name, "rows": n_rows, "bytes": bytes, "digest": digest, "path": path, "columns": columns})
}

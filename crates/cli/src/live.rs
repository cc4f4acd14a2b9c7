//! The tables of stages that a run is making: the steps so far of a training. They stand where the stage's last result
//! would, since who asks during a run means the run.

use arrow::array::RecordBatch;
use sluice_spec::{Stage, StageName, split_product};
use sluice_sql::{NamedTable, TableData};
use sluice_store::{Outcome, RunId, RunManifest, RunStage};
use sluice_table::Steps;

use crate::exit::Failure;
use crate::session::{Project, Session, store_failure};

/// A table that grows.
pub struct Live {
    pub stage: StageName,
    pub run: RunId,
    pub n_rows: usize,
    pub table: NamedTable,
}

/// The steps that a query asks for of trainings which a run of this pipeline is at; by the name of a stage with a matrix,
/// those of its cells.
pub fn steps(session: &Session, project: &Project, asked: &[String]) -> Result<Vec<Live>, Failure> {
    let asks = |stage: &&Stage, table: &String| {
        let (name, product) = split_product(table);
        product == Some(Steps::NAME) && (stage.name.as_str() == name || stage.base().as_str() == name)
    };
    let stages: Vec<&Stage> =
        project.plan.stages().filter(|stage| asked.iter().any(|table| asks(stage, table))).collect();
    if stages.is_empty() {
        return Ok(Vec::new());
    }
    let mut live: Vec<Live> = Vec::new();
    for manifest in session.living_runs(&project.name).map_err(store_failure)? {
        for stage in &stages {
            // Two runs may be at a stage with different settings: the younger one is shown.
            if !live.iter().any(|known| known.stage == stage.name) {
                live.extend(of_stage(session, &manifest, &stage.name)?);
            }
        }
    }
    Ok(live)
}

fn of_stage(session: &Session, manifest: &RunManifest, name: &StageName) -> Result<Option<Live>, Failure> {
    let is_it = |stage: &&RunStage| stage.name == name.as_str() && stage.outcome == Outcome::Running;
    let Some(key) = manifest.stages.iter().find(is_it).and_then(|stage| stage.key) else { return Ok(None) };
    let rows = session.store.live_rows(key, Steps::NAME, &Steps::schema()).map_err(store_failure)?;
    Ok(rows.map(|batches| Live {
        stage: name.clone(),
        run: manifest.run,
        n_rows: batches.iter().map(|batch| batch.num_rows()).sum(),
        table: NamedTable {
            name: format!("{name}.{}", Steps::NAME),
            data: TableData::Batches {
                schema: batches.first().map_or_else(Steps::schema, RecordBatch::schema),
                batches,
            },
        },
    }))
}

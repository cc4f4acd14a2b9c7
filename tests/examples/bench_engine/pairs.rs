//! Pair selection: a table of scored responses becomes pairs. In this process: the stage as the engine calls it, from the
//! Parquet file to the two it writes, and the selection alone.

use std::error::Error;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use sluice_spec::{Kind, Options};
use sluice_stages::pair::select;
use sluice_stages::{Device, InputData, StageContext, StageInput};
use sluice_store::{Artifact, Output, RecordDraft, StageKey, Store};
use sluice_table::{FinishReason, Named, PromptId, ScoreRow, Scores, ScoresBuilder, Split};
use sluice_tests::bench::{Spread, Timings};
use tempfile::TempDir;

use crate::Ask;
use crate::table::{Figure, Unit};

/// Responses of a prompt, and the characters of a prompt and a response.
const N_EACH: usize = 5;
const PROMPT_CHARACTERS: usize = 200;
const RESPONSE_CHARACTERS: usize = 400;
const BATCH_ROWS: usize = 8192;
const GOAL_PER_SECOND: f64 = 1e6;

const PIPELINE: &str = "\
version: 1
models: { policy: m, reward: m }
stages:
  prompts: { ingest: { from: a.jsonl } }
  responses: { sample: { prompts: prompts, model: policy } }
  scores: { score: { responses: responses, model: reward } }
  pairs: { pair: { scores: scores } }
";

pub fn measure(ask: &Ask) -> Result<Vec<Figure>, Box<dyn Error>> {
    let pipeline =
        sluice_spec::parse("p.yaml", PIPELINE, &Options::default()).map_err(|faults| format!("{faults:?}"))?;
    let kind = pipeline.stages.iter().map(|stage| &stage.kind).find(|kind| matches!(kind, Kind::Pair(_)));
    let Some(Kind::Pair(params)) = kind else { return Err("the pipeline has no `pair` stage".into()) };
    let folder = TempDir::new()?;
    let store = Store::open(folder.path().join("store"))?;
    let output = plant(&store, ask.n_rows)?;
    let inputs = [StageInput { role: "scores".to_owned(), data: InputData::Table(output.clone()) }];

    let mut stage = Timings::default();
    for number in 0..ask.n_runs {
        // Another store object, since the first reading of a file checks its digest.
        let store = Store::open(store.root())?;
        let attempt = store.begin(StageKey::from_bytes([100 + number as u8; 32]))?;
        let context = StageContext {
            project: Path::new("."),
            store: &store,
            inputs: &inputs,
            attempt: &attempt,
            fresh: false,
            device: Device::CPU,
            progress: &|_| {},
            notify: &|_| {},
            clock: &|| 0.0,
            cancel: &AtomicBool::new(false),
        };
        let started = Instant::now();
        let produced = sluice_stages::run(&Kind::Pair(params.clone()), &context)?;
        stage.push(started.elapsed().as_secs_f64());
        if produced.n_rows == 0 {
            return Err("no pairs".into());
        }
    }

    let batches = store.read_table(&output)?;
    let mut alone = Timings::default();
    for _ in 0..ask.n_runs {
        let started = Instant::now();
        let views = batches.iter().map(Scores::view).collect::<Result<Vec<_>, _>>()?;
        select(params, &views)?;
        alone.push(started.elapsed().as_secs_f64());
    }
    let rate = |timings: &Timings| {
        timings.spread().map_or(Spread { median: 0.0, min: 0.0, max: 0.0 }, |spread| spread.rate(ask.n_rows as f64))
    };
    let size = format!("{} M responses", ask.n_rows as f64 / 1e6);
    Ok(vec![
        Figure::new(format!("pair {size}, from file to file"), Unit::PerSecond, rate(&stage))
            .goal(GOAL_PER_SECOND)
            .note("check and read the Parquet file, select, write pairs and dropped with their digests"),
        Figure::new(format!("pair {size}, selection alone"), Unit::PerSecond, rate(&alone))
            .goal(GOAL_PER_SECOND)
            .note("from record batches to record batches"),
    ])
}

/// A table of scored responses in the store.
fn plant(store: &Store, n_rows: usize) -> Result<Output, Box<dyn Error>> {
    let attempt = store.begin(StageKey::from_bytes([1; 32]))?;
    let mut writer = attempt.write_table(Scores::NAME, Scores::schema())?;
    let mut builder = ScoresBuilder::new();
    for row in 0..n_rows {
        let (prompt, index) = (row / N_EACH, (row % N_EACH) as u32);
        let text = padded(&format!("prompt {prompt} "), PROMPT_CHARACTERS);
        let id = PromptId::of(&text).to_string();
        builder.push(ScoreRow {
            response_id: &format!("{row:032x}"),
            prompt_id: &id,
            prompt: &text,
            reference: Some("a reference"),
            group: None,
            split: Split::Train,
            sample_index: index,
            response: &padded(&format!("response {index} to {prompt} "), RESPONSE_CHARACTERS),
            n_prompt_tokens: 50,
            n_tokens: 100 + index,
            logp_sum: -20.0,
            finish_reason: FinishReason::Stop,
            seed: row as u64,
            policy_digest: "policy",
            score: ((row as u32).wrapping_mul(2_654_435_761) >> 8) as f32,
            rewards: Named::new(&[], &[]),
            gating: Named::new(&[], &[]),
            reward_model_digest: "reward",
        });
        if builder.len() == BATCH_ROWS {
            writer.write(&builder.finish())?;
        }
    }
    if !builder.is_empty() {
        writer.write(&builder.finish())?;
    }
    let output = Output { name: Scores::NAME.to_owned(), artifact: Artifact::Table(writer.finish()?) };
    attempt.commit(RecordDraft { outputs: vec![output.clone()], ..RecordDraft::default() })?;
    Ok(output)
}

/// A text of some length whose words differ from row to row.
fn padded(start: &str, n_characters: usize) -> String {
    let mut text = start.to_owned();
    let mut word = start.len() as u64 * 7919 + start.bytes().map(u64::from).sum::<u64>();
    while text.len() < n_characters {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(["the ", "of ", "model ", "answer ", "because ", "two ", "never ", "it "][(word >> 61) as usize]);
    }
    text.truncate(n_characters);
    text
}

//! A pipeline's stages run one by one over a temporary store, with the tiny models of the fixtures.
//!
//! Owns what the engine does in a real run: finding inputs, opening an attempt, committing it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatch;
use sluice_lm::checkpoint::Checkpoint;
use sluice_spec::stage::{Kind, Source};
use sluice_spec::{Location, Options, Pipeline};
use sluice_stages::verify::{Recheck, Verified};
use sluice_stages::{
    Device, InputData, Produced, Progress, Reading, RowCount, StageContext, StageError, StageInput, Unit,
};
use sluice_store::{Artifact, ModelDigest, Output, RecordDraft, StageKey, Store};
use sluice_table::{PromptId, PromptRow, Prompts, PromptsBuilder, Split, Steps};
use tempfile::TempDir;

/// Every stage the tests run; `--set` style overrides make the variants.
const PIPELINE: &str = "
version: 1
models: { policy: gemma2-tiny, reward: llama3-armorm-tiny }
stages:
  prompts: { ingest: { from: prompts.jsonl } }
  demos: { ingest: { from: demos.jsonl } }
  responses: { sample: { prompts: prompts, model: policy, n: 3, max_new_tokens: 6, temperature: 0.9, seed: 7 } }
  scores: { score: { responses: responses, model: reward } }
  pairs: { pair: { scores: scores } }
  tuned: { train: { pairs: pairs, model: policy, objective: { simpo: { beta: 2, gamma_beta_ratio: 0.5 } },
    learning_rate: 1.0e-3, batch_size: 2, warmup_ratio: 0, epochs: 2 } }
  again: { sample: { prompts: prompts, model: tuned, max_new_tokens: 3 } }
  fresh: { train: { rows: demos, model: { init: init }, objective: { sft: {} }, learning_rate: 3.0e-3, batch_size: 2,
    warmup_ratio: 0, epochs: 3 } }
  judge: { train: { rows: demos, model: fresh, objective: { reward: { objectives: [label], grow_layers: 1 } },
    learning_rate: 1.0e-3, batch_size: 1, warmup_ratio: 0, epochs: 2 } }
  judged: { score: { responses: responses, model: judge } }
  report: { evaluate: { prompts: prompts, candidate: policy, baseline: policy, judge: reward, n: 2, max_new_tokens: 5,
    temperature: 0.9, resamples: 100 } }
";

pub struct Bench {
    /// Where model folders are looked for first.
    pub folder: TempDir,
    store: Store,
    made: BTreeMap<(String, String), Output>,
    n_keys: u8,
    /// The key of every run, where runs are to be attempts at one result.
    pub key: Option<StageKey>,
    /// Stop a stage when so many of its rows are done.
    pub stop_at: Option<u64>,
    /// Count only these, where a stage has several things to count.
    pub stop_in: Option<Unit>,
    /// What stages told.
    pub notices: RefCell<Vec<String>>,
    /// Steps done and the table of them, as who asks meanwhile finds it, whenever a training told how far it is.
    pub live: RefCell<Vec<(u64, Option<RecordBatch>)>>,
}

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

impl Bench {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::open(folder.path().join(".sluice")).expect("a new store");
        Self {
            folder,
            store,
            made: BTreeMap::new(),
            n_keys: 0,
            key: None,
            stop_at: None,
            stop_in: None,
            notices: RefCell::default(),
            live: RefCell::default(),
        }
    }

    /// Copies a fixture's model folder to `name`, so that a test may damage it.
    pub fn copy_model(&self, fixture: &str, name: &str) -> PathBuf {
        let to = self.folder.path().join(name);
        fs::create_dir(&to).expect("a new folder");
        for file in
            ["config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "model.safetensors"]
        {
            fs::copy(fixtures().join(fixture).join(file), to.join(file)).expect("the fixture has the file");
        }
        to
    }

    /// Puts a table in the place of a stage's output.
    pub fn plant(&mut self, stage: &str, table: &str, batch: &RecordBatch) {
        let key = self.next_key();
        let attempt = self.store.begin(key).expect("an attempt");
        let mut writer = attempt.write_table(table, batch.schema()).expect("a table");
        writer.write(batch).expect("its rows");
        let artifact = Artifact::Table(writer.finish().expect("a written table"));
        let output = Output { name: table.to_owned(), artifact };
        attempt.commit(RecordDraft { outputs: vec![output.clone()], ..RecordDraft::default() }).expect("a commit");
        self.made.insert((stage.to_owned(), table.to_owned()), output);
    }

    /// Plants prompts: text, reference, group.
    pub fn plant_prompts(&mut self, split: Split, prompts: &[(&str, Option<&str>, Option<&str>)]) {
        let mut builder = PromptsBuilder::new();
        for (row, (prompt, reference, group)) in (0u64..).zip(prompts) {
            builder.push(PromptRow {
                prompt_id: &PromptId::of(prompt).to_string(),
                prompt,
                reference: *reference,
                group: *group,
                split,
                source: "prompts.jsonl",
                source_row: row,
                response: None,
                label: None,
            });
        }
        self.plant("prompts", Prompts::NAME, &builder.finish());
    }

    /// Plants demonstrations: prompt, response, label.
    pub fn plant_demos(&mut self, demos: &[(&str, &str, f32)]) {
        let mut builder = PromptsBuilder::new();
        for (row, (prompt, response, label)) in (0u64..).zip(demos) {
            builder.push(PromptRow {
                prompt_id: &PromptId::of(prompt).to_string(),
                prompt,
                reference: None,
                group: None,
                split: Split::Train,
                source: "demos.jsonl",
                source_row: row,
                response: Some(response),
                label: Some(*label),
            });
        }
        self.plant("demos", Prompts::NAME, &builder.finish());
    }

    /// Runs a stage under overrides and commits its outputs.
    pub fn run(&mut self, stage: &str, set: &[&str]) -> Result<Produced, StageError> {
        let pipeline = pipeline(set);
        let kind = kind(&pipeline, stage);
        let inputs = self.inputs(kind, &pipeline)?;
        let key = self.key.unwrap_or_else(|| self.next_key());
        let attempt = self.store.begin(key).expect("an attempt");
        let cancel = AtomicBool::new(false);
        let progress = |progress: Progress| {
            if progress.unit == Unit::Steps {
                self.live.borrow_mut().push((progress.done, self.live_steps(key)));
            }
            let is_counted = self.stop_in.is_none_or(|unit| unit == progress.unit);
            if is_counted && self.stop_at.is_some_and(|stop| progress.done >= stop) {
                cancel.store(true, Ordering::Relaxed);
            }
        };
        let produced = sluice_stages::run(
            kind,
            &StageContext {
                project: self.folder.path(),
                store: &self.store,
                inputs: &inputs,
                attempt: &attempt,
                fresh: false,
                device: Device::CPU,
                progress: &progress,
                notify: &|notice| self.notices.borrow_mut().push(notice.text),
                clock: &|| 0.0,
                cancel: &cancel,
            },
        )?;
        let draft = RecordDraft { outputs: produced.outputs.clone(), ..RecordDraft::default() };
        attempt.commit(draft).expect("a commit");
        for output in &produced.outputs {
            self.made.insert((stage.to_owned(), output.name.clone()), output.clone());
        }
        Ok(produced)
    }

    /// The steps so far of a training of a key, if one is going on.
    pub fn live_steps(&self, key: StageKey) -> Option<RecordBatch> {
        let batches = self.store.live_rows(key, Steps::NAME, &Steps::schema()).expect("a readable store")?;
        Some(arrow::compute::concat_batches(&batches.first()?.schema(), &batches).expect("batches of one schema"))
    }

    /// How many rows a stage would make, and how many of them are known.
    pub fn count(&self, stage: &str, set: &[&str]) -> Result<RowCount, StageError> {
        let pipeline = pipeline(set);
        let kind = kind(&pipeline, stage);
        let inputs = self.inputs(kind, &pipeline)?;
        let reading = Reading { store: &self.store, inputs: &inputs, device: Device::CPU };
        Ok(sluice_stages::count_rows(kind, reading)?.expect("a stage that makes rows one by one"))
    }

    /// Makes rows of a stage's result again and compares them.
    pub fn verify(&mut self, stage: &str, rows: &[u64], is_foreign: bool) -> Result<Verified, StageError> {
        let pipeline = pipeline(&[]);
        let kind = kind(&pipeline, stage);
        let inputs = self.inputs(kind, &pipeline)?;
        let products = kind.products().iter();
        let stored: Vec<Output> = products.map(|product| self.output(stage, product.name()).clone()).collect();
        let key = self.next_key();
        let attempt = self.store.begin_blind(key).expect("an attempt");
        let context = StageContext {
            project: self.folder.path(),
            store: &self.store,
            inputs: &inputs,
            attempt: &attempt,
            fresh: true,
            device: Device::CPU,
            progress: &|_| {},
            notify: &|_| {},
            clock: &|| 0.0,
            cancel: &AtomicBool::new(false),
        };
        sluice_stages::verify::verify(kind, &context, Recheck { stored: &stored, rows, is_foreign })
    }

    pub fn output(&self, stage: &str, product: &str) -> &Output {
        &self.made[&(stage.to_owned(), product.to_owned())]
    }

    /// All rows of an output.
    pub fn table(&self, stage: &str, product: &str) -> RecordBatch {
        let batches = self.store.read_table(self.output(stage, product)).expect("a readable table");
        arrow::compute::concat_batches(batches[0].schema_ref(), &batches).expect("batches of one schema")
    }

    pub fn checkpoint(&self, stage: &str) -> PathBuf {
        self.store.checkpoint_path(self.output(stage, "checkpoint")).expect("a stored checkpoint")
    }

    /// What a model's digest is: of a folder under the bench, or else of a fixture.
    pub fn digest(&self, model: &str) -> Result<ModelDigest, StageError> {
        Ok(self.model(model)?.1)
    }

    fn inputs(&self, kind: &Kind, pipeline: &Pipeline) -> Result<Vec<StageInput>, StageError> {
        let mut inputs = Vec::new();
        for input in kind.inputs() {
            let data = match &input.source {
                Source::Files(_) => continue,
                Source::Stage(read) => {
                    let output = self.output(read.stage.as_str(), read.product.name());
                    match &output.artifact {
                        Artifact::Table(_) => InputData::Table(output.clone()),
                        Artifact::Checkpoint(made) => {
                            let folder = self.store.checkpoint_path(output).expect("a stored checkpoint");
                            InputData::Model { folder, digest: made.digest }
                        }
                    }
                }
                Source::Model(name) => {
                    let Location::Folder(name) = &pipeline.model(name).expect("a model").location else {
                        panic!("the tests have models in folders")
                    };
                    let (folder, digest) = self.model(name)?;
                    InputData::Model { folder, digest }
                }
                Source::Folder(name) => {
                    let folder = self.folder.path().join(name);
                    InputData::Model { folder, digest: ModelDigest::from_bytes([0; 32]) }
                }
            };
            inputs.push(StageInput { role: input.role, data });
        }
        Ok(inputs)
    }

    fn model(&self, name: &str) -> Result<(PathBuf, ModelDigest), StageError> {
        let own = self.folder.path().join(name);
        let folder = if own.exists() { own } else { fixtures().join(name) };
        let digest = Checkpoint::open(&folder).and_then(|checkpoint| checkpoint.digest());
        // A folder that does not open has no digest; the stage then says what is wrong with it.
        let digest = digest.map_or(ModelDigest::from_bytes([0; 32]), |digest| ModelDigest::from_bytes(digest.0));
        Ok((folder, digest))
    }

    fn next_key(&mut self) -> StageKey {
        self.n_keys += 1;
        StageKey::from_bytes([self.n_keys; 32])
    }
}

fn pipeline(set: &[&str]) -> Pipeline {
    let options = Options { profile: None, set: set.iter().map(|set| (*set).to_owned()).collect() };
    sluice_spec::parse("pipeline.yaml", PIPELINE, &options).unwrap_or_else(|faults| panic!("{faults:?}"))
}

fn kind<'p>(pipeline: &'p Pipeline, stage: &str) -> &'p Kind {
    &pipeline.stages.iter().find(|candidate| candidate.name.as_str() == stage).expect("a stage").kind
}

/// An error with its causes, without the folder of the test.
pub fn chain(error: &StageError, bench: &Bench) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!("\n  {error}"));
        cause = error.source();
    }
    let own = format!("{}/", bench.folder.path().display());
    text.replace(&own, "").replace(&format!("{}/", fixtures().display()), "")
}

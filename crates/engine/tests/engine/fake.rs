//! A runner that computes texts: each output says what it was computed from, so that it changes exactly when
//! something it depends on does. And a folder to run pipelines in.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use sluice_engine::{
    Done, Engine, Event, Example, Given, Job, JobInput, Likeness, Numerics, PlanState, Produced, Progress, Recheck,
    Rechecked, Recomputed, RowCount, RunOptions, StageFailure, StageRunner, TestJob, TestRun, Verdict,
};
use sluice_spec::{Check, Location, Options, Product, Stage};
use sluice_store::{Artifact, ContentHash, ModelDigest, Outcome, Output, Record, Store};

#[derive(Default)]
pub struct FakeRunner {
    /// Stages that make this text whatever they read.
    making: BTreeMap<String, String>,
    failing: Option<String>,
    panicking: Option<String>,
    interrupted_in: Option<String>,
    /// What lies in files and model folders; anything else is there and holds its own name.
    outside: BTreeMap<String, String>,
    missing: BTreeSet<String>,
    taking: Duration,
    /// What stages say they worked through: units, tokens, seconds.
    costing: BTreeMap<String, Done>,
    /// Rows known of the rows of a stage.
    knowing: BTreeMap<String, RowCount>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    runs: usize,
    tests: usize,
    now: BTreeMap<&'static str, usize>,
    most: BTreeMap<&'static str, usize>,
}

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("`{0}` is not there")]
    Missing(String),
    #[error("{0} fails")]
    Told(String),
}

impl FakeRunner {
    pub fn making(mut self, stage: &str, text: &str) -> Self {
        self.making.insert(stage.to_owned(), text.to_owned());
        self
    }

    pub fn knowing(mut self, stage: &str, rows_known: u64, rows: u64) -> Self {
        self.knowing.insert(stage.to_owned(), RowCount { rows, rows_known, unit: "rows" });
        self
    }

    pub fn costing(mut self, stage: &str, n: u64, n_tokens: u64, seconds: f64) -> Self {
        self.costing.insert(stage.to_owned(), Done { n, n_tokens, seconds });
        self
    }

    pub fn failing(mut self, stage: &str) -> Self {
        self.failing = Some(stage.to_owned());
        self
    }

    pub fn panicking(mut self, stage: &str) -> Self {
        self.panicking = Some(stage.to_owned());
        self
    }

    pub fn interrupted_in(mut self, stage: &str) -> Self {
        self.interrupted_in = Some(stage.to_owned());
        self
    }

    pub fn with_outside(mut self, path: &str, content: &str) -> Self {
        self.outside.insert(path.to_owned(), content.to_owned());
        self
    }

    pub fn without_outside(mut self, path: &str) -> Self {
        self.missing.insert(path.to_owned());
        self
    }

    pub fn taking_ms(mut self, ms: u64) -> Self {
        self.taking = Duration::from_millis(ms);
        self
    }

    /// How many stages were computed.
    pub fn runs(&self) -> usize {
        self.seen.lock().expect("no panic").runs
    }

    /// How many tests were made.
    pub fn tests(&self) -> usize {
        self.seen.lock().expect("no panic").tests
    }

    /// The largest number of stages of a kind that were computed at one time.
    pub fn most_at_once(&self, kind: &str) -> usize {
        self.seen.lock().expect("no panic").most.get(kind).copied().unwrap_or(0)
    }

    fn digest_outside(&self, path: &str) -> Result<[u8; 32], StageFailure> {
        if self.missing.contains(path) {
            return Err(StageFailure::of(Fault::Missing(path.to_owned())));
        }
        let content = self.outside.get(path).map_or(path, String::as_str);
        Ok(*blake3::hash(content.as_bytes()).as_bytes())
    }

    fn count(&self, kind: &'static str, by: isize) {
        let mut seen = self.seen.lock().expect("no panic");
        let now = seen.now.entry(kind).or_default();
        *now = now.saturating_add_signed(by);
        let now = *now;
        let most = seen.most.entry(kind).or_default();
        *most = (*most).max(now);
        seen.runs += usize::from(by > 0);
    }
}

impl StageRunner for FakeRunner {
    fn files_digest(&self, patterns: &[String]) -> Result<ContentHash, StageFailure> {
        self.digest_outside(&patterns.join("\n")).map(ContentHash::from_bytes)
    }

    fn config_digest(&self, folder: &str) -> Result<ContentHash, StageFailure> {
        self.digest_outside(folder).map(ContentHash::from_bytes)
    }

    fn model_digest(&self, location: &Location) -> Result<ModelDigest, StageFailure> {
        let Location::Folder(folder) = location else { return Err(StageFailure::Interrupted) };
        self.digest_outside(folder).map(ModelDigest::from_bytes)
    }

    fn files_bytes(&self, patterns: &[String]) -> Result<u64, StageFailure> {
        let path = patterns.join("\n");
        self.digest_outside(&path)?;
        Ok(self.outside.get(&path).unwrap_or(&path).len() as u64)
    }

    fn count_rows(&self, stage: &Stage, _: &[JobInput]) -> Result<Option<RowCount>, StageFailure> {
        Ok(self.knowing.get(stage.name.as_str()).copied())
    }

    /// A test fails with as many rows as its query says: `fails 3`. One that says `breaks` cannot be made.
    fn test(&self, job: &TestJob<'_>) -> Result<Vec<Result<Verdict, StageFailure>>, StageFailure> {
        self.seen.lock().expect("no panic").tests += job.tests.len();
        let verdict = |run: &TestRun<'_>| {
            let Check::Sql(query) = &run.test.check else { return Ok(Verdict::default()) };
            match query.value.split_once(' ') {
                Some(("fails", n)) => Ok(Verdict { n_failed: n.parse().expect("a number"), ..Verdict::default() }),
                _ if query.value == "breaks" => Err(StageFailure::of(Fault::Told("the query".to_owned()))),
                _ => Ok(Verdict::default()),
            }
        };
        Ok(job.tests.iter().map(verdict).collect())
    }

    fn run(&self, job: &Job<'_>) -> Result<Produced, StageFailure> {
        let (name, kind) = (job.stage.name.as_str(), job.stage.kind.name().name());
        self.count(kind, 1);
        thread::sleep(self.taking);
        self.count(kind, -1);
        (job.progress)(Progress { done: 1, total: Some(1), unit: "rows", ..Progress::default() });
        if self.failing.as_deref() == Some(name) {
            return Err(StageFailure::of(Fault::Told(name.to_owned())));
        }
        assert!(self.panicking.as_deref() != Some(name), "{name} panics");
        if self.interrupted_in.as_deref() == Some(name) {
            job.cancel.store(true, Ordering::Relaxed);
        }
        if job.cancelled() {
            return Err(StageFailure::Interrupted);
        }
        for input in job.inputs {
            read(job, input)?;
        }
        let text = self.making.get(name).cloned().unwrap_or_else(|| job.key.to_string());
        let outputs: Result<_, _> =
            job.stage.kind.products().iter().map(|product| write(job, *product, &text)).collect();
        let metrics = BTreeMap::from([("length".to_owned(), text.len() as f64)]);
        let n_rows_reused = self.knowing.get(name).filter(|_| !job.fresh).map_or(0, |count| count.rows_known);
        let done = self.costing.get(name).copied();
        Ok(Produced { outputs: outputs?, metrics, n_rows_reused, done, ..Produced::default() })
    }

    /// Makes everything again; a row is a text, near if only its case differs.
    fn verify(&self, recheck: &Recheck<'_>) -> Result<Rechecked, StageFailure> {
        let produced = self.run(&recheck.job)?;
        let digests = |outputs: &[Output]| outputs.iter().map(Output::digest).collect::<Vec<_>>();
        let mut rechecked = Rechecked { unit: "rows", tolerance: "any case".to_owned(), ..Rechecked::default() };
        if digests(&produced.outputs) == digests(&recheck.record.outputs) {
            rechecked.n_exact = recheck.rows.len().max(1) as u64;
        } else if recheck.is_foreign {
            rechecked.n_near = 1;
        } else {
            rechecked.n_different = 1;
            let what = "another text".to_owned();
            rechecked.worst = vec![Example { likeness: Likeness::Different, row: "row 0".to_owned(), what }];
            rechecked.produced = Some(produced);
        }
        Ok(rechecked)
    }
}

/// Reads an output of another stage whole, as stages do.
fn read(job: &Job<'_>, input: &JobInput) -> Result<(), StageFailure> {
    if let Given::Output { output, .. } = &input.given {
        match output.artifact {
            Artifact::Table(_) => drop(job.store.read_table(output)?),
            Artifact::Checkpoint(_) => drop(job.store.checkpoint_path(output)?),
        }
    }
    Ok(())
}

fn write(job: &Job<'_>, product: Product, text: &str) -> Result<Output, StageFailure> {
    let artifact = match product {
        Product::Table(_) => {
            let texts = Arc::new(StringArray::from(vec![text])) as ArrayRef;
            let batch = RecordBatch::try_from_iter([("text", texts)]).map_err(StageFailure::of)?;
            let mut writer = job.attempt.write_table(product.name(), batch.schema())?;
            writer.write(&batch)?;
            Artifact::Table(writer.finish()?)
        }
        Product::Checkpoint => {
            let folder = job.attempt.folder(product.name())?;
            fs::write(folder.path().join("weights"), text).map_err(StageFailure::of)?;
            let digest = ModelDigest::from_bytes(*blake3::hash(text.as_bytes()).as_bytes());
            Artifact::Checkpoint(folder.seal(digest)?)
        }
    };
    Ok(Output { name: product.name().to_owned(), artifact })
}

/// A folder with a store, in which pipelines run.
pub struct Workshop {
    folder: Arc<tempfile::TempDir>,
    numerics: Numerics,
    clock: fn() -> u64,
}

impl Workshop {
    pub fn new() -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        Self { folder, numerics: Numerics::new("cpu-f32"), clock: || 1_000 }
    }

    /// The same folder with other arithmetic.
    pub fn with_numerics(&self, numerics: &str) -> Self {
        Self { folder: self.folder.clone(), numerics: Numerics::new(numerics), clock: self.clock }
    }

    /// The same folder at another time.
    pub fn at(&self, clock: fn() -> u64) -> Self {
        Self { folder: self.folder.clone(), numerics: self.numerics.clone(), clock }
    }

    /// The store as the next process finds it.
    pub fn store(&self) -> Store {
        Store::open(self.folder.path().join(".sluice")).expect("a store")
    }

    fn with_engine<T>(&self, text: &str, runner: &FakeRunner, then: impl FnOnce(Engine<'_>) -> T) -> T {
        self.with_options(text, &Options::default(), runner, then)
    }

    /// An engine over a pipeline that is read with profile and overrides.
    pub fn with_options<T>(
        &self,
        text: &str,
        options: &Options,
        runner: &FakeRunner,
        then: impl FnOnce(Engine<'_>) -> T,
    ) -> T {
        let pipeline = sluice_spec::parse("p.yaml", text, options).unwrap_or_else(|faults| panic!("{faults}\n{text}"));
        let plan = sluice_plan::plan(pipeline).expect("a plan");
        let store = self.store();
        let (numerics, clock) = (&self.numerics, self.clock);
        then(Engine { plan: &plan, store: &store, runner, numerics, pipeline: "p", clock })
    }

    /// Run a pipeline; what happened, a line a stage.
    pub fn run(&self, text: &str, runner: &FakeRunner) -> String {
        self.try_run(text, runner, &[]).expect("a run")
    }

    pub fn run_targets(&self, text: &str, runner: &FakeRunner, targets: &[&str]) -> String {
        self.try_run(text, runner, targets).expect("a run")
    }

    /// Run a pipeline, these stages in any case.
    pub fn run_forced(&self, text: &str, runner: &FakeRunner, forced: &[&str]) -> String {
        self.run_as(text, runner, &[], forced).expect("a run")
    }

    pub fn try_run(&self, text: &str, runner: &FakeRunner, targets: &[&str]) -> Result<String, String> {
        self.run_as(text, runner, targets, &[])
    }

    fn run_as(&self, text: &str, runner: &FakeRunner, targets: &[&str], forced: &[&str]) -> Result<String, String> {
        let diverged = Mutex::new(String::new());
        let watch = |event: Event| {
            if let Event::Diverged { stage, .. } = event {
                diverged.lock().expect("no panic").push_str(&format!("{stage} diverged\n"));
            }
        };
        self.with_engine(text, runner, |engine| {
            let targets = targets.iter().map(|name| (*name).to_owned()).collect();
            let stages = engine.plan.stages().map(|stage| &stage.name);
            let forced = stages.filter(|name| forced.contains(&name.as_str())).cloned().collect();
            let options = RunOptions { targets, forced, ..RunOptions::default() };
            let report = engine.run(&options, &AtomicBool::new(false), &watch).map_err(|error| error.to_string())?;
            let mut told = String::new();
            for stage in &report.stages {
                let text = stage.error.as_ref().or(stage.reason.as_ref()).map(|text| format!(": {text}"));
                let text = if stage.state == Outcome::Hit { None } else { text };
                let again = match &stage.recomputed {
                    None => "",
                    Some(Recomputed::Same) => " (the same)",
                    Some(Recomputed::Differs { evidence }) if evidence.is_file() => " (differs)",
                    Some(Recomputed::Differs { .. }) => " (differs, but there is no evidence)",
                };
                let text = text.unwrap_or_default() + again;
                told.push_str(&format!("{} {}{}\n", stage.name, word(stage.state), text));
            }
            told.push_str(&diverged.lock().expect("no panic"));
            Ok(without_digests(&format!("{told}run {}\n", word(report.outcome))))
        })
    }

    pub fn run_with(&self, text: &str, runner: &FakeRunner, events: &(dyn Fn(Event) + Sync)) {
        self.with_engine(text, runner, |engine| {
            engine.run(&RunOptions::default(), &AtomicBool::new(false), events).expect("a run");
        });
    }

    /// What a run would do, a line a stage.
    pub fn plan(&self, text: &str, runner: &FakeRunner) -> String {
        self.with_engine(text, runner, |engine| {
            let line = |stage: &sluice_engine::PlannedStage| {
                let word = match &stage.state {
                    PlanState::Hit { .. } => "hit",
                    PlanState::Run { .. } => "run",
                    PlanState::Partial { count, .. } => &format!("partial {}/{}", count.rows_known, count.rows),
                    PlanState::Pending { .. } => "pending",
                    PlanState::Fetch { .. } => "fetch",
                    PlanState::Fail { .. } => "fail",
                };
                let tests = match stage.tests_to_run {
                    0 => String::new(),
                    n => format!(", {n} tests to make"),
                };
                format!("{} {word}: {}", stage.name, stage.state).trim_end_matches(": ").to_owned() + &tests + "\n"
            };
            engine.plan_rows(&[]).expect("a plan").iter().map(line).collect()
        })
    }

    /// Why a stage would run, or ran.
    pub fn why(&self, text: &str, runner: &FakeRunner, stage: &str) -> String {
        self.with_engine(text, runner, |engine| {
            let why = engine.why(stage).expect("an explanation");
            let against = why.against.map_or("none".to_owned(), |run| run.to_string());
            let changes: String = why.changes.iter().map(|change| format!("\n  {change}")).collect();
            let causes: String = why.causes.iter().map(|cause| format!("\n  because of {cause}")).collect();
            without_digests(&format!("{}, against {against}{changes}{causes}", why.stage.name))
        })
    }

    /// Flips a byte in what a stage has made.
    pub fn damage(&self, record: &Record) {
        let (root, hex) = (self.folder.path().join(".sluice"), record.outputs[0].artifact.content().to_string());
        let file = match record.outputs[0].artifact {
            Artifact::Table(_) => root.join("objects").join(&hex[..2]).join(&hex[2..]),
            Artifact::Checkpoint(_) => root.join("checkpoints").join(&hex).join("weights"),
        };
        let mut bytes = fs::read(&file).expect("an artifact");
        bytes[8] ^= 1;
        fs::remove_file(&file).expect("an artifact");
        fs::write(&file, bytes).expect("a damaged artifact");
    }

    /// The record a stage has now.
    pub fn record(&self, text: &str, stage: &str) -> Record {
        self.with_engine(text, &FakeRunner::default(), |engine| {
            let states = engine.plan_states(&[]).expect("a plan");
            match states.into_iter().find(|planned| planned.name.as_str() == stage).map(|planned| planned.state) {
                Some(PlanState::Hit { record, .. }) => record.as_ref().clone(),
                other => panic!("{stage} has a result: {other:?}"),
            }
        })
    }
}

/// Short digests and files of the store as `*`: they change whenever a kind gets a parameter, and these tests are about
/// other things.
fn without_digests(text: &str) -> String {
    let is_digest = |word: &str| word.len() == 12 && word.chars().all(|c| c.is_ascii_hexdigit());
    let is_file = |word: &str| word.contains("/objects/") || word.contains("/checkpoints/");
    let masked = |line: &str| {
        let mask = |word| if is_digest(word) || is_file(word) { "*" } else { word };
        let words: Vec<&str> = line.split(' ').map(mask).collect();
        words.join(" ")
    };
    text.split('\n').map(masked).collect::<Vec<_>>().join("\n")
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Running => "running",
        Outcome::Hit => "hit",
        Outcome::Ran => "ran",
        Outcome::Partial => "partial",
        Outcome::Failed => "failed",
        Outcome::Blocked => "blocked",
        Outcome::Interrupted => "interrupted",
    }
}

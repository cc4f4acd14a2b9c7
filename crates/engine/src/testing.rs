//! The data tests of a stage that has a result: the key of each outcome, the outcomes that are known, and making the others.
//!
//! An outcome is a record of its own, under a key of the test and of what it reads, so that an unchanged table is not tested
//! again. It is committed like every other result, and never part of the stage's. This file owns those keys and what an
//! outcome means by its test's severity; it refuses to know how a test is made.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use serde::Serialize;
use sluice_spec::{Check, Severity, Sources, Stage, StageName, Test};
use sluice_store::{Attempt, Leaf, Output, Record, RecordDraft, RunTest, StageKey, Store, StoreError, TestOutcome};

use crate::event::as_text;
use crate::key::{self, derive_key};
use crate::run::{Engine, EngineError};
use crate::runner::{FailedTest, StageFailure, TestJob, TestRun, Verdict};
use crate::worker::{Shop, panic_text};

/// The number of an outcome's record that counts the rows at fault.
const FAILURES: &str = "failures";
/// The fact of an outcome's record that says what was found.
const FOUND: &str = "found";

/// How a data test came out.
#[derive(Debug, Clone, Serialize)]
pub struct TestReport {
    /// Its name in the stage.
    pub name: String,
    /// Its kind, e.g. `not_null`.
    pub check: &'static str,
    /// `error` or `warn`.
    pub severity: &'static str,
    /// How it came out.
    pub outcome: TestOutcome,
    /// Rows at fault; 1 for a number out of its range.
    pub failures: u64,
    /// What was found, where rows do not say it; for a broken test, why it could not be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// Whether this is known from an earlier run.
    pub known: bool,
    /// Where it stands.
    pub place: String,
    /// The key of the outcome's record.
    pub key: StageKey,
    /// The outcome's record: its first output, if it has one, holds the first rows at fault.
    #[serde(skip)]
    pub record: Option<Arc<Record>>,
    /// Why it could not be made.
    #[serde(skip)]
    pub failure: Option<Arc<StageFailure>>,
}

/// The record of an outcome, and whether an earlier run made it.
type Known = (Arc<Record>, bool);
/// What came of making the outcome of a key.
type Made = (StageKey, Result<Record, StageFailure>);

/// A test whose outcome has a key.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// Which test of the stage.
    at: usize,
    key: StageKey,
    leaves: Vec<Leaf>,
    tables: Vec<(String, Output)>,
}

/// The tests of a stage that has a result. `record_of` is asked for what other stages have.
pub(crate) fn cases(
    stage: &Stage,
    record: &Record,
    sources: &Sources,
    record_of: impl Fn(&StageName) -> Option<Arc<Record>>,
) -> Result<Vec<Case>, StageFailure> {
    let mut cases = Vec::with_capacity(stage.tests.len());
    for (at, test) in stage.tests.iter().enumerate() {
        let mut tables = Vec::new();
        for (name, product) in test.tables(&stage.name) {
            let output = product.product.name();
            let absent = || StageFailure::NoOutput { stage: product.stage.clone(), output };
            let found = match product.stage == stage.name {
                true => record.output(output).cloned(),
                false => record_of(&product.stage).and_then(|record| record.output(output).cloned()),
            };
            tables.push((name, found.ok_or_else(absent)?));
        }
        let digests: Vec<(String, String)> =
            tables.iter().map(|(name, output)| (name.clone(), output.digest())).collect();
        let number = match &test.check {
            Check::Metric(metric) => record.metrics.get(&metric.name.value).copied(),
            _ => None,
        };
        let leaves = key::test_leaves(test, sources, &digests, number);
        cases.push(Case { at, key: derive_key(&leaves), leaves, tables });
    }
    Ok(cases)
}

/// The outcomes that are known, and for the others none.
pub(crate) fn known(
    store: &Store,
    stage: &Stage,
    sources: &Sources,
    cases: &[Case],
) -> Result<Vec<Option<TestReport>>, StoreError> {
    let report = |case: &Case| {
        let record = store.lookup(case.key)?;
        Ok(record.map(|record| report(&stage.tests[case.at], sources, Arc::new(record), true)))
    };
    cases.iter().map(report).collect()
}

/// What becomes of a stage for whose tests these are the outcomes; none if what reads it may run.
pub(crate) fn failure(tests: &[TestReport]) -> Option<StageFailure> {
    let broken = tests.iter().find_map(|test| Some((test, test.failure.clone()?)));
    if let Some((test, source)) = broken {
        return Some(StageFailure::BrokenTest { test: test.name.clone(), place: test.place.clone(), source });
    }
    let failed = tests.iter().filter(|test| test.outcome == TestOutcome::Failed);
    let failed: Vec<FailedTest> = failed
        .map(|test| FailedTest { name: test.name.clone(), place: test.place.clone(), found: test.in_words() })
        .collect();
    (!failed.is_empty()).then_some(StageFailure::FailedTests { failed, n_tests: tests.len() })
}

impl TestReport {
    /// What was found, in words: `3 rows`, or what a test without rows says.
    pub fn in_words(&self) -> String {
        match (&self.found, self.failures) {
            (Some(found), _) => found.clone(),
            (None, 1) if self.check == "columns" => "1 column".to_owned(),
            (None, n) if self.check == "columns" => format!("{n} columns"),
            (None, 1) => "1 row".to_owned(),
            (None, n) => format!("{n} rows"),
        }
    }

    /// The table with the first rows at fault.
    pub fn rows(&self) -> Option<&Output> {
        self.record.as_ref()?.outputs.first()
    }

    /// As a manifest has it.
    pub(crate) fn in_manifest(&self) -> RunTest {
        RunTest { name: self.name.clone(), outcome: self.outcome, key: self.key }
    }
}

fn report(test: &Test, sources: &Sources, record: Arc<Record>, known: bool) -> TestReport {
    // A count of rows is a whole number.
    let failures = record.metrics.get(FAILURES).copied().unwrap_or(0.0) as u64;
    let outcome = match (failures, test.severity.value) {
        (0, _) => TestOutcome::Passed,
        (_, Severity::Warn) => TestOutcome::Warned,
        (_, Severity::Error) => TestOutcome::Failed,
    };
    let (key, found) = (record.key, record.facts.get(FOUND).cloned());
    TestReport { outcome, failures, found, known, key, record: Some(record), ..blank(test, sources, key) }
}

fn broken(test: &Test, sources: &Sources, key: StageKey, failure: Arc<StageFailure>) -> TestReport {
    let mut reasons = vec![failure.to_string()];
    reasons.extend(failure.causes());
    TestReport { found: Some(reasons.join(": ")), failure: Some(failure), ..blank(test, sources, key) }
}

fn blank(test: &Test, sources: &Sources, key: StageKey) -> TestReport {
    TestReport {
        name: test.name.to_string(),
        check: test.check.name(),
        severity: test.severity.value.name(),
        outcome: TestOutcome::Broken,
        failures: 0,
        found: None,
        known: false,
        place: sources.place(test.place).to_string(),
        key,
        record: None,
        failure: None,
    }
}

/// A stage whose tests were asked for.
#[derive(Debug, Clone, Serialize)]
pub struct TestedStage {
    /// Its name.
    #[serde(serialize_with = "as_text")]
    pub name: StageName,
    /// Whether it has a result of the pipeline as it is; without one there is nothing to test.
    pub there: bool,
    /// How its tests came out.
    pub tests: Vec<TestReport>,
    /// Why they could not be made, all of them.
    #[serde(skip)]
    pub failure: Option<Arc<StageFailure>>,
}

impl Engine<'_> {
    /// Make the tests of the results that are there, of these stages or of all; nothing else is computed.
    ///
    /// # Errors
    /// `UnknownStage`; `Store` when the store does not read.
    pub fn test(&self, targets: &[String], cancel: &AtomicBool) -> Result<Vec<TestedStage>, EngineError> {
        let (store, pipeline) = (self.store, self.plan.pipeline());
        let shop =
            Shop { store, pipeline, runner: self.runner, clock: self.clock, no_wait: false, cancel, events: &|_| {} };
        let planned = self.plan_states(targets)?;
        let record_of = |name: &StageName| planned.iter().find(|stage| stage.name == *name)?.state.record();
        let is_wanted = |name: &StageName| targets.is_empty() || targets.iter().any(|target| target == name.as_str());
        let mut tested = Vec::new();
        for name in planned.iter().map(|planned| &planned.name).filter(|name| is_wanted(name)) {
            let Some(stage) = pipeline.stage(name).filter(|stage| !stage.tests.is_empty()) else { continue };
            let mut told = TestedStage { name: name.clone(), there: true, tests: Vec::new(), failure: None };
            match record_of(name) {
                None => told.there = false,
                Some(record) => {
                    let made = cases(stage, &record, &pipeline.sources, record_of)
                        .and_then(|cases| shop.test(stage, &record, &cases));
                    match made {
                        Ok(tests) => told.tests = tests,
                        Err(failure) => told.failure = Some(Arc::new(failure)),
                    }
                }
            }
            tested.push(told);
        }
        Ok(tested)
    }

    /// What is known of the tests of a result, one after the other; none for one that was not made yet. The inner error is
    /// that of a result that lacks a table which a test reads.
    ///
    /// # Errors
    /// Those of the store.
    pub fn known_tests(
        &self,
        stage: &Stage,
        record: &Record,
        record_of: impl Fn(&StageName) -> Option<Arc<Record>>,
    ) -> Result<Result<Vec<Option<TestReport>>, StageFailure>, StoreError> {
        let sources = &self.plan.pipeline().sources;
        match cases(stage, record, sources, record_of) {
            Ok(cases) => known(self.store, stage, sources, &cases).map(Ok),
            Err(failure) => Ok(Err(failure)),
        }
    }
}

impl Shop<'_> {
    /// The outcomes of a stage's tests: those that are known, and those that are made now. A test with the definition of
    /// another is not made twice.
    pub fn test(&self, stage: &Stage, record: &Record, cases: &[Case]) -> Result<Vec<TestReport>, StageFailure> {
        let sources = &self.pipeline.sources;
        let mut found: BTreeMap<StageKey, Result<Known, Arc<StageFailure>>> = BTreeMap::new();
        let mut open: Vec<(&Case, Attempt)> = Vec::new();
        let mut sorted: Vec<&Case> = cases.iter().collect();
        // Two runs that make the same tests take their locks in one order, or each would wait for the other.
        sorted.sort_by_key(|case| case.key);
        sorted.dedup_by_key(|case| case.key);
        for case in sorted {
            if let Some(record) = self.store.lookup(case.key)? {
                found.insert(case.key, Ok((Arc::new(record), true)));
                continue;
            }
            // A test is short, and another cell of this run may be at it: it is waited for also where a stage is not.
            let lock = Shop { no_wait: false, ..*self }.lock_key(&stage.name, case.key)?;
            match self.store.lookup(case.key)? {
                Some(record) => drop(found.insert(case.key, Ok((Arc::new(record), true)))),
                None => open.push((case, self.store.begin_locked(lock)?)),
            }
        }
        for (key, outcome) in self.make(stage, record, open)? {
            found.insert(key, outcome.map(|record| (Arc::new(record), false)).map_err(Arc::new));
        }
        let told = cases.iter().filter_map(|case| {
            let test = &stage.tests[case.at];
            Some(match found.get(&case.key)? {
                Ok((record, known)) => report(test, sources, record.clone(), *known),
                Err(failure) => broken(test, sources, case.key, failure.clone()),
            })
        });
        Ok(told.collect())
    }

    /// Makes tests and commits what came of them.
    fn make(&self, stage: &Stage, record: &Record, open: Vec<(&Case, Attempt)>) -> Result<Vec<Made>, StageFailure> {
        if open.is_empty() {
            return Ok(Vec::new());
        }
        let started = Instant::now();
        let tests: Vec<TestRun<'_>> = open
            .iter()
            .map(|(case, attempt)| TestRun { test: &stage.tests[case.at], tables: &case.tables, attempt })
            .collect();
        let job = TestJob { stage, record, tests: &tests, store: self.store, cancel: self.cancel };
        let verdicts = catch_unwind(AssertUnwindSafe(|| self.runner.test(&job))).unwrap_or_else(
            |panic: Box<dyn Any + Send>| Err(StageFailure::Panicked { message: panic_text(panic.as_ref()) }),
        )?;
        let seconds = started.elapsed().as_secs_f64();
        let mut made = Vec::with_capacity(open.len());
        for ((case, attempt), verdict) in open.into_iter().zip(verdicts) {
            let outcome = match verdict {
                Ok(verdict) => self.commit(case, record.key, attempt, verdict, seconds),
                Err(StageFailure::Interrupted) => return Err(StageFailure::Interrupted),
                Err(failure) => Err(failure),
            };
            made.push((case.key, outcome));
        }
        Ok(made)
    }

    fn commit(
        &self,
        case: &Case,
        about: StageKey,
        attempt: Attempt,
        verdict: Verdict,
        seconds: f64,
    ) -> Result<Record, StageFailure> {
        let Verdict { n_failed, rows, found } = verdict;
        let draft = RecordDraft {
            kind: key::TEST.to_owned(),
            stage_version: sluice_spec::stage::test::VERSION,
            leaves: case.leaves.clone(),
            outputs: rows.into_iter().collect(),
            metrics: BTreeMap::from([(FAILURES.to_owned(), n_failed as f64)]),
            facts: found.into_iter().map(|found| (FOUND.to_owned(), found)).collect(),
            about: Some(about),
            seconds,
            created_unix_ms: (self.clock)(),
            ..RecordDraft::default()
        };
        Ok(attempt.commit(draft)?.record().clone())
    }
}

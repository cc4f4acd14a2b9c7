//! Outcomes of data tests, for the verbs that tell them: from an engine's reports to lines, with the rows at fault read from
//! the store. Refuses to run a test.

use arrow::array::{AsArray, RecordBatch};
use sluice_engine::TestReport;
use sluice_spec::{Check, StageName};
use sluice_store::TestOutcome;

use crate::exit::{Exit, Failure};
use crate::render::columns::{Align, Columns};
use crate::render::paint::{Ink, Paint};
use crate::render::rows::rows;
use crate::render::tested::{Came, Faults, TestLine, failed};
use crate::session::{Found, Project, Session, quoted, store_failure};
use crate::tables::NamedOutput;

/// Rows at fault that are shown of a test.
const SHOWN: usize = 3;

/// The tests of one stage and how they came out.
pub struct Tested {
    pub stage: StageName,
    pub tests: Vec<TestReport>,
}

/// What is known of the tests of some results.
pub fn known(session: &Session, project: &Project, results: &[Found]) -> Result<Vec<Tested>, Failure> {
    let engine = session.engine(project);
    let record_of =
        |name: &StageName| results.iter().find(|found| found.stage == *name).map(|found| found.record.clone());
    let mut tested = Vec::new();
    for found in results {
        let Some(stage) = project.plan.pipeline().stage(&found.stage) else { continue };
        // A result that lacks what a test reads is one of an older pipeline.
        if let Ok(tests) = engine.known_tests(stage, &found.record, record_of).map_err(store_failure)? {
            let tests = tests.into_iter().flatten().collect();
            tested.push(Tested { stage: found.stage.clone(), tests });
        }
    }
    Ok(tested)
}

/// The rows at fault as tables, each named `STAGE.failed.TEST`, with their stages.
pub fn outputs(tested: &[Tested]) -> impl Iterator<Item = (&StageName, NamedOutput<'_>)> {
    let tests = tested.iter().flat_map(|Tested { stage, tests }| tests.iter().map(move |test| (stage, test)));
    tests.filter_map(|(stage, test)| Some((stage, NamedOutput { name: table_name(stage, test), output: test.rows()? })))
}

/// What the rows at fault are called.
pub fn table_name(stage: &StageName, test: &TestReport) -> String {
    format!("{stage}.failed.{}", test.name)
}

/// How a test came out, as a line has it.
pub fn came(test: &TestReport) -> Came {
    match test.outcome {
        TestOutcome::Passed => Came::Passed,
        TestOutcome::Warned => Came::Warned,
        TestOutcome::Failed => Came::Failed,
        TestOutcome::Broken => Came::Broken,
    }
}

/// The line of a test.
pub fn line(stage: &StageName, test: &TestReport) -> TestLine {
    let came = came(test);
    let found = if came == Came::Passed { test.found.clone().unwrap_or_default() } else { test.in_words() };
    TestLine { stage: stage.to_string(), test: test.name.clone(), came, found, place: test.place.clone() }
}

/// A test that did not pass, for stderr. With `brief` its rows are not shown: they were, when it was made.
pub fn told(
    session: &Session,
    project: &Project,
    stage: &StageName,
    test: &TestReport,
    brief: bool,
) -> Result<String, Failure> {
    let paint = session.world.err;
    let mut faults = Faults { rows: String::new(), command: None, kept: None };
    if let Some(output) = test.rows() {
        let query = format!("select * from {}", sql_name(stage, test));
        faults.command = Some(session.command(&format!("sql {}", quoted(&query)), project.named.as_deref()));
        faults.kept = output.n_rows().filter(|kept| *kept < test.failures);
        if !brief {
            let batches = session.store.read_table(output).map_err(store_failure)?;
            faults.rows = match test.check {
                "columns" => columns(project, stage, &batches, paint),
                _ => first_rows(&batches, session.world.columns.saturating_sub(2), paint)?,
            };
        }
    }
    Ok(failed(&line(stage, test), &faults, paint))
}

/// The table's name as a query has it: a stage of a matrix has a name that needs quotes.
fn sql_name(stage: &StageName, test: &TestReport) -> String {
    let plain = stage.as_str().chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let stage = if plain { stage.to_string() } else { format!("\"{stage}\"") };
    format!("{stage}.failed.{}", test.name)
}

fn first_rows(batches: &[RecordBatch], width: usize, paint: Paint) -> Result<String, Failure> {
    let mut room = SHOWN;
    let mut first = Vec::new();
    for batch in batches {
        let n = room.min(batch.num_rows());
        first.push(batch.slice(0, n));
        room -= n;
    }
    rows(&first, width, paint).map_err(|error| Failure::new(Exit::Failed, error))
}

/// The columns that are not as a contract has them, each with the place of its rule.
fn columns(project: &Project, stage: &StageName, batches: &[RecordBatch], paint: Paint) -> String {
    let pipeline = project.plan.pipeline();
    let tests = pipeline.stage(stage).map_or(&[][..], |stage| stage.tests.as_slice());
    let contract = tests.iter().find_map(|test| match &test.check {
        Check::Columns(contract) => Some(contract),
        _ => None,
    });
    let mut table = Columns::new(&[Align::Left; 4]);
    for batch in batches {
        let texts: Vec<_> = batch.columns().iter().filter_map(|column| column.as_string_opt::<i32>()).collect();
        let [column, expected, found] = texts.as_slice() else { continue };
        for row in 0..batch.num_rows() {
            let rule = contract.and_then(|contract| contract.rule(column.value(row)));
            let place = rule.map_or(String::new(), |rule| pipeline.sources.place(rule.place).to_string());
            table.row([
                (column.value(row).to_owned(), Ink::Name),
                (format!("expected {}", expected.value(row)), Ink::Plain),
                (format!("found {}", found.value(row)), Ink::Bad),
                (place, Ink::Dim),
            ]);
        }
    }
    table.render(paint)
}

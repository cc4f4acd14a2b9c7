//! `test`: makes the data tests of the results that are there, and tells how they came out. Computes no stage.

use sluice_engine::TestedStage;

use crate::args::Test;
use crate::exit::{Exit, Failure, Outcome};
use crate::interrupt;
use crate::output::{err, out};
use crate::render::failure;
use crate::render::tested::{Came, TestLine, outcomes};
use crate::selection::Wanted;
use crate::session::{Session, engine_failure};
use crate::tested::{came, line, told};
use crate::wire::exit_of;

pub fn run(session: &Session, args: &Test) -> Outcome {
    let (project, words) = session.project(&args.words)?;
    // A selection of nothing is no selection of everything.
    let Wanted::Stages(targets) = Wanted::of(session, &project, words, &args.exclude)? else { return Ok(Exit::Ok) };
    let cancel = interrupt::flag(|| err("stopping; outcomes that are known are kept\n"));
    let tested = session.engine(&project).test(&targets, &cancel).map_err(engine_failure)?;
    if session.global.json {
        tested.iter().for_each(|stage| out(format!("{}\n", serde_json::to_string(stage).unwrap_or_default())));
        return Ok(exit(&tested));
    }
    if !session.global.quiet {
        let lines: Vec<TestLine> = tested.iter().flat_map(lines).collect();
        out(outcomes(&lines, session.world.out));
    }
    for stage in &tested {
        for test in stage.tests.iter().filter(|test| came(test) != Came::Passed) {
            if came(test) != Came::Warned || !session.global.quiet {
                err(told(session, &project, &stage.name, test, false)?);
            }
        }
        if let Some(failed) = &stage.failure {
            let message = format!("the tests of stage `{}` cannot be made: {failed}", stage.name);
            err(failure::text(&Failure::new(exit_of(failed), message), session.world.err));
        }
    }
    Ok(exit(&tested))
}

fn lines(stage: &TestedStage) -> Vec<TestLine> {
    let TestedStage { name, there, tests, failure: _ } = stage;
    if *there {
        return tests.iter().map(|test| line(name, test)).collect();
    }
    let nothing = String::new;
    vec![TestLine { stage: name.to_string(), test: nothing(), came: Came::Absent, found: nothing(), place: nothing() }]
}

/// What broke, then what failed, then nothing.
fn exit(tested: &[TestedStage]) -> Exit {
    let of_tests = tested.iter().flat_map(|stage| &stage.tests).filter_map(|test| test.failure.as_ref());
    let mut broken = tested.iter().filter_map(|stage| stage.failure.as_ref()).chain(of_tests);
    let failed = tested.iter().flat_map(|stage| &stage.tests).any(|test| came(test) == Came::Failed);
    match broken.next() {
        Some(failure) => exit_of(failure),
        None if failed => Exit::Contract,
        None => Exit::Ok,
    }
}

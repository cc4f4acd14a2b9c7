//! `verify`: rows of results made again and held against what is stored.

use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sluice_engine::{Amount, Checked, Progress, VerifiedStage, VerifyOptions, VerifyReport};
use sluice_spec::StageName;

use crate::args::Verify;
use crate::exit::{Exit, Outcome};
use crate::interrupt;
use crate::output::{err, out};
use crate::render::verify::verify;
use crate::selection::Wanted;
use crate::session::{Session, engine_failure};
use crate::wire::exit_of;

/// What is made again if nobody says how much.
const SHARE: f64 = 0.01;

/// How often a check that takes long says how far it is.
const PACE: Duration = Duration::from_secs(5);

pub fn run(session: &Session, args: &Verify) -> Outcome {
    let Verify { words, exclude, recompute, rows, train, seed } = args;
    let (project, words) = session.project(words)?;
    let Wanted::Stages(targets) = Wanted::of(session, &project, words, exclude)? else { return Ok(Exit::Ok) };
    let amount = match (rows, recompute) {
        (Some(rows), _) => Amount::Rows(*rows),
        (None, share) => Amount::Share(share.unwrap_or(SHARE)),
    };
    let options = VerifyOptions { targets, amount, train: *train, seed: *seed };
    let cancel = interrupt::flag(|| err("stopping; nothing is kept of a check\n"));
    let told = Mutex::new(Instant::now());
    let is_told = !session.global.quiet && !session.global.json;
    let progress = |stage: &StageName, progress: Progress| {
        let Ok(mut told) = told.lock() else { return };
        if is_told && told.elapsed() >= PACE {
            *told = Instant::now();
            let Progress { done, total, unit, .. } = progress;
            let total = total.map_or(String::new(), |total| format!(" of {total}"));
            err(format!("checking {stage}: {done}{total} {unit}\n"));
        }
    };
    let report = session.engine(&project).verify(&options, &cancel, &progress).map_err(engine_failure)?;
    if session.global.json {
        out(format!("{}\n", serde_json::to_string(&report).unwrap_or_default()));
    } else {
        out(verify(&report, amount, session.world.out));
    }
    Ok(if cancel.load(Ordering::Relaxed) { Exit::Interrupted } else { exit(&report) })
}

/// A difference weighs more than a check that could not be made.
fn exit(report: &VerifyReport) -> Exit {
    let is_different = |stage: &VerifiedStage| matches!(stage.state, Checked::Done { different: 1.., .. });
    if report.stages.iter().any(is_different) {
        return Exit::Corrupt;
    }
    let failures = report.stages.iter().filter_map(|stage| match &stage.state {
        Checked::Failed { failure } => Some(exit_of(failure)),
        Checked::Done { .. } | Checked::Skipped { .. } => None,
    });
    failures.into_iter().next().unwrap_or(Exit::Ok)
}

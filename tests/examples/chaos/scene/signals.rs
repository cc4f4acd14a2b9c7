//! Runs that are asked to stop: Ctrl-C, `kill`, and Ctrl-C twice. Owns what a stopped run must say and leave.

use std::time::Duration;

use sluice_tests::running::{Running, Signal};

use crate::findings::{Findings, Stop};
use crate::look::look;
use crate::scene::{Ask, LONG, Scene, Stage, line_with, said};

pub const SCENE: Scene = Scene {
    name: "signals",
    what: "SIGINT and SIGTERM: exit 130, the rows that are safe are told, the next run goes on from them",
    play,
};

fn play(_: Ask) -> Result<Findings, Stop> {
    let mut findings = Findings::default();
    let stage = Stage::set(&LONG)?;
    for signal in [Signal::Interrupt, Signal::Terminate] {
        let place = format!("SIG{}", signal.name());
        let store = stage.store(&place);
        let mut run = Running::start(stage.job.command::<&str>(&store, "run", &[]));
        let begun = run.until(|| look(&store).is_ok_and(|seen| seen.n_rows() > 0));
        run.signal(signal);
        let ended = run.wait();
        let (text, seen) = (said(&ended), look(&store)?);
        let told = line_with(&text, "interrupted  ");
        findings.expect(begun && ended.code == Some(130), format!("{place}: ends with 130"));
        let kept = with_commas(seen.n_rows());
        findings.expect(
            told.contains(&format!("{kept} of 2,400 rows kept")),
            format!("{place}: {kept} rows are in the journal, and the summary says `{told}`"),
        );
        findings.take(&place, seen.faults.clone());
        findings.equal(format!("{place}: left behind"), seen.leftovers.clone(), Vec::new());
        let next = stage.job.run(&store);
        let reused = next.report()["stages"][1]["rows_reused"].as_u64().unwrap_or(0) as usize;
        findings.expect(reused >= seen.n_rows(), format!("{place}: the next run reuses {reused} rows"));
        stage.goes_on(&place, &store, &mut findings)?;
    }

    let store = stage.store("twice");
    let mut run = stage.job.start(&store);
    let begun = run.until(|| look(&store).is_ok_and(|seen| seen.n_rows() > 0));
    run.signal(Signal::Interrupt);
    // Two at once are one.
    run.until(|| false_for(Duration::from_millis(5)));
    run.signal(Signal::Interrupt);
    let ended = run.wait();
    findings.expect(begun && ended.code == Some(130), "SIGINT twice: ends with 130");
    stage.goes_on("SIGINT twice", &store, &mut findings)?;
    Ok(findings)
}

/// True after so long.
fn false_for(time: Duration) -> bool {
    std::thread::sleep(time);
    true
}

fn with_commas(n: usize) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|group| str::from_utf8(group).ok()).collect();
    groups.join(",")
}

//! Processes that outlive others: none may be left of a killed run, and one whose parent was killed is no harm. Owns who is
//! killed.

use std::process::{Command, Stdio};

use sluice_tests::running::{Running, Signal, children, members};

use crate::findings::{Findings, Stop};
use crate::job::digests;
use crate::look::look;
use crate::scene::{Ask, LONG, Scene, Stage};

pub const SCENE: Scene = Scene {
    name: "orphans",
    what: "a run starts no process, so none is left of it; one whose parent is killed holds its locks and is waited for",
    play,
};

fn play(_: Ask) -> Result<Findings, Stop> {
    if !std::path::Path::new("/proc/self/stat").is_file() {
        return Err(Stop::Skipped("there is no /proc".to_owned()));
    }
    let mut findings = Findings::default();
    let stage = Stage::set(&LONG)?;

    let store = stage.store("alone");
    let mut run = stage.job.start(&store);
    let process = run.id();
    let begun = run.until(|| look(&store).is_ok_and(|seen| seen.n_rows() > 0));
    findings.expect(begun && children(process).is_empty(), "a busy run has no child");
    findings.expect(members(process) == [process], "a busy run is alone in its group");
    run.signal(Signal::Kill);
    run.wait();
    findings.expect(members(process).is_empty(), "nothing is left of its group after kill -9");
    let rows = look(&store)?.n_rows();
    findings.expect(rows == look(&store)?.n_rows(), format!("nobody goes on writing: {rows} rows"));

    // A shell in front, as `just` is: it waits for its child, and the kill does not reach the child.
    let store = stage.store("behind-a-shell");
    let mut shell = Command::new("sh");
    shell.args(["-c", "\"$@\"; exit $?", "sh"]);
    let mut front = Running::start(stage.job.through(shell, &store, "run", &["--json"]));
    let group = front.id();
    front.until(|| look(&store).is_ok_and(|seen| seen.n_rows() > 0));
    let busy = children(group);
    Command::new("kill").args(["-KILL", &group.to_string()]).stderr(Stdio::null()).status()?;
    findings.expect(busy.len() == 1 && members(group).contains(&busy[0]), "the shell is killed, its child goes on");
    let mut second = stage.job.start(&store);
    let waits = second.find(|line| line.is("stage_waiting", "responses"));
    findings.expect(waits.is_some(), "a second run waits for the child instead of writing beside it");
    let ended = second.wait();
    findings.equal("digests of the second run", &digests(&ended)?, &stage.digests);
    front.wait();
    findings.expect(members(group).is_empty(), "the child has ended by itself");
    let seen = look(&store)?;
    findings.equal("a record a stage", seen.records.len(), stage.digests.len());
    stage.goes_on("afterwards", &store, &mut findings)?;
    Ok(findings)
}

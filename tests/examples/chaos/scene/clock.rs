//! Clocks that jump back. The program's clock is the machine's; `libfaketime` puts another before it where it is installed.
//! How engine and store take a clock that goes backwards is tested without it, at their own tests.

use std::fs;
use std::path::Path;
use std::process::Command;

use sluice_store::Store;
use sluice_tests::running::Running;

use crate::findings::{Findings, Stop};
use crate::look::look;
use crate::scene::{Ask, LONG, Scene, Stage, said, shortened};

pub const SCENE: Scene =
    Scene { name: "clock", what: "the clock jumps back 400 days between runs, and while one is under way", play };

/// Where distributions put it.
const LIBRARIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

fn play(_: Ask) -> Result<Findings, Stop> {
    let library = LIBRARIES.into_iter().find(|path| Path::new(path).is_file());
    let library = library.ok_or_else(|| Stop::Skipped("libfaketime is not installed".to_owned()))?;
    let mut findings = Findings::default();
    // Steady time goes on, as it does on a machine whose clock is set.
    let faked = |mut command: Command, fake: &[(&str, &str)]| {
        command.env("LD_PRELOAD", library).env("FAKETIME_DONT_FAKE_MONOTONIC", "1").envs(fake.iter().copied());
        Running::start(command)
    };

    let stage = Stage::set(&[])?;
    let store = stage.store("back");
    stage.job.set(&["stages.pairs.pair.min_margin=0.5"]).run(&store);
    let back = [("FAKETIME", "-400d")];
    let ended = faked(stage.job.command(&store, "run", &["--json"]), &back).wait();
    findings.expect(ended.code == Some(0), "a run 400 days before the last one ends with 0");
    for (verb, words) in [("why", &["pairs"][..]), ("status", &[]), ("plan", &["--exit-code"]), ("show", &["pairs"])] {
        let asked = faked(stage.job.command(&store, verb, words), &back).wait();
        findings.expect(
            asked.code == Some(0),
            format!("`{verb}` answers: {}", shortened(said(&asked).lines().next().unwrap_or(""))),
        );
    }
    let opened = Store::open(&store)?;
    let runs = opened.runs()?;
    let started: Vec<u64> =
        runs.iter().filter_map(|run| opened.run(*run).ok()?).map(|manifest| manifest.started_unix_ms).collect();
    findings.expect(started.len() == 2 && started[1] < started[0], "the second manifest is the older one by its clock");
    stage.goes_on("after the jump between runs", &store, &mut findings)?;

    let stage = Stage::set(&LONG)?;
    let store = stage.store("meanwhile");
    let file = stage.store("faketime");
    fs::write(&file, "+2d\n")?;
    let file_name = file.display().to_string();
    let fake = [("FAKETIME_TIMESTAMP_FILE", file_name.as_str()), ("FAKETIME_NO_CACHE", "1")];
    let mut run = faked(stage.job.command(&store, "run", &["--json"]), &fake);
    let begun = run.until(|| look(&store).is_ok_and(|seen| seen.n_rows() > 0));
    fs::write(&file, "-400d\n")?;
    let ended = run.wait();
    findings
        .expect(begun && ended.code == Some(0), "a run whose clock goes back 402 days between two rows ends with 0");
    stage.goes_on("after the jump within a run", &store, &mut findings)?;
    Ok(findings)
}

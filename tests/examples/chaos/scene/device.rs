//! Stores where they are not expected: on a file system that cannot be written to, on another device than the project, half
//! on one and half on another. Owns how they get there.

use std::fs;
use std::path::Path;
use std::process::Command;

use sluice_tests::running::{Ended, Running};
use tempfile::TempDir;

use crate::findings::{Findings, Stop};
use crate::look::look;
use crate::scene::{Ask, Scene, Stage, UNSHARE, line_with, may_mount, said, shortened};

pub const READ_ONLY: Scene = Scene {
    name: "read-only",
    what: "a store that cannot be written to: results are found, work is refused with its reason",
    play: read_only,
};

pub const ELSEWHERE: Scene = Scene {
    name: "other-device",
    what: "a store on another device than the project, and one that spans two",
    play: elsewhere,
};

/// A device that is another one on most machines.
const OTHER: &str = "/dev/shm";

fn read_only(_: Ask) -> Result<Findings, Stop> {
    may_mount()?;
    let stage = Stage::set(&[])?;
    let mut findings = Findings::default();
    let store = stage.store("sealed");
    stage.job.digests(&store)?;
    let before = look(&store)?;
    let sealed = |verb: &str, words: &[&str]| -> Ended {
        let mut unshare = Command::new(UNSHARE[0]);
        let script = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && exec \"$@\"";
        unshare.args(&UNSHARE[1..]).args(["sh", "-c", script]).arg(&store);
        Running::start(stage.job.through(unshare, &store, verb, words)).wait()
    };
    let hits = sealed("run", &["--json"]);
    findings.expect(hits.code == Some(0) && hits.report()["outcome"] == "hit", "a run with nothing to do ends with 0");
    for (verb, words) in [("plan", &[][..]), ("status", &[]), ("sql", &["select count(*) from pairs"])] {
        let asked = sealed(verb, words);
        findings.expect(asked.code == Some(0), format!("`{verb}` answers"));
    }
    let changed = sealed("run", &["--json", "--set", "stages.pairs.pair.ties=first"]);
    let text = said(&changed);
    let line = line_with(&text, "the store is read-only");
    let told = line.find("the store is read-only").map_or("", |at| &line[at..]);
    findings.expect(
        changed.code == Some(1) && !told.is_empty(),
        format!("work is refused with 1: {}", shortened(told.split('"').next().unwrap_or(""))),
    );
    let after = look(&store)?;
    findings.expect(before.records == after.records && before.rows == after.rows, "nothing in it has changed");
    findings.take("afterwards", after.faults);
    Ok(findings)
}

fn elsewhere(_: Ask) -> Result<Findings, Stop> {
    let other = TempDir::new_in(OTHER).map_err(|error| Stop::Skipped(format!("{OTHER}: {error}")))?;
    let stage = Stage::set(&[])?;
    if device(other.path())? == device(stage.project.path())? {
        return Err(Stop::Skipped(format!("{OTHER} is the device of the temporary folder")));
    }
    let mut findings = Findings::default();
    stage.goes_on("the whole store elsewhere", &other.path().join("store"), &mut findings)?;
    findings.saw("the whole store elsewhere: digests equal");
    // Someone has moved the large folders to a large disk.
    let store = stage.store("spread");
    fs::create_dir(&store)?;
    for folder in ["objects", "checkpoints"] {
        let there = other.path().join(folder);
        fs::create_dir(&there)?;
        std::os::unix::fs::symlink(&there, store.join(folder))?;
    }
    stage.goes_on("objects and checkpoints elsewhere", &store, &mut findings)?;
    findings.saw("objects and checkpoints elsewhere: digests equal");
    Ok(findings)
}

fn device(path: &Path) -> std::io::Result<u64> {
    Ok(std::os::unix::fs::MetadataExt::dev(&fs::metadata(path)?))
}

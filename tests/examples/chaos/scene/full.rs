//! Disks that are full: of a small file system, and of the size a file may have. Owns the sizes.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use sluice_tests::running::{Ended, Running};

use crate::findings::{Findings, Stop};
use crate::look::look;
use crate::scene::{Ask, Scene, Stage, line_with, play_inside, said, shortened, works};

pub const DISK: Scene = Scene {
    name: "disk-full",
    what: "a store on a file system that is too small, then large enough; the error names the file, the run goes on",
    play: disk,
};

pub const FILES: Scene = Scene {
    name: "file-limit",
    what: "no file may grow past a size, then they may; the error names the file, the run goes on",
    play: files,
};

/// Sizes in KiB; the whole store has 1.2 MiB.
const DISK_KB: [u32; 13] = [16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 256, 768, 1024];

/// Sizes in KiB; the largest file has some hundred.
const FILE_KB: [u32; 6] = [0, 1, 2, 8, 64, 256];

fn disk(ask: Ask) -> Result<Findings, Stop> {
    if !ask.inside {
        return play_inside(DISK.name, ask);
    }
    let stage = Stage::set(&[])?;
    let mut findings = Findings::default();
    for size in DISK_KB {
        let place = format!("{size} KiB");
        let store = stage.store(&format!("disk-{size}"));
        fs::create_dir(&store)?;
        mount(&store, &format!("size={size}k"))?;
        let ended = stage.job.run(&store);
        told(&place, &ended, &store, "no space left", &mut findings);
        findings.take(&place, look(&store)?.faults);
        mount(&store, "remount,size=64m")?;
        stage.goes_on(&place, &store, &mut findings)?;
    }
    Ok(findings)
}

fn mount(folder: &Path, options: &str) -> Result<(), Box<dyn Error>> {
    let status = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(folder).status()?;
    if status.success() { Ok(()) } else { Err(format!("mount -o {options} ended with {status}").into()) }
}

/// The limit of the shell holds for what it starts. The signal that comes with it is ignored, as programs that want to tell
/// do, and what is ignored stays ignored.
fn files(_: Ask) -> Result<Findings, Stop> {
    works("bash", &["-c", "ulimit -f 1"]).map_err(Stop::Skipped)?;
    let stage = Stage::set(&[])?;
    let mut findings = Findings::default();
    for size in FILE_KB {
        let place = format!("{size} KiB");
        let store = stage.store(&format!("files-{size}"));
        let mut bash = Command::new("bash");
        bash.args(["-c", &format!("trap '' XFSZ; ulimit -f {size}; exec \"$@\""), "bash"]);
        let ended = Running::start(stage.job.through(bash, &store, "run", &["--json"])).wait();
        told(&place, &ended, &store, "file too large", &mut findings);
        findings.take(&place, look(&store)?.faults);
        stage.goes_on(&place, &store, &mut findings)?;
    }
    Ok(findings)
}

/// A run that could not write says so, and where. What it says stands in the last line, the report, or in an event.
fn told(place: &str, ended: &Ended, store: &Path, words: &str, findings: &mut Findings) {
    let (text, folder) = (said(ended), store.display().to_string());
    let line = line_with(&text, words);
    if ended.code == Some(1) && line.contains(&folder) {
        let event: Value = serde_json::from_str(line).unwrap_or(Value::Null);
        let error = if event["error"].is_object() { &event["error"] } else { &event };
        let causes = error["causes"].as_array().map(Vec::as_slice).unwrap_or_default().iter();
        let told: Vec<&str> =
            [&error["message"], &error["error"]].into_iter().chain(causes).filter_map(Value::as_str).collect();
        let stage = event["stage"].as_str().unwrap_or("the run");
        findings.saw(format!("{place}: {stage}: {}", shortened(&told.join(": ").replace(&folder, "STORE"))));
    } else {
        findings.fault(format!("{place}: ended with {:?} and said {}", ended.code, shortened(text.trim())));
    }
}

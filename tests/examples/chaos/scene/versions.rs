//! A store that a newer program has written to: version numbers are raised in its files. What is newer is refused or passed
//! over, and never damaged. Owns the edits.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sluice_store::Store;

use crate::findings::{Findings, Stop};
use crate::scene::{Ask, Scene, Stage, copy_folder, said, shortened};

pub const SCENE: Scene = Scene {
    name: "versions",
    what: "files of a newer program in the store: refused with a reason or passed over, and left as they are",
    play,
};

fn play(_: Ask) -> Result<Findings, Stop> {
    let stage = Stage::set(&[])?;
    let mut findings = Findings::default();
    let calm = stage.store("calm");

    // The layout as a whole.
    let store = stage.store("newer-format");
    copy_folder(&calm, &store)?;
    fs::write(store.join("format"), "sluice-store 999\n")?;
    let before = contents(&store)?;
    for verb in ["run", "plan", "status"] {
        let ended = sluice_tests::running::Running::start(stage.job.command::<&str>(&store, verb, &[])).wait();
        let text = said(&ended);
        findings.expect(
            ended.code == Some(2) && text.contains("use the newer program"),
            format!(
                "format 999, `{verb}`: {}",
                shortened(&text.lines().next().unwrap_or("").trim().replace(&store.display().to_string(), "STORE"))
            ),
        );
    }
    findings.expect(contents(&store)? == before, "format 999: no byte of the store has changed");

    // A record.
    let store = stage.store("newer-record");
    copy_folder(&calm, &store)?;
    let record = first(&store.join("records"))?;
    let raised = raised(&record, &store)?;
    let ended = stage.job.run(&store);
    let text = said(&ended);
    let told = text.lines().find(|line| line.contains("use the newer program")).unwrap_or("");
    findings.expect(
        ended.code == Some(2) && !told.is_empty(),
        format!("a record of version 999 ends a run with {:?}: {}", ended.code, shortened(error_of(told).trim())),
    );
    findings.expect(fs::read(&record)? == raised, "the record of version 999 is as it was");

    // A journal: another version has another name, and both go on beside each other.
    let store = stage.store("newer-rows");
    copy_folder(&calm, &store)?;
    let scope = first(&store.join("rows"))?;
    let newer = [("0.v2.keys", b"what a newer program writes".as_slice()), ("0.v2.rows", b"to it")];
    for (name, bytes) in newer {
        fs::write(scope.join(name), bytes)?;
    }
    stage.goes_on("rows of version 2", &store, &mut findings)?;
    for (name, bytes) in newer {
        findings.expect(fs::read(scope.join(name))? == bytes, format!("{name} is as it was"));
    }

    // A manifest: history that cannot be read explains nothing, and is in nobody's way.
    let store = stage.store("newer-run");
    copy_folder(&calm, &store)?;
    let run = store.join("runs/r1.json");
    let text = "{\"schema_version\": 999, \"run\": \"r1\", \"told\": \"in another form\"}\n";
    fs::write(&run, text)?;
    stage.ends_equal("a manifest of version 999", &store, &mut findings);
    findings.expect(fs::read_to_string(&run)? == text, "the manifest of version 999 is as it was");
    Ok(findings)
}

/// Raises the version in a record and its check. The digest of the line is the store's own.
fn raised(record: &Path, store: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    let text = fs::read_to_string(record)?;
    let line = text.lines().next().unwrap_or_default();
    let newer = line.replacen("\"schema_version\":1,", "\"schema_version\":999,", 1);
    if newer == line {
        return Err(format!("{} does not begin with its version", record.display()).into());
    }
    let file = store.join("line");
    fs::write(&file, &newer)?;
    let check = Store::open(store)?.file_digest(&file)?;
    fs::remove_file(&file)?;
    let bytes = format!("{newer}\n{{\"blake3\":\"{check}\"}}\n").into_bytes();
    fs::write(record, &bytes)?;
    Ok(bytes)
}

/// The error in a line of JSON, or the line.
fn error_of(line: &str) -> String {
    let event: Value = serde_json::from_str(line).unwrap_or(Value::Null);
    event["error"].as_str().map_or_else(|| line.to_owned(), str::to_owned)
}

/// The first entry of a folder by name.
fn first(folder: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        paths.push(entry?.path());
    }
    paths.sort();
    paths.into_iter().next().ok_or_else(|| format!("{} is empty", folder.display()).into())
}

/// The bytes of every file.
fn contents(folder: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>, Box<dyn Error>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(contents(&path)?);
        } else {
            found.insert(path.clone(), fs::read(&path)?);
        }
    }
    Ok(found)
}

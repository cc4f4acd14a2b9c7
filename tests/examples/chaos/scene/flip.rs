//! One flipped byte in each kind of stored file: `fsck` names the file, a run that reads it makes it again, and what a
//! repair took away is made again by the next run. Owns which byte of which file, and what reads it.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use sluice_store::{Record, StageKey, Store};
use sluice_tests::running::{Ended, Running, Signal};

use crate::dice::Dice;
use crate::findings::{Findings, Stop};
use crate::job::{Digests, Job, digests};
use crate::look::look;
use crate::scene::{Ask, Scene, Stage, copy_folder, said, shortened};

pub const SCENE: Scene = Scene {
    name: "flip",
    what: "one flipped byte in each kind of stored file: found, named, and healed by making it again",
    play,
};

/// A training that is caught between two saves.
const SAVING: [&str; 2] = ["stages.tuned.train.epochs=60", "stages.tuned.train.checkpoint={every_steps: 2}"];

/// A kind of stored file.
struct Kind {
    name: &'static str,
    file: PathBuf,
    /// Whether a flipped byte in it is damage; a lock file has no content, a cache may be dropped.
    matters: bool,
    /// A job that has to read it.
    reader: Reader,
}

/// A job and what it comes to where nothing is damaged.
#[derive(Clone)]
struct Reader {
    job: Job,
    digests: Digests,
}

fn play(ask: Ask) -> Result<Findings, Stop> {
    let mut findings = Findings::default();
    let mut dice = Dice::new(ask.seed, 4);
    let stage = Stage::set(&[])?;
    let base = stage.store("base");
    for kind in kinds(&stage, &base)? {
        check(&stage, &base, &kind, &mut dice, &mut findings)?;
    }
    let stage = Stage::set(&SAVING)?;
    let base = stage.store("base");
    let reader = Reader { job: stage.job.clone(), digests: stage.digests.clone() };
    for file in unfinished(&stage, &base)? {
        let kind = Kind { name: "saved training", file, matters: true, reader: reader.clone() };
        check(&stage, &base, &kind, &mut dice, &mut findings)?;
    }
    Ok(findings)
}

/// Two copies of a store are damaged alike: one is read by a run, the other is looked at and repaired before.
fn check(
    stage: &Stage,
    base: &Path,
    kind: &Kind,
    dice: &mut Dice,
    findings: &mut Findings,
) -> Result<(), Box<dyn Error>> {
    let inside = kind.file.strip_prefix(base)?;
    let (read, repaired) = (stage.store("read"), stage.store("repaired"));
    let length = fs::metadata(&kind.file)?.len() as usize;
    let (at, bit) = (dice.below(length.max(1)), dice.below(8));
    for store in [&read, &repaired] {
        copy_folder(base, store)?;
        flip(&store.join(inside), at, bit)?;
    }
    let place = format!("{}, byte {at} of {length}", kind.name);

    let looked = fsck(stage, &repaired, &[]);
    let is_named = looked.lines.iter().any(|line| {
        let named = line.event()["path"].as_str().map(PathBuf::from);
        named.is_some_and(|path| repaired.join(inside).ends_with(&path) || repaired.join(inside).starts_with(&path))
    });
    let told = if is_named { "named by fsck" } else { "not named by fsck" };
    if kind.matters && !(is_named && looked.code == Some(4)) {
        findings.fault(format!("{place}: fsck ended with {:?}: {}", looked.code, shortened(said(&looked).trim())));
    }

    // The format file says whether this is a store at all: without it nothing is read.
    let ended = kind.reader.job.run(&read);
    let healed = digests(&ended).is_ok_and(|found| found == kind.reader.digests);
    let refused = kind.name == "format" && ended.code == Some(2) && said(&ended).contains("format");
    if !healed && !refused {
        findings.fault(format!("{place}: a run that reads it ended with {:?}: {}", ended.code, last(&ended)));
    }
    let run = if refused { "a run refuses the store" } else { "a run that reads it ends with equal digests" };

    fsck(stage, &repaired, &["--repair"]);
    let after = fsck(stage, &repaired, &[]);
    if after.code != Some(0) {
        findings.fault(format!("{place}: fsck after the repair ended with {:?}: {}", after.code, last(&after)));
    }
    match kind.reader.job.digests(&repaired) {
        Ok(found) => findings.equal(format!("{place}: digests after the repair"), &found, &kind.reader.digests),
        Err(error) => findings.fault(format!("{place}: after the repair: {error}")),
    }
    findings.take(format!("{place}: after the repair"), look(&repaired)?.faults);
    findings.saw(format!("{place}: {told}; {run}; so does one after `fsck --repair`"));
    for store in [read, repaired] {
        fs::remove_dir_all(store)?;
    }
    Ok(())
}

fn last(ended: &Ended) -> String {
    shortened(said(ended).trim().lines().last().unwrap_or_default())
}

fn fsck(stage: &Stage, store: &Path, words: &[&str]) -> Ended {
    Running::start(stage.job.bare(store, "fsck", &[words, &["--json"]].concat())).wait()
}

/// Flips a bit, whatever the file's mode.
fn flip(file: &Path, at: usize, bit: usize) -> Result<(), Box<dyn Error>> {
    let mut bytes = fs::read(file)?;
    match bytes.get_mut(at) {
        Some(byte) => *byte ^= 1 << bit,
        None => bytes.push(1 << bit),
    }
    // A new file in its place: the old one may be read-only.
    fs::remove_file(file)?;
    Ok(fs::write(file, bytes)?)
}

/// A complete store with one file of every kind, and the files.
fn kinds(stage: &Stage, base: &Path) -> Result<Vec<Kind>, Box<dyn Error>> {
    stage.job.digests(base)?;
    let tagged = Running::start(stage.job.bare(base, "tag", &["gold", "r1"])).wait();
    if tagged.code != Some(0) {
        return Err(format!("tag ended with {:?}: {}", tagged.code, said(&tagged)).into());
    }
    let store = Store::open(base)?;
    let record = |kind: &str| -> Result<Record, Box<dyn Error>> {
        for entry in fs::read_dir(base.join("records"))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let key: StageKey = name.trim_end_matches(".json").parse()?;
            if let Some(record) = store.record(key)?.filter(|record| record.kind == kind) {
                return Ok(record);
            }
        }
        Err(format!("no record of a {kind} stage").into())
    };
    let (scores, tuned) = (record("score")?, record("train")?);
    let record_file = base.join("records").join(format!("{}.json", scores.key));
    let divergence = base.join("divergences").join(format!("{}.1.json", scores.key));
    fs::copy(&record_file, &divergence)?;
    let checkpoint = tuned.outputs.first().ok_or("a training makes a checkpoint")?;
    let checkpoint = store.checkpoint_path(checkpoint)?;
    let table = store.table_path(scores.outputs.first().ok_or("scoring makes a table")?)?;
    let scope = scores.row_scopes.as_ref().and_then(|scopes| scopes.first()).ok_or("scoring has a row journal")?;
    let journal = base.join("rows").join(scope.to_string());

    let reader = |set: &str| -> Result<Reader, Box<dyn Error>> {
        let job = if set.is_empty() { stage.job.clone() } else { stage.job.set(&[set]) };
        let fresh = stage.store("fresh");
        let digests = job.digests(&fresh)?;
        fs::remove_dir_all(fresh)?;
        Ok(Reader { job, digests })
    };
    let again = reader("")?;
    let pairs = reader("stages.pairs.pair.min_margin=0.001")?;
    let report = reader("stages.report.evaluate.resamples=21")?;
    let samples = reader("stages.responses.sample.n=4")?;
    let kind = |name, file: PathBuf, matters, reader: &Reader| Kind { name, file, matters, reader: reader.clone() };
    Ok(vec![
        kind("table", table, true, &pairs),
        kind("checkpoint weights", checkpoint.join("model.safetensors"), true, &report),
        kind("checkpoint config", checkpoint.join("config.json"), true, &report),
        kind("record", record_file, true, &again),
        kind("divergence", divergence, true, &again),
        kind("journal keys", journal.join("0.v1.keys"), true, &samples),
        kind("journal rows", journal.join("0.v1.rows"), true, &samples),
        kind("run manifest", base.join("runs/r1.json"), true, &again),
        kind("tag", base.join("tags/gold.json"), true, &again),
        kind("stat cache", base.join("stat-cache.json"), false, &again),
        kind("format", base.join("format"), true, &again),
        kind("lock", base.join("locks").join(scores.key.to_string()), false, &again),
    ])
}

/// A store whose training was killed after a save, and the files of the save.
fn unfinished(stage: &Stage, base: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut run = stage.job.start(base);
    let resume = base.join("resume");
    // The head of a save comes last.
    let heads = || fs::read_dir(&resume).into_iter().flatten().flatten().map(|key| key.path().join("head.json"));
    let has_save = || heads().any(|head| head.is_file());
    if !run.until(has_save) {
        return Err("a training of some hundred steps saves nothing".into());
    }
    run.signal(Signal::Kill);
    run.wait();
    let mut files = Vec::new();
    let mut waiting = vec![resume];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() { waiting.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    Ok(files)
}

//! The rounds: a run is killed at a random moment, the store is looked at, and the next round goes on from there, until a
//! run gets to its end; then its digests are compared and the next lap begins with an empty store.
//!
//! Owns where the moments lie. A moment is so long after an event of a stage that is not done yet, so that no stage is
//! spared because it is short, and many moments lie at the end of a stage, where results are made public.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;
use sluice_tests::running::{Ended, Line, Next, Signal, members};
use tempfile::TempDir;

use crate::dice::Dice;
use crate::findings::{Findings, Stop};
use crate::job::{Digests, Job, Size, digests};
use crate::look::{Seen, look};

pub const WHAT: &str = "kill -9 at random moments; nothing is lost and the digests are those of an uninterrupted run";

/// A run that says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(300);

pub fn rounds(size: Size, n_rounds: usize, seed: u64) -> Result<Findings, Stop> {
    let folder = TempDir::new()?;
    let job = Job::tiny(size);
    let calm = Calm::watch(&job, &folder)?;
    println!("  uninterrupted: {calm}");
    let mut lap = Lap::new(&folder, 1);
    let mut tally = Tally::default();
    let mut findings = Findings::default();
    let mut dice = Dice::new(seed, 1);
    while tally.n_kills < n_rounds {
        let moment = Moment::choose(&calm, &lap.unfinished(&calm), &mut dice);
        let round = Round::play(&job, &lap.store, &moment)?;
        if let Some(ended) = &round.ended {
            lap.close(&job, &calm, ended, &mut findings)?;
            tally.n_laps += 1;
            lap = Lap::new(&folder, lap.number + 1);
        } else {
            tally.count(&round.heard);
            lap.look(&job, tally.n_kills, &moment, &round.heard, &mut findings)?;
        }
    }
    lap.close(&job, &calm, &job.run(&lap.store), &mut findings)?;
    tally.n_laps += 1;
    println!("  {tally}");
    Ok(findings)
}

/// The run nobody disturbs.
struct Calm {
    digests: Digests,
    /// By stage, in plan order: seconds it took.
    stages: Vec<(String, Duration)>,
    total: Duration,
}

impl Calm {
    fn watch(job: &Job, folder: &TempDir) -> Result<Calm, Box<dyn Error>> {
        let store = folder.path().join("calm");
        let ended = job.run(&store);
        let digests = digests(&ended)?;
        let mut started = BTreeMap::new();
        let mut stages = Vec::new();
        for line in &ended.lines {
            let event = line.event();
            let Some(stage) = event["stage"].as_str().map(str::to_owned) else { continue };
            if event["event"] == "stage_started" {
                started.insert(stage, line.at);
            } else if event["event"] == "stage_finished"
                && let Some(at) = started.get(&stage)
            {
                stages.push((stage, line.at.saturating_sub(*at)));
            }
        }
        let seen = look(&store)?;
        if let Some(fault) = seen.faults.first() {
            return Err(format!("the uninterrupted run left this: {fault}").into());
        }
        fs::remove_dir_all(&store)?;
        Ok(Calm { digests, stages, total: Duration::from_secs_f64(ended.seconds) })
    }
}

impl fmt::Display for Calm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stages: Vec<String> = self.stages.iter().map(|(stage, took)| format!("{stage} {}", short(*took))).collect();
        write!(f, "{} ({})", short(self.total), stages.join(", "))
    }
}

/// When a run is killed.
enum Moment {
    /// So long after the process was started.
    Start(Duration),
    /// So long after a stage starts.
    In(String, Duration),
    /// So long after a stage is done.
    Behind(String, Duration),
}

impl Moment {
    /// Half of the moments lie anywhere within a stage, a quarter at its end, the rest behind it or at the very start.
    fn choose(calm: &Calm, unfinished: &[(String, Duration)], dice: &mut Dice) -> Moment {
        const COMMIT: Duration = Duration::from_millis(25);
        const SOON: Duration = Duration::from_millis(40);
        let Some((stage, took)) = dice.pick(unfinished).cloned() else { return Moment::Start(dice.up_to(calm.total)) };
        match dice.below(20) {
            0..10 => Moment::In(stage, dice.up_to(took.mul_f64(1.1))),
            10..15 => Moment::In(stage, took.saturating_sub(COMMIT / 2) + dice.up_to(COMMIT)),
            15..18 => Moment::Behind(stage, dice.soon(SOON)),
            _ => Moment::Start(dice.up_to(SOON)),
        }
    }

    /// Whether a line is what it waits for, and how long it is after it.
    fn after(&self, line: &Line) -> Option<Duration> {
        match self {
            Moment::Start(_) => None,
            Moment::In(stage, delay) => line.is("stage_started", stage).then_some(*delay),
            Moment::Behind(stage, delay) => line.is("stage_finished", stage).then_some(*delay),
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Moment::Start(delay) => write!(f, "{} after the start", short(*delay)),
            Moment::In(stage, delay) => write!(f, "{} into {stage}", short(*delay)),
            Moment::Behind(stage, delay) => write!(f, "{} after {stage}", short(*delay)),
        }
    }
}

/// A duration in four characters or so.
fn short(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1000.0;
    if ms < 10.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }
}

/// One run, killed or not.
struct Round {
    heard: Heard,
    /// None for one that was killed.
    ended: Option<Ended>,
}

impl Round {
    fn play(job: &Job, store: &std::path::Path, moment: &Moment) -> Result<Round, Box<dyn Error>> {
        let mut run = job.start(store);
        let patience = Instant::now() + PATIENCE;
        let mut due = if let Moment::Start(delay) = moment { Some(Instant::now() + *delay) } else { None };
        let mut lines = Vec::new();
        loop {
            match run.next(due.unwrap_or(patience)) {
                Next::Line(line) => {
                    if due.is_none() {
                        due = moment.after(&line).map(|delay| Instant::now() + delay);
                    }
                    lines.push(line);
                }
                Next::Over => {
                    let mut ended = run.wait();
                    ended.lines.splice(0..0, lines);
                    return Ok(Round { heard: Heard::of(&ended.lines), ended: Some(ended) });
                }
                Next::TimeUp if due.is_none() => {
                    run.signal(Signal::Kill);
                    return Err(format!("a run said nothing for {} s", PATIENCE.as_secs()).into());
                }
                Next::TimeUp => {
                    let group = run.id();
                    let ended = run.kill();
                    let alive = members(group);
                    if !alive.is_empty() {
                        return Err(format!("processes {alive:?} have outlived the kill of their group").into());
                    }
                    lines.extend(ended.lines.iter().cloned());
                    let heard = Heard::of(&lines);
                    // It may have been over before the signal came.
                    let over = ended.code.is_some();
                    return Ok(Round { heard, ended: over.then_some(Ended { lines, ..ended }) });
                }
            }
        }
    }
}

/// What the events of a run say.
#[derive(Default)]
struct Heard {
    hits: Vec<String>,
    /// Stages that found rows or steps of an earlier run, with how many of how many.
    went_on: Vec<(String, u64, u64)>,
    /// Stages that were computed to their end.
    finished: Vec<String>,
    /// The stages that were under way at the end.
    running: Vec<String>,
}

impl Heard {
    fn of(lines: &[Line]) -> Heard {
        let mut heard = Heard::default();
        let mut told = Vec::new();
        for event in lines.iter().map(Line::event) {
            let stage = event["stage"].as_str().unwrap_or_default().to_owned();
            match event["event"].as_str() {
                Some("stage_hit") => heard.hits.push(stage),
                Some("stage_started") => heard.running.push(stage),
                // The first one says where it begins.
                Some("stage_progress") if !told.contains(&stage) => {
                    told.push(stage.clone());
                    heard.begin(stage, &event);
                }
                Some("stage_finished") => {
                    heard.running.retain(|running| *running != stage);
                    heard.finished.push(stage);
                }
                _ => {}
            }
        }
        heard
    }

    fn begin(&mut self, stage: String, event: &Value) {
        let (done, total) = (event["done"].as_u64().unwrap_or(0), event["total"].as_u64().unwrap_or(0));
        // Stages that tell of nothing else tell once, at their end.
        if done > 0 && done < total {
            self.went_on.push((stage, done, total));
        }
    }

    /// What this run took over from those before it.
    fn reuse(&self) -> String {
        let mut parts = Vec::new();
        if !self.hits.is_empty() {
            parts.push(format!("{} reused", self.hits.join(" ")));
        }
        parts.extend(self.went_on.iter().map(|(stage, done, total)| format!("{stage} from {done}/{total}")));
        if parts.is_empty() { "nothing to reuse".to_owned() } else { parts.join(", ") }
    }

    fn place(&self) -> String {
        if self.running.is_empty() { "between stages".to_owned() } else { self.running.join("+") }
    }
}

/// A store from empty to complete.
struct Lap {
    number: usize,
    store: PathBuf,
    done: Vec<String>,
    seen: Seen,
}

impl Lap {
    fn new(folder: &TempDir, number: usize) -> Lap {
        Lap { number, store: folder.path().join(format!("lap-{number}")), done: Vec::new(), seen: Seen::default() }
    }

    fn unfinished(&self, calm: &Calm) -> Vec<(String, Duration)> {
        calm.stages.iter().filter(|(stage, _)| !self.done.contains(stage)).cloned().collect()
    }

    /// Looks at the store after a kill, and prints the round's line.
    fn look(
        &mut self,
        job: &Job,
        number: usize,
        moment: &Moment,
        heard: &Heard,
        findings: &mut Findings,
    ) -> Result<(), Box<dyn Error>> {
        let place = format!("round {number}, killed {moment}");
        let seen = look(&self.store)?;
        findings.take(&place, seen.lost_since(&self.seen));
        findings.take(&place, seen.faults.clone());
        let plan = job.plan(&self.store).unwrap_or_else(|error| {
            findings.fault(format!("{place}: {error}"));
            Vec::new()
        });
        let hits: Vec<String> = plan.into_iter().filter(|(_, state)| state == "hit").map(|(stage, _)| stage).collect();
        for stage in heard.hits.iter().chain(&heard.finished).filter(|stage| !hits.contains(stage)) {
            findings.fault(format!("{place}: {stage} was done, and has no result any more"));
        }
        println!(
            "  {number:>3}  lap {:<2}  {:<26}  in {:<14}  rows {:>4} -> {:<4}  stages {} -> {}  {}",
            self.number,
            moment.to_string(),
            heard.place(),
            self.seen.n_rows(),
            seen.n_rows(),
            self.done.len(),
            hits.len(),
            heard.reuse(),
        );
        (self.done, self.seen) = (hits, seen);
        Ok(())
    }

    /// Looks at the store after a run that came to its end.
    fn close(&self, job: &Job, calm: &Calm, ended: &Ended, findings: &mut Findings) -> Result<(), Box<dyn Error>> {
        let place = format!("lap {}", self.number);
        let n_before = findings.faults().len();
        match digests(ended) {
            Ok(found) => findings.equal(format!("{place}: digests"), &found, &calm.digests),
            Err(error) => findings.fault(format!("{place}: {error}")),
        }
        let seen = look(&self.store)?;
        findings.take(&place, seen.lost_since(&self.seen));
        findings.take(&place, seen.faults.clone());
        let divergences = fs::read_dir(self.store.join("divergences"))?.count();
        findings.equal(format!("{place}: divergences"), divergences, 0);
        let open: Vec<_> = job.plan(&self.store)?.into_iter().filter(|(_, state)| state != "hit").collect();
        findings.equal(format!("{place}: stages that would run again"), open, Vec::new());
        println!(
            "       lap {:<2}  to its end: {}; rows {} -> {}; {} left behind; digests {}",
            self.number,
            Heard::of(&ended.lines).reuse(),
            self.seen.n_rows(),
            seen.n_rows(),
            seen.leftovers.len(),
            if findings.faults().len() == n_before { "equal" } else { "NOT equal, or worse" },
        );
        fs::remove_dir_all(&self.store)?;
        Ok(())
    }
}

/// How often what was hit.
#[derive(Default)]
struct Tally {
    n_kills: usize,
    n_laps: usize,
    places: BTreeMap<String, usize>,
}

impl Tally {
    fn count(&mut self, heard: &Heard) {
        self.n_kills += 1;
        *self.places.entry(heard.place()).or_default() += 1;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places: Vec<String> = self.places.iter().map(|(place, n)| format!("{place} {n}")).collect();
        write!(f, "{} kills in {} laps: {}", self.n_kills, self.n_laps, places.join(", "))
    }
}

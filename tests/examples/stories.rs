//! `just stories`: four things a user does, as a terminal shows them: new prompts among old ones, more answers a prompt,
//! another rule of pairing, a run that is killed and goes on. Every answer is the program's own.
//!
//! Owns the project of the stories and what is changed in it between two calls.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use sluice_store::{RowScope, Store};
use sluice_tests::running::{Running, Signal};
use sluice_tests::{Project, binary, workspace};

const FILE: &str = "pipelines/story.yaml";

const PIPELINE: &str = "\
version: 1
models:
  policy: data/tiny/policy
  reward: data/tiny/reward
stages:
  prompts:
    ingest: { from: prompts/*.jsonl, split: { heldout: 0.1 } }
  responses:
    sample: { prompts: prompts, model: policy, n: 3, temperature: 0.8, max_new_tokens: 48, max_batch: 8, seed: 1 }
  scores:
    score: { responses: responses, model: reward }
  pairs:
    pair: { scores: scores, ties: drop }
  tuned:
    train:
      pairs: pairs
      model: policy
      objective: { simpo: { beta: 2.5, gamma_beta_ratio: 0.5 } }
      learning_rate: 1.0e-4
      epochs: 2
      batch_size: 8
      checkpoint: { every_steps: 4 }
  report:
    evaluate: { prompts: prompts, candidate: tuned, baseline: policy, judge: reward, check: last_sentence, seed: 1 }
";

/// Prompts of the first day and of the second.
const N_PROMPTS: [usize; 2] = [100, 20];

/// A stage that is caught in the middle.
#[derive(Clone, Copy)]
enum Caught {
    Rows,
    Steps,
}

fn main() -> Result<(), Box<dyn Error>> {
    let story = Story::begin()?;
    story.title("A first run");
    story.shell(&["run", FILE])?;

    story.title("New prompts among old ones");
    story.write_prompts(1)?;
    story.tell("20 prompts more are in prompts/day-2.jsonl");
    story.shell(&["run", "prompts", "--quiet"])?;
    story.shell(&["plan"])?;
    story.shell(&["run"])?;

    story.title("Five answers a prompt instead of three");
    story.edit("n: 3", "n: 5");
    story.shell(&["plan"])?;
    story.shell(&["run"])?;

    story.title("Another rule of pairing");
    story.edit("ties: drop", "ties: drop, min_margin: 0.2");
    story.shell(&["plan"])?;
    story.shell(&["why", "pairs"])?;
    story.shell(&["run"])?;

    story.title("A run that is killed, twice, and goes on");
    story.edit("max_batch: 8, seed: 1", "max_batch: 8, seed: 2");
    story.shell(&["plan"])?;
    story.killed(Caught::Rows)?;
    story.shell(&["plan"])?;
    story.killed(Caught::Steps)?;
    story.shell(&["plan"])?;
    story.shell(&["run"])?;
    story.shell(&["run"])?;
    story.shell(&["runs"])
}

/// The project, as a user has it.
struct Story {
    project: Project,
    prompts: Vec<String>,
}

impl Story {
    fn begin() -> Result<Story, Box<dyn Error>> {
        let project = Project::new();
        project.write(FILE, PIPELINE);
        std::os::unix::fs::symlink(workspace().join("data"), project.path().join("data"))?;
        let story = Story { prompts: prompts()?, project };
        story.write_prompts(0)?;
        Ok(story)
    }

    /// The prompts of a day.
    fn write_prompts(&self, day: usize) -> Result<(), Box<dyn Error>> {
        let before: usize = N_PROMPTS[..day].iter().sum();
        let rows = self.prompts.get(before..before + N_PROMPTS[day]).ok_or("the task set has too few prompts")?;
        self.project.write(&format!("prompts/day-{}.jsonl", day + 1), &rows.concat());
        Ok(())
    }

    fn title(&self, text: &str) {
        println!("\n## {text}\n");
    }

    fn tell(&self, text: &str) {
        println!("# {text}");
    }

    fn edit(&self, old: &str, new: &str) {
        self.project.edit(FILE, old, new);
        self.tell(&format!("in {FILE}: `{old}` becomes `{new}`"));
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(words).current_dir(self.project.path()).env("SLUICE_COMMAND", "sluice").env("COLUMNS", "110");
        for name in ["SLUICE_LOG", "NO_COLOR"] {
            command.env_remove(name);
        }
        command
    }

    /// A call, with all it prints: progress, which goes to stderr, stands before the answer.
    fn shell(&self, words: &[&str]) -> Result<(), Box<dyn Error>> {
        println!("$ sluice {}", words.join(" "));
        let output = self.command(words).stdin(Stdio::null()).output()?;
        print!("{}{}", String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
        println!();
        if output.status.success() { Ok(()) } else { Err(format!("{words:?} ended with {}", output.status).into()) }
    }

    /// A run that is killed in the middle of a stage.
    fn killed(&self, caught: Caught) -> Result<(), Box<dyn Error>> {
        let place = match caught {
            Caught::Rows => "in the middle of its answers",
            Caught::Steps => "in the middle of its training",
        };
        println!("$ sluice run  # and kill -9 {place}");
        let store = self.project.path().join(".sluice");
        let before = n_rows(&store)?;
        let mut run = Running::start(self.command(&["run"]));
        let caught = run.until(|| match caught {
            Caught::Rows => n_rows(&store).is_ok_and(|rows| rows > before + 200),
            Caught::Steps => has_save(&store),
        });
        run.signal(Signal::Kill);
        let ended = run.wait();
        print!("{}", ended.err);
        println!("Killed\n");
        if caught { Ok(()) } else { Err(format!("the run was over before it was killed {place}").into()) }
    }
}

/// Rows of the task set whose answers can be checked, a line each.
fn prompts() -> Result<Vec<String>, Box<dyn Error>> {
    let project = Project::new();
    let file = workspace().join("data/tasks/preference.parquet");
    let pipeline = format!(
        "version: 1\nstages:\n  rows: {{ ingest: {{ from: {}, map: {{ prompt: prompt, reference: reference }} }} }}\n",
        file.display()
    );
    project.write("p.yaml", &pipeline);
    project.sluice(["run", "p.yaml", "--quiet"]).ended(0);
    let n: usize = N_PROMPTS.iter().sum();
    let query = format!("select prompt, reference from rows order by prompt_id limit {n}");
    let said = project.sluice(["sql", "p.yaml", &query, "--format", "jsonl"]).ended(0);
    Ok(said.out.lines().map(|line| format!("{line}\n")).collect())
}

/// Whether some training is saved: the head of a save comes last.
fn has_save(store: &Path) -> bool {
    let keys = fs::read_dir(store.join("resume")).into_iter().flatten().flatten();
    keys.map(|key| key.path().join("head.json")).any(|head| head.is_file())
}

/// Rows in the journal.
fn n_rows(store: &Path) -> Result<usize, Box<dyn Error>> {
    let store = Store::open(store)?;
    let mut n_rows = 0;
    for entry in fs::read_dir(store.root().join("rows"))? {
        let scope: RowScope = entry?.file_name().to_string_lossy().parse()?;
        n_rows += store.rows(scope)?.len();
    }
    Ok(n_rows)
}

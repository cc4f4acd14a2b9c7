//! The command line: verbs, options, and how they are described in `--help`. Owns the shape; each verb's file says
//! what it does.

mod history;
mod verify;

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, value_parser};
use clap_complete::Shell;

use crate::exit;

pub use history::{Diff, Fsck, Gc, Runs, Tag};
pub use verify::Verify;

const ABOUT: &str = "Turns prompts into a preference-optimised language model, and shows the evidence.";

/// A line for each paragraph: the terminal's width breaks them.
const LONG_ABOUT: &str = "\
Turns prompts into a preference-optimised language model, and shows the evidence.

A pipeline file declares stages; each reads tables and models and makes others. What was made from the same inputs \
and parameters is never made twice: change a line, run again, and only what that line touches runs.

Every verb takes the pipeline file as its first word (a word that ends in .yaml or .yml) or with -p. Without one it \
is the file of the last run in the store, or else the only file in pipelines/. Paths inside the file are relative to \
the project folder.";

fn after_long_help() -> String {
    format!(
        "Exit codes:\n{}\nEnvironment:\n  NO_COLOR        turns colours off\n  SLUICE_LOG      what to log, as in \
         `debug` or `sluice=trace`; -v and -vv are shorter\n  SLUICE_COMMAND  how this program is called in the \
         commands it suggests, as in `just sluice`\n  SLUICE_KERNELS  the folder of compiled GPU kernels and of what \
         was measured to choose them; it may be\n                  copied to another machine with the same GPU \
         [default: sluice/kernels in the user's cache]\n  HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE\n                  \
         the hub of published models: its cache, address and token, as its own tools read them\n",
        exit::table()
    )
}

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, about = ABOUT, long_about = LONG_ABOUT, after_long_help = after_long_help())]
#[command(
    arg_required_else_help = true,
    disable_help_subcommand = true,
    disable_help_flag = true,
    disable_version_flag = true,
    max_term_width = 110
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

/// What every verb understands.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every verb")]
pub struct Global {
    /// The pipeline file
    #[arg(short, long, global = true, value_name = "FILE")]
    pub pipeline: Option<PathBuf>,
    /// Where paths in the pipeline file start [default: the current folder]
    #[arg(long, global = true, value_name = "DIR")]
    pub project: Option<PathBuf>,
    /// Where results are kept [default: .sluice in the project folder]
    #[arg(long, global = true, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// The profile of the pipeline file [default: its first]
    #[arg(long, global = true, value_name = "NAME")]
    pub profile: Option<String>,
    /// Put a value into the pipeline file, as in `--set params.seed=1`; may be repeated
    #[arg(long, global = true, value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// Take only K prompts of each split, in every `ingest` stage without a tighter limit; a later run without it
    /// makes only the rows that are not there
    #[arg(long, global = true, value_name = "K", value_parser = value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
    /// What models run on: auto, cpu or cuda:N [default: auto, which is cuda:0 where a build with CUDA finds a GPU]
    #[arg(long, global = true, value_parser = device, default_value = "auto", hide_default_value = true)]
    pub device: DeviceChoice,
    /// What models compute in: auto, f32 or bf16 [default: that of the pipeline file, or f32 on the processor]
    #[arg(long, global = true, value_enum, value_name = "TYPE")]
    #[arg(hide_possible_values = true)]
    pub dtype: Option<DtypeChoice>,
    /// Use no network: models of a hub are those of the local cache
    #[arg(long, global = true)]
    pub offline: bool,
    /// Answer in JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress and no summary, only faults
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Log more; twice for everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// When to colour: auto, always or never [default: auto]
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = ColorChoice::Auto)]
    #[arg(hide_possible_values = true, hide_default_value = true)]
    pub color: ColorChoice,
    /// Progress as text or json, to stderr [default: text]
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    #[arg(hide_possible_values = true, hide_default_value = true)]
    pub log_format: LogFormat,
    /// Print help; --help says more than -h
    #[arg(short, long, global = true, action = ArgAction::Help)]
    help: Option<bool>,
    /// Print the version
    #[arg(short = 'V', long, action = ArgAction::Version)]
    version: Option<bool>,
}

/// What models run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The best there is.
    Auto,
    /// The processor.
    Cpu,
    /// The GPU of this number.
    Cuda(usize),
}

fn device(text: &str) -> Result<DeviceChoice, String> {
    match (text, text.strip_prefix("cuda:").map(str::parse)) {
        ("auto", _) => Ok(DeviceChoice::Auto),
        ("cpu", _) => Ok(DeviceChoice::Cpu),
        (_, Some(Ok(index))) => Ok(DeviceChoice::Cuda(index)),
        _ => Err("auto, cpu or cuda:N is needed, as in cuda:0".to_owned()),
    }
}

/// What models compute in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DtypeChoice {
    /// What suits the device
    Auto,
    F32,
    Bf16,
}

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal
    Auto,
    Always,
    Never,
}

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Bring the pipeline, or the named stages and what they need, up to date
    Run(Run),
    /// Say what a run would do, and why
    Plan(Plan),
    /// Say which results are there, one line a stage
    Status(Status),
    /// Say why a stage ran or would run: every value that changed, and where it stands
    Why(Why),
    /// Draw the stages and what they read
    Dag(Dag),
    /// Show what a stage made: columns, rows, digest, files
    Show(Show),
    /// Ask a question over the tables of the pipeline
    Sql(Sql),
    /// Make the data tests of the results that are there; nothing is computed
    Test(Test),
    /// Find every fault of a pipeline file
    Check(Only),
    /// Make rows of results again, and say whether they come out as they are stored
    Verify(Verify),
    /// List the runs of the store, the newest last
    Runs(Runs),
    /// Give a run a name under which it is found, and kept
    Tag(Tag),
    /// Say what differs between two runs: parameters, numbers, rows
    Diff(Diff),
    /// Take away what no run and no tag leads to; what goes is listed first
    Gc(Gc),
    /// Look at every byte of the store, and with --repair mend what is damaged
    Fsck(Fsck),
    /// Answer prompts with any model folder
    Generate(Generate),
    /// Score conversations with a reward model folder
    Score(Score),
    /// Log-probabilities of chosen and rejected answers under a model, and the SimPO loss
    Logprobs(Logprobs),
    /// Look into a model folder
    #[command(subcommand)]
    Model(Model),
    /// Print the completions of a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// How stages are selected, in the help of every verb that takes selectors.
const SELECTORS: &str = "\
Selectors:
  pairs                    the stage; of a stage with a matrix, all cells
  tuned[beta=10]           the cells with this value; `tuned[lr=1e-3,beta=10]` is one cell
  s*  *[beta=10]           every stage, every cell that fits
  tag:nightly  kind:train  by tag, by kind
  state:changed            whatever is not up to date
  +pairs  pairs+  +pairs+  with all it reads, with all that reads it, with both
  2+pairs  pairs+1         no further than so many steps
  tag:nightly,kind:train   what both select; words side by side select what any of them does";

/// `run [FILE] [SELECTOR]...`
#[derive(Debug, Args)]
#[command(after_help = SELECTORS)]
pub struct Run {
    /// The pipeline file, then what to bring up to date, always with what that needs [default: all]
    #[arg(value_name = "FILE|SELECTOR")]
    pub words: Vec<String>,
    /// Not these, unless others need them; may be repeated
    #[arg(long, value_name = "SELECTOR")]
    pub exclude: Vec<String>,
    /// Compute these although they have results [default: what is selected]; the first result stays, and one that
    /// differs is kept beside it
    #[arg(long, value_name = "SELECTOR", num_args = 0..)]
    pub force: Option<Vec<String>>,
    /// End with 5 rather than wait for another run that is computing the same stage
    #[arg(long)]
    pub no_wait: bool,
}

/// `test [FILE] [SELECTOR]...`
#[derive(Debug, Args)]
#[command(
    after_help = "Tests stand under a stage, beside its kind, as `tests`; `columns` is one of them. A run makes them \
    too, and what reads\na stage that fails one does not run. An unchanged table is not tested again. The rows at fault are \
    a table:\n`sluice sql 'select * from pairs.failed.unique_prompt_id'`, `sluice show pairs`.\n\nEnds with 3 when a test \
    of severity `error` fails. With --json one object a stage: name, there, tests; of each test\nname, check, severity, \
    outcome (passed, warned, failed, broken), failures, found, known, place, key."
)]
pub struct Test {
    /// The pipeline file, then the stages to test [default: all]
    #[arg(value_name = "FILE|SELECTOR")]
    pub words: Vec<String>,
    /// Not these; may be repeated
    #[arg(long, value_name = "SELECTOR")]
    pub exclude: Vec<String>,
}

/// `plan [FILE] [SELECTOR]...`
#[derive(Debug, Args)]
#[command(after_help = SELECTORS)]
pub struct Plan {
    /// The pipeline file, then the stages to look at, with what they need [default: all]
    #[arg(value_name = "FILE|SELECTOR")]
    pub words: Vec<String>,
    /// Not these, unless others need them; may be repeated
    #[arg(long, value_name = "SELECTOR")]
    pub exclude: Vec<String>,
    /// End with 10 when there is work to do
    #[arg(long)]
    pub exit_code: bool,
}

/// `status [FILE] [SELECTOR]...`
#[derive(Debug, Args)]
#[command(after_help = SELECTORS)]
pub struct Status {
    /// The pipeline file, then the stages to look at [default: all]
    #[arg(value_name = "FILE|SELECTOR")]
    pub words: Vec<String>,
    /// Not these; may be repeated
    #[arg(long, value_name = "SELECTOR")]
    pub exclude: Vec<String>,
}

/// A verb over a whole pipeline.
#[derive(Debug, Args)]
pub struct Only {
    /// The pipeline file
    #[arg(value_name = "FILE", num_args = 0..=1)]
    pub words: Vec<String>,
}

/// `why [FILE] SELECTOR...`
#[derive(Debug, Args)]
#[command(after_help = SELECTORS)]
pub struct Why {
    /// The pipeline file, if it is not the usual one, and the stages
    #[arg(value_name = "SELECTOR", required = true)]
    pub words: Vec<String>,
    /// The run to compare with: r17, last, prev or tag:NAME [default: the last in which the stage differed]
    #[arg(long, value_name = "RUN")]
    pub vs: Option<String>,
}

/// `dag [FILE] [SELECTOR]...`
#[derive(Debug, Args)]
#[command(after_help = SELECTORS)]
pub struct Dag {
    /// The pipeline file, then the stages to draw [default: all]
    #[arg(value_name = "FILE|SELECTOR")]
    pub words: Vec<String>,
    /// Not these; may be repeated
    #[arg(long, value_name = "SELECTOR")]
    pub exclude: Vec<String>,
    #[arg(long, value_enum, default_value_t = DagFormat::Tree)]
    pub format: DagFormat,
    /// Draw each cell of a matrix, not one node for all of them
    #[arg(long)]
    pub cells: bool,
}

/// The forms of a drawing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DagFormat {
    Tree,
    Mermaid,
    Dot,
}

/// `show [FILE] STAGE`
#[derive(Debug, Args)]
pub struct Show {
    /// The pipeline file, if it is not the usual one, and the stage, or one output of it as in `pairs.dropped`; with @RUN
    /// as it was in that run, as in `pairs@r17`
    #[arg(value_name = "STAGE", required = true, num_args = 1..=2)]
    pub words: Vec<String>,
    /// Rows to show of each table
    #[arg(long, default_value_t = 3)]
    pub rows: u64,
}

/// `sql [FILE] QUERY`
#[derive(Debug, Args)]
#[command(
    after_help = "A table is named after its stage: `select * from pairs`. The second table of a stage follows a \
    dot:\n`pairs.dropped`, `report.metrics`, `tuned.steps` (while it trains, the steps so far).\nThe rows that failed a \
    data test: `pairs.failed.unique_prompt_id`.\n\nA table as it was before is named with its run: \
    `pairs@prev` (the last result other than the present one),\n`pairs@r17`, `pairs.dropped@tag:gold`.\n\nOf a stage with a \
    matrix, the name is the tables of all its cells, with the axes as columns in front; a\ncell has its name in \
    quotes: `select * from \"tuned[lr=0.001,beta=10]\".steps`."
)]
pub struct Sql {
    /// The pipeline file, if it is not the usual one, and the query
    #[arg(value_name = "QUERY", required = true, num_args = 1..=2)]
    pub words: Vec<String>,
    /// How the answer is written [default: table, json with --json]
    #[arg(long, value_enum)]
    pub format: Option<AnswerFormat>,
}

/// The forms of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AnswerFormat {
    Table,
    Csv,
    /// One array
    Json,
    /// One object a line
    Jsonl,
}

/// `generate`
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["prompt", "input"])))]
pub struct Generate {
    /// The model folder, or hf://owner/name@revision
    #[arg(long, value_name = "DIR")]
    pub model: String,
    /// One user turn, put into the model's chat template
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// Rows with one of: prompt (a user turn), messages, text (as it is), token_ids
    #[arg(long, value_name = "FILE.jsonl")]
    pub input: Option<PathBuf>,
    /// Always the likeliest token
    #[arg(long, conflicts_with_all = ["temperature", "top_p", "top_k", "min_p"])]
    pub greedy: bool,
    /// Divides the logits; 0 is the same as --greedy [default: 1]
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    pub temperature: Option<f64>,
    /// Keep the likeliest tokens whose probabilities reach P
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub top_p: Option<f64>,
    /// Keep the K likeliest tokens
    #[arg(long, value_name = "K")]
    pub top_k: Option<u32>,
    /// Keep tokens at least P times as likely as the likeliest
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub min_p: Option<f64>,
    /// Answers for each prompt
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..=10_000))]
    pub n: u32,
    #[arg(long, value_name = "S", default_value_t = 0, allow_negative_numbers = true)]
    pub seed: u64,
    #[arg(long, value_name = "M", default_value_t = 256, value_parser = value_parser!(u32).range(1..))]
    pub max_new_tokens: u32,
    /// Go on past the model's stop tokens, to the last token allowed
    #[arg(long)]
    pub ignore_stop: bool,
}

/// `score`
#[derive(Debug, Args)]
pub struct Score {
    /// The reward model folder, or hf://owner/name@revision
    #[arg(long, value_name = "DIR")]
    pub model: String,
    /// Rows with `messages`
    #[arg(long, value_name = "FILE.jsonl")]
    pub input: PathBuf,
}

/// `logprobs`
#[derive(Debug, Args)]
pub struct Logprobs {
    /// The model folder, or hf://owner/name@revision
    #[arg(long, value_name = "DIR")]
    pub model: String,
    /// Rows with `chosen` and `rejected` as message lists, or `prompt`, `chosen` and `rejected` as texts
    #[arg(long, value_name = "FILE.jsonl|.parquet")]
    pub input: PathBuf,
    /// Tokens of prompt and response together, at most
    #[arg(long, value_name = "L", default_value_t = 2048)]
    pub max_length: u32,
    /// Tokens of the prompt that are kept when it has to be cut [default: 1800 of 2048, or as large a share of L]
    #[arg(long, value_name = "P")]
    pub max_prompt_length: Option<u32>,
    /// How what is too long is cut
    #[arg(long, value_enum, default_value_t = Truncation::Budget)]
    pub truncation: Truncation,
    /// Which end of a prompt is kept
    #[arg(long, value_enum, default_value_t = PromptKeep::End)]
    pub prompt_keep: PromptKeep,
    /// Whether the opening of the assistant's turn counts as prompt or as response
    #[arg(long, value_enum, default_value_t = ResponseHeader::Prompt)]
    pub response_header: ResponseHeader,
    /// SimPO's beta
    #[arg(long, value_name = "B", default_value_t = 10.0, allow_negative_numbers = true, value_parser = above_zero)]
    pub beta: f64,
    /// SimPO's target margin over beta
    #[arg(long, value_name = "G", default_value_t = 0.5, allow_negative_numbers = true, value_parser = zero_up)]
    pub gamma_beta_ratio: f64,
}

fn above_zero(text: &str) -> Result<f64, String> {
    number(text, |value| value > 0.0).ok_or_else(|| "a number above 0 is needed".to_owned())
}

fn zero_up(text: &str) -> Result<f64, String> {
    number(text, |value| value >= 0.0).ok_or_else(|| "a number from 0 up is needed".to_owned())
}

fn number(text: &str, allowed: impl Fn(f64) -> bool) -> Option<f64> {
    text.parse::<f64>().ok().filter(|value| value.is_finite() && allowed(*value))
}

/// How what is too long is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Truncation {
    /// The response keeps what the prompt leaves over
    Budget,
    /// As the published trainer does it
    Reference,
}

/// Which end of a prompt is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PromptKeep {
    Start,
    End,
}

/// What the opening of the assistant's turn belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ResponseHeader {
    Prompt,
    Response,
}

/// `model ...`
#[derive(Debug, Subcommand)]
pub enum Model {
    /// Architecture, parameters, memory, and what would be refused and why
    Inspect(Inspect),
    /// Fetch a model of the hub into the local cache, at the commit that its revision stands for now
    ///
    /// Only what a model is read from is fetched: its configuration, tokenizer, chat template and safetensors. What was
    /// interrupted goes on where it stopped. The token is HF_TOKEN, or the one that the hub's own tools were logged in with.
    /// Prints the folder; with --json one object: model, commit, folder.
    Fetch {
        /// hf://owner/name@revision
        #[arg(value_name = "MODEL")]
        reference: String,
    },
}

/// `model inspect`
#[derive(Debug, Args)]
#[command(
    after_help = "Memory is counted from the model's sizes and the settings below, in the type that --dtype names; the \
    program itself\nand what its allocator keeps come on top. With --json: run_bytes, sample_bytes and train_bytes, and \
    their parts in\nsample_memory and train_memory."
)]
pub struct Inspect {
    /// The model folder, or hf://owner/name@revision
    #[arg(value_name = "DIR")]
    pub folder: String,
    /// Answers sampled at one time
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = value_parser!(u32).range(1..))]
    pub max_batch: u32,
    /// Tokens of the longest prompt
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = value_parser!(u32).range(1..))]
    pub prompt_tokens: u32,
    /// Tokens of the longest answer
    #[arg(long, value_name = "M", default_value_t = 256, value_parser = value_parser!(u32).range(1..))]
    pub max_new_tokens: u32,
    /// Tokens of a pass in training
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = value_parser!(u32).range(1..))]
    pub micro_batch_tokens: u32,
    /// Whether blocks are computed twice in training: true or false [default: by the size of the model]
    #[arg(long, value_name = "BOOL")]
    pub recompute: Option<bool>,
    /// Where it runs, if it is not to be counted for the device of this machine
    #[arg(long, value_enum)]
    pub on: Option<On>,
    /// How trained weights are kept where a step computes in bf16
    #[arg(long, value_enum, default_value_t = MasterChoice::F32)]
    pub master: MasterChoice,
    /// How the optimiser's moments are kept where a step computes in bf16
    #[arg(long, value_enum, default_value_t = MomentsChoice::F32)]
    pub moments: MomentsChoice,
}

/// Whose memory is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum On {
    Cpu,
    Gpu,
}

/// How trained weights are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MasterChoice {
    F32,
    Split,
    Stochastic,
}

/// How moments are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MomentsChoice {
    F32,
    Bf16,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn devices_are_named_as_in_pytorch() {
        for (text, expected) in [
            ("auto", Some(DeviceChoice::Auto)),
            ("cpu", Some(DeviceChoice::Cpu)),
            ("cuda:0", Some(DeviceChoice::Cuda(0))),
            ("cuda:12", Some(DeviceChoice::Cuda(12))),
            ("cuda", None),
            ("cuda:-1", None),
            ("cuda:0x", None),
            ("gpu", None),
        ] {
            assert_eq!(device(text).ok(), expected, "{text}");
        }
    }
}

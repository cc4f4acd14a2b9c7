//! `sluice-tasks`: writes the task set and the model folders. Reads arguments, prints what was written; all the work
//! is in the library.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sluice_tasks::tokenizer::Vocabulary;
use sluice_tasks::{TasksError, checkpoint_files, questions, rows, tables};

/// Makes the tiny task set, its tokenizer and the configurations of the tiny models.
#[derive(Parser)]
#[command(name = "sluice-tasks", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write prompts, demonstrations and labelled answers as Parquet files
    Generate {
        /// Folder for the files; made if need be
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Seed of every random choice; the split does not depend on it
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Train the tokenizer on the task set and write the folders policy, reward-lm and reward
    Tokenizer {
        /// Folder for the three folders; made if need be
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Seed of the task set to train on
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut message = format!("error: {error}");
            let mut cause = error.source();
            while let Some(inner) = cause {
                message.push_str(&format!(": {inner}"));
                cause = inner.source();
            }
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), TasksError> {
    match command {
        Command::Generate { out, seed } => {
            for file in tables::generate(&out, seed)? {
                println!("{:>7} rows {:>8} bytes  {}", file.n_rows, file.bytes, file.path.display());
            }
        }
        Command::Tokenizer { out, seed } => {
            let all = questions(seed);
            let vocabulary = Vocabulary::train(&rows::mixed(&all, seed))?;
            for path in checkpoint_files::write(&out, &vocabulary)? {
                println!("{}", path.display());
            }
        }
    }
    Ok(())
}

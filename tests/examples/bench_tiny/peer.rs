//! The Python side: a process that answers one JSON line with one JSON line.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use sluice_tests::workspace;

use crate::{
    BETA, Case, GAMMA_BETA_RATIO, LEARNING_RATE, MAX_GRAD_NORM, NEW_TOKENS, PAIRS, ROW_PROMPT_TOKENS, Ran, Side,
    TEMPERATURE, TOP_P, prompts, training_rows,
};

/// A running `tests/bench/peer.py`.
pub struct Peer {
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// The libraries and their versions.
    pub name: String,
    vocab_size: usize,
}

impl Peer {
    pub fn start(python: &Path, n_threads: usize) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(python);
        command.arg(workspace().join("tests/bench/peer.py")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let (Some(requests), Some(answers)) = (process.stdin.take(), process.stdout.take()) else {
            return Err("the peer has no pipes".into());
        };
        let mut peer = Self { process, requests, answers: BufReader::new(answers), name: String::new(), vocab_size: 0 };
        let hello = peer.ask(&json!({"do": "hello", "threads": n_threads}))?;
        peer.name = hello["name"].as_str().unwrap_or("peer").to_owned();
        Ok(peer)
    }

    pub fn load(&mut self, folder: &Path, vocab_size: usize) -> Result<(), Box<dyn Error>> {
        self.vocab_size = vocab_size;
        self.ask(&json!({"do": "load", "folder": folder, "learning_rate": LEARNING_RATE})).map(drop)
    }

    pub fn peak_bytes(&mut self) -> Result<Option<u64>, Box<dyn Error>> {
        Ok(self.ask(&json!({"do": "memory"}))?["peak_bytes"].as_u64())
    }

    fn ask(&mut self, request: &Value) -> Result<Value, Box<dyn Error>> {
        writeln!(self.requests, "{request}")?;
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err(format!("the peer ended without an answer: {}", self.process.wait()?).into());
        }
        Ok(serde_json::from_str(&line)?)
    }
}

impl Side for Peer {
    fn run(&mut self, case: Case) -> Result<Ran, Box<dyn Error>> {
        let request = match case {
            Case::Sample { batch, sampled } => json!({
                "do": "sample", "prompts": prompts(batch, self.vocab_size), "new_tokens": NEW_TOKENS,
                "temperature": sampled.then_some(TEMPERATURE), "top_p": TOP_P,
            }),
            Case::Step => {
                let rows = training_rows(self.vocab_size);
                json!({
                    "do": "step", "chosen": rows[..PAIRS], "rejected": rows[PAIRS..], "prompt_tokens": ROW_PROMPT_TOKENS,
                    "beta": BETA, "gamma_beta_ratio": GAMMA_BETA_RATIO, "max_grad_norm": MAX_GRAD_NORM,
                })
            }
        };
        let answer = self.ask(&request)?;
        let token_ids = answer.get("token_ids").map_or(Ok(Vec::new()), |ids| serde_json::from_value(ids.clone()))?;
        let number = |name: &str| answer[name].as_f64().unwrap_or(f64::NAN);
        Ok(Ran { seconds: number("seconds"), token_ids, loss: number("loss") })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

//! A side of the comparison: a program that reads one request and writes one answer, each a line of JSON.

use std::ffi::OsString;
use std::io::Write;
use std::process::{Command, Stdio};

use super::{Answer, Request};

/// How a side is started.
#[derive(Clone, Debug)]
pub struct Side {
    pub program: OsString,
    pub arguments: Vec<OsString>,
}

/// Why a side has no answer.
#[derive(Debug, thiserror::Error)]
pub enum SideError {
    #[error("start {}", program.display())]
    Start { program: OsString, source: std::io::Error },
    #[error("{last_line}")]
    Failed { last_line: String },
    #[error("read its answer `{line}`")]
    Answer { line: String, source: serde_json::Error },
}

impl Side {
    /// One request in a process of its own. What the program writes to the standard error is kept for a failure: its last
    /// line says which.
    pub fn ask(&self, request: &Request) -> Result<Answer, SideError> {
        let Self { program, arguments } = self;
        let failed = |source| SideError::Start { program: program.clone(), source };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().map_err(failed)?;
        if let Some(mut requests) = process.stdin.take() {
            let line = serde_json::to_string(request).unwrap_or_default();
            // A program that ends before it has read its request says why below.
            let _ = writeln!(requests, "{line}");
        }
        let output = process.wait_with_output().map_err(failed)?;
        let last = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned()
        };
        if !output.status.success() {
            let said = last(&output.stderr);
            let last_line = if said.is_empty() { output.status.to_string() } else { said };
            return Err(SideError::Failed { last_line });
        }
        let line = last(&output.stdout);
        serde_json::from_str(&line).map_err(|source| SideError::Answer { line, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Work;

    /// What a shell script answers, or the words it fails with.
    fn ask(script: &str) -> Result<Answer, String> {
        let request = Request {
            device: "cpu".to_owned(),
            precision: "f32".to_owned(),
            n_threads: 1,
            n_runs: 1,
            folder: "model".into(),
            kernels: "kernels".into(),
            work: Work::Ceilings { matmul_size: 8, copy_bytes: 64 },
        };
        let side = Side { program: "sh".into(), arguments: vec!["-c".into(), script.into()] };
        side.ask(&request).map_err(|error| error.to_string())
    }

    #[test]
    fn the_last_line_counts() {
        let answer = r#"{"library":"x","device":"y","load_seconds":1.5,"measured":[]}"#;
        let found = ask(&format!("read request; echo loading; echo '{answer}'")).expect("an answer");
        assert_eq!((found.library.as_str(), found.load_seconds), ("x", 1.5));
        assert_eq!(ask("echo first >&2; echo 'out of memory' >&2; exit 3").err().as_deref(), Some("out of memory"));
        assert!(ask("echo words").is_err());
    }
}

//! Exit codes: the one list of them, and the faults that lead to each.
//!
//! Owns the mapping from what went wrong to a number a script can test. Refuses to know how a fault is printed.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// What was asked for is done.
    Ok = 0,
    /// A stage failed, or another operation on good input did.
    Failed = 1,
    /// The command line or the pipeline file is wrong.
    Usage = 2,
    /// Data broke a contract or failed a test: a column, a count, a policy that is not the one the pairs came from.
    Contract = 3,
    /// Stored bytes are not the bytes that were written.
    Corrupt = 4,
    /// Somebody else has the lock, and `--no-wait` says not to wait for it.
    Locked = 5,
    /// A model has to be fetched from a hub and could not be.
    Remote = 6,
    /// `plan --exit-code`: there is work to do.
    Pending = 10,
    /// Ctrl-C. What was finished is kept.
    Interrupted = 130,
}

impl Exit {
    /// Every exit, in the order of its number.
    pub const ALL: [Exit; 9] = [
        Exit::Ok,
        Exit::Failed,
        Exit::Usage,
        Exit::Contract,
        Exit::Corrupt,
        Exit::Locked,
        Exit::Remote,
        Exit::Pending,
        Exit::Interrupted,
    ];

    /// The number the process ends with.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The line of `--help` on it.
    pub const fn meaning(self) -> &'static str {
        match self {
            Exit::Ok => "done, or nothing to do",
            Exit::Failed => "a stage failed",
            Exit::Usage => "the command line or the pipeline file is wrong",
            Exit::Contract => "data failed a test or broke a contract (missing column, no rows, off-policy pairs)",
            Exit::Corrupt => "damage found in the store; `fsck --repair` mends it",
            Exit::Locked => "another process is at it, and --no-wait was given",
            Exit::Remote => "a model of a hub is not here and could not be fetched",
            Exit::Pending => "`plan --exit-code`: there is work to do",
            Exit::Interrupted => "interrupted; finished stages and rows are kept",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// The exit codes as `--help` lists them.
pub fn table() -> String {
    let lines = Exit::ALL.map(|exit| format!("  {:>3}  {}\n", exit.code(), exit.meaning()));
    lines.concat()
}

/// Why a verb did not do what it was asked for.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    pub cause: Box<dyn Error + Send + Sync>,
    /// What would be right, when the cause does not say so itself.
    pub help: Option<String>,
}

impl Failure {
    pub fn new(exit: Exit, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Failure {
        Failure { exit, cause: cause.into(), help: None }
    }

    /// The command line asks for something that is not there.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, message.into())
    }

    pub fn help(mut self, help: impl Into<String>) -> Failure {
        self.help = Some(help.into());
        self
    }

    /// The message and those of its causes, outermost first, none said twice.
    pub fn chain(&self) -> Vec<String> {
        let mut lines: Vec<String> = vec![self.cause.to_string()];
        let mut next = self.cause.source();
        while let Some(cause) = next {
            let line = cause.to_string();
            // A transparent error repeats its source word for word.
            if lines.last().is_none_or(|last| !last.ends_with(&line)) {
                lines.push(line);
            }
            next = cause.source();
        }
        lines
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

/// What a verb gives back.
pub type Outcome = Result<Exit, Failure>;

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn every_exit_is_listed_once() {
        expect![[r#"
            exit codes:
                0  done, or nothing to do
                1  a stage failed
                2  the command line or the pipeline file is wrong
                3  data failed a test or broke a contract (missing column, no rows, off-policy pairs)
                4  damage found in the store; `fsck --repair` mends it
                5  another process is at it, and --no-wait was given
                6  a model of a hub is not here and could not be fetched
               10  `plan --exit-code`: there is work to do
              130  interrupted; finished stages and rows are kept
        "#]]
        .assert_eq(&format!("exit codes:\n{}", table()));
    }
}

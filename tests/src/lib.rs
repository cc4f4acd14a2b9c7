//! The binary as its users meet it: run in a folder, with its output and exit code as values.
//!
//! Owns a throw-away project folder and the way to the binary; knows nothing of crates.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

pub mod bench;
pub mod hub;
pub mod running;
pub mod six_stages;

/// The workspace's folder.
pub fn workspace() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests)
}

/// The folder of a fixture under `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// The binary, which lies above the folder of the test executables. Build it with `cargo build -p sluice`.
pub fn binary() -> PathBuf {
    let executable = std::env::current_exe().expect("a test is an executable file");
    let mut folders =
        executable.ancestors().skip(1).map(|folder| folder.join(format!("sluice{}", std::env::consts::EXE_SUFFIX)));
    folders.find(|file| file.is_file()).expect("target/debug/sluice is built; run `cargo build -p sluice`")
}

/// A text whose times and sizes are `*`, with single spaces between words: what a clock decides is in no golden.
pub fn without_times(text: &str) -> String {
    let is_number = |word: &str| word.starts_with(|first: char| first.is_ascii_digit());
    let units = ["ms", "s", "min", "h", "day", "days", "B", "kB", "MB"];
    let masked = |line: &str| {
        let mut words: Vec<&str> = Vec::new();
        for word in line.split_whitespace() {
            let unit = word.trim_end_matches([',', ';', ')']);
            let follows = words.last().is_some_and(|last| is_number(last) || *last == "*");
            if units.contains(&unit) && follows {
                words.pop();
                // A time may have two parts.
                if words.last().is_none_or(|last| *last != "*") {
                    words.push("*");
                }
            } else {
                words.push(word);
            }
        }
        words.join(" ") + "\n"
    };
    text.lines().map(masked).collect()
}

/// A project folder that is gone after the test.
pub struct Project {
    folder: TempDir,
}

/// What a call of the binary said and how it ended.
#[derive(Debug, Clone)]
pub struct Said {
    pub out: String,
    pub err: String,
    pub code: i32,
}

impl Project {
    /// An empty folder.
    pub fn new() -> Project {
        Project { folder: TempDir::new().expect("a temporary folder") }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file, making its folders.
    pub fn write(&self, name: &str, text: &str) {
        let file = self.path().join(name);
        fs::create_dir_all(file.parent().unwrap_or(self.path())).expect("a writable folder");
        fs::write(file, text).expect("a writable folder");
    }

    /// Replaces a piece of a file that is there exactly once.
    pub fn edit(&self, name: &str, old: &str, new: &str) {
        let file = self.path().join(name);
        let text = fs::read_to_string(&file).expect("a file of this test");
        assert_eq!(text.matches(old).count(), 1, "`{old}` in {name}");
        fs::write(file, text.replace(old, new)).expect("a writable folder");
    }

    /// Runs the binary in the folder.
    pub fn sluice<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, arguments: I) -> Said {
        let mut command = Command::new(binary());
        command.args(arguments).current_dir(self.path()).env("SLUICE_COMMAND", "sluice");
        command.env("HF_HUB_CACHE", "hub").env("HF_HUB_OFFLINE", "1");
        for name in ["SLUICE_LOG", "NO_COLOR", "COLUMNS"] {
            command.env_remove(name);
        }
        let Output { status, stdout, stderr } = command.output().expect("the binary starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
        Said { out: text(stdout), err: text(stderr), code: status.code().unwrap_or(-1) }
    }
}

impl Default for Project {
    fn default() -> Project {
        Project::new()
    }
}

impl Said {
    /// Fails the test unless the call ended so.
    #[track_caller]
    pub fn ended(self, code: i32) -> Said {
        assert_eq!(self.code, code, "\nstdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }
}

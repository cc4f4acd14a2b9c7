//! A process under way: what it tells line by line, how it is killed, how it ended.
//!
//! Owns the process and its group, which is gone when this is dropped. Knows nothing of what the process does.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A process in a group of its own, whose stdout and stderr are read as they come.
pub struct Running {
    child: Child,
    started: Instant,
    lines: Receiver<Line>,
    /// Lines that were received and not asked for yet.
    waiting: VecDeque<Line>,
    err: Option<JoinHandle<String>>,
    ended: Option<ExitStatus>,
}

/// A line of stdout.
#[derive(Debug, Clone)]
pub struct Line {
    /// Since the process was started.
    pub at: Duration,
    pub text: String,
}

impl Line {
    /// The event in a line of `run --json`; null for another line.
    pub fn event(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// Whether this is the event `name` of a stage.
    pub fn is(&self, name: &str, stage: &str) -> bool {
        let event = self.event();
        event["event"] == name && event["stage"] == stage
    }
}

/// How a process ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// The exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// The lines of stdout nobody has asked for before.
    pub lines: Vec<Line>,
    pub err: String,
    pub seconds: f64,
}

impl Ended {
    /// The last line of `run --json`: the report.
    pub fn report(&self) -> Value {
        self.lines.last().map_or(Value::Null, Line::event)
    }
}

/// The signals that are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    Kill,
    Interrupt,
    Terminate,
}

impl Signal {
    /// As `kill` names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kill => "KILL",
            Self::Interrupt => "INT",
            Self::Terminate => "TERM",
        }
    }
}

impl Running {
    /// Starts a process.
    ///
    /// # Panics
    /// If the program is not there.
    pub fn start(mut command: Command) -> Running {
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        let (out, mut err) = (child.stdout.take(), child.stderr.take());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let Some(out) = out else { return };
            for text in BufReader::new(out).lines().map_while(Result::ok) {
                // Who has dropped the process wants no more of it.
                if sender.send(Line { at: started.elapsed(), text }).is_err() {
                    return;
                }
            }
        });
        let err = thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(err) = &mut err {
                // What could be read before the pipe broke is what was said.
                let _ = err.read_to_end(&mut bytes);
            }
            String::from_utf8_lossy(&bytes).into_owned()
        });
        Running { child, started, lines, waiting: VecDeque::new(), err: Some(err), ended: None }
    }

    /// The process's number, which is its group's too.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Time since it was started.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The next line of stdout; none when it is over, or when `until` has come first.
    pub fn next(&mut self, until: Instant) -> Next {
        if let Some(line) = self.waiting.pop_front() {
            return Next::Line(line);
        }
        match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => Next::Line(line),
            Err(RecvTimeoutError::Timeout) => Next::TimeUp,
            Err(RecvTimeoutError::Disconnected) => Next::Over,
        }
    }

    /// Reads on to the first line that is wanted; none if the output ends before, or a minute passes.
    pub fn find(&mut self, wanted: impl Fn(&Line) -> bool) -> Option<Line> {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            match self.next(until) {
                Next::Line(line) if wanted(&line) => return Some(line),
                Next::Line(_) => {}
                Next::TimeUp | Next::Over => return None,
            }
        }
    }

    /// Waits until something is so, which is looked at many times a second; whether it ever was. Lines that come meanwhile
    /// are kept.
    pub fn until(&mut self, holds: impl Fn() -> bool) -> bool {
        const STEP: Duration = Duration::from_millis(2);
        let patience = Instant::now() + Duration::from_secs(60);
        while Instant::now() < patience {
            if holds() {
                return true;
            }
            match self.lines.recv_timeout(STEP) {
                Ok(line) => self.waiting.push_back(line),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return holds(),
            }
        }
        false
    }

    /// Sends a signal to the whole group.
    ///
    /// # Panics
    /// If there is no program `kill`.
    pub fn signal(&self, signal: Signal) {
        let (name, group) = (format!("-{}", signal.name()), format!("-{}", self.id()));
        // A group that is over already is no fault.
        let said = Command::new("kill").args([&name, "--", &group]).stderr(Stdio::null()).status();
        said.unwrap_or_else(|error| panic!("start kill: {error}"));
    }

    /// Kills the whole group and waits until the process is gone.
    pub fn kill(mut self) -> Ended {
        self.signal(Signal::Kill);
        self.wait()
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// If the operating system does not know the process.
    pub fn wait(&mut self) -> Ended {
        let mut lines: Vec<Line> = self.waiting.drain(..).collect();
        // Until the pipe is closed: a process that waits for its reader does not end.
        lines.extend(self.lines.iter());
        let status = self.child.wait().expect("a child of this process");
        self.ended = Some(status);
        let err = self.err.take().and_then(|reader| reader.join().ok()).unwrap_or_default();
        Ended { code: status.code(), lines, err, seconds: self.started.elapsed().as_secs_f64() }
    }
}

/// What came while one waited for a line.
#[derive(Debug)]
pub enum Next {
    Line(Line),
    TimeUp,
    /// The output is closed.
    Over,
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.signal(Signal::Kill);
            // It has been killed; there is nobody to tell.
            let _ = self.child.wait();
        }
    }
}

/// The processes whose group this is, dead ones that nobody has asked about left out. Linux only; elsewhere there are none.
pub fn members(group: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.filter(|process| facts(*process).is_some_and(|facts| facts.group == group && facts.alive)).collect()
}

/// The processes that a process has started and that are alive.
pub fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.filter(|process| facts(*process).is_some_and(|facts| facts.parent == parent && facts.alive)).collect()
}

struct Facts {
    alive: bool,
    parent: u32,
    group: u32,
}

/// What `/proc/PID/stat` says: `PID (NAME) STATE PARENT GROUP ...`; a name may have any character.
fn facts(process: u32) -> Option<Facts> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    let mut words = rest.split(' ');
    let state = words.next()?;
    Some(Facts {
        alive: !matches!(state, "Z" | "X"),
        parent: words.next()?.parse().ok()?,
        group: words.next()?.parse().ok()?,
    })
}

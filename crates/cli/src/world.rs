//! What the program sees of the outside: folders, terminal, environment, clock. Looked at once, here, and passed on as
//! values. Refuses to know what a pipeline is.

use std::env;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use sluice_spec::Secret;

use crate::args::{ColorChoice, Global};
use crate::hub::Hub;
use crate::render::Paint;

/// The outside, as it was when the program started.
#[derive(Debug, Clone)]
pub struct World {
    /// The folder that paths of the pipeline are relative to.
    pub project: PathBuf,
    /// The store's folder.
    pub store: PathBuf,
    /// Colours of stdout.
    pub out: Paint,
    /// Colours of stderr.
    pub err: Paint,
    /// Whether stderr is a terminal, on which lines can be redrawn.
    pub live: bool,
    /// Characters in a line of the terminal.
    pub columns: usize,
    /// How a user would call this program again.
    pub command: String,
    /// The hub of published models and its local cache.
    pub hub: Hub,
    /// Where compiled GPU kernels are kept.
    pub kernels: PathBuf,
}

impl World {
    /// Looks at the outside.
    pub fn look(global: &Global) -> World {
        let project = global.project.clone().unwrap_or_else(|| PathBuf::from("."));
        let store = global.store.clone().unwrap_or_else(|| tidy(&project.join(".sluice")));
        let plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || env::var_os("TERM").is_some_and(|value| value == "dumb");
        let paint = |terminal: bool| Paint {
            on: match global.color {
                ColorChoice::Always => true,
                ColorChoice::Never => false,
                ColorChoice::Auto => terminal && !plain,
            },
        };
        let live = io::stderr().is_terminal();
        World {
            out: paint(io::stdout().is_terminal()),
            err: paint(live),
            live: live && env::var_os("TERM").is_none_or(|value| value != "dumb"),
            columns: columns(),
            command: command(),
            hub: hub(global.offline),
            kernels: kernels(),
            project,
            store,
        }
    }

    /// A path that a user gave, relative to the project folder where it is in it; also what a store may keep.
    pub fn in_project(&self, path: &Path) -> PathBuf {
        let absolute = |path: &Path| path.canonicalize().ok();
        match (absolute(path), absolute(&self.project)) {
            (Some(file), Some(project)) => {
                file.strip_prefix(&project).map(Path::to_owned).unwrap_or_else(|_| path.to_owned())
            }
            _ => path.to_owned(),
        }
    }
}

/// Milliseconds since 1970.
pub fn now_unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// `./x` is `x` to a reader.
pub fn tidy(path: &Path) -> PathBuf {
    path.strip_prefix(".").map(Path::to_owned).unwrap_or_else(|_| path.to_owned())
}

fn columns() -> usize {
    let told = env::var("COLUMNS").ok().and_then(|text| text.parse::<usize>().ok());
    let seen = || terminal_size::terminal_size_of(io::stderr()).map(|(width, _)| usize::from(width.0));
    told.or_else(seen).unwrap_or(100).clamp(60, 400)
}

/// The Hugging Face hub and its cache, by the rules of its own tools.
fn hub(offline: bool) -> Hub {
    const ENDPOINT: &str = "https://huggingface.co";
    let text = |name: &str| env::var(name).ok().filter(|value| !value.trim().is_empty());
    let folder = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = folder("HF_HOME").or_else(|| folder("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")));
    let home = home.unwrap_or_else(|| folder("HOME").unwrap_or_default().join(".cache").join("huggingface"));
    let yes = |value: String| ["1", "ON", "YES", "TRUE"].contains(&value.to_ascii_uppercase().as_str());
    Hub {
        cache: folder("HF_HUB_CACHE").unwrap_or_else(|| home.join("hub")),
        endpoint: text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned()).trim_end_matches('/').to_owned(),
        offline: offline || text("HF_HUB_OFFLINE").is_some_and(yes),
        token: text("HF_TOKEN").map(Secret::new),
        token_file: folder("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token")),
    }
}

/// The folder of compiled GPU kernels: they are of a machine, not of a store.
fn kernels() -> PathBuf {
    let folder = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = || folder("XDG_CACHE_HOME").unwrap_or_else(|| folder("HOME").unwrap_or_default().join(".cache"));
    folder("SLUICE_KERNELS").unwrap_or_else(|| cache().join("sluice").join("kernels"))
}

/// `sluice` as it was called, or as `SLUICE_COMMAND` says it is.
fn command() -> String {
    let told = env::var("SLUICE_COMMAND").ok().filter(|text| !text.trim().is_empty());
    told.or_else(|| env::args().next()).unwrap_or_else(|| "sluice".to_owned())
}

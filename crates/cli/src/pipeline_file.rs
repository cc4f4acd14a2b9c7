//! Which pipeline file is meant, and its text made a pipeline. Owns the rule and the two ways it ends badly: no file,
//! and a file with faults.

use std::fs;
use std::path::{Path, PathBuf};
use std::string::FromUtf8Error;

use sluice_spec::{Diagnostics, Options, Pipeline};
use sluice_store::Store;

use crate::args::Global;
use crate::exit::{Exit, Failure};
use crate::world::{World, tidy};

/// Where pipeline files are looked for when none is named.
const FOLDER: &str = "pipelines";

/// The words of a verb: the pipeline file if the first is one, and the others.
pub fn split(words: &[String]) -> (Option<PathBuf>, &[String]) {
    match words.split_first() {
        Some((first, rest)) if is_file_name(first) => (Some(PathBuf::from(first)), rest),
        _ => (None, words),
    }
}

/// A word is a file when it ends in `.yaml` or `.yml`; no selector does.
pub fn is_file_name(word: &str) -> bool {
    let extension = Path::new(word).extension();
    extension.is_some_and(|extension| extension.eq_ignore_ascii_case("yaml") || extension.eq_ignore_ascii_case("yml"))
}

/// Reads the file that is meant.
///
/// # Errors
/// `Exit::Usage` when there is no such file, or when it has faults: then the cause is [`Diagnostics`].
pub fn load(named: Option<PathBuf>, global: &Global, world: &World, store: &Store) -> Result<Pipeline, Failure> {
    let path = match named {
        Some(path) => path,
        None => usual(world, store)?,
    };
    let name = world.in_project(&path);
    let bytes = fs::read(&path).map_err(|error| unreadable(&path, &error, world))?;
    let text = String::from_utf8(bytes).map_err(|error| not_text(&name, &error))?;
    // `--limit` is short for an override of the section `limits`.
    let limit = global.limit.map(|limit| format!("limits.*={limit}"));
    let options = Options { profile: global.profile.clone(), set: global.set.iter().cloned().chain(limit).collect() };
    sluice_spec::parse(&name.display().to_string(), &text, &options).map_err(faults)
}

fn faults(diagnostics: Diagnostics) -> Failure {
    Failure::new(Exit::Usage, diagnostics)
}

/// The file of the last run, or else the only one there is.
fn usual(world: &World, store: &Store) -> Result<PathBuf, Failure> {
    if let Some(last) = last_run(world, store) {
        return Ok(last);
    }
    let found = candidates(world);
    match found.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(Failure::usage("no pipeline file is named, nothing has been run, and there is none in pipelines/")
            .help(format!("name one: `{} run FILE`", world.command))),
        [first, ..] => {
            let names: Vec<String> = found.iter().map(|path| path.display().to_string()).collect();
            let message =
                format!("no pipeline file is named, nothing has been run, and there are {}", names.join(", "));
            Err(Failure::usage(message).help(format!("name one, as in `-p {}`", first.display())))
        }
    }
}

fn last_run(world: &World, store: &Store) -> Option<PathBuf> {
    let last = store.runs().ok()?.pop()?;
    let manifest = store.run(last).ok()??;
    let path = tidy(&world.project.join(manifest.pipeline));
    path.is_file().then_some(path)
}

/// The pipeline files in `pipelines/` of the project, sorted.
fn candidates(world: &World) -> Vec<PathBuf> {
    let folder = tidy(&world.project.join(FOLDER));
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = entries.filter(|path| is_file_name(&path.to_string_lossy())).collect();
    files.sort();
    files
}

/// The place where a file stops being text.
pub fn not_text(path: &Path, error: &FromUtf8Error) -> Failure {
    let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
    let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
    let start = valid.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let column = String::from_utf8_lossy(&valid[start..]).chars().count() + 1;
    Failure::usage(format!("{}:{line}:{column}: the file is not UTF-8 text from here on", path.display()))
        .help("save it as UTF-8")
}

fn unreadable(path: &Path, error: &std::io::Error, world: &World) -> Failure {
    if path.is_dir() {
        return Failure::usage(format!("{} is a folder, not a pipeline file", path.display()));
    }
    let failure = Failure::usage(match error.kind() {
        std::io::ErrorKind::NotFound => format!("there is no file {}", path.display()),
        _ => format!("read {}: {error}", path.display()),
    });
    let found: Vec<String> = candidates(world).iter().map(|path| path.display().to_string()).collect();
    if error.kind() == std::io::ErrorKind::NotFound && !found.is_empty() {
        return failure.help(format!("there is {}", found.join(", ")));
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_word_with_a_yaml_ending_is_the_file() {
        let check = |words: &[&str], file: Option<&str>, rest: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            let (found, left) = split(&words);
            assert_eq!(found, file.map(PathBuf::from));
            assert_eq!(left, rest);
        };
        check(&["p.yaml", "pairs"], Some("p.yaml"), &["pairs"]);
        check(&["pairs"], None, &["pairs"]);
        check(&["a/b.YML"], Some("a/b.YML"), &[]);
        check(&["pairs.dropped"], None, &["pairs.dropped"]);
        check(&[], None, &[]);
    }
}

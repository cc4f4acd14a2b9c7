//! Work at published sizes on a driver without a GPU: what is compiled, launched and asked for in memory.
//!
//! Owns running a side on the stand-in driver (crate `sluice-driver`) and reading what the driver counted, and what the
//! assembler of the CUDA toolkit says of the kernels. Nothing is computed and no time is a GPU's.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::CheckError;
use crate::bench::side::Side;
use crate::bench::{Answer, Request};

/// The kind of GPU that the driver stands in for, as the assembler names it.
const ARCHITECTURE: &str = "sm_90a";

/// What the driver was asked for by one process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    pub peak_bytes: u64,
    pub n_allocations: u64,
    pub n_refused: u64,
    pub n_launches: u64,
    pub n_modules: u64,
}

/// A place for programs to find the stand-in driver at.
#[derive(Debug)]
pub struct Stage {
    folder: tempfile::TempDir,
}

impl Stage {
    /// `driver` is the library that crate `sluice-driver` builds.
    pub fn new(driver: &Path) -> Result<Self, CheckError> {
        let written = |file: &Path| {
            let file = file.to_owned();
            move |source| CheckError::Write { file, source }
        };
        let folder = tempfile::tempdir().map_err(written(driver))?;
        let driver = fs::canonicalize(driver).map_err(|source| CheckError::Read { file: driver.to_owned(), source })?;
        // Both names that programs look for, so that a driver of the machine is never found first.
        for name in ["libcuda.so", "libcuda.so.1"] {
            let link = folder.path().join(name);
            symlink(&driver, &link).map_err(written(&link))?;
        }
        Ok(Self { folder })
    }

    /// Where the code of each kernel is put that a process compiles.
    pub fn kernels(&self) -> PathBuf {
        self.folder.path().join("kernels")
    }

    /// Asks `side` on this driver.
    pub fn ask(&self, side: &Side, request: &Request) -> Result<(Answer, Asked), CheckError> {
        let report = self.folder.path().join("report.json");
        let set = |name: &str, value: &Path| {
            let mut setting = OsString::from(format!("{name}="));
            setting.push(value);
            setting
        };
        let settings = [
            set("LD_LIBRARY_PATH", self.folder.path()),
            set("STAND_IN_REPORT", &report),
            set("STAND_IN_KERNELS", &self.kernels()),
        ];
        let arguments = settings.into_iter().chain([side.program.clone()]).chain(side.arguments.clone());
        let staged = Side { program: "env".into(), arguments: arguments.collect() };
        let answer = staged.ask(request).map_err(|error| CheckError::Shape { what: format!("an answer: {error}") })?;
        let text = fs::read_to_string(&report).map_err(|source| CheckError::Read { file: report.clone(), source })?;
        let asked = serde_json::from_str(&text)
            .map_err(|error| CheckError::Shape { what: format!("a report in {}: {error}", report.display()) })?;
        Ok((answer, asked))
    }
}

/// What the assembler made of a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Assembled {
    /// As CubeCL names it: the function, its types, and a digest of its settings.
    pub name: String,
    pub made: Result<Resources, String>,
}

/// What a kernel takes of the chip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Resources {
    /// Of one unit.
    pub n_registers: u32,
    /// Of one unit, that registers had no room for and memory has to keep.
    pub spilled_bytes: u32,
    /// Of one cube, beside what the launch asks for.
    pub shared_bytes: u32,
}

/// Hands every kernel of a folder to `ptxas`.
pub fn assemble(ptxas: &Path, kernels: &Path) -> Result<Vec<Assembled>, CheckError> {
    let entries = fs::read_dir(kernels).map_err(|source| CheckError::Read { file: kernels.to_owned(), source })?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let assembled = assemble_one(ptxas, file);
            found.lock().unwrap_or_else(PoisonError::into_inner).push(assembled);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn assemble_one(ptxas: &Path, file: &Path) -> Assembled {
    let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let output = Command::new(ptxas)
        .args(["--gpu-name", ARCHITECTURE, "--verbose", "--output-file", "/dev/null"])
        .arg(file)
        .output();
    let made = match output {
        Err(error) => Err(error.to_string()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            if output.status.success() { Ok(resources(&said)) } else { Err(said.trim().to_owned()) }
        }
    };
    Assembled { name, made }
}

/// Reads `Used 40 registers, ... 1024 bytes smem` and `8 bytes spill stores`.
fn resources(said: &str) -> Resources {
    let words: Vec<&str> = said.split([' ', ',', '\n', '\t']).filter(|word| !word.is_empty()).collect();
    let before = |tail: &[&str]| -> u32 {
        let places = (1..words.len()).filter(|at| words[*at..].starts_with(tail));
        places.filter_map(|at| words[at - 1].parse::<u32>().ok()).sum()
    };
    Resources {
        n_registers: before(&["registers"]),
        spilled_bytes: before(&["bytes", "spill", "stores"]),
        shared_bytes: before(&["bytes", "smem"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_assembler_is_understood() {
        let said = "ptxas info    : 0 bytes gmem\nptxas info    : Compiling entry function 'k' for 'sm_90a'\n\
                    ptxas info    : Function properties for k\n    16 bytes stack frame, 12 bytes spill stores, 20 bytes \
                    spill loads\nptxas info    : Used 255 registers, used 1 barriers, 1024 bytes smem\n";
        assert_eq!(resources(said), Resources { n_registers: 255, spilled_bytes: 12, shared_bytes: 1024 });
        assert_eq!(resources(""), Resources::default());
    }

    #[test]
    fn both_names_of_the_driver_lead_to_the_stand_in() {
        let driver = tempfile::NamedTempFile::new().expect("a temporary file");
        let stage = Stage::new(driver.path()).expect("links can be made");
        for name in ["libcuda.so", "libcuda.so.1"] {
            let found = fs::canonicalize(stage.folder.path().join(name)).expect("the link leads somewhere");
            assert_eq!(found, fs::canonicalize(driver.path()).expect("it is there"));
        }
        let error = Stage::new(Path::new("not/there")).expect_err("nothing is there");
        assert_eq!(error.to_string(), "read not/there");
    }
}

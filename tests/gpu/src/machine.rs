//! What a figure was measured with, and where this process stands: the commit, files, memory.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Resident memory of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessBytes {
    pub now: u64,
    pub peak: u64,
}

/// `None` where the system does not say it in /proc.
pub fn process_bytes() -> Option<ProcessBytes> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
    };
    Some(ProcessBytes { now: bytes("VmRSS:")?, peak: bytes("VmHWM:")? })
}

/// The commit of a folder: that of its git repository, or, in a bundle, what the file `commit` says.
pub fn commit(root: &Path) -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).current_dir(root).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let noted = || fs::read_to_string(root.join("commit")).ok().map(|text| text.trim().to_owned());
    noted().or_else(|| git(&["describe", "--always", "--dirty", "--abbrev=10"])).unwrap_or_else(|| "unknown".to_owned())
}

/// Bytes of the files of a folder; 0 where it is not there.
pub fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let bytes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => folder_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    bytes.sum()
}

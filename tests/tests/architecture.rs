//! The crates keep to the map: arrows point downwards only, and the map names functions that exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use cargo_metadata::{DependencyKind, MetadataCommand};
use sluice_tests::workspace;

/// Each crate, its layer, and the crates of this workspace it may use.
///
/// A new arrow is its own change with its own reason: it is made here.
const MAP: &[(&str, usize, &[&str])] = &[
    ("sluice-spec", 0, &[]),
    ("sluice-table", 0, &[]),
    ("sluice-store", 0, &[]),
    ("sluice-lm", 0, &[]),
    ("sluice-eval", 0, &[]),
    ("sluice-tasks", 1, &["sluice-eval"]),
    ("sluice-plan", 1, &["sluice-spec", "sluice-table"]),
    ("sluice-sql", 1, &["sluice-store"]),
    ("sluice-train", 1, &["sluice-lm"]),
    ("sluice-engine", 2, &["sluice-spec", "sluice-plan", "sluice-store"]),
    (
        "sluice-stages",
        2,
        &["sluice-spec", "sluice-table", "sluice-store", "sluice-sql", "sluice-lm", "sluice-train", "sluice-eval"],
    ),
    (
        "sluice",
        3,
        &[
            "sluice-spec",
            "sluice-table",
            "sluice-store",
            "sluice-lm",
            "sluice-eval",
            "sluice-plan",
            "sluice-sql",
            "sluice-train",
            "sluice-engine",
            "sluice-stages",
        ],
    ),
    ("sluice-driver", 0, &[]),
    ("sluice-gpu", 2, &["sluice-lm", "sluice-train"]),
    ("sluice-tests", 4, &[]),
];

/// The arrows between the crates of the workspace, tests aside.
fn arrows() -> BTreeMap<String, Vec<String>> {
    let manifest = workspace().join("Cargo.toml");
    let metadata = MetadataCommand::new().manifest_path(manifest).no_deps().exec().expect("cargo metadata");
    let members = metadata.workspace_packages();
    let names: Vec<String> = members.iter().map(|package| package.name.to_string()).collect();
    let arrows = members.iter().map(|package| {
        let used = package.dependencies.iter().filter(|used| used.kind == DependencyKind::Normal);
        (package.name.to_string(), used.map(|used| used.name.clone()).filter(|name| names.contains(name)).collect())
    });
    arrows.collect()
}

#[test]
fn arrows_point_downwards_and_are_on_the_map() {
    let mut faults = Vec::new();
    for (name, used) in arrows() {
        let Some((_, layer, allowed)) = MAP.iter().find(|(known, ..)| *known == name) else {
            faults.push(format!("{name} is not on the map"));
            continue;
        };
        for other in used {
            if !allowed.contains(&other.as_str()) {
                faults.push(format!("{name} uses {other}, which the map does not allow"));
            }
            let below = MAP.iter().any(|(known, other_layer, _)| *known == other && other_layer < layer);
            if !below {
                faults.push(format!("{name} uses {other}, which is not below it"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// What a build without the feature `cuda` is made of.
#[test]
fn the_build_for_the_cpu_has_no_cuda_in_it() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "--edges", "normal,build", "--prefix", "none", "--format", "{lib}"])
        .args(["--offline", "--locked"])
        .current_dir(workspace())
        .output()
        .expect("cargo tree");
    let told = String::from_utf8_lossy(&tree.stderr);
    assert!(tree.status.success(), "cargo tree: {told}");
    let crates = String::from_utf8(tree.stdout).expect("names of crates");
    let crates: BTreeSet<&str> = crates.lines().map(str::trim).collect();
    assert!(crates.contains("burn_flex"), "the backend of the CPU is not among {crates:?}");
    for of_gpus in ["cubecl", "cubecl_core", "cubecl_cuda", "cubecl_llvm", "cudarc", "turso"] {
        assert!(!crates.contains(of_gpus), "{of_gpus} is in the build for the CPU");
    }
}

#[test]
fn a_kind_has_one_name_in_both_crates() {
    let kinds = workspace().join("crates/spec/src/stage");
    let stages = workspace().join("crates/stages/src");
    let files = fs::read_dir(kinds).expect("the kinds of crate spec").flatten().map(|entry| entry.file_name());
    let rust = files.filter(|name| name.to_string_lossy().ends_with(".rs"));
    let missing: Vec<_> = rust.filter(|name| !stages.join(name).is_file()).collect();
    assert!(missing.is_empty(), "crate stages has no file for {missing:?}");
}

/// The life of a run is told in lines with `` `path/file.rs` `` and `` `function_name` ``.
#[test]
fn the_life_of_a_run_names_functions_that_exist() {
    let crates = workspace().join("crates");
    let map = fs::read_to_string(crates.join("README.md")).expect("crates/README.md, the map");
    let mut faults = Vec::new();
    let mut n_named = 0;
    for line in map.lines() {
        let quoted: Vec<&str> = line.split('`').skip(1).step_by(2).collect();
        let Some(file) = quoted.iter().find(|word| word.ends_with(".rs")) else { continue };
        let Ok(source) = fs::read_to_string(crates.join(file)) else {
            faults.push(format!("there is no crates/{file}"));
            continue;
        };
        for function in quoted.iter().filter_map(|word| function_name(word)) {
            n_named += 1;
            let defined = [format!("fn {function}("), format!("fn {function}<")];
            if !defined.iter().any(|text| source.contains(text)) {
                faults.push(format!("crates/{file} has no function `{function}`"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(n_named >= 9, "the life of a run names {n_named} functions; nine steps have one each");
}

/// The function that a word in backticks names: `run`, `Engine::run`, `run()`.
fn function_name(word: &str) -> Option<&str> {
    let name = word.rsplit("::").next()?.trim_end_matches("()");
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    (!name.is_empty() && name.chars().all(plain)).then_some(name)
}

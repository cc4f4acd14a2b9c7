//! A sound project, and the ways to damage it. Knows the layout of a safetensors file, so that one can be made to lie.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use sluice_tests::Project;
use sluice_tests::six_stages::{copy_model, six_stages_with_models};

pub const PROMPTS: &str = "prompts.jsonl";
pub const POLICY: &str = "policy/model.safetensors";
pub const REWARD: &str = "reward/model.safetensors";

/// Six stages over two tiny models of the real architectures, all files in the folder, and no prompt held out.
pub fn project() -> Project {
    let project = six_stages_with_models("p.yaml");
    project.edit("p.yaml", "heldout: 0.4", "heldout: 0");
    project
}

/// One thing that is wrong. Paths are within the project.
pub enum Damage {
    Write(&'static str, &'static str),
    Text(&'static str, String),
    Bytes(&'static str, &'static [u8]),
    /// The old piece is there once.
    Edit(&'static str, &'static str, &'static str),
    Remove(&'static str),
    RemoveFolder(&'static str),
    /// A model folder under another name.
    Copy(&'static str, &'static str),
    Truncate(&'static str, u64),
    /// A model folder whose weights lie in shards, all of them in this one, which is not there.
    Index(&'static str, &'static str),
    /// The tensor has another name.
    Rename(&'static str, &'static str),
    /// A tensor more, of this name and shape.
    Add(&'static str, &'static str, &'static [usize]),
    /// The sizes of the tensor in reverse order.
    Transpose(&'static str, &'static str),
    /// Element 7 of the tensor is NaN.
    NotANumber(&'static str, &'static str),
    /// Every element of the tensor has this value.
    Fill(&'static str, &'static str, f32),
    /// The tensor is one of whole numbers.
    Retype(&'static str, &'static str),
    /// The tensor ends later than its shape says.
    Lie(&'static str, &'static str),
    /// The tensor has more elements than can be counted.
    Enlarge(&'static str, &'static str),
}

impl Damage {
    pub fn apply(&self, project: &Project) {
        let at = |name: &str| project.path().join(name);
        match self {
            Damage::Write(name, text) => project.write(name, text),
            Damage::Text(name, text) => project.write(name, text),
            Damage::Bytes(name, bytes) => fs::write(at(name), bytes).expect("a writable folder"),
            Damage::Edit(name, old, new) => project.edit(name, old, new),
            Damage::Remove(name) => fs::remove_file(at(name)).expect("a file of the project"),
            Damage::RemoveFolder(name) => fs::remove_dir_all(at(name)).expect("a folder of the project"),
            Damage::Copy(from, to) => copy_model(&at(from), &at(to)),
            Damage::Truncate(name, n_bytes) => {
                let file = fs::OpenOptions::new().write(true).open(at(name)).expect("a file of the project");
                file.set_len(*n_bytes).expect("a writable file");
            }
            Damage::Index(folder, shard) => {
                fs::remove_file(at(folder).join("model.safetensors")).expect("a file of the project");
                let index = json!({"metadata": {}, "weight_map": {"model.norm.weight": shard}});
                project.write(&format!("{folder}/model.safetensors.index.json"), &index.to_string());
            }
            Damage::Rename(file, tensor) => header(&at(file), |header, _| {
                let entry = header.remove(*tensor).expect("a tensor of the model");
                header.insert(format!("{tensor}s"), entry);
            }),
            Damage::Add(file, tensor, shape) => header(&at(file), |header, data| {
                let (start, n_bytes) = (data.len(), 4 * shape.iter().product::<usize>());
                data.resize(start + n_bytes, 0);
                let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, start + n_bytes]});
                header.insert((*tensor).to_owned(), entry);
            }),
            Damage::Transpose(file, tensor) => header(&at(file), |header, _| {
                header[*tensor]["shape"].as_array_mut().expect("a shape").reverse();
            }),
            Damage::NotANumber(file, tensor) => header(&at(file), |header, data| {
                let (start, _) = offsets(&header[*tensor]);
                data[start + 28..start + 32].copy_from_slice(&f32::NAN.to_le_bytes());
            }),
            Damage::Fill(file, tensor, value) => header(&at(file), |header, data| {
                let (start, end) = offsets(&header[*tensor]);
                data[start..end].chunks_exact_mut(4).for_each(|bytes| bytes.copy_from_slice(&value.to_le_bytes()));
            }),
            Damage::Retype(file, tensor) => header(&at(file), |header, _| header[*tensor]["dtype"] = json!("I32")),
            Damage::Lie(file, tensor) => header(&at(file), |header, _| {
                let (start, end) = offsets(&header[*tensor]);
                header[*tensor]["data_offsets"] = json!([start, end + 4]);
            }),
            Damage::Enlarge(file, tensor) => header(&at(file), |header, _| {
                header[*tensor]["shape"] = json!([1u64 << 40, 1u64 << 40]);
            }),
        }
    }
}

/// The files below a folder of the project, sorted.
pub fn files(project: &Project, folder: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut waiting = vec![project.path().join(folder)];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(folder).expect("a folder of the project") {
            let path = entry.expect("a folder of the project").path();
            if path.is_dir() { waiting.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

/// Puts other bytes into a file that may be read-only.
pub fn replace(file: &Path, bytes: &[u8]) {
    fs::remove_file(file).expect("a writable folder");
    fs::write(file, bytes).expect("a writable folder");
}

/// Changes a safetensors file: 8 bytes of header length, the header in JSON, the data.
fn header(file: &Path, change: impl FnOnce(&mut Map<String, Value>, &mut Vec<u8>)) {
    let bytes = fs::read(file).expect("a file of the model");
    let (length, rest) = bytes.split_at(8);
    let length = u64::from_le_bytes(length.try_into().expect("8 bytes")) as usize;
    let mut header = serde_json::from_slice(&rest[..length]).expect("a header in JSON");
    let mut data = rest[length..].to_vec();
    change(&mut header, &mut data);
    let header = serde_json::to_vec(&header).expect("JSON");
    let written = [&(header.len() as u64).to_le_bytes(), header.as_slice(), &data].concat();
    fs::write(file, written).expect("a writable file");
}

fn offsets(tensor: &Value) -> (usize, usize) {
    let offset = |at: usize| tensor["data_offsets"][at].as_u64().expect("an offset") as usize;
    (offset(0), offset(1))
}

//! The fixtures' folders, folders that lie, folders written and read back, and the cache.

use std::fs;
use std::path::{Path, PathBuf};

use expect_test::{Expect, expect};
use half::{bf16, f16};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Checkpoint, CheckpointWriter, Companions, HubModel, Snapshot, Weights};
use crate::config::Dtype;

fn fixture(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures")).join(name)
}

fn said(folder: &Path, error: impl std::fmt::Display) -> String {
    error.to_string().replace(&folder.display().to_string(), "DIR")
}

/// A folder with one file of weights, made of a header and data.
fn single(header: &str, data: &[u8]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
    folder
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

#[test]
fn fixtures_open_without_warnings() {
    for (name, n_tensors, n_eos) in [
        ("gemma2-tiny", 46, 2),
        ("gemma2-tiny-bf16", 57, 2),
        ("llama3-armorm-tiny", 40, 1),
        ("reward-seqcls-tiny", 30, 1),
        ("reward-seqcls-gemma2-tiny", 36, 1),
    ] {
        let checkpoint = Checkpoint::open(&fixture(name)).unwrap();
        assert!(checkpoint.warnings.is_empty(), "{name}");
        assert_eq!(checkpoint.tensor_names().count(), n_tensors, "{name}");
        assert_eq!(checkpoint.eos_ids().len(), n_eos, "{name}");
        let d = checkpoint.config.model.hidden_size();
        let table = checkpoint.tensor_f32("model.embed_tokens.weight", &[512, d]).unwrap();
        assert_eq!(table.len(), 512 * d, "{name}");
        assert!(checkpoint.template().is_ok(), "{name}");
        let names: Vec<String> = checkpoint.tensor_names().map(str::to_owned).collect();
        assert!(checkpoint.expect_no_extra(&names).is_ok(), "{name}");
    }
}

#[test]
fn dtypes_are_widened_exactly() {
    let values = [1.0, -0.333_251_95, 65504.0];
    let half: Vec<u8> = values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect();
    let brain: Vec<u8> = values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect();
    let header = r#"{"a":{"dtype":"F16","shape":[3],"data_offsets":[0,6]},"b":{"dtype":"BF16","shape":[3],"data_offsets":[6,12]},"c":{"dtype":"F32","shape":[1,3],"data_offsets":[12,24]}}"#;
    let folder = single(header, &[half, brain, floats(&values)].concat());
    let weights = Weights::open(folder.path()).unwrap();
    assert_eq!(weights.tensor::<f32>("a", &[3]).unwrap(), values);
    assert_eq!(weights.tensor::<f32>("b", &[3]).unwrap(), [1.0, -0.333_984_38, 65536.0]);
    assert_eq!(weights.tensor::<f32>("c", &[1, 3]).unwrap(), values);
    assert_eq!(weights.tensor::<bf16>("c", &[1, 3]).unwrap(), values.map(bf16::from_f32));
    assert_eq!((weights.n_bytes(), weights.n_elements()), (24, 9));
}

/// The message of opening the weights and reading tensor `a` as [2].
fn check(header: &str, data: &[u8], wanted: Expect) {
    let folder = single(header, data);
    let read = Weights::open(folder.path()).and_then(|weights| weights.tensor::<f32>("a", &[2]));
    wanted.assert_eq(&said(folder.path(), read.unwrap_err()));
}

#[test]
fn lying_headers() {
    let a = |dtype: &str, shape: &str, end: u64| {
        format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{end}]}}}}"#)
    };
    check(
        "",
        &[],
        expect!["DIR/model.safetensors: has a header that does not hold: EOF while parsing a value at line 1 column 0"],
    );
    check(
        "{\"a\"",
        &[],
        expect![
            "DIR/model.safetensors: has a header that does not hold: EOF while parsing an object at line 1 column 4"
        ],
    );
    check("{}", &[], expect!["DIR/model.safetensors: tensor `a` is missing; shape [2] is needed"]);
    check(&a("F32", "[2]", 8), &[0; 6], expect!["DIR/model.safetensors: describes 8 bytes of tensors and holds 6"]);
    check(&a("F32", "[2]", 8), &[0; 9], expect!["DIR/model.safetensors: describes 8 bytes of tensors and holds 9"]);
    check(
        &a("F32", "[3]", 8),
        &[0; 8],
        expect!["DIR/model.safetensors: tensor `a` is F32 [3] and needs 12 bytes; its offsets are 0 to 8"],
    );
    check(
        &a("F32", "[4294967296,4294967296]", 8),
        &[0; 8],
        expect![
            "DIR/model.safetensors: tensor `a` is F32 [4294967296, 4294967296] and needs more bytes than can be counted; its offsets are 0 to 8"
        ],
    );
    check(
        &a("F32", "[1000000000000]", 4_000_000_000_000),
        &[0; 8],
        expect!["DIR/model.safetensors: describes 4000000000000 bytes of tensors and holds 8"],
    );
    check(
        &a("I64", "[1]", 8),
        &[0; 8],
        expect!["DIR/model.safetensors: tensor `a` is stored as I64; F32, F16 or BF16 is needed"],
    );
    check(
        &a("F99", "[1]", 8),
        &[0; 8],
        expect![
            "DIR/model.safetensors: has a header that does not hold: unknown variant `F99`, expected one of `BOOL`, `F4`, `F6_E2M3`, `F6_E3M2`, `U8`, `I8`, `F8_E5M2`, `F8_E4M3`, `F8_E8M0`, `F8_E4M3FNUZ`, `F8_E5M2FNUZ`, `I16`, `U16`, `F16`, `BF16`, `I32`, `U32`, `F32`, `C64`, `F64`, `I64`, `U64` at line 1 column 54"
        ],
    );
    check(&a("F32", "[2,1]", 8), &[0; 8], expect!["DIR/model.safetensors: tensor `a` has shape [2, 1]; [2] is needed"]);
    check(
        &a("F32", "[2]", 8),
        &floats(&[1.0, f32::NAN]),
        expect!["DIR/model.safetensors: tensor `a` is NaN at element 1; finite weights are needed"],
    );
    check(
        &a("F32", "[2]", 8),
        &floats(&[f32::NEG_INFINITY, 1.0]),
        expect!["DIR/model.safetensors: tensor `a` is -inf at element 0; finite weights are needed"],
    );
    let overlapping = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
    check(
        overlapping,
        &[0; 12],
        expect!["DIR/model.safetensors: has a header that does not hold: invalid offset for tensor `b`"],
    );
    let apart = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
    check(
        apart,
        &[0; 12],
        expect!["DIR/model.safetensors: has a header that does not hold: invalid offset for tensor `a`"],
    );
}

#[test]
fn header_lengths() {
    let folder = tempfile::tempdir().unwrap();
    let message = |bytes: &[u8]| {
        fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
        said(folder.path(), Weights::open(folder.path()).unwrap_err())
    };
    expect!["DIR/model.safetensors: is 0 bytes long; a header length of 8 bytes is needed first"]
        .assert_eq(&message(&[]));
    expect!["DIR/model.safetensors: says that its header has 18446744073709551615 bytes; 0 bytes follow"]
        .assert_eq(&message(&[255; 8]));
    expect!["DIR/model.safetensors: says that its header has 90000000 bytes; 2 bytes follow"]
        .assert_eq(&message(&[&90_000_000u64.to_le_bytes()[..], b"{}"].concat()));
}

/// A folder whose index maps tensors to files; `one.safetensors` holds `a`.
fn check_index(index: Value, wanted: Expect) {
    let folder = single(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, &[0; 4]);
    fs::rename(folder.path().join("model.safetensors"), folder.path().join("one.safetensors")).unwrap();
    fs::copy(folder.path().join("one.safetensors"), folder.path().join("two.safetensors")).unwrap();
    fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    wanted.assert_eq(&said(folder.path(), Weights::open(folder.path()).unwrap_err()));
}

#[test]
fn lying_indexes() {
    check_index(json!([]), expect!["DIR/model.safetensors.index.json: has no `weight_map` from tensor names to files"]);
    check_index(
        json!({ "weight_map": { "a": 1 } }),
        expect!["DIR/model.safetensors.index.json: maps tensor `a` to 1; a file name is needed"],
    );
    check_index(
        json!({ "weight_map": { "a": "three.safetensors" } }),
        expect!["DIR/model.safetensors.index.json: names the shard `three.safetensors`, which is missing"],
    );
    check_index(
        json!({ "weight_map": { "a": "../one.safetensors" } }),
        expect!["DIR/model.safetensors.index.json: names the shard `../one.safetensors`; a plain file name is needed"],
    );
    check_index(
        json!({ "weight_map": { "a": "one.safetensors", "b": "one.safetensors" } }),
        expect!["DIR/model.safetensors.index.json: says that `one.safetensors` holds tensor `b`, which it does not"],
    );
    check_index(
        json!({ "weight_map": { "a": "one.safetensors", "b": "two.safetensors" } }),
        expect!["DIR/two.safetensors: holds tensor `a`, which another shard holds too"],
    );
}

#[test]
fn folders_that_do_not_fit() {
    let absent = fixture("nothing-here");
    let message = |error| said(&absent, error);
    expect!["DIR: is not a folder; a model folder in Hugging Face layout is needed"]
        .assert_eq(&message(Checkpoint::open(&absent).unwrap_err()));
    let folder = tempfile::tempdir().unwrap();
    let message = |error| said(folder.path(), error);
    expect!["read DIR/config.json"].assert_eq(&message(Checkpoint::open(folder.path()).unwrap_err()));
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        fs::write(folder.path().join(name), fs::read(fixture("gemma2-tiny").join(name)).unwrap()).unwrap();
    }
    expect!["DIR: holds neither model.safetensors nor model.safetensors.index.json"]
        .assert_eq(&message(Checkpoint::open(folder.path()).unwrap_err()));
    let blank = Checkpoint::open_without_weights(folder.path()).unwrap();
    assert_eq!((blank.tensor_names().count(), blank.eos_ids()), (0, vec![1]));
    fs::write(folder.path().join("config.json"), [b'"', 0xff, b'"']).unwrap();
    expect!["read DIR/config.json"].assert_eq(&message(Checkpoint::open(folder.path()).unwrap_err()));
    let checkpoint = Checkpoint::open(&fixture("gemma2-tiny")).unwrap();
    let message = |error| said(&fixture("gemma2-tiny"), error);
    expect!["DIR/model.safetensors: tensor `model.norm.weight` has shape [64]; [65] is needed"]
        .assert_eq(&message(checkpoint.tensor_f32("model.norm.weight", &[65]).unwrap_err()));
    expect!["DIR/model.safetensors: tensor `lm_head.weight` is missing; shape [512, 64] is needed"]
        .assert_eq(&message(checkpoint.tensor_f32("lm_head.weight", &[512, 64]).unwrap_err()));
    let mut used: Vec<&str> = checkpoint.tensor_names().collect();
    used.pop();
    expect!["DIR/model.safetensors: holds 1 tensor that the model does not have: `model.norm.weight`"]
        .assert_eq(&message(checkpoint.expect_no_extra(&used).unwrap_err()));
}

fn bytes_of_fixture() -> Vec<u8> {
    let header = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[3],"data_offsets":[8,20]}}"#;
    let folder = single(header, &[0; 20]);
    fs::read(folder.path().join("model.safetensors")).unwrap()
}

proptest! {
    /// Whatever happens to the bytes, opening and reading ends in tensors or in an error.
    #[test]
    fn mutated_files_never_panic(
        edits in prop::collection::vec((0usize..170, any::<u8>()), 1..6),
        cut in prop::option::of(0usize..170),
    ) {
        let mut bytes = bytes_of_fixture();
        for (at, byte) in edits {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        bytes.truncate(cut.unwrap_or(bytes.len()));
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("model.safetensors"), &bytes).unwrap();
        if let Ok(weights) = Weights::open(folder.path()) {
            for (name, tensor) in weights.tensors() {
                prop_assert!(tensor.n_elements() * tensor.dtype.bytes() <= bytes.len());
                let _ = weights.tensor::<f32>(name, &tensor.shape);
            }
        }
    }
}

/// Writes a fixture's tensors again and opens the result.
fn rewrite(from: &Checkpoint, shard_bytes: u64, dtype: Dtype) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = CheckpointWriter::with_shards(folder.path(), shard_bytes);
    for (name, tensor) in from.weights.tensors() {
        writer.tensor(name, &tensor.shape, &from.tensor_f32(name, &tensor.shape).unwrap(), dtype).unwrap();
    }
    let companions = Companions { config: &from.config, dtype, source: &from.folder, card: "# A card\n" };
    writer.finish(companions).unwrap();
    folder
}

fn files(folder: &Path) -> Vec<String> {
    let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
    let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(|entry| name(entry.unwrap())).collect();
    names.sort();
    names
}

#[test]
fn written_folders_are_the_same_model() {
    let from = Checkpoint::open(&fixture("gemma2-tiny-bf16")).unwrap();
    let digest = from.digest().unwrap();
    for shard_bytes in [1 << 40, 300_000, 1] {
        let folder = rewrite(&from, shard_bytes, Dtype::Bf16);
        let again = Checkpoint::open(folder.path()).unwrap();
        assert_eq!(again.digest().unwrap(), digest);
        assert_eq!(again.eos_ids(), [1, 5]);
        let mut names = files(folder.path());
        names.retain(|name| !name.ends_with(".safetensors"));
        let mut wanted = vec!["README.md", "config.json", "generation_config.json"];
        if shard_bytes < 1 << 40 {
            wanted.push("model.safetensors.index.json");
        }
        wanted.extend(["special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"]);
        assert_eq!(names, wanted);
    }
    let widened = Checkpoint::open(rewrite(&from, 1 << 40, Dtype::F32).path()).unwrap();
    assert_ne!(widened.digest().unwrap(), digest);
}

#[test]
fn digests_see_what_changes_outputs() {
    let from = Checkpoint::open(&fixture("gemma2-tiny")).unwrap();
    let digest = from.digest().unwrap();
    let changed = |name: &str, old: &str, new: &str| {
        let folder = rewrite(&from, 1 << 40, Dtype::F32);
        let file = folder.path().join(name);
        fs::write(&file, fs::read_to_string(&file).unwrap().replace(old, new)).unwrap();
        Checkpoint::open(folder.path()).unwrap().digest().unwrap() != digest
    };
    assert!(!changed("config.json", "\"torch_dtype\": \"float32\"", "\"dtype\": \"bfloat16\""));
    assert!(!changed("generation_config.json", "5", "6"));
    assert!(changed("config.json", "\"sliding_window\": 16", "\"sliding_window\": 15"));
    assert!(changed("tokenizer_config.json", "<start_of_turn>model", "<start_of_turn>user"));
    assert!(changed("tokenizer.json", "\"byte_fallback\": true", "\"byte_fallback\": false"));
}

#[test]
fn mixed_dtypes_are_aligned() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = CheckpointWriter::new(folder.path());
    writer.tensor("b", &[3], &[1.0, 2.0, 3.0], Dtype::Bf16).unwrap();
    writer.tensor("f", &[1, 2], &[0.1, 0.2], Dtype::F32).unwrap();
    writer.tensor("h", &[1], &[0.5], Dtype::F16).unwrap();
    let from = Checkpoint::open(&fixture("gemma2-tiny")).unwrap();
    let message = |error| said(folder.path(), error);
    expect!["DIR: tensor `h` was written already"]
        .assert_eq(&message(writer.tensor("h", &[1], &[0.5], Dtype::F16).unwrap_err()));
    expect!["DIR: tensor `x` has 1 elements; shape [2] needs another number"]
        .assert_eq(&message(writer.tensor("x", &[2], &[0.5], Dtype::F32).unwrap_err()));
    expect!["DIR: tensor `y` is inf at element 1 as float16; finite weights are needed"]
        .assert_eq(&message(writer.tensor("y", &[2], &[0.5, 1e6], Dtype::F16).unwrap_err()));
    writer.finish(Companions { config: &from.config, dtype: Dtype::Bf16, source: &from.folder, card: "" }).unwrap();
    let weights = Weights::open(folder.path()).unwrap();
    assert_eq!(weights.tensor::<f32>("f", &[1, 2]).unwrap(), [0.1, 0.2]);
    assert_eq!(weights.tensor::<f32>("h", &[1]).unwrap(), [0.5]);
    assert_eq!(weights.tensor::<f32>("b", &[3]).unwrap(), [1.0, 2.0, 3.0]);
    let bytes = fs::read(folder.path().join("model.safetensors")).unwrap();
    assert_eq!(bytes[0] % 8, 0);
    let header = String::from_utf8(bytes[8..8 + bytes[0] as usize].to_vec()).unwrap();
    expect![[r#"{"__metadata__":{"format":"pt"},"f":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},"h":{"dtype":"F16","shape":[1],"data_offsets":[8,10]},"b":{"dtype":"BF16","shape":[3],"data_offsets":[10,16]}}"#]].assert_eq(header.trim_end());
}

#[test]
fn a_folder_may_be_its_own_source() {
    let folder = tempfile::tempdir().unwrap();
    let from = Checkpoint::open(&fixture("gemma2-tiny")).unwrap();
    let tokenizer = fs::read(from.folder.join("tokenizer.json")).unwrap();
    fs::write(folder.path().join("tokenizer.json"), &tokenizer).unwrap();
    let mut writer = CheckpointWriter::new(folder.path());
    writer.tensor("w", &[1], &[1.0], Dtype::F32).unwrap();
    writer.finish(Companions { config: &from.config, dtype: Dtype::F32, source: folder.path(), card: "" }).unwrap();
    assert_eq!(fs::read(folder.path().join("tokenizer.json")).unwrap(), tokenizer);
}

#[test]
fn hub_references() {
    let cache = tempfile::tempdir().unwrap();
    let repository = cache.path().join("models--some-owner--some.model");
    let snapshot = repository.join("snapshots/0123abcd");
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(repository.join("refs/pr")).unwrap();
    fs::write(repository.join("refs/main"), "0123abcd\n").unwrap();
    fs::write(repository.join("refs/pr/1"), "4567").unwrap();
    let at = |reference: &str| match HubModel::parse(reference) {
        Ok(None) => "a path".to_owned(),
        Ok(Some(model)) => match model.cached(cache.path()) {
            Ok(Snapshot { folder, commit }) => said(cache.path(), format!("{} at {commit}", folder.display())),
            Err(error) => said(cache.path(), error),
        },
        Err(error) => error.to_string(),
    };
    // What lies there is a tokenizer alone, then an index without its shards, then a whole model.
    fs::write(snapshot.join("tokenizer.json"), "{}").unwrap();
    expect!["`hf://some-owner/some.model`: DIR/models--some-owner--some.model/snapshots/0123abcd lacks config.json, model.safetensors; fetch the rest with `hf download some-owner/some.model --revision main`"].assert_eq(&at("hf://some-owner/some.model"));
    fs::write(snapshot.join("config.json"), "{}").unwrap();
    let index =
        r#"{"weight_map": {"a": "m-2.safetensors", "b": "m-1.safetensors", "c": "m-2.safetensors", "d": "../x"}}"#;
    fs::write(snapshot.join("model.safetensors.index.json"), index).unwrap();
    expect!["`hf://some-owner/some.model`: DIR/models--some-owner--some.model/snapshots/0123abcd lacks m-1.safetensors, m-2.safetensors; fetch the rest with `hf download some-owner/some.model --revision main`"].assert_eq(&at("hf://some-owner/some.model"));
    fs::write(snapshot.join("m-1.safetensors"), "").unwrap();
    fs::write(snapshot.join("m-2.safetensors"), "").unwrap();

    let whole = "DIR/models--some-owner--some.model/snapshots/0123abcd at 0123abcd";
    assert_eq!(at("models/local"), "a path");
    assert_eq!(at("hf://some-owner/some.model"), whole);
    assert_eq!(at("hf://some-owner/some.model@main"), whole);
    assert_eq!(at("hf://some-owner/some.model@0123abcd"), whole);
    expect!["`hf://some-owner/some.model@pr/1`: looked in DIR/models--some-owner--some.model/snapshots/4567; fetch it with `hf download some-owner/some.model --revision pr/1`"].assert_eq(&at("hf://some-owner/some.model@pr/1"));
    expect!["`hf://some-owner/other`: looked in DIR/models--some-owner--other/snapshots/main; fetch it with `hf download some-owner/other --revision main`"].assert_eq(&at("hf://some-owner/other"));
    expect!["`hf://some-owner/../x@main`: hf://owner/name or hf://owner/name@revision is needed"]
        .assert_eq(&at("hf://some-owner/../x@main"));
    expect!["`hf://gone`: hf://owner/name or hf://owner/name@revision is needed"].assert_eq(&at("hf://gone"));
}

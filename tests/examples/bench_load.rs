//! `just bench-load`: time and peak memory of loading a checkpoint of several gigabytes, of its digest, and of
//! `model inspect`.
//!
//! Owns the checkpoint, which has the shapes of Gemma 2 with random weights and is gone afterwards. Each measurement is a
//! process of its own, so that its peak is its own; files were written just before, so they are read from memory.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use burn::tensor::Device;
use clap::{Parser, ValueEnum};
use serde_json::{Map, Value, json};
use sluice_lm::checkpoint::{Checkpoint, CheckpointWriter, Companions};
use sluice_lm::config::{Config, Dtype};
use sluice_lm::model::load_causal;
use sluice_lm::precision::{Placement, Precision};
use sluice_tests::bench::{Machine, seconds};
use sluice_tests::binary;

/// The allocator of the program that is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Arguments {
    /// Gigabytes of weights in bf16, about
    #[arg(long, default_value_t = 3.0)]
    gigabytes: f64,
    /// Where the checkpoint is made [default: the folder for temporary files]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Measure one thing in this process
    #[arg(long, hide = true)]
    only: Option<What>,
}

/// What one process does.
#[derive(Clone, Copy, ValueEnum)]
enum What {
    Open,
    F32,
    Bf16,
    Digest,
}

/// Sizes of gemma-2-2b; the number of layers makes the size.
const HIDDEN: usize = 2304;
const FEED_FORWARD: usize = 9216;
const HEADS: [usize; 2] = [8, 4];
const HEAD_DIM: usize = 256;
const VOCABULARY: usize = 256_000;
const SHARD_BYTES: u64 = 1_000_000_000;

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { gigabytes, folder, only } = Arguments::parse();
    if let (Some(what), Some(folder)) = (only, &folder) {
        println!("{}", measured(what, folder)?);
        return Ok(());
    }
    let machine = Machine::look();
    let parent = folder.unwrap_or_else(std::env::temp_dir);
    let folder = tempfile::Builder::new().prefix("sluice-bench-load").tempdir_in(parent)?;
    eprintln!("writing about {gigabytes} GB");
    let started = Instant::now();
    write(folder.path(), gigabytes)?;
    let checkpoint = Checkpoint::open(folder.path())?;
    let (n_parameters, n_bytes) = (checkpoint.weights.n_elements(), checkpoint.weights.n_bytes());
    let n_files = fs::read_dir(folder.path())?.count();
    drop(checkpoint);
    println!(
        "\nGemma 2 shapes, {:.2} G parameters, {:.2} GB in bf16, {n_files} files; written in {}\n",
        n_parameters as f64 / 1e9,
        n_bytes as f64 / 1e9,
        seconds(started.elapsed().as_secs_f64())
    );
    println!("| what | time | GB/s of the files | peak of the process | of the model in this type |");
    println!("| --- | --- | --- | --- | --- |");
    let rows = [
        ("open: configuration, tokenizer, headers", What::Open, None),
        ("load in f32", What::F32, Some(Precision::F32)),
        ("load in bf16", What::Bf16, Some(Precision::Bf16)),
        ("digest", What::Digest, None),
    ];
    for (name, what, precision) in rows {
        let report = child(what, folder.path())?;
        let (time, peak) =
            (report["seconds"].as_f64().unwrap_or(f64::NAN), report["peak"].as_f64().unwrap_or(f64::NAN));
        let model = precision.map(|precision| n_parameters as f64 * precision.bytes() as f64);
        let share = model.map_or_else(String::new, |bytes| format!("{:.3}", peak / bytes));
        let rate =
            if matches!(what, What::Open) { String::new() } else { format!("{:.2}", n_bytes as f64 / time / 1e9) };
        println!("| {name} | {} | {rate} | {:.2} GB | {share} |", seconds(time), peak / 1e9);
    }
    let started = Instant::now();
    let output = Command::new(binary()).args(["model", "inspect", "--json"]).arg(folder.path()).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let time = started.elapsed().as_secs_f64();
    println!("| `model inspect` | {} | {:.2} | | |", seconds(time), n_bytes as f64 / time / 1e9);
    println!("\n{machine}");
    Ok(())
}

fn child(what: What, folder: &Path) -> Result<Value, Box<dyn Error>> {
    let name = what.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let mut command = Command::new(std::env::current_exe()?);
    let output = command.args(["--only", &name, "--folder"]).arg(folder).output()?;
    if !output.status.success() {
        return Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Seconds of one thing and the peak of this process, in bytes.
fn measured(what: What, folder: &Path) -> Result<Value, Box<dyn Error>> {
    let started = Instant::now();
    let checkpoint = Checkpoint::open(folder)?;
    let started = if matches!(what, What::Open) { started } else { Instant::now() };
    let load = |precision| load_causal(&checkpoint, Placement::new(Device::flex(), precision));
    let model = match what {
        What::Open => None,
        What::F32 => Some(load(Precision::F32)?),
        What::Bf16 => Some(load(Precision::Bf16)?),
        What::Digest => {
            checkpoint.digest()?;
            None
        }
    };
    let seconds = started.elapsed().as_secs_f64();
    drop(model);
    Ok(json!({ "seconds": seconds, "peak": peak_bytes()? }))
}

/// The largest memory this process has had.
fn peak_bytes() -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM in /proc/self/status")?;
    let n_kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(n_kib * 1024)
}

/// Writes the checkpoint: as many layers as make the size.
fn write(folder: &Path, gigabytes: f64) -> Result<(), Box<dyn Error>> {
    let n_elements = |tensors: &[(String, Vec<usize>)]| {
        tensors.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum::<usize>() as f64
    };
    let (none, one) = (n_elements(&tensors(0)), n_elements(&tensors(1)));
    let n_layers = ((gigabytes * 1e9 / 2.0 - none) / (one - none)).round().max(1.0) as usize;
    let around = folder.join("around");
    fs::create_dir(&around)?;
    write_tokenizer(&around)?;
    let (config, _) = Config::parse(&config(n_layers).to_string(), Path::new("config.json"))?;
    let mut writer = CheckpointWriter::with_shards(folder, SHARD_BYTES);
    // Multiplying by the golden ratio spreads the fractions evenly; what they are does not matter, that they differ does.
    let noise: Vec<f32> = (0..65_537).map(|i| ((i as f32 * 0.618_034).fract() - 0.5) * 0.04).collect();
    for (name, shape) in tensors(n_layers) {
        let data: Vec<f32> = noise.iter().cycle().take(shape.iter().product()).copied().collect();
        writer.tensor(&name, &shape, &data, Dtype::Bf16)?;
    }
    writer.finish(Companions { config: &config, dtype: Dtype::Bf16, source: &around, card: "" })?;
    Ok(fs::remove_dir_all(around)?)
}

/// Published names and shapes.
fn tensors(n_layers: usize) -> Vec<(String, Vec<usize>)> {
    let [q, kv] = HEADS.map(|n_heads| n_heads * HEAD_DIM);
    let of_layer = [
        ("input_layernorm", vec![HIDDEN]),
        ("self_attn.q_proj", vec![q, HIDDEN]),
        ("self_attn.k_proj", vec![kv, HIDDEN]),
        ("self_attn.v_proj", vec![kv, HIDDEN]),
        ("self_attn.o_proj", vec![HIDDEN, q]),
        ("post_attention_layernorm", vec![HIDDEN]),
        ("pre_feedforward_layernorm", vec![HIDDEN]),
        ("mlp.gate_proj", vec![FEED_FORWARD, HIDDEN]),
        ("mlp.up_proj", vec![FEED_FORWARD, HIDDEN]),
        ("mlp.down_proj", vec![HIDDEN, FEED_FORWARD]),
        ("post_feedforward_layernorm", vec![HIDDEN]),
    ];
    let mut tensors = vec![("model.embed_tokens.weight".to_owned(), vec![VOCABULARY, HIDDEN])];
    for layer in 0..n_layers {
        tensors.extend(
            of_layer.iter().map(|(name, shape)| (format!("model.layers.{layer}.{name}.weight"), shape.clone())),
        );
    }
    tensors.push(("model.norm.weight".to_owned(), vec![HIDDEN]));
    tensors
}

fn config(n_layers: usize) -> Value {
    let [n_heads, n_kv_heads] = HEADS;
    json!({
        "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN, "intermediate_size": FEED_FORWARD, "num_hidden_layers": n_layers,
        "num_attention_heads": n_heads, "num_key_value_heads": n_kv_heads, "head_dim": HEAD_DIM,
        "hidden_activation": "gelu_pytorch_tanh", "max_position_embeddings": 8192, "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0, "query_pre_attn_scalar": 256, "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0, "sliding_window": 4096, "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0, "torch_dtype": "bfloat16",
    })
}

/// A tokenizer with as many ids as the embedding has rows; the text of most of them is a number.
fn write_tokenizer(folder: &Path) -> Result<(), Box<dyn Error>> {
    const SPECIALS: [&str; 4] = ["<pad>", "<eos>", "<bos>", "<unk>"];
    let text = |id: usize| SPECIALS.get(id).map_or_else(|| format!("t{id}"), |special| (*special).to_owned());
    let vocabulary: Map<String, Value> = (0..VOCABULARY).map(|id| (text(id), json!(id))).collect();
    let added: Vec<Value> = (0..SPECIALS.len())
        .map(|id| {
            json!({
                "id": id, "content": SPECIALS[id], "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true,
            })
        })
        .collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocabulary, "merges": [],
        },
    });
    fs::write(folder.join("tokenizer.json"), tokenizer.to_string())?;
    let settings = json!({
        "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>",
        "chat_template": "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}",
    });
    Ok(fs::write(folder.join("tokenizer_config.json"), settings.to_string())?)
}

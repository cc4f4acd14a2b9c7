//! `model inspect`: what a model folder is, what it costs, and what would be refused and why. `model fetch`: a model of the
//! hub into the local cache.

use serde_json::{Map, Value, json};
use sluice_lm::checkpoint::{Checkpoint, HubModel};
use sluice_lm::memory::{SamplingLoad, Share, Sizes};
use sluice_lm::model::check;
use sluice_lm::precision::Precision;
use sluice_spec::Dtype;
use sluice_stages::Place;
use sluice_train::backward::Kept;
use sluice_train::memory::{TrainingLoad, training, training_on_gpu};
use sluice_train::optimizer::{Keeping, Master};

use crate::args::{Global, Inspect, MasterChoice, MomentsChoice, On};
use crate::device;
use crate::exit::{Exit, Failure, Outcome};
use crate::hub;
use crate::model_folder::folder;
use crate::output::out;
use crate::progress::Transfer;
use crate::render::model::{Inspected, inspected};
use crate::render::quantity::count;
use crate::world::World;

pub fn inspect(global: &Global, world: &World, args: &Inspect) -> Outcome {
    let folder = folder(&args.folder, global, world)?;
    let model = match Checkpoint::open(&folder) {
        Ok(model) => model,
        Err(error) => {
            let failure = Failure::new(Exit::Usage, error);
            if global.json {
                out(format!("{}\n", json!({"folder": folder.display().to_string(), "refused": failure.chain()})));
                return Ok(Exit::Usage);
            }
            return Err(failure);
        }
    };
    let digest = model.digest().map_err(|error| Failure::new(Exit::Usage, error))?;
    let n_parameters = n_parameters(&model);
    let device = device::chosen(global, Dtype::Auto);
    let is_on_gpu = match args.on {
        Some(on) => on == On::Gpu,
        None => device.place != Place::Cpu,
    };
    let precision = device.precision;
    let sizes = Sizes::of(&model.config);
    let sampling = |load| if is_on_gpu { sizes.sampling_on_gpu(load) } else { sizes.sampling(load) };
    let training = if is_on_gpu { training_on_gpu } else { training };
    let shown = Inspected {
        folder: folder.display().to_string(),
        architecture: model.config.architecture().to_owned(),
        n_parameters,
        dtype: dtypes(&model),
        digest: digest.to_string(),
        vocab_size: model.config.model.vocab_size() as u64,
        max_positions: model.config.model.max_position_embeddings() as u64,
        has_template: model.template().is_ok(),
        stored_bytes: model.weights.n_bytes(),
        precision: precision.name(),
        run_bytes: n_parameters * precision.bytes() as u64,
        sampling: (sampling_of(args), sampling(sampling_load(args, precision))),
        training: (training_of(args), training(&sizes, training_load(args, precision, n_parameters))),
        warnings: model.warnings.iter().map(|(file, warning)| format!("{}: {warning}", file.display())).collect(),
        refused: refused(&model),
    };
    out(if global.json { format!("{}\n", object(&shown)) } else { inspected(&shown, world.out) });
    Ok(if shown.refused.is_empty() { Exit::Ok } else { Exit::Usage })
}

fn sampling_load(args: &Inspect, precision: Precision) -> SamplingLoad {
    let [max_batch, n_prompt, n_new] =
        [args.max_batch, args.prompt_tokens, args.max_new_tokens].map(|count| count as usize);
    SamplingLoad { precision, max_batch, n_prompt, n_new }
}

fn sampling_of(args: &Inspect) -> String {
    let Inspect { max_batch, prompt_tokens, max_new_tokens, .. } = args;
    format!("{max_batch} answers at a time, of {prompt_tokens} + {max_new_tokens} tokens")
}

/// Every token of a pass may be one that is predicted.
fn training_load(args: &Inspect, precision: Precision, n_parameters: u64) -> TrainingLoad {
    let kept = match args.recompute {
        Some(true) => Kept::Blocks,
        Some(false) => Kept::All,
        None => Kept::suited_to(n_parameters as usize),
    };
    let keeping = match precision {
        Precision::F32 => Keeping::default(),
        Precision::Bf16 => Keeping {
            master: match args.master {
                MasterChoice::F32 => Master::F32,
                MasterChoice::Split => Master::Split,
                MasterChoice::Stochastic => Master::Stochastic,
            },
            moments: match args.moments {
                MomentsChoice::F32 => Precision::F32,
                MomentsChoice::Bf16 => Precision::Bf16,
            },
        },
    };
    let n_tokens = args.micro_batch_tokens as usize;
    TrainingLoad { precision, keeping, kept, n_tokens, n_predicted: n_tokens }
}

fn training_of(args: &Inspect) -> String {
    format!("passes of {} tokens", count(u64::from(args.micro_batch_tokens)))
}

pub fn fetch(global: &Global, world: &World, reference: &str) -> Outcome {
    let Some(model) = HubModel::parse(reference).map_err(hub::failure)? else {
        return Err(Failure::usage(format!(
            "`{reference}` is a path; hf://owner/name or hf://owner/name@revision is needed"
        )));
    };
    let transfer = Transfer::new(global, world);
    let snapshot = world.hub.fetch(&model, None, &|step| transfer.step(step))?;
    let folder = snapshot.folder.display().to_string();
    out(match global.json {
        true => format!("{}\n", json!({"model": model.to_string(), "commit": snapshot.commit, "folder": folder})),
        false => format!("{folder}\n"),
    });
    Ok(Exit::Ok)
}

/// Scalars of all stored tensors.
pub fn n_parameters(model: &Checkpoint) -> u64 {
    model.weights.n_elements()
}

/// The types the tensors are stored in, as `bfloat16` or `float32 and bfloat16`.
fn dtypes(model: &Checkpoint) -> String {
    let mut names: Vec<&str> = model.weights.tensors().map(|(_, tensor)| tensor.dtype.torch_name()).collect();
    names.sort_unstable();
    names.dedup();
    names.join(" and ")
}

/// Why the model would not load, outermost reason first.
fn refused(model: &Checkpoint) -> Vec<String> {
    check(model).map_or_else(|error| Failure::new(Exit::Usage, error).chain(), |()| Vec::new())
}

fn object(shown: &Inspected) -> Value {
    let Inspected {
        folder,
        architecture,
        n_parameters,
        dtype,
        digest,
        vocab_size,
        max_positions,
        has_template,
        stored_bytes,
        precision,
        run_bytes,
        sampling: (_, sampling),
        training: (_, training),
        warnings,
        refused,
    } = shown;
    json!({
        "folder": folder,
        "architecture": architecture,
        "parameters": n_parameters,
        "dtype": dtype,
        "digest": digest,
        "vocab_size": vocab_size,
        "max_positions": max_positions,
        "chat_template": has_template,
        "bytes": stored_bytes,
        "run_dtype": precision,
        "run_bytes": run_bytes,
        "sample_bytes": Share::total(sampling),
        "sample_memory": parts(sampling),
        "train_bytes": Share::total(training),
        "train_memory": parts(training),
        "warnings": warnings,
        "refused": refused,
    })
}

/// Bytes by what they are for, without what takes none.
fn parts(shares: &[Share]) -> Value {
    let parts = shares.iter().filter(|share| share.n_bytes > 0);
    Value::Object(parts.map(|share| (share.name.to_owned(), json!(share.n_bytes))).collect::<Map<_, _>>())
}

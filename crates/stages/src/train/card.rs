//! The model card: what a checkpoint was made from and how, so that the folder explains itself without the store.
//!
//! Names digests and settings, never a date, a path or a machine: equal inputs give an equal card.

use std::fmt::Write;

use sluice_lm::config::Config;
use sluice_spec::stage::train::Train;
use sluice_spec::{Leaf, LeafValue};
use sluice_store::ModelDigest;

/// Where a checkpoint comes from.
pub struct Lineage<'a> {
    pub params: &'a Train,
    /// The starting model as the pipeline file names it.
    pub base: &'a str,
    pub base_digest: ModelDigest,
    /// The examples: their stage and the digest of their table.
    pub examples: &'a str,
    pub n_examples: usize,
    pub n_steps: usize,
}

/// The text of `README.md`.
pub fn card(config: &Config, lineage: &Lineage<'_>) -> String {
    let Lineage { params, base, base_digest, examples, n_examples, n_steps } = lineage;
    let objective = params.objective.name();
    let mut leaves: Vec<Leaf> = Vec::new();
    params.leaves(&mut leaves);
    let mut rows = String::new();
    for Leaf { path, value, place: _ } in &leaves {
        // Writing into a String cannot fail.
        let _ = writeln!(rows, "| {path} | {} |", shown(value));
    }
    format!(
        "---\nlibrary_name: transformers\ntags: [sluice, {objective}]\n---\n\n\
         # {architecture}, trained with `{objective}`\n\n\
         Made by sluice. Weights are in f32; tokenizer, chat template and generation ids are those of the base.\n\n\
         | lineage | |\n|---|---|\n\
         | base | {base} |\n\
         | base digest | `{base_digest}` |\n\
         | examples | {examples} |\n\
         | examples used | {n_examples} |\n\
         | optimiser steps | {n_steps} |\n\n\
         | parameter | value |\n|---|---|\n{rows}",
        architecture = config.architecture(),
    )
}

fn shown(value: &LeafValue) -> String {
    match value {
        LeafValue::Null => "none".to_owned(),
        LeafValue::Bool(value) => value.to_string(),
        LeafValue::Int(value) => value.to_string(),
        LeafValue::Float(value) => format!("{value:?}"),
        LeafValue::Str(text) => text.clone(),
        LeafValue::List(values) => values.iter().map(shown).collect::<Vec<_>>().join(", "),
    }
}

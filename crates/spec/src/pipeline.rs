//! A pipeline: what a file says once profile, overrides and references are resolved.
//! Owns the typed document; refuses to know in which order stages run.

use std::collections::HashMap;

use crate::dtype::Dtype;
use crate::limits::Limit;
use crate::names::{ModelName, ProfileName, StageName};
use crate::secret::SecretRef;
use crate::span::{Located, Sources, Span};
use crate::stage::Stage;

/// A whole pipeline file, right in itself: every name it reads exists and makes what the reader expects.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// The texts that spans point into.
    pub sources: Sources,
    /// The profile in use; `None` when the file has no profiles.
    pub profile: Option<ProfileName>,
    /// What models compute in.
    pub dtype: Dtype,
    /// In the order of the file.
    pub models: Vec<Model>,
    /// In the order of the file; the cells of a matrix stand where their stage does.
    pub stages: Vec<Stage>,
    /// The limits that are on, of the section `limits` and of `--limit`.
    pub limits: Vec<Limit>,
    /// Places in `stages`.
    by_name: HashMap<StageName, usize>,
}

impl Pipeline {
    pub(crate) fn new(
        sources: Sources,
        profile: Option<ProfileName>,
        dtype: Dtype,
        models: Vec<Model>,
        stages: Vec<Stage>,
        limits: Vec<Limit>,
    ) -> Pipeline {
        let by_name = stages.iter().enumerate().map(|(at, stage)| (stage.name.clone(), at)).collect();
        Pipeline { sources, profile, dtype, models, stages, limits, by_name }
    }

    pub fn stage(&self, name: &StageName) -> Option<&Stage> {
        self.position(name).map(|at| &self.stages[at])
    }

    /// The place of a stage in `stages`.
    pub fn position(&self, name: &StageName) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    pub fn model(&self, name: &ModelName) -> Option<&Model> {
        self.models.iter().find(|model| model.name == *name)
    }
}

/// An entry of `models`.
#[derive(Debug, Clone)]
pub struct Model {
    pub name: ModelName,
    pub location: Location,
    /// What proves to a hub that one may have the model. It enters no key: what a model is does not depend on it.
    pub token: Option<Located<SecretRef>>,
    /// Where the location stands.
    pub place: Span,
}

/// Where a model is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Location {
    /// A folder in Hugging Face layout, relative to the project folder.
    Folder(String),
    /// `hf://owner/name@revision`: in the local Hugging Face cache, or to be fetched into it.
    HuggingFace { owner: String, name: String, revision: Option<String> },
}

//! Models of the hub: where they are in the local cache, and that what is not there is fetched into it, if that is allowed.
//!
//! Owns when the network is used and with which token. The cache's layout is crate `lm`'s; the transfer is in `fetch.rs`,
//! behind the feature `download`.

#[cfg(feature = "download")]
mod fetch;
#[cfg(feature = "download")]
mod sum;

use std::path::PathBuf;

use sluice_lm::checkpoint::{HubError, HubModel, Snapshot};
use sluice_spec::{Location, Secret};

use crate::exit::{Exit, Failure};
use crate::secret::{self, Found};

/// The hub and its cache, as the environment and the command line have them.
#[derive(Debug, Clone)]
pub struct Hub {
    /// The cache's `hub` folder, which the hub's own tools share.
    pub cache: PathBuf,
    /// Without a slash at its end.
    pub endpoint: String,
    /// The network is not to be used.
    pub offline: bool,
    /// HF_TOKEN, for models that name no token of their own.
    pub token: Option<Secret>,
    /// Where the hub's own tools leave a token; read when one is needed.
    pub token_file: PathBuf,
}

/// What happens while a model is fetched.
#[derive(Debug)]
pub enum Step<'a> {
    /// It is known what is to be fetched.
    Begin {
        model: &'a HubModel,
        commit: &'a str,
        n_files: usize,
        bytes: u64,
        /// Of these, what an earlier fetch left.
        bytes_there: u64,
        /// Where it goes.
        folder: PathBuf,
    },
    /// A file is next.
    File { name: &'a str },
    /// Another process is fetching this file.
    Waits { name: &'a str },
    /// So much of all bytes is there.
    Bytes { done: u64 },
    /// All of it is there.
    End,
}

/// Somebody who watches a fetch.
pub type Tell<'a> = &'a dyn Fn(Step<'_>);

impl Hub {
    /// Whether what is absent can be fetched.
    pub fn fetches(&self) -> bool {
        cfg!(feature = "download") && !self.offline
    }

    /// A model's snapshot in the cache.
    pub fn find(&self, model: &HubModel) -> Result<Snapshot, HubError> {
        model.cached(&self.cache)
    }

    /// A model's snapshot, fetched if it is not in the cache. `token` is the model's own.
    ///
    /// # Errors
    /// `Exit::Remote` when it is not there and cannot be fetched.
    pub fn obtain(&self, model: &HubModel, token: Option<Found>, tell: Tell<'_>) -> Result<Snapshot, Failure> {
        match self.find(model) {
            Err(HubError::Absent { .. } | HubError::Incomplete { .. }) if self.fetches() => {
                self.fetch(model, token, tell)
            }
            found => found.map_err(failure),
        }
    }

    /// Fetches what the cache lacks of a model, at the commit that its revision stands for now.
    #[cfg(feature = "download")]
    pub fn fetch(&self, model: &HubModel, token: Option<Found>, tell: Tell<'_>) -> Result<Snapshot, Failure> {
        if self.offline {
            let message =
                format!("`{model}` is not fetched: --offline or HF_HUB_OFFLINE says to use the local cache alone");
            return Err(Failure::new(Exit::Remote, message));
        }
        let token = match token {
            Some(token) => Some(token),
            None => self.usual_token().map_err(|error| Failure::new(Exit::Usage, error))?,
        };
        fetch::fetch(self, model, token.as_ref(), tell).map_err(|error| Failure::new(Exit::Remote, error))
    }

    /// Says that this build does not fetch.
    #[cfg(not(feature = "download"))]
    pub fn fetch(&self, model: &HubModel, _token: Option<Found>, _tell: Tell<'_>) -> Result<Snapshot, Failure> {
        let message = format!("`{model}` is not fetched: this build is without the feature `download`");
        Err(Failure::new(Exit::Remote, message).help(format!("fetch it with `{}`", model.command())))
    }

    /// The token that the hub's own tools would use: HF_TOKEN, or else what they were logged in with.
    #[cfg(feature = "download")]
    fn usual_token(&self) -> Result<Option<Found>, secret::SecretError> {
        if let Some(token) = &self.token {
            return secret::token(token.reveal(), "HF_TOKEN".to_owned()).map(Some);
        }
        match secret::read(&self.token_file) {
            Ok(text) if text.trim().is_empty() => Ok(None),
            Ok(text) => secret::token(&text, self.token_file.display().to_string()).map(Some),
            Err(secret::SecretError::NoFile { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The model of the hub at a location; none at a folder.
pub fn model(location: &Location) -> Option<HubModel> {
    match location {
        Location::Folder(_) => None,
        // The parts of a location that was read are plain.
        Location::HuggingFace { owner, name, revision } => HubModel::new(owner, name, revision.as_deref()),
    }
}

/// What a reference that leads nowhere ends with.
pub fn failure(error: HubError) -> Failure {
    match error {
        HubError::Reference { .. } => Failure::new(Exit::Usage, error),
        HubError::Absent { .. } | HubError::Incomplete { .. } | HubError::Read { .. } => {
            Failure::new(Exit::Remote, error)
        }
    }
}

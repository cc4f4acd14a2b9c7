//! Conversations as token ids: what a policy is asked with, and what a judge reads.
//!
//! Owns which turns these are. The words around them are the chat template's; knows nothing of what the ids are fed to.

use sluice_lm::checkpoint::{Checkpoint, CheckpointError};
use sluice_lm::template::Message;
use sluice_spec::stage::sample::Bos;

/// A prompt with the header of the turn that answers it.
pub fn prompt_ids(checkpoint: &Checkpoint, prompt: &str, bos: Bos) -> Result<Vec<u32>, CheckpointError> {
    let n_bos = match bos {
        Bos::Single => 1,
        Bos::Double => 2,
    };
    checkpoint.conversation_ids(&[Message::user(prompt)], true, n_bos)
}

/// A prompt and its answer, both turns ended.
pub fn conversation_ids(checkpoint: &Checkpoint, prompt: &str, response: &str) -> Result<Vec<u32>, CheckpointError> {
    checkpoint.conversation_ids(&[Message::user(prompt), Message::assistant(response)], false, 1)
}

//! Conversations as token ids: what a policy is asked with, and what a judge reads.
//!
//! Owns how many begin tokens stand before a text. The words around the turns are the chat template's; knows nothing of
//! what the ids are fed to.

use sluice_lm::checkpoint::{Checkpoint, CheckpointError};
use sluice_lm::template::Message;
use sluice_spec::stage::sample::Bos;

/// A prompt with the header of the turn that answers it.
pub fn prompt_ids(checkpoint: &Checkpoint, prompt: &str, bos: Bos) -> Result<Vec<u32>, CheckpointError> {
    let text = checkpoint.template()?.render(&[Message::user(prompt)], true)?;
    Ok(with_bos(checkpoint.tokenizer.encode(&text)?, checkpoint.tokenizer.bos_id(), bos))
}

/// A prompt and its answer, both turns ended.
pub fn conversation_ids(checkpoint: &Checkpoint, prompt: &str, response: &str) -> Result<Vec<u32>, CheckpointError> {
    let turns = [Message::user(prompt), Message::assistant(response)];
    let text = checkpoint.template()?.render(&turns, false)?;
    Ok(with_bos(checkpoint.tokenizer.encode(&text)?, checkpoint.tokenizer.bos_id(), Bos::Single))
}

/// Exactly the number of begin tokens that is asked for, whether the template wrote one or not; a tokenizer without a
/// begin token leaves the text as it is.
fn with_bos(ids: Vec<u32>, bos_id: Option<u32>, bos: Bos) -> Vec<u32> {
    let Some(bos_id) = bos_id else { return ids };
    let n_bos = match bos {
        Bos::Single => 1,
        Bos::Double => 2,
    };
    let n_written = ids.iter().take_while(|id| **id == bos_id).count();
    let mut out = vec![bos_id; n_bos];
    out.extend_from_slice(&ids[n_written..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begin_tokens_are_counted_not_added() {
        for (written, bos, expected) in [
            (vec![5, 6], Bos::Single, vec![2, 5, 6]),
            (vec![2, 5, 6], Bos::Single, vec![2, 5, 6]),
            (vec![2, 2, 5, 6], Bos::Single, vec![2, 5, 6]),
            (vec![2, 5, 6], Bos::Double, vec![2, 2, 5, 6]),
            // One inside the text is the text's own.
            (vec![5, 2, 6], Bos::Single, vec![2, 5, 2, 6]),
        ] {
            assert_eq!(with_bos(written, Some(2), bos), expected);
        }
        assert_eq!(with_bos(vec![5], None, Bos::Double), vec![5]);
    }
}

//! From conversations to sequences, with a checkpoint's own template and tokenizer.
//!
//! Owns the joining of the two halves: the rendered border and the tokens on both sides of it.

use sluice_lm::checkpoint::{Checkpoint, CheckpointError};
use sluice_lm::template::{ChatTemplate, Message};
use sluice_lm::tokenizer::{Tokenizer, TokenizerError};
use thiserror::Error;

use super::{Cut, Encoder, Limits, PairText, ResponseHeader, Sequence, TokenPair, Turn, TurnError, split_turn};

/// How conversations become sequences for one model.
pub struct Formatter<'a> {
    tokenizer: &'a Tokenizer,
    template: &'a ChatTemplate,
    header: ResponseHeader,
    limits: Limits,
    eos: u32,
}

/// A conversation that does not become a sequence.
#[derive(Debug, Error)]
pub enum FormatError {
    #[error(transparent)]
    NoTemplate(CheckpointError),
    #[error("the tokenizer names no end token (`eos_token`), which must close a trained response")]
    NoEos,
    #[error("part it into prompt and response")]
    Turn { source: TurnError },
    #[error(transparent)]
    Tokenize(#[from] TokenizerError),
}

impl<'a> Formatter<'a> {
    /// A formatter for a checkpoint with a chat template and an end token: the tokenizer's, or else the first one of the
    /// configuration.
    pub fn new(checkpoint: &'a Checkpoint, header: ResponseHeader, limits: Limits) -> Result<Self, FormatError> {
        let (tokenizer, config) = (&checkpoint.tokenizer, &checkpoint.config);
        let template = checkpoint.template().map_err(FormatError::NoTemplate)?;
        let eos = tokenizer.eos_id().or(config.eos_token_ids.first().copied()).ok_or(FormatError::NoEos)?;
        Ok(Self { tokenizer, template, header, limits, eos })
    }

    /// Two responses to one prompt, and what they lost to the limits.
    pub fn pair(&self, prompt: &[Message], chosen: &str, rejected: &str) -> Result<(TokenPair, Cut), FormatError> {
        let (chosen, rejected) = (self.turn(prompt, chosen)?, self.turn(prompt, rejected)?);
        let text = PairText { prompt: &chosen.prompt, chosen: &chosen.response, rejected: &rejected.response };
        Ok(self.encoder(&|text| self.tokenizer.encode(text)).pair(&text)?)
    }

    /// One response to a prompt, and what they lost to the limits.
    pub fn row(&self, prompt: &[Message], response: &str) -> Result<(Sequence, Cut), FormatError> {
        let turn = self.turn(prompt, response)?;
        Ok(self.encoder(&|text| self.tokenizer.encode(text)).row(&turn.prompt, &turn.response)?)
    }

    fn turn(&self, prompt: &[Message], response: &str) -> Result<Turn, FormatError> {
        split_turn(self.template, prompt, response, self.header).map_err(|source| FormatError::Turn { source })
    }

    fn encoder<'e>(&self, encode: &'e dyn Fn(&str) -> Result<Vec<u32>, TokenizerError>) -> Encoder<'e> {
        Encoder { encode, bos: self.tokenizer.bos_id(), eos: self.eos, limits: self.limits }
    }
}

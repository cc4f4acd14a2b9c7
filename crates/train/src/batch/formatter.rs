//! From conversations to sequences, with a checkpoint's own template and tokenizer.
//!
//! Owns the joining of the two halves: the rendered border and the tokens on both sides of it.

use sluice_lm::template::{ChatTemplate, Message};
use sluice_lm::tokenizer::{Tokenizer, TokenizerError};
use thiserror::Error;

use super::{Encoder, Limits, PairText, ResponseHeader, Sequence, TokenPair, TurnError, split_turn};

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
    #[error("the tokenizer names no eos token, and a trained response ends with one")]
    NoEos,
    #[error(transparent)]
    Turn(#[from] TurnError),
    #[error("tokenize a prompt with its response")]
    Tokenize(#[from] TokenizerError),
}

impl<'a> Formatter<'a> {
    /// A formatter for a tokenizer that has an EOS.
    pub fn new(
        tokenizer: &'a Tokenizer,
        template: &'a ChatTemplate,
        header: ResponseHeader,
        limits: Limits,
    ) -> Result<Self, FormatError> {
        let eos = tokenizer.eos_id().ok_or(FormatError::NoEos)?;
        Ok(Self { tokenizer, template, header, limits, eos })
    }

    /// Two responses to one prompt.
    pub fn pair(&self, prompt: &[Message], chosen: &str, rejected: &str) -> Result<TokenPair, FormatError> {
        let chosen = split_turn(self.template, prompt, chosen, self.header)?;
        let rejected = split_turn(self.template, prompt, rejected, self.header)?;
        let text = PairText { prompt: &chosen.prompt, chosen: &chosen.response, rejected: &rejected.response };
        Ok(self.encoder(&|text| self.tokenizer.encode(text)).pair(&text)?)
    }

    /// One response to a prompt.
    pub fn row(&self, prompt: &[Message], response: &str) -> Result<Sequence, FormatError> {
        let turn = split_turn(self.template, prompt, response, self.header)?;
        Ok(self.encoder(&|text| self.tokenizer.encode(text)).row(&turn.prompt, &turn.response)?)
    }

    fn encoder<'e>(&self, encode: &'e dyn Fn(&str) -> Result<Vec<u32>, TokenizerError>) -> Encoder<'e> {
        Encoder { encode, bos: self.tokenizer.bos_id(), eos: self.eos, limits: self.limits }
    }
}

//! The cut of a prompt and its response to a maximum length.
//!
//! Owns both rules: the sane one and the one of the reference SimPO trainer.

use serde::Serialize;

use super::{BatchError, Cut};

/// What a pair that is too long loses. Either way the prompt is cut first, to `max_prompt_length`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Truncation {
    /// A response keeps the tokens that its prompt leaves free: `max_length − prompt length`. A prompt that loses its
    /// start keeps its BOS.
    Budget,
    /// A response keeps `max_length − max_prompt_length` tokens, however short its prompt is: 248 of 2,048 at the
    /// published settings. A prompt that loses its start loses its BOS. Both as the reference trainer does.
    Reference,
}

/// The end of a long prompt that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptKeep {
    End,
    Start,
}

/// Lengths in tokens, and what is cut where they are exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    max_length: usize,
    max_prompt_length: usize,
    truncation: Truncation,
    prompt_keep: PromptKeep,
}

impl Limits {
    /// Limits that leave room for at least one response token.
    pub fn new(
        max_length: usize,
        max_prompt_length: usize,
        truncation: Truncation,
        prompt_keep: PromptKeep,
    ) -> Result<Self, BatchError> {
        if max_prompt_length == 0 || max_prompt_length >= max_length {
            return Err(BatchError::NoRoom { max_length, max_prompt_length });
        }
        Ok(Self { max_length, max_prompt_length, truncation, prompt_keep })
    }

    /// Cuts the prompt, then the response, where the prompt with a response of `longer` tokens exceeds the maximum.
    /// Tells what was lost.
    pub(super) fn cut(&self, prompt: &mut Vec<u32>, response: &mut Vec<u32>, longer: usize, bos: Option<u32>) -> Cut {
        if prompt.len() + longer <= self.max_length {
            return Cut::default();
        }
        let (n_prompt, n_response) = (prompt.len(), response.len());
        self.cut_prompt(prompt, bos);
        match self.truncation {
            Truncation::Budget => response.truncate(self.max_length - prompt.len()),
            Truncation::Reference if prompt.len() + longer > self.max_length => {
                response.truncate(self.max_length - self.max_prompt_length);
            }
            Truncation::Reference => {}
        }
        Cut { prompt: prompt.len() < n_prompt, response: response.len() < n_response }
    }

    fn cut_prompt(&self, prompt: &mut Vec<u32>, bos: Option<u32>) {
        let n_lost = prompt.len().saturating_sub(self.max_prompt_length);
        match self.prompt_keep {
            PromptKeep::Start => prompt.truncate(self.max_prompt_length),
            PromptKeep::End => {
                let keeps_bos =
                    self.truncation == Truncation::Budget && bos.is_some() && prompt.first() == bos.as_ref();
                let n_kept_head = usize::from(keeps_bos);
                prompt.drain(n_kept_head..n_kept_head + n_lost);
            }
        }
    }
}

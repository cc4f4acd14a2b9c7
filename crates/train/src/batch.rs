//! From a rendered prompt and its responses to token ids.
//!
//! Owns where the response begins, the one BOS, the one EOS and the cut to a maximum length. Knows nothing of models.
//! [`Formatter`] goes the whole way from a conversation.

mod formatter;
mod truncate;
mod turn;

use sluice_lm::tokenizer::TokenizerError;
use thiserror::Error;

pub use formatter::{FormatError, Formatter};
pub use truncate::{Limits, PromptKeep, Truncation};
pub use turn::{ResponseHeader, Turn, TurnError, split_turn};

/// Tokens of a prompt and of the response that follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    ids: Vec<u32>,
    n_prompt: usize,
}

/// A chosen and a rejected response to one prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenPair {
    pub chosen: Sequence,
    pub rejected: Sequence,
}

/// What an example lost to the limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// The prompt lost tokens.
    pub prompt: bool,
    /// A response lost tokens.
    pub response: bool,
}

/// Texts that a chat template has rendered; the response follows the prompt without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairText<'a> {
    pub prompt: &'a str,
    pub chosen: &'a str,
    pub rejected: &'a str,
}

/// Turns rendered texts into sequences.
pub struct Encoder<'a> {
    /// Token ids of a text, without special tokens around it; special tokens written in the text become their ids.
    pub encode: &'a dyn Fn(&str) -> Result<Vec<u32>, TokenizerError>,
    /// Put before a prompt that does not start with it.
    pub bos: Option<u32>,
    /// Put after a response that does not end with it.
    pub eos: u32,
    pub limits: Limits,
}

/// A batch setting that cannot work.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BatchError {
    #[error(
        "max_prompt_length {max_prompt_length} leaves no room for a response in max_length {max_length}; \
         it must be at least 1 and below max_length"
    )]
    NoRoom { max_length: usize, max_prompt_length: usize },
}

impl Sequence {
    /// Joins a prompt and a response.
    pub fn new(prompt: &[u32], response: &[u32]) -> Self {
        Self { ids: [prompt, response].concat(), n_prompt: prompt.len() }
    }

    /// Prompt, then response.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    pub fn prompt(&self) -> &[u32] {
        &self.ids[..self.n_prompt]
    }

    pub fn response(&self) -> &[u32] {
        &self.ids[self.n_prompt..]
    }

    pub fn n_tokens(&self) -> usize {
        self.ids.len()
    }

    /// Positions of the tokens that are predicted: the response, without a token that has nothing before it.
    pub fn predicted(&self) -> std::ops::Range<usize> {
        self.n_prompt.max(1).min(self.ids.len())..self.ids.len()
    }

    /// Number of predicted tokens: what a mean log-prob divides by.
    pub fn n_predicted(&self) -> usize {
        self.predicted().len()
    }
}

impl TokenPair {
    /// Tokens of both sequences.
    pub fn n_tokens(&self) -> usize {
        self.chosen.n_tokens() + self.rejected.n_tokens()
    }
}

impl Cut {
    /// Whether anything was lost.
    pub fn is_any(self) -> bool {
        self.prompt || self.response
    }
}

impl AsRef<[u32]> for Sequence {
    fn as_ref(&self) -> &[u32] {
        &self.ids
    }
}

impl Encoder<'_> {
    /// Both sequences of a pair, and what they lost. The longer response decides for both whether the prompt is cut.
    pub fn pair(&self, text: &PairText<'_>) -> Result<(TokenPair, Cut), TokenizerError> {
        let (mut chosen_prompt, mut chosen) = self.split(text.prompt, text.chosen)?;
        let (mut rejected_prompt, mut rejected) = self.split(text.prompt, text.rejected)?;
        let longer = chosen.len().max(rejected.len());
        let of_chosen = self.limits.cut(&mut chosen_prompt, &mut chosen, longer, self.bos);
        let of_rejected = self.limits.cut(&mut rejected_prompt, &mut rejected, longer, self.bos);
        let pair = TokenPair {
            chosen: Sequence::new(&chosen_prompt, &chosen),
            rejected: Sequence::new(&rejected_prompt, &rejected),
        };
        let cut = Cut {
            prompt: of_chosen.prompt || of_rejected.prompt,
            response: of_chosen.response || of_rejected.response,
        };
        Ok((pair, cut))
    }

    /// One prompt with one response, and what they lost.
    pub fn row(&self, prompt: &str, response: &str) -> Result<(Sequence, Cut), TokenizerError> {
        let (mut prompt, mut response) = self.split(prompt, response)?;
        let n_response = response.len();
        let cut = self.limits.cut(&mut prompt, &mut response, n_response, self.bos);
        Ok((Sequence::new(&prompt, &response), cut))
    }

    /// Token ids of prompt and response, before any cut.
    ///
    /// Both are tokenised as one text and parted at the length of the prompt's own ids. Where those are not the start of
    /// the joint ids, a token has merged across the border, and the border moves back by one.
    fn split(&self, prompt: &str, response: &str) -> Result<(Vec<u32>, Vec<u32>), TokenizerError> {
        let prompt_alone = (self.encode)(prompt)?;
        let mut prompt_ids = (self.encode)(&format!("{prompt}{response}"))?;
        let mut border = prompt_alone.len().min(prompt_ids.len());
        if prompt_ids[..border] != prompt_alone {
            border = border.saturating_sub(1);
        }
        let mut response_ids = prompt_ids.split_off(border);
        if let Some(bos) = self.bos
            && prompt_ids.first() != Some(&bos)
        {
            prompt_ids.insert(0, bos);
        }
        if response_ids.last() != Some(&self.eos) {
            response_ids.push(self.eos);
        }
        Ok((prompt_ids, response_ids))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One token a character, `^` for BOS and `$` for EOS.
    fn encode(text: &str) -> Result<Vec<u32>, TokenizerError> {
        Ok(text.chars().map(u32::from).collect())
    }

    fn decode(ids: &[u32]) -> String {
        ids.iter().filter_map(|&id| char::from_u32(id)).collect()
    }

    /// What a pair becomes; a text that is shorter than before says that it was cut.
    fn check(truncation: Truncation, keep: PromptKeep, text: PairText<'_>, expected: [&str; 2]) {
        let limits = Limits::new(12, 5, truncation, keep).expect("room for a response");
        let encoder = Encoder { encode: &encode, bos: Some(u32::from('^')), eos: u32::from('$'), limits };
        let (pair, cut) = encoder.pair(&text).expect("every text has tokens");
        let whole = Limits::new(99, 50, truncation, keep).expect("room for a response");
        let (uncut, none) = Encoder { limits: whole, ..encoder }.pair(&text).expect("every text has tokens");
        let is_shorter = |part: fn(&Sequence) -> &[u32]| {
            let n = |pair: &TokenPair| part(&pair.chosen).len() + part(&pair.rejected).len();
            n(&pair) < n(&uncut)
        };
        let lost = Cut { prompt: is_shorter(Sequence::prompt), response: is_shorter(Sequence::response) };
        assert_eq!((cut, none), (lost, Cut::default()));
        let shown = [pair.chosen, pair.rejected]
            .map(|sequence| format!("{}|{}", decode(sequence.prompt()), decode(sequence.response())));
        assert_eq!(shown, expected);
    }

    #[test]
    fn short_pairs_are_left_whole() {
        let text = PairText { prompt: "^ab", chosen: "cd$", rejected: "" };
        check(Truncation::Budget, PromptKeep::End, text, ["^ab|cd$", "^ab|$"]);
        check(Truncation::Reference, PromptKeep::Start, text, ["^ab|cd$", "^ab|$"]);
    }

    #[test]
    fn a_long_prompt_is_cut_as_asked() {
        let text = PairText { prompt: "abcdefgh", chosen: "uvw", rejected: "x" };
        check(Truncation::Reference, PromptKeep::End, text, ["defgh|uvw$", "defgh|x$"]);
        check(Truncation::Reference, PromptKeep::Start, text, ["^abcd|uvw$", "^abcd|x$"]);
        check(Truncation::Budget, PromptKeep::End, text, ["^efgh|uvw$", "^efgh|x$"]);
        check(Truncation::Budget, PromptKeep::Start, text, ["^abcd|uvw$", "^abcd|x$"]);
    }

    /// The reference cuts a response to max_length − max_prompt_length even where the prompt is short.
    #[test]
    fn a_long_response_is_cut_as_asked() {
        let text = PairText { prompt: "ab", chosen: "0123456789", rejected: "x" };
        check(Truncation::Reference, PromptKeep::End, text, ["^ab|0123456", "^ab|x$"]);
        check(Truncation::Budget, PromptKeep::End, text, ["^ab|012345678", "^ab|x$"]);
    }

    #[test]
    fn a_token_that_merges_across_the_border_belongs_to_the_response() {
        // `b` and `c` make one token when they meet.
        let encode = |text: &str| super::tests::encode(&text.replace("bc", "B"));
        let limits = Limits::new(12, 5, Truncation::Budget, PromptKeep::End).expect("room for a response");
        let encoder = Encoder { encode: &encode, bos: None, eos: u32::from('$'), limits };
        let (row, _) = encoder.row("ab", "cd").expect("every text has tokens");
        assert_eq!((decode(row.prompt()), decode(row.response())), ("a".to_owned(), "Bd$".to_owned()));
    }

    #[test]
    fn limits_without_room_are_refused() {
        let refused = Limits::new(8, 8, Truncation::Budget, PromptKeep::End);
        assert_eq!(refused, Err(BatchError::NoRoom { max_length: 8, max_prompt_length: 8 }));
    }
}

//! From the texts of pairs and rows to the token sequences that are trained on.

use sluice_lm::checkpoint::{Checkpoint, CheckpointError};
use sluice_lm::template::{ChatTemplate, Message};
use sluice_lm::tokenizer::TokenizerError;
use sluice_spec::stage::train::Tokens;
use sluice_table::{Prompts, Split};
use sluice_train::batch::{Encoder, Limits, PairText, ResponseHeader, Sequence, TokenPair, Turn, split_turn};

use super::TrainStageError;
use super::recipe::{limits, response_header};

/// Renders and tokenises examples with the files of one checkpoint.
pub struct ExampleEncoder<'a> {
    template: &'a ChatTemplate,
    checkpoint: &'a Checkpoint,
    eos: u32,
    limits: Limits,
    header: ResponseHeader,
}

/// A prompt with a demonstrated answer.
#[derive(Clone, Copy, Debug)]
pub struct TrainRow<'a> {
    /// Which table of the input, and which row of it.
    pub place: (usize, usize),
    pub prompt_id: &'a str,
    pub prompt: &'a str,
    pub response: Option<&'a str>,
    pub label: Option<f32>,
    source: &'a str,
    source_row: u64,
}

impl<'a> ExampleEncoder<'a> {
    pub fn new(tokens: &Tokens, checkpoint: &'a Checkpoint) -> Result<Self, TrainStageError> {
        let template = checkpoint.template().map_err(|source| encoding("the chat template", source))?;
        let eos = checkpoint.tokenizer.eos_id().or(checkpoint.config.eos_token_ids.first().copied());
        Ok(Self {
            template,
            checkpoint,
            eos: eos.ok_or(TrainStageError::NoEos)?,
            limits: limits(tokens).map_err(|source| TrainStageError::Limits { source })?,
            header: response_header(tokens),
        })
    }

    /// Both answers to a prompt.
    pub fn pair(
        &self,
        prompt_id: &str,
        prompt: &str,
        chosen: &str,
        rejected: &str,
    ) -> Result<TokenPair, TrainStageError> {
        let name = || format!("the pair of prompt {prompt_id}");
        let chosen = self.turn(prompt, chosen).map_err(|source| TrainStageError::Turn { row: name(), source })?;
        let rejected = self.turn(prompt, rejected).map_err(|source| TrainStageError::Turn { row: name(), source })?;
        let text = PairText { prompt: &chosen.prompt, chosen: &chosen.response, rejected: &rejected.response };
        let pair = self.with_encoder(|encoder| encoder.pair(&text));
        let pair = pair.map_err(|source| encoding(&name(), source.into()))?;
        self.expect_room(name, pair.chosen.n_tokens().max(pair.rejected.n_tokens()))?;
        Ok(pair)
    }

    /// A prompt and its demonstrated answer; `name` is what the row is called in messages.
    pub fn row(&self, name: String, prompt: &str, response: &str) -> Result<Sequence, TrainStageError> {
        match self.turn(prompt, response) {
            Err(source) => Err(TrainStageError::Turn { row: name, source }),
            Ok(Turn { prompt, response }) => {
                let sequence = self.with_encoder(|encoder| encoder.row(&prompt, &response));
                let sequence = sequence.map_err(|source| encoding(&name, source.into()))?;
                self.expect_room(|| name, sequence.n_tokens())?;
                Ok(sequence)
            }
        }
    }

    /// `max_length` may be more than the model has positions; a sequence may not.
    fn expect_room(&self, name: impl FnOnce() -> String, n_tokens: usize) -> Result<(), TrainStageError> {
        let max = self.checkpoint.config.model.max_position_embeddings();
        if n_tokens <= max {
            return Ok(());
        }
        Err(TrainStageError::TooLong { row: name(), n_tokens, max, what: "positions of the model" })
    }

    fn turn(&self, prompt: &str, response: &str) -> Result<Turn, sluice_train::batch::TurnError> {
        split_turn(self.template, &[Message::user(prompt)], response, self.header)
    }

    fn with_encoder<T>(
        &self,
        encode: impl FnOnce(&Encoder<'_>) -> Result<T, TokenizerError>,
    ) -> Result<T, TokenizerError> {
        let tokenizer = &self.checkpoint.tokenizer;
        encode(&Encoder {
            encode: &|text| tokenizer.encode(text),
            bos: tokenizer.bos_id(),
            eos: self.eos,
            limits: self.limits,
        })
    }
}

impl TrainRow<'_> {
    /// What the row is called in messages.
    pub fn name(&self) -> String {
        format!("row {} of {}", self.source_row, self.source)
    }
}

/// The rows that may be trained on.
pub fn train_rows(tables: &[Prompts]) -> Result<Vec<TrainRow<'_>>, TrainStageError> {
    let mut rows = Vec::new();
    for (at, table) in tables.iter().enumerate() {
        for row in (0..table.len()).filter(|row| table.split(*row) == Split::Train) {
            rows.push(TrainRow {
                place: (at, row),
                prompt_id: table.prompt_id(row),
                prompt: table.prompt(row),
                response: table.response(row),
                label: table.label(row),
                source: table.source(row),
                source_row: table.source_row(row),
            });
        }
    }
    if rows.is_empty() {
        return Err(TrainStageError::NoTrainRows { n_rows: tables.iter().map(Prompts::len).sum() });
    }
    Ok(rows)
}

pub fn encoding(row: &str, source: CheckpointError) -> TrainStageError {
    TrainStageError::Encode { row: row.to_owned(), source }
}

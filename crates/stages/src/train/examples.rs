//! From the texts of pairs and rows to the token sequences that are trained on.

use sluice_lm::checkpoint::Checkpoint;
use sluice_lm::template::Message;
use sluice_spec::stage::train::Tokens;
use sluice_table::{Prompts, Split};
use sluice_train::batch::{Formatter, Sequence, TokenPair};

use super::TrainStageError;
use super::recipe::{limits, response_header};

/// Renders and tokenises examples with the files of one checkpoint.
pub struct ExampleEncoder<'a> {
    formatter: Formatter<'a>,
    /// Positions of the model.
    max_positions: usize,
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
        let limits = limits(tokens).map_err(|source| TrainStageError::Limits { source })?;
        let formatter = Formatter::new(checkpoint, response_header(tokens), limits);
        let formatter = formatter.map_err(|source| TrainStageError::Format { what: "examples".to_owned(), source })?;
        Ok(Self { formatter, max_positions: checkpoint.config.model.max_position_embeddings() })
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
        let pair = self.formatter.pair(&[Message::user(prompt)], chosen, rejected);
        let pair = pair.map_err(|source| TrainStageError::Format { what: name(), source })?;
        self.expect_room(name, pair.chosen.n_tokens().max(pair.rejected.n_tokens()))?;
        Ok(pair)
    }

    /// A prompt and its demonstrated answer; `name` is what the row is called in messages.
    pub fn row(&self, name: String, prompt: &str, response: &str) -> Result<Sequence, TrainStageError> {
        match self.formatter.row(&[Message::user(prompt)], response) {
            Err(source) => Err(TrainStageError::Format { what: name, source }),
            Ok(sequence) => {
                self.expect_room(|| name, sequence.n_tokens())?;
                Ok(sequence)
            }
        }
    }

    /// `max_length` may be more than the model has positions; a sequence may not.
    fn expect_room(&self, name: impl FnOnce() -> String, n_tokens: usize) -> Result<(), TrainStageError> {
        let max = self.max_positions;
        if n_tokens <= max {
            return Ok(());
        }
        Err(TrainStageError::TooLong { row: name(), n_tokens, max, what: "positions of the model" })
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

//! From the texts of pairs and rows to the token sequences that are trained on.

use sluice_lm::checkpoint::Checkpoint;
use sluice_lm::template::Message;
use sluice_spec::stage::train::Tokens;
use sluice_table::{Prompts, Split};
use sluice_train::batch::{Cut, Formatter, Sequence, TokenPair};

use super::TrainStageError;
use super::recipe::{limits, response_header};
use crate::StageContext;

/// Renders and tokenises examples with the files of one checkpoint.
pub struct ExampleEncoder<'a> {
    formatter: Formatter<'a>,
    /// Positions of the model.
    max_positions: usize,
    max_length: usize,
    cuts: Cuts,
}

/// How many examples lost tokens to `max_length`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cuts {
    n_examples: usize,
    n_cut: usize,
    n_prompts: usize,
    n_responses: usize,
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
        let (max_positions, max_length) =
            (checkpoint.config.model.max_position_embeddings(), tokens.max_length.get() as usize);
        Ok(Self { formatter, max_positions, max_length, cuts: Cuts::default() })
    }

    /// What the examples so far have lost; told to the user if it is anything.
    pub fn cuts(&self, context: &StageContext<'_>) -> Cuts {
        let Cuts { n_examples, n_cut, n_prompts, n_responses } = self.cuts;
        if n_cut > 0 {
            context.warn(format!(
                "{n_cut} of {n_examples} examples are cut to `max_length` {}: {n_prompts} lost tokens of the prompt, \
                 {n_responses} of a response",
                self.max_length
            ));
        }
        self.cuts
    }

    /// Both answers to a prompt.
    pub fn pair(
        &mut self,
        prompt_id: &str,
        prompt: &str,
        chosen: &str,
        rejected: &str,
    ) -> Result<TokenPair, TrainStageError> {
        let name = || format!("the pair of prompt {prompt_id}");
        let pair = self.formatter.pair(&[Message::user(prompt)], chosen, rejected);
        let (pair, cut) = pair.map_err(|source| TrainStageError::Format { what: name(), source })?;
        self.cuts.add(cut);
        self.expect_room(name, pair.chosen.n_tokens().max(pair.rejected.n_tokens()))?;
        Ok(pair)
    }

    /// A prompt and its demonstrated answer; `name` is what the row is called in messages.
    pub fn row(&mut self, name: String, prompt: &str, response: &str) -> Result<Sequence, TrainStageError> {
        match self.formatter.row(&[Message::user(prompt)], response) {
            Err(source) => Err(TrainStageError::Format { what: name, source }),
            Ok((sequence, cut)) => {
                self.cuts.add(cut);
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

impl Cuts {
    fn add(&mut self, cut: Cut) {
        self.n_examples += 1;
        self.n_cut += usize::from(cut.is_any());
        self.n_prompts += usize::from(cut.prompt);
        self.n_responses += usize::from(cut.response);
    }

    /// Counts for the record.
    pub fn metrics(self) -> [(String, f64); 3] {
        let Self { n_examples: _, n_cut, n_prompts, n_responses } = self;
        [("cut_examples", n_cut), ("cut_prompts", n_prompts), ("cut_responses", n_responses)]
            .map(|(name, n)| (name.to_owned(), n as f64))
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

//! The log-probs that an objective wants of its reference model, which is the model training starts from: each is computed
//! once and kept, so that another rate, another beta or another objective asks for none again.
//!
//! Owns which rows there are and under which keys. Refuses to know how a log-prob is computed and what an objective makes
//! of it.

use sluice_lm::model::CausalModel;
use sluice_lm::params::held;
use sluice_spec::stage::train::{Start as StartsFrom, Train};
use sluice_store::{ModelDigest, RowKey};
use sluice_table::{PairRow, Pairs};
use sluice_train::batch::TokenPair;
use sluice_train::objective::Objective;
use sluice_train::task::{ReferenceLogps, ReferenceQuestions};

use super::TrainStageError;
use super::start::Start;
use crate::ledger::{self, Bytes, Ledger, Stored, write_list};
use crate::prompts::views;
use crate::row_key::{PairTexts, ReferenceKeys};
use crate::{Progress, Reading, RowCount, StageContext, StageError, Unit};

/// Sums of a row: of chosen and rejected, or of a mismatched response.
#[derive(Clone, Debug, PartialEq)]
struct Sums(Vec<f64>);

/// The reference log-probs of pairs, one for each; none where the objective reads none. The reference is `model`, in the
/// state training starts from.
pub fn reference(
    params: &Train,
    start: &Start,
    model: &CausalModel,
    objective: &Objective,
    tables: &[Pairs],
    pairs: &[TokenPair],
    context: &StageContext<'_>,
) -> Result<(Vec<ReferenceLogps>, RowCount), StageError> {
    if !objective.reads_reference() {
        return Ok((Vec::new(), RowCount { n_rows: 0, n_known: 0 }));
    }
    let keys = keys(params, start.digest);
    let rows = row_keys(&keys, objective.reads_kl(), tables);
    let mut ledger = Ledger::open(context, keys.scope(context.device), rows)?;
    let count = ledger.count();
    let questions = ReferenceQuestions::new(objective, pairs, start.longest(&params.tokens));
    let missing = ledger.missing();
    let mut progress = Progress { unit: Unit::ReferenceRows, ..Progress::rows(count.n_known, Some(count.n_rows)) };
    context.report(progress);
    let max_tokens = params.passes.micro_batch_tokens.get() as usize;
    // The reference computes as the policy does in its first step.
    let model = &held(model, context.device.precision);
    let asked = questions.ask(model, &missing, max_tokens, context.cancel, &mut |number, sums| {
        ledger.put(number, Sums(sums), (context.clock)());
        progress.done += 1;
        progress.n_tokens += questions.n_tokens(number) as u64;
        context.report(progress);
    });
    asked.ok_or(StageError::Cancelled)?;
    let sums: Vec<Vec<f64>> = ledger.finish((context.clock)())?.into_iter().map(|Sums(sums)| sums).collect();
    let logps = questions.answered(&sums).ok_or(TrainStageError::KeptReference)?;
    Ok((logps, count))
}

/// How many of the reference log-probs are known; `None` for an objective that reads none.
pub fn count_rows(params: &Train, reading: Reading<'_>) -> Result<Option<RowCount>, StageError> {
    let objective = super::recipe::preference(&params.objective);
    let Some(objective) = objective.filter(Objective::reads_reference) else { return Ok(None) };
    if !reading.has("pairs") || !reading.has("model") {
        return Ok(None);
    }
    let batches = reading.table("pairs")?;
    let tables = views("pairs", &batches, Pairs::view)?;
    let keys = keys(params, reading.model("model")?.1);
    let rows = row_keys(&keys, objective.reads_kl(), &tables);
    ledger::count(reading.store, keys.scope(reading.device), &rows).map(Some)
}

fn keys(params: &Train, reference: ModelDigest) -> ReferenceKeys {
    let drawn_from = match &params.model.value {
        StartsFrom::Init(_) => Some(params.seed.get()),
        StartsFrom::Model(_) => None,
    };
    ReferenceKeys::new(&params.tokens, reference, drawn_from)
}

/// The keys of all rows, numbered as [`ReferenceQuestions`] are.
fn row_keys(keys: &ReferenceKeys, with_mismatched: bool, tables: &[Pairs]) -> Vec<RowKey> {
    let pairs: Vec<PairTexts<'_>> = tables.iter().flat_map(Pairs::rows).map(texts).collect();
    let mut rows: Vec<RowKey> = pairs.iter().map(|pair| keys.pair(*pair)).collect();
    if with_mismatched {
        let next = pairs.iter().cycle().skip(1);
        rows.extend(pairs.iter().zip(next).map(|(pair, next)| keys.mismatched(*pair, *next)));
    }
    rows
}

fn texts<'a>(row: PairRow<'a>) -> PairTexts<'a> {
    PairTexts { prompt: row.prompt, chosen: row.chosen, rejected: row.rejected }
}

impl Stored for Sums {
    fn write(&self, bytes: &mut Vec<u8>) {
        write_list(bytes, &self.0, f64::to_le_bytes);
    }

    fn read(bytes: &mut Bytes<'_>) -> Option<Self> {
        bytes.list(f64::from_le_bytes).map(Self)
    }
}

//! What follows from the comparisons: the rows of `metrics`, and the figures of the run's summary.
//!
//! Owns the names of the measures and over which rows each is taken. Every share and mean has a bootstrap interval over
//! prompts, because several answers to one prompt are not independent.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;
use sluice_eval::{Adherence, Bootstrap, Clusters, FormatRules, Interval, length_ratio};
use sluice_table::{Decoding, MetricRow, MetricsBuilder, Vocabulary};

use super::{Compared, EvaluateError, Side, measuring};

/// One estimate.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure<'a> {
    pub quantity: &'static str,
    pub of: Of,
    pub decoding: Decoding,
    /// `None` over all groups.
    pub group: Option<&'a str>,
    pub value: f64,
    /// Ends of the confidence interval, where there is one.
    pub ends: Option<(f64, f64)>,
    pub n_rows: usize,
}

/// Whose quantity it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    Candidate,
    Baseline,
    /// Candidate minus baseline, answer by answer.
    Difference,
    /// Of the comparison itself.
    Both,
}

/// A number of a comparison; `None` where the comparison has none.
type Value<'f> = &'f dyn Fn(&Compared<'_>) -> Option<f64>;

/// Every measure that the comparisons allow: by decoding, over all rows and by group.
pub fn all<'a>(compared: &[Compared<'a>], bootstrap: &Bootstrap) -> Result<Vec<Measure<'a>>, EvaluateError> {
    let groups: BTreeSet<Option<&str>> = compared.iter().map(|row| row.prompt.group).collect();
    let mut measures = Vec::new();
    for decoding in Decoding::ALL.iter().copied() {
        let rows: Vec<&Compared<'a>> = compared.iter().filter(|row| row.decoding == decoding).collect();
        if rows.is_empty() {
            continue;
        }
        let mut taker = Taker { decoding, group: None, rows, bootstrap, measures: &mut measures };
        taker.judgements()?;
        taker.manners()?;
        for group in groups.iter().flatten() {
            let rows: Vec<&Compared<'a>> =
                taker.rows.iter().copied().filter(|row| row.prompt.group == Some(group)).collect();
            if !rows.is_empty() {
                let measures = &mut *taker.measures;
                Taker { decoding, group: Some(group), rows, bootstrap, measures }.judgements()?;
            }
        }
    }
    Ok(measures)
}

/// Takes measures over some rows.
struct Taker<'a, 'm> {
    decoding: Decoding,
    group: Option<&'a str>,
    rows: Vec<&'m Compared<'a>>,
    bootstrap: &'m Bootstrap,
    measures: &'m mut Vec<Measure<'a>>,
}

impl<'a> Taker<'a, '_> {
    /// What checker and judge say.
    fn judgements(&mut self) -> Result<(), EvaluateError> {
        self.both_sides("exact_accuracy", &|side| side.exact.map(share))?;
        self.mean("win_rate", Of::Both, &|row| row.outcome)?;
        self.both_sides("mean_score", &|side| side.score.map(f64::from))
    }

    /// How the answers are written.
    fn manners(&mut self) -> Result<(), EvaluateError> {
        let rules = FormatRules::default();
        self.both_sides("format_adherence", &|side| {
            Some(share(Adherence::of(&side.answer.text, side.finished(), rules).holds()))
        })?;
        self.both_sides("finished_share", &|side| Some(share(side.finished())))?;
        self.both_sides("mean_tokens", &|side| Some(side.answer.token_ids.len() as f64))?;
        let lengths = |side: &dyn Fn(&Compared<'a>) -> usize| -> Vec<u32> {
            self.rows.iter().map(|row| side(row) as u32).collect()
        };
        let candidate = lengths(&|row| row.candidate.answer.token_ids.len());
        let baseline = lengths(&|row| row.baseline.answer.token_ids.len());
        if let Some(value) = length_ratio(&candidate, &baseline) {
            self.put("length_ratio", Of::Both, value, None, self.rows.len());
        }
        Ok(())
    }

    /// Candidate, baseline and their difference.
    fn both_sides(
        &mut self,
        quantity: &'static str,
        value: &dyn Fn(&Side<'_>) -> Option<f64>,
    ) -> Result<(), EvaluateError> {
        self.mean(quantity, Of::Candidate, &|row| value(&row.candidate))?;
        self.mean(quantity, Of::Baseline, &|row| value(&row.baseline))?;
        self.mean(quantity, Of::Difference, &|row| Some(value(&row.candidate)? - value(&row.baseline)?))
    }

    /// The mean over the rows that have the value, with its interval; nothing where none has.
    fn mean(&mut self, quantity: &'static str, of: Of, value: Value<'_>) -> Result<(), EvaluateError> {
        let values: Vec<(&str, f64)> =
            self.rows.iter().filter_map(|row| Some((row.prompt.prompt_id, value(row)?))).collect();
        if values.is_empty() {
            return Ok(());
        }
        let n_rows = values.len();
        let interval = Clusters::gather(values).and_then(|clusters| self.bootstrap.mean(&clusters));
        let Interval { estimate, low, high } = interval.map_err(|source| measuring(quantity, source))?;
        self.put(quantity, of, estimate, Some((low, high)), n_rows);
        Ok(())
    }

    fn put(&mut self, quantity: &'static str, of: Of, value: f64, ends: Option<(f64, f64)>, n_rows: usize) {
        let Self { decoding, group, .. } = *self;
        self.measures.push(Measure { quantity, of, decoding, group, value, ends, n_rows });
    }
}

fn share(holds: bool) -> f64 {
    if holds { 1.0 } else { 0.0 }
}

/// The rows of `metrics`.
pub fn table(measures: &[Measure<'_>]) -> RecordBatch {
    let mut builder = MetricsBuilder::new();
    for Measure { quantity, of, decoding, group, value, ends, n_rows } in measures {
        let metric = match of {
            Of::Candidate => format!("{quantity}_candidate"),
            Of::Baseline => format!("{quantity}_baseline"),
            Of::Difference => format!("{quantity}_difference"),
            Of::Both => (*quantity).to_owned(),
        };
        builder.push(MetricRow {
            metric: &metric,
            decoding: Some(*decoding),
            group: *group,
            value: *value,
            low: ends.map(|(low, _)| low),
            high: ends.map(|(_, high)| high),
            n: *n_rows as u64,
        });
    }
    builder.finish()
}

/// The figures over all groups by name: `exact_accuracy_sampled_before` is the baseline's, `_after` the candidate's, and
/// `_gain` is the one minus the other, with the ends of its interval.
pub fn summary(measures: &[Measure<'_>]) -> BTreeMap<String, f64> {
    let mut summary = BTreeMap::new();
    for Measure { quantity, of, decoding, group, value, ends, n_rows: _ } in measures {
        if group.is_some() {
            continue;
        }
        let name = match of {
            Of::Candidate => format!("{quantity}_{decoding}_after"),
            Of::Baseline => format!("{quantity}_{decoding}_before"),
            Of::Difference => format!("{quantity}_{decoding}_gain"),
            Of::Both => format!("{quantity}_{decoding}"),
        };
        if let (Of::Difference | Of::Both, Some((low, high))) = (of, ends) {
            summary.insert(format!("{name}_low"), *low);
            summary.insert(format!("{name}_high"), *high);
        }
        summary.insert(name, *value);
    }
    summary
}

//! `evaluate`: candidate and baseline answer the same prompts; a checker and a judge compare them.
//! Owns the parameters and what enters the key; refuses to know how answers are made or judged.

use crate::choice::choice;
use crate::leaf::{LeafSink, emit};
use crate::names::{Product, TableKind};
use crate::number::{Count, Level, PositiveFraction, Samples, Seed, Temperature};
use crate::reader::{Fields, Read, Reader};
use crate::span::Located;
use crate::stage::sample::{Selection, SplitName};
use crate::stage::{Better, Input, ModelRef, TableRef};
use crate::tree::Node;

/// Raised when equal inputs and parameters would give other comparisons or metrics.
pub const VERSION: u32 = 1;
pub const PRODUCTS: &[Product] = &[Product::Table(TableKind::Comparisons), Product::Table(TableKind::Metrics)];

/// Which way a figure of the candidate is better: `exact_accuracy_sampled_after`, `win_rate_greedy`. Those of the
/// baseline, the ends of intervals and lengths are neither good nor bad.
pub(crate) fn better(metric: &str) -> Option<Better> {
    const HIGHER: [&str; 5] = ["exact_accuracy", "win_rate", "mean_score", "format_adherence", "finished_share"];
    let is_of_candidate = !["_before", "_low", "_high"].iter().any(|end| metric.ends_with(end));
    (is_of_candidate && HIGHER.iter().any(|name| metric.starts_with(name))).then_some(Better::Higher)
}

/// Who is compared with whom, on which prompts, and how it is counted.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluate {
    pub prompts: Located<TableRef>,
    pub candidate: Located<ModelRef>,
    pub baseline: Located<ModelRef>,
    /// A reward model; without one only the checker speaks.
    pub judge: Option<Located<ModelRef>>,
    pub selection: Selection,
    pub answers: Answers,
    pub check: Located<Check>,
    /// Level of the confidence intervals.
    pub confidence: Located<Level>,
    /// Bootstrap rounds behind the confidence intervals.
    pub resamples: Located<Count>,
    /// Sequences decoded together. Not in the key: it is a matter of speed.
    pub max_batch: Located<Count>,
}

/// How both sides answer: drawn `n` times (`sampled`), and once without chance (`greedy`).
#[derive(Debug, Clone, PartialEq)]
pub struct Answers {
    pub n: Located<Samples>,
    pub temperature: Located<Temperature>,
    pub top_p: Located<PositiveFraction>,
    pub greedy: Located<bool>,
    pub max_new_tokens: Located<Count>,
    pub seed: Located<Seed>,
}

choice! {
    /// How an answer is compared with the prompt's reference answer.
    pub enum Check {
        /// The trimmed texts are equal.
        Exact = "exact",
        /// The first real sentence of the answer ends in the reference.
        LastSentence = "last_sentence",
        /// The last number of the answer equals that of the reference.
        Number = "number",
        None = "none",
    }
}

impl Evaluate {
    pub fn leaves(&self, sink: &mut dyn LeafSink) {
        let Evaluate {
            prompts: _,
            candidate: _,
            baseline: _,
            judge: _,
            selection,
            answers,
            check,
            confidence,
            resamples,
            max_batch: _,
        } = self;
        selection.leaves(sink);
        answers.leaves(sink);
        emit(sink, "check", check);
        emit(sink, "confidence", confidence);
        emit(sink, "resamples", resamples);
    }

    pub fn inputs(&self) -> Vec<Input> {
        let mut inputs = vec![
            TableRef::input("prompts", TableKind::Prompts, &self.prompts),
            ModelRef::input("candidate", &self.candidate),
            ModelRef::input("baseline", &self.baseline),
        ];
        inputs.extend(self.judge.iter().map(|judge| ModelRef::input("judge", judge)));
        inputs
    }
}

impl Answers {
    pub fn leaves(&self, sink: &mut dyn LeafSink) {
        let Answers { n, temperature, top_p, greedy, max_new_tokens, seed } = self;
        emit(sink, "n", n);
        emit(sink, "temperature", temperature);
        emit(sink, "top_p", top_p);
        emit(sink, "greedy", greedy);
        emit(sink, "max_new_tokens", max_new_tokens);
        emit(sink, "seed", seed);
    }

    fn read_fields(fields: &mut Fields<'_, '_>) -> Self {
        Answers {
            n: fields.or("n", Samples::preset(1)),
            temperature: fields.or("temperature", Temperature::preset(0.8)),
            top_p: fields.or("top_p", PositiveFraction::preset(0.95)),
            greedy: fields.or("greedy", true),
            max_new_tokens: fields.or("max_new_tokens", Count::preset(256)),
            seed: fields.or("seed", Seed::preset(0)),
        }
    }
}

impl Read for Evaluate {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let mut fields = Fields::open(node, reader)?;
        let prompts = fields.table("prompts", TableKind::Prompts);
        let candidate = fields.model("candidate");
        let baseline = fields.model("baseline");
        let judge = fields.optional_model("judge");
        let selection = Selection::read_fields(&mut fields, SplitName::Heldout);
        let answers = Answers::read_fields(&mut fields);
        let check = fields.or("check", Check::Exact);
        let confidence = fields.or("confidence", Level::preset(0.95));
        let resamples = fields.or("resamples", Count::preset(1000));
        let max_batch = fields.or("max_batch", Count::preset(64));
        fields.finish();
        let (prompts, candidate, baseline) = (prompts?, candidate?, baseline?);
        Some(Evaluate {
            prompts,
            candidate,
            baseline,
            judge,
            selection,
            answers,
            check,
            confidence,
            resamples,
            max_batch,
        })
    }
}

//! `sample`: the policy answers each prompt n times.
//! Owns the parameters and what enters the key; refuses to know how tokens are drawn.

use crate::choice::choice;
use crate::leaf::{LeafSink, emit};
use crate::names::{Product, TableKind};
use crate::number::{Count, PositiveFraction, ProperFraction, Samples, Seed, Temperature};
use crate::reader::{Fields, Read, Reader};
use crate::span::Located;
use crate::stage::{Input, ModelRef, TableRef};
use crate::tree::Node;

/// Raised when equal inputs and parameters would give other responses.
pub const VERSION: u32 = 1;
pub const PRODUCTS: &[Product] = &[Product::Table(TableKind::Responses)];

/// Which prompts are answered, by whom, how often and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub prompts: Located<TableRef>,
    pub model: Located<ModelRef>,
    pub selection: Selection,
    /// Answers per prompt.
    pub n: Located<Samples>,
    pub decoding: Decoding,
    /// Sequences decoded together. Not in the key: it is a matter of speed.
    pub max_batch: Located<Count>,
}

/// Which prompts of the table are taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    pub split: Located<SplitName>,
    /// Take only the first so many, in the order of `prompt_id`.
    pub limit: Located<Option<Count>>,
}

/// How one answer is drawn: exactly the parameters that decide a row, so they are also the ones in its row key.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoding {
    pub temperature: Located<Temperature>,
    pub top_k: Located<Option<Count>>,
    pub top_p: Located<Option<PositiveFraction>>,
    pub min_p: Located<Option<ProperFraction>>,
    pub max_new_tokens: Located<Count>,
    /// Tokens that end an answer, besides the checkpoint's own end tokens.
    pub stop: Located<Vec<String>>,
    pub bos: Located<Bos>,
    pub seed: Located<Seed>,
}

choice! {
    /// Which part of a split `prompts` table is read.
    pub enum SplitName {
        Train = "train",
        Heldout = "heldout",
        All = "all",
    }

    /// How many begin-of-sequence tokens a prompt starts with; `double` is what the published run had.
    pub enum Bos {
        Single = "single",
        Double = "double",
    }
}

impl Sample {
    pub fn leaves(&self, sink: &mut dyn LeafSink) {
        let Sample { prompts: _, model: _, selection, n, decoding, max_batch: _ } = self;
        selection.leaves(sink);
        emit(sink, "n", n);
        decoding.leaves(sink);
    }

    pub fn inputs(&self) -> Vec<Input> {
        vec![TableRef::input("prompts", TableKind::Prompts, &self.prompts), ModelRef::input("model", &self.model)]
    }
}

impl Selection {
    pub(crate) fn leaves(&self, sink: &mut dyn LeafSink) {
        let Selection { split, limit } = self;
        emit(sink, "split", split);
        emit(sink, "limit", limit);
    }

    pub(crate) fn read_fields(fields: &mut Fields<'_, '_>, split: SplitName) -> Self {
        Selection { split: fields.or("split", split), limit: fields.optional("limit") }
    }
}

impl Decoding {
    /// The leaves that decide a single row.
    pub fn leaves(&self, sink: &mut dyn LeafSink) {
        let Decoding { temperature, top_k, top_p, min_p, max_new_tokens, stop, bos, seed } = self;
        emit(sink, "temperature", temperature);
        emit(sink, "top_k", top_k);
        emit(sink, "top_p", top_p);
        emit(sink, "min_p", min_p);
        emit(sink, "max_new_tokens", max_new_tokens);
        emit(sink, "stop", stop);
        emit(sink, "bos", bos);
        emit(sink, "seed", seed);
    }

    fn read_fields(fields: &mut Fields<'_, '_>) -> Self {
        Decoding {
            temperature: fields.or("temperature", Temperature::preset(1.0)),
            top_k: fields.optional("top_k"),
            top_p: fields.optional("top_p"),
            min_p: fields.optional("min_p"),
            max_new_tokens: fields.or("max_new_tokens", Count::preset(256)),
            stop: fields.or("stop", Vec::new()),
            bos: fields.or("bos", Bos::Single),
            seed: fields.or("seed", Seed::preset(0)),
        }
    }
}

impl Read for Sample {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let mut fields = Fields::open(node, reader)?;
        let prompts = fields.table("prompts", TableKind::Prompts);
        let model = fields.model("model");
        let selection = Selection::read_fields(&mut fields, SplitName::Train);
        let n = fields.or("n", Samples::preset(1));
        let decoding = Decoding::read_fields(&mut fields);
        if let Some(place) = n.place.filter(|_| n.get() > 1 && decoding.temperature.get() == 0.0) {
            fields.contradiction("n", place, "1 at temperature 0, where all answers to a prompt are the same");
        }
        let max_batch = fields.or("max_batch", Count::preset(64));
        fields.finish();
        Some(Sample { prompts: prompts?, model: model?, selection, n, decoding, max_batch })
    }
}

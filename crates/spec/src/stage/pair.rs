//! `pair`: of each prompt's scored responses, the best and the worst become a pair.
//! Owns the rules and what enters the key; refuses to know how rows are grouped.

use crate::choice::choice;
use crate::leaf::{LeafSink, emit};
use crate::names::{Product, TableKind};
use crate::number::NonNegative;
use crate::reader::{Fields, Read, Reader};
use crate::span::Located;
use crate::stage::{Input, TableRef};
use crate::tree::Node;

/// Raised when equal inputs and parameters would give other pairs.
pub const VERSION: u32 = 1;
pub const PRODUCTS: &[Product] = &[Product::Table(TableKind::Pairs), Product::Table(TableKind::Dropped)];

/// Which scores, and the rules that make or drop a pair.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    pub scores: Located<TableRef>,
    pub choose: Located<Choose>,
    pub ties: Located<Ties>,
    pub identical: Located<Identical>,
    /// Pairs whose scores differ by less are dropped.
    pub min_margin: Located<NonNegative>,
}

choice! {
    /// Which two responses are chosen and rejected.
    pub enum Choose {
        /// Highest and lowest score.
        BestWorst = "best_worst",
    }

    /// What happens when the best and the worst have one score.
    pub enum Ties {
        /// No pair.
        Drop = "drop",
        /// The first response wins and the first loses, as in the published run.
        First = "first",
    }

    /// What happens when the best and the worst have one text.
    pub enum Identical {
        Drop = "drop",
        Keep = "keep",
    }
}

impl Pair {
    pub fn leaves(&self, sink: &mut dyn LeafSink) {
        let Pair { scores: _, choose, ties, identical, min_margin } = self;
        emit(sink, "choose", choose);
        emit(sink, "ties", ties);
        emit(sink, "identical", identical);
        emit(sink, "min_margin", min_margin);
    }

    pub fn inputs(&self) -> Vec<Input> {
        vec![TableRef::input("scores", TableKind::Scores, &self.scores)]
    }
}

impl Read for Pair {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let mut fields = Fields::open(node, reader)?;
        let scores = fields.table("scores", TableKind::Scores);
        let choose = fields.or("choose", Choose::BestWorst);
        let ties = fields.or("ties", Ties::Drop);
        let identical = fields.or("identical", Identical::Drop);
        let min_margin = fields.or("min_margin", NonNegative::preset(0.0));
        fields.finish();
        Some(Pair { scores: scores?, choose, ties, identical, min_margin })
    }
}

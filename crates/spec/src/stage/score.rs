//! `score`: a reward model reads each response and gives it a number, every objective and the gating.
//! Owns the parameters and what enters the key; refuses to know the model.

use crate::choice::choice;
use crate::leaf::{LeafSink, emit};
use crate::names::{Product, TableKind};
use crate::number::Count;
use crate::reader::{Fields, Read, Reader};
use crate::span::Located;
use crate::stage::{Input, ModelRef, TableRef};
use crate::tree::Node;

/// Raised when equal inputs and parameters would give other scores.
pub const VERSION: u32 = 1;
pub const PRODUCTS: &[Product] = &[Product::Table(TableKind::Scores)];

/// Which responses are scored, by whom and how exactly.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    pub responses: Located<TableRef>,
    pub model: Located<ModelRef>,
    /// The type the reward head computes in; `bf16` rounds as the published run did, and so ties more often.
    pub head_dtype: Located<HeadDtype>,
    /// Tokens read together. Not in the key: it is a matter of memory.
    pub max_batch_tokens: Located<Count>,
}

choice! {
    /// Number type of the reward head.
    pub enum HeadDtype {
        F32 = "f32",
        Bf16 = "bf16",
    }
}

impl Score {
    pub fn leaves(&self, sink: &mut dyn LeafSink) {
        let Score { responses: _, model: _, head_dtype, max_batch_tokens: _ } = self;
        emit(sink, "head_dtype", head_dtype);
    }

    pub fn inputs(&self) -> Vec<Input> {
        vec![TableRef::input("responses", TableKind::Responses, &self.responses), ModelRef::input("model", &self.model)]
    }
}

impl Read for Score {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let mut fields = Fields::open(node, reader)?;
        let responses = fields.table("responses", TableKind::Responses);
        let model = fields.model("model");
        let head_dtype = fields.or("head_dtype", HeadDtype::F32);
        let max_batch_tokens = fields.or("max_batch_tokens", Count::preset(8192));
        fields.finish();
        Some(Score { responses: responses?, model: model?, head_dtype, max_batch_tokens })
    }
}

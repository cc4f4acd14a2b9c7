//! The walk over a stage's parameters: what a sink is told of each one.
//! Owns the shape of a leaf; refuses to know whether it is hashed, stored or printed.

use crate::span::{Located, Span};

/// One resolved parameter value. Numbers keep their kind: `1`, `1.0` and `"1"` are three different leaves.
#[derive(Debug, Clone, PartialEq)]
pub enum LeafValue {
    Null,
    Bool(bool),
    Int(i64),
    /// Always finite.
    Float(f64),
    Str(String),
    List(Vec<LeafValue>),
}

/// Takes the leaves of a stage one by one: the key hashes them, the record stores them, `why` compares them.
pub trait LeafSink {
    /// `path` is relative to the kind, for example `objective.simpo.beta`; no `place` means the default.
    fn leaf(&mut self, path: &str, value: LeafValue, place: Option<Span>);
}

/// One leaf, kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Leaf {
    pub path: String,
    pub value: LeafValue,
    pub place: Option<Span>,
}

impl LeafSink for Vec<Leaf> {
    fn leaf(&mut self, path: &str, value: LeafValue, place: Option<Span>) {
        self.push(Leaf { path: path.to_owned(), value, place });
    }
}

/// What a parameter type looks like as a leaf.
pub(crate) trait ToLeaf {
    fn to_leaf(&self) -> LeafValue;
}

/// Feeds one parameter to the sink.
pub(crate) fn emit<T: ToLeaf>(sink: &mut dyn LeafSink, path: &str, value: &Located<T>) {
    sink.leaf(path, value.value.to_leaf(), value.place);
}

impl ToLeaf for bool {
    fn to_leaf(&self) -> LeafValue {
        LeafValue::Bool(*self)
    }
}

impl ToLeaf for String {
    fn to_leaf(&self) -> LeafValue {
        LeafValue::Str(self.clone())
    }
}

impl<T: ToLeaf> ToLeaf for Option<T> {
    fn to_leaf(&self) -> LeafValue {
        self.as_ref().map_or(LeafValue::Null, ToLeaf::to_leaf)
    }
}

impl<T: ToLeaf> ToLeaf for Vec<T> {
    fn to_leaf(&self) -> LeafValue {
        LeafValue::List(self.iter().map(ToLeaf::to_leaf).collect())
    }
}

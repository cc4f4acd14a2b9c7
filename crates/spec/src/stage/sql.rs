//! `sql`: a query over any tables of the run; the escape hatch.
//! Owns the parameters and what enters the key; refuses to understand SQL.

use crate::leaf::{LeafSink, emit};
use crate::names::{Product, TableKind};
use crate::reader::{Fields, Read, Reader};
use crate::span::Located;
use crate::stage::{Input, TableRef};
use crate::tree::Node;

/// Raised when an equal query over equal tables would give another table.
pub const VERSION: u32 = 1;
pub const PRODUCTS: &[Product] = &[Product::Table(TableKind::Any)];

/// A query and the tables it reads.
#[derive(Debug, Clone, PartialEq)]
pub struct Sql {
    /// The tables the query may name: `pairs`, or `pairs.dropped` for a second table of a stage.
    pub from: Located<Vec<Located<TableRef>>>,
    pub query: Located<String>,
}

impl Sql {
    pub fn leaves(&self, sink: &mut dyn LeafSink) {
        let Sql { from: _, query } = self;
        emit(sink, "query", query);
    }

    pub fn inputs(&self) -> Vec<Input> {
        self.from.iter().map(|table| TableRef::input(&table.name, TableKind::Any, table)).collect()
    }
}

impl Read for Sql {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let mut fields = Fields::open(node, reader)?;
        let from = fields.tables("from");
        let query = fields.required::<String>("query");
        fields.finish();
        Some(Sql { from: from?, query: query? })
    }
}

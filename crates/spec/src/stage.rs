//! The stage kinds: what each one reads, makes, and lets into its key.
//! Owns the list of kinds and what they have in common; each kind's parameters live in its own file,
//! and how a kind runs lives in crate `stages` under the same file name.

pub mod contract;
pub mod evaluate;
pub mod ingest;
pub mod pair;
pub mod sample;
pub mod score;
pub mod sql;
pub mod test;
pub mod train;

use crate::cell::Cell;
use crate::leaf::LeafSink;
use crate::names::{ModelName, Product, StageName, Tag};
use crate::reader::{Read, Reader};
use crate::span::{Located, Span};
use crate::tree::Node;

pub use evaluate::Evaluate;
pub use ingest::Ingest;
pub use pair::Pair;
pub use sample::Sample;
pub use score::Score;
pub use sql::Sql;
pub use test::Test;
pub use train::Train;

/// A stage of the pipeline: its name, and its kind with all parameters resolved.
#[derive(Debug, Clone)]
pub struct Stage {
    /// As in the file; of a cell of a matrix with its values, as in `tuned[lr=0.001,beta=10]`.
    pub name: StageName,
    /// Which cell it is, of a stage that has a matrix or reads one that has.
    pub cell: Option<Cell>,
    /// Where the name stands.
    pub name_span: Span,
    /// Where the kind stands.
    pub kind_span: Span,
    pub kind: Kind,
    /// What the stage can be selected by, besides its name; each once.
    pub tags: Vec<Tag>,
    /// What must hold of its result: first its `columns`, then its `tests`.
    pub tests: Vec<Test>,
}

impl Stage {
    /// The name in the file, which all cells of a matrix share.
    pub fn base(&self) -> &StageName {
        self.cell.as_ref().map_or(&self.name, |cell| &cell.base)
    }
}

/// A kind with its parameters.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    Ingest(Ingest),
    Sample(Sample),
    Score(Score),
    Pair(Pair),
    /// Boxed, because it has by far the most parameters.
    Train(Box<Train>),
    Evaluate(Evaluate),
    Sql(Sql),
}

/// The kinds by name, without parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KindName {
    Ingest,
    Sample,
    Score,
    Pair,
    Train,
    Evaluate,
    Sql,
}

/// Which way a number is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Better {
    Higher,
    Lower,
}

impl Better {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Better::Higher => "higher",
            Better::Lower => "lower",
        }
    }
}

impl KindName {
    /// Every kind, in the order data flows.
    pub const ALL: [KindName; 7] = [
        KindName::Ingest,
        KindName::Sample,
        KindName::Score,
        KindName::Pair,
        KindName::Train,
        KindName::Evaluate,
        KindName::Sql,
    ];

    /// The YAML key.
    pub const fn name(self) -> &'static str {
        match self {
            KindName::Ingest => "ingest",
            KindName::Sample => "sample",
            KindName::Score => "score",
            KindName::Pair => "pair",
            KindName::Train => "train",
            KindName::Evaluate => "evaluate",
            KindName::Sql => "sql",
        }
    }

    /// What a stage of this kind makes; the first is meant when only the stage is named.
    pub const fn products(self) -> &'static [Product] {
        match self {
            KindName::Ingest => ingest::PRODUCTS,
            KindName::Sample => sample::PRODUCTS,
            KindName::Score => score::PRODUCTS,
            KindName::Pair => pair::PRODUCTS,
            KindName::Train => train::PRODUCTS,
            KindName::Evaluate => evaluate::PRODUCTS,
            KindName::Sql => sql::PRODUCTS,
        }
    }

    /// The version of what the kind computes: raised by hand when equal inputs would give another output.
    pub const fn version(self) -> u32 {
        match self {
            KindName::Ingest => ingest::VERSION,
            KindName::Sample => sample::VERSION,
            KindName::Score => score::VERSION,
            KindName::Pair => pair::VERSION,
            KindName::Train => train::VERSION,
            KindName::Evaluate => evaluate::VERSION,
            KindName::Sql => sql::VERSION,
        }
    }

    /// Which way a number that a stage of this kind reports is better; `None` where that cannot be said of the number
    /// alone.
    pub fn better(self, metric: &str) -> Option<Better> {
        match self {
            KindName::Evaluate => evaluate::better(metric),
            KindName::Train => train::better(metric),
            KindName::Ingest | KindName::Sample | KindName::Score | KindName::Pair | KindName::Sql => None,
        }
    }

    pub(crate) fn read(self, node: &Node, reader: &mut Reader<'_>) -> Option<Kind> {
        Some(match self {
            KindName::Ingest => Kind::Ingest(Ingest::read(node, reader)?),
            KindName::Sample => Kind::Sample(Sample::read(node, reader)?),
            KindName::Score => Kind::Score(Score::read(node, reader)?),
            KindName::Pair => Kind::Pair(Pair::read(node, reader)?),
            KindName::Train => Kind::Train(Box::new(Train::read(node, reader)?)),
            KindName::Evaluate => Kind::Evaluate(Evaluate::read(node, reader)?),
            KindName::Sql => Kind::Sql(Sql::read(node, reader)?),
        })
    }
}

impl Kind {
    pub const fn name(&self) -> KindName {
        match self {
            Kind::Ingest(_) => KindName::Ingest,
            Kind::Sample(_) => KindName::Sample,
            Kind::Score(_) => KindName::Score,
            Kind::Pair(_) => KindName::Pair,
            Kind::Train(_) => KindName::Train,
            Kind::Evaluate(_) => KindName::Evaluate,
            Kind::Sql(_) => KindName::Sql,
        }
    }

    /// Feeds every parameter that enters the key to `sink`. Inputs are not among them: the key has their digests.
    pub fn leaves(&self, sink: &mut dyn LeafSink) {
        match self {
            Kind::Ingest(params) => params.leaves(sink),
            Kind::Sample(params) => params.leaves(sink),
            Kind::Score(params) => params.leaves(sink),
            Kind::Pair(params) => params.leaves(sink),
            Kind::Train(params) => params.leaves(sink),
            Kind::Evaluate(params) => params.leaves(sink),
            Kind::Sql(params) => params.leaves(sink),
        }
    }

    /// What the stage reads, in a fixed order per kind.
    pub fn inputs(&self) -> Vec<Input> {
        match self {
            Kind::Ingest(params) => params.inputs(),
            Kind::Sample(params) => params.inputs(),
            Kind::Score(params) => params.inputs(),
            Kind::Pair(params) => params.inputs(),
            Kind::Train(params) => params.inputs(),
            Kind::Evaluate(params) => params.inputs(),
            Kind::Sql(params) => params.inputs(),
        }
    }

    pub const fn products(&self) -> &'static [Product] {
        self.name().products()
    }

    pub const fn version(&self) -> u32 {
        self.name().version()
    }
}

/// One thing a stage reads.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// The parameter that names it, for example `prompts`, `model`, `baseline`; for `sql` the name it is read under.
    pub role: String,
    pub source: Source,
    pub expects: Expects,
    /// Where the file names it.
    pub place: Option<Span>,
}

/// Where an input comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// A product of an earlier stage.
    Stage(StageProduct),
    /// A model of the `models` table.
    Model(ModelName),
    /// Files of the user: paths or globs, relative to the project folder, never empty.
    Files(Vec<String>),
    /// A folder of the user, relative to the project folder.
    Folder(String),
}

/// A stage and which of its products.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StageProduct {
    pub stage: StageName,
    pub product: Product,
}

impl StageProduct {
    /// The same product of the stage that a cell is of, by the name in the file.
    pub fn of_base(&self) -> StageProduct {
        let base = self.stage.as_str().split('[').next().unwrap_or_default();
        StageProduct { stage: StageName::new(base), product: self.product }
    }
}

/// What an input must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expects {
    /// A table of this kind, or of any kind.
    Table(crate::names::TableKind),
    /// A model with weights.
    Checkpoint,
    /// Rows in Parquet, JSONL or CSV.
    Rows,
    /// A folder that describes a model without weights.
    Config,
}

/// A model a stage runs: one of the `models` table, or the checkpoint of a `train` stage.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ModelRef {
    Model(ModelName),
    Stage(StageName),
}

impl ModelRef {
    pub(crate) fn input(role: &str, model: &Located<ModelRef>) -> Input {
        let source = match &model.value {
            ModelRef::Model(name) => Source::Model(name.clone()),
            ModelRef::Stage(stage) => {
                Source::Stage(StageProduct { stage: stage.clone(), product: Product::Checkpoint })
            }
        };
        Input { role: role.to_owned(), source, expects: Expects::Checkpoint, place: model.place }
    }
}

/// A table a stage reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TableRef {
    pub made: StageProduct,
    /// Its name in SQL, which is the one in the file: the stage, or `stage.product` for a product that is not the
    /// stage's first. In every cell of a matrix it is the same, whichever cell the table is of.
    pub name: String,
}

impl TableRef {
    pub(crate) fn input(role: &str, expects: crate::names::TableKind, table: &Located<TableRef>) -> Input {
        Input {
            role: role.to_owned(),
            source: Source::Stage(table.value.made.clone()),
            expects: Expects::Table(expects),
            place: table.place,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::KindName;

    /// A stage's name alone means its first product, and only that.
    #[test]
    fn the_first_product_comes_first() {
        for kind in KindName::ALL {
            for (index, product) in kind.products().iter().enumerate() {
                assert_eq!(product.comes_first(), index == 0, "{} makes {product}", kind.name());
            }
        }
    }
}

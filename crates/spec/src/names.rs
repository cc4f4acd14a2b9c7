//! Names of stages, models and tables, and what each kind of stage makes.
//! Owns the name types; refuses to know what a stage does with its inputs.

use std::fmt;

/// Name types over text: made by the reader, printed as written.
macro_rules! name {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            pub(crate) fn new(text: &str) -> Self {
                Self(text.to_owned())
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

name! {
    /// A stage: a key under `stages`. Lower case, digits and `_`, because it is also a table name in SQL.
    StageName;
    /// A model: a key under `models`.
    ModelName;
    /// A profile: a key under `profiles`.
    ProfileName;
    /// A word that stages are selected by. Lower case, digits, `-` and `_`, so that it needs no quotes in a selector.
    Tag;
}

/// The tables stages exchange, by name only: their columns live in crate `table`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableKind {
    Prompts,
    Responses,
    Scores,
    Pairs,
    Dropped,
    Steps,
    Comparisons,
    Metrics,
    /// What a query makes: any columns, known only when it has run.
    Any,
}

impl TableKind {
    pub const fn name(self) -> &'static str {
        match self {
            TableKind::Prompts => "prompts",
            TableKind::Responses => "responses",
            TableKind::Scores => "scores",
            TableKind::Pairs => "pairs",
            TableKind::Dropped => "dropped",
            TableKind::Steps => "steps",
            TableKind::Comparisons => "comparisons",
            TableKind::Metrics => "metrics",
            TableKind::Any => "table",
        }
    }
}

/// One thing a stage makes. A stage's first product is meant when only the stage is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Product {
    Table(TableKind),
    Checkpoint,
}

impl Product {
    /// The name it is stored under, and the word after the dot in `tuned.steps`.
    pub const fn name(self) -> &'static str {
        match self {
            Product::Table(kind) => kind.name(),
            Product::Checkpoint => "checkpoint",
        }
    }

    /// Whether this is the first product of the kind that makes it, the one meant by the stage's name alone.
    pub const fn comes_first(self) -> bool {
        !matches!(self, Product::Table(TableKind::Dropped | TableKind::Steps | TableKind::Metrics))
    }
}

impl fmt::Display for Product {
    /// In words: `a pairs table`, `a checkpoint`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Product::Table(TableKind::Any) => f.write_str("a table"),
            Product::Table(kind) => write!(f, "a `{}` table", kind.name()),
            Product::Checkpoint => f.write_str("a checkpoint"),
        }
    }
}

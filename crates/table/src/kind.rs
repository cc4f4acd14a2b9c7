//! The tables by name, for those who only pass them on.

use arrow::datatypes::SchemaRef;

use crate::{Comparisons, Dropped, Metrics, Pairs, Prompts, Responses, Scores, Steps};

/// Which table a stage reads or writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TableKind {
    Prompts,
    Responses,
    Scores,
    Pairs,
    Dropped,
    Steps,
    Comparisons,
    Metrics,
    /// A table of any shape, such as the result of a query; it is known only once it is made.
    Any,
}

impl TableKind {
    pub const ALL: [TableKind; 9] = [
        TableKind::Prompts,
        TableKind::Responses,
        TableKind::Scores,
        TableKind::Pairs,
        TableKind::Dropped,
        TableKind::Steps,
        TableKind::Comparisons,
        TableKind::Metrics,
        TableKind::Any,
    ];

    pub fn name(self) -> &'static str {
        match self {
            TableKind::Prompts => Prompts::NAME,
            TableKind::Responses => Responses::NAME,
            TableKind::Scores => Scores::NAME,
            TableKind::Pairs => Pairs::NAME,
            TableKind::Dropped => Dropped::NAME,
            TableKind::Steps => Steps::NAME,
            TableKind::Comparisons => Comparisons::NAME,
            TableKind::Metrics => Metrics::NAME,
            TableKind::Any => "table",
        }
    }

    /// The columns, in order; `None` for a table of any shape.
    pub fn schema(self) -> Option<SchemaRef> {
        match self {
            TableKind::Prompts => Some(Prompts::schema()),
            TableKind::Responses => Some(Responses::schema()),
            TableKind::Scores => Some(Scores::schema()),
            TableKind::Pairs => Some(Pairs::schema()),
            TableKind::Dropped => Some(Dropped::schema()),
            TableKind::Steps => Some(Steps::schema()),
            TableKind::Comparisons => Some(Comparisons::schema()),
            TableKind::Metrics => Some(Metrics::schema()),
            TableKind::Any => None,
        }
    }
}

impl std::fmt::Display for TableKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

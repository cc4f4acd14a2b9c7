//! `ingest`: the user's files in, one `prompts` table out.
//! Owns the parameters and what enters the key; refuses to know how rows are read.

use crate::choice::choice;
use crate::diagnostic::{Code, Diagnostic};
use crate::leaf::{LeafSink, LeafValue, ToLeaf, emit};
use crate::names::{Product, TableKind};
use crate::number::{Count, ProperFraction, Seed};
use crate::reader::{Fields, Read, Reader};
use crate::span::{Located, Span};
use crate::stage::{Expects, Input, Source};
use crate::tree::{Node, Value};

/// Raised when equal files and parameters would give another table.
///
/// 2: a limit counts the prompts of each split, in the order of their ids; it counted rows in the order of the files.
pub const VERSION: u32 = 2;
pub const PRODUCTS: &[Product] = &[Product::Table(TableKind::Prompts)];
/// The columns every `prompts` table has; crate `table` owns what they mean.
pub const COLUMNS: [&str; 9] =
    ["prompt_id", "prompt", "reference", "group", "split", "source", "source_row", "response", "label"];

/// Files, what to take from them, and how to split it.
#[derive(Debug, Clone, PartialEq)]
pub struct Ingest {
    /// Paths or globs of Parquet, JSONL or CSV files, relative to the project folder.
    pub from: Located<Vec<String>>,
    /// Files whose rows are all held out.
    pub heldout_from: Option<Located<Vec<String>>>,
    /// `None`: by file extension.
    pub format: Located<Option<Format>>,
    pub map: ColumnMap,
    /// Further columns of the file, which the table has behind its own.
    pub keep: Located<Kept>,
    /// A SQL condition over the columns of the file; rows for which it is not true are left out.
    pub filter: Located<Option<String>>,
    /// Keep only the first row of each prompt text.
    pub dedup: Located<bool>,
    /// Of each split, take only so many prompts: those whose ids come first, so that a smaller limit takes some of what a
    /// larger one takes. `limits` and `--limit` set it from outside of the stage.
    pub limit: Located<Option<Count>>,
    pub split: Split,
}

choice! {
    /// How the files are written.
    pub enum Format {
        Parquet = "parquet",
        Jsonl = "jsonl",
        Csv = "csv",
    }
}

/// Which column of the file feeds which column of the table.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnMap {
    pub prompt: Located<String>,
    /// The answer a checker compares with.
    pub reference: Located<Option<String>>,
    /// A label that metrics are broken down by.
    pub group: Located<Option<String>>,
    /// A demonstration, for the objectives `sft` and `reward`.
    pub response: Located<Option<String>>,
    /// How good the demonstration is, for the objective `reward`.
    pub label: Located<Option<String>>,
}

/// Columns that the table takes over from the file under their names and with their types: distinct, and none of
/// [`COLUMNS`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept(Vec<String>);

impl Kept {
    pub fn names(&self) -> &[String] {
        &self.0
    }

    pub fn has(&self, column: &str) -> bool {
        self.0.iter().any(|name| name == column)
    }
}

/// Which prompts are held out: by a column of the file, or else by the digest of the prompt text.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// A column that says `train` or `heldout`; it decides alone.
    pub column: Located<Option<String>>,
    /// Share of prompts that are held out; which ones depends on their text alone.
    pub heldout: Located<ProperFraction>,
    /// Salts the digest, so that another seed holds out other prompts.
    pub seed: Located<Seed>,
}

impl Ingest {
    pub fn leaves(&self, sink: &mut dyn LeafSink) {
        // The files enter the key by content, not by path.
        let Ingest { from: _, heldout_from: _, format, map, keep, filter, dedup, limit, split } = self;
        emit(sink, "format", format);
        map.leaves(sink);
        emit(sink, "keep", keep);
        emit(sink, "where", filter);
        emit(sink, "dedup", dedup);
        emit(sink, "limit", limit);
        split.leaves(sink);
    }

    pub fn inputs(&self) -> Vec<Input> {
        let files = |role: &str, patterns: &Located<Vec<String>>| Input {
            role: role.to_owned(),
            source: Source::Files(patterns.value.clone()),
            expects: Expects::Rows,
            place: patterns.place,
        };
        std::iter::once(files("from", &self.from))
            .chain(self.heldout_from.iter().map(|patterns| files("heldout_from", patterns)))
            .collect()
    }
}

impl ColumnMap {
    fn leaves(&self, sink: &mut dyn LeafSink) {
        let ColumnMap { prompt, reference, group, response, label } = self;
        emit(sink, "map.prompt", prompt);
        emit(sink, "map.reference", reference);
        emit(sink, "map.group", group);
        emit(sink, "map.response", response);
        emit(sink, "map.label", label);
    }
}

impl Split {
    fn leaves(&self, sink: &mut dyn LeafSink) {
        let Split { column, heldout, seed } = self;
        emit(sink, "split.column", column);
        emit(sink, "split.heldout", heldout);
        emit(sink, "split.seed", seed);
    }
}

impl Read for Ingest {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let mut fields = Fields::open(node, reader)?;
        let from = fields.patterns("from");
        let heldout_from = fields.optional_patterns("heldout_from");
        let format = fields.optional("format");
        let map = fields.group("map", ColumnMap::read_fields);
        let keep = fields.or("keep", Kept::default());
        let filter = fields.optional("where");
        let dedup = fields.or("dedup", true);
        let limit = fields.optional("limit");
        let split = fields.group("split", Split::read_fields);
        fields.finish();
        Some(Ingest { from: from?, heldout_from, format, map, keep, filter, dedup, limit, split })
    }
}

impl ColumnMap {
    fn read_fields(fields: &mut Fields<'_, '_>) -> Self {
        ColumnMap {
            prompt: fields.or("prompt", "prompt".to_owned()),
            reference: fields.optional("reference"),
            group: fields.optional("group"),
            response: fields.optional("response"),
            label: fields.optional("label"),
        }
    }
}

impl ToLeaf for Kept {
    fn to_leaf(&self) -> LeafValue {
        self.0.to_leaf()
    }
}

impl Read for Kept {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let Value::List(items) = &node.value else {
            return reader.wrong_type(node, "a list of texts: columns of the file");
        };
        let mut kept: Vec<(String, Span)> = Vec::new();
        for item in items {
            let Some(name) = String::read(item, reader) else { continue };
            if COLUMNS.contains(&name.as_str()) {
                let message = format!("{} names `{name}`, which the table has already", reader.whereabouts());
                let fault = Diagnostic::new(Code::Contradiction, item.span, message);
                reader.report(fault.help(how_to_fill(&name)));
            } else if let Some((_, first)) = kept.iter().find(|(other, _)| *other == name) {
                let message = format!("{} names `{name}` twice", reader.whereabouts());
                let fault = Diagnostic::new(Code::Contradiction, item.span, message);
                reader.report(fault.related(*first, "first").help("leave one of them out"));
            } else {
                kept.push((name, item.span));
            }
        }
        Some(Kept(kept.into_iter().map(|(name, _)| name).collect()))
    }
}

/// How a file fills a column that every `prompts` table has.
fn how_to_fill(column: &str) -> String {
    match column {
        "prompt" | "reference" | "group" | "response" | "label" => {
            format!("write `map: {{ {column}: {column} }}` to fill it from the file")
        }
        "split" => "write `split: { column: split }` to fill it from the file".to_owned(),
        _ => "sluice fills it; give the column of the file another name to keep it".to_owned(),
    }
}

impl Split {
    fn read_fields(fields: &mut Fields<'_, '_>) -> Self {
        Split {
            column: fields.optional("column"),
            heldout: fields.or("heldout", ProperFraction::preset(0.05)),
            seed: fields.or("seed", Seed::preset(0)),
        }
    }
}

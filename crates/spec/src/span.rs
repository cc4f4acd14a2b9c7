//! Where a value was written: in the pipeline file or in a `--set` argument.
//! Owns positions and their text form; refuses to know what the value means.

use std::fmt;
use std::ops::Deref;

/// Which text a [`Span`] points into: the file, or the n-th `--set` argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub(crate) u16);

impl SourceId {
    /// The pipeline file itself.
    pub const FILE: SourceId = SourceId(0);

    /// The `index`-th `--set` argument, counted from 0.
    pub(crate) fn set(index: usize) -> SourceId {
        SourceId(u16::try_from(index + 1).unwrap_or(u16::MAX))
    }

    /// Which `--set` argument this is, counted from 0; `None` for the file.
    pub fn set_index(self) -> Option<usize> {
        usize::from(self.0).checked_sub(1)
    }
}

/// A piece of source text.
///
/// `offset` and `len` count bytes; `line` and `column` count from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    pub source: SourceId,
    pub offset: u32,
    pub len: u32,
    pub line: u32,
    pub column: u32,
}

impl Span {
    /// The first character of the file: where a fault of the whole file is shown.
    pub const START: Span = Span { source: SourceId::FILE, offset: 0, len: 0, line: 1, column: 1 };

    /// The half-open byte range in the source's text.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.offset as usize..(self.offset + self.len) as usize
    }
}

/// The texts spans point into. Kept with the pipeline, so that a position can be shown long after parsing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    name: String,
    text: String,
    sets: Vec<String>,
}

impl Sources {
    pub(crate) fn new(name: &str, text: &str, sets: &[String]) -> Sources {
        Sources { name: name.to_owned(), text: text.to_owned(), sets: sets.to_vec() }
    }

    /// Puts `*` over a piece of text that nobody may see; every offset stays as it is.
    pub(crate) fn mask(&mut self, span: Span) {
        let text = match span.source.set_index() {
            None => Some(&mut self.text),
            Some(index) => self.sets.get_mut(index),
        };
        let Some(text) = text else { return };
        if let Some(covered) = text.get(span.range()) {
            // Lines stay lines: a place below keeps its line's text.
            let stars: String = covered
                .chars()
                .flat_map(|c| std::iter::repeat_n(if c == '\n' { c } else { '*' }, c.len_utf8()))
                .collect();
            text.replace_range(span.range(), &stars);
        }
    }

    /// The name the file was given to [`crate::parse`] under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text of a source; empty for a source that does not exist.
    pub fn text(&self, source: SourceId) -> &str {
        match source.set_index() {
            None => &self.text,
            Some(index) => self.sets.get(index).map_or("", String::as_str),
        }
    }

    /// The text under a span.
    pub fn slice(&self, span: Span) -> &str {
        self.text(span.source).get(span.range()).unwrap_or("")
    }

    /// `pipelines/simpo.yaml:4:16`, or `--set stages.pairs.pair.ties=frist`, or `--limit 32`, which is short for a `--set`.
    pub fn place(&self, span: Span) -> Place<'_> {
        Place { sources: self, span }
    }
}

/// A span that knows its sources and prints itself.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    sources: &'a Sources,
    span: Span,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.span.source {
            SourceId::FILE => write!(f, "{}:{}:{}", self.sources.name, self.span.line, self.span.column),
            set => match self.sources.text(set).strip_prefix("limits.*=") {
                Some(limit) => write!(f, "--limit {limit}"),
                None => write!(f, "--set {}", self.sources.text(set)),
            },
        }
    }
}

/// A value and the place it was written at; no place means that it is the default.
///
/// Two located values are equal when their values are: where something stands never changes what it means.
#[derive(Debug, Clone, Copy)]
pub struct Located<T> {
    pub value: T,
    pub place: Option<Span>,
}

impl<T> Located<T> {
    /// A value nobody wrote down.
    pub fn default_of(value: T) -> Located<T> {
        Located { value, place: None }
    }

    pub fn at(value: T, place: Span) -> Located<T> {
        Located { value, place: Some(place) }
    }
}

impl<T> Deref for Located<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq for Located<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

//! Places in a query: line and column, counted from 1. It knows how to find them in the text and in the messages of the
//! parser, which carries some places only as text.

use std::fmt;

use datafusion::common::Span;
use datafusion::sql::sqlparser::tokenizer::Token;

use crate::names::tokens;

/// Line and column within a query, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub line: u64,
    pub column: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl Place {
    pub(crate) fn of_span(span: Span) -> Self {
        Self { line: span.start.line, column: span.start.column }
    }

    /// Where `word` first stands as an identifier.
    pub(crate) fn of_word(query: &str, word: &str) -> Option<Self> {
        let found = tokens(query).ok()?.into_iter().find(|token| match &token.token {
            Token::Word(candidate) => candidate.value.eq_ignore_ascii_case(word),
            _ => false,
        })?;
        Some(Self { line: found.span.start.line, column: found.span.start.column })
    }

    /// Just behind the last character that is not blank.
    pub(crate) fn end_of(query: &str) -> Self {
        let written = query.trim_end();
        let last = written.lines().last().unwrap_or_default();
        Self { line: written.lines().count().max(1) as u64, column: last.chars().count() as u64 + 1 }
    }

    /// Takes the place off the end of a parser's message: `.. at Line: 1, Column: 8`.
    pub(crate) fn cut_from(message: &str) -> (&str, Option<Self>) {
        let parsed = message.rsplit_once(" at Line: ").and_then(|(text, place)| {
            let (line, column) = place.split_once(", Column: ")?;
            Some((text, Self { line: line.parse().ok()?, column: column.trim().parse().ok()? }))
        });
        match parsed {
            Some((text, place)) => (text, Some(place)),
            None => (message, None),
        }
    }
}

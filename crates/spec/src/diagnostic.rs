//! A fault of a pipeline file: where, what, and what would be right.
//! Owns the shape and the plain text form; colours and boxes are the caller's.

use std::fmt;

use crate::span::{Sources, Span};

/// The kind of a fault: stable, for tools and tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    Syntax,
    DuplicateKey,
    UnknownKey,
    MissingKey,
    WrongType,
    OutOfRange,
    Contradiction,
    UnknownName,
    WrongProduct,
    BadName,
    SpeltTwice,
    Cycle,
    Reference,
    Profile,
    Override,
    Version,
    /// A secret written out; its place is masked in the sources.
    Secret,
}

impl Code {
    pub const fn as_str(self) -> &'static str {
        match self {
            Code::Syntax => "syntax",
            Code::DuplicateKey => "duplicate-key",
            Code::UnknownKey => "unknown-key",
            Code::MissingKey => "missing-key",
            Code::WrongType => "wrong-type",
            Code::OutOfRange => "out-of-range",
            Code::Contradiction => "contradiction",
            Code::UnknownName => "unknown-name",
            Code::WrongProduct => "wrong-product",
            Code::BadName => "bad-name",
            Code::SpeltTwice => "spelt-twice",
            Code::Cycle => "cycle",
            Code::Reference => "reference",
            Code::Profile => "profile",
            Code::Override => "override",
            Code::Version => "version",
            Code::Secret => "secret",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub code: Code,
    /// What is wrong, lower case, no full stop.
    pub message: String,
    pub place: Span,
    /// A few words under the underlined text; may be empty.
    pub label: String,
    /// What would be right.
    pub help: Option<String>,
    /// Other places that have a part in it.
    pub related: Vec<Related>,
}

/// Another place that has a part in a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Related {
    pub place: Span,
    pub label: String,
}

impl Diagnostic {
    pub fn new(code: Code, place: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic { code, message: message.into(), place, label: String::new(), help: None, related: Vec::new() }
    }

    pub fn label(mut self, label: impl Into<String>) -> Diagnostic {
        self.label = label.into();
        self
    }

    pub fn help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help = Some(help.into());
        self
    }

    pub fn related(mut self, place: Span, label: impl Into<String>) -> Diagnostic {
        self.related.push(Related { place, label: label.into() });
        self
    }
}

/// Every fault of a file, in the order of the text.
#[derive(Debug, Clone)]
pub struct Diagnostics {
    pub sources: Sources,
    /// Never empty.
    pub list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// `list` must not be empty; it is sorted here.
    pub fn new(sources: Sources, mut list: Vec<Diagnostic>) -> Diagnostics {
        // One broken parameter may be met by many readers; it is still one fault.
        list.sort_by(|a, b| (a.place, &a.message).cmp(&(b.place, &b.message)));
        list.dedup();
        Diagnostics { sources, list }
    }
}

impl std::error::Error for Diagnostics {}

impl fmt::Display for Diagnostics {
    /// Each fault with the line it stands on, underlined.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write_one(f, &self.sources, diagnostic)?;
        }
        Ok(())
    }
}

fn write_one(f: &mut fmt::Formatter<'_>, sources: &Sources, fault: &Diagnostic) -> fmt::Result {
    writeln!(f, "{}: {} [{}]", sources.place(fault.place), fault.message, fault.code)?;
    write_excerpt(f, sources, fault.place, &fault.label)?;
    for related in &fault.related {
        write_excerpt(f, sources, related.place, &related.label)?;
    }
    match &fault.help {
        Some(help) => writeln!(f, "       help: {help}"),
        None => Ok(()),
    }
}

/// The line of a span, and carets under as much of the span as stands on it.
fn write_excerpt(f: &mut fmt::Formatter<'_>, sources: &Sources, span: Span, label: &str) -> fmt::Result {
    let text = sources.text(span.source);
    let start = (span.offset as usize).min(text.len());
    let line_start = text.get(..start).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
    let line = text.get(line_start..).and_then(|rest| rest.lines().next()).unwrap_or("");
    let rest = text.get(span.range()).and_then(|covered| covered.lines().next()).unwrap_or("");
    let carets = "^".repeat(rest.trim_end().chars().count().max(1));
    let indent: String = line
        .chars()
        .take((span.column as usize).saturating_sub(1))
        .map(|c| if c == '\t' { '\t' } else { ' ' })
        .collect();
    writeln!(f, "{:5} | {line}", span.line)?;
    writeln!(f, "{:5} | {}", "", format!("{indent}{carets} {label}").trim_end())
}

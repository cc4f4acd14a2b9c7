//! YAML text to a located tree, through the parser's events.
//! Owns the core schema, anchors and duplicate keys; refuses to know what any key means.
//!
//! `${params.n}` may stand unquoted inside `{ ... }`, where YAML would read its braces as a map. So the
//! braces of references are masked by two private-use characters before parsing and put back afterwards.

use std::collections::HashMap;

use serde_saphyr::granit_parser as granit;

use granit::{Event, Marker, Parser, ScalarStyle, StrInput};

use crate::diagnostic::{Code, Diagnostic};
use crate::span::{SourceId, Span};
use crate::tree::{Entry, Key, Node, Value};

const MASKED_OPEN: char = '\u{E000}';
const MASKED_CLOSE: char = '\u{E001}';
/// Deeper than any pipeline, shallow enough for the stack.
const MAX_NESTING: usize = 64;
/// Aliases may multiply a document; past this many values it is refused.
const MAX_NODES: usize = 100_000;

/// Reads one document. Faults go to `faults`; `None` when there is no tree to go on with.
pub(crate) fn parse(text: &str, source: SourceId, faults: &mut Vec<Diagnostic>) -> Option<Node> {
    if let Some(offset) = text.find([MASKED_OPEN, MASKED_CLOSE]) {
        let place = place_of(text, source, offset);
        let message = "the private-use characters U+E000 and U+E001 cannot be read here";
        faults.push(Diagnostic::new(Code::Syntax, place, message));
        return None;
    }
    if u32::try_from(text.len()).is_err() {
        faults.push(Diagnostic::new(Code::Syntax, Span::START, "the file is larger than 4 GiB"));
        return None;
    }
    let mask = Mask::of(text);
    let options = granit::options! {
        flow_nesting_limit: MAX_NESTING,
        block_nesting_limit: MAX_NESTING,
        emit_comments: false,
    };
    let parser = Parser::new_from_str_with_options(&mask.text, options);
    let mut builder = Builder { parser, mask: &mask, source, anchors: HashMap::new(), n_nodes: 0, faults };
    builder.document().ok()
}

/// The span of the character at a byte offset.
fn place_of(text: &str, source: SourceId, offset: usize) -> Span {
    let before = text.get(..offset).unwrap_or("");
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    Span {
        source,
        offset: u32::try_from(offset).unwrap_or(u32::MAX),
        len: 0,
        line: count_u32(before.matches('\n').count() + 1),
        column: count_u32(before[line_start..].chars().count() + 1),
    }
}

fn count_u32(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// The text with the braces of `${...}` masked, and where that made it longer.
struct Mask {
    text: String,
    /// Offsets in the masked text just past each masked character, ascending.
    masked: Vec<usize>,
}

impl Mask {
    fn of(text: &str) -> Mask {
        let mut mask = Mask { text: String::with_capacity(text.len() + 64), masked: Vec::new() };
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let inside = &rest[at + 2..];
            // A secret's reference has a colon, which elsewhere would be a key's.
            let names_a_secret = ["env:", "file:"].iter().any(|kind| inside.trim_start().starts_with(kind));
            let beside = if names_a_secret { "_.- :/~" } else { "_.- " };
            let end = inside.find(|c: char| !(c.is_ascii_alphanumeric() || beside.contains(c)));
            mask.text.push_str(&rest[..=at]);
            mask.push(MASKED_OPEN);
            match end.filter(|&end| inside[end..].starts_with('}')) {
                Some(end) => {
                    mask.text.push_str(&inside[..end]);
                    mask.push(MASKED_CLOSE);
                    rest = &inside[end + 1..];
                }
                None => rest = inside,
            }
        }
        mask.text.push_str(rest);
        mask
    }

    fn push(&mut self, masked: char) {
        self.text.push(masked);
        self.masked.push(self.text.len());
    }

    /// The offset in the original text.
    fn original(&self, offset: usize) -> usize {
        let n_before = self.masked.partition_point(|&end| end <= offset);
        offset - n_before * (MASKED_OPEN.len_utf8() - 1)
    }
}

fn unmasked(text: &str) -> String {
    text.replace(MASKED_OPEN, "{").replace(MASKED_CLOSE, "}")
}

/// The document has no tree; the fault is reported.
struct Stop;

struct Builder<'a, 'f> {
    parser: Parser<'a, StrInput<'a>>,
    mask: &'a Mask,
    source: SourceId,
    anchors: HashMap<usize, Node>,
    n_nodes: usize,
    faults: &'f mut Vec<Diagnostic>,
}

impl<'a> Builder<'a, '_> {
    fn document(&mut self) -> Result<Node, Stop> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                Event::StreamEnd => break,
                event if root.is_none() => root = Some(self.node(event, span)?),
                _ => {
                    let message = "the file holds more than one YAML document";
                    return self.stop(Diagnostic::new(Code::Syntax, span, message).help("keep one"));
                }
            }
        }
        Ok(root.unwrap_or(Node { value: Value::Null, span: Span { source: self.source, ..Span::START } }))
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Stop> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, self.span(span.start, span.end))),
            Some(Err(error)) => {
                let place = self.span(*error.marker(), *error.marker());
                let message = format!("this is not YAML: {}", unmasked(&error.info()));
                self.stop(Diagnostic::new(Code::Syntax, place, message))
            }
            None => Ok((Event::StreamEnd, Span::START)),
        }
    }

    fn stop<T>(&mut self, fault: Diagnostic) -> Result<T, Stop> {
        self.faults.push(fault);
        Err(Stop)
    }

    fn span(&self, start: Marker, end: Marker) -> Span {
        let offset = |marker: Marker| self.mask.original(marker.byte_offset().unwrap_or(0));
        let first = offset(start);
        Span {
            source: self.source,
            offset: count_u32(first),
            len: count_u32(offset(end).saturating_sub(first)),
            line: count_u32(start.line().max(1)),
            column: count_u32(start.col() + 1),
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span) -> Result<Node, Stop> {
        self.n_nodes += 1;
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = match style {
                    ScalarStyle::Plain => core_schema(&text),
                    _ => Value::Str(unmasked(&text)),
                };
                self.refuse_tag(tag.as_deref(), span);
                Ok(self.anchored(anchor, Node { value, span }))
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.refuse_tag(tag.as_deref(), span);
                let (items, end) = self.items()?;
                Ok(self.anchored(anchor, Node { value: Value::List(items), span: joined(span, end) }))
            }
            Event::MappingStart(_, anchor, tag) => {
                self.refuse_tag(tag.as_deref(), span);
                let (entries, end) = self.map_entries()?;
                Ok(self.anchored(anchor, Node { value: Value::Map(entries), span: joined(span, end) }))
            }
            Event::Alias(id) => self.aliased(id, span),
            _ => self.stop(Diagnostic::new(Code::Syntax, span, "a value is missing here")),
        }
    }

    fn items(&mut self) -> Result<(Vec<Node>, Span), Stop> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, span) => return Ok((items, span)),
                (event, span) => items.push(self.node(event, span)?),
            }
        }
    }

    fn map_entries(&mut self) -> Result<(Vec<Entry>, Span), Stop> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let key = match self.next()? {
                (Event::MappingEnd, span) => return Ok((entries, span)),
                (Event::Scalar(text, ..), span) => Some(Key { text: unmasked(&text), span }),
                (event, span) => {
                    let key = self.node(event, span)?;
                    let message = format!("a key must be a text, not {}", key.describe());
                    self.faults.push(Diagnostic::new(Code::WrongType, span, message));
                    None
                }
            };
            let (event, span) = self.next()?;
            let value = self.node(event, span)?;
            let Some(key) = key else { continue };
            if key.text == "<<" {
                let fault = Diagnostic::new(Code::UnknownKey, key.span, "merge keys (`<<`) are not read");
                self.faults.push(fault.help("put the map under `params` and write `${params.NAME}`"));
            } else if let Some(first) = entries.iter().find(|entry| entry.key.text == key.text) {
                let message = format!("`{}` stands here twice", key.text);
                let fault = Diagnostic::new(Code::DuplicateKey, key.span, message);
                self.faults.push(fault.label("second").related(first.key.span, "first"));
            } else {
                entries.push(Entry { key, value });
            }
        }
    }

    fn anchored(&mut self, anchor: usize, node: Node) -> Node {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        node
    }

    fn aliased(&mut self, id: usize, span: Span) -> Result<Node, Stop> {
        let Some(node) = self.anchors.get(&id).cloned() else {
            return self.stop(Diagnostic::new(Code::Syntax, span, "this alias stands inside its own anchor"));
        };
        self.n_nodes += size(&node);
        if self.n_nodes > MAX_NODES {
            let message = format!("aliases make this document larger than {MAX_NODES} values");
            return self.stop(Diagnostic::new(Code::Syntax, span, message));
        }
        Ok(node)
    }

    fn refuse_tag(&mut self, tag: Option<&granit::Tag>, span: Span) {
        if let Some(tag) = tag {
            let message = format!("the tag `{}` is not read", tag.original());
            let fault = Diagnostic::new(Code::Syntax, span, message);
            self.faults.push(fault.help("leave it out; quotes make a value a text"));
        }
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::List(items) => items.iter().map(size).sum(),
        Value::Map(entries) => entries.iter().map(|entry| size(&entry.value)).sum(),
        _ => 0,
    }
}

/// From the start of `first` to the end of `last`.
fn joined(first: Span, last: Span) -> Span {
    let end = (last.offset + last.len).max(first.offset + first.len);
    Span { len: end - first.offset, ..first }
}

/// The value of a plain scalar by the core schema of YAML 1.2: `yes`, `on` and `1_000` are texts.
fn core_schema(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => number(text).unwrap_or_else(|| Value::Str(unmasked(text))),
    }
}

fn number(text: &str) -> Option<Value> {
    let radix = |digits: &str, radix: u32| i64::from_str_radix(digits, radix).ok().map(Value::Int);
    if let Some(digits) = text.strip_prefix("0x").filter(|d| d.chars().all(|c| c.is_ascii_hexdigit())) {
        return radix(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o").filter(|d| d.chars().all(|c| c.is_digit(8))) {
        return radix(digits, 8);
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    match unsigned {
        ".inf" | ".Inf" | ".INF" if text.starts_with('-') => return Some(Value::Float(f64::NEG_INFINITY)),
        ".inf" | ".Inf" | ".INF" => return Some(Value::Float(f64::INFINITY)),
        _ if matches!(text, ".nan" | ".NaN" | ".NAN") => return Some(Value::Float(f64::NAN)),
        _ => {}
    }
    // What remains must begin like a number; `parse` alone would also take `inf` and `infinity`.
    let digits = unsigned.strip_prefix('.').unwrap_or(unsigned);
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    match text.parse::<i64>() {
        Ok(value) => Some(Value::Int(value)),
        Err(_) => text.parse::<f64>().ok().map(Value::Float),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A scalar of YAML 1.2 and what it is: neither `yes` nor `010` is what YAML 1.1 made of it.
    #[test]
    fn core_schema_of_plain_scalars() {
        let cases = [
            ("yes", "Str(\"yes\")"),
            ("off", "Str(\"off\")"),
            ("True", "Bool(true)"),
            ("~", "Null"),
            ("", "Null"),
            ("-7", "Int(-7)"),
            ("010", "Int(10)"),
            ("0o10", "Int(8)"),
            ("0xff", "Int(255)"),
            ("0x", "Str(\"0x\")"),
            ("1_000", "Str(\"1_000\")"),
            ("8e-7", "Float(8e-7)"),
            ("1.", "Float(1.0)"),
            (".5", "Float(0.5)"),
            ("-.inf", "Float(-inf)"),
            ("inf", "Str(\"inf\")"),
            ("infinity", "Str(\"infinity\")"),
            ("1.5.2", "Str(\"1.5.2\")"),
            ("2026-11-24", "Str(\"2026-11-24\")"),
            ("99999999999999999999", "Float(1e20)"),
        ];
        for (text, expected) in cases {
            assert_eq!(format!("{:?}", core_schema(text)), expected, "{text}");
        }
    }

    /// Masking the braces of references shifts nothing: every span still covers its own text.
    #[test]
    fn spans_survive_the_mask() {
        let text = "{ é: ${params.a}, b: [${params.bb}, x${params.c}y ], s: ${file:~/a}, ${odd: z }";
        let mut faults = Vec::new();
        let root = parse(text, SourceId::FILE, &mut faults).expect("this is YAML");
        let mut covered = Vec::new();
        for entry in root.entries().expect("it is a map") {
            covered.push(&text[entry.key.span.range()]);
            match &entry.value.value {
                Value::List(items) => covered.extend(items.iter().map(|item| &text[item.span.range()])),
                _ => covered.push(&text[entry.value.span.range()]),
            }
        }
        assert_eq!(
            covered,
            ["é", "${params.a}", "b", "${params.bb}", "x${params.c}y", "s", "${file:~/a}", "${odd", "z"]
        );
    }
}

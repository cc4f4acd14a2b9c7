//! One entry under `stages`: the kind, and the keys that may stand beside it.
//!
//! Owns those keys; refuses to know the parameters of a kind. None of them enters a stage's key: they say what is done
//! with a stage and its result, not what the result is. A matrix is taken apart before, in `matrix`.

use crate::diagnostic::{Code, Diagnostic};
use crate::index::Index;
use crate::matrix::{CellReads, MATRIX};
use crate::names::{StageName, Tag};
use crate::reader::{Fields, Read, Reader, StageRead};
use crate::span::Span;
use crate::stage::contract::Contract;
use crate::stage::test::{self, Test};
use crate::stage::{KindName, Stage};
use crate::tree::{Entry, Node, Value};

/// What stands beside the kind.
#[derive(Default)]
struct Keys<'n> {
    tags: Vec<Tag>,
    /// Read once the kind is known, which says what tables there are.
    tests: Option<&'n Entry>,
    columns: Option<&'n Entry>,
}

/// What came of reading a stage.
pub(crate) struct ReadStage {
    /// `None` when its kind is not known or has faults.
    pub stage: Option<Stage>,
    /// The stages it names, each way of naming one once.
    pub reads: Vec<StageRead>,
}

impl Stage {
    /// Reads a stage. `cells` says which cell of a matrix a name stands for; without it, names stay as they are.
    pub(crate) fn read(
        entry: &Entry,
        index: &Index,
        cells: Option<&CellReads>,
        faults: &mut Vec<Diagnostic>,
    ) -> ReadStage {
        let subject = format!("stage `{}`", entry.key.text);
        let mut reader = Reader::new(index, faults, &subject, entry.key.span).in_cell(cells);
        let stage = Stage::read_with(entry, &mut reader);
        ReadStage { stage, reads: reader.into_reads() }
    }

    fn read_with(entry: &Entry, reader: &mut Reader<'_>) -> Option<Stage> {
        let (Keys { tags, tests, columns }, beside) = Keys::read(&entry.value, reader);
        let names = KindName::ALL.map(KindName::name);
        let (name, body, kind_span) = reader.one_of(&entry.value, &names, &beside)?;
        let kind = KindName::ALL.into_iter().find(|kind| kind.name() == name)?;
        let tests = reader.in_tests(|reader| read_tests(tests, columns, reader, kind));
        let kind = reader.under(name, kind_span, |reader| kind.read(body, reader))?;
        let name = StageName::new(&entry.key.text);
        Some(Stage { name, cell: None, name_span: entry.key.span, kind_span, kind, tags, tests })
    }
}

impl<'n> Keys<'n> {
    /// Reads the keys of a stage that are not its kind, and says which keys those are.
    fn read(node: &'n Node, reader: &mut Reader<'_>) -> (Keys<'n>, Vec<&'static str>) {
        // Something else than a map is reported where the kind is looked for.
        let Some(mut fields) = node.entries().is_some().then(|| Fields::open(node, reader)).flatten() else {
            return (Keys::default(), Vec::new());
        };
        let tags = fields.optional("tags").value.unwrap_or_default();
        let Tags(tags) = tags;
        fields.elsewhere(MATRIX);
        fields.elsewhere("tests");
        fields.elsewhere("columns");
        let find = |key: &str| -> Option<&'n Entry> { node.entries()?.iter().find(|entry| entry.key.text == key) };
        let (tests, columns) = (find("tests"), find("columns"));
        (Keys { tags, tests, columns }, fields.asked())
    }
}

/// The stage's `columns` and `tests`, as one list.
fn read_tests(tests: Option<&Entry>, columns: Option<&Entry>, reader: &mut Reader<'_>, kind: KindName) -> Vec<Test> {
    let contract = columns.filter(|entry| !matches!(entry.value.value, Value::Null)).and_then(|entry| {
        let Entry { key, value } = entry;
        let contract = reader.under(&key.text, key.span, |reader| Contract::read(value, reader))?;
        Some(Test::of_contract(contract, key.span, kind))
    });
    match tests {
        Some(Entry { key, value }) => {
            reader.under(&key.text, key.span, |reader| test::read(value, reader, kind, contract))
        }
        None => contract.into_iter().collect(),
    }
}

/// One tag, or a list of them.
#[derive(Default)]
struct Tags(Vec<Tag>);

impl Read for Tags {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let items = match &node.value {
            Value::Str(_) => std::slice::from_ref(node),
            Value::List(items) => items.as_slice(),
            _ => return reader.wrong_type(node, "a text or a list of texts, as in `[nightly, gpu]`"),
        };
        let mut tags: Vec<(Tag, Span)> = Vec::new();
        for item in items {
            let Some(tag) = Tag::read(item, reader) else { continue };
            match tags.iter().find(|(other, _)| *other == tag) {
                Some((_, first)) => {
                    let message = format!("{} names `{tag}` twice", reader.whereabouts());
                    let fault = Diagnostic::new(Code::Contradiction, item.span, message);
                    reader.report(fault.related(*first, "first").help("leave one of them out"));
                }
                None => tags.push((tag, item.span)),
            }
        }
        Some(Tags(tags.into_iter().map(|(tag, _)| tag).collect()))
    }
}

impl Read for Tag {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let text = String::read(node, reader)?;
        let follows = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
        if text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(follows) {
            return Some(Tag::new(&text));
        }
        let message = format!("{} names `{text}`, which cannot be a tag", reader.whereabouts());
        let fault = Diagnostic::new(Code::BadName, node.span, message);
        let help = "a tag starts with a lower-case letter; letters, digits, `-` and `_` may follow";
        reader.report(fault.help(help));
        None
    }
}

//! The fields of one map: each is asked for once, and what nobody asked for is reported at the end.
//! Owns keys; refuses to know the types behind them.

use crate::diagnostic::{Code, Diagnostic};
use crate::reader::{Read, Reader};
use crate::span::{Located, Span};
use crate::suggest::did_you_mean;
use crate::tree::{Entry, Node, Value};

/// A map being read. End with [`Fields::finish`].
pub(crate) struct Fields<'r, 'a> {
    entries: &'r [Entry],
    pub(super) reader: &'r mut Reader<'a>,
    asked: Vec<&'static str>,
}

impl<'r, 'a> Fields<'r, 'a> {
    /// `None`, and a fault, when `node` is not a map.
    pub(crate) fn open(node: &'r Node, reader: &'r mut Reader<'a>) -> Option<Self> {
        match node.entries() {
            Some(entries) => Some(Fields { entries, reader, asked: Vec::new() }),
            None => reader.wrong_type(node, "a map"),
        }
    }

    pub(super) fn entry(&mut self, key: &'static str) -> Option<&'r Entry> {
        self.asked.push(key);
        self.entries.iter().find(|entry| entry.key.text == key)
    }

    /// Whether the key is there at all.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key.text == key)
    }

    /// A key without a default.
    pub(crate) fn required<T: Read>(&mut self, key: &'static str) -> Option<Located<T>> {
        self.required_with(key, |node, reader| T::read(node, reader))
    }

    pub(super) fn required_with<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Node, &mut Reader<'a>) -> Option<T>,
    ) -> Option<Located<T>> {
        match self.entry(key) {
            Some(entry) => self.read(entry, read),
            None => {
                self.missing(key);
                None
            }
        }
    }

    pub(super) fn read<T>(
        &mut self,
        entry: &Entry,
        read: impl FnOnce(&Node, &mut Reader<'a>) -> Option<T>,
    ) -> Option<Located<T>> {
        let value = self.reader.under(&entry.key.text, entry.key.span, |reader| read(&entry.value, reader))?;
        let place = self.reader.under(&entry.key.text, entry.key.span, |reader| reader.place(&entry.value));
        Some(Located::at(value, place))
    }

    /// A key that may be left out, or be null.
    pub(crate) fn optional<T: Read>(&mut self, key: &'static str) -> Located<Option<T>> {
        self.or(key, None)
    }

    /// A key with a default. A faulty value is reported and read as the default, so that reading goes on.
    pub(crate) fn or<T: Read>(&mut self, key: &'static str, default: T) -> Located<T> {
        self.entry(key)
            .and_then(|entry| self.read(entry, |node, reader| T::read(node, reader)))
            .unwrap_or(Located::default_of(default))
    }

    /// A map within the map; when it is left out, every field in it is.
    pub(crate) fn group<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Fields<'_, 'a>) -> T) -> T {
        let entry = self.entry(key);
        let (entries, head) = match entry {
            Some(entry) => (entry.value.entries(), entry.key.span),
            None => (Some([].as_slice()), self.reader.head),
        };
        self.reader.under(key, head, |reader| {
            if let (None, Some(entry)) = (entries, entry) {
                reader.wrong_type::<()>(&entry.value, "a map");
            }
            let mut fields = Fields { entries: entries.unwrap_or(&[]), reader, asked: Vec::new() };
            let value = read(&mut fields);
            fields.finish();
            value
        })
    }

    /// Reports that one of some keys has to be there.
    pub(crate) fn lacks(&mut self, keys: &str) {
        let message = format!("{} lacks {keys}", self.reader.whereabouts());
        self.reader.report(Diagnostic::new(Code::MissingKey, self.reader.head, message));
    }

    /// A key that is read elsewhere.
    pub(crate) fn elsewhere(&mut self, key: &'static str) {
        self.asked.push(key);
    }

    fn missing(&mut self, key: &'static str) {
        let message = format!("{} lacks `{key}`", self.reader.whereabouts());
        let mut fault = Diagnostic::new(Code::MissingKey, self.reader.head, message);
        // A slip in a required key is two faults of one cause; the unknown key carries the suggestion.
        let slip = self.entries.iter().find(|entry| did_you_mean(&entry.key.text, [key]).is_some());
        fault.help = Some(match slip {
            Some(entry) => format!("rename `{}` to `{key}`", entry.key.text),
            None => format!("add `{key}: ...`"),
        });
        self.reader.report(fault);
    }

    /// Reports that two values do not go together.
    pub(crate) fn contradiction(&mut self, key: &str, place: Span, allowed: &str) {
        let whereabouts = self.reader.under(key, place, |reader| reader.whereabouts());
        let message = format!("{whereabouts} must be {allowed}");
        self.reader.report(Diagnostic::new(Code::Contradiction, place, message));
    }

    /// Reports that a key has no place here.
    pub(crate) fn misplaced(&mut self, key: &'static str, help: &str) {
        if let Some(entry) = self.entry(key) {
            let message = format!("{} does not take `{key}` here", self.reader.whereabouts());
            self.reader.report(Diagnostic::new(Code::Contradiction, entry.key.span, message).help(help));
        }
    }

    /// The keys that were asked for, for a map whose other keys are read elsewhere; in place of [`Fields::finish`].
    pub(crate) fn asked(self) -> Vec<&'static str> {
        self.asked
    }

    /// Reports the keys nobody asked for.
    pub(crate) fn finish(self) {
        let Fields { entries, reader, asked } = self;
        for entry in entries.iter().filter(|entry| !asked.contains(&entry.key.text.as_str())) {
            let key = &entry.key.text;
            let free = asked.iter().copied().filter(|known| entries.iter().all(|entry| entry.key.text != *known));
            let message = format!("{} has no key `{key}`", reader.whereabouts());
            let help = did_you_mean(key, free).unwrap_or_else(|| match asked.as_slice() {
                [] => "it has no keys at all".to_owned(),
                _ => format!("its keys are {}", asked.join(", ")),
            });
            reader.report(Diagnostic::new(Code::UnknownKey, entry.key.span, message).help(help));
        }
    }

    /// One path or glob, or a list of them.
    pub(crate) fn patterns(&mut self, key: &'static str) -> Option<Located<Vec<String>>> {
        self.required_with(key, read_patterns)
    }

    /// As [`Fields::patterns`], for a key that may be left out.
    pub(crate) fn optional_patterns(&mut self, key: &'static str) -> Option<Located<Vec<String>>> {
        let entry = self.entry(key).filter(|entry| !matches!(entry.value.value, Value::Null))?;
        self.read(entry, read_patterns)
    }
}

fn read_patterns(node: &Node, reader: &mut Reader<'_>) -> Option<Vec<String>> {
    match &node.value {
        Value::Str(_) => Some(vec![String::read(node, reader)?]),
        Value::List(items) if items.is_empty() => reader.out_of_range(node, "at least one path"),
        Value::List(_) => Vec::read(node, reader),
        _ => reader.wrong_type(node, "a text or a list of texts: paths or globs"),
    }
}

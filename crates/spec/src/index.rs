//! Which stages and models a document names, before any of them is read.
//! Owns the rules for names; refuses to know parameters.

use std::collections::HashMap;

use crate::diagnostic::{Code, Diagnostic};
use crate::names::{ModelName, StageName};
use crate::span::Span;
use crate::stage::KindName;
use crate::suggest::fold;
use crate::tree::{Entry, Key, Value};

/// The names of a document.
#[derive(Debug, Default)]
pub(crate) struct Index {
    stages: Vec<StageEntry>,
    models: Vec<ModelEntry>,
    stage_by_name: HashMap<String, usize>,
    model_by_name: HashMap<String, usize>,
}

#[derive(Debug)]
pub(crate) struct StageEntry {
    pub name: StageName,
    pub span: Span,
    /// `None` when the stage does not say one kind; that is reported where it is read.
    pub kind: Option<KindName>,
}

#[derive(Debug)]
pub(crate) struct ModelEntry {
    pub name: ModelName,
    pub span: Span,
}

impl Index {
    /// Collects names, and reports those that are badly formed or spelt in two ways.
    pub(crate) fn of(models: &[Entry], stages: &[Entry], faults: &mut Vec<Diagnostic>) -> Index {
        let mut index = Index::default();
        let mut folded: HashMap<String, &Key> = HashMap::new();
        for entry in models {
            check_name(&entry.key, "model", &mut folded, faults);
            index.model_by_name.insert(entry.key.text.clone(), index.models.len());
            index.models.push(ModelEntry { name: ModelName::new(&entry.key.text), span: entry.key.span });
        }
        for entry in stages {
            check_name(&entry.key, "stage", &mut folded, faults);
            index.stage_by_name.insert(entry.key.text.clone(), index.stages.len());
            index.stages.push(StageEntry {
                name: StageName::new(&entry.key.text),
                span: entry.key.span,
                kind: kind_of(entry),
            });
        }
        index
    }

    pub(crate) fn stage(&self, name: &str) -> Option<&StageEntry> {
        self.stage_by_name.get(name).map(|&at| &self.stages[at])
    }

    pub(crate) fn model(&self, name: &str) -> Option<&ModelEntry> {
        self.model_by_name.get(name).map(|&at| &self.models[at])
    }

    pub(crate) fn stages(&self) -> impl Iterator<Item = &StageEntry> {
        self.stages.iter()
    }

    pub(crate) fn models(&self) -> impl Iterator<Item = &ModelEntry> {
        self.models.iter()
    }
}

fn kind_of(entry: &Entry) -> Option<KindName> {
    let Value::Map(kinds) = &entry.value.value else { return None };
    let mut named =
        kinds.iter().filter_map(|kind| KindName::ALL.into_iter().find(|known| known.name() == kind.key.text));
    named.next()
}

/// Stages and models share one namespace, so that a name means one thing wherever it stands.
fn check_name<'k>(key: &'k Key, what: &str, folded: &mut HashMap<String, &'k Key>, faults: &mut Vec<Diagnostic>) {
    let name = &key.text;
    if let Some(first) = folded.get(&fold(name)) {
        let message = if first.text == *name {
            format!("`{name}` names two things")
        } else {
            format!("`{}` and `{name}` are two spellings of one name", first.text)
        };
        let fault = Diagnostic::new(Code::SpeltTwice, key.span, message);
        faults.push(fault.related(first.span, "first").help("rename one of them"));
        return;
    }
    folded.insert(fold(name), key);
    let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase());
    if !starts_well || name.chars().any(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')) {
        let message = format!("`{name}` cannot be the name of a {what}");
        let fault = Diagnostic::new(Code::BadName, key.span, message);
        let suggestion = plain_name(name);
        faults.push(fault.help(match suggestion.is_empty() {
            true => "a name starts with a lower-case letter; letters, digits and `_` may follow".to_owned(),
            false => format!("write `{suggestion}`: names are lower case, because they are tables in SQL"),
        }));
    }
}

fn plain_name(name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|c| if matches!(c, '-' | ' ' | '.') { '_' } else { c.to_ascii_lowercase() })
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '_')
        .collect();
    plain.trim_start_matches(|c: char| !c.is_ascii_lowercase()).to_owned()
}

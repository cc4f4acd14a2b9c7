//! `limits: { prompts: 32 }`: `ingest` stages that take only so many prompts, for a run that is only a try.
//!
//! Owns the section. A limit becomes the parameter `limit` of the stage, unless that is tighter; so it is in the key of
//! the stage, and nothing else knows of it. The name `*` stands for every `ingest` stage, and is what `--limit` sets.

use std::collections::HashMap;

use crate::diagnostic::{Code, Diagnostic};
use crate::index::Index;
use crate::names::StageName;
use crate::number::Count;
use crate::reader::{Read, Reader};
use crate::span::{Located, Span};
use crate::stage::{Kind, KindName, Stage};
use crate::suggest::did_you_mean;
use crate::tree::{Entry, Node, Value};

/// Stands for every stage.
const ALL: &str = "*";

/// A limit that is on.
#[derive(Debug, Clone, PartialEq)]
pub struct Limit {
    pub stage: StageName,
    /// Prompts of each split.
    pub count: Count,
    /// Where it is written.
    pub place: Span,
}

/// What the section says.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    by_stage: HashMap<String, (Count, Span)>,
    of_all: Option<(Count, Span)>,
}

impl Limits {
    pub(crate) fn read(node: &Node, index: &Index, faults: &mut Vec<Diagnostic>) -> Limits {
        let mut limits = Limits::default();
        let Some(entries) = node.entries() else {
            if !matches!(node.value, Value::Broken) {
                let message = format!("`limits` must be a map, not {}", node.describe());
                faults.push(Diagnostic::new(Code::WrongType, node.span, message));
            }
            return limits;
        };
        for Entry { key, value } in entries {
            let is_known = key.text == ALL || is_ingest(&key.text, key.span, index, faults);
            let mut reader = Reader::new(index, faults, "", key.span);
            let count = reader.under("limits", key.span, |reader| {
                reader.under(&key.text, key.span, |reader| Option::<Count>::read(value, reader))
            });
            match count.flatten().filter(|_| is_known) {
                Some(count) if key.text == ALL => limits.of_all = Some((count, value.span)),
                Some(count) => drop(limits.by_stage.insert(key.text.clone(), (count, value.span))),
                None => {}
            }
        }
        limits
    }

    /// Puts the limits into the stages, and gives those that are tighter than what the stages have of their own.
    pub(crate) fn apply(&self, stages: &mut [Stage]) -> Vec<Limit> {
        let mut on = Vec::new();
        for stage in stages {
            let of_stage = self.by_stage.get(stage.base().as_str());
            let Some(&(count, place)) = of_stage.into_iter().chain(&self.of_all).min_by_key(|(count, _)| *count) else {
                continue;
            };
            if let Kind::Ingest(params) = &mut stage.kind
                && params.limit.is_none_or(|own| own > count)
            {
                params.limit = Located::at(Some(count), place);
                on.push(Limit { stage: stage.name.clone(), count, place });
            }
        }
        on
    }
}

fn is_ingest(name: &str, place: Span, index: &Index, faults: &mut Vec<Diagnostic>) -> bool {
    let kind = index.stage(name).map(|stage| stage.kind);
    let of_kind = || index.stages().filter(|stage| stage.kind == Some(KindName::Ingest));
    let known: Vec<&str> = of_kind().map(|stage| stage.name.as_str()).collect();
    let (code, message) = match kind {
        // A stage whose kind cannot be told has its fault reported where it stands.
        Some(Some(KindName::Ingest) | None) => return true,
        Some(Some(other)) => {
            (Code::Contradiction, format!("`limits` names `{name}`, which is of kind `{}`", other.name()))
        }
        None => (Code::UnknownName, format!("`limits` names `{name}`, which is no stage")),
    };
    let mut fault = Diagnostic::new(code, place, message);
    fault.help = did_you_mean(name, known.iter().copied()).or_else(|| match known.as_slice() {
        [] => None,
        _ => Some(format!("a limit is on a stage of kind `ingest`: {}", known.join(", "))),
    });
    faults.push(fault);
    false
}

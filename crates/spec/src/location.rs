//! Where a model is kept: a folder, or `hf://owner/name@revision`.
//! Owns the syntax; refuses to look whether anything is there.

use crate::pipeline::Location;
use crate::reader::{Read, Reader};
use crate::tree::{Node, Value};

const SYNTAX: &str = "`hf://owner/name` or `hf://owner/name@revision`";

impl Read for Location {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let Value::Str(_) = node.value else {
            return reader.wrong_type(node, "a text: a folder or `hf://owner/name@revision`");
        };
        let text = String::read(node, reader)?;
        match text.split_once("://") {
            None => Some(Location::Folder(text)),
            Some(("hf", path)) => hugging_face(path).or_else(|| reader.out_of_range(node, SYNTAX)),
            Some(_) => reader.out_of_range(node, &format!("a folder or {SYNTAX}")),
        }
    }
}

fn hugging_face(path: &str) -> Option<Location> {
    let (path, revision) = match path.split_once('@') {
        Some((path, revision)) => (path, Some(revision)),
        None => (path, None),
    };
    let (owner, name) = path.split_once('/')?;
    let is_plain = |part: &str| {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "_-.".contains(c));
        !part.is_empty() && rest.is_empty() && part != ".."
    };
    let revision_is_plain = revision.is_none_or(|revision| revision.split('/').all(is_plain));
    (is_plain(owner) && is_plain(name) && revision_is_plain).then(|| Location::HuggingFace {
        owner: owner.to_owned(),
        name: name.to_owned(),
        revision: revision.map(str::to_owned),
    })
}

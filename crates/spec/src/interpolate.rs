//! `${params.x}` and `${profile.x}`: references from any value to the parameters and the profile in use; and
//! `${env:NAME}` and `${file:PATH}`, which stand for secrets and stay references.
//! Owns lookup and text insertion; refuses to know where a value is used. `${matrix.x}` is left open here: it has another
//! value in each cell, and `matrix` fills it.
//!
//! A reference that is the whole value keeps the type, even of a map; inside a longer text it is spelt out.
//! `$${` stands for a literal `${`. A resolved value keeps the place where it was defined.

use crate::diagnostic::{Code, Diagnostic};
use crate::secret::{EXAMPLE, SecretRef};
use crate::span::Span;
use crate::suggest::did_you_mean;
use crate::tree::{Entry, Node, Part, Value};

/// What references can name.
pub(crate) struct Scope<'a> {
    pub params: &'a Node,
    pub profile: &'a Node,
}

/// A copy of `node` with every reference replaced; what cannot be resolved is reported and broken.
pub(crate) fn resolve(node: &Node, scope: &Scope<'_>, faults: &mut Vec<Diagnostic>) -> Node {
    Resolver { scope, faults, open: Vec::new() }.node(node)
}

struct Resolver<'a, 'f> {
    scope: &'a Scope<'a>,
    faults: &'f mut Vec<Diagnostic>,
    /// The references being followed, outermost first.
    open: Vec<String>,
}

/// A piece of a text with references in it.
enum Piece<'t> {
    Text(&'t str),
    Reference(&'t str),
    Unclosed,
}

impl Resolver<'_, '_> {
    fn node(&mut self, node: &Node) -> Node {
        let value = match &node.value {
            Value::Str(text) if text.contains("${") => return self.text(text, node.span),
            Value::List(items) => Value::List(items.iter().map(|item| self.node(item)).collect()),
            Value::Map(entries) => Value::Map(entries.iter().map(|entry| self.entry(entry)).collect()),
            other => other.clone(),
        };
        Node { value, span: node.span }
    }

    fn entry(&mut self, entry: &Entry) -> Entry {
        Entry { key: entry.key.clone(), value: self.node(&entry.value) }
    }

    fn text(&mut self, text: &str, span: Span) -> Node {
        let pieces = pieces(text);
        if let [Piece::Reference(path)] = pieces.as_slice() {
            return self.reference(path, span).unwrap_or(Node::broken(span));
        }
        let mut filled = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Text(literal) => filled.push(Part::Text(literal.to_owned())),
                Piece::Reference(path) => {
                    let Some(node) = self.reference(path, span) else { return Node::broken(span) };
                    match spelt(path, &node, span) {
                        Ok(parts) => filled.extend(parts),
                        Err(fault) => {
                            self.faults.extend(fault);
                            return Node::broken(span);
                        }
                    }
                }
                Piece::Unclosed => {
                    let fault = Diagnostic::new(Code::Reference, span, "`${` is never closed");
                    self.faults.push(fault.help("write `${params.NAME}`, or `$${` for the two characters themselves"));
                    return Node::broken(span);
                }
            }
        }
        Node { value: closed(filled), span }
    }

    /// The value a reference stands for; one to a matrix stays open.
    fn reference(&mut self, path: &str, span: Span) -> Option<Node> {
        let mut keys = path.trim().split('.');
        if keys.next() != Some("matrix") {
            return self.lookup(path, span);
        }
        let keys: Vec<String> = keys.map(str::to_owned).collect();
        if keys.is_empty() || keys.iter().any(String::is_empty) {
            let fault = Diagnostic::new(Code::Reference, span, format!("`${{{path}}}` names no axis"));
            self.faults.push(fault.help("write `${matrix.NAME}`"));
            return None;
        }
        Some(Node { value: Value::Open(vec![Part::Axis(keys)]), span })
    }

    /// The value a reference names, itself resolved.
    fn lookup(&mut self, path: &str, span: Span) -> Option<Node> {
        let path = path.trim();
        if let Some(secret) = SecretRef::parse(path) {
            return match secret {
                Ok(secret) => Some(Node { value: Value::Secret(secret), span }),
                Err(message) => {
                    self.faults.push(Diagnostic::new(Code::Reference, span, message));
                    None
                }
            };
        }
        if self.open.iter().any(|open| open == path) {
            let chain = self.open.iter().map(String::as_str).chain([path]);
            let chain = chain.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" → ");
            let message = format!("the reference goes round in a circle: {chain}");
            self.faults.push(Diagnostic::new(Code::Reference, span, message));
            return None;
        }
        let (root, rest) = path.split_once('.').unwrap_or((path, ""));
        let mut node = match root {
            "params" => self.scope.params,
            "profile" => self.scope.profile,
            _ => {
                let message = format!("`${{{path}}}` names none of `params`, `profile` and `matrix`");
                let help = did_you_mean(root, ["params", "profile", "matrix"]).unwrap_or_else(|| match root {
                    "env" | "file" => format!("write `${{{root}:NAME}}`, for a secret such as `{EXAMPLE}`"),
                    _ => "write `${params.NAME}`, `${profile.NAME}` or `${matrix.NAME}`".to_owned(),
                });
                self.faults.push(Diagnostic::new(Code::Reference, span, message).help(help));
                return None;
            }
        };
        let mut walked = root.to_owned();
        for key in rest.split('.').filter(|_| !rest.is_empty()) {
            match node.get(key) {
                Some(next) => node = next,
                None => return self.unknown(path, &walked, key, node, span),
            }
            walked = format!("{walked}.{key}");
        }
        self.open.push(path.to_owned());
        let resolved = self.node(node);
        self.open.pop();
        Some(resolved)
    }

    fn unknown(&mut self, path: &str, parent: &str, key: &str, node: &Node, span: Span) -> Option<Node> {
        if matches!(node.value, Value::Broken) {
            return None;
        }
        let keys: Vec<&str> = node.entries().unwrap_or(&[]).iter().map(|entry| entry.key.text.as_str()).collect();
        let message = format!("`${{{path}}}`: `{parent}` has no `{key}`");
        let mut fault = Diagnostic::new(Code::Reference, span, message);
        fault.help = did_you_mean(key, keys.iter().copied())
            .or_else(|| (!keys.is_empty()).then(|| format!("`{parent}` has {}", keys.join(", "))));
        self.faults.push(fault);
        None
    }
}

/// A value as it stands inside a text; no fault is given for one that is reported already.
pub(crate) fn spelt(path: &str, node: &Node, span: Span) -> Result<Vec<Part>, Option<Diagnostic>> {
    match &node.value {
        Value::Str(text) => Ok(vec![Part::Text(text.clone())]),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) => Ok(vec![Part::Text(node.describe())]),
        Value::Open(parts) => Ok(parts.clone()),
        Value::Broken => Err(None),
        Value::Secret(secret) => {
            let message = format!("`{secret}` cannot stand inside a text: a secret is read whole, as by `{EXAMPLE}`");
            Err(Some(Diagnostic::new(Code::Reference, span, message)))
        }
        Value::Null | Value::List(_) | Value::Map(_) => {
            let message = format!("`${{{path}}}` is {}, which cannot stand inside a text", node.describe());
            Err(Some(Diagnostic::new(Code::Reference, span, message)))
        }
    }
}

/// The parts as a text, if nothing is open in them.
pub(crate) fn closed(parts: Vec<Part>) -> Value {
    let mut text = String::new();
    for part in &parts {
        match part {
            Part::Text(piece) => text.push_str(piece),
            Part::Axis(_) => return Value::Open(parts),
        }
    }
    Value::Str(text)
}

/// Cuts a text at its references.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if let Some(literal) = rest[..at].strip_suffix('$') {
            pieces.extend([Piece::Text(literal), Piece::Text("${")]);
            rest = &rest[at + 2..];
            continue;
        }
        if at > 0 {
            pieces.push(Piece::Text(&rest[..at]));
        }
        let Some(end) = rest[at..].find('}') else {
            pieces.push(Piece::Unclosed);
            return pieces;
        };
        pieces.push(Piece::Reference(&rest[at + 2..at + end]));
        rest = &rest[at + end + 1..];
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    pieces
}

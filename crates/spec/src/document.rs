//! The parts of a pipeline file, put together: profile, overrides, references, names, stages.
//! Owns the order in which these are settled; refuses to know the parameters of a kind.

use crate::circle;
use crate::diagnostic::{Code, Diagnostic, Diagnostics};
use crate::dtype::Dtype;
use crate::index::Index;
use crate::interpolate::{Scope, resolve};
use crate::limits::Limits;
use crate::names::{ModelName, ProfileName};
use crate::overrides::Override;
use crate::pipeline::{Location, Model, Pipeline};
use crate::reader::{Fields, Read, Reader};
use crate::secret::SecretRef;
use crate::span::{Located, SourceId, Sources, Span};
use crate::suggest::did_you_mean;
use crate::tree::{Entry, Key, Node, Value};
use crate::{Options, matrix, yaml};

/// The only version of the file format there is.
const VERSION: i64 = 1;
const SECTIONS: [&str; 7] = ["version", "params", "profiles", "dtype", "models", "stages", "limits"];

pub(crate) fn read(name: &str, text: &str, options: &Options) -> Result<Pipeline, Diagnostics> {
    let Options { profile, set } = options;
    let mut sources = Sources::new(name, text, set);
    let mut faults = Vec::new();
    let pipeline = match yaml::parse(text, SourceId::FILE, &mut faults) {
        Some(root) => assemble(root, profile.as_deref(), set, &sources, &mut faults),
        None => None,
    };
    match pipeline {
        Some(pipeline) if faults.is_empty() => Ok(pipeline),
        _ => {
            faults.iter().filter(|fault| fault.code == Code::Secret).for_each(|fault| sources.mask(fault.place));
            Err(Diagnostics::new(sources, faults))
        }
    }
}

fn assemble(
    root: Node,
    profile: Option<&str>,
    set: &[String],
    sources: &Sources,
    faults: &mut Vec<Diagnostic>,
) -> Option<Pipeline> {
    let mut sections = Sections::of(root, faults)?;
    let overrides = Overrides::sorted(set, faults);
    let chosen = sections.choose_profile(profile, faults);
    for change in overrides.profiles {
        sections.set_in_profile(change, chosen.as_deref(), faults);
    }
    let profile_node = sections.profile(chosen.as_deref(), faults);
    let mut params = sections.params_under(&profile_node, faults);
    for change in overrides.params {
        set_known("params", &mut params, change, faults);
    }
    let scope = Scope { params: &params, profile: &profile_node };
    // Both are resolved whole, so that a bad reference in them shows even where nothing reads it.
    resolve(&params, &scope, faults);
    resolve(&profile_node, &scope, faults);

    let mut body = Node {
        value: Value::Map(vec![
            section_entry("models", resolve(&sections.models, &scope, faults)),
            section_entry("stages", resolve(&sections.stages, &scope, faults)),
            section_entry("limits", resolve(&sections.limits, &scope, faults)),
        ]),
        span: Span::START,
    };
    for mut change in overrides.body {
        change.value = resolve(&change.value, &scope, faults);
        // A limit can be set on a stage that has none yet.
        let n_known = if change.root() == "limits" { 1 } else { 2 };
        change.apply(&mut body, n_known, faults);
    }
    let models = section(&body, "models", faults);
    let stages = section(&body, "stages", faults);
    let index = Index::of(models, stages, faults);
    let models = models.iter().filter_map(|entry| read_model(entry, &index, faults)).collect();
    let mut stages = matrix::read_stages(stages, &index, faults);
    let limits = body.get("limits").map(|limits| Limits::read(limits, &index, faults)).unwrap_or_default();
    let limits = limits.apply(&mut stages);
    circle::report(&stages, faults);
    let profile = chosen.as_deref().map(ProfileName::new);
    let dtype = read_dtype(&resolve(&sections.dtype, &scope, faults), &index, faults);
    Some(Pipeline::new(sources.clone(), profile, dtype, models, stages, limits))
}

/// The top-level values of a file; a missing one is null.
struct Sections {
    params: Node,
    profiles: Node,
    dtype: Node,
    models: Node,
    stages: Node,
    limits: Node,
}

impl Sections {
    fn of(root: Node, faults: &mut Vec<Diagnostic>) -> Option<Sections> {
        let Some(entries) = root.entries() else {
            let message = format!("a pipeline file is a map with the keys {}", SECTIONS.join(", "));
            faults.push(Diagnostic::new(Code::WrongType, root.span, message));
            return None;
        };
        let head = Span { len: 0, ..Span::START };
        let mut known: Vec<&Entry> = Vec::new();
        for entry in entries {
            let key = &entry.key;
            if SECTIONS.contains(&key.text.as_str()) {
                known.push(entry);
                continue;
            }
            let absent = SECTIONS.into_iter().filter(|section| root.get(section).is_none());
            let help =
                did_you_mean(&key.text, absent).unwrap_or_else(|| format!("its keys are {}", SECTIONS.join(", ")));
            let message = format!("a pipeline file has no key `{}`", key.text);
            faults.push(Diagnostic::new(Code::UnknownKey, key.span, message).help(help));
        }
        check_version(root.get("version"), head, faults);
        match known.iter().find(|entry| entry.key.text == "stages") {
            None => {
                let fault = Diagnostic::new(Code::MissingKey, head, "the file lacks `stages`");
                faults.push(fault.help("add `stages:` with a stage under it"));
            }
            Some(Entry { key, value }) if value.entries().is_some_and(<[Entry]>::is_empty) => {
                let fault = Diagnostic::new(Code::MissingKey, key.span, "`stages` is empty");
                faults.push(fault.help("put a stage under it"));
            }
            Some(_) => {}
        }
        let take = |name: &str| {
            let found = known.iter().find(|entry| entry.key.text == name);
            found.map_or(Node { value: Value::Null, span: head }, |entry| entry.value.clone())
        };
        Some(Sections {
            params: take("params"),
            profiles: take("profiles"),
            dtype: take("dtype"),
            models: take("models"),
            stages: take("stages"),
            limits: take("limits"),
        })
    }

    /// The name of the profile in use: the one asked for, or else the first.
    fn choose_profile(&self, asked: Option<&str>, faults: &mut Vec<Diagnostic>) -> Option<String> {
        let names: Vec<&str> =
            self.profiles.entries().unwrap_or(&[]).iter().map(|entry| entry.key.text.as_str()).collect();
        let first = names.first().map(|name| (*name).to_owned());
        match asked {
            None => first,
            Some(asked) if names.contains(&asked) => Some(asked.to_owned()),
            Some(asked) => {
                let place = match self.profiles.entries() {
                    Some([first, ..]) => first.key.span,
                    _ => Span::START,
                };
                let message = format!("there is no profile `{asked}`");
                let help = did_you_mean(asked, names.iter().copied()).unwrap_or_else(|| match names.as_slice() {
                    [] => "the file has no profiles".to_owned(),
                    names => format!("the profiles are {}", names.join(", ")),
                });
                faults.push(Diagnostic::new(Code::Profile, place, message).help(help));
                first
            }
        }
    }

    /// Applies an override of a profile; `profile` is the one in use.
    fn set_in_profile(&mut self, mut change: Override, chosen: Option<&str>, faults: &mut Vec<Diagnostic>) {
        if change.root() == "profile" {
            let Some(chosen) = chosen else {
                let fault = Diagnostic::new(Code::Override, change.place, "the file has no profiles to set");
                faults.push(fault);
                return;
            };
            if let Some(root) = change.path.first_mut() {
                root.text = "profiles".to_owned();
                let span = root.span;
                change.path.insert(1, Key { text: chosen.to_owned(), span });
            }
        }
        set_known("profiles", &mut self.profiles, change, faults);
    }

    /// The values of the profile in use.
    fn profile(&self, chosen: Option<&str>, faults: &mut Vec<Diagnostic>) -> Node {
        let Some(entries) = self.profiles.entries() else {
            if !matches!(self.profiles.value, Value::Broken) {
                let message = format!("`profiles` must be a map, not {}", self.profiles.describe());
                faults.push(Diagnostic::new(Code::WrongType, self.profiles.span, message));
            }
            return Node::broken(self.profiles.span);
        };
        for entry in entries.iter().filter(|entry| entry.value.entries().is_none()) {
            let message = format!("profile `{}` must be a map, not {}", entry.key.text, entry.value.describe());
            faults.push(Diagnostic::new(Code::WrongType, entry.value.span, message));
        }
        let found = chosen.and_then(|chosen| self.profiles.get(chosen));
        match found {
            Some(node) if node.entries().is_some() => node.clone(),
            Some(node) => Node::broken(node.span),
            None => Node::empty_map(self.profiles.span),
        }
    }

    /// The parameters, with those that the profile gives under its own `params` in place of the file's.
    fn params_under(&self, profile: &Node, faults: &mut Vec<Diagnostic>) -> Node {
        let mut params = match &self.params.value {
            Value::Null => Node::empty_map(self.params.span),
            Value::Map(_) => self.params.clone(),
            _ => {
                let message = format!("`params` must be a map, not {}", self.params.describe());
                faults.push(Diagnostic::new(Code::WrongType, self.params.span, message));
                return Node::broken(self.params.span);
            }
        };
        let Value::Map(entries) = &mut params.value else { return params };
        for own in profile.get("params").and_then(Node::entries).unwrap_or(&[]) {
            match entries.iter_mut().find(|entry| entry.key.text == own.key.text) {
                Some(entry) => entry.value = own.value.clone(),
                None => {
                    let known = entries.iter().map(|entry| entry.key.text.as_str());
                    let message = format!("the profile gives `{}`, which `params` does not have", own.key.text);
                    let mut fault = Diagnostic::new(Code::UnknownName, own.key.span, message);
                    fault.help = did_you_mean(&own.key.text, known);
                    faults.push(fault);
                }
            }
        }
        params
    }
}

fn check_version(version: Option<&Node>, head: Span, faults: &mut Vec<Diagnostic>) {
    let help = format!("write `version: {VERSION}` as the first line");
    match version.map(|node| (&node.value, node)) {
        Some((Value::Int(VERSION) | Value::Broken, _)) => {}
        Some((_, node)) => {
            let message = format!("this program reads version {VERSION} of the format, not {}", node.describe());
            faults.push(Diagnostic::new(Code::Version, node.span, message).help(help));
        }
        None => faults.push(Diagnostic::new(Code::MissingKey, head, "the file lacks `version`").help(help)),
    }
}

/// The overrides by when they are applied: those of profiles and parameters before references are followed.
#[derive(Default)]
struct Overrides {
    profiles: Vec<Override>,
    params: Vec<Override>,
    /// Of models, stages and limits.
    body: Vec<Override>,
}

impl Overrides {
    fn sorted(set: &[String], faults: &mut Vec<Diagnostic>) -> Overrides {
        let mut sorted = Overrides::default();
        for (index, text) in set.iter().enumerate() {
            let Some(change) = Override::parse(index, text, faults) else { continue };
            match (change.root(), change.path.len()) {
                ("profile" | "profiles", 2..) => sorted.profiles.push(change),
                ("params", 2..) => sorted.params.push(change),
                ("models" | "stages" | "limits", 2..) => sorted.body.push(change),
                (root, _) => faults.push(refused(root, change.place)),
            }
        }
        sorted
    }
}

fn refused(root: &str, place: Span) -> Diagnostic {
    const ROOTS: [&str; 6] = ["params", "profile", "profiles", "models", "stages", "limits"];
    let help = match ROOTS.contains(&root) {
        true => format!("say what in it: `--set {root}.NAME=VALUE`"),
        false => did_you_mean(root, ROOTS).unwrap_or_else(|| format!("a path starts with {}", ROOTS.join(", "))),
    };
    Diagnostic::new(Code::Override, place, format!("`--set` cannot set `{root}`")).help(help)
}

/// Applies an override below the section `name`, where everything it names must be there already.
fn set_known(name: &str, section: &mut Node, change: Override, faults: &mut Vec<Diagnostic>) {
    let inner = std::mem::replace(section, Node::broken(Span::START));
    let mut root = Node { value: Value::Map(vec![section_entry(name, inner)]), span: Span::START };
    let n_known = change.path.len();
    change.apply(&mut root, n_known, faults);
    if let Value::Map(entries) = root.value {
        *section = entries.into_iter().next().map_or(Node::broken(Span::START), |entry| entry.value);
    }
}

fn section_entry(name: &str, value: Node) -> Entry {
    Entry { key: Key { text: name.to_owned(), span: value.span }, value }
}

fn section<'n>(body: &'n Node, name: &str, faults: &mut Vec<Diagnostic>) -> &'n [Entry] {
    let Some(node) = body.get(name) else { return &[] };
    node.entries().unwrap_or_else(|| {
        if !matches!(node.value, Value::Broken) {
            let message = format!("`{name}` must be a map, not {}", node.describe());
            faults.push(Diagnostic::new(Code::WrongType, node.span, message));
        }
        &[]
    })
}

/// The precision of the whole pipeline; the default where the file does not say.
fn read_dtype(node: &Node, index: &Index, faults: &mut Vec<Diagnostic>) -> Dtype {
    if matches!(node.value, Value::Null) {
        return Dtype::Auto;
    }
    let mut reader = Reader::new(index, faults, "", node.span);
    reader.under("dtype", node.span, |reader| Dtype::read(node, reader)).unwrap_or(Dtype::Auto)
}

fn read_model(entry: &Entry, index: &Index, faults: &mut Vec<Diagnostic>) -> Option<Model> {
    let subject = format!("model `{}`", entry.key.text);
    let mut reader = Reader::new(index, faults, &subject, entry.key.span);
    let name = ModelName::new(&entry.key.text);
    match &entry.value.value {
        Value::Map(_) => {
            let mut fields = Fields::open(&entry.value, &mut reader)?;
            let from = fields.required::<Location>("from");
            let token: Located<Option<SecretRef>> = fields.optional("token");
            if let (Some(Location::Folder(_)), Some(place)) = (from.as_ref().map(|from| &from.value), token.place) {
                fields.contradiction("token", place, "left out for a folder: it is sent to a hub, for `hf://...`");
            }
            fields.finish();
            let from = from?;
            let token = token.value.map(|secret| Located { value: secret, place: token.place });
            Some(Model { name, location: from.value, token, place: from.place.unwrap_or(entry.value.span) })
        }
        _ => {
            let location = Location::read(&entry.value, &mut reader)?;
            Some(Model { name, location, token: None, place: entry.value.span })
        }
    }
}

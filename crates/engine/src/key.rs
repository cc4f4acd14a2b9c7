//! The key of a stage: one walk over everything that decides its output gives the leaves, and the leaves, as
//! they are stored and shown, are what is hashed. So an explanation cannot drift from the key. It refuses to
//! know where digests come from.

use sluice_spec::stage::test;
use sluice_spec::{KindName, LeafSink, Sources, Span, Stage, Test};
use sluice_store::{Leaf, LeafValue, StageKey};

/// Version of the derivation itself. Raising it makes every stage run again.
pub const KEY_SCHEMA: i64 = 1;

/// The family of arithmetic a model stage runs in, e.g. `cpu-f32`, `cuda-bf16`. Two families give different
/// digits, so it is in the key of model stages; the machine and the driver are not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numerics(String);

impl Numerics {
    /// The family of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether stages of a kind run a model: they share the accelerator, and their keys have the numerics.
pub(crate) fn runs_a_model(kind: KindName) -> bool {
    match kind {
        KindName::Sample | KindName::Score | KindName::Train | KindName::Evaluate => true,
        KindName::Ingest | KindName::Pair | KindName::Sql => false,
    }
}

/// The content of one input, as the key sees it.
#[derive(Debug, Clone)]
pub(crate) struct InputDigest {
    pub role: String,
    pub hex: String,
    pub place: Option<Span>,
}

/// Everything that enters a stage's key, sorted by path.
pub(crate) fn leaves(stage: &Stage, sources: &Sources, numerics: &Numerics, inputs: &[InputDigest]) -> Vec<Leaf> {
    let mut leaves = own_leaves(stage, sources, numerics);
    leaves.extend(inputs.iter().map(|input| Leaf {
        path: format!("{INPUT}{}", input.role),
        value: LeafValue::Digest(input.hex.clone()),
        place: place_text(sources, input.place),
    }));
    sort(&mut leaves);
    leaves
}

/// Paths below this are inputs; all others are the stage's own.
pub(crate) const INPUT: &str = "input.";

/// The leaves that do not wait for an input.
pub(crate) fn own_leaves(stage: &Stage, sources: &Sources, numerics: &Numerics) -> Vec<Leaf> {
    let kind = stage.kind.name();
    let derived = |path: &str, value| Leaf { path: path.to_owned(), value, place: None };
    let mut walk = Walk { prefix: kind.name(), sources, leaves: Vec::new() };
    stage.kind.leaves(&mut walk);
    let mut leaves = walk.leaves;
    leaves.push(derived("engine.key_schema", LeafValue::Int(KEY_SCHEMA)));
    leaves.push(derived("engine.kind", LeafValue::Text(kind.name().to_owned())));
    leaves.push(derived("engine.stage_version", LeafValue::Int(i64::from(stage.kind.version()))));
    if runs_a_model(kind) {
        leaves.push(derived("engine.numerics", LeafValue::Text(numerics.as_str().to_owned())));
    }
    sort(&mut leaves);
    leaves
}

/// Everything that enters the key of a test's outcome, sorted by path: the test, its code's version, the contents of the
/// tables it reads by their names in it, and the number it looks at.
pub(crate) fn test_leaves(
    test: &Test,
    sources: &Sources,
    tables: &[(String, String)],
    number: Option<f64>,
) -> Vec<Leaf> {
    let derived = |path: String, value| Leaf { path, value, place: None };
    let mut walk = Walk { prefix: TEST, sources, leaves: Vec::new() };
    test.leaves(&mut walk);
    let mut leaves = walk.leaves;
    leaves.push(derived("engine.key_schema".to_owned(), LeafValue::Int(KEY_SCHEMA)));
    leaves.push(derived("engine.kind".to_owned(), LeafValue::Text(TEST.to_owned())));
    leaves.push(derived("engine.stage_version".to_owned(), LeafValue::Int(i64::from(test::VERSION))));
    leaves.extend(tables.iter().map(|(name, hex)| derived(format!("{INPUT}{name}"), LeafValue::Digest(hex.clone()))));
    leaves.extend(number.map(|number| derived(format!("{INPUT}metric"), LeafValue::Float(number))));
    sort(&mut leaves);
    leaves
}

/// The kind of a record that is a test's outcome.
pub(crate) const TEST: &str = "test";

/// The key of some leaves, whatever their order. Places do not enter it.
///
/// BLAKE3 in derive-key mode over, for each leaf in path order: the length of the path and the path, a byte for
/// the type, and the value: integers and lengths as 64 bits little-endian, floats by their bits with -0 as 0.
pub fn derive_key(leaves: &[Leaf]) -> StageKey {
    let mut sorted: Vec<&Leaf> = leaves.iter().collect();
    sorted.sort_by(|left, right| left.path.cmp(&right.path));
    let mut hasher = blake3::Hasher::new_derive_key("sluice action v1");
    for leaf in sorted {
        write_text(&mut hasher, &leaf.path);
        write_value(&mut hasher, &leaf.value);
    }
    StageKey::from_bytes(*hasher.finalize().as_bytes())
}

fn write_value(hasher: &mut blake3::Hasher, value: &LeafValue) {
    match value {
        LeafValue::Null => {
            hasher.update(&[0]);
        }
        LeafValue::Bool(value) => {
            hasher.update(&[1, u8::from(*value)]);
        }
        LeafValue::Int(value) => {
            hasher.update(&[2]).update(&value.to_le_bytes());
        }
        LeafValue::Float(value) => {
            hasher.update(&[3]).update(&(value + 0.0).to_bits().to_le_bytes());
        }
        LeafValue::Text(text) => {
            hasher.update(&[4]);
            write_text(hasher, text);
        }
        LeafValue::Digest(hex) => {
            hasher.update(&[5]);
            write_text(hasher, hex);
        }
        LeafValue::List(values) => {
            hasher.update(&[6]).update(&(values.len() as u64).to_le_bytes());
            for value in values {
                write_value(hasher, value);
            }
        }
    }
}

fn write_text(hasher: &mut blake3::Hasher, text: &str) {
    hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
}

/// Takes the parameters of a stage and keeps them in the form they are stored in.
struct Walk<'a> {
    prefix: &'static str,
    sources: &'a Sources,
    leaves: Vec<Leaf>,
}

impl LeafSink for Walk<'_> {
    fn leaf(&mut self, path: &str, value: sluice_spec::LeafValue, place: Option<Span>) {
        self.leaves.push(Leaf {
            path: format!("{}.{path}", self.prefix),
            value: stored(value),
            place: place_text(self.sources, place),
        });
    }
}

fn stored(value: sluice_spec::LeafValue) -> LeafValue {
    match value {
        sluice_spec::LeafValue::Null => LeafValue::Null,
        sluice_spec::LeafValue::Bool(value) => LeafValue::Bool(value),
        sluice_spec::LeafValue::Int(value) => LeafValue::Int(value),
        sluice_spec::LeafValue::Float(value) => LeafValue::Float(value),
        sluice_spec::LeafValue::Str(text) => LeafValue::Text(text),
        sluice_spec::LeafValue::List(values) => LeafValue::List(values.into_iter().map(stored).collect()),
    }
}

fn place_text(sources: &Sources, place: Option<Span>) -> Option<String> {
    place.map(|span| sources.place(span).to_string())
}

fn sort(leaves: &mut [Leaf]) {
    leaves.sort_by(|left, right| left.path.cmp(&right.path));
}

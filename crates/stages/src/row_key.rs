//! The identity of a single row of `responses` or `scores`, and the seed a response is drawn from.
//!
//! Owns the encodings. They depend on what a row is made from and on nothing else of its table, so that neither the order
//! of rows nor their number changes one.

use blake3::Hasher;
use sluice_spec::stage::sample::{self, Decoding};
use sluice_spec::stage::score::{self, HeadDtype};
use sluice_spec::{LeafSink, LeafValue, Span};
use sluice_store::{ModelDigest, RowKey, RowScope};

use crate::Device;

/// Each changes when its encoding below does, so that old keys match nothing new.
const ANSWER_CONTEXT: &str = "sluice response row key v1";
const SCORE_CONTEXT: &str = "sluice score row key v1";
const SCOPE_CONTEXT: &str = "sluice row scope v1";
const SEED_CONTEXT: &str = "sluice response row seed v1";

/// The keys of responses: BLAKE3 over version of the kind, decoding parameters, policy, prompt text, sample index.
pub struct AnswerKeys {
    /// Has read all that the rows share.
    shared: Hasher,
}

/// The keys of scores: BLAKE3 over version of the kind, type of the head, reward model, prompt text, response text.
pub struct ScoreKeys {
    /// Has read all that the rows share.
    shared: Hasher,
}

impl AnswerKeys {
    pub fn new(decoding: &Decoding, policy: ModelDigest) -> Self {
        let mut encoding = Encoding(Hasher::new_derive_key(ANSWER_CONTEXT));
        encoding.0.update(&sample::VERSION.to_le_bytes());
        decoding.leaves(&mut encoding);
        encoding.0.update(policy.as_bytes());
        Self { shared: encoding.0 }
    }

    pub fn key(&self, prompt: &str, sample_index: u32) -> RowKey {
        let mut encoding = Encoding(self.shared.clone());
        encoding.text(prompt);
        encoding.0.update(&sample_index.to_le_bytes());
        RowKey::from_bytes(encoding.finish())
    }

    /// Where rows with these keys are kept.
    pub fn scope(&self, device: Device) -> RowScope {
        scope(&self.shared, device)
    }
}

impl ScoreKeys {
    pub fn new(head: HeadDtype, judge: ModelDigest) -> Self {
        let mut encoding = Encoding(Hasher::new_derive_key(SCORE_CONTEXT));
        encoding.0.update(&score::VERSION.to_le_bytes());
        encoding.text(head.name());
        encoding.0.update(judge.as_bytes());
        Self { shared: encoding.0 }
    }

    pub fn key(&self, prompt: &str, response: &str) -> RowKey {
        let mut encoding = Encoding(self.shared.clone());
        encoding.text(prompt);
        encoding.text(response);
        RowKey::from_bytes(encoding.finish())
    }

    /// Where rows with these keys are kept.
    pub fn scope(&self, device: Device) -> RowScope {
        scope(&self.shared, device)
    }
}

/// What rows share, and the arithmetic they were made in. The one is in the row's key, too; the other is not, since a
/// response's key is its name, and a name does not say where it was made.
fn scope(shared: &Hasher, device: Device) -> RowScope {
    let mut encoding = Encoding(Hasher::new_derive_key(SCOPE_CONTEXT));
    encoding.0.update(shared.finalize().as_bytes());
    encoding.text(device.numerics());
    RowScope::from_bytes(encoding.finish())
}

/// The seed of a row's random stream: the first 8 bytes, little endian, of BLAKE3 over seed, prompt id and sample index.
pub fn row_seed(seed: u64, prompt_id: &str, sample_index: u32) -> u64 {
    let mut encoding = Encoding(Hasher::new_derive_key(SEED_CONTEXT));
    encoding.0.update(&seed.to_le_bytes());
    encoding.text(prompt_id);
    encoding.0.update(&sample_index.to_le_bytes());
    let mut head = [0; 8];
    head.copy_from_slice(&encoding.finish()[..8]);
    u64::from_le_bytes(head)
}

/// Parts with their kind and length before them, so that no two rows have the same bytes.
struct Encoding(Hasher);

impl Encoding {
    fn finish(&self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }

    fn text(&mut self, text: &str) {
        self.0.update(&(text.len() as u64).to_le_bytes());
        self.0.update(text.as_bytes());
    }

    fn value(&mut self, value: &LeafValue) {
        match value {
            LeafValue::Null => drop(self.0.update(b"n")),
            LeafValue::Bool(value) => drop(self.0.update(b"b").update(&[u8::from(*value)])),
            LeafValue::Int(value) => drop(self.0.update(b"i").update(&value.to_le_bytes())),
            LeafValue::Float(value) => drop(self.0.update(b"f").update(&value.to_bits().to_le_bytes())),
            LeafValue::Str(text) => {
                self.0.update(b"s");
                self.text(text);
            }
            LeafValue::List(values) => {
                self.0.update(b"l").update(&(values.len() as u64).to_le_bytes());
                values.iter().for_each(|value| self.value(value));
            }
        }
    }
}

impl LeafSink for Encoding {
    fn leaf(&mut self, path: &str, value: LeafValue, _place: Option<Span>) {
        self.text(path);
        self.value(&value);
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use sluice_spec::{Kind, Options, parse};

    use super::*;

    /// Rows in the journals of all stores have these keys, and answers were drawn from these seeds: a change here needs a
    /// new context, and makes every row again.
    #[test]
    fn the_keys_of_known_rows_never_change() {
        let text = "version: 1\nmodels: { m: m }\nstages:\n  p: { ingest: { from: a.csv } }\n  \
                    r: { sample: { prompts: p, model: m, temperature: 0.8, top_k: 40, stop: ['</s>'], seed: 42 } }\n";
        let pipeline = parse("p.yaml", text, &Options::default()).expect("a pipeline");
        let Kind::Sample(params) = &pipeline.stages[1].kind else { panic!("a sample stage") };
        let model = ModelDigest::from_bytes([7; 32]);
        let answers = AnswerKeys::new(&params.decoding, model);
        let scores = ScoreKeys::new(HeadDtype::F32, model);
        let told = format!(
            "answer {}\nin {}\nscore {}\nin {}\nseed {}\n",
            answers.key("Two and two?", 3),
            answers.scope(Device::Cpu),
            scores.key("Two and two?", "Four."),
            scores.scope(Device::Cpu),
            row_seed(42, "Two and two?", 3),
        );
        expect![[r#"
            answer 3d82766d2bab9d0b01cae544a0d516f10defd1e3198b014bd346c4bffeea1650
            in ab31ccff10872018b2afbd9ad56612afc1be1d04faadd133abc2c5fab6c100fb
            score 4f9bd53657d6b42f29822501c3fe47267ae38ef9473acaefcd9ab15b440c5044
            in 3c54aa3414825fda21d0a38681cb8669edbd0549f342c5514fb4449edbd59cc2
            seed 8569601322214269821
        "#]]
        .assert_eq(&told);
    }

    #[test]
    fn seeds_differ_by_each_part() {
        let seeds = [row_seed(0, "a", 0), row_seed(1, "a", 0), row_seed(0, "b", 0), row_seed(0, "a", 1)];
        let mut distinct = seeds.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), seeds.len());
    }
}

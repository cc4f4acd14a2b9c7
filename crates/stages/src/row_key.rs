//! The identity of a single row: of `responses`, of `scores`, of the log-probs of a reference model; and the seed a
//! response is drawn from.
//!
//! Owns the encodings. They depend on what a row is made from and on nothing else of its table, so that neither the order
//! of rows nor their number changes one.

use blake3::Hasher;
use sluice_spec::stage::sample::{self, Decoding};
use sluice_spec::stage::score::{self, HeadDtype};
use sluice_spec::stage::train::Tokens;
use sluice_spec::{LeafSink, LeafValue, Span};
use sluice_store::{ModelDigest, RowKey, RowScope};

use crate::Device;

/// Each changes when its encoding below does, so that old keys match nothing new.
const ANSWER_CONTEXT: &str = "sluice response row key v1";
const SCORE_CONTEXT: &str = "sluice score row key v1";
const REFERENCE_CONTEXT: &str = "sluice reference log-prob row key v1";
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

/// The keys of reference log-probs: BLAKE3 over how texts become tokens, the reference model, prompt, chosen, rejected;
/// and for a mismatched response all that of the pair and of the one whose response it is.
pub struct ReferenceKeys {
    /// Has read all that the rows share.
    shared: Hasher,
}

/// The texts of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairTexts<'a> {
    pub prompt: &'a str,
    pub chosen: &'a str,
    pub rejected: &'a str,
}

impl ReferenceKeys {
    /// `drawn_from` is the seed of a reference model whose weights are not stored but drawn.
    pub fn new(tokens: &Tokens, reference: ModelDigest, drawn_from: Option<u64>) -> Self {
        let mut encoding = Encoding(Hasher::new_derive_key(REFERENCE_CONTEXT));
        tokens.leaves(&mut encoding);
        encoding.0.update(reference.as_bytes());
        encoding.value(&drawn_from.map_or(LeafValue::Null, |seed| LeafValue::Int(seed as i64)));
        Self { shared: encoding.0 }
    }

    /// The key of the log-probs of a pair.
    pub fn pair(&self, pair: PairTexts<'_>) -> RowKey {
        self.key(&[pair])
    }

    /// The key of the log-prob of the next pair's chosen response after this pair's prompt.
    pub fn mismatched(&self, pair: PairTexts<'_>, next: PairTexts<'_>) -> RowKey {
        self.key(&[pair, next])
    }

    /// Where rows with these keys are kept.
    pub fn scope(&self, device: Device) -> RowScope {
        scope(&self.shared, device)
    }

    fn key(&self, pairs: &[PairTexts<'_>]) -> RowKey {
        let mut encoding = Encoding(self.shared.clone());
        encoding.0.update(&(pairs.len() as u64).to_le_bytes());
        for PairTexts { prompt, chosen, rejected } in pairs {
            [prompt, chosen, rejected].into_iter().for_each(|text| encoding.text(text));
        }
        RowKey::from_bytes(encoding.finish())
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
            answers.scope(Device::CPU),
            scores.key("Two and two?", "Four."),
            scores.scope(Device::CPU),
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
    fn reference_keys_differ_by_each_part() {
        let text = "version: 1\nmodels: { p: p }\nstages:
  r: { sample: { prompts: q, model: p } }\n  q: { ingest: { from: a } }\n  s: { score: { responses: r, model: p } }
  pairs: { pair: { scores: s } }
  t: { train: { pairs: pairs, model: p, objective: { dpo: {} }, learning_rate: 1 } }";
        let tokens = |set: &[&str]| {
            let set = set.iter().map(|set| format!("stages.t.train.{set}")).collect();
            let pipeline = sluice_spec::parse("p.yaml", text, &sluice_spec::Options { profile: None, set });
            let stages = pipeline.expect("a pipeline").stages;
            let tokens = stages.into_iter().find_map(|stage| match stage.kind {
                sluice_spec::stage::Kind::Train(train) => Some(train.tokens),
                _ => None,
            });
            tokens.expect("a training")
        };
        let (one, other) = (ModelDigest::from_bytes([1; 32]), ModelDigest::from_bytes([2; 32]));
        let pair = PairTexts { prompt: "p", chosen: "c", rejected: "r" };
        let key = |set: &[&str], digest, seed| ReferenceKeys::new(&tokens(set), digest, seed).pair(pair);
        let keys = ReferenceKeys::new(&tokens(&[]), one, None);
        let mut all = vec![
            keys.pair(pair),
            keys.pair(PairTexts { prompt: "pc", chosen: "", ..pair }),
            keys.pair(PairTexts { rejected: "", ..pair }),
            keys.mismatched(pair, pair),
            key(&["max_length=100"], one, None),
            key(&["max_prompt_length=100"], one, None),
            key(&["truncation=reference"], one, None),
            key(&["prompt_keep=start"], one, None),
            key(&["response_header=response"], one, None),
            key(&[], other, None),
            key(&[], one, Some(0)),
            key(&[], one, Some(1)),
        ];
        // What the pair is trained with is no part of it.
        assert_eq!(key(&["learning_rate=2", "epochs=3", "batch_size=7"], one, None), all[0]);
        let n = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), n);
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

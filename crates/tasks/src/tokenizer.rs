//! Trains the byte-pair tokenizer and lays it out as Gemma does, once for the policy and once for the reward model.
//!
//! Layout: six special tokens, three runs of newlines, 256 byte tokens, the letters of the text, then merges. Spaces
//! become `▁`, no space is put in front, digits stand alone, and what the letters do not cover is written in bytes.
//! The reward layout has the same entries with the same ids and Llama-3's special tokens after them, so both models
//! read a text alike and a reward model's turn pattern can be found.
//!
//! Merges are learned inside words only. Because of that a text needs no cutting before merging: no merge joins two
//! words, two digits or a word and its full stop.

use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::{AddedToken, Trainer};

use crate::TasksError;
use crate::rows::Row;

/// Entries of the policy's vocabulary; the reward model's has [`LLAMA_SPECIALS`] more.
pub const VOCAB_SIZE: usize = 1024;
/// Gemma's special tokens; the place is the id.
pub const GEMMA_SPECIALS: [&str; 6] = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"];
/// Llama-3's special tokens; the place plus [`VOCAB_SIZE`] is the id.
pub const LLAMA_SPECIALS: [&str; 8] = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|reserved_special_token_1|>",
    "[PAD]",
];
/// Runs of newlines that are one token each and not special.
const NEWLINES: [&str; 3] = ["\n", "\n\n", "\n\n\n"];
/// Words of the turn headers; each must be one token, also without a space before it.
const HEADER_WORDS: [&str; 4] = ["user", "model", "assistant", "system"];

/// Id of a special token of either list.
pub fn special_id(token: &str) -> Option<usize> {
    let place = |list: &[&str]| list.iter().position(|special| *special == token);
    place(&GEMMA_SPECIALS).or_else(|| place(&LLAMA_SPECIALS).map(|place| place + VOCAB_SIZE))
}

/// What training gives: entries in the order of their ids, and merges in the order of their rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vocabulary {
    /// Entries; the place is the id.
    pub entries: Vec<String>,
    /// Pairs of entries, best first, spelled `left right`.
    pub merges: Vec<String>,
}

impl Vocabulary {
    /// Learns a vocabulary from prompts and answers. The order of the rows does not matter.
    ///
    /// # Errors
    /// [`TasksError::Vocabulary`] if the text is too poor for [`VOCAB_SIZE`] entries.
    pub fn train(rows: &[Row<'_>]) -> Result<Self, TasksError> {
        let refused =
            |operation| move |error: tokenizers::Error| TasksError::Tokenizer { operation, message: error.to_string() };
        let specials: Vec<AddedToken> = reserved().into_iter().map(|content| AddedToken::from(content, true)).collect();
        let mut trainer = BpeTrainer::builder()
            .vocab_size(VOCAB_SIZE)
            .show_progress(false)
            .special_tokens(specials)
            .initial_alphabet(('0'..='9').collect())
            .build();
        let texts = rows.iter().flat_map(|row| [row.question.prompt.as_str(), row.response.as_str()]);
        let headers = HEADER_WORDS.into_iter().flat_map(|word| std::iter::repeat_n(word, rows.len()));
        trainer
            .feed(texts.chain(headers), |text| Ok(pieces(text)))
            .map_err(refused("count the words of the tokenizer's text"))?;
        let mut model = BPE::default();
        trainer.train(&mut model).map_err(refused("train the tokenizer"))?;
        Self::of_model(&model)
    }

    fn of_model(model: &BPE) -> Result<Self, TasksError> {
        let document =
            serde_json::to_value(model).map_err(|source| TasksError::Json { file: "tokenizer.json", source })?;
        let mut entries: Vec<(u64, String)> = document["vocab"]
            .as_object()
            .map(|vocab| vocab.iter().map(|(entry, id)| (id.as_u64().unwrap_or(u64::MAX), entry.clone())).collect())
            .unwrap_or_default();
        entries.sort();
        let entries: Vec<String> = entries.into_iter().map(|(_, entry)| entry).collect();
        if entries.len() != VOCAB_SIZE {
            return Err(TasksError::Vocabulary { found: entries.len(), wanted: VOCAB_SIZE });
        }
        let side = |merge: &Value, place: usize| merge[place].as_str().unwrap_or_default().to_owned();
        let merges = document["merges"]
            .as_array()
            .map(|merges| merges.iter().map(|merge| format!("{} {}", side(merge, 0), side(merge, 1))).collect());
        Ok(Self { entries, merges: merges.unwrap_or_default() })
    }

    /// `tokenizer.json` of the policy.
    pub fn policy_document(&self) -> Value {
        self.document("<bos>", &[])
    }

    /// `tokenizer.json` of the reward model.
    pub fn reward_document(&self) -> Value {
        self.document("<|begin_of_text|>", &LLAMA_SPECIALS)
    }

    fn document(&self, bos: &str, specials_at_end: &[&str]) -> Value {
        let added = |id: usize, content: &str, special: bool| {
            json!({
                "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": special,
            })
        };
        let n_gemma = GEMMA_SPECIALS.len();
        let mut added_tokens: Vec<Value> =
            GEMMA_SPECIALS.iter().enumerate().map(|(id, content)| added(id, content, true)).collect();
        added_tokens.extend(NEWLINES.iter().enumerate().map(|(place, run)| added(n_gemma + place, run, false)));
        added_tokens.extend(
            specials_at_end.iter().enumerate().map(|(place, content)| added(VOCAB_SIZE + place, content, true)),
        );
        let vocab: serde_json::Map<String, Value> =
            self.entries.iter().enumerate().map(|(id, entry)| (entry.clone(), json!(id))).collect();
        let sequence = |id: &str, kind: u32| json!({ "Sequence": { "id": id, "type_id": kind } });
        let start = |kind: u32| json!({ "SpecialToken": { "id": bos, "type_id": kind } });
        json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added_tokens,
            "normalizer": { "type": "Replace", "pattern": { "String": " " }, "content": "▁" },
            "pre_tokenizer": {
                "type": "Split", "pattern": { "String": " " }, "behavior": "MergedWithPrevious", "invert": false,
            },
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [start(0), sequence("A", 0)],
                "pair": [start(0), sequence("A", 0), start(1), sequence("B", 1)],
                "special_tokens": { bos: { "id": bos, "ids": [special_id(bos)], "tokens": [bos] } },
            },
            "decoder": {
                "type": "Sequence",
                "decoders": [
                    { "type": "Replace", "pattern": { "String": "▁" }, "content": " " },
                    { "type": "ByteFallback" },
                    { "type": "Fuse" },
                ],
            },
            "model": {
                "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
                "vocab": vocab,
                "merges": self.merges,
            },
        })
    }
}

/// Entries that training may not give away, in the order of their ids.
fn reserved() -> Vec<String> {
    let bytes = (0..=255_u8).map(|byte| format!("<0x{byte:02X}>"));
    GEMMA_SPECIALS.iter().chain(&NEWLINES).map(|token| (*token).to_owned()).chain(bytes).collect()
}

/// The pieces inside which merges are learned: a word with the space before it, one digit, or one mark with the space
/// before it. A space before a digit is a piece of its own.
fn pieces(text: &str) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut piece = String::new();
    for c in text.chars() {
        let grows = match piece.chars().next_back() {
            None => true,
            Some('▁') => c != ' ' && !c.is_ascii_digit(),
            Some(last) => last.is_alphabetic() && c.is_alphabetic(),
        };
        if !grows {
            pieces.push(std::mem::take(&mut piece));
        }
        piece.push(if c == ' ' { '▁' } else { c });
    }
    pieces.push(piece);
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{questions, rows};
    use expect_test::expect;
    use tokenizers::Tokenizer;

    #[test]
    fn pieces_of_a_prompt() {
        assert_eq!(pieces("Add 12 and 3, (so) it's +4.").join("|"), "Add|▁|1|2|▁and|▁|3|,|▁(|so|)|▁it|'|s|▁+|4|.");
    }

    fn load(document: &Value) -> Tokenizer {
        match Tokenizer::from_bytes(document.to_string()) {
            Ok(tokenizer) => tokenizer,
            Err(error) => panic!("{error}"),
        }
    }

    fn encode(tokenizer: &Tokenizer, text: &str) -> (Vec<u32>, String) {
        match tokenizer.encode(text, false) {
            Ok(encoding) => (encoding.get_ids().to_vec(), encoding.get_tokens().join("|")),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn trained_tokenizer_keeps_its_promises() -> Result<(), TasksError> {
        let all = questions(1);
        let mixed = rows::mixed(&all, 1);
        let vocabulary = Vocabulary::train(&mixed)?;
        let again = Vocabulary::train(&mixed)?;
        assert_eq!(vocabulary, again);

        let (policy, reward) = (load(&vocabulary.policy_document()), load(&vocabulary.reward_document()));
        assert_eq!((policy.get_vocab_size(true), reward.get_vocab_size(true)), (VOCAB_SIZE, VOCAB_SIZE + 8));
        for token in GEMMA_SPECIALS.into_iter().chain(LLAMA_SPECIALS) {
            assert_eq!(reward.token_to_id(token).map(|id| id as usize), special_id(token), "{token}");
        }
        for word in HEADER_WORDS {
            assert_eq!(encode(&policy, word).0.len(), 1, "{word}");
        }
        for question in all.iter().take(2000) {
            let (ids, _) = encode(&policy, &question.prompt);
            assert_eq!(ids, encode(&reward, &question.prompt).0);
            assert_eq!(policy.decode(&ids, false).ok().as_deref(), Some(question.prompt.as_str()));
        }
        let shown: Vec<String> = [
            "<start_of_turn>user\nAdd 12 and 3.<end_of_turn>\n",
            "What is the capital of France? Give only the answer.",
            "two  spaces, a\ttab and ünïcode",
        ]
        .map(|text| encode(&policy, text).1)
        .to_vec();
        expect![[r#"
            <start_of_turn>|user|
            |Add|▁|1|2|▁and|▁|3|.|<end_of_turn>|

            What|▁is|▁the|▁capital|▁of|▁F|r|an|ce|?|▁Give|▁only|▁the|▁answer|.
            t|w|o|▁|▁spa|ce|s|,|▁a|<0x09>|t|a|b|▁and|▁|<0xC3>|<0xBC>|n|<0xC3>|<0xAF>|c|o|de"#]]
        .assert_eq(&shown.join("\n"));
        let pattern = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n";
        assert_eq!(encode(&reward, pattern).0.len(), 5);
        Ok(())
    }
}

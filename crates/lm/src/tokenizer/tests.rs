//! Every text of the fixture tokenizers, id for id, and tokenizers that do not hold together.

use std::fs;
use std::path::{Path, PathBuf};

use expect_test::{Expect, expect};
use serde_json::Value;

use super::Tokenizer;

fn fixture(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/tokenizer")).join(name)
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

fn check_texts(name: &str) {
    let tokenizer = Tokenizer::load(&fixture(name)).unwrap();
    let rows: Vec<Value> = serde_json::from_slice(&fs::read(fixture(name).join("texts.json")).unwrap()).unwrap();
    assert_eq!(rows.len(), 60);
    for row in rows {
        let text = row["text"].as_str().unwrap();
        let found = tokenizer.encode(text).unwrap();
        assert_eq!(found, ids(&row["ids"]), "{text:?}");
        let tokens: Vec<_> = found.iter().map(|id| tokenizer.id_to_token(*id).unwrap()).collect();
        assert_eq!(serde_json::to_value(tokens).unwrap(), row["tokens"], "{text:?}");
        assert_eq!(tokenizer.decode(&found, false).unwrap(), row["decoded"].as_str().unwrap(), "{text:?}");
        let special = ids(&row["ids_with_special"]);
        assert_eq!([vec![tokenizer.bos_id().unwrap()], found].concat(), special, "{text:?}");
        assert_eq!(tokenizer.decode(&special, true).unwrap(), row["decoded_skip_special"].as_str().unwrap());
    }
    println!("| fixture tokenizer | {name}: ids, tokens and decoded text of 60 texts | 0 | exact |");
}

#[test]
fn gemma_texts() {
    check_texts("gemma");
}

#[test]
fn llama3_texts() {
    check_texts("llama3");
}

#[test]
fn begin_tokens_are_counted_not_added() {
    let tokenizer = Tokenizer::load(&fixture("llama3")).unwrap();
    let bos = "<|begin_of_text|>";
    for written in 0..3 {
        for asked in 0..3 {
            let ids = tokenizer.encode_begun(&(bos.repeat(written) + "hi"), asked).unwrap();
            assert_eq!(ids, [vec![505; asked], tokenizer.encode("hi").unwrap()].concat(), "{asked} of {written}");
        }
    }
    // One inside the text is the text's own.
    let inside = format!("hi{bos}hi");
    assert_eq!(tokenizer.encode_begun(&inside, 1).unwrap()[1..], tokenizer.encode(&inside).unwrap());
}

#[test]
fn special_ids() {
    let of = |name| {
        let t = Tokenizer::load(&fixture(name)).unwrap();
        (t.bos_id(), t.eos_id(), t.n_ids())
    };
    assert_eq!(of("gemma"), (Some(2), Some(1), 512));
    assert_eq!(of("llama3"), (Some(505), Some(510), 512));
}

/// The message of loading a copy of the gemma tokenizer in which `file` has been replaced or, without text, removed.
fn check_fault(file: &str, text: Option<&str>, wanted: Expect) {
    let folder = tempfile::tempdir().unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::write(folder.path().join(name), fs::read(fixture("gemma").join(name)).unwrap()).unwrap();
    }
    match text {
        Some(text) => fs::write(folder.path().join(file), text).unwrap(),
        None => fs::remove_file(folder.path().join(file)).unwrap(),
    }
    let error = Tokenizer::load(folder.path()).unwrap_err();
    wanted.assert_eq(&error.to_string().replace(&folder.path().display().to_string(), "DIR"));
}

#[test]
fn faulty_files() {
    check_fault("tokenizer.json", None, expect!["read DIR/tokenizer.json"]);
    check_fault("tokenizer_config.json", None, expect!["read DIR/tokenizer_config.json"]);
    check_fault("tokenizer_config.json", Some("[1]"), expect!["DIR/tokenizer_config.json: not a JSON object"]);
    check_fault(
        "tokenizer_config.json",
        Some(r#"{"bos_token": 2}"#),
        expect!["DIR/tokenizer_config.json: `bos_token` is 2; a token's text is needed"],
    );
    check_fault(
        "tokenizer_config.json",
        Some(r#"{"eos_token": {"content": "<stop>"}}"#),
        expect!["DIR/tokenizer_config.json: `eos_token` is `<stop>`, which is no token of the vocabulary"],
    );
    // Files at which the library would panic: broken within a decoder.
    for bytes in [&b"{\"version\": \"1.0\""[..], b"{\"decoder\": {\"type\": \0", b"{\"decoder\": {\"type\": \"\x80\"}}"]
    {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("tokenizer.json"), bytes).unwrap();
        let error = Tokenizer::load(folder.path()).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json: not a tokenizer of a known form"), "{error}");
    }
}

#[test]
fn a_file_at_which_the_library_panics() {
    let text = fs::read_to_string(fixture("llama3").join("tokenizer.json")).unwrap();
    let prefix = "\"continuing_subword_prefix\": null";
    assert!(text.contains(prefix));
    let folder = tempfile::tempdir().unwrap();
    let damaged = text.replace(prefix, "\"continuing_subword_prefix\": \"longer than its merges\"");
    fs::write(folder.path().join("tokenizer.json"), damaged).unwrap();
    let error = Tokenizer::load(folder.path()).unwrap_err().to_string();
    assert!(error.ends_with("not a tokenizer of a known form: its parts do not hold together"), "{error}");
}

#[test]
fn sizes_and_ids_past_the_end() {
    let mut tokenizer = Tokenizer::load(&fixture("gemma")).unwrap();
    let mut message = |n_rows| tokenizer.expect_rows(n_rows).unwrap_err().to_string();
    let rule = "each id needs a row, and at most one row in 1000 may be without an id";
    assert!(message(500).ends_with(&format!("has 512 ids, and the embedding has 500 rows; {rule}")));
    assert!(message(513).ends_with(&format!("has 512 ids, and the embedding has 513 rows; {rule}")));
    assert_eq!(tokenizer.expect_rows(512).unwrap(), 0);
    let error = tokenizer.decode(&[1, 512], false).unwrap_err().to_string();
    assert!(error.ends_with("decode 2 ids: 512 is past the last id 511"), "{error}");
}

/// The spare rows of published embeddings: a pad token and the next multiple of 8, or of 128.
#[test]
fn an_embedding_may_be_padded() {
    let mut tokenizer = Tokenizer::load(&fixture("gemma")).unwrap();
    // As of a vocabulary of 128,257 ids: the number alone decides.
    for (n_ids, n_rows, spare) in
        [(128_257, 128_264, Some(7)), (128_257, 128_384, Some(127)), (32_001, 32_064, None), (128_257, 128_256, None)]
    {
        tokenizer.n_ids = n_ids;
        assert_eq!(tokenizer.expect_rows(n_rows).ok(), spare, "{n_ids} ids, {n_rows} rows");
    }
    // A spare row has no text, and is no fault; what lies behind it is.
    (tokenizer.n_ids, tokenizer.n_spare) = (512, 2);
    let words = tokenizer.encode("word").unwrap();
    let with = |id| tokenizer.decode(&[words.clone(), vec![id]].concat(), false);
    assert_eq!(with(513).unwrap(), "word");
    assert!(with(514).unwrap_err().to_string().ends_with("514 is past the last id 511"));
}

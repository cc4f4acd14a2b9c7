//! Whatever the text, reading it ends in a pipeline or in faults that can be shown; never in a panic.

use proptest::prelude::*;
use sluice_spec::{Options, parse};

const WHOLE: &str = include_str!("../../../pipelines/simpo-gemma.yaml");

/// Reads and shows; faults must lie within the text.
fn read(text: &str, profile: Option<String>, set: Vec<String>) {
    if let Err(faults) = parse("any.yaml", text, &Options { profile, set }) {
        assert!(!faults.list.is_empty());
        for fault in &faults.list {
            assert!(fault.place.range().end <= faults.sources.text(fault.place.source).len());
            assert!(!fault.message.is_empty());
        }
        assert!(!faults.to_string().is_empty());
    }
}

/// Pieces that a pipeline file is made of, in any order.
fn piece() -> impl Strategy<Value = String> {
    let words = [
        "version: 1",
        "stages:",
        "params:",
        "profiles:",
        "models:",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        " ",
        "\n",
        "\n  ",
        "\n    ",
        "\t",
        "- ",
        "&a ",
        "*a",
        "!!int ",
        "${params.a}",
        "${",
        "}",
        "$${",
        "\"",
        "'",
        "|",
        ">",
        "#",
        "---\n",
        "? ",
        "<<: ",
        "a",
        "prompts",
        "ingest",
        "from",
        "sample",
        "train",
        "objective",
        "simpo",
        "1",
        "-1",
        "1e400",
        "0x",
        "0o9",
        ".inf",
        "~",
        "é",
        "\u{feff}",
        "\u{0}",
        "\u{e000}",
        "\r\n",
        "%YAML 1.2\n",
    ];
    prop_oneof![3 => proptest::sample::select(words.to_vec()).prop_map(str::to_owned), 1 => ".{0,6}"]
}

proptest! {
    #[test]
    fn arbitrary_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        read(&String::from_utf8_lossy(&bytes), None, Vec::new());
    }

    #[test]
    fn pieces_of_yaml(pieces in proptest::collection::vec(piece(), 0..60)) {
        read(&pieces.concat(), None, Vec::new());
    }

    #[test]
    fn a_good_file_with_a_hole(start in 0..WHOLE.len(), len in 0usize..40, filling in piece()) {
        let end = (start + len).min(WHOLE.len());
        if let (Some(before), Some(after)) = (WHOLE.get(..start), WHOLE.get(end..)) {
            read(&format!("{before}{filling}{after}"), None, Vec::new());
        }
    }

    #[test]
    fn any_override(path in "[a-z.${}=]{0,20}", pieces in proptest::collection::vec(piece(), 0..8)) {
        read(WHOLE, None, vec![format!("{path}={}", pieces.concat())]);
        read(WHOLE, None, vec![format!("stages.tuned.train.objective.{path}={}", pieces.concat())]);
    }

    #[test]
    fn any_profile(name in ".{0,12}") {
        read(WHOLE, Some(name), Vec::new());
    }
}

/// Nesting, aliases within aliases and long lines are bounded.
#[test]
fn large_shapes() {
    read(&"[".repeat(100_000), None, Vec::new());
    read(&"a:\n ".repeat(3_000), None, Vec::new());
    read(&format!("version: {}", "9".repeat(100_000)), None, Vec::new());
    let mut bomb = "version: 1\nparams:\n  a0: &a0 [x, x]\n".to_owned();
    for level in 1..40 {
        let below = level - 1;
        bomb.push_str(&format!("  a{level}: &a{level} [*a{below}, *a{below}]\n"));
    }
    read(&bomb, None, Vec::new());
}

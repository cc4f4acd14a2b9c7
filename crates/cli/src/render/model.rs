//! `model inspect` as text.

use sluice_lm::memory::Share;

use crate::render::columns::{Align, Columns};
use crate::render::paint::{Ink, Paint};
use crate::render::quantity::{bytes, count, parameters};

/// What is known of a model folder.
#[derive(Debug, Clone)]
pub struct Inspected {
    pub folder: String,
    pub architecture: String,
    pub n_parameters: u64,
    pub dtype: String,
    pub digest: String,
    pub vocab_size: u64,
    pub max_positions: u64,
    pub has_template: bool,
    pub stored_bytes: u64,
    /// The run-time type, which the three figures below are for.
    pub precision: &'static str,
    /// Weights alone.
    pub run_bytes: u64,
    /// For which settings, and what it takes.
    pub sampling: (String, Vec<Share>),
    pub training: (String, Vec<Share>),
    pub warnings: Vec<String>,
    /// Why the model cannot be used, outermost reason first; empty when it can.
    pub refused: Vec<String>,
}

/// The folder, its facts, and a verdict.
pub fn inspected(shown: &Inspected, paint: Paint) -> String {
    let mut table = Columns::new(&[Align::Left, Align::Left, Align::Left]);
    let facts = [
        ("architecture", shown.architecture.clone()),
        ("parameters", parameters(shown.n_parameters)),
        ("stored as", format!("{}, {}", shown.dtype, bytes(shown.stored_bytes))),
        ("vocabulary", count(shown.vocab_size)),
        ("context", format!("{} tokens", count(shown.max_positions))),
        ("chat template", if shown.has_template { "yes" } else { "none" }.to_owned()),
        ("memory to run", format!("{} in {}", bytes(shown.run_bytes), shown.precision)),
        ("memory to sample", costs(&shown.sampling)),
        ("memory to train", costs(&shown.training)),
        ("digest", shown.digest.clone()),
    ];
    for (name, value) in facts {
        table.row([(String::new(), Ink::Plain), (name.to_owned(), Ink::Name), (value, Ink::Plain)]);
    }
    let mut text = format!("{}\n{}", paint.ink(Ink::Bold, &shown.folder), table.render(paint));
    for warning in &shown.warnings {
        text += &format!("{} {warning}\n", paint.ink(Ink::Active, "warning:"));
    }
    for (index, reason) in shown.refused.iter().enumerate() {
        let word = if index == 0 { "refused:" } else { "because:" };
        text += &format!("{} {reason}\n", paint.ink(Ink::Bad, word));
    }
    text
}

/// The sum and what it is for.
fn costs((settings, shares): &(String, Vec<Share>)) -> String {
    format!("{}: {settings}", bytes(Share::total(shares) as u64))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_model_is_told_with_its_costs() {
        let shown = Inspected {
            folder: "data/tiny/policy".to_owned(),
            architecture: "Gemma2ForCausalLM".to_owned(),
            n_parameters: 920_448,
            dtype: "float32".to_owned(),
            digest: "0123456789abcdef".to_owned(),
            vocab_size: 1024,
            max_positions: 256,
            has_template: true,
            stored_bytes: 3_681_792,
            precision: "f32",
            run_bytes: 3_681_792,
            sampling: (
                "64 answers at a time".to_owned(),
                vec![Share::new("weights", 3_681_792), Share::new("cache", 1_000_000)],
            ),
            training: ("passes of 4,096 tokens".to_owned(), vec![Share::new("weights", 14_727_168)]),
            warnings: vec!["config.json: `x` is not known".to_owned()],
            refused: vec!["read the weights".to_owned(), "tensor `a` is missing".to_owned()],
        };
        expect![[r#"
            data/tiny/policy
              architecture      Gemma2ForCausalLM
              parameters        920 k
              stored as         float32, 3.7 MB
              vocabulary        1,024
              context           256 tokens
              chat template     yes
              memory to run     3.7 MB in f32
              memory to sample  4.7 MB: 64 answers at a time
              memory to train   14.7 MB: passes of 4,096 tokens
              digest            0123456789abcdef
            warning: config.json: `x` is not known
            refused: read the weights
            because: tensor `a` is missing
        "#]]
        .assert_eq(&inspected(&shown, Paint::OFF));
    }
}

//! Format adherence: the answer ended by itself, is one short sentence, and does not hedge.
//!
//! Judges the form alone; whether the answer is right is [`crate::check`]'s business.

use crate::check::sentences;

/// Openings and insertions that weaken an answer, lower case, matched at word borders.
const HEDGES: [&str; 14] = [
    "i think",
    "i guess",
    "i believe",
    "i am not sure",
    "i'm not sure",
    "maybe",
    "perhaps",
    "probably",
    "possibly",
    "might be",
    "may be",
    "could be",
    "it seems",
    "not certain",
];

/// What counts as short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FormatRules {
    /// Largest number of words, white space apart.
    pub max_words: usize,
}

impl Default for FormatRules {
    /// Twenty words: twice the longest answer a short question needs.
    fn default() -> Self {
        Self { max_words: 20 }
    }
}

/// The three parts of the judgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adherence {
    /// The model wrote its end token before the limit.
    pub ended: bool,
    /// One non-empty sentence of at most [`FormatRules::max_words`] words.
    pub short: bool,
    /// No hedge anywhere.
    pub plain: bool,
}

impl Adherence {
    /// Judges an answer; `ended` is whether generation stopped at an end token.
    pub fn of(answer: &str, ended: bool, rules: FormatRules) -> Self {
        let FormatRules { max_words } = rules;
        let n_words = answer.split_whitespace().count();
        Self { ended, short: sentences(answer).len() == 1 && n_words <= max_words, plain: !hedges(answer) }
    }

    /// All three parts hold.
    pub fn holds(self) -> bool {
        let Self { ended, short, plain } = self;
        ended && short && plain
    }
}

/// Whether the text contains a hedge ("maybe", "I think", ...), at word borders and without case.
pub fn hedges(text: &str) -> bool {
    let lower = text.to_lowercase().replace('’', "'");
    HEDGES.iter().any(|hedge| {
        lower.match_indices(hedge).any(|(at, _)| {
            let before = lower[..at].chars().next_back();
            let after = lower[at + hedge.len()..].chars().next();
            !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(answers: &[(&str, bool)], want: Expect) {
        let lines: Vec<String> = answers
            .iter()
            .map(|&(answer, ended)| {
                let a = Adherence::of(answer, ended, FormatRules { max_words: 6 });
                format!("{} ended {} short {} plain {} {answer:?}", a.holds(), a.ended, a.short, a.plain)
            })
            .collect();
        want.assert_eq(&lines.join("\n"));
    }

    #[test]
    fn parts() {
        check(
            &[
                ("Paris.", true),
                ("Paris.", false),
                ("It is Paris", true),
                ("It is Paris. It is big.", true),
                ("It is a very very long one.", true),
                ("Maybe it is Paris.", true),
                ("I Think so.", true),
                ("Five mayberries.", true),
                ("", true),
            ],
            expect![[r#"
                true ended true short true plain true "Paris."
                false ended false short true plain true "Paris."
                true ended true short true plain true "It is Paris"
                false ended true short false plain true "It is Paris. It is big."
                false ended true short false plain true "It is a very very long one."
                false ended true short true plain false "Maybe it is Paris."
                false ended true short true plain false "I Think so."
                true ended true short true plain true "Five mayberries."
                false ended true short false plain true """#]],
        );
    }
}

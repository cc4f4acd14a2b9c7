//! Exact checks: does a written answer agree with the reference? Text against text; knows nothing of models.
//!
//! Three rules, from strict to lenient in different directions:
//!
//! | rule | right when |
//! |---|---|
//! | [`exact`] | the texts are equal after trimming |
//! | [`last_sentence`] | the first real sentence ends in the reference |
//! | [`number`] | the last number of the text equals the last number of the reference |

mod numbers;
mod sentences;

pub use numbers::last_number;
pub use sentences::{first_sentence, sentences};

/// A rule by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Check {
    /// [`exact`].
    Exact,
    /// [`last_sentence`].
    LastSentence,
    /// [`number`].
    Number,
}

impl Check {
    /// Whether the answer agrees with the reference by this rule.
    pub fn agrees(self, answer: &str, reference: &str) -> bool {
        match self {
            Self::Exact => exact(answer, reference),
            Self::LastSentence => last_sentence(answer, reference),
            Self::Number => number(answer, reference),
        }
    }
}

/// Equal after removing white space at both ends.
pub fn exact(answer: &str, reference: &str) -> bool {
    answer.trim() == reference.trim()
}

/// The first real sentence of the answer ends in the reference.
///
/// Words are compared without case, quotes and punctuation, so `"Paris"`, `paris.` and `The answer is Paris!` all
/// end in `Paris`; an opening such as "Sure!" is not a real sentence. Whole words only: `12` does not end in `2`.
/// Two readings that would flatter an answer are refused: a reference that merely continues a repetition
/// (`cat cat cat` for `cat cat`), and one that is denied (`it is not cold` for `cold`). Later sentences are not
/// read, so an answer cannot try several values. A reference without a letter or digit agrees with nothing.
pub fn last_sentence(answer: &str, reference: &str) -> bool {
    let wanted = sentences::words(reference);
    let written = sentences::words(first_sentence(answer));
    if wanted.is_empty() || !written.ends_with(&wanted) {
        return false;
    }
    match written[..written.len() - wanted.len()].last() {
        Some(before) => *before != wanted[0] && before != "not",
        None => true,
    }
}

/// The last number of the answer equals the last number of the reference, as decimal values.
///
/// `1,234` is one number, `$` and `%` do not matter, `7`, `7.0` and `007` are equal. A worked reference that closes
/// with `#### 42` therefore asks for 42. False if either side has no number.
pub fn number(answer: &str, reference: &str) -> bool {
    match (last_number(answer), last_number(reference)) {
        (Some(written), Some(wanted)) => written == wanted,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(rule: Check, reference: &str, answers: &[&str], want: Expect) {
        let lines: Vec<String> = answers
            .iter()
            .map(|answer| format!("{} {answer:?}", if rule.agrees(answer, reference) { "yes" } else { "no " }))
            .collect();
        want.assert_eq(&lines.join("\n"));
    }

    #[test]
    fn last_sentence_of_one_word() {
        let answers = [
            "Paris",
            "paris.",
            "\"Paris\"",
            "The answer is Paris.",
            "The answer is: **Paris**!",
            "Sure! It is Paris.",
            "I think it is Paris.",
            "Okay. Well, Paris",
            "It is Paris. No, Rome.",
            "It is Rome. Or Paris.",
            "Paris is it.",
            "It is not Paris.",
            "Paris Paris.",
            "",
            "...",
            "Parisian",
        ];
        check(
            Check::LastSentence,
            "Paris",
            &answers,
            expect![[r#"
                yes "Paris"
                yes "paris."
                yes "\"Paris\""
                yes "The answer is Paris."
                yes "The answer is: **Paris**!"
                yes "Sure! It is Paris."
                yes "I think it is Paris."
                yes "Okay. Well, Paris"
                yes "It is Paris. No, Rome."
                no  "It is Rome. Or Paris."
                no  "Paris is it."
                no  "It is not Paris."
                no  "Paris Paris."
                no  ""
                no  "..."
                no  "Parisian""#]],
        );
    }

    #[test]
    fn last_sentence_of_several_words_and_numbers() {
        check(
            Check::LastSentence,
            "cat cat",
            &["Cat cat.", "cat, cat", "Here you are: cat cat.", "cat cat cat.", "cat."],
            expect![[r#"
                yes "Cat cat."
                yes "cat, cat"
                yes "Here you are: cat cat."
                no  "cat cat cat."
                no  "cat.""#]],
        );
        check(
            Check::LastSentence,
            "2",
            &["2", "2.", "12", "It is 2.", "1 + 1 = 2", "3.2", "-2", "2.0"],
            expect![[r#"
                yes "2"
                yes "2."
                no  "12"
                yes "It is 2."
                yes "1 + 1 = 2"
                no  "3.2"
                no  "-2"
                no  "2.0""#]],
        );
        check(
            Check::LastSentence,
            "New Delhi",
            &["It's new delhi.", "Delhi.", "It is New\nDelhi."],
            expect![[r#"
                yes "It's new delhi."
                no  "Delhi."
                no  "It is New\nDelhi.""#]],
        );
        check(
            Check::LastSentence,
            " .",
            &["", ".", "x"],
            expect![[r#"
            no  ""
            no  "."
            no  "x""#]],
        );
    }

    #[test]
    fn numbers() {
        check(
            Check::Number,
            "16 - 3 = 13, and 13 * 3 = 39.\n#### 1,039",
            &[
                "1039",
                "1,039",
                "So she has $1,039.00.",
                "1039 apples",
                "It is 1,039, not 7",
                "1,03,9",
                "-1039",
                "none",
                "the range is 5-1039",
                "01039%",
            ],
            expect![[r#"
                yes "1039"
                yes "1,039"
                yes "So she has $1,039.00."
                yes "1039 apples"
                no  "It is 1,039, not 7"
                no  "1,03,9"
                no  "-1039"
                no  "none"
                yes "the range is 5-1039"
                yes "01039%""#]],
        );
        check(
            Check::Number,
            "no number",
            &["1", ""],
            expect![[r#"
            no  "1"
            no  """#]],
        );
    }

    #[test]
    fn exact_trims_only() {
        check(
            Check::Exact,
            "Paris ",
            &[" Paris", "paris", "Paris."],
            expect![[r#"
            yes " Paris"
            no  "paris"
            no  "Paris.""#]],
        );
    }
}

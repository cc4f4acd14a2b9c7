//! What can be asked: one [`Fact`] is a question in several wordings, its answer, and tempting wrong answers.
//!
//! Knows nothing of splits, answer styles or files. Each submodule holds families of one kind.

mod calendar;
mod language;
mod lists;
mod numbers;
mod spelling;

use std::fmt;

/// The sixteen kinds of question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// The sum of two one-digit numbers.
    Add,
    /// The difference of two one-digit numbers, never negative.
    Subtract,
    /// A word backwards.
    Reverse,
    /// The number of letters of a word.
    WordLength,
    /// How often a letter stands in a word.
    CountLetter,
    /// The day of the week after or before another.
    Day,
    /// The month after or before another.
    Month,
    /// The capital of a country.
    Capital,
    /// The first, second or last letter of a word.
    LetterAt,
    /// The next number of a sequence with step 1, 2, 5 or 10.
    NextInSequence,
    /// The opposite of a word.
    Opposite,
    /// The plural of a noun.
    Plural,
    /// The simple past of a verb.
    PastTense,
    /// The number of words in a list.
    CountItems,
    /// Which of three words is of a kind.
    WhichOfThree,
    /// A word written several times.
    Repeat,
}

impl Family {
    /// All families in a fixed order.
    pub const ALL: [Family; 16] = [
        Family::Add,
        Family::Subtract,
        Family::Reverse,
        Family::WordLength,
        Family::CountLetter,
        Family::Day,
        Family::Month,
        Family::Capital,
        Family::LetterAt,
        Family::NextInSequence,
        Family::Opposite,
        Family::Plural,
        Family::PastTense,
        Family::CountItems,
        Family::WhichOfThree,
        Family::Repeat,
    ];

    /// The name written in the `family` column.
    pub fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Subtract => "subtract",
            Self::Reverse => "reverse",
            Self::WordLength => "word_length",
            Self::CountLetter => "count_letter",
            Self::Day => "day",
            Self::Month => "month",
            Self::Capital => "capital",
            Self::LetterAt => "letter_at",
            Self::NextInSequence => "next_in_sequence",
            Self::Opposite => "opposite",
            Self::Plural => "plural",
            Self::PastTense => "past_tense",
            Self::CountItems => "count_items",
            Self::WhichOfThree => "which_of_three",
            Self::Repeat => "repeat",
        }
    }

    /// Every fact of the family, in a fixed order. The seed matters only where lists of words are drawn.
    pub fn facts(self, seed: u64) -> Vec<Fact> {
        match self {
            Self::Add => numbers::add(),
            Self::Subtract => numbers::subtract(),
            Self::NextInSequence => numbers::next_in_sequence(),
            Self::Reverse => spelling::reverse(),
            Self::WordLength => spelling::word_length(),
            Self::CountLetter => spelling::count_letter(),
            Self::LetterAt => spelling::letter_at(),
            Self::Repeat => spelling::repeat(),
            Self::Day => calendar::day(),
            Self::Month => calendar::month(),
            Self::Capital => language::capital(),
            Self::Opposite => language::opposite(),
            Self::Plural => language::plural(),
            Self::PastTense => language::past_tense(),
            Self::CountItems => lists::count_items(seed),
            Self::WhichOfThree => lists::which_of_three(seed),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One question with its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// Wordings of the question, each a full prompt.
    pub asks: Vec<String>,
    /// The right answer, bare.
    pub answer: String,
    /// What a full sentence says before the answer: "The capital of France is".
    pub lead_in: String,
    /// Wrong answers that a careless person might give; never empty, never the answer.
    pub near: Vec<String>,
}

impl Fact {
    /// Puts a fact together; drops the answer and doubles from the wrong answers.
    fn new(asks: &[String], answer: impl ToString, lead_in: impl Into<String>, near: Vec<String>) -> Self {
        let answer = answer.to_string();
        let mut wrong: Vec<String> = Vec::with_capacity(near.len());
        for candidate in near {
            if candidate != answer && !candidate.is_empty() && !wrong.contains(&candidate) {
                wrong.push(candidate);
            }
        }
        Self { asks: asks.to_vec(), answer, lead_in: lead_in.into(), near: wrong }
    }
}

#[cfg(test)]
mod tests {
    use super::Family;
    use expect_test::{Expect, expect};

    fn check(family: Family, place: usize, want: Expect) {
        let facts = family.facts(1);
        let fact = &facts[place];
        want.assert_eq(&format!(
            "{}\n{} {}.\nnot {}\nof {}",
            fact.asks.join("\n"),
            fact.lead_in,
            fact.answer,
            fact.near.join(", "),
            facts.len()
        ));
    }

    #[test]
    fn every_fact_can_be_asked_and_missed() {
        for family in Family::ALL {
            for fact in family.facts(1) {
                assert!((3..=5).contains(&fact.asks.len()) && !fact.near.is_empty(), "{family} {fact:?}");
            }
        }
    }

    #[test]
    fn one_of_each_kind() {
        check(
            Family::Subtract,
            20,
            expect![[r#"
            What is 6 minus 6?
            Subtract 6 from 6.
            How much is 6 - 6?
            What is left if you take 6 away from 6?
            You have 6 coins and spend 6 of them. How many are left?
            6 minus 6 is 0.
            not 1, 2, 12
            of 45"#]],
        );
        check(
            Family::Reverse,
            31,
            expect![[r#"
            Spell the word orange backwards.
            Write orange with its letters in reverse order.
            What do you get when you reverse the word orange?
            The reverse of orange is egnaro.
            not genaro, eganro, egnaor, egnar, gnaro, orange
            of 137"#]],
        );
        check(
            Family::Day,
            3,
            expect![[r#"
            Which day comes before Tuesday?
            What is the day before Tuesday?
            Name the day just before Tuesday.
            If today is Tuesday, what day was yesterday?
            Today is Tuesday. Which day came before it?
            Before Tuesday comes Monday.
            not Wednesday, Thursday, Sunday, Tuesday
            of 14"#]],
        );
        check(
            Family::PastTense,
            5,
            expect![[r#"
            What is the past tense of make?
            Put the verb make into the past tense.
            Write the simple past of make.
            Today I make. What is the form for yesterday?
            Yesterday I made.
            not make, maked, making, found
            of 72"#]],
        );
        check(
            Family::WhichOfThree,
            2,
            expect![[r#"
                Which of these is an animal: horse, bag or elm?
                Pick the animal: horse, bag, elm.
                One of these is an animal: horse, bag, elm. Which one?
                Find the animal among horse, bag and elm.
                The animal is the horse.
                not bag, elm
                of 330"#]],
        );
    }
}

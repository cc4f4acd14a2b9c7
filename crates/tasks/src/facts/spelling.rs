//! Questions about the letters of a word, over the nouns of the word list.

use super::Fact;
use super::numbers::near_numbers;
use crate::words::nouns;

pub(super) fn reverse() -> Vec<Fact> {
    let fact = |word: &str| {
        let asks = [
            format!("Spell the word {word} backwards."),
            format!("Write {word} with its letters in reverse order."),
            format!("What do you get when you reverse the word {word}?"),
        ];
        let right: Vec<char> = word.chars().rev().collect();
        let swapped = |at: usize| {
            let mut letters = right.clone();
            letters.swap(at, at + 1);
            letters.into_iter().collect::<String>()
        };
        let near = vec![
            swapped(0),
            swapped(right.len() / 2 - 1 + right.len() % 2),
            swapped(right.len() - 2),
            right[..right.len() - 1].iter().collect(),
            right[1..].iter().collect(),
            word.to_owned(),
        ];
        let answer: String = right.iter().collect();
        Fact::new(&asks, answer, format!("The reverse of {word} is"), near)
    };
    nouns().into_iter().map(fact).collect()
}

pub(super) fn word_length() -> Vec<Fact> {
    let fact = |word: &str| {
        let asks = [
            format!("How many letters are in the word {word}?"),
            format!("Count the letters of the word {word}."),
            format!("How many letters does {word} have?"),
        ];
        let near = near_numbers(word.len() as i64, &[-1, 1, -2, 2]);
        Fact::new(&asks, word.len(), format!("The number of letters in {word} is"), near)
    };
    nouns().into_iter().map(fact).collect()
}

/// Two letters a word: the most frequent one (the first of equals) and the one after the middle.
pub(super) fn count_letter() -> Vec<Fact> {
    let count = |word: &str, letter: char| word.chars().filter(|c| *c == letter).count();
    let mut facts = Vec::new();
    for word in nouns() {
        let letters: Vec<char> = word.chars().collect();
        let mut asked = letters[0];
        for &letter in &letters {
            if count(word, letter) > count(word, asked) {
                asked = letter;
            }
        }
        let other = letters.iter().rev().find(|c| **c != asked).copied().unwrap_or(asked);
        for letter in [asked, other] {
            let asks = [
                format!("How many times does the letter {letter} appear in {word}?"),
                format!("Count the letter {letter} in the word {word}."),
                format!("How often is the letter {letter} used in the word {word}?"),
            ];
            let right = count(word, letter);
            let near = near_numbers(right as i64, &[-1, 1, 2]);
            facts.push(Fact::new(&asks, right, format!("The number of times {letter} appears in {word} is"), near));
        }
    }
    facts
}

pub(super) fn letter_at() -> Vec<Fact> {
    let mut facts = Vec::new();
    for word in nouns() {
        let letters: Vec<char> = word.chars().collect();
        let places =
            [("first", letters[0], "start"), ("second", letters[1], ""), ("last", letters[letters.len() - 1], "end")];
        for (place, right, verb) in places {
            let third = match verb {
                "" => format!("Which letter comes {place} in {word}?"),
                verb => format!("Which letter does {word} {verb} with?"),
            };
            let asks = [
                format!("What is the {place} letter of {word}?"),
                format!("Name the {place} letter of the word {word}."),
                third,
            ];
            let near = letters.iter().map(char::to_string).collect();
            facts.push(Fact::new(&asks, right, format!("The {place} letter of {word} is"), near));
        }
    }
    facts
}

pub(super) fn repeat() -> Vec<Fact> {
    let times = |word: &str, n: usize| vec![word; n].join(" ");
    let words = nouns();
    let mut facts = Vec::new();
    for (place, word) in words.iter().enumerate() {
        let other = words[(place + 1) % words.len()];
        for n in 2..=4 {
            let asks = [
                format!("Repeat the word {word} {n} times."),
                format!("Write the word {word} {n} times."),
                format!("Say {word} {n} times in a row."),
            ];
            let near = vec![times(word, n - 1), times(word, n + 1), times(other, n)];
            facts.push(Fact::new(&asks, times(word, n), "Here it is:", near));
        }
    }
    facts
}

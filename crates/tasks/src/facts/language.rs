//! Capitals, opposites, plurals and past tenses.

use super::Fact;
use crate::words::pairs::{CAPITALS, OPPOSITES, VERBS};
use crate::words::{self, nouns};

pub(super) fn capital() -> Vec<Fact> {
    let at = |place: usize, step: usize| CAPITALS[(place + step) % CAPITALS.len()].1.to_owned();
    let fact = |(place, &(country, city)): (usize, &(&str, &str))| {
        let asks = [
            format!("What is the capital of {country}?"),
            format!("Name the capital city of {country}."),
            format!("Which city is the capital of {country}?"),
            format!("Tell me the capital of {country}."),
        ];
        let near = vec![at(place, 1), at(place, 2), at(place, CAPITALS.len() - 1), at(place, CAPITALS.len() - 2)];
        Fact::new(&asks, city, format!("The capital of {country} is"), near)
    };
    CAPITALS.iter().enumerate().map(fact).collect()
}

pub(super) fn opposite() -> Vec<Fact> {
    let mut facts = Vec::new();
    for (place, &(left, right)) in OPPOSITES.iter().enumerate() {
        let next = OPPOSITES[(place + 1) % OPPOSITES.len()];
        for (word, answer) in [(left, right), (right, left)] {
            let asks = [
                format!("What is the opposite of {word}?"),
                format!("Which word means the opposite of {word}?"),
                format!("Name the opposite of {word}."),
                format!("Give a word with the opposite meaning of {word}."),
            ];
            let near = [word, next.0, next.1].map(str::to_owned).to_vec();
            facts.push(Fact::new(&asks, answer, format!("The opposite of {word} is"), near));
        }
    }
    facts
}

pub(super) fn plural() -> Vec<Fact> {
    let fact = |noun: &str| {
        let asks = [
            format!("What is the plural of {noun}?"),
            format!("Write the plural form of {noun}."),
            format!("Give the plural of the word {noun}."),
            format!("What do you call more than one {noun}?"),
        ];
        let mut near = vec![noun.to_owned(), format!("{noun}s"), format!("{noun}es")];
        if let Some(stem) = noun.strip_suffix('y') {
            near.push(format!("{stem}ies"));
        }
        Fact::new(&asks, words::plural(noun), format!("The plural of {noun} is"), near)
    };
    nouns().into_iter().map(fact).collect()
}

pub(super) fn past_tense() -> Vec<Fact> {
    let fact = |(place, &(verb, past)): (usize, &(&str, &str))| {
        let asks = [
            format!("What is the past tense of {verb}?"),
            format!("Put the verb {verb} into the past tense."),
            format!("Write the simple past of {verb}."),
            format!("Today I {verb}. What is the form for yesterday?"),
        ];
        let stem = verb.strip_suffix('e').unwrap_or(verb);
        let other = VERBS[(place + 1) % VERBS.len()].1;
        let near = vec![verb.to_owned(), format!("{stem}ed"), format!("{stem}ing"), other.to_owned()];
        Fact::new(&asks, past, "Yesterday I", near)
    };
    VERBS.iter().enumerate().map(fact).collect()
}

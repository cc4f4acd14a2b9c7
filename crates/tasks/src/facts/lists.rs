//! Questions over short lists of nouns, drawn with a seed.

use super::Fact;
use super::numbers::near_numbers;
use crate::dice::Dice;
use crate::words::{CATEGORIES, nouns};

/// Lists drawn for [`count_items`]; each serves one wording with each request, so few lists repeat.
const N_LISTS: usize = 300;
/// Triples drawn for each kind in [`which_of_three`].
const N_TRIPLES: usize = 30;

pub(super) fn count_items(seed: u64) -> Vec<Fact> {
    let words = nouns();
    let fact = |place: usize| {
        let mut dice = Dice::new(seed, &["count items", &place.to_string()]);
        let n = 2 + place % 6;
        let list = dice.draw(&words, n).join(", ");
        let asks = [
            format!("How many items are in this list: {list}?"),
            format!("Count the words: {list}."),
            format!("How many things are named here: {list}?"),
        ];
        Fact::new(&asks, n, "The number of items is", near_numbers(n as i64, &[-1, 1, -2, 2]))
    };
    (0..N_LISTS).map(fact).collect()
}

pub(super) fn which_of_three(seed: u64) -> Vec<Fact> {
    let mut facts = Vec::new();
    for category in &CATEGORIES {
        let others: Vec<&str> = CATEGORIES
            .iter()
            .filter(|other| other.kind != category.kind && !category.near.contains(&other.kind))
            .flat_map(|other| other.members)
            .copied()
            .collect();
        for place in 0..N_TRIPLES {
            let mut dice = Dice::new(seed, &["which of three", category.kind, &place.to_string()]);
            let right = category.members[place % category.members.len()];
            let mut three = dice.draw(&others, 2);
            let near: Vec<String> = three.iter().map(|w| (*w).to_owned()).collect();
            three.insert(dice.below(3), right);
            let [a, b, c] = [three[0], three[1], three[2]];
            let (kind, with_article) = (category.kind, category.with_article);
            let asks = [
                format!("Which of these is {with_article}: {a}, {b} or {c}?"),
                format!("Pick the {kind}: {a}, {b}, {c}."),
                format!("One of these is {with_article}: {a}, {b}, {c}. Which one?"),
                format!("Find the {kind} among {a}, {b} and {c}."),
            ];
            facts.push(Fact::new(&asks, right, format!("The {kind} is the"), near));
        }
    }
    facts
}

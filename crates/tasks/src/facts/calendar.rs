//! Days and months, one step forwards or backwards.

use super::Fact;
use crate::words::pairs::{DAYS, MONTHS};

pub(super) fn day() -> Vec<Fact> {
    neighbours(&DAYS, |name, after| match after {
        true => vec![
            format!("Which day comes after {name}?"),
            format!("What is the day after {name}?"),
            format!("Name the day that follows {name}."),
            format!("If today is {name}, what day is tomorrow?"),
            format!("Today is {name}. Which day comes next?"),
        ],
        false => vec![
            format!("Which day comes before {name}?"),
            format!("What is the day before {name}?"),
            format!("Name the day just before {name}."),
            format!("If today is {name}, what day was yesterday?"),
            format!("Today is {name}. Which day came before it?"),
        ],
    })
}

pub(super) fn month() -> Vec<Fact> {
    neighbours(&MONTHS, |name, after| match after {
        true => vec![
            format!("Which month comes after {name}?"),
            format!("What is the month after {name}?"),
            format!("Name the month that follows {name}."),
            format!("If it is {name} now, what month is next?"),
            format!("It is {name}. Which month comes next?"),
        ],
        false => vec![
            format!("Which month comes before {name}?"),
            format!("What is the month before {name}?"),
            format!("Name the month just before {name}."),
            format!("If it is {name} now, what month was the last one?"),
            format!("It is {name}. Which month came before it?"),
        ],
    })
}

/// Both neighbours of every name on the ring; wrong answers are the name itself and those up to two steps off.
fn neighbours(ring: &[&str], asks: impl Fn(&str, bool) -> Vec<String>) -> Vec<Fact> {
    let at = |place: usize, step: usize| ring[(place + step) % ring.len()].to_owned();
    let back = ring.len() - 1;
    let mut facts = Vec::new();
    for (place, name) in ring.iter().enumerate() {
        let near = || vec![at(place, 1), at(place, back), at(place, 2), at(place, back - 1), at(place, 0)];
        facts.push(Fact::new(&asks(name, true), at(place, 1), format!("After {name} comes"), near()));
        facts.push(Fact::new(&asks(name, false), at(place, back), format!("Before {name} comes"), near()));
    }
    facts
}

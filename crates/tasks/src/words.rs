//! The words that the questions are about: nouns by category, and how English bends a noun.
//!
//! Written for this task set. Knows nothing of questions or answers.

pub mod pairs;

/// A kind of thing with its members; no word is in two categories.
pub struct Category {
    /// The kind without an article, as in "pick the fruit".
    pub kind: &'static str,
    /// The kind with its article, as in "which of these is a fruit".
    pub with_article: &'static str,
    /// Members, singular.
    pub members: &'static [&'static str],
    /// Kinds whose members a reader could also count to this kind, so they never stand beside it.
    pub near: &'static [&'static str],
}

/// All 137 nouns.
pub const CATEGORIES: [Category; 11] = [
    Category {
        kind: "animal",
        with_article: "an animal",
        members: &[
            "cat", "dog", "horse", "mouse", "rabbit", "tiger", "lion", "wolf", "fox", "goat", "cow", "pig", "monkey",
            "camel", "bear", "frog", "goose", "duck", "snake", "zebra",
        ],
        near: &[],
    },
    Category {
        kind: "fruit",
        with_article: "a fruit",
        members: &[
            "apple", "pear", "plum", "cherry", "lemon", "melon", "peach", "mango", "banana", "grape", "fig", "orange",
            "berry",
        ],
        near: &["tree"],
    },
    Category {
        kind: "vehicle",
        with_article: "a vehicle",
        members: &[
            "car", "bus", "train", "truck", "van", "boat", "ship", "plane", "tram", "taxi", "bicycle", "wagon", "ferry",
        ],
        near: &[],
    },
    Category {
        kind: "tool",
        with_article: "a tool",
        members: &[
            "hammer", "saw", "drill", "spade", "rake", "axe", "wrench", "shovel", "chisel", "ladder", "brush", "knife",
        ],
        near: &["container"],
    },
    Category {
        kind: "piece of clothing",
        with_article: "a piece of clothing",
        members: &[
            "shirt", "coat", "hat", "scarf", "sock", "shoe", "boot", "glove", "dress", "skirt", "jacket", "belt",
            "sweater", "tie",
        ],
        near: &[],
    },
    Category {
        kind: "piece of furniture",
        with_article: "a piece of furniture",
        members: &["chair", "table", "desk", "bed", "sofa", "shelf", "bench", "stool", "cabinet", "couch", "dresser"],
        near: &["container"],
    },
    Category {
        kind: "musical instrument",
        with_article: "a musical instrument",
        members: &["piano", "violin", "guitar", "drum", "flute", "trumpet", "harp", "cello", "lute", "banjo", "tuba"],
        near: &[],
    },
    Category {
        kind: "part of the body",
        with_article: "a part of the body",
        members: &[
            "hand", "foot", "nose", "ear", "arm", "leg", "knee", "neck", "mouth", "tooth", "finger", "elbow", "thumb",
        ],
        near: &[],
    },
    Category {
        kind: "building",
        with_article: "a building",
        members: &[
            "house", "church", "school", "hotel", "castle", "barn", "tower", "museum", "library", "temple", "palace",
            "cottage",
        ],
        near: &[],
    },
    Category {
        kind: "tree",
        with_article: "a tree",
        members: &["oak", "pine", "maple", "willow", "birch", "elm", "cedar", "poplar"],
        near: &["fruit"],
    },
    Category {
        kind: "container",
        with_article: "a container",
        members: &["cup", "bottle", "box", "bag", "basket", "bucket", "jar", "barrel", "vase", "crate"],
        near: &["piece of furniture", "tool"],
    },
];

/// All nouns in the order of their categories.
pub fn nouns() -> Vec<&'static str> {
    CATEGORIES.iter().flat_map(|category| category.members).copied().collect()
}

/// Plurals that no rule gives.
const IRREGULAR_PLURALS: [(&str, &str); 9] = [
    ("mouse", "mice"),
    ("goose", "geese"),
    ("foot", "feet"),
    ("tooth", "teeth"),
    ("wolf", "wolves"),
    ("knife", "knives"),
    ("shelf", "shelves"),
    ("scarf", "scarves"),
    ("mango", "mangoes"),
];

/// The plural of a noun of [`nouns`].
pub fn plural(noun: &str) -> String {
    if let Some((_, irregular)) = IRREGULAR_PLURALS.iter().find(|(singular, _)| *singular == noun) {
        return (*irregular).to_owned();
    }
    if let Some(stem) = noun.strip_suffix('y').filter(|stem| !stem.ends_with(['a', 'e', 'i', 'o', 'u'])) {
        return format!("{stem}ies");
    }
    if ["s", "x", "z", "ch", "sh"].iter().any(|ending| noun.ends_with(ending)) {
        return format!("{noun}es");
    }
    format!("{noun}s")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{nouns, plural};

    #[test]
    fn one_hundred_and_thirty_seven_different_nouns() {
        assert_eq!(nouns().len(), 137);
        assert_eq!(nouns().into_iter().collect::<HashSet<_>>().len(), 137);
    }

    #[test]
    fn plurals() {
        let some = ["cat", "cherry", "monkey", "box", "bus", "church", "brush", "dress", "knife", "goose", "piano"];
        assert_eq!(
            some.map(plural).join(" "),
            "cats cherries monkeys boxes buses churches brushes dresses knives geese pianos"
        );
    }
}

//! Prompts: facts asked in every wording, with an optional request about form, cut to size, split and put to use.
//!
//! The split and the use of a prompt follow from its text alone, so they stay when families or sizes change. Knows
//! nothing of how an answer is worded.

use std::collections::HashSet;

use crate::dice::Dice;
use crate::{Fact, Family};

/// Most prompts a family may have, so that the spelling families do not drown the others.
const MAX_PER_FAMILY: usize = 970;
/// Held-out prompts in a hundred.
const HELDOUT_PERCENT: u64 = 10;
/// Prompts in a hundred of the train split that are kept from the demonstrations.
const PREFERENCE_PERCENT: u64 = 10;
/// Held-out prompts that may be used to choose settings.
const N_TUNE: usize = 300;

/// A request about form that closes the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Request {
    /// No request.
    Free,
    /// "Give only the answer."
    OnlyAnswer,
    /// "Answer in a full sentence."
    FullSentence,
}

impl Request {
    const ALL: [Request; 3] = [Request::Free, Request::OnlyAnswer, Request::FullSentence];

    fn suffix(self) -> &'static str {
        match self {
            Self::Free => "",
            Self::OnlyAnswer => " Give only the answer.",
            Self::FullSentence => " Answer in a full sentence.",
        }
    }
}

/// What a prompt may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Use {
    /// Train split: demonstrations and reward rows.
    Sft,
    /// Train split: the preference round, unseen by policy and reward model.
    Preference,
    /// Held out: may be looked at to choose settings.
    HeldoutTune,
    /// Held out: for the report alone.
    HeldoutFinal,
}

impl Use {
    /// The name written in the `use` column.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sft => "sft",
            Self::Preference => "preference",
            Self::HeldoutTune => "heldout_tune",
            Self::HeldoutFinal => "heldout_final",
        }
    }

    /// The name written in the `split` column.
    pub fn split(self) -> &'static str {
        match self {
            Self::Sft | Self::Preference => "train",
            Self::HeldoutTune | Self::HeldoutFinal => "heldout",
        }
    }
}

/// One prompt with everything known about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The text the model sees.
    pub prompt: String,
    /// The request that closes the prompt.
    pub request: Request,
    /// Kind of question.
    pub family: Family,
    /// The fact behind it.
    pub fact: Fact,
    /// What the prompt may be used for.
    pub purpose: Use,
}

/// The whole task set, in the order of a digest of the prompts, so that any first part is a fair mix.
pub fn questions(seed: u64) -> Vec<Question> {
    let mut all: Vec<Question> = Family::ALL.into_iter().flat_map(|family| of_family(family, seed)).collect();
    all.sort_by_key(|question| rank(&question.prompt, "order"));
    let mut seen = HashSet::new();
    all.retain(|question| seen.insert(question.prompt.clone()));

    let mut heldout: Vec<usize> = (0..all.len()).filter(|&place| all[place].purpose == Use::HeldoutFinal).collect();
    heldout.sort_by_key(|&place| rank(&all[place].prompt, "tune"));
    for &place in heldout.iter().take(N_TUNE) {
        all[place].purpose = Use::HeldoutTune;
    }
    all
}

/// All wordings of all facts of a family, or a fair part of [`MAX_PER_FAMILY`] if there are more.
fn of_family(family: Family, seed: u64) -> Vec<Question> {
    let mut questions = Vec::new();
    for fact in family.facts(seed) {
        for ask in &fact.asks {
            for request in Request::ALL {
                let prompt = format!("{ask}{}", request.suffix());
                let purpose = purpose(&prompt);
                questions.push(Question { prompt, request, family, fact: fact.clone(), purpose });
            }
        }
    }
    questions.sort_by_key(|question| rank(&question.prompt, "part"));
    questions.truncate(MAX_PER_FAMILY);
    questions
}

/// Use by the digest of the prompt; [`questions`] later gives some of the held-out prompts to tuning.
fn purpose(prompt: &str) -> Use {
    if rank(prompt, "split") % 100 < HELDOUT_PERCENT {
        Use::HeldoutFinal
    } else if rank(prompt, "use") % 100 < PREFERENCE_PERCENT {
        Use::Preference
    } else {
        Use::Sft
    }
}

fn rank(prompt: &str, label: &str) -> u64 {
    Dice::new(0, &[label, prompt]).bits()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use super::{Use, questions};
    use expect_test::expect;

    #[test]
    fn sizes() {
        let all = questions(1);
        let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
        for question in &all {
            *sizes.entry(question.family.name()).or_default() += 1;
            *sizes.entry(question.purpose.name()).or_default() += 1;
        }
        let lines: Vec<String> = sizes.iter().map(|(name, n)| format!("{name} {n}")).collect();
        expect![[r#"
            13369 prompts
            add 970
            capital 600
            count_items 970
            count_letter 970
            day 210
            heldout_final 1041
            heldout_tune 300
            letter_at 970
            month 360
            next_in_sequence 960
            opposite 970
            past_tense 864
            plural 970
            preference 1225
            repeat 970
            reverse 970
            sft 10803
            subtract 675
            which_of_three 970
            word_length 970"#]]
        .assert_eq(&format!("{} prompts\n{}", all.len(), lines.join("\n")));
    }

    #[test]
    fn no_prompt_twice_and_the_split_ignores_the_seed() {
        let (one, two) = (questions(1), questions(2));
        let prompts: HashSet<&str> = one.iter().map(|q| q.prompt.as_str()).collect();
        assert_eq!(prompts.len(), one.len());
        let split = |purpose: Use| purpose.split();
        let by_prompt: BTreeMap<&str, &super::Question> = one.iter().map(|q| (q.prompt.as_str(), q)).collect();
        for question in &two {
            let same = by_prompt.get(question.prompt.as_str());
            assert!(same.is_none_or(|q| split(q.purpose) == split(question.purpose)), "{}", question.prompt);
        }
    }
}

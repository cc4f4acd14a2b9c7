//! How an answer is worded: careful and careless styles, right and wrong, and what each is worth.
//!
//! Right and wrong answers are worded by the same code, so that nothing but the answer itself tells them apart.

use sluice_eval::format::{Adherence, FormatRules, hedges};
use sluice_eval::{Check, check};

use crate::dice::Dice;
use crate::{Question, Request};

/// A way to word an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Style {
    /// "Paris."
    Short,
    /// "The capital of France is Paris."
    Sentence,
    /// "The answer is Paris."
    Answer,
    /// "I think it is Paris."
    Think,
    /// "Maybe it is Paris."
    Maybe,
}

impl Style {
    /// The careful styles.
    pub const CAREFUL: [Style; 3] = [Style::Short, Style::Sentence, Style::Answer];
    /// The careless styles.
    pub const CARELESS: [Style; 2] = [Style::Think, Style::Maybe];

    /// The careful styles that do what the prompt requests, each as often as a careful person would use it.
    pub fn fitting(request: Request) -> &'static [Style] {
        match request {
            Request::Free => &Self::CAREFUL,
            Request::OnlyAnswer => &[Style::Short],
            Request::FullSentence => &[Style::Sentence, Style::Sentence, Style::Answer],
        }
    }

    /// The name written in the `style` column.
    pub fn name(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Sentence => "sentence",
            Self::Answer => "answer",
            Self::Think => "think",
            Self::Maybe => "maybe",
        }
    }

    /// The full text of an answer in this style.
    pub fn word(self, question: &Question, answer: &str) -> String {
        match self {
            Self::Short => format!("{answer}."),
            Self::Sentence => format!("{} {answer}.", question.fact.lead_in),
            Self::Answer => format!("The answer is {answer}."),
            Self::Think => format!("I think it is {answer}."),
            Self::Maybe => format!("Maybe it is {answer}."),
        }
    }
}

/// A wrong answer: mostly a near miss, one time in four the answer to another question of the family.
///
/// `family_answers` are the answers of all questions of the family, doubles included.
pub fn wrong_answer(question: &Question, family_answers: &[&str], dice: &mut Dice) -> String {
    let right = question.fact.answer.as_str();
    if dice.chance(1, 4) {
        let far = *dice.pick(family_answers);
        if far != right {
            return far.to_owned();
        }
    }
    dice.pick(&question.fact.near).clone()
}

/// What a worded answer is worth, each from 0 to 1; the objectives of the reward model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Targets {
    /// 1 if the first real sentence ends in the right answer.
    pub correctness: f32,
    /// 1 for one short sentence that ends in a full stop and does not hedge.
    pub format: f32,
    /// 1 for one word, down to 0 from eleven words on.
    pub brevity: f32,
    /// 1 plain, ¼ for "I think", 0 for "maybe".
    pub confidence: f32,
    /// 1 if the request about form was met.
    pub instruction: f32,
}

impl Targets {
    /// Names of the objectives, in the order of [`Self::values`].
    pub const NAMES: [&'static str; 5] = ["correctness", "format", "brevity", "confidence", "instruction"];

    /// Judges a text, not how it was made: the checker decides what is right.
    pub fn of(question: &Question, response: &str) -> Self {
        let one_if = |holds: bool| if holds { 1.0 } else { 0.0 };
        let n_words = response.split_whitespace().count();
        let adheres = Adherence::of(response, true, FormatRules::default()).holds();
        let right = Check::LastSentence.agrees(response, &question.fact.answer);
        Self {
            correctness: one_if(right),
            format: one_if(adheres && response.ends_with('.')),
            brevity: (1.0 - (n_words as f32 - 1.0) / 10.0).clamp(0.0, 1.0),
            confidence: match hedges(response) {
                false => 1.0,
                true if response.starts_with("I think") => 0.25,
                true => 0.0,
            },
            instruction: one_if(meets(question, response)),
        }
    }

    /// The five values in the order of [`Self::NAMES`].
    pub fn values(self) -> [f32; 5] {
        let Self { correctness, format, brevity, confidence, instruction } = self;
        [correctness, format, brevity, confidence, instruction]
    }
}

/// Whether a text has the form that was asked for: a bare answer has no word before it.
fn meets(question: &Question, response: &str) -> bool {
    let openings = ["The answer is ", "I think it is ", "Maybe it is "];
    let sentence = check::first_sentence(response);
    let full =
        sentence.starts_with(&question.fact.lead_in) || openings.iter().any(|opening| sentence.starts_with(opening));
    match question.request {
        Request::Free => true,
        Request::OnlyAnswer => !full,
        Request::FullSentence => full,
    }
}

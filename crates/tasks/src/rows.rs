//! Demonstrations for the policy and labelled answers for the reward model, made from questions and answer styles.
//!
//! Knows nothing of files. Each row throws dice of its own prompt, so rows do not depend on each other.

use std::collections::HashMap;

use crate::answers::{Style, Targets, wrong_answer};
use crate::dice::Dice;
use crate::{Family, Question, Use};

/// How often a careless demonstrator is right.
const CARELESS_RIGHT: (usize, usize) = (1, 5);
/// Careful demonstrations a prompt.
const N_CAREFUL: usize = 2;

/// A prompt with an answer and what the answer is worth.
#[derive(Debug, Clone, PartialEq)]
pub struct Row<'a> {
    /// The question answered.
    pub question: &'a Question,
    /// The full text of the answer.
    pub response: String,
    /// Style it was worded in.
    pub style: Style,
    /// What it is worth, by the checker.
    pub targets: Targets,
}

impl<'a> Row<'a> {
    fn new(question: &'a Question, style: Style, answer: &str) -> Self {
        Self::of_text(question, style, style.word(question, answer))
    }

    fn of_text(question: &'a Question, style: Style, response: String) -> Self {
        Self { question, targets: Targets::of(question, &response), style, response }
    }
}

/// Right answers in careful styles, two for each prompt of use `sft`.
pub fn clean(questions: &[Question], seed: u64) -> Vec<Row<'_>> {
    of_use(questions, Use::Sft).flat_map(|question| careful(question, seed, "clean")).collect()
}

/// Half careful, half careless: for each prompt of use `sft` two careful answers, and one with each hedge that is
/// right one time in five.
pub fn mixed(questions: &[Question], seed: u64) -> Vec<Row<'_>> {
    let answers = family_answers(questions);
    let mut rows = Vec::new();
    for question in of_use(questions, Use::Sft) {
        rows.extend(careful(question, seed, "mixed"));
        let mut dice = Dice::new(seed, &["careless", &question.prompt]);
        for style in Style::CARELESS {
            let right = dice.chance(CARELESS_RIGHT.0, CARELESS_RIGHT.1);
            let answer = match right {
                true => question.fact.answer.clone(),
                false => wrong_answer(question, &answers[&question.family], &mut dice),
            };
            rows.push(Row::new(question, style, &answer));
        }
    }
    rows
}

/// Three right and three wrong answers to each prompt of one use, as neighbours in the same style: one that fits the
/// request, one in any careful style with a slip of form now and then, one with a hedge.
pub fn labelled(questions: &[Question], of: Use, seed: u64) -> Vec<Row<'_>> {
    let answers = family_answers(questions);
    let mut rows = Vec::new();
    for question in of_use(questions, of) {
        let mut dice = Dice::new(seed, &["labelled", &question.prompt]);
        let styles =
            [*dice.pick(Style::fitting(question.request)), *dice.pick(&Style::CAREFUL), *dice.pick(&Style::CARELESS)];
        for (place, style) in styles.into_iter().enumerate() {
            let slip = if place == 1 { Slip::draw(&mut dice) } else { Slip::None };
            let wrong = wrong_answer(question, &answers[&question.family], &mut dice);
            for answer in [question.fact.answer.as_str(), wrong.as_str()] {
                let response = slip.apply(style.word(question, answer), answer);
                rows.push(Row::of_text(question, style, response));
            }
        }
    }
    rows
}

/// A slip of form that leaves the answer as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slip {
    None,
    /// The full stop is missing.
    NoStop,
    /// The answer is said a second time.
    SaidTwice,
}

impl Slip {
    /// One answer in eight lacks its stop, one in eight says it twice.
    fn draw(dice: &mut Dice) -> Self {
        match dice.below(8) {
            0 => Self::NoStop,
            1 => Self::SaidTwice,
            _ => Self::None,
        }
    }

    fn apply(self, mut response: String, answer: &str) -> String {
        match self {
            Self::None => {}
            Self::NoStop => {
                response.pop();
            }
            Self::SaidTwice => response.push_str(&format!(" It is {answer}.")),
        }
        response
    }
}

fn of_use(questions: &[Question], wanted: Use) -> impl Iterator<Item = &Question> {
    questions.iter().filter(move |question| question.purpose == wanted)
}

fn careful<'a>(question: &'a Question, seed: u64, label: &str) -> Vec<Row<'a>> {
    let mut dice = Dice::new(seed, &[label, &question.prompt]);
    let styles = dice.draw(Style::fitting(question.request), N_CAREFUL);
    let cycle = styles.iter().cycle().take(N_CAREFUL);
    cycle.map(|style| Row::new(question, *style, &question.fact.answer)).collect()
}

fn family_answers(questions: &[Question]) -> HashMap<Family, Vec<&str>> {
    let mut answers: HashMap<Family, Vec<&str>> = HashMap::new();
    for question in questions {
        answers.entry(question.family).or_default().push(&question.fact.answer);
    }
    answers
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::questions;
    use expect_test::{Expect, expect};

    fn check(rows: &[Row<'_>], want: Expect) {
        let share = |holds: &dyn Fn(&Row<'_>) -> bool| {
            100.0 * rows.iter().filter(|row| holds(row)).count() as f64 / rows.len() as f64
        };
        want.assert_eq(&format!(
            "{} rows, right {:.1} %, format {:.1} %, hedged {:.1} %",
            rows.len(),
            share(&|row| row.targets.correctness == 1.0),
            share(&|row| row.targets.format == 1.0),
            share(&|row| row.targets.confidence < 1.0),
        ));
    }

    #[test]
    fn shares() {
        let all = questions(1);
        check(&clean(&all, 1), expect!["21606 rows, right 100.0 %, format 100.0 %, hedged 0.0 %"]);
        check(&mixed(&all, 1), expect!["43212 rows, right 60.1 %, format 50.0 %, hedged 50.0 %"]);
        check(&labelled(&all, Use::Sft, 1), expect!["64818 rows, right 50.0 %, format 58.1 %, hedged 33.3 %"]);
        check(&labelled(&all, Use::HeldoutTune, 1), expect!["1800 rows, right 50.0 %, format 57.3 %, hedged 33.3 %"]);
    }

    /// The generator knows which answer it words; the checker reads only the text. They never disagree.
    #[test]
    fn checker_and_generator_agree_on_every_answer() {
        let all = questions(1);
        let answers = family_answers(&all);
        let mut n_answers = 0;
        let mut seen = HashSet::new();
        let facts = all.iter().filter(|q| seen.insert((q.family, &q.fact.lead_in, &q.fact.answer)));
        for question in facts {
            let mut wrong: Vec<&str> = question.fact.near.iter().map(String::as_str).collect();
            let mut dice = Dice::new(1, &["agree", &question.prompt]);
            wrong.extend((0..3).map(|_| *dice.pick(&answers[&question.family])));
            let right = [question.fact.answer.as_str()];
            for (answer, is_right) in right.iter().map(|a| (a, true)).chain(wrong.iter().map(|a| (a, false))) {
                if !is_right && *answer == question.fact.answer {
                    continue;
                }
                for style in Style::CAREFUL.into_iter().chain(Style::CARELESS) {
                    for slip in [Slip::None, Slip::NoStop, Slip::SaidTwice] {
                        let text = slip.apply(style.word(question, answer), answer);
                        let judged = Targets::of(question, &text).correctness == 1.0;
                        assert_eq!(judged, is_right, "{} / {text}", question.prompt);
                        n_answers += 1;
                    }
                }
            }
        }
        assert!(n_answers > 100_000, "{n_answers}");
    }

    #[test]
    fn demonstrations_keep_away_from_preference_and_heldout() {
        let all = questions(1);
        for row in clean(&all, 1).iter().chain(&mixed(&all, 1)) {
            assert_eq!(row.question.purpose, Use::Sft);
        }
    }
}

//! What an objective asks of its reference model: log-probs of each pair, and for a KL estimate those of mismatched
//! responses.
//!
//! Owns which sequences are asked for. The answers depend on the pair alone, or on it and the next one, and on no other
//! row, on no objective and on no rate, so that a caller may keep them and ask for those it does not have.

use std::sync::atomic::AtomicBool;

use sluice_lm::causal::CausalLm;

use crate::batch::{Sequence, TokenPair};
use crate::logps::logps_by_row;
use crate::objective::Objective;

/// Log-prob sums of a pair under the reference model, nats.
#[derive(Clone, Debug, PartialEq)]
pub struct ReferenceLogps {
    pub chosen: f64,
    pub rejected: f64,
    /// Only an objective that estimates a KL asks for it.
    pub mismatched: Option<Mismatched>,
}

/// The next pair's chosen response after this pair's prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Mismatched {
    pub sequence: Sequence,
    /// Sum under the reference model, nats.
    pub logp: f64,
}

/// All that an objective asks of its reference model about some pairs. Questions are numbered: first the pairs, then,
/// where the objective estimates a KL, one mismatched sequence for each of them.
pub struct ReferenceQuestions<'a> {
    pairs: &'a [TokenPair],
    mismatched: Vec<Sequence>,
}

impl<'a> ReferenceQuestions<'a> {
    /// A mismatched sequence has at most `max_length` tokens, as the pairs have.
    pub fn new(objective: &Objective, pairs: &'a [TokenPair], max_length: usize) -> Self {
        let mismatched = if objective.reads_kl() { mismatched_sequences(pairs, max_length) } else { Vec::new() };
        Self { pairs, mismatched }
    }

    pub fn len(&self) -> usize {
        self.pairs.len() + self.mismatched.len()
    }

    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Tokens that a question has the model read.
    pub fn n_tokens(&self, number: usize) -> usize {
        self.sequences(number).iter().map(|sequence| sequence.n_tokens()).sum()
    }

    fn sequences(&self, number: usize) -> Vec<&Sequence> {
        match self.pairs.get(number) {
            Some(pair) => vec![&pair.chosen, &pair.rejected],
            None => vec![&self.mismatched[number - self.pairs.len()]],
        }
    }

    /// Asks some of the questions, in batches of at most `max_tokens` tokens. `on_answer` is told the number of each
    /// question and its sums: chosen and rejected of a pair, or that of a mismatched sequence.
    ///
    /// `None` when `cancel` was set before the end.
    pub fn ask<M: CausalLm>(
        &self,
        model: &M,
        numbers: &[usize],
        max_tokens: usize,
        cancel: &AtomicBool,
        on_answer: &mut dyn FnMut(usize, Vec<f64>),
    ) -> Option<()> {
        let rows: Vec<Vec<&Sequence>> = numbers.iter().map(|number| self.sequences(*number)).collect();
        logps_by_row(model, &rows, max_tokens, cancel, &mut |batch, sums| {
            batch.iter().zip(sums).for_each(|(row, sums)| on_answer(numbers[*row], sums));
        })
    }

    /// The answers to all questions, in their order, as a task takes them; `None` if one does not have the sums it
    /// should.
    pub fn answered(self, answers: &[Vec<f64>]) -> Option<Vec<ReferenceLogps>> {
        let (of_pairs, of_mismatched) = answers.split_at_checked(self.pairs.len())?;
        let mut mismatched: Vec<Option<Mismatched>> = vec![None; self.pairs.len()];
        for ((place, sequence), answer) in mismatched.iter_mut().zip(self.mismatched).zip(of_mismatched) {
            let [logp] = answer[..] else { return None };
            *place = Some(Mismatched { sequence, logp });
        }
        let logps = of_pairs.iter().zip(mismatched).map(|(answer, mismatched)| match answer[..] {
            [chosen, rejected] => Some(ReferenceLogps { chosen, rejected, mismatched }),
            _ => None,
        });
        logps.collect()
    }
}

/// The reference log-probs an objective needs of each pair, all of them asked for. See [`ReferenceQuestions`].
///
/// `None` when `cancel` was set before the end.
pub fn reference_logps<M: CausalLm>(
    model: &M,
    pairs: &[TokenPair],
    objective: &Objective,
    max_length: usize,
    max_tokens: usize,
    cancel: &AtomicBool,
) -> Option<Vec<ReferenceLogps>> {
    let questions = ReferenceQuestions::new(objective, pairs, max_length);
    let numbers: Vec<usize> = (0..questions.len()).collect();
    let mut answers = vec![Vec::new(); numbers.len()];
    questions.ask(model, &numbers, max_tokens, cancel, &mut |number, sums| answers[number] = sums)?;
    questions.answered(&answers)
}

/// Each pair's prompt with the chosen response of the next pair, cut to `max_length`.
fn mismatched_sequences(pairs: &[TokenPair], max_length: usize) -> Vec<Sequence> {
    let shifted = pairs.iter().cycle().skip(1);
    let mismatched = pairs.iter().zip(shifted).map(|(pair, next)| {
        let (prompt, response) = (pair.chosen.prompt(), next.chosen.response());
        let room = max_length.saturating_sub(prompt.len()).max(1);
        Sequence::new(prompt, &response[..response.len().min(room)])
    });
    mismatched.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::{Kto, Rrhf};

    fn pairs() -> Vec<TokenPair> {
        let pair = |prompt: &[u32], chosen: &[u32], rejected: &[u32]| TokenPair {
            chosen: Sequence::new(prompt, chosen),
            rejected: Sequence::new(prompt, rejected),
        };
        vec![pair(&[2, 7, 8], &[9, 1], &[1]), pair(&[2], &[5, 6, 1], &[4, 1])]
    }

    #[test]
    fn a_mismatched_response_is_that_of_the_next_pair() {
        let shown = |max_length: usize| -> Vec<(Vec<u32>, Vec<u32>)> {
            let parts = |sequence: &Sequence| (sequence.prompt().to_vec(), sequence.response().to_vec());
            mismatched_sequences(&pairs(), max_length).iter().map(parts).collect()
        };
        assert_eq!(shown(9), [(vec![2, 7, 8], vec![5, 6, 1]), (vec![2], vec![9, 1])]);
        // What another row has does not matter: only the limit cuts.
        assert_eq!(shown(5), [(vec![2, 7, 8], vec![5, 6]), (vec![2], vec![9, 1])]);
    }

    #[test]
    fn answers_go_to_their_questions() {
        let pairs = pairs();
        let kto = Objective::Kto(Kto { beta: 0.1, desirable_weight: 1.0, undesirable_weight: 1.0 });
        let answers = [vec![-1.0, -2.0], vec![-3.0, -4.0], vec![-5.0], vec![-6.0]];
        let logps = ReferenceQuestions::new(&kto, &pairs, 9).answered(&answers).expect("each has its sums");
        let told = |logps: &ReferenceLogps| (logps.chosen, logps.rejected, logps.mismatched.as_ref().map(|m| m.logp));
        assert_eq!(logps.iter().map(told).collect::<Vec<_>>(), [(-1.0, -2.0, Some(-5.0)), (-3.0, -4.0, Some(-6.0))]);
        assert_eq!(ReferenceQuestions::new(&kto, &pairs, 9).answered(&[vec![-1.0], vec![], vec![], vec![]]), None);
        let without = ReferenceQuestions::new(&Objective::Rrhf(Rrhf { lambda: 1.0 }), &pairs, 9);
        assert_eq!(without.len(), 2);
    }
}

//! `simpo-batch`: token ids and labels of both truncations, log-probs, losses and gradients of one batch.

use std::sync::atomic::AtomicBool;

use serde::Deserialize;
use sluice_lm::params::{ParamMut, Parameters};
use sluice_lm::template::Message;
use sluice_train::backward::{Kept, add_gradients};
use sluice_train::batch::{Formatter, Limits, PromptKeep, ResponseHeader, Sequence, TokenPair, Truncation, split_turn};
use sluice_train::logps::pair_logps;
use sluice_train::objective::{MarginLoss, Objective, PairFacts, Simpo};
use sluice_train::optimizer::GradientSum;
use sluice_train::task::{PairTask, Task};

use crate::fixture::{self, Tensors, max_abs, norm};

#[derive(Deserialize)]
struct Row {
    raw_prompt: String,
    raw_chosen: String,
    raw_rejected: String,
    text_prompt: String,
    text_chosen: String,
    text_rejected: String,
    #[serde(flatten)]
    ids: RowIds,
    loss: f64,
    logp_mean_chosen: f64,
    logp_mean_rejected: f64,
}

/// Token ids and labels of a pair; a label of −100 is not predicted.
#[derive(Deserialize)]
pub struct RowIds {
    chosen_input_ids: Vec<u32>,
    chosen_labels: Vec<i64>,
    rejected_input_ids: Vec<u32>,
    rejected_labels: Vec<i64>,
}

impl RowIds {
    pub fn pair(&self) -> TokenPair {
        let sequence = |ids: &[u32], labels: &[i64]| {
            let n_prompt = labels.iter().take_while(|&&label| label == -100).count();
            Sequence::new(&ids[..n_prompt], &ids[n_prompt..])
        };
        TokenPair {
            chosen: sequence(&self.chosen_input_ids, &self.chosen_labels),
            rejected: sequence(&self.rejected_input_ids, &self.rejected_labels),
        }
    }
}

pub const SIMPO: Objective = Objective::Simpo(Simpo {
    beta: 10.0,
    gamma_beta_ratio: 0.5,
    loss: MarginLoss::Sigmoid,
    label_smoothing: 0.0,
    sft_weight: 0.0,
});

fn rows() -> Vec<Row> {
    fixture::json("simpo-batch/rows.json")
}

#[test]
fn texts_and_ids_are_those_of_the_reference() {
    let (checkpoint, _) = fixture::gemma2_tiny();
    let template = checkpoint.template().expect("the checkpoint has a chat template");
    let limits = Limits::new(64, 36, Truncation::Reference, PromptKeep::End).expect("room for a response");
    let formatter = Formatter::new(&checkpoint, ResponseHeader::Response, limits).expect("a template and an eos");
    for row in rows() {
        let prompt = [Message::user(row.raw_prompt.as_str())];
        let turn = |response: &str| {
            split_turn(template, &prompt, response, ResponseHeader::Response).expect("the template extends its prompt")
        };
        let (chosen, rejected) = (turn(&row.raw_chosen), turn(&row.raw_rejected));
        assert_eq!((&chosen.prompt, &chosen.response), (&row.text_prompt, &row.text_chosen));
        assert_eq!((&rejected.prompt, &rejected.response), (&row.text_prompt, &row.text_rejected));
        let (pair, _) = formatter.pair(&prompt, &row.raw_chosen, &row.raw_rejected).expect("every text has tokens");
        assert_eq!(pair, row.ids.pair());
    }
    println!("| fixture simpo-batch | texts, token ids and labels of 12 pairs | 0 | exact |");
}

#[test]
fn the_header_may_stand_in_the_prompt() {
    let (checkpoint, _) = fixture::gemma2_tiny();
    let template = checkpoint.template().expect("the checkpoint has a chat template");
    let prompt = [Message::user("Why?")];
    let turn =
        split_turn(template, &prompt, "Because.", ResponseHeader::Prompt).expect("the template extends its prompt");
    assert_eq!(turn.prompt, "<bos><start_of_turn>user\nWhy?<end_of_turn>\n<start_of_turn>model\n");
    assert_eq!(turn.response, "Because.<end_of_turn>\n");
}

/// Tolerances of the README: 10 × what f32 differs from f64.
#[test]
fn logps_losses_and_gradients_are_those_of_the_reference() {
    let (_, model) = fixture::gemma2_tiny();
    let rows = rows();
    let pairs: Vec<TokenPair> = rows.iter().map(|row| row.ids.pair()).collect();
    let never = AtomicBool::new(false);

    let sums = pair_logps(&model, &pairs, 300, &never).expect("nobody cancels");
    let means = sums.iter().zip(&pairs).flat_map(|(&(chosen, rejected), pair)| {
        [chosen / pair.chosen.n_predicted() as f64, rejected / pair.rejected.n_predicted() as f64]
    });
    let means: Vec<f64> = means.collect();
    let expected: Vec<f64> = rows.iter().flat_map(|row| [row.logp_mean_chosen, row.logp_mean_rejected]).collect();
    let logp_error = max_abs(&means, &expected);

    let task = PairTask::new(&SIMPO, &pairs, &[], 300).expect("the pairs have responses");
    let losses = rows.iter().enumerate().map(|(row, _)| {
        let totals = task.totals(&model, &[row]);
        add_gradients(&model, &task, &[row], &totals, Kept::All, &mut GradientSum::default()).0
    });
    let loss_error = max_abs(&losses.collect::<Vec<_>>(), &rows.iter().map(|row| row.loss).collect::<Vec<_>>());

    let mut gradients = GradientSum::default();
    let all: Vec<usize> = (0..pairs.len()).collect();
    let totals = task.totals(&model, &all);
    for micro_batch in all.chunks(5) {
        add_gradients(&model, &task, micro_batch, &totals, Kept::All, &mut gradients);
    }
    let gradient_error = worst_gradient(model, &gradients);
    let summary: serde_json::Value = fixture::json("simpo-batch/summary.json");
    let grad_norm = summary["grad_norm_total"].as_f64().expect("a number");
    let norm_error = (gradients.norm() - grad_norm).abs() / grad_norm;

    let facts = pairs.iter().map(|pair| PairFacts {
        chosen_len: pair.chosen.n_predicted(),
        rejected_len: pair.rejected.n_predicted(),
        reference: None,
    });
    let losses: Vec<f64> = rows.iter().map(|row| row.loss).collect();
    assert!(max_abs(&SIMPO.losses_of_sums(&sums, &facts.collect::<Vec<_>>()), &losses) <= 7e-4);

    fixture::row("simpo-batch", "mean log-probs", logp_error, 8e-5);
    fixture::row("simpo-batch", "losses", loss_error, 7e-4);
    fixture::row("simpo-batch", "gradients, by norm, worst parameter", gradient_error, 7e-5);
    fixture::row("simpo-batch", "norm of the whole gradient, relative", norm_error, 7e-5);
    assert!(logp_error <= 8e-5 && loss_error <= 7e-4 && gradient_error <= 7e-5 && norm_error <= 7e-5);
}

/// Norm of the difference over the norm, the worst of the parameters whose gradients the fixture has.
fn worst_gradient(mut model: impl Parameters, gradients: &GradientSum) -> f64 {
    let expected = Tensors::open("simpo-batch/batch.safetensors");
    let mut worst = 0.0_f64;
    let mut n_compared = 0;
    model.walk(&mut |name, param| {
        let with_gradient = [
            "model.layers.0.mlp.down_proj.weight",
            "model.layers.1.self_attn.q_proj.weight",
            "model.norm.weight",
            "model.embed_tokens.weight",
        ];
        if !with_gradient.contains(&name) {
            return;
        }
        n_compared += 1;
        let expected = expected.values(&format!("grad.{name}"));
        let found: Vec<f64> = gradients.get(name).expect("a gradient").to_data().iter::<f64>().collect();
        let found = published_order(found, &param);
        let difference = norm(found.iter().zip(&expected).map(|(f, e)| f - e));
        worst = worst.max(difference / norm(expected.iter().copied()));
    });
    assert_eq!(n_compared, 4);
    worst
}

/// Values of a parameter in the order of its published tensor.
pub fn published_order(values: Vec<f64>, param: &ParamMut<'_>) -> Vec<f64> {
    match param {
        ParamMut::Vector(_) | ParamMut::Matrix(_) => values,
        ParamMut::Linear(weight) => {
            let [n_in, n_out] = weight.dims();
            (0..n_in * n_out).map(|i| values[(i % n_in) * n_out + i / n_in]).collect()
        }
    }
}

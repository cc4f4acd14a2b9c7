//! The gradient of a micro-batch.
//!
//! Owns the two ways to it: all blocks on one tape, or, block by block, each computed anew when its gradient is due, so that
//! only what flows between blocks is kept. Both do the same operations on the same numbers, and their results are equal to
//! the bit on the CPU. The ends, where a model meets its vocabulary, are on no tape: a table's gradient is a table more, and
//! goes straight into the sum. Knows nothing of steps or of the optimiser.
//!
//! n tokens, d hidden size

use burn::tensor::{Gradients, Tensor};
use sluice_lm::packed::Packed;
use sluice_lm::params::{tracked, tracked_where};
use sluice_lm::stack::{Part, Stack};

use crate::logps::floats;
use crate::metrics::PairTally;
use crate::optimizer::GradientSum;
use crate::task::{Read, Share, Task};

/// What a backward pass finds and what it computes anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kept {
    /// What every operation needs is kept from the forward pass.
    #[default]
    All,
    /// Only the inputs of the blocks are kept; each block is computed a second time. A third more work, and memory for one
    /// block instead of all.
    Blocks,
}

impl Kept {
    /// What suits a model of this size: past 268 M parameters what the blocks keep takes gigabytes for each few thousand
    /// tokens, and they are computed twice.
    pub fn suited_to(n_parameters: usize) -> Self {
        if n_parameters > 256 << 20 { Self::Blocks } else { Self::All }
    }
}

/// Adds the gradients of `rows` and gives their part of the loss and what is counted of them.
pub fn add_gradients<M: Stack, T: Task<M>>(
    model: &M,
    task: &T,
    rows: &[usize],
    totals: &T::Totals,
    kept: Kept,
    gradients: &mut GradientSum,
) -> (f64, PairTally) {
    let batch = task.batch(rows);
    let trains = |name: &str| task.trains(name);
    let embedded_nd = model.embedded(&batch);
    let (counted, grad_nd) = match kept {
        Kept::All => {
            let (mut on_tape, embedded_nd) = (tracked(model), leaf(embedded_nd));
            let hidden_nd = on_tape.hidden_from(embedded_nd.clone(), &batch);
            let (counted, grad_nd) = through_head(model, task, hidden_nd.clone().inner(), rows, totals, gradients);
            let mut found = pulled_back(hidden_nd, grad_nd);
            gradients.add(&mut on_tape, &mut found, &trains);
            (counted, passed_on(&embedded_nd, &mut found))
        }
        Kept::Blocks => {
            let mut inputs = vec![embedded_nd];
            for i in 0..model.n_blocks() {
                inputs.push(model.block(i, inputs[i].clone(), &batch));
            }
            let last_nd = inputs.pop().expect("what the first block reads is there");
            let (counted, mut grad_nd) = through_norm(model, task, last_nd, rows, totals, gradients);
            for (i, input_nd) in inputs.into_iter().enumerate().rev() {
                grad_nd = through_block(model, i, input_nd, &batch, grad_nd, &trains, gradients);
            }
            (counted, grad_nd)
        }
    };
    let embedding = model.embedding();
    embedding.add_gradient(batch.ids(), grad_nd, gradients.of_table(embedding.table));
    counted
}

/// Adds the gradients of the final norm and of what follows it, and gives that of the norm's input.
fn through_norm<M: Stack, T: Task<M>>(
    model: &M,
    task: &T,
    input_nd: Tensor<2>,
    rows: &[usize],
    totals: &T::Totals,
    gradients: &mut GradientSum,
) -> ((f64, PairTally), Tensor<2>) {
    let (mut on_tape, input_nd) = (tracked_where(model, |name| Part::of(name) == Part::Around), leaf(input_nd));
    let hidden_nd = on_tape.normed(input_nd.clone());
    let (counted, grad_nd) = through_head(model, task, hidden_nd.clone().inner(), rows, totals, gradients);
    let mut found = pulled_back(hidden_nd, grad_nd);
    gradients.add(&mut on_tape, &mut found, &|name| task.trains(name));
    (counted, passed_on(&input_nd, &mut found))
}

/// Adds the gradients of what follows the final norm, and gives that of its output, the hidden states; with the loss, and what
/// is counted.
fn through_head<M: Stack, T: Task<M>>(
    model: &M,
    task: &T,
    hidden_nd: Tensor<2>,
    rows: &[usize],
    totals: &T::Totals,
    gradients: &mut GradientSum,
) -> ((f64, PairTally), Tensor<2>) {
    let predictions = task.predictions(rows);
    let logps_m = leaf(predictions.logps(model, hidden_nd.clone()));
    let read_nd = leaf(hidden_nd.clone());
    let read = Read { hidden_nd: read_nd.clone(), predictions: &predictions, logps_m: logps_m.clone() };
    let mut on_tape = tracked_where(model, |name| Part::of(name) == Part::Around);
    let Share { loss, tally } = task.share(&on_tape, read, rows, totals);
    let mut found = loss.backward();
    gradients.add(&mut on_tape, &mut found, &|name| task.trains(name));
    let of_loss = read_nd.grad_remove(&mut found);
    let head = model.vocabulary_head();
    let of_logps = logps_m.grad_remove(&mut found).map(|grad_m| {
        let sum_n = gradients.of_table(head.table);
        head.add_gradient(hidden_nd.clone(), &predictions.rows, &predictions.targets, grad_m, sum_n)
    });
    let grad_nd = match (of_loss, of_logps) {
        (Some(of_loss), Some(of_logps)) => of_loss + of_logps,
        (Some(grad_nd), None) | (None, Some(grad_nd)) => grad_nd,
        (None, None) => hidden_nd.zeros_like(),
    };
    ((total(loss), tally), grad_nd)
}

/// Adds the gradients of block `i` and gives that of its input.
fn through_block<M: Stack>(
    model: &M,
    i: usize,
    input_nd: Tensor<2>,
    batch: &Packed,
    grad_nd: Tensor<2>,
    trains: &dyn Fn(&str) -> bool,
    gradients: &mut GradientSum,
) -> Tensor<2> {
    let mut on_tape = tracked_where(model, |name| Part::of(name) == Part::Block(i));
    let input_nd = leaf(input_nd);
    let mut found = pulled_back(on_tape.block(i, input_nd.clone(), batch), grad_nd);
    gradients.add(&mut on_tape, &mut found, trains);
    passed_on(&input_nd, &mut found)
}

/// A tensor as the beginning of a tape.
fn leaf<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    tensor.autodiff().require_grad()
}

/// The gradients of what `output` was made from, given its own.
fn pulled_back(output_nd: Tensor<2>, grad_nd: Tensor<2>) -> Gradients {
    // The gradient of this sum with respect to the output is `grad_nd` itself.
    (output_nd * grad_nd.autodiff()).sum().backward()
}

/// The gradient of what a tape began with.
fn passed_on(input_nd: &Tensor<2>, found: &mut Gradients) -> Tensor<2> {
    input_nd.grad_remove(found).expect("a block passes its input on")
}

fn total(loss: Tensor<1>) -> f64 {
    floats(loss).iter().sum()
}

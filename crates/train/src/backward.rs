//! The gradient of a micro-batch.
//!
//! Owns the two ways to it: all operations on one tape, or, block by block, each computed anew when its gradient is due, so
//! that only what flows between blocks is kept. Both do the same operations on the same numbers, and their results are
//! equal to the bit on the CPU. Knows nothing of steps or of the optimiser.
//!
//! n tokens, d hidden size

use burn::tensor::Tensor;
use sluice_lm::packed::Packed;
use sluice_lm::params::{tracked, tracked_where};
use sluice_lm::stack::{Part, Stack};

use crate::logps::floats;
use crate::metrics::PairTally;
use crate::optimizer::GradientSum;
use crate::task::{Share, Task};

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
    match kept {
        Kept::All => {
            let mut model = tracked(model);
            let Share { loss, tally } = task.share(&model, model.hidden(&batch), rows, totals);
            gradients.add(&mut model, &mut loss.backward(), &trains);
            (total(loss), tally)
        }
        Kept::Blocks => {
            let mut inputs = vec![model.embedded(&batch)];
            for i in 0..model.n_blocks() {
                inputs.push(model.block(i, inputs[i].clone(), &batch));
            }
            // The embedding has a gradient from a tied head, too; the two are added before they join those of other batches,
            // as on one tape.
            let mut around = GradientSum::default();
            let mut top = tracked_where(model, |name| Part::of(name) == Part::Around);
            let output_nd = leaf(inputs.pop());
            let Share { loss, tally } = task.share(&top, top.normed(output_nd.clone()), rows, totals);
            let mut found = loss.backward();
            around.add(&mut top, &mut found, &trains);
            let mut grad_nd = output_nd.grad_remove(&mut found);
            drop((top, found));
            for i in (0..model.n_blocks()).rev() {
                let Some(grad) = grad_nd else { break };
                grad_nd = Some(through_block(model, i, inputs.pop(), &batch, grad, &trains, gradients));
            }
            if let Some(grad_nd) = grad_nd {
                let mut bottom = tracked_where(model, |name| Part::of(name) == Part::Around);
                let mut found = pulled_back(bottom.embedded(&batch), grad_nd);
                around.add(&mut bottom, &mut found, &trains);
            }
            gradients.join(around);
            (total(loss), tally)
        }
    }
}

/// Adds the gradients of block `i` and gives that of its input.
fn through_block<M: Stack>(
    model: &M,
    i: usize,
    input_nd: Option<Tensor<2>>,
    batch: &Packed,
    grad_nd: Tensor<2>,
    trains: &dyn Fn(&str) -> bool,
    gradients: &mut GradientSum,
) -> Tensor<2> {
    let mut model = tracked_where(model, |name| Part::of(name) == Part::Block(i));
    let input_nd = leaf(input_nd);
    let mut found = pulled_back(model.block(i, input_nd.clone(), batch), grad_nd);
    gradients.add(&mut model, &mut found, trains);
    input_nd.grad_remove(&mut found).expect("a block passes its input on")
}

fn leaf(input_nd: Option<Tensor<2>>) -> Tensor<2> {
    input_nd.expect("each block has left its input").autodiff().require_grad()
}

/// The gradients of what `output` was made from, given its own.
fn pulled_back(output_nd: Tensor<2>, grad_nd: Tensor<2>) -> burn::tensor::Gradients {
    // The gradient of this sum with respect to the output is `grad_nd` itself.
    (output_nd * grad_nd.autodiff()).sum().backward()
}

fn total(loss: Tensor<1>) -> f64 {
    floats(loss).iter().sum()
}

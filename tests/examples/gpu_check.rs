//! `just gpu-check`: a model on the CPU and on the first GPU, compared on the reference logits of its fixture.
//!
//! Built with the feature `cuda` of crate `stages`; without it the GPU is refused in words.

use std::error::Error;
use std::process::ExitCode;

use burn::tensor::Device;
use sluice_lm::causal::CausalLm;
use sluice_lm::checkpoint::Checkpoint;
use sluice_lm::model::load_causal;
use sluice_lm::packed::Packed;
use sluice_lm::stack::Stack;
use sluice_lm::weights::values;
use sluice_stages::model::placement;
use sluice_stages::{Place, Precision};
use sluice_tests::fixture;

/// The models and how far a logit may differ: f32 on both sides, sums in another order.
const CASES: [(&str, f32); 2] = [("gemma2-tiny", 5e-3), ("gemma2-tiny-bf16", 5e-3)];

/// Longer than a sliding window of the fixtures.
const N_TOKENS: usize = 45;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let gpu = sluice_stages::Device { place: Place::Cuda { index: 0 }, precision: Precision::F32 };
    let gpu = placement(gpu)?.device;
    let mut n_failed = 0;
    for (name, tolerance) in CASES {
        let checkpoint = Checkpoint::open(&fixture(name))?;
        let (on_cpu, on_gpu) = (logits(&checkpoint, &Device::flex())?, logits(&checkpoint, &gpu)?);
        let pairs = on_cpu.iter().zip(&on_gpu);
        let largest = pairs.map(|(cpu, gpu)| (cpu - gpu).abs()).fold(0.0, f32::max);
        // A NaN fails too.
        let same = largest <= tolerance && on_gpu.iter().all(|logit| logit.is_finite());
        n_failed += usize::from(!same);
        println!("{name:18} largest difference {largest:.2e}, tolerance {tolerance:.0e}: {}", word(same));
    }
    println!("{} passed, {n_failed} failed", CASES.len() - n_failed);
    Ok(if n_failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn word(same: bool) -> &'static str {
    if same { "the same" } else { "they differ" }
}

/// Logits of every position of one made-up row.
fn logits(checkpoint: &Checkpoint, device: &Device) -> Result<Vec<f32>, Box<dyn Error>> {
    let model = load_causal(checkpoint, device)?;
    let ids: Vec<u32> = (0..N_TOKENS).map(|position| ((position * 37 + 11) % model.vocab_size()) as u32).collect();
    let rows: Vec<usize> = (0..N_TOKENS).collect();
    Ok(values(model.logits(model.hidden(&Packed::new(&[ids])), &rows)))
}

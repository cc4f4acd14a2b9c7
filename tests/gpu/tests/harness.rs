//! The checks of a GPU, made on the CPU: in f32, where they must be exact, and in bf16, where the compositions run that the
//! GPU runs too.

use std::path::Path;

use sluice_gpu::device::{Place, Subject};
use sluice_gpu::fixture::Fixtures;
use sluice_gpu::verdict::{Finding, n_failed, table};
use sluice_gpu::{fidelity, job, kernels, objectives, soak, training};
use sluice_lm::precision::Precision;

fn fixtures() -> Fixtures {
    Fixtures::under(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
}

fn subject(precision: Precision) -> Subject {
    let (device, _) = Place::Cpu.open().expect("the CPU is always there");
    Subject::new(Place::Cpu, &device, precision)
}

#[track_caller]
fn check(findings: &[Finding], n_expected: usize) {
    println!("{}", table(findings));
    assert_eq!(n_failed(findings), 0, "\n{}", table(findings));
    // A check that is left out would pass, too.
    assert_eq!(findings.len(), n_expected);
}

#[test]
fn inference_in_f32() {
    check(&fidelity::findings(&subject(Precision::F32), &fixtures()), 20);
}

#[test]
fn inference_in_bf16() {
    check(&fidelity::findings(&subject(Precision::Bf16), &fixtures()), 20);
}

#[test]
fn training_in_f32() {
    check(&training::findings(&subject(Precision::F32), &fixtures()), 14);
}

#[test]
fn training_in_bf16() {
    check(&training::findings(&subject(Precision::Bf16), &fixtures()), 20);
}

#[test]
fn losses_of_every_objective() {
    check(&objectives::findings(&subject(Precision::F32), &fixtures()).expect("the fixture reads"), 9);
}

#[test]
fn operations_in_f32() {
    check(&kernels::findings(&subject(Precision::F32), kernels::Shapes::SMALL), 44);
}

#[test]
fn operations_in_bf16() {
    check(&kernels::findings(&subject(Precision::Bf16), kernels::Shapes::SMALL), 41);
}

/// Where the GPU's backend runs on the CPU, it imitates tensor cores.
#[cfg(feature = "cube-cpu")]
#[test]
fn flash_attention_beside_blocks() {
    let (device, _) = Place::CubeCpu.open().expect("the CPU is always there");
    for precision in [Precision::F32, Precision::Bf16] {
        check(&sluice_gpu::attention::findings(&Subject::new(Place::CubeCpu, &device, precision), true), 5);
    }
}

#[test]
fn the_job_in_f32() {
    let done = job::run(&subject(Precision::F32), &fixtures(), job::Size::PART);
    check(&done.expect("the job runs").findings(), 3);
}

#[test]
fn memory_is_measured_after_each_step() {
    let mut steps = Vec::new();
    let mut measure = |step, loss: f64| {
        steps.push((step, loss.is_finite()));
        vec![("made up".to_owned(), 7)]
    };
    let series = soak::soak(&subject(Precision::F32), &fixtures(), 3, &mut measure).expect("the steps can be made");
    assert_eq!(steps, [(1, true), (2, true), (3, true)]);
    assert_eq!(series.iter().map(|series| series.bytes.as_slice()).collect::<Vec<_>>(), [[7, 7, 7]]);
}

//! What a check found, and how a list of findings is shown.

use std::any::Any;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::{Value, json};

use crate::CheckError;
use crate::device::Arithmetic;

/// One thing that was compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    pub what: String,
    pub error: f64,
    /// The largest error that passes.
    pub tolerance: f64,
}

impl Finding {
    /// An error that must not exceed `tolerance`.
    pub fn new(what: impl Into<String>, error: f64, tolerance: f64) -> Self {
        Self { what: what.into(), error, tolerance }
    }

    /// Something that is right or wrong.
    pub fn holds(what: impl Into<String>, holds: bool) -> Self {
        Self::new(what, if holds { 0.0 } else { 1.0 }, 0.0)
    }

    /// Not a number never passes.
    pub fn passes(&self) -> bool {
        self.error <= self.tolerance
    }

    /// As JSON; an error that is not a number is null.
    pub fn json(&self) -> Value {
        let Self { what, error, tolerance } = self;
        json!({"what": what, "error": error, "tolerance": tolerance, "passes": self.passes()})
    }
}

/// The findings of a check. One that cannot be made is a finding that fails, and the checks after it are made all the same.
pub fn attempt(what: &str, check: impl FnOnce() -> Result<Vec<Finding>, CheckError>) -> Vec<Finding> {
    told(check).unwrap_or_else(|message| vec![Finding::holds(format!("{what}: {message}"), false)])
}

/// What a function gives, or why it gives nothing, in one line. A panic is a reason, too: a backend has no other way to say
/// that it lacks an operation or that memory is used up.
pub fn told<T>(run: impl FnOnce() -> Result<T, CheckError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(outcome) => outcome.map_err(|error| chain(&error)),
        Err(panic) => Err(said(&*panic)),
    }
}

/// An error and what it comes from, in one line.
fn chain(error: &CheckError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        // A string takes no error.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

/// The first line of what a panic said.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without words");
    text.lines().next().unwrap_or_default().to_owned()
}

/// Single values where they are comparable between implementations, which is in f32, and their mean elsewhere. With tf32
/// factors, which have three bits more than those of bf16, a quarter of the tolerance for bf16 is allowed.
pub fn compared(
    arithmetic: Arithmetic,
    what: impl Into<String>,
    found: &[f32],
    expected: &[f32],
    [f32, bf16]: [f64; 2],
) -> Finding {
    let what = what.into();
    match arithmetic {
        Arithmetic::F32 => Finding::new(what, largest(found, expected), f32),
        Arithmetic::Tf32 => Finding::new(format!("{what}, mean"), mean(found, expected), bf16 / 4.0),
        Arithmetic::Bf16 => Finding::new(format!("{what}, mean"), mean(found, expected), bf16),
    }
}

/// Number of findings that do not pass.
pub fn n_failed(findings: &[Finding]) -> usize {
    findings.iter().filter(|finding| !finding.passes()).count()
}

/// One line a finding: measured error, tolerance, verdict.
pub fn table(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.what.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let Finding { what, error, tolerance } = finding;
        let verdict = if finding.passes() { "passes" } else { "FAILS" };
        // A string takes no error.
        let _ = writeln!(text, "  {what:width$}  error {error:8.1e}  tolerance {tolerance:8.1e}  {verdict}");
    }
    text
}

/// Largest absolute difference; not a number where the lengths differ or a value is not finite.
pub fn largest(found: &[f32], expected: &[f32]) -> f64 {
    if found.len() != expected.len() {
        return f64::NAN;
    }
    let differences = found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs());
    worst(differences)
}

/// The largest of some errors; not a number when one of them is not.
pub fn worst(errors: impl IntoIterator<Item = f64>) -> f64 {
    errors
        .into_iter()
        .fold(0.0, |worst: f64, next| if worst.is_nan() || next.is_nan() { f64::NAN } else { worst.max(next) })
}

/// Mean absolute difference.
pub fn mean(found: &[f32], expected: &[f32]) -> f64 {
    if found.len() != expected.len() {
        return f64::NAN;
    }
    let sum: f64 = found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs()).sum();
    sum / found.len().max(1) as f64
}

/// Norm of the difference over the norm of what is expected.
pub fn relative(found: &[f32], expected: &[f32]) -> f64 {
    if found.len() != expected.len() {
        return f64::NAN;
    }
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut found.iter().zip(expected).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    difference / norm(&mut expected.iter().map(|b| f64::from(*b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_number_fails() {
        assert_eq!(largest(&[1.0, 2.5], &[1.0, 2.0]), 0.5);
        assert_eq!(mean(&[1.0, 2.5], &[1.0, 2.0]), 0.25);
        assert_eq!(relative(&[3.0, 5.0], &[3.0, 4.0]), 0.2);
        for broken in [largest(&[f32::NAN, 1.0], &[0.0, 0.0]), largest(&[1.0], &[]), mean(&[f32::NAN], &[0.0])] {
            assert!(!Finding::new("x", broken, f64::INFINITY).passes());
        }
        assert!(Finding::holds("x", true).passes() && !Finding::holds("x", false).passes());
    }

    #[test]
    fn a_check_that_cannot_be_made_fails() {
        let broken = || Err(CheckError::Shape { what: "a square".to_owned() });
        let found = [attempt("first", broken), attempt("second", || panic!("no such kernel\nat all"))].concat();
        let told: Vec<&str> = found.iter().map(|finding| finding.what.as_str()).collect();
        assert_eq!(told, ["first: expected a square", "second: no such kernel"]);
        assert_eq!(n_failed(&found), 2);
        assert_eq!(attempt("third", || Ok(vec![Finding::holds("x", true)])), [Finding::holds("x", true)]);
    }
}

//! What a scene saw, and what of it must not be. Knows no scene.

use std::error::Error;
use std::fmt::{Debug, Display};

/// What a scene saw. What is well is printed at once, what is not is kept for the verdict too.
#[derive(Default)]
pub struct Findings {
    faults: Vec<String>,
}

/// Why a scene has no findings.
pub enum Stop {
    /// The machine does not allow it, for this reason.
    Skipped(String),
    /// The harness itself could not go on.
    Broken(Box<dyn Error>),
}

impl<E: Into<Box<dyn Error>>> From<E> for Stop {
    fn from(error: E) -> Stop {
        Stop::Broken(error.into())
    }
}

impl Findings {
    pub fn faults(&self) -> &[String] {
        &self.faults
    }

    /// Tells something that was seen.
    pub fn saw(&self, what: impl Display) {
        println!("  {what}");
    }

    /// Something that must not be was seen.
    pub fn fault(&mut self, what: impl Display) {
        println!("  ! {what}");
        self.faults.push(what.to_string());
    }

    /// Something that must be so; `what` says what it is.
    pub fn expect(&mut self, holds: bool, what: impl Display) {
        if holds { self.saw(what) } else { self.fault(format!("not so: {what}")) }
    }

    /// Two things that must be equal; told only if they are not.
    pub fn equal<T: PartialEq + Debug>(&mut self, what: impl Display, found: T, expected: T) {
        if found != expected {
            self.fault(format!("{what}: {found:?}, expected {expected:?}"));
        }
    }

    /// Takes over what somebody else found wrong; `place` says where.
    pub fn take(&mut self, place: impl Display, faults: Vec<String>) {
        faults.into_iter().for_each(|fault| self.fault(format!("{place}: {fault}")));
    }
}

//! Numbers that are already in range: each is checked once, when it is made.
//! Owns the ranges and their wording; refuses to know which parameter uses which.

use crate::leaf::{LeafValue, ToLeaf};

/// Number types over `f64`. `new` answers `None` outside of `RANGE`; a value that exists is finite and in range.
macro_rules! fractional {
    ($($(#[$doc:meta])* $name:ident, $range:literal, $allows:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
        pub struct $name(f64);

        impl $name {
            /// What is allowed, in words.
            pub const RANGE: &'static str = $range;

            pub fn new(value: f64) -> Option<Self> {
                let allows: fn(f64) -> bool = $allows;
                // Adding zero turns -0 into 0, so that both spellings give one key.
                (value.is_finite() && allows(value)).then_some(Self(value + 0.0))
            }

            pub const fn get(self) -> f64 {
                self.0
            }

            /// A default written in this crate; a test reads each of them back through `new`.
            pub(crate) const fn preset(value: f64) -> Self {
                Self(value)
            }
        }

        impl ToLeaf for $name {
            fn to_leaf(&self) -> LeafValue {
                LeafValue::Float(self.0)
            }
        }

        impl crate::reader::Read for $name {
            fn read(node: &crate::tree::Node, reader: &mut crate::reader::Reader<'_>) -> Option<Self> {
                let value = reader.number(node, Self::RANGE)?;
                Self::new(value).or_else(|| reader.out_of_range(node, Self::RANGE))
            }
        }
    )*};
}

/// Any finite number. It has no default, and so no preset.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Finite(f64);

impl Finite {
    /// What is allowed, in words.
    pub const RANGE: &'static str = "a finite number";

    pub fn new(value: f64) -> Option<Self> {
        // As above: -0 is 0.
        value.is_finite().then_some(Self(value + 0.0))
    }

    pub const fn get(self) -> f64 {
        self.0
    }
}

impl ToLeaf for Finite {
    fn to_leaf(&self) -> LeafValue {
        LeafValue::Float(self.0)
    }
}

impl crate::reader::Read for Finite {
    fn read(node: &crate::tree::Node, reader: &mut crate::reader::Reader<'_>) -> Option<Self> {
        let value = reader.number(node, Self::RANGE)?;
        Self::new(value).or_else(|| reader.out_of_range(node, Self::RANGE))
    }
}

/// Number types over an unsigned integer, up to what a leaf can hold.
macro_rules! whole {
    ($($(#[$doc:meta])* $name:ident($inner:ty), $range:literal, $allows:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name($inner);

        impl $name {
            /// What is allowed, in words.
            pub const RANGE: &'static str = $range;

            pub fn new(value: $inner) -> Option<Self> {
                let allows: fn($inner) -> bool = $allows;
                allows(value).then_some(Self(value))
            }

            pub const fn get(self) -> $inner {
                self.0
            }

            /// A default written in this crate; a test reads each of them back through `new`.
            pub(crate) const fn preset(value: $inner) -> Self {
                Self(value)
            }
        }

        impl ToLeaf for $name {
            fn to_leaf(&self) -> LeafValue {
                LeafValue::Int(i64::try_from(self.0).unwrap_or(i64::MAX))
            }
        }

        impl crate::reader::Read for $name {
            fn read(node: &crate::tree::Node, reader: &mut crate::reader::Reader<'_>) -> Option<Self> {
                let value = reader.integer(node, Self::RANGE)?;
                match <$inner>::try_from(value) {
                    Ok(value) => Self::new(value).or_else(|| reader.out_of_range(node, Self::RANGE)),
                    Err(_) if value < 0 => reader.out_of_range(node, Self::RANGE),
                    Err(_) => reader.out_of_range(node, &format!("at most {}", <$inner>::MAX)),
                }
            }
        }
    )*};
}

fractional! {
    /// Softmax temperature; 0 takes the most likely token.
    Temperature, "a number from 0 (the most likely token) to 100", |x| (0.0..=100.0).contains(&x);
    /// A share of a whole, both ends included.
    Fraction, "a number from 0 to 1", |x| (0.0..=1.0).contains(&x);
    /// A share that leaves something over.
    ProperFraction, "a number from 0 up to, but not including, 1", |x| (0.0..1.0).contains(&x);
    /// A share of something: never nothing.
    PositiveFraction, "a number above 0 and at most 1", |x| x > 0.0 && x <= 1.0;
    /// A level strictly between none and all.
    Level, "a number above 0 and below 1", |x| x > 0.0 && x < 1.0;
    /// A label-flip rate; from one half on, the label would mean its opposite.
    Smoothing, "a number from 0 up to, but not including, 0.5", |x| (0.0..0.5).contains(&x);
    /// A rate, scale or weight that must act.
    Positive, "a number above 0", |x| x > 0.0;
    /// A weight or margin; 0 switches it off.
    NonNegative, "a number from 0 up", |x| x >= 0.0;
}

whole! {
    /// How many of something, at least one.
    Count(u32), "a whole number from 1 up", |n| n >= 1;
    /// Answers to one prompt; more than anybody asks for would be a slip that fills the memory.
    Samples(u32), "a whole number from 1 to 10000", |n| (1..=10_000).contains(&n);
    /// How many of something, none allowed.
    Amount(u32), "a whole number from 0 up", |_| true;
    /// The root of a random sequence.
    Seed(u64), "a whole number from 0 to 9223372036854775807", |n| i64::try_from(n).is_ok();
}

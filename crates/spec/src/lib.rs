//! Pipeline files: YAML text to a typed [`Pipeline`], or every fault at once with its place.
//!
//! Owns the file format: kinds, parameters, defaults, ranges, names, profiles, references, overrides.
//! Knows nothing of files, tables or models: it is given text and gives back values and positions.
//!
//! The way of the text: [`parse`] → `yaml` (a located tree) → `document` (profile, overrides, references) →
//! `matrix` (cells) → `reader` (typed stages) → `circle`.

mod cell;
mod choice;
mod circle;
mod diagnostic;
mod document;
mod dtype;
mod entry;
mod index;
mod interpolate;
mod leaf;
mod limits;
mod location;
mod matrix;
mod names;
mod number;
mod overrides;
mod pipeline;
mod reader;
mod secret;
mod span;
pub mod stage;
mod suggest;
mod tree;
mod yaml;

pub use cell::{Cell, CellNameError, Coordinate, Pinned, split_product};
pub use diagnostic::{Code, Diagnostic, Diagnostics, Related};
pub use dtype::Dtype;
pub use leaf::{Leaf, LeafSink, LeafValue};
pub use limits::Limit;
pub use names::{ModelName, Product, ProfileName, StageName, TableKind, Tag};
pub use number::{
    Amount, Count, Finite, Fraction, Level, NonNegative, Positive, PositiveFraction, ProperFraction, Samples, Seed,
    Smoothing, Temperature,
};
pub use pipeline::{Location, Model, Pipeline};
pub use secret::{Secret, SecretRef};
pub use span::{Located, Place, SourceId, Sources, Span};
pub use stage::test::{Check, Severity, Test, TestName};
pub use stage::{Better, Expects, Input, Kind, KindName, ModelRef, Source, Stage, StageProduct, TableRef};
pub use suggest::did_you_mean;

/// What is decided outside of the file.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The profile to use; `None` takes the first of the file.
    pub profile: Option<String>,
    /// `PATH=VALUE` overrides, applied in this order.
    pub set: Vec<String>,
}

/// Reads a pipeline file. `name` is what the file is called in messages.
///
/// # Errors
///
/// Every fault of the text, the profile and the overrides, in the order of the text.
pub fn parse(name: &str, text: &str, options: &Options) -> Result<Pipeline, Diagnostics> {
    document::read(name, text, options)
}

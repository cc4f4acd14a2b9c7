//! A result made again and held against what is stored: rows of the stages that make them one by one, and the whole of
//! the others. Owns what counts as the same, as nearly the same and as different, kind by kind.
//!
//! Nothing that earlier runs know is used, and nothing is kept: the attempt of the context is to be one that remembers
//! nothing.

mod answers;
mod comparisons;
mod scores;
mod whole;

use arrow::array::RecordBatch;
use sluice_spec::stage::Kind;
use sluice_store::Output;

use crate::{Produced, StageContext, StageError};

/// Examples that are kept of what is not exactly the same.
const N_EXAMPLES: usize = 5;

/// What is made again.
#[derive(Debug, Clone, Copy)]
pub struct Recheck<'a> {
    /// The stored outputs, in the order of `Kind::products`.
    pub stored: &'a [Output],
    /// Rows of the first of them, ascending. A stage that is made as a whole is made as a whole.
    pub rows: &'a [u64],
    /// Whether the result was computed in another family of arithmetic than that of this device.
    pub is_foreign: bool,
}

/// How a thing that was made again compares with the stored one. The later, the worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Likeness {
    /// To the bit.
    Exact,
    /// Within the tolerance of the kind.
    Near,
    Different,
}

/// Something that is not exactly the same.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    pub likeness: Likeness,
    /// Which row it is, as a user would find it.
    pub row: String,
    /// What was stored and what it is now.
    pub what: String,
    /// How far it is off, in the unit of the tolerance; orders examples of one likeness.
    deviation: f64,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// What was compared: `rows`, or `results` where a result is one thing.
    pub unit: &'static str,
    pub n_exact: u64,
    pub n_near: u64,
    pub n_different: u64,
    /// What `Near` means here.
    pub tolerance: String,
    /// The worst first.
    pub worst: Vec<Example>,
    /// What was made again as a whole and came out different.
    pub produced: Option<Produced>,
}

/// Makes rows of a stage's result again and compares them.
///
/// # Errors
/// Those of a run of the stage.
pub fn verify(kind: &Kind, context: &StageContext<'_>, recheck: Recheck<'_>) -> Result<Verified, StageError> {
    match kind {
        Kind::Sample(params) => answers::verify(params, context, recheck),
        Kind::Score(params) => scores::verify(params, context, recheck),
        Kind::Evaluate(params) => comparisons::verify(params, context, recheck),
        Kind::Ingest(_) | Kind::Pair(_) | Kind::Sql(_) => whole::tables(kind, context, recheck),
        Kind::Train(_) => whole::training(kind, context, recheck),
    }
}

/// Whether a stage is made again as a whole, whatever rows are asked for.
pub const fn is_whole(kind: &Kind) -> bool {
    match kind {
        Kind::Sample(_) | Kind::Score(_) | Kind::Evaluate(_) => false,
        Kind::Ingest(_) | Kind::Pair(_) | Kind::Sql(_) | Kind::Train(_) => true,
    }
}

/// All rows of a stored table.
fn stored_table(context: &StageContext<'_>, recheck: &Recheck<'_>, at: usize) -> Result<Vec<RecordBatch>, StageError> {
    let output = &recheck.stored[at];
    let failed = |source| StageError::ReadStored { output: output.name.clone(), source };
    context.store.read_table(output).map_err(failed)
}

/// The rows at these places, ascending.
fn picked<T>(rows: impl Iterator<Item = T>, places: &[u64]) -> Vec<T> {
    let mut places = places.iter().peekable();
    let wanted = (0..).zip(rows).filter(|(at, _)| places.next_if_eq(&at).is_some());
    wanted.map(|(_, row)| row).collect()
}

impl Verified {
    fn new(unit: &'static str, tolerance: String) -> Self {
        Self { unit, n_exact: 0, n_near: 0, n_different: 0, tolerance, worst: Vec::new(), produced: None }
    }

    /// Counts one comparison, and keeps it if it is among the worst.
    fn count(&mut self, compared: Compared, row: impl FnOnce() -> String) {
        let Compared { likeness, what, deviation } = compared;
        match likeness {
            Likeness::Exact => {
                self.n_exact += 1;
                return;
            }
            Likeness::Near => self.n_near += 1,
            Likeness::Different => self.n_different += 1,
        }
        let better = |one: &Example| (one.likeness, one.deviation) < (likeness, deviation);
        let at = self.worst.iter().position(better).unwrap_or(self.worst.len());
        if at < N_EXAMPLES {
            self.worst.insert(at, Example { likeness, row: row(), what, deviation });
            self.worst.truncate(N_EXAMPLES);
        }
    }
}

/// One comparison.
#[derive(Debug, Clone, PartialEq)]
struct Compared {
    likeness: Likeness,
    what: String,
    deviation: f64,
}

impl Compared {
    fn exact() -> Self {
        Self { likeness: Likeness::Exact, what: String::new(), deviation: 0.0 }
    }

    fn different(what: String) -> Self {
        Self { likeness: Likeness::Different, what, deviation: f64::INFINITY }
    }

    /// Two numbers that should be one.
    fn numbers(name: &str, stored: f32, now: f32, tolerance: Tolerance) -> Self {
        if stored.to_bits() == now.to_bits() {
            return Self::exact();
        }
        let deviation = tolerance.deviation(stored, now);
        // A NaN is as far off as can be.
        let deviation = if deviation.is_nan() { f64::INFINITY } else { deviation };
        let likeness = if deviation <= 1.0 { Likeness::Near } else { Likeness::Different };
        Self { likeness, what: format!("{name} {stored} is {now} now"), deviation }
    }

    /// The worse of two.
    fn worse(self, other: Self) -> Self {
        if (other.likeness, other.deviation) > (self.likeness, self.deviation) { other } else { self }
    }
}

/// How far two numbers may be apart: a share of the stored one, or of 1 where that is less.
#[derive(Debug, Clone, Copy)]
struct Tolerance {
    share: f32,
}

impl Tolerance {
    /// Within one family of arithmetic only the order of a sum may differ, as between processors with other vectors.
    /// Between families the products are rounded to 8 bits in one and to 24 in the other.
    const fn of(recheck: &Recheck<'_>) -> Self {
        Self { share: if recheck.is_foreign { 0.02 } else { 1e-4 } }
    }

    /// 1 at the edge of the tolerance.
    fn deviation(self, stored: f32, now: f32) -> f64 {
        f64::from((now - stored).abs()) / f64::from(self.share * stored.abs().max(1.0))
    }

    fn text(self, what: &str) -> String {
        format!("{what} within {} of its size, or of 1", self.share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_exact_near_or_different() {
        let same = Tolerance { share: 1e-4 };
        let check = |stored: f32, now: f32, expected| {
            assert_eq!(Compared::numbers("x", stored, now, same).likeness, expected, "{stored} and {now}");
        };
        check(1.5, 1.5, Likeness::Exact);
        check(0.0, -0.0, Likeness::Near);
        check(1.5, 1.500_1, Likeness::Near);
        check(1.5, 1.501, Likeness::Different);
        // Below 1 the difference itself counts.
        check(0.001, 0.001_09, Likeness::Near);
        check(1000.0, 1000.09, Likeness::Near);
        check(1.0, f32::NAN, Likeness::Different);
        check(f32::NAN, f32::NAN, Likeness::Exact);
    }

    #[test]
    fn the_worst_are_kept_worst_first() {
        let mut verified = Verified::new("rows", String::new());
        for (at, now) in [1.0, 1.000_02, 2.0, 1.000_09, f32::NAN, 1.5, 1.000_01, 1.1].into_iter().enumerate() {
            verified.count(Compared::numbers("x", 1.0, now, Tolerance { share: 1e-4 }), || at.to_string());
        }
        let rows: Vec<&str> = verified.worst.iter().map(|example| example.row.as_str()).collect();
        assert_eq!((verified.n_exact, verified.n_near, verified.n_different), (1, 3, 4));
        assert_eq!(rows, ["4", "2", "5", "7", "3"]);
    }
}

//! `verify`: its words and options.

use clap::{Args, value_parser};

/// `verify [FILE] [STAGE]...`
#[derive(Debug, Args)]
#[command(
    after_help = "A row is exact if it comes out to the bit, near if it is within the tolerance that the answer names \
    (as after a change of processor), and different otherwise; then the exit code is 4. Ingest, pair and sql are made \
    again as a whole.\n\nWith --json the answer is one object: `seed`, and `stages` with `name`, `kind`, `state` (done, \
    skipped or failed) and, if done, `verdict`, `exact`, `near`, `different`, `of`, `tolerance`, `rows` (the numbers of \
    the rows that were drawn), `numerics`, `worst` and `evidence`."
)]
pub struct Verify {
    /// The pipeline file, then the stages whose results are checked, or selectors of them [default: all]
    #[arg(value_name = "FILE|SELECTOR")]
    pub words: Vec<String>,
    /// Leave out what these selectors have
    #[arg(long, value_name = "SELECTOR")]
    pub exclude: Vec<String>,
    /// How much of each result is made again, as in 5% [default: 1%]
    #[arg(long, value_name = "SHARE", value_parser = share, conflicts_with = "rows")]
    pub recompute: Option<f64>,
    /// So many rows of each result instead
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    pub rows: Option<u64>,
    /// Do trainings again as well; each takes as long as it took
    #[arg(long)]
    pub train: bool,
    /// Draws the rows: another seed draws others
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
}

/// `5%` as a share of 1.
fn share(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').and_then(|number| number.trim_end().parse::<f64>().ok());
    let share = number.map(|percent| percent / 100.0).filter(|share| *share > 0.0 && *share <= 1.0);
    share.ok_or_else(|| "a share above 0% and up to 100% is needed, as in 5%".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_written_in_percent() {
        assert_eq!(share("5%"), Ok(0.05));
        assert_eq!(share("0.5 %"), Ok(0.005));
        assert_eq!(share("100%"), Ok(1.0));
        for wrong in ["5", "0%", "101%", "-1%", "%", "nan%", "inf%"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }
}

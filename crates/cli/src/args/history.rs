//! The words and options of the verbs over a store's history: runs, tags, differences, upkeep.

use clap::Args;

use crate::args::zero_up;

/// What names a run, for the help of each verb that takes one.
const RUNS: &str = "\
A run is named r17 (its number, as `runs` lists it), last, prev or tag:NAME. `prev` is the newest run before that\n\
differs in what is looked at.";

/// `runs [FILE]`
#[derive(Debug, Args)]
#[command(after_long_help = "\
With --json, one object a run: `run`, `started_unix_ms`, `pipeline`, `profile`, `program`, `set`, `targets`, `outcome`, \
`seconds`, `stages` (each with `name`, `kind`, `outcome`, `key`) and `tags`. The outcome of a run that was killed is `died`.")]
pub struct Runs {
    /// Only runs of this pipeline file
    #[arg(value_name = "FILE", num_args = 0..=1)]
    pub words: Vec<String>,
    /// Only the last N
    #[arg(short = 'n', long, value_name = "N")]
    pub last: Option<usize>,
}

/// `tag [NAME [RUN]]`
#[derive(Debug, Args)]
#[command(after_help = RUNS)]
pub struct Tag {
    /// The tag: a letter, then letters, digits, `_` and `-`, all of them lower case
    #[arg(value_name = "NAME", conflicts_with = "list", required_unless_present = "list")]
    pub name: Option<String>,
    /// The run it names [default: the last]
    #[arg(value_name = "RUN", conflicts_with = "delete")]
    pub run: Option<String>,
    /// Move a tag that names another run
    #[arg(long, conflicts_with = "delete")]
    pub force: bool,
    /// Take the tag away; the run stays
    #[arg(long)]
    pub delete: bool,
    /// List all tags
    #[arg(long)]
    pub list: bool,
}

/// `diff [FILE] [A [B]] [STAGE]`
#[derive(Debug, Args)]
#[command(after_help = RUNS, after_long_help = "\
A run is named r17 (its number, as `runs` lists it), last, prev, now or tag:NAME. `prev` is the newest run before the \
other that differs from it in what is looked at; `now` is the pipeline file as it is. Without B, A is held against the \
last run; without A, too, the last run against the one before it.\n\n\
With --json, one object: `old`, `new` and `stages`, each with `name`, `kind` and `state` (same, changed, added, removed, \
no_result_in_old, no_result_in_new). A changed stage has `changes` (as in `why --json`), `metrics` (`name`, `old`, `new`) \
and `outputs`; a changed table has `rows_old`, `rows_new`, `columns`, `matched_by`, `n_same`, `n_changed`, `n_added`, \
`n_removed`, `changed_columns` and the first rows as `added`, `removed` and `changed` (`old`, `new`).")]
pub struct Diff {
    /// The pipeline file, two runs, and one stage
    #[arg(value_name = "RUN|STAGE", num_args = 0..=4)]
    pub words: Vec<String>,
    /// Rows to show of each kind of difference
    #[arg(long, default_value_t = 3)]
    pub rows: usize,
}

/// `gc`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Kept are all runs and what they lead to, unless --keep-runs or --older-than lets some of them go. These stay in any \
case: tagged runs, runs that are going on, the last run of each pipeline and profile, its last run over all stages, and \
where a stage failed in those, the last result it had. With both options, a run goes only if both let it go.\n\n\
With --json, one object for each thing that goes (`kind`, `of`, `run`, `bytes`, `path`), and at the end one with `dry_run`, \
`n`, `bytes`, `n_young`, `young_bytes` and `runs_kept`.")]
pub struct Gc {
    /// Only list what would go
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Let all but the newest N runs of each pipeline and profile go
    #[arg(long, value_name = "N")]
    pub keep_runs: Option<usize>,
    /// Let runs go that started more than DAYS ago
    #[arg(long, value_name = "DAYS", value_parser = zero_up)]
    pub older_than: Option<f64>,
    /// Leave what was written in the last H hours
    #[arg(long, value_name = "H", default_value_t = 24.0, value_parser = zero_up)]
    pub grace_hours: f64,
    /// End with 5 rather than wait for another process that is adding to the store
    #[arg(long)]
    pub no_wait: bool,
}

/// `fsck`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Every table and checkpoint, every record, journal and row, every run manifest and tag is read and held against its digest. \
Ends with 4 when something is damaged, also when it is mended.\n\n\
With --json, one object a fault (`kind`, `of`, `run`, `path`, `what`, `mended`), and at the end one with `n_things`, \
`n_rows`, `bytes`, `seconds`, `n_faults`, `n_mended`, `n_newer` and `strays`.")]
pub struct Fsck {
    /// Take what is damaged away, so that the next run makes it again
    #[arg(long)]
    pub repair: bool,
    /// End with 5 rather than wait for another process that is adding to the store
    #[arg(long, requires = "repair")]
    pub no_wait: bool,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::args::Cli;

    #[test]
    fn a_tag_is_named_or_all_are_listed() {
        let parses = |words: &str| Cli::try_parse_from(format!("sluice {words}").split(' ')).is_ok();
        for good in ["tag gold", "tag gold r3", "tag gold prev --force", "tag gold --delete", "tag --list"] {
            assert!(parses(good), "{good}");
        }
        for bad in ["tag", "tag gold r3 --delete", "tag gold --list", "tag gold r3 r4", "tag gold --delete --force"] {
            assert!(!parses(bad), "{bad}");
        }
    }
}

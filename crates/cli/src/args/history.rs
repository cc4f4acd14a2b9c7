//! The words and options of the verbs over a store's history: runs, tags, differences, upkeep.

use clap::Args;

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

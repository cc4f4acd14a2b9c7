//! Which run is meant: a word of the command line, or the end of a table's name, made a run of the store or a stage's
//! result in it. Owns the words and what is said when they name nothing.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use sluice_spec::did_you_mean;
use sluice_store::{Lookup, Record, RunId, RunManifest, RunStage, StageKey, TagName};

use crate::exit::Failure;
use crate::session::{Session, store_failure};

/// A run as a word names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunWord {
    /// `r17`.
    Number(RunId),
    /// `last`, the newest.
    Last,
    /// `prev`, the newest before it that differs in what is looked at.
    Prev,
    /// `now`, the pipeline file as it is: what a run would find made already.
    Now,
    /// `tag:gold`.
    Tag(TagName),
}

/// A result that a stage had in an earlier run.
pub struct Earlier {
    pub run: RunId,
    pub record: Arc<Record>,
    /// An output that is no longer in the store.
    pub lacks: Option<String>,
}

impl Earlier {
    /// The result, all of whose outputs are there.
    ///
    /// # Errors
    /// `Exit::Usage` when one is not.
    pub fn whole(self, stage: &str) -> Result<Earlier, Failure> {
        match &self.lacks {
            None => Ok(self),
            Some(output) => Err(Failure::usage(format!(
                "output `{output}` of stage `{stage}`, as it was in run {}, is no longer in the store",
                self.run
            ))),
        }
    }
}

const EXPECTED: &str = "a run is `r` and a number, `last`, `prev`, or `tag:` and a name, as in r17 and tag:gold";

impl FromStr for RunWord {
    type Err = String;

    fn from_str(text: &str) -> Result<RunWord, String> {
        match text {
            "last" => Ok(RunWord::Last),
            "prev" => Ok(RunWord::Prev),
            "now" => Ok(RunWord::Now),
            _ => match text.strip_prefix("tag:") {
                Some(name) => name.parse().map(RunWord::Tag).map_err(|error| format!("{error}")),
                None => text.parse().map(RunWord::Number).map_err(|_| format!("`{text}` names no run; {EXPECTED}")),
            },
        }
    }
}

impl fmt::Display for RunWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunWord::Number(run) => write!(f, "{run}"),
            RunWord::Last => f.write_str("last"),
            RunWord::Prev => f.write_str("prev"),
            RunWord::Now => f.write_str("now"),
            RunWord::Tag(name) => write!(f, "tag:{name}"),
        }
    }
}

/// A stage's or a table's name, and the run behind its `@`: `pairs.dropped@r3`.
pub fn split(word: &str) -> Result<(&str, Option<RunWord>), Failure> {
    match word.rsplit_once('@') {
        None => Ok((word, None)),
        Some((name, run)) => Ok((name, Some(run.parse().map_err(Failure::usage)?))),
    }
}

impl Session {
    /// The manifest of a run that has one of its own: not of `now`, and of `prev` only beside another.
    ///
    /// # Errors
    /// `Exit::Usage` for a run that is not there, with those that are; what the store says of a damaged manifest.
    pub fn manifest(&self, word: &RunWord, pipeline: Option<&str>) -> Result<RunManifest, Failure> {
        match word {
            RunWord::Number(run) => self.numbered(*run),
            RunWord::Tag(name) => self.tagged(name),
            RunWord::Last => self.newest(pipeline, |_| true)?.ok_or_else(|| self.no_runs(pipeline)),
            RunWord::Prev | RunWord::Now => Err(Failure::usage(format!("`{word}` is no run by itself")).help(EXPECTED)),
        }
    }

    fn numbered(&self, run: RunId) -> Result<RunManifest, Failure> {
        if let Some(manifest) = self.store.run(run).map_err(store_failure)? {
            return Ok(manifest);
        }
        // A tag keeps the manifest of its run, whatever becomes of the run's own.
        let tags = self.store.tags().map_err(store_failure)?;
        if let Some(tag) = tags.into_iter().find(|tag| tag.run() == run) {
            return Ok(tag.manifest);
        }
        let known = self.store.runs().map_err(store_failure)?;
        let message = format!("the store has no run {run}");
        Err(match (known.first(), known.last()) {
            (Some(first), Some(last)) if first == last => Failure::usage(message).help(format!("it has {first} alone")),
            (Some(first), Some(last)) => Failure::usage(message).help(format!("it has {first} to {last}")),
            _ => Failure::usage(message).help("nothing has been run yet"),
        })
    }

    fn tagged(&self, name: &TagName) -> Result<RunManifest, Failure> {
        if let Some(tag) = self.store.tagged(name).map_err(store_failure)? {
            return Ok(tag.manifest);
        }
        Err(Failure::usage(format!("there is no tag `{name}`")).help(self.tags_known(name)?))
    }

    /// What to say to somebody who names a tag that is not there.
    pub fn tags_known(&self, name: &TagName) -> Result<String, Failure> {
        let known = self.store.tag_names().map_err(store_failure)?;
        let names: Vec<&str> = known.iter().map(TagName::as_str).collect();
        Ok(match did_you_mean(name.as_str(), names.iter().copied()) {
            Some(help) => help,
            None if names.is_empty() => format!("there are none yet; `{} tag {name}` makes it", self.world.command),
            None => format!("there is {}", names.join(", ")),
        })
    }

    fn no_runs(&self, pipeline: Option<&str>) -> Failure {
        let what = pipeline.map_or("nothing".to_owned(), |pipeline| format!("{pipeline} has never been run: nothing"));
        Failure::usage(format!("there is no last run, {what} has been run in this store"))
    }

    /// The newest run that is wanted, of one pipeline or of all. Manifests that do not read are passed over.
    pub fn newest(
        &self,
        pipeline: Option<&str>,
        wanted: impl Fn(&RunManifest) -> bool,
    ) -> Result<Option<RunManifest>, Failure> {
        let runs = self.store.runs().map_err(store_failure)?;
        let manifests = runs.into_iter().rev().filter_map(|run| self.store.run(run).ok().flatten());
        let mut of_pipeline = manifests.filter(|manifest| pipeline.is_none_or(|name| manifest.pipeline == name));
        Ok(of_pipeline.find(|manifest| wanted(manifest)))
    }

    /// The newest run of a pipeline, older than `before` if that is given, in which a stage had another key than in
    /// `stages`: one stage, or any that both have.
    ///
    /// # Errors
    /// `Exit::Usage` when there is none.
    pub fn previous_run(
        &self,
        pipeline: &str,
        before: Option<RunId>,
        stages: &[RunStage],
        one: Option<&str>,
    ) -> Result<RunManifest, Failure> {
        let differs = |manifest: &RunManifest| {
            stages.iter().filter(|entry| one.is_none_or(|one| entry.name == one)).any(|entry| {
                let then = manifest.key_of(&entry.name);
                then.is_some() && entry.key.is_some() && then != entry.key
            })
        };
        let is_older = |manifest: &RunManifest| before.is_none_or(|before| manifest.run < before);
        self.newest(Some(pipeline), |manifest| is_older(manifest) && differs(manifest))?.ok_or_else(|| {
            let what = one.map_or("in anything".to_owned(), |stage| format!("in `{stage}`"));
            Failure::usage(format!("no earlier run of {pipeline} differs {what}"))
        })
    }

    /// The result a stage had in an earlier run. `present` is the key it has now, and what `prev` differs from.
    ///
    /// # Errors
    /// `Exit::Usage` when the run is not there, did not get to the stage, or its result has been taken away since.
    pub fn earlier(
        &self,
        word: &RunWord,
        pipeline: &str,
        stage: &str,
        present: Option<StageKey>,
    ) -> Result<Earlier, Failure> {
        if *word == RunWord::Prev {
            return self.previous(pipeline, stage, present);
        }
        let manifest = self.manifest(word, Some(pipeline))?;
        let run = manifest.run;
        let Some(entry) = manifest.stages.iter().find(|entry| entry.name == stage) else {
            let known: Vec<&str> = manifest.stages.iter().map(|entry| entry.name.as_str()).collect();
            let help = did_you_mean(stage, known.iter().copied());
            let help = help.unwrap_or_else(|| format!("it had {}", known.join(", ")));
            return Err(Failure::usage(format!("run {run} had no stage `{stage}`")).help(help));
        };
        let found = entry.key.map_or(Ok(Lookup::Absent), |key| self.store.inspect(key)).map_err(store_failure)?;
        match found {
            Lookup::Hit(record) => Ok(Earlier { run, record: Arc::new(record), lacks: None }),
            Lookup::Incomplete { record, output } => Ok(Earlier { run, record: Arc::new(record), lacks: Some(output) }),
            Lookup::Damaged(error) => Err(store_failure(error)),
            Lookup::Absent => {
                let failure = Failure::usage(format!("stage `{stage}` has no result of run {run} in the store"));
                Err(failure.help("the run did not get so far, or the result has been taken away since"))
            }
        }
    }

    fn previous(&self, pipeline: &str, stage: &str, present: Option<StageKey>) -> Result<Earlier, Failure> {
        for run in self.store.runs().map_err(store_failure)?.into_iter().rev() {
            let Ok(Some(manifest)) = self.store.run(run) else { continue };
            let key = manifest.key_of(stage).filter(|key| Some(*key) != present && manifest.pipeline == pipeline);
            if let Some(key) = key
                && let Ok(Some(record)) = self.store.lookup(key)
            {
                return Ok(Earlier { run, record: Arc::new(record), lacks: None });
            }
        }
        Err(Failure::usage(format!("stage `{stage}` has had no other result than its present one")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_named_in_five_ways() {
        for word in ["r17", "last", "prev", "now", "tag:gold"] {
            assert_eq!(word.parse::<RunWord>().map(|run| run.to_string()), Ok(word.to_owned()));
        }
        let said = |word: &str| word.parse::<RunWord>().expect_err("no run");
        assert_eq!(said("17"), format!("`17` names no run; {EXPECTED}"));
        assert_eq!(said("gold"), format!("`gold` names no run; {EXPECTED}"));
        assert!(said("tag:Gold").starts_with("`Gold` cannot be a tag"));
    }

    #[test]
    fn the_run_stands_behind_the_last_sign() {
        let check = |word: &str, name: &str, run: Option<&str>| {
            let (found, named) = split(word).expect("a name");
            assert_eq!((found, named.map(|run| run.to_string()).as_deref()), (name, run));
        };
        check("pairs", "pairs", None);
        check("pairs.dropped@r3", "pairs.dropped", Some("r3"));
        check("tuned[rate=1]@tag:gold", "tuned[rate=1]", Some("tag:gold"));
    }
}

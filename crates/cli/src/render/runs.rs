//! `runs` and `tag --list`: a line a run, a line a tag.

use crate::render::columns::{Align, Columns};
use crate::render::paint::{Ink, Paint};
use crate::render::quantity::{ago, count, seconds};

/// One run.
#[derive(Debug, Clone)]
pub struct RunRow {
    pub run: String,
    pub age_seconds: u64,
    pub pipeline: String,
    pub profile: Option<String>,
    pub end: RunEnd,
    pub seconds: f64,
    pub n_stages: u64,
    pub n_ran: u64,
    pub n_hit: u64,
    pub tags: Vec<String>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEnd {
    Running,
    /// It was killed, or its machine went down.
    Died,
    /// There was nothing to do.
    Hit,
    Ran,
    Failed,
    Interrupted,
}

impl RunEnd {
    /// The word, as JSON has it too.
    pub const fn name(self) -> &'static str {
        match self {
            RunEnd::Running => "running",
            RunEnd::Died => "died",
            RunEnd::Hit => "hit",
            RunEnd::Ran => "ran",
            RunEnd::Failed => "failed",
            RunEnd::Interrupted => "interrupted",
        }
    }

    const fn ink(self) -> Ink {
        match self {
            RunEnd::Running | RunEnd::Interrupted => Ink::Active,
            RunEnd::Died | RunEnd::Failed => Ink::Bad,
            RunEnd::Hit => Ink::Dim,
            RunEnd::Ran => Ink::Good,
        }
    }
}

/// One line a run, in the order given.
pub fn runs(rows: &[RunRow], paint: Paint) -> String {
    if rows.is_empty() {
        return "nothing has been run yet\n".to_owned();
    }
    let (left, right) = (Align::Left, Align::Right);
    let mut table = Columns::headed(&[
        ("run", left),
        ("started", right),
        ("state", left),
        ("time", right),
        ("ran", right),
        ("hit", right),
        ("of", right),
        ("pipeline", left),
        ("tags", left),
    ]);
    for RunRow { run, age_seconds, pipeline, profile, end, seconds: took, n_stages, n_ran, n_hit, tags } in rows {
        let profile = profile.as_ref().map_or_else(String::new, |profile| format!(", {profile}"));
        table.row([
            (run.clone(), Ink::Name),
            (ago(*age_seconds), Ink::Dim),
            (end.name().to_owned(), end.ink()),
            (seconds(*took), Ink::Plain),
            (count(*n_ran), Ink::Plain),
            (count(*n_hit), Ink::Plain),
            (count(*n_stages), Ink::Dim),
            (format!("{pipeline}{profile}"), Ink::Plain),
            (tags.join(", "), Ink::Bold),
        ]);
    }
    table.render(paint)
}

/// One line a tag: its name, its run, how long ago that was, and the pipeline.
pub fn tags(rows: &[(String, String, u64, String)], paint: Paint) -> String {
    if rows.is_empty() {
        return "there are no tags\n".to_owned();
    }
    let left = Align::Left;
    let mut table = Columns::headed(&[("tag", left), ("run", left), ("started", Align::Right), ("pipeline", left)]);
    for (name, run, age_seconds, pipeline) in rows {
        table.row([
            (name.clone(), Ink::Bold),
            (run.clone(), Ink::Name),
            (ago(*age_seconds), Ink::Dim),
            (pipeline.clone(), Ink::Plain),
        ]);
    }
    table.render(paint)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_run_is_a_line() {
        let row = |run: &str, age_seconds, end, n_ran, tags: &[&str]| RunRow {
            run: run.to_owned(),
            age_seconds,
            pipeline: "pipelines/p.yaml".to_owned(),
            profile: Some("tiny".to_owned()),
            end,
            seconds: 12.34,
            n_stages: 6,
            n_ran,
            n_hit: 6 - n_ran,
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        };
        let rows = [
            row("r1", 200_000, RunEnd::Ran, 6, &["gold", "paper"]),
            row("r2", 7_300, RunEnd::Died, 3, &[]),
            row("r10", 3, RunEnd::Hit, 0, &[]),
        ];
        expect![[r#"
            run     started  state    time  ran  hit  of  pipeline                tags
            r1   2 days ago  ran    12.3 s    6    0   6  pipelines/p.yaml, tiny  gold, paper
            r2      2 h ago  died   12.3 s    3    3   6  pipelines/p.yaml, tiny
            r10    just now  hit    12.3 s    0    6   6  pipelines/p.yaml, tiny
        "#]]
        .assert_eq(&runs(&rows, Paint::OFF));
        expect!["nothing has been run yet\n"].assert_eq(&runs(&[], Paint::OFF));
    }
}

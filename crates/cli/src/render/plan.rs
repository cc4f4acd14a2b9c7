//! `plan` and `status` as tables: one line a stage. Owns the words for states and the closing line that counts them.

use crate::render::columns::{Align, Columns};
use crate::render::paint::{Ink, Paint};
use crate::render::quantity::{ago, count, counted, seconds};

/// One stage of a plan.
#[derive(Debug, Clone)]
pub struct PlanRow {
    pub stage: String,
    pub kind: &'static str,
    pub state: PlanWord,
    pub rows: Option<u64>,
    /// Rows that are known, of a stage that is to make the others.
    pub known: Option<u64>,
    /// What the result once took.
    pub seconds: f64,
    pub why: String,
}

/// What a run would do with a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanWord {
    Hit,
    Partial,
    Run,
    Pending,
    Fail,
}

impl PlanWord {
    const fn word(self) -> (&'static str, Ink) {
        match self {
            PlanWord::Hit => ("hit", Ink::Good),
            PlanWord::Partial => ("partial", Ink::Active),
            PlanWord::Run => ("run", Ink::Active),
            PlanWord::Pending => ("pending", Ink::Dim),
            PlanWord::Fail => ("fail", Ink::Bad),
        }
    }
}

/// The table of a plan and what it comes to.
pub fn plan(rows: &[PlanRow], paint: Paint) -> String {
    let left = Align::Left;
    let mut table =
        Columns::headed(&[("stage", left), ("kind", left), ("state", left), ("rows", Align::Right), ("why", left)]);
    for PlanRow { stage, kind, state, rows, known, seconds: _, why } in rows {
        let (word, ink) = state.word();
        let known = known.map_or(String::new(), |known| format!("{}/", count(known)));
        let why = if why.is_empty() { "-".to_owned() } else { why.clone() };
        table.row([
            (stage.clone(), Ink::Plain),
            ((*kind).to_owned(), Ink::Dim),
            (word.to_owned(), ink),
            (rows.map_or("-".to_owned(), |rows| format!("{known}{}", count(rows))), Ink::Plain),
            (why, Ink::Plain),
        ]);
    }
    format!("{}{}\n", table.render(paint), verdict(rows))
}

fn verdict(rows: &[PlanRow]) -> String {
    let n = |word: PlanWord| rows.iter().filter(|row| row.state == word).count();
    let n_stages = counted(rows.len() as u64, "stage");
    let saved: f64 = rows.iter().filter(|row| row.state == PlanWord::Hit).map(|row| row.seconds).sum();
    if n(PlanWord::Hit) == rows.len() {
        return format!("{n_stages}: all up to date, nothing to do");
    }
    let parts = [
        (PlanWord::Hit, "up to date"),
        (PlanWord::Partial, "to run in part"),
        (PlanWord::Run, "to run"),
        (PlanWord::Pending, "to decide when what they read is there"),
        (PlanWord::Fail, "that would fail"),
    ];
    let counts = parts.iter().filter(|(word, _)| n(*word) > 0).map(|(word, text)| format!("{} {text}", n(*word)));
    let saved = if saved >= 0.5 { format!("; reuse saves {}", seconds(saved)) } else { String::new() };
    format!("{n_stages}: {}{saved}", counts.collect::<Vec<_>>().join(", "))
}

/// One stage of a status.
#[derive(Debug, Clone)]
pub struct StatusRow {
    pub stage: String,
    pub state: StatusWord,
    /// The result, if it is there.
    pub result: Option<StatusResult>,
    /// One line on what is not there.
    pub why: String,
}

/// A result, in short.
#[derive(Debug, Clone)]
pub struct StatusResult {
    pub rows: Option<u64>,
    pub seconds: f64,
    pub age_seconds: u64,
    pub digest: String,
}

/// How a stage stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusWord {
    /// Its result is that of the file as it is.
    Fresh,
    /// It has a result, of other parameters or inputs.
    Stale,
    /// It never had one.
    Missing,
    /// What it reads is to be made first.
    Waits,
    /// It failed in the last run.
    Failed,
    /// Its result is no longer whole.
    Damaged,
}

impl StatusWord {
    /// The word, as JSON has it too.
    pub const fn name(self) -> &'static str {
        match self {
            StatusWord::Fresh => "fresh",
            StatusWord::Stale => "stale",
            StatusWord::Missing => "missing",
            StatusWord::Waits => "waits",
            StatusWord::Failed => "failed",
            StatusWord::Damaged => "damaged",
        }
    }

    const fn ink(self) -> Ink {
        match self {
            StatusWord::Fresh => Ink::Good,
            StatusWord::Stale | StatusWord::Missing => Ink::Active,
            StatusWord::Waits => Ink::Dim,
            StatusWord::Failed | StatusWord::Damaged => Ink::Bad,
        }
    }
}

/// One line a stage.
pub fn status(rows: &[StatusRow], paint: Paint) -> String {
    let (left, right) = (Align::Left, Align::Right);
    let mut table = Columns::new(&[left, left, right, right, left, left]);
    for StatusRow { stage, state, result, why } in rows {
        let name = (stage.clone(), Ink::Plain);
        let word = (state.name().to_owned(), state.ink());
        match result {
            Some(StatusResult { rows, seconds: took, age_seconds, digest }) => table.row([
                name,
                word,
                (rows.map_or("-".to_owned(), |n| counted(n, "row")), Ink::Plain),
                (seconds(*took), Ink::Plain),
                (digest.get(..12).unwrap_or(digest).to_owned(), Ink::Dim),
                (ago(*age_seconds), Ink::Dim),
            ]),
            None => table.row([
                name,
                word,
                ("-".to_owned(), Ink::Dim),
                ("-".to_owned(), Ink::Dim),
                ("-".to_owned(), Ink::Dim),
                (why.clone(), Ink::Plain),
            ]),
        }
    }
    table.render(paint)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn row(stage: &str, kind: &'static str, state: PlanWord, rows: Option<u64>, why: &str) -> PlanRow {
        PlanRow { stage: stage.to_owned(), kind, state, rows, known: None, seconds: 30.0, why: why.to_owned() }
    }

    #[track_caller]
    fn check(rows: &[PlanRow], expected: Expect) {
        expected.assert_eq(&plan(rows, Paint::OFF));
    }

    #[test]
    fn a_plan_is_a_table_and_a_verdict() {
        let prompts = row("prompts", "ingest", PlanWord::Hit, Some(4000), "");
        let scores = row("scores", "score", PlanWord::Hit, Some(20_000), "");
        check(
            &[
                prompts.clone(),
                scores.clone(),
                row("pairs", "pair", PlanWord::Run, None, "pair.ties drop -> first (p.yaml:31:18)"),
                row("tuned", "train", PlanWord::Pending, None, "waits for `pairs`"),
            ],
            expect![[r#"
                stage    kind    state      rows  why
                prompts  ingest  hit       4,000  -
                scores   score   hit      20,000  -
                pairs    pair    run           -  pair.ties drop -> first (p.yaml:31:18)
                tuned    train   pending       -  waits for `pairs`
                4 stages: 2 up to date, 1 to run, 1 to decide when what they read is there; reuse saves 1 min
            "#]],
        );
        let responses = PlanRow {
            known: Some(182_751),
            ..row("responses", "sample", PlanWord::Partial, Some(304_585), "sample.n 3 -> 5 (p.yaml:9:40)")
        };
        check(
            &[prompts.clone(), responses],
            expect![[r#"
                stage      kind    state               rows  why
                prompts    ingest  hit                4,000  -
                responses  sample  partial  182,751/304,585  sample.n 3 -> 5 (p.yaml:9:40)
                2 stages: 1 up to date, 1 to run in part; reuse saves 30.0 s
            "#]],
        );
        check(
            &[prompts, scores],
            expect![[r#"
            stage    kind    state    rows  why
            prompts  ingest  hit     4,000  -
            scores   score   hit    20,000  -
            2 stages: all up to date, nothing to do
        "#]],
        );
        check(
            &[row("prompts", "ingest", PlanWord::Fail, None, "no file matches `x`")],
            expect![[r#"
            stage    kind    state  rows  why
            prompts  ingest  fail      -  no file matches `x`
            1 stage: 1 that would fail
        "#]],
        );
    }

    #[test]
    fn a_status_is_one_line_a_stage() {
        let result =
            StatusResult { rows: Some(4000), seconds: 0.21, age_seconds: 7300, digest: "3f2a81c09b1277".to_owned() };
        let one = |stage: &str, state, result, why: &str| StatusRow {
            stage: stage.to_owned(),
            state,
            result,
            why: why.to_owned(),
        };
        let rows = [
            one("prompts", StatusWord::Fresh, Some(result), ""),
            one("pairs", StatusWord::Stale, None, "pair.ties drop -> first (p.yaml:31:18)"),
            one("tuned", StatusWord::Waits, None, "waits for `pairs`"),
        ];
        expect![[r#"
            prompts  fresh  4,000 rows  210 ms  3f2a81c09b12  2 h ago
            pairs    stale           -       -  -             pair.ties drop -> first (p.yaml:31:18)
            tuned    waits           -       -  -             waits for `pairs`
        "#]]
        .assert_eq(&status(&rows, Paint::OFF));
    }
}

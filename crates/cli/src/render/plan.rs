//! `plan` and `status` as tables: one line a stage. Owns the words for states and the closing line that counts them.

use std::collections::HashSet;

use sluice_engine::Basis;
use sluice_spec::{Limit, Pipeline, Span};

use crate::render::columns::{Align, Columns};
use crate::render::fold::fold_cells;
use crate::render::paint::{Ink, Paint};
use crate::render::quantity::{ago, bytes, count, counted, rate, seconds};

/// One stage of a plan.
#[derive(Debug, Clone)]
pub struct PlanRow {
    pub stage: String,
    /// The stage whose cell it is.
    pub base: Option<String>,
    pub kind: &'static str,
    pub state: PlanWord,
    pub rows: Option<u64>,
    /// Rows that are known, of a stage that is to make the others.
    pub known: Option<u64>,
    /// Whether `rows` is a prediction.
    pub is_estimate: bool,
    /// What the result once took.
    pub seconds: f64,
    /// Data tests that a run would make of a result that is there.
    pub tests: usize,
    /// What it is expected to take; none for a result that is there, and where nothing tells.
    pub cost: Option<Cost>,
    /// Bytes that a training holds at its fullest; none for a result that is there.
    pub memory: Option<u64>,
    pub why: String,
}

/// What a stage is expected to take, and what says so.
#[derive(Debug, Clone)]
pub struct Cost {
    pub seconds: f64,
    pub tokens: u64,
    pub bytes: u64,
    /// As in `r12`.
    pub run: String,
    pub age_seconds: u64,
    pub basis: Basis,
}

/// What a run would do with a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
    let (left, right) = (Align::Left, Align::Right);
    let has_costs = rows.iter().any(|row| row.cost.is_some());
    let mut heads = vec![("stage", left), ("kind", left), ("state", left), ("rows", right), ("why", left)];
    if has_costs {
        heads.insert(4, ("est.", right));
    }
    let mut table = Columns::headed(&heads);
    for row in &folded(rows) {
        let PlanRow {
            stage,
            base: _,
            kind,
            state,
            rows,
            known,
            is_estimate,
            seconds: _,
            tests: _,
            cost,
            memory: _,
            why,
        } = row;
        let (word, ink) = state.word();
        let known = known.map_or(String::new(), |known| format!("{}/", count(known)));
        let about = if *is_estimate { "~" } else { "" };
        let why = if why.is_empty() { "-".to_owned() } else { why.clone() };
        let mut cells = vec![
            (stage.clone(), Ink::Plain),
            ((*kind).to_owned(), Ink::Dim),
            (word.to_owned(), ink),
            (rows.map_or("-".to_owned(), |rows| format!("{about}{known}{}", count(rows))), Ink::Plain),
            (why, Ink::Plain),
        ];
        if has_costs {
            let unknown = if matches!(state, PlanWord::Hit | PlanWord::Fail) { "-" } else { "?" };
            let about = cost.as_ref().map_or(unknown.to_owned(), |cost| seconds(cost.seconds));
            cells.insert(4, (about, Ink::Plain));
        }
        table.line_of(cells);
    }
    format!("{}{}\n{}{}", table.render(paint), verdict(rows), evidence(rows), memory(rows))
}

/// What the estimates are taken from, where it is not one run for all; and which stages there is none of.
fn evidence(rows: &[PlanRow]) -> String {
    let groups = evidence_of(rows);
    let mut unknown: Vec<&str> = rows.iter().filter(|row| row.is_unknown()).map(PlanRow::in_the_file).collect();
    unknown.dedup();
    let mut text = String::new();
    if groups.len() > 1 || groups.iter().any(|(_, basis, _)| *basis != Basis::Stage) {
        for (from, basis, stages) in &groups {
            let like = match basis {
                Basis::Stage => "",
                Basis::Model => ", another stage with the same model",
                Basis::Kind => ", another stage of the kind",
            };
            text += &format!("  {} as in {from}{like}\n", few(stages));
        }
    }
    match (unknown.as_slice(), groups.is_empty()) {
        ([], _) => {}
        (_, true) => text += "  no estimate: nothing like this has run here yet\n",
        (unknown, false) => {
            text += &format!("  {}: nothing like it has run here, and it is not counted\n", few(unknown))
        }
    }
    text
}

/// `memory while training: tuned 1.2 GB`.
fn memory(rows: &[PlanRow]) -> String {
    let mut groups: Vec<(u64, Vec<&str>)> = Vec::new();
    for row in rows {
        let Some(n_bytes) = row.memory else { continue };
        match groups.iter_mut().find(|(known, _)| *known == n_bytes) {
            Some((_, stages)) if stages.last() == Some(&row.in_the_file()) => {}
            Some((_, stages)) => stages.push(row.in_the_file()),
            None => groups.push((n_bytes, vec![row.in_the_file()])),
        }
    }
    let part = |(n_bytes, stages): &(u64, Vec<&str>)| format!("{} {}", few(stages), bytes(*n_bytes));
    match groups.is_empty() {
        true => String::new(),
        false => format!("  memory while training: {}\n", groups.iter().map(part).collect::<Vec<_>>().join("; ")),
    }
}

/// The stages by what their estimate is taken from, in the order of the plan.
fn evidence_of(rows: &[PlanRow]) -> Vec<(String, Basis, Vec<&str>)> {
    let mut groups: Vec<(String, Basis, Vec<&str>)> = Vec::new();
    for row in rows {
        let Some(Cost { run, age_seconds, basis, .. }) = &row.cost else { continue };
        let from = format!("{run}, {}", ago(*age_seconds));
        match groups.iter_mut().find(|(known, of, _)| *known == from && of == basis) {
            Some((.., stages)) if stages.last() == Some(&row.in_the_file()) => {}
            Some((.., stages)) => stages.push(row.in_the_file()),
            None => groups.push((from, *basis, vec![row.in_the_file()])),
        }
    }
    groups
}

/// The first names, and how many more.
fn few(names: &[&str]) -> String {
    const SHOWN: usize = 6;
    match names.len().checked_sub(SHOWN) {
        Some(more @ 1..) => format!("{} and {more} more", names[..SHOWN].join(", ")),
        _ => names.join(", "),
    }
}

impl PlanRow {
    /// Its stage as the file names it.
    fn in_the_file(&self) -> &str {
        self.base.as_deref().unwrap_or(&self.stage)
    }

    /// Whether it would run, and nobody knows what that takes.
    fn is_unknown(&self) -> bool {
        self.cost.is_none() && !matches!(self.state, PlanWord::Hit | PlanWord::Fail)
    }
}

fn verdict(rows: &[PlanRow]) -> String {
    let n = |word: PlanWord| rows.iter().filter(|row| row.state == word).count();
    let n_stages = counted(rows.len() as u64, "stage");
    let saved: f64 = rows.iter().filter(|row| row.state == PlanWord::Hit).map(|row| row.seconds).sum();
    if n(PlanWord::Hit) == rows.len() {
        return match rows.iter().map(|row| row.tests).sum::<usize>() {
            0 => format!("{n_stages}: all up to date, nothing to do"),
            n => format!("{n_stages}: all up to date, {} to make", counted(n as u64, "test")),
        };
    }
    let partial = format!("partial{}", reused(rows));
    let parts = [
        (PlanWord::Hit, "hit"),
        (PlanWord::Partial, partial.as_str()),
        (PlanWord::Run, "to run"),
        (PlanWord::Pending, "pending"),
        (PlanWord::Fail, "that would fail"),
    ];
    let counts = parts.iter().filter(|(word, _)| n(*word) > 0).map(|(word, text)| format!("{} {text}", n(*word)));
    let saved = if saved >= 0.5 { format!("; reuse saves {}", seconds(saved)) } else { String::new() };
    format!("{n_stages}: {}{}{saved}", counts.collect::<Vec<_>>().join(", "), cost(rows))
}

/// The share of the rows of partial stages that need not be made.
fn reused(rows: &[PlanRow]) -> String {
    let partial = || rows.iter().filter(|row| row.state == PlanWord::Partial);
    let known: u64 = partial().filter_map(|row| row.known).sum();
    let all: u64 = partial().filter_map(|row| row.rows).sum();
    (100 * known).checked_div(all).map_or(String::new(), |percent| format!(" ({percent} % reused)"))
}

/// `; about 5 min 20 s, 312 k tokens, 1.2 GB (from r12, 3 h ago)`.
fn cost(rows: &[PlanRow]) -> String {
    let costs: Vec<&Cost> = rows.iter().filter_map(|row| row.cost.as_ref()).collect();
    if costs.is_empty() {
        return String::new();
    }
    let mut text = format!("; about {}", seconds(costs.iter().map(|cost| cost.seconds).sum()));
    let n_tokens: u64 = costs.iter().map(|cost| cost.tokens).sum();
    if n_tokens > 0 {
        text += &format!(", {} tokens", rate(n_tokens as f64));
    }
    text += &format!(", {}", bytes(costs.iter().map(|cost| cost.bytes).sum()));
    match evidence_of(rows).as_slice() {
        [(from, Basis::Stage, _)] => format!("{text} (as in {from})"),
        _ => text,
    }
}

/// The rows, with those of many cells that are in one state for one reason told together.
fn folded(rows: &[PlanRow]) -> Vec<PlanRow> {
    fold_cells(
        rows,
        |row| row.base.as_deref().map(|base| (base, row.state)),
        |rows, stage| {
            let sum = |of: &dyn Fn(&PlanRow) -> Option<u64>| rows.iter().map(|row| of(row)).sum::<Option<u64>>();
            PlanRow {
                stage,
                rows: sum(&|row| row.rows),
                known: sum(&|row| row.known),
                is_estimate: rows.iter().any(|row| row.is_estimate),
                seconds: rows.iter().map(|row| row.seconds).sum(),
                cost: together(rows.iter().map(|row| row.cost.as_ref())),
                ..rows[0].clone()
            }
        },
    )
}

/// What cells are expected to take, by what tells of the first; none if nothing tells of one of them.
fn together<'r>(mut costs: impl Iterator<Item = Option<&'r Cost>>) -> Option<Cost> {
    let first = costs.next()??.clone();
    costs.try_fold(first, |sum, cost| {
        let Cost { seconds, tokens, bytes, .. } = cost?;
        Some(Cost { seconds: sum.seconds + seconds, tokens: sum.tokens + tokens, bytes: sum.bytes + bytes, ..sum })
    })
}

/// What cells have as a reason, without saying which cell of another stage each means; of several, the first.
fn reasons<'r>(whys: impl Iterator<Item = &'r str>) -> String {
    let mut distinct: Vec<String> = Vec::new();
    let mut seen = HashSet::new();
    for why in whys {
        let why = without_cells(why);
        if seen.insert(why.clone()) {
            distinct.push(why);
        }
    }
    match distinct.len() {
        0 | 1 => distinct.pop().unwrap_or_default(),
        n => format!("{} (and {})", distinct.swap_remove(0), counted(n as u64 - 1, "other reason")),
    }
}

/// A text in which cells are named by their stage alone.
fn without_cells(text: &str) -> String {
    let mut rest = text;
    let mut plain = String::with_capacity(text.len());
    while let Some((before, after)) = rest.split_once('[') {
        match after.split_once(']').filter(|(inside, _)| inside.contains('=')) {
            Some((_, after)) => {
                plain.push_str(before);
                rest = after;
            }
            None => {
                plain.push_str(before);
                plain.push('[');
                rest = after;
            }
        }
    }
    plain + rest
}

/// As for a plan. Results of many cells have no digest and no age in common.
fn folded_status(rows: &[StatusRow]) -> Vec<StatusRow> {
    fold_cells(
        rows,
        |row| row.base.as_deref().map(|base| (base, row.state)),
        |rows, stage| {
            let results: Option<Vec<&StatusResult>> = rows.iter().map(|row| row.result.as_ref()).collect();
            let result = results.map(|results| StatusResult {
                rows: results.iter().map(|result| result.rows).sum(),
                seconds: results.iter().map(|result| result.seconds).sum(),
                age_seconds: results.iter().map(|result| result.age_seconds).min().unwrap_or(0),
                digest: "-".to_owned(),
            });
            StatusRow { stage, result, why: reasons(rows.iter().map(|row| row.why.as_str())), ..rows[0].clone() }
        },
    )
}

/// One line for each place that puts a limit on stages.
pub fn limits(pipeline: &Pipeline) -> Vec<String> {
    let mut lines: Vec<(Span, Vec<&str>, u32)> = Vec::new();
    for Limit { stage, count, place } in &pipeline.limits {
        match lines.iter_mut().find(|(known, ..)| known == place) {
            Some((_, stages, _)) => stages.push(stage.as_str()),
            None => lines.push((*place, vec![stage.as_str()], count.get())),
        }
    }
    let line = |(place, stages, n): (Span, Vec<&str>, u32)| {
        let stages = stages.join(", ");
        let n = counted(u64::from(n), "prompt");
        format!("a limit is on: {stages} takes {n} of each split ({})", pipeline.sources.place(place))
    };
    lines.into_iter().map(line).collect()
}

/// One stage of a status.
#[derive(Debug, Clone)]
pub struct StatusRow {
    pub stage: String,
    /// The stage whose cell it is.
    pub base: Option<String>,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
    for StatusRow { stage, base: _, state, result, why } in &folded_status(rows) {
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
        PlanRow {
            stage: stage.to_owned(),
            base: None,
            kind,
            state,
            rows,
            known: None,
            is_estimate: false,
            seconds: 30.0,
            tests: 0,
            cost: None,
            memory: None,
            why: why.to_owned(),
        }
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
                4 stages: 2 hit, 1 to run, 1 pending; reuse saves 1 min
                  no estimate: nothing like this has run here yet
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
                2 stages: 1 hit, 1 partial (60 % reused); reuse saves 30.0 s
                  no estimate: nothing like this has run here yet
            "#]],
        );
        let cost = |seconds: f64, run: &str, age_seconds, basis| {
            Some(Cost { seconds, tokens: 31_000, bytes: 2_200_000, run: run.to_owned(), age_seconds, basis })
        };
        let priced =
            |row: PlanRow, rows: u64, cost: Option<Cost>| PlanRow { rows: Some(rows), is_estimate: true, cost, ..row };
        let responses = PlanRow {
            known: Some(3_000),
            cost: cost(1.25, "r12", 10_900, Basis::Stage),
            ..row("responses", "sample", PlanWord::Partial, Some(3_600), "sample.n 5 -> 6 (p.yaml:9:40)")
        };
        let pairs = priced(
            row("pairs", "pair", PlanWord::Pending, None, "waits for `scores`"),
            520,
            cost(0.03, "r12", 10_900, Basis::Stage),
        );
        check(
            &[prompts.clone(), responses.clone(), pairs.clone()],
            expect![[r#"
            stage      kind    state           rows   est.  why
            prompts    ingest  hit            4,000      -  -
            responses  sample  partial  3,000/3,600  1.2 s  sample.n 5 -> 6 (p.yaml:9:40)
            pairs      pair    pending         ~520  30 ms  waits for `scores`
            3 stages: 1 hit, 1 partial (83 % reused), 1 pending; about 1.3 s, 62.0 k tokens, 4.4 MB (as in r12, 3 h ago); reuse saves 30.0 s
        "#]],
        );
        let other = priced(
            row("tuned", "train", PlanWord::Pending, None, "waits for `pairs`"),
            520,
            cost(320.0, "r9", 90_000, Basis::Model),
        );
        let unknown = row("report", "evaluate", PlanWord::Run, None, "never ran");
        check(
            &[prompts.clone(), responses, pairs, other, unknown.clone()],
            expect![[r#"
            stage      kind      state           rows        est.  why
            prompts    ingest    hit            4,000           -  -
            responses  sample    partial  3,000/3,600       1.2 s  sample.n 5 -> 6 (p.yaml:9:40)
            pairs      pair      pending         ~520       30 ms  waits for `scores`
            tuned      train     pending         ~520  5 min 20 s  waits for `pairs`
            report     evaluate  run                -           ?  never ran
            5 stages: 1 hit, 1 partial (83 % reused), 1 to run, 2 pending; about 5 min 21 s, 93.0 k tokens, 6.6 MB; reuse saves 30.0 s
              responses, pairs as in r12, 3 h ago
              tuned as in r9, 1 day ago, another stage with the same model
              report: nothing like it has run here, and it is not counted
        "#]],
        );
        check(
            &[prompts.clone(), unknown],
            expect![[r#"
            stage    kind      state   rows  why
            prompts  ingest    hit    4,000  -
            report   evaluate  run        -  never ran
            2 stages: 1 hit, 1 to run; reuse saves 30.0 s
              no estimate: nothing like this has run here yet
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
            base: None,
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

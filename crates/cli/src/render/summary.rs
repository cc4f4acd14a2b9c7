//! The end of a run: what each stage came to, what the evaluation found, and what to try next.

use sluice_engine::Comparison;

use crate::render::columns::{Align, Columns};
use crate::render::fold::fold_cells;
use crate::render::paint::{Ink, Paint};
use crate::render::quantity::{count, counted, seconds};
use crate::render::report::{Figures, evaluation};
use crate::render::sweep::sweep;

/// A run that is over.
#[derive(Debug, Clone)]
pub struct Summary {
    /// `r17`; none when the store could not be written to.
    pub run: Option<String>,
    pub pipeline: String,
    pub profile: Option<String>,
    pub stages: Vec<StageLine>,
    pub seconds: f64,
    /// What a user should look at.
    pub warnings: Vec<String>,
    /// What the data tests came to, where there is news of them.
    pub tests: Option<String>,
    /// The evaluations, by stage.
    pub evaluations: Vec<(String, Figures)>,
    /// The cells of each matrix side by side.
    pub comparisons: Vec<Comparison>,
    /// Characters in a line of the terminal.
    pub columns: usize,
    /// What a limit keeps out, a line each.
    pub limits: Vec<String>,
    /// Commands to try, each with what it shows.
    pub next: Vec<(String, &'static str)>,
}

/// One stage of it.
#[derive(Debug, Clone)]
pub struct StageLine {
    pub stage: String,
    /// The stage whose cell it is.
    pub base: Option<String>,
    pub end: End,
    pub rows: Option<u64>,
    /// What it took in this run; for a hit, what it once took.
    pub seconds: f64,
    /// What it was expected to take.
    pub predicted: Option<f64>,
    /// A few words more.
    pub note: String,
}

/// How a stage ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    Hit,
    Ran,
    Partial,
    Failed,
    Blocked,
    Interrupted,
}

impl End {
    const fn word(self) -> (&'static str, Ink) {
        match self {
            End::Hit => ("hit", Ink::Dim),
            End::Ran => ("ran", Ink::Good),
            End::Partial => ("partial", Ink::Good),
            End::Failed => ("failed", Ink::Bad),
            End::Blocked => ("not run", Ink::Dim),
            End::Interrupted => ("interrupted", Ink::Active),
        }
    }

    const fn worked(self) -> bool {
        matches!(self, End::Ran | End::Partial)
    }
}

/// The whole summary; one line when there was nothing to do.
pub fn summary(summary: &Summary, paint: Paint) -> String {
    let Summary {
        run,
        pipeline,
        profile,
        stages,
        seconds: took,
        warnings,
        tests,
        evaluations,
        comparisons,
        columns,
        limits,
        next,
    } = summary;
    let limits: String = limits.iter().map(|line| format!("{line}\n")).collect();
    let tests = tests.as_ref().map_or_else(String::new, |tests| format!("; {tests}"));
    let saved: f64 = stages.iter().filter(|line| line.end == End::Hit).map(|line| line.seconds).sum();
    if stages.iter().all(|line| line.end == End::Hit) {
        let saved = if saved >= 0.5 { format!(", reuse saved {}", seconds(saved)) } else { String::new() };
        let n_stages = counted(stages.len() as u64, "stage");
        let are = if stages.len() == 1 { "is" } else { "are" };
        let all = format!("all {n_stages} of {pipeline} {are} up to date");
        return format!("nothing to do: {all} ({}{saved}){tests}\n{limits}", seconds(*took));
    }
    let run = run.as_ref().map_or_else(String::new, |run| format!("run {run} of "));
    let profile = profile.as_ref().map_or_else(String::new, |profile| format!(", profile {profile}"));
    let mut text = format!("{}\n", paint.ink(Ink::Bold, format!("{run}{pipeline}{profile}")));
    text += &stage_table(stages, paint);
    text += &format!("{}{tests}\n{limits}", verdict(stages, *took, saved));
    for warning in warnings {
        text += &format!("{}\n", paint.ink(Ink::Active, format!("warning: {warning}")));
    }
    for (stage, figures) in evaluations {
        let table = evaluation(stage, figures, paint);
        if !table.is_empty() {
            text += &format!("\n{table}");
        }
    }
    for comparison in comparisons {
        text += &format!("\n{}", sweep(comparison, *columns, paint));
    }
    if !next.is_empty() {
        text += "\nnext:\n";
        let mut table = Columns::new(&[Align::Left, Align::Left, Align::Left]);
        for (command, shows) in next {
            table.row([(String::new(), Ink::Plain), ((*shows).to_owned(), Ink::Dim), (command.clone(), Ink::Name)]);
        }
        text += &table.render(paint);
    }
    text
}

fn stage_table(stages: &[StageLine], paint: Paint) -> String {
    let (left, right) = (Align::Left, Align::Right);
    let mut table = Columns::headed(&[("stage", left), ("state", left), ("rows", right), ("time", right), ("", left)]);
    for StageLine { stage, base: _, end, rows, seconds: took, predicted: _, note } in &folded(stages) {
        let (word, ink) = end.word();
        let time = if end.worked() { seconds(*took) } else { "-".to_owned() };
        table.row([
            (stage.clone(), Ink::Plain),
            (word.to_owned(), ink),
            (rows.map_or("-".to_owned(), count), Ink::Plain),
            (time, Ink::Plain),
            (note.clone(), Ink::Dim),
        ]);
    }
    table.render(paint)
}

/// The lines, with those of many cells that ended alike told together.
fn folded(stages: &[StageLine]) -> Vec<StageLine> {
    fold_cells(
        stages,
        |line| line.base.as_deref().map(|base| (base, line.end)),
        |lines, stage| {
            let sum = |of: &dyn Fn(&StageLine) -> Option<u64>| lines.iter().map(|line| of(line)).sum::<Option<u64>>();
            let first = &lines[0];
            StageLine {
                stage,
                base: first.base.clone(),
                end: first.end,
                rows: sum(&|line| line.rows),
                seconds: lines.iter().map(|line| line.seconds).sum(),
                predicted: lines.iter().map(|line| line.predicted).sum(),
                note: String::new(),
            }
        },
    )
}

fn verdict(stages: &[StageLine], took: f64, saved: f64) -> String {
    let n = |wanted: &dyn Fn(End) -> bool| stages.iter().filter(|line| wanted(line.end)).count();
    let mut parts = vec![format!("{} ran in {}{}", n(&End::worked), seconds(took), predicted(stages))];
    let n_hits = n(&|end| end == End::Hit);
    if n_hits > 0 {
        parts.push(format!("{n_hits} reused, which saved {}", seconds(saved)));
    }
    for (end, words) in [(End::Failed, "failed"), (End::Blocked, "not run"), (End::Interrupted, "interrupted")] {
        let n_ends = n(&|other| other == end);
        if n_ends > 0 {
            parts.push(format!("{n_ends} {words}"));
        }
    }
    format!("{}: {}", counted(stages.len() as u64, "stage"), parts.join(", "))
}

/// What the stages that ran were expected to take, if that was known of each.
fn predicted(stages: &[StageLine]) -> String {
    let ran = stages.iter().filter(|line| line.end.worked());
    match ran.map(|line| line.predicted).sum::<Option<f64>>() {
        Some(predicted) if predicted > 0.0 => format!(" ({} predicted)", seconds(predicted)),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(stages: &[(&str, End, Option<u64>, f64, &str)], expected: Expect) {
        let line = |(stage, end, rows, seconds, note): &(&str, End, Option<u64>, f64, &str)| StageLine {
            stage: (*stage).to_owned(),
            base: None,
            end: *end,
            rows: *rows,
            seconds: *seconds,
            predicted: None,
            note: (*note).to_owned(),
        };
        let shown = Summary {
            run: Some("r3".to_owned()),
            pipeline: "pipelines/simpo-gemma.yaml".to_owned(),
            profile: Some("tiny".to_owned()),
            stages: stages.iter().map(line).collect(),
            seconds: 12.3,
            warnings: vec!["policy/config.json: `x` is not known".to_owned()],
            comparisons: Vec::new(),
            columns: 100,
            limits: Vec::new(),
            tests: None,
            evaluations: vec![("report".to_owned(), Figures::from([("win_rate_sampled".to_owned(), 0.6)]))],
            next: vec![
                ("sluice why pairs".to_owned(), "what made it run"),
                ("sluice plan".to_owned(), "what a changed line would run"),
            ],
        };
        expected.assert_eq(&summary(&shown, Paint::OFF));
    }

    #[test]
    fn a_run_is_summed_up() {
        check(
            &[
                ("prompts", End::Hit, Some(4000), 0.4, ""),
                ("responses", End::Partial, Some(20_000), 61.0, "12,000 rows reused"),
                ("tuned", End::Ran, None, 17.25, "loss 0.71 → 0.52"),
            ],
            expect![[r#"
                run r3 of pipelines/simpo-gemma.yaml, profile tiny
                stage      state      rows       time
                prompts    hit       4,000          -
                responses  partial  20,000  1 min 1 s  12,000 rows reused
                tuned      ran           -     17.2 s  loss 0.71 → 0.52
                3 stages: 2 ran in 12.3 s, 1 reused, which saved 400 ms
                warning: policy/config.json: `x` is not known

                report                                   before   after
                  judge prefers the new answer, sampled          60.0 %

                next:
                  what made it run               sluice why pairs
                  what a changed line would run  sluice plan
            "#]],
        );
        check(
            &[("prompts", End::Failed, None, 0.1, ""), ("pairs", End::Blocked, None, 0.0, "needs prompts")],
            expect![[r#"
                run r3 of pipelines/simpo-gemma.yaml, profile tiny
                stage    state    rows  time
                prompts  failed      -     -
                pairs    not run     -     -  needs prompts
                2 stages: 0 ran in 12.3 s, 1 failed, 1 not run
                warning: policy/config.json: `x` is not known

                report                                   before   after
                  judge prefers the new answer, sampled          60.0 %

                next:
                  what made it run               sluice why pairs
                  what a changed line would run  sluice plan
            "#]],
        );
    }

    #[test]
    fn nothing_to_do_is_one_line() {
        check(
            &[("prompts", End::Hit, Some(4000), 0.4, ""), ("pairs", End::Hit, Some(4000), 72.0, "")],
            expect![[r#"
            nothing to do: all 2 stages of pipelines/simpo-gemma.yaml are up to date (12.3 s, reuse saved 1 min 12 s)
        "#]],
        );
    }
}

//! Data tests as text: what failed, where the test stands, the first rows at fault; and all outcomes as a table. Owns the
//! wording; what a test found is its own business.

use crate::render::columns::{Align, Columns};
use crate::render::paint::{Ink, Paint};
use crate::render::quantity::counted;

/// How a test came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    Passed,
    Warned,
    Failed,
    Broken,
    /// The stage has no result to test.
    Absent,
}

impl Came {
    const fn word(self) -> (&'static str, Ink) {
        match self {
            Came::Passed => ("passed", Ink::Good),
            Came::Warned => ("warns", Ink::Active),
            Came::Failed => ("failed", Ink::Bad),
            Came::Broken => ("broken", Ink::Bad),
            Came::Absent => ("no result", Ink::Dim),
        }
    }
}

/// A test and how it came out.
#[derive(Debug, Clone)]
pub struct TestLine {
    pub stage: String,
    /// Empty for a stage without a result.
    pub test: String,
    pub came: Came,
    /// `3 rows`; empty for a test that passed.
    pub found: String,
    pub place: String,
}

/// What is at fault, for a test that did not pass.
#[derive(Debug, Clone)]
pub struct Faults {
    /// The first rows, drawn; empty where there are none to show.
    pub rows: String,
    /// The command that shows all of them, or the first of very many.
    pub command: Option<String>,
    /// How many of them it shows, where those are not all.
    pub kept: Option<u64>,
}

/// A test that did not pass: one line, the first rows at fault, and how to see all.
pub fn failed(line: &TestLine, faults: &Faults, paint: Paint) -> String {
    let TestLine { stage, test, came, found, place } = line;
    let (word, verb) = match came {
        Came::Warned => (paint.ink(Ink::Active, "warning:"), "failed"),
        Came::Broken => (paint.ink(Ink::Bad, "error:"), "cannot be made"),
        Came::Passed | Came::Failed | Came::Absent => (paint.ink(Ink::Bad, "error:"), "failed"),
    };
    let mut text = format!("{word} test `{test}` of stage `{stage}` {verb}: {found} ({place})\n");
    text.extend(faults.rows.lines().map(|line| format!("  {line}\n")));
    if let Some(command) = &faults.command {
        let what =
            faults.kept.map_or("shows them all".to_owned(), |n| format!("shows the first {}", counted(n, "row")));
        text += &format!("  {} `{command}` {what}\n", paint.ink(Ink::Name, "help:"));
    }
    text
}

/// One line a test, and what they come to.
pub fn outcomes(lines: &[TestLine], paint: Paint) -> String {
    let left = Align::Left;
    let mut table =
        Columns::headed(&[("stage", left), ("test", left), ("outcome", left), ("found", left), ("place", left)]);
    for TestLine { stage, test, came, found, place } in lines {
        let (word, ink) = came.word();
        table.row([
            (stage.clone(), Ink::Plain),
            (test.clone(), Ink::Name),
            (word.to_owned(), ink),
            (found.clone(), Ink::Plain),
            (place.clone(), Ink::Dim),
        ]);
    }
    let came: Vec<Came> = lines.iter().map(|line| line.came).collect();
    format!("{}{}\n", table.render(paint), counts(&came))
}

/// `4 tests passed`, or `4 tests: 3 passed, 1 warns`; stages without a result are told too.
pub fn counts(came: &[Came]) -> String {
    let n = |wanted: Came| came.iter().filter(|came| **came == wanted).count();
    let (n_absent, n_tests) = (n(Came::Absent), came.len() - n(Came::Absent));
    let told = counted(n_tests as u64, "test");
    let parts: Vec<String> = [Came::Passed, Came::Warned, Came::Failed, Came::Broken]
        .into_iter()
        .filter(|came| n(*came) > 0)
        .map(|came| format!("{} {}", n(came), came.word().0))
        .collect();
    let told = match n(Came::Passed) {
        0 if n_tests == 0 => "no tests".to_owned(),
        passed if passed == n_tests => format!("{told} passed"),
        _ => format!("{told}: {}", parts.join(", ")),
    };
    match n_absent {
        0 => told,
        1 => format!("{told}; 1 stage has no result to test"),
        n => format!("{told}; {n} stages have no result to test"),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn line(test: &str, came: Came, found: &str) -> TestLine {
        let (stage, place) = ("pairs".to_owned(), "p.yaml:14:9".to_owned());
        TestLine { stage, test: test.to_owned(), came, found: found.to_owned(), place }
    }

    #[test]
    fn what_failed_is_told_with_its_rows() {
        let rows = "prompt  margin\na          0.5\n".to_owned();
        let command = Some("sluice sql 'select * from pairs.failed.range_margin'".to_owned());
        let some = Faults { rows, command: command.clone(), kept: None };
        let many = Faults { kept: Some(1000), ..some.clone() };
        let none = Faults { rows: String::new(), command: None, kept: None };
        let text = [
            failed(&line("range_margin", Came::Failed, "2 rows"), &some, Paint::OFF),
            failed(&line("range_margin", Came::Warned, "12,345 rows"), &many, Paint::OFF),
            failed(&line("row_count", Came::Failed, "there are 3 rows; at least 5 is wanted"), &none, Paint::OFF),
        ];
        expect![[r#"
            error: test `range_margin` of stage `pairs` failed: 2 rows (p.yaml:14:9)
              prompt  margin
              a          0.5
              help: `sluice sql 'select * from pairs.failed.range_margin'` shows them all
            warning: test `range_margin` of stage `pairs` failed: 12,345 rows (p.yaml:14:9)
              prompt  margin
              a          0.5
              help: `sluice sql 'select * from pairs.failed.range_margin'` shows the first 1,000 rows
            error: test `row_count` of stage `pairs` failed: there are 3 rows; at least 5 is wanted (p.yaml:14:9)
        "#]]
        .assert_eq(&text.concat());
    }

    #[test]
    fn outcomes_are_a_table_and_a_count() {
        let absent = TestLine { stage: "tuned".into(), ..line("", Came::Absent, "") };
        let lines = [line("unique_prompt_id", Came::Passed, ""), line("range_margin", Came::Warned, "2 rows"), absent];
        expect![[r#"
            stage  test              outcome    found   place
            pairs  unique_prompt_id  passed             p.yaml:14:9
            pairs  range_margin      warns      2 rows  p.yaml:14:9
            tuned                    no result          p.yaml:14:9
            2 tests: 1 passed, 1 warns; 1 stage has no result to test
        "#]]
        .assert_eq(&outcomes(&lines, Paint::OFF));
        assert_eq!(counts(&[Came::Passed, Came::Passed]), "2 tests passed");
        assert_eq!(counts(&[]), "no tests");
    }
}

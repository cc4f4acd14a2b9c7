//! `verify`: a line a stage, then what is not exactly the same. Owns the words for it.

use sluice_engine::{Amount, Checked, Example, Likeness, VerifiedStage, VerifyReport};

use crate::render::columns::{Align, Columns};
use crate::render::paint::{Ink, Paint};
use crate::render::quantity::{count, counted, seconds};

/// The whole answer.
pub fn verify(report: &VerifyReport, amount: Amount, paint: Paint) -> String {
    let VerifyReport { seed, stages } = report;
    let amount = match amount {
        Amount::Share(share) => format!("{} % of each result, at least a row", share * 100.0),
        Amount::Rows(rows) => format!("{} of each result", counted(rows, "row")),
    };
    let mut text = table(stages).render(paint);
    text += &format!("{}; {amount}, drawn with seed {seed}\n", verdict(stages));
    text.extend(stages.iter().map(|stage| notes(stage, paint)));
    text
}

fn table(stages: &[VerifiedStage]) -> Columns {
    let (left, right) = (Align::Left, Align::Right);
    let heads = [("stage", left), ("kind", left), ("found", left), ("made again", right), ("exact", right)];
    let heads = heads.into_iter().chain([("near", right), ("different", right), ("time", right)]);
    let mut table = Columns::headed(&heads.collect::<Vec<_>>());
    for VerifiedStage { name, kind, state, seconds: took } in stages {
        let stage = (name.to_string(), Ink::Plain);
        let kind = ((*kind).to_owned(), Ink::Dim);
        match state {
            Checked::Done { verdict, unit, exact, near, different, of, .. } => {
                let (word, ink) = word(*verdict);
                let made = exact + near + different;
                let made = if *unit == "rows" { format!("{}/{}", count(made), count(*of)) } else { "all".to_owned() };
                let worse = |n: u64, ink| (count(n), if n > 0 { ink } else { Ink::Dim });
                table.row([
                    stage,
                    kind,
                    (word.to_owned(), ink),
                    (made, Ink::Plain),
                    (count(*exact), Ink::Plain),
                    worse(*near, Ink::Active),
                    worse(*different, Ink::Bad),
                    (seconds(*took), Ink::Dim),
                ]);
            }
            Checked::Skipped { .. } => table.row([stage, kind, ("skipped".to_owned(), Ink::Dim)]),
            Checked::Failed { .. } => table.row([stage, kind, ("failed".to_owned(), Ink::Bad)]),
        }
    }
    table
}

const fn word(verdict: Likeness) -> (&'static str, Ink) {
    match verdict {
        Likeness::Exact => ("exact", Ink::Good),
        Likeness::Near => ("near", Ink::Active),
        Likeness::Different => ("different", Ink::Bad),
    }
}

fn verdict(stages: &[VerifiedStage]) -> String {
    let n = |counts: &dyn Fn(&Checked) -> bool| stages.iter().filter(|stage| counts(&stage.state)).count();
    let is =
        |wanted: Likeness| move |state: &Checked| matches!(state, Checked::Done { verdict, .. } if *verdict == wanted);
    let parts = [
        (n(&is(Likeness::Exact)), "exact"),
        (n(&is(Likeness::Near)), "near"),
        (n(&is(Likeness::Different)), "different"),
        (n(&|state| matches!(state, Checked::Failed { .. })), "that could not be made again"),
        (n(&|state| matches!(state, Checked::Skipped { .. })), "skipped"),
    ];
    let parts = parts.iter().filter(|(n, _)| *n > 0).map(|(n, text)| format!("{n} {text}"));
    format!("{}: {}", counted(stages.len() as u64, "stage"), parts.collect::<Vec<_>>().join(", "))
}

/// What is to be said of a stage beside its numbers.
fn notes(stage: &VerifiedStage, paint: Paint) -> String {
    let name = paint.ink(Ink::Bold, stage.name.as_str());
    match &stage.state {
        Checked::Skipped { reason } => format!("{name} is skipped: {reason}\n"),
        Checked::Failed { failure } => {
            let because: String = failure.causes().iter().map(|cause| format!("\n  because: {cause}")).collect();
            format!("{name} could not be made again: {failure}{because}\n")
        }
        Checked::Done { tolerance, numerics, worst, evidence, verdict, .. } => {
            let mut text = String::new();
            if let Some((of, by)) = numerics {
                text += &format!("{name} was computed as {of} and is checked as {by}, which gives other digits\n");
            }
            if *verdict != Likeness::Exact || numerics.is_some() {
                text += &format!("{name}: near is {tolerance}\n");
            }
            for Example { likeness, row, what } in worst {
                let (word, ink) = word(*likeness);
                text += &format!("  {} {row}: {what}\n", paint.ink(ink, word));
            }
            if let Some(evidence) = evidence {
                text += &format!("  the record of the other result is kept in {}\n", evidence.display());
            }
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use sluice_spec::{Options, parse};
    use sluice_store::StageKey;

    use super::*;

    #[test]
    fn a_check_is_a_table_and_the_worst_of_it() {
        let pipeline = "version: 1\nstages:\n  prompts: { ingest: { from: a.csv } }\n  tuned: { ingest: { from: a.csv } }\n  \
                        scores: { ingest: { from: a.csv } }\n";
        let pipeline = parse("p.yaml", pipeline, &Options::default()).expect("a pipeline");
        let done = |verdict, exact, near, different, of, unit| Checked::Done {
            key: StageKey::from_bytes([0; 32]),
            verdict,
            unit,
            exact,
            near,
            different,
            of,
            tolerance: "each score within 0.0001 of its size, or of 1".to_owned(),
            rows: Vec::new(),
            numerics: None,
            worst: Vec::new(),
            evidence: None,
        };
        let example = Example {
            likeness: Likeness::Different,
            row: "answer 2 to prompt 3f2a".to_owned(),
            what: "score 1.5 is 2.5 now".to_owned(),
        };
        let different = match done(Likeness::Different, 28, 1, 1, 3_000, "rows") {
            Checked::Done { key, verdict, unit, exact, near, different, of, tolerance, rows, evidence, .. } => {
                Checked::Done {
                    key,
                    verdict,
                    unit,
                    exact,
                    near,
                    different,
                    of,
                    tolerance,
                    rows,
                    numerics: Some(("cuda-bf16".to_owned(), "cpu-f32".to_owned())),
                    worst: vec![example],
                    evidence,
                }
            }
            other => other,
        };
        let states = [
            done(Likeness::Exact, 4_300, 0, 0, 4_300, "rows"),
            Checked::Skipped { reason: "a training is done again as a whole".to_owned() },
            different,
        ];
        let stage = |(stage, state): (&sluice_spec::Stage, Checked)| VerifiedStage {
            name: stage.name.clone(),
            kind: "score",
            state,
            seconds: 0.25,
        };
        let stages = pipeline.stages.iter().zip(states).map(stage).collect();
        let report = VerifyReport { seed: 7, stages };
        expect![[r#"
            stage    kind   found       made again  exact  near  different    time
            prompts  score  exact      4,300/4,300  4,300     0          0  250 ms
            tuned    score  skipped
            scores   score  different     30/3,000     28     1          1  250 ms
            3 stages: 1 exact, 1 different, 1 skipped; 1 % of each result, at least a row, drawn with seed 7
            tuned is skipped: a training is done again as a whole
            scores was computed as cuda-bf16 and is checked as cpu-f32, which gives other digits
            scores: near is each score within 0.0001 of its size, or of 1
              different answer 2 to prompt 3f2a: score 1.5 is 2.5 now
        "#]]
        .assert_eq(&verify(&report, Amount::Share(0.01), Paint::OFF));
    }
}

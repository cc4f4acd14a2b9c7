//! `why STAGE`: every value that changed, old and new, and where it stands. Owns the wording; the comparison is the
//! engine's.

use sluice_engine::{Cause, LeafChange};

use crate::render::columns::{Align, Columns};
use crate::render::paint::{Ink, Paint};
use crate::render::rows::{cut, one_line};

/// What is to be explained.
#[derive(Debug, Clone)]
pub struct Explained {
    pub stage: String,
    pub case: Case,
    /// The run it is compared with, as in `r17`.
    pub against: Option<String>,
    /// Whether somebody asked for that run, and not for the reason.
    pub is_chosen: bool,
    pub changes: Vec<LeafChange>,
    /// The stages before it that made its inputs change.
    pub causes: Vec<Cause>,
    /// Commands that explain the changed inputs.
    pub follow: Vec<String>,
}

/// How the stage stands.
#[derive(Debug, Clone)]
pub enum Case {
    /// It has a result.
    Hit,
    /// A run would compute it, for this reason.
    Run { reason: String },
    /// A run decides when these are there.
    Pending { upstream: Vec<String> },
    /// A run would fail.
    Fail { failure: String },
}

/// The explanation.
pub fn why(explained: &Explained, paint: Paint) -> String {
    let Explained { stage, case, against, is_chosen, changes, causes, follow } = explained;
    let stage = paint.ink(Ink::Bold, stage);
    let headline = match against {
        Some(run) if *is_chosen => comparison(&stage, case, run, changes),
        _ => headline(&stage, case, against.as_deref(), changes),
    };
    let mut text = format!("{headline}\n");
    text += &table(changes, paint);
    text.extend(causes.iter().map(|one| cause(one, paint)));
    if !follow.is_empty() {
        text += &format!("follow the input: {}\n", follow.join(", "));
    }
    text
}

fn headline(stage: &str, case: &Case, against: Option<&str>, changes: &[LeafChange]) -> String {
    let since = against.map_or_else(String::new, |run| format!(" since run {run}"));
    match case {
        Case::Hit if changes.is_empty() => match against {
            None => format!("{stage} is up to date; it has had no other result to compare with"),
            Some(run) => format!("{stage} is up to date; nothing in its key differs from run {run}"),
        },
        Case::Hit => format!("{stage} is up to date; it ran because this changed{since}:"),
        Case::Run { .. } if !changes.is_empty() => format!("{stage} would run, because this changed{since}:"),
        Case::Run { reason } => format!("{stage} would run: {reason}"),
        Case::Pending { upstream } if changes.is_empty() => {
            format!(
                "{stage} waits for {}; its own parameters are as they were, so it runs only if that comes out different",
                upstream.join(", ")
            )
        }
        Case::Pending { upstream } => {
            format!("{stage} waits for {}; it would run, because this changed{since}:", upstream.join(", "))
        }
        Case::Fail { failure } => format!("{stage} would fail: {failure}"),
    }
}

/// The headline over what differs from a run that was asked for.
fn comparison(stage: &str, case: &Case, run: &str, changes: &[LeafChange]) -> String {
    let state = match case {
        Case::Hit => "is up to date".to_owned(),
        Case::Run { .. } => "would run".to_owned(),
        Case::Pending { upstream } => format!("waits for {}", upstream.join(", ")),
        Case::Fail { failure } => format!("would fail: {failure}"),
    };
    // Of inputs that are not there nothing can be said.
    let what = if matches!(case, Case::Pending { .. } | Case::Fail { .. }) { "its own parameters" } else { "its key" };
    match changes.is_empty() {
        true => format!("{stage} {state}; nothing in {what} differs from run {run}"),
        false => format!("{stage} {state}; since run {run}, this changed in {what}:"),
    }
}

/// `because of pairs, through tuned:` and what changed there.
fn cause(cause: &Cause, paint: Paint) -> String {
    let Cause { stage, changes, reason, through } = cause;
    let through: Vec<String> = through.iter().map(ToString::to_string).collect();
    let through = if through.is_empty() { String::new() } else { format!(", through {}", through.join(" and ")) };
    let head = format!("because of {}{through}:", paint.ink(Ink::Bold, stage.as_str()));
    match reason {
        Some(reason) => format!("{head} {reason}\n{}", table(changes, paint)),
        None => format!("{head}\n{}", table(changes, paint)),
    }
}

/// A line a change: what it was, what it is, and where that stands.
pub fn table(changes: &[LeafChange], paint: Paint) -> String {
    let left = Align::Left;
    let mut table = Columns::new(&[left, left, left, left, left, left]);
    for LeafChange { path, old, new, old_place, place } in changes {
        let value =
            |value: &Option<sluice_store::LeafValue>| value.as_ref().map_or("absent".to_owned(), ToString::to_string);
        let (old, new) = apart(&value(old), &value(new));
        let place = match (place, old_place) {
            (Some(place), _) => place.clone(),
            (None, Some(old)) => format!("was {old}"),
            (None, None) => String::new(),
        };
        table.row([
            (String::new(), Ink::Plain),
            (path.clone(), Ink::Name),
            (old, Ink::Bad),
            ("→".to_owned(), Ink::Dim),
            (new, Ink::Good),
            (place, Ink::Dim),
        ]);
    }
    table.render(paint)
}

/// Longest value that is shown whole, in characters.
const WHOLE: usize = 32;
/// What is shown of a long value on each side of where it differs.
const AROUND: usize = 8;

/// Two values as one line each; of long ones, such as queries, the part in which they differ.
pub fn apart(old: &str, new: &str) -> (String, String) {
    let (old, new): (Vec<char>, Vec<char>) = (one_line(old).chars().collect(), one_line(new).chars().collect());
    if old.len().max(new.len()) <= WHOLE {
        return (old.into_iter().collect(), new.into_iter().collect());
    }
    let before = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let left = old.len().min(new.len()) - before;
    let behind = old.iter().rev().zip(new.iter().rev()).take(left).take_while(|(a, b)| a == b).count();
    let part = |text: &[char]| {
        let start = before.saturating_sub(AROUND);
        let end = text.len() - behind.saturating_sub(AROUND);
        let ellipsis = |is_cut: bool| if is_cut { "…" } else { "" };
        let middle: String = text[start..end].iter().collect();
        cut(&format!("{}{middle}{}", ellipsis(start > 0), ellipsis(end < text.len())), 2 * WHOLE)
    };
    (part(&old), part(&new))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use sluice_store::LeafValue;

    use super::*;

    #[track_caller]
    fn check(case: Case, against: Option<&str>, changes: &[LeafChange], expected: Expect) {
        check_against(case, against, false, changes, Vec::new(), expected);
    }

    #[track_caller]
    fn check_against(
        case: Case,
        against: Option<&str>,
        is_chosen: bool,
        changes: &[LeafChange],
        causes: Vec<Cause>,
        expected: Expect,
    ) {
        let explained = Explained {
            stage: "pairs".to_owned(),
            case,
            against: against.map(str::to_owned),
            is_chosen,
            changes: changes.to_vec(),
            causes,
            follow: changes
                .iter()
                .filter(|change| change.path.starts_with("input."))
                .map(|_| "sluice why scores".to_owned())
                .collect(),
        };
        expected.assert_eq(&why(&explained, Paint::OFF));
    }

    #[test]
    fn long_values_are_shown_where_they_differ() {
        let check = |old: &str, new: &str, expected: (&str, &str)| {
            let (old, new) = apart(old, new);
            assert_eq!((old.as_str(), new.as_str()), expected);
        };
        check("drop", "first", ("drop", "first"));
        check(
            "select a, count(*) as n from prompts group by a",
            "select a, 2 * count(*) as n from prompts group by a",
            ("…lect a, count(*)…", "…lect a, 2 * count(*)…"),
        );
        check("absent", "select one from two where three = 4", ("absent", "select one from two where three = 4"));
        check(
            "select 1 from a_table_with_a_name",
            "select 1 from a_table_with_a_name where x",
            ("…h_a_name", "…h_a_name where x"),
        );
    }

    #[test]
    fn roots_are_told_with_the_way_to_them() {
        let pipeline = "version: 1\nstages:\n  prompts: { ingest: { from: a.csv } }\n  few: { sql: { from: [prompts], query: q } }\n";
        let pipeline = sluice_spec::parse("p.yaml", pipeline, &Default::default()).expect("a pipeline");
        let [prompts, few] = pipeline.stages.as_slice() else { panic!("two stages") };
        let text = |text: &str| Some(LeafValue::Text(text.to_owned()));
        let change = LeafChange {
            path: "sql.query".into(),
            old: text("p"),
            new: text("q"),
            old_place: None,
            place: Some("p.yaml:4:42".into()),
        };
        let cause = Cause { stage: few.name.clone(), changes: vec![change], reason: None, through: Vec::new() };
        let gone = Cause {
            stage: prompts.name.clone(),
            changes: Vec::new(),
            reason: Some("its output `prompts` is gone from the store".to_owned()),
            through: vec![few.name.clone()],
        };
        check_against(
            Case::Pending { upstream: vec!["few".into()] },
            Some("r2"),
            false,
            &[],
            vec![cause, gone],
            expect![[r#"
                pairs waits for few; its own parameters are as they were, so it runs only if that comes out different
                because of few:
                  sql.query  p  →  q  p.yaml:4:42
                because of prompts, through few: its output `prompts` is gone from the store
            "#]],
        );
    }

    #[test]
    fn each_case_says_what_it_is() {
        let text = |text: &str| Some(LeafValue::Text(text.to_owned()));
        let digest = |hex: &str| Some(LeafValue::Digest(hex.repeat(8)));
        let ties = LeafChange {
            path: "pair.ties".into(),
            old: text("drop"),
            new: text("first"),
            old_place: None,
            place: Some("p.yaml:31:18".into()),
        };
        let input = LeafChange {
            path: "input.scores".into(),
            old: digest("ab12"),
            new: digest("cd34"),
            old_place: None,
            place: Some("p.yaml:31:10".into()),
        };
        check_against(
            Case::Hit,
            Some("r1"),
            true,
            std::slice::from_ref(&ties),
            Vec::new(),
            expect![[r#"
                pairs is up to date; since run r1, this changed in its key:
                  pair.ties  drop  →  first  p.yaml:31:18
            "#]],
        );
        check_against(
            Case::Pending { upstream: vec!["scores".into()] },
            Some("r1"),
            true,
            &[],
            Vec::new(),
            expect![[r#"
                pairs waits for scores; nothing in its own parameters differs from run r1
            "#]],
        );
        check(
            Case::Hit,
            None,
            &[],
            expect![[r#"
            pairs is up to date; it has had no other result to compare with
        "#]],
        );
        check(
            Case::Hit,
            Some("r2"),
            std::slice::from_ref(&ties),
            expect![[r#"
            pairs is up to date; it ran because this changed since run r2:
              pair.ties  drop  →  first  p.yaml:31:18
        "#]],
        );
        check(
            Case::Run { reason: "never ran".into() },
            None,
            &[],
            expect![[r#"
            pairs would run: never ran
        "#]],
        );
        check(
            Case::Run { reason: String::new() },
            Some("r2"),
            &[input, ties],
            expect![[r#"
            pairs would run, because this changed since run r2:
              input.scores  ab12ab12ab12  →  cd34cd34cd34  p.yaml:31:10
              pair.ties     drop          →  first         p.yaml:31:18
            follow the input: sluice why scores
        "#]],
        );
        check(
            Case::Pending { upstream: vec!["scores".into()] },
            Some("r2"),
            &[],
            expect![[r#"
            pairs waits for scores; its own parameters are as they were, so it runs only if that comes out different
        "#]],
        );
        check(
            Case::Fail { failure: "no file matches `x`".into() },
            None,
            &[],
            expect![[r#"
            pairs would fail: no file matches `x`
        "#]],
        );
    }
}

//! What an evaluation found, as a small table: before, after, and the difference with its interval.
//!
//! Owns which figures are shown and in which words. Knows the figures by the names that `evaluate` gives them, and shows
//! only those that are there.

use std::collections::BTreeMap;

use crate::render::columns::{Align, Columns};
use crate::render::paint::{Ink, Paint};
use crate::render::quantity::{count, percent, points};

/// The named numbers of an evaluation.
pub type Figures = BTreeMap<String, f64>;

/// A share whose change is told in points: its name, and what it is called here.
const SHARES: [(&str, &str); 3] =
    [("exact_accuracy", "right answers"), ("format_adherence", "format kept"), ("finished_share", "ended")];

/// The decodings, the one that training aims at first.
const DECODINGS: [&str; 2] = ["sampled", "greedy"];

/// The table of an evaluation; empty without figures.
pub fn evaluation(stage: &str, figures: &Figures, paint: Paint) -> String {
    let mut table = Columns::new(&[Align::Left, Align::Right, Align::Right, Align::Left]);
    let n_prompts = figures.get("prompts").map(|n| format!(" on {} prompts", count(*n as u64))).unwrap_or_default();
    let title = format!("{stage}{n_prompts}");
    table.row([
        (title, Ink::Bold),
        ("before".to_owned(), Ink::Dim),
        ("after".to_owned(), Ink::Dim),
        (String::new(), Ink::Plain),
    ]);
    let mut n_rows = 0;
    for (name, words) in SHARES {
        // Answers that keep to the form have ended; the lesser share is told only where the greater one is not.
        if name == "finished_share" && figures.contains_key("format_adherence_sampled_after") {
            continue;
        }
        for decoding in DECODINGS {
            n_rows += usize::from(share(&mut table, figures, name, words, decoding).is_some());
        }
    }
    for decoding in DECODINGS {
        n_rows += usize::from(length(&mut table, figures, decoding).is_some());
    }
    for decoding in DECODINGS {
        n_rows += usize::from(wins(&mut table, figures, decoding).is_some());
    }
    if n_rows == 0 { String::new() } else { table.render(paint) }
}

fn share(table: &mut Columns, figures: &Figures, name: &str, words: &str, decoding: &str) -> Option<()> {
    let before = figures.get(&format!("{name}_{decoding}_before"))?;
    let after = figures.get(&format!("{name}_{decoding}_after"))?;
    let gain = figures.get(&format!("{name}_{decoding}_gain")).copied().unwrap_or(after - before);
    let interval = interval(figures, &format!("{name}_{decoding}_gain"), |value| format!("{:+.1}", value * 100.0));
    let ink = if gain > 0.0 { Ink::Good } else { Ink::Active };
    table.row([
        (format!("  {words}, {decoding}"), Ink::Plain),
        (percent(*before), Ink::Plain),
        (percent(*after), Ink::Bold),
        (format!("{}{interval}", points(gain)), ink),
    ]);
    Some(())
}

fn length(table: &mut Columns, figures: &Figures, decoding: &str) -> Option<()> {
    let before = figures.get(&format!("mean_tokens_{decoding}_before"))?;
    let after = figures.get(&format!("mean_tokens_{decoding}_after"))?;
    let ratio = figures.get(&format!("length_ratio_{decoding}")).map(|ratio| format!("{ratio:.2} times as long"));
    table.row([
        (format!("  tokens an answer, {decoding}"), Ink::Plain),
        (format!("{before:.1}"), Ink::Plain),
        (format!("{after:.1}"), Ink::Bold),
        (ratio.unwrap_or_default(), Ink::Plain),
    ]);
    Some(())
}

fn wins(table: &mut Columns, figures: &Figures, decoding: &str) -> Option<()> {
    let name = format!("win_rate_{decoding}");
    let rate = figures.get(&name)?;
    let interval = interval(figures, &name, |value| format!("{:.1}", value * 100.0));
    table.row([
        (format!("  judge prefers the new answer, {decoding}"), Ink::Plain),
        (String::new(), Ink::Plain),
        (percent(*rate), Ink::Bold),
        (interval.trim_start().to_owned(), Ink::Plain),
    ]);
    Some(())
}

/// ` [low, high]`, or nothing where there is none.
fn interval(figures: &Figures, name: &str, text: impl Fn(f64) -> String) -> String {
    let end = |end: &str| figures.get(&format!("{name}_{end}")).map(|value| text(*value));
    end("low").zip(end("high")).map(|(low, high)| format!(" [{low}, {high}]")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn only_what_was_measured_is_shown() {
        let figures: Figures = [
            ("prompts", 1076.0),
            ("exact_accuracy_sampled_before", 0.469),
            ("exact_accuracy_sampled_after", 0.59),
            ("exact_accuracy_sampled_gain", 0.121),
            ("exact_accuracy_sampled_gain_low", 0.098),
            ("exact_accuracy_sampled_gain_high", 0.144),
            ("exact_accuracy_greedy_before", 0.609),
            ("exact_accuracy_greedy_after", 0.6),
            ("format_adherence_sampled_before", 0.81),
            ("format_adherence_sampled_after", 0.934),
            ("finished_share_sampled_before", 0.99),
            ("finished_share_sampled_after", 1.0),
            ("mean_tokens_sampled_before", 8.12),
            ("mean_tokens_sampled_after", 5.6),
            ("length_ratio_sampled", 0.69),
            ("win_rate_sampled", 0.643),
            ("win_rate_sampled_low", 0.61),
            ("win_rate_sampled_high", 0.675),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        expect![[r#"
            report on 1,076 prompts                  before   after
              right answers, sampled                 46.9 %  59.0 %  +12.1 points [+9.8, +14.4]
              right answers, greedy                  60.9 %  60.0 %  -0.9 points
              format kept, sampled                   81.0 %  93.4 %  +12.4 points
              tokens an answer, sampled                 8.1     5.6  0.69 times as long
              judge prefers the new answer, sampled          64.3 %  [61.0, 67.5]
        "#]]
        .assert_eq(&evaluation("report", &figures, Paint::OFF));
        assert_eq!(evaluation("report", &Figures::new(), Paint::OFF), "");
    }
}

//! Faults of a pipeline file: each with its place, the underlined text, a label and what would be right.
//!
//! Owns how they look; what they say is the file format's business.

use miette::{
    GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteDiagnostic, NamedSource, Report, ThemeCharacters,
};
use serde_json::{Value, json};
use sluice_spec::{Diagnostic, Diagnostics, Related, Sources, Span};

use crate::render::paint::{Ink, Paint};
use crate::render::quantity::counted;

/// All faults, and a last line that counts them. `columns` is the width of the terminal.
pub fn text(diagnostics: &Diagnostics, paint: Paint, columns: usize) -> String {
    let theme = if paint.on { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let theme = GraphicalTheme { characters: characters(), ..theme };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_links(false)
        .with_context_lines(1)
        .with_wrap_lines(false)
        .with_width(columns);
    let mut text = String::new();
    for fault in &diagnostics.list {
        // Writing to a string does not fail.
        let _ = handler.render_report(&mut text, report(&diagnostics.sources, fault).as_ref());
        text = text.trim_end().to_owned() + "\n\n";
    }
    let n_faults = counted(diagnostics.list.len() as u64, "fault");
    text + &format!("{} {n_faults} in {}\n", paint.ink(Ink::Bad, "error:"), diagnostics.sources.name())
}

/// One object for each fault: `{"code", "message", "file", "line", "column", "length", "text", "label", "help"}`.
pub fn json(diagnostics: &Diagnostics) -> Vec<Value> {
    let sources = &diagnostics.sources;
    let one = |fault: &Diagnostic| {
        let Diagnostic { code, message, place, label, help, related } = fault;
        let related = related.iter().map(|other| {
            let Related { place, label } = other;
            json!({"file": file(sources, *place), "line": place.line, "column": place.column, "label": label})
        });
        json!({
            "code": code.as_str(),
            "message": message,
            "file": file(sources, *place),
            "line": place.line,
            "column": place.column,
            "length": place.len,
            "text": sources.slice(*place),
            "label": label,
            "help": help,
            "related": related.collect::<Vec<_>>(),
        })
    };
    diagnostics.list.iter().map(one).collect()
}

/// The name of the text a span points into: the file, or `--set`.
fn file(sources: &Sources, span: Span) -> String {
    if span.source == sluice_spec::SourceId::FILE { sources.name().to_owned() } else { "--set".to_owned() }
}

/// Characters of a line above which no excerpt is shown: it would fill screens.
const WIDEST: usize = 1000;

fn report(sources: &Sources, fault: &Diagnostic) -> Report {
    let Diagnostic { code: _, message, place, label, help, related } = fault;
    let around = (place.line as usize).saturating_sub(2);
    if sources.text(place.source).lines().skip(around).take(3).any(|line| line.len() > WIDEST) {
        let place = format!("{}:{}:{}", file(sources, *place), place.line, place.column);
        let mut shown = MietteDiagnostic::new(format!("{place}: {message}"));
        shown.help.clone_from(help);
        return Report::new(shown);
    }
    let mut shown = MietteDiagnostic::new(message.clone());
    let label = (!label.is_empty()).then(|| label.clone());
    shown = shown.with_label(LabeledSpan::new_primary_with_span(label, place.range()));
    // A related place of another text has no line in this excerpt.
    for other in related.iter().filter(|other| other.place.source == place.source) {
        shown = shown.and_label(LabeledSpan::new_with_span(Some(other.label.clone()), other.place.range()));
    }
    if let Some(help) = help {
        shown = shown.with_help(help.clone());
    }
    let source = NamedSource::new(file(sources, *place), sources.text(place.source).to_owned());
    Report::new(shown).with_source_code(source)
}

fn characters() -> ThemeCharacters {
    ThemeCharacters { error: "error:".to_owned(), ..ThemeCharacters::unicode() }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use sluice_spec::{Options, parse};

    use super::*;

    const BROKEN: &str = "\
version: 1
models: { policy: data/policy }
stages:
  prompts:   { ingest: { from: data/prompts.jsonl } }
  responses: { sample: { prompts: promts, model: policy, temprature: 0.8 } }
";

    #[track_caller]
    fn check(source: &str, set: &[&str], expected: Expect) {
        let options = Options { profile: None, set: set.iter().map(|text| (*text).to_owned()).collect() };
        let faults = parse("pipelines/p.yaml", source, &options).expect_err("a faulty file");
        expected.assert_eq(&text(&faults, Paint::OFF, 100));
    }

    #[test]
    fn every_fault_is_shown_with_its_line() {
        check(
            BROKEN,
            &[],
            expect![[r#"
              error: stage `responses`: `sample.prompts` reads `promts`, which no stage makes
               ╭─[pipelines/p.yaml:5:35]
             4 │   prompts:   { ingest: { from: data/prompts.jsonl } }
             5 │   responses: { sample: { prompts: promts, model: policy, temprature: 0.8 } }
               ·                                   ──────
               ╰────
              help: did you mean `prompts` (line 4)?

              error: stage `responses`: `sample` has no key `temprature`
               ╭─[pipelines/p.yaml:5:58]
             4 │   prompts:   { ingest: { from: data/prompts.jsonl } }
             5 │   responses: { sample: { prompts: promts, model: policy, temprature: 0.8 } }
               ·                                                          ──────────
               ╰────
              help: did you mean `temperature`?

            error: 2 faults in pipelines/p.yaml
        "#]],
        );
    }

    #[test]
    fn a_fault_of_an_override_is_shown_in_it() {
        let fixed = BROKEN.replace("promts", "prompts").replace("temprature", "temperature");
        check(
            &fixed,
            &["stages.responses.sample.temperature=hot"],
            expect![[r#"
                  error: stage `responses`: `sample.temperature` must be a number from 0 (the most likely token) to 100, not the text `hot`
                   ╭─[--set:1:37]
                 1 │ stages.responses.sample.temperature=hot
                   ·                                     ───
                   ╰────

                error: 1 fault in pipelines/p.yaml
            "#]],
        );
    }

    #[test]
    fn programs_get_one_object_a_fault() {
        let faults = parse("p.yaml", BROKEN, &Options::default()).expect_err("a faulty file");
        let lines: String = json(&faults).iter().map(|fault| format!("{fault}\n")).collect();
        expect![[r#"
            {"code":"unknown-name","message":"stage `responses`: `sample.prompts` reads `promts`, which no stage makes","file":"p.yaml","line":5,"column":35,"length":6,"text":"promts","label":"","help":"did you mean `prompts` (line 4)?","related":[]}
            {"code":"unknown-key","message":"stage `responses`: `sample` has no key `temprature`","file":"p.yaml","line":5,"column":58,"length":10,"text":"temprature","label":"","help":"did you mean `temperature`?","related":[]}
        "#]].assert_eq(&lines);
    }
}

//! Every fixture under `tests/fixtures/faults` says in its own comments which faults it has, and has no others.
//!
//! A fault stands under its line: carets under the text, then `code: message`, then `help:` and `also:` lines.
//! A caret line that begins with `#~` points at column 1. `# profile: NAME` and `# set: PATH=VALUE` lines give
//! the options, and faults of an override stand under its line. `UPDATE_EXPECT=1` writes the comments anew
//! (twice, since they shift the lines that messages mention).

use std::fmt::Write as _;
use std::path::Path;

use expect_test::expect_file;
use sluice_spec::{Diagnostic, Diagnostics, Options, SourceId, Span, parse};

#[test]
fn fixtures_have_exactly_the_faults_they_announce() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/faults");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .expect("the fixture folder can be listed")
        .map(|entry| entry.expect("a folder entry can be read").path())
        .collect();
    files.sort();
    assert!(files.len() > 10, "fixtures are missing");
    for file in files {
        check(&file);
    }
}

fn check(path: &Path) {
    let text = std::fs::read_to_string(path).expect("a fixture can be read");
    let value_of = |line: &str, key: &str| line.strip_prefix(key).map(str::to_owned);
    let options = Options {
        profile: text.lines().find_map(|line| value_of(line, "# profile: ")),
        set: text.lines().filter_map(|line| value_of(line, "# set: ")).collect(),
    };
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("fixture");
    let faults = match parse(name, &text, &options) {
        Ok(_) => Vec::new(),
        Err(Diagnostics { list, .. }) => list,
    };
    expect_file![path].assert_eq(&annotated(&text, &faults));
}

/// The fixture without its announcements, and with those of `faults`.
fn annotated(text: &str, faults: &[Diagnostic]) -> String {
    let mut out = String::new();
    let mut n_sets = 0;
    let mut pending: Vec<&Diagnostic> = faults.iter().collect();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !is_announcement(line)) {
        writeln!(out, "{line}").expect("a string takes all text");
        let set_index = line.starts_with("# set: ").then_some(n_sets);
        n_sets += usize::from(set_index.is_some());
        pending.retain(|fault| {
            let stands_here = match fault.place.source.set_index() {
                None => fault.place.line as usize == index + 1,
                of_set => of_set == set_index,
            };
            if stands_here {
                announce(&mut out, text, fault, if set_index.is_some() { "# set: ".len() } else { 0 });
            }
            !stands_here
        });
    }
    for fault in pending {
        announce(&mut out, text, fault, 0);
    }
    out
}

fn is_announcement(line: &str) -> bool {
    let Some(rest) = line.strip_prefix('#') else { return false };
    let rest = rest.trim_start();
    rest.starts_with(['^', '~']) || rest.starts_with("help: ") || rest.starts_with("also: ")
}

fn announce(out: &mut String, text: &str, fault: &Diagnostic, shift: usize) {
    let column = fault.place.column as usize + shift;
    let carets = "^".repeat(width(text, fault.place));
    let lead = match column {
        1 => "#~ ".to_owned(),
        _ => format!("#{}{carets} ", " ".repeat(column - 2)),
    };
    let margin = format!("#{}", " ".repeat(lead.chars().count() - 1));
    let label = if fault.label.is_empty() { String::new() } else { format!(" ({})", fault.label) };
    writeln!(out, "{lead}{}: {}{label}", fault.code, fault.message).expect("a string takes all text");
    for related in &fault.related {
        let Span { line, column, .. } = related.place;
        writeln!(out, "{margin}also: {line}:{column} {}", related.label).expect("a string takes all text");
    }
    if let Some(help) = &fault.help {
        writeln!(out, "{margin}help: {help}").expect("a string takes all text");
    }
}

/// How many characters of a span stand on its first line.
fn width(text: &str, span: Span) -> usize {
    if span.source != SourceId::FILE {
        return (span.len as usize).max(1);
    }
    let covered = text.get(span.range()).unwrap_or("");
    covered.lines().next().unwrap_or("").trim_end().chars().count().max(1)
}

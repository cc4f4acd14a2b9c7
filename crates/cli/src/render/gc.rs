//! `gc`: what goes, by name and size, and what it comes to.

use std::collections::BTreeMap;

use sluice_store::GarbageKind;

use crate::render::columns::{Align, Columns};
use crate::render::paint::{Ink, Paint};
use crate::render::quantity::{bytes, count, counted};

/// Lines that are shown of a long list: the largest things.
const SHOWN: usize = 40;

/// A piece of garbage.
#[derive(Debug, Clone)]
pub struct GcRow {
    pub kind: GarbageKind,
    /// The stage or table; for a run its pipeline.
    pub of: Option<String>,
    pub run: Option<String>,
    pub bytes: u64,
    pub path: String,
}

/// What was done, or would be.
#[derive(Debug, Clone)]
pub struct GcEnd {
    pub is_dry: bool,
    /// Things that take room.
    pub n: u64,
    pub bytes: u64,
    pub n_runs_kept: u64,
    /// What stays for its youth alone.
    pub n_young: u64,
    pub young_bytes: u64,
    pub grace_hours: f64,
    /// Records that do not say which journals they used.
    pub n_without_scopes: u64,
}

/// The list of what goes: everything that takes room by name, the rest counted; with `all`, every file.
pub fn list(rows: &[GcRow], all: bool, paint: Paint) -> String {
    let is_counted = |row: &&GcRow| !all && is_small(row.kind);
    let (counted_rows, mut named): (Vec<&GcRow>, Vec<&GcRow>) = rows.iter().partition(is_counted);
    let n_left_out = if all { 0 } else { named.len().saturating_sub(SHOWN) };
    if n_left_out > 0 {
        named.sort_by_key(|row| std::cmp::Reverse(row.bytes));
        named.truncate(SHOWN);
    }
    let mut text = String::new();
    if !named.is_empty() {
        let left = Align::Left;
        let mut table =
            Columns::headed(&[("what", left), ("of", left), ("run", left), ("size", Align::Right), ("", left)]);
        for GcRow { kind, of, run, bytes: size, path } in named {
            let is_nameless = of.is_none() && run.is_none();
            table.row([
                (kind.name().to_owned(), Ink::Plain),
                (of.clone().unwrap_or("-".to_owned()), Ink::Name),
                (run.clone().unwrap_or("-".to_owned()), Ink::Plain),
                (bytes(*size), Ink::Plain),
                (if all || is_nameless { path.clone() } else { String::new() }, Ink::Dim),
            ]);
        }
        text += &table.render(paint);
    }
    if rows.iter().all(|row| is_incidental(row.kind)) {
        return text;
    }
    let mut kinds: BTreeMap<GarbageKind, u64> = BTreeMap::new();
    counted_rows.iter().for_each(|row| *kinds.entry(row.kind).or_default() += 1);
    let mut rest: Vec<String> = kinds.iter().map(|(kind, n)| plural(*n, kind.name())).collect();
    if n_left_out > 0 {
        rest.insert(0, format!("{} smaller than these (-v names them)", counted(n_left_out as u64, "thing")));
    }
    if !rest.is_empty() {
        text += &paint.ink(Ink::Dim, format!("{}{}\n", if text.is_empty() { "" } else { "and " }, rest.join(", ")));
    }
    text
}

/// What takes no room worth telling each by name.
const fn is_small(kind: GarbageKind) -> bool {
    matches!(kind, GarbageKind::Record | GarbageKind::Divergence | GarbageKind::Lock | GarbageKind::Remembered)
}

/// What takes no room at all.
pub const fn is_incidental(kind: GarbageKind) -> bool {
    matches!(kind, GarbageKind::Lock | GarbageKind::Remembered)
}

/// `2 records`, `3 stat cache entries`.
fn plural(n: u64, noun: &str) -> String {
    match noun.strip_suffix('y') {
        Some(stem) if n != 1 => format!("{} {stem}ies", count(n)),
        _ => counted(n, noun),
    }
}

/// What it comes to. `command` takes what is young, too.
pub fn end(ended: &GcEnd, command: &str, paint: Paint) -> String {
    let GcEnd { is_dry, n, bytes: size, n_runs_kept, n_young, young_bytes, grace_hours, n_without_scopes } = ended;
    let kept = format!("{} {}", counted(*n_runs_kept, "run"), if *n_runs_kept == 1 { "stays" } else { "stay" });
    let mut text = match (n, is_dry) {
        (0, _) => format!("nothing to take away; {kept}\n"),
        (_, true) => format!("would free {}: {}; {kept}\n", bytes(*size), counted(*n, "thing")),
        (_, false) => format!("freed {}: {}; {kept}\n", bytes(*size), counted(*n, "thing")),
    };
    if *n_young > 0 {
        text += &paint.ink(
            Ink::Dim,
            format!(
                "{} ({}) stay because they are younger than {grace_hours} h; `{command}` takes them, too\n",
                counted(*n_young, "thing"),
                bytes(*young_bytes)
            ),
        );
    }
    if *n_without_scopes > 0 {
        text += &paint.ink(
            Ink::Dim,
            format!(
                "all row journals stay: an older program did not write down which ones {} used\n",
                counted(*n_without_scopes, "record")
            ),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn row(kind: GarbageKind, of: Option<&str>, run: Option<&str>, bytes: u64) -> GcRow {
        let text = |text: &str| text.to_owned();
        GcRow { kind, of: of.map(text), run: run.map(text), bytes, path: ".sluice/objects/ab/cd".to_owned() }
    }

    #[test]
    fn what_takes_room_is_named() {
        let rows = [
            row(GarbageKind::Run, Some("pipelines/p.yaml"), Some("r1"), 1200),
            row(GarbageKind::Record, Some("pairs"), Some("r1"), 900),
            row(GarbageKind::Record, Some("tuned"), Some("r1"), 900),
            row(GarbageKind::Table, Some("pairs.dropped"), Some("r1"), 4_600_000),
            row(GarbageKind::Table, None, None, 812),
            row(GarbageKind::Checkpoint, Some("tuned"), Some("r1"), 18_480_000_000),
            row(GarbageKind::Remembered, None, None, 0),
            row(GarbageKind::Remembered, None, None, 0),
        ];
        expect![[r#"
            what        of                run     size
            run         pipelines/p.yaml  r1    1.2 kB
            table       pairs.dropped     r1    4.6 MB
            table       -                 -      812 B  .sluice/objects/ab/cd
            checkpoint  tuned             r1   18.5 GB
            and 2 records, 2 stat cache entries
        "#]]
        .assert_eq(&list(&rows, false, Paint::OFF));
        let many: Vec<GcRow> = (0..45).map(|n| row(GarbageKind::Table, Some("pairs"), Some("r1"), n)).collect();
        let listed = list(&many, false, Paint::OFF);
        assert_eq!(listed.lines().count(), 1 + SHOWN + 1);
        assert!(listed.ends_with("and 5 things smaller than these (-v names them)\n"), "{listed}");
        assert_eq!(list(&many, true, Paint::OFF).lines().count(), 46);
        let lock = row(GarbageKind::Lock, None, None, 0);
        assert_eq!(list(&[lock], false, Paint::OFF), "", "a lock is nothing to speak of");
    }

    #[test]
    fn the_end_says_what_stays_and_why() {
        let ended = GcEnd {
            is_dry: true,
            n: 12,
            bytes: 18_480_000_000,
            n_runs_kept: 3,
            n_young: 2,
            young_bytes: 4_600_000,
            grace_hours: 24.0,
            n_without_scopes: 1,
        };
        expect![[r#"
            would free 18.5 GB: 12 things; 3 runs stay
            2 things (4.6 MB) stay because they are younger than 24 h; `sluice gc --grace-hours 0` takes them, too
            all row journals stay: an older program did not write down which ones 1 record used
        "#]]
        .assert_eq(&end(&ended, "sluice gc --grace-hours 0", Paint::OFF));
        let nothing = GcEnd { n: 0, bytes: 0, n_young: 0, n_without_scopes: 0, ..ended };
        expect![[r#"
            nothing to take away; 3 runs stay
        "#]]
        .assert_eq(&end(&nothing, "", Paint::OFF));
    }
}

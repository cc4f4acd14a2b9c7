//! `fsck`: each fault with its file and what is done about it, and what the look came to.

use crate::render::paint::{Ink, Paint};
use crate::render::quantity::{bytes, count, counted, seconds};

/// One fault.
#[derive(Debug, Clone)]
pub struct FsckRow {
    pub kind: &'static str,
    /// The stage or table it is of.
    pub of: Option<String>,
    pub run: Option<String>,
    pub path: String,
    pub what: String,
    /// What a repair does about it.
    pub mending: &'static str,
    /// None when no repair was asked for.
    pub is_mended: Option<bool>,
}

/// What the look came to.
#[derive(Debug, Clone)]
pub struct FsckEnd {
    pub n_things: u64,
    pub n_rows: u64,
    pub bytes: u64,
    pub seconds: f64,
    pub n_faults: u64,
    /// None when no repair was asked for.
    pub n_mended: Option<u64>,
    pub n_newer: u64,
    pub strays: Vec<String>,
}

/// Three lines on a fault: what and whose, where, what is done.
pub fn fault(row: &FsckRow, paint: Paint) -> String {
    let FsckRow { kind, of, run, path, what, mending, is_mended } = row;
    let of = of.as_ref().map_or_else(String::new, |of| format!(" {}", paint.ink(Ink::Name, of)));
    let run = run.as_ref().map_or_else(String::new, |run| format!(" of run {run}"));
    let done = match is_mended {
        None => format!("with --repair it {mending}"),
        Some(true) => paint.ink(Ink::Good, mending),
        Some(false) => paint.ink(Ink::Active, "is in use just now; repair again when it is not"),
    };
    format!("{} {kind}{of}{run}: {what}\n  {}\n  {done}\n", paint.ink(Ink::Bad, "damaged"), paint.ink(Ink::Dim, path))
}

/// The verdict, what was read, and what else was found. `repair` is the command that mends.
pub fn end(ended: &FsckEnd, repair: &str, paint: Paint) -> String {
    let FsckEnd { n_things, n_rows, bytes: size, seconds: took, n_faults, n_mended, n_newer, strays } = ended;
    let mut text = match (n_faults, n_mended) {
        (0, _) => format!("{} as they were written\n", whole(*n_things)),
        (n, None) => format!("{} of {} damaged; `{repair}` mends\n", count(*n), counted(*n_things, "thing")),
        (n, Some(mended)) => {
            format!("{} of {} damaged, {} mended\n", count(*n), counted(*n_things, "thing"), count(*mended))
        }
    };
    let rows =
        if *n_rows > 0 { format!(", {} of journals among them", counted(*n_rows, "row")) } else { String::new() };
    // A clock that stood still gives no rate.
    let rate = if *took > 0.0 { format!(", {}/s", bytes((*size as f64 / took) as u64)) } else { String::new() };
    text += &paint.ink(Ink::Dim, format!("read {} in {}{rate}{rows}\n", bytes(*size), seconds(*took)));
    if *n_newer > 0 {
        text += &format!("{} of a newer program, which this one cannot look into\n", counted(*n_newer, "file"));
    }
    for stray in strays {
        text +=
            &format!("{} {stray} is none of the store's files; move it elsewhere\n", paint.ink(Ink::Active, "stray:"));
    }
    text
}

fn whole(n_things: u64) -> String {
    if n_things == 1 { "1 thing is".to_owned() } else { format!("all {} things are", count(n_things)) }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_fault_says_what_where_and_what_is_done() {
        let row = FsckRow {
            kind: "table",
            of: Some("pairs.dropped".to_owned()),
            run: Some("r3".to_owned()),
            path: ".sluice/objects/ab/cd".to_owned(),
            what: "its bytes are not those that were written".to_owned(),
            mending: "is taken away; the next run that needs it makes it again",
            is_mended: None,
        };
        expect![[r#"
            damaged table pairs.dropped of run r3: its bytes are not those that were written
              .sluice/objects/ab/cd
              with --repair it is taken away; the next run that needs it makes it again
        "#]]
        .assert_eq(&fault(&row, Paint::OFF));
        let nameless = FsckRow { of: None, run: None, is_mended: Some(true), ..row };
        expect![[r#"
            damaged table: its bytes are not those that were written
              .sluice/objects/ab/cd
              is taken away; the next run that needs it makes it again
        "#]]
        .assert_eq(&fault(&nameless, Paint::OFF));
    }

    #[test]
    fn the_end_is_a_verdict_and_a_rate() {
        let sound = FsckEnd {
            n_things: 214,
            n_rows: 60_917,
            bytes: 1_240_000_000,
            seconds: 0.4,
            n_faults: 0,
            n_mended: None,
            n_newer: 0,
            strays: Vec::new(),
        };
        expect![[r#"
            all 214 things are as they were written
            read 1.2 GB in 400 ms, 3.1 GB/s, 60,917 rows of journals among them
        "#]]
        .assert_eq(&end(&sound, "sluice fsck --repair", Paint::OFF));
        let damaged = FsckEnd { n_faults: 2, n_newer: 1, strays: vec![".sluice/notes.txt".to_owned()], ..sound };
        expect![[r#"
            2 of 214 things damaged; `sluice fsck --repair` mends
            read 1.2 GB in 400 ms, 3.1 GB/s, 60,917 rows of journals among them
            1 file of a newer program, which this one cannot look into
            stray: .sluice/notes.txt is none of the store's files; move it elsewhere
        "#]]
        .assert_eq(&end(&damaged, "sluice fsck --repair", Paint::OFF));
    }
}

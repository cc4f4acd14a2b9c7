//! `fsck`: looks at every byte of the store, and mends what is damaged if it is asked to.

use std::time::Instant;

use serde_json::json;
use sluice_engine::derive_key;
use sluice_store::{Checkup, Fault, Mended, Store};

use crate::alone::alone;
use crate::args::{Fsck, Global};
use crate::exit::{Exit, Outcome};
use crate::output::out;
use crate::progress::BytesRead;
use crate::render::fsck::{FsckEnd, FsckRow, end, fault};
use crate::session::{Session, store_failure};
use crate::world::{World, tidy};

/// The verb. A store whose format file is damaged is looked at, too.
pub fn run(global: Global, world: World, args: &Fsck) -> Outcome {
    let store = Store::open_damaged(&world.store).map_err(store_failure)?;
    let session = Session { global, world, store };
    let shown = session.world.live && !session.global.json && !session.global.quiet;
    let started = Instant::now();
    let bytes_read = BytesRead::begin(shown.then(|| session.store.bytes_to_check()));
    let checkup = session.store.check_all(&derive_key, &|bytes| bytes_read.add(bytes));
    bytes_read.end();
    let checkup = checkup.map_err(store_failure)?;
    let seconds = started.elapsed().as_secs_f64();
    let mended = match args.repair && !checkup.faults.is_empty() {
        true => Some(alone(&session, args.no_wait, || session.store.mend(&checkup.faults, &derive_key))?),
        false => None,
    };
    tell(&session, &checkup, mended.as_ref(), seconds);
    Ok(if checkup.faults.is_empty() { Exit::Ok } else { Exit::Corrupt })
}

fn tell(session: &Session, checkup: &Checkup, mended: Option<&Mended>, seconds: f64) {
    let Checkup { n_things, n_rows, bytes, faults, strays, n_newer } = checkup;
    let strays: Vec<String> = strays.iter().map(|path| tidy(path).display().to_string()).collect();
    let rows: Vec<FsckRow> = faults.iter().map(|fault| row(fault, mended)).collect();
    let n_mended = rows.iter().filter(|row| row.is_mended == Some(true)).count() as u64;
    if session.global.json {
        for FsckRow { kind, of, run, path, what, mending: _, is_mended } in &rows {
            out(format!(
                "{}\n",
                json!({"kind": kind, "of": of, "run": run, "path": path, "what": what, "mended": is_mended})
            ));
        }
        out(format!(
            "{}\n",
            json!({
                "n_things": n_things, "n_rows": n_rows, "bytes": bytes, "seconds": seconds, "n_faults": rows.len(),
                "n_mended": n_mended, "n_newer": n_newer, "strays": strays,
            })
        ));
        return;
    }
    let paint = session.world.out;
    out(rows.iter().map(|row| fault(row, paint)).collect::<String>());
    if session.global.quiet {
        return;
    }
    let ended = FsckEnd {
        n_things: *n_things,
        n_rows: *n_rows,
        bytes: *bytes,
        seconds,
        n_faults: rows.len() as u64,
        n_mended: mended.map(|_| n_mended),
        n_newer: *n_newer,
        strays,
    };
    out(end(&ended, &session.command("fsck --repair", None), paint));
}

fn row(fault: &Fault, mended: Option<&Mended>) -> FsckRow {
    FsckRow {
        kind: fault.kind(),
        of: fault.of.clone(),
        run: fault.run.map(|run| run.to_string()),
        path: tidy(&fault.path).display().to_string(),
        what: fault.what.clone(),
        mending: fault.mending(),
        is_mended: mended.map(|mended| mended.mended.contains(fault)),
    }
}

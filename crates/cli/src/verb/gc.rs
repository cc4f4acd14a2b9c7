//! `gc`: takes away what no run and no tag leads to. What goes is listed first.

use std::time::{Duration, SystemTime};

use serde_json::json;
use sluice_store::{Collection, Garbage, GcPolicy};

use crate::alone::alone;
use crate::args::Gc;
use crate::exit::{Exit, Outcome};
use crate::output::out;
use crate::render::gc::{GcEnd, GcRow, end, is_incidental, list};
use crate::session::{Session, store_failure};
use crate::world::{now_unix_ms, tidy};

pub fn run(session: &Session, args: &Gc) -> Outcome {
    let policy = policy(args);
    let tell = |collection: &Collection| tell(session, collection, args);
    let collection = if args.dry_run {
        let collection = session.store.garbage(&policy).map_err(store_failure)?;
        tell(&collection);
        collection
    } else {
        alone(session, args.no_wait, || session.store.collect(&policy, tell))?
    };
    if session.global.json {
        out(format!(
            "{}\n",
            json!({
                "dry_run": args.dry_run,
                "n": collection.garbage.len(),
                "bytes": collection.bytes(),
                "n_young": collection.n_young,
                "young_bytes": collection.young_bytes,
                "runs_kept": collection.n_runs_kept,
            })
        ));
    } else if !session.global.quiet {
        let command = session.command("gc --grace-hours 0", None);
        out(end(&ended(&collection, args), &command, session.world.out));
    }
    Ok(Exit::Ok)
}

fn policy(args: &Gc) -> GcPolicy {
    let Gc { dry_run: _, keep_runs, older_than, grace_hours, no_wait: _ } = args;
    // A time before 1970, or one that does not fit, means everything.
    let ago = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    let keep_since_unix_ms = older_than.map(|days| {
        let age_ms = u64::try_from(ago(days * 86_400.0).as_millis()).unwrap_or(u64::MAX);
        now_unix_ms().saturating_sub(age_ms)
    });
    let keep_written_since = SystemTime::now().checked_sub(ago(grace_hours * 3600.0)).unwrap_or(SystemTime::UNIX_EPOCH);
    GcPolicy { keep_runs: *keep_runs, keep_since_unix_ms, keep_written_since }
}

fn tell(session: &Session, collection: &Collection, args: &Gc) {
    if session.global.json {
        for garbage in &collection.garbage {
            let Garbage { kind, of, run, bytes, path } = garbage;
            let (kind, path) = (kind.name(), path.display().to_string());
            out(format!("{}\n", json!({"kind": kind, "of": of, "run": run, "bytes": bytes, "path": path})));
        }
    } else if !session.global.quiet || args.dry_run {
        let rows: Vec<GcRow> = collection.garbage.iter().map(row).collect();
        out(list(&rows, session.global.verbose > 0, session.world.out));
    }
}

fn row(garbage: &Garbage) -> GcRow {
    let Garbage { kind, of, run, bytes, path } = garbage;
    GcRow {
        kind: *kind,
        of: of.clone(),
        run: run.map(|run| run.to_string()),
        bytes: *bytes,
        path: tidy(path).display().to_string(),
    }
}

fn ended(collection: &Collection, args: &Gc) -> GcEnd {
    GcEnd {
        is_dry: args.dry_run,
        n: collection.garbage.iter().filter(|garbage| !is_incidental(garbage.kind)).count() as u64,
        bytes: collection.bytes(),
        n_runs_kept: collection.n_runs_kept as u64,
        n_young: collection.n_young,
        young_bytes: collection.young_bytes,
        grace_hours: args.grace_hours,
        n_without_scopes: collection.n_without_scopes as u64,
    }
}

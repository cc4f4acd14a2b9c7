//! `tag NAME [RUN]`: a name for a run, under which it is found and kept.

use serde_json::json;
use sluice_store::{TagName, Tagged};

use crate::args::Tag;
use crate::exit::{Exit, Failure, Outcome};
use crate::history::RunWord;
use crate::output::out;
use crate::render::runs::tags;
use crate::session::{Session, store_failure};
use crate::world::now_unix_ms;

pub fn run(session: &Session, args: &Tag) -> Outcome {
    let Some(name) = &args.name else { return list(session) };
    let name: TagName = name.parse().map_err(|error| Failure::new(Exit::Usage, error))?;
    if args.delete { delete(session, &name) } else { set(session, &name, args) }
}

fn set(session: &Session, name: &TagName, args: &Tag) -> Outcome {
    let word: RunWord = args.run.as_deref().unwrap_or("last").parse().map_err(Failure::usage)?;
    let manifest = match word {
        RunWord::Prev => {
            let last = session.manifest(&RunWord::Last, None)?;
            session.previous_run(&last.pipeline, Some(last.run), &last.stages, None)?
        }
        word => session.manifest(&word, None)?,
    };
    let (run, pipeline) = (manifest.run, manifest.pipeline.clone());
    let tagged = session.store.tag(name, manifest, now_unix_ms(), args.force).map_err(store_failure)?;
    if session.global.json {
        let moved_from = match tagged {
            Tagged::Moved { from } => Some(from),
            Tagged::Created | Tagged::Same => None,
        };
        out(format!("{}\n", json!({"tag": name, "run": run, "pipeline": pipeline, "moved_from": moved_from})));
    } else if !session.global.quiet {
        out(match tagged {
            Tagged::Created => format!("{name} is run {run} of {pipeline}\n"),
            Tagged::Same => format!("{name} is run {run} of {pipeline} already\n"),
            Tagged::Moved { from } => format!("{name} is run {run} of {pipeline}; it was {from}\n"),
        });
    }
    Ok(Exit::Ok)
}

fn delete(session: &Session, name: &TagName) -> Outcome {
    let Some(run) = session.store.untag(name).map_err(store_failure)? else {
        return Err(Failure::usage(format!("there is no tag `{name}`")).help(session.tags_known(name)?));
    };
    if session.global.json {
        out(format!("{}\n", json!({"tag": name, "run": run, "deleted": true})));
    } else if !session.global.quiet {
        out(format!("{name} is no tag any more; it was run {run}\n"));
    }
    Ok(Exit::Ok)
}

/// One line a tag; with `--json` one object with `tag`, `run`, `pipeline` and `created_unix_ms`.
fn list(session: &Session) -> Outcome {
    let found = session.store.tags().map_err(store_failure)?;
    if session.global.json {
        for tag in &found {
            let (run, pipeline) = (tag.run(), &tag.manifest.pipeline);
            let created = tag.created_unix_ms;
            out(format!(
                "{}\n",
                json!({"tag": tag.name, "run": run, "pipeline": pipeline, "created_unix_ms": created})
            ));
        }
    } else {
        let age_seconds = |created_unix_ms: u64| now_unix_ms().saturating_sub(created_unix_ms) / 1000;
        let rows = found.iter().map(|tag| {
            let age_seconds = age_seconds(tag.manifest.started_unix_ms);
            (tag.name.to_string(), tag.run().to_string(), age_seconds, tag.manifest.pipeline.clone())
        });
        out(tags(&rows.collect::<Vec<_>>(), session.world.out));
    }
    Ok(Exit::Ok)
}

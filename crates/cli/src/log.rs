//! Structured logs, to stderr. Owns their level and form; what is logged is decided where it happens.

use std::env;
use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::args::{Global, LogFormat};

/// Starts logging. With `--log-format json` the events of a run are logged too, one object a line.
pub fn start(global: &Global) {
    let level = match (global.log_format, global.verbose) {
        _ if global.quiet => "error",
        (LogFormat::Json, 0) => "warn,sluice=info",
        (LogFormat::Text, 0) => "warn",
        (_, 1) => "info,sluice=debug",
        _ => "debug,sluice=trace",
    };
    let filter = env::var("SLUICE_LOG").ok().and_then(|text| EnvFilter::try_new(text).ok());
    let filter = filter.unwrap_or_else(|| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_span_events(FmtSpan::NONE)
        .with_ansi(false);
    // A second subscriber cannot be installed; there is only this call.
    let _ = match global.log_format {
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
        LogFormat::Text => builder.without_time().try_init(),
    };
}

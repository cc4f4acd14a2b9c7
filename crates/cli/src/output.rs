//! The two streams. Owns what happens when nobody reads them any more: nothing.

use std::fmt::Display;
use std::io::Write;

/// Writes to stdout. A closed pipe, as left by `| head`, is no fault.
pub fn out(text: impl Display) {
    let mut stream = std::io::stdout().lock();
    let _ = write!(stream, "{text}").and_then(|()| stream.flush());
}

/// Writes to stderr.
pub fn err(text: impl Display) {
    let _ = write!(std::io::stderr().lock(), "{text}");
}

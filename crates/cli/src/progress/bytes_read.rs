//! How far a look over many files is, as one line on a terminal. It refuses to know what is looked for.

use indicatif::{ProgressBar, ProgressStyle};

/// Bytes read of those there are. Told of from several threads.
pub struct BytesRead(Option<ProgressBar>);

const TEMPLATE: &str = "{bar:24} {decimal_bytes} of {decimal_total_bytes}, {decimal_bytes_per_sec}";

impl BytesRead {
    /// A line for so many bytes, or nothing at all.
    pub fn begin(total: Option<u64>) -> BytesRead {
        let bar = total.map(|total| {
            // The template is a constant of this file, so it parses.
            let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(total).with_style(style.progress_chars("━━─"))
        });
        BytesRead(bar)
    }

    pub fn add(&self, bytes: u64) {
        if let Some(bar) = &self.0 {
            bar.inc(bytes);
        }
    }

    pub fn end(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

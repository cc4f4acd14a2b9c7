//! The tags `{% generation %}` and `{% endgeneration %}`, which templates of training sets put around what the model wrote.
//!
//! Owns their replacement by a tag that the template engine has. The Python library renders what stands between them as
//! if they were not there, and a variable set there ends with them: that is what an empty `{% with %}` does. Knows
//! nothing of the other tags, but that comments, texts in quotes and raw blocks hold none.

/// The same template with both tags written as `with` and `endwith`, at the same places and of the same length, so that
/// messages still name the right line and column.
pub fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find('{') {
        let (before, found) = rest.split_at(at);
        out.push_str(before);
        let length = match found.as_bytes().get(1) {
            Some(b'#') => end_of(found, "#}"),
            Some(b'{') => end_of_code(found, "}}"),
            Some(b'%') => {
                let tag = &found[..end_of_code(found, "%}")];
                match word(tag) {
                    "generation" => out.push_str(&tag.replacen("generation", "with      ", 1)),
                    "endgeneration" => out.push_str(&tag.replacen("endgeneration", "endwith      ", 1)),
                    "raw" => {
                        let raw = &found[..end_of_raw(found, tag.len())];
                        out.push_str(raw);
                        rest = &found[raw.len()..];
                        continue;
                    }
                    _ => out.push_str(tag),
                }
                rest = &found[tag.len()..];
                continue;
            }
            _ => 1,
        };
        out.push_str(&found[..length]);
        rest = &found[length..];
    }
    out.push_str(rest);
    out
}

/// The first word of a tag: `generation` of `{%- generation -%}`.
fn word(tag: &str) -> &str {
    let inside = tag[2..].trim_start_matches(['-', '+']).trim_start();
    let end = inside.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(inside.len());
    &inside[..end]
}

/// Bytes up to and with `close`, or all of them.
fn end_of(text: &str, close: &str) -> usize {
    text.find(close).map_or(text.len(), |at| at + close.len())
}

/// Bytes of a tag or an expression: up to and with the first `close` that is not in quotes.
fn end_of_code(text: &str, close: &str) -> usize {
    let mut quote: Option<char> = None;
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(2) {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '"' || c == '\'' => quote = Some(c),
            None if text[at..].starts_with(close) => return at + close.len(),
            None => {}
        }
    }
    text.len()
}

/// Bytes of a raw block whose opening tag is `opening` bytes long, without its closing tag.
fn end_of_raw(text: &str, opening: usize) -> usize {
    let mut at = opening;
    while let Some(found) = text[at..].find("{%") {
        at += found;
        if word(&text[at..]) == "endraw" {
            return at;
        }
        at += 2;
    }
    text.len()
}

//! Cuts a text into sentences and words, as far as checking a short answer needs it. Not a language tool.

/// Openings that are a sentence by punctuation but say nothing.
const FILLERS: [&str; 8] = ["sure", "okay", "ok", "of course", "certainly", "yes", "well", "hello"];

/// Sentences in order, without surrounding white space.
///
/// A sentence ends at `.`, `!` or `?` before white space or the end of the text (so `3.5` stays whole), with closing
/// quotes or brackets taken along, or at a line break.
pub fn sentences(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut start = 0;
    let mut stopped = false;
    for (at, c) in text.char_indices() {
        if c == '\n' || (stopped && c.is_whitespace()) {
            found.push(&text[start..at]);
            start = at;
            stopped = false;
        } else if matches!(c, '.' | '!' | '?') {
            stopped = true;
        } else if !matches!(c, '"' | '\'' | '”' | '’' | ')' | ']' | '*') {
            stopped = false;
        }
    }
    found.push(&text[start..]);
    found.into_iter().map(str::trim).filter(|s| !s.is_empty()).collect()
}

/// The first sentence that says something: it has a letter or digit and is not a mere "Sure!". Empty if none does.
pub fn first_sentence(text: &str) -> &str {
    sentences(text)
        .into_iter()
        .find(|sentence| {
            let words = words(sentence);
            !words.is_empty() && !FILLERS.contains(&words.join(" ").as_str())
        })
        .unwrap_or("")
}

/// Lower-case words without punctuation at their ends; a leading minus and inner marks (`3.5`, `it's`) stay.
pub(super) fn words(text: &str) -> Vec<String> {
    text.split_whitespace()
        .map(|word| {
            let bare = word.trim_end_matches(|c: char| !c.is_alphanumeric());
            let bare = bare.trim_start_matches(|c: char| !c.is_alphanumeric() && c != '-');
            let signed = bare.strip_prefix('-').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
            let bare = if signed { bare } else { bare.trim_start_matches(|c: char| !c.is_alphanumeric()) };
            bare.to_lowercase()
        })
        .filter(|word| !word.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{first_sentence, sentences, words};

    #[test]
    fn sentences_keep_decimals_and_quotes() {
        assert_eq!(sentences("It is 3.5. Or \"four.\" Yes?\nNo"), ["It is 3.5.", "Or \"four.\"", "Yes?", "No"]);
        assert_eq!(sentences(" \n "), Vec::<&str>::new());
    }

    #[test]
    fn fillers_are_not_real_sentences() {
        assert_eq!(first_sentence("Sure! *** \nOkay. The word is cat. Done."), "The word is cat.");
        assert_eq!(first_sentence("Sure."), "");
    }

    #[test]
    fn words_are_bare() {
        assert_eq!(words("**\"Cat\"**, dog's (-3) – -x 3.5!"), ["cat", "dog's", "-3", "x", "3.5"]);
    }
}

//! A failure for people and for programs. Owns the wording around a message; the message is the error's own.

use serde_json::{Value, json};

use crate::exit::Failure;
use crate::render::paint::{Ink, Paint};

/// `error: ...`, its causes, and what would help.
pub fn text(failure: &Failure, paint: Paint) -> String {
    let mut lines = failure.chain().into_iter();
    // Several faults of one file are a line each.
    let indented = |message: String, column: usize| message.replace('\n', &format!("\n{:column$}", ""));
    let message = indented(lines.next().unwrap_or_default(), "error: ".len());
    let mut text = format!("{} {message}\n", paint.ink(Ink::Bad, "error:"));
    for cause in lines {
        let cause = indented(cause, "  because: ".len());
        text += &format!("  {} {cause}\n", paint.ink(Ink::Dim, "because:"));
    }
    if let Some(help) = &failure.help {
        text += &format!("  {} {help}\n", paint.ink(Ink::Name, "help:"));
    }
    text
}

/// One object: `{"error": {"message", "causes", "help", "exit"}}`.
pub fn json(failure: &Failure) -> Value {
    let mut chain = failure.chain().into_iter();
    let message = chain.next();
    json!({"error": {
        "message": message,
        "causes": chain.collect::<Vec<_>>(),
        "help": failure.help,
        "exit": failure.exit.code(),
    }})
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::exit::Exit;

    #[derive(Debug, thiserror::Error)]
    #[error("run stage `scores`")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("row 3 has no `response`")]
    struct Inner;

    #[test]
    fn causes_follow_and_help_ends() {
        let failure = Failure::new(Exit::Contract, Outer(Inner)).help("look at it with `sluice show responses`");
        expect![[r#"
            error: run stage `scores`
              because: row 3 has no `response`
              help: look at it with `sluice show responses`
        "#]]
        .assert_eq(&text(&failure, Paint::OFF));
        expect![[r#"{"error":{"message":"run stage `scores`","causes":["row 3 has no `response`"],"help":"look at it with `sluice show responses`","exit":3}}"#]]
            .assert_eq(&json(&failure).to_string());
    }
}

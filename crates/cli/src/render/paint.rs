//! Colours: six inks, on or off. Owns the escape sequences; whether to use them is decided at the edge.

use std::fmt::Display;

/// Whether text is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paint {
    pub on: bool,
}

/// What a piece of text means, which decides its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    Plain,
    Bold,
    Dim,
    Good,
    Active,
    Bad,
    Name,
}

impl Paint {
    /// No escape sequences at all: what tests of pictures look at.
    #[cfg(test)]
    pub const OFF: Paint = Paint { on: false };

    /// The text in this ink.
    pub fn ink(self, ink: Ink, text: impl Display) -> String {
        let code = match ink {
            Ink::Plain => return text.to_string(),
            Ink::Bold => "1",
            Ink::Dim => "2",
            Ink::Good => "32",
            Ink::Active => "33",
            Ink::Bad => "31",
            Ink::Name => "36",
        };
        if self.on { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_string() }
    }
}

//! The closed vocabularies of text columns: a word that is stored as text and is an enum everywhere else.

/// A column of this type holds one of `ALL`, each stored as its `word()`.
pub trait Vocabulary: Copy + Send + Sync + 'static {
    const ALL: &'static [Self];

    fn word(self) -> &'static str;

    fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|candidate| candidate.word() == word)
    }
}

/// A text that is none of the words of a vocabulary.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is none of {}", expected.join(", "))]
pub struct UnknownWord {
    pub found: String,
    pub expected: Vec<&'static str>,
}

macro_rules! vocabulary {
    ($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$word_doc])* $variant,)*
        }

        impl Vocabulary for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)*];

            fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }

        impl std::str::FromStr for $name {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                Self::from_word(word).ok_or_else(|| UnknownWord {
                    found: word.to_owned(),
                    expected: Self::ALL.iter().map(|known| known.word()).collect(),
                })
            }
        }
    };
}

vocabulary! {
    /// Which prompts may be trained on.
    Split {
        /// May be trained on.
        Train = "train",
        /// Only for evaluation.
        Heldout = "heldout",
    }
}

vocabulary! {
    /// Why a response ends where it does.
    FinishReason {
        /// The model produced a stop token.
        Stop = "stop",
        /// The token limit was reached first.
        Length = "length",
    }
}

vocabulary! {
    /// How a response was decoded for a comparison.
    Decoding {
        /// The most likely token at each step.
        Greedy = "greedy",
        /// Drawn at the evaluation's temperature.
        Sampled = "sampled",
    }
}

vocabulary! {
    /// Why a prompt gave no pair.
    DropRule {
        /// The prompt is held out: it is never trained on.
        Heldout = "heldout",
        /// Fewer than two scores are numbers: the others are NaN or infinite.
        NotFinite = "not_finite",
        /// There is nothing to compare with.
        SingleCandidate = "single_candidate",
        /// The best score equals the worst.
        Tie = "tie",
        /// Best and worst are the same text.
        Identical = "identical",
        /// Best minus worst is below the wanted margin.
        MinMargin = "min_margin",
    }
}

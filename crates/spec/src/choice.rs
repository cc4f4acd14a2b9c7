//! Parameters that take one of a few words.
//! Owns how such a type is declared and read; refuses to know what the words mean.

/// Declares an enum whose variants are spelt as given, with `ALL`, `name`, and reading with a "did you mean".
macro_rules! choice {
    ($($(#[$doc:meta])* pub enum $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// Every value, in the order of the documentation.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The word used in the pipeline file.
            pub const fn name(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl $crate::leaf::ToLeaf for $name {
            fn to_leaf(&self) -> $crate::leaf::LeafValue {
                $crate::leaf::LeafValue::Str(self.name().to_owned())
            }
        }

        impl $crate::reader::Read for $name {
            fn read(node: &$crate::tree::Node, reader: &mut $crate::reader::Reader<'_>) -> Option<Self> {
                let words: Vec<&'static str> = Self::ALL.iter().map(|choice| choice.name()).collect();
                reader.word(node, &words).map(|index| Self::ALL[index])
            }
        }
    )+};
}

pub(crate) use choice;

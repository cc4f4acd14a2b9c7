//! Selectors: which stages a command is about, in the grammar of dbt.
//!
//! Owns the grammar and what it comes to on a plan. Refuses to know the state of a stage: who asks with `state:changed`
//! says which stages have changed.
//!
//! ```text
//! pairs                    a stage; the name of a stage with a matrix means all of its cells
//! tuned[beta=10]           the cells with this value, `tuned[lr=1e-3,beta=10]` one cell
//! s*                       every stage whose name fits, `*[beta=10]` every cell with the value
//! tag:nightly  kind:train  by tag, by kind
//! state:changed            whatever is not up to date
//! +pairs  pairs+  +pairs+  with all it reads, with all that reads it, with both
//! 2+pairs  pairs+1         no further than so many steps
//! a,b                      what both select; several selectors together select what any of them does
//! ```

use std::collections::BTreeSet;

use sluice_spec::{CellNameError, KindName, Pinned, Stage, StageName, did_you_mean};

use crate::Plan;

/// One selector, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// What is selected fits all of these.
    terms: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    what: What,
    up: Steps,
    down: Steps,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    /// By name; the base may have `*` in it.
    Named(Pinned),
    Tag(String),
    Kind(KindName),
    Changed,
}

/// How far a selection goes along the edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Steps {
    AtMost(usize),
    All,
}

/// Why a selector selects nothing that could be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// A word, or a part of it between two commas, has nothing to select by.
    #[error("the selector `{selector}` is empty{}", if selector.contains(',') { " beside a `,`" } else { "" })]
    Empty { selector: String },
    /// The brackets of a cell are wrong.
    #[error(transparent)]
    CellName(#[from] CellNameError),
    /// Before the colon stands no way to select.
    #[error("nothing is selected by `{method}:`")]
    Method { method: String, help: String },
    /// There is no such kind.
    #[error("`{name}` is no kind of stage")]
    Kind { name: String, help: String },
    /// There is no such state.
    #[error("`state:{name}` selects nothing; the state to select by is `changed`")]
    State { name: String },
    /// No stage has the name.
    #[error("there is no stage `{name}`")]
    Stage { name: String, help: String },
    /// No stage has the tag.
    #[error("no stage has the tag `{tag}`")]
    Tag { tag: String, help: String },
    /// The stage has no cell of this kind.
    #[error("`{name}` has no cell with `{pin}`")]
    Cell { name: String, pin: String, help: String },
}

impl SelectError {
    /// What would be right, where the message does not say it.
    pub fn help(&self) -> Option<&str> {
        match self {
            Self::Empty { .. } | Self::CellName(_) | Self::State { .. } => None,
            Self::Method { help, .. }
            | Self::Kind { help, .. }
            | Self::Stage { help, .. }
            | Self::Tag { help, .. }
            | Self::Cell { help, .. } => Some(help),
        }
    }
}

impl Selector {
    /// Takes a word apart.
    ///
    /// # Errors
    /// What is wrong with its form.
    pub fn parse(word: &str) -> Result<Selector, SelectError> {
        let empty = || SelectError::Empty { selector: word.to_owned() };
        let terms =
            parts(word).into_iter().map(|part| Term::parse(part.trim()).transpose().unwrap_or_else(|| Err(empty())));
        Ok(Selector { terms: terms.collect::<Result<_, _>>()? })
    }

    /// Whether it depends on which stages have changed.
    pub fn asks_for_state(&self) -> bool {
        self.terms.iter().any(|term| term.what == What::Changed)
    }
}

impl Plan {
    /// The stages that any of `selectors` selects and none of `excluded` does, in plan order. `changed` are the stages
    /// that `state:changed` means.
    ///
    /// # Errors
    /// A name, a tag or a value that nothing has.
    pub fn select(
        &self,
        selectors: &[Selector],
        excluded: &[Selector],
        changed: &BTreeSet<StageName>,
    ) -> Result<Vec<&Stage>, SelectError> {
        let selected = self.union(selectors, changed)?;
        let excluded = self.union(excluded, changed)?;
        let is_wanted = |at: &&usize| selected.contains(at) && !excluded.contains(at);
        Ok(self.order.iter().filter(is_wanted).map(|&at| &self.pipeline.stages[at]).collect())
    }

    fn union(&self, selectors: &[Selector], changed: &BTreeSet<StageName>) -> Result<BTreeSet<usize>, SelectError> {
        let mut union = BTreeSet::new();
        for selector in selectors {
            let mut terms = selector.terms.iter().map(|term| self.term(term, changed));
            let mut selected = terms.next().unwrap_or(Ok(BTreeSet::new()))?;
            for other in terms {
                let other = other?;
                selected.retain(|at| other.contains(at));
            }
            union.extend(selected);
        }
        Ok(union)
    }

    fn term(&self, term: &Term, changed: &BTreeSet<StageName>) -> Result<BTreeSet<usize>, SelectError> {
        let stages = self.pipeline.stages.iter().enumerate();
        let at = |(at, _): (usize, &Stage)| at;
        let found: BTreeSet<usize> = match &term.what {
            What::Named(pinned) => return Ok(self.around(self.named(pinned)?, term)),
            What::Tag(tag) => {
                stages.filter(|(_, stage)| stage.tags.iter().any(|own| own.as_str() == tag)).map(at).collect()
            }
            What::Kind(kind) => stages.filter(|(_, stage)| stage.kind.name() == *kind).map(at).collect(),
            What::Changed => stages.filter(|(_, stage)| changed.contains(&stage.name)).map(at).collect(),
        };
        if let (What::Tag(tag), true) = (&term.what, found.is_empty()) {
            let known: BTreeSet<&str> =
                self.pipeline.stages.iter().flat_map(|stage| &stage.tags).map(|tag| tag.as_str()).collect();
            let help = did_you_mean(tag, known.iter().copied()).unwrap_or_else(|| match known.is_empty() {
                true => "none has any, as in `tags: [nightly]` beside its kind".to_owned(),
                false => format!("there is {}", listed(&known)),
            });
            return Err(SelectError::Tag { tag: tag.clone(), help });
        }
        Ok(self.around(found, term))
    }

    /// The stages of a name.
    fn named(&self, pinned: &Pinned) -> Result<BTreeSet<usize>, SelectError> {
        let Pinned { base, pins } = pinned;
        let of_base: Vec<(usize, &Stage)> =
            self.pipeline.stages.iter().enumerate().filter(|(_, stage)| matches(base, stage.base().as_str())).collect();
        if of_base.is_empty() {
            let known = once(self.pipeline.stages.iter().map(|stage| stage.base().as_str()).collect());
            let help = did_you_mean(base, known.iter().copied());
            let help = help.unwrap_or_else(|| format!("there is {}", listed(&known)));
            return Err(SelectError::Stage { name: base.clone(), help });
        }
        let has = |stage: &Stage, axis: &str, label: &str| {
            stage.cell.as_ref().and_then(|cell| cell.on(axis)).is_some_and(|coordinate| coordinate.label == label)
        };
        for (axis, label) in pins {
            if of_base.iter().all(|(_, stage)| !has(stage, axis, label)) {
                let pin = format!("{axis}={label}");
                return Err(SelectError::Cell { name: base.clone(), pin, help: values(&of_base, axis) });
            }
        }
        let fits = |(_, stage): &(usize, &Stage)| pins.iter().all(|(axis, label)| has(stage, axis, label));
        Ok(of_base.into_iter().filter(fits).map(|(at, _)| at).collect())
    }

    /// The stages with those along the edges.
    fn around(&self, found: BTreeSet<usize>, term: &Term) -> BTreeSet<usize> {
        let mut all = found.clone();
        all.extend(reached(&found, &self.edges.reads, term.up));
        all.extend(reached(&found, &self.edges.readers, term.down));
        all
    }
}

/// What is reached from some stages in so many steps, these stages left out.
fn reached(from: &BTreeSet<usize>, edges: &[Vec<usize>], steps: Steps) -> BTreeSet<usize> {
    let mut seen = from.clone();
    let mut front: Vec<usize> = from.iter().copied().collect();
    let mut n_steps = 0;
    while !front.is_empty() && steps != Steps::AtMost(n_steps) {
        front = front.iter().flat_map(|&at| &edges[at]).copied().filter(|at| seen.insert(*at)).collect();
        n_steps += 1;
    }
    seen
}

/// What there is on an axis, or which axes there are.
fn values(stages: &[(usize, &Stage)], axis: &str) -> String {
    let cells = || stages.iter().filter_map(|(_, stage)| stage.cell.as_ref());
    let labels: Vec<&str> = cells().filter_map(|cell| cell.on(axis)).map(|on| on.label.as_str()).collect();
    if !labels.is_empty() {
        return format!("its `{axis}` is {}", listed(&once(labels)));
    }
    let axes: Vec<&str> = cells().flat_map(|cell| &cell.coordinates).map(|on| on.axis.as_str()).collect();
    match once(axes) {
        axes if axes.is_empty() => "it has no matrix".to_owned(),
        axes => did_you_mean(axis, axes.iter().copied()).unwrap_or_else(|| format!("its axes are {}", listed(&axes))),
    }
}

/// The words in their order, each once.
fn once(words: Vec<&str>) -> Vec<&str> {
    let mut seen = BTreeSet::new();
    words.into_iter().filter(|word| seen.insert(*word)).collect()
}

/// The first words, and how many more there are.
fn listed<'w>(words: impl IntoIterator<Item = &'w &'w str>) -> String {
    const SHOWN: usize = 12;
    let words: Vec<&str> = words.into_iter().copied().collect();
    let shown = words.iter().take(SHOWN).map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    match words.len().checked_sub(SHOWN) {
        Some(more @ 1..) => format!("{shown} and {more} more"),
        _ => shown,
    }
}

/// Whether a text fits a pattern in which `*` stands for any characters.
fn matches(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = pieces.next().and_then(|head| text.strip_prefix(head)) else { return false };
    let mut last = None;
    for piece in pieces {
        // What stands before the last piece is taken as early as it comes.
        if let Some(earlier) = last.replace(piece) {
            match rest.find(earlier) {
                Some(at) => rest = &rest[at + earlier.len()..],
                None => return false,
            }
        }
    }
    last.map_or(rest.is_empty(), |last| rest.ends_with(last))
}

/// The parts between commas; those in brackets belong to a cell.
fn parts(word: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    word.split(|c| {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
}

impl Term {
    /// `None` for an empty text.
    fn parse(text: &str) -> Result<Option<Term>, SelectError> {
        let (up, rest) = match text.split_once('+') {
            Some((steps, rest)) if is_number(steps) => (Steps::of(steps), rest),
            _ => (Steps::AtMost(0), text),
        };
        // A number in brackets may have a plus, too.
        let end_of_cell = rest.rfind(']').map_or(0, |at| at + 1);
        let (rest, down) = match rest[end_of_cell..].rsplit_once('+') {
            Some((before, steps)) if is_number(steps) => (&rest[..end_of_cell + before.len()], Steps::of(steps)),
            _ => (rest, Steps::AtMost(0)),
        };
        if rest.is_empty() {
            return Ok(None);
        }
        Ok(Some(Term { what: What::parse(rest)?, up, down }))
    }
}

fn is_number(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_digit())
}

impl Steps {
    /// Of the digits beside a `+`: without any, it goes all the way.
    fn of(digits: &str) -> Steps {
        digits.parse().map_or(Steps::All, Steps::AtMost)
    }
}

impl What {
    fn parse(text: &str) -> Result<What, SelectError> {
        const METHODS: [&str; 3] = ["tag", "kind", "state"];
        let Some((method, value)) = text.split_once(':').filter(|(method, _)| !method.contains('[')) else {
            return Ok(What::Named(Pinned::parse(text)?));
        };
        match (method, value) {
            ("tag", tag) => Ok(What::Tag(tag.to_owned())),
            ("kind", name) => match KindName::ALL.into_iter().find(|kind| kind.name() == name) {
                Some(kind) => Ok(What::Kind(kind)),
                None => {
                    let known = KindName::ALL.map(KindName::name);
                    let help = did_you_mean(name, known).unwrap_or_else(|| format!("the kinds are {}", listed(&known)));
                    Err(SelectError::Kind { name: name.to_owned(), help })
                }
            },
            ("state", "changed") => Ok(What::Changed),
            ("state", name) => Err(SelectError::State { name: name.to_owned() }),
            (method, _) => {
                let help = did_you_mean(method, METHODS);
                let help = help.unwrap_or_else(|| "it is `tag:`, `kind:` or `state:`".to_owned());
                Err(SelectError::Method { method: method.to_owned(), help })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, text, fits) in [
            ("pairs", "pairs", true),
            ("pairs", "pairs2", false),
            ("*", "pairs", true),
            ("*", "", true),
            ("p*s", "pairs", true),
            ("p*s", "ps", true),
            ("p*s", "pairs2", false),
            ("*a*r*", "pairs", true),
            ("*r*a*", "pairs", false),
            ("s*es", "scores", true),
            ("s*s*s", "sws", false),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} and {text}");
        }
    }
}

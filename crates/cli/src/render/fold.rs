//! Many cells of one matrix told in one line. Owns when that is done and how such a line is named; refuses to know what
//! the lines say.

use std::collections::HashMap;
use std::hash::Hash;

use crate::render::quantity::count;

/// Cells of one stage above which those that are alike are told together.
const MANY_CELLS: usize = 24;

/// The rows, with those of one stage's cells that are `alike` put together by `merge`, which is given them and the name
/// of the line. The line stands where the first of them did. Rows that are no cells, or of few, stay as they are.
pub fn fold_cells<'r, R: Clone, S: Eq + Hash + Clone>(
    rows: &'r [R],
    alike: impl Fn(&'r R) -> Option<(&'r str, S)>,
    merge: impl Fn(&[&'r R], String) -> R,
) -> Vec<R> {
    let mut n_cells: HashMap<&str, usize> = HashMap::new();
    for (base, _) in rows.iter().filter_map(&alike) {
        *n_cells.entry(base).or_default() += 1;
    }
    let mut groups: Vec<(Option<&str>, Vec<&R>)> = Vec::new();
    let mut places: HashMap<(&str, S), usize> = HashMap::new();
    for row in rows {
        let Some((base, state)) = alike(row).filter(|(base, _)| n_cells[base] > MANY_CELLS) else {
            groups.push((None, vec![row]));
            continue;
        };
        let at = *places.entry((base, state)).or_insert_with(|| {
            groups.push((Some(base), Vec::new()));
            groups.len() - 1
        });
        groups[at].1.push(row);
    }
    let line = |(base, rows): (Option<&str>, Vec<&'r R>)| match base {
        Some(base) => {
            let (n, of) = (count(rows.len() as u64), count(n_cells[base] as u64));
            let name = if n == of { format!("{base}, {of} cells") } else { format!("{base}, {n} of {of} cells") };
            vec![merge(&rows, name)]
        }
        None => rows.into_iter().cloned().collect(),
    };
    groups.into_iter().flat_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_many_cells_are_folded_and_only_with_their_like() {
        let row = |base: &'static str, state: char| (base, state, 1);
        let mut rows = vec![row("prompts", 'h')];
        rows.extend((0..30).map(|at| row("tuned", if at % 10 == 3 { 'f' } else { 'h' })));
        rows.extend([row("few", 'h'), row("few", 'h')]);
        let alike = |(base, state, _): &'_ (&'static str, char, usize)| (*base != "prompts").then_some((*base, *state));
        let folded = fold_cells(&rows, alike, |rows, name| (Box::leak(name.into_boxed_str()), rows[0].1, rows.len()));
        assert_eq!(
            folded,
            [
                ("prompts", 'h', 1),
                ("tuned, 27 of 30 cells", 'h', 27),
                ("tuned, 3 of 30 cells", 'f', 3),
                ("few", 'h', 1),
                ("few", 'h', 1)
            ]
        );
    }
}

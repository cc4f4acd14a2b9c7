//! Which tiles there are, as the kernels read it.
//!
//! Owns the cutting of sequences into tiles of queries and of keys, and which queries see a tile of keys: those of the
//! sequence itself and those of the sequences that continue it. The most work comes first, so that no cube is left with a
//! long tile at the end. Knows nothing of devices.

use std::cmp::Reverse;
use std::ops::Range;

use crate::packed::Segment;

/// Tiles of `n_owned` queries at most, five numbers each: tokens of the prefix, its first packed row, the first packed row of
/// the sequence's own, and the positions of the first and the last query.
pub fn query_tiles(segments: &[Segment], n_owned: usize, window: Option<usize>) -> Vec<u32> {
    let mut tiles: Vec<(usize, [usize; 5])> = Vec::new();
    for Segment { rows, prefix } in segments {
        for first in (prefix.len()..prefix.len() + rows.len()).step_by(n_owned) {
            let last = (first + n_owned).min(prefix.len() + rows.len()) - 1;
            let n_keys = last + 1 - window.map_or(0, |window| (first + 1).saturating_sub(window));
            tiles.push((n_keys, [prefix.len(), prefix.start, rows.start, first, last]));
        }
    }
    tiles.sort_by_key(|(n_keys, _)| Reverse(*n_keys));
    tiles.into_iter().flat_map(|(_, tile)| tile).map(word).collect()
}

/// Tiles of keys, and the runs of queries that see them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyTiles {
    /// Four numbers a tile: its first packed row, the number of its rows, and its range among the visits.
    pub tiles: Vec<u32>,
    /// Six numbers a visit: the packed row of the visiting sequence's own first token and its position, the positions of the
    /// first and the last query that see a key of the tile, the position of the tile's first key, and how many keys of the
    /// tile belong to the sequence.
    pub visits: Vec<u32>,
}

/// Tiles of `n_owned` keys at most.
pub fn key_tiles(segments: &[Segment], n_owned: usize, window: Option<usize>) -> KeyTiles {
    let continuing: Vec<&Segment> = segments.iter().filter(|segment| !segment.prefix.is_empty()).collect();
    let mut tiles: Vec<(usize, Range<usize>, Vec<[usize; 6]>)> = Vec::new();
    for segment in segments {
        for first in segment.rows.clone().step_by(n_owned) {
            let keys = first..(first + n_owned).min(segment.rows.end);
            let own = visit(segment, &keys, segment.prefix.len() + first - segment.rows.start, window);
            let others = continuing.iter().filter_map(|other| {
                let seen = keys.start..keys.end.min(other.prefix.end);
                let is_of_prefix = other.prefix.start <= seen.start && !seen.is_empty();
                is_of_prefix.then(|| visit(other, &seen, seen.start - other.prefix.start, window)).flatten()
            });
            let visits: Vec<[usize; 6]> = own.into_iter().chain(others).collect();
            let n_queries = visits.iter().map(|[_, _, first, last, _, _]| last + 1 - first).sum();
            tiles.push((n_queries, keys, visits));
        }
    }
    tiles.sort_by_key(|(n_queries, _, _)| Reverse(*n_queries));
    let mut plan = KeyTiles::default();
    for (_, keys, visits) in tiles {
        let first = plan.visits.len() / 6;
        plan.tiles.extend([keys.start, keys.len(), first, first + visits.len()].map(word));
        plan.visits.extend(visits.into_iter().flatten().map(word));
    }
    plan
}

/// The queries of a sequence that see some of `keys`, the first of which stands at `position`.
fn visit(segment: &Segment, keys: &Range<usize>, position: usize, window: Option<usize>) -> Option<[usize; 6]> {
    let Segment { rows, prefix } = segment;
    let n_tokens = segment.n_tokens();
    let end = window.map_or(n_tokens, |window| (position + keys.len() - 1).saturating_add(window).min(n_tokens));
    let first = position.max(prefix.len());
    (first < end).then(|| [rows.start, prefix.len(), first, end - 1, position, keys.len()])
}

/// Packed rows are counted in 32 bits on a device.
fn word(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments() -> [Segment; 3] {
        [(0..10).into(), Segment { rows: 10..14, prefix: 0..6 }, (14..14).into()]
    }

    #[test]
    fn long_tiles_of_queries_come_first() {
        let tiles = query_tiles(&segments(), 4, None);
        assert_eq!(
            tiles.chunks(5).collect::<Vec<_>>(),
            [[0, 0, 0, 8, 9], [6, 0, 10, 6, 9], [0, 0, 0, 4, 7], [0, 0, 0, 0, 3]]
        );
        // Of 10 keys, the tile of the last two queries sees the last 5.
        let tiles = query_tiles(&segments(), 4, Some(4));
        assert_eq!(
            tiles.chunks(5).collect::<Vec<_>>(),
            [[0, 0, 0, 4, 7], [6, 0, 10, 6, 9], [0, 0, 0, 8, 9], [0, 0, 0, 0, 3]]
        );
    }

    #[test]
    fn keys_of_a_prefix_are_seen_by_what_continues_it() {
        let KeyTiles { tiles, visits } = key_tiles(&segments(), 4, None);
        assert_eq!(tiles.chunks(4).collect::<Vec<_>>(), [[0, 4, 0, 2], [4, 4, 2, 4], [10, 4, 4, 5], [8, 2, 5, 6]]);
        let visits: Vec<&[u32]> = visits.chunks(6).collect();
        assert_eq!(visits[..2], [[0, 0, 0, 9, 0, 4], [10, 6, 6, 9, 0, 4]]);
        assert_eq!(visits[2..4], [[0, 0, 4, 9, 4, 4], [10, 6, 6, 9, 4, 2]]);
        assert_eq!(visits[4..], [[10, 6, 6, 9, 6, 4], [0, 0, 8, 9, 8, 2]]);
    }

    #[test]
    fn what_a_window_hides_is_not_visited() {
        let KeyTiles { tiles, visits } = key_tiles(&segments(), 4, Some(2));
        let of_first = tiles.chunks(4).find(|tile| tile[0] == 0).expect("the first keys have a tile");
        // The last key at position 3 is seen up to position 4, and by nobody who continues at position 6.
        assert_eq!(
            visits.chunks(6).collect::<Vec<_>>()[of_first[2] as usize..of_first[3] as usize],
            [[0, 0, 0, 4, 0, 4]]
        );
    }
}

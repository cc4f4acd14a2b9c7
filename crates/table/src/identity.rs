//! Which columns tell the rows of a table apart, for those who look for a row of one table in another of the same kind.

/// Sets of columns, each of which names a row of some table; of those whose columns a table has, the first is the one.
pub const IDENTITIES: &[&[&str]] = &[
    &["prompt_id", "decoding", "sample_index"],
    &["prompt_id", "sample_index"],
    &["metric", "decoding", "group"],
    &["step"],
    &["prompt_id"],
    &["response_id"],
    &["pair_id"],
    &["group"],
];

/// Columns that are digests of others: they differ whenever those do, and say nothing more.
pub const DERIVED: &[&str] = &["response_id", "pair_id"];

#[cfg(test)]
mod tests {
    use crate::TableKind;

    use super::*;

    #[test]
    fn each_table_has_an_identity() {
        let identity = |kind: TableKind| {
            let schema = kind.schema()?;
            IDENTITIES
                .iter()
                .find(|ids| ids.iter().all(|id| schema.field_with_name(id).is_ok()))
                .map(|ids| ids.join(" "))
        };
        let expected = [
            (TableKind::Prompts, "prompt_id"),
            (TableKind::Responses, "prompt_id sample_index"),
            (TableKind::Scores, "prompt_id sample_index"),
            (TableKind::Pairs, "prompt_id"),
            (TableKind::Dropped, "prompt_id"),
            (TableKind::Steps, "step"),
            (TableKind::Comparisons, "prompt_id decoding sample_index"),
            (TableKind::Metrics, "metric decoding group"),
        ];
        for (kind, ids) in expected {
            assert_eq!(identity(kind).as_deref(), Some(ids), "{kind}");
        }
    }
}

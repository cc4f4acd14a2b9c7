//! What flows along the edges: whether a table has the columns its reader needs, and has them filled.
//! Owns the check before anything runs; refuses to look into a table, and trusts a query until it has run.

use sluice_spec::stage::Ingest;
use sluice_spec::stage::train::{Objective, Train};
use sluice_spec::{Code, Diagnostic, Expects, Input, Kind, Pipeline, Product, Source, Span, Stage};
use sluice_table::TableKind;

pub(crate) fn faults(pipeline: &Pipeline) -> Vec<Diagnostic> {
    let mut faults = Vec::new();
    for stage in &pipeline.stages {
        for input in stage.kind.inputs() {
            faults.extend(missing_columns(stage, &input));
            faults.extend(unfilled_columns(pipeline, stage, &input));
        }
    }
    faults
}

/// The table kind of crate `table` under a name of crate `spec`, which cannot see it.
pub(crate) fn kind_of(name: sluice_spec::TableKind) -> TableKind {
    match name {
        sluice_spec::TableKind::Prompts => TableKind::Prompts,
        sluice_spec::TableKind::Responses => TableKind::Responses,
        sluice_spec::TableKind::Scores => TableKind::Scores,
        sluice_spec::TableKind::Pairs => TableKind::Pairs,
        sluice_spec::TableKind::Dropped => TableKind::Dropped,
        sluice_spec::TableKind::Steps => TableKind::Steps,
        sluice_spec::TableKind::Comparisons => TableKind::Comparisons,
        sluice_spec::TableKind::Metrics => TableKind::Metrics,
        sluice_spec::TableKind::Any => TableKind::Any,
    }
}

/// A fault if the table that is read lacks columns of the table that is expected.
fn missing_columns(stage: &Stage, input: &Input) -> Option<Diagnostic> {
    let (Expects::Table(expected), Source::Stage(read)) = (input.expects, &input.source) else { return None };
    let Product::Table(found) = read.product else { return None };
    let (found, expected) = (kind_of(found).schema()?, kind_of(expected).schema()?);
    let fits = |wanted: &str| {
        let wanted = expected.field_with_name(wanted).ok()?;
        let found = found.field_with_name(wanted.name()).ok();
        Some(found.map_or(wanted.is_nullable(), |found| found.data_type() == wanted.data_type()))
    };
    let names = expected.fields().iter().map(|field| field.name().as_str());
    let missing: Vec<String> = names.filter(|name| fits(name) == Some(false)).map(|name| format!("`{name}`")).collect();
    if missing.is_empty() {
        return None;
    }
    let message = format!(
        "stage `{}` reads `{}`, which lacks what `{}` needs: {}",
        stage.name,
        read.stage,
        input.role,
        missing.join(", ")
    );
    Some(Diagnostic::new(Code::WrongProduct, input.place.unwrap_or(stage.name_span), message))
}

/// A fault if an objective learns from a column that the files of its rows are not mapped to.
fn unfilled_columns(pipeline: &Pipeline, stage: &Stage, input: &Input) -> Option<Diagnostic> {
    let (Kind::Train(train), "rows", Source::Stage(read)) = (&stage.kind, input.role.as_str(), &input.source) else {
        return None;
    };
    let Kind::Ingest(ingest) = &pipeline.stage(&read.stage)?.kind else { return None };
    let unmapped: Vec<&str> = needs(train).iter().filter(|column| !is_mapped(ingest, column)).copied().collect();
    if unmapped.is_empty() {
        return None;
    }
    let columns = unmapped.iter().map(|column| format!("`{column}`")).collect::<Vec<_>>().join(" and ");
    let message = format!("stage `{}` learns from {columns}, which `{}` leaves empty", stage.name, read.stage);
    let keys = unmapped.iter().map(|column| format!("{column}: COLUMN")).collect::<Vec<_>>().join(", ");
    let from: Span = ingest.from.place.unwrap_or(stage.name_span);
    let fault = Diagnostic::new(Code::MissingKey, input.place.unwrap_or(stage.name_span), message);
    Some(
        fault
            .related(from, "the files are read here")
            .help(format!("say which columns of the files they are: `map: {{ {keys} }}`")),
    )
}

/// The columns that are optional in a `prompts` table, but not for this objective.
fn needs(train: &Train) -> &'static [&'static str] {
    match train.objective.value {
        Objective::Sft(_) => &["response"],
        Objective::Reward(_) => &["response", "label"],
        _ => &[],
    }
}

fn is_mapped(ingest: &Ingest, column: &str) -> bool {
    match column {
        "response" => ingest.map.response.is_some(),
        "label" => ingest.map.label.is_some(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The two crates that name table kinds, and cannot see each other, use the same names.
    #[test]
    fn kinds_have_one_name() {
        let products = sluice_spec::KindName::ALL.into_iter().flat_map(|kind| kind.products().iter().copied());
        let mut n_tables = 0;
        for product in products {
            if let Product::Table(kind) = product {
                assert_eq!(kind.name(), kind_of(kind).name());
                n_tables += 1;
            }
        }
        assert_eq!(n_tables, TableKind::ALL.len());
    }
}

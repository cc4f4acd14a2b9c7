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
        stage.base(),
        read.stage,
        input.role,
        missing.join(", ")
    );
    Some(Diagnostic::new(Code::WrongProduct, input.place.unwrap_or(stage.name_span), message))
}

/// A fault if an objective learns from a column that the files of its rows do not fill.
fn unfilled_columns(pipeline: &Pipeline, stage: &Stage, input: &Input) -> Option<Diagnostic> {
    let (Kind::Train(train), "rows", Source::Stage(read)) = (&stage.kind, input.role.as_str(), &input.source) else {
        return None;
    };
    let Kind::Ingest(ingest) = &pipeline.stage(&read.stage)?.kind else { return None };
    let (unmapped, unkept) = (unmapped(train, ingest), unkept(train, ingest));
    if unmapped.is_empty() && unkept.is_empty() {
        return None;
    }
    let columns: Vec<String> = unmapped.iter().chain(&unkept).map(|column| format!("`{column}`")).collect();
    let message =
        format!("stage `{}` learns from {}, which `{}` does not fill", stage.base(), listed(&columns), read.stage);
    let mapped: Vec<String> = unmapped.iter().map(|column| format!("{column}: COLUMN")).collect();
    let map = (!unmapped.is_empty()).then(|| format!("`map: {{ {} }}`", mapped.join(", ")));
    let keep = (!unkept.is_empty()).then(|| format!("`keep: [{}]`", unkept.join(", ")));
    let keys: Vec<String> = map.into_iter().chain(keep).collect();
    let from: Span = ingest.from.place.unwrap_or(stage.name_span);
    let fault = Diagnostic::new(Code::MissingKey, input.place.unwrap_or(stage.name_span), message);
    Some(
        fault
            .related(from, "the files are read here")
            .help(format!("say which columns of the files they are: {}", listed(&keys))),
    )
}

/// The columns that are optional in a `prompts` table, but not for this objective, and that no column is mapped to.
fn unmapped(train: &Train, ingest: &Ingest) -> Vec<&'static str> {
    let needs_label = match &train.objective.value {
        Objective::Sft(_) => false,
        // The label stands for the first objective where no column has its name.
        Objective::Reward(reward) => {
            let objectives = reward.objectives.as_slice();
            objectives.first().is_none_or(|first| !ingest.keep.has(first)) || objectives.iter().any(is_label)
        }
        _ => return Vec::new(),
    };
    let response = ingest.map.response.is_none().then_some("response");
    let label = (needs_label && ingest.map.label.is_none()).then_some("label");
    response.into_iter().chain(label).collect()
}

/// The objectives behind the first that no column of the rows is named after.
fn unkept<'p>(train: &'p Train, ingest: &Ingest) -> Vec<&'p str> {
    let Objective::Reward(reward) = &train.objective.value else { return Vec::new() };
    let others = reward.objectives.iter().skip(1).filter(|name| !is_label(name) && !ingest.keep.has(name));
    others.map(String::as_str).collect()
}

fn is_label(objective: &String) -> bool {
    objective == "label"
}

/// "a, b and c".
pub(crate) fn listed(words: &[String]) -> String {
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a user may not keep, because the table has it.
    #[test]
    fn columns_of_prompts_have_one_name() {
        let schema = sluice_table::Prompts::schema();
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, sluice_spec::stage::ingest::COLUMNS);
    }

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

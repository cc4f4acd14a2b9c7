//! How many rows a stage will read and make, as far as that can be told before it runs: counted where what it reads is
//! there, and else from how many came out for how many that went in the last time. It owns that arithmetic for each kind,
//! and refuses to know what a row costs.

use sluice_spec::stage::evaluate::Answers;
use sluice_spec::stage::sample::{Selection, SplitName};
use sluice_spec::stage::train::{Examples, Passes};
use sluice_spec::{Kind, Product, TableKind};
use sluice_store::{LeafValue, Record};

use crate::runner::RowCount;

const PROMPTS: Product = Product::Table(TableKind::Prompts);
const RESPONSES: Product = Product::Table(TableKind::Responses);
const SCORES: Product = Product::Table(TableKind::Scores);
const PAIRS: Product = Product::Table(TableKind::Pairs);
const DROPPED: Product = Product::Table(TableKind::Dropped);
const STEPS: Product = Product::Table(TableKind::Steps);
const COMPARISONS: Product = Product::Table(TableKind::Comparisons);
const METRICS: Product = Product::Table(TableKind::Metrics);

/// Rows of a table, and what is known of them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Flow {
    pub rows: Option<u64>,
    /// Whether that is a count and not an estimate.
    pub is_exact: bool,
    /// Prompts that the rows are of.
    pub prompts: Option<u64>,
    /// Rows by split, of a table of prompts.
    pub train: Option<u64>,
    pub heldout: Option<u64>,
    /// Rows that were there before.
    pub n_known: u64,
}

/// What a stage will have to do.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Prospect {
    /// Its tables.
    pub flows: Vec<(Product, Flow)>,
    /// Units to be worked through, as its records count them; none if nothing tells.
    pub units: Option<u64>,
    /// Of `units_in_all`, those that need not be.
    pub units_known: u64,
    /// The units of its tables, known ones included.
    pub units_in_all: Option<u64>,
}

/// What is known of a stage before it runs.
pub(crate) struct Known<'a> {
    /// Of each table it reads, by role.
    pub flow: &'a dyn Fn(&str) -> Flow,
    /// Rows that were counted.
    pub count: Option<RowCount>,
    /// The record it is compared with, of the stage itself.
    pub last: Option<&'a Record>,
    /// Bytes of the files it reads.
    pub n_bytes: Option<u64>,
    /// Whether its parameters and models are as they were, so that rows made before are found again.
    pub is_unchanged: bool,
}

/// The tables of a result.
pub(crate) fn of_record(kind: &Kind, record: &Record) -> Vec<(Product, Flow)> {
    let metric = |name: &str| record.metrics.get(name).map(|value| *value as u64);
    let flow = |product: &Product| {
        let rows = record.output(product.name()).and_then(|output| output.n_rows());
        let mut flow = Flow { rows, is_exact: rows.is_some(), n_known: rows.unwrap_or(0), ..Flow::default() };
        match kind {
            Kind::Ingest(_) => (flow.train, flow.heldout, flow.prompts) = (metric("train"), metric("heldout"), rows),
            Kind::Sample(_) | Kind::Score(_) => flow.prompts = metric("prompts"),
            Kind::Pair(_) => flow.prompts = rows,
            Kind::Train(_) | Kind::Evaluate(_) | Kind::Sql(_) => {}
        }
        (*product, flow)
    };
    kind.products().iter().map(flow).collect()
}

/// What a stage without a result will have to do.
pub(crate) fn prospect(kind: &Kind, known: &Known<'_>) -> Prospect {
    match kind {
        Kind::Ingest(params) => ingest(params.limit.value.map(|limit| u64::from(limit.get())), known),
        Kind::Sample(params) => sample(&params.selection, u64::from(params.n.get()), known),
        Kind::Score(_) => score(known),
        Kind::Pair(_) => pair(known),
        Kind::Train(params) => train(&params.examples, &params.passes, known),
        Kind::Evaluate(params) => evaluate(&params.selection, &params.answers, known),
        Kind::Sql(params) => {
            let rows_read = params.from.iter().map(|table| (known.flow)(&table.name).rows).sum::<Option<u64>>();
            let rows =
                rows_read.and_then(|rows| scaled(rows, out_of(known.last?), known.last?.work.as_ref()?.n_rows_read));
            whole(rows_read, vec![(kind.products()[0], estimate(rows))])
        }
    }
}

/// Files have as many rows for a byte as they had. A limit is one of each split.
fn ingest(limit: Option<u64>, known: &Known<'_>) -> Prospect {
    let last = known.last.and_then(|record| Some((record, record.work.as_ref()?)));
    let flow = last.map_or(Flow::default(), |(record, work)| {
        let most = |rows: Option<u64>| rows.map(|rows| limit.map_or(rows, |limit| rows.min(limit)));
        let grown = |rows: Option<u64>| most(rows.and_then(|rows| scaled(rows, known.n_bytes, work.n_done)));
        let metric = |name: &str| grown(record.metrics.get(name).map(|rows| *rows as u64));
        let (train, heldout) = (metric("train"), metric("heldout"));
        let rows = train.zip(heldout).map(|(train, heldout)| train + heldout).or_else(|| grown(out_of(record)));
        Flow { rows, prompts: rows, train, heldout, ..Flow::default() }
    });
    whole(known.n_bytes, vec![(PROMPTS, flow)])
}

/// Every selected prompt, n times.
fn sample(selection: &Selection, n: u64, known: &Known<'_>) -> Prospect {
    let (prompts, counted) = match known.count {
        Some(count) => (Some(count.rows / n), true),
        None => (selected(selection, known), false),
    };
    let rows = prompts.map(|prompts| prompts * n);
    let flow = Flow { rows, is_exact: counted, prompts, ..Flow::default() };
    one_by_one(rows, known, |n_known| vec![(RESPONSES, Flow { n_known, ..flow })])
}

/// Every response. Those that were there before have been scored before, if nothing else changed.
fn score(known: &Known<'_>) -> Prospect {
    let read = (known.flow)("responses");
    let rows = known.count.map(|count| count.rows).or(read.rows);
    let flow =
        Flow { rows, is_exact: known.count.is_some() || read.is_exact, prompts: read.prompts, ..Flow::default() };
    let found_again = if known.is_unchanged { read.n_known } else { 0 };
    let known = Known { count: known.count.or(rows.map(|rows| of_rows(rows, found_again))), ..*known };
    one_by_one(rows, &known, |n_known| vec![(SCORES, Flow { n_known, ..flow })])
}

/// As many pairs for a prompt as there were; of a table that does not count prompts, for a row.
fn pair(known: &Known<'_>) -> Prospect {
    let read = (known.flow)("scores");
    let metric = |name: &str| known.last?.metrics.get(name).map(|value| *value as u64);
    let by_prompt = || scaled(read.prompts?, metric("pairs"), metric("prompts")?);
    let by_row = || scaled(read.rows?, metric("pairs"), metric("responses")?);
    let pairs = by_prompt().or_else(by_row);
    let dropped = read.prompts.zip(pairs).map(|(prompts, pairs)| prompts.saturating_sub(pairs));
    let flow = Flow { prompts: pairs, ..estimate(pairs) };
    whole(read.rows, vec![(PAIRS, flow), (DROPPED, estimate(dropped))])
}

/// Every example as often as there are epochs, unless the steps end it before.
fn train(examples: &Examples, passes: &Passes, known: &Known<'_>) -> Prospect {
    let n_examples = match examples {
        Examples::Pairs(_) => (known.flow)("pairs").rows,
        Examples::Rows(_) => {
            let read = (known.flow)("rows");
            let metric = |name: &str| known.last?.metrics.get(name).map(|value| *value as u64);
            let as_before = || scaled(read.rows?, metric("examples"), known.last?.work.as_ref()?.n_rows_read);
            // A reward model counts prompts, each with all its answers, and only the last time tells how many these are.
            as_before().or(read.train)
        }
    };
    let Passes { epochs, max_steps, batch_size, micro_batch_tokens: _, share_prompt: _, recompute: _ } = passes;
    let batch = u64::from(batch_size.get());
    let steps = n_examples.map(|n| n.div_ceil(batch) * u64::from(epochs.get()));
    let most = max_steps.value.map(|most| u64::from(most.get()));
    let taken = steps.map(|steps| most.map_or(steps, |most| steps.min(most)));
    let visits = n_examples.zip(taken).map(|(n, taken)| (n * u64::from(epochs.get())).min(taken * batch));
    // Steps that were saved need not be taken again; other counts are of something else than examples.
    let saved = known.count.filter(|count| count.unit == "steps" && count.rows > 0);
    let n_known = saved.zip(visits).map_or(0, |(count, visits)| visits * count.rows_known / count.rows);
    Prospect {
        flows: vec![(Product::Checkpoint, Flow::default()), (STEPS, estimate(taken))],
        units: visits.map(|visits| visits - n_known),
        units_known: n_known,
        units_in_all: visits,
    }
}

/// Both sides answer every selected prompt, drawn n times and perhaps once greedily; a comparison is of two answers.
fn evaluate(selection: &Selection, answers: &Answers, known: &Known<'_>) -> Prospect {
    let n_each = u64::from(answers.n.get()) + u64::from(answers.greedy.value);
    let n_answers = known.count.map(|count| count.rows).or_else(|| Some(selected(selection, known)? * n_each * 2));
    let flow = Flow { rows: n_answers.map(|n| n / 2), is_exact: known.count.is_some(), ..Flow::default() };
    one_by_one(n_answers, known, |_| vec![(COMPARISONS, flow), (METRICS, Flow::default())])
}

/// Prompts of the wanted split, or as large a share of them as were taken before.
fn selected(selection: &Selection, known: &Known<'_>) -> Option<u64> {
    let read = (known.flow)("prompts");
    let of_split = match selection.split.value {
        SplitName::Train => read.train,
        SplitName::Heldout => read.heldout,
        SplitName::All => read.rows,
    };
    let limit = selection.limit.value.map(|limit| u64::from(limit.get()));
    let as_before = || {
        let last = known.last?;
        let taken = last.metrics.get("prompts").map(|value| *value as u64);
        // What a limit cut off says nothing of how many there were.
        let was_cut = last.leaves.iter().any(|leaf| {
            leaf.path.ends_with(".limit") && matches!(leaf.value, LeafValue::Int(most) if taken == Some(most as u64))
        });
        if was_cut { read.rows } else { scaled(read.rows?, taken, last.work.as_ref()?.n_rows_read) }
    };
    let n = of_split.or_else(as_before)?;
    Some(limit.map_or(n, |limit| n.min(limit)))
}

/// A stage that makes its rows one by one.
fn one_by_one(rows: Option<u64>, known: &Known<'_>, flows: impl Fn(u64) -> Vec<(Product, Flow)>) -> Prospect {
    let n_known = known.count.map_or(0, |count| count.rows_known);
    Prospect {
        flows: flows(n_known),
        units: rows.map(|rows| rows.saturating_sub(n_known)),
        units_known: n_known,
        units_in_all: rows,
    }
}

/// A stage that is made as a whole: what it reads is what it works through.
fn whole(units: Option<u64>, flows: Vec<(Product, Flow)>) -> Prospect {
    Prospect { flows, units, units_known: 0, units_in_all: units }
}

fn estimate(rows: Option<u64>) -> Flow {
    Flow { rows, ..Flow::default() }
}

fn of_rows(rows: u64, rows_known: u64) -> RowCount {
    RowCount { rows, rows_known: rows_known.min(rows), unit: "rows" }
}

/// Rows of the first table of a record.
fn out_of(record: &Record) -> Option<u64> {
    record.outputs.iter().find_map(|output| output.n_rows())
}

/// `n` times `then / of`: what `then` of `of` comes to for `n`. None where there is nothing to go by.
fn scaled(n: u64, then: Option<u64>, of: u64) -> Option<u64> {
    let then = then?;
    (of > 0).then(|| (n as f64 * then as f64 / of as f64).round() as u64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use expect_test::{Expect, expect};
    use sluice_spec::{Options, parse};
    use sluice_store::{Artifact, Leaf, Output, StageKey, TableArtifact, TableDigest, Work};

    use super::*;

    const PIPELINE: &str = "
version: 1
models: { m: m }
stages:
  prompts: { ingest: { from: a.jsonl, limit: 900 } }
  responses: { sample: { prompts: prompts, model: m, n: 5, limit: 600 } }
  scores: { score: { responses: responses, model: m } }
  pairs: { pair: { scores: scores } }
  tuned: { train: { pairs: pairs, model: m, objective: { orpo: {} }, learning_rate: 1, epochs: 3, batch_size: 16 } }
  taught: { train: { rows: prompts, model: m, objective: { sft: {} }, learning_rate: 1, batch_size: 10, max_steps: 7 } }
  report: { evaluate: { prompts: prompts, candidate: tuned, baseline: m, n: 2 } }
  counts: { sql: { from: [scores, pairs.dropped], query: select 1 } }
";

    /// A record with a table of so many rows, these metrics, and so much read and worked through.
    fn record(rows: u64, metrics: &[(&str, f64)], n_rows_read: u64, n_done: u64) -> Record {
        let table = TableArtifact {
            digest: TableDigest::from_bytes([0; 32]),
            blob: sluice_store::ContentHash::from_bytes([0; 32]),
            n_rows: rows,
            bytes: 0,
        };
        Record {
            schema_version: 1,
            key: StageKey::from_bytes([0; 32]),
            kind: String::new(),
            stage_version: 1,
            leaves: Vec::new(),
            outputs: vec![Output { name: "table".to_owned(), artifact: Artifact::Table(table) }],
            metrics: metrics.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect::<BTreeMap<_, _>>(),
            facts: BTreeMap::new(),
            n_rows_reused: 0,
            n_steps_resumed: 0,
            notices: Vec::new(),
            row_scopes: None,
            about: None,
            work: Some(Work { unit: String::new(), n_done, n_tokens: 0, seconds: 0.0, n_rows_read }),
            seconds: 0.0,
            created_unix_ms: 0,
        }
    }

    fn prompts(train: u64, heldout: u64) -> Flow {
        let rows = Some(train + heldout);
        Flow { rows, prompts: rows, train: Some(train), heldout: Some(heldout), ..Flow::default() }
    }

    /// What is known of a stage: what it reads, what was counted, the last record, bytes of files.
    #[derive(Default)]
    struct Case<'a> {
        reads: &'a [(&'a str, Flow)],
        count: Option<(u64, u64, &'static str)>,
        last: Option<Record>,
        n_bytes: Option<u64>,
        is_changed: bool,
    }

    #[track_caller]
    fn check(stage: &str, case: Case<'_>, expected: Expect) {
        let pipeline = parse("p.yaml", PIPELINE, &Options::default()).unwrap_or_else(|faults| panic!("{faults}"));
        let stage = pipeline.stages.iter().find(|known| known.name.as_str() == stage).expect("a stage");
        let flow =
            |role: &str| case.reads.iter().find(|(of, _)| *of == role).map_or(Flow::default(), |(_, flow)| *flow);
        let count = case.count.map(|(rows, rows_known, unit)| RowCount { rows, rows_known, unit });
        let known = Known {
            flow: &flow,
            count,
            last: case.last.as_ref(),
            n_bytes: case.n_bytes,
            is_unchanged: !case.is_changed,
        };
        let Prospect { flows, units, units_known, units_in_all } = prospect(&stage.kind, &known);
        let number = |n: Option<u64>| n.map_or("?".to_owned(), |n| n.to_string());
        let tables = flows.iter().filter(|(product, _)| *product != Product::Checkpoint).map(|(product, flow)| {
            let about = if flow.is_exact { "" } else { "~" };
            format!("{} {about}{}", product.name(), number(flow.rows))
        });
        let tables: Vec<String> = tables.collect();
        expected.assert_eq(&format!(
            "{} of {}, {units_known} known; {}",
            number(units),
            number(units_in_all),
            tables.join(", ")
        ));
    }

    #[test]
    fn files_grow_by_their_size() {
        let last = || Some(record(400, &[("train", 380.0), ("heldout", 20.0)], 0, 1_000));
        check(
            "prompts",
            Case { n_bytes: Some(1_500), ..Case::default() },
            expect!["1500 of 1500, 0 known; prompts ~?"],
        );
        check(
            "prompts",
            Case { n_bytes: Some(1_500), last: last(), ..Case::default() },
            expect!["1500 of 1500, 0 known; prompts ~600"],
        );
        // The limit of the stage.
        check(
            "prompts",
            Case { n_bytes: Some(9_000), last: last(), ..Case::default() },
            expect!["9000 of 9000, 0 known; prompts ~1080"],
        );
    }

    #[test]
    fn answers_are_prompts_times_samples() {
        let reads = [("prompts", prompts(380, 20))];
        check(
            "responses",
            Case { count: Some((2_000, 1_500, "rows")), ..Case::default() },
            expect!["500 of 2000, 1500 known; responses 2000"],
        );
        check(
            "responses",
            Case { reads: &reads, ..Case::default() },
            expect!["1900 of 1900, 0 known; responses ~1900"],
        );
        check(
            "responses",
            Case { reads: &[("prompts", prompts(3_800, 200))], ..Case::default() },
            expect!["3000 of 3000, 0 known; responses ~3000"],
        );
        check("responses", Case::default(), expect!["? of ?, 0 known; responses ~?"]);
        // A table that does not say what is in which split: as large a share as before.
        let unsplit = [("prompts", estimate(Some(1_000)))];
        let last = || Some(record(1_500, &[("prompts", 300.0)], 600, 1_500));
        check(
            "responses",
            Case { reads: &unsplit, last: last(), ..Case::default() },
            expect!["2500 of 2500, 0 known; responses ~2500"],
        );
        check("responses", Case { reads: &unsplit, ..Case::default() }, expect!["? of ?, 0 known; responses ~?"]);
    }

    #[test]
    fn scores_of_known_responses_are_known() {
        let responses =
            Flow { rows: Some(2_400), is_exact: true, prompts: Some(400), n_known: 2_000, ..Flow::default() };
        let reads = [("responses", responses)];
        check("scores", Case { reads: &reads, ..Case::default() }, expect!["400 of 2400, 2000 known; scores 2400"]);
        check(
            "scores",
            Case { reads: &reads, is_changed: true, ..Case::default() },
            expect!["2400 of 2400, 0 known; scores 2400"],
        );
        check(
            "scores",
            Case { count: Some((2_400, 7, "rows")), reads: &reads, ..Case::default() },
            expect!["2393 of 2400, 7 known; scores 2400"],
        );
        check("scores", Case::default(), expect!["? of ?, 0 known; scores ~?"]);
    }

    #[test]
    fn pairs_come_as_they_came() {
        let scores = Flow { rows: Some(2_400), prompts: Some(400), ..Flow::default() };
        let last = || Some(record(280, &[("pairs", 280.0), ("prompts", 400.0), ("responses", 2_000.0)], 2_000, 2_000));
        check(
            "pairs",
            Case { reads: &[("scores", scores)], last: last(), ..Case::default() },
            expect!["2400 of 2400, 0 known; pairs ~280, dropped ~120"],
        );
        check(
            "pairs",
            Case { reads: &[("scores", estimate(Some(1_000)))], last: last(), ..Case::default() },
            expect!["1000 of 1000, 0 known; pairs ~140, dropped ~?"],
        );
        check(
            "pairs",
            Case { reads: &[("scores", scores)], ..Case::default() },
            expect!["2400 of 2400, 0 known; pairs ~?, dropped ~?"],
        );
    }

    #[test]
    fn examples_are_read_once_an_epoch() {
        let reads = [("pairs", estimate(Some(100)))];
        check("tuned", Case { reads: &reads, ..Case::default() }, expect!["300 of 300, 0 known; steps ~21"]);
        // A training that was stopped, and reference rows that are known, which are no examples.
        check(
            "tuned",
            Case { reads: &reads, count: Some((21, 7, "steps")), ..Case::default() },
            expect!["200 of 300, 100 known; steps ~21"],
        );
        check(
            "tuned",
            Case { reads: &reads, count: Some((100, 50, "rows")), ..Case::default() },
            expect!["300 of 300, 0 known; steps ~21"],
        );
        // `max_steps` ends it first; rows of the split `train`, or as many as before.
        check(
            "taught",
            Case { reads: &[("rows", prompts(380, 20))], ..Case::default() },
            expect!["70 of 70, 0 known; steps ~7"],
        );
        check(
            "taught",
            Case { reads: &[("rows", prompts(38, 20))], ..Case::default() },
            expect!["38 of 38, 0 known; steps ~4"],
        );
        let last = record(7, &[("examples", 30.0)], 60, 70);
        check(
            "taught",
            Case { reads: &[("rows", prompts(90, 0))], last: Some(last), ..Case::default() },
            expect!["45 of 45, 0 known; steps ~5"],
        );
        check("taught", Case::default(), expect!["? of ?, 0 known; steps ~?"]);
    }

    #[test]
    fn both_sides_of_an_evaluation_answer() {
        check(
            "report",
            Case { count: Some((120, 60, "rows")), ..Case::default() },
            expect!["60 of 120, 60 known; comparisons 60, metrics ~?"],
        );
        check(
            "report",
            Case { reads: &[("prompts", prompts(380, 20))], ..Case::default() },
            expect!["120 of 120, 0 known; comparisons ~60, metrics ~?"],
        );
        check("report", Case::default(), expect!["? of ?, 0 known; comparisons ~?, metrics ~?"]);
    }

    #[test]
    fn a_query_makes_as_many_rows_of_a_row_as_it_did() {
        let reads = [("scores", estimate(Some(900))), ("pairs.dropped", estimate(Some(100)))];
        check(
            "counts",
            Case { reads: &reads, last: Some(record(50, &[], 500, 500)), ..Case::default() },
            expect!["1000 of 1000, 0 known; table ~100"],
        );
        check("counts", Case { reads: &reads, ..Case::default() }, expect!["1000 of 1000, 0 known; table ~?"]);
        check("counts", Case { reads: &reads[..1], ..Case::default() }, expect!["? of ?, 0 known; table ~?"]);
    }

    #[test]
    fn what_a_limit_cut_off_says_nothing_of_the_rest() {
        let mut last = record(3_000, &[("prompts", 600.0)], 4_000, 3_000);
        last.leaves = vec![Leaf { path: "sample.limit".to_owned(), value: LeafValue::Int(600), place: None }];
        let reads = [("prompts", estimate(Some(4_000)))];
        check(
            "responses",
            Case { reads: &reads, last: Some(last), ..Case::default() },
            expect!["3000 of 3000, 0 known; responses ~3000"],
        );
    }
}

//! Data tests of a stage: what must hold of the tables and numbers it made, and what follows when it does not.
//!
//! Owns the checks, their parameters and names, and what of them enters the key of an outcome. Refuses to know how a check
//! is made, and when. No test enters the key of its stage: a stage is never computed again for one.
//!
//! ```yaml
//! tests:
//!   - not_null: [chosen, rejected]
//!   - unique: [prompt_id]                               # no two rows agree in all of these columns
//!   - range: { column: margin, min: 0, max: 50 }
//!   - accepted_values: { column: rule, values: [tie, identical] }
//!     table: dropped                                    # another table that the stage makes
//!   - row_count: { min: 1000 }
//!   - relationship: { column: prompt_id, to: prompts }  # every value is one of that table's column of the same name
//!   - sql: select * from this where chosen = rejected   # must give no rows
//!     severity: warn
//!     name: no_identical
//!   - metric: { name: win_rate_sampled, min: 0.5 }      # a number that the stage reports
//! ```

use std::fmt;

use crate::choice::choice;
use crate::diagnostic::{Code, Diagnostic};
use crate::leaf::{LeafSink, LeafValue, ToLeaf, emit};
use crate::names::{Product, TableKind};
use crate::number::{Amount, Finite};
use crate::reader::{Fields, Read, Reader};
use crate::span::{Located, Span};
use crate::stage::contract::Contract;
use crate::stage::{KindName, StageProduct, TableRef};
use crate::tree::{Node, Value};

/// Raised when an equal test over equal tables would come out otherwise.
pub const VERSION: u32 = 1;

/// What the table under test is called in a query.
pub const THIS: &str = "this";

/// The keys that may stand beside a check.
const BESIDE: [&str; 4] = ["name", "severity", "table", "from"];

/// One data test.
#[derive(Debug, Clone, PartialEq)]
pub struct Test {
    /// Given by `name`, or made of the check; no two tests of a stage have one.
    pub name: TestName,
    /// Where the check stands.
    pub place: Span,
    pub severity: Located<Severity>,
    /// The table that is tested; none for a metric.
    pub table: Option<Product>,
    /// Further tables that a query reads, each under its own name.
    pub from: Vec<Located<TableRef>>,
    pub check: Check,
}

/// The name of a test: lower case, digits and `_`, since the rows that fail are a table of that name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TestName(String);

choice! {
    /// What follows when a test fails.
    pub enum Severity {
        /// What reads the stage does not run.
        Error = "error",
        /// It is told, and the run goes on.
        Warn = "warn",
    }
}

/// What must hold.
#[derive(Debug, Clone, PartialEq)]
pub enum Check {
    /// No row is null in any of these columns.
    NotNull(Vec<Located<String>>),
    /// No two rows agree in all of these columns; rows with a null in one of them are left out.
    Unique(Vec<Located<String>>),
    Range(Range),
    AcceptedValues(AcceptedValues),
    RowCount(RowCount),
    Relationship(Relationship),
    /// A query that gives no rows; it reads `this` and the tables of `from`.
    Sql(Located<String>),
    Metric(Metric),
    /// The stage's `columns`.
    Columns(Contract),
}

/// Every value lies between two ends, which belong to it; nulls are left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Range {
    pub column: Located<String>,
    pub min: Located<Option<Finite>>,
    pub max: Located<Option<Finite>>,
}

/// Every value is one of these; nulls are left out.
#[derive(Debug, Clone, PartialEq)]
pub struct AcceptedValues {
    pub column: Located<String>,
    pub values: Located<Vec<Scalar>>,
}

/// The table has so many rows.
#[derive(Debug, Clone, PartialEq)]
pub struct RowCount {
    pub min: Located<Option<Amount>>,
    pub max: Located<Option<Amount>>,
}

/// Every value is one of another table's; nulls are left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Relationship {
    pub column: Located<String>,
    pub to: Located<TableRef>,
    /// The column of the other table; by default of the same name.
    pub key: Located<String>,
}

/// A number that the stage reports lies between two ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    pub name: Located<String>,
    pub min: Located<Option<Finite>>,
    pub max: Located<Option<Finite>>,
}

/// A value as YAML writes one.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
}

impl Check {
    /// The YAML keys of the checks in `tests`.
    pub const NAMES: [&'static str; 8] =
        ["not_null", "unique", "range", "accepted_values", "row_count", "relationship", "sql", "metric"];

    /// The check's YAML key.
    pub const fn name(&self) -> &'static str {
        match self {
            Check::NotNull(_) => Self::NAMES[0],
            Check::Unique(_) => Self::NAMES[1],
            Check::Range(_) => Self::NAMES[2],
            Check::AcceptedValues(_) => Self::NAMES[3],
            Check::RowCount(_) => Self::NAMES[4],
            Check::Relationship(_) => Self::NAMES[5],
            Check::Sql(_) => Self::NAMES[6],
            Check::Metric(_) => Self::NAMES[7],
            Check::Columns(_) => "columns",
        }
    }

    /// The columns of the table under test that the check names.
    pub fn columns(&self) -> &[Located<String>] {
        match self {
            Check::NotNull(columns) | Check::Unique(columns) => columns,
            Check::Range(Range { column, .. })
            | Check::AcceptedValues(AcceptedValues { column, .. })
            | Check::Relationship(Relationship { column, .. }) => std::slice::from_ref(column),
            Check::RowCount(_) | Check::Sql(_) | Check::Metric(_) | Check::Columns(_) => &[],
        }
    }

    /// What the check is called when it has no name.
    fn usual_name(&self) -> String {
        let mut words = vec![self.name()];
        words.extend(self.columns().iter().map(|column| column.value.as_str()));
        if let Check::Metric(metric) = self {
            words.push(&metric.name.value);
        }
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
        words.join("_").chars().map(plain).collect()
    }
}

impl Test {
    /// Feeds everything of the test that decides its outcome to `sink`, except what it reads. Name and severity do not.
    pub fn leaves(&self, sink: &mut dyn LeafSink) {
        let Test { name: _, place, severity: _, table: _, from: _, check } = self;
        sink.leaf("check", LeafValue::Str(check.name().to_owned()), Some(*place));
        match check {
            Check::NotNull(columns) | Check::Unique(columns) => {
                let names = columns.iter().map(|column| column.value.to_leaf()).collect();
                sink.leaf("columns", LeafValue::List(names), Some(*place));
            }
            Check::Range(Range { column, min, max }) => {
                emit(sink, "column", column);
                emit(sink, "min", min);
                emit(sink, "max", max);
            }
            Check::AcceptedValues(AcceptedValues { column, values }) => {
                emit(sink, "column", column);
                emit(sink, "values", values);
            }
            Check::RowCount(RowCount { min, max }) => {
                emit(sink, "min", min);
                emit(sink, "max", max);
            }
            Check::Relationship(Relationship { column, to: _, key }) => {
                emit(sink, "column", column);
                emit(sink, "key", key);
            }
            Check::Sql(query) => emit(sink, "query", query),
            Check::Metric(Metric { name, min, max }) => {
                emit(sink, "name", name);
                emit(sink, "min", min);
                emit(sink, "max", max);
            }
            Check::Columns(contract) => contract.leaves(sink),
        }
    }

    /// The tables that the test reads, by the names a query knows them by: `this`, and those of other stages or of other
    /// products. `stage` is the one that is tested.
    pub fn tables(&self, stage: &crate::names::StageName) -> Vec<(String, StageProduct)> {
        let this = self.table.map(|product| (THIS.to_owned(), StageProduct { stage: stage.clone(), product }));
        this.into_iter().chain(self.others().map(|table| (table.name.clone(), table.made.clone()))).collect()
    }

    /// The tables that it reads besides the one under test.
    pub fn others(&self) -> impl Iterator<Item = &Located<TableRef>> {
        let to = match &self.check {
            Check::Relationship(relationship) => Some(&relationship.to),
            _ => None,
        };
        self.from.iter().chain(to)
    }

    /// The contract of a stage, as the first of its tests.
    pub(crate) fn of_contract(contract: Contract, place: Span, kind: KindName) -> Test {
        Test {
            name: TestName("columns".to_owned()),
            place,
            severity: Located::default_of(Severity::Error),
            table: first_table(kind),
            from: Vec::new(),
            check: Check::Columns(contract),
        }
    }
}

impl TestName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ToLeaf for Scalar {
    fn to_leaf(&self) -> LeafValue {
        match self {
            Scalar::Text(text) => LeafValue::Str(text.clone()),
            Scalar::Int(value) => LeafValue::Int(*value),
            Scalar::Float(value) => LeafValue::Float(*value),
            Scalar::Bool(value) => LeafValue::Bool(*value),
        }
    }
}

/// Reads `tests`. `kind` is that of the stage; `contract` is the test that its `columns` are, if it has any.
pub(crate) fn read(node: &Node, reader: &mut Reader<'_>, kind: KindName, contract: Option<Test>) -> Vec<Test> {
    let mut tests: Vec<Test> = contract.into_iter().collect();
    let items = match &node.value {
        Value::List(items) => items.as_slice(),
        Value::Null => &[],
        _ => {
            reader.wrong_type::<()>(node, "a list of tests, as in `[not_null: [prompt]]`");
            &[]
        }
    };
    for item in items {
        let Some((test, named)) = read_test(item, reader, kind) else { continue };
        if let Some(test) = distinct(test, named, &tests, reader) {
            tests.push(test);
        }
    }
    tests
}

/// A test and the place of its name, if it gives one.
fn read_test(item: &Node, reader: &mut Reader<'_>, kind: KindName) -> Option<(Test, Option<Span>)> {
    let (name, body, place) = reader.one_of(item, &Check::NAMES, &BESIDE)?;
    let check = reader.under(name, place, |reader| read_check(name, body, reader));
    let mut fields = Fields::open(item, reader)?;
    let severity = fields.or("severity", Severity::Error);
    let named: Located<Option<TestName>> = fields.optional("name");
    let is_metric = name == "metric";
    if is_metric {
        fields.misplaced("table", "a metric is of the stage, not of a table");
    }
    let table = if is_metric { None } else { read_table(&mut fields, kind) };
    if name != "sql" {
        fields.misplaced("from", "only a query (`sql`) reads further tables");
    }
    let from = if fields.has("from") && name == "sql" { fields.tables("from")?.value } else { Vec::new() };
    let check = check?;
    if table.is_none() && !is_metric {
        return None;
    }
    let usual = TestName(check.usual_name());
    let given = named.value.is_some().then_some(named.place).flatten();
    Some((Test { name: named.value.unwrap_or(usual), place, severity, table, from, check }, given))
}

/// The product that `table` names: the stage's first table where it is left out. None with the fault reported.
fn read_table(fields: &mut Fields<'_, '_>, kind: KindName) -> Option<Product> {
    let given: Located<Option<String>> = fields.optional("table");
    let Some(wanted) = given.value else { return first_table(kind) };
    let tables = || kind.products().iter().filter(|product| matches!(product, Product::Table(_)));
    let found = tables().find(|product| product.name() == wanted).copied();
    if found.is_none() {
        let names: Vec<String> = tables().map(|product| format!("`{}`", product.name())).collect();
        fields.contradiction(
            "table",
            given.place.unwrap_or(Span::START),
            &format!("a table of the stage: {}", names.join(" or ")),
        );
    }
    found
}

/// Every kind makes at least one table.
fn first_table(kind: KindName) -> Option<Product> {
    kind.products().iter().copied().find(|product| matches!(product, Product::Table(_)))
}

/// The test under a name that no other has: one that was made of the check is counted on, one that was given may not be
/// given twice.
fn distinct(mut test: Test, named: Option<Span>, others: &[Test], reader: &mut Reader<'_>) -> Option<Test> {
    let taken = |name: &str| others.iter().find(|other| other.name.as_str() == name);
    let Some(other) = taken(test.name.as_str()) else { return Some(test) };
    if let Some(place) = named {
        let message = format!("{} has two tests named `{}`", reader.whereabouts(), test.name);
        let fault = Diagnostic::new(Code::SpeltTwice, place, message);
        reader.report(fault.related(other.place, "first").help("rename one of them"));
        return None;
    }
    let free = (2..).map(|n| format!("{}_{n}", test.name)).find(|name| taken(name).is_none());
    test.name = TestName(free.unwrap_or_default());
    Some(test)
}

fn read_check(name: &str, body: &Node, reader: &mut Reader<'_>) -> Option<Check> {
    match name {
        "not_null" => Some(Check::NotNull(Columns::read(body, reader)?.0)),
        "unique" => Some(Check::Unique(Columns::read(body, reader)?.0)),
        "sql" => Some(Check::Sql(Located::read(body, reader)?)),
        _ => {
            let mut fields = Fields::open(body, reader)?;
            let check = read_fields(name, &mut fields);
            fields.finish();
            check
        }
    }
}

fn read_fields(name: &str, fields: &mut Fields<'_, '_>) -> Option<Check> {
    match name {
        "range" => {
            let column = fields.required("column");
            let (min, max) = ends(fields, Finite::get);
            Some(Check::Range(Range { column: column?, min, max }))
        }
        "accepted_values" => {
            let (column, values) = (fields.required("column"), fields.required("values"));
            let (column, values): (_, Located<Vec<Scalar>>) = (column?, values?);
            if values.is_empty() {
                fields.contradiction("values", values.place.unwrap_or(Span::START), "a list with a value in it");
            }
            Some(Check::AcceptedValues(AcceptedValues { column, values }))
        }
        "row_count" => {
            let (min, max) = ends(fields, |n: Amount| f64::from(n.get()));
            Some(Check::RowCount(RowCount { min, max }))
        }
        "relationship" => {
            let column: Option<Located<String>> = fields.required("column");
            let to = fields.table("to", TableKind::Any);
            let key: Located<Option<String>> = fields.optional("key");
            let (column, to) = (column?, to?);
            let key = Located { value: key.value.unwrap_or_else(|| column.value.clone()), place: key.place };
            Some(Check::Relationship(Relationship { column, to, key }))
        }
        _ => {
            let metric = fields.required("name");
            let (min, max) = ends(fields, Finite::get);
            Some(Check::Metric(Metric { name: metric?, min, max }))
        }
    }
}

/// `min` and `max`, of which one may be left out.
fn ends<T: Read + Copy>(
    fields: &mut Fields<'_, '_>,
    number: impl Fn(T) -> f64,
) -> (Located<Option<T>>, Located<Option<T>>) {
    let (min, max): (Located<Option<T>>, Located<Option<T>>) = (fields.optional("min"), fields.optional("max"));
    match (min.value, max.value) {
        (None, None) if !fields.has("min") && !fields.has("max") => fields.lacks("`min` or `max`"),
        (Some(least), Some(most)) if number(least) > number(most) => {
            fields.contradiction("max", max.place.unwrap_or(Span::START), "at least `min`");
        }
        _ => {}
    }
    (min, max)
}

/// One column, or a list of them.
struct Columns(Vec<Located<String>>);

impl Read for Columns {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.value {
            Value::Str(_) => Some(Columns(vec![Located::read(node, reader)?])),
            Value::List(items) if items.is_empty() => reader.out_of_range(node, "at least one column"),
            Value::List(_) => Vec::read(node, reader).map(Columns),
            _ => reader.wrong_type(node, "a column, a text, or a list of them"),
        }
    }
}

impl Read for Scalar {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.value {
            Value::Str(text) => Some(Scalar::Text(text.clone())),
            Value::Int(value) => Some(Scalar::Int(*value)),
            Value::Bool(value) => Some(Scalar::Bool(*value)),
            Value::Float(value) if value.is_finite() => Some(Scalar::Float(*value)),
            _ => reader.wrong_type(node, "a text, a finite number, `true` or `false`"),
        }
    }
}

impl Read for TestName {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let text = String::read(node, reader)?;
        let follows = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(follows) {
            return Some(TestName(text));
        }
        let message = format!("{} is `{text}`, which cannot be the name of a test", reader.whereabouts());
        let fault = Diagnostic::new(Code::BadName, node.span, message);
        reader.report(fault.help("a name starts with a lower-case letter; letters, digits and `_` may follow"));
        None
    }
}

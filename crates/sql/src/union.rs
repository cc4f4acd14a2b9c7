//! Rows of several tables under one name, each with columns of one value before its own.
//!
//! Owns the plan of it. Columns go by their names: where a table lacks one, its rows have none there.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::{Column, DataFusionError, ScalarValue, TableReference};
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Union, lit};

/// One of the tables, by its name, and the columns that its rows have in front.
#[derive(Debug, Clone)]
pub struct UnionPart {
    pub table: String,
    /// Names and values. One name has one type in all parts of a union.
    pub values: Vec<(String, Constant)>,
}

/// The one value of a column, of a type that is known also where there is none.
#[derive(Debug, Clone, PartialEq)]
pub enum Constant {
    Bool(Option<bool>),
    Int(Option<i64>),
    Float(Option<f64>),
    Text(Option<String>),
}

impl Constant {
    fn scalar(&self) -> ScalarValue {
        match self {
            Constant::Bool(value) => ScalarValue::Boolean(*value),
            Constant::Int(value) => ScalarValue::Int64(*value),
            Constant::Float(value) => ScalarValue::Float64(*value),
            Constant::Text(value) => ScalarValue::Utf8(value.clone()),
        }
    }
}

/// The union as a table. A column of one value whose name a table has already is called `matrix_NAME` in all of them.
pub(crate) fn view(parts: &[(&UnionPart, Arc<dyn TableProvider>)]) -> Result<Arc<dyn TableProvider>, DataFusionError> {
    let is_taken = |name: &str| parts.iter().any(|(_, provider)| provider.schema().column_with_name(name).is_some());
    let mut inputs = Vec::with_capacity(parts.len());
    for (part, provider) in parts {
        let table = TableReference::bare("part");
        let own = |name: &String| Expr::Column(Column::new(Some(table.clone()), name)).alias(name);
        let schema = provider.schema();
        let values = part.values.iter().map(|(name, value)| {
            let name = if is_taken(name) { format!("matrix_{name}") } else { name.clone() };
            lit(value.scalar()).alias(name)
        });
        let columns: Vec<Expr> = values.chain(schema.fields().iter().map(|field| own(field.name()))).collect();
        let scan = LogicalPlanBuilder::scan(table.clone(), provider_as_source(provider.clone()), None)?;
        inputs.push(Arc::new(scan.project(columns)?.build()?));
    }
    Ok(Arc::new(ViewTable::new(LogicalPlan::Union(Union::try_new_by_name(inputs)?), None)))
}

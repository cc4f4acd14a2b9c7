//! The `table!` declaration: from one list of columns to the view, the row, the builder and the schema of a table.

/// Declares a table: `table! { Prompts, PromptRow, PromptsBuilder, "prompts" { prompt_id: Utf8, .. } }`.
macro_rules! table {
    (
        $(#[$doc:meta])*
        $view:ident, $row:ident, $builder:ident, $name:literal { $($column:ident: $type:ty,)* }
    ) => {
        $(#[$doc])*
        pub struct $view {
            n_rows: usize,
            $($column: <$type as $crate::Column>::Array,)*
        }

        impl $view {
            /// The name of the table.
            pub const NAME: &'static str = $name;

            /// The columns, in order.
            pub fn schema() -> arrow::datatypes::SchemaRef {
                static SCHEMA: std::sync::LazyLock<arrow::datatypes::SchemaRef> = std::sync::LazyLock::new(|| {
                    std::sync::Arc::new(arrow::datatypes::Schema::new(vec![
                        $($crate::column::field::<$type>(stringify!($column)),)*
                    ]))
                });
                SCHEMA.clone()
            }

            /// Checks every column of a batch and makes it readable by row; no text is copied unless its encoding
            /// differs.
            pub fn view(batch: &arrow::array::RecordBatch) -> Result<Self, $crate::TableError> {
                Ok(Self {
                    n_rows: batch.num_rows(),
                    $($column: $crate::column::read::<$type>($name, stringify!($column), batch)?,)*
                })
            }

            pub fn len(&self) -> usize {
                self.n_rows
            }

            pub fn is_empty(&self) -> bool {
                self.n_rows == 0
            }

            /// All columns of one row, counted from 0; panics past the end, as indexing does.
            pub fn row(&self, row: usize) -> $row<'_> {
                $row { $($column: self.$column(row),)* }
            }

            /// Every row, in order.
            pub fn rows(&self) -> impl Iterator<Item = $row<'_>> {
                (0..self.n_rows).map(|row| self.row(row))
            }

            $(
                pub fn $column(&self, row: usize) -> $crate::Cell<'_, $type> {
                    <$type as $crate::Column>::value(&self.$column, row)
                }
            )*
        }

        #[doc = concat!("One row of `", $name, "`, borrowed from a view or about to be pushed into a builder.")]
        #[derive(Debug, Clone, Copy)]
        pub struct $row<'a> {
            $(pub $column: $crate::Cell<'a, $type>,)*
        }

        #[doc = concat!("Gathers rows of `", $name, "` into record batches.")]
        pub struct $builder {
            n_rows: usize,
            $($column: <$type as $crate::Column>::Builder,)*
        }

        impl $builder {
            pub fn new() -> Self {
                Self { n_rows: 0, $($column: <$type as $crate::Column>::builder(),)* }
            }

            pub fn push(&mut self, row: $row<'_>) {
                let $row { $($column,)* } = row;
                $(<$type as $crate::Column>::append(&mut self.$column, $column);)*
                self.n_rows += 1;
            }

            pub fn len(&self) -> usize {
                self.n_rows
            }

            pub fn is_empty(&self) -> bool {
                self.n_rows == 0
            }

            /// The rows pushed since the last call, as one batch; the builder is empty again.
            pub fn finish(&mut self) -> arrow::array::RecordBatch {
                self.n_rows = 0;
                let columns = vec![$(<$type as $crate::Column>::finish(&mut self.$column),)*];
                arrow::array::RecordBatch::try_new($view::schema(), columns)
                    .expect("the builder and the schema come from one list of columns")
            }
        }

        impl Default for $builder {
            fn default() -> Self {
                Self::new()
            }
        }
    };
}

pub(crate) use table;

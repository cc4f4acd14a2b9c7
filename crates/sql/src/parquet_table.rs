//! Files as DataFusion tables: exactly these files, whatever they are called, with nothing read from their names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::DataFusionError;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::prelude::SessionContext;

/// The files as one table, in the order given. Without a schema, that of the first file counts.
pub(crate) async fn table_of_files(
    context: &SessionContext,
    files: &[PathBuf],
    format: Arc<dyn FileFormat>,
    schema: Option<SchemaRef>,
) -> Result<Arc<dyn TableProvider>, DataFusionError> {
    let urls: Vec<ListingTableUrl> =
        files.iter().map(|file| ListingTableUrl::parse(file_url(file)?)).collect::<Result<_, _>>()?;
    // The store names its files by digest, without an extension.
    let options = ListingOptions::new(format).with_file_extension("");
    let config = ListingTableConfig::new_with_multi_paths(urls).with_listing_options(options);
    let config = match schema {
        Some(schema) => config.with_schema(schema),
        None => config.infer_schema(&context.state()).await?,
    };
    Ok(Arc::new(ListingTable::try_new(config)?))
}

/// A path as a URL. A path given as it is would be searched for wildcards, and a folder may well be called `[old]`.
fn file_url(path: &Path) -> Result<String, DataFusionError> {
    let path = std::path::absolute(path)?;
    let mut url = "file://".to_owned();
    for &byte in path.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
    }
    Ok(url)
}

//! The two files that say where tensors lie: the header of a safetensors file and the index over shards.
//!
//! Owns the checks that make a header trustworthy: it lies inside the file, every tensor lies inside the data and is as
//! long as its shape says, and no two overlap. Reads nothing of the data.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::Value;

use super::WeightsError;

/// The limit of the format's own library; a header is read into memory whole.
const LARGEST_HEADER_BYTES: u64 = 100_000_000;

/// The checked header of a safetensors file and where its data starts.
///
/// The header's own check holds that tensors lie end to end from 0 and that each is as long as its dtype and shape say;
/// here the file is as long as that.
pub(super) fn read_header(handle: &File, file: &Path, n_file_bytes: u64) -> Result<(Metadata, u64), WeightsError> {
    let wrong = |message: String| WeightsError::Header { file: file.to_owned(), message };
    let read = |source| WeightsError::Read { file: file.to_owned(), source };
    if n_file_bytes < 8 {
        return Err(wrong(format!("is {n_file_bytes} bytes long; a header length of 8 bytes is needed first")));
    }
    let mut length = [0; 8];
    handle.read_exact_at(&mut length, 0).map_err(read)?;
    if length.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) {
        let start = String::from_utf8_lossy(&length).trim_end().to_owned();
        return Err(wrong(format!(
            "is a text that begins with `{start}`; weights are needed (a pointer of Git LFS is fetched with `git lfs pull`)"
        )));
    }
    let n_header_bytes = u64::from_le_bytes(length);
    if n_header_bytes > LARGEST_HEADER_BYTES.min(n_file_bytes - 8) {
        let rest = n_file_bytes - 8;
        return Err(wrong(format!("says that its header has {n_header_bytes} bytes; {rest} bytes follow")));
    }
    let mut header = vec![0; n_header_bytes as usize];
    handle.read_exact_at(&mut header, 8).map_err(read)?;
    let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| {
        wrong(blame(&header).unwrap_or_else(|| format!("has a header that does not hold: {error}")))
    })?;
    let data_start = 8 + n_header_bytes;
    let n_data_bytes = n_file_bytes - data_start;
    if metadata.data_len() as u64 != n_data_bytes {
        let described = metadata.data_len();
        return Err(wrong(format!("describes {described} bytes of tensors and holds {n_data_bytes}")));
    }
    Ok((metadata, data_start))
}

/// The first tensor whose offsets do not fit its dtype and shape: the format's library does not name it.
fn blame(header: &[u8]) -> Option<String> {
    let entries: BTreeMap<String, Value> = serde_json::from_slice(header).ok()?;
    entries.into_iter().find_map(|(name, entry)| {
        let TensorInfo { dtype, shape, data_offsets: (start, end) } = serde_json::from_value(entry).ok()?;
        let n_elements = shape.iter().try_fold(1usize, |n, size| n.checked_mul(*size));
        let n_bits = n_elements.and_then(|n| n.checked_mul(dtype.bitsize()));
        let n_bytes = end.checked_sub(start);
        if n_bytes.is_some() && n_bytes == n_bits.map(|n| n / 8) {
            return None;
        }
        let needed = n_bits.map_or("more bytes than can be counted".into(), |n| format!("{} bytes", n / 8));
        Some(format!("tensor `{name}` is {dtype} {shape:?} and needs {needed}; its offsets are {start} to {end}"))
    })
}

pub(super) fn read_index(index: &Path) -> Result<Vec<(String, String)>, WeightsError> {
    let wrong = |message: String| WeightsError::Index { file: index.to_owned(), message };
    let text = fs::read(index).map_err(|source| WeightsError::Read { file: index.to_owned(), source })?;
    let value: Value = serde_json::from_slice(&text).map_err(|error| wrong(format!("is not JSON: {error}")))?;
    let map = value.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| wrong("has no `weight_map` from tensor names to files".into()))?;
    let pair = |(name, shard): (&String, &Value)| match shard.as_str() {
        Some(shard) => Ok((name.clone(), shard.to_owned())),
        None => Err(wrong(format!("maps tensor `{name}` to {shard}; a file name is needed"))),
    };
    map.iter().map(pair).collect()
}

//! Crate `store`: content-addressed artifacts, action records, atomic commit.
//!
//! It owns the folder `.sluice/` and every promise about it: nothing half-written is ever visible, the
//! first result of a key wins, bytes are checked before they are believed. It knows nothing of stages or
//! plans: a key is 32 bytes somebody derived, and the names in records and run manifests are only text here.
//!
//! ```text
//! .sluice/
//!   format              version of this layout; a newer one is refused, an older one upgraded
//!   objects/ab/cdef..   immutable blobs (Parquet tables) named by the BLAKE3 of their bytes, mode 0444
//!   checkpoints/HEX/    sealed folders named by the digest of their files, mode 0444
//!   records/KEY.json    what a key produced, the outcomes of data tests among it; written last, so no record means it
//!                       does not exist
//!   divergences/        a later, different result for a key that already had one: kept as evidence
//!   rows/SCOPE/         row journals: results of single rows, for runs that need some of them again
//!   resume/KEY/         the last save of a long computation that is not finished
//!   runs/r17.json       one manifest for each run: which stage had which key
//!   tags/NAME.json      names of runs that are to be kept, each with a copy of the run's manifest
//!   damaged/            what `fsck --repair` took away, until `gc` removes it
//!   locks/KEY           operating-system locks; they die with their owner
//!   tmp/KEY.PID.N/      private attempt folders, with the rows so far of tables that are asked for while they grow;
//!                       whatever a dead owner left is swept with the next attempt
//!   stat-cache.json     (path, size, mtime, inode) -> digest of files outside the store
//! ```
//!
//! The operations have the shape of `object_store` (put if absent, get, list), so that a bucket can become a
//! second implementation. The folder is written directly all the same: `object_store`'s local implementation
//! neither syncs a file before it renames it nor syncs the folder afterwards, and without both a power cut can
//! leave a named, empty object.

mod attempt;
mod checked;
mod compare;
mod digest;
mod disk;
mod divided;
mod error;
mod fsck;
mod gc;
mod layout;
mod live;
mod lock;
mod logical;
mod names;
mod reading;
mod record;
mod resume;
mod rows;
mod runs;
mod sealed;
mod stat_cache;
mod store;
mod table_writer;
mod tags;

pub use attempt::{Attempt, AttemptFolder, Committed};
pub use compare::{ColumnChange, Comparison, Matching};
pub use digest::{ContentHash, DigestError, ModelDigest, RowKey, RowScope, StageKey, TableDigest};
pub use error::StoreError;
pub use fsck::{Checkup, Derive, Fault, Mended};
pub use gc::{Collection, Garbage, GarbageKind, GcPolicy};
pub use layout::FORMAT_VERSION;
pub use live::LiveRows;
pub use lock::{KeyLock, RunLock, StoreLock};
pub use logical::{LogicalHasher, MEASURED, table_digest};
pub use record::{
    Artifact, CheckpointArtifact, Leaf, LeafValue, Notice, NoticeLevel, Output, RECORD_SCHEMA_VERSION, Record,
    RecordDraft, TableArtifact, Work,
};
pub use resume::{HowFar, Unfinished};
pub use rows::{KnownRows, RowWriter};
pub use runs::{Outcome, RUN_SCHEMA_VERSION, RunId, RunIdError, RunManifest, RunStage, RunTest, TestOutcome};
pub use stat_cache::FolderDigestError;
pub use store::{Lookup, Store};
pub use table_writer::TableWriter;
pub use tags::{TAG_SCHEMA_VERSION, Tag, TagName, TagNameError, Tagged};

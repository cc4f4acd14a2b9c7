//! `prompts`: what a policy is asked, one row per distinct prompt. Made by `ingest`.

use crate::column::{Float32, UInt64, Utf8, Word};
use crate::declare::table;
use crate::words::Split;

table! {
    /// Prompts, one row per distinct text. `response` and `label` are filled only where the files map them: rows to
    /// imitate or to learn a score from. Columns of the files that `ingest` is told to keep stand behind these.
    ///
    /// | column     | type    | null | meaning                                                               |
    /// |------------|---------|------|-----------------------------------------------------------------------|
    /// | prompt_id  | Utf8    | no   | BLAKE3 of the prompt text, 128 bits, 32 hex digits                    |
    /// | prompt     | Utf8    | no   | what the user says, without chat template                             |
    /// | reference  | Utf8    | yes  | a right answer, for exact checks                                      |
    /// | group      | Utf8    | yes  | family of prompts, for metrics by group                               |
    /// | split      | Utf8    | no   | `train` or `heldout`; held-out prompts are never trained on           |
    /// | source     | Utf8    | no   | file the row came from, without folders                               |
    /// | source_row | UInt64  | no   | row within that file, from 0                                          |
    /// | response   | Utf8    | yes  | an answer that comes with the prompt                                  |
    /// | label      | Float32 | yes  | how good that answer is, higher is better, in the unit of the file    |
    Prompts, PromptRow, PromptsBuilder, "prompts" {
        prompt_id: Utf8,
        prompt: Utf8,
        reference: Option<Utf8>,
        group: Option<Utf8>,
        split: Word<Split>,
        source: Utf8,
        source_row: UInt64,
        response: Option<Utf8>,
        label: Option<Float32>,
    }
}

//! The top-level key `dtype`: what models compute in.
//! Owns its words; refuses to know what the machine is.

use crate::choice::choice;

choice! {
    /// What the weights of models are held in and their activations rounded to. It is part of the family of arithmetic,
    /// which is in the key of every stage that runs a model.
    pub enum Dtype {
        /// f32 on the CPU, bf16 on a GPU.
        Auto = "auto",
        F32 = "f32",
        Bf16 = "bf16",
    }
}

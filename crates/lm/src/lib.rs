//! Gemma 2, Llama and reward heads on Burn: configurations, weights, tokenizers, chat templates, generation, scoring.
//!
//! Owns what a language model computes, and how a published checkpoint becomes one. Knows nothing of Arrow, YAML or the
//! store: text and token ids come in, token ids and numbers go out.

pub mod causal;
pub mod checkpoint;
pub mod config;
pub mod device;
pub mod gemma2;
pub mod generate;
pub mod kernel;
pub mod llama;
pub mod memory;
pub mod model;
mod nn;
pub mod packed;
pub mod params;
pub mod precision;
pub mod reward;
pub mod sampling;
pub mod stack;
pub mod template;
pub mod tokenizer;
pub mod vocabulary;
pub mod weights;

//! The sizes that are measured: those of published models, and one to try the harness with.
//!
//! Owns the configurations and how much work each is given. Knows nothing of files.

use clap::ValueEnum;
use sluice_lm::config::{Attention, Config, Dtype, Gemma2Config, Head, LlamaConfig, ModelConfig};

use crate::attention::Heads;

/// A published model by its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// A policy and a reward model that a laptop runs in seconds
    Tiny,
    #[value(name = "gemma-2-2b")]
    Gemma2_2b,
    #[value(name = "gemma-2-9b")]
    Gemma2_9b,
    #[value(name = "armorm-llama3-8b")]
    ArmoRmLlama3_8b,
}

/// How much there is to do.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Of an optimiser step.
    pub n_pairs: usize,
    pub micro_batch_pairs: usize,
    /// Tokens of each of the two rows of a pair, and of the prompt they begin with.
    pub row_tokens: usize,
    pub row_prompt_tokens: usize,
    /// Answers sampled at one time.
    pub batches: [usize; 3],
    pub prompt_tokens: usize,
    pub new_tokens: usize,
    pub n_conversations: usize,
    pub conversation_tokens: usize,
    /// Sequences of one length that attention alone is measured with, and the length: a micro-batch, and long ones.
    pub attention: [(usize, usize); 2],
    /// Rows and columns of the matrices of the product that is the ceiling of products.
    pub matmul_size: usize,
    pub copy_bytes: usize,
}

impl Shape {
    /// As the command line has it.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// The model that is trained and sampled from.
    pub fn policy(self) -> Option<Config> {
        match self {
            Self::Tiny => Some(causal(gemma2(Gemma2Sizes {
                vocabulary: 4096,
                hidden: 128,
                n_layers: 4,
                n_heads: 4,
                n_kv_heads: 2,
                head_dim: 32,
                feed_forward: 512,
            }))),
            Self::Gemma2_2b => Some(causal(gemma2(Gemma2Sizes {
                vocabulary: 256_000,
                hidden: 2304,
                n_layers: 26,
                n_heads: 8,
                n_kv_heads: 4,
                head_dim: 256,
                feed_forward: 9216,
            }))),
            Self::Gemma2_9b => Some(causal(gemma2(Gemma2Sizes {
                vocabulary: 256_000,
                hidden: 3584,
                n_layers: 42,
                n_heads: 16,
                n_kv_heads: 8,
                head_dim: 256,
                feed_forward: 14_336,
            }))),
            Self::ArmoRmLlama3_8b => None,
        }
    }

    /// The model that scores.
    pub fn reward(self) -> Option<Config> {
        let llama = |vocab_size, hidden_size, n_layers, n_heads, intermediate_size| LlamaConfig {
            vocab_size,
            hidden_size,
            n_layers,
            n_heads,
            n_kv_heads: n_heads / 4,
            head_dim: hidden_size / n_heads,
            intermediate_size,
            rope_theta: 500_000.0,
            rope_scaling: None,
            rms_norm_eps: 1e-5,
            tie_word_embeddings: false,
            max_position_embeddings: 8192,
        };
        match self {
            Self::Tiny => Some(armorm(llama(4096, 128, 4, 4, 512), 64)),
            // 128,256 tokens of Llama 3, one to pad with, and rows to the next multiple of eight.
            Self::ArmoRmLlama3_8b => Some(armorm(llama(128_264, 4096, 32, 32, 14_336), 1024)),
            Self::Gemma2_2b | Self::Gemma2_9b => None,
        }
    }

    /// The heads of a layer, of a layer with a window where there are both.
    pub fn heads(self) -> Option<Heads> {
        match self.policy().or_else(|| self.reward())?.model {
            ModelConfig::Gemma2(config) => Some(Heads {
                n_heads: config.n_heads,
                n_kv_heads: config.n_kv_heads,
                head_dim: config.head_dim,
                softcap: config.attn_softcap.map(|cap| cap as f32),
                window: Some(config.sliding_window),
            }),
            ModelConfig::Llama(config) => Some(Heads {
                n_heads: config.n_heads,
                n_kv_heads: config.n_kv_heads,
                head_dim: config.head_dim,
                softcap: None,
                window: None,
            }),
        }
    }

    /// What it is given to do: of the published recipe, pairs of two rows of 700 tokens.
    pub fn load(self) -> Load {
        match self {
            Self::Tiny => Load {
                n_pairs: 8,
                micro_batch_pairs: 4,
                row_tokens: 128,
                row_prompt_tokens: 32,
                batches: [4, 8, 16],
                prompt_tokens: 32,
                new_tokens: 32,
                n_conversations: 16,
                conversation_tokens: 128,
                attention: [(4, 128), (1, 256)],
                matmul_size: 512,
                copy_bytes: 64 << 20,
            },
            Self::Gemma2_2b | Self::Gemma2_9b | Self::ArmoRmLlama3_8b => Load {
                n_pairs: 16,
                micro_batch_pairs: 2,
                row_tokens: 700,
                row_prompt_tokens: 200,
                batches: [64, 256, 512],
                prompt_tokens: 128,
                new_tokens: 128,
                n_conversations: 16,
                conversation_tokens: 1024,
                attention: [(4, 700), (2, 8192)],
                matmul_size: 8192,
                copy_bytes: 4 << 30,
            },
        }
    }
}

struct Gemma2Sizes {
    vocabulary: usize,
    hidden: usize,
    n_layers: usize,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    feed_forward: usize,
}

fn gemma2(sizes: Gemma2Sizes) -> Gemma2Config {
    let Gemma2Sizes { vocabulary, hidden, n_layers, n_heads, n_kv_heads, head_dim, feed_forward } = sizes;
    let layer = |index: usize| if index.is_multiple_of(2) { Attention::Sliding } else { Attention::Global };
    Gemma2Config {
        vocab_size: vocabulary,
        hidden_size: hidden,
        n_layers,
        n_heads,
        n_kv_heads,
        head_dim,
        intermediate_size: feed_forward,
        query_pre_attn_scalar: head_dim as f64,
        attn_softcap: Some(50.0),
        final_softcap: Some(30.0),
        sliding_window: 4096,
        layer_types: (0..n_layers).map(layer).collect(),
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-6,
        tie_word_embeddings: true,
        max_position_embeddings: 8192,
    }
}

fn causal(config: Gemma2Config) -> Config {
    Config {
        model: ModelConfig::Gemma2(config),
        head: Head::CausalLm,
        labels: Vec::new(),
        bos_token_id: Some(2),
        eos_token_ids: vec![1],
        pad_token_id: Some(0),
        dtype: Some(Dtype::Bf16),
    }
}

fn armorm(body: LlamaConfig, gating_hidden_dim: usize) -> Config {
    let head = Head::ArmoRm { num_objectives: 19, gating_hidden_dim, gating_n_hidden: 3, gating_temperature: 10.0 };
    Config {
        model: ModelConfig::Llama(body),
        head,
        labels: (0..19).map(|objective| format!("objective-{objective:02}")).collect(),
        bos_token_id: Some(2),
        eos_token_ids: vec![1],
        pad_token_id: Some(0),
        dtype: Some(Dtype::Bf16),
    }
}

#[cfg(test)]
mod tests {
    use sluice_lm::memory::Sizes;

    use super::*;

    #[test]
    fn the_shapes_have_as_many_parameters_as_the_published_models() {
        let n_parameters = |config: Option<Config>| config.map(|config| Sizes::of(&config).n_parameters);
        assert_eq!(n_parameters(Shape::Gemma2_2b.policy()), Some(2_614_341_888));
        assert_eq!(n_parameters(Shape::Gemma2_9b.policy()), Some(9_241_705_984));
        // Llama 3 has 7,504,924,672 without its output head; eight rows more of the embedding are 32,768, the head is
        // 6,393,748: 19 · 4096 + 19 · 19 + (4096 + 1) · 1024 + 2 · 1025 · 1024 + 1025 · 19 + 1.
        let head = 19 * 4096 + 19 * 19 + 4097 * 1024 + 2 * 1025 * 1024 + 1025 * 19 + 1;
        assert_eq!(n_parameters(Shape::ArmoRmLlama3_8b.reward()), Some(7_504_924_672 + 8 * 4096 + head));
    }
}

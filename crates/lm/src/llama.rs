//! Llama (Touvron et al. 2023; Llama 3: Grattafiori et al. 2024).
//!
//! Owns the model's mathematics and its parameters. Knows nothing of files, tokenizers, training or reward heads: the
//! body serves causal language models and reward models alike.
//!
//! n tokens, d hidden size, f feed-forward size, w vocabulary, m picked rows

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor};

use crate::causal::{CausalLm, KvCache};
use crate::checkpoint::CheckpointError;
use crate::config::LlamaConfig;
use crate::kernel::{Activation, AttentionSpec, CachedSegment, RmsNormSpec, Rope, rms_norm};
use crate::nn::{Context, Mlp, SelfAttention, of_layer};
use crate::packed::Packed;
use crate::params::{ParamMut, Parameters};
use crate::stack::Stack;
use crate::vocabulary::{EMBEDDING, Embedding, HEAD, Table, VocabularyHead};
use crate::weights::Loader;

/// A Llama body with its vocabulary head, where it has one.
#[derive(Clone, Debug)]
pub struct Llama {
    config: Arc<LlamaConfig>,
    embed_tokens: Tensor<2>,
    layers: Vec<Layer>,
    norm: Tensor<1>,
    /// The vocabulary head `[w, d]` where it is not tied to the embedding; absent from a reward model's body.
    lm_head: Option<Tensor<2>>,
}

#[derive(Clone, Debug)]
struct Layer {
    input_layernorm: Tensor<1>,
    attention: SelfAttention,
    post_attention_layernorm: Tensor<1>,
    mlp: Mlp,
}

impl Llama {
    /// Reads a causal language model, each tensor once, in the order of [`Parameters::walk`].
    pub fn load(config: &LlamaConfig, loader: &mut Loader<'_>) -> Result<Self, CheckpointError> {
        let mut model = Self::load_body(config, loader)?;
        if !config.tie_word_embeddings {
            model.lm_head = Some(loader.matrix(HEAD, [config.vocab_size, config.hidden_size])?);
        }
        Ok(model)
    }

    /// Reads a body without a vocabulary head of its own, as reward models have it.
    pub fn load_body(config: &LlamaConfig, loader: &mut Loader<'_>) -> Result<Self, CheckpointError> {
        let (d, f, w) = (config.hidden_size, config.intermediate_size, config.vocab_size);
        let frequencies: Vec<f32> = config.inverse_frequencies().iter().map(|f| *f as f32).collect();
        let rope = Arc::new(Rope::new(&frequencies, config.max_position_embeddings));
        let spec = Arc::new(attention_spec(config, rope));
        let embed_tokens = loader.matrix(EMBEDDING, [w, d])?;
        let mut layers = Vec::with_capacity(config.n_layers);
        for i in 0..config.n_layers {
            layers.push(Layer {
                input_layernorm: loader.vector(&of_layer(i, "input_layernorm"), d)?,
                attention: SelfAttention::load(i, d, spec.clone(), loader)?,
                post_attention_layernorm: loader.vector(&of_layer(i, "post_attention_layernorm"), d)?,
                mlp: Mlp::load(i, [d, f], Activation::Silu, loader)?,
            });
        }
        let norm = loader.vector("model.norm.weight", d)?;
        Ok(Self { config: Arc::new(config.clone()), embed_tokens, layers, norm, lm_head: None })
    }

    /// The sizes and rules of this model.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    fn norm_spec(&self) -> RmsNormSpec {
        RmsNormSpec { epsilon: self.config.rms_norm_eps as f32, offset: 0.0 }
    }

    fn embedding_table(&self) -> Table<'_> {
        Table { name: EMBEDDING, weight_wd: &self.embed_tokens }
    }
}

fn attention_spec(config: &LlamaConfig, rope: Arc<Rope>) -> AttentionSpec {
    AttentionSpec {
        n_heads: config.n_heads,
        n_kv_heads: config.n_kv_heads,
        head_dim: config.head_dim,
        scale: (config.head_dim as f64).powf(-0.5) as f32,
        softcap: None,
        window: None,
        rope,
    }
}

impl Layer {
    fn forward(&self, x_nd: Tensor<2>, i: usize, norm: RmsNormSpec, context: &mut Context<'_>) -> Tensor<2> {
        let h_nd = rms_norm(x_nd.clone(), &self.input_layernorm, norm);
        let x_nd = x_nd + self.attention.forward(h_nd, i, context);
        let h_nd = rms_norm(x_nd.clone(), &self.post_attention_layernorm, norm);
        x_nd + self.mlp.forward(h_nd)
    }
}

impl Parameters for Llama {
    fn walk(&mut self, visit: &mut dyn FnMut(&str, ParamMut<'_>)) {
        visit(EMBEDDING, ParamMut::Matrix(&mut self.embed_tokens));
        for (i, layer) in self.layers.iter_mut().enumerate() {
            let Layer { input_layernorm, attention, post_attention_layernorm, mlp } = layer;
            visit(&of_layer(i, "input_layernorm"), ParamMut::Vector(input_layernorm));
            attention.walk(i, visit);
            visit(&of_layer(i, "post_attention_layernorm"), ParamMut::Vector(post_attention_layernorm));
            mlp.walk(i, visit);
        }
        visit("model.norm.weight", ParamMut::Vector(&mut self.norm));
        if let Some(lm_head) = &mut self.lm_head {
            visit(HEAD, ParamMut::Matrix(lm_head));
        }
    }
}

impl Stack for Llama {
    fn n_blocks(&self) -> usize {
        self.layers.len()
    }

    fn embedding(&self) -> Embedding<'_> {
        Embedding { table: self.embedding_table(), factor: None }
    }

    fn vocabulary_head(&self) -> VocabularyHead<'_> {
        let own = self.lm_head.as_ref().map(|weight_wd| Table { name: HEAD, weight_wd });
        VocabularyHead { table: own.unwrap_or(self.embedding_table()), softcap: None }
    }

    fn block(&self, i: usize, x_nd: Tensor<2>, batch: &Packed) -> Tensor<2> {
        self.layers[i].forward(x_nd, i, self.norm_spec(), &mut Context::Packed(batch.segments()))
    }

    fn normed(&self, x_nd: Tensor<2>) -> Tensor<2> {
        rms_norm(x_nd, &self.norm, self.norm_spec())
    }
}

impl CausalLm for Llama {
    fn hidden_cached(&self, ids_n: Tensor<1, Int>, segments: &Arc<[CachedSegment]>, cache: &mut KvCache) -> Tensor<2> {
        let mut context = Context::Cached(segments, &mut cache.layers);
        let layers = self.layers.iter().enumerate();
        self.normed(
            layers
                .fold(self.embedding().of(ids_n), |x, (i, layer)| layer.forward(x, i, self.norm_spec(), &mut context)),
        )
    }

    fn new_cache(&self, n_slots: usize, capacity: usize) -> KvCache {
        let specs = self.layers.iter().map(|layer| &*layer.attention.spec);
        KvCache::new(specs, self.vocabulary_head().table.weight_wd.clone(), n_slots, capacity)
    }

    fn device(&self) -> Device {
        self.norm.device()
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn max_positions(&self) -> usize {
        self.config.max_position_embeddings
    }
}

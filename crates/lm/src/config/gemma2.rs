//! The Gemma-2 body: its fields, the Python library's defaults for them, and what is refused.

use serde_json::{Map, Value, json};

use super::fields::Fields;

/// Sizes and rules of a Gemma-2 body.
#[derive(Clone, Debug, PartialEq)]
pub struct Gemma2Config {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub n_layers: usize,
    pub n_heads: usize,
    /// Divides `n_heads`.
    pub n_kv_heads: usize,
    /// Even; independent of `hidden_size / n_heads`.
    pub head_dim: usize,
    pub intermediate_size: usize,
    /// Attention scores are multiplied by this to the power -1/2, not by `head_dim` to it.
    pub query_pre_attn_scalar: f64,
    /// Attention scores become `c * tanh(x / c)` before the mask.
    pub attn_softcap: Option<f64>,
    /// Logits become `c * tanh(x / c)`.
    pub final_softcap: Option<f64>,
    /// Keys a sliding layer's query sees, itself included.
    pub sliding_window: usize,
    /// One entry per layer.
    pub layer_types: Vec<Attention>,
    pub rope_theta: f64,
    pub rms_norm_eps: f64,
    /// The output head is the embedding.
    pub tie_word_embeddings: bool,
    pub max_position_embeddings: usize,
}

/// How far back a layer looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    /// Over the last `sliding_window` tokens.
    Sliding,
    /// Over the whole row.
    Global,
}

impl Gemma2Config {
    /// Rotation per position of each pair of a head's values, radians; `[head_dim / 2]`.
    pub fn inverse_frequencies(&self) -> Vec<f64> {
        super::inverse_frequencies(self.rope_theta, self.head_dim)
    }

    pub(super) fn write(&self, map: &mut Map<String, Value>) {
        let Self {
            vocab_size,
            hidden_size,
            n_layers,
            n_heads,
            n_kv_heads,
            head_dim,
            intermediate_size,
            query_pre_attn_scalar,
            attn_softcap,
            final_softcap,
            sliding_window,
            layer_types,
            rope_theta,
            rms_norm_eps,
            tie_word_embeddings,
            max_position_embeddings,
        } = self;
        let fields = [
            ("model_type", json!("gemma2")),
            ("attention_bias", json!(false)),
            ("attention_dropout", json!(0.0)),
            ("attn_logit_softcapping", json!(attn_softcap)),
            ("final_logit_softcapping", json!(final_softcap)),
            ("head_dim", json!(head_dim)),
            ("hidden_act", json!("gelu_pytorch_tanh")),
            ("hidden_activation", json!("gelu_pytorch_tanh")),
            ("hidden_size", json!(hidden_size)),
            ("intermediate_size", json!(intermediate_size)),
            ("layer_types", layer_types.iter().map(|layer| layer.name()).collect()),
            ("max_position_embeddings", json!(max_position_embeddings)),
            ("num_attention_heads", json!(n_heads)),
            ("num_hidden_layers", json!(n_layers)),
            ("num_key_value_heads", json!(n_kv_heads)),
            ("query_pre_attn_scalar", whole(*query_pre_attn_scalar)),
            ("rms_norm_eps", json!(rms_norm_eps)),
            ("rope_theta", json!(rope_theta)),
            ("sliding_window", json!(sliding_window)),
            ("tie_word_embeddings", json!(tie_word_embeddings)),
            ("vocab_size", json!(vocab_size)),
        ];
        map.extend(fields.map(|(name, value)| (name.to_owned(), value)));
    }
}

impl Attention {
    fn name(self) -> &'static str {
        match self {
            Attention::Sliding => "sliding_attention",
            Attention::Global => "full_attention",
        }
    }
}

/// The Python class takes a whole number here; other values keep their fraction.
fn whole(x: f64) -> Value {
    if x.fract() == 0.0 { json!(x as u64) } else { json!(x) }
}

pub(super) fn read(fields: &mut Fields) -> Gemma2Config {
    // `hidden_act` is an old name that the Python class stores and never reads; `sliding_window_size` likewise.
    fields.take("hidden_act");
    fields.take("sliding_window_size");
    fields.must_be("hidden_activation", &json!("gelu_pytorch_tanh"));
    fields.must_be("use_bidirectional_attention", &json!(false));
    let n_layers = fields.layers();
    let config = Gemma2Config {
        vocab_size: fields.count("vocab_size"),
        hidden_size: fields.count("hidden_size"),
        n_layers,
        n_heads: fields.count("num_attention_heads"),
        n_kv_heads: fields.count("num_key_value_heads"),
        head_dim: fields.count_or("head_dim", 256),
        intermediate_size: fields.count("intermediate_size"),
        query_pre_attn_scalar: fields.number_or("query_pre_attn_scalar", 256.0),
        attn_softcap: fields.optional_number("attn_logit_softcapping", 50.0),
        final_softcap: fields.optional_number("final_logit_softcapping", 30.0),
        sliding_window: fields.count_or("sliding_window", 4096),
        layer_types: read_layer_types(fields, n_layers),
        rope_theta: read_rope(fields),
        rms_norm_eps: fields.number_or("rms_norm_eps", 1e-6),
        tie_word_embeddings: fields.flag_or("tie_word_embeddings", true),
        max_position_embeddings: fields.count_or("max_position_embeddings", 8192),
    };
    super::llama::check_heads(fields, config.n_heads, config.n_kv_heads, config.head_dim);
    if config.query_pre_attn_scalar == 224.0 && config.head_dim == 256 {
        fields.warn(
            "query_pre_attn_scalar",
            "is 224, as early copies of gemma-2-9b say by mistake; the publisher corrected it to 256".into(),
        );
    }
    config
}

fn read_rope(fields: &mut Fields) -> f64 {
    let (theta, scaling) = super::llama::read_rope(fields, 10_000.0);
    if scaling.is_some() {
        fields.fault("rope_parameters", "scales frequencies; for gemma2 only the default is computed".into());
    }
    theta
}

/// Without a list the even layers slide and the odd ones are global.
fn read_layer_types(fields: &mut Fields, n_layers: usize) -> Vec<Attention> {
    let alternating = |i| {
        if i % 2 == 0 { Attention::Sliding } else { Attention::Global }
    };
    let default = || (0..n_layers).map(alternating).collect();
    let Some(value) = fields.take("layer_types") else {
        return default();
    };
    let read = |name: &Value| match name.as_str() {
        Some("sliding_attention") => Some(Attention::Sliding),
        Some("full_attention") => Some(Attention::Global),
        _ => None,
    };
    let layers: Option<Vec<Attention>> =
        value.as_array().filter(|names| names.len() == n_layers).and_then(|names| names.iter().map(read).collect());
    layers.unwrap_or_else(|| {
        let wanted = format!("{n_layers} entries, each sliding_attention or full_attention, are needed");
        fields.fault("layer_types", format!("does not fit `num_hidden_layers`; {wanted}"));
        default()
    })
}

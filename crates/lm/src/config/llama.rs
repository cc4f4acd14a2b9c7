//! The Llama body: its fields, the Python library's defaults for them, and what is refused. Also the rotary fields in
//! both spellings, which other bodies share.

use serde_json::{Map, Value, json};

use super::fields::Fields;

/// Sizes and rules of a Llama body.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub n_layers: usize,
    pub n_heads: usize,
    /// Divides `n_heads`.
    pub n_kv_heads: usize,
    /// Even; `hidden_size / n_heads` unless the file says otherwise.
    pub head_dim: usize,
    pub intermediate_size: usize,
    pub rope_theta: f64,
    pub rope_scaling: Option<RopeScaling>,
    pub rms_norm_eps: f64,
    /// The output head is the embedding.
    pub tie_word_embeddings: bool,
    pub max_position_embeddings: usize,
}

/// How rotary frequencies are stretched past the lengths of pre-training (the `llama3` rule).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeScaling {
    /// Wavelengths over `original_max_position_embeddings / low_freq_factor` become this many times longer.
    pub factor: f64,
    pub low_freq_factor: f64,
    /// Wavelengths under `original_max_position_embeddings / high_freq_factor` stay; between the two a line joins.
    pub high_freq_factor: f64,
    /// Tokens.
    pub original_max_position_embeddings: usize,
}

impl LlamaConfig {
    /// Rotation per position of each pair of a head's values, radians; `[head_dim / 2]`.
    pub fn inverse_frequencies(&self) -> Vec<f64> {
        let mut frequencies = super::inverse_frequencies(self.rope_theta, self.head_dim);
        if let Some(scaling) = self.rope_scaling {
            frequencies.iter_mut().for_each(|f| *f = scaling.stretch(*f));
        }
        frequencies
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
            rope_theta,
            rope_scaling,
            rms_norm_eps,
            tie_word_embeddings,
            max_position_embeddings,
        } = self;
        let fields = [
            ("model_type", json!("llama")),
            ("attention_bias", json!(false)),
            ("attention_dropout", json!(0.0)),
            ("head_dim", json!(head_dim)),
            ("hidden_act", json!("silu")),
            ("hidden_size", json!(hidden_size)),
            ("intermediate_size", json!(intermediate_size)),
            ("max_position_embeddings", json!(max_position_embeddings)),
            ("mlp_bias", json!(false)),
            ("num_attention_heads", json!(n_heads)),
            ("num_hidden_layers", json!(n_layers)),
            ("num_key_value_heads", json!(n_kv_heads)),
            ("rms_norm_eps", json!(rms_norm_eps)),
            ("rope_scaling", rope_scaling.map_or(Value::Null, RopeScaling::to_json)),
            ("rope_theta", json!(rope_theta)),
            ("tie_word_embeddings", json!(tie_word_embeddings)),
            ("vocab_size", json!(vocab_size)),
        ];
        map.extend(fields.map(|(name, value)| (name.to_owned(), value)));
    }
}

impl RopeScaling {
    /// With wavelength `w = 2π/f` and context `n`: `f` where `w < n/high`, `f/factor` where `w > n/low`, and between
    /// them `(1 - s) f/factor + s f` with `s = (n/w - low) / (high - low)`. Source: the Llama 3.1 release.
    fn stretch(self, frequency: f64) -> f64 {
        let turns = self.original_max_position_embeddings as f64 * frequency / std::f64::consts::TAU;
        if turns > self.high_freq_factor {
            return frequency;
        }
        if turns < self.low_freq_factor {
            return frequency / self.factor;
        }
        let smooth = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor);
        (1.0 - smooth) * frequency / self.factor + smooth * frequency
    }

    fn to_json(self) -> Value {
        json!({
            "rope_type": "llama3",
            "factor": self.factor,
            "low_freq_factor": self.low_freq_factor,
            "high_freq_factor": self.high_freq_factor,
            "original_max_position_embeddings": self.original_max_position_embeddings,
        })
    }
}

pub(super) fn read(fields: &mut Fields) -> LlamaConfig {
    fields.must_be("hidden_act", &json!("silu"));
    fields.must_be("mlp_bias", &json!(false));
    let n_heads = fields.count("num_attention_heads");
    let hidden_size = fields.count("hidden_size");
    let (rope_theta, rope_scaling) = read_rope(fields, 10_000.0);
    let config = LlamaConfig {
        vocab_size: fields.count("vocab_size"),
        hidden_size,
        n_layers: fields.layers(),
        n_heads,
        n_kv_heads: fields.count_or("num_key_value_heads", n_heads),
        head_dim: fields.count_or("head_dim", hidden_size / n_heads),
        intermediate_size: fields.count("intermediate_size"),
        rope_theta,
        rope_scaling,
        rms_norm_eps: fields.number_or("rms_norm_eps", 1e-6),
        tie_word_embeddings: fields.flag_or("tie_word_embeddings", false),
        max_position_embeddings: fields.count_or("max_position_embeddings", 2048),
    };
    check_heads(fields, config.n_heads, config.n_kv_heads, config.head_dim);
    config
}

/// Query heads share key heads in equal groups, and rotary embedding turns pairs of values.
pub(super) fn check_heads(fields: &mut Fields, n_heads: usize, n_kv_heads: usize, head_dim: usize) {
    if !n_heads.is_multiple_of(n_kv_heads) {
        fields.fault("num_key_value_heads", format!("is {n_kv_heads}; a divisor of the {n_heads} heads is needed"));
    }
    if head_dim == 0 || !head_dim.is_multiple_of(2) {
        fields.fault("head_dim", format!("is {head_dim}; a positive even number is needed"));
    }
}

/// `rope_theta` with `rope_scaling` (older files) or `rope_parameters` with everything inside (newer ones).
pub(super) fn read_rope(fields: &mut Fields, default_theta: f64) -> (f64, Option<RopeScaling>) {
    let mut theta = fields.number_or("rope_theta", default_theta);
    fields.must_be("partial_rotary_factor", &json!(1.0));
    let old = fields.take("rope_scaling").map(|value| ("rope_scaling", value));
    let new = fields.take("rope_parameters").map(|value| ("rope_parameters", value));
    let Some((field, value)) = new.or(old) else {
        return (theta, None);
    };
    let Value::Object(mut map) = value else {
        fields.fault(field, format!("is {value}; a map is needed"));
        return (theta, None);
    };
    if let Some(value) = map.shift_remove("rope_theta") {
        theta = fields.as_number(&format!("{field}.rope_theta"), &value);
    }
    let rope_type = map.shift_remove("rope_type").or(map.shift_remove("type"));
    map.shift_remove("type");
    let scaling = match rope_type.as_ref().map(|name| name.as_str()) {
        None | Some(Some("default")) => None,
        Some(Some("llama3")) => Some(read_llama3(fields, field, &mut map)),
        Some(_) => {
            let found = rope_type.unwrap_or_default();
            fields.fault(field, format!("has the rope_type {found}; default and llama3 are computed"));
            return (theta, None);
        }
    };
    if let Some(partial) = map.shift_remove("partial_rotary_factor").filter(|v| v.as_f64() != Some(1.0)) {
        fields.fault(field, format!("has partial_rotary_factor {partial}; only 1 is computed"));
    }
    for (name, _) in map.iter().filter(|(_, value)| !value.is_null()) {
        fields.fault(field, format!("has `{name}`, which is not computed"));
    }
    (theta, scaling)
}

fn read_llama3(fields: &mut Fields, field: &str, map: &mut Map<String, Value>) -> RopeScaling {
    let mut number = |name: &str| {
        let value = map.shift_remove(name).unwrap_or_default();
        fields.as_number(&format!("{field}.{name}"), &value)
    };
    let scaling = RopeScaling {
        factor: number("factor"),
        low_freq_factor: number("low_freq_factor"),
        high_freq_factor: number("high_freq_factor"),
        original_max_position_embeddings: number("original_max_position_embeddings") as usize,
    };
    if scaling.high_freq_factor <= scaling.low_freq_factor {
        fields.fault(field, "needs a high_freq_factor above its low_freq_factor".into());
    }
    scaling
}

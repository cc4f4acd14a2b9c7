//! Every kind written out: its keys, the least of them, another spelling, and another value for each leaf.

/// What the stages under test read. None of these reads the models of theirs.
pub const AROUND: &str = "\
version: 1
models: { policy: models/policy, reward: models/reward, actor: models/actor, other: models/other, critic: models/critic }
stages:
  prompts: { ingest: { from: a.jsonl } }
  demos: { ingest: { from: demos.jsonl, map: { response: response, label: label }, keep: [short, other] } }
  responses: { sample: { prompts: prompts, model: policy } }
  scores: { score: { responses: responses, model: reward } }
  pairs: { pair: { scores: scores } }
  tuned: { train: { rows: demos, model: policy, objective: { sft: {} }, learning_rate: 1.0e-6 } }
";

/// How each stage of [`AROUND`] comes to make something else.
pub const TWEAKS: [(&str, &str, &str); 6] = [
    ("prompts", "from: a.jsonl", "from: a.jsonl, limit: 9"),
    ("demos", "from: demos.jsonl", "from: demos.jsonl, limit: 9"),
    ("responses", "model: policy }", "model: policy, n: 9 }"),
    ("scores", "model: reward", "model: reward, head_dtype: bf16"),
    ("pairs", "scores: scores", "scores: scores, min_margin: 9"),
    ("tuned", "learning_rate: 1.0e-6", "learning_rate: 9.0e-6"),
];

/// A kind written out, and what to put in the place of each leaf's value.
pub struct Form {
    /// Every key, with its default where it has one.
    pub full: &'static str,
    /// Only the keys that must be there.
    pub short: &'static str,
    /// The same as `full` in another order, other spellings of numbers and texts, and other keys that are a matter of speed.
    pub respelt: &'static str,
    pub flips: &'static [(&'static str, &'static str)],
}

pub const INGEST: Form = Form {
    full: "{ ingest: { from: [rows/*.jsonl], heldout_from: [held.csv], format: null, keep: [], where: null, dedup: true,
             limit: null, map: { prompt: prompt, reference: null, group: null, response: null, label: null },
             split: { column: null, heldout: 0.05, seed: 0 } } }",
    short: "{ ingest: { from: rows/*.jsonl, heldout_from: held.csv } }",
    respelt: "{ ingest: { split: { seed: 0x0, heldout: 5e-2, column: ~ }, limit: ~, dedup: True, where: , keep: [], heldout_from: held.csv,
                map: { label: null, response: , group: ~, reference: null, prompt: 'prompt' }, format: null, from: [\"rows/*.jsonl\"] } }",
    flips: &[
        ("format", "csv"),
        ("map.prompt", "question"),
        ("map.reference", "answer"),
        ("map.group", "family"),
        ("map.response", "said"),
        ("map.label", "right"),
        ("keep", "[level]"),
        ("where", "level > 2"),
        ("dedup", "false"),
        ("limit", "100"),
        ("split.column", "part"),
        ("split.heldout", "0.1"),
        ("split.seed", "1"),
    ],
};

pub const SAMPLE: Form = Form {
    full: "{ sample: { prompts: prompts, model: actor, split: train, limit: null, n: 1, temperature: 1.0, top_k: null,
             top_p: null, min_p: null, max_new_tokens: 256, stop: [], bos: single, seed: 0, max_batch: 64 } }",
    short: "{ sample: { prompts: prompts, model: actor } }",
    respelt: "{ sample: { max_batch: 7, bos: 'single', seed: 0x0, stop: [], max_new_tokens: 0x100, min_p: ~, top_p: , top_k: null,
                temperature: 1, n: +1, limit: ~, split: \"train\", model: actor, prompts: prompts } }",
    flips: &[
        ("split", "all"),
        ("limit", "600"),
        ("n", "5"),
        ("temperature", "0.8"),
        ("top_k", "40"),
        ("top_p", "0.95"),
        ("min_p", "0.05"),
        ("max_new_tokens", "48"),
        ("stop", "['</s>']"),
        ("bos", "double"),
        ("seed", "42"),
    ],
};

pub const SCORE: Form = Form {
    full: "{ score: { responses: responses, model: critic, head_dtype: f32, max_batch_tokens: 8192 } }",
    short: "{ score: { responses: responses, model: critic } }",
    respelt: "{ score: { max_batch_tokens: 1, head_dtype: 'f32', model: critic, responses: responses } }",
    flips: &[("head_dtype", "bf16")],
};

pub const PAIR: Form = Form {
    full: "{ pair: { scores: scores, choose: best_worst, ties: drop, identical: drop, min_margin: 0.0 } }",
    short: "{ pair: { scores: scores } }",
    respelt: "{ pair: { min_margin: -0.0, identical: 'drop', ties: \"drop\", choose: best_worst, scores: scores } }",
    // `choose` has one word so far: there is nothing else to write.
    flips: &[("choose", ONLY_WORD), ("ties", "first"), ("identical", "keep"), ("min_margin", "0.5")],
};

pub const EVALUATE: Form = Form {
    full: "{ evaluate: { prompts: prompts, candidate: tuned, baseline: actor, judge: critic, split: heldout, limit: null, n: 1,
             temperature: 0.8, top_p: 0.95, greedy: true, max_new_tokens: 256, seed: 0, check: exact, confidence: 0.95,
             resamples: 1000, max_batch: 64 } }",
    short: "{ evaluate: { prompts: prompts, candidate: tuned, baseline: actor, judge: critic } }",
    respelt: "{ evaluate: { max_batch: 1, resamples: 0x3e8, confidence: .95, check: exact, seed: 0, max_new_tokens: 256, greedy: True,
                top_p: 9.5e-1, temperature: 8e-1, n: 1, limit: null, split: heldout, judge: critic, baseline: actor,
                candidate: tuned, prompts: prompts } }",
    flips: &[
        ("split", "all"),
        ("limit", "10"),
        ("n", "2"),
        ("temperature", "0.7"),
        ("top_p", "0.9"),
        ("greedy", "false"),
        ("max_new_tokens", "48"),
        ("seed", "1"),
        ("check", "number"),
        ("confidence", "0.9"),
        ("resamples", "100"),
    ],
};

pub const SQL: Form = Form {
    full: "{ sql: { from: [pairs.dropped, demos], query: select 1 } }",
    short: "{ sql: { from: [pairs.dropped, demos], query: select 1 } }",
    respelt: "{ sql: { query: 'select 1', from: [\"pairs.dropped\", demos] } }",
    flips: &[("query", "select 2")],
};

pub const TRAIN: Form = Form {
    full: "{ train: { pairs: pairs, model: actor, objective: { simpo: { beta: 10, gamma_beta_ratio: 0.5, loss: sigmoid,
             label_smoothing: 0.0, sft_weight: 0.0 } }, off_policy: deny, learning_rate: 8.0e-7, schedule: cosine,
             warmup_ratio: 0.1, weight_decay: 0.0, betas: [0.9, 0.999], eps: 1.0e-8, max_grad_norm: 1.0, epochs: 1,
             max_steps: null, batch_size: 128, micro_batch_tokens: 4096, max_length: 2048, max_prompt_length: 1800,
             truncation: budget, prompt_keep: end, response_header: prompt, seed: 42 } }",
    short: "{ train: { pairs: pairs, model: actor, objective: { simpo: { beta: 10, gamma_beta_ratio: 0.5 } },
              learning_rate: 8.0e-7 } }",
    respelt:
        "{ train: { seed: 42, response_header: prompt, prompt_keep: 'end', truncation: budget, max_prompt_length: 1800,
                max_length: 0x800, micro_batch_tokens: 4096, batch_size: 128, max_steps: ~, epochs: 1, max_grad_norm: 1,
                eps: 1e-8, betas: [9e-1, .999], weight_decay: 0, warmup_ratio: 0.10, schedule: cosine, off_policy: deny,
                learning_rate: 0.0000008, objective: { simpo: { sft_weight: 0, label_smoothing: -0.0, loss: sigmoid,
                gamma_beta_ratio: 5e-1, beta: 10.0 } }, model: actor, pairs: pairs } }",
    flips: &[
        ("model.init", "{ init: shapes/small }"),
        ("objective", "{ dpo: {} }"),
        ("objective.simpo.beta", "2.5"),
        ("objective.simpo.gamma_beta_ratio", "0.3"),
        ("objective.simpo.loss", "hinge"),
        ("objective.simpo.label_smoothing", "0.1"),
        ("objective.simpo.sft_weight", "0.2"),
        ("off_policy", "allow"),
        ("learning_rate", "1.0e-6"),
        ("schedule", "linear"),
        ("warmup_ratio", "0.2"),
        ("weight_decay", "0.01"),
        ("betas", "[0.9, 0.95]"),
        ("eps", "1.0e-6"),
        ("max_grad_norm", "2.0"),
        ("epochs", "2"),
        ("max_steps", "100"),
        ("batch_size", "64"),
        ("micro_batch_tokens", "2048"),
        ("max_length", "4096"),
        ("max_prompt_length", "900"),
        ("truncation", "reference"),
        ("prompt_keep", "start"),
        ("response_header", "response"),
        ("seed", "1"),
    ],
};

/// The name of an objective, its keys in full, and another value for each.
pub type ObjectiveForm = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// The other objectives.
pub const OBJECTIVES: [ObjectiveForm; 10] = [
    (
        "dpo",
        "beta: 0.1, loss: sigmoid, label_smoothing: 0.0",
        &[("beta", "0.2"), ("loss", "robust"), ("label_smoothing", "0.1")],
    ),
    ("ipo", "beta: 0.1, log_probs: sum", &[("beta", "0.2"), ("log_probs", "mean")]),
    (
        "cpo",
        "beta: 0.1, cpo_alpha: 1.0, loss: sigmoid, label_smoothing: 0.0",
        &[("beta", "0.2"), ("cpo_alpha", "0.5"), ("loss", "hinge"), ("label_smoothing", "0.1")],
    ),
    (
        "kto",
        "beta: 0.1, desirable_weight: 1.0, undesirable_weight: 1.0",
        &[("beta", "0.2"), ("desirable_weight", "2.0"), ("undesirable_weight", "3.0")],
    ),
    ("orpo", "lambda: 0.1", &[("lambda", "0.2")]),
    ("slic_hf", "delta: 1.0, lambda: 0.1", &[("delta", "2.0"), ("lambda", "0.2")]),
    ("rrhf", "lambda: 1.0", &[("lambda", "0.5")]),
    ("r_dpo", "beta: 0.1, alpha: 0.05", &[("beta", "0.2"), ("alpha", "0.1")]),
    (
        "reward",
        "objectives: [right], correctness_weight: 1.0, objectives_weight: 1.0, lm_weight: 0.5, preference_weight: 1.0, \
         grow_layers: 0",
        &[
            ("objectives", "[right, short]"),
            ("correctness_weight", "2.0"),
            ("objectives_weight", "2.0"),
            ("lm_weight", "0.0"),
            ("preference_weight", "2.0"),
            ("grow_layers", "1"),
        ],
    ),
    ("sft", "", &[]),
];

/// Stands for another value where a parameter has only one so far.
pub const ONLY_WORD: &str = "";

pub const FORMS: [Form; 7] = [INGEST, SAMPLE, SCORE, PAIR, TRAIN, EVALUATE, SQL];

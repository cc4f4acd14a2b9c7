//! `train`: pairs or rows and a starting model in, a checkpoint and its `steps` table out.
//! Owns the parameters and what enters the key; refuses to know how a step is computed.

pub mod objective;

use crate::choice::choice;
use crate::leaf::{LeafSink, LeafValue, emit};
use crate::names::{Product, TableKind};
use crate::number::{Count, Fraction, NonNegative, Positive, ProperFraction, Seed};
use crate::reader::{Fields, Read, Reader};
use crate::span::Located;
use crate::stage::{Better, Expects, Input, ModelRef, Source, TableRef};
use crate::tree::{Node, Value};

pub use objective::Objective;

/// Raised when equal inputs and parameters would give another checkpoint.
pub const VERSION: u32 = 3;
pub const PRODUCTS: &[Product] = &[Product::Checkpoint, Product::Table(TableKind::Steps)];

/// Which way a figure of the last steps is better. Losses and margins of different objectives, or of one with different
/// scales, are not measured alike, so neither says which training went better.
pub(crate) fn better(metric: &str) -> Option<Better> {
    (metric == "accuracy_last").then_some(Better::Higher)
}

/// What is trained, on what, towards what and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Train {
    pub examples: Examples,
    pub model: Located<Start>,
    pub objective: Located<Objective>,
    /// Whether pairs may come from another model than the one that is trained.
    pub off_policy: Located<OffPolicy>,
    pub optimiser: Optimiser,
    pub passes: Passes,
    pub tokens: Tokens,
    /// Not in the key: it decides what a stop costs, and nothing of the result.
    pub checkpoint: Located<Saving>,
    /// Orders the examples and draws fresh weights.
    pub seed: Located<Seed>,
}

/// The table a step takes its examples from; the objective decides which.
#[derive(Debug, Clone, PartialEq)]
pub enum Examples {
    /// A chosen and a rejected response per prompt.
    Pairs(Located<TableRef>),
    /// Prompts with a demonstrated response, and a label for `reward`.
    Rows(Located<TableRef>),
}

/// The weights training starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    Model(ModelRef),
    /// Random weights, of the shape that the configuration in this folder describes.
    Init(String),
}

choice! {
    /// What to do with pairs of another policy than the one that is trained.
    pub enum OffPolicy {
        Deny = "deny",
        Allow = "allow",
    }

    /// How weights keep what bf16 cannot hold, where a step computes in bf16; in f32 there is nothing to keep.
    pub enum Master {
        /// In f32; a step computes on copies.
        F32 = "f32",
        /// In bf16 and the 16 bits that f32 has more.
        Split = "split",
        /// In bf16 alone, each update rounded up or down by chance.
        Stochastic = "stochastic",
    }

    /// What both moments of AdamW are kept in, where a step computes in bf16; in f32 they are in f32.
    pub enum Moments {
        F32 = "f32",
        /// Half the memory, each update rounded up or down by chance.
        Bf16 = "bf16",
    }

    /// How the learning rate runs after the warm-up.
    pub enum Schedule {
        /// Half a cosine down to 0.
        Cosine = "cosine",
        /// Straight down to 0.
        Linear = "linear",
        Constant = "constant",
    }

    /// How an example that is longer than `max_length` is cut.
    pub enum Truncation {
        /// The response keeps what the prompt leaves over.
        Budget = "budget",
        /// As the published trainer: the response keeps `max_length - max_prompt_length`, however short the prompt.
        Reference = "reference",
    }

    /// Which end of a prompt survives its cut.
    pub enum PromptKeep {
        End = "end",
        Start = "start",
    }

    /// Whose tokens the header of the model's turn are; those of the response are trained and counted.
    pub enum ResponseHeader {
        Prompt = "prompt",
        /// As the published trainer.
        Response = "response",
    }
}

/// When an unfinished training saves itself, so that the next run goes on from there. A stop at the user's wish saves in
/// any case but `Never`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saving {
    /// As often as costs little beside the training itself.
    Auto,
    /// After every so many optimiser steps.
    EverySteps(Count),
    /// For where there is no room: a save holds the weights and both moments.
    Never,
}

/// AdamW and its learning rate.
#[derive(Debug, Clone, PartialEq)]
pub struct Optimiser {
    /// Peak learning rate.
    pub learning_rate: Located<Positive>,
    pub schedule: Located<Schedule>,
    /// Share of the steps over which the rate climbs from 0.
    pub warmup_ratio: Located<Fraction>,
    pub weight_decay: Located<NonNegative>,
    /// Decay of the first and the second moment.
    pub betas: Located<Betas>,
    pub eps: Located<Positive>,
    /// Longer gradients are scaled down to this global norm.
    pub max_grad_norm: Located<Positive>,
    /// In the key where it is not the default, which changes nothing of runs in f32.
    pub master: Located<Master>,
    /// As `master`.
    pub moments: Located<Moments>,
}

/// Decay of AdamW's moments.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Betas {
    pub first: ProperFraction,
    pub second: ProperFraction,
}

/// How long and in what portions.
#[derive(Debug, Clone, PartialEq)]
pub struct Passes {
    pub epochs: Located<Count>,
    /// Stop after this many optimiser steps.
    pub max_steps: Located<Option<Count>>,
    /// Pairs or rows per optimiser step.
    pub batch_size: Located<Count>,
    /// Tokens per forward pass. In the key: the order of summation changes the last digits.
    pub micro_batch_tokens: Located<Count>,
    /// Whether a prompt that chosen and rejected have in common is read once for both. In the key where it is true: the
    /// order of summation changes the last digits.
    pub share_prompt: Located<bool>,
    /// Whether blocks are computed a second time in the backward pass instead of being kept; by the size of the model where
    /// it is left out. Not in the key: the result is the same.
    pub recompute: Located<Option<bool>>,
}

/// How text becomes tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Tokens {
    /// Prompt and response together.
    pub max_length: Located<Count>,
    /// What a prompt is cut to when both do not fit. Default: 225/256 of `max_length`, which is 1800 of 2048.
    pub max_prompt_length: Located<Count>,
    pub truncation: Located<Truncation>,
    pub prompt_keep: Located<PromptKeep>,
    pub response_header: Located<ResponseHeader>,
}

impl Train {
    pub fn leaves(&self, sink: &mut dyn LeafSink) {
        let Train { examples: _, model, objective, off_policy, optimiser, passes, tokens, checkpoint: _, seed } = self;
        // A stored model enters by its digest; that weights are fresh is the stage's own choice.
        let fresh = matches!(model.value, Start::Init(_));
        sink.leaf("model.init", LeafValue::Bool(fresh), model.place);
        sink.leaf("objective", LeafValue::Str(objective.name().to_owned()), objective.place);
        objective.leaves(sink);
        emit(sink, "off_policy", off_policy);
        optimiser.leaves(sink);
        passes.leaves(sink);
        tokens.leaves(sink);
        emit(sink, "seed", seed);
    }

    pub fn inputs(&self) -> Vec<Input> {
        let examples = match &self.examples {
            Examples::Pairs(table) => TableRef::input("pairs", TableKind::Pairs, table),
            Examples::Rows(table) => TableRef::input("rows", TableKind::Prompts, table),
        };
        let model = match &self.model.value {
            Start::Model(model) => ModelRef::input("model", &Located { value: model.clone(), place: self.model.place }),
            Start::Init(folder) => Input {
                role: "model".to_owned(),
                source: Source::Folder(folder.clone()),
                expects: Expects::Config,
                place: self.model.place,
            },
        };
        vec![examples, model]
    }
}

impl Optimiser {
    fn leaves(&self, sink: &mut dyn LeafSink) {
        let Optimiser {
            learning_rate,
            schedule,
            warmup_ratio,
            weight_decay,
            betas,
            eps,
            max_grad_norm,
            master,
            moments,
        } = self;
        emit(sink, "learning_rate", learning_rate);
        emit(sink, "schedule", schedule);
        emit(sink, "warmup_ratio", warmup_ratio);
        emit(sink, "weight_decay", weight_decay);
        let Betas { first, second } = betas.value;
        let both = [first, second].map(|beta| LeafValue::Float(beta.get())).to_vec();
        sink.leaf("betas", LeafValue::List(both), betas.place);
        emit(sink, "eps", eps);
        emit(sink, "max_grad_norm", max_grad_norm);
        if master.value != Master::F32 {
            emit(sink, "master", master);
        }
        if moments.value != Moments::F32 {
            emit(sink, "moments", moments);
        }
    }

    /// `None` when the learning rate, which has no default, is missing.
    fn read_fields(fields: &mut Fields<'_, '_>) -> Option<Self> {
        let learning_rate = fields.required("learning_rate");
        let schedule = fields.or("schedule", Schedule::Cosine);
        let warmup_ratio = fields.or("warmup_ratio", Fraction::preset(0.1));
        let weight_decay = fields.or("weight_decay", NonNegative::preset(0.0));
        let betas = fields.or("betas", Betas::PRESET);
        let eps = fields.or("eps", Positive::preset(1e-8));
        let max_grad_norm = fields.or("max_grad_norm", Positive::preset(1.0));
        let master = fields.or("master", Master::F32);
        let moments = fields.or("moments", Moments::F32);
        let learning_rate = learning_rate?;
        Some(Optimiser {
            learning_rate,
            schedule,
            warmup_ratio,
            weight_decay,
            betas,
            eps,
            max_grad_norm,
            master,
            moments,
        })
    }
}

impl Betas {
    const PRESET: Betas = Betas { first: ProperFraction::preset(0.9), second: ProperFraction::preset(0.999) };
}

impl Read for Betas {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let both = Vec::<ProperFraction>::read(node, reader)?;
        match both.as_slice() {
            [first, second] => Some(Betas { first: *first, second: *second }),
            _ => reader.out_of_range(node, "a list of two numbers, like [0.9, 0.999]"),
        }
    }
}

impl Passes {
    fn leaves(&self, sink: &mut dyn LeafSink) {
        let Passes { epochs, max_steps, batch_size, micro_batch_tokens, share_prompt, recompute: _ } = self;
        emit(sink, "epochs", epochs);
        emit(sink, "max_steps", max_steps);
        emit(sink, "batch_size", batch_size);
        emit(sink, "micro_batch_tokens", micro_batch_tokens);
        if share_prompt.value {
            emit(sink, "share_prompt", share_prompt);
        }
    }

    fn read_fields(fields: &mut Fields<'_, '_>) -> Self {
        Passes {
            epochs: fields.or("epochs", Count::preset(1)),
            max_steps: fields.optional("max_steps"),
            batch_size: fields.or("batch_size", Count::preset(128)),
            micro_batch_tokens: fields.or("micro_batch_tokens", Count::preset(4096)),
            share_prompt: fields.or("share_prompt", false),
            recompute: fields.optional("recompute"),
        }
    }
}

impl Tokens {
    /// What decides the tokens of a text, beside the model's own tokenizer and template.
    pub fn leaves(&self, sink: &mut dyn LeafSink) {
        let Tokens { max_length, max_prompt_length, truncation, prompt_keep, response_header } = self;
        emit(sink, "max_length", max_length);
        emit(sink, "max_prompt_length", max_prompt_length);
        emit(sink, "truncation", truncation);
        emit(sink, "prompt_keep", prompt_keep);
        emit(sink, "response_header", response_header);
    }

    fn read_fields(fields: &mut Fields<'_, '_>) -> Self {
        let max_length = fields.or("max_length", Count::preset(2048));
        let share = (u64::from(max_length.get()) * 225 / 256).max(1);
        let share = Count::preset(u32::try_from(share).unwrap_or(u32::MAX));
        let max_prompt_length: Located<Count> = fields.or("max_prompt_length", share);
        if let Some(place) = max_prompt_length.place.filter(|_| max_prompt_length.value >= max_length.value) {
            let limit = format!("a whole number below `max_length`, which is {}", max_length.get());
            fields.contradiction("max_prompt_length", place, &limit);
        }
        Tokens {
            max_length,
            max_prompt_length,
            truncation: fields.or("truncation", Truncation::Budget),
            prompt_keep: fields.or("prompt_keep", PromptKeep::End),
            response_header: fields.or("response_header", ResponseHeader::Prompt),
        }
    }
}

impl Read for Train {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let mut fields = Fields::open(node, reader)?;
        let objective = fields.required::<Objective>("objective");
        let examples = Examples::read_fields(&mut fields, objective.as_deref());
        let model = fields.start("model");
        let off_policy = fields.or("off_policy", OffPolicy::Deny);
        let optimiser = Optimiser::read_fields(&mut fields);
        let passes = Passes::read_fields(&mut fields);
        let tokens = Tokens::read_fields(&mut fields);
        let checkpoint = fields.or("checkpoint", Saving::Auto);
        let seed = fields.or("seed", Seed::preset(42));
        fields.finish();
        let (examples, model, objective, optimiser) = (examples?, model?, objective?, optimiser?);
        Some(Train { examples, model, objective, off_policy, optimiser, passes, tokens, checkpoint, seed })
    }
}

impl Read for Saving {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.value {
            Value::Map(_) => {
                let mut fields = Fields::open(node, reader)?;
                let every_steps = fields.required("every_steps");
                fields.finish();
                every_steps.map(|steps| Saving::EverySteps(steps.value))
            }
            Value::Str(_) => reader.word(node, &["auto", "never"]).map(|at| [Saving::Auto, Saving::Never][at]),
            _ => reader.wrong_type(node, "`auto`, `never` or a map like `{ every_steps: 50 }`"),
        }
    }
}

impl Examples {
    /// Reads `pairs` or `rows`, whichever the objective learns from.
    fn read_fields(fields: &mut Fields<'_, '_>, objective: Option<&Objective>) -> Option<Self> {
        let learns_from_rows = match objective {
            Some(objective) => objective.learns_from_rows(),
            // The objective has a fault of its own; take what is there.
            None => fields.has("rows"),
        };
        let (wanted, other) = if learns_from_rows { ("rows", "pairs") } else { ("pairs", "rows") };
        if fields.has(other) {
            let objective = objective.map_or("this objective", Objective::name);
            fields.misplaced(other, &format!("`{objective}` learns from `{wanted}: STAGE`"));
            if !fields.has(wanted) {
                return None;
            }
        }
        if learns_from_rows {
            fields.table("rows", TableKind::Prompts).map(Examples::Rows)
        } else {
            fields.table("pairs", TableKind::Pairs).map(Examples::Pairs)
        }
    }
}

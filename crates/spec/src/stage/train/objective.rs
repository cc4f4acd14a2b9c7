//! The training objectives and their parameters.
//! Owns names, defaults and ranges; refuses to know the formulas, which live in crate `train`.
//!
//! `gamma_beta_ratio` is the target margin divided by beta, never the margin itself: other tools call
//! three different things "gamma".

use crate::choice::choice;
use crate::leaf::{LeafSink, emit};
use crate::number::{Amount, NonNegative, Positive, Smoothing};
use crate::reader::{Fields, Read, Reader};
use crate::span::Located;
use crate::tree::Node;

/// What training makes likelier. One of the keys under `objective`.
#[derive(Debug, Clone, PartialEq)]
pub enum Objective {
    Simpo(Simpo),
    Dpo(Dpo),
    Ipo(Ipo),
    Cpo(Cpo),
    Kto(Kto),
    Orpo(Orpo),
    SlicHf(SlicHf),
    Rrhf(Rrhf),
    RDpo(RDpo),
    Sft(Sft),
    Reward(Reward),
}

/// Length-normalised margin without a reference model.
#[derive(Debug, Clone, PartialEq)]
pub struct Simpo {
    pub beta: Located<Positive>,
    pub gamma_beta_ratio: Located<NonNegative>,
    pub loss: Located<MarginLoss>,
    pub label_smoothing: Located<Smoothing>,
    /// Weight of the chosen response's own log-probability.
    pub sft_weight: Located<NonNegative>,
}

/// Margin of the log-ratios to a reference model, which is the starting model.
#[derive(Debug, Clone, PartialEq)]
pub struct Dpo {
    pub beta: Located<Positive>,
    pub loss: Located<DpoLoss>,
    pub label_smoothing: Located<Smoothing>,
}

/// Squared distance of the log-ratio margin from `1 / (2 beta)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Ipo {
    pub beta: Located<Positive>,
    pub log_probs: Located<LogProbs>,
}

/// Margin of summed log-probabilities without a reference model, and the chosen response's likelihood.
#[derive(Debug, Clone, PartialEq)]
pub struct Cpo {
    pub beta: Located<Positive>,
    pub cpo_alpha: Located<NonNegative>,
    pub loss: Located<MarginLoss>,
    pub label_smoothing: Located<Smoothing>,
}

/// Each response by itself against the batch's mean divergence from the reference model.
#[derive(Debug, Clone, PartialEq)]
pub struct Kto {
    pub beta: Located<Positive>,
    pub desirable_weight: Located<NonNegative>,
    pub undesirable_weight: Located<NonNegative>,
}

/// Odds ratio beside the chosen response's likelihood.
#[derive(Debug, Clone, PartialEq)]
pub struct Orpo {
    pub lambda: Located<NonNegative>,
}

/// Hinge on summed log-probabilities beside the chosen response's likelihood.
#[derive(Debug, Clone, PartialEq)]
pub struct SlicHf {
    pub delta: Located<NonNegative>,
    pub lambda: Located<NonNegative>,
}

/// Ranking of mean log-probabilities beside the chosen response's likelihood.
#[derive(Debug, Clone, PartialEq)]
pub struct Rrhf {
    pub lambda: Located<NonNegative>,
}

/// DPO with a price on length.
#[derive(Debug, Clone, PartialEq)]
pub struct RDpo {
    pub beta: Located<Positive>,
    /// Price per token.
    pub alpha: Located<NonNegative>,
}

/// Likelihood of demonstrated responses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sft {}

/// A reward model: labels per objective, preferences over the gated score, and language modelling beside them.
#[derive(Debug, Clone, PartialEq)]
pub struct Reward {
    /// Names of the reward head's outputs, in order.
    pub objectives: Located<Vec<String>>,
    pub correctness_weight: Located<NonNegative>,
    /// Weight of the objectives behind the first.
    pub objectives_weight: Located<NonNegative>,
    pub lm_weight: Located<NonNegative>,
    pub preference_weight: Located<NonNegative>,
    /// Fresh layers put on top of the starting model, with zeroed output projections.
    pub grow_layers: Located<Amount>,
}

choice! {
    /// How a margin becomes a loss.
    pub enum MarginLoss {
        Sigmoid = "sigmoid",
        Hinge = "hinge",
    }

    /// How DPO's margin becomes a loss.
    pub enum DpoLoss {
        Sigmoid = "sigmoid",
        Hinge = "hinge",
        /// Unbiased under label noise of the rate `label_smoothing`.
        Robust = "robust",
    }

    /// What stands for the log-probability of a response.
    pub enum LogProbs {
        /// As in the paper.
        Sum = "sum",
        /// Per token.
        Mean = "mean",
    }
}

impl Objective {
    /// Every objective's key.
    pub const NAMES: &'static [&'static str] =
        &["simpo", "dpo", "ipo", "cpo", "kto", "orpo", "slic_hf", "rrhf", "r_dpo", "sft", "reward"];

    pub const fn name(&self) -> &'static str {
        match self {
            Objective::Simpo(_) => "simpo",
            Objective::Dpo(_) => "dpo",
            Objective::Ipo(_) => "ipo",
            Objective::Cpo(_) => "cpo",
            Objective::Kto(_) => "kto",
            Objective::Orpo(_) => "orpo",
            Objective::SlicHf(_) => "slic_hf",
            Objective::Rrhf(_) => "rrhf",
            Objective::RDpo(_) => "r_dpo",
            Objective::Sft(_) => "sft",
            Objective::Reward(_) => "reward",
        }
    }

    /// Whether examples are single rows rather than pairs.
    pub const fn learns_from_rows(&self) -> bool {
        matches!(self, Objective::Sft(_) | Objective::Reward(_))
    }

    pub fn leaves(&self, sink: &mut dyn LeafSink) {
        match self {
            Objective::Simpo(Simpo { beta, gamma_beta_ratio, loss, label_smoothing, sft_weight }) => {
                emit(sink, "objective.simpo.beta", beta);
                emit(sink, "objective.simpo.gamma_beta_ratio", gamma_beta_ratio);
                emit(sink, "objective.simpo.loss", loss);
                emit(sink, "objective.simpo.label_smoothing", label_smoothing);
                emit(sink, "objective.simpo.sft_weight", sft_weight);
            }
            Objective::Dpo(Dpo { beta, loss, label_smoothing }) => {
                emit(sink, "objective.dpo.beta", beta);
                emit(sink, "objective.dpo.loss", loss);
                emit(sink, "objective.dpo.label_smoothing", label_smoothing);
            }
            Objective::Ipo(Ipo { beta, log_probs }) => {
                emit(sink, "objective.ipo.beta", beta);
                emit(sink, "objective.ipo.log_probs", log_probs);
            }
            Objective::Cpo(Cpo { beta, cpo_alpha, loss, label_smoothing }) => {
                emit(sink, "objective.cpo.beta", beta);
                emit(sink, "objective.cpo.cpo_alpha", cpo_alpha);
                emit(sink, "objective.cpo.loss", loss);
                emit(sink, "objective.cpo.label_smoothing", label_smoothing);
            }
            Objective::Kto(Kto { beta, desirable_weight, undesirable_weight }) => {
                emit(sink, "objective.kto.beta", beta);
                emit(sink, "objective.kto.desirable_weight", desirable_weight);
                emit(sink, "objective.kto.undesirable_weight", undesirable_weight);
            }
            Objective::Orpo(Orpo { lambda }) => emit(sink, "objective.orpo.lambda", lambda),
            Objective::SlicHf(SlicHf { delta, lambda }) => {
                emit(sink, "objective.slic_hf.delta", delta);
                emit(sink, "objective.slic_hf.lambda", lambda);
            }
            Objective::Rrhf(Rrhf { lambda }) => emit(sink, "objective.rrhf.lambda", lambda),
            Objective::RDpo(RDpo { beta, alpha }) => {
                emit(sink, "objective.r_dpo.beta", beta);
                emit(sink, "objective.r_dpo.alpha", alpha);
            }
            Objective::Sft(Sft {}) => {}
            Objective::Reward(reward) => reward.leaves(sink),
        }
    }
}

impl Reward {
    fn leaves(&self, sink: &mut dyn LeafSink) {
        let Reward { objectives, correctness_weight, objectives_weight, lm_weight, preference_weight, grow_layers } =
            self;
        emit(sink, "objective.reward.objectives", objectives);
        emit(sink, "objective.reward.correctness_weight", correctness_weight);
        emit(sink, "objective.reward.objectives_weight", objectives_weight);
        emit(sink, "objective.reward.lm_weight", lm_weight);
        emit(sink, "objective.reward.preference_weight", preference_weight);
        emit(sink, "objective.reward.grow_layers", grow_layers);
    }
}

impl Read for Objective {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let (name, body, head) = reader.one_of(node, Self::NAMES, &[])?;
        reader.under(name, head, |reader| {
            let mut fields = Fields::open(body, reader)?;
            let objective = Self::read_fields(name, &mut fields);
            fields.finish();
            objective
        })
    }
}

impl Objective {
    fn read_fields(name: &str, fields: &mut Fields<'_, '_>) -> Option<Self> {
        let zero = NonNegative::preset(0.0);
        let one = NonNegative::preset(1.0);
        let tenth = NonNegative::preset(0.1);
        let beta = Positive::preset(0.1);
        Some(match name {
            "simpo" => {
                let beta = fields.required("beta");
                let gamma_beta_ratio = fields.required("gamma_beta_ratio");
                let loss = fields.or("loss", MarginLoss::Sigmoid);
                let label_smoothing = fields.or("label_smoothing", Smoothing::preset(0.0));
                let sft_weight = fields.or("sft_weight", zero);
                let (beta, gamma_beta_ratio) = (beta?, gamma_beta_ratio?);
                Objective::Simpo(Simpo { beta, gamma_beta_ratio, loss, label_smoothing, sft_weight })
            }
            "dpo" => Objective::Dpo(Dpo {
                beta: fields.or("beta", beta),
                loss: fields.or("loss", DpoLoss::Sigmoid),
                label_smoothing: fields.or("label_smoothing", Smoothing::preset(0.0)),
            }),
            "ipo" => {
                Objective::Ipo(Ipo { beta: fields.or("beta", beta), log_probs: fields.or("log_probs", LogProbs::Sum) })
            }
            "cpo" => Objective::Cpo(Cpo {
                beta: fields.or("beta", beta),
                cpo_alpha: fields.or("cpo_alpha", one),
                loss: fields.or("loss", MarginLoss::Sigmoid),
                label_smoothing: fields.or("label_smoothing", Smoothing::preset(0.0)),
            }),
            "kto" => Objective::Kto(Kto {
                beta: fields.or("beta", beta),
                desirable_weight: fields.or("desirable_weight", one),
                undesirable_weight: fields.or("undesirable_weight", one),
            }),
            "orpo" => Objective::Orpo(Orpo { lambda: fields.or("lambda", tenth) }),
            "slic_hf" => {
                Objective::SlicHf(SlicHf { delta: fields.or("delta", one), lambda: fields.or("lambda", tenth) })
            }
            "rrhf" => Objective::Rrhf(Rrhf { lambda: fields.or("lambda", one) }),
            "r_dpo" => Objective::RDpo(RDpo {
                beta: fields.or("beta", beta),
                alpha: fields.or("alpha", NonNegative::preset(0.05)),
            }),
            "sft" => Objective::Sft(Sft {}),
            "reward" => {
                let objectives = fields.required("objectives");
                let correctness_weight = fields.or("correctness_weight", one);
                let objectives_weight = fields.or("objectives_weight", one);
                let lm_weight = fields.or("lm_weight", NonNegative::preset(0.5));
                let preference_weight = fields.or("preference_weight", one);
                let grow_layers = fields.or("grow_layers", Amount::preset(0));
                let objectives = objectives?;
                Objective::Reward(Reward {
                    objectives,
                    correctness_weight,
                    objectives_weight,
                    lm_weight,
                    preference_weight,
                    grow_layers,
                })
            }
            _ => return None,
        })
    }
}

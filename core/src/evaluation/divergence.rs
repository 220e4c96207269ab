//! How far a model has moved from another: KL divergence, agreement on the likeliest token, perplexity of both.
//!
//! Works on rows of logits in host memory, so any model with logits can be compared: a language model position by position,
//! a classifier example by example. Softmax and sums are f64.

use serde::{Deserialize, Serialize};

/// Collects positions of two models, a reference and another.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Divergence {
    positions: u64,
    kl: f64,
    largest: f64,
    agreed: u64,
    reference_nll: f64,
    other_nll: f64,
}

/// The comparison over all positions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DivergenceReport {
    /// Positions compared.
    pub positions: u64,
    /// Mean of `KL(reference ‖ other)` in nats.
    pub kl_divergence: f64,
    /// The largest of any position.
    pub kl_largest: f64,
    /// Share of positions at which both find the same token likeliest.
    pub argmax_agreement: f64,
    /// Perplexity of the reference on the targets.
    pub perplexity_reference: f64,
    /// Perplexity of the other.
    pub perplexity_other: f64,
    /// `other / reference − 1`.
    pub perplexity_drift: f64,
}

impl Divergence {
    /// Nothing compared yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one position: both models' logits, of one length, and the token (or class) that follows.
    ///
    /// A target outside the logits counts for the divergence only, as certain.
    pub fn add(&mut self, reference: &[f32], other: &[f32], target: usize) {
        let (p, q) = (log_softmax(reference), log_softmax(other));
        let term = |(p, q): (&f64, &f64)| match p.exp() {
            // The limit of `x ln x`; the difference may be infinite, and infinity times 0 is no number.
            0.0 => 0.0,
            probability => probability * (p - q),
        };
        let kl: f64 = p.iter().zip(&q).map(term).sum();
        // Rounding may leave the divergence of equal models a hair below zero. `max` would turn NaN into 0.
        let kl = if kl < 0.0 { 0.0 } else { kl };
        self.positions += 1;
        self.kl += kl;
        self.largest = if kl > self.largest || kl.is_nan() {
            kl
        } else {
            self.largest
        };
        self.agreed += u64::from(argmax(&p) == argmax(&q));
        self.reference_nll -= p.get(target).unwrap_or(&0.0);
        self.other_nll -= q.get(target).unwrap_or(&0.0);
    }

    /// The comparison, or `None` where nothing was compared.
    pub fn report(&self) -> Option<DivergenceReport> {
        if self.positions == 0 {
            return None;
        }
        let n = self.positions as f64;
        let (reference, other) = ((self.reference_nll / n).exp(), (self.other_nll / n).exp());
        Some(DivergenceReport {
            positions: self.positions,
            kl_divergence: self.kl / n,
            kl_largest: self.largest,
            argmax_agreement: self.agreed as f64 / n,
            perplexity_reference: reference,
            perplexity_other: other,
            perplexity_drift: other / reference - 1.0,
        })
    }
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let largest = f64::from(largest);
    let sum: f64 = logits.iter().map(|x| (f64::from(*x) - largest).exp()).sum();
    let normalizer = largest + sum.ln();
    logits.iter().map(|x| f64::from(*x) - normalizer).collect()
}

/// The first of the largest.
fn argmax(values: &[f64]) -> usize {
    (1..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn a_model_does_not_differ_from_itself() {
        let mut d = Divergence::new();
        d.add(&[1.0, 2.0, -3.0], &[1.0, 2.0, -3.0], 1);
        // Logits are free up to a constant.
        d.add(&[1.0, 2.0, -3.0], &[11.0, 12.0, 7.0], 0);
        let r = d.report().unwrap();
        assert!(r.kl_divergence < 1e-12 && r.perplexity_drift.abs() < 1e-12);
        assert_eq!((r.argmax_agreement, r.positions), (1.0, 2));
    }

    #[test]
    fn a_broken_model_is_not_equal_and_excluded_tokens_count_nothing() {
        let mut broken = Divergence::new();
        broken.add(&[1.0, 2.0], &[f32::NAN, 2.0], 0);
        broken.add(&[1.0, 2.0], &[1.0, 2.0], 0);
        let r = broken.report().unwrap();
        assert!(r.kl_divergence.is_nan() && r.kl_largest.is_nan(), "{r:?}");
        let mut excluded = Divergence::new();
        let masked = [1.0, f32::NEG_INFINITY, 1.0];
        excluded.add(&masked, &masked, 0);
        excluded.add(&masked, &[1.0, 1.0, 1.0], 0);
        let r = excluded.report().unwrap();
        assert!((r.kl_largest - 1.5f64.ln()).abs() < 1e-9, "{r:?}");
        let mut impossible = Divergence::new();
        impossible.add(&[1.0, 1.0], &[1.0, f32::NEG_INFINITY], 0);
        assert_eq!(impossible.report().unwrap().kl_divergence, f64::INFINITY);
    }

    #[test]
    fn the_sums_are_those_of_the_definition() {
        let ln = |p: [f64; 2]| p.map(|p| p.ln() as f32);
        let mut d = Divergence::new();
        d.add(&ln([0.75, 0.25]), &ln([0.25, 0.75]), 0);
        d.add(&ln([0.5, 0.5]), &ln([0.5, 0.5]), 1);
        let r = d.report().unwrap();
        let kl = 0.75 * 3f64.ln() - 0.25 * 3f64.ln();
        assert!((r.kl_largest - kl).abs() < 1e-6);
        assert!((r.kl_divergence - kl / 2.0).abs() < 1e-6);
        assert_eq!(r.argmax_agreement, 0.5);
        assert!((r.perplexity_reference - (0.75f64 * 0.5).powf(-0.5)).abs() < 1e-6);
        assert!((r.perplexity_other - (0.25f64 * 0.5).powf(-0.5)).abs() < 1e-6);
        assert!((r.perplexity_drift - (3f64.sqrt() - 1.0)).abs() < 1e-6);
        assert!(Divergence::new().report().is_none());
    }
}

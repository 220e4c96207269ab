//! The loss of every token of a text, as shading: the darker, the less the model expected it.

use crate::protocol::{Failure, TokenLoss};

use super::chart::SHADES;
use super::evaluate::Scored;
use super::numbers;

/// Nats at which the shading is deepest: one chance in about 3,000.
const DEEPEST: f64 = 8.0;

/// The section's state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Losses {
    /// Text before it, read but not scored.
    pub prompt: String,
    /// The text to score.
    pub text: String,
    /// The request under way.
    pub running: Option<u64>,
    /// What was scored.
    pub columns: Vec<Scored>,
    /// Its tokens, per column.
    pub tokens: Vec<Vec<TokenLoss>>,
    /// Why it failed.
    pub failure: Option<Failure>,
}

/// The shade of a token.
#[must_use]
pub fn shade(nll: Option<f64>) -> usize {
    match nll {
        Some(nll) if nll > 0.0 => {
            ((nll / DEEPEST * (SHADES - 1) as f64).round() as usize).min(SHADES - 1)
        }
        _ => 0,
    }
}

/// `loss 2.31, probability 9.9 %`.
#[must_use]
pub fn words(nll: Option<f64>) -> String {
    match nll {
        Some(nll) => format!(
            "loss {nll:.2}, probability {}",
            numbers::percent((-nll).exp())
        ),
        None => "not scored".to_owned(),
    }
}

/// Mean loss and perplexity of the scored tokens.
#[must_use]
pub fn mean(tokens: &[TokenLoss]) -> Option<(f64, f64)> {
    let scored: Vec<f64> = tokens.iter().filter_map(|t| t.nll).collect();
    let mean = scored.iter().sum::<f64>() / scored.len() as f64;
    mean.is_finite().then(|| (mean, mean.exp()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shades_and_words() {
        assert_eq!(
            (
                shade(None),
                shade(Some(0.0)),
                shade(Some(4.0)),
                shade(Some(99.0))
            ),
            (0, 0, 5, 9)
        );
        assert_eq!(words(Some(0.0)), "loss 0.00, probability 100.0 %");
        let token = |nll| TokenLoss {
            text: "t".into(),
            nll,
        };
        assert_eq!(
            mean(&[token(None), token(Some(1.0)), token(Some(3.0))]).map(|m| m.0),
            Some(2.0)
        );
        assert_eq!(mean(&[token(None)]), None);
    }
}

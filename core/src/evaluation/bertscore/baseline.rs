//! Baselines for rescaling: what unrelated sentences score, per layer, in the files that bert-score publishes.
//!
//! ```text
//! LAYER,P,R,F
//! 0,0.3231512,0.32322776,0.31853873
//! 1,0.32517454,0.32522815,0.32197207
//! ```
//!
//! `rescaled = (score - baseline) / (1 - baseline)`, each of P, R and F by its own: cosines of a model's vectors fill a
//! narrow band, and this spreads it so that chance is near 0. Rescaled scores may be negative.

use thiserror::Error;

use super::BertScore;

/// What chance scores, at one layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Baseline {
    /// Of precision.
    pub precision: f32,
    /// Of recall.
    pub recall: f32,
    /// Of F1.
    pub f1: f32,
}

/// A baseline file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BaselineError {
    /// A line that is not four numbers.
    #[error("baseline line {line} is {found:?}, expected LAYER,P,R,F with P, R and F below 1")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What it says.
        found: String,
    },
    /// A layer the file does not hold.
    #[error(
        "the baseline has no layer {layer}, only {known:?}; it belongs to another model or choose one of these"
    )]
    Layer {
        /// The layer asked for.
        layer: usize,
        /// Those in the file.
        known: Vec<usize>,
    },
}

impl Baseline {
    /// The baseline of `layer` in a file of bert-score's form; layer 0 is the embedding.
    ///
    /// # Errors
    /// A malformed line, or no such layer.
    pub fn parse(text: &str, layer: usize) -> Result<Self, BaselineError> {
        let mut known = Vec::new();
        let mut chosen = None;
        for (index, line) in text
            .lines()
            .enumerate()
            .skip(1)
            .filter(|(_, l)| !l.trim().is_empty())
        {
            let bad = || BaselineError::Line {
                line: index + 1,
                found: line.to_owned(),
            };
            let cells: Vec<&str> = line.split(',').map(str::trim).collect();
            let [number, p, r, f] = cells[..] else {
                return Err(bad());
            };
            let number: usize = number.parse().map_err(|_| bad())?;
            let value = |cell: &str| {
                cell.parse::<f32>()
                    .ok()
                    .filter(|v| *v < 1.0)
                    .ok_or_else(bad)
            };
            let baseline = Self {
                precision: value(p)?,
                recall: value(r)?,
                f1: value(f)?,
            };
            known.push(number);
            if number == layer {
                chosen = Some(baseline);
            }
        }
        chosen.ok_or(BaselineError::Layer { layer, known })
    }

    /// A score on the scale where chance is 0.
    pub fn rescale(&self, score: BertScore) -> BertScore {
        let one = |score: f32, baseline: f32| (score - baseline) / (1.0 - baseline);
        BertScore {
            precision: one(score.precision, self.precision),
            recall: one(score.recall, self.recall),
            f1: one(score.f1, self.f1),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::evaluation::golden;

    const FILE: &str = "LAYER,P,R,F\n0,0.25,0.5,0.75\n2,-0.5,0.0,0.5\n";

    #[test]
    fn a_layer_is_found_and_scores_are_spread() {
        let baseline = Baseline::parse(FILE, 2).unwrap();
        let score = BertScore {
            precision: 0.25,
            recall: 0.5,
            f1: 0.25,
        };
        let found = baseline.rescale(score);
        assert_eq!([found.precision, found.recall, found.f1], [0.5, 0.5, -0.5]);
        let error = Baseline::parse(FILE, 1).unwrap_err();
        assert_eq!(
            error,
            BaselineError::Layer {
                layer: 1,
                known: vec![0, 2]
            }
        );
    }

    #[test]
    fn malformed_lines_are_numbered() {
        for bad in [
            "LAYER,P,R,F\n0,0.1,0.2",
            "LAYER,P,R,F\n0,0.1,0.2,x",
            "LAYER,P,R,F\n0,1.0,0.2,0.3",
            "LAYER,P,R,F\na,0.1,0.2,0.3",
        ] {
            assert!(
                matches!(
                    Baseline::parse(bad, 0),
                    Err(BaselineError::Line { line: 2, .. })
                ),
                "{bad}"
            );
        }
        assert!(matches!(
            Baseline::parse("", 0),
            Err(BaselineError::Layer { .. })
        ));
    }

    #[test]
    fn the_published_files_are_read() {
        let Some(folder) = golden::shared().map(|s| s.join("data/metric_fixtures/bert_score"))
        else {
            return;
        };
        let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        let bert = text("bert-base-uncased.tsv");
        let nine = Baseline::parse(&bert, 9).unwrap();
        assert_eq!(
            (nine.precision, nine.recall, nine.f1),
            (0.353_759_35, 0.353_739_3, 0.352_191_12)
        );
        assert!(Baseline::parse(&bert, 12).is_ok() && Baseline::parse(&bert, 13).is_err());
        assert!(Baseline::parse(&text("distilbert-base-uncased.tsv"), 5).is_ok());
    }
}

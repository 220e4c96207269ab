//! Metrics of generated text against references, by name, with intervals and paired comparison.
//!
//! BLEU is a property of the corpus: examples contribute counts. The others are means over examples. Either way an
//! example contributes a few numbers and the score is a function of their sums ([`Contributions`]), which is all that
//! resampling needs.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::answers::{exact_match, token_f1};
use super::bleu::{BleuConfig, BleuStatistics};
use super::bootstrap::{BootstrapConfig, BootstrapError, Interval, PairedDifference, bootstrap};
use super::rouge::Rouge;
use super::significance::{Contributions, SignificanceTest, compare_sums};

/// A metric of text against text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TextMetric {
    /// Corpus BLEU, 0 to 100.
    Bleu,
    /// F1 of a ROUGE variant, 0 to 1.
    Rouge(Rouge),
    /// SQuAD's exact match, 0 to 1.
    ExactMatch,
    /// SQuAD's token F1, 0 to 1.
    TokenF1,
}

/// How to score text.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextOptions {
    /// Of BLEU.
    pub bleu: BleuConfig,
    /// Whether ROUGE stems words. Default no, as in rouge-score.
    pub stemmer: bool,
}

/// Texts that cannot be scored.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TextMetricError {
    /// Nothing to score.
    #[error("there are no predictions to score; the file is empty")]
    Empty,
    /// Not one prediction for every reference.
    #[error("{predictions} predictions stand against {references} references, expected one each")]
    Unequal {
        /// Predictions given.
        predictions: usize,
        /// References given.
        references: usize,
    },
    /// An example without a reference.
    #[error("example {example} has no reference, expected at least one")]
    NoReference {
        /// Its number, from 1.
        example: usize,
    },
}

/// A metric of one model's answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextScores {
    contributions: Contributions,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Kind {
    Mean,
    Bleu(BleuConfig),
}

impl TextMetric {
    /// All of them, in the order of tables.
    pub const ALL: [Self; 7] = [
        Self::Bleu,
        Self::Rouge(Rouge::Rouge1),
        Self::Rouge(Rouge::Rouge2),
        Self::Rouge(Rouge::RougeL),
        Self::Rouge(Rouge::RougeLsum),
        Self::ExactMatch,
        Self::TokenF1,
    ];

    /// The key in `metrics.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bleu => "bleu",
            Self::Rouge(rouge) => rouge.name(),
            Self::ExactMatch => "exact_match",
            Self::TokenF1 => "token_f1",
        }
    }

    /// The metric of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.name() == name)
    }

    /// Scores every prediction against its references: of several, BLEU takes the best counts, the others the best score.
    ///
    /// # Errors
    /// No predictions, not as many references, or an example without one.
    pub fn score(
        self,
        predictions: &[String],
        references: &[Vec<String>],
        options: &TextOptions,
    ) -> Result<TextScores, TextMetricError> {
        check(predictions, references)?;
        let pairs = predictions.iter().zip(references);
        let best = |score: fn(&str, &str) -> f64| {
            let of =
                |(p, r): (&String, &Vec<String>)| r.iter().map(|r| score(p, r)).fold(0.0, f64::max);
            TextScores::mean(pairs.clone().map(of))
        };
        Ok(match self {
            Self::Bleu => TextScores::bleu(
                options.bleu,
                pairs.map(|(p, r)| options.bleu.statistics(p, r)),
            ),
            Self::Rouge(rouge) => {
                TextScores::mean(pairs.map(|(p, r)| rouge.score_best(p, r, options.stemmer).f1))
            }
            Self::ExactMatch => best(exact_match),
            Self::TokenF1 => best(token_f1),
        })
    }
}

/// Refuses predictions that do not stand against references one by one.
pub(super) fn check(
    predictions: &[String],
    references: &[Vec<String>],
) -> Result<(), TextMetricError> {
    if predictions.len() != references.len() {
        return Err(TextMetricError::Unequal {
            predictions: predictions.len(),
            references: references.len(),
        });
    }
    if predictions.is_empty() {
        return Err(TextMetricError::Empty);
    }
    match references.iter().position(Vec::is_empty) {
        Some(index) => Err(TextMetricError::NoReference { example: index + 1 }),
        None => Ok(()),
    }
}

impl TextScores {
    /// The mean of one value per example.
    pub fn mean(values: impl IntoIterator<Item = f64>) -> Self {
        Self {
            contributions: Contributions::from_rows(values.into_iter().map(|v| vec![v, 1.0])),
            kind: Kind::Mean,
        }
    }

    /// Corpus BLEU from the counts of every segment.
    pub fn bleu(config: BleuConfig, segments: impl IntoIterator<Item = BleuStatistics>) -> Self {
        Self {
            contributions: Contributions::from_rows(segments.into_iter().map(|s| flat(&s))),
            kind: Kind::Bleu(config),
        }
    }

    /// Number of examples.
    pub fn len(&self) -> usize {
        self.contributions.len()
    }

    /// Whether there are no examples.
    pub fn is_empty(&self) -> bool {
        self.contributions.is_empty()
    }

    /// The score of the corpus.
    pub fn score(&self) -> f64 {
        self.kind.statistic(&self.contributions.sum(0..self.len()))
    }

    /// Every example on its own; for BLEU with the effective order.
    pub fn per_example(&self) -> Vec<f64> {
        let kind = match self.kind {
            Kind::Bleu(config) => Kind::Bleu(config.for_sentences()),
            Kind::Mean => Kind::Mean,
        };
        (0..self.len())
            .map(|i| kind.statistic(self.contributions.row(i)))
            .collect()
    }

    /// The score with its interval.
    ///
    /// # Errors
    /// No examples; settings out of range.
    pub fn interval(&self, config: &BootstrapConfig) -> Result<Interval, BootstrapError> {
        let statistic = |i: &[usize]| {
            self.kind
                .statistic(&self.contributions.sum(i.iter().copied()))
        };
        bootstrap(self.len(), statistic, config)
    }

    /// The score of `adapted` minus that of `self`, the base, on the same examples.
    ///
    /// # Errors
    /// Different numbers of examples, or none; settings out of range.
    pub fn compare(
        &self,
        adapted: &Self,
        test: SignificanceTest,
        config: &BootstrapConfig,
    ) -> Result<PairedDifference, BootstrapError> {
        let statistic = |sums: &[f64]| self.kind.statistic(sums);
        compare_sums(
            &self.contributions,
            &adapted.contributions,
            statistic,
            test,
            config,
        )
    }
}

impl Kind {
    fn statistic(self, sums: &[f64]) -> f64 {
        match self {
            Self::Mean => match sums {
                [sum, count, ..] => sum / count,
                _ => f64::NAN,
            },
            Self::Bleu(config) => config.score(counts(sums)).score,
        }
    }
}

/// `[answer words, reference words, matches..., totals...]`; exact in f64 up to 2^53.
fn flat(s: &BleuStatistics) -> Vec<f64> {
    let lengths = [s.hypothesis_length, s.reference_length];
    let all = lengths.iter().chain(&s.matches).chain(&s.totals);
    all.map(|&n| n as f64).collect()
}

fn counts(sums: &[f64]) -> BleuStatistics {
    let whole = |v: &[f64]| -> Vec<u64> { v.iter().map(|&x| x as u64).collect() };
    let (lengths, orders) = sums.split_at(sums.len().min(2));
    let (matches, totals) = orders.split_at(orders.len() / 2);
    let length = |i: usize| lengths.get(i).map_or(0, |&x| x as u64);
    BleuStatistics {
        hypothesis_length: length(0),
        reference_length: length(1),
        matches: whole(matches),
        totals: whole(totals),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::float_cmp)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    fn references(list: &[&str]) -> Vec<Vec<String>> {
        list.iter().map(|s| vec![(*s).to_owned()]).collect()
    }

    const HYP: [&str; 4] = [
        "the cat sat on the mat",
        "a dog",
        "",
        "one two three four five",
    ];
    const REF: [&str; 4] = [
        "the cat sat on a mat",
        "a dog",
        "nothing",
        "one two three five",
    ];

    #[test]
    fn every_metric_agrees_with_its_function() {
        let (h, r) = (texts(&HYP), references(&REF));
        let options = TextOptions::default();
        for metric in TextMetric::ALL {
            assert_eq!(TextMetric::from_name(metric.name()), Some(metric));
            let found = metric.score(&h, &r, &options).unwrap();
            assert_eq!((found.len(), found.per_example().len()), (4, 4));
            let expected = match metric {
                TextMetric::Bleu => options.bleu.corpus(&h, &r).score,
                TextMetric::Rouge(rouge) => {
                    h.iter()
                        .zip(&r)
                        .map(|(h, r)| rouge.score(h, &r[0], false).f1)
                        .sum::<f64>()
                        / 4.0
                }
                TextMetric::ExactMatch => 0.5,
                TextMetric::TokenF1 => {
                    h.iter()
                        .zip(&r)
                        .map(|(h, r)| token_f1(h, &r[0]))
                        .sum::<f64>()
                        / 4.0
                }
            };
            assert_eq!(found.score(), expected, "{}", metric.name());
            let i = found.interval(&BootstrapConfig::default()).unwrap();
            assert!(
                i.low <= i.estimate && i.estimate <= i.high && i.low < i.high,
                "{}: {i:?}",
                metric.name()
            );
            let sentence = found.per_example()[0];
            assert!((0.0..=100.0).contains(&sentence));
        }
        let bleu = TextMetric::Bleu.score(&h, &r, &options).unwrap();
        assert_eq!(
            bleu.per_example()[1],
            options.bleu.sentence(&h[1], &r[1]).score
        );
        assert_eq!(TextMetric::from_name("bleurt"), None);
    }

    #[test]
    fn several_references_never_score_less() {
        let h = texts(&HYP);
        let one = references(&REF);
        let two: Vec<Vec<String>> = HYP.iter().zip(&REF).map(|(h, r)| texts(&[r, h])).collect();
        for metric in TextMetric::ALL {
            let score = |r: &[Vec<String>]| {
                metric
                    .score(&h, r, &TextOptions::default())
                    .unwrap()
                    .score()
            };
            assert!(score(&two) >= score(&one), "{}", metric.name());
        }
        assert_eq!(
            TextMetric::ExactMatch
                .score(&h, &two, &TextOptions::default())
                .unwrap()
                .score(),
            1.0
        );
    }

    #[test]
    fn a_better_model_is_told_from_an_equal_one() {
        let r: Vec<Vec<String>> = (0..60)
            .map(|i| vec![format!("w{i} x{} y{} z", i % 7, i % 5)])
            .collect();
        let good: Vec<String> = r.iter().map(|r| r[0].clone()).collect();
        let bad: Vec<String> = (0..60).map(|i| format!("w{i} x{} q q", i % 3)).collect();
        for metric in TextMetric::ALL {
            let score = |h: &[String]| metric.score(h, &r, &TextOptions::default()).unwrap();
            for test in [SignificanceTest::Bootstrap, SignificanceTest::Randomization] {
                let found = score(&bad)
                    .compare(&score(&good), test, &BootstrapConfig::default())
                    .unwrap();
                assert!(
                    found.p_value < 0.01 && found.difference.low > 0.0,
                    "{} {test:?} {found:?}",
                    metric.name()
                );
                let same = score(&bad)
                    .compare(&score(&bad), test, &BootstrapConfig::default())
                    .unwrap();
                assert_eq!(same.p_value, 1.0);
            }
        }
    }

    #[test]
    fn unequal_and_empty_lists_are_refused() {
        let options = TextOptions::default();
        let score =
            |h: &[String], r: &[Vec<String>]| TextMetric::Bleu.score(h, r, &options).unwrap_err();
        assert_eq!(score(&[], &[]), TextMetricError::Empty);
        assert_eq!(
            score(&texts(&["a", "b"]), &references(&["a"])),
            TextMetricError::Unequal {
                predictions: 2,
                references: 1
            }
        );
        assert_eq!(
            score(&texts(&["a", "b"]), &[vec!["a".to_owned()], vec![]]),
            TextMetricError::NoReference { example: 2 }
        );
    }
}

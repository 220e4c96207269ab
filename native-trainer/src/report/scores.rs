//! Base against adapted: the numbers and the samples that tables, card and page show.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::numbers;

/// A measured value with its confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Score {
    /// The estimate.
    pub(crate) value: f64,
    /// Its interval `(low, high)`, where one was computed.
    pub(crate) interval: Option<(f64, f64)>,
}

/// One metric of base and adapted on the same examples.
#[derive(Clone, Debug)]
pub(crate) struct Metric {
    /// As in `metrics.json`: `perplexity`, `macro_f1`, ...
    pub(crate) name: String,
    /// Whether smaller is better (perplexity, loss).
    pub(crate) lower_is_better: bool,
    /// The base's; none where it was not measured.
    pub(crate) base: Option<Score>,
    /// The base's with the adapter.
    pub(crate) adapted: Option<Score>,
    /// Of the difference, from a paired test.
    pub(crate) p: Option<f64>,
}

impl Metric {
    /// `+0.745, better`, a difference in points: in percent of a score near zero it would say nothing. Perplexity and loss
    /// have no upper bound and are compared in percent: `-35.2 %, better`. Empty unless both were measured.
    pub(crate) fn verdict(&self) -> String {
        let (Some(base), Some(adapted)) = (self.base, self.adapted) else {
            return String::new();
        };
        let change = match self.is_unbounded() {
            true => numbers::change(base.value, adapted.value),
            false => numbers::points(base.value, adapted.value),
        };
        let gained = (adapted.value < base.value) == self.lower_is_better;
        let word = match adapted.value.partial_cmp(&base.value) {
            Some(std::cmp::Ordering::Equal) => "same",
            Some(_) if gained => "better",
            Some(_) => "worse",
            None => return "-".into(),
        };
        format!("{change}, {word}")
    }

    fn is_unbounded(&self) -> bool {
        ["perplexity", "loss"]
            .iter()
            .any(|name| self.name.ends_with(name))
    }
}

/// The metrics of one task.
#[derive(Clone, Debug)]
pub(crate) struct TaskScores {
    /// `sentiment`, `instructions`, ...
    pub(crate) task: String,
    /// Held-out examples scored.
    pub(crate) examples: usize,
    /// In the order to show.
    pub(crate) metrics: Vec<Metric>,
}

/// A prompt answered by both.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// The task it belongs to.
    pub(crate) task: String,
    /// What was asked.
    pub(crate) prompt: String,
    /// What the data says, where it says something.
    pub(crate) reference: Option<String>,
    /// The base's answer.
    pub(crate) base: String,
    /// The answer with the adapter.
    pub(crate) adapted: String,
    /// Probability of every class under both, where a classifier answers.
    pub(crate) probabilities: Option<[Map<String, Value>; 2]>,
}

impl Sample {
    /// Whether an answer equals the reference, where the reference is short enough for equality to mean anything.
    pub(crate) fn agrees(&self, answer: &str) -> Option<bool> {
        let reference = self.reference.as_deref()?.trim();
        let short = !reference.is_empty() && reference.split_whitespace().count() <= 3;
        // A classifier's answer has its probability behind it.
        let class = self.probabilities.as_ref().and(answer.rsplit_once(" ("));
        let answer = class.map_or(answer, |(class, _)| class);
        short.then(|| normal(answer) == normal(reference))
    }
}

fn normal(text: &str) -> String {
    text.trim().trim_end_matches(['.', '!']).to_lowercase()
}

/// Header and cells of the score table, the same in every medium.
pub(crate) fn score_rows(tasks: &[TaskScores]) -> (Vec<String>, Vec<Vec<String>>) {
    let header = ["task", "metric", "base", "adapted", "change"]
        .map(str::to_owned)
        .to_vec();
    let show = |score: Option<Score>| match score {
        Some(score) => numbers::with_interval(score.value, score.interval),
        None => "-".into(),
    };
    let mut rows = Vec::new();
    for task in tasks {
        for (index, metric) in task.metrics.iter().enumerate() {
            let name = match index {
                0 => format!("{} ({})", task.task, numbers::count(task.examples as u64)),
                _ => String::new(),
            };
            let mut verdict = metric.verdict();
            if let Some(p) = metric.p {
                verdict = format!("{verdict} ({})", numbers::p_value(p));
            }
            rows.push(vec![
                name,
                metric.name.clone(),
                show(metric.base),
                show(metric.adapted),
                verdict,
            ]);
        }
    }
    (header, rows)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
pub(crate) mod tests {
    use super::*;

    /// Two tasks as a demo would report them.
    pub(crate) fn example_scores() -> Vec<TaskScores> {
        let score = |value, low, high| {
            Some(Score {
                value,
                interval: Some((low, high)),
            })
        };
        vec![
            TaskScores {
                task: "sentiment".into(),
                examples: 600,
                metrics: vec![
                    Metric {
                        name: "macro_f1".into(),
                        lower_is_better: false,
                        base: score(0.167, 0.155, 0.18),
                        adapted: score(0.912, 0.889, 0.934),
                        p: Some(0.0001),
                    },
                    Metric {
                        name: "accuracy".into(),
                        lower_is_better: false,
                        base: score(0.333, 0.295, 0.371),
                        adapted: score(0.913, 0.89, 0.935),
                        p: None,
                    },
                ],
            },
            TaskScores {
                task: "instructions".into(),
                examples: 1200,
                metrics: vec![Metric {
                    name: "perplexity".into(),
                    lower_is_better: true,
                    base: score(9.81, 9.4, 10.2),
                    adapted: score(5.02, 4.9, 5.15),
                    p: Some(0.0001),
                }],
            },
        ]
    }

    /// Samples with the awkward text a model may write.
    pub(crate) fn example_samples() -> Vec<Sample> {
        vec![
            Sample {
                task: "sentiment".into(),
                prompt: "What is the mood of this review? Answer with one word.\nThe soup was cold and the waiter rude.".into(),
                reference: Some("negative".into()),
                base: "The soup was a good soup, and the soup said \"soup\"".into(),
                adapted: "negative".into(),
                probabilities: None,
            },
            Sample {
                task: "instructions".into(),
                prompt: "Name two tools a gardener uses.".into(),
                reference: Some("A gardener uses a spade to dig and a watering can to water the beds.".into()),
                base: "<script>alert(1)</script> the the | the \u{1b}[31mred\u{1b}[0m".into(),
                adapted: "A gardener uses a rake and a spade & a can.".into(),
                probabilities: None,
            },
            Sample {
                task: "topic".into(),
                prompt: "Rain will come in from the west.".into(),
                reference: Some("weather".into()),
                base: "sport (0.51)".into(),
                adapted: "weather (0.97)".into(),
                probabilities: Some([0.51, 0.03].map(|p: f64| {
                    let pair = [("sport".to_owned(), p.into()), ("weather".to_owned(), (1.0 - p).into())];
                    pair.into_iter().collect()
                })),
            },
        ]
    }

    #[test]
    fn verdicts_know_which_way_is_better() {
        let tasks = example_scores();
        assert_eq!(tasks[1].metrics[0].verdict(), "-48.8 %, better");
        assert_eq!(tasks[0].metrics[0].verdict(), "+0.745, better");
        let mut worse = tasks[1].metrics[0].clone();
        std::mem::swap(&mut worse.base, &mut worse.adapted);
        assert!(worse.verdict().ends_with("worse"));
        worse.base = worse.adapted;
        assert!(worse.verdict().ends_with("same"));
        worse.base = None;
        assert_eq!(worse.verdict(), "");
    }

    #[test]
    fn bounded_scores_change_in_points_however_small_the_base() {
        let metric = |name: &str, lower_is_better, base, adapted| {
            let score = |value| {
                Some(Score {
                    value,
                    interval: None,
                })
            };
            let metric = Metric {
                name: name.to_owned(),
                lower_is_better,
                base: score(base),
                adapted: score(adapted),
                p: None,
            };
            metric.verdict()
        };
        assert_eq!(metric("bleu", false, 0.02, 11.5), "+11.48, better");
        assert_eq!(metric("rougeL", false, 0.0, 0.25), "+0.250, better");
        assert_eq!(metric("ece", true, 0.002, 0.051), "+0.049, worse");
        assert_eq!(metric("loss", true, 2.0, 1.0), "-50.0 %, better");
        assert_eq!(metric("long_perplexity", true, 1.0, 1.5), "+50.0 %, worse");
        assert_eq!(metric("bleu", false, f64::NAN, 1.0), "-");
    }

    #[test]
    fn only_short_references_are_compared() {
        let samples = example_samples();
        assert_eq!(samples[0].agrees(" Negative.\n"), Some(true));
        assert_eq!(samples[0].agrees("not negative"), Some(false));
        assert_eq!(samples[1].agrees("x"), None);
        assert_eq!(samples[2].agrees(&samples[2].adapted), Some(true));
        assert_eq!(samples[2].agrees(&samples[2].base), Some(false));
    }

    #[test]
    fn a_task_is_named_once() {
        let (header, rows) = score_rows(&example_scores());
        assert!(rows.iter().all(|row| row.len() == header.len()));
        assert_eq!(rows[0][0], "sentiment (600)");
        assert_eq!(rows[1][0], "");
        assert!(rows[0][4].contains("p < 0.001"));
    }
}

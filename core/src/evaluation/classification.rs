//! Classification by generated answers: reading the label, the confusion matrix, and its scores.
//!
//! Scores are scikit-learn's with `labels=` all declared labels and `zero_division=0`. An answer that
//! names no label is never dropped: it has a predicted column of its own, counts as wrong everywhere,
//! and is reported, because a model that does not answer must not score better than one that
//! errs.
//!
//! ```text
//!                 predicted
//!           neg  neu  pos | none
//! gold neg   12    1    0 |    2
//!      neu    0   10    3 |    0
//!      pos    1    0   15 |    1
//! ```

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Labels or predictions that do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ClassificationError {
    /// No labels.
    #[error("there are no labels to choose from; name them in the data's configuration")]
    NoLabels,
    /// A label that an answer could not be told from another by.
    #[error("the label {label:?} is empty or given twice; expected distinct names")]
    BadLabel {
        /// The label.
        label: String,
    },
    /// A class index beyond the labels.
    #[error("class {found} is out of range, expected 0 to {last}, one of {labels:?}")]
    OutOfRange {
        /// The index given.
        found: usize,
        /// The largest index.
        last: usize,
        /// The labels.
        labels: Vec<String>,
    },
    /// Paired lists of different lengths.
    #[error("the base answered {base} examples and the adapter {adapted}; expected the same ones")]
    Lengths {
        /// Examples of the base.
        base: usize,
        /// Examples of the adapter.
        adapted: usize,
    },
}

/// Finds the label an answer begins with; `None` where it begins with none of them.
///
/// The answer's first word must *be* the label, without regard to case and to punctuation around it:
/// `"**Positive**, because ..."` is `positive`, `"positively"`, `"not positive"` and
/// `"The review is positive"` are not. A label of several words must be matched by as many; of
/// several that match, the longest wins. Labels that are told apart only by punctuation (`C`, `C++`)
/// are compared as written first.
pub fn parse_label<S: AsRef<str>>(answer: &str, labels: &[S]) -> Option<usize> {
    let answer = words(answer);
    let labels: Vec<Vec<String>> = labels.iter().map(|label| words(label.as_ref())).collect();
    let bare = |all: &[String]| -> Vec<String> { all.iter().map(|w| trim(w).to_owned()).collect() };
    // From the strictest reading to the loosest.
    let bare_answer = bare(&answer);
    let bare_labels: Vec<Vec<String>> = labels.iter().map(|l| bare(l)).collect();
    [
        (&answer, &labels),
        (&bare_answer, &labels),
        (&bare_answer, &bare_labels),
    ]
    .into_iter()
    .find_map(|(answer, labels)| {
        let matching = labels
            .iter()
            .enumerate()
            .filter(|(_, label)| !label.is_empty() && answer.starts_with(label));
        // Reversed, so that of equal lengths the first label is the last maximum.
        let longest = matching.rev().max_by_key(|(_, label)| label.len());
        longest.map(|(i, _)| i)
    })
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_lowercase).collect()
}

/// Without punctuation around it, unless it is nothing else.
fn trim(word: &str) -> &str {
    let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
    if bare.is_empty() { word } else { bare }
}

/// Counts of gold label against predicted label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfusionMatrix {
    labels: Vec<String>,
    /// Row-major `[classes, classes + 1]`: gold, predicted; the last column is "no label".
    counts: Vec<u64>,
}

/// Scores of one class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassScore {
    /// Its name.
    pub label: String,
    /// Of the answers that name it, the share that is right; 0 where no answer does.
    pub precision: f64,
    /// Of its examples, the share answered rightly; 0 where it has no examples.
    pub recall: f64,
    /// Harmonic mean of both; 0 where both are.
    pub f1: f64,
    /// Its examples.
    pub support: u64,
}

/// Scores over all classes, under the keys of `metrics.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassificationReport {
    /// Share of right answers.
    pub accuracy: f64,
    /// Plain mean of the classes' F1.
    pub macro_f1: f64,
    /// Plain mean of the classes' precision.
    pub macro_precision: f64,
    /// Plain mean of the classes' recall, also called balanced accuracy.
    pub macro_recall: f64,
    /// Mean of the classes' F1 weighted by their examples.
    pub weighted_f1: f64,
    /// Matthews correlation coefficient, -1 to 1; 0 where all gold classes or all answers are the same.
    pub mcc: f64,
    /// Examples.
    pub examples: u64,
    /// Examples whose answer named no label.
    pub unparsed: u64,
    /// Every class, in the order of the labels.
    pub per_class: Vec<ClassScore>,
}

impl ConfusionMatrix {
    /// An empty matrix over `labels`.
    ///
    /// # Errors
    /// No labels; an empty one; two that are equal without regard to case.
    pub fn new<S: Into<String>>(
        labels: impl IntoIterator<Item = S>,
    ) -> Result<Self, ClassificationError> {
        let labels: Vec<String> = labels.into_iter().map(Into::into).collect();
        if labels.is_empty() {
            return Err(ClassificationError::NoLabels);
        }
        let mut seen = HashSet::new();
        for label in &labels {
            let words = words(label);
            if words.is_empty() || !seen.insert(words) {
                return Err(ClassificationError::BadLabel {
                    label: label.clone(),
                });
            }
        }
        let counts = vec![0; labels.len() * (labels.len() + 1)];
        Ok(Self { labels, counts })
    }

    /// Counts one example: its gold class and the class answered, `None` where the answer named none.
    ///
    /// # Errors
    /// An index beyond the labels.
    pub fn add(
        &mut self,
        gold: usize,
        predicted: Option<usize>,
    ) -> Result<(), ClassificationError> {
        let classes = self.labels.len();
        for found in [Some(gold), predicted].into_iter().flatten() {
            if found >= classes {
                return Err(ClassificationError::OutOfRange {
                    found,
                    last: classes - 1,
                    labels: self.labels.clone(),
                });
            }
        }
        self.counts[gold * (classes + 1) + predicted.unwrap_or(classes)] += 1;
        Ok(())
    }

    /// Sets all counts to zero, for the next resample.
    pub fn clear(&mut self) {
        self.counts.fill(0);
    }

    /// The labels, in class order.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Examples of class `gold` answered with `predicted` (`None`: no label); 0 outside the matrix.
    pub fn count(&self, gold: usize, predicted: Option<usize>) -> u64 {
        let classes = self.labels.len();
        let column = predicted.unwrap_or(classes);
        if gold >= classes || column > classes || predicted == Some(classes) {
            return 0;
        }
        self.counts[gold * (classes + 1) + column]
    }

    /// One row per gold class, `classes + 1` counts each, the last of which is "no label".
    pub fn rows(&self) -> impl Iterator<Item = &[u64]> {
        self.counts.chunks(self.labels.len() + 1)
    }

    /// Examples in all.
    pub fn examples(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Examples whose answer named no label.
    pub fn unparsed(&self) -> u64 {
        self.rows().filter_map(|row| row.last()).sum()
    }

    /// Share of right answers; 0 without examples.
    pub fn accuracy(&self) -> f64 {
        let right = (0..self.labels.len()).map(|c| self.count(c, Some(c))).sum();
        share(right, self.examples())
    }

    /// Scores of every class.
    pub fn per_class(&self) -> Vec<ClassScore> {
        let scores = self.labels.iter().enumerate().map(|(class, label)| {
            let right = self.count(class, Some(class));
            let answered: u64 = self.rows().map(|row| row[class]).sum();
            let support: u64 = self.rows().nth(class).map_or(0, |row| row.iter().sum());
            ClassScore {
                label: label.clone(),
                precision: share(right, answered),
                recall: share(right, support),
                f1: share(2 * right, answered + support),
                support,
            }
        });
        scores.collect()
    }

    /// Plain mean of the classes' F1.
    pub fn macro_f1(&self) -> f64 {
        mean(&self.per_class(), |c| c.f1)
    }

    /// Plain mean of the classes' recall.
    pub fn macro_recall(&self) -> f64 {
        mean(&self.per_class(), |c| c.recall)
    }

    /// Correlation of gold and answered class over all classes (Gorodkin 2004), "no label" being one more answer.
    pub fn mcc(&self) -> f64 {
        let classes = self.labels.len();
        let gold: Vec<f64> = self
            .rows()
            .map(|row| row.iter().sum::<u64>() as f64)
            .collect();
        let answered: Vec<f64> = (0..=classes)
            .map(|k| self.rows().map(|row| row[k]).sum::<u64>() as f64)
            .collect();
        let right: u64 = (0..classes).map(|c| self.count(c, Some(c))).sum();
        let all = self.examples() as f64;
        let squares = |of: &[f64]| all * all - of.iter().map(|v| v * v).sum::<f64>();
        let together: f64 = gold.iter().zip(&answered).map(|(g, a)| g * a).sum();
        let scale = (squares(&gold) * squares(&answered)).sqrt();
        if scale > 0.0 {
            (right as f64 * all - together) / scale
        } else {
            0.0
        }
    }

    /// All scores.
    pub fn report(&self) -> ClassificationReport {
        let per_class = self.per_class();
        let examples = self.examples();
        let weighted: f64 = per_class.iter().map(|c| c.f1 * c.support as f64).sum();
        ClassificationReport {
            accuracy: self.accuracy(),
            macro_f1: mean(&per_class, |c| c.f1),
            macro_precision: mean(&per_class, |c| c.precision),
            macro_recall: mean(&per_class, |c| c.recall),
            weighted_f1: weighted / (examples.max(1)) as f64,
            mcc: self.mcc(),
            examples,
            unparsed: self.unparsed(),
            per_class,
        }
    }
}

/// `part / whole`, 0 where there is nothing to divide by.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

fn mean(classes: &[ClassScore], of: impl Fn(&ClassScore) -> f64) -> f64 {
    classes.iter().map(of).sum::<f64>() / classes.len() as f64
}

/// McNemar's exact test of two models' accuracy on the same examples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct McNemar {
    /// Examples only the base got right.
    pub only_base: u64,
    /// Examples only the adapter got right.
    pub only_adapted: u64,
    /// Two-sided: how often examples on which the models differ would split this unevenly were both
    /// equally good.
    pub p_value: f64,
}

/// Compares two models by the examples that exactly one of them got right (McNemar 1947): under equal
/// accuracy each of those is a fair coin. `base` and `adapted` say of every example whether the answer was
/// right.
///
/// # Errors
/// Lists of different lengths.
pub fn mcnemar_exact(base: &[bool], adapted: &[bool]) -> Result<McNemar, ClassificationError> {
    if base.len() != adapted.len() {
        return Err(ClassificationError::Lengths {
            base: base.len(),
            adapted: adapted.len(),
        });
    }
    let count = |want: (bool, bool)| {
        let pairs = base.iter().copied().zip(adapted.iter().copied());
        pairs.filter(|&pair| pair == want).count() as u64
    };
    let (only_base, only_adapted) = (count((true, false)), count((false, true)));
    Ok(McNemar {
        only_base,
        only_adapted,
        p_value: coin_p_value(only_base, only_adapted),
    })
}

/// Two-sided p-value of `a` heads and `b` tails of a fair coin.
fn coin_p_value(a: u64, b: u64) -> f64 {
    let (least, tosses) = (a.min(b), a + b);
    if a == b {
        return 1.0;
    }
    // ln of C(tosses, i) / 2^tosses, so that thousands of tosses neither overflow nor vanish.
    let mut log_term = -(tosses as f64) * std::f64::consts::LN_2;
    let mut tail = log_term.exp();
    for i in 0..least {
        log_term += ((tosses - i) as f64 / (i + 1) as f64).ln();
        tail += log_term.exp();
    }
    (2.0 * tail).min(1.0)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::float_cmp
)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64) {
        assert!(
            (found - expected).abs() < 1e-12,
            "{found} is not {expected}"
        );
    }

    #[test]
    fn scores_equal_scikit_learn_with_unparsed_answers() {
        // sklearn 1.x, labels=[0,1,2,3], zero_division=0, 4 standing for "no label".
        let gold = [0, 0, 1, 1, 2, 2, 2, 0, 3, 1];
        let answered = [0, 4, 1, 2, 2, 2, 0, 0, 4, 1];
        let mut m = ConfusionMatrix::new(["a", "b", "c", "d"]).unwrap();
        for (g, p) in gold.into_iter().zip(answered) {
            m.add(g, Some(p).filter(|&p| p < 4)).unwrap();
        }
        let rows: Vec<&[u64]> = m.rows().collect();
        let expected: [&[u64]; 4] = [
            &[2, 0, 0, 0, 1],
            &[0, 2, 1, 0, 0],
            &[1, 0, 2, 0, 0],
            &[0, 0, 0, 0, 1],
        ];
        assert_eq!(rows, expected);
        let report = m.report();
        close(report.accuracy, 0.6);
        close(report.macro_f1, 8.0 / 15.0);
        close(report.macro_recall, 0.5);
        close(m.macro_f1(), report.macro_f1);
        close(m.macro_recall(), report.macro_recall);
        assert_eq!((report.examples, report.unparsed), (10, 2));
        let f1: Vec<f64> = report.per_class.iter().map(|c| c.f1).collect();
        for (found, expected) in f1.iter().zip([2.0 / 3.0, 0.8, 2.0 / 3.0, 0.0]) {
            close(*found, expected);
        }
        assert_eq!(report.per_class[1].precision, 1.0);
        assert_eq!(report.per_class[3].support, 1);
    }

    #[test]
    fn scores_equal_the_stored_goldens() {
        let all = crate::evaluation::golden::cases();
        let cases = all
            .iter()
            .flat_map(|c| c.json["classification"].as_array().unwrap());
        for case in cases {
            let list =
                |key: &str| -> Vec<usize> { serde_json::from_value(case[key].clone()).unwrap() };
            let labels = list("labels_used");
            let place = |class: &usize| labels.iter().position(|l| l == class);
            let mut m = ConfusionMatrix::new(labels.iter().map(usize::to_string)).unwrap();
            for (gold, answered) in list("y_true").iter().zip(&list("y_pred")) {
                m.add(place(gold).unwrap(), place(answered)).unwrap();
            }
            let report = m.report();
            for (found, key) in [
                (report.accuracy, "accuracy"),
                (report.macro_f1, "macro_f1"),
                (report.macro_precision, "macro_precision"),
                (report.macro_recall, "macro_recall"),
                (report.weighted_f1, "weighted_f1"),
                (report.accuracy, "micro_f1"),
                (report.mcc, "mcc"),
            ] {
                close(found, case[key].as_f64().unwrap());
            }
            for (class, expected) in report
                .per_class
                .iter()
                .zip(case["per_class_f1"].as_array().unwrap())
            {
                close(class.f1, expected.as_f64().unwrap());
            }
            let counts: Vec<&[u64]> = m.rows().map(|row| &row[..labels.len()]).collect();
            assert_eq!(serde_json::json!(counts), case["confusion"]);
        }
    }

    #[test]
    fn an_empty_matrix_scores_zero() {
        let m = ConfusionMatrix::new(["yes", "no"]).unwrap();
        let report = m.report();
        assert_eq!(
            (report.accuracy, report.macro_f1, report.weighted_f1),
            (0.0, 0.0, 0.0)
        );
        let mut m = m;
        m.add(0, None).unwrap();
        assert_eq!((m.accuracy(), m.unparsed()), (0.0, 1));
        m.clear();
        assert_eq!(m.examples(), 0);
    }

    #[test]
    fn counts_outside_the_matrix_are_zero_or_refused() {
        let mut m = ConfusionMatrix::new(["yes", "no"]).unwrap();
        m.add(1, None).unwrap();
        assert_eq!(m.count(1, None), 1);
        assert_eq!(m.count(1, Some(2)), 0);
        assert_eq!(m.count(2, None), 0);
        assert!(m.add(2, None).is_err());
        let error = m.add(0, Some(2)).unwrap_err();
        assert!(error.to_string().contains("0 to 1"), "{error}");
    }

    #[test]
    fn labels_must_be_distinct() {
        assert_eq!(
            ConfusionMatrix::new(Vec::<String>::new()),
            Err(ClassificationError::NoLabels)
        );
        assert!(ConfusionMatrix::new(["Yes", "yes"]).is_err());
        assert!(ConfusionMatrix::new(["yes", " "]).is_err());
    }

    #[test]
    fn reads_the_label_an_answer_begins_with() {
        let labels = ["negative", "neutral", "positive"];
        for (answer, expected) in [
            ("positive", Some(2)),
            ("  Positive.\n", Some(2)),
            ("**NEGATIVE**, because it rained", Some(0)),
            ("\"neutral\"", Some(1)),
            ("«neutral»", Some(1)),
            ("positively", None),
            ("not positive", None),
            ("The review is positive", None),
            ("positive/negative", None),
            ("posi tive", None),
            ("", None),
            (" \n\t", None),
            ("...", None),
            ("🙂 positive", None),
        ] {
            assert_eq!(parse_label(answer, &labels), expected, "{answer:?}");
        }
    }

    #[test]
    fn labels_may_have_several_words_symbols_and_other_scripts() {
        let labels = [
            "good",
            "very good",
            "C",
            "C++",
            "-1",
            "+",
            "1",
            "Größe",
            "正面",
        ];
        for (answer, expected) in [
            ("Very  good!", Some(1)),
            ("very bad", None),
            ("good", Some(0)),
            ("c++", Some(3)),
            ("C", Some(2)),
            ("(c)", Some(2)),
            ("-1", Some(4)),
            ("1", Some(6)),
            ("1.", Some(6)),
            ("+", Some(5)),
            ("GRÖSSE", None),
            ("GRÖßE,", Some(7)),
            ("正面。", Some(8)),
        ] {
            assert_eq!(parse_label(answer, &labels), expected, "{answer:?}");
        }
        assert_eq!(parse_label::<&str>("anything", &[]), None);
        assert_eq!(parse_label("anything", &["", "  "]), None);
    }

    #[test]
    fn mcnemar_equals_scipy() {
        // scipy.stats.binomtest(b, b + c, 0.5).pvalue
        for (b, c, expected) in [
            (1, 9, 0.021_484_375),
            (12, 5, 0.143_463_134_765_625),
            (0, 0, 1.0),
            (3, 3, 1.0),
            (400, 480, 0.007_707_305_043_339_153),
            (0, 5, 0.0625),
        ] {
            let found = coin_p_value(b, c);
            assert!((found - expected).abs() < 1e-12, "{b} {c}: {found}");
            assert_eq!(found, coin_p_value(c, b));
        }
        // Far out the first terms underflow, but not the ones that matter.
        let p = coin_p_value(4_900, 5_100);
        assert!((p - 0.046_5).abs() < 1e-3, "{p}");
        assert_eq!(coin_p_value(0, 1_000_000), 0.0);
    }

    #[test]
    fn mcnemar_counts_disagreements_only() {
        let base = [true, true, false, false, true, false];
        let adapted = [true, false, true, true, true, false];
        let found = mcnemar_exact(&base, &adapted).unwrap();
        assert_eq!((found.only_base, found.only_adapted), (1, 2));
        close(found.p_value, 1.0);
        assert!(mcnemar_exact(&base, &adapted[1..]).is_err());
    }
}

//! Did it help? Scores of a base and its adapter on the same held-out examples, with the doubt that
//! comes from having only so many examples.
//!
//! | file | holds |
//! |---|---|
//! | `perplexity` | token-weighted loss and perplexity |
//! | `strided` | windows over texts longer than the context |
//! | `classification` | confusion matrix, accuracy, macro-F1, reading labels from answers, McNemar's test |
//! | `divergence` | how far one model has moved from another: KL, agreement, perplexity |
//! | `predictions` | everything about a classifier from (gold, predicted or probabilities) |
//! | `label_set` | which labels there are, and which is right |
//! | `likelihood` | the likeliest label of a causal model |
//! | `measured` | one metric of one model, and two models' compared |
//! | `calibration` | expected calibration error, Brier score |
//! | `bleu`, `rouge`, `answers` | text against text: BLEU, ROUGE, exact match and token F1 |
//! | `bertscore` | text against text by an encoder's vectors |
//! | `text_metric` | the text metrics by name, with intervals and paired comparison |
//! | `judge` | a language model as judge: both orders asked, wins and ties, consistency |
//! | `bootstrap`, `significance` | intervals for any statistic, paired differences, approximate randomization |
//!
//! Everything is a pure function of answers, losses, probabilities or vectors; what makes those lies elsewhere.

mod answers;
mod bertscore;
mod bleu;
mod bootstrap;
mod calibration;
mod classification;
mod divergence;
#[cfg(test)]
mod golden;
pub mod judge;
mod label_set;
mod likelihood;
mod measured;
mod metric_names;
mod perplexity;
mod predictions;
mod python_text;
mod rouge;
mod significance;
mod strided;
mod text_metric;

pub use answers::{exact_match, normalize_answer, token_f1};
pub use bertscore::{
    Baseline, BaselineError, BertScore, BertScoreConfig, BertScoreError, EmbedError, Embedder,
    TokenVectors, TokenWeights, bert_score,
};
pub use bleu::{
    BleuConfig, BleuScore, BleuSmoothing, BleuStatistics, BleuTokenizer, MAX_NGRAM_ORDER,
};
pub use bootstrap::{
    BootstrapConfig, BootstrapError, Interval, PairedDifference, bootstrap, bootstrap_mean,
    bootstrap_ratio, paired_bootstrap,
};
pub use calibration::{
    CALIBRATION_BINS, CalibrationBin, CalibrationError, CalibrationReport, calibration, likeliest,
};
pub use classification::{
    ClassScore, ClassificationError, ClassificationReport, ConfusionMatrix, McNemar, mcnemar_exact,
    parse_label,
};
pub use divergence::{Divergence, DivergenceReport};
pub use label_set::{LabelError, gold_classes, label_set};
pub use likelihood::{LabelLikelihoods, LikelihoodError, LikelihoodNorm, label_targets};
pub use measured::{Compared, MeasureError, Measured, Statistics, compare};
pub use metric_names::{METRICS, UnknownMetric, metric_names};
pub use perplexity::{ExampleLoss, PerplexityError, PerplexityReport, TokenLosses};
pub use predictions::{ClassMetric, PredictionError, PredictionReport, Predictions};
pub use rouge::{Rouge, RougeScore};
pub use significance::{Contributions, SignificanceTest, compare_sums, randomization_p_value};
pub use strided::{StrideError, Window, windows};
pub use text_metric::{TextMetric, TextMetricError, TextOptions, TextScores};

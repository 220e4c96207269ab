//! Did it help? Scores of a base and its adapter on the same held-out examples, with the doubt that
//! comes from having only so many examples.
//!
//! | file | holds |
//! |---|---|
//! | `perplexity` | token-weighted loss and perplexity |
//! | `classification` | confusion matrix, accuracy, macro-F1, reading labels from answers, McNemar's test |
//! | `bootstrap` | intervals for any statistic, paired differences |
//! | `judge` | a language model as judge: both orders asked, wins and ties, consistency |

mod bootstrap;
mod classification;
pub mod judge;
mod perplexity;

pub use bootstrap::{
    BootstrapConfig, BootstrapError, Interval, PairedDifference, bootstrap, bootstrap_mean,
    bootstrap_ratio, paired_bootstrap,
};
pub use classification::{
    ClassScore, ClassificationError, ClassificationReport, ConfusionMatrix, McNemar, mcnemar_exact,
    parse_label,
};
pub use perplexity::{ExampleLoss, PerplexityError, PerplexityReport, TokenLosses};

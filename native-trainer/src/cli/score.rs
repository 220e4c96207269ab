//! Flags of `trainer score`.

use std::path::PathBuf;

use clap::Args;

/// `trainer score`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
A pairs file has a column `reference` and a column `prediction`, or `base` and `adapted` as
`trainer generate --out` writes them; a reference may be a list of several.

Examples:
  trainer score --pairs answers.jsonl --metrics bleu,rouge,exact_match,token_f1
  trainer score --pairs answers.csv --metrics rouge --stemmer --out scores
  trainer score --pairs labels.jsonl --metrics accuracy,macro_f1 --labels negative,neutral,positive
  trainer score --predictions hyp.txt --references ref.txt --metrics bleu --json
  trainer score --pairs answers.jsonl --metrics bertscore --model ./all-MiniLM-L6-v2 --idf")]
pub(crate) struct ScoreArguments {
    /// Rows of predictions and references: JSONL, JSON, CSV, TSV or parquet.
    #[arg(
        long,
        required_unless_present = "predictions",
        conflicts_with = "predictions"
    )]
    pub(crate) pairs: Option<PathBuf>,
    /// Predictions, one a line.
    #[arg(long, requires = "references")]
    pub(crate) predictions: Option<PathBuf>,
    /// References, one a line, in the same order.
    #[arg(long, requires = "predictions")]
    pub(crate) references: Option<PathBuf>,
    /// bleu, rouge (or rouge1, rouge2, rougeL, rougeLsum), exact_match, token_f1, bertscore, accuracy, macro_f1,
    /// macro_recall.
    #[arg(long, value_delimiter = ',', required = true)]
    pub(crate) metrics: Vec<String>,
    /// Column of the predictions; twice for a base and its adapted model.
    #[arg(long = "prediction-column", value_name = "NAME")]
    pub(crate) prediction_column: Vec<String>,
    /// Column of the references.
    #[arg(long = "reference-column", value_name = "NAME")]
    pub(crate) reference_column: Option<String>,
    /// Write table.md, scores.csv, scores.json, per_example.csv and pictures into this folder.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// Labels, for accuracy, macro_f1 and macro_recall; those of the references when absent.
    #[arg(long, value_delimiter = ',')]
    pub(crate) labels: Vec<String>,
    #[command(flatten)]
    pub(crate) text: TextArguments,
    #[command(flatten)]
    pub(crate) bertscore: BertScoreArguments,
    #[command(flatten)]
    pub(crate) statistics: StatisticsArguments,
}

/// How text is compared.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Text metrics")]
pub(crate) struct TextArguments {
    /// ROUGE on word stems (Porter).
    #[arg(long)]
    pub(crate) stemmer: bool,
    /// BLEU's tokenizer.
    #[arg(long, default_value = "13a", value_parser = ["13a", "none", "intl", "char", "zh"])]
    pub(crate) bleu_tokenizer: String,
    /// BLEU without regard to case.
    #[arg(long)]
    pub(crate) bleu_lowercase: bool,
}

/// How an encoder compares text.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "BERTScore")]
pub(crate) struct BertScoreArguments {
    /// Folder or hub id of a BERT-class base.
    #[arg(long)]
    pub(crate) model: Option<PathBuf>,
    /// Layer whose vectors are compared, from 0, the embedding; the last when absent.
    #[arg(long)]
    pub(crate) layer: Option<usize>,
    /// Weigh tokens by how rare they are among the references.
    #[arg(long)]
    pub(crate) idf: bool,
    /// Rescale by this baseline file of bert-score (LAYER,P,R,F); needs --layer.
    #[arg(long, requires = "layer")]
    pub(crate) baseline: Option<PathBuf>,
}

/// How doubt is expressed.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Intervals and tests")]
pub(crate) struct StatisticsArguments {
    /// Test of the difference between two models' text scores.
    #[arg(long, default_value = "bootstrap", value_parser = ["bootstrap", "randomization"])]
    pub(crate) test: String,
    /// Draws of the examples.
    #[arg(long, default_value_t = 1000)]
    pub(crate) resamples: usize,
    /// Share of draws inside an interval.
    #[arg(long, default_value_t = 0.95)]
    pub(crate) level: f64,
    /// Seeds the draws.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
}

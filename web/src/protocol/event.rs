//! What the worker tells the page.

use qloom_core::adapters::gallery::AdapterFacts;
use qloom_core::merge::FidelityReport;
use serde::{Deserialize, Serialize};

/// An event. See [`super::Message`] for how it belongs to a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A device is open.
    Ready {
        /// Which.
        device: DeviceInfo,
    },
    /// Something long goes on.
    Progress {
        /// What.
        stage: Stage,
        /// Done so far: bytes, blocks or modules, as the stage says.
        done: u64,
        /// In all; 0 where unknown.
        total: u64,
        /// A second, over the last seconds; 0 where unknown.
        rate: f64,
    },
    /// A base is loaded.
    BaseLoaded {
        /// What it is.
        base: BaseInfo,
        /// Adapters of the last base that do not fit, by name.
        dropped: Vec<String>,
    },
    /// An adapter is resident.
    AdapterAdded {
        /// What it is.
        adapter: AdapterInfo,
    },
    /// An adapter is gone.
    AdapterRemoved {
        /// Its name.
        name: String,
    },
    /// A merge is resident.
    Merged {
        /// The merged adapter.
        adapter: AdapterInfo,
        /// How far it is from the true weighted update, and what is to be said.
        merge: MergeInfo,
    },
    /// A zip: attachment 0.
    Exported {
        /// A file name for it.
        file: String,
    },
    /// A piece of text of a column.
    Text {
        /// Index of the column.
        column: usize,
        /// The piece.
        text: String,
    },
    /// A column has ended.
    ColumnDone {
        /// Index of the column.
        column: usize,
        /// Why.
        finish: Finish,
        /// New tokens.
        tokens: usize,
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Until its first token, in steps of its own: what it would take alone.
        first_token_ms: f64,
        /// After the first token, in steps of its own.
        tokens_per_s: f64,
    },
    /// All columns have ended.
    Generated,
    /// Class probabilities.
    Classified {
        /// The classes.
        labels: Vec<String>,
        /// One list per column, in the order of `labels`; empty for a column without a classification head.
        probabilities: Vec<Vec<f64>>,
    },
    /// Losses of a text's tokens.
    TokenLosses {
        /// One list per column.
        columns: Vec<Vec<TokenLoss>>,
    },
    /// An evaluation goes on.
    EvalProgress {
        /// Index of the column at work.
        column: usize,
        /// Examples done in it.
        done: usize,
        /// Examples in all.
        total: usize,
    },
    /// Examples that are scored in every column.
    EvalRows {
        /// The examples.
        rows: Vec<EvalRow>,
    },
    /// An evaluation is done.
    Evaluated {
        /// One per column.
        columns: Vec<ColumnScores>,
        /// One per column after the first and metric: against the first.
        paired: Vec<Paired>,
        /// Rows that were left out, and other things to know, a sentence each.
        notes: Vec<String>,
    },
    /// A step of a training.
    TrainStep {
        /// From 1.
        step: u64,
        /// In all.
        total: u64,
        /// The loss descended on.
        loss: f64,
        /// The learning rate.
        lr: f64,
        /// Norm of the gradient before clipping.
        grad_norm: f64,
        /// Tokens a second.
        tokens_per_s: f64,
    },
    /// The request was ended by `Stop`; what was told until then stands.
    Stopped,
    /// Stored bases are gone.
    Cleared {
        /// Bytes freed.
        bytes: u64,
    },
    /// The request failed.
    Failed {
        /// Why.
        failure: Failure,
    },
    /// Something to know that is no failure, such as storage that had to fall back to memory.
    Note {
        /// A sentence.
        text: String,
    },
}

impl Event {
    /// Whether it ends its request.
    pub fn is_final(&self) -> bool {
        !matches!(
            self,
            Self::Progress { .. }
                | Self::Text { .. }
                | Self::ColumnDone { .. }
                | Self::EvalProgress { .. }
                | Self::EvalRows { .. }
                | Self::TrainStep { .. }
                | Self::Note { .. }
        )
    }
}

/// What is computed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// A GPU through WebGPU (through wgpu in native tests).
    WebGpu,
    /// The processor.
    Cpu,
}

/// The device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// Its kind.
    pub kind: DeviceKind,
    /// What the browser calls the adapter.
    pub name: String,
    /// Whether it computes in f16.
    pub f16: bool,
    /// Largest buffer in bytes; 0 for the CPU.
    pub max_buffer: u64,
    /// Why the CPU was taken, where it was.
    pub reason: Option<String>,
}

/// What goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Bytes come from the network.
    Download,
    /// Bytes come from storage.
    Restore,
    /// Blocks go to the device.
    Load,
    /// Modules are merged.
    Merge,
}

/// A loaded base.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BaseInfo {
    /// What it is called.
    pub name: String,
    /// `llama`, `mistral`, `qwen2`, `bert`, `distilbert`.
    pub architecture: String,
    /// Whether it answers with a class rather than with text.
    pub classifier: bool,
    /// Classes, where it answers with one.
    pub labels: Vec<String>,
    /// Values in its weights.
    pub parameters: u64,
    /// Bytes on the device.
    pub bytes: u64,
    /// `nf4` or `none`.
    pub quantization: String,
    /// Tokens it can see.
    pub context: usize,
    /// SHA-256 over its weights, as adapters record it; absent while a base is too large to be hashed in the page.
    pub fingerprint: Option<String>,
    /// Whether it has a chat template.
    pub chat: bool,
    /// Modules an adapter can target, by the last part of their path.
    pub modules: Vec<String>,
}

/// Where an adapter came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdapterOrigin {
    /// The site, with every hash checked.
    Gallery,
    /// A URL.
    Url,
    /// The visitor.
    File,
    /// A merge in the page.
    Merge,
    /// A training in the page.
    Training,
}

/// A resident adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdapterInfo {
    /// What the page calls it.
    pub name: String,
    /// Where it came from.
    pub origin: AdapterOrigin,
    /// Method, rank, alpha, targets, size.
    pub facts: AdapterFacts,
    /// The base it says it was trained on.
    pub base: Option<String>,
    /// SHA-256 of its `adapter_model.safetensors`.
    pub sha256: String,
    /// Bytes of it.
    pub bytes: u64,
    /// What does not match between its receipt and the base, and other things to know, a sentence each.
    pub warnings: Vec<String>,
}

/// What a merge came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MergeInfo {
    /// Its distance from the true weighted update.
    pub fidelity: FidelityReport,
    /// What to know, a sentence each.
    pub notes: Vec<String>,
    /// How long it took.
    pub ms: f64,
}

/// Why a column ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model wrote an end token.
    EndToken,
    /// A stop string appeared.
    StopString,
    /// The length was used up.
    Length,
}

/// A token of a scored text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenLoss {
    /// Its text.
    pub text: String,
    /// Its negative log-likelihood in nats; absent for tokens that are read only.
    pub nll: Option<f64>,
}

/// An example that was scored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalRow {
    /// Its line in the file, from 1.
    pub line: usize,
    /// What was asked.
    pub prompt: String,
    /// What was to be answered.
    pub reference: String,
    /// Per column, what was answered: generated text, or the label chosen.
    pub answers: Vec<Option<String>>,
    /// Per column, values by metric: `loss`, `correct` (0 or 1), `rougeL`, ...
    pub values: Vec<Vec<(String, f64)>>,
}

/// A score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// The trainer's name of it.
    pub name: String,
    /// Its value.
    pub value: f64,
    /// 95 % bootstrap interval.
    pub ci: Option<[f64; 2]>,
}

/// Scores of a column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColumnScores {
    /// Examples scored.
    pub examples: usize,
    /// Target tokens scored.
    pub tokens: u64,
    /// The scores.
    pub metrics: Vec<Metric>,
    /// Labels of the confusion matrix; empty where nothing was classified.
    pub labels: Vec<String>,
    /// Rows: true class; columns: predicted class, the last for answers that name none.
    pub confusion: Vec<Vec<u64>>,
    /// F1 per class.
    pub per_class_f1: Vec<f64>,
}

/// A metric of a column against that of the first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Paired {
    /// The trainer's name of the metric.
    pub metric: String,
    /// Index of the column, from 1.
    pub column: usize,
    /// Its value less the first column's.
    pub difference: f64,
    /// 95 % bootstrap interval of it.
    pub ci: [f64; 2],
    /// As the trainer tests it: McNemar's exact test for accuracy, the paired bootstrap for the others.
    pub p_value: f64,
}

/// What kind of failure it is, for what the page offers to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The request cannot be meant.
    Request,
    /// The network or a server.
    Network,
    /// A file that is not what its hash says.
    Integrity,
    /// A file that cannot be read.
    Format,
    /// An adapter of another base.
    Mismatch,
    /// It does not fit.
    Memory,
    /// The device is gone; the worker must be restarted.
    Device,
    /// The worker is broken; it must be restarted.
    Internal,
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Its kind.
    pub kind: FailureKind,
    /// What, where and what to do.
    pub message: String,
}

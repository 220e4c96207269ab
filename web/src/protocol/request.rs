//! What the page asks of the worker.

use qloom_core::generation::SamplingConfig;
use qloom_core::merge::{Method, Sign};
use serde::{Deserialize, Serialize};

use super::DeviceKind;

/// A request. Names of adapters are those the page chose when it added them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Request {
    /// Opens a device: WebGPU where there is one, else the CPU, unless `prefer` names one. Answer: `Ready`.
    Start {
        /// The kind to take; `None` takes the best there is.
        prefer: Option<DeviceKind>,
        /// The type to compute in; `None` takes f16 where the GPU has it. The CPU computes in f32.
        #[serde(default)]
        compute: Option<Compute>,
    },
    /// Loads a base in place of the present one; adapters that do not fit it are dropped, and said to be. Answer: `BaseLoaded`.
    LoadBase {
        /// Where it lies.
        source: BaseSource,
        /// What to make of it.
        #[serde(default)]
        options: BaseOptions,
    },
    /// Adds an adapter, checked against the base. Answer: `AdapterAdded`.
    AddAdapter {
        /// What to call it; one of the same name is replaced.
        name: String,
        /// Where it lies.
        source: AdapterSource,
    },
    /// Forgets an adapter. Answer: `AdapterRemoved`.
    RemoveAdapter {
        /// Its name.
        name: String,
    },
    /// Merges adapters into a new one under `name` (replaced if present). Answer: `Merged`.
    Merge {
        /// What to call the result.
        name: String,
        /// Which adapters, with what weights.
        members: Vec<MergeMember>,
        /// How.
        settings: MergeSettings,
    },
    /// The files of an adapter as a zip of PEFT's layout. Answer: `Exported`, the zip as attachment 0.
    Export {
        /// The adapter.
        name: String,
    },
    /// Continues a prompt in every column at once. Events: `Text` per piece, `ColumnDone` per column, then `Generated`.
    Generate {
        /// What to continue.
        prompt: Prompt,
        /// The models to compare.
        columns: Vec<Column>,
        /// How to sample; every column uses the same seed.
        sampling: SamplingConfig,
        /// What each column has said before: turns put before those of a chat prompt, one list per column. Empty where
        /// there are none or where all columns share them.
        #[serde(default)]
        histories: Vec<Vec<Turn>>,
    },
    /// Class probabilities of a text in every column; for classifiers. Answer: `Classified`.
    Classify {
        /// The text.
        text: String,
        /// The second of a pair.
        pair: Option<String>,
        /// The models to compare.
        columns: Vec<Column>,
    },
    /// The loss of every token of a text. Answer: `TokenLosses`.
    TokenLosses {
        /// Text that is read but not scored.
        prompt: Prompt,
        /// Text that is scored.
        text: String,
        /// The models to compare.
        columns: Vec<Column>,
    },
    /// Scores columns on a data file. Events: `EvalProgress`, `EvalRows`, then `Evaluated`.
    Evaluate {
        /// The file.
        data: DataSource,
        /// The models to compare; the first is what the others are paired with.
        columns: Vec<Column>,
        /// What to measure.
        options: EvalOptions,
    },
    /// Trains an adapter on the loaded base. Events: `TrainStep`, then `AdapterAdded`.
    Train {
        /// What to call the result.
        name: String,
        /// What to learn.
        examples: Vec<TrainExample>,
        /// How.
        settings: TrainSettings,
    },
    /// Ends the request `id` at its next token, example or step. It answers `Stopped`; this one has no answer of its own.
    Stop {
        /// The request to end.
        id: u64,
    },
    /// Removes everything stored of downloaded bases. Answer: `Cleared`.
    ClearCache,
    /// Pretends the device was lost, as a driver would report it; for tests of what happens then. Answer: `Failed`.
    LoseDevice,
}

/// A file that came with the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRef {
    /// Its name or path, as the visitor has it; `/`-separated.
    pub name: String,
    /// Index of the attachment with its bytes.
    pub attachment: usize,
}

/// Where a base lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum BaseSource {
    /// A folder at a URL: `config.json`, `tokenizer.json`, `model.safetensors` or shards with their index.
    Url {
        /// With or without a final slash.
        url: String,
        /// What it is called.
        name: String,
    },
    /// A repository of the Hugging Face hub, `owner/name[@revision]`.
    Hub {
        /// The repository.
        repository: String,
    },
    /// Files that were dropped on the page.
    Files {
        /// All of them.
        files: Vec<FileRef>,
    },
}

/// A type to compute in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compute {
    /// 32 bits.
    F32,
    /// 16 bits.
    F16,
}

/// How to load a base.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BaseOptions {
    /// Whether the blocks' weights are kept as NF4. `None`: as they are stored, and plain language models of more than 50
    /// million parameters as NF4.
    pub quantize: Option<bool>,
    /// What its fingerprint must be, where the page knows it (from a gallery). Other weights are fetched once more, then
    /// refused.
    pub fingerprint: Option<String>,
}

/// Where an adapter lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum AdapterSource {
    /// An entry of the site's gallery; every file is held to the hashes of its `entry.json`, and that to `entry_sha256`.
    Gallery {
        /// URL of the site's root.
        site: String,
        /// The entry's folder name.
        slug: String,
        /// SHA-256 of its `entry.json`, from the gallery.
        entry_sha256: String,
    },
    /// A folder at a URL with PEFT's two files.
    Url {
        /// With or without a final slash.
        url: String,
    },
    /// PEFT's files, or one zip of them, dropped on the page.
    Files {
        /// All of them.
        files: Vec<FileRef>,
    },
}

/// A model to compare: the base with adapters stacked on it, none for the base itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Column {
    /// Names of adapters; their updates add up.
    pub adapters: Vec<String>,
}

/// One adapter of a merge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MergeMember {
    /// Its name.
    pub name: String,
    /// Its weight; negative ones subtract.
    pub weight: f64,
}

/// How to merge: the arguments of `trainer merge`, with its defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MergeSettings {
    /// PEFT's name of the method.
    pub method: Method,
    /// Share of entries kept, for methods that prune.
    pub density: Option<f64>,
    /// How TIES elects signs.
    pub sign: Sign,
    /// Rank of the result, for methods that truncate.
    pub rank: Option<usize>,
    /// Quantile beyond which truncating methods clamp.
    pub clamp: Option<f64>,
    /// Seeds DARE.
    pub seed: u64,
    /// The true weighted sum, truncated once, instead of the method.
    pub exact: bool,
}

/// What is continued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "as", rename_all = "snake_case")]
pub enum Prompt {
    /// Text as it is, with the tokenizer's begin-of-text.
    Text {
        /// The text.
        text: String,
    },
    /// A conversation, rendered with the base's chat template and ready for the assistant.
    Chat {
        /// The turns, oldest first.
        turns: Vec<Turn>,
    },
}

/// A turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

/// Where a data file lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum DataSource {
    /// At a URL.
    Url {
        /// The file.
        url: String,
    },
    /// Dropped on the page, or pasted.
    File {
        /// The file.
        file: FileRef,
    },
}

/// What to measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EvalOptions {
    /// `perplexity`, `accuracy`, `macro_f1`, `exact_match`, `token_f1`, `bleu`, `rouge1`, `rouge2`, `rougeL`, `rougeLsum`: the
    /// trainer's names. Empty: what suits the data.
    pub metrics: Vec<String>,
    /// `messages`, `alpaca`, `dolly`, `prompt_completion`, `text`, `classification`, ...; detected when `None`.
    pub format: Option<String>,
    /// Labels of a classification, in order; those of the file when empty.
    pub labels: Vec<String>,
    /// Rows to score at most, from the first.
    pub limit: Option<usize>,
    /// Tokens kept of a row.
    pub max_length: usize,
    /// Sequences scored together.
    pub batch_size: usize,
    /// Settings for metrics of generated text.
    pub sampling: SamplingConfig,
}

impl Default for EvalOptions {
    fn default() -> Self {
        Self {
            metrics: Vec::new(),
            format: None,
            labels: Vec::new(),
            limit: None,
            max_length: 512,
            batch_size: 8,
            sampling: SamplingConfig::default(),
        }
    }
}

/// Something to learn in the page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainExample {
    /// What is asked.
    pub prompt: String,
    /// What is to be answered; the only text that is trained.
    pub completion: String,
}

/// How to train in the page: the trainer's names and meanings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainSettings {
    /// Rank of the update.
    pub rank: usize,
    /// Numerator of its scaling.
    pub alpha: f64,
    /// Optimizer steps.
    pub steps: u64,
    /// Examples a step.
    pub batch_size: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Modules to adapt, by the last part of their path.
    pub target_modules: Vec<String>,
    /// Order of the data and start of the adapter.
    pub seed: u64,
}

impl Default for TrainSettings {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 16.0,
            steps: 40,
            batch_size: 4,
            lr: 3e-3,
            target_modules: vec!["q_proj".to_owned(), "v_proj".to_owned()],
            seed: 0,
        }
    }
}

impl Default for MergeSettings {
    fn default() -> Self {
        Self {
            method: Method::Linear,
            density: None,
            sign: Sign::Total,
            rank: None,
            clamp: None,
            seed: 0,
            exact: false,
        }
    }
}

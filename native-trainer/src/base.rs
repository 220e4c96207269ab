//! Opening a base: a folder, a hub id, or the model embedded in the binary.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use burn::tensor::DType;
use qloom_core::data::{DataConfig, Format};
use qloom_core::models::Architecture;
use qloom_core::models::bert::{self, Bert, BertClassifier, BertConfig};
use qloom_core::models::embedding::EmbeddingPlace;
use qloom_core::models::llama::{self, Llama, LlamaConfig};
use qloom_core::models::load::{BaseQuantization, LoadError, LoadOptions};
use qloom_core::quantization::{SOURCE_FINGERPRINT, is_quantized};
use qloom_core::tokenizer::{Tokenizer, completed_config};
use qloom_core::weights::{SafetensorsSource, WeightSource, base_fingerprint};
use serde_json::{Map, Value};

use crate::commands::UsageError;
use crate::device::ChosenDevice;
use crate::files::base::BaseFolder;
use crate::hub::settings::HubSettings;
use crate::progress::{Mode, task};

/// The base inside the binary.
mod embedded {
    pub(super) const CONFIG: &[u8] = include_bytes!("../assets/base/config.json");
    pub(super) const WEIGHTS: &[u8] = include_bytes!("../assets/base/model.safetensors");
    pub(super) const TOKENIZER: &[u8] = include_bytes!("../assets/base/tokenizer.json");
    pub(super) const TOKENIZER_CONFIG: &[u8] =
        include_bytes!("../assets/base/tokenizer_config.json");
}

/// What the embedded base is called in adapters and reports.
pub(crate) const EMBEDDED_NAME: &str = "qloom/tiny-llama";

/// The files of a base, wherever they come from.
#[derive(Debug)]
pub(crate) struct BaseFiles {
    /// What the user called it; recorded in adapters.
    pub(crate) name: String,
    /// `config.json`, parsed.
    pub(crate) config: Map<String, Value>,
    tokenizer: Option<Vec<u8>>,
    tokenizer_config: Option<Vec<u8>>,
    chat_template: Option<Vec<u8>>,
    generation_config: Map<String, Value>,
    weights: Weights,
}

#[derive(Debug)]
enum Weights {
    Embedded,
    Folder(Box<BaseFolder>),
}

impl BaseFiles {
    /// Opens `base`: empty for the embedded one, a folder, or a hub id fetched on first use.
    pub(crate) fn open(base: &str) -> Result<Self> {
        if base.is_empty() {
            return Ok(Self {
                name: EMBEDDED_NAME.to_owned(),
                config: serde_json::from_slice(embedded::CONFIG)?,
                tokenizer: Some(embedded::TOKENIZER.to_vec()),
                tokenizer_config: Some(embedded::TOKENIZER_CONFIG.to_vec()),
                chat_template: None,
                generation_config: Map::new(),
                weights: Weights::Embedded,
            });
        }
        let settings = HubSettings::from_env(Mode::detect(false))?;
        let path: PathBuf = crate::hub::resolve_base(base, &settings)?;
        let folder = BaseFolder::open(&path)?;
        Ok(Self {
            name: base.to_owned(),
            config: folder.config.clone(),
            tokenizer: folder.tokenizer.clone(),
            tokenizer_config: tokenizer_config(&folder)?,
            generation_config: folder.generation_config.clone().unwrap_or_default(),
            chat_template: folder.chat_template.clone().map(String::into_bytes),
            weights: Weights::Folder(Box::new(folder)),
        })
    }

    /// Ids that end an answer: those of both configurations, the tokenizer's, and the template's end of turn.
    pub(crate) fn end_ids(&self, config: &LlamaConfig, tokenizer: &Tokenizer) -> Vec<u32> {
        qloom_core::generation::end_ids(config, &self.generation_config, tokenizer)
    }

    /// Bytes of its weight files.
    pub(crate) fn weight_bytes(&self) -> u64 {
        match &self.weights {
            Weights::Embedded => embedded::WEIGHTS.len() as u64,
            Weights::Folder(folder) => folder.weights.total_bytes(),
        }
    }

    /// Where it lies, unless it is embedded.
    pub(crate) fn path(&self) -> Option<&Path> {
        match &self.weights {
            Weights::Embedded => None,
            Weights::Folder(folder) => Some(&folder.path),
        }
    }

    /// The small files of the embedded base, which has no folder to copy them from.
    pub(crate) fn embedded_companions(&self) -> Vec<(&'static str, &'static [u8])> {
        match &self.weights {
            Weights::Embedded => vec![
                ("tokenizer.json", embedded::TOKENIZER),
                ("tokenizer_config.json", embedded::TOKENIZER_CONFIG),
            ],
            Weights::Folder(_) => Vec::new(),
        }
    }

    /// Its tensors, mapped.
    pub(crate) fn source(&self) -> Result<SafetensorsSource<&[u8]>> {
        let files = match &self.weights {
            Weights::Embedded => vec![("model.safetensors".to_owned(), embedded::WEIGHTS)],
            Weights::Folder(folder) => folder
                .weights
                .iter()
                .map(|(path, bytes)| (file_name(path), bytes))
                .collect(),
        };
        Ok(SafetensorsSource::new(files)?)
    }

    /// `config.json`, understood.
    pub(crate) fn architecture(&self) -> Result<Architecture> {
        let bytes = serde_json::to_vec(&self.config)?;
        Architecture::from_json(&bytes).with_context(|| format!("config.json of {}", self.name))
    }

    /// `config.json` of a language model.
    pub(crate) fn llama_config(&self) -> Result<LlamaConfig> {
        match self.architecture()? {
            Architecture::Llama(config) => Ok(*config),
            Architecture::Bert(config) => Err(UsageError::new(format!(
                "{} is an encoder ({:?}) that classifies text; this needs a language model that writes it. An encoder is \
                 used by train, eval, probe, data, plan, inspect, quantize, merge-into-base and generate",
                self.name, config.family
            ))
            .into()),
        }
    }

    /// `config.json` of an encoder.
    pub(crate) fn bert_config(&self) -> Result<BertConfig> {
        match self.architecture()? {
            Architecture::Bert(config) => Ok(*config),
            Architecture::Llama(_) => Err(UsageError::new(format!(
                "{} is a language model; this needs an encoder (model_type bert or distilbert)",
                self.name
            ))
            .into()),
        }
    }

    /// The tokenizer with its chat template.
    pub(crate) fn tokenizer(&self) -> Result<Tokenizer> {
        let bytes = match (&self.tokenizer, &self.weights) {
            (Some(bytes), _) => bytes.as_slice(),
            (None, Weights::Folder(folder)) => folder.require_tokenizer()?,
            (None, Weights::Embedded) => embedded::TOKENIZER,
        };
        Tokenizer::from_bytes(
            bytes,
            self.tokenizer_config.as_deref(),
            self.chat_template.as_deref(),
        )
        .with_context(|| format!("tokenizer of {}", self.name))
    }

    /// The tokenizer, or one that knows no text where the data are token ids already and the base
    /// comes without.
    pub(crate) fn tokenizer_for(&self, data: &DataConfig) -> Result<Tokenizer> {
        if self.tokenizer.is_none() && data.format == Some(Format::Tokens) {
            return Ok(Tokenizer::ids_only(self.architecture()?.vocab_size())?);
        }
        self.tokenizer()
    }

    /// Its `tokenizer.json`, where it has one.
    pub(crate) fn tokenizer_file(&self) -> Option<Vec<u8>> {
        self.tokenizer.clone()
    }

    /// Its `tokenizer_config.json`, completed.
    pub(crate) fn tokenizer_config_file(&self) -> Option<Vec<u8>> {
        self.tokenizer_config.clone()
    }

    /// Names and bytes of the files that render and read text, for a base derived from this one.
    pub(crate) fn text_files(&self) -> Vec<(&'static str, Vec<u8>)> {
        let files = [
            ("tokenizer.json", &self.tokenizer),
            ("tokenizer_config.json", &self.tokenizer_config),
            ("chat_template.jinja", &self.chat_template),
        ];
        files
            .into_iter()
            .filter_map(|(name, bytes)| Some((name, bytes.clone()?)))
            .collect()
    }

    /// Whether the base is stored as NF4.
    pub(crate) fn is_quantized(&self) -> Result<bool> {
        let source = self.source()?;
        Ok(source
            .names()
            .iter()
            .any(|name| is_quantized(&source, name)))
    }

    /// A hash over configuration and tensors; adapters record it.
    pub(crate) fn fingerprint(&self) -> Result<String> {
        let config = serde_json::to_vec(&self.config)?;
        Ok(base_fingerprint(&self.source()?, &config)?)
    }

    /// The fingerprints an adapter of this base may name: its own, and that of the dense base it was
    /// quantized from.
    pub(crate) fn fingerprints(&self) -> Result<Vec<String>> {
        let source = self.source()?;
        let dense = source.metadata().get(SOURCE_FINGERPRINT).cloned();
        Ok([self.fingerprint()?].into_iter().chain(dense).collect())
    }

    /// Loads the model onto `chosen`. `quantization` is `nf4`, `none` or `auto` (as stored).
    pub(crate) fn load(
        &self,
        chosen: &ChosenDevice,
        quantization: &str,
        double_quant: bool,
        dtype: DType,
    ) -> Result<Llama> {
        self.load_for(chosen, quantization, double_quant, dtype, 0)
    }

    /// Loads the model with room for sequences of `positions` tokens, where that is more than its
    /// configuration names.
    pub(crate) fn load_for(
        &self,
        chosen: &ChosenDevice,
        quantization: &str,
        double_quant: bool,
        dtype: DType,
        positions: usize,
    ) -> Result<Llama> {
        let config = self.llama_config()?;
        let options = LoadOptions {
            max_positions: Some(positions.max(config.max_position_embeddings)),
            ..self.load_options(quantization, double_quant, dtype)?
        };
        self.loading(config.num_hidden_layers, |source, progress| {
            llama::load(&config, source, options, &chosen.device, progress)
        })
    }

    /// Loads a classifier onto `chosen`, with whatever head the base has.
    pub(crate) fn load_classifier(
        &self,
        chosen: &ChosenDevice,
        quantization: &str,
        double_quant: bool,
        dtype: DType,
    ) -> Result<BertClassifier> {
        let config = self.bert_config()?;
        let options = self.load_options(quantization, double_quant, dtype)?;
        self.loading(config.num_hidden_layers, |source, progress| {
            bert::load_classifier(&config, source, options, &chosen.device, progress)
        })
    }

    /// Loads an encoder onto `chosen` without a head, to embed text with.
    pub(crate) fn load_encoder(
        &self,
        chosen: &ChosenDevice,
        quantization: &str,
        dtype: DType,
    ) -> Result<Bert> {
        let config = self.bert_config()?;
        let options = self.load_options(quantization, true, dtype)?;
        self.loading(config.num_hidden_layers, |source, progress| {
            bert::load_encoder(&config, source, options, &chosen.device, progress)
        })
    }

    fn load_options(
        &self,
        quantization: &str,
        double_quant: bool,
        dtype: DType,
    ) -> Result<LoadOptions> {
        let quantization = match quantization {
            "nf4" => BaseQuantization::Nf4 { double_quant },
            "none" => BaseQuantization::None,
            _ if self.is_quantized()? => BaseQuantization::Nf4 { double_quant },
            _ => BaseQuantization::None,
        };
        Ok(LoadOptions {
            quantization,
            dtype,
            max_positions: None,
            embedding: EmbeddingPlace::Device,
        })
    }

    /// Runs `load` over the base's tensors with a progress bar of `blocks` steps.
    fn loading<M>(
        &self,
        blocks: usize,
        load: impl FnOnce(&dyn WeightSource, &mut dyn FnMut(usize, usize)) -> Result<M, LoadError>,
    ) -> Result<M> {
        let label = format!("loading {}", self.name);
        let mut bar = task::Task::start(
            Mode::detect(false),
            &label,
            blocks as u64,
            task::Unit::Items,
        );
        let source = self.source()?;
        let model = load(&source, &mut |done, _| bar.at(done as u64))
            .with_context(|| format!("loading {}", self.name))?;
        bar.finish();
        Ok(model)
    }
}

/// `tokenizer_config.json`, completed by the special tokens that older tools keep in a file of their own.
fn tokenizer_config(folder: &BaseFolder) -> Result<Option<Vec<u8>>> {
    let bytes = |map: &Option<Map<String, Value>>| map.as_ref().map(serde_json::to_vec).transpose();
    let (config, special) = (
        bytes(&folder.tokenizer_config)?,
        bytes(&folder.special_tokens)?,
    );
    Ok(completed_config(config.as_deref(), special.as_deref())?)
}

/// Refuses a tokenizer whose ids the embedding has no row for.
pub(crate) fn check_vocabulary(
    tokenizer: &Tokenizer,
    config: &LlamaConfig,
    name: &str,
) -> Result<()> {
    check_rows(tokenizer, config.vocab_size, name)
}

/// Refuses a tokenizer whose ids an embedding of `rows` rows does not hold.
pub(crate) fn check_rows(tokenizer: &Tokenizer, rows: usize, name: &str) -> Result<()> {
    let size = tokenizer.vocab_size();
    anyhow::ensure!(
        size <= rows,
        "the tokenizer of {name} has {size} ids, but the model's embedding only {rows} rows (vocab_size in config.json): \
         they do not belong together; use the tokenizer the base was published with"
    );
    Ok(())
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

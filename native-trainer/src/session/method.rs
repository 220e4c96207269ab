//! What a run trains under its method, on which base, and what it leaves.

use std::io::BufWriter;
use std::path::Path;

use anyhow::{Context, Result};
use burn::tensor::DType;
use qloom_core::adapters::{LoraModule, PeftConfig, Receipt};
use qloom_core::lora::init::ResidualSource;
use qloom_core::lora::{BaseWeights, Method, Taken, subtraction};
use qloom_core::models::llama::LlamaConfig;
use qloom_core::quantization::{QuantizeOptions, quantize_checkpoint};
use qloom_core::tokenizer::Tokenizer;
use qloom_core::train::Parameters;
use serde_json::{Map, Value, json};

use super::adaptable::Adaptable;
use super::parameters::{initial_parameters, whole_parameters};
use super::{Artifact, receipt};
use crate::base::BaseFiles;
use crate::config::RunConfig;
use crate::device::ChosenDevice;
use crate::files::{atomic, read};

/// Folder of a run that holds the base an initialization asked for.
pub(crate) const RESIDUAL_BASE: &str = "base";
/// Folder of a run that holds its adapter.
pub(crate) const ADAPTER: &str = "adapter";
/// Folder of a run that holds the model it trained as a whole.
pub(crate) const MODEL: &str = "model";

/// What a run begins with.
#[derive(Debug)]
pub(super) struct Start {
    /// What is trained.
    pub(super) parameters: Parameters,
    /// `adapter_config.json` of the result; `None` where it is a whole model.
    pub(super) peft: Option<PeftConfig>,
    /// What the initialization took from the base.
    pub(super) taken: Taken,
}

/// The initial parameters of `config`'s method on a language model. Reads the base's files, not the device's model.
pub(super) fn start(
    config: &RunConfig,
    base: &BaseFiles,
    llama: &LlamaConfig,
    chosen: &ChosenDevice,
) -> Result<Start> {
    let source = base.source()?;
    let nf4 = config.model.quantization == "nf4";
    let weights = BaseWeights::new(&source, nf4, config.model.double_quant);
    if config.lora.method == Method::Full {
        let parameters = whole_parameters(llama, &source, &weights, chosen)?;
        return Ok(Start {
            parameters: parameters.with_method(&config.lora),
            peft: None,
            taken: Taken::Nothing,
        });
    }
    let (parameters, peft, taken) = initial_parameters(config, base, llama, &weights, chosen)?;
    Ok(Start {
        parameters: parameters.with_method(&config.lora),
        peft: Some(peft),
        taken,
    })
}

/// The base a run trains on, and the model it holds: the original, or what the method makes of it.
pub(super) struct Place<M> {
    /// The base that the adapter belongs to; `None` where it is the original one.
    own: Option<BaseFiles>,
    /// What is trained.
    pub(super) model: M,
}

impl Start {
    /// Puts the method on `original`. `folder` is the run's; the base an initialization asks for is written there once.
    pub(super) fn place<M: Adaptable>(
        &self,
        config: &RunConfig,
        base: &BaseFiles,
        original: &M,
        folder: &Path,
        chosen: &ChosenDevice,
        dtype: DType,
    ) -> Result<Place<M>> {
        let double_quant = config.model.double_quant;
        let (own, model) = match &self.taken {
            // Every weight is replaced, so the packed ones make room for dense ones of the compute type.
            Taken::Nothing if self.peft.is_none() => {
                (None, M::load(base, chosen, "none", double_quant, dtype)?)
            }
            Taken::Nothing => (None, original.clone()),
            Taken::Subtracted(pairs) => {
                let taken = subtraction(pairs, &original.device());
                (None, original.with(&taken))
            }
            Taken::Requantized(pairs) => {
                let own = residual_base(base, &M::stored(pairs, base)?, double_quant, folder)?;
                let model = M::load(&own, chosen, "nf4", double_quant, dtype)?;
                (Some(own), model)
            }
        };
        Ok(Place { own, model })
    }

    /// How a trained adapter becomes files; `None` where every weight is trained. `mark` adds to its receipt.
    pub(super) fn adapter<M>(
        &self,
        config: &RunConfig,
        base: &BaseFiles,
        place: &Place<M>,
        tokenizer: &Tokenizer,
        mark: impl FnOnce(Receipt) -> Receipt,
    ) -> Result<Option<Artifact>> {
        let Some(peft) = &self.peft else {
            return Ok(None);
        };
        let home = place.own.as_ref().unwrap_or(base);
        let mut peft = peft.clone();
        peft.base_model_name_or_path = Some(home.name.clone());
        let mut receipt = mark(receipt(home, tokenizer)?);
        receipt.rest.extend(facts(config));
        let subtracted = match &self.taken {
            Taken::Subtracted(pairs) => pairs.clone(),
            _ => Vec::new(),
        };
        Ok(Some(Artifact::Adapter {
            config: Box::new(peft),
            receipt: Box::new(receipt),
            subtracted,
        }))
    }

    /// The run's folder for the result.
    pub(super) fn folder(&self) -> &'static str {
        match self.peft {
            Some(_) => ADAPTER,
            None => MODEL,
        }
    }
}

impl<M: Adaptable> Place<M> {
    /// The model with the finished result in `folder`, read back from its files.
    pub(super) fn adapted(
        &self,
        start: &Start,
        base: &BaseFiles,
        original: &M,
        folder: &Path,
        chosen: &ChosenDevice,
        dtype: DType,
    ) -> Result<M> {
        if start.peft.is_none() {
            let whole = BaseFiles::open(&folder.to_string_lossy())?;
            return M::load(&whole, chosen, "none", true, dtype);
        }
        match &self.own {
            Some(own) => self.model.with_adapter(folder, own),
            None => original.with_adapter(folder, base),
        }
    }
}

/// How a whole language model becomes files.
pub(super) fn whole_model(base: &BaseFiles, llama: &LlamaConfig) -> Artifact {
    Artifact::Model {
        config: Box::new(llama.clone()),
        tokenizer: base.tokenizer_file().unwrap_or_default(),
        tokenizer_config: base.tokenizer_config_file(),
        nf4: false,
    }
}

/// Method and initialization for `qloom.json`.
fn facts(config: &RunConfig) -> Map<String, Value> {
    let lora = &config.lora;
    let mut facts = Map::new();
    facts.insert("method".into(), lora.method.to_string().into());
    facts.insert("init".into(), lora.init.to_string().into());
    if lora.method == Method::Sparse {
        facts.insert("density".into(), lora.density.into());
    }
    facts
}

/// The base without what an initialization took from it, in NF4, in the run's `folder`; written where it is not yet.
fn residual_base(
    base: &BaseFiles,
    pairs: &[LoraModule],
    double_quant: bool,
    folder: &Path,
) -> Result<BaseFiles> {
    let path = folder.join(RESIDUAL_BASE);
    if !path.is_dir() {
        write_residual(base, pairs, double_quant, &path)?;
    }
    BaseFiles::open(&path.to_string_lossy())
}

/// Writes the base without what an initialization took from it, in NF4.
fn write_residual(
    base: &BaseFiles,
    pairs: &[LoraModule],
    double_quant: bool,
    path: &Path,
) -> Result<()> {
    let source = base.source()?;
    let residual = ResidualSource::new(&source, pairs);
    let config = serde_json::to_vec(&base.config)?;
    let options = QuantizeOptions {
        double_quant,
        ..QuantizeOptions::default()
    };
    atomic::replace_folder(path, |folder| {
        let file = folder.join("model.safetensors");
        let sink = std::fs::File::create(&file)
            .with_context(|| format!("cannot create {}", file.display()))?;
        let (sink, report) = quantize_checkpoint(
            &residual,
            &config,
            &options,
            BufWriter::new(sink),
            |_, _| {},
        )?;
        sink.into_inner()
            .map_err(|e| e.into_error())
            .with_context(|| format!("writing {}", file.display()))?;
        atomic::write_file(&folder.join("config.json"), &report.config_json)?;
        for (name, bytes) in base.text_files() {
            atomic::write_file(&folder.join(name), &bytes)?;
        }
        Ok(())
    })?;
    eprintln!(
        "the initialization quantizes what it leaves of the base; written to {}, where the adapter belongs",
        path.display()
    );
    Ok(())
}

/// What a finished result is, for summaries and `metrics.json`.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    /// `lora.method`.
    pub(crate) method: String,
    /// `lora.init`.
    pub(crate) init: String,
    /// Trained values.
    pub(crate) trained_values: usize,
    /// Bytes of the weights file.
    pub(crate) bytes: u64,
    /// Share of rank-one components cut out, of sparse LoRA.
    pub(crate) sparsity: Option<f64>,
}

impl Summary {
    /// Looks at the files of a result in `folder`.
    pub(super) fn of(config: &RunConfig, trained_values: usize, folder: &Path) -> Result<Self> {
        let file = ["adapter_model.safetensors", "model.safetensors"]
            .map(|name| folder.join(name))
            .into_iter()
            .find(|path| path.is_file());
        let bytes = match file {
            Some(path) => std::fs::metadata(&path)
                .with_context(|| format!("cannot look at {}", path.display()))?
                .len(),
            None => 0,
        };
        let receipt = folder.join(qloom_core::adapters::RECEIPT);
        let sparsity = match receipt.is_file() {
            true => Receipt::from_json(&read(&receipt)?)?
                .rest
                .get("sparsity")
                .and_then(Value::as_f64),
            false => None,
        };
        Ok(Self {
            method: config.lora.method.to_string(),
            init: config.lora.init.to_string(),
            trained_values,
            bytes,
            sparsity,
        })
    }

    /// As an object of `metrics.json`.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "method": self.method,
            "init": self.init,
            "trained_values": self.trained_values,
            "bytes": self.bytes,
            "sparsity": self.sparsity,
        })
    }
}

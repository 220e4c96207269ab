//! Loading a base: finding its files, checking that it fits, streaming its weights to the device part by part.

mod folder;
mod limits;
mod meter;
mod text;
mod weights;

pub use folder::HUB;
pub(super) use folder::{Folder, whole};

use qloom_core::adapters::valid_targets;
use qloom_core::data::class_names;
use qloom_core::lora::Overlay;
use qloom_core::models::Architecture;
use qloom_core::models::bert::BertClassifier;
use qloom_core::models::embedding::EmbeddingPlace;
use qloom_core::models::llama::Llama;
use qloom_core::models::load::{BaseQuantization, LoadOptions};
use qloom_core::quantization::{QuantizationConfig, SOURCE_FINGERPRINT};
use qloom_core::tokenizer::Tokenizer;
use serde_json::Value;

use super::Surroundings;
use super::failure::Ended;
use super::state::State;
use super::task::Task;
use crate::protocol::{BaseInfo, BaseOptions, BaseSource, Event, Failure, FailureKind};
use limits::Estimate;
use text::Text;
use weights::Weights;

/// Plain language models of more values than this are kept as NF4, unless told otherwise: in f32 they would take more
/// than 200 MB.
const QUANTIZED_FROM: u64 = 50_000_000;

/// A model on the device.
#[derive(Clone)]
pub(super) enum Model {
    /// Writes text.
    Llama(Box<Llama>),
    /// Classifies it.
    Bert(Box<BertClassifier>),
}

impl Model {
    /// This model with `overlay` laid over it.
    pub(super) fn with(&self, overlay: &Overlay) -> Self {
        match self {
            Self::Llama(model) => Self::Llama(Box::new(model.with(overlay))),
            Self::Bert(model) => Self::Bert(Box::new(model.with(overlay))),
        }
    }
}

/// A base, loaded.
pub(super) struct Base {
    /// On the device.
    pub(super) model: Model,
    /// `config.json`, understood.
    pub(super) architecture: Architecture,
    /// With its chat template.
    pub(super) tokenizer: Tokenizer,
    /// Ids that end an answer.
    pub(super) end_ids: Vec<u32>,
    /// Its own fingerprint, then those of the same base in another form.
    pub(super) fingerprints: Vec<String>,
    /// What the page is told of it.
    pub(super) info: BaseInfo,
}

impl Base {
    /// The device it lies on.
    pub(super) fn device(&self) -> burn::tensor::Device {
        match &self.model {
            Model::Llama(model) => model.device(),
            Model::Bert(model) => model.device(),
        }
    }
}

/// Loads the base at `source` in place of the present one. Adapters that fit it stay.
pub(super) async fn load<S: Surroundings>(
    task: &Task<'_, S>,
    state: &mut State,
    source: BaseSource,
    options: &BaseOptions,
    files: Vec<S::File>,
) -> Result<(), Ended> {
    state.opened()?;
    let (mut folder, name) = folder::of_base(source, files)?;
    let mut again = true;
    let base = loop {
        let mut read = Vec::new();
        let ended = match load_once(task, state, &mut folder, &name, options, &mut read).await {
            Ok(base) => break base,
            Err(ended) => ended,
        };
        let damaged = matches!(
            &ended,
            Ended::Failed(f) if matches!(f.kind, FailureKind::Integrity | FailureKind::Format)
        );
        // What is stored may be what is damaged: it is fetched once more before anybody is troubled.
        if !(damaged && again && folder.forget(task.around(), &read).await) {
            return Err(ended);
        }
        again = false;
    };
    let info = base.info.clone();
    state.base = Some(base);
    let dropped = super::adapters::refit(state)?;
    task.emit(Event::BaseLoaded {
        base: info,
        dropped,
    });
    Ok(())
}

/// `read` gets the names of the files that were read.
async fn load_once<S: Surroundings>(
    task: &Task<'_, S>,
    state: &mut State,
    folder: &mut Folder<S::File>,
    name: &str,
    options: &BaseOptions,
    read: &mut Vec<String>,
) -> Result<Base, Ended> {
    let opened = state.opened()?.clone();
    let text = Text::read(task.around(), folder, read).await?;
    let config_json = &text.config_json;
    QuantizationConfig::from_config_json(config_json)?;
    let architecture = Architecture::from_json(config_json)?;
    let tokenizer = text.tokenizer(&architecture, name)?;
    let weights = Weights::open(task.around(), folder, read).await?;
    weights.validate(&architecture)?;

    let mut load = LoadOptions {
        quantization: BaseQuantization::None,
        dtype: opened.dtype,
        max_positions: None,
        embedding: embedding_place(&architecture),
    };
    let plain = weights.estimate(&architecture, &load);
    let nf4 = options.quantize.unwrap_or_else(|| {
        let large = plain.parameters > QUANTIZED_FROM;
        weights.is_nf4() || (large && matches!(architecture, Architecture::Llama(_)))
    });
    if nf4 {
        load.quantization = BaseQuantization::Nf4 { double_quant: true };
    }
    let estimate = weights.estimate(&architecture, &load);
    limits::check(&estimate, &opened, !nf4)?;
    if let Some(text) = limits::worth_saying(&estimate, &opened) {
        task.note(text);
    }

    // Two bases side by side may be more than there is room for.
    state.base = None;
    let (model, fingerprint) = weights
        .stream(task, &architecture, config_json, load, &opened.device)
        .await?;
    if let Some(expected) = options.fingerprint.as_ref().filter(|f| **f != fingerprint) {
        return Err(other_weights(name, expected, &fingerprint).into());
    }
    let dense = weights.metadata().get(SOURCE_FINGERPRINT).cloned();
    let info = describe(
        name,
        config_json,
        &architecture,
        &tokenizer,
        &model,
        &estimate,
        nf4,
    );
    Ok(Base {
        end_ids: text.end_ids(&architecture, &tokenizer),
        fingerprints: [fingerprint.clone()].into_iter().chain(dense).collect(),
        info: BaseInfo {
            fingerprint: Some(fingerprint),
            ..info
        },
        model,
        architecture,
        tokenizer,
    })
}

/// The word embeddings of a language model stay in the page's memory, in the type they are stored in, unless they are its
/// head too: a token needs one row of them, and they may be a fifth of a quantized model.
fn embedding_place(architecture: &Architecture) -> EmbeddingPlace {
    match architecture {
        Architecture::Llama(c) if !c.tie_word_embeddings => EmbeddingPlace::Host,
        _ => EmbeddingPlace::Device,
    }
}

fn other_weights(name: &str, expected: &str, found: &str) -> Failure {
    Failure::new(
        FailureKind::Integrity,
        format!(
            "the weights of {name} have the fingerprint {found}, and {expected} was expected: the files changed or are \
             damaged; the site that offers them has to be asked"
        ),
    )
}

fn describe(
    name: &str,
    config_json: &[u8],
    architecture: &Architecture,
    tokenizer: &Tokenizer,
    model: &Model,
    estimate: &Estimate,
    nf4: bool,
) -> BaseInfo {
    let config: Option<Value> = serde_json::from_slice(config_json).ok();
    let kind = config.as_ref().and_then(|c| c.get("model_type")?.as_str());
    let labels = match (architecture, model) {
        (Architecture::Bert(config), Model::Bert(model)) if model.head.parts().is_ok() => {
            let names = class_names(&config.labels);
            names
                .values()
                .filter_map(|v| Some(v.as_str()?.to_owned()))
                .collect()
        }
        _ => Vec::new(),
    };
    BaseInfo {
        name: name.to_owned(),
        architecture: kind.unwrap_or("llama").to_owned(),
        classifier: matches!(model, Model::Bert(_)),
        labels,
        parameters: estimate.parameters,
        bytes: estimate.bytes,
        quantization: if nf4 { "nf4" } else { "none" }.to_owned(),
        context: architecture.context(),
        fingerprint: None,
        chat: tokenizer.chat_template_source().is_some(),
        modules: valid_targets(&architecture.linear_modules()),
    }
}

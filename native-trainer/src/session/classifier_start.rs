//! What a run over an encoder trains under its method, on which base, and what it leaves: the encoder's side of
//! [`super::method`].

use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::tensor::DType;
use qloom_core::adapters::{LoraModule, PeftConfig};
use qloom_core::lora::{
    BaseWeights, Fresh, Method, Taken, Tensors, fresh, parameters_of, peft_config, subtraction,
};
use qloom_core::models::bert::{BertClassifier, BertConfig, Family, Prefixed};
use qloom_core::quantization::is_quantizable;
use qloom_core::tokenizer::Tokenizer;
use qloom_core::train::{Parameter, Parameters, Role};
use qloom_core::weights::WeightSource;
use serde_json::{Map, Value};

use super::classifier::{expected, labelled, load_classifier};
use super::{Artifact, Data, method, read_adapter, receipt};
use crate::base::BaseFiles;
use crate::config::RunConfig;
use crate::device::ChosenDevice;

/// What a run begins with.
#[derive(Debug)]
pub(super) struct Start {
    /// What is trained.
    pub(super) parameters: Parameters,
    /// `adapter_config.json` of the result; `None` where it is a whole classifier.
    peft: Option<PeftConfig>,
    taken: Taken,
}

/// The base a run trains on, and the classifier it holds: the original, or what the method makes of it.
pub(super) struct Place {
    /// The base that the adapter belongs to; `None` where it is the original one.
    own: Option<BaseFiles>,
    /// What is trained.
    pub(super) model: BertClassifier,
}

impl Start {
    /// The run's folder for the result.
    pub(super) fn folder(&self) -> &'static str {
        match self.peft {
            Some(_) => "adapter",
            None => "model",
        }
    }

    /// Puts the method on `original`. `folder` is the run's; a base that an initialization asks for is written there once.
    pub(super) fn place(
        &self,
        config: &RunConfig,
        base: &BaseFiles,
        original: &BertClassifier,
        folder: &Path,
        chosen: &ChosenDevice,
        dtype: DType,
    ) -> Result<Place> {
        let double_quant = config.model.double_quant;
        let (own, model) = match &self.taken {
            // Every weight is replaced, so the packed ones make room for dense ones of the compute type.
            Taken::Nothing if self.peft.is_none() => {
                let dense = base.load_classifier(chosen, "none", double_quant, dtype)?;
                (None, dense)
            }
            Taken::Nothing => (None, original.clone()),
            Taken::Subtracted(pairs) => {
                let taken = subtraction(pairs, &original.device());
                (None, original.with(&taken))
            }
            Taken::Requantized(pairs) => {
                let own = method::residual_base(base, &stored(pairs, base)?, double_quant, folder)?;
                let model = own.load_classifier(chosen, "nf4", double_quant, dtype)?;
                (Some(own), model)
            }
        };
        Ok(Place { own, model })
    }

    /// How trained parameters become files.
    pub(super) fn artifact(
        &self,
        config: &RunConfig,
        base: &BaseFiles,
        place: &Place,
        tokenizer: &Tokenizer,
        data: &Data,
    ) -> Result<Artifact> {
        let Some(peft) = &self.peft else {
            return Ok(Artifact::Classifier {
                config: serde_json::to_vec_pretty(&classifier_config(base, &data.labels)?)?,
                text_files: base.text_files(),
            });
        };
        let home = place.own.as_ref().unwrap_or(base);
        let mut peft = peft.clone();
        peft.base_model_name_or_path = Some(home.name.clone());
        let mut receipt = labelled(receipt(home, tokenizer)?, data);
        receipt.rest.extend(method::facts(config));
        let subtracted = match &self.taken {
            Taken::Subtracted(pairs) => pairs.clone(),
            _ => Vec::new(),
        };
        Ok(Artifact::Adapter {
            config: Box::new(peft),
            receipt: Box::new(receipt),
            subtracted,
        })
    }
}

impl Place {
    /// The classifier with the finished result in `folder`, read back from its files.
    pub(super) fn adapted(
        &self,
        start: &Start,
        base: &BaseFiles,
        original: &BertClassifier,
        folder: &Path,
        chosen: &ChosenDevice,
        dtype: DType,
    ) -> Result<BertClassifier> {
        if start.peft.is_none() {
            let whole = BaseFiles::open(&folder.to_string_lossy())?;
            return whole.load_classifier(chosen, "none", true, dtype);
        }
        let (home, model) = match &self.own {
            Some(own) => (own, &self.model),
            None => (base, original),
        };
        Ok(load_classifier(folder, home, model)?.model)
    }
}

/// `config.json` of a classifier of its own: the base's, with the classes' names and without a quantization.
fn classifier_config(base: &BaseFiles, labels: &[String]) -> Result<Map<String, Value>> {
    let bert = base.bert_config()?;
    let class = match bert.family {
        Family::Bert => "BertForSequenceClassification",
        Family::DistilBert => "DistilBertForSequenceClassification",
    };
    let mut config = base.config.clone();
    config.shift_remove("quantization_config");
    let numbered = labels.iter().enumerate();
    let names: Map<String, Value> = numbered
        .clone()
        .map(|(i, l)| (i.to_string(), l.as_str().into()))
        .collect();
    let ids: Map<String, Value> = numbered.map(|(i, l)| (l.clone(), i.into())).collect();
    config.insert("architectures".to_owned(), vec![class].into());
    config.insert("id2label".to_owned(), names.into());
    config.insert("label2id".to_owned(), ids.into());
    config.insert("dtype".to_owned(), "float32".into());
    config.shift_remove("torch_dtype");
    Ok(config)
}

/// `pairs` under the names that the base's files have for their modules.
fn stored(pairs: &[LoraModule], base: &BaseFiles) -> Result<Vec<LoraModule>> {
    let source = base.source()?;
    let names = Prefixed::new(&source, base.bert_config()?.family);
    let renamed = |pair: &LoraModule| {
        let weight = names.stored(&format!("{}.weight", pair.path));
        LoraModule {
            path: weight.trim_end_matches(".weight").to_owned(),
            ..pair.clone()
        }
    };
    Ok(pairs.iter().map(renamed).collect())
}

/// Every weight, from the values the base computes with; what it lacks of a head, afresh.
fn whole(
    bert: &BertConfig,
    classes: usize,
    source: &impl WeightSource,
    weights: &BaseWeights<'_>,
    seed: u64,
) -> Result<Tensors> {
    let head = bert.head_tensors(classes);
    let mut tensors = Vec::new();
    for (name, shape) in bert.expected_tensors(classes) {
        let fits = source.spec(&name).is_some_and(|s| s.shape == shape);
        let of_head = head.iter().any(|(n, _)| *n == name);
        let values = match name.strip_suffix(".weight") {
            Some(path) if is_quantizable(&name, &shape, &[]) => weights.effective(path)?,
            _ if of_head && !fits => bert.fresh_head_tensor(&name, &shape, seed),
            _ => source.get(&name)?.to_f32().map_err(|e| e.named(&name))?,
        };
        let role = Role::Weight;
        tensors.push((Parameter { name, shape, role }, values));
    }
    Ok(tensors)
}

/// The initial parameters of `config`'s method: a fresh adapter with the head beside it, the adapter to continue, the head
/// alone, or every weight.
pub(super) fn start(
    config: &RunConfig,
    base: &BaseFiles,
    model: &BertClassifier,
    classes: usize,
    chosen: &ChosenDevice,
) -> Result<Start> {
    let bert = &model.encoder.config;
    let device = &chosen.device;
    if let Some(folder) = &config.lora.adapter {
        let adapter = read_adapter(folder.as_ref())?;
        let (linears, tensors) = expected(bert, &adapter);
        adapter
            .validate(&linears, &tensors)
            .with_context(|| format!("adapter {folder} does not fit the base {}", base.name))?;
        let parameters = Parameters::new(parameters_of(&adapter, config.lora.dropout)?, device);
        let head = model.head.with(&parameters.overlay());
        let found = head.num_labels().unwrap_or(0);
        ensure!(
            found == classes,
            "adapter {folder} has a head for {found} classes, the data has {classes}: use the labels it was trained on, \
             or start a new adapter"
        );
        return Ok(Start {
            parameters,
            peft: Some(adapter.config),
            taken: Taken::Nothing,
        });
    }
    let source = base.source()?;
    let source = Prefixed::new(&source, bert.family);
    let nf4 = config.model.quantization == "nf4";
    let weights = BaseWeights::new(&source, nf4, config.model.double_quant);
    let seed = config.train.seed;
    if config.lora.method == Method::Full {
        let tensors = whole(bert, classes, &source, &weights, seed)?;
        return Ok(Start {
            parameters: Parameters::new(tensors, device),
            peft: None,
            taken: Taken::Nothing,
        });
    }
    let mut lora = config.lora.clone();
    lora.modules_to_save = bert.head_modules(&model.head);
    for module in &config.lora.modules_to_save {
        if !lora.modules_to_save.contains(module) {
            lora.modules_to_save.push(module.clone());
        }
    }
    let Fresh { mut tensors, taken } = match lora.method {
        Method::Head => Fresh::default(),
        _ => fresh(&lora, &bert.linear_modules(), seed, Some(&weights))?,
    };
    for module in &lora.modules_to_save {
        tensors.extend(saved_module(
            module,
            bert,
            classes,
            &source,
            config.train.seed,
        )?);
    }
    let parameters = Parameters::new(tensors, device).with_method(&lora);
    let mut peft = peft_config(&lora, &parameters, &base.name);
    peft.task_type = Some("SEQ_CLS".to_owned());
    Ok(Start {
        parameters,
        peft: Some(peft),
        taken,
    })
}

/// The tensors of a module trained in full: the base's values, or fresh ones for what it lacks of a head.
fn saved_module(
    module: &str,
    bert: &BertConfig,
    classes: usize,
    source: &impl WeightSource,
    seed: u64,
) -> Result<Vec<(Parameter, Vec<f32>)>> {
    let inside = |name: &str| format!(".{name}").contains(&format!(".{module}."));
    let head = bert.head_tensors(classes);
    let mut found = Vec::new();
    for (name, shape) in bert.expected_tensors(classes) {
        if !inside(&name) {
            continue;
        }
        let stored = source.spec(&name).is_some_and(|s| s.shape == shape);
        let of_head = head.iter().any(|(n, _)| *n == name);
        let values = if of_head && !stored {
            bert.fresh_head_tensor(&name, &shape, seed)
        } else {
            source
                .get(&name)?
                .to_f32()
                .with_context(|| format!("lora.modules_to_save: {name} is stored quantized"))?
        };
        found.push((
            Parameter {
                name,
                shape,
                role: Role::Weight,
            },
            values,
        ));
    }
    ensure!(
        !found.is_empty(),
        "lora.modules_to_save: {module:?} is no module of this model; it has classifier, {}, LayerNorm, word_embeddings",
        bert.linear_modules()
            .last()
            .map_or("", |(path, _)| path.as_str())
    );
    Ok(found)
}

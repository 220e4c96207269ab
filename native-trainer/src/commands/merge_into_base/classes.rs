//! Class probabilities of the merged encoder beside those of encoder and adapter.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::tensor::DType;
use qloom_core::data::{
    BatchOptions, BatchPlan, CollateOptions, DataConfig, Example, IGNORE, LabelNames, SourceLine,
    Task, class_names, collate,
};
use qloom_core::evaluation::Divergence;
use qloom_core::host::{block_on, to_vec};
use qloom_core::models::bert::{BertClassifier, BertConfig};
use serde_json::{Map, Value, json};

use super::BATCH;
use super::sample::{GENERATED, RANDOM, SEED, random_ids};
use crate::base::{BaseFiles, check_rows};
use crate::cli::MergeIntoBaseArguments;
use crate::commands::eval::parse_format;
use crate::corpus::{self, Kind, Split};
use crate::device::ChosenDevice;
use crate::progress::{Mode, task};
use crate::session::{Data, load_classifier};

/// The encoder with the adapter laid over it, and texts to try it on.
pub(super) struct Unmerged {
    model: BertClassifier,
    /// The classes' names, in their order.
    pub(super) labels: Vec<String>,
    pub(super) examples: Vec<Example>,
    pub(super) description: String,
    pad_id: u32,
}

impl Unmerged {
    /// Loads the base as it is stored, checks that the adapter belongs to it, and reads or makes the sample.
    pub(super) fn load(
        arguments: &MergeIntoBaseArguments,
        base: &BaseFiles,
        bert: &BertConfig,
        chosen: &ChosenDevice,
        dtype: DType,
    ) -> Result<Self> {
        let model = base.load_classifier(chosen, "auto", true, dtype)?;
        let loaded = load_classifier(&arguments.adapter, base, &model)?;
        let classes = loaded.model.head.num_labels().unwrap_or(0);
        let word = |name: &Value| {
            name.as_str()
                .map_or_else(|| name.to_string(), str::to_owned)
        };
        let labels: Vec<String> = match &loaded.label_names {
            Some(names) => names.values().map(word).collect(),
            None if bert.labels.len() == classes => bert.labels.clone(),
            None => (0..classes).map(|i| format!("LABEL_{i}")).collect(),
        };
        let names = loaded.label_names.unwrap_or_else(|| class_names(&labels));
        ensure!(
            labels.len() == classes,
            "adapter {} names the classes {labels:?}, and its head has {classes}",
            arguments.adapter.display()
        );
        let (examples, description, pad_id) = match &arguments.data {
            Some(path) => given(arguments, path, base, bert, names)?,
            None => generated(arguments, base, bert)?,
        };
        Ok(Self {
            model: loaded.model,
            labels,
            examples,
            description,
            pad_id,
        })
    }

    /// Compares it with `merged` on every text of the sample.
    pub(super) fn against(
        &self,
        merged: &BaseFiles,
        chosen: &ChosenDevice,
        dtype: DType,
    ) -> Result<Map<String, Value>> {
        let merged = merged.load_classifier(chosen, "auto", true, dtype)?;
        let plan = BatchPlan::new(&self.examples, BatchOptions::sequential(BATCH))?;
        let batches = plan.epoch(0);
        let total = batches.len() as u64;
        let mut bar = task::Task::start(Mode::detect(false), "comparing", total, task::Unit::Items);
        let mut divergence = Divergence::new();
        let (mut known, mut right) = (0u64, [0u64; 2]);
        for (done, rows) in batches.iter().enumerate() {
            let batch = collate(&self.examples, rows, CollateOptions::new(self.pad_id));
            let classes = self.labels.len();
            let [a, b] = [
                block_on(to_vec(self.model.logits(&batch)?))?,
                block_on(to_vec(merged.logits(&batch)?))?,
            ];
            let pairs = a.chunks(classes).zip(b.chunks(classes));
            for ((a, b), &index) in pairs.zip(&batch.examples) {
                let class = self.examples.get(index).and_then(|e| e.class);
                divergence.add(a, b, class.unwrap_or(usize::MAX));
                if let Some(class) = class {
                    known += 1;
                    let hits = [a, b].map(|logits| u64::from(likeliest(logits) == class));
                    right = [right[0] + hits[0], right[1] + hits[1]];
                }
            }
            bar.at(done as u64 + 1);
        }
        bar.finish();
        let found = divergence
            .report()
            .context("the sample has no text to compare on")?;
        let share = |right: u64| (known > 0).then(|| right as f64 / known as f64);
        let [reference, other] = right.map(share);
        let report = json!({
            "positions": found.positions,
            "kl_divergence": found.kl_divergence,
            "kl_largest": found.kl_largest,
            "argmax_agreement": found.argmax_agreement,
            "accuracy_reference": reference,
            "accuracy_other": other,
            "accuracy_drift": other.zip(reference).map(|(b, a)| b - a),
        });
        Ok(super::as_object(report))
    }
}

/// The first of the largest.
fn likeliest(logits: &[f32]) -> usize {
    (1..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best })
}

/// Labelled texts of the user's file.
fn given(
    arguments: &MergeIntoBaseArguments,
    path: &Path,
    base: &BaseFiles,
    bert: &BertConfig,
    names: Map<String, Value>,
) -> Result<(Vec<Example>, String, u32)> {
    let config = DataConfig {
        train: vec![path.display().to_string()],
        format: arguments.format.as_deref().map(parse_format).transpose()?,
        max_length: arguments.max_length,
        shuffle: false,
        label_names: Some(LabelNames::Map(names)),
        ..DataConfig::default()
    };
    let tokenizer = base.tokenizer_for(&config)?;
    check_rows(&tokenizer, bert.vocab_size, &base.name)?;
    let context = bert.max_position_embeddings;
    let task = Task::SequenceClassification;
    let mut examples = Data::load_for(&config, &tokenizer, context, task)?.train;
    examples.truncate(arguments.examples);
    Ok((examples, path.display().to_string(), tokenizer.pad_id()))
}

/// Generated reviews, or random ids where the base has no tokenizer; nobody says what their classes are.
fn generated(
    arguments: &MergeIntoBaseArguments,
    base: &BaseFiles,
    bert: &BertConfig,
) -> Result<(Vec<Example>, String, u32)> {
    let limit = arguments.max_length.unwrap_or(usize::MAX);
    let limit = limit.min(bert.max_position_embeddings);
    let example = |(line, (input_ids, token_type_ids)): (usize, (Vec<u32>, Vec<u32>))| Example {
        labels: vec![IGNORE; input_ids.len()],
        input_ids,
        token_type_ids,
        source: SourceLine {
            file: "the generated sample".to_owned(),
            line: line + 1,
        },
        class: None,
        truncated: false,
    };
    let Ok(tokenizer) = base.tokenizer() else {
        let ids = random_ids(bert.vocab_size, RANDOM[1].min(limit));
        let rows = ids.into_iter().map(|ids| (ids, Vec::new()));
        let description = "random token ids (the base has no tokenizer)".to_owned();
        return Ok((rows.enumerate().map(example).collect(), description, 0));
    };
    check_rows(&tokenizer, bert.vocab_size, &base.name)?;
    let texts = corpus::generate(SEED, Kind::Review, Split::HeldOut, GENERATED)?;
    let rows = texts
        .iter()
        .take(arguments.examples)
        .map(|document| {
            let encoded = tokenizer.encode_sequences(&document.text, None, limit, false)?;
            Ok((encoded.ids, encoded.type_ids))
        })
        .collect::<Result<Vec<_>>>()?;
    let examples = rows.into_iter().enumerate().map(example).collect();
    Ok((examples, "generated text".to_owned(), tokenizer.pad_id()))
}

//! What a merged adapter's receipt says about its making.

use super::{Fidelity, MergeOptions, Method, Sign, Source};
use crate::adapters::Receipt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;

/// Key of the record in `qloom.json`.
pub const MERGE_KEY: &str = "merge";

/// How an adapter was merged: the value of [`MERGE_KEY`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MergeRecord {
    /// The adapters, in order.
    pub sources: Vec<MergeSource>,
    /// The method's name, or `exact`.
    pub method: String,
    /// Share of entries kept.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub density: Option<f64>,
    /// How signs were elected.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sign: Option<Sign>,
    /// Quantile clamped to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub clamp: Option<f64>,
    /// Seed of the masks.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seed: Option<u64>,
    /// Rank of the result.
    pub rank: usize,
    /// Whether PEFT's errors were reproduced.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub peft: bool,
    /// Distance from the true weighted update, over all modules.
    pub fidelity: Fidelity,
}

/// One adapter of a merge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MergeSource {
    /// What the user called it.
    pub name: String,
    /// SHA-256 of its `adapter_model.safetensors`.
    pub sha256: String,
    /// Its weight.
    pub weight: f64,
}

impl MergeRecord {
    pub(super) fn new(
        sources: &[Source],
        options: &MergeOptions,
        rank: usize,
        fidelity: Fidelity,
    ) -> Self {
        let method: Option<Method> = (!options.exact).then_some(options.method);
        let is = |what: fn(Method) -> bool| method.is_some_and(what);
        let source = |(s, weight): (&Source, &f64)| MergeSource {
            name: s.name.clone(),
            sha256: s.sha256.clone(),
            weight: *weight,
        };
        Self {
            sources: sources.iter().zip(&options.weights).map(source).collect(),
            method: method.map_or("exact", Method::name).to_owned(),
            density: options.density.filter(|_| is(Method::prunes)),
            sign: is(Method::elects).then_some(options.sign),
            clamp: options.clamp,
            seed: is(Method::draws).then_some(options.seed),
            rank,
            peft: options.peft,
            fidelity,
        }
    }
}

/// The merged adapter's receipt: the sources' base, the chat template where they agree, and the record. Also returns what
/// had to be left out, in words.
pub(super) fn receipt(sources: &[Source], record: &MergeRecord) -> (Receipt, Vec<String>) {
    let receipts: Vec<&Receipt> = sources.iter().filter_map(|s| s.receipt.as_ref()).collect();
    let mut notes = Vec::new();
    let mut templates = receipts.iter().map(|r| &r.chat_template);
    let template = templates.next().cloned().flatten();
    let agree = templates.all(|t| *t == template);
    if !agree {
        notes.push(
            "the adapters were trained with different chat templates, so the merged one records none".to_owned(),
        );
    }
    let own = receipts.iter().find_map(|r| r.base_fingerprint.clone());
    let others: BTreeSet<String> = receipts
        .iter()
        .flat_map(|r| r.base_fingerprint.iter().chain(&r.equivalent_bases))
        .filter(|f| Some(*f) != own.as_ref())
        .cloned()
        .collect();
    let base = receipts.iter().find_map(|r| r.base.clone());
    let named = || {
        let name = |s: &Source| s.adapter.config.base_model_name_or_path.clone();
        sources.iter().find_map(name)
    };
    let mut receipt = Receipt {
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        base: base.or_else(named),
        base_fingerprint: own,
        equivalent_bases: others.into_iter().collect(),
        chat_template: template.filter(|_| agree),
        ..Receipt::default()
    };
    let value = serde_json::to_value(record).unwrap_or(Value::Null);
    receipt.rest.insert(MERGE_KEY.to_owned(), value);
    (receipt, notes)
}

//! The adapters of a merge, and whether they belong together.

use super::{MergeError, MergeOptions};
use crate::adapters::{Adapter, LoraModule, Receipt};
use crate::lora::Kind;
use crate::weights::sha256_hex;

/// One adapter to merge.
#[derive(Clone, Debug)]
pub struct Source {
    /// What the user calls it.
    pub name: String,
    /// The adapter.
    pub adapter: Adapter,
    /// Its `qloom.json`, where there is one.
    pub receipt: Option<Receipt>,
    /// SHA-256 of its `adapter_model.safetensors`.
    pub sha256: String,
}

impl Source {
    /// From the bytes of `adapter_config.json`, `adapter_model.safetensors` and, where there is one, `qloom.json`.
    ///
    /// # Errors
    /// [`MergeError::Source`], naming the adapter.
    pub fn from_bytes(
        name: &str,
        config_json: &[u8],
        safetensors: &[u8],
        receipt_json: Option<&[u8]>,
    ) -> Result<Self, MergeError> {
        let named = |e| MergeError::Source {
            name: name.to_owned(),
            source: Box::new(e),
        };
        Ok(Self {
            name: name.to_owned(),
            adapter: Adapter::from_bytes(config_json, safetensors).map_err(named)?,
            receipt: receipt_json
                .map(Receipt::from_json)
                .transpose()
                .map_err(named)?,
            sha256: sha256_hex(safetensors),
        })
    }

    /// The base's fingerprints that its receipt accepts.
    fn fingerprints(&self) -> Vec<&str> {
        let Some(receipt) = &self.receipt else {
            return Vec::new();
        };
        let own = receipt.base_fingerprint.iter();
        own.chain(&receipt.equivalent_bases)
            .map(String::as_str)
            .collect()
    }

    /// Its pairs, every value a number.
    pub(super) fn modules(&self) -> Result<Vec<LoraModule>, MergeError> {
        refuse_other_methods(&self.name, &self.adapter)?;
        let modules = self.adapter.modules().map_err(|e| MergeError::Source {
            name: self.name.clone(),
            source: Box::new(e),
        })?;
        for m in &modules {
            for (values, half) in [(&m.a, "lora_A"), (&m.b, "lora_B")] {
                if !values.iter().all(|v| v.is_finite()) {
                    return Err(MergeError::NotFinite {
                        adapter: self.name.clone(),
                        tensor: format!("{}.{half}.weight", m.path),
                    });
                }
            }
        }
        Ok(modules)
    }
}

/// Refuses adapters whose update is not `scaling · B·A`.
fn refuse_other_methods(name: &str, adapter: &Adapter) -> Result<(), MergeError> {
    let unsupported = |found: String| MergeError::Unsupported {
        adapter: name.to_owned(),
        found,
    };
    if !matches!(adapter.kind(), Kind::Lora | Kind::Sparse) {
        return Err(unsupported(adapter.kind().to_string()));
    }
    match adapter.saved().keys().find(|k| k.contains("lora_")) {
        Some(key) => Err(unsupported(format!("tensor {key}"))),
        None => Ok(()),
    }
}

/// Holds every source to the first: same task, same base.
///
/// Returns what could not be checked.
pub(super) fn check_together(
    sources: &[Source],
    options: &MergeOptions,
) -> Result<Vec<String>, MergeError> {
    let mut notes = Vec::new();
    for (at, second) in sources.iter().enumerate().skip(1) {
        let first = &sources[0];
        check_task(first, second)?;
        // Any earlier adapter with a fingerprint will do: the first may come without a receipt.
        let known = sources[..at].iter().find(|s| !s.fingerprints().is_empty());
        match known {
            Some(known) if !second.fingerprints().is_empty() => check_fingerprints(known, second)?,
            _ => check_names(first, second, options)?,
        }
    }
    let unsigned: Vec<&str> = sources
        .iter()
        .filter(|s| s.fingerprints().is_empty())
        .map(|s| s.name.as_str())
        .collect();
    if !unsigned.is_empty() && sources.len() > 1 {
        notes.push(format!(
            "no receipt says on which weights {} {} trained; only names and shapes were compared",
            unsigned.join(", "),
            if unsigned.len() == 1 { "was" } else { "were" }
        ));
    }
    Ok(notes)
}

fn check_task(first: &Source, second: &Source) -> Result<(), MergeError> {
    let (Some(a), Some(b)) = (
        &first.adapter.config.task_type,
        &second.adapter.config.task_type,
    ) else {
        return Ok(());
    };
    if a == b {
        return Ok(());
    }
    Err(MergeError::Task {
        first: first.name.clone(),
        first_task: a.clone(),
        second: second.name.clone(),
        second_task: b.clone(),
    })
}

fn check_fingerprints(first: &Source, second: &Source) -> Result<(), MergeError> {
    let (a, b) = (first.fingerprints(), second.fingerprints());
    if a.iter().any(|f| b.contains(f)) {
        return Ok(());
    }
    let shown = |s: &Source, f: &[&str]| {
        let name = s.receipt.as_ref().and_then(|r| r.base.clone());
        let name = name.unwrap_or_else(|| s.adapter.config.base_name().to_owned());
        format!("{name} (fingerprint {})", f.first().unwrap_or(&"none"))
    };
    Err(MergeError::OtherBase {
        first: first.name.clone(),
        first_base: shown(first, &a),
        second: second.name.clone(),
        second_base: shown(second, &b),
        remedy: "merge adapters of one base",
    })
}

fn check_names(first: &Source, second: &Source, options: &MergeOptions) -> Result<(), MergeError> {
    let name = |s: &Source| s.adapter.config.base_model_name_or_path.clone();
    match (name(first), name(second)) {
        (Some(a), Some(b)) if a != b && !options.same_base => Err(MergeError::OtherBase {
            first: first.name.clone(),
            first_base: a,
            second: second.name.clone(),
            second_base: b,
            remedy: "if these are two names of one model, say so with --same-base",
        }),
        _ => Ok(()),
    }
}

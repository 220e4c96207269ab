//! `qloom.json`, beside an adapter's two files: on which weights and with which chat template it was trained.
//!
//! PEFT ignores the file. Here it turns two silent mistakes into messages: an adapter on other weights of the same shape, and
//! prompts rendered in another format than those it learned from.

use super::AdapterError;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The file's name in the adapter's folder.
pub const RECEIPT: &str = "qloom.json";

/// Key under which the classes' names travel with a classifier's adapter: raw label to word, in class order.
pub const LABELS: &str = "labels";

/// What an adapter was made from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Receipt {
    /// Version of the tool that wrote it.
    pub tool_version: String,
    /// The base's name as given.
    pub base: Option<String>,
    /// [`crate::weights::base_fingerprint`] of the base.
    pub base_fingerprint: Option<String>,
    /// Fingerprints of the same base in another form: the dense model of a quantized one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub equivalent_bases: Vec<String>,
    /// The chat template's text; `None` where the data had none.
    pub chat_template: Option<String>,
    /// Every other key, as it was.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// Something to tell the user before going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiptWarning {
    /// The adapter learned from prompts in another chat template.
    ChatTemplate,
    /// The receipt has no fingerprint to check.
    NoFingerprint,
}

impl std::fmt::Display for ReceiptWarning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ChatTemplate => {
                "the adapter was trained with another chat template than this base has; its own is used for prompts"
            }
            Self::NoFingerprint => "the adapter does not say on which weights it was trained; only shapes were checked",
        })
    }
}

impl Receipt {
    /// Reads the bytes of a `qloom.json`.
    pub fn from_json(bytes: &[u8]) -> Result<Self, AdapterError> {
        serde_json::from_slice(bytes).map_err(json)
    }

    /// The bytes of a `qloom.json`.
    pub fn to_json(&self) -> Result<Vec<u8>, AdapterError> {
        let mut bytes = serde_json::to_vec_pretty(self).map_err(json)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Raw label to word, in class order, where the adapter is a classifier's.
    pub fn label_names(&self) -> Option<&Map<String, Value>> {
        self.rest.get(LABELS)?.as_object()
    }

    /// Checks the receipt against a base: its fingerprint first, then those of other forms of it, and its chat template.
    ///
    /// # Errors
    /// [`AdapterError::Fingerprint`] where the receipt names a fingerprint and none of the base's is among those it accepts.
    pub fn check(
        &self,
        base_fingerprints: &[&str],
        chat_template: Option<&str>,
    ) -> Result<Vec<ReceiptWarning>, AdapterError> {
        let mut warnings = Vec::new();
        match &self.base_fingerprint {
            None => warnings.push(ReceiptWarning::NoFingerprint),
            Some(own) => {
                let mut accepted = self.equivalent_bases.iter().chain([own]);
                if !accepted.any(|f| base_fingerprints.contains(&f.as_str())) {
                    return Err(AdapterError::Fingerprint {
                        base: self
                            .base
                            .clone()
                            .unwrap_or_else(|| "an unnamed base".into()),
                        expected: own.clone(),
                        found: base_fingerprints.first().unwrap_or(&"none").to_string(),
                    });
                }
            }
        }
        if self.chat_template.is_some() && self.chat_template.as_deref() != chat_template {
            warnings.push(ReceiptWarning::ChatTemplate);
        }
        Ok(warnings)
    }
}

fn json(e: serde_json::Error) -> AdapterError {
    AdapterError::Json {
        file: RECEIPT,
        reason: e.to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn another_base_is_an_error_and_another_template_a_warning() {
        let r = Receipt {
            tool_version: "0.1.0".into(),
            base: Some("some/base".into()),
            base_fingerprint: Some("nf4".into()),
            equivalent_bases: vec!["dense".into()],
            chat_template: Some("{{ x }}".into()),
            rest: Map::from_iter([("data".to_string(), Value::from("hash"))]),
        };
        assert_eq!(Receipt::from_json(&r.to_json().unwrap()).unwrap(), r);
        assert_eq!(r.check(&["nf4"], Some("{{ x }}")).unwrap(), []);
        assert_eq!(
            r.check(&["other form", "dense"], None).unwrap(),
            [ReceiptWarning::ChatTemplate]
        );
        let e = r.check(&["foreign"], None).unwrap_err().to_string();
        assert!(
            e.contains("some/base") && e.contains("nf4") && e.contains("foreign"),
            "{e}"
        );
        assert_eq!(
            Receipt::default().check(&[], Some("t")).unwrap(),
            [ReceiptWarning::NoFingerprint]
        );
        assert!(Receipt::from_json(b"{").is_err());
    }
}

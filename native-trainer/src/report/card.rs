//! An adapter's README.md: the model card the hub and PEFT users expect.
//!
//! YAML front matter (`base_model`, `library_name`, `tags`, `model-index`), then what was trained on what, how well it
//! does on held-out data, how to use it. Source: the hub's "Model Cards" page and its `model-index` specification.
//! Strings are written as JSON, which YAML reads as it is.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::json;

use super::markdown;
use super::numbers;
use super::scores::{Sample, TaskScores, score_rows};

/// Data an adapter was trained or scored on.
#[derive(Clone, Debug)]
pub(crate) struct DataUsed {
    /// Path or hub id.
    pub(crate) name: String,
    /// `train`, `eval`.
    pub(crate) role: String,
    /// Rows used.
    pub(crate) rows: u64,
    /// Target tokens, of one pass, where they were counted.
    pub(crate) tokens: Option<u64>,
    /// SHA-256 of the file, in hex.
    pub(crate) sha256: String,
}

/// What a card says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Card {
    /// The adapter's name.
    pub(crate) name: String,
    /// A sentence about it, where its author wrote one.
    pub(crate) description: Option<String>,
    /// The base, as given: a hub id or a folder.
    pub(crate) base: String,
    /// SHA-256 that identifies the base.
    pub(crate) base_sha256: String,
    /// `text-generation` or `text-classification`.
    pub(crate) pipeline: String,
    /// SPDX identifier, where the author chose one.
    pub(crate) license: Option<String>,
    /// Name and value: quantization, rank, alpha, target modules, steps, seed, ...
    pub(crate) settings: Vec<(String, String)>,
    /// Data used.
    pub(crate) data: Vec<DataUsed>,
    /// Base against adapted.
    pub(crate) scores: Vec<TaskScores>,
    /// A few prompts answered by both.
    pub(crate) samples: Vec<Sample>,
    /// The resolved configuration, as TOML.
    pub(crate) config: String,
    /// The trainer's version.
    pub(crate) version: String,
}

impl Card {
    /// The card's text.
    pub(crate) fn render(&self) -> String {
        let mut text = self.front_matter();
        let _ = write!(
            text,
            "\n# {}\n\nAn adapter for `{}`, trained with Qloom {}. It holds no base weights: load it on the base named here, \
             whose SHA-256 is `{}`.\n",
            markdown::inline(&self.name),
            self.base.replace('`', "'"),
            self.version,
            self.base_sha256
        );
        if let Some(description) = &self.description {
            let _ = write!(text, "\n{}\n", markdown::inline(description));
        }
        if !self.scores.is_empty() {
            let (header, rows) = score_rows(&self.scores);
            let _ = write!(
                text,
                "\n## Scores\n\nOn examples held out from training, brackets are confidence intervals, the number of examples stands \
                 behind the task.\n\n{}",
                markdown::table(&header, &rows)
            );
        }
        if !self.samples.is_empty() {
            let header = ["prompt", "reference", "base", "adapted"].map(str::to_owned);
            let rows: Vec<Vec<String>> = self
                .samples
                .iter()
                .map(|s| {
                    let reference = s.reference.clone().unwrap_or_else(|| "-".into());
                    vec![
                        s.prompt.clone(),
                        reference,
                        s.base.clone(),
                        s.adapted.clone(),
                    ]
                })
                .collect();
            let _ = write!(
                text,
                "\n## Before and after\n\n{}",
                markdown::table(&header, &rows)
            );
        }
        if !self.data.is_empty() {
            let header =
                ["data", "used for", "rows", "target tokens", "SHA-256"].map(str::to_owned);
            let rows: Vec<Vec<String>> = self
                .data
                .iter()
                .map(|d| {
                    vec![
                        d.name.clone(),
                        d.role.clone(),
                        numbers::count(d.rows),
                        d.tokens.map_or_else(|| "-".into(), numbers::count),
                        d.sha256.clone(),
                    ]
                })
                .collect();
            let _ = write!(text, "\n## Data\n\n{}", markdown::table(&header, &rows));
        }
        let _ = write!(
            text,
            "\n## Use\n\n{}\n{}",
            markdown::fenced("sh", &self.shell()),
            markdown::fenced("python", &self.python())
        );
        if !self.settings.is_empty() {
            let header = ["setting", "value"].map(str::to_owned);
            let rows: Vec<Vec<String>> = self
                .settings
                .iter()
                .map(|(n, v)| vec![n.clone(), v.clone()])
                .collect();
            let _ = write!(text, "\n## Training\n\n{}", markdown::table(&header, &rows));
        }
        if !self.config.is_empty() {
            let _ = write!(
                text,
                "\nThe whole configuration:\n\n{}",
                markdown::fenced("toml", &self.config)
            );
        }
        text
    }

    fn front_matter(&self) -> String {
        let mut yaml = String::from("---\n");
        // The hub takes ids only; a folder on someone's disk would be an invalid card.
        let on_hub = crate::hub::reference::RepoRef::parse(&self.base).ok();
        let mut tags = vec!["lora".to_owned(), "qlora".to_owned(), "qloom".to_owned()];
        if let Some(repo) = on_hub {
            let _ = writeln!(yaml, "base_model: {}", json!(repo.id));
            tags.push(format!("base_model:adapter:{}", repo.id));
        }
        yaml.push_str("library_name: peft\n");
        let _ = writeln!(yaml, "pipeline_tag: {}", json!(self.pipeline));
        if let Some(license) = &self.license {
            // The hub's identifiers are SPDX's in lower case.
            let _ = writeln!(yaml, "license: {}", json!(license.to_lowercase()));
        }
        yaml.push_str("tags:\n");
        for tag in tags {
            let _ = writeln!(yaml, "- {}", json!(tag));
        }
        let measured = |task: &&TaskScores| task.metrics.iter().any(|m| m.adapted.is_some());
        let results: Vec<&TaskScores> = self.scores.iter().filter(measured).collect();
        let names: BTreeSet<&str> = results
            .iter()
            .flat_map(|task| task.metrics.iter().map(|m| m.name.as_str()))
            .collect();
        if !names.is_empty() {
            yaml.push_str("metrics:\n");
        }
        for name in names {
            let _ = writeln!(yaml, "- {}", json!(name));
        }
        if !results.is_empty() {
            let _ = writeln!(
                yaml,
                "model-index:\n- name: {}\n  results:",
                json!(self.name)
            );
        }
        for task in &results {
            let _ = writeln!(
                yaml,
                "  - task:\n      type: {}\n    dataset:\n      name: {1}\n      type: {1}\n    metrics:",
                json!(self.pipeline),
                json!(task.task)
            );
            for metric in &task.metrics {
                // JSON has no infinity; a metric without a number is left out.
                let Some(score) = metric.adapted.filter(|s| s.value.is_finite()) else {
                    continue;
                };
                let _ = writeln!(
                    yaml,
                    "    - name: {0}\n      type: {0}\n      value: {1}",
                    json!(metric.name),
                    json!(score.value)
                );
            }
        }
        yaml.push_str("---\n");
        yaml
    }

    fn shell(&self) -> String {
        let base = &self.base;
        let quoted = format!("'{}'", base.replace('\'', "'\\''"));
        format!("trainer chat --base {quoted} --adapter .   # then /compare")
    }

    fn python(&self) -> String {
        let class = match self.pipeline.as_str() {
            "text-classification" => "AutoModelForSequenceClassification",
            _ => "AutoModelForCausalLM",
        };
        format!(
            "from peft import PeftModel\nfrom transformers import AutoTokenizer, {class}\n\n\
             base = {base}\nmodel = PeftModel.from_pretrained({class}.from_pretrained(base), \".\")\n\
             tokenizer = AutoTokenizer.from_pretrained(base)",
            base = json!(self.base)
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;
    use crate::report::scores::tests::{example_samples, example_scores};

    fn card(base: &str) -> Card {
        Card {
            name: "demo: \"sentiment\"\n---".into(),
            description: Some("Tells <b>good</b> from bad.".into()),
            base: base.into(),
            base_sha256: "ab".repeat(32),
            pipeline: "text-generation".into(),
            settings: vec![("rank".into(), "8".into())],
            data: vec![DataUsed {
                name: "train.jsonl".into(),
                role: "train".into(),
                rows: 1200,
                tokens: Some(34_567),
                sha256: "cd".repeat(32),
            }],
            scores: example_scores(),
            samples: example_samples(),
            config: "[lora]\nrank = 8\n".into(),
            version: "0.1.0".into(),
            license: None,
        }
    }

    #[test]
    fn the_front_matter_is_closed_once_and_quotes_what_it_holds() {
        let text = card("me/tiny@v1").render();
        assert!(text.starts_with("---\n"));
        let yaml = text[4..].split("\n---\n").next().unwrap();
        for line in [
            "base_model: \"me/tiny\"",
            "library_name: peft",
            "- \"base_model:adapter:me/tiny\"",
            "metrics:",
            "- \"perplexity\"",
            "- name: \"demo: \\\"sentiment\\\"\\n---\"",
            "      value: 5.02",
        ] {
            assert!(yaml.lines().any(|l| l == line), "{line}\n{yaml}");
        }
        assert!(text.contains("| train.jsonl | train | 1,200 | 34,567 |"));
        assert!(text.contains("Tells &lt;b&gt;good&lt;/b&gt; from bad."));
    }

    #[test]
    fn a_local_base_is_no_hub_id() {
        let text = card("./bases/it's mine").render();
        assert!(!text.contains("base_model:"), "{text}");
        assert!(text.contains("--base './bases/it'\\''s mine'"));
    }

    #[test]
    fn a_score_that_is_no_number_stays_out_of_the_index() {
        let mut card = card("me/tiny");
        card.scores[1].metrics[0].adapted.as_mut().unwrap().value = f64::INFINITY;
        let text = card.render();
        assert!(!text.contains("value: null"), "{text}");
        assert!(!text.contains("<script>"));
    }
}

//! A run's configuration: TOML plus `--set`, checked and resolved. Nothing below reads flags.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use qloom_core::data::DataConfig;
use qloom_core::evaluation::{BootstrapConfig, SignificanceTest, windows};
use qloom_core::generation::SamplingConfig;
use qloom_core::lora::LoraConfig;
use qloom_core::train::TrainConfig;
use serde::{Deserialize, Serialize};

use crate::commands::UsageError;
use crate::scoring::metric_names;
use crate::session::METRICS;

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RunConfig {
    /// The base.
    pub(crate) model: ModelConfig,
    /// The adapter.
    pub(crate) lora: LoraConfig,
    /// What to learn from.
    pub(crate) data: DataConfig,
    /// How to learn.
    pub(crate) train: TrainConfig,
    /// What to measure afterwards.
    pub(crate) eval: EvalConfig,
    /// Where results go.
    pub(crate) output: OutputConfig,
    /// The new model of `trainer pretrain`.
    pub(crate) pretrain: Option<PretrainConfig>,
}

/// The `[model]` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ModelConfig {
    /// Folder or hub id (`owner/name[@revision]`); the embedded base when empty.
    pub(crate) base: String,
    /// `"nf4"` or `"none"`.
    pub(crate) quantization: String,
    /// Quantize NF4's scales too.
    pub(crate) double_quant: bool,
    /// `"auto"` (bf16 on CUDA, else f32), `"f32"`, `"f16"` or `"bf16"`.
    pub(crate) compute: String,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            base: String::new(),
            quantization: "nf4".into(),
            double_quant: true,
            compute: "auto".into(),
        }
    }
}

/// The `[eval]` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct EvalConfig {
    /// `perplexity`; for label tasks, by generated answer, `accuracy`, `macro_f1` and `macro_recall`, and by the label's
    /// likelihood `label_likelihood` and `calibration`; for generated text `bleu`, `rouge` (or `rouge1`, `rouge2`,
    /// `rougeL`, `rougeLsum`), `exact_match` and `token_f1`. Default `["perplexity"]`.
    pub(crate) metrics: Vec<String>,
    /// Held-out prompts answered by base and adapted for the before/after table.
    pub(crate) samples: usize,
    /// Sequences per batch; the training batch size when 0.
    pub(crate) batch_size: usize,
    /// Whether ROUGE compares word stems. Default no, as in rouge-score.
    pub(crate) stemmer: bool,
    /// Perplexity of texts longer than the context: tokens the window moves by. Default none: texts are cut at
    /// `data.max_length`. Half the window is usual.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stride: Option<usize>,
    /// Tokens the window holds, with `stride`. Default: the base's context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) window: Option<usize>,
    /// Test of the difference of text metrics: `"bootstrap"` (paired) or `"randomization"`. Default `"bootstrap"`.
    pub(crate) significance: SignificanceTest,
    /// Intervals: `n_resamples` (1000), `level` (0.95), `seed` (0).
    pub(crate) bootstrap: BootstrapConfig,
    /// How answers are generated.
    pub(crate) generation: SamplingConfig,
}

impl Default for EvalConfig {
    fn default() -> Self {
        Self {
            metrics: vec!["perplexity".into()],
            samples: 4,
            batch_size: 0,
            stemmer: false,
            stride: None,
            window: None,
            significance: SignificanceTest::default(),
            bootstrap: BootstrapConfig::default(),
            generation: SamplingConfig::default(),
        }
    }
}

/// The `[output]` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct OutputConfig {
    /// The run's folder; `runs/<config name>` when empty.
    pub(crate) dir: String,
    /// Extra outputs: `tensorboard`, `png`.
    pub(crate) formats: Vec<String>,
}

impl Default for OutputConfig {
    fn default() -> Self {
        Self {
            dir: String::new(),
            formats: vec!["tensorboard".into(), "png".into()],
        }
    }
}

/// The `[pretrain]` table: the shape of a model trained from random weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PretrainConfig {
    /// Folder with `tokenizer.json` and `tokenizer_config.json`.
    pub(crate) tokenizer: String,
    /// Model width.
    pub(crate) hidden_size: usize,
    /// Width of the feed-forward layer.
    pub(crate) intermediate_size: usize,
    /// Blocks.
    pub(crate) num_hidden_layers: usize,
    /// Query heads.
    pub(crate) num_attention_heads: usize,
    /// Key and value heads.
    pub(crate) num_key_value_heads: usize,
    /// Longest sequence.
    pub(crate) max_position_embeddings: usize,
    /// Standard deviation of the random weights.
    #[serde(default = "default_initializer_range")]
    pub(crate) initializer_range: f64,
}

fn default_initializer_range() -> f64 {
    0.02
}

/// Reads `path`, applies `overrides` (`table.key=value`) and checks every key.
pub(crate) fn load(path: &Path, overrides: &[String]) -> Result<RunConfig> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the configuration {}", path.display()))?;
    let mut config = parse(&text, &path.display().to_string(), overrides)?;
    finish(&mut config, path);
    Ok(config)
}

/// Names the output folder after the file where none is given, and resolves paths from the file's folder.
pub(crate) fn finish(config: &mut RunConfig, path: &Path) {
    if config.output.dir.is_empty() {
        let stem = path
            .file_stem()
            .map_or_else(|| "run".into(), |s| s.to_string_lossy());
        config.output.dir = format!("runs/{stem}");
    }
    resolve_paths(config, path.parent().unwrap_or(Path::new("")));
}

/// Parses TOML text with overrides; `name` is for messages.
pub(crate) fn parse(text: &str, name: &str, overrides: &[String]) -> Result<RunConfig> {
    let mut table = parse_table(text, name)?;
    for item in overrides {
        apply(&mut table, item)?;
    }
    from_table(table, name)
}

/// Parses TOML text.
pub(crate) fn parse_table(text: &str, name: &str) -> Result<toml::Table> {
    let parsed = text.parse();
    parsed.map_err(|e: toml::de::Error| UsageError::new(format!("{name}: {e}")).into())
}

/// A configuration from parsed TOML; `name` is for messages. What a recipe or a sweep says beside the run is left
/// to those commands.
pub(crate) fn from_table(mut table: toml::Table, name: &str) -> Result<RunConfig> {
    let usage = |reason: String| UsageError::new(format!("{name}: {reason}"));
    for other in ["recipe", "sweep"] {
        table.remove(other);
    }
    let config: RunConfig = table
        .try_into()
        .map_err(|e: toml::de::Error| usage(with_nearest(&e.to_string())))?;
    check(&config).map_err(usage)?;
    Ok(config)
}

/// Sets one dotted key. The value is TOML where it parses, else a plain string.
pub(crate) fn apply(table: &mut toml::Table, item: &str) -> Result<()> {
    let (key, value) = item.split_once('=').ok_or_else(|| {
        UsageError::new(format!(
            "--set {item}: write key=value, for example train.lr=1e-4"
        ))
    })?;
    let value = format!("v = {value}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| toml::Value::String(value.to_owned()));
    set(table, key.trim(), Some(value))
}

/// Sets the dotted key `table.key` to `value`, or takes it out.
pub(crate) fn set(table: &mut toml::Table, key: &str, value: Option<toml::Value>) -> Result<()> {
    let mut parts: Vec<&str> = key.split('.').collect();
    let last = parts.pop().unwrap_or_default();
    let mut place = table;
    for part in parts {
        let next = place
            .entry(part)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()));
        place = next
            .as_table_mut()
            .ok_or_else(|| UsageError::new(format!("{key}: {part} is a value, not a table")))?;
    }
    match value {
        Some(value) => place.insert(last.to_owned(), value),
        None => place.remove(last),
    };
    Ok(())
}

/// Adds "did you mean" to serde's message about an unknown key.
fn with_nearest(message: &str) -> String {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    match quoted.split_first() {
        Some((unknown, known))
            if message.contains("unknown field") || message.contains("unknown variant") =>
        {
            let nearest = known.iter().max_by(|a, b| {
                strsim::jaro_winkler(unknown, a).total_cmp(&strsim::jaro_winkler(unknown, b))
            });
            match nearest {
                Some(nearest) => format!("{}\ndid you mean `{nearest}`?", message.trim_end()),
                None => message.to_owned(),
            }
        }
        _ => message.to_owned(),
    }
}

/// Ranges that types do not express.
fn check(config: &RunConfig) -> Result<(), String> {
    let one_of = |key: &str, value: &str, allowed: &[&str]| match allowed.contains(&value) {
        true => Ok(()),
        false => Err(format!(
            "{key} = {value:?}: expected one of {}",
            allowed.join(", ")
        )),
    };
    one_of(
        "model.quantization",
        &config.model.quantization,
        &["nf4", "none"],
    )?;
    one_of(
        "model.compute",
        &config.model.compute,
        &["auto", "f32", "f16", "bf16"],
    )?;
    check_eval(&config.eval)?;
    for format in &config.output.formats {
        one_of("output.formats", format, &["tensorboard", "png"])?;
    }
    let train = &config.train;
    train.validate()?;
    if train.lr == 0.0 {
        return Err("train.lr = 0: expected a number above 0, such as 2e-4".into());
    }
    for (key, every) in [
        ("eval_every", train.eval_every),
        ("save_every", train.save_every),
    ] {
        if every == Some(0) {
            return Err(format!(
                "train.{key} = 0: expected at least 1 step; leave it out for never"
            ));
        }
    }
    config.lora.validate()?;
    if train.max_steps == Some(0) {
        return Err("train.max_steps = 0: leave it out to train by epochs".into());
    }
    if train.early_stopping.is_some() && train.eval_every.is_none() {
        return Err("train.early_stopping needs train.eval_every: without evaluation nothing can stop early".into());
    }
    config
        .eval
        .generation
        .validate()
        .map_err(|e| format!("eval.generation: {e}"))
}

/// Metrics that exist, and settings under which they have a value.
pub(crate) fn check_eval(eval: &EvalConfig) -> Result<(), String> {
    metric_names(&eval.metrics, &METRICS).map_err(|e| format!("eval.metrics: {e}"))?;
    if eval.window.is_some() && eval.stride.is_none() {
        return Err(
            "eval.window needs eval.stride, which it moves by; half the window is usual".into(),
        );
    }
    if let Some(stride) = eval.stride {
        // Without a window only the base's context can say more, when it is known.
        windows(0, eval.window.unwrap_or(usize::MAX), stride)
            .map_err(|e| format!("eval.stride: {e}"))?;
    }
    let b = &eval.bootstrap;
    if b.n_resamples == 0 || !(b.level > 0.0 && b.level < 1.0) {
        return Err(format!(
            "eval.bootstrap: n_resamples = {} and level = {}, expected at least 1 draw and a level between 0 and 1",
            b.n_resamples, b.level
        ));
    }
    Ok(())
}

/// Paths in a configuration are relative to its file, so that a run can be started from anywhere.
/// The output folder is relative to where the command runs.
fn resolve_paths(config: &mut RunConfig, folder: &Path) {
    let resolve = |value: &mut String| {
        let joined: PathBuf = folder.join(&*value);
        if !value.is_empty() && joined.exists() {
            *value = joined.to_string_lossy().into_owned();
        }
    };
    resolve(&mut config.model.base);
    config
        .data
        .train
        .iter_mut()
        .chain(&mut config.data.eval)
        .for_each(resolve);
    if let Some(adapter) = config.lora.adapter.as_mut() {
        resolve(adapter);
    }
    if let Some(pretrain) = config.pretrain.as_mut() {
        resolve(&mut pretrain.tokenizer);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_name_the_nearest() {
        let error = parse(
            "[train]\nlearning_rat = 1.0\n[lora]\nrank = 4",
            "run.toml",
            &[],
        )
        .unwrap_err()
        .to_string();
        assert!(
            error.contains("run.toml") && error.contains("learning_rat"),
            "{error}"
        );
        let error = parse("[lora]\nrnak = 4", "run.toml", &[])
            .unwrap_err()
            .to_string();
        assert!(error.contains("did you mean `rank`"), "{error}");
    }

    #[test]
    fn overrides_are_typed() {
        let set = [
            "train.lr=1e-3".to_owned(),
            "model.base=some/base".to_owned(),
            "lora.target_modules=[\"q_proj\"]".to_owned(),
        ];
        let config = parse("", "run.toml", &set).unwrap();
        assert_eq!(config.train.lr, 1e-3);
        assert_eq!(config.model.base, "some/base");
        assert_eq!(
            config.lora.target_modules,
            qloom_core::lora::TargetModules::List(vec!["q_proj".into()])
        );
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for bad in [
            "[train]\nbatch_size = 0",
            "[lora]\ndropout = 1.0",
            "[model]\nquantization = \"int8\"",
            "[train]\nearly_stopping = 2",
            "[eval]\nmetrics = [\"perplexity\", \"rogue\"]",
            "[eval]\nstride = 0",
            "[eval]\nwindow = 64",
            "[eval]\nwindow = 64\nstride = 65",
            "[eval.bootstrap]\nlevel = 95",
        ] {
            assert!(parse(bad, "run.toml", &[]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_refused_value_comes_with_its_range() {
        for (bad, range) in [
            ("[train]\nbatch_size = 0", "at least 1"),
            ("[train]\nweight_decay = -1", "at least 0"),
            ("[train]\neps = -1", "above 0"),
            ("[train]\nbetas = [2, 2]", "below 1"),
            ("[train]\nlr = 0", "above 0"),
            ("[train]\neval_every = 0", "at least 1 step"),
            ("[train]\nsave_every = 0", "at least 1 step"),
            ("[output]\nformats = [\"tensorbord\"]", "tensorboard, png"),
        ] {
            let error = parse(bad, "run.toml", &[]).unwrap_err().to_string();
            assert!(error.contains(range), "{bad}: {error}");
        }
    }

    #[test]
    fn a_resolved_configuration_reads_back_equal() {
        let config = parse(
            "[train]\nlr = 3e-4\n[lora]\nrank = 4\n[lora.rank_pattern]\nq_proj = 8\n\
             [eval]\nmetrics = [\"rouge\", \"bleu\"]\nstride = 32\nsignificance = \"randomization\"",
            "run.toml",
            &[],
        )
        .unwrap();
        let text = toml::to_string_pretty(&config).unwrap();
        assert_eq!(parse(&text, "again", &[]).unwrap(), config);
    }
}

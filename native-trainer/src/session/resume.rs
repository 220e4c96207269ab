//! When a run may be continued: only as it was started, because it must end in the same bytes.

use anyhow::{Context, Result};
use qloom_core::train::TrainConfig;
use qloom_core::weights::sha256_hex;
use serde_json::{Map, Value, json};

use super::Data;
use crate::commands::UsageError;
use crate::config::RunConfig;

/// Refuses to resume under settings that would lead to another result, naming each that changed.
pub(super) fn refuse_changes(stored: &[u8], config: &RunConfig) -> Result<()> {
    let stored: RunConfig =
        toml::from_str(&String::from_utf8_lossy(stored)).context("the run's own config.toml")?;
    let mut changed = Vec::new();
    differences(
        "",
        &serde_json::to_value(decisive(&stored))?,
        &serde_json::to_value(decisive(config))?,
        &mut changed,
    );
    if changed.is_empty() {
        return Ok(());
    }
    Err(UsageError::new(format!(
        "--resume continues a run as it was started, but {}; restore that, or start a new run with --set output.dir=DIR",
        changed.join(", ")
    ))
    .into())
}

/// The part of a configuration that decides the course of a run.
fn decisive(config: &RunConfig) -> RunConfig {
    let mut config = config.clone();
    config.eval = Default::default();
    config.output = Default::default();
    let own = TrainConfig::default();
    config.train.eval_every = own.eval_every;
    config.train.save_every = own.save_every;
    config.train.keep_checkpoints = own.keep_checkpoints;
    config.train.early_stopping = own.early_stopping;
    config
}

fn differences(path: &str, before: &Value, now: &Value, found: &mut Vec<String>) {
    match (before, now) {
        (Value::Object(before), Value::Object(now)) => {
            for key in before
                .keys()
                .chain(now.keys().filter(|key| !before.contains_key(*key)))
            {
                let name = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                let value = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                differences(&name, &value(before), &value(now), found);
            }
        }
        _ if before != now => found.push(format!("{path} was {before} and is now {now}")),
        _ => {}
    }
}

/// Identifies everything that decides the course of a run besides its length.
pub(super) fn fingerprint(config: &RunConfig, data: &Data) -> Result<String> {
    let text = serde_json::to_string(&json!([decisive(config), data.hash()]))?;
    Ok(sha256_hex(text.as_bytes()))
}

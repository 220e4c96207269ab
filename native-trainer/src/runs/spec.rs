//! The `[sweep]` table: which runs a sweep makes of a base configuration.
//!
//! ```toml
//! [sweep]
//! base = "run.toml"                  # or the tables of a run in this file, which also override the base's
//!
//! [sweep.grid]                       # every combination
//! "lora.rank" = [8, 16]
//! "train.seed" = [1, 2, 3]
//! "data.system" = ["none", "terse"]  # names, see below
//!
//! [sweep.values."data.system"]       # values too long for a table's column, by name; `false` leaves the key out
//! none = false
//! terse = "Answer with one word."
//!
//! [[sweep.run]]                      # and a list: each entry with every combination of the grid
//! name = "wide"
//! "lora.target_modules" = "all-linear"
//! ```

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use toml::{Table, Value};

use super::planned::Planned;
use crate::commands::UsageError;
use crate::config;
use crate::files::read_text;

/// The table as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SweepTable {
    /// The base configuration's file, from this file's folder.
    base: Option<String>,
    /// Key to list of values.
    grid: Table,
    /// Key to name to value.
    values: Table,
    /// Entries with a `name` and keys of their own.
    run: Vec<Table>,
}

/// One run in the making: what distinguishes it, as `(key, label)`, and the values to set.
#[derive(Clone, Debug, Default)]
struct Variant {
    name: Option<String>,
    labels: Vec<(String, String)>,
    set: Vec<(String, Option<Value>)>,
    /// How many of the labels are the list entry's own; the grid's follow.
    listed: usize,
}

/// Reads a sweep file; `overrides` (`key=value`) apply to every run. Runs go below `out`.
pub(crate) fn load(path: &Path, overrides: &[String], out: &Path) -> Result<Vec<Planned>> {
    let name = path.display().to_string();
    let text = read_text(path)?;
    let table = config::parse_table(&text, &name)?;
    plan(table, &name, path, overrides, out)
}

/// The runs of a parsed sweep; `path` is where its relative paths start.
pub(crate) fn plan(
    mut table: Table,
    name: &str,
    path: &Path,
    overrides: &[String],
    out: &Path,
) -> Result<Vec<Planned>> {
    let usage = |reason: String| UsageError::new(format!("{name}: {reason}"));
    let Some(own) = table.remove("sweep") else {
        return Err(usage("no [sweep] table: see trainer sweep --help".into()).into());
    };
    let sweep: SweepTable = own
        .try_into()
        .map_err(|e: toml::de::Error| usage(format!("[sweep]: {e}")))?;
    let base_file = sweep
        .base
        .as_ref()
        .map(|file| path.parent().unwrap_or(Path::new("")).join(file));
    let mut base = match &base_file {
        None => Table::new(),
        Some(file) => {
            let text = read_text(file).with_context(|| format!("{name}: sweep.base"))?;
            let mut table = config::parse_table(&text, &file.display().to_string())?;
            table.remove("sweep");
            table
        }
    };
    merge(&mut base, table);
    for item in overrides {
        config::apply(&mut base, item)?;
    }
    let variants = variants(&sweep).map_err(usage)?;
    let runs: Vec<Planned> = variants
        .into_iter()
        .map(|variant| {
            // Paths in a base of another folder start there, those of the sweep itself in its own.
            let places = [base_file.as_deref(), Some(path)];
            planned(&base, variant, name, &places, out)
        })
        .collect::<Result<_>>()?;
    refuse_twins(&runs).map_err(usage)?;
    Ok(runs)
}

fn planned(
    base: &Table,
    variant: Variant,
    file: &str,
    places: &[Option<&Path>],
    out: &Path,
) -> Result<Planned> {
    let name = variant.name();
    let mut table = base.clone();
    for (key, value) in &variant.set {
        config::set(&mut table, key, value.clone())?;
    }
    let mut config = config::from_table(table, &format!("{file}, run {name}"))?;
    for path in places.iter().flatten() {
        config::finish(&mut config, path);
    }
    Planned::new(name, variant.labels, config, out)
}

/// Lays `over` on `under`, table by table.
fn merge(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => merge(below, above),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

/// The list times the grid.
fn variants(sweep: &SweepTable) -> Result<Vec<Variant>, String> {
    let mut all = match sweep.run.is_empty() {
        true => vec![Variant::default()],
        false => sweep
            .run
            .iter()
            .enumerate()
            .map(|(index, entry)| listed(sweep, index, entry))
            .collect::<Result<_, _>>()?,
    };
    for (key, values) in &sweep.grid {
        let values = values
            .as_array()
            .filter(|values| !values.is_empty())
            .ok_or_else(|| {
                format!("sweep.grid: {key:?} should be a list of values, found {values}")
            })?;
        let mut more = Vec::with_capacity(all.len() * values.len());
        for variant in &all {
            for value in values {
                let (label, value) = resolve(sweep, key, value)?;
                let mut next = variant.clone();
                next.labels.push((key.clone(), label));
                next.set.push((key.clone(), value));
                more.push(next);
            }
        }
        all = more;
    }
    if sweep.run.is_empty() && sweep.grid.is_empty() {
        return Err(
            "[sweep] has neither a grid nor a list: write [sweep.grid] or [[sweep.run]]".into(),
        );
    }
    Ok(all)
}

fn listed(sweep: &SweepTable, index: usize, entry: &Table) -> Result<Variant, String> {
    let mut variant = Variant::default();
    for (key, value) in entry {
        if key == "name" {
            let name = value
                .as_str()
                .ok_or_else(|| format!("[[sweep.run]] {}: name should be text", index + 1))?;
            variant.name = Some(name.to_owned());
            continue;
        }
        let (label, value) = resolve(sweep, key, value)?;
        variant.labels.push((key.clone(), label));
        variant.set.push((key.clone(), value));
    }
    if variant.name.is_none() && variant.set.is_empty() {
        return Err(format!(
            "[[sweep.run]] {}: it has neither a name nor a key",
            index + 1
        ));
    }
    variant.listed = variant.labels.len();
    Ok(variant)
}

/// A value's label, and the value itself: by name where `sweep.values` has the key.
fn resolve(
    sweep: &SweepTable,
    key: &str,
    value: &Value,
) -> Result<(String, Option<Value>), String> {
    let (Some(named), Some(name)) = (sweep.values.get(key), value.as_str()) else {
        return Ok((label(value), Some(value.clone())));
    };
    let named = named
        .as_table()
        .ok_or_else(|| format!("sweep.values.{key:?} should be a table of name = value"))?;
    let found = named.get(name).ok_or_else(|| {
        let known: Vec<&str> = named.keys().map(String::as_str).collect();
        format!(
            "{key:?}: {name:?} is none of the names in sweep.values.{key:?}: {}",
            known.join(", ")
        )
    })?;
    let absent = found.as_bool() == Some(false);
    Ok((name.to_owned(), (!absent).then(|| found.clone())))
}

fn label(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(label).collect::<Vec<_>>().join("+"),
        Value::Table(table) => table
            .iter()
            .map(|(key, value)| format!("{key}={}", label(value)))
            .collect::<Vec<_>>()
            .join("+"),
        other => other.to_string(),
    }
}

impl Variant {
    /// The entry's name with the grid's labels: `wide-rank8-seed1`. A list's entry without a name is named by its keys.
    fn name(&self) -> String {
        let skipped = if self.name.is_some() { self.listed } else { 0 };
        let parts = self.labels.iter().skip(skipped).map(|(key, label)| {
            let key = key.rsplit('.').next().unwrap_or(key);
            match label.parse::<f64>() {
                Ok(_) => format!("{key}{label}"),
                Err(_) => label.clone(),
            }
        });
        let all: Vec<String> = self.name.iter().cloned().chain(parts).collect();
        all.join("-")
    }
}

/// Two runs that would be the same run.
fn refuse_twins(runs: &[Planned]) -> Result<(), String> {
    for (index, run) in runs.iter().enumerate() {
        if let Some(other) = runs[..index].iter().find(|other| other.key == run.key) {
            return Err(format!(
                "the runs {} and {} have the same configuration; take one out",
                other.name, run.name
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_a_base_in_another_folder_start_there() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("sub");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("d.jsonl"), "{}").unwrap();
        std::fs::write(folder.join("run.toml"), "[data]\ntrain = \"d.jsonl\"\n").unwrap();
        let sweep = dir.path().join("sweep.toml");
        let text = "[sweep]\nbase = \"sub/run.toml\"\n[sweep.grid]\n\"lora.rank\" = [2, 4]\n";
        std::fs::write(&sweep, text).unwrap();
        let runs = load(&sweep, &[], Path::new("out")).unwrap();
        assert_eq!(runs.len(), 2);
        let train = Path::new(&runs[0].config.data.train[0]);
        assert!(train.ends_with("sub/d.jsonl"), "{}", train.display());
        assert_eq!(runs[1].name, "rank4");
    }
}

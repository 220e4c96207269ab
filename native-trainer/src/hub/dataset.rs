//! Which files of a hub data set to read.
//!
//! Data sets are laid out by custom, not by rule: `data/train-00000-of-00002.parquet`, `train.jsonl`,
//! `en/test/0000.parquet`. A file's split is read from its name, then from its folders; a subset (also called a
//! configuration) is a folder or a prefix of the name. Source: "File names and splits" in the `datasets` documentation.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use hf_hub::RepoType;

use super::fetch::Hub;
use super::reference::DatasetRef;
use super::some_of;

/// Formats in the order they are preferred when a split comes in several.
const FORMATS: [&str; 5] = ["parquet", "jsonl", "json", "csv", "tsv"];
/// Names of each split, canonical first.
const SPLITS: [&[&str]; 3] = [
    &["train", "training"],
    &["validation", "valid", "val", "dev"],
    &["test", "testing", "eval", "evaluation"],
];
/// Files that describe a data set and are no part of it.
const DESCRIPTIONS: [&str; 4] = [
    "dataset_infos.json",
    "dataset_info.json",
    "dataset_dict.json",
    "state.json",
];

impl Hub {
    /// Fetches the files of a split, in order.
    ///
    /// Without `split`, the training split where the names tell one, else every file.
    ///
    /// # Errors
    /// As [`Hub::snapshot`]; a split or subset that does not exist (those that do are listed); several subsets and
    /// none chosen.
    pub(crate) fn dataset(
        &self,
        data: &DatasetRef,
        split: Option<&str>,
        subset: Option<&str>,
    ) -> Result<Vec<PathBuf>> {
        let choose = |held: &[String]| choose(held, data.path.as_deref(), split, subset);
        let snapshot = self.snapshot(RepoType::Dataset, &data.repo, choose)?;
        Ok(snapshot
            .files
            .iter()
            .map(|file| snapshot.path.join(file))
            .collect())
    }
}

fn choose(
    held: &[String],
    path: Option<&str>,
    split: Option<&str>,
    subset: Option<&str>,
) -> Result<Vec<String>> {
    if let Some(path) = path {
        if held.iter().any(|file| file == path) {
            return Ok(vec![path.to_owned()]);
        }
        let inside: Vec<String> = held
            .iter()
            .filter(|f| f.starts_with(&format!("{path}/")))
            .cloned()
            .collect();
        if inside.is_empty() {
            bail!("it has no {path}; it holds {}", some_of(held));
        }
        return choose(&inside, None, split, subset).with_context(|| format!("in {path}/"));
    }
    let mut files: Vec<&String> = held.iter().filter(|file| is_data(file)).collect();
    if files.is_empty() {
        bail!(
            "it holds no {} file, but {}; other formats and loading scripts are not read \
             (its automatic conversion may be at @refs%2Fconvert%2Fparquet)",
            FORMATS.join(", "),
            some_of(held)
        );
    }
    files.sort();
    let files = pick_subset(files, subset)?;
    let files = pick_split(files, split)?;
    Ok(one_format(files))
}

fn is_data(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    let format = FORMATS.contains(&extension(file));
    format && !file.split('/').any(|part| part.starts_with('.')) && !DESCRIPTIONS.contains(&name)
}

fn extension(file: &str) -> &str {
    file.rsplit_once('.').map_or("", |(_, end)| end)
}

/// The folder that tells subsets apart: the first that is neither `data` nor a split.
fn subset_of(file: &str) -> Option<&str> {
    let (folders, _) = file.rsplit_once('/')?;
    folders
        .split('/')
        .find(|part| *part != "data" && canonical(part).is_none())
}

fn pick_subset<'a>(files: Vec<&'a String>, subset: Option<&str>) -> Result<Vec<&'a String>> {
    let mut subsets: Vec<&str> = files.iter().filter_map(|file| subset_of(file)).collect();
    subsets.sort_unstable();
    subsets.dedup();
    let wanted = match subset {
        Some(wanted) => wanted,
        None if subsets.len() < 2 => return Ok(files),
        None if subsets.contains(&"default") => "default",
        None => bail!(
            "it has the subsets {}: name one as hf:owner/name/FOLDER",
            subsets.join(", ")
        ),
    };
    let chosen: Vec<&String> = files
        .into_iter()
        .filter(|file| {
            let name = file.rsplit('/').next().unwrap_or(file);
            let prefixed = name
                .strip_prefix(wanted)
                .is_some_and(|rest| rest.starts_with(['-', '_', '.']));
            subset_of(file) == Some(wanted) || prefixed
        })
        .collect();
    if chosen.is_empty() {
        bail!(
            "it has no subset {wanted}; it has {}",
            if subsets.is_empty() {
                "none".into()
            } else {
                subsets.join(", ")
            }
        );
    }
    Ok(chosen)
}

fn pick_split<'a>(files: Vec<&'a String>, split: Option<&str>) -> Result<Vec<&'a String>> {
    let wanted = match split {
        Some(split) => split,
        None if files.iter().any(|file| split_of(file) == Some("train")) => "train",
        None => return Ok(files),
    };
    let exact: Vec<&String> = files
        .iter()
        .copied()
        .filter(|file| stem(file) == wanted)
        .collect();
    if !exact.is_empty() {
        return Ok(exact); // "train" is not to take "train_sft" along
    }
    let meaning = canonical(wanted);
    let chosen: Vec<&String> = files
        .iter()
        .copied()
        .filter(|file| {
            (meaning.is_some() && split_of(file) == meaning)
                || file.split('/').any(|part| part == wanted)
        })
        .collect();
    if chosen.is_empty() {
        let mut found: Vec<&str> = files
            .iter()
            .map(|file| split_of(file).unwrap_or(stem(file)))
            .collect();
        found.sort_unstable();
        found.dedup();
        bail!(
            "it has no split {wanted}; its files suggest {}: name a file or folder of it as hf:owner/name/PATH",
            found.join(", ")
        );
    }
    Ok(chosen)
}

/// `data/train_sft-00000-of-00002.parquet` -> `train_sft`.
fn stem(file: &str) -> &str {
    let name = file.rsplit('/').next().unwrap_or(file);
    let name = name.split('.').next().unwrap_or(name);
    match name.split_once("-of-") {
        Some((front, _)) => front
            .trim_end_matches(|c: char| c.is_ascii_digit())
            .trim_end_matches(['-', '_']),
        None => name,
    }
}

/// The split a file belongs to, from its name or else its innermost telling folder.
fn split_of(file: &str) -> Option<&'static str> {
    file.rsplit('/').find_map(|part| {
        part.split(|c: char| !c.is_ascii_alphanumeric())
            .find_map(canonical)
    })
}

fn canonical(word: &str) -> Option<&'static str> {
    let lower = word.to_ascii_lowercase();
    SPLITS
        .iter()
        .find(|names| names.contains(&lower.as_str()))
        .map(|names| names[0])
}

fn one_format(files: Vec<&String>) -> Vec<String> {
    let format = FORMATS
        .iter()
        .find(|f| files.iter().any(|file| extension(file) == **f));
    files
        .into_iter()
        .filter(|file| format.is_none_or(|f| extension(file) == *f))
        .cloned()
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    fn pick(
        held: &[&str],
        path: Option<&str>,
        split: Option<&str>,
        subset: Option<&str>,
    ) -> Result<Vec<String>> {
        let held: Vec<String> = held.iter().map(|s| (*s).to_owned()).collect();
        choose(&held, path, split, subset)
    }

    #[test]
    fn splits_are_read_from_names_and_folders() {
        for (file, split) in [
            ("data/train-00000-of-00001.parquet", Some("train")),
            ("en/validation/0000.parquet", Some("validation")),
            ("my_dev.jsonl", Some("validation")),
            ("eval.csv", Some("test")),
            ("latest.csv", None),
            ("contest/train.csv", Some("train")),
        ] {
            assert_eq!(split_of(file), split, "{file}");
        }
    }

    #[test]
    fn a_sharded_train_split_is_the_default() {
        let held = [
            "README.md",
            "data/test-00000-of-00001.parquet",
            "data/train-00001-of-00002.parquet",
            "data/train-00000-of-00002.parquet",
            "dataset_infos.json",
        ];
        let shards = [
            "data/train-00000-of-00002.parquet",
            "data/train-00001-of-00002.parquet",
        ];
        assert_eq!(pick(&held, None, None, None).unwrap(), shards);
        assert_eq!(
            pick(&held, None, Some("test"), None).unwrap(),
            ["data/test-00000-of-00001.parquet"]
        );
        let error = pick(&held, None, Some("validation"), None)
            .unwrap_err()
            .to_string();
        assert!(error.contains("test, train"), "{error}");
    }

    #[test]
    fn similar_split_names_are_not_mixed() {
        let held = ["train.jsonl", "train_sft.jsonl", "train_prefs.jsonl"];
        assert_eq!(pick(&held, None, None, None).unwrap(), ["train.jsonl"]);
        assert_eq!(
            pick(&held, None, Some("train_sft"), None).unwrap(),
            ["train_sft.jsonl"]
        );
    }

    #[test]
    fn subsets_must_be_chosen_where_there_are_several() {
        let held = ["de/train.jsonl", "en/train.jsonl", "en/test.jsonl"];
        let error = pick(&held, None, None, None).unwrap_err().to_string();
        assert!(
            error.contains("de, en") && error.contains("hf:owner/name/FOLDER"),
            "{error}"
        );
        assert_eq!(
            pick(&held, None, None, Some("en")).unwrap(),
            ["en/train.jsonl"]
        );
        assert_eq!(
            pick(&held, Some("en"), Some("test"), None).unwrap(),
            ["en/test.jsonl"]
        );
        assert!(pick(&held, None, None, Some("fr")).is_err());
    }

    #[test]
    fn one_format_where_several_hold_the_same() {
        assert_eq!(
            pick(&["train.csv", "train.jsonl"], None, None, None).unwrap(),
            ["train.jsonl"]
        );
        assert_eq!(
            pick(&["train.csv", "train.jsonl"], Some("train.csv"), None, None).unwrap(),
            ["train.csv"]
        );
        let error = pick(&["train.jsonl.gz", "load.py"], None, None, None)
            .unwrap_err()
            .to_string();
        assert!(error.contains("load.py"), "{error}");
        assert_eq!(
            pick(&["databricks-dolly-15k.jsonl"], None, None, None).unwrap(),
            ["databricks-dolly-15k.jsonl"]
        );
    }
}

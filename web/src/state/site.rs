//! What the site says about itself besides the gallery: the data files it offers to evaluate on.

use serde::Deserialize;
use thiserror::Error;

/// Where the list lies in a site.
pub const DATA_INDEX: &str = "data/index.json";

/// The site's own base, below its root.
pub const SITE_BASE: &str = "base/";

/// What the site's base is called.
pub const SITE_BASE_NAME: &str = "qloom/tiny-llama";

/// A data file of the site.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SiteFile {
    /// Below the site's root.
    pub path: String,
    /// The name to show.
    pub name: String,
    /// What it tests.
    #[serde(default)]
    pub task: String,
    /// Its rows.
    #[serde(default)]
    pub examples: u64,
}

/// A list that cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SiteError {
    /// Not the JSON it should be.
    #[error("{DATA_INDEX}: {0}")]
    Json(String),
    /// Of another version.
    #[error("{DATA_INDEX} has version {0}, this page reads version 1: reload the page")]
    Version(u32),
    /// A file outside the site.
    #[error("{DATA_INDEX}: {0:?} is no path below the site's root")]
    Path(String),
}

#[derive(Deserialize)]
struct Index {
    version: u32,
    files: Vec<SiteFile>,
}

/// Reads a `data/index.json`.
///
/// # Errors
/// Anything but version 1 with paths that stay within the site.
pub fn data_files(json: &str) -> Result<Vec<SiteFile>, SiteError> {
    let index: Index = serde_json::from_str(json).map_err(|e| SiteError::Json(e.to_string()))?;
    if index.version != 1 {
        return Err(SiteError::Version(index.version));
    }
    let outside = |path: &str| {
        path.starts_with('/')
            || path.contains(':')
            || path.contains('\\')
            || path
                .split('/')
                .any(|part| part.is_empty() || part == "." || part == "..")
    };
    match index.files.iter().find(|f| outside(&f.path)) {
        Some(file) => Err(SiteError::Path(file.path.clone())),
        None => Ok(index.files),
    }
}

/// The prompts of an entry's `samples.jsonl`, at most `most`; rows that are none are passed over, for they are only offered.
#[must_use]
pub fn sample_prompts(jsonl: &str, most: usize) -> Vec<String> {
    let prompt = |line: &str| {
        let row: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(row.get("prompt")?.as_str()?.to_owned())
    };
    jsonl.lines().filter_map(prompt).take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_held_to_the_site() {
        let json = |path: &str| {
            format!(
                r#"{{"version":1,"files":[{{"path":"{path}","name":"n","task":"t","examples":3}}]}}"#
            )
        };
        assert_eq!(
            data_files(&json("data/a.jsonl")).map(|f| f[0].examples),
            Ok(3)
        );
        for path in ["../a", "/etc", "https://x/y", "a//b", "a/../../b"] {
            assert!(
                matches!(data_files(&json(path)), Err(SiteError::Path(_))),
                "{path}"
            );
        }
        assert_eq!(
            data_files(r#"{"version":2,"files":[]}"#),
            Err(SiteError::Version(2))
        );
        assert!(matches!(data_files("<html>"), Err(SiteError::Json(_))));
    }

    #[test]
    fn prompts_of_samples() {
        let lines =
            "{\"prompt\":\"a\"}\nnonsense\n{\"other\":1}\n{\"prompt\":\"b\"}\n{\"prompt\":\"c\"}\n";
        assert_eq!(sample_prompts(lines, 2), ["a", "b"]);
    }
}

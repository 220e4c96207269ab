//! For tests: the metric cases of the reference libraries, where the shared material is present.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

use serde_json::Value;

/// One `metrics.json`.
pub(super) struct Case {
    /// Its folder's name.
    pub(super) name: String,
    /// Its content.
    pub(super) json: Value,
}

/// The shared folder; says so where it is absent.
pub(super) fn shared() -> Option<PathBuf> {
    let folder = std::env::var_os("QLOOM_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        PathBuf::from,
    );
    if !folder.is_dir() {
        eprintln!(
            "skipped: no shared reference material at {} (set QLOOM_SHARED)",
            folder.display()
        );
        return None;
    }
    Some(folder)
}

/// Every `metrics_*` case of the shared goldens and of the folders named in `QLOOM_GOLDEN`.
pub(super) fn cases() -> Vec<Case> {
    let named = std::env::var("QLOOM_GOLDEN").unwrap_or_default();
    let named = named
        .split(':')
        .filter(|s| !s.is_empty())
        .map(PathBuf::from);
    let folders: Vec<PathBuf> = shared()
        .map(|s| s.join("reference/golden"))
        .into_iter()
        .chain(named)
        .collect();
    let entries = folders
        .iter()
        .flat_map(|f| std::fs::read_dir(f).into_iter().flatten().flatten());
    let mut paths: Vec<PathBuf> = entries
        .map(|e| e.path().join("metrics.json"))
        .filter(|p| p.is_file())
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            Case {
                name: path
                    .parent()
                    .unwrap()
                    .file_name()
                    .unwrap()
                    .to_string_lossy()
                    .into_owned(),
                json: serde_json::from_str(&text).unwrap(),
            }
        })
        .collect()
}

impl Case {
    /// A list of strings.
    pub(super) fn strings(&self, key: &str) -> Vec<String> {
        serde_json::from_value(self.json[key].clone()).unwrap()
    }

    /// One reference per answer, or two: the second is the next answer's.
    pub(super) fn references(&self, two: bool) -> Vec<Vec<String>> {
        let all = self.strings("ref");
        let next = all.iter().cycle().skip(1);
        all.iter()
            .zip(next)
            .map(|(one, other)| match two {
                true => vec![one.clone(), other.clone()],
                false => vec![one.clone()],
            })
            .collect()
    }
}

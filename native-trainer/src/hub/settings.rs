//! The hub's settings, from the environment variables the field agreed on.
//!
//! Source: `huggingface_hub`'s "Environment variables" page. Read once, at the edge; everything below takes the struct,
//! so that tests set what they need without touching the process's environment.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::progress::Mode;

/// Where models come from and where they are kept.
#[derive(Clone)]
pub(crate) struct HubSettings {
    /// `HF_ENDPOINT`, without a trailing slash; default `https://huggingface.co`.
    pub(crate) endpoint: String,
    /// `HF_HUB_CACHE`, else `HUGGINGFACE_HUB_CACHE`, else `$HF_HOME/hub`, else `~/.cache/huggingface/hub`.
    pub(crate) cache: PathBuf,
    /// `HF_TOKEN`, else the file `HF_TOKEN_PATH`, else `$HF_HOME/token` (which `hf auth login` writes).
    pub(crate) token: Option<String>,
    /// `HF_HUB_OFFLINE`: use the cache only.
    pub(crate) offline: bool,
    /// How downloads show.
    pub(crate) progress: Mode,
    /// Attempts per file before giving up; each continues where the last broke off.
    pub(crate) attempts: u32,
}

/// Leaves the token out: settings end up in logs.
impl fmt::Debug for HubSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubSettings")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .field("token", &self.token.as_ref().map(|_| "set"))
            .field("offline", &self.offline)
            .finish_non_exhaustive()
    }
}

impl HubSettings {
    /// Reads the process's environment.
    ///
    /// # Errors
    /// No cache folder is set and there is no home folder to put one in.
    pub(crate) fn from_env(progress: Mode) -> Result<Self> {
        Self::from_vars(
            |name| std::env::var(name).ok(),
            std::env::home_dir(),
            progress,
        )
    }

    fn from_vars(
        var: impl Fn(&str) -> Option<String>,
        home: Option<PathBuf>,
        progress: Mode,
    ) -> Result<Self> {
        let var = |name: &str| {
            var(name)
                .map(|v| v.trim().to_owned())
                .filter(|v| !v.is_empty())
        };
        let hf_home = var("HF_HOME")
            .map(PathBuf::from)
            .or_else(|| var("XDG_CACHE_HOME").map(|dir| PathBuf::from(dir).join("huggingface")))
            .or_else(|| home.map(|dir| dir.join(".cache").join("huggingface")));
        let cache = var("HF_HUB_CACHE")
            .or_else(|| var("HUGGINGFACE_HUB_CACHE"))
            .map(PathBuf::from)
            .or_else(|| hf_home.as_ref().map(|dir| dir.join("hub")))
            .context("no place for downloads: there is no home folder; set HF_HOME to a folder")?;
        let token_file = var("HF_TOKEN_PATH")
            .map(PathBuf::from)
            .or_else(|| hf_home.map(|dir| dir.join("token")));
        let from_file = || {
            let text = std::fs::read_to_string(token_file?).ok()?;
            Some(text.trim().to_owned()).filter(|token| !token.is_empty())
        };
        Ok(Self {
            endpoint: var("HF_ENDPOINT")
                .unwrap_or_else(|| "https://huggingface.co".into())
                .trim_end_matches('/')
                .to_owned(),
            // Links inside the cache are relative and computed between absolute paths.
            cache: std::path::absolute(&cache).unwrap_or(cache),
            token: var("HF_TOKEN")
                .or_else(|| var("HUGGING_FACE_HUB_TOKEN"))
                .or_else(from_file),
            offline: ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]
                .iter()
                .any(|name| var(name).is_some_and(|v| is_true(&v))),
            progress,
            attempts: 5,
        })
    }
}

fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"]
        .iter()
        .any(|t| value.eq_ignore_ascii_case(t))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    fn settings(vars: &[(&str, &str)], home: Option<&str>) -> Result<HubSettings> {
        let var = |name: &str| vars.iter().find(|v| v.0 == name).map(|v| v.1.to_owned());
        HubSettings::from_vars(var, home.map(PathBuf::from), Mode::Quiet)
    }

    #[test]
    fn the_cache_is_found_in_the_order_of_huggingface_hub() {
        let all = [
            ("HF_HUB_CACHE", "/1"),
            ("HUGGINGFACE_HUB_CACHE", "/2"),
            ("HF_HOME", "/3"),
            ("XDG_CACHE_HOME", "/4"),
        ];
        let expected = [
            "/1",
            "/2",
            "/3/hub",
            "/4/huggingface/hub",
            "/h/.cache/huggingface/hub",
        ];
        for (skip, cache) in expected.iter().enumerate() {
            assert_eq!(
                settings(&all[skip..], Some("/h")).unwrap().cache,
                PathBuf::from(cache)
            );
        }
        assert!(
            settings(&[], None)
                .unwrap_err()
                .to_string()
                .contains("HF_HOME")
        );
    }

    #[test]
    fn the_token_comes_from_the_variable_or_the_file_and_is_never_printed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "hf_file\n").unwrap();
        let home = ("HF_HOME", dir.path().to_str().unwrap());
        assert_eq!(
            settings(&[home], None).unwrap().token.as_deref(),
            Some("hf_file")
        );
        let both = settings(&[home, ("HF_TOKEN", "hf_var")], None).unwrap();
        assert_eq!(both.token.as_deref(), Some("hf_var"));
        assert!(!format!("{both:?}").contains("hf_var"));
    }

    #[test]
    fn offline_and_endpoint() {
        for (value, offline) in [("1", true), ("TRUE", true), ("0", false), ("", false)] {
            assert_eq!(
                settings(&[("HF_HUB_OFFLINE", value)], Some("/h"))
                    .unwrap()
                    .offline,
                offline
            );
        }
        let plain = settings(&[], Some("/h")).unwrap();
        assert_eq!(plain.endpoint, "https://huggingface.co");
        let mirror = settings(&[("HF_ENDPOINT", "http://mirror:8080/")], Some("/h")).unwrap();
        assert_eq!(mirror.endpoint, "http://mirror:8080");
    }
}

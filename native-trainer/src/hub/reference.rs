//! How users name things on the hub.
//!
//! ```text
//! owner/name             a repository at its main branch
//! owner/name@revision    at a branch, tag or commit ("/" within it written as is for models, %2F for data sets)
//! hf:owner/name          a data set; hf:owner/name/path.jsonl one file or folder of it
//! ```

use anyhow::{Context, Result, bail};

/// A repository at a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RepoRef {
    /// `owner/name`.
    pub(crate) id: String,
    /// Branch, tag or commit; `main` when none was given.
    pub(crate) revision: String,
}

impl RepoRef {
    /// Parses `owner/name[@revision]`.
    ///
    /// # Errors
    /// Not of that form, or characters the hub does not allow.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let (id, revision) = match text.split_once('@') {
            Some((id, revision)) => (id, revision),
            None => (text, "main"),
        };
        let well_formed = id
            .split_once('/')
            .is_some_and(|(owner, name)| valid_part(owner) && valid_part(name));
        if !well_formed {
            bail!(
                "{text:?} is neither a folder nor a hub id: there is no folder of that name here, \
                 and a hub id is owner/name or owner/name@revision"
            );
        }
        // The revision becomes a path in the cache, so it may not climb out of it.
        let climbs = revision
            .split('/')
            .any(|part| matches!(part, "" | "." | ".."));
        if climbs || revision.contains(['\\', ' ', '?', '#']) {
            bail!(
                "{text:?}: {revision:?} is no revision; use a branch, tag or commit such as main"
            );
        }
        Ok(Self {
            id: id.to_owned(),
            revision: revision.to_owned(),
        })
    }
}

impl std::fmt::Display for RepoRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.revision.as_str() {
            "main" => f.write_str(&self.id),
            revision => write!(f, "{}@{revision}", self.id),
        }
    }
}

fn valid_part(part: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !part.is_empty()
        && part.len() <= 96
        && part.chars().all(allowed)
        && !part.starts_with(['-', '.'])
        && !part.ends_with(['-', '.'])
        && !part.contains("..")
        && !part.contains("--") // the cache writes "/" as "--"
}

/// A data set on the hub, or a file or folder of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DatasetRef {
    /// The repository.
    pub(crate) repo: RepoRef,
    /// A file or folder in it; none for the whole.
    pub(crate) path: Option<String>,
}

impl DatasetRef {
    /// Parses `hf:owner/name[@revision][/path]`; none for text without the `hf:` prefix.
    pub(crate) fn parse(text: &str) -> Option<Result<Self>> {
        text.strip_prefix("hf:").map(|rest| {
            let rest = rest.trim_start_matches("//");
            Self::parse_bare(rest).with_context(|| format!("{text:?} is no hub data set"))
        })
    }

    /// Parses the same without the prefix.
    pub(crate) fn parse_bare(text: &str) -> Result<Self> {
        let (owner, rest) = text
            .split_once('/')
            .context("expected owner/name, then @revision and /path where needed")?;
        let (name, path) = match rest.split_once('/') {
            Some((name, path)) => (name, Some(path.trim_end_matches('/').to_owned())),
            None => (rest, None),
        };
        let repo = RepoRef::parse(&format!(
            "{owner}/{}",
            name.replace("%2F", "/").replace("%2f", "/")
        ))?;
        let path = path.filter(|path| !path.is_empty());
        if let Some(path) = &path {
            safe_path(path)?;
        }
        Ok(Self { repo, path })
    }
}

/// Whether a name is meant as a path rather than a hub id.
pub(crate) fn looks_like_path(name: &str) -> bool {
    let id = name.split('@').next().unwrap_or(name);
    name.starts_with(['.', '/', '~'])
        || name.contains('\\')
        || id.matches('/').count() != 1
        || id.ends_with('/')
}

/// Refuses a repository path that would leave its folder: such names come from a server or a user.
pub(crate) fn safe_path(path: &str) -> Result<()> {
    let climbs = path.split('/').any(|part| matches!(part, "" | "." | ".."));
    if climbs || path.contains(['\\', '\0']) || path.contains(':') {
        bail!("{path:?} is no path within a repository");
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn ids_with_and_without_a_revision() {
        let plain = RepoRef::parse("TinyLlama/TinyLlama-1.1B-Chat-v1.0").unwrap();
        assert_eq!(plain.revision, "main");
        assert_eq!(plain.to_string(), "TinyLlama/TinyLlama-1.1B-Chat-v1.0");
        let pinned = RepoRef::parse("a/b@refs/pr/1").unwrap();
        assert_eq!(
            (pinned.id.as_str(), pinned.revision.as_str()),
            ("a/b", "refs/pr/1")
        );
    }

    #[test]
    fn what_could_leave_the_cache_is_refused() {
        for bad in [
            "a",
            "a/b/c",
            "/a",
            "a/",
            "../b",
            "a/..",
            "a/b@../../x",
            "a/b@",
            "a/b@/x",
            "a--b/c",
            "a/b c",
            "a/b@x y",
        ] {
            assert!(RepoRef::parse(bad).is_err(), "{bad}");
        }
        for bad in ["../x", "/x", "a//b", "a/../b", "c:\\x", "a\\b"] {
            assert!(safe_path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn data_sets_with_paths_and_revisions() {
        assert!(DatasetRef::parse("train.jsonl").is_none());
        let whole = DatasetRef::parse("hf:databricks/dolly").unwrap().unwrap();
        assert_eq!(whole.path, None);
        let file = DatasetRef::parse("hf:a/b@v2/data/train.jsonl")
            .unwrap()
            .unwrap();
        assert_eq!(
            (file.repo.revision.as_str(), file.path.as_deref()),
            ("v2", Some("data/train.jsonl"))
        );
        let converted = DatasetRef::parse("hf:a/b@refs%2Fconvert%2Fparquet/default")
            .unwrap()
            .unwrap();
        assert_eq!(converted.repo.revision, "refs/convert/parquet");
        assert!(DatasetRef::parse("hf:a/b/../../x").unwrap().is_err());
        assert!(DatasetRef::parse("hf:dolly").unwrap().is_err());
    }

    #[test]
    fn paths_are_told_from_ids() {
        for path in ["./a/b", "/a/b", "a", "a/b/c", "~/a", "a\\b", "runs/"] {
            assert!(looks_like_path(path), "{path}");
        }
        for id in ["a/b", "a/b@refs/pr/1"] {
            assert!(!looks_like_path(id), "{id}");
        }
    }
}

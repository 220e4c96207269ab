//! The trainer's dealings with the file system, in one place: nothing half-written, every failure with a way out.
//!
//! - [`atomic`]: a file or folder is either the old one or the new one, never a mixture;
//! - [`jsonl`]: `log.jsonl`, append-only, cut back to a step when a run resumes;
//! - [`run_dir`]: the layout of a run folder and who may write into it;
//! - [`base`]: reading a base model's folder, weights memory-mapped;
//! - [`records`]: rows of a data file; parquet is decoded here, text formats are handed on as bytes.

pub(crate) mod atomic;
pub(crate) mod base;
pub(crate) mod jsonl;
pub(crate) mod records;
pub(crate) mod run_dir;

use std::io::{self, ErrorKind};
use std::path::Path;

/// Turns an I/O error into one that names the path, what was being done and what to do about it.
///
/// `doing` is a verb phrase such as `"write"` or `"create the folder"`.
pub(crate) fn explain(error: io::Error, doing: &str, path: &Path) -> anyhow::Error {
    let hint = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "; no space is left there: free some, or choose another disk with --set output.dir=DIR"
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "; this user may not do that there: check the owner and mode, or choose another place"
        }
        ErrorKind::NotFound => "; it does not exist: check the spelling and the current folder",
        ErrorKind::NotADirectory => "; a part of that path is a file, not a folder",
        ErrorKind::IsADirectory => "; that is a folder, a file was expected",
        _ => "",
    };
    anyhow::Error::new(error).context(format!("cannot {doing} {}{hint}", path.display()))
}

/// Reads a whole file, with an error that names it.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| explain(e, "read", path))
}

/// Reads a whole UTF-8 text file, with an error that names it.
pub(crate) fn read_text(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).map_err(|e| match e.kind() {
        ErrorKind::InvalidData => anyhow::anyhow!(
            "{} is not UTF-8 text: save it as UTF-8 and try again",
            path.display()
        ),
        _ => explain(e, "read", path),
    })
}

/// The names in a folder, sorted, folders with a trailing `/`; at most `limit`, then a count of the rest.
///
/// Used in "what is missing" errors, which show what is there instead.
pub(crate) fn listing(folder: &Path, limit: usize) -> String {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return "an unreadable folder".into();
    };
    let mut names: Vec<String> = entries
        .flatten()
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_dir = entry.path().is_dir();
            if is_dir { name + "/" } else { name }
        })
        .collect();
    names.sort();
    match names.len() {
        0 => "nothing".into(),
        n if n <= limit => names.join(", "),
        n => format!("{}, and {} more", names[..limit].join(", "), n - limit),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_says_what_to_do() {
        let error = explain(
            io::Error::from(ErrorKind::StorageFull),
            "write",
            Path::new("run/log.jsonl"),
        );
        let text = format!("{error:#}");
        assert!(
            text.contains("run/log.jsonl") && text.contains("output.dir"),
            "{text}"
        );
    }

    #[test]
    fn listing_is_sorted_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["c", "a", "b"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        std::fs::create_dir(dir.path().join("d")).unwrap();
        assert_eq!(listing(dir.path(), 9), "a, b, c, d/");
        assert_eq!(listing(dir.path(), 2), "a, b, and 2 more");
        assert_eq!(listing(&dir.path().join("none"), 2), "an unreadable folder");
    }

    #[test]
    fn text_that_is_not_utf8_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.toml");
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(read_text(&path).unwrap_err().to_string().contains("UTF-8"));
        assert!(
            format!("{:#}", read_text(&dir.path().join("y")).unwrap_err())
                .contains("does not exist")
        );
    }
}

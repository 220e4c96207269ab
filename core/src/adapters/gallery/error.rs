//! What can be wrong with a gallery, naming the file.

use thiserror::Error;

/// What can be wrong with a gallery or an entry.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GalleryError {
    /// Not the JSON that was expected.
    #[error("{file}: {reason}; publish the adapter again")]
    Json {
        /// The file, relative to the site.
        file: String,
        /// The parser's words.
        reason: String,
    },
    /// Another schema.
    #[error(
        "{file}: schema version {found}, this program knows {expected}; use the version of the trainer that wrote it, \
         or publish the site again"
    )]
    Version {
        /// The file.
        file: String,
        /// Its version.
        found: u32,
        /// The known one.
        expected: u32,
    },
    /// A value out of its range.
    #[error("{file}: {field} is {found:?}, expected {expected}")]
    Invalid {
        /// The file.
        file: String,
        /// The key.
        field: String,
        /// Its value.
        found: String,
        /// What would do.
        expected: &'static str,
    },
    /// A file that every entry has is not listed.
    #[error("{file}: {missing} is not among its files; publish the adapter again")]
    Unlisted {
        /// The entry.
        file: String,
        /// The file it lacks.
        missing: String,
    },
    /// A file is not the one that was published.
    #[error("{file}: {what} expected {expected}, found {found}; publish the adapter again")]
    Content {
        /// The file.
        file: String,
        /// `size` or `SHA-256`.
        what: &'static str,
        /// As recorded.
        expected: String,
        /// As it is.
        found: String,
    },
}

impl GalleryError {
    pub(super) fn json(file: &str, error: &serde_json::Error) -> Self {
        Self::Json {
            file: file.to_owned(),
            reason: error.to_string(),
        }
    }

    pub(super) fn invalid(file: &str, field: &str, found: &str, expected: &'static str) -> Self {
        Self::Invalid {
            file: file.to_owned(),
            field: field.to_owned(),
            found: found.to_owned(),
            expected,
        }
    }
}

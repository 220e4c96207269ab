//! What an answer's head says of a file (RFC 9110: sections 8.8, 14.4, 15.3.7).

use std::ops::Range;

/// The head of an answer. A server of another origin may hide any header but `Content-Length`, `Content-Type` and
/// `Last-Modified`; what is hidden is absent here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Head {
    /// The status code.
    pub status: u16,
    /// `Content-Range`.
    pub content_range: Option<String>,
    /// `Content-Length`.
    pub content_length: Option<u64>,
    /// `Content-Encoding`: the length is then not the file's.
    pub content_encoding: Option<String>,
    /// `ETag`.
    pub etag: Option<String>,
    /// `Last-Modified`.
    pub last_modified: Option<String>,
    /// `Retry-After` in seconds.
    pub retry_after: Option<f64>,
}

impl Head {
    /// The part of the file that a 206 sends, and the file's length, as far as they are said.
    pub fn range(&self) -> Option<(Range<u64>, Option<u64>)> {
        let said = self.content_range.as_deref()?.strip_prefix("bytes ")?;
        let (range, total) = said.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (first <= last).then_some((first..last + 1, total.trim().parse().ok()))
    }

    /// The file's length, where this answer tells it.
    pub fn total(&self) -> Option<u64> {
        match self.status {
            206 if self.plain() => self.range()?.1,
            200 if self.plain() => self.content_length,
            _ => None,
        }
    }

    /// Whether the body is the file's own bytes.
    pub fn plain(&self) -> bool {
        self.content_encoding
            .as_deref()
            .is_none_or(|encoding| encoding == "identity")
    }

    /// What tells this version of the file from another: the `ETag`, else the date; empty where both are hidden.
    pub fn validator(&self) -> String {
        // The same file has a weak tag where a server compressed it on the fly.
        let tag = self.etag.as_deref().map(|tag| tag.trim_start_matches("W/"));
        tag.or(self.last_modified.as_deref())
            .unwrap_or_default()
            .to_owned()
    }

    /// Whether asking again may help: the server is busy or restarting.
    pub fn is_passing(&self) -> bool {
        matches!(self.status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
    }
}

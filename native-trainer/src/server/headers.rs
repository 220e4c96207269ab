//! What a file server does not know by itself: isolation, caching and types.
//!
//! `SharedArrayBuffer` and precise timers need a cross-origin isolated page: `Cross-Origin-Opener-Policy: same-origin` with
//! `Cross-Origin-Embedder-Policy: require-corp` (HTML standard, "cross-origin isolated capability"). Names that carry a hash of
//! their content are cached for good; everything else is asked for again, and answered with 304 where it has not changed.

use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Sent with every answer.
const ALWAYS: [(HeaderName, &str); 5] = [
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-embedder-policy"),
        "require-corp",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    // A `.br` or `.gz` beside a file makes its bytes depend on what the visitor accepts.
    (VARY, "accept-encoding"),
];

/// Types by ending, where the general table has none or a worse one.
const TYPES: [(&str, &str); 7] = [
    ("wasm", "application/wasm"),
    ("js", "text/javascript; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("jsonl", "application/jsonl"),
    ("toml", "application/toml"),
    ("safetensors", "application/octet-stream"),
];

/// A year, the longest that means anything.
const FOR_GOOD: &str = "public, max-age=31536000, immutable";

/// Refuses hidden files and adds the headers.
pub(super) async fn add(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let mut response = if is_hidden(&path) {
        (StatusCode::NOT_FOUND, "not found\n").into_response()
    } else {
        next.run(request).await
    };
    let found = response.status().is_success();
    let headers = response.headers_mut();
    for (name, value) in ALWAYS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let cache = if found && is_hashed(&path) {
        FOR_GOOD
    } else {
        "no-cache"
    };
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    if found {
        set_type(headers, &path);
    }
    response
}

/// Dot files (`.git`, locks, half-written folders) are nobody's business. Encoded dots and slashes have no honest use.
fn is_hidden(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let encoded = ["%2e", "%2f", "%5c"].iter().any(|e| lower.contains(e));
    encoded || path.split('/').any(|part| part.starts_with('.'))
}

/// Whether the name carries a content hash: at least eight hexadecimal digits, a letter and a digit among them, between
/// `-`, `_` or `.` and the next of those: `app-1f3a9c04.wasm`, `app-1f3a9c04_bg.wasm`.
fn is_hashed(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let Some((stem, _ending)) = name.rsplit_once('.') else {
        return false;
    };
    stem.split(['-', '_', '.']).skip(1).any(|part| {
        part.len() >= 8
            && part.chars().all(|c| c.is_ascii_hexdigit())
            && part.chars().any(|c| c.is_ascii_digit())
            && part.chars().any(|c| c.is_ascii_alphabetic())
    })
}

fn set_type(headers: &mut HeaderMap, path: &str) {
    let name = path.rsplit('/').next().unwrap_or(path);
    let ending = name.rsplit_once('.').map(|(_, ending)| ending);
    if let Some((_, value)) = TYPES.iter().find(|(known, _)| Some(*known) == ending) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
        return;
    }
    let text = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .filter(|value| value.starts_with("text/") && !value.contains("charset"))
        .map(|value| format!("{value}; charset=utf-8"));
    if let Some(value) = text.and_then(|text| HeaderValue::from_str(&text).ok()) {
        headers.insert(CONTENT_TYPE, value);
    }
}

//! What a failure of the hub means, and what to do about it.

use anyhow::{Error, anyhow};
use hf_hub::api::sync::ApiError;

use super::reference::RepoRef;
use super::settings::HubSettings;

/// The HTTP status an error stands for, if the server answered at all.
///
/// The HTTP client's error type is not part of `hf-hub`'s interface, its text is: `http status: 404`.
pub(crate) fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::TooManyRetries(inner) => status(inner),
        ApiError::RequestError(inner) => {
            let text = inner.to_string();
            let digits = text.rsplit_once("status: ")?.1;
            digits.get(..3)?.parse().ok()
        }
        _ => None,
    }
}

/// Whether the network, not the request, is at fault, so that trying again may help.
pub(crate) fn is_transient(error: &ApiError) -> bool {
    match (error, status(error)) {
        (_, Some(code)) => code == 408 || code == 429 || code >= 500,
        (ApiError::RequestError(_), None) => true,
        (ApiError::IoError(inner), None) => !is_local(inner.kind()),
        (ApiError::TooManyRetries(inner), None) => is_transient(inner),
        _ => false,
    }
}

/// Failures of this machine's disk, which arrive through the same type as those of the connection.
fn is_local(kind: std::io::ErrorKind) -> bool {
    use std::io::ErrorKind::{
        IsADirectory, NotADirectory, NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem,
        StorageFull,
    };
    matches!(
        kind,
        StorageFull
            | QuotaExceeded
            | PermissionDenied
            | ReadOnlyFilesystem
            | NotFound
            | NotADirectory
            | IsADirectory
    )
}

/// An error for the user: what was asked of whom, what came back, what to do.
pub(crate) fn explain(
    error: ApiError,
    settings: &HubSettings,
    repo: &RepoRef,
    file: Option<&str>,
) -> Error {
    let endpoint = &settings.endpoint;
    let what = match file {
        Some(file) => format!("{file} of {repo}"),
        None => repo.to_string(),
    };
    let token = match settings.token {
        Some(_) => {
            "the token in use may lack the right to read it, or be expired: check it with `hf auth whoami`"
        }
        None => "if it is private or gated, set HF_TOKEN to a token of an account that may read it",
    };
    let advice = match (status(&error), &error) {
        (Some(401), _) => format!("the hub refuses access, or has no such repository; {token}; else check the spelling"),
        (Some(403), _) => format!("access is gated: accept its terms at {endpoint}/{}, then retry; {token}", repo.id),
        (Some(404), _) => format!(
            "the hub has no such repository, revision or file, and there is no folder of that name here; \
             check the spelling; {token}"
        ),
        (Some(416), _) => "the server refused to continue the download: the file changed or is empty; run it again".into(),
        (Some(429), _) => "too many requests: wait a few minutes; setting HF_TOKEN raises the limit".into(),
        (Some(code), _) if code >= 500 => "the hub has trouble: try again later; what was downloaded is kept".into(),
        (_, ApiError::LockAcquisition(path)) => format!(
            "another process is downloading it ({} is locked): wait for it",
            path.display()
        ),
        (_, ApiError::IoError(inner)) if is_local(inner.kind()) => format!(
            "writing to the cache {} failed: free space there or set HF_HOME to another folder",
            settings.cache.display()
        ),
        (_, ApiError::MissingHeader(_) | ApiError::InvalidHeader(_)) => {
            "the server does not answer as a hub does: check HF_ENDPOINT".into()
        }
        _ => "there is no folder of that name here, and the hub cannot be reached: check the spelling, the connection, proxy and HF_ENDPOINT; what was downloaded is kept, \
              and HF_HUB_OFFLINE=1 uses the cache only"
            .into(),
    };
    anyhow!(error).context(format!("cannot get {what} from {endpoint}: {advice}"))
}

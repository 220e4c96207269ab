//! Names, dates and hashes that may stand in a gallery. A manifest comes from a server: a name in it must not lead anywhere
//! but into its own folder, on any system.

use super::GalleryError;

/// Longest slug and longest part of a path.
const LONGEST: usize = 80;

/// Names that Windows takes for devices, whatever their ending.
const DEVICES: [&str; 4] = ["con", "prn", "aux", "nul"];

/// A slug for `name`: its letters and digits in lower case, everything else as single hyphens. Empty when nothing is left.
#[must_use]
pub fn slug_of(name: &str) -> String {
    let mut slug = String::new();
    for c in name.chars() {
        if c.is_ascii_alphanumeric() {
            slug.push(c.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
        if slug.len() == LONGEST {
            break;
        }
    }
    slug.trim_end_matches('-').to_owned()
}

/// Refuses what [`slug_of`] would not have made. `file` is where it stands.
///
/// # Errors
/// Upper case, other characters than letters, digits and single inner hyphens, too long, a device of Windows.
pub fn check_slug(slug: &str, file: &str) -> Result<(), GalleryError> {
    if !slug.is_empty() && slug_of(slug) == slug && !is_device(slug) {
        return Ok(());
    }
    Err(GalleryError::invalid(
        file,
        "slug",
        slug,
        "lower-case letters, digits and single hyphens between them, at most 80",
    ))
}

/// Refuses a path that is not plainly below its folder: parts of letters, digits, `.`, `_`, `-`, none of them hidden.
///
/// # Errors
/// Absolute paths, `..`, backslashes, drive letters, hidden files, and anything else outside those characters.
pub fn check_path(path: &str, file: &str) -> Result<(), GalleryError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let part = |part: &str| {
        !part.is_empty()
            && part.len() <= LONGEST
            && part.chars().all(allowed)
            && !part.starts_with(['.', '-'])
            && !part.ends_with('.')
            && !is_device(part)
    };
    if path.split('/').all(part) {
        return Ok(());
    }
    Err(GalleryError::invalid(
        file,
        "path",
        path,
        "a path below the entry's folder, of letters, digits, '.', '_' and '-'",
    ))
}

fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name).to_ascii_lowercase();
    let numbered = |prefix: &str| {
        stem.strip_prefix(prefix)
            .is_some_and(|n| n.len() == 1 && n.chars().all(|c| c.is_ascii_digit()))
    };
    DEVICES.contains(&stem.as_str()) || numbered("com") || numbered("lpt")
}

/// Refuses what is no day of the calendar written `YYYY-MM-DD`.
///
/// # Errors
/// Another form, a month or a day that does not exist.
pub fn check_date(date: &str, file: &str) -> Result<(), GalleryError> {
    let parts: Vec<&str> = date.split('-').collect();
    let number = |text: &str, digits: usize| -> Option<u32> {
        let plain = text.len() == digits && text.chars().all(|c| c.is_ascii_digit());
        plain.then(|| text.parse().ok()).flatten()
    };
    let is_day = match parts.as_slice() {
        [y, m, d] => number(y, 4)
            .zip(number(m, 2))
            .zip(number(d, 2))
            .is_some_and(|((year, month), day)| (1..=days_in(year, month)).contains(&day)),
        _ => false,
    };
    if is_day {
        return Ok(());
    }
    Err(GalleryError::invalid(
        file,
        "created",
        date,
        "a date such as 2026-11-24",
    ))
}

/// Days of a month; none for a month that does not exist.
fn days_in(year: u32, month: u32) -> u32 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    }
}

/// Refuses what is no SHA-256 in lower-case hexadecimal.
pub(super) fn check_hash(hash: &str, field: &str, file: &str) -> Result<(), GalleryError> {
    let digit = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    if hash.len() == 64 && hash.chars().all(digit) {
        return Ok(());
    }
    Err(GalleryError::invalid(
        file,
        field,
        hash,
        "64 hexadecimal digits",
    ))
}

/// Refuses a name nobody could see.
pub(super) fn check_shown(text: &str, field: &str, file: &str) -> Result<(), GalleryError> {
    let fits = text.len() <= 300 && !text.trim().is_empty();
    if fits && !text.chars().any(char::is_control) {
        return Ok(());
    }
    Err(GalleryError::invalid(
        file,
        field,
        text,
        "1 to 300 bytes of text without control characters",
    ))
}

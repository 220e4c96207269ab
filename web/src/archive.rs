//! Adapters as zips, read as what a stranger sent and written so that equal adapters are equal bytes.
//!
//! A zip says about itself whatever its maker liked, so nothing is believed: names must stay inside, sizes are counted
//! while unpacking, and what grows too much is left packed.

use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};

use thiserror::Error;
use zip::read::ZipFile;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, System, ZipArchive, ZipWriter};

/// Most entries of an archive.
pub const MOST_ENTRIES: usize = 256;
/// Most bytes unpacked, all files together. Far above any adapter of a base that fits a page.
pub const MOST_BYTES: u64 = 1 << 30;
/// Most bytes unpacked for one byte packed, beyond the first [`FREE_BYTES`]. Weights hardly shrink, JSON to a tenth.
pub const MOST_RATIO: u64 = 100;
/// Bytes that may come out of an entry however little went in.
pub const FREE_BYTES: u64 = 1 << 20;

/// Why an archive is refused.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// Not a zip, or a damaged one.
    #[error(
        "the zip cannot be read: {reason}; make it again, or drop the adapter's folder instead"
    )]
    Damaged {
        /// The reader's words.
        reason: String,
    },
    /// Too many entries.
    #[error("the zip holds {found} entries, more than the {MOST_ENTRIES} an adapter may have")]
    TooMany {
        /// Entries there are.
        found: usize,
    },
    /// A name that leads out of the archive.
    #[error(
        "the zip holds {name:?}, a name that leads out of its folder; such a zip is not unpacked"
    )]
    Escapes {
        /// The name.
        name: String,
    },
    /// An entry that is no plain file.
    #[error("the zip holds {name:?}, which is {what}; only plain files are unpacked")]
    NoFile {
        /// The entry.
        name: String,
        /// `a symbolic link`, `encrypted`.
        what: &'static str,
    },
    /// One name for several entries.
    #[error(
        "the zip counts {stated} entries but names only {found} different ones; which of two of one name is meant \
         cannot be told"
    )]
    Twice {
        /// Entries its directory counts.
        stated: usize,
        /// Different names.
        found: usize,
    },
    /// An entry that grows out of proportion.
    #[error(
        "{name:?} unpacks to more than {MOST_RATIO} times its size in the zip; no adapter does, so it is not unpacked"
    )]
    Ratio {
        /// The entry.
        name: String,
    },
    /// Too much in all.
    #[error("the zip unpacks to more than {} MiB, the most an adapter may have", MOST_BYTES >> 20)]
    TooLarge,
    /// Writing failed.
    #[error("the zip cannot be written: {reason}")]
    Write {
        /// The writer's words.
        reason: String,
    },
}

/// Whether `bytes` begin as a zip does.
#[must_use]
pub fn is_zip(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06")
}

/// The files of a zip, by name. Folders, hidden files and what macOS adds are left out.
///
/// # Errors
/// [`ArchiveError`], for the first thing wrong; nothing is unpacked then.
pub fn unpack(bytes: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, ArchiveError> {
    unpack_within(bytes, MOST_BYTES)
}

fn unpack_within(bytes: &[u8], most: u64) -> Result<BTreeMap<String, Vec<u8>>, ArchiveError> {
    let damaged = |e: zip::result::ZipError| ArchiveError::Damaged {
        reason: e.to_string(),
    };
    let stated = stated_entries(bytes);
    let mut zip = ZipArchive::new(Cursor::new(bytes)).map_err(damaged)?;
    if zip.len().max(stated) > MOST_ENTRIES {
        return Err(ArchiveError::TooMany {
            found: zip.len().max(stated),
        });
    }
    // Entries of one name are one entry to the reader; the directory's own count tells.
    if stated > zip.len() {
        return Err(ArchiveError::Twice {
            stated,
            found: zip.len(),
        });
    }
    let mut files = BTreeMap::new();
    let mut left = most;
    for index in 0..zip.len() {
        // Encrypted entries are refused by name below, which needs them opened without decoding.
        let raw = zip.by_index_raw(index).map_err(damaged)?;
        let name = raw.name().to_owned();
        check_entry(&raw, &name)?;
        let skipped = raw.is_dir() || is_clutter(&name);
        let packed = raw.compressed_size();
        drop(raw);
        if skipped {
            continue;
        }
        let entry = zip.by_index(index).map_err(damaged)?;
        let content = read_entry(entry, &name, packed, left)?;
        left -= content.len() as u64;
        files.insert(name, content);
    }
    Ok(files)
}

fn check_entry<R: Read + ?Sized>(entry: &ZipFile<'_, R>, name: &str) -> Result<(), ArchiveError> {
    let escapes = name.is_empty()
        || name.starts_with('/')
        || name.contains(['\\', '\0', ':'])
        || name.split('/').any(|part| part == "..");
    if escapes {
        return Err(ArchiveError::Escapes {
            name: name.to_owned(),
        });
    }
    let what = match () {
        () if entry.encrypted() => "encrypted",
        () if entry.is_symlink() => "a symbolic link",
        () => return Ok(()),
    };
    Err(ArchiveError::NoFile {
        name: name.to_owned(),
        what,
    })
}

/// Unpacks one entry, counting.
fn read_entry<R: Read + ?Sized>(
    mut entry: ZipFile<'_, R>,
    name: &str,
    packed: u64,
    left: u64,
) -> Result<Vec<u8>, ArchiveError> {
    let ratio = FREE_BYTES.max(packed.saturating_mul(MOST_RATIO));
    let most = ratio.min(left);
    let mut content = Vec::new();
    let damaged = |e: std::io::Error| ArchiveError::Damaged {
        reason: format!("{name:?}: {e}"),
    };
    (&mut entry)
        .take(most.saturating_add(1))
        .read_to_end(&mut content)
        .map_err(damaged)?;
    match content.len() as u64 > most {
        false => Ok(content),
        true if ratio <= left => Err(ArchiveError::Ratio {
            name: name.to_owned(),
        }),
        true => Err(ArchiveError::TooLarge),
    }
}

/// Entries as the end of the central directory counts them; 0 where it is not found.
fn stated_entries(bytes: &[u8]) -> usize {
    let end = bytes.windows(4).rposition(|w| w == b"PK\x05\x06");
    let count = end.and_then(|at| bytes.get(at + 10..at + 12));
    match count {
        Some(&[low, high]) => usize::from(u16::from_le_bytes([low, high])),
        _ => 0,
    }
}

fn is_clutter(name: &str) -> bool {
    name.split('/')
        .any(|part| part.starts_with('.') || part == "__MACOSX")
}

/// A zip of `files`, in this order. The same files give the same bytes, whenever and wherever they are written: entries are
/// stored as they are, dated 1980.
///
/// # Errors
/// [`ArchiveError::Write`].
pub fn pack(files: &[(&str, &[u8])]) -> Result<Vec<u8>, ArchiveError> {
    let failed = |reason: String| ArchiveError::Write { reason };
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .system(System::Unix)
        .unix_permissions(0o644);
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        zip.start_file(*name, options)
            .map_err(|e| failed(e.to_string()))?;
        zip.write_all(content).map_err(|e| failed(e.to_string()))?;
    }
    Ok(zip
        .finish()
        .map_err(|e| failed(e.to_string()))?
        .into_inner())
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;

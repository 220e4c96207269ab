//! TensorBoard event files: `events.out.tfevents.TIME.HOST`.
//!
//! ```text
//! record  = length u64 | masked crc32c of length u32 | payload | masked crc32c of payload u32      (little-endian)
//! payload = Event protobuf { 1: wall_time double, 2: step int64, 3: file_version string, 5: Summary }
//! Summary = { 1: Value { 1: tag string, 2: simple_value float } ... }
//! ```
//! Sources: TensorFlow's `record_writer.cc`, `event.proto`, `summary.proto`. Those few fields are encoded by hand.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;

use crate::files::{explain, read};

const PREFIX: &str = "events.out.tfevents.";

/// Appends scalars to an event file.
#[derive(Debug)]
pub(crate) struct EventWriter {
    path: PathBuf,
    file: File,
}

impl EventWriter {
    /// Starts a new file in `folder`.
    pub(crate) fn create(folder: &Path) -> Result<Self> {
        let seconds = now() as u64;
        let path = folder.join(format!("{PREFIX}{seconds:010}.{}", host()));
        let file = File::create(&path).map_err(|e| explain(e, "create", &path))?;
        let mut writer = Self { path, file };
        let mut version = Vec::new();
        put_fixed64(&mut version, 1, now());
        put_bytes(&mut version, 3, b"brain.Event:2");
        writer.record(&version)?;
        Ok(writer)
    }

    /// Continues the newest file in `folder` after `last_step`: later events and a torn end are cut off, so that
    /// the curve does not show a stretch twice. Starts a new file where there is none.
    pub(crate) fn resume(folder: &Path, last_step: u64) -> Result<Self> {
        let Some(path) = newest(folder) else {
            return Self::create(folder);
        };
        let bytes = read(&path)?;
        let mut keep = 0;
        for (end, event) in Records::new(&bytes) {
            if event.step > last_step {
                break;
            }
            keep = end;
        }
        if keep == 0 {
            // Not even the version record is whole.
            fs::remove_file(&path).map_err(|e| explain(e, "remove", &path))?;
            return Self::create(folder);
        }
        let mut file = OpenOptions::new()
            .write(true)
            .open(&path)
            .map_err(|e| explain(e, "open", &path))?;
        file.set_len(keep as u64)
            .and_then(|()| file.seek(SeekFrom::End(0)))
            .map_err(|e| explain(e, "shorten", &path))?;
        Ok(Self { path, file })
    }

    /// Writes values of one step. Tags with a `/` are grouped: `train/loss`, `train/lr`, `eval/loss`.
    pub(crate) fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in values {
            let mut entry = Vec::new();
            put_bytes(&mut entry, 1, tag.as_bytes());
            put_key(&mut entry, 2, 5);
            entry.extend((*value as f32).to_le_bytes());
            put_bytes(&mut summary, 1, &entry);
        }
        let mut event = Vec::new();
        put_fixed64(&mut event, 1, now());
        put_key(&mut event, 2, 0);
        put_varint(&mut event, step);
        put_bytes(&mut event, 5, &summary);
        self.record(&event)
    }

    fn record(&mut self, payload: &[u8]) -> Result<()> {
        let length = (payload.len() as u64).to_le_bytes();
        let mut record = length.to_vec();
        record.extend(masked_crc(&length).to_le_bytes());
        record.extend(payload);
        record.extend(masked_crc(payload).to_le_bytes());
        self.file
            .write_all(&record)
            .map_err(|e| explain(e, "append to", &self.path))
    }
}

/// The step and scalars of one event.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Event {
    /// Optimizer step; 0 for the version record.
    pub(crate) step: u64,
    /// `(tag, value)`.
    pub(crate) scalars: Vec<(String, f32)>,
}

/// Walks whole, undamaged records; yields the offset behind each, and its event.
struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Records<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn step(&mut self) -> Option<(usize, Event)> {
        let rest = self.bytes.get(self.at..)?;
        let header = rest.get(..8)?;
        let length = usize::try_from(u64::from_le_bytes(header.try_into().ok()?)).ok()?;
        let crc = |at: usize| {
            Some(u32::from_le_bytes(
                rest.get(at..at.checked_add(4)?)?.try_into().ok()?,
            ))
        };
        let end = length.checked_add(12)?;
        let payload = rest.get(12..end)?;
        if crc(8)? != masked_crc(header) || crc(end)? != masked_crc(payload) {
            return None;
        }
        self.at += end + 4;
        Some((self.at, decode(payload)?))
    }
}

impl Iterator for Records<'_> {
    type Item = (usize, Event);

    fn next(&mut self) -> Option<Self::Item> {
        self.step()
    }
}

fn decode(payload: &[u8]) -> Option<Event> {
    let mut event = Event::default();
    for (field, value) in Fields(payload) {
        match (field, value) {
            (2, Wire::Varint(step)) => event.step = step,
            (5, Wire::Bytes(summary)) => {
                for (_, value) in Fields(summary) {
                    let Wire::Bytes(entry) = value else { continue };
                    let (mut tag, mut number) = (String::new(), None);
                    for (field, value) in Fields(entry) {
                        match (field, value) {
                            (1, Wire::Bytes(text)) => {
                                tag = String::from_utf8_lossy(text).into_owned()
                            }
                            (2, Wire::Fixed32(bits)) => number = Some(f32::from_bits(bits)),
                            _ => {}
                        }
                    }
                    event.scalars.push((tag, number?));
                }
            }
            _ => {}
        }
    }
    Some(event)
}

/// A protobuf field's content, by wire type.
enum Wire<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
    Fixed64,
}

/// Walks the fields of a protobuf message.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Wire<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => self.take(8).map(|_| Wire::Fixed64)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        Some((key >> 3, value))
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_key(out: &mut Vec<u8>, field: u64, wire: u64) {
    put_varint(out, field << 3 | wire);
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_key(out, field, 2);
    put_varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn put_fixed64(out: &mut Vec<u8>, field: u64, value: f64) {
    put_key(out, field, 1);
    out.extend(value.to_le_bytes());
}

/// CRC32C rotated and offset, because a CRC of data that holds CRCs is weak (`crc32c.h`).
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |age| age.as_secs_f64())
}

fn host() -> String {
    let name = std::env::var("HOSTNAME")
        .or_else(|_| fs::read_to_string("/etc/hostname"))
        .unwrap_or_default();
    let plain: String = name
        .trim()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        .collect();
    if plain.is_empty() {
        "localhost".into()
    } else {
        plain
    }
}

fn newest(folder: &Path) -> Option<PathBuf> {
    let names = fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.file_name());
    let newest = names
        .filter(|name| name.to_string_lossy().starts_with(PREFIX))
        .max()?;
    Some(folder.join(newest))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    fn events(folder: &Path) -> Vec<(u64, Vec<(String, f32)>)> {
        let bytes = fs::read(newest(folder).unwrap()).unwrap();
        let records: Vec<_> = Records::new(&bytes).collect();
        assert_eq!(
            records.last().unwrap().0,
            bytes.len(),
            "every byte belongs to a record"
        );
        records
            .into_iter()
            .skip(1)
            .map(|(_, event)| (event.step, event.scalars))
            .collect()
    }

    #[test]
    fn checksums_match_known_values() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(
            masked_crc(b"123456789"),
            0xe306_9283_u32.rotate_right(15).wrapping_add(0xa282_ead8)
        );
    }

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let dir = tempfile::tempdir().unwrap();
        drop(EventWriter::create(dir.path()).unwrap());
        let bytes = fs::read(newest(dir.path()).unwrap()).unwrap();
        assert_eq!(bytes[..8], 24_u64.to_le_bytes());
        assert_eq!(bytes[12], 0x09, "field 1, 64 bits");
        assert_eq!(&bytes[21..36], b"\x1a\x0dbrain.Event:2");
        assert_eq!(bytes.len(), 12 + 24 + 4);
    }

    #[test]
    fn scalars_are_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(dir.path()).unwrap();
        writer
            .scalars(1, &[("train/loss", 2.5), ("train/lr", 1e-4)])
            .unwrap();
        writer.scalars(300, &[("eval/loss", f64::NAN)]).unwrap();
        let events = events(dir.path());
        assert_eq!(
            events[0],
            (
                1,
                vec![("train/loss".into(), 2.5), ("train/lr".into(), 1e-4)]
            )
        );
        assert!(events[1].0 == 300 && events[1].1[0].1.is_nan());
    }

    #[test]
    fn resuming_cuts_later_steps_and_torn_ends() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(dir.path()).unwrap();
        (1..=5).for_each(|s| writer.scalars(s, &[("l", s as f64)]).unwrap());
        let path = writer.path.clone();
        drop(writer);
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let mut writer = EventWriter::resume(dir.path(), 3).unwrap();
            writer.scalars(4, &[("l", 40.0)]).unwrap();
            let events = events(dir.path());
            assert_eq!(events.last().unwrap().1[0].1, 40.0);
            assert!(events.iter().filter(|e| e.0 == 4).count() == 1 && events.len() <= 4);
            for path in fs::read_dir(dir.path()).unwrap() {
                fs::remove_file(path.unwrap().path()).unwrap();
            }
        }
    }

    #[test]
    fn hostile_lengths_do_not_panic() {
        let mut bytes = u64::MAX.to_le_bytes().to_vec();
        bytes.extend(masked_crc(&u64::MAX.to_le_bytes()).to_le_bytes());
        assert_eq!(Records::new(&bytes).count(), 0);
        assert_eq!(
            Fields(&[
                0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1
            ])
            .count(),
            0
        );
    }
}

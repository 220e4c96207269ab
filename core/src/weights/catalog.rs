//! Which tensors a set of files has and where they lie, from the files' headers alone; and a source over whatever bytes
//! of them are at hand. A browser fetches ranges of a model so, hands them over, and never holds a file.

use super::header::{Entry, FileHeader};
use super::{HostTensor, TensorSpec, WeightError, WeightSource};
use std::borrow::Cow;
use std::collections::{BTreeMap, btree_map::Entry as Slot};
use std::ops::Range;

/// The tensors of one or several files, without their bytes.
#[derive(Clone, Debug)]
pub struct Catalog {
    files: Vec<String>,
    tensors: BTreeMap<String, (usize, Entry)>,
    metadata: BTreeMap<String, String>,
}

/// A run of bytes of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRange {
    /// The file's name.
    pub file: String,
    /// Its bytes, counted from the file's first.
    pub bytes: Range<u64>,
}

impl Catalog {
    /// Joins the headers of the files named.
    ///
    /// # Errors
    /// A tensor held twice.
    pub fn new(headers: Vec<(String, FileHeader)>) -> Result<Self, WeightError> {
        let mut all = Self {
            files: Vec::with_capacity(headers.len()),
            tensors: BTreeMap::new(),
            metadata: BTreeMap::new(),
        };
        for (index, (file, header)) in headers.into_iter().enumerate() {
            all.files.push(file);
            all.metadata.extend(header.metadata);
            for (name, entry) in header.entries {
                match all.tensors.entry(name) {
                    Slot::Vacant(slot) => slot.insert((index, entry)),
                    Slot::Occupied(slot) => {
                        return Err(WeightError::Duplicate {
                            name: slot.key().clone(),
                            first: all.files[slot.get().0].clone(),
                            second: all.files[index].clone(),
                        });
                    }
                };
            }
        }
        Ok(all)
    }

    /// The `__metadata__` of the files together.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Every tensor's name, sorted.
    pub fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    /// Where the tensors `names` lie, by file and place; neighbours are one range.
    ///
    /// # Errors
    /// A tensor that no file holds.
    pub fn ranges(&self, names: &[String]) -> Result<Vec<FileRange>, WeightError> {
        let mut places = Vec::with_capacity(names.len());
        for name in names {
            let (file, entry) = self.entry(name)?;
            places.push((file, entry.range.clone()));
        }
        places.sort_by_key(|(file, range)| (*file, range.start));
        places.dedup();
        let mut joined: Vec<(usize, Range<u64>)> = Vec::new();
        for (file, range) in places {
            match joined.last_mut() {
                Some((last, run)) if *last == file && run.end == range.start => run.end = range.end,
                _ => joined.push((file, range)),
            }
        }
        let named = |(file, bytes): (usize, Range<u64>)| FileRange {
            file: self.files[file].clone(),
            bytes,
        };
        Ok(joined.into_iter().map(named).collect())
    }

    pub(super) fn entry(&self, name: &str) -> Result<(usize, &Entry), WeightError> {
        match self.tensors.get(name) {
            Some((file, entry)) => Ok((*file, entry)),
            None => Err(WeightError::Missing {
                name: name.to_owned(),
                files: self.file_of(name),
            }),
        }
    }

    pub(super) fn spec(&self, name: &str) -> Option<TensorSpec> {
        let (_, e) = self.tensors.get(name)?;
        Some(TensorSpec::new(name, e.dtype, e.shape.clone()))
    }

    pub(super) fn file_of(&self, name: &str) -> String {
        match self.tensors.get(name) {
            Some((file, _)) => self.files[*file].clone(),
            None => self.files.join(", "),
        }
    }
}

/// A source over the ranges that are in memory now. It knows every tensor of its catalog and gives those whose bytes it
/// was handed.
#[derive(Debug)]
pub struct PartialSource<'a> {
    catalog: &'a Catalog,
    held: Vec<(usize, u64, Vec<u8>)>,
}

impl<'a> PartialSource<'a> {
    /// A source without any bytes yet.
    pub fn new(catalog: &'a Catalog) -> Self {
        Self {
            catalog,
            held: Vec::new(),
        }
    }

    /// Takes the bytes of `range`.
    ///
    /// # Errors
    /// Another number of bytes than the range has; a file that is not in the catalog.
    pub fn hold(&mut self, range: &FileRange, bytes: Vec<u8>) -> Result<(), WeightError> {
        let known = self.catalog.files.iter().position(|f| *f == range.file);
        let file = known.ok_or_else(|| WeightError::UnknownFile {
            file: range.file.clone(),
            files: self.catalog.files.join(", "),
        })?;
        let expected = range.bytes.end.saturating_sub(range.bytes.start);
        if bytes.len() as u64 != expected {
            return Err(WeightError::Length {
                file: format!(
                    "{}, bytes {}..{}",
                    range.file, range.bytes.start, range.bytes.end
                ),
                expected,
                found: bytes.len() as u64,
            });
        }
        self.held.push((file, range.bytes.start, bytes));
        Ok(())
    }
}

impl WeightSource for PartialSource<'_> {
    fn names(&self) -> Vec<String> {
        self.catalog.names()
    }

    fn spec(&self, name: &str) -> Option<TensorSpec> {
        self.catalog.spec(name)
    }

    fn get(&self, name: &str) -> Result<HostTensor<'_>, WeightError> {
        let (file, entry) = self.catalog.entry(name)?;
        let within = |(held, start, bytes): &'_ (usize, u64, Vec<u8>)| {
            let begin = entry.range.start.checked_sub(*start)?;
            let end = entry.range.end.checked_sub(*start)?;
            (*held == file && end <= bytes.len() as u64).then_some(begin as usize..end as usize)
        };
        let found = self
            .held
            .iter()
            .find_map(|run| within(run).and_then(|range| run.2.get(range)));
        let bytes = found.ok_or_else(|| WeightError::NotHeld {
            name: name.to_owned(),
            file: self.catalog.file_of(name),
        })?;
        HostTensor::new(entry.dtype, entry.shape.clone(), Cow::Borrowed(bytes))
            .map_err(|e| e.named(name))
    }

    fn file_of(&self, name: &str) -> String {
        self.catalog.file_of(name)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;
    use crate::weights::{
        FingerprintBuilder, OwnedTensor, SafetensorsSource, base_fingerprint, serialize,
    };

    /// Two files; the first holds `a`, `b` and `d` side by side.
    fn files() -> Vec<(String, Vec<u8>)> {
        let tensor = |name: &str, values: &[f32]| {
            let tensor = OwnedTensor::from_f32(vec![values.len()], values).unwrap();
            (name.to_owned(), tensor)
        };
        let first = [
            tensor("a", &[1.0, 2.0]),
            tensor("b", &[3.0]),
            tensor("d", &[4.0, 5.0, 6.0]),
        ];
        let second = [tensor("c", &[7.0])];
        let none = BTreeMap::new();
        vec![
            ("1".to_owned(), serialize(&first, &none).unwrap()),
            ("2".to_owned(), serialize(&second, &none).unwrap()),
        ]
    }

    /// As a browser reads it: eight bytes, then the rest of the header, and no more.
    fn catalog(files: &[(String, Vec<u8>)]) -> Catalog {
        let header = |(name, bytes): &(String, Vec<u8>)| {
            let length = FileHeader::length(name, &bytes[..8]).unwrap() as usize;
            assert!(length < bytes.len());
            let header = FileHeader::parse(name, &bytes[..length]).unwrap();
            assert_eq!(header.total_bytes(), bytes.len() as u64);
            (name.clone(), header)
        };
        Catalog::new(files.iter().map(header).collect()).unwrap()
    }

    fn fetch(files: &[(String, Vec<u8>)], range: &FileRange) -> Vec<u8> {
        let (_, bytes) = files.iter().find(|(name, _)| *name == range.file).unwrap();
        bytes[range.bytes.start as usize..range.bytes.end as usize].to_vec()
    }

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn ranges_give_the_tensors_of_the_whole_file_and_no_others() {
        let files = files();
        let whole = SafetensorsSource::new(files.clone()).unwrap();
        let catalog = catalog(&files);
        assert_eq!(catalog.names(), whole.names());
        let ranges = catalog.ranges(&names(&["d", "b"])).unwrap();
        assert_eq!(ranges.len(), 1, "neighbours are fetched at once");
        let mut source = PartialSource::new(&catalog);
        source.hold(&ranges[0], fetch(&files, &ranges[0])).unwrap();
        for name in ["b", "d"] {
            assert_eq!(source.get(name).unwrap(), whole.get(name).unwrap());
        }
        for name in ["a", "c"] {
            assert_eq!(source.spec(name), whole.spec(name));
            let error = source.get(name).unwrap_err();
            assert!(matches!(error, WeightError::NotHeld { .. }), "{error}");
        }
        assert_eq!(catalog.ranges(&names(&["a", "d"])).unwrap().len(), 2);
        assert_eq!(catalog.ranges(&names(&["a", "c"])).unwrap()[1].file, "2");
    }

    #[test]
    fn what_is_not_there_or_not_whole_is_refused_by_name() {
        let files = files();
        let catalog = catalog(&files);
        let error = catalog.ranges(&names(&["a", "x"])).unwrap_err();
        assert!(
            matches!(&error, WeightError::Missing { name, files } if name == "x" && files == "1, 2")
        );
        let mut source = PartialSource::new(&catalog);
        let range = &catalog.ranges(&names(&["a"])).unwrap()[0];
        let error = source.hold(range, vec![0; 7]).unwrap_err();
        assert!(matches!(
            error,
            WeightError::Length {
                expected: 8,
                found: 7,
                ..
            }
        ));
        let elsewhere = FileRange {
            file: "3".into(),
            bytes: 0..1,
        };
        let error = source.hold(&elsewhere, vec![0]).unwrap_err();
        assert!(matches!(error, WeightError::UnknownFile { .. }));
        let cut = FileHeader::parse("1", &files[0].1[..20]).unwrap_err();
        assert!(matches!(cut, WeightError::Length { found: 20, .. }));
    }

    #[test]
    fn the_fingerprint_needs_no_more_than_a_tensor_at_a_time() {
        let files = files();
        let catalog = catalog(&files);
        let mut builder = FingerprintBuilder::default();
        for name in ["d", "c", "a", "b"] {
            let mut source = PartialSource::new(&catalog);
            let range = &catalog.ranges(&names(&[name])).unwrap()[0];
            source.hold(range, fetch(&files, range)).unwrap();
            builder.add(name, &source.get(name).unwrap());
        }
        let config = br#"{"hidden_size":2}"#;
        let whole = base_fingerprint(&SafetensorsSource::new(files).unwrap(), config).unwrap();
        assert_eq!(builder.finish(config).unwrap(), whole);
    }
}

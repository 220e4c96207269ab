//! A [`WeightSource`] over safetensors files that lie in memory (or are mapped into it).

use super::catalog::Catalog;
use super::header::FileHeader;
use super::{HostTensor, TensorSpec, WeightError, WeightSource};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// One or several safetensors files as one set of tensors. `B` is whatever holds the bytes: `&[u8]`, `Vec<u8>`, a map.
pub struct SafetensorsSource<B> {
    files: Vec<(String, B)>,
    catalog: Catalog,
}

impl<B: AsRef<[u8]>> SafetensorsSource<B> {
    /// Reads every header. A truncated file, a gap between tensors and a tensor held twice are refused by name.
    pub fn new(files: Vec<(String, B)>) -> Result<Self, WeightError> {
        let mut headers = Vec::with_capacity(files.len());
        for (file, bytes) in &files {
            let bytes = bytes.as_ref();
            let header = FileHeader::parse(file, bytes)?;
            header.check_length(file, bytes.len() as u64)?;
            headers.push((file.clone(), header));
        }
        Ok(Self {
            catalog: Catalog::new(headers)?,
            files,
        })
    }

    /// One file.
    pub fn single(file: &str, bytes: B) -> Result<Self, WeightError> {
        Self::new(vec![(file.to_owned(), bytes)])
    }

    /// Several files that must be exactly the shards which `index_json` names.
    pub fn sharded(index_json: &[u8], files: Vec<(String, B)>) -> Result<Self, WeightError> {
        let names = super::shards(index_json)?;
        match names.iter().find(|n| !files.iter().any(|(f, _)| f == *n)) {
            Some(absent) => Err(WeightError::MissingShard {
                file: absent.clone(),
                expected: names.len(),
                found: files.len(),
            }),
            None => Self::new(files),
        }
    }

    /// The `__metadata__` of the files together.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        self.catalog.metadata()
    }

    /// Names and bytes of the files.
    pub fn files(&self) -> &[(String, B)] {
        &self.files
    }
}

impl<B: AsRef<[u8]>> WeightSource for SafetensorsSource<B> {
    fn names(&self) -> Vec<String> {
        self.catalog.names()
    }

    fn spec(&self, name: &str) -> Option<TensorSpec> {
        self.catalog.spec(name)
    }

    fn get(&self, name: &str) -> Result<HostTensor<'_>, WeightError> {
        let (file, entry) = self.catalog.entry(name)?;
        // The file was seen to be as long as its header says: its ranges are within memory.
        let range = entry.range.start as usize..entry.range.end as usize;
        let bytes = self.files[file].1.as_ref().get(range).unwrap_or_default();
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
    use crate::weights::{OwnedTensor, serialize};

    fn file(names: &[&str]) -> Vec<u8> {
        let t = |n: &&str| {
            (
                n.to_string(),
                OwnedTensor::from_f32(vec![2], &[1.0, 2.0]).unwrap(),
            )
        };
        serialize(&names.iter().map(t).collect::<Vec<_>>(), &BTreeMap::new()).unwrap()
    }

    #[test]
    fn reads_several_files_as_one() {
        let s = SafetensorsSource::new(vec![
            ("1".into(), file(&["a", "c"])),
            ("2".into(), file(&["b"])),
        ])
        .unwrap();
        assert_eq!(s.names(), ["a", "b", "c"]);
        assert_eq!(s.get("b").unwrap().to_f32().unwrap(), [1.0, 2.0]);
        assert_eq!(s.file_of("b"), "2");
        assert!(matches!(s.get("d"), Err(WeightError::Missing { files, .. }) if files == "1, 2"));
        assert!(matches!(
            SafetensorsSource::new(vec![("1".into(), file(&["a"])), ("2".into(), file(&["a"]))]),
            Err(WeightError::Duplicate { name, first, second }) if (name.as_str(), first.as_str(), second.as_str()) == ("a", "1", "2")
        ));
    }

    #[test]
    fn every_truncation_and_extension_is_refused() {
        let whole = file(&["a", "b"]);
        for cut in 0..whole.len() {
            match SafetensorsSource::single("m.safetensors", &whole[..cut]) {
                Err(WeightError::Length {
                    found,
                    expected,
                    file,
                }) => {
                    assert_eq!((found as usize, file.as_str()), (cut, "m.safetensors"));
                    assert!(expected > found);
                }
                Err(e) => panic!("cut at {cut}: {e}"),
                Ok(_) => panic!("cut at {cut} was accepted"),
            }
        }
        let longer = [whole.as_slice(), &[0]].concat();
        assert!(matches!(
            SafetensorsSource::single("m", longer),
            Err(WeightError::Length { .. })
        ));
    }

    #[test]
    fn hostile_headers_are_refused() {
        let build = |json: &str, data: usize| {
            let mut b = (json.len() as u64).to_le_bytes().to_vec();
            b.extend(json.as_bytes());
            b.extend(vec![0; data]);
            b
        };
        for (json, data) in [
            (
                r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
                8,
            ),
            (
                r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#,
                4,
            ),
            (
                r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[8,4]}}"#,
                4,
            ),
            (
                r#"{"a":{"dtype":"F32","shape":[18446744073709551615,8],"data_offsets":[0,4]}}"#,
                4,
            ),
            (
                r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
                4,
            ),
            (
                r#"{"a":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}}"#,
                4,
            ),
            (r#"{"__metadata__":{"a":1}}"#, 0),
            ("[]", 0),
        ] {
            assert!(
                SafetensorsSource::single("m", build(json, data)).is_err(),
                "{json}"
            );
        }
        let mut huge = u64::MAX.to_le_bytes().to_vec();
        huge.extend([0; 8]);
        assert!(SafetensorsSource::single("m", huge).is_err());
    }

    #[test]
    fn a_missing_shard_is_named() {
        let index = br#"{"weight_map":{"a":"1","b":"2"}}"#;
        assert!(matches!(
            SafetensorsSource::sharded(index, vec![("1".into(), file(&["a"]))]),
            Err(WeightError::MissingShard { file, expected: 2, found: 1 }) if file == "2"
        ));
    }
}
